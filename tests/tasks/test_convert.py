"""`emloom import`: the copy equals the source, or there is no copy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io import hdf5, store
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks import info as info_task
from emloom.tasks.convert import ConvertSpec, convert

TARGETS: list[dict[str, Any]] = [
    {"target": "out.zarr"},
    {"target": "out.zarr/raw", "zarr_format": 2},
    {"target": "deep/er/out.zarr/a/raw", "shard_vox": (16, 16, 32)},
    {"target": "out.h5/volumes/raw"},
]
CHUNK = (8, 8, 16)


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cells, so that copying cell by cell is what is tested."""
    monkeypatch.setattr(info_task, "CELL_BYTES", 4096)


def source(folder: Path, array: np.ndarray, name: str = "raw", **attributes: Any) -> str:
    with h5py.File(folder / "in.h5", "a") as h5:
        h5[name] = array
        h5[name].attrs.update({"resolution": [40, 4, 4.5], "offset": [80, 0, -9]} | attributes)
    return f"{folder}/in.h5/{name}"


def raw(dtype: str = "uint8", shape: tuple[int, ...] = (20, 30, 40)) -> np.ndarray:
    return (np.random.default_rng(0).random(shape) * 250).astype(dtype)


def left_behind(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("in"))


@pytest.mark.parametrize("target", TARGETS, ids=["zarr3", "zarr2", "shards", "hdf5"])
@pytest.mark.parametrize("shape", [(20, 30, 40), (3, 9, 17, 20)])
def test_the_copy_equals_the_source(tmp_path: Path, target: dict[str, Any], shape: tuple[int, ...]) -> None:
    array = raw("uint16", shape)
    seen: list[tuple[int, int]] = []
    options = {**target, "target": f"{tmp_path}/{target['target']}", "chunk_vox": CHUNK, "kind": "raw"}
    report = convert(ConvertSpec(source=source(tmp_path, array), **options), lambda *step: seen.append(step))
    copy = open_volume(options["target"])
    np.testing.assert_array_equal(copy.read(copy.info.box), array)
    assert copy.info == report.info
    assert copy.info.grid == Grid((40, 4, 4.5), (80, 0, -9))
    assert report.n_cells > 1
    assert seen == [(i + 1, 2 * report.n_cells) for i in range(2 * report.n_cells)]
    words = "1 cell verified" if report.n_cells == 1 else f"{report.n_cells} cells verified"
    assert f", {words} by read-back" in report.to_text()
    assert left_behind(tmp_path) == [Path(target["target"]).parts[0]]


@settings(deadline=None, max_examples=8)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(1, 20)] * 3))
def test_any_chunks_fit_any_shape(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], chunk: tuple[int, int, int]
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    array = raw(shape=shape)
    convert(ConvertSpec(source=source(folder, array), target=f"{folder}/out.zarr", chunk_vox=chunk))
    copy = open_volume(folder / "out.zarr")
    np.testing.assert_array_equal(copy.read(copy.info.box), array)


def test_what_the_source_lacks_is_given(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", raw())
    spec = ConvertSpec(source=f"{tmp_path}/in.tif", target=f"{tmp_path}/out.zarr")
    with pytest.raises(InputError, match=r"voxel size is missing in .*in\.tif: pass --voxel-size"):
        convert(spec)
    assert left_behind(tmp_path) == []
    given = {"voxel_size_nm": (40, 4, 4), "offset_nm": (1, 2, 3), "kind": "raw"}
    report = convert(ConvertSpec(**(spec.to_dict() | given)))
    assert report.info.grid == Grid((40, 4, 4), (1, 2, 3))
    assert report.notes == ()


def test_affinities_carry_their_offsets(tmp_path: Path) -> None:
    path = source(tmp_path, raw(shape=(2, 9, 9, 9)))
    offsets = ((-1, 0, 0), (0, 0, -9))
    convert(ConvertSpec(source=path, target=f"{tmp_path}/o.zarr", kind="affinities", neighborhood=offsets))
    assert open_volume(tmp_path / "o.zarr").info.neighborhood == offsets
    convert(ConvertSpec(source=f"{tmp_path}/o.zarr", target=f"{tmp_path}/o.h5/affs"))
    assert open_volume(tmp_path / "o.h5/affs").info.neighborhood == offsets


@pytest.mark.parametrize("dtype", ["int16", "int64"])
def test_signed_labels_become_unsigned_and_it_is_said(tmp_path: Path, dtype: str) -> None:
    array = raw(dtype)
    spec = ConvertSpec(source=source(tmp_path, array), target=f"{tmp_path}/out.zarr", kind="labels")
    report = convert(spec)
    assert report.info.dtype == f"u{dtype}"
    assert f"labels were {dtype}, stored as u{dtype}" in report.to_text()
    np.testing.assert_array_equal(open_volume(tmp_path / "out.zarr").read(report.info.box), array)


def changed(array: np.ndarray, value: object) -> np.ndarray:
    array[-1, -1, -1] = value  # in the last cell, when much is already written
    return array


@pytest.mark.fault(
    "values",
    "raw holds NaN or infinity; labels are negative, above 2^63 - 1, floats or booleans",
    "error: holds nan at voxel (19, 29, 39); nothing of the output is left",
)
@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (changed(raw("float32"), np.nan), "raw", r"holds nan at voxel \(19, 29, 39\)"),
        (changed(raw("float64"), np.inf), None, "holds inf"),
        (changed(raw("int64"), -1), "labels", "holds the label -1: ids are not negative"),
        (changed(raw("uint64"), 2**64 - 1), "labels", r"above 2\^63 - 1"),
        (raw("float32"), "labels", "not exact as floating point"),
        (raw("uint8") > 9, "labels", "store them as uint8"),
    ],
    ids=["nan", "inf", "negative", "huge", "floating", "boolean"],
)
@pytest.mark.parametrize("target", ["out.zarr", "out.h5/a"])
def test_forbidden_values_leave_nothing_behind(
    tmp_path: Path, array: np.ndarray, kind: Any, message: str, target: str
) -> None:
    spec = ConvertSpec(source=source(tmp_path, array), target=f"{tmp_path}/{target}", kind=kind, chunk_vox=CHUNK)
    with pytest.raises(InputError, match=message):
        convert(spec)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("target", ["out.zarr", "out.zarr/a", "out.h5/a"])
