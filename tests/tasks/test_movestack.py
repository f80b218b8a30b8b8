"""Moving volumes: back to the bit, blockwise the whole, interpolated once, and never what cannot be moved."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.planar import IDENTITY, Affine, Field, Pieces, Shift
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import read_stackmap, write_stackmap
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.ops.warp import Window, moved_section
from emloom.run.cluster import executor_of
from emloom.run.executor import Serial
from emloom.tasks.classnames import names_of
from emloom.tasks.movescene import Footprint, MoveScene
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.resume import result_status, retry

GRID = Grid((40.0, 4.0, 4.6), (80.0, -12.0, 46.0))
SOURCE = Frame((6, 40, 50), GRID)
TARGET = Frame((7, 60, 64), Grid(GRID.voxel_size_nm, (40.0, -40.0, 0.0)))
HOMES = (0, 1, None, 3, 2, 4, 5)
RNG = np.random.default_rng(1)
BENT = Field(ndimage.gaussian_filter(RNG.normal(0, 1, (2, 7, 8)), (0, 1, 1)).astype(np.float32) * 3, (8.0, 8.0))
PARTS = np.ones(SOURCE.shape[1:], np.uint8)
PARTS[:, 24:], PARTS[:, 22:24] = 2, 0
TORN = Pieces(PARTS, (Shift(6.0, 7.0), Affine(((1.0, 0.01, 6.3), (-0.01, 1.0, 5.5)))))
TURN = Affine(((1.0, 0.05, 8.0), (-0.05, 1.0, 9.0)))
MIXED = StackMap.of(
    SOURCE, TARGET, [Shift(5, 6), TURN, IDENTITY, TORN, BENT.then(Shift(4, 7)), Shift(2.5, 3), BENT], HOMES
)
RAW = RNG.integers(0, 256, SOURCE.shape, np.uint8)
IDS = RNG.integers(2**60, 2**63, SOURCE.shape, np.uint64)


def written(path: Path, array: np.ndarray, grid: Grid = GRID, **more: object) -> str:
    z, y, x = array.shape[-3:]
    channels = array.shape[0] if array.ndim == 4 else None
    info = VolumeInfo((z, y, x), array.dtype, grid, channels, **{"kind": "raw", "chunks": (4, 16, 16), **more})
    create_volume(path, info).write(info.box, array)
    return str(path)


def values(path: Path | str) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def job(source: str, by: Path, output: Path, **more: object) -> MoveJob:
    given = {"source": source, "by": str(by), "output": str(output), "cell_shape_vox": (4, 32, 32)}
    return MoveJob.from_dict(given | more)


def slowly(array: np.ndarray, stackmap: StackMap, method: str) -> np.ndarray:
    """Move every section as a whole, one by one."""
    shape = stackmap.target.shape
    out = np.zeros((*array.shape[:-3], *shape), array.dtype)
    for z in range(shape[0]):
        home = stackmap.home(z)
        if home is not None:
            window = Window((0, 0), shape[1:])
            out[..., z, :, :] = moved_section(array[..., home, :, :], (0, 0), stackmap.map(z), window, method)
    return out


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("move")
    write_stackmap(folder / "fixed" / "map", MIXED)
    written(folder / "raw.zarr", RAW)
    written(folder / "seg.zarr", IDS, kind="labels")
    return folder


# ---- laws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what", "workers"), [("raw.zarr", "volume", 1), ("raw.zarr", "volume", 2), ("seg.zarr", "labels", 1)]
)
def test_blocks_are_the_whole_for_any_workers(here, tmp_path, name, what, workers):
    there = job(str(here / name), here / "fixed", tmp_path / "out.zarr", what=what)
    with executor_of(workers) as executor:
        path = move_volume(there, executor=executor)
    array, method = (IDS, "nearest") if what == "labels" else (RAW, "linear")
    assert np.array_equal(values(path), slowly(array, MIXED, method))
    info = open_volume(path).info
    assert (info.shape, info.dtype, info.kind) == (
        TARGET.shape,
        array.dtype,
        "labels" if what == "labels" else "raw",
    )
    assert info.grid.matches(TARGET.grid)


scenes = st.sampled_from([MIXED, MIXED.inverse(), MIXED.then(MIXED.inverse())])


@settings(max_examples=40, deadline=None)
@given(
    stackmap=scenes, method=st.sampled_from(["linear", "nearest"]), symmetric=st.booleans(), data=st.data(),
    channels=st.sampled_from([None, 2]),
)  # fmt: skip
def test_any_box_is_that_of_the_whole(stackmap, method, symmetric, data, channels):
    """Also of a volume that covers a part of the map's source, or sticks out of it."""
    part = data.draw(boxes(stackmap.source.box.grow(3)))
    shape = part.shape if channels is None else (channels, *part.shape)
    array = np.random.default_rng(2).integers(1, 255, shape, np.uint8)
    volume = ArrayVolume(array, stackmap.source.grid.crop(part))
    if not part.meets(stackmap.source.box):
        with pytest.raises(InputError, match="nothing to be moved"):
            MoveScene.of(volume, stackmap, method)
        return
    scene = MoveScene.of(volume, stackmap, method, fill=3, symmetric=symmetric)
    whole = scene.read(stackmap.target.box)
    box = data.draw(boxes(stackmap.target.box))
    assert np.array_equal(scene.read(box), whole[..., *box.slices()])
    if not symmetric:
        known = part.intersect(stackmap.source.box)
        padded = np.zeros((*shape[:-3], *stackmap.source.shape), np.uint8)
        padded[..., *known.slices()] = array[..., *known.slices(part.start)]
        inside = MoveScene.of(ArrayVolume(np.ones_like(padded), stackmap.source.grid), stackmap, method)
        if method == "nearest":
            slow = slowly(padded, stackmap, method)
            assert np.array_equal(np.where(slow == 0, 3, slow), whole)
        assert not (whole != 3)[inside.read(stackmap.target.box) == 0].any()


