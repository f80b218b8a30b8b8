"""Tables of counts that add up: what every score of a classification is read from.

Convention: a table holds exact int64 counts of a fixed shape, and voxels that are ignored are in no table. So::

    add([table(block) for block in blocks]) == table(whole)      bit for bit, in any order

and a score, being a function of the table, is the same blockwise and in memory.

Which voxels count is said twice, by value and by place: `ignore` names the values of the truth that mean "nobody
knows", `mask` is False where nothing is known. Either is enough to leave a voxel out, and what was predicted there
then matters to no score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from math import fsum, nan
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Array = NDArray[Any]
Ignore = int | Collection[int]

NOTHING_COUNTS = "no voxel counts: all are ignored or masked out"

_SLAB_VOXELS = 1 << 20  # voxels taken at a time; bounds the copies of wider types and of the mask


@dataclass(frozen=True, eq=False)
class CountTable:
    """Counts of a fixed shape; the base of the tables here.

    Attributes:
        counts: int64, not negative; the meaning of its axes is that of the subclass.

    Raises:
        InputError: counts of another type, negative counts, or another shape than the table has.
    """

    counts: Counts

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts)
        what = type(self).__name__
        if counts.dtype != np.int64:
            raise InputError(f"{what} counts have dtype {counts.dtype}: counts are exact, give int64")
        if counts.size and int(counts.min()) < 0:
            raise InputError(f"{what} counts hold {int(counts.min())}: a count is never negative")
        self._check_shape(counts.shape)
        frozen = counts.view()
        frozen.flags.writeable = False
        object.__setattr__(self, "counts", frozen)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise `InputError` for a shape that this table cannot have."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]


T = TypeVar("T", bound=CountTable)


def add(tables: Iterable[T]) -> T:
    """Return the table of all voxels of the given tables; exact, so the order does not matter.

    Raises:
        InputError: there is no table, or they are of different kinds or shapes.
    """
    listed = list(tables)
    if not listed:
        raise InputError("there is no table to add: give at least one; a block without voxels has one of zeros")
    first = listed[0]
    for table in listed:
        if type(table) is not type(first) or table.counts.shape != first.counts.shape:
            raise InputError(
                f"a {type(table).__name__} of {table.counts.shape} does not add to a {type(first).__name__} of "
                f"{first.counts.shape}: count every block with the same classes and levels"
            )
    return replace(first, counts=np.sum([table.counts for table in listed], axis=0, dtype=np.int64))


def mean(values: Iterable[float]) -> float:
    """Return the correctly rounded mean, the same in any order; NaN of nothing."""
    listed = list(values)
    return fsum(listed) / len(listed) if listed else nan


def known_voxels(truth: Array, ignore: Ignore = 255, mask: Mask | None = None) -> Mask:
    """Return where the truth counts: not an ignored value, and inside the mask.

    Args:
        truth: labels, any integer type or bool, any shape.
        ignore: one value or several that mean "unknown"; () for none.
        mask: bool, the shape of `truth`; only True voxels count. None: all.

    Raises:
        InputError: the truth is floating, or the mask is not bool of its shape.
    """
    require_labels(truth, "truth")
    _require_mask(mask, truth.shape)
    known = np.ones(truth.shape, np.bool_) if mask is None else mask.copy()
    for value in _values(ignore):
        known &= truth != value
    return known


def require_labels(labels: Array, what: str) -> None:
    """Raise `InputError` unless an array holds whole numbers."""
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"{what} has dtype {labels.dtype}: class labels are integers; of scores take the argmax over classes, "
            "or a threshold, first"
        )


def slabs(truth: Array, other: Array, ignore: Ignore, mask: Mask | None) -> Iterator[tuple[Array, Array, Mask]]:
    """Yield flat pieces of the truth, of another array of its shape, and of where the truth counts.

    Raises:
        InputError: as `known_voxels`, or the shapes differ.
    """
    if truth.shape != other.shape:
        raise InputError(f"truth is {truth.shape} but what it judges is {other.shape}: crop to one box")
    require_labels(truth, "truth")
    _require_mask(mask, truth.shape)
    t, o = np.atleast_1d(truth), np.atleast_1d(other)
    m = None if mask is None else np.atleast_1d(mask)
    rows = max(1, _SLAB_VOXELS // max(1, t.size // max(1, len(t))))
    for start in range(0, len(t), rows):
        piece = slice(start, start + rows)
        known = known_voxels(t[piece], ignore, None if m is None else m[piece])
        yield _flat(t[piece]), _flat(o[piece]), known.reshape(-1)


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1)


def _values(ignore: Ignore) -> tuple[int, ...]:
    # A Python int compares with any integer type by value, also where the type cannot hold it.
    return (int(ignore),) if isinstance(ignore, int | np.integer) else tuple(int(value) for value in ignore)


def _require_mask(mask: Mask | None, shape: tuple[int, ...]) -> None:
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape):
        raise InputError(f"mask is {mask.dtype} {mask.shape}: give bool of the shape of truth, {shape}")
