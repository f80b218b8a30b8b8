"""One real stack, told in the words of each format: the same voxels at the same nanometres.

The stack is a corner of the FIB-25 labels, whose file states a resolution and a world offset; the words are
written here with other libraries. Each row is one way to say 8 nm and 416 nm: metres or micrometres, x first or z
first, an offset in voxels or in the world, of a corner or of a centre.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import open_volume

pytestmark = pytest.mark.real_data
GRID = Grid((8, 8, 8), (416, 416, 416))
BOX = Box((0, 0, 0), (4, 20, 30))  # other extents along each axis, so that none is taken for another


@pytest.fixture(scope="module")
def ids(real_data: Path) -> np.ndarray:
    volume = open_volume(real_data / "lsd_golden_fib25/crop.h5/labels")
    assert volume.info.grid == GRID
    values = volume.read(BOX)
    assert len(np.unique(values)) > 3
    return values.astype(np.uint16)


def ome_zarr(path: Path, values: np.ndarray, unit: str | None, per_nm: float, zarr_format: Any) -> None:
    """Write OME-NGFF, whose translation is the centre of the first voxel."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    group.create_array("s0", data=values)
    steps = [{"type": "scale", "scale": [8 * per_nm] * 3}]
    steps.append({"type": "translation", "translation": [420 * per_nm] * 3})
    axes = [{"name": a, "type": "space", **({"unit": unit} if unit else {})} for a in "zyx"]
    image = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **image}]


def n5(path: Path, values: np.ndarray, words: dict[str, Any]) -> None:
    """Write N5, which stores x first."""
    metadata = {"compression": {"type": "gzip"}, "dataType": "uint16", "blockSize": [16, 16, 16]}
    metadata["dimensions"] = list(values.shape[::-1])
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
    tensorstore.open(spec, create=True).result().write(values.T).result()
    about = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps({**about, **words}))


def precomputed(path: Path, values: np.ndarray) -> None:
    """Write precomputed, which counts the offset in voxels, x first."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {"type": "segmentation", "data_type": "uint16", "num_channels": 1},
        "scale_metadata": {
            "key": "8_8_8",
            "resolution": [8, 8, 8],
            "voxel_offset": [52, 52, 52],
            "size": list(values.shape[::-1]),
            "chunk_size": [16, 16, 16],
            "encoding": "raw",
        },
    }
    tensorstore.open(spec, create=True).result()[..., 0].write(values.T).result()


def hdf5(path: Path, values: np.ndarray, words: dict[str, Any]) -> None:
    with h5py.File(path, "w") as h5:
        h5.create_dataset("labels", data=values).attrs.update(words)


def imagej(path: Path, values: np.ndarray, unit: str, per_nm: float) -> None:
    """Write a stack as ImageJ does: pixels per unit, and the pixel of the world's 0."""
    origin = {f"{axis}origin": -52 for axis in "xyz"}
    metadata = {"axes": "ZYX", "spacing": 8 * per_nm, "unit": unit, **origin}
    rate = 1 / (8 * per_nm)
    tifffile.imwrite(path, values, imagej=True, resolution=(rate, rate), metadata=metadata)


def measures(unit: str, per_nm: float) -> dict[str, Any]:
    return {"resolution": [8 * per_nm] * 3, "offset": [416 * per_nm] * 3, "units": [unit] * 3}


def transform(unit: str, per_nm: float) -> dict[str, Any]:
    """Return CellMap's words: of the centre, and by name."""
    said = {"axes": list("zyx"), "scale": [8 * per_nm] * 3, "translate": [420 * per_nm] * 3, "units": [unit] * 3}
    return {"transform": said}


WORDS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "OME 0.5, metres": ("a.zarr", lambda p, v: ome_zarr(p, v, "meter", 1e-9, 3)),
    "OME 0.5, micrometres": ("a.zarr", lambda p, v: ome_zarr(p, v, "micrometer", 1e-3, 3)),
    "OME 0.4, nanometres": ("a.zarr", lambda p, v: ome_zarr(p, v, "nanometer", 1, 2)),
    "N5, metres": ("a.n5", lambda p, v: n5(p, v, measures("m", 1e-9))),
    "N5, micrometres": ("a.n5", lambda p, v: n5(p, v, measures("um", 1e-3))),
    "N5, nanometres, centre": ("a.n5", lambda p, v: n5(p, v, transform("nm", 1))),
    "precomputed, voxels": ("a.precomputed", precomputed),
    "CREMI, nm without a unit": ("a.h5", lambda p, v: hdf5(p, v, {"resolution": [8] * 3, "offset": [416] * 3})),
    "HDF5, micrometres": ("a.h5", lambda p, v: hdf5(p, v, measures("um", 1e-3))),
    "HDF5, metres": ("a.h5", lambda p, v: hdf5(p, v, measures("m", 1e-9))),
    "ImageJ, microns": ("a.tif", lambda p, v: imagej(p, v, "micron", 1e-3)),
    "ImageJ, nm": ("a.tif", lambda p, v: imagej(p, v, "nm", 1)),
}


@pytest.mark.parametrize("words", WORDS)
def test_the_same_stack_in_other_words(tmp_path: Path, ids: np.ndarray, words: str) -> None:
    name, write = WORDS[words]
    write(tmp_path / name, ids)
    volume = open_volume(tmp_path / name)
    assert volume.info.grid.matches(GRID), volume.info.grid
    assert volume.info.axes == "zyx"
    np.testing.assert_array_equal(volume.read(volume.info.box), ids)


SILENT: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "OME": ("a.zarr", lambda p, v: ome_zarr(p, v, None, 1, 3)),
    "N5": ("a.n5", lambda p, v: n5(p, v, {"resolution": [8, 8, 8], "offset": [416, 416, 416]})),
    "N5, odd unit": ("a.n5", lambda p, v: n5(p, v, measures("parsec", 1))),
    "HDF5, odd unit": ("a.h5", lambda p, v: hdf5(p, v, measures("cubit", 1))),
    "ImageJ": ("a.tif", lambda p, v: imagej(p, v, "pixel", 1)),
}


@pytest.mark.fault(
    "units",
    "a file states a size without a unit, in any format",
    "error: voxel size is missing: pass --voxel-size. No unit is guessed",
)
@pytest.mark.parametrize("words", SILENT)
def test_a_number_without_a_unit_is_a_missing_number(tmp_path: Path, ids: np.ndarray, words: str) -> None:
    name, write = SILENT[words]
    write(tmp_path / name, ids)
    with pytest.raises(InputError, match=r"voxel size is missing in .*unit.*pass --voxel-size"):
        open_volume(tmp_path / name)
    given = open_volume(tmp_path / name, voxel_size_nm=GRID.voxel_size_nm, offset_nm=GRID.offset_nm)
    assert given.info.grid == GRID
    np.testing.assert_array_equal(given.read(given.info.box), ids)
