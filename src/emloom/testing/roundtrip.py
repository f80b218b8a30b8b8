"""The round trip: a damaged stack is aligned, repaired and segmented, and its segments are brought back.

::

    phantom --damage--> damaged --align, repair--> fixed --network--> segments --invert--> on the damaged stack
       └───────────network──────────> segments ───────the true map──────────────────────> on the damaged stack

Both segmentations are scored on the same voxels, those of the damaged stack, against the damaged labels. The
measure is the Rand F-score (1 - adapted Rand error). Where a section is lost nobody can know how it lay, so what
is made up for it can be right and still not come back to the pixel: scores are told with and without such
sections.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.io.volume import Volume, VolumeInfo
from emloom.metrics.contingency import contingency
from emloom.metrics.overlap import overlap_scores
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.ops.affinities import neighborhood
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.neurons import run
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import RepairJob
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmentspec import SeededSpec, SegmentSpec
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import BadSections, CrackDamage, DamageSpec, ShiftDamage
from emloom.testing.phantom import NoiseSpec, Phantom, PhantomSpec, write_phantom

Ids = NDArray[Any]

SEGMENTATION = SegmentSpec(fragments=SeededSpec(seed_distance_vox=10))
THRESHOLD = 0.3
LOST, TORN = (4, 32), (14, 23)
"""Sections. A phantom's tissue changes all at once where its cells end, near 9, 18 and 27: none of those."""


def tissue(seed: int = 2, sections: int = 36) -> PhantomSpec:
    """Return serial sections of 24 nm, with pixels of 4 nm and membranes of three."""
    return PhantomSpec(
        shape=(sections, 448, 448),
        voxel_size_nm=(24.0, 4.0, 4.0),
        seed=seed,
        neurite_nm=220.0,
        membrane_nm=12.0,
        tortuosity=0.8,
        noise=NoiseSpec(sensor=6.0, sections=7.0),
    )


def misfortunes(seed: int) -> DamageSpec:
    """Return what happens to these sections: all are shifted, of 36 two are lost and two torn."""
    return DamageSpec(
        seed=seed,
        margin_px=-32,
        shift=ShiftDamage(jitter_px=3.0, walk_px=1.0, whole=True),
        cracks=CrackDamage(sections=TORN, gap_px=16.0),
        bad=BadSections(sections=LOST, kinds=("blank", "black")),
    )


class RoundTrip:
    """A damaged stack on disk, what it was, and what is made of it.

    Args:
        folder: empty; everything is written there.
        of: the undamaged tissue.
        damage: what happens to it; its `bad.sections` are the lost ones.
    """

    def __init__(self, folder: Path, of: PhantomSpec | None = None, damage: DamageSpec | None = None) -> None:
        self.folder = folder
        self.phantom = Phantom(of or tissue())
        self.damage = damage or misfortunes(1)
        self.damaged = Damaged(self.phantom, self.damage)
        write_damaged(self.damaged, folder / "damaged")
        self.labels = whole(self.path("damaged/labels.zarr"))
        self.seen = np.ones(self.labels.shape, np.bool_)
        self.seen[list(self.damaged.bad)] = False

    def path(self, name: str) -> str:
        """Return the path of something in the folder."""
        return str(self.folder / name)

    @cached_property
    def fixed(self) -> str:
        """The folder of the aligned and repaired stack, its labels with it: all that was seen of them."""
        align(AlignJob(raw=self.path("damaged/raw.zarr"), output=self.path("aligned")))
        shown = self.damaged.labels
        assert shown is not None
        # What a network could know: nothing of lost sections. Repair has to make that up, too.
        store(self.path("known.zarr"), shown.info, np.where(self.seen, self.labels, 0))
        labels = self.moved("known.zarr", self.path("aligned"), "apply")
        repair(RepairJob(raw=self.path("aligned"), output=self.path("fixed"), labels=labels))
        return self.path("fixed")

    def moved(self, name: str, by: str, direction: Literal["apply", "invert"]) -> str:
        """Move labels by a map; return where they are."""
        output = self.path(f"{Path(name).stem}-{direction}.zarr")
        return str(
            move_volume(MoveJob(source=self.path(name), by=by, output=output, direction=direction, what="labels"))
        )

    def back(self, name: str, segments: Ids, by: str) -> Ids:
        """Return segments of the fixed stack (or of the undamaged one, by the true map) on the damaged stack."""
        grid = read_stackmap(by).target.grid
        store(self.path(f"{name}.zarr"), VolumeInfo(segments.shape, segments.dtype, grid, kind="labels"), segments)
        return whole(self.moved(f"{name}.zarr", by, "invert"))

    def score(self, segments: Ids, only_seen: bool = False) -> float:
        """Return the Rand F-score of segments of the damaged stack; what has no true label, a gap, does not count.

        Args:
            segments: on the damaged stack.
            only_seen: leave lost sections out.
        """
        truth = np.where(self.seen, self.labels, 0) if only_seen else self.labels
        return 1.0 - overlap_scores(contingency(truth, segments)).adapted_rand_error

    def network_scores(self, model: str, work: Path, only_seen: bool) -> tuple[float, float, float]:
        """Return the scores of a network on the undamaged stack, on the fixed one, and on the damaged one.

        Args:
            model: checkpoint.
            work: folder where predictions are kept, to be asked again.
            only_seen: leave lost sections out.
        """
        before = self._segments(model, work, "undamaged")
        after = self._segments(model, work, "fixed")
        naive = self._segments(model, work, "damaged")
        return (
            self.score(before, only_seen),
            self.score(after, only_seen),
            self.score(naive, only_seen),
        )

    def _segments(self, model: str, work: Path, of: str) -> Ids:
        """Return what a network makes of a stack, on the damaged one."""
        kept = work / f"{of}.npy"
        if kept.exists():
            return np.asarray(np.load(kept))
        if of == "undamaged":
            raw = self.phantom.raw
            store(self.path("tissue.zarr"), raw.info, raw.read(raw.info.box))
        if of == "fixed":
            _ = self.fixed  # made when it is first asked for
        path = {"undamaged": "tissue.zarr", "fixed": "fixed/raw.zarr", "damaged": "damaged/raw.zarr"}[of]
        segments = segmented(self.path(path), model, str(work / f"{of}.zarr"))
        if of != "damaged":
            segments = self.back(of, segments, self.fixed if of == "fixed" else self.path("damaged/truth"))
        np.save(kept, segments)
        return segments


