"""Colours of classes: the same in every picture, class 0 without one, as background has none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Patch
from numpy.typing import NDArray

from emloom.view.colours import RGB, distinct_ids, id_colours, overlay
from emloom.view.figures import INK, WIDTH_IN, Figure, new_canvas, png_of

_PER_ROW = 6
_ROW_LETTERS = 90  # of names, and what stands beside them, that fit into a row
_BESIDE_LETTERS = 8


def class_ids(count: int) -> NDArray[np.uint16]:
    """Return for each of 256 labels the id whose colour it has: 0, no colour, for class 0 and for no class."""
    ids = np.zeros(256, np.uint16)
    ids[1:count] = distinct_ids(count - 1)
    return ids


def painted(ground_YX: RGB, labels_YX: NDArray[np.uint8], count: int) -> RGB:
    """Return a section, grey as it is, with its classes in colour; uint8 [Y, X, 3]."""
    return overlay(ground_YX, class_ids(count)[labels_YX], stretch=False)


def class_colours(names: Sequence[str]) -> Figure:
    """Return the legend of the classes."""
    longest = max(map(len, names)) + _BESIDE_LETTERS
    columns = max(1, min(len(names), _PER_ROW, _ROW_LETTERS // longest))
    rows = -(-len(names) // columns)
    canvas = new_canvas(WIDTH_IN, 0.3 * rows + 0.1)
    colours = id_colours(class_ids(len(names))[: len(names)]) / 255
    patches = [
        Patch(facecolor=tuple(colour) if number else "none", edgecolor=INK, label=name)
        for number, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    canvas.legend(handles=patches, ncols=columns, loc="center", frameon=False, fontsize=10, labelcolor=INK)
    return Figure(png_of(canvas), "Colours of the classes: " + ", ".join(names) + "; the first has none.")
