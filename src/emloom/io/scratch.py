"""Scratch: an array that a later step would otherwise compute again, in a file that may be lost at any time.

::

    seal, 16 hexadecimal digits | zstd of the array's bytes    seal = xxh64 of (owner, dtype, shape, these bytes)

Whoever recalls an array says what it must belong to. A file of another owner, of another shape, cut short or
damaged has another seal, and is as good as none: then the array is computed again. So scratch is never part of a
result, no marker speaks of it, and where the disk refuses it (it may be full) the work goes on without.

Law: ``recall`` returns the array that was kept, bit for bit, or None.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import DTypeLike, NDArray

from emloom.errors import InputError
from emloom.io.files import write_bytes_atomic

_SEAL_BYTES = 16
_LEVEL = 1  # of zstd; for small integers it packs like level 3, in less time

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scratch:
    """One array in one file.

    Attributes:
        path: the file.
        owner: everything that decides what the array holds, for example the key of a stage and the box of a block.
    """

    path: Path
    owner: str

    def keep(self, array: NDArray[Any]) -> None:
        """Write an array, in one step; where the disk refuses, there is none."""
        array = np.asarray(array, order="C")
        packed = _codec().compress(array.reshape(-1).view(np.uint8), asbytes=True)
        try:
            write_bytes_atomic(self.path, self._seal(array.shape, array.dtype, packed) + packed)
        except (OSError, InputError) as problem:
            _log.info("%s is not kept and will be computed again: %s", self.path, problem)

    def recall(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any] | None:
        """Return the array, read-only; None unless an array of this owner, shape and dtype is there, undamaged."""
        try:
            found = self.path.read_bytes()
        except OSError:
            return None
        dtype, packed = np.dtype(dtype), memoryview(found)[_SEAL_BYTES:]
        if found[:_SEAL_BYTES] != self._seal(shape, dtype, packed):
            return None
        plain = _codec().decompress(packed, decompressed_size=prod(shape) * dtype.itemsize)
        return np.frombuffer(plain, dtype).reshape(shape)

    def drop(self) -> None:
        """Remove the file, if it is there and the disk lets it go."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _seal(self, shape: tuple[int, ...], dtype: np.dtype[Any], packed: bytes | memoryview) -> bytes:
        digest = xxhash.xxh64(f"{self.owner}\n{dtype.str}{shape}\n".encode())
        digest.update(packed)
        return digest.hexdigest().encode()


def _codec() -> pa.Codec:
    return pa.Codec("zstd", compression_level=_LEVEL)
