"""TIFF stacks: what ImageJ, OME and we say about them, and writing them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io import tiff
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.convert import ConvertSpec, convert
from emloom.testing.contracts import random_values

GRID = Grid((40, 4.6, 4.1), (400, -46, 12.3))


def info_of(dtype: str, shape: tuple[int, int, int] = (5, 20, 30), **changes: Any) -> VolumeInfo:
    return VolumeInfo(shape, np.dtype(dtype), GRID).with_(**changes)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int64", "float32", "float64"])
def test_other_readers_see_what_we_write(tmp_path: Path, dtype: str) -> None:
    info = info_of(dtype, kind="labels" if dtype.startswith("u") else None)
    values = random_values(info, info.box, 1)
    create_volume(tmp_path / "out.tif", info).write(info.box, values)
    got = tifffile.imread(tmp_path / "out.tif")
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, values)
    if dtype in ("uint8", "uint16"):  # Pillow reads signed bytes as unsigned
        np.testing.assert_array_equal(imageio.imread(tmp_path / "out.tif", index=3, plugin="pillow"), values[3])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_imagej_finds_its_own_calibration(tmp_path: Path, dtype: str) -> None:
    create_volume(tmp_path / "out.tif", info_of(dtype))
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        header = tif.imagej_metadata
        assert header is not None
        assert (header["slices"], header["unit"], header["spacing"]) == (5, "nm", 40)
        tags = tif.pages.first.tags
        for name, size in (("XResolution", 4.1), ("YResolution", 4.6)):
            top, bottom = tags[name].value
            assert bottom / top == pytest.approx(size, rel=1e-6)
        origin = [header[f"{axis}origin"] for axis in "zyx"]
        assert origin == pytest.approx([-10, 10, -3])
    # ImageJ drops the words it does not know when it saves: the rest alone must give the same place.
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        del header["emloom"]
        said = tiff._imagej(tif)
    assert said.voxel_size_nm is not None
    assert said.offset_nm is not None
    assert Grid(said.voxel_size_nm, said.offset_nm).matches(GRID)


def test_what_imagej_cannot_hold_is_plain(tmp_path: Path) -> None:
    for name, info in {
        "a": info_of("uint64"),
        "b": info_of("uint8", (5, 1, 30)),
        "c": info_of("uint8", (5, 3, 1)),
    }.items():
        create_volume(tmp_path / f"{name}.tif", info)
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tif:
            assert not tif.is_imagej
        assert open_volume(tmp_path / f"{name}.tif").info.grid == GRID


def test_large_stacks_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "_CLASSIC_LIMIT", 1000)
    info = info_of("uint8", kind="raw")
    values = random_values(info, info.box, 1)
    create_volume(tmp_path / "out.tif", info).write(info.box, values)
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert tif.is_bigtiff
    volume = open_volume(tmp_path / "out.tif")
    assert (volume.info.grid, volume.info.kind) == (GRID, "raw")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), values)


def test_the_space_of_a_new_stack_is_taken_at_once(tmp_path: Path) -> None:
    create_volume(tmp_path / "out.tif", info_of("uint8", (64, 128, 128)))
    assert os.stat(tmp_path / "out.tif").st_blocks * 512 >= 2**20


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("out.tif", {"dtype": "bool"}, "holds no bool: write uint8"),
        ("out.tif", {"channels": 2}, "holds no 2 channels here"),
        ("out.tif/raw", {}, "holds nothing named 'raw'"),
        ("out.png", {}, "only read"),
        ("out.jpg", {}, "only read"),
    ],
)
def test_what_a_stack_cannot_hold_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create_volume(tmp_path / name, info_of("uint8").with_(**changes))
    assert list(tmp_path.iterdir()) == []


def write_then_fail(path: Path, info: VolumeInfo) -> None:
    with staged_volume(path, info) as volume:
        volume.write(info.box, random_values(info, info.box, 1))
        raise RuntimeError


def test_a_failed_stack_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_then_fail(tmp_path / "out.tif", info_of("uint8"))
    assert list(tmp_path.iterdir()) == []


def test_our_metadata_and_those_of_imagej_must_agree(tmp_path: Path) -> None:
    create_volume(tmp_path / "out.tif", info_of("uint8"))
    data = (tmp_path / "out.tif").read_bytes()
    (tmp_path / "out.tif").write_bytes(data.replace(b"spacing=40.0", b"spacing=41.0"))
    with pytest.raises(InputError, match=r"'emloom' metadata says voxel size .* ImageJ says \(41"):
        open_volume(tmp_path / "out.tif")


@pytest.mark.parametrize(("old", "new"), [(b'{"version', b'["version'), (b'"axes": "zyx"', b'"axes": "xyz"')])
def test_damaged_metadata_are_an_error(tmp_path: Path, old: bytes, new: bytes) -> None:
    create_volume(tmp_path / "out.tif", info_of("uint8"))
    data = (tmp_path / "out.tif").read_bytes()
    assert old in data
    (tmp_path / "out.tif").write_bytes(data.replace(old, new))
    with pytest.raises(InputError, match="'emloom' attribute is not valid"):
        open_volume(tmp_path / "out.tif")


# ---- OME ------------------------------------------------------------------------------------------------------

PLANES = np.random.default_rng(0).integers(0, 255, (5, 20, 30), dtype=np.uint8)


def ome(path: Path, array: np.ndarray = PLANES, axes: str = "ZYX", **metadata: Any) -> Path:
    tifffile.imwrite(path, array, ome=True, metadata={"axes": axes, **metadata})
    return path


@pytest.mark.parametrize(
    ("sizes", "nm"),
    [
        ({"Z": (0.04, None), "Y": (0.004, None), "X": (0.005, None)}, (40, 4, 5)),
        ({"Z": (40, "nm"), "Y": (4, "nm"), "X": (5, "nm")}, (40, 4, 5)),
        ({"Z": (0.04, "\u00b5m"), "Y": (40, "\u00c5"), "X": (5e-6, "mm")}, (40, 4, 5)),
        ({"Z": (4e-8, "m"), "Y": (4000, "pm"), "X": (5, "nm")}, (40, 4, 5)),
    ],
    ids=["no unit is micrometres", "nm", "mixed", "metres"],
)
def test_ome_voxel_size(
    tmp_path: Path, sizes: dict[str, tuple[float, str | None]], nm: tuple[float, float, float]
) -> None:
    words: dict[str, Any] = {}
    for axis, (size, unit) in sizes.items():
        words |= {f"PhysicalSize{axis}": size} | ({f"PhysicalSize{axis}Unit": unit} if unit else {})
    volume = open_volume(ome(tmp_path / "a.ome.tif", **words))
    assert volume.info.grid.matches(Grid(nm))
    np.testing.assert_array_equal(volume.read(Box((1, 2, 3), (2, 3, 4))), PLANES[1:3, 2:5, 3:7])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({}, "OME PhysicalSizeZ is missing"),
        ({"PhysicalSizeX": 4, "PhysicalSizeY": 4}, "OME PhysicalSizeZ is missing"),
        ({"PhysicalSizeZ": 4, "PhysicalSizeZUnit": "pixel"}, "OME PhysicalSizeZ has the unknown unit 'pixel'"),
    ],
)
def test_an_incomplete_ome_voxel_size_is_missing(tmp_path: Path, words: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=rf"voxel size is missing in .* \({why}\)"):
        open_volume(ome(tmp_path / "a.tif", **words))


@pytest.mark.parametrize("size", [0.0, -4.0])
def test_an_ome_voxel_size_that_is_not_positive(tmp_path: Path, size: float) -> None:
    path = ome(tmp_path / "a.tif", PhysicalSizeZ=size, PhysicalSizeY=1, PhysicalSizeX=1)
    with pytest.raises(InputError, match=f"OME PhysicalSizeZ '{size}' is not positive"):
        open_volume(path)


def test_channels_of_ome_come_first_and_are_read_as_stored(tmp_path: Path) -> None:
    array = np.stack([PLANES, PLANES[::-1]])
    path = ome(tmp_path / "a.tif", array, "CZYX")
    volume = open_volume(path, voxel_size_nm=(40, 4, 4))
    assert volume.info.channels == 2
    np.testing.assert_array_equal(volume.read(Box((1, 0, 2), (3, 5, 6))), array[:, 1:4, :5, 2:8])
    tifffile.imwrite(tmp_path / "z.tif", array, ome=True, compression="zlib", metadata={"axes": "CZYX"})
    volume = open_volume(tmp_path / "z.tif", voxel_size_nm=(40, 4, 4))
    np.testing.assert_array_equal(volume.read(Box((1, 0, 2), (3, 5, 6))), array[:, 1:4, :5, 2:8])


def test_a_stage_position_is_noted_not_believed(tmp_path: Path) -> None:
    size = {"PhysicalSizeZ": 1, "PhysicalSizeY": 1, "PhysicalSizeX": 1}
    path = ome(tmp_path / "a.tif", Plane={"PositionX": [3.0] * 5}, **size)
    (hit,) = inspect(path)
    assert "stage position" in hit.notes[0]
    assert hit.offset_nm is None


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1), ("micron", 1000)])
def test_the_origin_of_imagej_is_a_corner(tmp_path: Path, unit: str, factor: float) -> None:
    words = {"axes": "ZYX", "spacing": 5.0, "unit": unit, "xorigin": 3.5, "yorigin": -2}
    tifffile.imwrite(tmp_path / "a.tif", PLANES, imagej=True, resolution=(4.0, 2.0), metadata=words)
    size = (5 * factor, factor / 2, factor / 4)
    assert open_volume(tmp_path / "a.tif").info.grid.matches(Grid(size, (0, 2 * size[1], -3.5 * size[2])))


# ---- real data ------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["isbi2012_cardona/train_z00-19.h5/volumes/labels/neuron_ids", "vnc_sstem/stack1_z00-14.h5/volumes/raw"],
)
def test_real_volumes_survive_as_tiff(real_data: Path, tmp_path: Path, name: str) -> None:
    report = convert(ConvertSpec(source=str(real_data / name), target=str(tmp_path / "out.tif")))
    source = open_volume(real_data / name)
    assert report.info.grid == source.info.grid
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), source.read(source.info.box))


@pytest.mark.real_data
def test_an_overview_saved_by_imagej_without_calibration(real_data: Path) -> None:
    path = real_data / "artifacts/genEM3_msem_uint16/overview_2.tif"
    with pytest.raises(InputError, match="ImageJ unit None is missing"):
        open_volume(path)
    assert open_volume(path, voxel_size_nm=(35, 4, 4)).info.shape == (1, 768, 1024)
