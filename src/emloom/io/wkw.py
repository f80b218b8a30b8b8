"""WKW: one magnification of a webKnossos layer as a folder of cube files.

https://github.com/scalableminds/webknossos-wrap. The folder holds a header and one file per non-empty cube::

    1/header.wkw          16 bytes: type, channels, block and cube edge, compression
    1/z3/y8/x5.wkw        cube (z 3, y 8, x 5): voxels [3n, 4n) x [8n, 9n) x [5n, 6n) for cubes of n voxels

Values are stored in the order c, x, y, z with c fastest; they are turned into ``[c]zyx`` here and nowhere else.
The folder has no shape: coordinates are unsigned and absolute, and a cube without a file is all zero. Which box
of it is the volume, and how large a voxel is, the dataset around it says (`emloom.io.webknossos`).

Written cubes are LZ4-compressed. A cube is always built whole in a hidden folder and moved to its place in one
step, so a process killed in mid-write leaves every cube old or new (and a hidden ``.cube.partial-*`` folder, which
nobody reads and which may be deleted). A cube that a box covers in part is read,
changed and replaced under a lock of the folder (`flock` on its header): blocks that share a cube are safe in any
order, but slower than blocks aligned to cubes.

Trap: the wkw library reads a cube file it cannot open, or whose head is cut off, as zeros. So the head and the
length of every cube are checked before each read; LZ4 blocks carry no checksum, so other damage is only seen where
it breaks the compression.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.io.files import explained, final_path
from emloom.io.volume import Array, VolumeInfo, check_box, check_write

HEADER = "header.wkw"
#: Voxel coordinates are 32 bits.
LIMIT_VOX = 2**32
RAW, LZ4, LZ4HC = 1, 2, 3
BLOCK_LEN = 32
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "float32", "float64", "int8", "int16", "int32", "int64")
_HEAD = struct.Struct("<3sBBBBBQ")
_CUBE = re.compile(r"z(\d+)/y(\d+)/x(\d+)\.wkw$")
_SYSTEM_ERROR = re.compile(r"os error (\d+)")


@dataclass(frozen=True)
class Header:
    """What `header.wkw` says.

    Attributes:
        dtype: element type.
        channels: values per voxel.
        cube_len: edge of a cube file in voxels, a power of two.
        block_len: edge of a compressed block in voxels, a power of two.
        block_type: 1 raw, 2 LZ4, 3 LZ4 high compression.
    """

    dtype: np.dtype[Any]
    channels: int
    cube_len: int
    block_len: int = BLOCK_LEN
    block_type: int = LZ4

    @property
    def cube(self) -> Vec:
        """Voxels (z, y, x) of a cube file."""
        return (self.cube_len, self.cube_len, self.cube_len)

    @property
    def blocks(self) -> int:
        """Number of blocks in a cube file."""
        return (self.cube_len // self.block_len) ** 3

    def to_bytes(self, data_offset: int = 0) -> bytes:
        """Return the 16 bytes of this header; of a cube file, `data_offset` is where its first block starts."""
        lens = (self.cube_len // self.block_len).bit_length() - 1 << 4 | self.block_len.bit_length() - 1
        size = self.channels * self.dtype.itemsize
        kind = _DTYPES.index(self.dtype.name) + 1
        return _HEAD.pack(b"WKW", 1, lens, self.block_type, kind, size, data_offset)


def check_type(dtype: np.dtype[Any], channels: int, name: object) -> None:
    """Raise `InputError` where cube files cannot hold such values."""
    if dtype.name not in _DTYPES:
        raise InputError(f"{name}: wkw does not store {dtype}: convert to one of {', '.join(_DTYPES)}")
    if channels * dtype.itemsize > 255:
        raise InputError(
            f"{name}: {channels} channels of {dtype} are {channels * dtype.itemsize} bytes per voxel, and wkw "
            "stores at most 255: write fewer channels, or to .zarr"
        )


def read_header(folder: Path) -> Header:
    """Return the header of a magnification folder.

    Raises:
        InputError: missing, damaged, or of a version other than 1.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"{folder} has no {HEADER}: it is not a wkw folder, or was copied in part; copy it again")
    with explained(path, "read"):
        return _parse(path.read_bytes(), path)[0]