@given(stackmap=scenes, data=st.data())
def test_a_footprint_is_where_something_shows(stackmap, data):
    ones = ArrayVolume(np.ones(stackmap.source.shape, np.uint8), stackmap.source.grid)
    box = data.draw(boxes(stackmap.target.box))
    footprint = Footprint(stackmap)
    assert np.array_equal(footprint.read(box), MoveScene.of(ones, stackmap, "nearest").read(box))
    with pytest.raises(InputError, match="cannot be written"):
        footprint.write(box, np.ones(box.shape, np.uint8))


@st.composite
def boxes(draw, within: Box) -> Box:
    low = [draw(st.integers(a, b - 1)) for a, b in zip(within.start, within.stop, strict=True)]
    return Box.of(low, [draw(st.integers(a + 1, b)) for a, b in zip(low, within.stop, strict=True)])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shifts=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=6, max_size=6), grow=st.booleans()
)
def test_whole_shifts_come_back_to_the_bit(shifts, grow):
    """All of it where the canvas grew; else what was not cut off."""
    margin = 9 if grow else 0
    frame = Frame((6, 40 + 2 * margin, 50 + 2 * margin), GRID.crop(Box((0, -margin, -margin), (1, 1, 1))))
    there = StackMap.of(SOURCE, frame, [Shift(y + margin, x + margin) for y, x in shifts])
    moved = MoveScene.of(ArrayVolume(IDS, GRID), there, "nearest").read(frame.box)
    back = MoveScene.of(ArrayVolume(moved, frame.grid), there.inverse(), "nearest").read(SOURCE.box)
    assert np.array_equal(back[back != 0], IDS[back != 0])
    if grow:
        assert np.array_equal(back, IDS)
    else:
        lost = sum(40 * 50 - (40 - abs(y)) * (50 - abs(x)) for y, x in shifts)
        assert (back == 0).sum() == lost


