"""Tracings for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def write_nml(path: Path, trees: Iterable[Sequence[tuple[int, int, int]]]) -> str:
    """Write trees of voxel positions (x, y, z) of 8 x 8 x 40 nm, the nodes of each joined in order."""
    things, first = [], 1
    for number, nodes in enumerate(trees, 1):
        ids = range(first, first + len(nodes))
        first += len(nodes)
        marks = "".join(
            f'<node id="{i}" radius="1" x="{x}" y="{y}" z="{z}"/>' for i, (x, y, z) in zip(ids, nodes, strict=True)
        )
        edges = "".join(f'<edge source="{i}" target="{i + 1}"/>' for i in ids[:-1])
        things.append(f'<thing id="{number}" name="t"><nodes>{marks}</nodes><edges>{edges}</edges></thing>')
    scale = '<parameters><experiment name="e"/><scale x="8" y="8" z="40"/></parameters>'
    path.write_text(f"<things>{scale}{''.join(things)}</things>")
    return str(path)
