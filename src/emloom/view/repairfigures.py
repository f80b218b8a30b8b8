"""Pictures of repair: a torn section on its way to a whole one, and a bad section with what stands for it.

What is invented is outlined: nobody should take it for measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.alignfigures import MARK_RGB, in_colour, stretched
from emloom.view.colours import RGB, distinct_ids, overlay
from emloom.view.figures import Figure, Tile
from emloom.view.mosaic import mosaic

Bools = NDArray[np.bool_]
_LINE_PX = 2


def outlined(image: RGB, inside: Bools, width: int = _LINE_PX) -> RGB:
    """Return a picture with the border of a region drawn outside of it, uint8 [Y, X, 3].

    Args:
        image: uint8, grey [Y, X] or [Y, X, 3].
        inside: bool [Y, X].
        width: pixels of the line.
    """
    grown = inside.copy()
    for _ in range(width):
        padded = np.pad(grown, 1)
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    out = in_colour(image).copy()
    out[grown & ~inside] = MARK_RGB
    return out


def torn_section(
    before: NDArray[Any],
    parts: NDArray[np.uint8] | None,
    after: NDArray[Any],
    invented: Bools,
    spacing_nm: tuple[float, float],
    *,
    name: str = "torn section",
    caption: str = "",
) -> Figure:
    """Return a torn section: as it was, its parts, the parts in their new places, and the gap filled and outlined.

    Args:
        before: [Y, X].
        parts: uint8 [Y, X], number of the part that a pixel belongs to, 0: none; None: nothing is known of parts.
        after: [Y, X], mended and filled.
        invented: bool [Y, X], what is filled in.
        spacing_nm: size of a pixel (y, x).
        name: of the section.
        caption: printed below.

    Raises:
        InputError: shapes do not agree.
    """
    _require_one_shape(name, [before] if parts is None else [before, parts])
    _require_one_shape(name, [after, invented])
    old, new = stretched([before, after])
    mended = in_colour(new).copy()
    mended[invented] = MARK_RGB
    pictures: list[tuple[str, RGB]] = [(f"{name}: before", in_colour(old))]
    n = 0 if parts is None else int(parts.max(initial=0))
    if parts is not None and n:
        ids = np.concatenate([np.zeros(1, np.uint16), distinct_ids(n)])[parts]
        pictures.append((f"its {n} part{'s' * (n > 1)}", overlay(old, ids, stretch=False)))
    pictures += [("in place; gaps in orange", mended), ("filled, and outlined", outlined(new, invented))]
    tiles = [Tile(title, image, spacing_nm) for title, image in pictures]
    share = 100 * float(invented.mean())
    alt = f"{name}, torn: before, its {n} parts, in place, and filled; {share:.1f} % of what is shown is invented."
    return mosaic(tiles, columns=2 if len(tiles) == 4 else 3, alt=alt, caption=caption, exact=[MARK_RGB])


def replaced_section(
    sections: Sequence[tuple[str, NDArray[Any]]],
    replacement: tuple[str, NDArray[Any]],
    spacing_nm: tuple[float, float],
    *,
    invented: Bools | None = None,
    caption: str = "",
) -> Figure:
    """Return a bad section among its neighbours, and what was put in its place, in one scale of greys.

    Args:
        sections: (title, [Y, X]) in order: the neighbour before, the section, the neighbour after.
        replacement: (title, [Y, X]).
        spacing_nm: size of a pixel (y, x).
        invented: bool [Y, X] of the replacement, outlined; None: it is invented as a whole.
        caption: printed below.

    Raises:
        InputError: shapes do not agree, or there is no section.
    """
    if not sections:
        raise InputError("a replacement is shown among its neighbours: give at least one section")
    named = [*sections, replacement]
    _require_one_shape(replacement[0], [image for _, image in named])
    greys = [in_colour(image) for image in stretched([image for _, image in named])]
    border = np.ones(greys[-1].shape[:2], np.bool_)
    border[_LINE_PX:-_LINE_PX, _LINE_PX:-_LINE_PX] = False
    if invented is None or invented.all():
        greys[-1] = greys[-1].copy()
        greys[-1][border] = MARK_RGB
    else:
        greys[-1] = outlined(greys[-1], invented)
    tiles = [Tile(title, image, spacing_nm) for (title, _), image in zip(named, greys, strict=True)]
    alt = f"Sections side by side: {'; '.join(title for title, _ in named)}; what is invented is outlined."
    return mosaic(tiles, columns=2 if len(tiles) != 3 else 3, alt=alt, caption=caption, exact=[MARK_RGB])


def _require_one_shape(name: str, images: Sequence[NDArray[Any]]) -> None:
    shapes = {image.shape for image in images}
    if len(shapes) != 1 or any(len(shape) != 2 for shape in shapes):
        raise InputError(f"{name}: pictures of shapes {sorted(shapes)}: give the same place of all, [Y, X]")
