"""Pictures of quality control: measurements along z with what stands out, and where defects are.

Colours of defects are those of `colours.id_colours`, chosen far apart; code 0 has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.colours import RGB, distinct_ids, id_colours
from emloom.view.figures import BLUE, INK, VERMILION, WIDTH_IN, Figure, new_canvas, plot_axes, png_of

F64 = NDArray[np.float64]

_MOST_POINTS = 3000
_OPACITY = 0.38


@dataclass(frozen=True)
class Series:
    """One measurement along z.

    Attributes:
        name: with its unit.
        values: float64 [Z], NaN where there is none.
        usual: what was expected, likewise.
        marked: bool [Z], sections that stand out in it.
    """

    name: str
    values: F64
    usual: F64
    marked: NDArray[np.bool_]


def series_plot(z: NDArray[np.int64], series: Sequence[Series], *, caption: str = "") -> Figure:
    """Return measurements along z, one below the other, with what stands out as points.

    Of more than 3000 sections only every n-th is drawn, and all that stand out.

    Raises:
        InputError: there is no series.
    """
    if not series:
        raise InputError("there is no measurement to draw: give one")
    canvas = new_canvas(WIDTH_IN, 1.15 * len(series) + 0.5)
    grid = canvas.add_gridspec(len(series), 1)
    step = max(1, -(-len(z) // _MOST_POINTS))
    for index, one in enumerate(series):
        ax = plot_axes(canvas, "section" if index == len(series) - 1 else "", "", grid[index])
        ax.set_title(one.name, fontsize=10, color=INK, loc="left", pad=3)
        ax.plot(z[::step], one.usual[::step], color=INK, lw=1.0, ls=":")
        ax.plot(z[::step], one.values[::step], color=BLUE, lw=1.4, marker="." if len(z) < 80 else None, ms=4)
        ax.plot(z[one.marked], one.values[one.marked], color=VERMILION, ls="", marker="o", ms=6)
        ax.set_xlim(z[0] - 0.5, z[-1] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    words = "; ".join(f"{one.name}: {int(one.marked.sum())} stand out" for one in series)
    return Figure(png_of(canvas), f"Measurements of {len(z)} sections along z. {words}.", caption)


@cache
def _palette(count: int) -> RGB:
    return np.concatenate([np.zeros((1, 3), np.uint8), id_colours(distinct_ids(count))])


def coloured(picture_YX: RGB, code_YX: NDArray[np.uint8], count: int) -> RGB:
    """Return a grey picture with defects in colour, [Y, X, 3].

    Args:
        picture_YX: uint8 grey.
        code_YX: defects of the same shape, 0 where there is none.
        count: how many codes there are.
    """
    colours = _palette(count)[code_YX].astype(np.float64)
    weight = np.where(code_YX == 0, 0.0, _OPACITY)[..., None]
    base = np.repeat(picture_YX[..., None], 3, axis=2).astype(np.float64)
    out: RGB = np.rint(base + weight * (colours - base)).astype(np.uint8)
    return out


@dataclass(frozen=True)
class Projection:
    """A stack of codes seen along one axis.

    Attributes:
        title: along which.
        rows: what the rows are.
        columns: what the columns are.
        codes: uint8 [rows, columns], 0 where there is no defect.
    """

    title: str
    rows: str
    columns: str
    codes: NDArray[np.uint8]


def defect_map(
    projections: Sequence[Projection], names: Mapping[int, str], count: int, *, caption: str = ""
) -> Figure:
    """Return where defects are, seen along several axes.

    Args:
        projections: what is drawn, side by side.
        names: of the codes that occur.
        count: how many codes there are.
        caption: printed below.

    Raises:
        InputError: there is nothing to draw.
    """
    if not projections:
        raise InputError("there is no map to draw: give one")
    palette = _palette(count).astype(np.float64) / 255
    colours = np.concatenate([palette, np.ones((len(palette), 1))], axis=1)
    colours[0] = (0.5, 0.55, 0.6, 0.14)
    canvas = new_canvas(WIDTH_IN, 3.6)
    grid = canvas.add_gridspec(1, len(projections))
    for index, one in enumerate(projections):
        ax = plot_axes(canvas, one.columns, one.rows, grid[index])
        ax.imshow(colours[one.codes], aspect="auto", interpolation="nearest")
        # There is no half of a tile.
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(one.title, fontsize=10, color=INK, loc="left")
        ax.grid(visible=False)
    handles = [Patch(color=tuple(palette[code]), label=name) for code, name in names.items()]
    if handles:
        canvas.legend(
            handles=handles, loc="outside lower left", ncols=5, frameon=False, fontsize=9.5, labelcolor=INK
        )
    alt = f"Where defects are: {', '.join(names.values()) or 'none was found'}."
    return Figure(png_of(canvas), alt, caption)
