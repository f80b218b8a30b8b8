"""Trees as SWC files, one file for each; see `emloom.io.swc` for the format.

A file that was read is written back line by line. Other tracings are brought into the form that SWC needs: every
node has one parent, and parents stand before their children, as most readers expect. An edge from a to b makes a
the parent where that gives each node one parent; else the first node of each piece is its root. `swc_losses` says
what of a tracing the format cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, depth_first_order

from emloom.errors import InputError
from emloom.geometry.columns import Texts, as_texts
from emloom.geometry.grid import Vec3
from emloom.geometry.skeletons import Rows
from emloom.geometry.tracings import Tracing
from emloom.io.coordinates import coordinate_texts
from emloom.io.files import staged
from emloom.io.swc import AFTER, BEFORE, HEAD, swc_unit

_NONE = -1


def write_swc(
    path: str | Path,
    tracing: Tracing,
    *,
    unit_nm: float | Sequence[float],
    radius_nm: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write the tree of a tracing as an SWC file, or several trees as a folder of them.

    Args:
        path: `.swc` for one tree; for several, a folder, whose files are called by the ids of the trees.
        tracing: what is written: nodes with types and radii, edges, comments.
        unit_nm: how many nm one unit of the file is, as in `read_swc`; the format does not say it.
        radius_nm: radius of nodes that have none.
        overwrite: replace what is there.

    Raises:
        InputError: `path` exists, there are several trees and it ends with .swc, or one and it does not, a tree
            has a cycle, a node has no radius and none is given, a type is no whole number, or there is no tree.
    """
    path = Path(path)
    single = path.suffix.lower() == ".swc"
    n = len(tracing.skeletons.ids)
    if n == 0 or (single and n > 1):
        raise InputError(
            f"{path} would hold {n} trees: an SWC file holds one; "
            + ("give at least one" if n == 0 else "name a folder, for one file per tree, or choose a tree")
        )
    texts = _texts(tracing, swc_unit(unit_nm), radius_nm)
    with staged(path, overwrite=overwrite) as temporary:
        if single:
            _write(temporary, next(texts))
            return
        temporary.mkdir()
        for number, text in zip(tracing.skeletons.ids.tolist(), texts, strict=True):
            _write(temporary / f"{number}.swc", text)


def swc_losses(tracing: Tracing) -> tuple[str, ...]:
    """Return what SWC cannot hold of a tracing, in words; empty where nothing is lost but the names of trees."""
    spelled = {"type", "x", "y", "z", "radius", BEFORE}
    skeletons = tracing.skeletons
    kept = [e for e in tracing.others.document if not (e.tag == "meta" and e.get("name") in (HEAD, AFTER))]
    texts = tracing.comment_texts()
    counts = {
        "attributes of nodes": len(set(tracing.nodes.texts) - spelled),
        "attributes of trees": len(set(tracing.trees.texts) - {"name"}),
        "attributes of edges": len(tracing.edges.texts),
        "edges that stand twice or lead nowhere": len(skeletons.edges) - len(skeletons.links),
        "line breaks in comments": sum("\n" in text for text in texts),
        "second comments of a node": len(tracing.comments.rows) - len(set(tracing.comments.rows.tolist())),
        "branch points": len(tracing.branchpoints.rows),
        "groups": len(tracing.groups),
        "parameters": len([e for e in tracing.parameters if e.tag != "scale"]),
        "other elements": len(kept) + len(tracing.others.trees) + len(tracing.others.nodes),
        "files beside the tracing": len(tracing.attachments),
    }
    return tuple(f"{count} {what}" for what, count in counts.items() if count)


def _write(path: Path, text: str) -> None:
    # surrogateescape: bytes of a comment that were no UTF-8 are written as they were.
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def _texts(tracing: Tracing, unit: Vec3, radius_nm: float | None) -> Iterator[str]:
    skeletons = tracing.skeletons
    order, parents = _rooted(tracing)
    columns = [_types(tracing)]
    for axis, name in ((2, "x"), (1, "y"), (0, "z")):
        columns.append(coordinate_texts(skeletons.positions_nm[:, axis], unit[axis], tracing.nodes[name]))
    columns.append(_radii(tracing, unit[2], radius_nm))
    ids = skeletons.node_ids.tolist()
    behind = _comments(tracing)
    before = [text if text is None else _remarks(text.split("\n")) for text in tracing.nodes[BEFORE]]
    lines: list[list[str]] = [[] for _ in skeletons.ids]
    whose = skeletons.skeletons.tolist()
    for row in order.tolist():
        parent = parents[row]
        numbers = " ".join([str(ids[row]), *(column[row] for column in columns)])
        parent_id = -1 if parent == _NONE else ids[parent]
        lines[whose[row]].append(f"{before[row] or ''}{numbers} {parent_id}{behind.get(row, '')}\n")
    head, after = (_remarks(_metas(tracing, name)) for name in (HEAD, AFTER))
    if not head and "type" not in tracing.nodes:
        head = _remarks([f" unit: {unit} nm (z, y, x)", " id type x y z radius parent"])
    for listed in lines:
        yield head + "".join(listed) + after


