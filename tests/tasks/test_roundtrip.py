"""The round trip: a damaged stack is aligned, repaired and segmented, its segments brought back to where they came
from, and they are as good as those of the stack that was never damaged.

Both segmentations are scored on the same voxels, those of the damaged stack, against the damaged labels: that
of the undamaged stack is carried there by the true map. The measure is the Rand F-score (1 - adapted Rand error).
Where a section is lost nobody can know how it lay, so what is made up for it can be right and still not come back
to the pixel: it is scored, too, but held to less. What other draws of the damage cost is in docs/alignment.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.io.volume import Volume, VolumeInfo
from emloom.metrics.contingency import contingency
from emloom.metrics.overlap import OverlapScores, overlap_scores
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.ops.affinities import neighborhood
from emloom.ops.labels import split_disconnected
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob, ShiftModel
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.pipeline import run
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import BEYOND, RepairJob
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmentspec import SeededSpec, SegmentSpec
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import BadSections, CrackDamage, DamageSpec, ShiftDamage
from emloom.testing.displacement import displacement_error
from emloom.testing.phantom import Phantom, PhantomSpec, write_phantom

Array = NDArray[Any]

TISSUE = PhantomSpec(
    shape=(28, 320, 320),
    voxel_size_nm=(24.0, 8.0, 8.0),
    seed=2,
    neurite_nm=220.0,
    membrane_nm=12.0,
    tortuosity=0.8,
    noise=6.0,
    section_jitter=7.0,
)
# A phantom's tissue changes all at once near sections 9 and 19, where its cells end: no place for further damage.
LOST = (3, 12, 22)
TORN = (6, 15)
DAMAGE = DamageSpec(
    seed=1,
    margin_px=-32,
    shift=ShiftDamage(jitter_px=3.0, walk_px=1.0),
    cracks=CrackDamage(sections=TORN, gap_px=16.0),
    bad=BadSections(sections=LOST, kinds=("blank", "black", "constant")),
)
NEAREST = neighborhood(1)
SEGMENTATION = SegmentSpec(fragments=SeededSpec(seed_distance_vox=10))
WITHIN = {True: 0.02, False: 0.05}
"""Share of the score that may be lost, over what was seen and over all, lost sections included."""


class Scene:
    """A damaged stack on disk, what it was, and what was made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.phantom = Phantom(TISSUE)
        self.damaged = Damaged(self.phantom, DAMAGE)
        write_damaged(self.damaged, folder / "damaged")
        self.labels = whole(self.path("damaged/labels.zarr"))
        self.seen = np.ones(self.labels.shape, bool)
        self.seen[list(LOST)] = False

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def restored(self) -> str:
        """Align and repair the stack, its labels with it; return the folder of the repaired one."""
        if not Path(self.path("fixed")).exists():
            job = AlignJob(
                raw=self.path("damaged/raw.zarr"), output=self.path("aligned"), model=ShiftModel(subpixel=True)
            )
            align(job)
            shown = self.damaged.labels
            assert shown is not None
            # What a network could know: nothing of lost sections. Repair has to make that up, too.
            store(self.path("known.zarr"), shown.info, np.where(self.seen, self.labels, 0))
            labels = self.moved("known.zarr", self.path("aligned"), "apply")
            repair(RepairJob(raw=self.path("aligned"), output=self.path("fixed"), labels=labels))
        return self.path("fixed")

    def moved(self, name: str, by: str, direction: str) -> str:
        """Move labels by a map; return where they are."""
        output = self.path(f"{Path(name).stem}-{direction}.zarr")
        job = MoveJob(source=self.path(name), by=by, output=output, direction=direction, what="labels")  # type: ignore[arg-type]
        return str(move_volume(job))

    def back(self, name: str, segments: Array, by: str, direction: str = "invert") -> Array:
        """Return labels, carried to the damaged stack."""
        info = read_stackmap(by).target if direction == "invert" else read_stackmap(by).source
        made = VolumeInfo(segments.shape, segments.dtype, info.grid, kind="labels")
        store(self.path(f"{name}.zarr"), made, segments)
        return whole(self.moved(f"{name}.zarr", by, direction))

    def score(self, segments: Array, only_seen: bool = False) -> OverlapScores:
        """Return how good segments of the damaged stack are; what has no true label, a gap, does not count."""
        truth = np.where(self.seen, self.labels, 0) if only_seen else self.labels
        return overlap_scores(contingency(truth, segments))


def whole(path: str) -> Array:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def store(path: str, info: VolumeInfo, values: Array) -> Volume:
    volume = create_volume(path, info)
    volume.write(info.box, values)
    return volume


