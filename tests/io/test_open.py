"""Paths: which format, which container, which array inside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume, inspect, locate, open_volume, unplaced_volume
from emloom.io.volume import VolumeInfo

INFO = VolumeInfo((4, 5, 6), np.dtype("uint8"), Grid((40, 4, 4)), kind="raw")


@pytest.mark.parametrize(
    ("path", "container", "inner"),
    [
        ("a.zarr", "a.zarr", ""),
        ("a.zarr/", "a.zarr", ""),
        ("a.zarr/raw", "a.zarr", "raw"),
        ("a.zarr/x/raw.v2", "a.zarr", "x/raw.v2"),
        ("b.h5/volumes/raw", "b.h5", "volumes/raw"),
        ("B.H5/volumes/raw", "B.H5", "volumes/raw"),
    ],
)
def test_the_container_is_the_first_part_with_a_known_suffix(path: str, container: str, inner: str) -> None:
    _, found, name = locate(path, creating=True)
    assert (str(found), name) == (container, inner)


def test_a_folder_named_like_a_file_is_no_container(tmp_path: Path) -> None:
    (tmp_path / "run.h5").mkdir()
    create_volume(tmp_path / "run.h5" / "a.zarr", INFO)
    assert open_volume(tmp_path / "run.h5" / "a.zarr").info.shape == (4, 5, 6)


def test_zarr_folders_of_any_name_open(tmp_path: Path) -> None:
    create_volume(tmp_path / "a.zarr/x/raw", INFO)
    (tmp_path / "a.zarr").rename(tmp_path / "plain")
    for path in ("plain", "plain/x", "plain/x/raw", "plain/x/raw/0"):
        assert open_volume(tmp_path / path).info.grid == INFO.grid
    with pytest.raises(InputError, match="holds no 'x/rav'; did you mean 'x/raw'"):
        open_volume(tmp_path / "plain/x/rav")


def test_nothing_there_names_the_neighbour(tmp_path: Path) -> None:
    create_volume(tmp_path / "cortex.zarr", INFO)
    with pytest.raises(InputError, match=r"cortx\.zarr does not exist; did you mean 'cortex\.zarr'"):
        open_volume(tmp_path / "cortx.zarr")
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_volume(tmp_path / "nowhere")
    (tmp_path / "thesis.doc").write_text("")
    with pytest.raises(InputError, match=r"no known format: known suffixes are \.zarr, \.h5"):
        open_volume(tmp_path / "thesis.doc")


def test_affinities_need_their_offsets(tmp_path: Path) -> None:
    info = INFO.with_(channels=2, kind=None)
    create_volume(tmp_path / "a.zarr", info)
    with pytest.raises(InputError, match="affinities without offsets"):
        open_volume(tmp_path / "a.zarr", kind="affinities")
    with pytest.raises(InputError, match="neighborhood of 1"):
        open_volume(tmp_path / "a.zarr", kind="affinities", neighborhood=[(-1, 0, 0)])


def test_bad_numbers_are_errors(tmp_path: Path) -> None:
    create_volume(tmp_path / "a.zarr", INFO)
    for size in ((40, 4), (0, 4, 4), (float("nan"), 4, 4)):
        with pytest.raises(InputError, match="voxel size"):
            open_volume(tmp_path / "a.zarr", voxel_size_nm=size)


def test_inspect_says_everything_a_volume_says(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "a.zarr/raw", INFO)
    (hit,) = inspect(tmp_path / "a.zarr")
    assert (hit.axes, hit.shape, hit.dtype, hit.chunks) == ("zyx", INFO.shape, INFO.dtype, (64, 64, 64))
    assert (hit.voxel_size_nm, hit.offset_nm, hit.kind, hit.missing) == ((40, 4, 4), (0, 0, 0), "raw", ())
    values = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    volume.write(INFO.box, values)
    np.testing.assert_array_equal(unplaced_volume(hit).read(INFO.box), values)
