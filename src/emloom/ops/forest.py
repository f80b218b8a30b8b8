"""A forest of decision trees as flat arrays, and what it says of many voxels.

All trees stand in one table of nodes, each before its children::

    node i    feature[i] >= 0    go to children[i, 0] where value <= threshold[i], else to children[i, 1]
              feature[i] <  0    a leaf: shares[children[i, 0]] are its shares of the classes

The answer is the mean of the trees' leaves (Breiman 2001, doi:10.1023/A:1010933404324).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.threads import Threads

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_TOGETHER = 256  # voxels that go through a tree one after the other, while its nodes are in the cache


class Trees(NamedTuple):
    """A forest.

    Attributes:
        roots: int32 [T], the first node of every tree.
        feature: int32 [N], which feature a node asks for; negative for a leaf.
        threshold: float32 [N].
        children: int32 [N, 2].
        shares: float32 [L, K], of the classes in every leaf.
    """

    roots: I32
    feature: I32
    threshold: F32
    children: I32
    shares: F32

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return int(self.shares.shape[1])


def no_trees(n_classes: int) -> Trees:
    """Return a forest without a tree, which says nothing."""
    empty = np.empty(0, np.int32)
    children, shares = np.empty((0, 2), np.int32), np.empty((0, n_classes), np.float32)
    return Trees(empty, empty, np.empty(0, np.float32), children, shares)


def joined(trees: Sequence[Trees]) -> Trees:
    """Return one forest of all the trees."""
    nodes = np.cumsum([0, *(len(each.feature) for each in trees)])
    leaves = np.cumsum([0, *(len(each.shares) for each in trees)])
    children = []
    for each, node, leaf in zip(trees, nodes[:-1], leaves[:-1], strict=True):
        children.append(each.children + np.where(each.feature[:, None] < 0, leaf, node))
    return Trees(
        np.concatenate([each.roots + n for each, n in zip(trees, nodes[:-1], strict=True)]).astype(np.int32),
        np.concatenate([each.feature for each in trees]),
        np.concatenate([each.threshold for each in trees]),
        np.concatenate(children).astype(np.int32),
        np.concatenate([each.shares for each in trees]),
    )


def float32_below(thresholds: NDArray[np.float64]) -> F32:
    """Return the largest float32 that are not above the given ones: every float32 is on the same side of both."""
    nearest = thresholds.astype(np.float32)
    above = nearest.astype(np.float64) > thresholds
    found: F32 = np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return found


def check_trees(trees: Trees, n_features: int, n_classes: int) -> None:
    """Raise `InputError` unless walking the trees stays inside their tables, and ends.

    A forest may come from a stranger's file, and the kernel does not look where it goes.
    """
    nodes, leaves = len(trees.feature), len(trees.shares)
    types = "".join(each.dtype.char for each in trees)
    shapes = (trees.threshold.shape == (nodes,), trees.children.shape == (nodes, 2), trees.roots.ndim == 1)
    if types != "iifif" or not all(shapes):
        raise InputError("the tables of the trees do not fit each other: the file is damaged, train again")
    if not len(trees.roots) or trees.shares.shape != (leaves, n_classes):
        raise InputError(
            f"{len(trees.roots)} trees with shares {trees.shares.shape}: {n_classes} classes need more"
        )
    leaf = trees.feature < 0
    own = np.arange(nodes)[:, None]
    good = [
        ((trees.roots >= 0) & (trees.roots < nodes)).all(),
        (trees.feature < n_features).all(),
        ((trees.children >= 0) & (trees.children < np.where(leaf, leaves, nodes)[:, None])).all(),
        (leaf[:, None] | (trees.children > own)).all(),  # ever further on: so a walk ends
        np.isfinite(trees.shares).all(),
    ]
    if not all(good):
        raise InputError("a node of the trees leads nowhere: the file is damaged, train again")


def class_shares(features_FN: NDArray[Any], trees: Trees, threads: Threads | None = None) -> F32:
    """Return the shares of the classes, float32 [K, N], which sum to 1 per voxel.

    Args:
        features_FN: float32 [F, N], finite.
        trees: a forest that `check_trees` accepts for F features.
        threads: compute.
    """
    count = features_FN.shape[1]
    out = np.empty((trees.n_classes, count), np.float32)
    forest = (trees.roots, *_packed(trees), trees.shares)
    (threads or Threads()).rows(_walk, -(-count // _TOGETHER), features_FN, forest, out)
    return out


_NODE = np.dtype(
    [("feature", np.uint32), ("threshold", np.float32), ("left", np.uint32), ("right", np.uint32)]
)  # 16 bytes, so that a step of a walk waits for one line of the cache


def _packed(trees: Trees) -> tuple[NDArray[Any], I32]:
    """Return the nodes as records, and the leaf of every node that is one.

    A leaf leads to itself: so voxels can walk in step, without asking who has arrived, and their waiting for the
    memory overlaps. That is three times as fast as one voxel after the other.
    """
    leaf, own = trees.feature < 0, np.arange(len(trees.feature))
    nodes = np.empty(len(own), _NODE)
    nodes["feature"] = np.where(leaf, 0, trees.feature)
    nodes["threshold"] = trees.threshold
    nodes["left"] = np.where(leaf, own, trees.children[:, 0])
    nodes["right"] = np.where(leaf, own, trees.children[:, 1])
    return nodes, trees.children[:, 0].copy()


@njit(cache=True, nogil=True)
def _to_leaves(rows, nodes, root, at):  # type: ignore[no-untyped-def]
    at[:] = root
    moved = np.uint32(1)
    while moved:
        moved = np.uint32(0)
        for v in range(at.size):
            node = nodes[at[v]]
            to = node.right if rows[v, node.feature] > node.threshold else node.left
            moved |= to ^ at[v]
            at[v] = to


@njit(cache=True, nogil=True)
def _walk(features, forest, out, first, last):  # type: ignore[no-untyped-def]
    roots, nodes, leaf_of, shares = forest
    n_features, n_classes = features.shape[0], out.shape[0]
    rows = np.empty((_TOGETHER, n_features), np.float32)
    sums = np.empty((_TOGETHER, n_classes))
    at = np.empty(_TOGETHER, np.uint32)
    for part in range(first, last):
        start = part * _TOGETHER
        count = min(_TOGETHER, features.shape[1] - start)
        for f in range(n_features):
            for v in range(count):
                rows[v, f] = features[f, start + v]
        sums[:] = 0.0
        for root in roots:
            _to_leaves(rows, nodes, np.uint32(root), at[:count])
            for v in range(count):
                leaf = leaf_of[at[v]]
                for k in range(n_classes):
                    sums[v, k] += shares[leaf, k]
        for k in range(n_classes):
            for v in range(count):
                out[k, start + v] = sums[v, k] / roots.size
