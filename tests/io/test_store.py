"""zarr and OME-NGFF: others open what we write, we open what others write, and damage is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume
from emloom.io.store import find
from emloom.io.volume import VolumeInfo

GRID = Grid((40, 4.6, 4), (120, -2.3, 1000))


def example(channels: int | None = None) -> tuple[VolumeInfo, np.ndarray]:
    info = VolumeInfo((20, 40, 50), np.dtype("uint16"), GRID, channels, (16, 32, 32), kind="raw")
    return info, np.random.default_rng(0).integers(1, 60000, info.array_shape, dtype=np.uint16)


def axes_of(names: str, unit: str | None = "nanometer") -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    space = {} if unit is None else {"unit": unit}
    return [{"name": n, "type": kinds[n]} if n in kinds else {"name": n, "type": "space", **space} for n in names]


def foreign_image(
    folder: Path,
    array: np.ndarray,
    axes: str = "zyx",
    *,
    unit: str | None = "nanometer",
    transforms: list[dict[str, Any]] | None = None,
    zarr_format: int = 3,
) -> Path:
    """An OME-NGFF image as another tool would write it (zarr-python)."""
    group = zarr.create_group(folder, zarr_format=zarr_format)
    group.create_array("s0", data=array, chunks=tuple(min(8, n) for n in array.shape))
    steps = transforms or [{"type": "scale", "scale": [2.0] * len(axes)}]
    image = {"axes": axes_of(axes, unit), "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    return folder


ZYX = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (32, 32, 64)}], ids=["3", "2", "shards"])
def test_zarr_python_reads_what_we_write(tmp_path: Path, options: dict[str, Any], channels: int | None) -> None:
    info, values = example(channels)
    create_volume(tmp_path / "out.zarr", info, **options).write(info.box, values)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], values)
    attributes = dict(group.attrs)
    image = attributes.get("ome", attributes)["multiscales"][0]
    assert image["name"] == "out"
    assert "".join(axis["name"] for axis in image["axes"]) == info.axes
    steps = image["datasets"][0]["coordinateTransformations"]
    assert [step["type"] for step in steps] == ["scale", "translation"]
    assert steps[0]["scale"][-3:] == [40, 4.6, 4]
    # OME-NGFF places the centre of the first voxel, we its corner.
    np.testing.assert_allclose(steps[1]["translation"][-3:], [140, 0, 1002], atol=1e-9)


def test_all_channels_of_a_voxel_share_a_chunk(tmp_path: Path) -> None:
    info, _ = example(3)
    create_volume(tmp_path / "out.zarr", info)
    assert zarr.open_array(tmp_path / "out.zarr" / "0", mode="r").chunks == (3, 16, 32, 32)


def test_ome_alone_says_what_our_attribute_says(tmp_path: Path) -> None:
    info, values = example()
    create_volume(tmp_path / "out.zarr", info).write(info.box, values)
    path = tmp_path / "out.zarr" / "zarr.json"
    meta = json.loads(path.read_text())
    del meta["attributes"]["emloom"]
    path.write_text(json.dumps(meta))
    assert open_volume(tmp_path / "out.zarr").info.grid.matches(info.grid)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("unit", "nm"), [("nanometer", 1), ("micrometer", 1e3), ("meter", 1e9), ("angstrom", 0.1), ("um", 1e3)]
)
def test_foreign_images_open_with_their_units(tmp_path: Path, unit: str, nm: float, zarr_format: int) -> None:
    steps = [{"type": "scale", "scale": [4.0, 2.0, 1.0]}, {"type": "translation", "translation": [10.0, 1.0, 0.5]}]
    path = foreign_image(tmp_path / "x.zarr", ZYX, unit=unit, transforms=steps, zarr_format=zarr_format)
    for name in (path, path / "s0"):
        volume = open_volume(name)
        assert volume.info.grid.matches(Grid((4 * nm, 2 * nm, nm), (8 * nm, 0, 0)))
        np.testing.assert_array_equal(volume.read(Box((1, 1, 1), (2, 3, 4))), ZYX[1:, 1:, 1:])


@pytest.mark.parametrize("unit", [None, "pixel", "lightyear"])
def test_a_scale_without_a_known_unit_is_no_voxel_size(tmp_path: Path, unit: str | None) -> None:
    path = foreign_image(tmp_path / "x.zarr", ZYX, unit=unit)
    with pytest.raises(InputError, match=r"voxel size is missing in .*x\.zarr .*units.*pass --voxel-size"):
        open_volume(path)
    assert open_volume(path, voxel_size_nm=(40, 4, 4)).info.grid.voxel_size_nm == (40, 4, 4)


@pytest.mark.parametrize("axes", ["xyz", "zxy", "yxz", "cxyz", "zcyx", "tzyx"])
def test_other_axes_are_refused_and_listed(tmp_path: Path, axes: str) -> None:
    path = foreign_image(tmp_path / "x.zarr", np.zeros((2, 3, 4, 5)[-len(axes) :], np.uint8), axes)
    with pytest.raises(InputError, match=f"has axes {','.join(axes)}"):
        open_volume(path, voxel_size_nm=(1, 1, 1))
    assert inspect(path)[0].axes == axes


@pytest.mark.parametrize("shape", [(1, 1, 3, 4, 5), (1, 2, 3, 4, 5)])
def test_single_time_points_and_channels_are_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    volume = open_volume(foreign_image(tmp_path / "x.zarr", array, "tczyx"))
    assert volume.info.array_shape == tuple(n for n in shape if n > 1)
    box = Box((1, 0, 2), (2, 4, 3))
    np.testing.assert_array_equal(volume.read(box), array.squeeze()[..., *box.slices()])


def test_a_pyramid_is_one_volume_whose_levels_open_by_name(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "x.zarr")
    levels = []
    for level, factor in enumerate((1, 2)):
        group.create_array(str(level), data=np.full((4 // factor,) * 3, level, np.uint8))
        shift = {"type": "translation", "translation": [(factor - 1) / 2 * 8.0] * 3}
        steps = [{"type": "scale", "scale": [8.0 * factor] * 3}, *([shift] if level else [])]
        levels.append({"path": str(level), "coordinateTransformations": steps})
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes_of("zyx"), "datasets": levels}]}
    assert len(inspect(tmp_path / "x.zarr")) == 1
    fine, coarse = open_volume(tmp_path / "x.zarr"), open_volume(tmp_path / "x.zarr/1")
    assert coarse.info.grid.voxel_size_nm == (16, 16, 16)
    assert coarse.info.grid.offset_nm == fine.info.grid.offset_nm  # levels share their corner
    assert (coarse.read(coarse.info.box) == 1).all()


def test_transform_of_the_whole_image_is_applied_last(tmp_path: Path) -> None:
    path = foreign_image(tmp_path / "x.zarr", ZYX)
    group = zarr.open_group(path)
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [3.0, 3.0, 3.0]},
        {"type": "translation", "translation": [3.0, 3.0, 3.0]},
    ]
    group.attrs["ome"] = ome
    assert open_volume(path).info.grid == Grid((6, 6, 6), (0, 0, 0))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_funlib_style_arrays(tmp_path: Path, zarr_format: int) -> None:
    container = zarr.create_group(tmp_path / "x.zarr", zarr_format=zarr_format)
    array = container.create_array("volumes/raw", data=ZYX)
    array.attrs.update({"voxel_size": [40, 4, 4], "offset": [80, 8, 8], "units": ["nm"] * 3})
    array.attrs.update({"axis_names": ["z", "y", "x"]})
    assert open_volume(tmp_path / "x.zarr").info.grid == Grid((40, 4, 4), (80, 8, 8))
    affinities = container.create_array("affs", data=np.zeros((2, 3, 4, 5), np.uint8))
    affinities.attrs.update({"resolution": [40, 4, 4], "axis_names": ["c^", "z", "y", "x"]})
    offsets = ((-1, 0, 0), (0, -1, 0))
    info = open_volume(tmp_path / "x.zarr/affs", kind="affinities", neighborhood=offsets).info
    assert (info.channels, info.neighborhood, info.grid.offset_nm) == (2, offsets, (0, 0, 0))
    with pytest.raises(InputError, match=r"holds 2 arrays: name one of .*x\.zarr/affs"):
        open_volume(tmp_path / "x.zarr")
    with pytest.raises(InputError, match="did you mean 'volumes/raw'"):
        open_volume(tmp_path / "x.zarr/volumes/rav")


@pytest.mark.fault(
    "units",
    "a zarr array states two voxel sizes, two numbers, text, or axes x, y, z",
    "error: names both: correct one of them. Nothing is transposed silently",
)
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"resolution": [40, 4, 4], "voxel_size": [4, 4, 40]}, "correct one of them"),
        ({"resolution": [40, 4]}, "give three"),
        ({"resolution": [40, 4, 0]}, "not positive"),
        ({"resolution": "large"}, "not three numbers"),
        ({"resolution": [8, 8, 8], "axis_names": ["x", "y", "z"]}, "has axes x,y,z"),
        ({"resolution": [8, 8, 8], "axis_names": ["c", "z", "y", "x"]}, "names 4 axes"),
        ({"emloom": {"version": 9}}, "'emloom' attribute is not valid"),
    ],
)
def test_contradictory_metadata_are_an_error(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    array = zarr.create_array(tmp_path / "x.zarr", data=ZYX)
    array.attrs.update(attributes)
    with pytest.raises(InputError, match=message):
        open_volume(tmp_path / "x.zarr")
    assert any(message in problem for problem in inspect(tmp_path / "x.zarr")[0].problems)


def test_our_attribute_and_ome_must_agree(tmp_path: Path) -> None:
    info, _ = example()
    create_volume(tmp_path / "out.zarr", info)
    path = tmp_path / "out.zarr" / "zarr.json"
    path.write_text(path.read_text().replace("nanometer", "micrometer"))
    with pytest.raises(InputError, match=r"'emloom' attribute says voxel size \(40.*OME-NGFF says"):
        open_volume(tmp_path / "out.zarr")


@pytest.mark.fault(
    "containers",
    "OME-NGFF metadata have no axes, or transformations that are none",
    "error: names the part that is malformed",
)
@pytest.mark.parametrize(
    "broken", [{"axes": None}, {"datasets": [{"path": "s0", "coordinateTransformations": 3}]}]
)
def test_malformed_ome_is_an_error(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = foreign_image(tmp_path / "x.zarr", ZYX)
    group = zarr.open_group(path)
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0].update(broken)
    group.attrs["ome"] = ome
    with pytest.raises(InputError, match="malformed"):
        open_volume(path)


def test_metadata_about_arrays_that_do_not_exist_are_not_ignored(tmp_path: Path) -> None:
    path = foreign_image(tmp_path / "x.zarr", ZYX)
    (path / "s0").rename(path / "s1")
    with pytest.raises(InputError, match="describe no array that exists"):
        open_volume(path, voxel_size_nm=(8, 8, 8))


def chunk_files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr.json"))]


@pytest.mark.fault(
    "containers",
    "chunk and shard files of zarr 2 and 3 are cut short",
    "error: cannot read or write out.zarr: ...; copy it again or write it anew",
)
@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (32, 32, 64)}], ids=["3", "2", "shards"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_chunks_are_an_error(tmp_path: Path, options: dict[str, Any], keep: float) -> None:
    info, values = example()
    create_volume(tmp_path / "out.zarr", info, **options).write(info.box, values)
    for path in chunk_files(tmp_path / "out.zarr"):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"cannot read or write .*out\.zarr"):
        open_volume(tmp_path / "out.zarr").read(info.box)


def test_a_failed_write_returns_when_no_other_chunk_is_in_flight(tmp_path: Path) -> None:
    info, values = example()
    volume = create_volume(tmp_path / "out.zarr", info)
    (tmp_path / "out.zarr/0/c/0/0/0").mkdir(parents=True)  # nothing can be written where a folder is
    with pytest.raises(ValueError, match="c/0/0/0"):
        volume.write(info.box, values)
    assert len(chunk_files(tmp_path / "out.zarr")) == 2 * 2 * 2 - 1


@pytest.mark.fault(
    "containers",
    "any single byte of a zarr 3 chunk is flipped",
    "error: the checksum tells",
)
def test_any_flipped_byte_of_a_zarr_3_chunk_is_an_error(tmp_path: Path) -> None:
    info = VolumeInfo((4, 4, 4), np.dtype("uint8"), GRID, chunks=(4, 4, 4))
    create_volume(tmp_path / "out.zarr", info).write(info.box, np.arange(64, dtype=np.uint8).reshape(4, 4, 4))
    (path,) = chunk_files(tmp_path / "out.zarr")
    good = path.read_bytes()
    for index in range(len(good)):
        path.write_bytes(good[:index] + bytes([good[index] ^ 0x10]) + good[index + 1 :])
        with pytest.raises(InputError, match="cannot read or write"):
            open_volume(tmp_path / "out.zarr").read(info.box)


@pytest.mark.fault(
    "containers",
    "zarr.json is empty, cut off, or holds a list",
    "error: zarr.json is empty / is not valid JSON: the file is damaged; copy it again or write it anew",
)
@pytest.mark.parametrize(
    ("content", "message"), [("", "is empty"), ('{"zarr_fo', "not valid JSON"), ("[]", "mapping")]
)
def test_damaged_metadata_files_are_an_error(tmp_path: Path, content: str, message: str) -> None:
    info, _ = example()
    create_volume(tmp_path / "out.zarr", info)
    for name in ("zarr.json", "0/zarr.json"):
        path = tmp_path / "out.zarr" / name
        good = path.read_text()
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            open_volume(tmp_path / "out.zarr")
        path.write_text(good)


def test_folders_without_arrays_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(InputError, match="holds no zarr array"):
        open_volume(tmp_path / "x.zarr")


@pytest.mark.fault(
    "values",
    "a zarr array of complex numbers or of text is opened",
    "error: a volume holds integers, real numbers or booleans",
)
@pytest.mark.parametrize("dtype", ["complex64", "<U4"])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    zarr.create_array(tmp_path / "x.zarr", shape=(2, 2, 2), dtype=dtype, zarr_format=2)
    with pytest.raises(InputError, match=r"x\.zarr"):
        open_volume(tmp_path / "x.zarr", voxel_size_nm=(8, 8, 8))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "|b1"])
def test_reads_are_native_and_contiguous_however_stored(tmp_path: Path, dtype: str, order: str) -> None:
    values = (np.random.default_rng(0).random((5, 6, 7)) * 99).astype(dtype)
    kept = zarr.create_array(tmp_path / "x.zarr", shape=(5, 6, 7), dtype=dtype, zarr_format=2, order=order)
    kept[:] = values
    volume = open_volume(tmp_path / "x.zarr", voxel_size_nm=(8, 8, 8))
    got = volume.read(volume.info.box)
    assert got.dtype.isnative
    assert got.dtype == volume.info.dtype
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, values)


def test_programs_can_be_started_after_a_volume_was_used(tmp_path: Path) -> None:
    """TensorStore aborts processes that fork; starting another program must not be one."""
    info, values = example()
    create_volume(tmp_path / "out.zarr", info).write(info.box, values)
    script = (
        "import subprocess, sys\n"
        "from emloom.io.open import open_volume\n"
        "volume = open_volume(sys.argv[1])\n"
        "volume.read(volume.info.box)\n"
        "subprocess.run([sys.executable, '-c', 'print(42)'], check=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "out.zarr"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"42\n"), done.stderr


@pytest.mark.real_data
def test_webknossos_zarr_states_its_axes_and_is_no_volume_by_itself(real_data: Path) -> None:
    """Read as plain zarr; `test_webknossos` opens the same arrays through the dataset that explains them."""
    (hit,) = find(real_data / "webknossos/simple_zarr3_dataset", "")
    assert hit.axes == "cxyz"
    assert hit.voxel_size_nm == (1, 1, 1)
    assert "has axes c,x,y,z" in hit.problems[0]
    (hit,) = find(real_data / "webknossos/simple_zarr_dataset", "")
    assert "describe no array that exists" in hit.problems[0]
