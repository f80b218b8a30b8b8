"""Parts of a tracing: some of its nodes, some of its trees, in another order; and what each part brings along.

Every function returns a new tracing. Attributes, comments, branch points, groups and parameters come along; groups
stay, also where no tree is left in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from emloom.errors import InputError
from emloom.geometry.skeletons import Rows, Skeletons
from emloom.geometry.tracings import Tracing, carried
from emloom.ops.tracingids import tree_rows

Order = Literal["id", "name", "nodes", "length"]


def keep_nodes(tracing: Tracing, keep: ArrayLike) -> Tracing:
    """Return the nodes where `keep` is True and the edges between them, such as those inside a box.

    Trees that lose all their nodes are dropped; one that had none stays.

    Args:
        tracing: N nodes.
        keep: N booleans.

    Raises:
        InputError: `keep` is not one boolean per node.
    """
    mask = np.asarray(keep)
    skeletons = tracing.skeletons
    if mask.dtype != np.bool_ or mask.shape != skeletons.node_ids.shape:
        raise InputError(
            f"keep is {mask.dtype} {mask.shape}: give one boolean for each of {len(skeletons.node_ids)} nodes"
        )
    k = len(skeletons.ids)
    before, after = (np.bincount(rows, minlength=k) for rows in (skeletons.skeletons, skeletons.skeletons[mask]))
    return taken(tracing, np.flatnonzero(mask), np.flatnonzero((after > 0) | (before == 0)))


def taken(tracing: Tracing, nodes: Rows, trees: Rows) -> Tracing:
    """Return the given nodes and trees in the given order, each once, and the edges between them.

    Args:
        tracing: what they are taken from.
        nodes: rows of nodes; their trees must be among `trees`.
        trees: rows of trees.
    """
    old = tracing.skeletons
    node_now, tree_now = np.full(len(old.node_ids), -1), np.full(len(old.ids), -1)
    node_now[nodes], tree_now[trees] = np.arange(len(nodes)), np.arange(len(trees))
    edges = np.flatnonzero((node_now[old.edges] >= 0).all(axis=1))
    # Edges in the order of their trees, as a file has them.
    edges = edges[np.argsort(tree_now[old.skeletons[old.edges[edges, 0]]], kind="stable")]
    new = Skeletons(
        old.ids[trees],
        tree_now[old.skeletons[nodes]].astype(np.int64),
        old.node_ids[nodes],
        old.positions_nm[nodes],
        node_now[old.edges[edges]].astype(np.int64).reshape(-1, 2),
        tuple(old.names[row] for row in trees),
        old.source,
    )
    return carried(tracing, new, nodes_from=nodes, trees_from=trees, edges_from=edges)


def select_trees(tracing: Tracing, trees: Iterable[int]) -> Tracing:
    """Return some trees, in the order given.

    Args:
        tracing: what they are taken from.
        trees: ids of trees, each once.

    Raises:
        InputError: a tree does not exist, or is named twice.
    """
    rows = tree_rows(tracing, trees)
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"the trees {tracing.skeletons.ids[rows].tolist()[:20]} name one twice: name each once")
    whose = tracing.skeletons.skeletons
    place = np.full(len(tracing.skeletons.ids), -1)
    place[rows] = np.arange(len(rows))
    nodes = np.flatnonzero(place[whose] >= 0)
    return taken(tracing, nodes[np.argsort(place[whose[nodes]], kind="stable")], rows)


def delete_trees(tracing: Tracing, trees: Iterable[int]) -> Tracing:
    """Return the tracing without some trees.

    Raises:
        InputError: a tree does not exist.
    """
    gone = set(tracing.skeletons.ids[tree_rows(tracing, trees)].tolist())
    return select_trees(tracing, [number for number in tracing.skeletons.ids.tolist() if number not in gone])


def trees_named(tracing: Tracing, pattern: str) -> tuple[int, ...]:
    r"""Return the ids of the trees whose name a regular expression matches anywhere; ``\A`` and ``\Z`` bind it.

    Raises:
        InputError: the pattern is no regular expression.
    """
    found = compiled(pattern)
    pairs = zip(tracing.skeletons.ids.tolist(), tracing.skeletons.names, strict=True)
    return tuple(number for number, name in pairs if found.search(name))


def keep_trees_named(tracing: Tracing, pattern: str) -> Tracing:
    """Return the trees whose name a pattern matches; see `trees_named`."""
    return select_trees(tracing, trees_named(tracing, pattern))


def delete_trees_named(tracing: Tracing, pattern: str) -> Tracing:
    """Return the trees whose name a pattern does not match; see `trees_named`."""
    return delete_trees(tracing, trees_named(tracing, pattern))


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a regular expression.

    Raises:
        InputError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as problem:
        raise InputError(
            f"{pattern!r} is no regular expression ({problem}): put a backslash before a character that stands "
            "for itself"
        ) from None


def sorted_trees(tracing: Tracing, by: Order = "id", *, descending: bool = False) -> Tracing:
    """Return the tracing with its trees in order; equal ones keep theirs.

    Args:
        tracing: whose trees are sorted.
        by: "id", "name", "nodes" (their number) or "length" (of their path in nm).
        descending: largest first.

    Raises:
        InputError: `by` is none of these.
    """
    sizes = tree_sizes(tracing, by)
    order = sorted(range(len(sizes)), key=lambda row: sizes[row], reverse=descending)
    return select_trees(tracing, tracing.skeletons.ids[order])


def tree_sizes(tracing: Tracing, by: Order) -> list[Any]:
    """Return what trees are sorted by; see `sorted_trees`."""
    skeletons = tracing.skeletons
    if by == "id":
        return list(skeletons.ids.tolist())
    if by == "name":
        return list(skeletons.names)
    if by == "nodes":
        return list(np.bincount(skeletons.skeletons, minlength=len(skeletons.ids)).tolist())
    if by == "length":
        return list(skeletons.lengths_nm.tolist())
    raise InputError(f"trees cannot be sorted by {by!r}: give 'id', 'name', 'nodes' or 'length'")


def largest_tree(tracing: Tracing, by: Literal["nodes", "length"] = "nodes") -> Tracing:
    """Return the tree with the most nodes, or the longest path; the first of several.

    Raises:
        InputError: there is no tree.
    """
    if not len(tracing.skeletons.ids):
        raise InputError(f"{tracing.source} has no tree, so none is the largest")
    sizes = np.array(tree_sizes(tracing, by), np.float64)
    return select_trees(tracing, [tracing.skeletons.ids[int(np.argmax(sizes))]])


def delete_three_point_trees(tracing: Tracing) -> Tracing:
    """Return the tracing without trees of exactly three nodes: a way to mark synapses, which are no neurites."""
    skeletons = tracing.skeletons
    counts = np.bincount(skeletons.skeletons, minlength=len(skeletons.ids))
    return delete_trees(tracing, skeletons.ids[counts == 3])
