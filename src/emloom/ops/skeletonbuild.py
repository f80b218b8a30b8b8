"""A skeleton through a cloud of points: its Euclidean minimum spanning tree.

Of all trees through the points it has the least path, exactly: the ball over an edge of such a tree is empty,
so the edge is one of every Delaunay triangulation (Toussaint 1980, doi:10.1016/0031-3203(80)90066-7), and the
few edges of one need to be looked at and no others. Points in a plane or on a line, as on one section, are
triangulated there. Where that leaves a point out (points closer to each other, or to a plane, than rounding can
tell), the tree is grown point by point instead (Prim 1957, doi:10.1002/j.1538-7305.1957.tb01515.x): exact
always, in a time that grows with the square of their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import Delaunay, QhullError

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletoncycles import spanning_edges

_FEW = 40  # points of which all pairs are as quick as their triangulation
_THIN = 1e-9  # thickness over extent below which a triangulation is off by its own rounding


def spanning_skeletons(
    clouds: Sequence[tuple[int, ArrayLike]], *, names: Sequence[str] = (), source: str = "point cloud"
) -> Skeletons:
    """Return one tree per cloud, each of least path length through its points.

    Args:
        clouds: (id, positions [n, 3] in nm, z, y, x) of each; points at one position are joined by a link of
            length 0.
        names: one per cloud, or none.
        source: path shown in messages.

    Raises:
        InputError: positions are not three finite numbers each, or as `Skeletons`.
    """
    trees = []
    for number, positions_nm in clouds:
        positions = np.asarray(positions_nm, np.float64)
        if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
            raise InputError(
                f"{source}: the points of skeleton {number} have shape {positions.shape}: give [n, 3] finite "
                "numbers, z, y, x in nm"
            )
        trees.append((number, positions, spanning_tree(positions)))
    return Skeletons.from_trees(trees, names=names, source=source)


def spanning_tree(positions: Floats) -> Rows:
    """Return the edges of the Euclidean minimum spanning tree, int64 [n - 1, 2]; positions float64 [n, 3]."""
    unique, first, which = np.unique(positions, axis=0, return_index=True, return_inverse=True)
    which = which.ravel()
    again = np.setdiff1d(np.arange(len(positions)), first)
    repeats = np.stack([first[which[again]], again], axis=1)
    if len(unique) < 2:
        return repeats.astype(np.int64)
    # About the middle: coordinates of a millimetre leave fewer digits for what is small.
    return np.concatenate([first[_tree(unique - unique.mean(axis=0))], repeats]).astype(np.int64)


def _tree(points: Floats) -> Rows:
    edges = _triangulated(points)
    if edges is None:
        return _grown(points)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    return edges[spanning_edges(len(points), edges, lengths)]


def _triangulated(points: Floats) -> Rows | None:
    """Return edges among which the tree is, of different points; None where no triangulation holds them all."""
    n = len(points)
    if n <= _FEW:
        return np.stack(np.triu_indices(n, 1), axis=1)
    _, extents, axes = np.linalg.svd(points, full_matrices=False)
    rank = int((extents > extents[0] * n * np.finfo(np.float64).eps).sum())
    if extents[rank - 1] < _THIN * extents[0]:
        return None
    flat = points @ axes[:rank].T
    if rank == 1:
        order = np.argsort(flat[:, 0], kind="stable")
        return np.stack([order[:-1], order[1:]], axis=1)
    try:
        found = Delaunay(flat)
    except QhullError:
        return None
    if len(np.unique(found.simplices)) < n:
        return None
    corners = np.sort(found.simplices, axis=1)
    pairs = [corners[:, [i, j]] for i in range(rank + 1) for j in range(i + 1, rank + 1)]
    edges: Rows = np.unique(np.concatenate(pairs), axis=0).astype(np.int64)
    return edges


def _grown(points: Floats) -> Rows:
    """Return the tree grown from the first point, always by the nearest one that is left."""
    n = len(points)
    nearest = np.zeros(n, np.int64)
    away = np.linalg.norm(points - points[0], axis=1)
    left = np.ones(n, bool)
    left[0] = False
    edges = np.empty((n - 1, 2), np.int64)
    for k in range(n - 1):
        node = int(np.where(left, away, np.inf).argmin())
        edges[k] = nearest[node], node
        left[node] = False
        distance = np.linalg.norm(points - points[node], axis=1)
        closer = distance < away
        away[closer] = distance[closer]
        nearest[closer] = node
    return edges
