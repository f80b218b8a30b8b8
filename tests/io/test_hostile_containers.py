"""Containers whose metadata are absurd are refused with a reason, before anything is allocated for them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume
from emloom.io.volume import VolumeInfo

INFO = VolumeInfo((3, 4, 5), np.dtype("uint8"), Grid((40, 4, 4)), None, None, "raw")
RAW = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
METADATA = {
    "a.zarr": ("zarr.json", "0/zarr.json"),
    "b.zarr": (".zattrs", "0/.zarray"),
    "a.n5": ("attributes.json",),
    "a.precomputed": ("info",),
    "a.wkw": ("datasource-properties.json",),
    "a.npy": ("../a.npy.json",),
}


@pytest.mark.fault(
    "containers",
    "the JSON of any container is nested 100 000 deep",
    "error: ... is not valid JSON (maximum recursion depth exceeded): the file is damaged",
)
@pytest.mark.fault(
    "containers", "the JSON of any container holds a number of 5000 digits", "error: ... is not valid JSON"
)
@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("text", [DEEP, '{"a": ' + "9" * 5000 + "}", "\x00", "\ufeff{}", "null"])
def test_absurd_json_is_damaged_json(tmp_path: Path, name: str, text: str) -> None:
    create_volume(tmp_path / name, INFO, **({"zarr_format": 2} if name == "b.zarr" else {}))
    for part in METADATA[name]:
        path = (tmp_path / name).parent / "a.npy.json" if name == "a.npy" else tmp_path / name / part
        good = path.read_text()
        path.write_text(text)
        with pytest.raises(InputError, match=r"damaged|not readable"):
            open_volume(tmp_path / name)
        path.write_text(good)


def changed(folder: Path, zarr_format: int, key: str, value: Any) -> Path:
    path = folder / "a.zarr"
    create_volume(path, INFO, zarr_format=zarr_format)
    file = path / "0" / ("zarr.json" if zarr_format == 3 else ".zarray")
    words = json.loads(file.read_text())
    if zarr_format == 3 and key == "chunks":
        words["chunk_grid"]["configuration"]["chunk_shape"] = value
    else:
        words[{"dtype": "data_type"}.get(key, key) if zarr_format == 3 else key] = value
    file.write_text(json.dumps(words))
    return path


@pytest.mark.fault(
    "containers",
    "a zarr array has chunks of 0, of less, of 2^40 voxels a side, or of too few axes",
    "error: cannot read or write ...: names the member; nothing is allocated",
)
@pytest.mark.fault(
    "containers", "a zarr array has a negative, fractional or astronomic shape", "error: names the member"
)
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunks", [0, 4, 4]),
        ("chunks", [-1, 4, 4]),
        ("chunks", [2**40] * 3),
        ("chunks", [1, 1]),
        ("shape", [-3, 4, 5]),
        ("shape", [3.5, 4, 5]),
        ("shape", [2**70, 4, 5]),
        ("shape", None),
    ],
)
def test_absurd_shapes_are_refused(tmp_path: Path, zarr_format: int, key: str, value: Any) -> None:
    path = changed(tmp_path, zarr_format, key, value)
    with pytest.raises(InputError, match=r"a\.zarr"):
        open_volume(path)


@pytest.mark.fault("values", "a zarr array has an axis of 0 voxels", "error: is empty: its shape is (0, 4, 5)")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_empty_array_is_no_volume(tmp_path: Path, zarr_format: int) -> None:
    with pytest.raises(InputError, match=r"is empty: its shape is \(0, 4, 5\)"):
        open_volume(changed(tmp_path, zarr_format, "shape", [0, 4, 5]))


# ---- HDF5


def hdf5(folder: Path, make: Callable[[h5py.File], object]) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        make(file)
    return folder / "a.h5"


def raw(file: h5py.File, name: str = "raw", data: Any = RAW, **attributes: Any) -> None:
    dataset = file.create_dataset(name, data=data)
    for key, value in ({"resolution": [40.0, 4, 4]} | attributes).items():
        dataset.attrs[key] = value


@pytest.mark.fault(
    "paths",
    "groups of an HDF5 file link to themselves, softly and hard, and in circles",
    "every dataset is found once; a circle is an error: too many links",
)
def test_loops_of_links_end(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        raw(file, "g/raw")
        file["g/self"] = file["g"]
        file["g/up"] = h5py.SoftLink("/")
        file["round"] = h5py.SoftLink("/round")
        file["nowhere"] = h5py.SoftLink("/none")

    path = hdf5(tmp_path, make)
    assert [hit.path for hit in inspect(path)] == [f"{path}/g/raw"]
    np.testing.assert_array_equal(open_volume(f"{path}/g/up/g/raw").read(INFO.box), RAW)
    with pytest.raises(InputError, match="too many links"):
        open_volume(f"{path}/round")
    with pytest.raises(InputError, match="holds no 'nowhere'"):
        open_volume(f"{path}/nowhere")


@pytest.mark.fault(
    "values",
    "an HDF5 dataset holds text, references, records, lists, complex or 128-bit numbers",
    "error: a volume holds integers, real numbers or booleans of up to 64 bits",
)
@pytest.mark.parametrize(
    "dtype",
    [
        h5py.string_dtype(),
        h5py.ref_dtype,
        np.dtype([("a", "u1")]),
        np.dtype("complex64"),
        h5py.vlen_dtype(np.int32),
        np.dtype(np.longdouble),
    ],
    ids=str,
)
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    path = hdf5(tmp_path, lambda file: file.create_dataset("raw", (3, 4, 5), dtype))
    with pytest.raises(InputError, match="a volume holds integers, real numbers or booleans of up to 64 bits"):
        open_volume(path, voxel_size_nm=(40, 4, 4))


@pytest.mark.fault(
    "units",
    "attributes of HDF5 have the wrong type: a number as unit, complex or empty sizes, JSON nested too deep",
    "error: names the attribute and the rule",
)
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"units": 3}, "voxel size is missing"),
        ({"resolution": [1 + 2j, 2, 3]}, "not three real numbers"),
        ({"resolution": "a,b,c"}, "not three numbers"),
        ({"resolution": h5py.Empty("f")}, "not three numbers"),
        ({"offset": h5py.Empty("f")}, "not three numbers"),
        ({"emloom": DEEP[:60_000] + "]" * 59_994 + "}"}, "'emloom' attribute is not valid"),
        ({"emloom": "9" * 5000}, "'emloom' attribute is not valid"),
    ],
)
def test_attributes_of_another_type(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_volume(hdf5(tmp_path, lambda file: raw(file, **attributes)))


@pytest.mark.fault(
    "values",
    "values are big-endian, boolean, 16-bit floats, or stored in Fortran order",
    "they are read in native order; nothing is transposed",
)
@pytest.mark.parametrize("dtype", [">u2", ">f4", "<f2", "?", ">i8"])
def test_any_order_of_bytes_reads_the_same(tmp_path: Path, dtype: str) -> None:
    values = RAW.astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    places = [tmp_path / "a.npy"]
    places.append(hdf5(tmp_path, lambda file: raw(file, data=values)))
    for place in places:
        volume = open_volume(place, voxel_size_nm=(40, 4, 4))
        found = volume.read(INFO.box)
        assert found.dtype == values.dtype.newbyteorder("=")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, values)


# ---- NumPy


def npy(text: str, version: int = 1, length: int | None = None) -> bytes:
    head = text.encode("latin-1")
    size = struct.pack("<H" if version == 1 else "<I", len(head) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + head


def of_shape(shape: str, descr: str = "'|u1'") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n") + bytes(64)


@pytest.mark.fault(
    "containers",
    "the header of a .npy file is 4 GB, nested, calls functions, or claims negative or astronomic shapes",
    "error: is not a readable .npy file: copy it again. Nothing is run, nothing is allocated",
)
@pytest.mark.parametrize(
    "data",
    [
        npy("{" + "'a': 1, " * 20_000 + "}", 2),
        npy("{}", 2, 0xFFFFFFFF),
        of_shape("(-1, 2, 3)"),
        of_shape("(99999999999999999999, 2, 3)"),
        of_shape(f"({2**32}, {2**32}, 4)", "'<u8'"),
        of_shape("(2**40, 2, 3)"),
        of_shape("(__import__('os').getpid(), 2, 3)"),
        of_shape("(1, 2, 3)", "5"),
        npy("(" * 3000 + ")" * 3000 + "\n"),
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY",
        b"PK\x03\x04" + bytes(50),
        b"",
    ],
)
def test_absurd_headers_of_numpy(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.npy is (not a readable \.npy file|an archive)"):
        open_volume(tmp_path / "a.npy", voxel_size_nm=(40, 4, 4))


@pytest.mark.fault("values", "a volume of a single voxel, or one section, is written and read", "it is a volume")
@pytest.mark.parametrize("name", ["a.zarr", "a.n5", "a.precomputed", "a.wkw/color", "a.h5/raw", "a.npy", "a.tif"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (3, 1, 1)])
def test_the_smallest_volumes(tmp_path: Path, name: str, shape: tuple[int, int, int]) -> None:
    info = VolumeInfo(shape, np.dtype("uint8"), Grid((40, 4, 4)), None, None, "raw")
    values = np.arange(1, info.box.size + 1, dtype=np.uint8).reshape(shape)
    create_volume(tmp_path / name, info).write(info.box, values)
    np.testing.assert_array_equal(open_volume(tmp_path / name).read(info.box), values)


@pytest.mark.fault(
    "values", "labels are as large as ids go: 2^63 - 1, or 2^64 - 1", "read back to the bit, in every format"
)
@pytest.mark.parametrize("name", ["a.zarr", "a.n5", "a.precomputed", "a.wkw/ids", "a.h5/ids", "a.npy"])
def test_huge_ids_come_back(tmp_path: Path, name: str) -> None:
    info = VolumeInfo((1, 1, 3), np.dtype("uint64"), Grid((40, 4, 4)), None, None, "labels")
    values = np.array([[[0, 2**63 - 1, 2**64 - 1]]], np.uint64)
    create_volume(tmp_path / name, info).write(info.box, values)
    np.testing.assert_array_equal(open_volume(tmp_path / name).read(info.box), values)


# ---- names


@pytest.mark.fault(
    "paths",
    "names have blanks, line breaks, quotes, umlauts, Chinese characters and a leading dash",
    "they work in every format",
)
@pytest.mark.parametrize(
    "name", ["a b.zarr", "-a\nb'.zarr", "ü 名前 \N{GRINNING FACE}.n5", 'q"%20.h5/raw', "a#?.npy"]
)
def test_names_are_only_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "ö ä\n名"
    create_volume(folder / name, INFO).write(INFO.box, RAW)
    np.testing.assert_array_equal(open_volume(folder / name).read(Box.whole((3, 4, 5))), RAW)
    assert [hit.path for hit in inspect(folder / name)] == [str(folder / name)]


@pytest.mark.fault(
    "paths",
    "a name is longer than disks take (300 characters), or no text at all",
    "error: has a name of more than 255 bytes in it: choose a shorter one / does not exist",
)
@pytest.mark.parametrize("ending", [".zarr", ".npy", ".h5", ""])
def test_names_that_no_disk_takes(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match="more than 255 bytes"):
        open_volume(tmp_path / ("名" * 100 + ending))
    with pytest.raises(InputError, match="more than 255 bytes"):
        create_volume(tmp_path / ("a" * 300 + ending), INFO)
    with pytest.raises(InputError, match=r"does not exist|no known format"):
        open_volume(f"{tmp_path}/\udcff\0{ending}")


@pytest.mark.fault(
    "paths",
    "an input is a link to itself, or a folder holds a link to the folder above",
    "error: does not exist / found once",
)
def test_links_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").symlink_to(tmp_path / "b.zarr")
    (tmp_path / "b.zarr").symlink_to(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="does not exist"):
        open_volume(tmp_path / "a.zarr")
    create_volume(tmp_path / "c.zarr/raw", INFO)
    (tmp_path / "c.zarr/up").symlink_to("..")
    assert [hit.path for hit in inspect(tmp_path / "c.zarr")] == [f"{tmp_path}/c.zarr/raw"]
