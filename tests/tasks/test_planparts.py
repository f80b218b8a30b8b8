"""The parts of `emloom plan`: splits, kinds of labels, choices, words, and how little is read."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import Array, ArrayVolume, VolumeInfo
from emloom.nn.crops import TrainingVolume, possible_starts
from emloom.tasks import planlabels, planlook
from emloom.tasks.pipelinespec import NeuronsStage, PipelineJob, QcStage, TrainedHere, TruthSpec
from emloom.tasks.planlabels import LabelsLook, extent, look_at_labels
from emloom.tasks.planlook import RawLook, look_at_raw, spread
from emloom.tasks.planmachine import LEAST_STEPS, MOST_STEPS, Machine, steps_within
from emloom.tasks.plannetwork import Scale, crops_for, neighborhood_for
from emloom.tasks.planneurons import Paths, course_for, neurons_job
from emloom.tasks.plansplit import Split, Tally, Wish, split
from emloom.tasks.planwords import Notes, annotated
from emloom.tasks.segmentspec import SegmentSpec
from tests.tasks.planned import GPU, MACHINE, tissue

CUBES, SECTIONS = Grid((10.0, 10.0, 10.0)), Grid((40.0, 5.0, 5.0))


# ---- what is read -----------------------------------------------------------------------------------------------


class Counting:
    """A volume of any size that counts what is read of it."""

    def __init__(self, info: VolumeInfo, fill: Any) -> None:
        self.info, self.fill, self.read_vox = info, fill, 0

    def read(self, box: Box) -> Array:
        self.read_vox += box.size
        return self.fill(box)

    def write(self, box: Box, array: Array) -> None:
        raise AssertionError


def test_of_a_large_volume_a_bounded_sample_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (planlook, planlabels):
        monkeypatch.setattr(module, "WHOLE_VOX", 4096)
    monkeypatch.setattr(planlook, "_BOX_VOX", {True: (4, 16, 16), False: (16, 16, 16)})
    shape = (100_000, 100_000, 100_000)
    raw = Counting(
        VolumeInfo(shape, np.dtype(np.uint8), CUBES, kind="raw"),
        lambda box: np.broadcast_to(np.arange(box.shape[2], dtype=np.uint8), box.shape).copy(),
    )
    found = look_at_raw(raw)
    assert raw.read_vox == found.read_vox == 27 * 16**3
    assert found.share < 1e-9

    def half(box: Box) -> Array:
        z, y, x = np.meshgrid(*(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)), indexing="ij")
        return np.where(x < 50_000, 1 + z // 8 + y // 8 * 7 + x // 8 * 31, 0).astype(np.uint32)

    labels = Counting(VolumeInfo(shape, np.dtype(np.uint32), CUBES, kind="labels"), half)
    look = look_at_labels(labels)
    assert labels.read_vox < 10**6
    assert look.box.start == (0, 0, 0)
    assert 40_000 < look.box.stop[2] <= 50_000
    assert look.kind == "neurons"


def test_boxes_of_a_sample_lie_inside_and_reach_both_ends() -> None:
    whole = Box((5, 6, 7), (50, 60, 20))
    boxes = spread(whole, (10, 10, 30), 3)
    assert all(whole.contains(box) for box in boxes)
    assert len(boxes) == 9
    assert boxes[0].start == whole.start
    assert boxes[-1].stop == whole.stop
    assert not any(a.meets(b) for a, b in combinations(boxes, 2))


def test_what_was_never_recorded_is_no_grey_value() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(100, 200, (8, 64, 64), np.uint8)
    array[:, :, :16] = 0
    found = look_at_raw(ArrayVolume(array, CUBES))
    assert (found.low, found.high) == (100.0, 199.0)
    assert found.void == 0.25
    half = look_at_raw(ArrayVolume((array / 255).astype(np.float32), CUBES))
    assert 0.7 < half.high < 0.8


# ---- labels -----------------------------------------------------------------------------------------------------


def look(array: Array, grid: Grid = CUBES) -> LabelsLook:
    return look_at_labels(ArrayVolume(array, grid, kind="labels"))


def test_kinds_of_labels() -> None:
    _, neurons = tissue((40, 64, 64), CUBES.voxel_size_nm)
    assert look(neurons).kind == "neurons"
    assert look(neurons).glued == 1.0
    assert look(np.zeros((8, 8, 8), np.uint8)).kind == "nothing"
    assert look((neurons == neurons[20, 32, 32]).astype(np.uint8)).kind == "mask"
    classes = (np.indices(neurons.shape) // 4).sum(axis=0) % 3 + 1
    assert look(classes.astype(np.uint8)).kind == "classes"
    lonely = np.zeros_like(neurons)
    for number, (z, y, x) in enumerate(np.ndindex(2, 3, 3), start=1):
        lonely[20 * z : 20 * z + 5, 20 * y + 5 : 20 * y + 9, 20 * x + 5 : 20 * x + 9] = number
    assert look(lonely).kind == "objects"


def test_the_width_of_a_rod_is_its_width() -> None:
    y, x = np.indices((40, 64))
    rods = np.zeros((40, 40, 64), np.uint32)
    for number, centre in enumerate((10, 30, 50), start=1):
        rods[:, (y - 20) ** 2 + (x - centre) ** 2 <= 8**2] = number
    assert look(rods).width_nm == pytest.approx(165, abs=15)
    assert look(rods, Grid((60.0, 10.0, 10.0))).width_nm == pytest.approx(165, abs=15)


def test_a_zero_between_is_a_membrane_and_one_far_away_is_not() -> None:
    _, labels = tissue((40, 64, 64), CUBES.voxel_size_nm)
    walls = labels.copy()
    walls[:, :, 1:][labels[:, :, 1:] != labels[:, :, :-1]] = 0
    walls[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    assert look(walls).glued < 0.1
    assert look(walls).far_zeros == 0.0
    walls[:, :, :24] = 0
    assert extent(ArrayVolume(walls, CUBES)).start[2] == 24
    walls[:, :2, :2] = 1
    assert look(walls).far_zeros > 0.3


# ---- split ------------------------------------------------------------------------------------------------------


@given(
    st.tuples(*(st.integers(60, 400) for _ in range(3))),
    st.integers(0, 30),
    st.integers(0, 3),
)
@settings(max_examples=25)
def test_a_split_keeps_its_promises(shape: tuple[int, int, int], gap: int, seed: int) -> None:
    region = Box((3, 4, 5), shape)
    wish = Wish(region, (gap,) * 3, [(32, 32, 32), (16, 16, 16)], (24,) * 3, (128,) * 3, 0.9)

    def tally(box: Box) -> Tally:
        rng = np.random.default_rng((seed, *box.start))
        return Tally(float(rng.uniform(0.5, 1)), int(rng.integers(1, 60)), float(rng.uniform(0.05, 0.6)))

    try:
        found = split(wish, tally)
    except InputError:
        assert min(shape) < 3 * gap + 64
        return
    boxes = [*found.validation, *found.test]
    assert found.validation
    assert all(region.contains(box) for box in boxes)
    assert not any(a.grow(wish.gap).meets(b) for a, b in combinations(boxes, 2))
    volume = TrainingVolume(_nothing(region), None, region, tuple(box.grow(wish.gap) for box in boxes))
    assert possible_starts(volume, found.crop) > 0
    assert split(wish, tally) == found


def _nothing(region: Box) -> Counting:
    return Counting(VolumeInfo(region.stop, np.dtype(np.uint8), CUBES), None)


def test_a_box_filled_by_one_object_and_one_without_synapses_are_avoided() -> None:
    region = Box((0, 0, 0), (30, 400, 400))
    wish = Wish(region, (5, 20, 20), [(14, 96, 96)], (20, 64, 64), (40, 256, 256), 0.8)
    bad = {(0, 0)}

    def tally(box: Box) -> Tally:
        soma = (box.start[1], box.start[2]) in bad
        return Tally(0.8, 30, 0.9 if soma else 0.1, 0 if box.start[1:] == (0, 264) else 3)

    found = split(wish, tally)
    starts = {box.start[1:] for box in (*found.validation, *found.test)}
    assert (0, 0) not in starts
    assert all(box.shape[0] == 30 for box in found.validation)


# ---- choices ----------------------------------------------------------------------------------------------------


def test_offsets_reach_alike_along_every_axis() -> None:
    for size, width in (
        ((10.0,) * 3, 126.0),
        ((30.0, 6.0, 6.0), 178.0),
        ((50.0, 4.0, 4.0), 86.0),
        ((32.0,) * 3, 400.0),
    ):
        offsets = neighborhood_for(Scale(size, width), 76.0)
        assert len(set(offsets)) == len(offsets)
        assert {(-1, 0, 0), (0, -1, 0), (0, 0, -1)} <= set(offsets)
        reach = [max(-o[axis] * size[axis] for o in offsets) for axis in range(3)]
        assert max(reach) <= max(2 * size[0], 1.25 * 76)


def test_crops_fit_the_region_and_the_lattice() -> None:
    for machine in (MACHINE, GPU):
        for scale in (Scale((10.0,) * 3, 126.0), Scale((40.0, 4.0, 4.0), 90.0)):
            crops = crops_for(scale, (12, 70, 70) if scale.flat else (70, 70, 70), machine)
            assert crops == sorted(crops, reverse=True)
            for crop in crops:
                assert all(c % step == 0 for c, step in zip(crop, scale.lattice, strict=True))
                assert max(crop) <= 70


@given(st.floats(1e-3, 100), st.floats(0.1, 1e4))
def test_steps_keep_to_the_budget(seconds: float, minutes: float) -> None:
    steps = steps_within(MACHINE, seconds, minutes)
    assert LEAST_STEPS <= steps <= MOST_STEPS[False]
    assert steps == LEAST_STEPS or steps * seconds <= 60 * minutes * (1 + 1e-9)


sizes = st.sampled_from(
    [(10.0, 10.0, 10.0), (8.0, 8.0, 8.0), (30.0, 6.0, 6.0), (47.5, 4.6, 4.6), (28.0, 22.48, 22.48)]
)
looks = st.builds(
    LabelsLook,
    st.just(Box((0, 0, 0), (60, 300, 300))),
    st.just(5_400_000),
    st.integers(2, 500),
    st.integers(2, 500),
    st.floats(0, 0.7),
    st.floats(0, 1),
    st.floats(0.4, 1),
    st.floats(0, 1),
    st.one_of(st.just(0.0), st.floats(20, 2000)),
)


@given(
    sizes,
    looks,
    st.sampled_from([MACHINE, GPU, Machine(1, 1.0)]),
    st.floats(0.5, 500),
    st.sampled_from(["raw.zarr", "s3://bucket/a b/raw.zarr", "it's: #odd.h5/raw"]),
    st.booleans(),
)
@settings(max_examples=12)
def test_the_file_parses_back_to_the_planned_value(
    size: tuple[float, float, float], labels: LabelsLook, machine: Machine, minutes: float, raw: str, part: bool
) -> None:
    info = VolumeInfo((60, 300, 320), np.dtype(np.uint8), Grid(size), kind="raw")
    seen = RawLook(info, 1000, 12.0, 211.0, 0.02, 0.07)
    region = Box((0, 0, 10), (60, 300, 300)) if part else info.box
    course = course_for(size, labels, region, machine)
    boxes = (Box((0, 0, 10), (60, 64, 64)), Box((0, 200, 200), (60, 64, 64)))
    cut = Split(boxes[:1], boxes[1:], (16, 32, 32), 0.5, (Tally(0.9, 9, 0.1), Tally(0.8, 7, 0.2)))
    paths = Paths("no: 1", raw, f"{raw}-labels", f"{raw}-known" if part else None, size if part else None)
    made = neurons_job(paths, seen, course, cut, machine, minutes)
    stage = NeuronsStage(source=TrainedHere(job=made.job))
    job = PipelineJob(name="on", raw=raw, qc=QcStage(), neurons=stage, truth=TruthSpec(labels=f"{raw}-labels"))
    notes = made.notes.below("neurons", "source", "job")
    text = annotated(job, notes, ("head",), ("tail: [",))
    assert PipelineJob.from_yaml(text) == job
    assert max(map(len, text.splitlines())) < 200


# ---- words ------------------------------------------------------------------------------------------------------


def test_a_reason_stands_above_what_it_explains_even_where_that_is_the_default() -> None:
    notes = Notes({("fragments", "per_section"): "why", ("thresholds",): "these\nand # more"})
    text = annotated(SegmentSpec(), notes)
    lines = text.splitlines()
    assert lines[lines.index("  # why") + 1] == "  per_section: false"
    assert SegmentSpec.from_yaml(text) == SegmentSpec()
    assert annotated(SegmentSpec(), {}) == "\n" or SegmentSpec.from_yaml("{}") == SegmentSpec()


def test_below_moves_reasons_down() -> None:
    assert Notes({("a",): "x"}).below("b", 0) == {("b", 0, "a"): "x"}
    assert replace(Tally(0.5, 8, 0.1), sites=0).badness(0.5) > Tally(0.5, 8, 0.1).badness(0.5)
