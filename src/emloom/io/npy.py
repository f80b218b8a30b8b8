"""NumPy arrays (``.npy``): ``[C,]ZYX``, mapped into memory, so that a box costs what it covers.

The format has no room for metadata. Arrays from elsewhere state nothing, and the voxel size has to be given;
arrays that emloom writes have a small file beside them that states it, and belongs to them wherever they go::

    raw.npy         the values, for numpy.load
    raw.npy.json    {"emloom": {voxel size, offset, kind, ...}, "shape": [...], "dtype": "uint8"}

Shape and dtype are there to notice a sidecar that belongs to another array. A sidecar that is lost is a voxel size
that is missing, never a default.

The file has its final size from the start, and blocks are written in place: a process killed in mid-write leaves
that block half old, half new.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.files import explained, final_path, reserve, staged, way_out
from emloom.io.metadata import OWN_KEY, ArrayFacts, Found, Statement, found, own_attribute, read_own
from emloom.io.volume import Array, VolumeInfo, check_box, check_write

SIDECAR = ".json"
#: What NumPy says of headers that are none.
_DAMAGED = (OSError, ValueError, EOFError, SyntaxError, OverflowError, RecursionError, TokenError)


@dataclass(frozen=True)
class NpyVolume:
    """A ``.npy`` file as a volume.

    Attributes:
        info: what the volume says about itself.
        file: the array.
        writable: whether `write` is allowed.
    """

    info: VolumeInfo
    file: Path
    writable: bool = False

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order."""
        check_box(self.info, box)
        return np.array(self._mapped("r")[..., *box.slices()], self.info.dtype, order="C")

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`."""
        check_write(self.info, box, array)
        if not self.writable:
            raise InputError(
                f"{self.info.source} is open read-only: open it with writable=True or write to a new one"
            )
        with explained(self.file):
            self._mapped("r+")[..., *box.slices()] = array

    def _mapped(self, mode: Literal["r", "r+"]) -> Array:
        array = _map(self.file, mode)
        if array.shape != self.info.array_shape or array.dtype.newbyteorder("=") != self.info.dtype:
            raise InputError(f"{self.info.source} changed while it was open: open it again")
        return array


def find(container: Path, inner: str) -> list[Found]:
    """Return the array in a ``.npy`` file, with what its sidecar states.

    Raises:
        InputError: an inner name, or a damaged file.
    """
    if inner:
        raise InputError(f"{container} is a NumPy array and holds nothing named {inner!r}")
    with explained(container, "read"), container.open("rb") as file:
        if file.read(2) == b"PK":
            raise InputError(
                f"{container} is an archive of arrays (.npz) under another name: save one array as .npy"
            )
    array = _map(container, "r")
    facts = ArrayFacts(tuple(array.shape), array.dtype)
    return [found(str(container), "npy", facts, _stated(container, array))]


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> NpyVolume:
    """Return the volume of an array that `find` found."""
    return NpyVolume(info, Path(hit.path), writable)


def create(path: Path, inner: str, info: VolumeInfo, *, overwrite: bool = False) -> NpyVolume:
    """Create an empty (all zero) array and its sidecar, ready to be written box by box.

    Args:
        path: the file; `<path>.json` is written beside it.
        inner: "": a ``.npy`` file holds one array.
        info: shape, dtype, grid, kind, neighborhood.
        overwrite: replace an existing array.

    Raises:
        InputError: the path exists, a file that is no sidecar is in the way, or the disk refuses.
    """
    if inner:
        raise InputError(f"{path} is a NumPy array and holds nothing named {inner!r}: write to {path}")
    _refuse_stranger(final_path(path))
    words = {OWN_KEY: own_attribute(info), "shape": list(info.array_shape), "dtype": info.dtype.name}
    with staged(path, overwrite=overwrite) as temporary:
        np.lib.format.open_memmap(temporary, "w+", info.dtype.newbyteorder("<"), info.array_shape)
        reserve(temporary)
        _sidecar(temporary).write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
    return NpyVolume(info.with_(chunks=None, source=str(path)), path, writable=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR)


def _refuse_stranger(path: Path) -> None:
    """Raise where writing the sidecar would overwrite a file that is none."""
    sidecar = _sidecar(path)
    if not sidecar.exists():
        return
    try:
        ours = OWN_KEY in json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise InputError(f"{sidecar} is in the way of the metadata of {path.name}: move it or choose another name")


def _stated(path: Path, array: Array) -> Statement:
    sidecar = _sidecar(path)
    if not sidecar.exists():
        return Statement(why_missing="a .npy file without its sidecar states none")
    try:
        words = json.loads(sidecar.read_text(encoding="utf-8"))
        described = (words["shape"], words["dtype"])
        said = read_own(words[OWN_KEY])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
        text = (
            f"{sidecar.name} beside it is not readable ({type(problem).__name__}: {problem}): remove or rewrite it"
        )
        return Statement(problems=(text,))
    actual = (list(array.shape), array.dtype.name)
    if described == actual:
        return said
    text = f"{sidecar.name} beside it is about an array of {described}, this one is {actual}: remove or correct it"
    return replace(said, problems=(*said.problems, text))


def _map(path: Path, mode: Literal["r", "r+"]) -> Array:
    """Map the array; what NumPy cannot read becomes an `InputError`."""
    with explained(path, "read"), np.errstate(over="ignore"):  # of a shape that is damaged
        try:
            array: Array = np.load(path, mmap_mode=mode, allow_pickle=False)
        except _DAMAGED as problem:
            if isinstance(problem, OSError) and way_out(problem) is not None:
                raise
            text = " ".join(str(problem).split())[:200]
            hint = "save plain numbers" if "object" in text.lower() else "copy it again"
            raise InputError(f"{path} is not a readable .npy file ({text}): {hint}") from problem
    return array
