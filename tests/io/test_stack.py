"""Image stacks: one TIFF, or a folder or pattern of sections."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import inspect, open_volume
from emloom.io.stack import _gaps, natural_key

SIZE = (40, 4, 4)


def values(dtype: str = "uint8", shape: tuple[int, int, int] = (12, 20, 30)) -> np.ndarray:
    return (np.random.default_rng(0).random(shape) * 200).astype(dtype)


def write_sections(folder: Path, array: np.ndarray, name: str = "s{}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for z, plane in enumerate(array):
        path = folder / name.format(z)
        if path.suffix == ".png":
            imageio.imwrite(path, plane)
        else:
            tifffile.imwrite(path, plane)
    return folder


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_in_names_order_as_numbers(numbers: list[int]) -> None:
    names = [f"sec{n}_a.png" for n in numbers]
    assert sorted(names, key=natural_key) == [f"sec{n}_a.png" for n in sorted(numbers)]


@pytest.mark.parametrize("name", ["s{}.png", "s{}.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sections_stack_in_natural_order(tmp_path: Path, name: str, dtype: str) -> None:
    array = values(dtype)
    folder = write_sections(tmp_path / "sections", array, name)
    (folder / "notes.txt").write_text("not an image")
    for path in (folder, folder / f"s*{Path(name).suffix}"):
        volume = open_volume(path, voxel_size_nm=SIZE)
        assert volume.info.dtype == dtype
        got = volume.read(Box((1, 2, 3), (10, 6, 7)))
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, array[1:11, 2:8, 3:10])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"byteorder": ">"},
        {"bigtiff": True, "tile": (16, 16)},
    ],
    ids=["plain", "zlib", "imagej", "bigendian", "tiles"],
)
def test_multi_page_tiff(tmp_path: Path, dtype: str, options: dict[str, object]) -> None:
    array = values(dtype)
    tifffile.imwrite(tmp_path / "raw.tif", array, photometric="minisblack", **options)
    volume = open_volume(tmp_path / "raw.tif", voxel_size_nm=SIZE)
    assert volume.info.dtype == np.dtype(dtype)
    got = volume.read(Box((3, 2, 3), (5, 16, 7)))
    assert got.dtype.isnative
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array[3:8, 2:18, 3:10])


def test_one_section_is_a_volume_of_one_section(tmp_path: Path) -> None:
    for name in ("a.tif", "b.png"):
        imageio.imwrite(tmp_path / name, values()[0])
        assert open_volume(tmp_path / name, voxel_size_nm=SIZE).info.shape == (1, 20, 30)


@pytest.mark.parametrize(("unit", "nm"), [("nm", 1), ("micron", 1000), ("um", 1000), ("\\u00B5m", 1000)])
def test_imagej_voxel_size(tmp_path: Path, unit: str, nm: float) -> None:
    metadata = {"spacing": 5.0, "unit": unit, "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "raw.tif", values(), imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    assert open_volume(tmp_path / "raw.tif").info.grid.matches(Grid((5 * nm, nm / 2, nm / 4)))
    with pytest.raises(InputError, match="says voxel size"):
        open_volume(tmp_path / "raw.tif", voxel_size_nm=(40, 4, 4))


@pytest.mark.parametrize(
    ("metadata", "resolution"),
    [
        ({"spacing": 5.0, "unit": "pixel"}, (4, 2)),
        ({"spacing": 5.0}, (4, 2)),
        ({"unit": "nm"}, (4, 2)),
        ({"spacing": 5.0, "unit": "nm"}, None),
    ],
    ids=["odd unit", "no unit", "no spacing", "no resolution"],
)
def test_an_incomplete_imagej_header_is_a_missing_voxel_size(
    tmp_path: Path, metadata: dict[str, object], resolution: tuple[int, int] | None
) -> None:
    metadata = {**metadata, "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "raw.tif", values(), imagej=True, resolution=resolution, metadata=metadata)
    with pytest.raises(InputError, match=r"voxel size is missing in .*raw\.tif.*pass --voxel-size"):
        open_volume(tmp_path / "raw.tif")


def test_dots_per_inch_are_not_a_voxel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", values(), resolution=(300, 300), resolutionunit="INCH")
    assert inspect(tmp_path / "raw.tif")[0].voxel_size_nm is None


@pytest.mark.fault(
    "images",
    "one section has another size or type than the first",
    "error: s7.png is (20, 31) uint8, but the first section, s0.png, is ...: crop, pad or convert them first",
)
@pytest.mark.parametrize(
    "odd", [np.zeros((20, 31), np.uint8), np.zeros((20, 30), np.uint16)], ids=["size", "type"]
)
def test_a_section_that_differs_is_named(tmp_path: Path, odd: np.ndarray) -> None:
    folder = write_sections(tmp_path / "sections", values())
    imageio.imwrite(folder / "s7.png", odd)
    with pytest.raises(InputError, match=r"s7\.png is .* but the first section, s0\.png"):
        open_volume(folder, voxel_size_nm=SIZE)


@pytest.mark.fault(
    "images",
    "sections are colour images",
    "error: convert colour images first",
)
def test_colour_is_refused(tmp_path: Path) -> None:
    colour = np.zeros((20, 30, 3), np.uint8)
    for name in ("a.tif", "b.png"):
        folder = tmp_path / name[0]
        folder.mkdir()
        imageio.imwrite(folder / name, colour)
        for path in (folder, folder / name):
            with pytest.raises(InputError, match="colour"):
                open_volume(path, voxel_size_nm=SIZE)


def test_channels_inside_sections_are_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 2, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match="has axes z,c,y,x"):
        open_volume(tmp_path / "a.tif", voxel_size_nm=SIZE)


def test_mixed_and_empty_folders_are_refused(tmp_path: Path) -> None:
    folder = write_sections(tmp_path / "sections", values())
    tifffile.imwrite(folder / "s0.tif", values()[0])
    with pytest.raises(InputError, match=r"\.png and \.tif images"):
        open_volume(folder, voxel_size_nm=SIZE)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "empty/*.png"):
        with pytest.raises(InputError, match="holds no"):
            open_volume(path, voxel_size_nm=SIZE)
    with pytest.raises(
        InputError, match=r"holds no volume and no images \(it holds: empty, sections\): name a vol"
    ):
        open_volume(tmp_path)


TRUNCATED = {"plain": {}, "zlib": {"compression": "zlib"}, "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}}}


@pytest.mark.fault(
    "images",
    "a TIFF stack is cut short, compressed or not",
    "error: is truncated: it ends before its last section; copy it again",
)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("form", TRUNCATED)
def test_truncated_tiff_is_an_error(tmp_path: Path, form: str, keep: float) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", values(), **TRUNCATED[form])
    data = (tmp_path / "raw.tif").read_bytes()
    (tmp_path / "raw.tif").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"raw\.tif .*copy it again"):
        open_volume(tmp_path / "raw.tif", voxel_size_nm=SIZE)


@pytest.mark.fault(
    "images",
    "one PNG or TIFF section of a stack is cut short",
    "error: names that section: copy it again",
)
@pytest.mark.parametrize("name", ["s{}.png", "s{}.tif"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5])
def test_a_truncated_section_is_named(tmp_path: Path, name: str, keep: float) -> None:
    folder = write_sections(tmp_path / "sections", values(shape=(3, 64, 64)), name)
    victim = folder / name.format(1)
    data = victim.read_bytes()
    victim.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=f"{victim.name} .*copy it again"):
        open_volume(folder, voxel_size_nm=SIZE).read(Box((0, 0, 0), (3, 64, 64)))


def test_a_gap_in_the_section_numbers_is_noted(tmp_path: Path) -> None:
    folder = write_sections(tmp_path / "sections", values())
    assert inspect(folder)[0].notes == ()
    (folder / "s5.png").unlink()
    (note,) = inspect(folder)[0].notes
    assert "4 -> 6" in note
    assert "1 missing (5)" in note
    assert open_volume(folder, voxel_size_nm=SIZE).info.shape[0] == 11


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 60), min_size=3, max_size=30))
def test_the_note_lists_exactly_the_missing_numbers(numbers: set[int]) -> None:
    present = sorted(numbers | {0, 1, 60})
    notes = _gaps(present)
    missing = [n for n in range(61) if n not in present]
    listed = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    assert notes == [] if not missing else f"{len(missing)} missing ({listed})" in notes[0]


@pytest.mark.fault(
    "images",
    "a section number stands twice: s1.png and s01.png",
    "error: section number 1 stands twice: remove one, or name a pattern",
)
@pytest.mark.parametrize(
    ("names", "twice"),
    [(["s1", "s01", "s2"], "1"), (["a_7", "b_7", "a_8"], "7"), (["x1", "y1"], "1"), (["s2", "s10", "s10b"], "10")],
)
def test_a_section_number_that_stands_twice_does_not_open(tmp_path: Path, names: list[str], twice: str) -> None:
    for name in names:
        imageio.imwrite(tmp_path / f"{name}.png", values()[0])
    assert f"section number {twice} stands twice" in inspect(tmp_path)[0].problems[0]
    with pytest.raises(InputError, match=f"section number {twice} stands twice"):
        open_volume(tmp_path, voxel_size_nm=SIZE)


@pytest.mark.parametrize("names", [["s1", "s2_v2", "s3"], ["d1_s1", "d2_s3", "d9_s4"]])
def test_numbers_that_cannot_be_told_apart_are_noted(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        imageio.imwrite(tmp_path / f"{name}.png", values()[0])
    assert "whether sections are missing is unknown" in inspect(tmp_path)[0].notes[0]


def test_names_without_numbers_are_just_sections(tmp_path: Path) -> None:
    for name in ("first", "second", "²"):
        imageio.imwrite(tmp_path / f"{name}.png", values()[0])
    (hit,) = inspect(tmp_path)
    assert (hit.notes, hit.problems, hit.shape) == ((), (), (3, 20, 30))


def test_jpeg_sections(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)
    for z, suffix in enumerate((".jpg", ".jpeg", ".JPG")):
        imageio.imwrite(tmp_path / f"s{z}{suffix}", smooth + z, extension=".jpg")
    volume = open_volume(tmp_path, voxel_size_nm=SIZE)
    assert (volume.info.shape, volume.info.dtype) == ((3, 32, 40), np.uint8)
    expected = np.stack([imageio.imread(f) for f in sorted(tmp_path.iterdir(), key=lambda f: f.stem)])
    np.testing.assert_array_equal(volume.read(volume.info.box), expected)
    assert np.abs(expected[0].astype(int) - smooth).max() <= 4
    assert open_volume(tmp_path / "s0.jpg", voxel_size_nm=SIZE).info.shape == (1, 32, 40)
    imageio.imwrite(tmp_path / "s3.jpg", np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(InputError, match=r"s3\.jpg is \(32, 40, 3\)"):
        open_volume(tmp_path, voxel_size_nm=SIZE)


def test_stacks_are_read_only_sources(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", values())
    with pytest.raises(InputError, match="read-only"):
        open_volume(tmp_path / "raw.tif", voxel_size_nm=SIZE, writable=True)
    volume = open_volume(tmp_path / "raw.tif", voxel_size_nm=SIZE)
    with pytest.raises(InputError, match="read-only"):
        volume.write(volume.info.box, values())
    with pytest.raises(InputError, match="leaves"):
        volume.read(volume.info.box.shift(1))


@pytest.mark.real_data
def test_multibeam_sections(real_data: Path) -> None:
    volume = open_volume(real_data / "artifacts/genEM3_msem_uint16/*crop*.tif", voxel_size_nm=(35, 4, 4))
    assert volume.info.shape == (12, 255, 255)
    assert volume.info.dtype == np.uint16
    last = tifffile.imread(sorted((real_data / "artifacts/genEM3_msem_uint16").glob("*crop*.tif"))[-1])
    np.testing.assert_array_equal(volume.read(Box((11, 0, 0), (1, 255, 255)))[0], last)


@pytest.mark.real_data
def test_a_transparent_png_is_refused(real_data: Path) -> None:
    with pytest.raises(InputError, match="not one grey section"):
        open_volume(
            real_data / "epfl_hippocampus/original_png_examples/RGBA_testing0000.png", voxel_size_nm=(5, 5, 5)
        )
