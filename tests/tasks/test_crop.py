"""`emloom crop`: the voxels asked for, where they were in the world."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks import info as info_task
from emloom.tasks.convert import ConvertSpec, convert
from emloom.tasks.crop import CropSpec, crop, voxels_around

GRID = Grid((40, 4.6, 4), (120, -2.3, 1000))


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_task, "CELL_BYTES", 4096)


def source(folder: Path, shape: tuple[int, ...] = (20, 30, 40)) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 999, shape, dtype=np.uint16)
    info = VolumeInfo(shape[-3:], values.dtype, GRID, None if len(shape) == 3 else shape[0], (8, 8, 8), "raw")  # type: ignore[arg-type]
    create_volume(folder / "in.zarr", info).write(info.box, values)
    return values


@pytest.mark.parametrize("target", ["out.zarr", "deep/out.zarr/raw", "out.h5/volumes/raw"])
@pytest.mark.parametrize("shape", [(20, 30, 40), (2, 20, 30, 40)])
def test_a_crop_holds_the_voxels_of_its_box(tmp_path: Path, target: str, shape: tuple[int, ...]) -> None:
    values = source(tmp_path, shape)
    box = Box((3, 5, 7), (11, 13, 29))
    spec = CropSpec(
        source=f"{tmp_path}/in.zarr",
        target=f"{tmp_path}/{target}",
        start=box.start,
        stop=box.stop,
        chunk_vox=(4, 8, 8),
    )
    report = crop(spec)
    copy = open_volume(spec.target)
    np.testing.assert_array_equal(copy.read(copy.info.box), values[..., *box.slices()])
    assert report.n_cells > 1
    assert copy.info.grid == GRID.crop(box)
    assert copy.info.grid.to_world((0, 0, 0)) == GRID.to_world(box.start)  # exactly


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_a_crop_of_a_crop_is_a_crop(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("crop")
    values = source(folder, (9, 11, 13))
    name, inside = "in.zarr", Box.whole(values.shape)
    for step in range(2):
        low = [data.draw(st.integers(0, n - 1)) for n in inside.shape]
        high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, inside.shape, strict=True)]
        crop(CropSpec(source=f"{folder}/{name}", target=f"{folder}/{step}.zarr", start=low, stop=high))
        name, inside = f"{step}.zarr", Box.of(low, high).shift(inside.start)
    copy = open_volume(folder / name)
    np.testing.assert_array_equal(copy.read(copy.info.box), values[inside.slices()])
    assert copy.info.grid.matches(GRID.crop(inside))


def test_a_box_in_nm_grows_to_whole_voxels(tmp_path: Path) -> None:
    values = source(tmp_path)
    low, high = GRID.to_world((2, 3, 4)), GRID.to_world((5, 6, 7))
    for name, shift, expected in [
        ("faces", 0.0, Box.of((2, 3, 4), (5, 6, 7))),
        ("inside", 0.5, Box.of((2, 3, 4), (6, 7, 8))),
    ]:
        spec = CropSpec(
            source=f"{tmp_path}/in.zarr",
            target=f"{tmp_path}/{name}.zarr",
            start_nm=tuple(v + shift for v in low),
            stop_nm=tuple(v + shift for v in high),
        )
        crop(spec)
        copy = open_volume(spec.target)
        assert copy.info.grid == GRID.crop(expected)
        np.testing.assert_array_equal(copy.read(copy.info.box), values[expected.slices()])


@given(st.tuples(*[st.integers(-50, 50)] * 3), st.tuples(*[st.integers(1, 50)] * 3))
def test_faces_in_nm_are_faces_in_voxels(start: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    box = Box(start, shape)
    assert voxels_around(GRID, GRID.to_world(box.start), GRID.to_world(box.stop)) == (box.start, box.stop)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": (0, 0, 0), "stop": (21, 5, 5)}, "leaves .*in.zarr"),
        ({"start": (-1, 0, 0), "stop": (5, 5, 5)}, "leaves .*in.zarr"),
        ({"start": (5, 0, 0), "stop": (5, 5, 5)}, "is empty"),
        ({"start": (5, 0, 0), "stop": (4, 5, 5)}, "is empty"),
        ({"start": (5, 0, 0)}, "a crop needs one box"),
        ({}, "a crop needs one box"),
        ({"start": (0, 0, 0), "stop": (5, 5, 5), "start_nm": (0, 0, 0), "stop_nm": (9, 9, 9)}, "needs one box"),
    ],
)
def test_boxes_that_are_none(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    source(tmp_path)
    with pytest.raises(InputError, match=message):
        crop(CropSpec.from_dict({"source": f"{tmp_path}/in.zarr", "target": f"{tmp_path}/out.zarr", **given}))
    assert os.listdir(tmp_path) == ["in.zarr"]


@pytest.mark.real_data
def test_fib25_labels_lie_where_they_were(real_data: Path, tmp_path: Path) -> None:
    path = f"{real_data}/fib25/trvol2_250.h5/volumes/labels/neuron_ids"
    crop(CropSpec(source=path, target=f"{tmp_path}/a.zarr", start=(100, 60, 120), stop=(170, 130, 190)))
    convert(ConvertSpec(source=f"{tmp_path}/a.zarr", target=f"{tmp_path}/b.h5/labels"))
    whole, part = open_volume(path), open_volume(tmp_path / "b.h5/labels")
    assert part.info.grid.offset_nm == (1000, 600, 1200)
    np.testing.assert_array_equal(part.read(part.info.box), whole.read(Box((100, 60, 120), (70, 70, 70))))
