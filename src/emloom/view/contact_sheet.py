"""Contact sheets: many small sections on one page, with titles and words, pixels as they are.

A sheet is a list of entries; an entry is a title, words, and strips of tiles; a strip has a name and its tiles lie
side by side. Grey values are shown on the network's scale, -1 black and +1 white, never stretched: a faint section
must look faint. Voxels whose labels are unknown are hatched.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.colours import RGB, overlay
from emloom.view.figures import Figure, length_label, nice_length

_DPI = 100
_PAPER, _INK = "#ffffff", "#22262b"
_GAP, _MARGIN = 6, 14  # pixels
_LINE, _TITLE = 16, 20
_LETTER = 6.4  # mean width of one at the size of the words
_HATCH = 6


@dataclass(frozen=True)
class Look:
    """One sample as arrays, all ``ZYX``: raw in [-1, 1], unsigned labels, and where these are known."""

    raw: NDArray[np.float32]
    labels: NDArray[Any]
    known: NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """Named tiles side by side: (name, uint8 ``[Y, X, 3]``) pairs."""

    name: str
    tiles: Sequence[tuple[str, RGB]]


@dataclass(frozen=True)
class Entry:
    """A titled block of strips with words."""

    title: str
    words: str
    strips: Sequence[Strip]


def strip(
    name: str, look: Look, sections: Sequence[int], spacing_nm: tuple[float, float, float], *, labels: bool
) -> Strip:
    """Return sections along z and, last, the xz section through the middle, with or without labels.

    Of thick sections, xz shows only as many around the middle as fit beside the others.

    Args:
        name: of the strip.
        look: the sample.
        sections: which.
        spacing_nm: voxel size (z, y, x). A pixel of every tile is as long as the smaller of y and x; voxels are
            repeated to fill it.
        labels: draw outlines and a breath of colour on top of the raw.
    """
    dz, dy, dx = spacing_nm
    middle = look.raw.shape[1] // 2
    tiles = [(f"z {z}", _tile(look, np.s_[z], (dy, dx), min(dy, dx), labels)) for z in sections]
    depth, height = look.raw.shape[:2]
    fit = max(1, min(depth, int(height * dy / dz + 1e-9)))
    top = (depth - fit) // 2
    name_xz = f"xz, y {middle}" + (f", z {top} to {top + fit - 1}" if fit < depth else "")
    tiles.append((name_xz, _tile(look, np.s_[top : top + fit, middle], (dz, dx), min(dy, dx), labels)))
    return Strip(name, tiles)


def _tile(look: Look, at: Any, spacing: tuple[float, float], pixel: float, with_labels: bool) -> RGB:
    image = np.clip(np.rint((look.raw[at] + 1.0) * 127.5), 0, 255).astype(np.uint8)
    index = [
        np.minimum((np.arange(max(1, round(n * s / pixel))) * pixel / s).astype(int), n - 1)
        for n, s in zip(image.shape, spacing, strict=True)
    ]
    rows, columns = np.ix_(*index)
    image = image[rows, columns]
    if not with_labels:
        return np.repeat(image[..., None], 3, axis=2)
    coloured = overlay(image, look.labels[at][rows, columns], opacity=0.18, stretch=False)
    y, x = np.indices(image.shape)
    unknown = (look.known[at][rows, columns] == 0) & ((y + x) % _HATCH == 0)
    coloured[unknown] = (255, 140, 0)
    return coloured


def contact_sheet(
    entries: Sequence[Entry], spacing_nm: float, *, columns: int = 1, zoom: int = 1, caption: str = ""
) -> Figure:
    """Return a sheet.

    Args:
        entries: in reading order.
        spacing_nm: length of one pixel of the tiles, for the scale bar.
        columns: entries per row.
        zoom: screen pixels per pixel of a tile.
        caption: first lines of the sheet.

    Raises:
        InputError: there is no entry.
    """
    if not entries:
        raise InputError("a contact sheet needs at least one sample")
    mosaics = [_mosaic(entry, zoom) for entry in entries]
    cell = max(mosaic.shape[1] for mosaic in mosaics)
    letters = max(20, int(cell / _LETTER))
    words = [textwrap.wrap(entry.words, letters) for entry in entries]
    rows = [range(i, min(i + columns, len(entries))) for i in range(0, len(entries), columns)]
    heights = [
        max(_TITLE + _LINE * len(words[i]) + mosaics[i].shape[0] for i in row) + 2 * _MARGIN for row in rows
    ]
    width = columns * (cell + 2 * _MARGIN)
    head = textwrap.wrap(caption, int(width / _LETTER)) if caption else []
    page = _Page(width, sum(heights) + _LINE * len(head) + _MARGIN)
    top = _MARGIN
    for line in head:
        page.text(_MARGIN, top, line)
        top += _LINE
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left, y = column * (cell + 2 * _MARGIN) + _MARGIN, top + _MARGIN
            page.text(left, y, entries[i].title, bold=True)
            y += _TITLE
            for line in words[i]:
                page.text(left, y, line)
                y += _LINE
            ax = page.image(left, y, mosaics[i])
            _annotate(ax, entries[i], zoom)
            if i == 0:
                _scale_bar(ax, entries[i], spacing_nm, zoom)
        top += height
    alt = "Contact sheet: " + "; ".join(f"{entry.title}: {entry.words}" for entry in entries)
    return Figure(page.png(), alt, caption)


def _mosaic(entry: Entry, zoom: int) -> RGB:
    big = [[np.kron(tile, np.ones((zoom, zoom, 1), np.uint8)) for _, tile in s.tiles] for s in entry.strips]
    heights = [max(tile.shape[0] for tile in tiles) for tiles in big]
    widths = [sum(tile.shape[1] + _GAP for tile in tiles) - _GAP for tiles in big]
    out = np.full((sum(heights) + _GAP * (len(big) - 1), max(widths), 3), 255, np.uint8)
    y = 0
    for tiles, height in zip(big, heights, strict=True):
        x = 0
        for tile in tiles:
            out[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
            x += tile.shape[1] + _GAP
        y += height + _GAP
    return out


def _annotate(ax: Axes, entry: Entry, zoom: int) -> None:
    y = 0
    for s in entry.strips:
        x = 0
        for i, (name, tile) in enumerate(s.tiles):
            text = f"{s.name}: {name}" if i == 0 and s.name else name
            plate = {"facecolor": "#000000b0", "edgecolor": "none", "pad": 1.5}
            ax.text(x + 3, y + 3, text, color="white", fontsize=6.5, va="top", ha="left", bbox=plate)
            x += tile.shape[1] * zoom + _GAP
        y += max(tile.shape[0] for _, tile in s.tiles) * zoom + _GAP


def _scale_bar(ax: Axes, entry: Entry, spacing_nm: float, zoom: int) -> None:
    height, width = entry.strips[0].tiles[0][1].shape[:2]
    length = nice_length(width * spacing_nm)
    x0, y0 = 4, height * zoom - 5
    x1 = x0 + length / spacing_nm * zoom
    ax.plot([x0, x1], [y0, y0], color="black", lw=4, solid_capstyle="butt")
    ax.plot([x0, x1], [y0, y0], color="white", lw=2, solid_capstyle="butt")
    plate = {"facecolor": "#000000b0", "edgecolor": "none", "pad": 1.0}
    ax.text(x0, y0 - 5, length_label(length), color="white", fontsize=6.5, va="bottom", bbox=plate)


class _Page:
    """A canvas addressed in pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.canvas = Canvas(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_PAPER)
        FigureCanvasAgg(self.canvas)

    def text(self, x: float, y: float, text: str, bold: bool = False) -> None:
        width, height = self.size
        weight = "bold" if bold else "normal"
        # Words hold no mathematics: a dollar sign in a path is one.
        self.canvas.text(
            x / width, 1 - y / height, text, fontsize=9.5 if bold else 8, color=_INK, va="top", weight=weight,
            parse_math=False,
        )  # fmt: skip

    def image(self, x: int, y: int, image: RGB) -> Axes:
        width, height = self.size
        rows, columns = image.shape[:2]
        ax = self.canvas.add_axes((x / width, 1 - (y + rows) / height, columns / width, rows / height))
        ax.imshow(image, interpolation="nearest", extent=(0, columns, rows, 0), aspect="auto")
        ax.set_axis_off()
        ax.autoscale(False)
        return ax

    def png(self) -> bytes:
        buffer = BytesIO()
        self.canvas.savefig(buffer, format="png", facecolor=_PAPER, metadata={"Software": None})
        return buffer.getvalue()
