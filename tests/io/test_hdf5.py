"""HDF5 in CREMI layout."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume
from emloom.io.volume import Volume, VolumeInfo

RAW = np.random.default_rng(0).integers(0, 255, (12, 20, 30), dtype=np.uint8)


@pytest.fixture
def cremi(tmp_path: Path) -> Path:
    path = tmp_path / "sample.h5"
    with h5py.File(path, "w") as h5:
        h5["volumes/raw"] = RAW
        h5["volumes/labels/neuron_ids"] = RAW.astype(np.uint64)
        h5["volumes/labels/clefts"] = RAW.astype(">u4")
        h5["annotations/ids"] = np.arange(5)
        for name in ("raw", "labels/neuron_ids", "labels/clefts"):
            h5[f"volumes/{name}"].attrs["resolution"] = (40.0, 4.0, 4.0)
        h5["volumes/labels/neuron_ids"].attrs["offset"] = (400.0, 40.0, 40.0)
    return path


def test_cremi_files_open(cremi: Path) -> None:
    raw = open_volume(cremi / "volumes/raw")
    assert raw.info.grid == Grid((40, 4, 4))
    assert raw.info.kind == "raw"
    np.testing.assert_array_equal(raw.read(Box((2, 3, 4), (5, 6, 7))), RAW[2:7, 3:9, 4:11])
    labels = open_volume(str(cremi / "volumes/labels/neuron_ids"))
    assert labels.info.kind == "labels"
    assert labels.info.grid.offset_nm == (400, 40, 40)
    clefts = open_volume(cremi / "volumes/labels/clefts")
    assert clefts.info.kind == "labels"
    assert clefts.read(clefts.info.box).dtype.isnative
    np.testing.assert_array_equal(clefts.read(clefts.info.box), RAW)


def test_h5py_reads_what_we_write(tmp_path: Path) -> None:
    info = VolumeInfo(RAW.shape, np.dtype("uint8"), Grid((40, 4, 4), (80, 8, 0)), kind="raw")
    create_volume(tmp_path / "out.h5/volumes/raw", info).write(info.box, RAW)
    with h5py.File(tmp_path / "out.h5") as h5:
        np.testing.assert_array_equal(h5["volumes/raw"][:], RAW)
        assert h5["volumes/raw"].attrs["resolution"].tolist() == [40, 4, 4]
        assert h5["volumes/raw"].attrs["offset"].tolist() == [80, 8, 0]


def test_several_datasets_need_a_name_and_wrong_names_a_hint(cremi: Path) -> None:
    with pytest.raises(InputError, match=r"holds 3 arrays: name one of .*sample\.h5/volumes/labels/clefts"):
        open_volume(cremi)
    with pytest.raises(InputError, match="did you mean 'volumes/raw'"):
        open_volume(cremi / "volume/raw")
    with pytest.raises(InputError, match="holds 2 arrays"):
        open_volume(cremi / "volumes/labels")
    with pytest.raises(InputError, match="has 1 dimensions"):
        open_volume(cremi / "annotations/ids")
    with pytest.raises(InputError, match=r"sample5\.h5 does not exist; did you mean 'sample\.h5'"):
        open_volume(cremi.with_name("sample5.h5") / "volumes/raw")


@pytest.mark.fault(
    "units",
    "the voxel size, offset or kind given differs from the stored one",
    "error: says voxel size (40, 4, 4), the caller says (4, 4, 40): correct one of them",
)
def test_given_values_must_agree_with_stored_ones(cremi: Path) -> None:
    path = cremi / "volumes/labels/neuron_ids"
    assert open_volume(path, voxel_size_nm=(40, 4, 4), offset_nm=(400, 40, 40), kind="labels")
    with pytest.raises(InputError, match=r"says voxel size \(40\.0, 4\.0, 4\.0\), the caller says \(4"):
        open_volume(path, voxel_size_nm=(4, 4, 40))
    with pytest.raises(InputError, match="says offset"):
        open_volume(path, offset_nm=(0, 0, 0))
    with pytest.raises(InputError, match="says kind"):
        open_volume(path, kind="raw")
    with pytest.raises(InputError, match=r"kind 'label' is unknown.*did you mean 'labels'"):
        open_volume(cremi / "volumes/labels/clefts", kind="label")  # type: ignore[arg-type]


@pytest.mark.fault(
    "units",
    "a file states no voxel size",
    "error: voxel size is missing in x.h5/main: pass --voxel-size 40,4,4 (nm, z,y,x)",
)
def test_missing_voxel_size_is_an_error_never_a_default(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        h5["main"] = RAW
    with pytest.raises(InputError, match=r"voxel size is missing in .*x\.h5/main: pass --voxel-size 40,4,4"):
        open_volume(tmp_path / "x.h5")
    (hit,) = inspect(tmp_path / "x.h5")
    assert (hit.voxel_size_nm, hit.missing[0]) == (None, "voxel size")
    assert open_volume(tmp_path / "x.h5", voxel_size_nm=(30, 6, 6.5)).info.grid == Grid((30, 6, 6.5))


@pytest.mark.fault(
    "containers",
    "an HDF5 file is empty or cut short",
    "error: is empty (0 bytes) / is not a readable HDF5 file: copy it again",
)
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.9])
def test_truncated_files_are_an_error(cremi: Path, keep: float) -> None:
    data = cremi.read_bytes()
    cremi.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"sample\.h5 is (empty|not a readable HDF5 file).*copy it again"):
        open_volume(cremi / "volumes/raw")


@pytest.mark.fault(
    "containers",
    "a compressed chunk inside an HDF5 file is overwritten with zeros",
    "error: is not a readable HDF5 file: copy it again",
)
def test_damaged_chunks_are_an_error(tmp_path: Path) -> None:
    info = VolumeInfo(RAW.shape, np.dtype("uint8"), Grid((40, 4, 4)))
    create_volume(tmp_path / "out.h5/a", info).write(info.box, RAW)
    with h5py.File(tmp_path / "out.h5") as h5:
        place = h5["a"].id.get_chunk_info(0)
    data = bytearray((tmp_path / "out.h5").read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    (tmp_path / "out.h5").write_bytes(data)
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        open_volume(tmp_path / "out.h5/a").read(info.box)


@pytest.mark.fault(
    "disk",
    "the disk has less room than a block of HDF5 needs (HDF5 itself would crash)",
    "error: the disk is full ... (1000 bytes are free, ... needed), before anything is written",
)
def test_a_full_disk_is_noticed_before_hdf5_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = VolumeInfo(RAW.shape, np.dtype("uint8"), Grid((40, 4, 4)))
    volume = create_volume(tmp_path / "out.h5/a", info)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"cannot write .*out\.h5: the disk is full.*1000 bytes are free"):
        volume.write(info.box, RAW)
    assert not volume.read(info.box).any()


@pytest.mark.fault(
    "containers",
    "a text file is called x.h5",
    "error: is not a readable HDF5 file",
)
def test_a_text_file_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("hello")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        inspect(tmp_path / "x.h5")


def _sum(volume: Volume, queue: object) -> None:
    queue.put(int(volume.read(volume.info.box).sum()))  # type: ignore[attr-defined]


def test_volumes_can_be_sent_to_other_processes(cremi: Path) -> None:
    volume = open_volume(cremi / "volumes/raw")
    volume.read(volume.info.box)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_sum, args=(volume, queue))
    worker.start()
    assert queue.get(timeout=60) == RAW.sum()
    worker.join()


@pytest.mark.real_data
def test_fib25(real_data: Path) -> None:
    path = real_data / "fib25/trvol2_250.h5"
    assert {Path(hit.path).name for hit in inspect(path)} == {"raw", "neuron_ids", "oversegmentation", "ffn_seg"}
    volume = open_volume(path / "volumes/raw")
    assert volume.info.grid.voxel_size_nm == (10, 10, 10)
    with h5py.File(path) as h5:
        expected = h5["volumes/raw"][10:40, 100:150, 30:60]
    np.testing.assert_array_equal(volume.read(Box.of((10, 100, 30), (40, 150, 60))), expected)


@pytest.mark.fault(
    "paths",
    "an HDF5 file takes its values from outside its folder: external link, virtual dataset, external storage",
    "error: takes its values from ../other.h5, outside its folder: copy that file there and link anew",
)
@pytest.mark.parametrize("way", ["link", "virtual", "external"])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_values_come_from_the_folder_of_the_file(tmp_path: Path, way: str, place: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    other = (home if place == "inside" else tmp_path) / "other.h5"
    name = "other.h5" if place == "inside" else "../other.h5"
    with h5py.File(other, "w") as h5:
        h5["raw"] = RAW
        h5["raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    with h5py.File(home / "a.h5", "w") as h5:
        if way == "link":
            h5["raw"] = h5py.ExternalLink(name, "raw")
        elif way == "virtual":
            layout = h5py.VirtualLayout(RAW.shape, RAW.dtype)
            layout[:] = h5py.VirtualSource(name, "raw", RAW.shape)
            h5.create_virtual_dataset("raw", layout)
        else:
            h5.create_dataset("raw", RAW.shape, RAW.dtype, external=[(name, 0, RAW.nbytes)])
    size = None if way == "link" else (40, 4, 4)
    if place == "outside":
        with pytest.raises(InputError, match=r"takes its values from .*other\.h5, outside its folder"):
            open_volume(home / "a.h5/raw", voxel_size_nm=size)
    else:
        assert open_volume(home / "a.h5/raw", voxel_size_nm=size).info.shape == RAW.shape
