"""What a detector of artifacts is tried on: a volume, a box of it, and what is known of the patches in it.

===========  ==================================================  ==============================================
tissue       patches                                             truth
===========  ==================================================  ==============================================
painted      of a lattice, inside the box                        by the share of their voxels, as in training
patches      those of the table that lie in the box              what the table says
unlabelled   of a lattice, in the box with planted artifacts,    by the share of damaged and moved voxels
             as often as it is planted
foreign      of a lattice, inside the box                        by its labels, or nothing
===========  ==================================================  ==============================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.open import open_volume
from emloom.io.volume import Volume, cached
from emloom.nn.objectives.artifacts import ArtifactsObjective, PatchClass
from emloom.tasks.artifactjob import ArtifactJob, ForeignTissueSpec, Tissue
from emloom.tasks.data import held_out
from emloom.tasks.plantedtest import DAMAGED, MOVED, planted_box

Part = Literal["validation", "test", "foreign"]


@dataclass(frozen=True)
class Scene:
    """What a detector is tried on.

    Attributes:
        name: of its results.
        part: what it is for.
        raw: ``zyx`` volume.
        box: voxels of it.
        truth: each patch once; None of which something is unknown.
        planted: where artifacts were planted, on the grid of raw; None: nowhere.
        foreign: whether its voxel size may be another than the model's.
    """

    name: str
    part: Part
    raw: Volume
    box: Box
    truth: PatchLabels
    planted: Volume | None = None
    foreign: bool = False


@dataclass(frozen=True)
class Place:
    """Names a scene before it is opened.

    Attributes:
        name: of its results.
        part: what it is for.
        number: of a stack, or of a foreign volume.
        box: of a stack.
        planting: which of several plantings; 0 where nothing is planted.
    """

    name: str
    part: Part
    number: int
    box: Box | None = None
    planting: int = 0


def places(job: ArtifactJob) -> list[Place]:
    """Return everything a job's detector is tried on: validation and test boxes, then foreign volumes."""
    own = []
    for item in held_out(job.data):
        stack = job.data[item.stack]
        if stack.labels is not None or stack.patches is not None:
            own.append(Place(item.name, item.part, item.stack, item.box))
            continue
        own += [
            Place(f"{item.name}_planting_{k}", item.part, item.stack, item.box, k)
            for k in range(job.scoring.plantings)
        ]
    return own + [Place(each.name, "foreign", n) for n, each in enumerate(job.foreign)]


def open_scene(job: ArtifactJob, stacks: list[Tissue], place: Place, lattice: Lattice) -> Scene:
    """Open what a detector is tried on.

    Args:
        job: the job.
        stacks: its opened stacks.
        place: which scene.
        lattice: of the patches.

    Raises:
        InputError: a file is missing or damaged, or no patch lies in the box.
    """
    if place.part == "foreign":
        return _foreign(job, job.foreign[place.number], lattice)
    stack, box = stacks[place.number], place.box
    assert box is not None  # of a stack
    objective = job.objective
    if stack.patches is not None:
        truth = stack.patches.restricted(box)
        if not len(truth):
            raise InputError(
                f"{stack.patches.source} labels no patch in the {place.part} {box}: choose another box"
            )
        return Scene(place.name, place.part, stack.raw, box, truth)
    if stack.labels is not None:
        truth = _painted(objective, stack.raw, stack.labels, stack.mask, box, lattice)
        return Scene(place.name, place.part, stack.raw, box, truth)
    assert objective.plant is not None  # of a valid job
    seed = (job.scoring.seed, place.number, place.planting)
    raw, planted = planted_box(objective.plant, job.preprocessing, stack.raw, box, seed)
    whole = Box.whole(box.shape)
    truth = _of_planted(objective, planted, whole, lattice)
    return Scene(place.name, place.part, raw, whole, truth, planted)


def _foreign(job: ArtifactJob, spec: ForeignTissueSpec, lattice: Lattice) -> Scene:
    raw = open_volume(spec.raw, voxel_size_nm=spec.voxel_size_nm, kind="raw")
    box = raw.info.box if spec.box is None else spec.box.box
    if spec.labels is None:
        starts = _starts(raw, box, lattice)
        truth = PatchLabels(
            raw.info.grid, lattice.shape, starts, job.objective.names[:1], np.full((len(starts), 1), -1, np.int8)
        )
        return Scene(spec.name, "foreign", cached(raw), box, truth, foreign=True)
    labels = cached(open_volume(spec.labels, voxel_size_nm=spec.voxel_size_nm, kind="labels"))
    ids = spec.ids or tuple(int(i) for i in np.unique(labels.read(box)) if i)
    name = job.objective.names[0]
    only = job.objective.model_copy(
        update={"classes": (PatchClass(name=name, ids=ids),), "labels": "painted", "presume_clean": False}
    )
    truth = _painted(only, raw, labels, None, box, lattice)
    return Scene(spec.name, "foreign", cached(raw), box, truth, foreign=True)


def _painted(
    objective: ArtifactsObjective,
    raw: Volume,
    labels: Volume,
    mask: Volume | None,
    box: Box,
    lattice: Lattice,
) -> PatchLabels:
    starts = _starts(raw, box, lattice)
    ids = labels.read(box)
    known = np.ones(box.shape, np.uint8) if mask is None else (mask.read(box) != 0).astype(np.uint8)
    said = []
    for start in starts.tolist():
        at = Box((start[0], start[1], start[2]), lattice.shape).slices(box.start)
        said.append(objective.said_of(ids[at], known[at]))
    return PatchLabels(raw.info.grid, lattice.shape, starts, objective.names, np.array(said, np.int8))


def _of_planted(objective: ArtifactsObjective, planted: Volume, box: Box, lattice: Lattice) -> PatchLabels:
    starts = _starts(planted, box, lattice)
    where = planted.read(box)
    said = np.full((len(starts), len(objective.classes)), -1, np.int8)
    for row, start in enumerate(starts.tolist()):
        seen = where[Box((start[0], start[1], start[2]), lattice.shape).slices(box.start)][0]
        said[row, 0] = objective.with_planted(0, seen == DAMAGED, seen == MOVED)
    return PatchLabels(planted.info.grid, lattice.shape, starts, objective.names, said)


def _starts(raw: Volume, box: Box, lattice: Lattice) -> NDArray[np.int64]:
    inside = lattice.inside(box)
    if inside.is_empty:
        raise InputError(
            f"no patch of {lattice.shape} voxels on the lattice of step {lattice.stride} lies in {box} of "
            f"{raw.info.source}: choose a larger box"
        )
    return lattice.starts(inside)