def test_a_composition_is_the_sequence():
    """Whole shifts to the bit; what is interpolated only once is within interpolation of what is, twice."""
    shifts = StackMap.of(SOURCE, TARGET, [Shift(3 + z, 9 - z) for z in range(7)], HOMES)
    more = StackMap.of(TARGET, TARGET, [Shift(z - 3, 1) for z in range(7)], (1, 0, 3, None, 4, 6, 5))
    once = MoveScene.of(ArrayVolume(IDS, GRID), shifts.then(more), "nearest").read(TARGET.box)
    first = MoveScene.of(ArrayVolume(IDS, GRID), shifts, "nearest").read(TARGET.box)
    twice = MoveScene.of(ArrayVolume(first, TARGET.grid), more, "nearest").read(TARGET.box)
    assert (once != 0).sum() == (twice != 0).sum() > 0
    assert np.array_equal(once, twice)

    smooth = ndimage.gaussian_filter(RNG.random(SOURCE.shape), (0, 6, 6))
    bent = StackMap.of(SOURCE, TARGET, [TURN, BENT.then(Shift(8, 8))] * 3 + [TURN], HOMES)
    after = StackMap.of(TARGET, TARGET, [BENT] * 7)
    once = MoveScene.of(ArrayVolume(smooth, GRID), bent.then(after), "linear", fill=np.nan).read(TARGET.box)
    first = MoveScene.of(ArrayVolume(smooth, GRID), bent, "linear", fill=np.nan).read(TARGET.box)
    twice = MoveScene.of(ArrayVolume(first, TARGET.grid), after, "linear", fill=np.nan).read(TARGET.box)
    known = ~np.isnan(once) & ~np.isnan(twice)
    assert known.mean() > 0.3
    assert np.abs(once - twice)[known].max() < 0.02 * np.ptp(smooth)


def test_a_map_that_was_written_moves_as_the_map(here):
    read = read_stackmap(here / "fixed")
    for stackmap in (read, read.inverse().inverse()):
        found = MoveScene.of(ArrayVolume(RAW, GRID), stackmap, "linear").read(TARGET.box)
        assert np.array_equal(found, slowly(RAW, MIXED, "linear"))


class _Counting(ArrayVolume):
    """Counts what is read of it."""

    def read(self, box: Box) -> np.ndarray:
        COUNTS.append(box)
        return super().read(box)


COUNTS: list[Box] = []


def test_only_what_is_needed_is_read_and_neighbours_together():
    frame = Frame((32, 64, 512), Grid((40.0, 4.0, 4.0)))
    near = StackMap.of(frame, frame, [Shift(z % 3, 0.5 * z) for z in range(32)])
    scene = MoveScene.of(_Counting(np.zeros(frame.shape, np.uint8), frame.grid), near, "linear")
    box = Box((0, 0, 256), (32, 64, 64))
    COUNTS.clear()
    scene.read(box)
    assert len(COUNTS) < 4, "sections that lie nearly alike are one read"
    assert sum(read.size for read in COUNTS) < 1.6 * 32 * 67 * 67
    far = StackMap.of(frame, frame, [Shift(0, 300 * (z % 2)) for z in range(32)])
    COUNTS.clear()
    MoveScene.of(_Counting(np.zeros(frame.shape, np.uint8), frame.grid), far, "linear").read(
        Box(box.start, box.shape)
    )
    assert sum(read.size for read in COUNTS) < 1.2 * box.size


# ---- jobs -----------------------------------------------------------------------------------------------------


class _Dies(Serial):
    """Runs two blocks, then the machine is gone."""

    def map(self, function, items):
        for number, attempt in enumerate(super().map(function, items)):
            if number == 2:
                raise KeyboardInterrupt
            yield attempt


def test_a_crash_leaves_no_trace(here, tmp_path):
    one = job(str(here / "raw.zarr"), here / "fixed", tmp_path / "one.zarr")
    two = job(str(here / "raw.zarr"), here / "fixed", tmp_path / "two.zarr")
    path = move_volume(one)
    with pytest.raises(KeyboardInterrupt):
        move_volume(two, executor=_Dies())
    assert not (tmp_path / "two.zarr").exists()
    retry(tmp_path / "two.zarr")
    assert np.array_equal(values(path), values(tmp_path / "two.zarr"))
    assert result_status(tmp_path / "two.zarr", look=True).is_well
    assert move_volume(one) == path, "what is whole is left as it is"
    write_stackmap(tmp_path / "other" / "map", StackMap.identity(SOURCE))
    with pytest.raises(InputError, match="belongs to another job"):
        move_volume(job(str(here / "raw.zarr"), tmp_path / "other", tmp_path / "one.zarr"))
    move_volume(job(str(here / "raw.zarr"), tmp_path / "other", tmp_path / "one.zarr"), discard=True)
    assert np.array_equal(values(path), RAW)


