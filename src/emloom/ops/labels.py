"""What one does to arrays of instance ids: check, shrink, split, renumber, relabel, describe.

Convention: ids are unsigned integers of at least 1 and below 2**63 (so that tables and databases can hold
them as signed integers); 0 is background. Nothing here ever narrows an id: kernels see uint64.

Algebra::

    relabel_dense(a) -> (b, ids)        ids[b] == a
    split_disconnected(split_disconnected(a)) == split_disconnected(a)
    grow_boundary(grow_boundary(a, m), n) == grow_boundary(a, m + n)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import fastremap
import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError

Array = NDArray[Any]
Ids = NDArray[np.uint64]
Bits = NDArray[np.uint8]

LARGEST_ID = 2**63 - 1
_LATELY = 1 << 12
_SHIFT = np.uint64(64 - 12)


def require_labels_array(labels_ZYX: Array, what: str = "labels") -> Ids:
    """Return instance ids as contiguous uint64 (no copy where they already are), after checking them.

    Args:
        labels_ZYX: instance ids, any unsigned integer type; 0 is background.
        what: the array's name in messages.

    Raises:
        InputError: not three-dimensional, not unsigned, or an id of 2**63 or more.
    """
    if labels_ZYX.ndim != 3:
        raise InputError(f"{what} has {labels_ZYX.ndim} dimensions: give one array of ids, z, y, x")
    return require_ids(labels_ZYX, what)


def require_ids(ids: Array, what: str = "ids") -> Ids:
    """Return ids of any shape as contiguous uint64; raises `InputError` as `require_labels_array`."""
    checked = _contiguous_ids(ids, what)
    if ids.dtype.itemsize == 8 and ids.size and int(ids.max()) > LARGEST_ID:
        raise InputError(_too_large(what, int(ids.max())))
    return checked


def _contiguous_ids(ids: Array, what: str) -> Ids:
    if ids.dtype.kind != "u":
        raise InputError(
            f"{what} has dtype {ids.dtype}: ids are unsigned integers; convert explicitly, e.g. astype('uint64')"
        )
    return np.ascontiguousarray(ids, dtype=np.uint64)


def _too_large(what: str, largest: int) -> str:
    return f"{what} holds the id {largest}: ids are below 2**63; relabel them first"


def require_mask_array(mask_ZYX: Array | None, shape: tuple[int, ...]) -> Bits:
    """Return a mask as contiguous uint8 {0, 1}; None stands for "all known" and gives an empty array.

    Raises:
        InputError: another shape than the labels, or neither boolean nor unsigned.
    """
    if mask_ZYX is None:
        return np.zeros((0, 0, 0), np.uint8)
    if mask_ZYX.shape != shape:
        raise InputError(f"mask has shape {mask_ZYX.shape}, labels {shape}: they must cover the same voxels")
    if mask_ZYX.dtype.kind not in "bu":
        raise InputError(f"mask has dtype {mask_ZYX.dtype}: a mask is boolean or unsigned, 0 where unknown")
    return np.ascontiguousarray(mask_ZYX != 0).view(np.uint8)


def known_mask(mask_ZYX: Array | None, shape: tuple[int, ...]) -> Bits:
    """Return a mask as uint8 {0, 1}, all 1 where there is none; raises `InputError` as `require_mask_array`."""
    return np.ones(shape, np.uint8) if mask_ZYX is None else require_mask_array(mask_ZYX, shape)


def grow_boundary(
    labels_ZYX: Array, steps: int = 1, *, in_plane: bool = False, mask_ZYX: Array | None = None
) -> Array:
    """Turn the rim of every object to background, so that neighbours stop touching.

    One step keeps a voxel where every face neighbour inside the array has the same id; neighbours outside the
    array or masked out are unknown and do not erode. A masked-out voxel keeps its id.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        steps: how often, i.e. how many voxels each object loses on every side.
        in_plane: look at the four neighbours within the section only.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        ids [Z, Y, X] of the input's dtype.

    Raises:
        InputError: invalid labels or mask, or a negative number of steps.
    """
    if steps < 0:
        raise InputError(f"steps is {steps}: give the number of voxels to erode, 0 or more")
    ids = require_labels_array(labels_ZYX)
    mask = require_mask_array(mask_ZYX, ids.shape)
    for _ in range(steps):
        out = np.empty_like(ids)
        _erode_once(ids, mask, in_plane, out)
        ids = out
    return ids.astype(labels_ZYX.dtype, copy=steps == 0)


# One pass: every row against its four neighbouring rows and itself, moved by one.
@njit(cache=True, nogil=True)
def _erode_once(labels: Ids, mask: Bits, in_plane: bool, out: Ids) -> None:
    depth, height, width = labels.shape
    all_known = np.ones(0 if mask.size else width, np.uint8)
    for z in range(depth):
        for y in range(height):
            here, row = labels[z, y], out[z, y]
            known = mask[z, y] if mask.size else all_known
            row[:] = here
            for k in range(2 if in_plane else 0, 4):
                pz, py = z + (k == 0) - (k == 1), y + (k == 2) - (k == 3)
                if 0 <= pz < depth and 0 <= py < height:
                    _erase(row, here, labels[pz, py], known, mask[pz, py] if mask.size else all_known)
            _erase(row[1:], here[1:], here[:-1], known[1:], known[:-1])
            _erase(row[:-1], here[:-1], here[1:], known[:-1], known[1:])


@njit(cache=True, nogil=True)
def _erase(row: Ids, here: Ids, there: Ids, known_here: Bits, known_there: Bits) -> None:
    for x in range(row.size):
        gone = (here[x] != there[x]) & (known_here[x] != 0) & (known_there[x] != 0)
        row[x] = np.uint64(0) if gone else row[x]


def split_disconnected(labels_ZYX: Array, connectivity: Literal[6, 18, 26] = 6) -> Ids:
    """Give every connected piece of every id its own id: 1, 2, ... in order of first voxel; 0 stays 0.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        connectivity: 6 (faces), 18 (edges) or 26 (corners).

    Raises:
        InputError: invalid labels, or another connectivity.
    """
    if connectivity not in (6, 18, 26):
        raise InputError(f"connectivity {connectivity} is unknown: use 6 (faces), 18 (edges) or 26 (corners)")
    ids = require_labels_array(labels_ZYX)
    pieces: Ids = cc3d.connected_components(ids, connectivity=connectivity).astype(np.uint64)
    return pieces


def relabel_dense(labels_ZYX: Array) -> tuple[Ids, Ids]:
    """Renumber ids as 1, 2, ... in increasing order of the old id; 0 stays 0.

    Returns:
        ids [Z, Y, X] uint64, and the table [n + 1] of old ids with ``table[new] == old`` (``table[0] == 0``).

    Raises:
        InputError: invalid labels.
    """
    ids = require_labels_array(labels_ZYX)
    present = fastremap.unique(ids) if ids.size else np.zeros(0, np.uint64)
    table = np.concatenate([np.zeros(1, np.uint64), present[present != 0]])
    return apply_lut(ids, table, np.arange(len(table), dtype=np.uint64)), table


def apply_lut(labels: Array, keys_sorted: Array, values: Array, out: Ids | None = None) -> Ids:
    """Replace every id that stands in `keys_sorted` by its value; all others map to themselves.

    Args:
        labels: ids of any shape, any unsigned integer.
        keys_sorted: ids [n], strictly increasing.
        values: new ids [n].
        out: contiguous uint64 array of the shape of `labels` to fill, `labels` itself included; None makes one.

    Returns:
        uint64 ids of the shape of `labels`: `out` where it was given.

    Raises:
        InputError: not unsigned, an id of 2**63 or more (`out` is then spoilt), keys unsorted or repeated, keys
            and values of different length, or an `out` that does not fit.
    """
    keys, new = require_ids(keys_sorted, "keys"), require_ids(values, "values")
    ids = _contiguous_ids(labels, "labels")
    if keys.shape != new.shape or keys.ndim != 1:
        raise InputError(f"keys have shape {keys.shape}, values {new.shape}: give one value per key")
    if np.any(keys[1:] <= keys[:-1]):
        raise InputError("keys are not strictly increasing: sort them and keep each once (np.unique)")
    if out is None:
        out = np.empty_like(ids)
    elif out.shape != ids.shape or out.dtype != np.uint64 or not out.flags.c_contiguous:
        raise InputError(f"out is {out.dtype} {out.shape}: give contiguous uint64 of shape {ids.shape}")
    in_place = ids.ctypes.data == out.ctypes.data
    largest = int(_look_up(ids.reshape(-1), keys, new, out.reshape(-1), in_place))
    if largest > LARGEST_ID:
        raise InputError(_too_large("labels", largest))
    return out


@njit(cache=True, nogil=True)
def _look_up(labels: Ids, keys: Ids, values: Ids, out: Ids, in_place: bool) -> np.uint64:
    """Fill `out`; return the largest label (asked for here, a check of its own would read them all again)."""
    largest = np.uint64(0)
    # Ids met lately and what became of them: a look costs less than a search. Empty slots hold id 0, which is
    # looked up in slot 0 only, so that one is filled beforehand.
    known, answers = np.zeros(_LATELY, np.uint64), np.zeros(_LATELY, np.uint64)
    answers[0] = _find(np.uint64(0), keys, values)
    start, size = np.uint64(0), np.uint64(labels.size)
    # Objects are many voxels wide: one look per run, and in place nothing to write where the id stays.
    while start < size:
        old = labels[start]
        stop = _run_stop(labels, start)
        slot = (old * np.uint64(0x9E3779B97F4A7C15)) >> _SHIFT
        if known[slot] != old:
            known[slot], answers[slot] = old, _find(old, keys, values)
            largest = max(largest, old)
        new = answers[slot]
        if new != old or not in_place:
            out[start:stop] = new
        start = stop
    return largest


@njit(cache=True, nogil=True)
def _run_stop(labels: Ids, start: np.uint64) -> np.uint64:
    """Return the first index after `start` where the label changes."""
    one, four, size = np.uint64(1), np.uint64(4), np.uint64(labels.size)
    label, stop = labels[start], start + one
    while stop + four <= size:  # four voxels per branch
        change = np.uint64(0)
        for k in range(4):
            change |= labels[stop + np.uint64(k)] ^ label
        if change != 0:
            break
        stop += four
    while stop < size and labels[stop] == label:
        stop += one
    return stop


@njit(cache=True, nogil=True)
def _find(key: np.uint64, keys: Ids, values: Ids) -> np.uint64:
    low, high = 0, keys.size
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return values[low] if low < keys.size and keys[low] == key else key


@dataclass(frozen=True)
class LabelReport:
    """What is worth knowing about instance labels before training on them.

    Attributes:
        ids: number of different ids, background not counted.
        disconnected_ids: ids that fall into several 6-connected pieces.
        tiny_ids: ids of fewer voxels than asked for.
        background_fraction: part of all voxels that is 0; 0 for an empty array.
        empty_sections: sections (z) that are background throughout: gaps.
        repeated_sections: sections (z) with some label that equal the one before, voxel by voxel.
    """

    ids: int
    disconnected_ids: tuple[int, ...]
    tiny_ids: tuple[int, ...]
    background_fraction: float
    empty_sections: tuple[int, ...]
    repeated_sections: tuple[int, ...]


def label_report(labels_ZYX: Array, tiny_below_vox: int = 50) -> LabelReport:
    """Describe instance labels: what looks wrong with them, if anything.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        tiny_below_vox: an id of fewer voxels is tiny.

    Raises:
        InputError: invalid labels.
    """
    ids = require_labels_array(labels_ZYX)
    pieces = split_disconnected(ids)
    n_pieces = int(pieces.max()) if pieces.size else 0
    id_of_piece, voxels_of_piece = _piece_table(ids.reshape(-1), pieces.reshape(-1), n_pieces)
    present, owner, pieces_per_id = np.unique(id_of_piece[1:], return_inverse=True, return_counts=True)
    voxels = np.zeros(len(present), np.int64)
    np.add.at(voxels, owner, voxels_of_piece[1:])
    empty = np.asarray([not section.any() for section in ids], np.bool_)
    repeated = [z for z in range(1, len(ids)) if not empty[z] and np.array_equal(ids[z], ids[z - 1])]
    return LabelReport(
        ids=len(present),
        disconnected_ids=tuple(int(i) for i in present[pieces_per_id > 1]),
        tiny_ids=tuple(int(i) for i in present[voxels < tiny_below_vox]),
        background_fraction=float(voxels_of_piece[0]) / ids.size if ids.size else 0.0,
        empty_sections=tuple(int(z) for z in np.flatnonzero(empty)),
        repeated_sections=tuple(repeated),
    )


@njit(cache=True, nogil=True)
def _piece_table(labels: Ids, pieces: Ids, n_pieces: int) -> tuple[Ids, NDArray[np.int64]]:
    """Return the id and the number of voxels of every piece; piece 0 is background."""
    owner = np.zeros(n_pieces + 1, np.uint64)
    voxels = np.zeros(n_pieces + 1, np.int64)
    for i in range(labels.size):
        owner[pieces[i]] = labels[i]
        voxels[pieces[i]] += 1
    return owner, voxels