def test_a_second_run_is_refused_and_changes_nothing(tmp_path: Path, target: str) -> None:
    spec = ConvertSpec(source=source(tmp_path, raw()), target=f"{tmp_path}/{target}")
    convert(spec)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="already exists"):
        convert(spec)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.fault(
    "disk",
    "the disk fills up in the third block of an import",
    "error: the disk is full; nothing of the output is left",
)
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, calls = store.StoreVolume.write, []

    def write(self: store.StoreVolume, box: Box, array: np.ndarray) -> None:
        calls.append(box)
        if len(calls) == 3:
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device [os_error_code='28']")
        good(self, box, array)

    monkeypatch.setattr(store.StoreVolume, "write", write)
    spec = ConvertSpec(source=source(tmp_path, raw()), target=f"{tmp_path}/out.zarr", chunk_vox=CHUNK)
    with pytest.raises(InputError, match=r"cannot write .*out\.zarr: the disk is full"):
        convert(spec)
    assert left_behind(tmp_path) == []


@pytest.mark.fault(
    "disk",
    "the disk stores another voxel than was written",
    "error: does not read back as it was written; nothing of the output is left",
)
@pytest.mark.parametrize("target", ["out.zarr", "out.h5/a"])
def test_a_disk_that_lies_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    for volume in (store.StoreVolume, hdf5.Hdf5Volume):
        good = volume.write

        def write(self: Any, box: Box, array: np.ndarray, good: Any = good) -> None:
            wrong = array.copy()
            if box.stop == self.info.shape:
                wrong.flat[-1] ^= 1
            good(self, box, wrong)

        monkeypatch.setattr(volume, "write", write)
    spec = ConvertSpec(source=source(tmp_path, raw()), target=f"{tmp_path}/{target}", chunk_vox=CHUNK)
    with pytest.raises(InputError, match="does not read back as it was written"):
        convert(spec)
    assert left_behind(tmp_path) == []


def test_a_gap_in_the_sections_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 2, 4, 5):
        tifffile.imwrite(tmp_path / "in" / f"s{number}.tif", raw()[0])
    spec = ConvertSpec(source=f"{tmp_path}/in", target=f"{tmp_path}/out.zarr", voxel_size_nm=(40, 4, 4))
    report = convert(spec)
    assert "2 -> 4" in report.to_text()
    assert "kind is not stated" in report.to_text()


def test_spec_is_one_screen_of_fields() -> None:
    assert len(ConvertSpec.model_fields) <= 10
    spec = ConvertSpec(source="a", target="b", voxel_size_nm=(40, 4, 4))
    assert ConvertSpec.from_yaml(spec.to_yaml()) == spec


@pytest.mark.real_data
def test_fib25_labels(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_task, "CELL_BYTES", 2**24)
    path = f"{real_data}/fib25/trvol2_250.h5/volumes/labels/neuron_ids"
    report = convert(ConvertSpec(source=path, target=f"{tmp_path}/labels.zarr"))
    assert (report.info.kind, report.info.grid.voxel_size_nm) == ("labels", (10, 10, 10))
    box = Box((100, 60, 120), (70, 70, 70))
    copy = open_volume(tmp_path / "labels.zarr").read(box)
    np.testing.assert_array_equal(copy, open_volume(path).read(box))


def test_volumes_convert_between_all_writable_formats(tmp_path: Path) -> None:
    info = VolumeInfo((9, 10, 11), np.dtype("float32"), Grid((40, 4.6, 4.6), (1.5, 0, 0)), kind="raw")
    values = raw("float32", info.shape)
    create_volume(tmp_path / "0.zarr", info).write(info.box, values)
    path = f"{tmp_path}/0.zarr"
    for step, name in enumerate(("1.h5/volumes/raw", "2.zarr", "3.h5/a"), start=1):
        options = {"zarr_format": 2} if step == 2 else {}
        convert(ConvertSpec(source=path, target=f"{tmp_path}/{name}", **options))
        path = f"{tmp_path}/{name}"
    last = open_volume(path)
    assert last.info.grid == info.grid
    np.testing.assert_array_equal(last.read(info.box), values)
