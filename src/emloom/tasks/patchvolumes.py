"""Labels of patches from volumes of labels: what part of a patch is of a class decides.

A patch is *yes* where at least a stated part of its voxels is of the class, *no* where none is, and *unsure*
between: a corner of a fold is neither an example of a fold nor of its absence.

The volume is read in slabs of the lattice, each voxel about once, and counted by running sums, so a patch costs
the same whatever its size and overlap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.geometry.box import Vec
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels
from emloom.io.volume import Volume

_CELL_VOXELS = 1 << 23


def patches_of_volume(
    volume: Volume,
    lattice: Lattice,
    classes: Mapping[str, Collection[int]],
    *,
    box: Box | None = None,
    least: float = 0.05,
) -> PatchLabels:
    """Return a label for every patch of a lattice that lies in a volume of labels.

    Args:
        volume: class or instance ids, ``zyx``.
        lattice: shape, stride and origin, in voxels of the volume.
        classes: name -> ids that mean it, the one that is looked for first; no ids: all but 0.
        box: patches inside of it; None: inside the volume.
        least: part of the voxels, above 0, from which on a patch is *yes*.

    Raises:
        InputError: the volume has channels or holds no ids, there is no class, no patch fits, or the part is not
            above 0 and at most 1.
    """
    info = volume.info
    if info.channels is not None or info.dtype.kind not in "bui":
        raise InputError(f"{info.source} is {info.axes} of {info.dtype}: labels of patches are read from ids, zyx")
    if not classes or not 0 < least <= 1:
        raise InputError(
            f"classes {', '.join(classes) or '(none)'} from a part of {least} of a patch: name one or more, and "
            "give a part above 0 and at most 1, such as 0.05"
        )
    indices = lattice.inside(info.box if box is None else info.box.intersect(box))
    if indices.is_empty:
        raise InputError(f"no patch of {lattice.shape} voxels (z, y, x) lies in {info.source}, {box or info.box}")
    parts = []
    for _, cell in cells(indices, _cell_of(lattice, indices.shape)):
        parts.append(_counts(volume, lattice, cell, classes))
    starts = np.concatenate([lattice.starts(cell) for cell, _ in parts])
    counts = np.concatenate([counted for _, counted in parts])
    order = np.lexsort(starts.T[::-1])
    enough = least * np.prod(lattice.shape)
    labels = np.where(counts >= enough, YES, np.where(counts == 0, NO, UNKNOWN)).astype(np.int8)
    return PatchLabels(info.grid, lattice.shape, starts[order], tuple(classes), labels[order], source=info.source)


def _cell_of(lattice: Lattice, shape: Vec) -> Vec:
    """Return how many patches along z, y, x are counted at once: rows along x first, as memory allows."""
    budget, cell = _CELL_VOXELS, [1, 1, 1]
    for axis in (2, 1, 0):
        others = np.prod([lattice.stride[a] * (cell[a] - 1) + lattice.shape[a] for a in range(3) if a != axis])
        most = int((budget // others - lattice.shape[axis]) // lattice.stride[axis]) + 1
        cell[axis] = max(1, min(shape[axis], most))
    return (cell[0], cell[1], cell[2])


def _counts(
    volume: Volume, lattice: Lattice, cell: Box, classes: Mapping[str, Collection[int]]
) -> tuple[Box, NDArray[np.int64]]:
    """Return voxels of each class in each patch of a cell of the lattice, int64 [N, C]."""
    first, last = lattice.starts_of(np.array([cell.start, [stop - 1 for stop in cell.stop]])).tolist()
    ids = volume.read(Box.of(first, [a + n for a, n in zip(last, lattice.shape, strict=True)]))
    counted = [_sums(_meant(ids, meant), lattice, cell.shape).reshape(-1) for meant in classes.values()]
    return cell, np.stack(counted, axis=1)


def _meant(ids: NDArray[Any], meant: Collection[int]) -> NDArray[np.bool_]:
    if not meant:
        return np.asarray(ids != 0)
    if ids.dtype.kind == "b":
        return np.isin(ids.astype(np.uint8), sorted(meant))
    # In the type of the ids: together with int64, uint64 would become float64 and ids above 2^53 the same.
    limits = np.iinfo(ids.dtype)
    return np.isin(ids, np.array([v for v in sorted(meant) if limits.min <= v <= limits.max], ids.dtype))


def _sums(mask: NDArray[np.bool_], lattice: Lattice, n: Vec) -> NDArray[np.int64]:
    """Return the True voxels of every patch, [n_z, n_y, n_x], by running sums along one axis after another."""
    sums = mask.astype(np.int64)
    for axis in range(3):
        running = np.concatenate([np.zeros_like(sums.take([0], axis)), sums.cumsum(axis)], axis)
        starts = np.arange(n[axis]) * lattice.stride[axis]
        sums = running.take(starts + lattice.shape[axis], axis) - running.take(starts, axis)
    return sums