def _remarks(texts: Sequence[str]) -> str:
    return "".join(f"#{text}\n" for text in texts)


def _metas(tracing: Tracing, name: str) -> list[str]:
    metas = [e for e in tracing.others.document if e.tag == "meta" and e.get("name") == name]
    return [(element.get("content") or "").replace("\n", " ") for element in metas]


def _comments(tracing: Tracing) -> dict[int, str]:
    """Return what stands behind the numbers of a node, by row."""
    found: dict[int, list[str]] = {}
    for row, text in zip(tracing.comments.rows.tolist(), tracing.comment_texts(), strict=True):
        found.setdefault(row, []).append(" ".join(text.splitlines()))
    return {row: f" # {'; '.join(texts)}".rstrip() for row, texts in found.items()}


def _types(tracing: Tracing) -> Texts:
    texts = ["0" if text is None else text for text in tracing.nodes["type"]]
    for row, text in enumerate(texts):
        if not text.lstrip("-").isdecimal():
            raise InputError(
                f"{tracing.source}: node {tracing.skeletons.node_ids[row]} has type={text!r}: SWC needs a whole "
                "number, 0 for undefined"
            )
    return as_texts(texts)


def _radii(tracing: Tracing, unit_nm: float, given_nm: float | None) -> Texts:
    radii = tracing.radii_nm.copy()
    absent = np.flatnonzero(np.isnan(radii))
    if absent.size and given_nm is None:
        raise InputError(
            f"{tracing.source}: {absent.size} nodes have no radius, node {tracing.skeletons.node_ids[absent[0]]} "
            "the first, and SWC needs one: give radius_nm"
        )
    radii[absent] = given_nm if given_nm is not None else 0.0
    return coordinate_texts(radii, unit_nm, tracing.nodes["radius"])


def _rooted(tracing: Tracing) -> tuple[Rows, list[int]]:
    """Return the rows of nodes, parents before children, and the parent of each row, `_NONE` of a root."""
    skeletons = tracing.skeletons
    n, links = len(skeletons.node_ids), skeletons.links
    pieces, piece = connected_components(_graph(links, n), directed=False)
    if len(links) != n - pieces:
        raise InputError(f"{tracing.source}: {_cyclic(tracing, piece)} has a cycle, and SWC is for trees: cut it")
    edges = skeletons.edges[skeletons.edges[:, 0] != skeletons.edges[:, 1]]
    edges = np.unique(edges, axis=0)
    if len(edges) != len(links) or len(np.unique(edges[:, 1])) != len(edges):
        roots = np.unique(piece, return_index=True)[1]
        _, parents = _walk(links, roots, n)
    else:
        parents = np.full(n, _NONE)
        parents[edges[:, 1]] = edges[:, 0]
        roots = np.flatnonzero(parents == _NONE)
    order = np.arange(n)
    if (parents >= order).any():
        order, _ = _walk(links, roots, n, deep=True)
    return order, parents.tolist()


def _graph(links: Rows, n: int) -> coo_matrix:
    return coo_matrix((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(n, n))


def _walk(links: Rows, roots: Rows, n: int, *, deep: bool = False) -> tuple[Rows, Rows]:
    """Return rows in the order of a walk from the roots, and the row each was reached from."""
    joint = np.stack([np.full(len(roots), n), roots], axis=1)  # one node more, that joins all pieces
    graph = _graph(np.concatenate([links, joint]), n + 1).tocsr()
    walk = depth_first_order if deep else breadth_first_order
    order, reached = walk(graph, n, directed=False)
    parents = reached[:n].astype(np.int64)
    parents[parents == n] = _NONE
    return order[1:].astype(np.int64), parents


def _cyclic(tracing: Tracing, piece: Rows) -> str:
    """Return how to call a tree that has a cycle: one with as many links as nodes in one of its pieces."""
    skeletons = tracing.skeletons
    n_pieces = int(piece.max()) + 1
    extra = np.bincount(piece[skeletons.links[:, 0]], minlength=n_pieces) >= np.bincount(piece)
    row = np.flatnonzero(extra[piece])[0]
    return f"tree {skeletons.ids[skeletons.skeletons[row]]}"
