"""`emloom skeleton plot`: tracings as a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons, joined
from emloom.geometry.tracings import Tracing
from emloom.io.files import refuse_existing, write_bytes_atomic
from emloom.spec import Spec
from emloom.tasks.tracingsource import TracingSource, tracings_of
from emloom.view.skeletons import ENDINGS, Style, picture_bytes


class PlotSpec(Spec):
    """Draw tracings."""

    source: TracingSource
    """What to draw."""
    output: str
    """`.png`, `.svg` or `.pdf`; must not exist."""
    view: Literal["all", "xy", "xz", "yz", "3d"] = "all"
    """One projection, all three, or in space."""
    unit: Literal["um", "nm", "vx"] = "um"
    """Of the axes; `vx` are the voxels of the file."""
    marks: bool = False
    """Show ends and branches."""
    colours: Literal["file", "ids"] = "file"
    """Those of the file where it has some, or by the ids."""


@dataclass(frozen=True)
class Plotted:
    """What was drawn: numbers of trees and nodes."""

    trees: int
    nodes: int


def plot(spec: PlotSpec) -> Plotted:
    """Draw all trees in one picture.

    Raises:
        InputError: the ending is unknown, the file exists, there is no node, axes are in voxels and those of
            several files differ, or as `tracings_of`.
    """
    if Path(spec.output).suffix.lower() not in ENDINGS:
        raise InputError(f"{spec.output} is no picture: end it with {', '.join(ENDINGS)}")
    refuse_existing(spec.output)
    tracings = list(tracings_of(spec.source).values())
    skeletons = _together(tracings)
    sizes = {tracing.voxel_size_nm for tracing in tracings}
    if spec.unit == "vx" and len(sizes) > 1:
        raise InputError(f"{spec.source.path} has voxels of {len(sizes)} sizes: draw it in um or nm")
    style = Style(
        view=spec.view,
        unit=spec.unit,
        voxel_size_nm=next(iter(sizes)) if spec.unit == "vx" else None,
        marks=spec.marks,
        colours=np.concatenate([tracing.colours for tracing in tracings]) if spec.colours == "file" else None,
    )
    write_bytes_atomic(spec.output, picture_bytes(spec.output, skeletons, style), overwrite=False)
    return Plotted(len(skeletons.ids), len(skeletons.node_ids))


def _together(tracings: list[Tracing]) -> Skeletons:
    """Return all trees, numbered anew where files use an id twice."""
    parts = [tracing.skeletons for tracing in tracings]
    if len(parts) == 1:
        return parts[0]
    ids = np.concatenate([part.ids for part in parts])
    if len(np.unique(ids)) < len(ids):
        first = np.cumsum([1, *(len(part.ids) for part in parts)])
        parts = [
            replace(part, ids=np.arange(a, a + len(part.ids), dtype=np.uint64))
            for part, a in zip(parts, first[:-1].tolist(), strict=True)
        ]
    return joined(parts, source=parts[0].source)