def test_there_and_back(here, tmp_path):
    there = move_volume(job(str(here / "seg.zarr"), here / "fixed", tmp_path / "there.zarr", what="labels"))
    back = move_volume(job(str(there), here / "fixed", tmp_path / "back.zarr", what="labels", direction="invert"))
    found = values(back)
    assert open_volume(back).info.grid.matches(GRID)
    assert np.array_equal(found[0], IDS[0]), "a whole shift"
    assert set(np.unique(found)) <= {0, *np.unique(IDS).tolist()}
    assert (found == 0).mean() < 0.1


def test_like_takes_the_box_of_another_volume(here, tmp_path):
    whole = slowly(RAW, MIXED, "linear")
    box = Box((3, 5, 8), (3, 40, 21))
    like = written(tmp_path / "like.zarr", np.zeros(box.shape, np.uint8), TARGET.grid.crop(box))
    path = move_volume(job(str(here / "raw.zarr"), here / "fixed", tmp_path / "out.zarr", like=like))
    assert np.array_equal(values(path), whole[box.slices()])
    assert open_volume(path).info.grid.matches(TARGET.grid.crop(box))
    far = written(
        tmp_path / "far.zarr", np.zeros((1, 4, 4), np.uint8), Grid(GRID.voxel_size_nm, (4000.0, 0.0, 0.0))
    )
    with pytest.raises(InputError, match="which is only"):
        move_volume(job(str(here / "raw.zarr"), here / "fixed", tmp_path / "no.zarr", like=far))


def test_symmetric_padding_is_that_of_numpy(here, tmp_path):
    margin = 12
    frame = Frame((6, 64, 74), GRID.crop(Box((0, -margin, -margin), (1, 1, 1))))
    shifts = [(3, -4), (0, 0), (-12, 12), (12, -12), (5, 5), (-1, 1)]
    write_stackmap(
        tmp_path / "map", StackMap.of(SOURCE, frame, [Shift(y + margin, x + margin) for y, x in shifts])
    )
    path = move_volume(job(str(here / "raw.zarr"), tmp_path, tmp_path / "out.zarr", outside="symmetric"))
    pad = ((0, 0), (2 * margin, 2 * margin), (2 * margin, 2 * margin))
    padded = np.pad(RAW, pad, mode="symmetric")
    found = values(path)
    for z, (y, x) in enumerate(shifts):
        at = (slice(margin - y, margin - y + 64), slice(margin - x, margin - x + 74))
        assert np.array_equal(found[z], padded[z][at])


def test_channels_and_their_kind_come_along(here, tmp_path):
    four = RNG.integers(0, 256, (3, *SOURCE.shape), np.uint8)
    source = written(tmp_path / "pred.zarr" / "classes", four, kind="probabilities")
    (tmp_path / "pred.zarr" / "provenance.json").write_text('{"spec": {"names": ["axon", "soma", "glia"]}}')
    path = move_volume(job(source, here / "fixed", tmp_path / "out.zarr"))
    assert path.name == "classes"
    assert np.array_equal(values(path), slowly(four, MIXED, "linear"))
    info = open_volume(path).info
    assert (info.channels, info.kind) == (3, "probabilities")
    assert names_of(str(path)) == ("axon", "soma", "glia")


