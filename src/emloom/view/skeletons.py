"""Skeletons as pictures: projections along the axes, or in space.

Projections lie as in a viewer: xy with x to the right and y down; beside it yz, with z to the right; below it xz,
with z down. All panels have one scale, and lengths are equal along all axes, also in voxels that are no cubes. In
space nothing is turned round either: what is on the right of a neuron stays on its right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletongraph import branch_nodes, degrees, end_nodes
from emloom.ops.skeletonpaths import stretches
from emloom.ops.skeletonplaces import Unit, in_unit
from emloom.view.colours import distinct_ids, id_colours
from emloom.view.figures import GRID, INK, WIDTH_IN, Figure, new_canvas, plot_axes, png_of

Floats = NDArray[np.float64]
View = Literal["all", "xy", "xz", "yz", "3d"]
VIEWS: tuple[View, ...] = ("all", "xy", "xz", "yz", "3d")
ENDINGS = (".png", ".svg", ".pdf")

_ACROSS_DOWN = {"xy": (2, 1), "xz": (2, 0), "yz": (0, 1)}
_SAID = {"nm": "nm", "um": "µm", "vx": "voxels"}
_MOST_NAMES = 12
_MOST_LETTERS = 28
_FLATTEST = 0.12  # share of the longest side that a side of a panel has at least
_MARGIN = 0.04
_DARKER = 0.84  # lines are thin: on a white ground they need more ink than areas
_MANY = 80  # ends: of more, each gets a smaller ring


@dataclass(frozen=True)
class Style:
    """How skeletons are drawn.

    Attributes:
        view: one projection, `xy`, `xz` or `yz`; `all` three; or `3d`.
        unit: of the axes: `nm`, `um`, or `vx`, voxels.
        voxel_size_nm: (z, y, x), for `vx`.
        marks: show ends as rings and branches as dots.
        colours: float [K, 3 or 4], 0 to 1, of each skeleton; NaN, or None for all, takes one by the id.

    Raises:
        InputError: there is no such view.
    """

    view: View = "all"
    unit: Unit = "um"
    voxel_size_nm: Sequence[float] | None = None
    marks: bool = False
    colours: Floats | None = None

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise InputError(f"view {self.view!r} is unknown: use one of {', '.join(VIEWS)}")


def skeleton_plot(skeletons: Skeletons, style: Style | None = None, *, caption: str = "") -> Figure:
    """Return a picture of skeletons for a report.

    Raises:
        InputError: there is no node, or as `Style` and `in_unit`.
    """
    style = style or Style()
    canvas = skeleton_canvas(skeletons, style)
    ends, branches = len(end_nodes(skeletons)), len(branch_nodes(skeletons))
    alt = (
        f"{len(skeletons.ids)} skeletons with {len(skeletons.node_ids)} nodes, {ends} ends and {branches} "
        f"branches, {skeletons.lengths_nm.sum() / 1000:.4g} µm of path; {_seen(style)}."
    )
    return Figure(png_of(canvas), alt, caption)


def picture_bytes(path: str | Path, skeletons: Skeletons, style: Style | None = None) -> bytes:
    """Return the bytes of a picture in the format that the ending of a path names: `.png`, `.svg` or `.pdf`.

    Raises:
        InputError: the ending is none of those, or as `skeleton_plot`.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path} ends with {ending!r}: a picture is one of {', '.join(ENDINGS)}")
    canvas = skeleton_canvas(skeletons, style or Style())
    if ending == ".png":
        return png_of(canvas)
    buffer = BytesIO()
    # Without the date, equal pictures are equal bytes.
    dated: dict[str, Any] = {"Date": None} if ending == ".svg" else {"CreationDate": None}
    with rc_context({"svg.hashsalt": "emloom"}):
        canvas.savefig(buffer, format=ending[1:], transparent=True, metadata=dated)
    return buffer.getvalue()


def skeleton_canvas(skeletons: Skeletons, style: Style) -> Canvas:
    """Return skeletons drawn on a matplotlib figure of their own; raises `InputError` as `skeleton_plot`."""
    _require_nodes(skeletons)
    if style.view == "3d":
        canvas = new_canvas(WIDTH_IN, WIDTH_IN * 0.9)
        draw_in_space(canvas.add_subplot(projection="3d"), skeletons, style)
    elif style.view == "all":
        canvas = _three(skeletons, style)
    else:
        across, down = _sides(skeletons, style)[list(_ACROSS_DOWN[style.view])]
        canvas = new_canvas(WIDTH_IN, float(np.clip(WIDTH_IN * down / across, 2.0, 1.4 * WIDTH_IN)) + 0.7)
        draw(plot_axes(canvas, "", ""), skeletons, style)
    _name(canvas, skeletons, style)
    return canvas


