r"""What tracers wrote: comments, branch points and names, asked for and edited.

Patterns are regular expressions that may match anywhere in a text; ``\A`` and ``\Z`` bind them to its ends.
Nodes are rows of `Skeletons.node_ids`. Every edit returns a new tracing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from emloom.errors import InputError
from emloom.geometry.columns import stacked
from emloom.geometry.skeletons import Rows
from emloom.geometry.tracings import Marks, Tracing
from emloom.ops.tracingids import checked_rows
from emloom.ops.tracingnodes import delete_nodes
from emloom.ops.tracingparts import compiled


def comments(tracing: Tracing, pattern: str = "") -> list[tuple[int, str]]:
    """Return (row of the node, text) of all comments that match, in the order of the file.

    Raises:
        InputError: the pattern is no regular expression.
    """
    found = compiled(pattern)
    pairs = zip(tracing.comments.rows.tolist(), tracing.comment_texts(), strict=True)
    return [(row, text) for row, text in pairs if found.search(text)]


def unique_comments(tracing: Tracing) -> dict[str, int]:
    """Return how often each text stands as a comment, in the order of texts."""
    return dict(sorted(Counter(tracing.comment_texts()).items()))


def nodes_with_comment(tracing: Tracing, pattern: str, *, degree: int | None = None) -> Rows:
    """Return the rows of the nodes that have a matching comment, each once, in order; int64.

    Args:
        tracing: whose comments are searched.
        pattern: regular expression.
        degree: only nodes with so many neighbours: 1 for ends, 2 along a path, 3 and more at branches.

    Raises:
        InputError: the pattern is no regular expression.
    """
    rows = np.unique(np.array([row for row, _ in comments(tracing, pattern)], np.int64))
    if degree is None:
        return rows
    skeletons = tracing.skeletons
    degrees = np.bincount(skeletons.links.reshape(-1), minlength=len(skeletons.node_ids))
    found: Rows = rows[degrees[rows] == degree]
    return found


def set_comments(tracing: Tracing, texts: Mapping[int, str]) -> Tracing:
    """Return the tracing with these comments, in place of all that their nodes had.

    Args:
        tracing: whose other comments stay.
        texts: row of a node -> its comment.

    Raises:
        InputError: a row does not exist.
    """
    rows = checked_rows(tracing, list(texts))
    left = tracing.comments.take(np.flatnonzero(~np.isin(tracing.comments.rows, rows)))
    return replace(tracing, comments=_more(left, Marks.of(rows, content=texts.values())))


def replace_comments(tracing: Tracing, pattern: str, replacement: str) -> Tracing:
    r"""Return the tracing with every match in a comment replaced; ``\1`` stands for the first group.

    Raises:
        InputError: the pattern is no regular expression, or the replacement names a group it does not have.
    """
    old = tracing.comments.columns["content"]
    new = [None if text is None else _substituted(pattern, replacement, text) for text in old]
    columns = tracing.comments.columns.replaced("content", new)
    return replace(tracing, comments=Marks(tracing.comments.rows, columns))


def delete_comments(tracing: Tracing, pattern: str = "") -> Tracing:
    """Return the tracing without the comments that match.

    Raises:
        InputError: the pattern is no regular expression.
    """
    found = compiled(pattern)
    kept = [k for k, text in enumerate(tracing.comment_texts()) if not found.search(text)]
    return replace(tracing, comments=tracing.comments.take(kept))


def delete_nodes_with_comment(tracing: Tracing, pattern: str, *, close_gaps: bool = False) -> Tracing:
    """Return the tracing without the nodes that have a matching comment; see `delete_nodes`.

    Raises:
        InputError: the pattern is no regular expression.
    """
    return delete_nodes(tracing, nodes_with_comment(tracing, pattern), close_gaps=close_gaps)


def add_branchpoints(tracing: Tracing, nodes: ArrayLike) -> Tracing:
    """Return the tracing with branch points on these nodes too; one that is there stays as it is.

    Raises:
        InputError: a row does not exist.
    """
    rows = np.setdiff1d(checked_rows(tracing, nodes), tracing.branchpoints.rows)
    return replace(tracing, branchpoints=_more(tracing.branchpoints, Marks.of(rows)))


def delete_branchpoints(tracing: Tracing, nodes: ArrayLike | None = None) -> Tracing:
    """Return the tracing without the branch points on these nodes, None for all.

    Raises:
        InputError: a row does not exist.
    """
    if nodes is None:
        return replace(tracing, branchpoints=Marks())
    gone = np.isin(tracing.branchpoints.rows, checked_rows(tracing, nodes))
    return replace(tracing, branchpoints=tracing.branchpoints.take(np.flatnonzero(~gone)))


def rename_trees(tracing: Tracing, pattern: str, replacement: str) -> Tracing:
    r"""Return the tracing with every match in a tree's name replaced; ``\1`` stands for the first group.

    Raises:
        InputError: the pattern is no regular expression, or the replacement names a group it does not have.
    """
    names = tuple(_substituted(pattern, replacement, name) for name in tracing.skeletons.names)
    return replace(tracing, skeletons=replace(tracing.skeletons, names=names))


def _more(a: Marks, b: Marks) -> Marks:
    return Marks(np.concatenate([a.rows, b.rows]).astype(np.int64), stacked([a.columns, b.columns]))


def _substituted(pattern: str, replacement: str, text: str) -> str:
    try:
        return compiled(pattern).sub(replacement, text)
    except (re.error, IndexError) as problem:
        raise InputError(
            f"{replacement!r} cannot replace {pattern!r} ({problem}): name its groups 1, 2, ... after a backslash"
        ) from None
