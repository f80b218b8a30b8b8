"""What is wrong with a file is said with its value, the rule and the way out, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo

INFO = VolumeInfo((3, 4, 5), np.dtype("uint8"), Grid((40, 4, 4)), None, None, "raw")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# ---- a voxel size that is none


def bad_zarr(folder: Path, value: float, zarr_format: int) -> Path:
    create_volume(folder / "a.zarr", INFO, zarr_format=zarr_format)

    def change(data: dict[str, Any]) -> None:
        attributes = data.get("attributes", data)
        del attributes["emloom"]
        image = attributes.get("ome", attributes)["multiscales"][0]
        image["datasets"][0]["coordinateTransformations"][0]["scale"][1] = value

    edit(folder / "a.zarr" / ("zarr.json" if zarr_format == 3 else ".zattrs"), change)
    return folder / "a.zarr"


def bad_n5(folder: Path, value: float) -> Path:
    create_volume(folder / "a.n5", INFO)

    def change(data: dict[str, Any]) -> None:
        for name in ("emloom", "transform", "pixelResolution"):
            del data[name]
        data["resolution"][1] = value

    edit(folder / "a.n5/attributes.json", change)
    return folder / "a.n5"


def bad_precomputed(folder: Path, value: float) -> Path:
    create_volume(folder / "a.precomputed", INFO)

    def change(data: dict[str, Any]) -> None:
        del data["emloom"]
        data["scales"][0]["resolution"][1] = value

    edit(folder / "a.precomputed/info", change)
    return folder / "a.precomputed"


def bad_wkw(folder: Path, value: float) -> Path:
    create_volume(folder / "a.wkw", INFO)
    edit(folder / "a.wkw/datasource-properties.json", lambda data: data["scale"]["factor"].__setitem__(1, value))
    return folder / "a.wkw"


def bad_hdf5(folder: Path, value: float) -> Path:
    with h5py.File(folder / "a.h5", "w") as h5:
        h5.create_dataset("raw", data=np.zeros(INFO.shape, np.uint8)).attrs["resolution"] = [40, value, 4.0]
    return folder / "a.h5"


def bad_npy(folder: Path, value: float) -> Path:
    create_volume(folder / "a.npy", INFO)
    (sidecar,) = folder.glob("a*.json")
    edit(sidecar, lambda data: data["emloom"]["voxel_size_nm"].__setitem__(1, value))
    return folder / "a.npy"


def bad_imagej(folder: Path, value: float) -> Path:
    metadata = {"axes": "ZYX", "spacing": value, "unit": "nm"}
    tifffile.imwrite(
        folder / "a.tif", np.zeros(INFO.shape, np.uint8), imagej=True, resolution=(1 / 4, 1 / 4), metadata=metadata
    )
    return folder / "a.tif"


SIZES: dict[str, Callable[[Path, float], Path]] = {
    "zarr2": lambda folder, value: bad_zarr(folder, value, 2),
    "zarr3": lambda folder, value: bad_zarr(folder, value, 3),
    "n5": bad_n5,
    "precomputed": bad_precomputed,
    "wkw": bad_wkw,
    "hdf5": bad_hdf5,
    "npy": bad_npy,
}


@pytest.mark.fault(
    "units",
    "a file of any format states a voxel size of 0 or less",
    "error: ... is not positive: correct it. Giving one does not heal it",
)
@pytest.mark.parametrize("value", [0.0, -4.0])
@pytest.mark.parametrize("form", SIZES)
def test_a_stated_voxel_size_is_positive(tmp_path: Path, form: str, value: float) -> None:
    path = SIZES[form](tmp_path, value)
    with pytest.raises(InputError, match=rf"{path}.*{value}.*positive.*(correct|rewrite)"):
        open_volume(path)
    # Nothing that is given heals what is stated: one of the two is wrong.
    with pytest.raises(InputError, match="positive"):
        open_volume(path, voxel_size_nm=(40, 4, 4))


@pytest.mark.fault(
    "units",
    "a file of any format states a voxel size of NaN or infinity",
    "error: ... is not finite",
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", SIZES)
def test_a_stated_voxel_size_is_finite(tmp_path: Path, form: str, value: float) -> None:
    path = SIZES[form](tmp_path, value)
    with pytest.raises(InputError, match=rf"{path}.*(finite|positive numbers|Invalid JSON|not valid)") as refused:
        open_volume(path)
    assert "InputError" not in str(refused.value)


def test_sections_lie_a_positive_distance_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"spacing -40.* is negative.*correct it in ImageJ"):
        open_volume(bad_imagej(tmp_path, -40.0))


@pytest.mark.parametrize("value", [0, -4])
def test_a_given_voxel_size_is_positive(tmp_path: Path, value: float) -> None:
    np.save(tmp_path / "a.npy", np.zeros(INFO.shape, np.uint8))
    with pytest.raises(InputError, match=rf"{float(value)}.* is not positive: give z, y, x in nm, e.g. 40,4,4"):
        open_volume(tmp_path / "a.npy", voxel_size_nm=(40, value, 4))


# ---- a stack whose pages differ


@pytest.mark.fault(
    "images",
    "one page of a TIFF stack has another size or type than its header says",
    "error: page 3 is (5, 6) uint16, but the first is (5, 6) uint8: crop, pad or convert them first",
)
@pytest.mark.parametrize("header", ["", "ImageJ=1.53t\nimages=4\nslices=4\nspacing=40\nunit=nm\n"])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(
    "odd", [np.full((5, 6), 300, np.uint16), np.ones((5, 6), np.int8), np.ones((5, 7), np.uint8)]
)
def test_pages_of_a_tiff_are_alike(tmp_path: Path, header: str, at: int, odd: np.ndarray) -> None:
    """ImageJ's header says one type for all pages; a page of another would be read as if it were that."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for z in range(4):
            page = odd if z == at else np.zeros((5, 6), np.uint8)
            said = {"description": header, "resolution": (1 / 4, 1 / 4)} if header and z == 0 else {}
            writer.write(page, metadata=None, contiguous=False, **said)
    for given in (None, (40, 4, 4)):
        with pytest.raises(InputError, match=rf"a\.tif: page {at} is .*{odd.dtype}.* first is .*uint8.*convert"):
            open_volume(tmp_path / "a.tif", voxel_size_nm=given)