@pytest.mark.parametrize(
    ("array", "kind", "more", "problem"),
    [
        (IDS, "labels", {}, "nothing to interpolate"),
        (IDS, None, {}, "--kind raw"),
        (RAW.astype(np.uint16), None, {}, "--to labels"),
        (IDS, "raw", {}, "convert it to float32"),
        (RAW, "mask", {}, "--to labels"),
        (RAW, "raw", {"what": "labels"}, "--to volume"),
        (RAW.astype(np.float32), None, {"what": "labels"}, "--to volume"),
        (RAW, "raw", {"outside": 256}, "no value 256"),
        (RAW, "raw", {"outside": 0.5}, "no value 0.5"),
        (RAW, "raw", {"outside": "symmetric", "direction": "invert"}, "not to invert volume"),
        (IDS, "labels", {"outside": "symmetric", "what": "labels"}, "not to apply labels"),
        (RAW, "raw", {"by": "nowhere"}, "does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_moved_is_refused(here, tmp_path, array, kind, more, problem):
    source = written(tmp_path / "in.zarr", array, kind=kind)
    with pytest.raises(InputError, match=problem):
        move_volume(job(source, here / "fixed", tmp_path / "out.zarr").model_copy(update=more))
    assert os.listdir(tmp_path) == ["in.zarr"]


@pytest.mark.parametrize("what", ["volume", "labels"])
@pytest.mark.parametrize("direction", ["apply", "invert"])
def test_what_speaks_of_neighbours_is_not_moved(here, tmp_path, what, direction):
    three = RNG.integers(0, 256, (3, *SOURCE.shape), np.uint8)
    near = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    source = written(tmp_path / "in.zarr", three, kind="affinities", neighborhood=near)
    with pytest.raises(InputError, match="segment first"):
        move_volume(job(source, here / "fixed", tmp_path / "out.zarr", what=what, direction=direction))


def test_other_voxels_and_other_places_are_refused(here, tmp_path):
    coarse = written(tmp_path / "coarse.zarr", RAW, Grid((40.0, 8.0, 9.2)))
    with pytest.raises(InputError, match="not on the voxel grid"):
        move_volume(job(coarse, here / "fixed", tmp_path / "out.zarr"))
    off = written(tmp_path / "off.zarr", RAW, Grid(GRID.voxel_size_nm, (81.0, -12.0, 46.0)))
    with pytest.raises(InputError, match="not on the voxel grid"):
        move_volume(job(off, here / "fixed", tmp_path / "out.zarr"))
    far = written(tmp_path / "far.zarr", RAW, Grid(GRID.voxel_size_nm, (8000.0, -12.0, 46.0)))
    with pytest.raises(InputError, match="nothing to be moved"):
        move_volume(job(far, here / "fixed", tmp_path / "out.zarr"))


# ---- real data ------------------------------------------------------------------------------------------------


def test_real_labels_come_back(tmp_path, real_data):
    """Neuron ids through whole shifts to the bit, through affine maps and fields as far as nearest voxels can."""
    source = real_data / "isbi2012_cardona" / "train_z00-19.h5" / "volumes/labels/neuron_ids"
    info = open_volume(source).info
    box = Box((2, 100, 50), (6, 256, 300))
    ids = open_volume(source).read(box)
    assert len(np.unique(ids)) > 20
    part = written(tmp_path / "ids.zarr", ids, info.grid.crop(box), kind="labels")
    frame = Frame(info.shape, info.grid)
    shifts = StackMap.of(frame, frame, [Shift(3 * z - 20, 17 - z) for z in range(20)])
    bent = Field(
        ndimage.gaussian_filter(RNG.normal(0, 9, (2, 18, 18)), (0, 2, 2)).astype(np.float32), (32.0, 32.0)
    )
    elastic = StackMap.of(frame, frame, [Affine(((1, 0.01, -3.5), (-0.01, 1, 2.25))).then(bent)] * 20)
    for name, stackmap in (("shifts", shifts), ("elastic", elastic)):
        write_stackmap(tmp_path / name, stackmap)
        there = {"what": "labels", "cell_shape_vox": (8, 256, 256)}
        moved = move_volume(job(part, tmp_path / name, tmp_path / f"{name}-there.zarr", **there))
        back = {**there, "direction": "invert", "like": part}
        found = values(move_volume(job(str(moved), tmp_path / name, tmp_path / f"{name}-back.zarr", **back)))
        assert open_volume(moved).info.shape == info.shape
        if name == "shifts":
            assert np.array_equal(found, ids)
        else:
            assert (found == ids)[:, 2:-2, 2:-2].mean() > 0.97
