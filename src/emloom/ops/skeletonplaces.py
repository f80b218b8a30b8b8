"""Skeletons in space: distances in a straight line, nearest nodes, bounding boxes, moves.

A straight line pays no heed to links; distances along them are those of `emloom.ops.skeletongraph`. Distances are
in nm, in micrometres, or in voxels: then each axis is first divided by the voxel size, so that of a voxel of
40 x 4 x 4 nm one step in z is as long as one in x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from emloom.errors import InputError
from emloom.geometry.grid import as_nm
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletongraph import require_room

Unit = Literal["nm", "um", "vx"]


def in_unit(positions_nm: ArrayLike, unit: Unit = "nm", *, voxel_size_nm: Sequence[float] | None = None) -> Floats:
    """Return positions (z, y, x) in nm in another unit.

    Args:
        positions_nm: [..., 3].
        unit: `nm`, `um`, or `vx`, voxels.
        voxel_size_nm: (z, y, x); required for voxels, and for them only.

    Raises:
        InputError: the unit is unknown, or the voxel size is missing or superfluous.
    """
    positions = np.asarray(positions_nm, np.float64)
    if positions.ndim == 0 or positions.shape[-1] != 3:
        raise InputError(f"positions have shape {positions.shape}: give three numbers each, z, y, x in nm")
    if unit not in ("nm", "um", "vx"):
        raise InputError(f"unit {unit!r} is unknown: use 'nm', 'um' or 'vx'")
    if (unit == "vx") != (voxel_size_nm is not None):
        wrong = "is missing: give it" if unit == "vx" else "was given: it is for unit 'vx', leave it out"
        raise InputError(f"unit {unit!r}, and the voxel size (z, y, x) in nm {wrong}")
    if voxel_size_nm is None:
        return positions / 1000.0 if unit == "um" else positions
    size = as_nm(voxel_size_nm, "voxel size")
    if min(size) <= 0:
        raise InputError(f"voxel size {size} nm is not positive: give three lengths, z, y, x")
    in_voxels: Floats = positions / np.array(size)
    return in_voxels


def distances(
    skeletons: Skeletons,
    positions_nm: ArrayLike,
    *,
    unit: Unit = "nm",
    voxel_size_nm: Sequence[float] | None = None,
) -> Floats:
    """Return the straight distances from positions to all nodes.

    All pairs of nodes: `distances(skeletons, skeletons.positions_nm)`.

    Args:
        skeletons: N nodes.
        positions_nm: [P, 3] or [3], (z, y, x).
        unit: `nm`, `um` or `vx`.
        voxel_size_nm: (z, y, x), for `vx`.

    Returns:
        float64 [P, N].

    Raises:
        InputError: as `in_unit`, or the table would take more than 4 GiB: `nearest_nodes` needs none.
    """
    points = np.atleast_2d(in_unit(positions_nm, unit, voxel_size_nm=voxel_size_nm))
    nodes = in_unit(skeletons.positions_nm, unit, voxel_size_nm=voxel_size_nm)
    require_room(len(points), len(nodes), skeletons.source)
    table: Floats = cdist(points, nodes)
    return table


def nearest_nodes(skeletons: Skeletons, positions_nm: ArrayLike) -> tuple[Rows, Floats]:
    """Return the node nearest to each position, in a straight line; one of those at equal distance.

    Args:
        skeletons: at least one node.
        positions_nm: [P, 3], (z, y, x), finite.

    Returns:
        rows int64 [P], distances in nm float64 [P].

    Raises:
        InputError: there is no node, or a position is not three finite numbers.
    """
    points = np.atleast_2d(in_unit(positions_nm))
    if not len(skeletons.node_ids):
        raise InputError(f"{skeletons.source} has no node: nothing is nearest")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise InputError(f"position {row} is {points[row].tolist()} nm: give three finite numbers, z, y, x")
    away, rows = KDTree(skeletons.positions_nm).query(points)
    return rows.astype(np.int64), away


def boxes_nm(skeletons: Skeletons) -> Floats:
    """Return the smallest box around the nodes of each skeleton.

    Returns:
        float64 [K, 2, 3]: lowest and highest (z, y, x) in nm, both on the box; NaN for a skeleton without nodes.
    """
    boxes = np.empty((len(skeletons.ids), 2, 3))
    boxes[:, 0], boxes[:, 1] = np.inf, -np.inf
    np.minimum.at(boxes[:, 0], skeletons.skeletons, skeletons.positions_nm)
    np.maximum.at(boxes[:, 1], skeletons.skeletons, skeletons.positions_nm)
    return np.where(np.isfinite(boxes), boxes, np.nan)


def transformed(skeletons: Skeletons, matrix: ArrayLike) -> Skeletons:
    """Return the skeletons under an affine map of positions (z, y, x) in nm.

    Args:
        skeletons: any.
        matrix: [3, 4] or [4, 4] (last row 0 0 0 1), applied to columns (z, y, x, 1).

    Raises:
        InputError: the matrix has another shape or last row, holds numbers that are not finite, or is singular,
            so that it would flatten the tracing.
    """
    affine = np.asarray(matrix, np.float64)
    if affine.shape not in ((3, 4), (4, 4)) or not np.isfinite(affine).all():
        raise InputError(f"an affine map of shape {affine.shape}: give finite [3, 4] or [4, 4] in nm, z, y, x")
    if len(affine) == 4 and affine[3].tolist() != [0, 0, 0, 1]:
        raise InputError(f"the last row of an affine map is {affine[3].tolist()}: it must read 0, 0, 0, 1")
    if np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError("the affine map is singular: it flattens the tracing; check its rows (z, y, x)")
    return replace(skeletons, positions_nm=skeletons.positions_nm @ affine[:3, :3].T + affine[:3, 3])


def translated(skeletons: Skeletons, by_nm: Sequence[float]) -> Skeletons:
    """Return the skeletons moved by (z, y, x) in nm."""
    return replace(skeletons, positions_nm=skeletons.positions_nm + np.array(as_nm(by_nm, "move")))


def scaled(skeletons: Skeletons, factors: Sequence[float]) -> Skeletons:
    """Return the skeletons with coordinates (z, y, x) multiplied, about the origin of the world.

    Raises:
        InputError: a factor is not positive: to turn an axis round, use `mirrored`.
    """
    by = as_nm(factors, "factors")
    if min(by) <= 0:
        raise InputError(f"factors {by} are not all positive: to turn an axis round, mirror it")
    return replace(skeletons, positions_nm=skeletons.positions_nm * np.array(by))


def mirrored(skeletons: Skeletons, axis: Literal["z", "y", "x"], between_nm: tuple[float, float]) -> Skeletons:
    """Return the skeletons with an axis turned round within an interval: its ends change places.

    Args:
        skeletons: any.
        axis: z, y or x.
        between_nm: where the volume starts and stops on that axis, in nm; ``p' = start + stop - p``.

    Raises:
        InputError: there is no such axis, or the interval is not finite.
    """
    if axis not in ("z", "y", "x"):
        raise InputError(f"axis {axis!r} is unknown: z, y or x")
    if not np.isfinite(between_nm).all():
        raise InputError(f"the interval {between_nm} nm is not finite: give where the volume starts and stops")
    positions: NDArray[np.float64] = skeletons.positions_nm.copy()
    positions[:, "zyx".index(axis)] = sum(between_nm) - positions[:, "zyx".index(axis)]
    return replace(skeletons, positions_nm=positions)