def trained(folder: Path, steps: int, seed: int = 1) -> str:
    """Train a small network on undamaged tissue of another seed; return the model.

    Args:
        folder: for tissue and training.
        steps: of training; 300 take two minutes on two cores.
        seed: of that tissue and of the training.
    """
    write_phantom(tissue(seed, sections=40), folder / "lesson")
    flat, cubes = ((1, 3, 3), (3, 3, 3)), ((3, 3, 3), (3, 3, 3))
    job = NeuronsJob(
        name="lesson",
        data=(
            StackSpec(
                raw=str(folder / "lesson" / "raw.zarr"),
                labels=str(folder / "lesson" / "labels.zarr"),
                validation=(BoxSpec(start=(0, 0, 0), shape=(16, 128, 128)),),
                test=(BoxSpec(start=(20, 0, 192), shape=(20, 128, 128)),),
            ),
        ),
        objective=NeuronsObjective(variant="affinities", neighborhood=neighborhood(1)),
        network=UNetSpec(
            stem=(1, 4, 4), features=(12, 24, 48), factors=((1, 2, 2), (2, 2, 2)), kernels=(flat, cubes, cubes)
        ),
        training=TrainingSpec(
            steps=steps,
            seed=seed,
            crop_shape_vox=(14, 128, 128),
            optimizer=OptimizerSpec(learning_rate=0.005),
            validate_every=max(1, steps // 4),
        ),
        segmentation=SEGMENTATION,
    )
    run(job, folder / "job", Hardware("cpu", 1, 0), until="train")
    return str(folder / "job" / "train" / "model.safetensors")


def segmented(raw: str, model: str, output: str) -> Ids:
    """Return what a network and agglomeration make of a stack; predictions are stored at `output`."""
    predict_volume(PredictJob(raw=raw, model=model, output=output), Engine())
    said = open_volume(f"{output}/affinities")
    assert said.info.neighborhood is not None
    tree = grow_tree(said.read(said.info.box), said.info.neighborhood, said.info.grid, SEGMENTATION)
    return tree.at(THRESHOLD)


def whole(path: str) -> NDArray[Any]:
    """Return all voxels of a volume."""
    volume = open_volume(path)
    return volume.read(volume.info.box)


def store(path: str, info: VolumeInfo, values: NDArray[Any]) -> Volume:
    """Store an array as a volume."""
    volume = create_volume(path, info)
    volume.write(info.box, values)
    return volume
