"""Every writable format keeps the contract, and the contract notices formats that do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry import Box, Grid
from emloom.io.volume import Array, Volume, VolumeInfo, check_box, check_write
from emloom.testing.contracts import ALL_DTYPES, Layout, VolumeContract


class TestZarr3(VolumeContract):
    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.zarr"


class TestZarr3Inside(VolumeContract):
    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.zarr/a/raw"


class TestZarr3Sharded(VolumeContract):
    layouts = (Layout((4, 8, 8), {"shards": (8, 16, 16)}), Layout((8, 8, 16), {"shards": (16, 16, 32)}))
    crash_layout = Layout((32, 32, 32), {"shards": (64, 64, 64)})

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.zarr"


class TestZarr2(VolumeContract):
    layouts = tuple(Layout(chunks, {"zarr_format": 2}) for chunks in [(8, 8, 16), (16, 16, 32), (4, 16, 8)])
    crash_layout = Layout((64, 64, 64), {"zarr_format": 2})

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.zarr"


class TestN5(VolumeContract):
    dtypes = tuple(dtype for dtype in ALL_DTYPES if dtype != "bool")

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.n5/raw"


class TestPrecomputed(VolumeContract):
    dtypes = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
    whole_voxel_offsets = True

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.precomputed"


class TestWkw(VolumeContract):
    dtypes = tuple(dtype for dtype in ALL_DTYPES if dtype != "bool")
    whole_voxel_offsets = True
    negative_offsets = False
    layouts = (Layout((32, 32, 32)),)
    example_grid = Grid((40, 4, 4))  # chunks of a volume that starts inside a cube file lie in two files

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.wkw/color"


class TestHdf5(VolumeContract):
    parallel = False  # HDF5 has one writing process at a time
    crash_safe = False  # HDF5 rewrites chunks, and the tree that finds them, in place

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.h5/volumes/raw"


class TestCremiClefts(VolumeContract):
    """uint64 labels under this name store background as CREMI does."""

    dtypes = ("uint64",)
    kinds = ("labels",)
    channels_allowed = False
    parallel = False
    crash_safe = False

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.h5/volumes/labels/clefts"


class TestTiff(VolumeContract):
    dtypes = tuple(dtype for dtype in ALL_DTYPES if dtype != "bool")
    channels_allowed = False
    layouts = (Layout(None),)
    crash_safe = False  # pages are rewritten in place

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.tif"


class TestNpy(VolumeContract):
    layouts = (Layout(None),)
    crash_safe = False  # the array is rewritten in place

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.npy"


# ---- the contract itself --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Careless:
    """A raw file rewritten in place: a writer killed in between leaves a mixture."""

    info: VolumeInfo
    file: Path
    casts: bool = False

    def read(self, box: Box) -> Array:
        check_box(self.info, box)
        return self._map("r")[box.slices()].copy()

    def write(self, box: Box, array: Array) -> None:
        if not self.casts:
            check_write(self.info, box, array)
        target = self._map("r+")
        for z in range(box.shape[0]):
            target[box.start[0] + z] = array[z]

    def _map(self, mode: str) -> np.memmap:  # type: ignore[type-arg]
        return np.memmap(self.file, self.info.dtype, mode, shape=self.info.shape)  # type: ignore[call-overload]


class CarelessContract(VolumeContract):
    casts = False

    def suffix_path(self, folder: Path) -> Path:
        return folder / "out.bin"

    def create(self, path: Path, info: VolumeInfo, layout: Layout, *, overwrite: bool = False) -> Volume:
        np.zeros(info.shape, info.dtype).tofile(path)
        self.made = Careless(info, path, self.casts)
        return self.made

    def open(self, path: Path, *, writable: bool = False) -> Volume:
        return self.made


def kill_several_times(contract: VolumeContract, folder: Path) -> None:
    for i in range(5):  # one kill may fall between two writes
        (folder / str(i)).mkdir()
        contract.test_a_killed_writer_leaves_every_chunk_old_or_new(folder / str(i))


def test_the_contract_notices_torn_chunks(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="neither as it was nor as it was to be"):
        kill_several_times(CarelessContract(), tmp_path)


def test_the_contract_notices_silent_casts_and_open_doors(tmp_path: Path) -> None:
    contract = CarelessContract()
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        contract.test_a_read_only_volume_refuses_to_be_written(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        contract.test_an_existing_volume_is_not_overwritten_by_accident(tmp_path)
    contract.casts = True
    with pytest.raises((pytest.fail.Exception, ValueError)):
        contract.test_a_wrong_dtype_or_shape_is_refused(tmp_path)
