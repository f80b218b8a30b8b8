"""Pictures for reports: EM sections with labels, and what every picture and plot is made of.

Every picture is drawn on its own `matplotlib` figure object (no `pyplot`, no global state, no display), has a
transparent ground and dark ink, for the light card that pages lay below every picture, whatever their own colours,
and carries the text that replaces it for people who cannot see it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import floor, log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import SubplotSpec
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.colours import RGB, grey, overlay

INK = "#565d68"  # 6:1 on the light card that every picture of a page lies on
GRID = "#8a929c40"
BLUE, VERMILION, GREEN = "#1a7fc1", "#d9600f", "#109a74"  # Okabe-Ito, nudged to one lightness for both grounds

WIDTH_IN = 9.0

_DPI = 144
# A picture needs other words than these.
_GENERIC = frozenset(
    {"a", "an", "the", "of", "and", "image", "images", "picture", "pictures", "figure", "plot", "png"}
)


@dataclass(frozen=True)
class Opening:
    """How to open what a picture shows.

    Attributes:
        address: of a page; http or https.
        command: command line that starts what answers there.

    Raises:
        InputError: the address is no http or https.
    """

    address: str
    command: str

    def __post_init__(self) -> None:
        if not self.address.startswith(("http://", "https://")):
            raise InputError(f"{self.address!r} is no address of a page: it starts with http:// or https://")


@dataclass(frozen=True)
class Figure:
    """A picture with its words.

    Attributes:
        png: PNG file content.
        alt: what the picture shows, for people who cannot see it.
        caption: what to notice, printed below.
        opening: how to open what it shows in a viewer.
        motion: GIF file content: the picture in motion, shown instead to whoever has not asked for less motion.

    Raises:
        InputError: the words say nothing that is not true of every picture.
    """

    png: bytes
    alt: str
    caption: str = ""
    opening: Opening | None = None
    motion: bytes | None = None

    def __post_init__(self) -> None:
        if len(set(re.findall(r"\w+", self.alt.lower())) - _GENERIC) < 1:
            raise InputError(
                f"{self.alt!r} tells nobody what a picture shows: say what is drawn, for people who cannot see it"
            )


@dataclass(frozen=True)
class Tile:
    """One image of a panel.

    Attributes:
        title: short heading.
        image: uint8 [Y, X] grey or [Y, X, 3] RGB.
        spacing_nm: size of a pixel along (rows, columns); sets the aspect and the scale bar.
    """

    title: str
    image: RGB
    spacing_nm: tuple[float, float]


def panel(tiles: Sequence[Tile], *, columns: int | None = None, alt: str = "", caption: str = "") -> Figure:
    """Return images side by side, each with its title, true aspect and a scale bar.

    Args:
        tiles: images in reading order.
        columns: images per row; all in one row by default.
        alt: replaces the picture for people who cannot see it; by default it lists the titles.
        caption: printed below.

    Raises:
        InputError: there is no tile, or an image is not uint8 grey or RGB.
    """
    if not tiles:
        raise InputError("a panel needs at least one image")
    per_row = min(columns or len(tiles), len(tiles))
    rows = [tiles[i : i + per_row] for i in range(0, len(tiles), per_row)]
    cell = WIDTH_IN / per_row
    # A row is as high as its tallest image at full cell width.
    heights = [max(cell * _height_per_width(tile) for tile in row) for row in rows]
    canvas = new_canvas(WIDTH_IN, sum(heights) + 0.34 * len(rows))
    axes = canvas.subplots(len(rows), per_row, squeeze=False, height_ratios=heights)
    for row, row_axes in zip(rows, axes, strict=True):
        for index, ax in enumerate(row_axes):
            if index < len(row):
                _draw_tile(ax, row[index])
            else:
                ax.set_axis_off()
    words = alt or "Images side by side: " + "; ".join(tile.title for tile in tiles)
    return Figure(png_of(canvas), words, caption)


def views(
    raw_ZYX: NDArray[Any],
    labels: Sequence[tuple[str, NDArray[Any]]],
    spacing_nm: tuple[float, float, float],
    *,
    at: tuple[int, int, int] | None = None,
    caption: str = "",
) -> Figure:
    """Return an xy and an xz section of a volume: raw data first, then each segmentation on top of it.

    Args:
        raw_ZYX: raw data.
        labels: (title, unsigned ids [Z, Y, X]) pairs.
        spacing_nm: voxel size (z, y, x).
        at: voxel (z, y, x) the sections pass through; the middle by default.
        caption: printed below.
    """
    z, y, _ = at or (raw_ZYX.shape[0] // 2, raw_ZYX.shape[1] // 2, raw_ZYX.shape[2] // 2)
    dz, dy, dx = spacing_nm
    tiles = []
    for name, index, spacing in (
        (f"xy, z = {z}", np.s_[z, :, :], (dy, dx)),
        (f"xz, y = {y}", np.s_[:, y, :], (dz, dx)),
    ):
        raw = raw_ZYX[index]
        tiles.append(Tile(f"raw, {name}", grey(raw), spacing))
        tiles += [Tile(title, overlay(raw, volume[index]), spacing) for title, volume in labels]
    shown = ", ".join(["raw data", *(title for title, _ in labels)])
    alt = f"Section through z = {z} (top) and y = {y} (bottom): {shown}; every object has its own colour."
    return panel(tiles, columns=1 + len(labels), alt=alt, caption=caption)


def nice_length(extent_nm: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is at most a quarter of an extent."""
    target = extent_nm / 4
    power: float = 10.0 ** floor(log10(target))
    return max(step * power for step in (1, 2, 5) if step * power <= target)


