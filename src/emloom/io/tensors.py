"""Volumes behind TensorStore: one class for zarr, N5 and precomputed, which differ in metadata, not in reading.

A format may store its axes in another order than ``[c,]zyx`` and let its first voxel lie elsewhere than 0. A
`StoreVolume` says for each of *its* axes which stored axis that is, so the voxels are turned in one place only::

    zarr, [c,]zyx        axes = (0, 1, 2)        N5, stored xyz           axes = (2, 1, 0)
    precomputed, xyzc    axes = (3, 2, 1, 0), or (2, 1, 0) where the one channel is left out

Trap: TensorStore runs threads and aborts a process that forks after using it. Start workers with `spawn` or
`forkserver`; volumes are cheap to pickle and open their files when first used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.io.files import explained
from emloom.io.places import SPARSE, Place, Remote, context, kvstore, short, unreachable
from emloom.io.volume import Array, VolumeInfo, check_box, check_write

#: How TensorStore begins to tell of a chunk that is not there, where that is an error.
_MISSING = "NOT_FOUND: chunk "

#: How it tells of a file whose content cannot be decoded.
_DAMAGED = re.compile(r'FAILED_PRECONDITION: Error reading local file "([^"]+)"')


@dataclass(frozen=True)
class StoreVolume:
    """A stored array as a volume; opened when first used, cheap to pickle.

    Attributes:
        info: what the volume says about itself; `info.chunks` is what one writer may write alone (the shard).
        array: folder of the array itself; of a precomputed volume, the folder of its ``info``.
        driver: TensorStore's name of the format.
        axes: for each axis of the volume the stored axis; a stored axis not named here has extent 1.
        writable: whether `write` is allowed.
        scale: which scale of a precomputed volume.
    """

    info: VolumeInfo
    array: Place
    driver: str
    axes: tuple[int, ...]
    writable: bool = False
    scale: int | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order.

        Raises:
            InputError: the box leaves the volume; a chunk is damaged, cannot be reached, or is missing at a remote
                place that is not sparse.
        """
        check_box(self.info, box)
        # Memory that NumPy allocates comes in huge pages where the system has them: half the time of a large read.
        out = np.empty(self.info.shape_of(box), self.info.dtype)
        target = tensorstore.array(out, copy=False, write=True)
        with explained(self.info.source, "read"):
            stored = self.view()[..., *box.slices()][tensorstore.d[:].translate_to[0]]
            told(target.write(stored), self.info.source)
        return out

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`; whole chunks are replaced in one step each, damaged ones too."""
        check_write(self.info, box, array)
        if not self.writable:
            raise InputError(
                f"{self.info.source} is open read-only: open it with writable=True or write to a new one"
            )
        failed = self._try([part for _, part in cells(box, self.info.chunks or box.shape)], box, array)
        cleared = [part for part, write in failed if self._cleared(part, str(write.exception()))]
        failed = [(part, write) for part, write in failed if part not in cleared] + self._try(cleared, box, array)
        if failed:
            with explained(self.info.source):
                told(failed[0][1], self.info.source, "write")

    def _try(self, parts: Sequence[Box], box: Box, array: Array) -> list[tuple[Box, Any]]:
        """Write parts of a box, and return those that failed, with what TensorStore says of them."""
        view = self.view()
        writes = [view[..., *part.slices()].write(array[..., *part.slices(box.start)]) for part in parts]
        # Wait for every chunk before reporting a failure: nothing is still being written when a caller cleans up.
        return [(part, write) for part, write in zip(parts, writes, strict=True) if write.exception() is not None]

    def _cleared(self, part: Box, problem: str) -> bool:
        """Remove the damaged file of a chunk that is to be replaced whole; return whether it was that.

        A chunk that reaches beyond the volume is read by TensorStore before it is replaced, which fails there.
        """
        found = _DAMAGED.search(problem)
        chunk = self.info.chunks or part.shape
        start = [a // c * c for a, c in zip(part.start, chunk, strict=True)]
        whole = Box((start[0], start[1], start[2]), chunk).intersect(self.info.box)
        if found is None or isinstance(self.array, Remote) or part != whole:
            return False
        file = Path(found.group(1))
        if not file.resolve().is_relative_to(self.array.resolve()):
            return False
        file.unlink(missing_ok=True)
        return True

    def view(self) -> Any:
        """Return TensorStore's view of the array, its axes and its origin those of the volume."""
        if "view" not in self._cache:
            self._cache["view"] = self.view_of(open_store(self.array, self.driver, self.scale))
        return self._cache["view"]

    def view_of(self, store: Any) -> Any:
        """Return the view of an opened store that holds this array."""
        kept = sorted(self.axes)
        whole = store[tensorstore.d[:].translate_to[0]]
        used = whole[tuple(slice(None) if i in kept else 0 for i in range(store.rank))]
        return used.transpose([kept.index(axis) for axis in self.axes])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}


def open_store(array: Place, driver: str, scale: int | None = None) -> Any:
    """Return the opened TensorStore of an array, axes and origin as stored.

    Of a remote array a missing chunk is an error unless its address is sparse: nobody can see from afar whether it
    was never written or got lost on the way. A local array is zero there: that is how empty volumes are made. So
    that others can tell the two apart, every chunk that is written is stored, also one that is all zero; see
    design/0005-chunks-of-zeros-are-stored.md.

    Raises:
        InputError: the metadata are damaged or not supported, or the place cannot be reached.
    """
    spec: dict[str, Any] = {"driver": driver, "kvstore": kvstore(array), "store_data_equal_to_fill_value": True}
    if scale is not None:
        spec["scale_index"] = scale
    if isinstance(array, Remote) and not (array.sparse or array.unfinished):
        spec["fill_missing_data_reads"] = False
    with explained(str(array), "read"):
        return told(tensorstore.open(spec, open=True, context=context()), array)


def told(future: Any, source: object, doing: str = "read") -> Any:
    """Wait for TensorStore; damaged or unsupported data become an `InputError`, the disk's errors pass through."""
    try:
        return future.result()
    except ValueError as problem:
        text = str(problem)
        if "os_error_code" in text:
            raise
        if text.startswith(_MISSING):
            raise InputError(_lost(source, problem)) from problem
        if isinstance(source, Remote) or "://" in str(source):
            raise InputError(unreachable(source, problem, doing)) from problem
        raise InputError(
            f"cannot read or write {source}: {short(problem)}; copy it again or write it anew"
        ) from problem


def _lost(source: object, problem: Exception) -> str:
    """Return the message about a remote volume one of whose chunks is missing."""
    what = short(problem).removeprefix("NOT_FOUND: ")
    return (
        f"cannot read {source}: {what}; a missing chunk may be a broken copy, "
        "or a volume stored sparsely, where it means zero: copy the volume there again, or, if it is stored "
        f"sparsely, say so with {source}{SPARSE}, or sparse=True in Python"
    )


def dtype_of(store: Any) -> np.dtype[Any]:
    """Return the element type of an opened store; `object` where numpy has no such type."""
    try:
        dtype: np.dtype[Any] = np.dtype(store.dtype.numpy_dtype)
        return dtype
    except (AttributeError, TypeError):
        return np.dtype(object)


def kept_axes(order: tuple[int, ...], squeezed: tuple[int, ...]) -> tuple[int, ...]:
    """Return `StoreVolume.axes`: the stored axes in the order they are told, without those left out."""
    return tuple(stored for i, stored in enumerate(order) if i not in squeezed)
