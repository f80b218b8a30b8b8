"""What `emloom plan` makes of annotated synapses: partners from points, clefts from a volume.

Points with partners (a table, a CREMI file, a tracing) teach pre and post sites; a volume of clefts, which has no
sides, teaches where clefts are, and segments beside them become partners. The boxes that are held out are those of
the neurons, so that what is scored in the end was seen by neither network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.skeletons import voxels_containing
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.synapsetable import ORIENTED
from emloom.io.volume import Volume
from emloom.nn.augment import AugmentSpec
from emloom.nn.crops import check_same_grid
from emloom.nn.model import ModelSpec
from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.tasks.data import BoxSpec, MarksSpec, StackSpec
from emloom.tasks.planlook import is_flat
from emloom.tasks.planmachine import Machine, steps_within, validate_every, weigh
from emloom.tasks.planneurons import Paths
from emloom.tasks.plansplit import Split
from emloom.tasks.planwords import Notes
from emloom.tasks.synapsedata import SynapseStackSpec
from emloom.tasks.synapsejob import CleftsJob, PartnersJob
from emloom.tasks.synapsesource import CREMI, first_rows, read_source

_NARROW = {False: (16, 32, 64), True: (32, 64, 128)}
_CLEFT_VOX = 10
_RADIUS_NM = 50.0


@dataclass(frozen=True, eq=False)
class SynapseLook:
    """What is known of annotated synapses.

    Attributes:
        path: of the table or the volume.
        voxels: int64 [n, 3], the voxel of the raw of every synapse with both sites in it; of a volume none.
        outside: synapses with a site outside the raw.
        oriented: whether it is known which side is pre.
        clefts: the volume of clefts, where it is one.
    """

    path: str
    voxels: NDArray[np.int64]
    outside: int
    oriented: bool
    clefts: Volume | None

    def inside(self, box: Box) -> int:
        """Count the synapses in a box of the raw: pre sites, or pieces of clefts."""
        if self.clefts is None:
            return int(((self.voxels >= box.start) & (self.voxels < box.stop)).all(axis=1).sum())
        pieces = cc3d.connected_components(self.clefts.read(box) != 0, connectivity=26)
        return int((np.bincount(pieces.ravel())[1:] >= _CLEFT_VOX).sum())

    @property
    def kind(self) -> str:
        """What can be learned."""
        return "partners" if self.clefts is None else "clefts"


def look_at_synapses(path: str, raw: Volume) -> SynapseLook:
    """Look at annotated synapses on a raw stack.

    Raises:
        InputError: it is neither a file of synapses nor a volume of clefts on the grid of the raw, or holds
        nothing.
    """
    size = raw.info.grid.voxel_size_nm
    if _is_volume(path):
        clefts = open_volume(path, voxel_size_nm=size, kind="labels")
        require_labels(clefts)
        check_same_grid(raw, clefts)
        return SynapseLook(path, np.zeros((0, 3), np.int64), 0, True, clefts)
    source = read_source(path, size)
    table = source.table
    sides = [voxels_containing(raw.info.grid, points) for points in (table.pre_nm, table.post_nm)]
    inside = [((v >= 0) & (v < np.array(raw.info.shape))).all(axis=1) for v in sides]
    kept = inside[0] & inside[1]
    if not kept.any():
        raise InputError(
            f"{path}: none of its {len(table)} synapses lies in {raw.info.source}: check units (nm) and offsets"
        )
    heads = first_rows(table.polyads[kept])
    return SynapseLook(path, sides[0][kept][heads], int((~kept).sum()), source.words.get(ORIENTED) != "no", None)


def _is_volume(path: str) -> bool:
    """Return whether a path names a volume, rather than a file of points: an inner name, or another format."""
    ending = Path(path).suffix.lower()
    return (
        ending not in (*CREMI, ".parquet", ".csv", ".nml", ".zip", ".nmx")
        and not (Path(path) / "synapses.parquet").exists()
    )


@dataclass(frozen=True)
class Ground:
    """What a synapse job stands on: paths as they are written, and what was chosen for neurons.

    Attributes:
        paths: of raw and labels; balls are clipped to these.
        region: voxels of the raw where labels are, and synapses are looked for; None: everywhere.
        split: held-out boxes.
        grey: how grey values are scaled.
        augment: what happens to samples.
    """

    paths: Paths
    region: Box | None
    split: Split
    grey: Preprocessing
    augment: AugmentSpec


def why_not(look: SynapseLook, split: Split) -> str | None:
    """Say why these synapses cannot be learned; None where they can."""
    if look.clefts is None and not look.oriented:
        return f"{look.path} does not say which side of a contact is pre, so sides cannot be learned from it"
    if not sum(look.inside(box) for box in split.validation):
        return (
            f"no validation box holds a synapse of {look.path}, so no checkpoint could be chosen; annotate "
            f"more, or "
            "choose boxes by hand"
        )
    return None


def synapse_job(
    look: SynapseLook, on: Ground, size_nm: tuple[float, float, float], machine: Machine, minutes: float
) -> tuple[PartnersJob | CleftsJob, Notes]:
    """Return the job that learns synapses, and why it is as it is."""
    flat = is_flat(size_nm)
    radius = max(_RADIUS_NM, float(5 * round(1.5 * min(size_nm) / 5)))
    objective: CleftsObjective | PartnersObjective = (
        PartnersObjective(pre_radius_nm=radius, post_radius_nm=radius)
        if look.clefts is None
        else CleftsObjective()
    )
    network: BackboneSpec = UNetSpec.lean(not flat).model_copy(
        update={"features": _NARROW[machine.gpu is not None]}
    )
    model = ModelSpec(objective=objective, network=network, preprocessing=on.grey, voxel_size_nm=size_nm)
    weight = weigh(model, on.split.crop)
    steps = steps_within(machine, machine.step_seconds(weight.multiplied), minutes)
    around = "sites" if look.clefts is None else "labels"
    training = TrainingSpec(
        steps=steps,
        crop_shape_vox=on.split.crop,
        validate_every=validate_every(steps),
        optimizer=OptimizerSpec(learning_rate=2e-3),
        sampling=Foreground(around=around, probability=0.9),
        augment=on.augment,
    )
    notes = _notes(look, radius, weight.parameters, minutes)
    boxes = {
        part: tuple(BoxSpec(start=box.start, shape=box.shape) for box in found)
        for part, found in (("validation", on.split.validation), ("test", on.split.test))
    }
    gap = max(n * s for n, s in zip(objective.context_vox(Grid(size_nm)), size_nm, strict=True))
    shared = {
        "raw": on.paths.raw,
        "voxel_size_nm": on.paths.voxel_size_nm,
        "region": None if on.region is None else BoxSpec(start=on.region.start, shape=on.region.shape),
        "marks": MarksSpec(mask=on.paths.known),
        "gap_nm": float(gap),
        **boxes,
    }
    chosen = {
        "name": f"{on.paths.name}-synapses",
        "network": network,
        "preprocessing": on.grey,
        "training": training,
    }
    if isinstance(objective, CleftsObjective):
        return CleftsJob(data=(StackSpec(labels=look.path, **shared),), objective=objective, **chosen), notes
    outside = "omit" if look.outside else "error"
    stack = SynapseStackSpec(synapses=look.path, neurons=on.paths.labels, outside=outside, **shared)
    return PartnersJob(data=(stack,), objective=objective, **chosen), notes


def _notes(look: SynapseLook, radius: float, parameters: int, minutes: float) -> Notes:
    """Return why the job is as it is."""
    notes = Notes()
    if look.clefts is None:
        notes["objective", "variant"] = (
            f"{len(look.voxels)} annotated pre sites with partners: pre and post sites are learned, as balls"
        )
        notes["objective", "pre_radius_nm"] = f"balls of {radius:g} nm: several voxels wide, well within a synapse"
        if look.outside:
            notes["data", 0, "outside"] = (
                f"{look.outside} contacts have a site outside of the raw: they are left out"
            )
    else:
        notes["objective", "variant"] = (
            "a volume of clefts: it has no sides, so clefts are learned, and segments beside one become partners"
        )
    notes["data", 0, "validation"] = "the boxes that are held out of the training of neurons, too"
    notes["data", 0, "gap_nm"] = "as far as targets look"
    notes["network", "features"] = (
        f"{parameters / 1e6:.1f} M parameters: synapses are few, a larger net learns no more"
    )
    notes["training", "steps"] = f"what fits into {minutes:.0f} minutes on this machine, as an estimate"
    notes["training", "sampling"] = "synapses are rare: nine crops of ten are drawn around one"
    return notes
