"""Ids of a tracing: which row has them, which are free, and new ones for everything.

Edits of tracings name trees by id, because an id names one tree, and nodes by row of `Skeletons.node_ids`, because
a node id may stand in several trees; `node_rows` leads from one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from emloom.errors import InputError
from emloom.geometry.elements import Element, Group
from emloom.geometry.skeletons import Ids, Rows
from emloom.geometry.tracings import Tracing, carried

_LARGEST_ID = 2**64 - 1
_MARK = {"comments": "node", "branchpoints": "id"}


def tree_rows(tracing: Tracing, ids: Iterable[int]) -> Rows:
    """Return the row of each tree, int64.

    Raises:
        InputError: a tree does not exist.
    """
    row_of = {number: row for row, number in enumerate(tracing.skeletons.ids.tolist())}
    rows = []
    for number in ids:
        if int(number) not in row_of:
            raise InputError(f"{tracing.source} has no tree {number}: its ids are {_some(list(row_of))}")
        rows.append(row_of[int(number)])
    return np.array(rows, np.int64)


def node_rows(tracing: Tracing, ids: Iterable[int]) -> Rows:
    """Return the row of each node, int64.

    Raises:
        InputError: a node does not exist, or several trees have a node of that id.
    """
    wanted = np.array(list(ids), np.uint64)
    order = np.argsort(tracing.skeletons.node_ids, kind="stable")
    inside = tracing.skeletons.node_ids[order]
    first, after = (np.searchsorted(inside, wanted, side) for side in ("left", "right"))
    counts = after - first
    wrong = np.flatnonzero(counts != 1)
    if wrong.size:
        number = wanted[wrong[0]]
        if counts[wrong[0]] == 0:
            raise InputError(f"{tracing.source} has no node {number}: its ids are {_some(inside.tolist())}")
        raise InputError(
            f"{tracing.source} has {counts[wrong[0]]} nodes of the id {number}, in several trees: name them by "
            "row, or renumber the tracing"
        )
    return order[first].astype(np.int64)


def checked_rows(tracing: Tracing, rows: ArrayLike) -> Rows:
    """Return rows of nodes as int64 [M].

    Raises:
        InputError: one does not exist.
    """
    at = np.asarray(rows, np.int64).reshape(-1)
    n = len(tracing.skeletons.node_ids)
    wrong = at[(at < 0) | (at >= n)]
    if wrong.size:
        raise InputError(f"{tracing.source} has {n} nodes, counted from 0, and no row {wrong[0]}")
    return at


def group_index(tracing: Tracing, number: int) -> int:
    """Return where a group stands in `Tracing.groups`.

    Raises:
        InputError: it does not exist.
    """
    for at, group in enumerate(tracing.groups):
        if group.id == number:
            return at
    raise InputError(
        f"{tracing.source} has no group {number}: its ids are {_some([group.id for group in tracing.groups])}"
    )


def _some(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "") if ids else "none"


def free_ids(taken: ArrayLike, n: int, *, above: int = 0) -> Ids:
    """Return `n` new ids in order, above all that are taken and above `above`; uint64.

    Raises:
        InputError: there are not so many.
    """
    first = max(above, int(np.asarray(taken, np.uint64).max(initial=0))) + 1
    if first + n - 1 > _LARGEST_ID:
        raise InputError(f"{n} ids above {first - 1} do not fit into 64 bits: renumber the tracing")
    return np.arange(first, first + n, dtype=np.uint64)


def free_node_ids(tracing: Tracing, n: int) -> Ids:
    """Return `n` new node ids: of no node, and of none that a comment without a node speaks about."""
    return free_ids(tracing.skeletons.node_ids, n, above=max(stray_ids(tracing), default=0))


def free_groups(groups: Iterable[Group], n: int) -> list[int]:
    """Return `n` new ids of groups."""
    first = max((group.id for group in groups), default=0) + 1
    return list(range(first, first + n))


def stray_ids(tracing: Tracing) -> list[int]:
    """Return the ids of nodes that comments and branch points without a node speak about."""
    texts = [mark.get(key) or "" for _, mark, key in _strays(tracing.others.document)]
    return [int(text) for text in texts if text.strip().isdecimal()]


def _strays(document: Iterable[Element]) -> Iterator[tuple[int, Element, str]]:
    """Yield (place in the document, comment or branch point, its attribute that names a node)."""
    for at, element in enumerate(document):
        if element.tag in _MARK:
            for mark in element.children:
                yield at, mark, _MARK[element.tag]


def renumbered(tracing: Tracing, *, first_tree: int = 1, first_node: int = 1) -> Tracing:
    """Return the tracing with trees and nodes numbered in order, each id once in the whole file.

    Comments and branch points stay on their nodes. Those without a node get ids of no node, so that they do not
    end up on one that they never spoke about.

    Args:
        tracing: whose groups, and all else, stay as they are.
        first_tree: id of the first tree.
        first_node: id of the first node; ids go on through all trees.
    """
    skeletons = tracing.skeletons
    n, k = len(skeletons.node_ids), len(skeletons.ids)
    new = replace(
        skeletons,
        ids=np.arange(first_tree, first_tree + k, dtype=np.uint64),
        node_ids=np.arange(first_node, first_node + n, dtype=np.uint64),
    )
    made = carried(
        tracing,
        new,
        nodes_from=np.arange(n),
        trees_from=np.arange(k),
        edges_from=np.arange(len(skeletons.edges)),
    )
    return _strays_moved(made, first_node + n)


def _strays_moved(tracing: Tracing, first: int) -> Tracing:
    if not any(True for _ in _strays(tracing.others.document)):
        return tracing
    document, number = list(tracing.others.document), first
    new_ids: dict[str, str] = {}
    for at, element in enumerate(document):
        if element.tag not in _MARK:
            continue
        key, children = _MARK[element.tag], []
        for mark in element.children:
            old = mark.get(key)
            if old is not None and old not in new_ids:
                new_ids[old] = str(number)
                number += 1
            children.append(mark if old is None else mark.replaced(**{key: new_ids[old]}))
        document[at] = replace(element, children=tuple(children))
    return replace(tracing, others=replace(tracing.others, document=tuple(document)))
