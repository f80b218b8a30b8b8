"""`emloom export`: the format asked for, under a name its tools recognise, or a clear refusal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import FORMATS, create_volume, inspect, open_volume
from emloom.io.volume import Kind, VolumeInfo
from emloom.tasks import export as task
from emloom.tasks.export import EXPORTS, ExportSpec, Target, export

GRID = Grid((40, 4.6, 4), (120, -2.3, 1000))


def source(folder: Path, kind: Kind = "raw") -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 200, (9, 10, 11), dtype=np.uint8)
    info = VolumeInfo(values.shape, values.dtype, GRID, kind=kind)
    create_volume(folder / "in.zarr", info).write(info.box, values)
    return values


def run(folder: Path, target: str, **more: Any) -> str:
    return export(
        ExportSpec.from_dict({"source": f"{folder}/in.zarr", "target": f"{folder}/{target}", **more})
    ).target


@pytest.mark.parametrize(
    ("target", "to", "expected"),
    [
        ("out", "zarr", "out.zarr"),
        ("out.zarr/a/b", None, "out.zarr/a/b"),
        ("out.v2", "zarr2", "out.v2.zarr"),
        ("out", "hdf5", "out.h5/volumes/raw"),
        ("out.hdf5", None, "out.hdf5/volumes/raw"),
        ("out.h5/mine", "hdf5", "out.h5/mine"),
    ],
)
def test_the_name_says_the_format(tmp_path: Path, target: str, to: str | None, expected: str) -> None:
    values = source(tmp_path)
    path = run(tmp_path, target, to=to)
    assert path == f"{tmp_path}/{expected}"
    copy = open_volume(path)
    np.testing.assert_array_equal(copy.read(copy.info.box), values)
    assert (copy.info.grid, copy.info.kind) == (GRID, "raw")
    assert inspect(path)[0].format == {"zarr2": "zarr2", "zarr": "zarr3"}.get(to or "", inspect(path)[0].format)


def test_labels_have_their_own_place_in_hdf5(tmp_path: Path) -> None:
    source(tmp_path, "labels")
    assert run(tmp_path, "out", to="hdf5") == f"{tmp_path}/out.h5/volumes/labels/neuron_ids"


def test_chunks_and_encoding_are_obeyed(tmp_path: Path) -> None:
    source(tmp_path)
    path = run(tmp_path, "out", to="zarr", chunk_vox=(4, 5, 6), encoding="blosc")
    array = zarr.open_array(f"{path}/0", mode="r")
    assert array.chunks == (4, 5, 6)
    assert next(codec.to_dict()["name"] for codec in array.compressors) == "blosc"


@pytest.mark.parametrize(
    ("target", "more", "message"),
    [
        ("out", {}, "does not say its format: pass --to zarr"),
        ("out", {"to": "zar"}, "did you mean 'zarr'"),
        ("out.h5", {"to": "zarr"}, r"ends in \.h5, which is not zarr"),
        ("out.h5", {"encoding": "blosc"}, r"encoding blosc is for \.zarr"),
        ("out.zarr", {"encoding": "lzma"}, "encoding 'lzma' is unknown: zarr chunks are zstd or blosc"),
        ("in.zarr", {}, "already exists"),
    ],
)
def test_what_cannot_be_exported(tmp_path: Path, target: str, more: dict[str, Any], message: str) -> None:
    source(tmp_path)
    with pytest.raises(InputError, match=message):
        run(tmp_path, target, **more)
    assert os.listdir(tmp_path) == ["in.zarr"]


def test_a_format_that_is_only_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path)
    without = {suffix: form for suffix, form in FORMATS.items() if suffix != ".h5"}
    monkeypatch.setattr(task, "FORMATS", without)
    with pytest.raises(InputError, match=r"does not write hdf5 \(\.h5\): choose one of zarr, zarr2"):
        run(tmp_path, "out", to="hdf5")


@pytest.mark.parametrize("to", [name for name in EXPORTS if task._writable(name)])
def test_every_format_that_is_written_gives_the_same_volume(tmp_path: Path, to: Target) -> None:
    grid = Grid((40, 4, 4), (80, 40, 400))  # whole voxels after 0: every format can say it
    values = np.random.default_rng(0).integers(0, 200, (40, 50, 60), dtype=np.uint8)
    info = VolumeInfo(values.shape, values.dtype, grid, kind="raw")
    create_volume(tmp_path / "in.zarr", info).write(info.box, values)
    copy = open_volume(run(tmp_path, "out", to=to), kind="raw")
    np.testing.assert_array_equal(copy.read(copy.info.box), values)
    assert copy.info.grid.matches(grid)
