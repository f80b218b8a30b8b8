"""NumPy arrays and the sidecar that says where they are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import VolumeInfo
from emloom.testing.contracts import random_values

GRID = Grid((40, 4.6, 4.1), (400, -46, 12.3))
INFO = VolumeInfo((5, 6, 7), np.dtype("uint16"), GRID, kind="raw")
VALUES = random_values(INFO, INFO.box, 1)


def test_numpy_reads_what_we_write(tmp_path: Path) -> None:
    create_volume(tmp_path / "out.npy", INFO).write(INFO.box, VALUES)
    for mode in (None, "r"):
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode=mode), VALUES)
    assert json.loads((tmp_path / "out.npy.json").read_text())["shape"] == [5, 6, 7]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npy", "out.npy.json"]


@pytest.mark.parametrize("form", ["C", "F", ">u2"])
def test_arrays_from_elsewhere_need_a_voxel_size(tmp_path: Path, form: str) -> None:
    np.save(tmp_path / "a.npy", VALUES.astype(form) if form == ">u2" else np.array(VALUES, order=form))
    with pytest.raises(InputError, match=r"voxel size is missing in .*a\.npy \(a \.npy file without its sidecar"):
        open_volume(tmp_path / "a.npy")
    volume = open_volume(tmp_path / "a.npy", voxel_size_nm=(40, 4, 4))
    got = volume.read(Box((1, 2, 3), (2, 3, 4)))
    assert got.flags.c_contiguous
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, VALUES[1:3, 2:5, 3:7])


def test_a_staged_array_and_its_sidecar_appear_together_or_not_at_all(tmp_path: Path) -> None:
    with staged_volume(tmp_path / "out.npy", INFO) as volume:
        volume.write(INFO.box, VALUES)
        assert not (tmp_path / "out.npy").exists()
        assert not (tmp_path / "out.npy.json").exists()
    assert open_volume(tmp_path / "out.npy").info.with_(source="array") == INFO
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npy", "out.npy.json"]
    with pytest.raises(RuntimeError), staged_volume(tmp_path / "b.npy", INFO):
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npy", "out.npy.json"]


@pytest.mark.fault(
    "units",
    "the sidecar of a .npy file belongs to another array",
    "error: out.npy.json beside it is about an array of ...: remove or correct it",
)
def test_a_sidecar_of_another_array_is_a_contradiction(tmp_path: Path) -> None:
    create_volume(tmp_path / "out.npy", INFO)
    np.save(tmp_path / "out.npy", VALUES[1:])
    with pytest.raises(
        InputError, match=r"out\.npy\.json beside it is about an array of \(\[5, 6, 7\], 'uint16'\)"
    ):
        open_volume(tmp_path / "out.npy")


@pytest.mark.fault(
    "containers",
    "the sidecar of a .npy file is empty, a list or incomplete",
    "error: is not readable / is not valid: remove or rewrite it",
)
@pytest.mark.parametrize(
    "text", ["", "[]", '{"emloom": {}}', '{"emloom": {"axes": 3}, "shape": [5, 6, 7], "dtype": "uint16"}']
)
def test_a_damaged_sidecar_is_an_error(tmp_path: Path, text: str) -> None:
    create_volume(tmp_path / "out.npy", INFO)
    (tmp_path / "out.npy.json").write_text(text)
    with pytest.raises(InputError, match=r"is not readable|is not valid"):
        open_volume(tmp_path / "out.npy")


def test_a_file_that_is_no_sidecar_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.npy.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="is in the way"):
        create_volume(tmp_path / "out.npy", INFO)
    assert (tmp_path / "out.npy.json").read_text() == '{"mine": 1}'
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.fault(
    "containers",
    "a .npy file is cut short, empty, an archive, holds Python objects (pickle), or has 2 dimensions",
    "error: is not a readable .npy file: copy it again / save plain numbers. Nothing is unpickled",
)
def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", VALUES)
    data = (tmp_path / "good.npy").read_bytes()
    npz = io.BytesIO()
    np.savez(npz, a=VALUES)
    for name, content in {
        "half": data[: len(data) // 2],
        "head": data[:5],
        "empty": b"",
        "npz": npz.getvalue(),
    }.items():
        (tmp_path / f"{name}.npy").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.npy is (not a readable|an archive)"):
            inspect(tmp_path / f"{name}.npy")
    np.save(tmp_path / "objects.npy", np.array([[[{}]]], object), allow_pickle=True)
    with pytest.raises(InputError, match="save plain numbers"):
        inspect(tmp_path / "objects.npy")
    np.save(tmp_path / "flat.npy", VALUES[0])
    with pytest.raises(InputError, match="has 2 dimensions"):
        open_volume(tmp_path / "flat.npy", voxel_size_nm=(1, 1, 1))
    with pytest.raises(InputError, match="holds nothing named 'x'"):
        open_volume(tmp_path / "good.npy/x")
    with pytest.raises(InputError, match="holds nothing named 'x'"):
        create_volume(tmp_path / "new.npy/x", INFO)