# ---- paths that lead out


@pytest.mark.fault(
    "paths",
    "a path leads out of a container: out.zarr/../other.zarr",
    "error: leads out of out.zarr: write it without '..'",
)
@pytest.mark.parametrize("container", ["a.zarr", "a.n5", "a.h5", "a.wkw", "a.precomputed"])
def test_a_path_inside_a_container_stays_inside(tmp_path: Path, container: str) -> None:
    create_volume(tmp_path / "other.zarr", INFO)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"leads out of .*{container}.*'\.\.'.*without it"):
        create_volume(f"{tmp_path}/{container}/../new", INFO)
    assert sorted(tmp_path.rglob("*")) == before
    name = {"a.h5": "a.h5/raw", "a.wkw": "a.wkw/color"}.get(container, container)
    create_volume(tmp_path / name, INFO)
    with pytest.raises(InputError, match=rf"leads out of .*{container}"):
        open_volume(f"{tmp_path}/{container}/../other.zarr")
    # Above the container it is an ordinary path.
    (tmp_path / "folder").mkdir()
    assert open_volume(f"{tmp_path}/folder/../{name}").info.shape == INFO.shape


@pytest.mark.fault(
    "paths",
    "the metadata of an OME-NGFF image name a level outside of it: ../other.zarr/0",
    "error: leads out of the image: correct it",
)
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("level", ["../other.zarr/0", "x/../../other.zarr/0", "file:///other.zarr/0"])
def test_levels_lie_inside_their_image(tmp_path: Path, zarr_format: int, level: str) -> None:
    create_volume(tmp_path / "other.zarr", INFO, zarr_format=zarr_format)
    create_volume(tmp_path / "a.zarr", INFO, zarr_format=zarr_format)

    def change(data: dict[str, Any]) -> None:
        attributes = data.get("attributes", data)
        attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["path"] = level

    edit(tmp_path / "a.zarr" / ("zarr.json" if zarr_format == 3 else ".zattrs"), change)
    with pytest.raises(InputError, match=r"a\.zarr: .*other\.zarr/0.*leads out of the image.*correct it"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.fault(
    "paths",
    "the key of a precomputed scale leads elsewhere: ../other, /other, gs://bucket",
    "error: leads out of its folder: correct the key in its info",
)
@pytest.mark.parametrize("key", ["../other.precomputed/4_4_40", "/other", "gs://bucket/4_4_40"])
def test_scales_lie_inside_their_volume(tmp_path: Path, key: str) -> None:
    create_volume(tmp_path / "a.precomputed", INFO)
    edit(tmp_path / "a.precomputed/info", lambda data: data["scales"][0].update(key=key))
    with pytest.raises(InputError, match=r"leads out of its folder: correct the key in its info"):
        open_volume(tmp_path / "a.precomputed")