def draw(ax: Axes, skeletons: Skeletons, style: Style) -> None:
    """Draw one projection of skeletons on axes, and set their labels, limits and aspect.

    Args:
        ax: two-dimensional axes.
        skeletons: at least one node.
        style: its view is one projection.

    Raises:
        InputError: the view is no projection, there is no node, or as `in_unit`.
    """
    _require_nodes(skeletons)
    if style.view not in _ACROSS_DOWN:
        raise InputError(f"view {style.view!r} is no single projection: use xy, xz or yz")
    across, down = _ACROSS_DOWN[style.view]
    at, low, high = _placed(skeletons, style)
    points = at[:, [across, down]]
    lines, whose, lone = _lines(skeletons)
    colours = tree_colours(skeletons, style)
    ax.add_collection(LineCollection([points[line] for line in lines], colors=colours[whose], lw=_width(lines)))
    _dots(ax, points, skeletons, style, lone, colours)
    ax.set_xlim(low[across], high[across])
    ax.set_ylim(high[down], low[down])
    scale = _scale(style)
    ax.set_aspect(float(scale[down] / scale[across]))
    ax.set_xlabel(f"{'zyx'[across]} ({_SAID[style.unit]})", color=INK)
    ax.set_ylabel(f"{'zyx'[down]} ({_SAID[style.unit]})", color=INK)


def draw_in_space(ax: Any, skeletons: Skeletons, style: Style) -> None:
    """Draw skeletons on three-dimensional axes, x, y and z; raises `InputError` as `draw`."""
    ax.yaxis.set_rotate_label(False)
    _require_nodes(skeletons)
    points, low, high = (array[..., ::-1] for array in _placed(skeletons, style))
    lines, whose, lone = _lines(skeletons)
    colours = tree_colours(skeletons, style)
    drawn = Line3DCollection([points[line] for line in lines], colors=colours[whose], lw=_width(lines))
    ax.add_collection3d(drawn)
    _dots(ax, points, skeletons, style, lone, colours)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    # y down and z into the page, as in a projection, but seen a little from above and from the left.
    ax.view_init(elev=-20, azim=147, roll=180, vertical_axis="y")
    ax.set_box_aspect((high - low) * _scale(style)[::-1], zoom=0.86)
    ax.patch.set_alpha(0)
    shares = _sides(skeletons, style)[::-1] / _sides(skeletons, style).max()
    for name, axis, share in zip("xyz", (ax.xaxis, ax.yaxis, ax.zaxis), shares, strict=True):
        axis.set_major_locator(MaxNLocator(max(1, round(7 * share))))
        upright = {"rotation": 90} if name == "y" else {}
        axis.set_label_text(f"{name} ({_SAID[style.unit]})", color=INK, **upright)
        axis.set_pane_color((0, 0, 0, 0))
        axis.line.set_color(INK)
        axis.set_tick_params(colors=INK, labelsize=9)
        axis._axinfo["grid"].update(color=GRID, linewidth=0.6)  # matplotlib has no other way to it


def tree_colours(skeletons: Skeletons, style: Style) -> Floats:
    """Return float64 [K, 3], the colour of each skeleton: that of the style, or by its id."""
    k = len(skeletons.ids)
    few = k <= _MOST_NAMES
    ids = distinct_ids(k) if few else skeletons.ids + (skeletons.ids == 0)
    by_id = id_colours(ids).astype(np.float64) * (_DARKER / 255.0)
    if style.colours is None:
        return by_id
    if style.colours.ndim != 2 or len(style.colours) != k or style.colours.shape[1] not in (3, 4):
        raise InputError(f"colours have shape {style.colours.shape}: give [{k}, 3], one per skeleton, 0 to 1")
    given = np.clip(style.colours[:, :3], 0.0, 1.0)
    chosen: Floats = np.where(np.isnan(given).any(axis=1, keepdims=True), by_id, given)
    return chosen


def _require_nodes(skeletons: Skeletons) -> None:
    if not len(skeletons.node_ids):
        raise InputError(f"{skeletons.source} has no node: there is nothing to draw")


