"""`emloom skeleton info`: what a tracing holds, and what is odd about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from emloom.geometry.tracings import Tracing
from emloom.ops.skeletongraph import branch_nodes, end_nodes
from emloom.ops.skeletons import findings
from emloom.ops.tracingasides import asides
from emloom.tasks.tracingsource import TracingSource, tracings_of

_SHOWN = 8


@dataclass(frozen=True)
class SkeletonInfo:
    """What is known about one tracing.

    Attributes:
        name: of its file.
        tracing: what was read.
    """

    name: str
    tracing: Tracing

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        t, s = self.tracing, self.tracing.skeletons
        at = s.positions_nm
        lengths = s.lengths_nm
        in_group = Counter(t.tree_groups)
        radii = t.radii_nm[np.isfinite(t.radii_nm)]
        return {
            "file": self.name,
            "voxel_size_nm": list(t.voxel_size_nm),
            "trees": len(s.ids),
            "nodes": len(s.node_ids),
            "links": len(s.links),
            "ends": len(end_nodes(s)),
            "branches": len(branch_nodes(s)),
            "length_nm": float(lengths.sum()),
            "tree_length_nm": _spread(lengths),
            "radius_nm": _spread(radii),
            "box_nm": [at.min(axis=0).tolist(), at.max(axis=0).tolist()] if len(at) else None,
            "groups": [
                {"id": g.id, "name": g.name, "parent": g.parent, "trees": in_group[g.id]} for g in t.groups
            ],
            "comments": len(t.comments.rows),
            "branchpoints": len(t.branchpoints.rows),
            "bounding_boxes": len(t.boxes),
            "attachments": [attachment.name for attachment in t.attachments],
            "notes": list(asides(t)),
            "findings": [str(finding) for finding in findings(s)],
        }

    def to_text(self) -> str:
        """Return a short paragraph for a person."""
        d = self.to_dict()
        per_tree = d["tree_length_nm"]
        lines = [
            self.name,
            _line("voxel size", f"{_triple(d['voxel_size_nm'])} nm (z, y, x)"),
            _line("trees", f"{d['trees']} with {d['nodes']} nodes, {d['ends']} ends, {d['branches']} branches"),
            _line("length", f"{d['length_nm'] / 1000:.6g} µm in all"),
        ]
        if per_tree is not None and d["trees"] > 1:
            lines.append(_line("per tree", f"{_range(per_tree, 1000, 'µm')}"))
        if d["radius_nm"] is not None:
            lines.append(_line("radius", _range(d["radius_nm"], 1, "nm")))
        if d["box_nm"] is not None:
            low, high = (np.array(corner) / 1000 for corner in d["box_nm"])
            sides = ", ".join(f"{n} {a:.5g} to {b:.5g}" for n, a, b in zip("zyx", low, high, strict=True))
            lines.append(_line("box", f"{sides} µm"))
        lines += _some("group", [f"{g['id']} {g['name']!r}: {g['trees']} trees{_inside(g)}" for g in d["groups"]])
        for word in ("comments", "branchpoints", "bounding_boxes"):
            if d[word]:
                lines.append(_line(word.replace("_", " ").removeprefix("bounding "), str(d[word])))
        lines += [_line("note", text) for text in d["notes"]]
        return "\n".join([*lines, *_some("finding", d["findings"])])


def skeleton_info(source: TracingSource) -> list[SkeletonInfo]:
    """Return what a file, an archive or a folder of tracings holds, one for each.

    Raises:
        InputError: as `tracings_of`.
    """
    return [SkeletonInfo(name, tracing) for name, tracing in tracings_of(source).items()]


def _spread(values: Any) -> dict[str, float] | None:
    if not len(values):
        return None
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def _range(spread: dict[str, float], unit: float, said: str) -> str:
    low, middle, high = (spread[key] / unit for key in ("min", "median", "max"))
    return f"{low:.5g} to {high:.5g} {said}, median {middle:.5g}"


def _some(word: str, texts: list[str]) -> list[str]:
    lines = [_line(word, text) for text in texts[:_SHOWN]]
    if len(texts) > _SHOWN:
        lines.append(_line("", f"... {len(texts) - _SHOWN} more: --json lists all"))
    return lines


def _inside(group: dict[str, Any]) -> str:
    return "" if group["parent"] is None else f", in group {group['parent']}"


def _line(word: str, text: str) -> str:
    return f"  {word:<13}{text}"


def _triple(values: list[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)