def f_score(scores: OverlapScores) -> float:
    return 1.0 - scores.adapted_rand_error


def oracle(labels: Array) -> Array:
    """Return what a perfect network and a perfect agglomeration make of what was seen: pieces that touch."""
    return split_disconnected(labels)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("roundtrip"))


def test_sections_are_found_where_they_were(scene: Scene) -> None:
    """Section against section: tissue that runs obliquely cannot be told from slow drift."""
    scene.restored()
    found = displacement_error(read_stackmap(scene.path("aligned")), scene.damaged.truth, scene.damaged.good)
    assert found.median("neighbours") < 0.6
    assert found.p95("neighbours") < 1.5


def test_one_map_leads_from_the_repaired_stack_to_the_raw(scene: Scene) -> None:
    whole_way = read_stackmap(scene.restored())
    assert whole_way.source == scene.damaged.frame
    assert all(whole_way.home(z) == z for z in range(TISSUE.shape[0]))


def test_segments_of_a_perfect_network_come_back(scene: Scene) -> None:
    fixed = scene.restored()
    labels = open_volume(f"{fixed}/labels.zarr")
    segments = oracle(labels.read(labels.info.box))
    back = scene.back("oracle", segments, fixed)
    blind = oracle(np.where(scene.seen, scene.labels, 0))
    for only_seen, lost in WITHIN.items():
        assert f_score(scene.score(back, only_seen)) > 1 - lost
    assert f_score(scene.score(blind)) < 0.8


def test_what_is_invented_is_said(scene: Scene) -> None:
    invented = open_volume(f"{scene.restored()}/invented.zarr")
    codes = invented.read(invented.info.box)
    share = ((codes > 0) & (codes != BEYOND)).mean((1, 2))
    assert all(share[z] > 0.5 for z in LOST)
    assert np.median(np.delete(share, [*LOST, *TORN])) < 0.1
    back = scene.back("codes", codes, scene.restored())
    assert (back[list(LOST)] > 0).mean() > 0.9


# ---- with a network -------------------------------------------------------------------------------------------


def trained(folder: Path) -> str:
    """Train a small network on undamaged tissue of another seed; return the model."""
    lesson = TISSUE.model_copy(update={"shape": (40, 320, 320), "seed": 1})
    write_phantom(lesson, folder / "lesson")
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
        objective=NeuronsObjective(variant="affinities", neighborhood=NEAREST),
        network=UNetSpec(
            stem=(1, 2, 2), features=(12, 24, 48), factors=((1, 2, 2), (2, 2, 2)), kernels=(flat, cubes, cubes)
        ),
        training=TrainingSpec(
            steps=240,
            crop_shape_vox=(14, 64, 64),
            optimizer=OptimizerSpec(learning_rate=0.005),
            validate_every=80,
        ),
        segmentation=SEGMENTATION,
    )
    run(job, folder / "job", Hardware("cpu", 1, 0), until="train")
    return str(folder / "job" / "train" / "model.safetensors")


def segmented(raw: str, model: str, output: str) -> Array:
    predict_volume(PredictJob(raw=raw, model=model, output=output), Engine())
    said = open_volume(f"{output}/affinities")
    assert said.info.neighborhood is not None
    tree = grow_tree(said.read(said.info.box), said.info.neighborhood, said.info.grid, SEGMENTATION)
    return tree.at(0.3)


@pytest.mark.slow
def test_a_repaired_stack_is_segmented_almost_as_well_as_an_undamaged_one(scene: Scene, tmp_path: Path) -> None:
    model, fixed = trained(tmp_path), scene.restored()
    store(scene.path("tissue.zarr"), scene.phantom.raw.info, scene.phantom.raw.read(scene.phantom.raw.info.box))
    before = segmented(scene.path("tissue.zarr"), model, str(tmp_path / "before.zarr"))
    after = segmented(f"{fixed}/raw.zarr", model, str(tmp_path / "after.zarr"))
    naive = segmented(scene.path("damaged/raw.zarr"), model, str(tmp_path / "naive.zarr"))
    # The truth leads from the damaged stack to the undamaged one.
    undamaged = scene.back("before", before, scene.path("damaged/truth"))
    restored = scene.back("after", after, fixed)
    # A perfect network loses next to nothing (above). This one has never seen sections that lie a little wrong,
    # and every merger across a filled gap costs several per cent: it is held to most of what the damage had cost.
    for only_seen in (True, False):
        best, found, worst = (f_score(scene.score(s, only_seen)) for s in (undamaged, restored, naive))
        assert best > 0.9
        assert worst < 0.8 * best
        assert found - worst > 0.6 * (best - worst)
