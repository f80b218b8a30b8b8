"""What a tracing says, without ids of rows: for laws about edits."""

from __future__ import annotations

from collections import Counter
from typing import Any

from emloom.geometry.tracings import Tracing, differences
from emloom.io.nmlreader import parse
from emloom.io.nmlwriter import nml_lines

SPELLED = {"x", "y", "z", "radius", "name"}


def node_facts(tracing: Tracing) -> dict[int, tuple[Any, ...]]:
    """Node id -> position, radius, attributes, comments, branch points, elements; ids must be unique."""
    s = tracing.skeletons
    said: dict[int, list[str]] = {}
    for row, text in zip(tracing.comments.rows.tolist(), tracing.comment_texts(), strict=True):
        said.setdefault(row, []).append(text)
    branches = Counter(tracing.branchpoints.rows.tolist())
    columns = {name: column for name, column in tracing.nodes.texts.items() if name not in SPELLED}
    # A radius that is respelled in another unit keeps its digits, not its last bit.
    radii = [None if radius != radius else float(f"{radius:.12g}") for radius in tracing.radii_nm.tolist()]
    return {
        number: (
            tuple(s.positions_nm[row].tolist()),
            radii[row],
            tuple(sorted((name, column[row]) for name, column in columns.items() if column[row] is not None)),
            tuple(sorted(said.get(row, ()))),
            branches[row],
            tracing.others.nodes.get(row, ()),
        )
        for row, number in enumerate(s.node_ids.tolist())
    }


def tree_facts(tracing: Tracing) -> dict[int, tuple[Any, ...]]:
    """Tree id -> name, attributes, elements, ids of nodes, links as pairs of ids."""
    s = tracing.skeletons
    ids = s.node_ids.tolist()
    columns = {name: column for name, column in tracing.trees.texts.items() if name not in SPELLED}
    return {
        number: (
            s.names[row],
            tuple(sorted((name, column[row]) for name, column in columns.items() if column[row] is not None)),
            tracing.others.trees.get(row, ()),
            frozenset(node for node, of in zip(ids, s.skeletons.tolist(), strict=True) if of == row),
            frozenset(frozenset((ids[a], ids[b])) for a, b in s.links[s.link_skeletons == row].tolist()),
        )
        for row, number in enumerate(s.ids.tolist())
    }


def written(tracing: Tracing) -> str:
    return "".join(nml_lines(tracing))


def check_whole(tracing: Tracing) -> None:
    """An edited tracing has unique ids, and is what its file says."""
    for ids in (tracing.skeletons.ids.tolist(), tracing.skeletons.node_ids.tolist()):
        assert len(set(ids)) == len(ids)
    again = parse([written(tracing).encode("utf-8")], "a.nml", None)
    assert differences(tracing, again) in ((), ("positions",))
