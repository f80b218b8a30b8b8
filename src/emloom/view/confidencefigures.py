"""Pictures of confidence: where in a stack to look, from above and along its sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from emloom.view.figures import (
    BLUE,
    GREEN,
    INK,
    VERMILION,
    WIDTH_IN,
    Figure,
    add_legend,
    new_canvas,
    plot_axes,
    png_of,
)

MARKS = {"merge?": (VERMILION, "o"), "split?": (BLUE, "s"), "orphan": (GREEN, "^"), "bad data": (INK, "x")}
"""Colour and mark of each kind of place: told apart without the colour, too."""
# Sure is no ink.
_DOUBT = LinearSegmentedColormap.from_list("doubt", ["#ffffff00", "#d9600f40", "#d9600fd0"])
_NUMBERED = 12


def where_figure(
    worst_YX: NDArray[np.uint8],
    extent_um: tuple[float, float, float],
    at_um: NDArray[np.float64],
    kinds: Sequence[str],
    caption: str = "",
) -> Figure:
    """Return the places seen from above (y against x) and from the side (z against x), with the doubt behind them.

    Args:
        worst_YX: largest doubt along z of every column of tiles.
        extent_um: size (z, y, x) of the volume in µm.
        at_um: float64 [n, 3], places (z, y, x) from its corner, in order of the list.
        kinds: of the places.
        caption: printed below.
    """
    height, width, _ = extent_um[1], extent_um[2], extent_um[0]
    canvas = new_canvas(WIDTH_IN, min(9.0, max(3.2, WIDTH_IN * 0.46 * height / width + 0.9)))
    grid = canvas.add_gridspec(1, 2)
    above = plot_axes(canvas, "x (µm)", "y (µm)", grid[0, 0])
    side = plot_axes(canvas, "x (µm)", "z (µm)", grid[0, 1])
    above.imshow(worst_YX, cmap=_DOUBT, vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest")
    for kind, (colour, mark) in MARKS.items():
        rows = [k for k, each in enumerate(kinds) if each == kind]
        if not rows:
            continue
        for ax, axis in ((above, 1), (side, 0)):
            ax.scatter(
                at_um[rows, 2],
                at_um[rows, axis],
                s=26,
                c=colour,
                marker=mark,
                label=f"{kind} ({len(rows)})",
                lw=1.2,
            )
    for ax, axis in ((above, 1), (side, 0)):
        for k in range(min(_NUMBERED, len(kinds))):
            place = (at_um[k, 2], at_um[k, axis])
            ax.annotate(str(k + 1), place, (4, 4), textcoords="offset points", fontsize=9, color=INK)
        ax.set_xlim(0, width)
    above.set_ylim(height, 0)
    side.set_ylim(extent_um[0], 0)
    if kinds:
        add_legend(side)
    counts = ", ".join(f"{list(kinds).count(kind)} {kind}" for kind in MARKS if kind in kinds) or "none"
    alt = (
        f"Places to look at, from above and from the side: {counts}; the first {_NUMBERED} are numbered. {caption}"
    )
    return Figure(png_of(canvas), alt, caption)
