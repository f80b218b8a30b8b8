"""Contacts as a tracing, and back: a tree of two nodes for each, which people can look at and mend in webKnossos.

::

    tree, its id that of the contact    node commented "pre" ── node commented "post"
    group, its id that of the polyad    the contacts of one pre site
    metadata of the tree                pre_segment, post_segment, size_vox, score

Read back, a tree is one contact for each node whose comment begins with "post", from its only node whose comment
begins with "pre". Contacts whose trees lie in one group and whose pre sites are one position are a polyad, and so
are those of one tree; a group of several pre sites is only a folder. Case and white space do not matter, and trees
without such comments are tracings of something else.

Law: ``synapses_of(tracing_of(table, size))`` is the table, but for the numbers of polyads, which are those of
their first contacts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.columns import Columns
from emloom.geometry.elements import Element, Group
from emloom.geometry.grid import Vec3, as_nm
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.synapses import SynapseTable
from emloom.geometry.tracings import Marks, Others, Tracing

PRE, POST = "pre", "post"
_ENTRY, _METADATA = "metadataEntry", "metadata"
_NUMBERS = ("pre_segment", "post_segment", "size_vox", "score")
Said = dict[str, str]


def tracing_of(table: SynapseTable, voxel_size_nm: Sequence[float]) -> Tracing:
    """Return contacts as a tracing.

    Args:
        table: the contacts.
        voxel_size_nm: size (z, y, x) of a voxel, the unit of coordinates in the file.

    Raises:
        InputError: the voxel size is not three positive numbers.
    """
    n = len(table)
    rows = np.arange(n)
    positions = np.stack([table.pre_nm, table.post_nm], axis=1).reshape(-1, 3)
    skeletons = Skeletons(
        ids=table.ids,
        skeletons=np.repeat(rows, 2),
        node_ids=np.arange(1, 2 * n + 1, dtype=np.uint64),
        positions_nm=positions,
        edges=np.stack([2 * rows, 2 * rows + 1], axis=1).astype(np.int64),
        names=tuple(f"{a} to {b}" for a, b in zip(table.pre_segments, table.post_segments, strict=True)),
        source=table.source,
    )
    size: Vec3 = as_nm(tuple(voxel_size_nm), "voxel size")
    groups = tuple(Group(polyad, f"polyad {polyad}") for polyad in np.unique(table.polyads).tolist())
    said = zip(table.pre_segments, table.post_segments, table.sizes_vox, table.scores, strict=True)
    return Tracing(
        skeletons,
        size,
        Columns(2 * n),
        Columns(n).replaced("groupId", [str(polyad) for polyad in table.polyads]),
        Columns(n),
        comments=Marks.of(np.arange(2 * n), content=[PRE, POST] * n),
        groups=groups,
        others=Others(trees={row: (_metadata(values),) for row, values in enumerate(said)}),
    )


def synapses_of(tracing: Tracing) -> SynapseTable:
    """Return the contacts of a tracing that people or `tracing_of` made; trees without such comments are none.

    Returns:
        The contacts in the order of trees and comments. Segments and sizes are 0 and scores 1 where the tree's
        metadata do not say them; ids are those of the trees where every tree is one contact, else 1, 2, ...

    Raises:
        InputError: a tree has post sites and not exactly one pre site, or the reverse; metadata are no numbers.
    """
    trees = _marked(tracing)
    contacts = [(tree, pre, post) for tree, (pre, posts) in trees.items() for post in posts]
    if not contacts:
        return SynapseTable.empty(tracing.source)
    s = tracing.skeletons
    tree, pre, post = np.array(contacts, np.int64).T
    single = len(trees) == len(contacts) and bool((s.ids > 0).all())
    ids = s.ids[tree] if single else np.arange(1, len(contacts) + 1, dtype=np.uint64)
    said = [_said(tracing, row) for row in tree.tolist()]
    numbers = [[int(words.get(name, "0")) for words in said] for name in _NUMBERS[:3]]
    scores = [float(words.get("score", "1")) for words in said]
    return SynapseTable(
        ids, _polyads(tracing, tree, pre, ids), s.positions_nm[pre], s.positions_nm[post],
        np.array(numbers[0], np.uint64), np.array(numbers[1], np.uint64), np.array(numbers[2], np.int64),
        np.array(scores, np.float32), tracing.source,
    )  # fmt: skip


def _marked(tracing: Tracing) -> dict[int, tuple[int, list[int]]]:
    """Return the row of the pre node and those of the post nodes of every tree that has some."""
    found: defaultdict[int, dict[str, list[int]]] = defaultdict(lambda: {PRE: [], POST: []})
    for row, text in zip(tracing.comments.rows.tolist(), tracing.comment_texts(), strict=True):
        word = text.strip().lower()
        side = next((side for side in (PRE, POST) if word.startswith(side)), None)
        if side is not None:
            found[int(tracing.skeletons.skeletons[row])][side].append(row)
    for tree, rows in found.items():
        if len(rows[PRE]) != 1 or not rows[POST]:
            raise InputError(
                f"{tracing.source}: tree {tracing.skeletons.ids[tree]} has {len(rows[PRE])} nodes commented "
                f"{PRE!r} and {len(rows[POST])} commented {POST!r}: a contact has one pre site, and one or more "
                "post sites"
            )
    return {tree: (rows[PRE][0], rows[POST]) for tree, rows in sorted(found.items())}


def _polyads(
    tracing: Tracing, tree: NDArray[np.int64], pre: NDArray[np.int64], ids: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    first: dict[object, int] = {}
    groups, positions = tracing.tree_groups, tracing.skeletons.positions_nm
    out = []
    for row, node, number in zip(tree.tolist(), pre.tolist(), ids.tolist(), strict=True):
        group = groups[row]
        key = ("tree", row) if group is None else (group, *positions[node].tolist())
        out.append(first.setdefault(key, number))
    return np.array(out, np.uint64)


def _metadata(values: Sequence[object]) -> Element:
    entries = [
        Element.of(_ENTRY, {"key": name, "numberValue": repr(float(v)) if name == "score" else str(v)})  # type: ignore[arg-type]
        for name, v in zip(_NUMBERS, values, strict=True)
    ]
    return Element.of(_METADATA, {}, *entries)


def _said(tracing: Tracing, row: int) -> Said:
    """Return the metadata of a tree that are about its contact, as texts."""
    entries = [
        entry
        for element in tracing.others.trees.get(row, ())
        if element.tag == _METADATA
        for entry in element.children
        if entry.tag == _ENTRY and entry.get("key") in _NUMBERS
    ]
    out = {}
    for entry in entries:
        name = entry.get("key") or ""
        number = entry.number("numberValue") if name == "score" else entry.whole("numberValue")
        out[name] = str(number)
    return out