def length_label(length_nm: float) -> str:
    """Return a length for people: nm below 1 µm, else µm (mm from 1 mm)."""
    for unit, size in (("mm", 1e6), ("µm", 1e3)):
        if length_nm >= size:
            return f"{length_nm / size:g} {unit}"
    return f"{length_nm:g} nm"


def _height_per_width(tile: Tile) -> float:
    rows, columns = int(tile.image.shape[0]), int(tile.image.shape[1])
    return rows * tile.spacing_nm[0] / (columns * tile.spacing_nm[1])


def _draw_tile(ax: Axes, tile: Tile) -> None:
    image = tile.image
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise InputError(f"{tile.title}: image is {image.dtype} {image.shape}: give uint8 [Y, X] or [Y, X, 3]")
    grey_args = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    ax.imshow(image, aspect=tile.spacing_nm[0] / tile.spacing_nm[1], **grey_args)  # type: ignore[arg-type]
    ax.set_title(tile.title, fontsize=10, color=INK, loc="left", pad=5)
    ax.set_axis_off()
    _scale_bar(ax, image.shape[0], image.shape[1], tile.spacing_nm[1])


def _scale_bar(ax: Axes, rows: int, columns: int, spacing_nm: float) -> None:
    length = nice_length(columns * spacing_nm)
    bar = AnchoredSizeBar(
        ax.transData, length / spacing_nm, length_label(length), "lower left", color="white",
        size_vertical=0.015 * rows, pad=0.25, borderpad=0.35, sep=1.5, label_top=True,
        fontproperties=FontProperties(size=8.5),
    )  # fmt: skip
    # A dark plate keeps it legible on bright EM.
    bar.patch.set(facecolor="#000000a0", edgecolor="none")
    ax.add_artist(bar)


def new_canvas(width_in: float, height_in: float) -> Canvas:
    """Return an empty figure of its own, of a size in inches."""
    canvas = Canvas(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def plot_axes(canvas: Canvas, xlabel: str, ylabel: str, where: SubplotSpec | None = None) -> Axes:
    """Add axes for a plot, in neutral ink on a transparent ground: over the whole figure, or in a part of it."""
    ax: Axes = canvas.subplots() if where is None else canvas.add_subplot(where)
    ax.patch.set_alpha(0)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    ax.tick_params(which="both", colors=INK, labelsize=10)
    ax.set_xlabel(xlabel, color=INK, fontsize=11)
    ax.set_ylabel(ylabel, color=INK, fontsize=11)
    ax.grid(color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    return ax


def add_legend(ax: Axes) -> None:
    """Add the legend of what is drawn."""
    legend = ax.legend(frameon=False, fontsize=10.5, labelcolor=INK)
    legend.set_zorder(5)


def png_of(canvas: Canvas) -> bytes:
    """Return a figure as a PNG file."""
    buffer = BytesIO()
    # Without the version stamp, equal pictures are equal bytes.
    canvas.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
