"""`emloom skeleton measure`: one row per tree, and one per node, with the segments they lie in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Tracing
from emloom.io.files import refuse_existing, write_text_atomic
from emloom.io.open import open_volume
from emloom.io.tables import write_csv, write_table
from emloom.ops.skeletongraph import degrees
from emloom.ops.skeletonmeasure import measures, speeds_um_per_min, tracing_times_ms
from emloom.spec import Spec
from emloom.tasks.nodelookup import NodeSegments, node_segments
from emloom.tasks.tracingsource import TracingSource, tracings_of

Columns = dict[str, NDArray[Any]]

ENDINGS = (".csv", ".parquet", ".json")


class MeasureSpec(Spec):
    """Measure tracings."""

    source: TracingSource
    """What to measure."""
    output: str | None = None
    """Table of trees to be written: `.csv`, `.parquet` or `.json`; must not exist."""
    nodes: str | None = None
    """Table of nodes to be written, likewise."""
    segmentation: str | None = None
    """Volume of labels in whose segments nodes lie; outside of it they lie in none."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        trees: one row per tree.
        nodes: one row per node.
    """

    trees: Columns
    nodes: Columns

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of trees as plain JSON types; what has no value is None."""
        return rows_of(self.trees)


def measure(spec: MeasureSpec) -> Measured:
    """Measure every tree, and look up what lies under its nodes.

    Columns of trees are those of `emloom.ops.skeletonmeasure.measures`, and: `file` (of several); `group`, the
    names of groups around it; `comments`; `minutes` and `um_per_min` of tracing where nodes have times; with a
    segmentation `segments` (how many), `main_segment` and `main_share` (the one with most nodes, of all nodes),
    `in_background` and `outside` (nodes). Columns of nodes: `skeleton`, `node`, position in nm, `degree`,
    `segment`, `outside`.

    Raises:
        InputError: as `tracings_of` and `node_segments`, a table has another ending, or exists.
    """
    writers = [(path, _writer(path)) for path in (spec.output, spec.nodes) if path is not None]
    found = tracings_of(spec.source)
    parts = [_measured(name if len(found) > 1 else None, tracing, spec) for name, tracing in found.items()]
    made = Measured(_stacked([trees for trees, _ in parts]), _stacked([nodes for _, nodes in parts]))
    for path, write in writers:
        write(path, made.trees if path == spec.output else made.nodes)
    return made


def rows_of(columns: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Return columns as rows of plain JSON types; NaN and infinities are None."""
    plain = {name: [_plain(value) for value in column.tolist()] for name, column in columns.items()}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def _measured(name: str | None, tracing: Tracing, spec: MeasureSpec) -> tuple[Columns, Columns]:
    skeletons = tracing.skeletons
    found = None
    if spec.segmentation is not None:
        found = node_segments(open_volume(spec.segmentation, kind="labels"), skeletons, outside="omit")
    trees, nodes = _trees(tracing, found), _nodes(skeletons, found)
    if name is None:
        return trees, nodes
    return {"file": _same(name, trees), **trees}, {"file": _same(name, nodes), **nodes}


def _trees(tracing: Tracing, found: NodeSegments | None) -> Columns:
    s = tracing.skeletons
    k = len(s.ids)
    columns = measures(s)
    columns["group"] = np.array(_group_names(tracing), np.str_)
    columns["comments"] = np.bincount(s.skeletons[tracing.comments.rows], minlength=k).astype(np.int64)
    times = tracing.nodes.numbers("time", f"{s.source}: node row")
    columns["minutes"] = tracing_times_ms(s, times) / 60_000
    columns["um_per_min"] = speeds_um_per_min(s, times)
    return columns if found is None else {**columns, **_under(s, found)}


def _under(s: Skeletons, found: NodeSegments) -> Columns:
    k = len(s.ids)
    counts = np.zeros(k, np.int64)
    main, share = np.zeros(k, np.uint64), np.full(k, np.nan)
    for row, nodes in enumerate(_nodes_of(s)):
        ids, n = np.unique(found.segments[nodes], return_counts=True)
        ids, n = ids[ids != 0], n[ids != 0]
        counts[row] = len(ids)
        if len(nodes):
            main[row], share[row] = (ids[n.argmax()], n.max() / len(nodes)) if len(ids) else (0, 0.0)
    nothing = (found.segments == 0) & ~found.outside
    return {
        "segments": counts,
        "main_segment": main,
        "main_share": share,
        "in_background": np.bincount(s.skeletons[nothing], minlength=k).astype(np.int64),
        "outside": np.bincount(s.skeletons[found.outside], minlength=k).astype(np.int64),
    }


def _nodes(s: Skeletons, found: NodeSegments | None) -> Columns:
    z, y, x = s.positions_nm.T
    columns: Columns = {"skeleton": s.ids[s.skeletons], "node": s.node_ids, "z_nm": z, "y_nm": y, "x_nm": x}
    columns["degree"] = degrees(s)
    return columns if found is None else {**columns, "segment": found.segments, "outside": found.outside}


def _nodes_of(s: Skeletons) -> list[NDArray[np.int64]]:
    order = np.argsort(s.skeletons, kind="stable")
    return np.split(order, np.searchsorted(s.skeletons[order], np.arange(1, len(s.ids)))) if len(s.ids) else []


def _group_names(tracing: Tracing) -> list[str]:
    """Return, for each tree, the names of the groups around it, the outermost first."""
    paths: dict[int | None, str] = {None: ""}
    for group in tracing.groups:  # a parent stands before its children
        above = paths[group.parent]
        paths[group.id] = f"{above}/{group.name}" if above else group.name
    return [paths.get(group, "") for group in tracing.tree_groups]


def _same(text: str, columns: Columns) -> NDArray[Any]:
    return np.array([text] * len(next(iter(columns.values()))), np.str_)


def _stacked(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value


def _writer(path: str) -> Callable[[str, Columns], None]:
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path} is no table: end it with {', '.join(ENDINGS)}")
    refuse_existing(path)
    if ending == ".json":
        return lambda at, columns: write_text_atomic(at, json.dumps(rows_of(columns), indent=1), overwrite=False)
    if ending == ".csv":
        return lambda at, columns: write_csv(at, _blank(columns), overwrite=False)
    return lambda at, columns: write_table(at, columns, overwrite=False)


def _blank(columns: Columns) -> Columns:
    """Return columns whose NaN are empty cells."""
    return {
        name: np.array([None if v != v else v for v in c.tolist()], object) if c.dtype.kind == "f" else c
        for name, c in columns.items()
    }
