"""Positions as coordinates of a file, so that reading them again gives the same position, bit for bit.

A reader computes ``coordinate * unit``. The inverse is a division and its rounding, so the nearest few floats are
tried, a whole number first: a node that was clicked in voxel 37484 is written as 37484 again. Not every position
is a product; where no candidate gives it, the nearest is written, at most one unit in the last place off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.columns import Texts, as_texts, number_text

Floats = NDArray[np.float64]


def coordinates(positions: Floats, unit: float) -> Floats:
    """Return, for each position [n] in nm, the coordinate that times `unit` is the position."""
    near = positions / unit
    best = near.copy()
    found = near * unit == positions
    for candidate in (np.nextafter(near, np.inf), np.nextafter(near, -np.inf)):
        better = ~found & (candidate * unit == positions)
        best[better] = candidate[better]
        found |= better
    whole = np.rint(near)
    exact = whole * unit == positions
    best[exact] = whole[exact]
    return best


def coordinate_texts(positions: Floats, unit: float, spelled: Texts) -> Texts:
    """Return how to write each position [n]: as it was spelled where that still means it, else anew.

    Args:
        positions: [n], in nm.
        unit: nm per unit of the file.
        spelled: [n], texts of the file the positions were read from, or None.
    """
    meant = np.array([_number(text) for text in spelled], np.float64) * unit
    texts = spelled.copy()
    rows = np.flatnonzero(meant != positions)
    texts[rows] = as_texts([number_text(value) for value in coordinates(positions[rows], unit)])
    return texts


def _number(text: str | None) -> float:
    try:
        return np.nan if text is None else float(text)
    except ValueError:
        return np.nan