def _placed(skeletons: Skeletons, style: Style) -> tuple[Floats, Floats, Floats]:
    """Return positions in the unit of the axes, and where the axes begin and end.

    They hold all nodes, and no side is much shorter than the longest.
    """
    at: Floats = in_unit(skeletons.positions_nm, style.unit, voxel_size_nm=style.voxel_size_nm)
    scale = _scale(style)
    low, high = at.min(axis=0), at.max(axis=0)
    extent = (high - low) * scale
    side = np.maximum(extent, _FLATTEST * max(float(extent.max()), 1e-3)) * (1 + 2 * _MARGIN) / scale
    begin: Floats = (low + high - side) / 2
    end: Floats = (low + high + side) / 2
    return at, begin, end


def _sides(skeletons: Skeletons, style: Style) -> Floats:
    """Return how long the axes z, y, x are, compared with one another."""
    _, low, high = _placed(skeletons, style)
    sides: Floats = (high - low) * _scale(style)
    return sides


def _scale(style: Style) -> Floats:
    """Return how long one unit of each axis is, compared with the others."""
    return np.ones(3) if style.voxel_size_nm is None else np.array(style.voxel_size_nm, np.float64)


def _width(lines: list[Any]) -> float:
    return 1.2 if len(lines) < 400 else 0.8


def _lines(skeletons: Skeletons) -> tuple[list[Any], Any, Any]:
    """Return polylines as rows of nodes, the skeleton of each, and the nodes without a link."""
    parts = stretches(skeletons)
    lines = [parts[k] for k in range(len(parts))]
    whose = skeletons.skeletons[parts.nodes[parts.first[:-1]]]
    return lines, whose, np.flatnonzero(degrees(skeletons) == 0)


def _dots(ax: Any, points: Floats, skeletons: Skeletons, style: Style, lone: Any, colours: Floats) -> None:
    """Draw nodes without a link, and ends and branches where they are asked for."""
    _dot(ax, points, lone, colours[skeletons.skeletons], s=14)
    if style.marks:
        ends, branches = end_nodes(skeletons), branch_nodes(skeletons)
        smaller = min(1.0, (_MANY / max(1, len(ends))) ** 0.5)
        _dot(ax, points, branches, colours[skeletons.skeletons], s=12 * smaller)
        _dot(ax, points, ends, colours[skeletons.skeletons], s=16 * smaller, facecolors="none")


def _dot(ax: Any, points: Floats, rows: Any, colours: Floats, **look: Any) -> None:
    if len(rows):
        inked = {"edgecolors": colours[rows], "linewidths": 0.8} if "facecolors" in look else {"c": colours[rows]}
        ax.scatter(*points[rows].T, **({"linewidths": 0} | look | inked))


def _three(skeletons: Skeletons, style: Style) -> Canvas:
    """Return xy, beside it yz, below it xz, on one scale."""
    z, y, x = _sides(skeletons, style).tolist()
    height = float(np.clip(WIDTH_IN * (y + z) / (x + z), 3.0, 1.5 * WIDTH_IN))
    canvas = new_canvas(WIDTH_IN, height + 0.8)
    grid = canvas.add_gridspec(2, 2, width_ratios=[x, z], height_ratios=[y, z])
    views: tuple[View, ...] = ("xy", "yz", "xz")
    for view, where in zip(views, (grid[0, 0], grid[0, 1], grid[1, 0]), strict=True):
        draw(plot_axes(canvas, "", "", where), skeletons, replace(style, view=view))
    return canvas


def _name(canvas: Canvas, skeletons: Skeletons, style: Style) -> None:
    """Add a legend: names of few skeletons, and what marks mean."""
    handles = []
    if len(skeletons.ids) <= _MOST_NAMES:
        for number, name, colour in zip(
            skeletons.ids.tolist(), skeletons.names, tree_colours(skeletons, style), strict=True
        ):
            handles.append(Line2D([], [], color=tuple(colour), lw=2, label=_short(name or str(number))))
    if style.marks:
        handles.append(Line2D([], [], color=INK, ls="", marker="o", ms=4, mfc="none", label="end"))
        handles.append(Line2D([], [], color=INK, ls="", marker="o", ms=3.5, label="branch"))
    if handles:
        columns = 6 if max(len(str(handle.get_label())) for handle in handles) < 12 else 3
        canvas.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK
        )


def _short(name: str) -> str:
    # A name that begins with an underscore would be left out, and a dollar sign begins a formula.
    text = name.replace("$", r"\$")
    text = text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
    return "\u200b" + text if text.startswith("_") else text


def _seen(style: Style) -> str:
    if style.view == "3d":
        return "seen in space"
    return "projections xy, yz and xz" if style.view == "all" else f"projection {style.view}"
