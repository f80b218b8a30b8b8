"""Sections side by side, small and quick: a voxel is a whole number of pixels, and colours come from a palette.

What a plotting library would do to these pictures costs most of their size: it resamples noise to pixels that are
no voxels, and stores full colours. Here the grey under an overlay is, pixel for pixel, that of the section beside
it, so compression finds it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image

from emloom.errors import InputError
from emloom.view.colours import RGB
from emloom.view.figures import INK, Figure, Tile, length_label, nice_length

Colour = tuple[int, int, int]

_COLOURS = 239  # of images; the rest of 256 is for words: 16 steps of ink, and nothing
_INKS = 16
_GAP, _LINE, _TEXT_PX = 8, 22, 14
_PLATE = 0.35  # what is left of the image below a scale bar
_WIDE = 384  # pixels: tiles are enlarged as long as none gets wider or higher


def mosaic(
    tiles: Sequence[Tile], *, columns: int, alt: str, caption: str = "", exact: Sequence[Colour] = ()
) -> Figure:
    """Return images side by side, each with its title and a scale bar, as an indexed PNG on a transparent ground.

    Images are enlarged by the whole factors next to their true aspect: a voxel of 40 x 4 nm is 10 x 1 pixels, one
    of 30 x 8 nm 4 x 1.

    Args:
        tiles: images in reading order.
        columns: images per row.
        alt: replaces the picture for people who cannot see it.
        caption: printed below.
        exact: colours (red, green, blue) of marks, which are kept as they are; others are matched to a palette.

    Raises:
        InputError: there is no tile, or an image is not uint8 grey or RGB.
    """
    if not tiles:
        raise InputError("a mosaic needs at least one image")
    finest = min(min(tile.spacing_nm) for tile in tiles)
    longest = max(max(np.array(tile.image.shape[:2]) * tile.spacing_nm) for tile in tiles) / finest
    zoom = max(1, int(_WIDE / longest))
    images = [_scaled(tile, finest, zoom) for tile in tiles]
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    widths = [
        max(image.shape[1] for image in images[column::columns]) for column in range(min(columns, len(tiles)))
    ]
    heights = [max(images[i].shape[0] for i in row) for row in rows]
    shape = (sum(heights) + len(rows) * (_LINE + _GAP) - _GAP, sum(widths) + (len(widths) - 1) * _GAP)
    colours, filled, ink = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.bool_), np.zeros(shape, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for i, width in zip(row, widths, strict=False):
            words = words_of(tiles[i].title)[:_LINE, :width]
            ink[top : top + words.shape[0], left : left + words.shape[1]] = words
            place = np.s_[top + _LINE : top + _LINE + images[i].shape[0], left : left + images[i].shape[1]]
            colours[place], filled[place] = images[i], True
            left += width + _GAP
        top += height + _LINE + _GAP
    return Figure(_indexed(colours, filled, ink, exact), alt, caption)


def _scaled(tile: Tile, finest_nm: float, zoom: int) -> RGB:
    """Return the image in colour, enlarged by whole factors, with a scale bar."""
    image = tile.image
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise InputError(f"{tile.title}: image is {image.dtype} {image.shape}: give uint8 [Y, X] or [Y, X, 3]")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    rows, columns = (max(1, round(zoom * size / finest_nm)) for size in tile.spacing_nm)
    large = image.repeat(rows, 0).repeat(columns, 1)
    _draw_bar(large, tile.spacing_nm[1] / columns)
    return large


def _draw_bar(image: RGB, pixel_nm: float) -> None:
    """Draw a scale bar with its length on a dark plate into the lower left corner; not where there is no room."""
    length = nice_length(image.shape[1] * pixel_nm)
    bar, words = round(length / pixel_nm), words_of(length_label(length))
    height, width = words.shape[0] + 8, max(bar, words.shape[1]) + 10
    if height + 8 > image.shape[0] or width + 8 > image.shape[1]:
        return
    plate = image[-4 - height : -4, 4 : 4 + width]
    plate[:] = np.rint(plate * _PLATE).astype(np.uint8)
    text = plate[1 : 1 + words.shape[0], 5 : 5 + words.shape[1]]
    text[:] = np.maximum(text, words[..., None])
    plate[-6:-3, 5 : 5 + bar] = 255


@cache
def words_of(text: str) -> NDArray[np.uint8]:
    """Return a line of text, uint8 [Y, X], 255 where there is ink."""
    canvas = Canvas(figsize=(8, 0.4), dpi=100)
    agg = FigureCanvasAgg(canvas)
    canvas.text(0.002, 0.35, text, fontsize=_TEXT_PX * 0.72, color="black")
    agg.draw()  # type: ignore[no-untyped-call]
    ink: NDArray[np.uint8] = 255 - np.asarray(agg.buffer_rgba())[..., 0]  # type: ignore[no-untyped-call]
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not rows.size:
        return np.zeros((0, 0), np.uint8)
    # The height of a line is that of its font: titles in a row stand on one line.
    return ink[40 - 14 - _TEXT_PX : 40 - 8, : columns[-1] + 1]


def _indexed(colours: RGB, filled: NDArray[np.bool_], ink: NDArray[np.uint8], exact: Sequence[Colour]) -> bytes:
    """Return an indexed PNG: images where they are, words elsewhere, nothing between them."""
    free, pixels = _COLOURS - len(exact), colours[filled]
    packed = Image.fromarray(pixels[None]).quantize(free, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = np.zeros((256, 3), np.uint8)
    found = np.array(packed.getpalette() or [], np.uint8).reshape(-1, 3)[:free]
    palette[: len(found)] = found
    places = np.array(packed)[0]
    for index, colour in enumerate(exact, free):
        palette[index] = colour
        places[(pixels == colour).all(axis=1)] = index
    palette[_COLOURS:] = [int(INK[i : i + 2], 16) for i in (1, 3, 5)]
    opaque = np.full(256, 255, np.uint8)
    opaque[_COLOURS:] = np.linspace(0, 255, _INKS + 1).astype(np.uint8)
    steps = (_COLOURS + np.rint(np.arange(256) * (_INKS / 255))).astype(np.uint8)[ink]
    steps[filled] = places
    picture = Image.fromarray(steps)
    picture.putpalette(palette.tobytes())
    buffer = BytesIO()
    picture.save(buffer, "PNG", transparency=opaque.tobytes(), compress_level=9)
    return buffer.getvalue()