def _parse(data: bytes, path: Path) -> tuple[Header, int]:
    """Return (header, where the data start)."""
    if len(data) < _HEAD.size:
        raise InputError(f"{path} is cut off ({len(data)} of {_HEAD.size} bytes): copy it again")
    magic, version, lens, block_type, kind, size, data_offset = _HEAD.unpack_from(data)
    if magic != b"WKW":
        raise InputError(f"{path} does not start with 'WKW' but {magic!r}: it is another file or damaged")
    if version != 1:
        raise InputError(
            f"{path} is wkw version {version}: only version 1 is known; convert it to that or to zarr"
        )
    if block_type not in (RAW, LZ4, LZ4HC) or not 1 <= kind <= len(_DTYPES):
        raise InputError(
            f"{path} names block type {block_type} and voxel type {kind}, which do not exist: damaged"
        )
    dtype = np.dtype(_DTYPES[kind - 1])
    if size == 0 or size % dtype.itemsize:
        raise InputError(f"{path} says {size} bytes per voxel of {dtype}, no whole number of channels: damaged")
    block_len, file_len = 1 << (lens & 15), 1 << (lens >> 4)
    return Header(dtype, size // dtype.itemsize, block_len * file_len, block_len, block_type), data_offset


def write_header(folder: Path, header: Header) -> None:
    """Make a folder a magnification without voxels (all zero)."""
    folder.mkdir(parents=True)
    (folder / HEADER).write_bytes(header.to_bytes())


def cube_len_for(info: VolumeInfo) -> int:
    """Return the edge of the cube files of a new volume.

    The smallest power of two that holds a chunk of `info` (256 voxels where it names none), at least one block, at
    most 1024 and no larger than the volume needs.
    """
    wanted = min(max(info.chunks or (256,)), max(info.shape), 1024)
    return max(BLOCK_LEN, 1 << (wanted - 1).bit_length())


def _cubes_present(folder: Path) -> Iterator[Vec]:
    """Yield (z, y, x) of the cubes that have a file."""
    for path in folder.glob("z*/y*/x*.wkw"):
        place = _CUBE.search(path.as_posix())
        if place is not None:
            yield (int(place[1]), int(place[2]), int(place[3]))


def has_cubes(folder: Path) -> bool:
    """Whether any cube has a file."""
    return next(_cubes_present(folder), None) is not None


def box_of_cubes(folder: Path, header: Header) -> Box | None:
    """Return the smallest box around all cubes that have a file, None where there is none."""
    found = list(_cubes_present(folder))
    if not found:
        return None
    n = header.cube_len
    low = [min(axis) * n for axis in zip(*found, strict=True)]
    high = [(max(axis) + 1) * n for axis in zip(*found, strict=True)]
    return Box.of(low, high)


@dataclass(frozen=True)
class WkwVolume:
    """A box of a wkw folder as a volume; the folder is opened for every call, so a volume is cheap to pickle.

    Attributes:
        info: what the volume says about itself; `info.chunks` is the cube, which one file holds.
        folder: the magnification folder.
        start: (z, y, x) of the volume's first voxel in the folder's own coordinates.
        header: what the folder's header says.
        writable: whether `write` is allowed.
    """

    info: VolumeInfo
    folder: Path
    start: Vec
    header: Header
    writable: bool = False

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous; cubes without a file are zero, a damaged one is an error."""
        check_box(self.info, box)
        if box.is_empty:
            return np.empty(self.info.shape_of(box), self.info.dtype)
        stored = self._stored(box.shift(self.start))
        return np.ascontiguousarray(stored if self.info.channels is not None else stored[0])

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`; each cube it touches is replaced in one step."""
        check_write(self.info, box, array)
        if not self.writable:
            raise InputError(
                f"{self.info.source} is open read-only: open it with writable=True or write to a new one"
            )
        if box.is_empty:
            return
        target = box.shift(self.start)
        values = array if array.ndim == 4 else array[None]
        with explained(self.info.source):
            for _, cube in cells(target.snap(self.header.cube), self.header.cube):
                part = cube.intersect(target)
                self._write_part(cube, part, values[:, *part.slices(target.start)])

    def _write_part(self, cube: Box, part: Box, values: Array) -> None:
        if part == cube:
            self._replace(cube, values)
            return
        with self._alone():
            whole = self._stored(cube)
            whole[:, *part.slices(cube.start)] = values
            self._replace(cube, whole)

    def _stored(self, box: Box) -> Array:
        """Return `[c, z, y, x]` of a box in the folder's own coordinates."""
        with explained(self.info.source, "read"):
            for _, cube in cells(box.snap(self.header.cube), self.header.cube):
                self._check_cube(self.folder / self._name(cube))
            with _opened(self.folder) as wkw:
                stored: Array = wkw.read(box.start[::-1], box.shape[::-1])
        return stored.transpose(0, 3, 2, 1)

    def _name(self, cube: Box) -> str:
        z, y, x = (a // self.header.cube_len for a in cube.start)
        return f"z{z}/y{y}/x{x}.wkw"

    def _check_cube(self, path: Path) -> None:
        """Raise `InputError` where a cube file is not whole; see the trap in the module's docstring."""
        try:
            with path.open("rb") as file:
                header, data_offset = _parse(file.read(_HEAD.size), path)
                if header != self.header:
                    raise InputError(f"{path} says {header}, {HEADER} says {self.header}: copy the folder again")
                size = os.fstat(file.fileno()).st_size
                end = data_offset + header.cube_len**3 * header.channels * header.dtype.itemsize
                if header.block_type != RAW:
                    # The jump table between head and data says where each block ends.
                    file.seek(_HEAD.size + 8 * (header.blocks - 1))
                    last = file.read(8)
                    end = int.from_bytes(last, "little") if len(last) == 8 else size + 1
        except FileNotFoundError:
            return
        if size < end:
            raise InputError(f"{path} is cut off (it has {size} bytes): copy it again")

    def _replace(self, cube: Box, values: Array) -> None:
        """Write the values `[c, z, y, x]` of a whole cube; an all-zero cube without a file stays without one."""
        name = self._name(cube)
        path = self.folder / name
        if not path.exists() and not values.any():
            return
        temporary = self.folder / f".cube.partial-{uuid.uuid4().hex[:8]}"
        try:
            write_header(temporary, self.header)
            with _opened(temporary) as wkw:
                wkw.write(cube.start[::-1], np.asfortranarray(values.transpose(0, 3, 2, 1)))
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers of shared cubes out for the block, in this and in other processes."""
        with (self.folder / HEADER).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, also by kill -9
            yield


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    """Open a wkw folder for the block; what the library reports becomes an `InputError` or an `OSError`."""
    wkw = library()
    try:
        with wkw.Dataset.open(os.fspath(folder)) as dataset:
            yield dataset
    except wkw.wkw.WKWException as problem:
        text = " ".join(str(problem).split())[:300]
        code = _SYSTEM_ERROR.search(text)
        if code is not None:
            raise OSError(int(code[1]), text) from problem
        raise InputError(f"cannot read or write {final_path(folder)}: {text}; copy it again") from problem


def library() -> ModuleType:
    """Return the wkw library, loaded when first needed: it is machine code that not every machine can load.

    Raises:
        InputError: it does not load here.
    """
    try:
        import wkw
    except (ImportError, OSError) as problem:
        raise InputError(
            f"the wkw library does not load on this machine ({problem}): convert the data to zarr on another one"
        ) from problem
    module: ModuleType = wkw
    return module
