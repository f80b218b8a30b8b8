"""Between the two passes of ascent, where voxels point is kept: used where it is right, and gone in the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io import scratch
from emloom.tasks import segmentblocks
from emloom.tasks.resume import retry
from emloom.tasks.segment import Segmented, grow_tree
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec
from tests.tasks.weaving import GRID, OFFSETS, few_values, voxels, write_affinities, write_mask

SHAPE, CELLS = (32, 30, 26), 8
VALUES = few_values(SHAPE, 3)
SPEC = SegmentSpec(thresholds=(0.3,), cell_shape_vox=(16, 16, 16))


@pytest.fixture(scope="module")
def whole() -> Segmented:
    return grow_tree(VALUES, OFFSETS, GRID, SPEC)


@pytest.fixture
def job(tmp_path: Path) -> SegmentJob:
    source = write_affinities(tmp_path / "pred.zarr", VALUES)
    return SegmentJob(affinities=source, output=str(tmp_path / "seg.zarr"), threshold=0.6, segmentation=SPEC)


@pytest.fixture
def ascended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the start of every cell whose pointers are computed."""
    starts: list[str] = []
    honest = segmentblocks.ascent_cell

    def counted(affinities, mask, write, spec):
        starts.append("_".join(str(v // 16) for v in write.start))
        return honest(affinities, mask, write, spec)

    monkeypatch.setattr(segmentblocks, "ascent_cell", counted)
    return starts


def stop_before(job: SegmentJob, stage: str) -> Path:
    """Do the stages before one; return the folder of the points."""

    def stop(name: str, done: int, total: int) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(job, on_block=stop)
    return Path(job.output).with_suffix(".unfinished.zarr") / "graph" / "points"


def is_right(out: Path, whole: Segmented) -> bool:
    right = np.array_equal(voxels(out / "fragments"), whole.fragments)
    return right and np.array_equal(voxels(out / "segmentation"), whole.at(0.6))


def test_nothing_is_computed_twice_and_nothing_is_left(job, whole, ascended):
    points = stop_before(job, "fragments")
    assert len(list(points.iterdir())) == len(ascended) == CELLS
    assert stop_before(job, "graph") == points
    assert not points.exists()
    out = segment(job)
    assert len(ascended) == CELLS
    assert is_right(out, whole)
    assert not (out / "graph" / "points").exists()


def test_cells_give_it_up_one_by_one(job):
    points, left = stop_before(job, "fragments"), []
    segment(
        job, on_block=lambda name, *_: left.append(len(list(points.iterdir()))) if name == "fragments" else None
    )
    assert left == list(range(CELLS, -1, -1))


def test_it_knows_the_mask(job, tmp_path, ascended):
    mask_ZYX = np.zeros(SHAPE, np.uint8)
    mask_ZYX[:, 3:, :15] = 1
    masked = job.model_copy(update={"mask": write_mask(tmp_path / "mask.zarr", mask_ZYX)})
    assert is_right(segment(masked), grow_tree(VALUES, OFFSETS, GRID, SPEC, mask_ZYX))
    assert len(ascended) == CELLS


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def swap(path: Path) -> None:
    """Put what belongs to another cell of the same shape in its place."""
    z, rest = path.name.split("_", 1)
    shutil.copy(path.with_name(f"{1 - int(z)}_{rest}"), path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "of another cell": swap,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_computed_again(damage, job, whole, ascended):
    points = stop_before(job, "fragments")
    for name in ("0_0_0", "1_0_1"):
        damage(points / f"{name}.zst")
    ascended.clear()
    assert is_right(segment(job), whole)
    assert sorted(ascended) == ["0_0_0", "1_0_1"]


def test_points_of_another_job_are_not_believed(job, whole, tmp_path, ascended):
    """The same cells and shapes, but other parameters, or other affinities under the same name."""
    smoother = SPEC.model_copy(update={"fragments": AscentSpec(smoothing_vox=(2, 2, 2))})
    other = job.model_copy(update={"output": str(tmp_path / "other.zarr"), "segmentation": smoother})
    foreign, points = stop_before(other, "fragments"), stop_before(job, "fragments")
    for path in foreign.iterdir():
        assert path.read_bytes() != (points / path.name).read_bytes()
        shutil.copy(path, points / path.name)
    ascended.clear()
    assert is_right(segment(job), whole)
    assert len(ascended) == CELLS


def test_a_full_disk_takes_only_the_scratch(job, whole, ascended, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        raise InputError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(scratch, "write_bytes_atomic", full)
    assert is_right(segment(job), whole)
    assert len(ascended) == 2 * CELLS


def test_repair_leaves_none_behind(job, whole, ascended):
    """Exits and fragments are made anew, exits also where the fragments that needed them are whole."""
    out = segment(job)
    (out / "graph" / "exits" / "0_0_0.parquet").write_bytes(b"damaged")
    chunk = out / "fragments" / "0" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    ascended.clear()
    assert retry(out, look=True) == out
    assert sorted(ascended) == ["0_0_0", "1_0_0"]
    assert is_right(out, whole)
    assert not (out / "graph" / "points").exists()
