"""Lay the parts of a torn section where their maps say.

A pixel of the target takes its grey value from the part in which the middle of it came to lie, and from pixels of
that part alone (bilinear, weights of others left out), so no edge is darkened by the gap. Of parts on each other
the first is on top, as `geometry.planar.Pieces` says; values are never added up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import Affine, Pieces
from emloom.ops.feather import cast


def laid(
    section_YX: NDArray[Any], pieces: Pieces, shape: tuple[int, int] | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return the section with its parts moved, and the part that every pixel shows.

    Args:
        section_YX: grey values of any real type.
        pieces: its parts and their maps.
        shape: of the target, that of the section if not given.

    Returns:
        Grey values of the same type, 0 where there is no part, and uint8 [Y, X], 0: none.

    Raises:
        InputError: section and parts differ in shape.
    """
    if section_YX.shape != pieces.parts.shape:
        raise InputError(f"a section {section_YX.shape} has parts {pieces.parts.shape}: give the same shape")
    backs = np.zeros((len(pieces.maps), 2, 3))
    for number, move in enumerate(pieces.maps):
        whole = move if isinstance(move, Affine) else Affine(((1.0, 0.0, move.y), (0.0, 1.0, move.x)))
        backs[number] = whole.inverse().matrix
    out = np.zeros(shape or section_YX.shape, np.float64)
    shown = np.zeros(out.shape, np.uint8)
    _lay(np.ascontiguousarray(section_YX), pieces.parts, backs, out, shown)
    return cast(out, section_YX.dtype), shown


@njit(cache=True, nogil=True)
def _lay(section, parts, backs, out, shown):  # type: ignore[no-untyped-def]
    rows, columns = parts.shape
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(backs.shape[0]):
                m = backs[k]
                y = m[0, 0] * (i + 0.5) + m[0, 1] * (j + 0.5) + m[0, 2]
                x = m[1, 0] * (i + 0.5) + m[1, 1] * (j + 0.5) + m[1, 2]
                if not (0 <= y < rows and 0 <= x < columns):
                    continue
                if parts[int(y), int(x)] != k + 1:
                    continue
                out[i, j] = _at(section, parts, y - 0.5, x - 0.5, k + 1)
                shown[i, j] = k + 1
                break


@njit(cache=True, nogil=True)
def _at(section, parts, y, x, part):  # type: ignore[no-untyped-def]
    """Return the bilinear mean of the pixels of a part about a place, of which there is at least one."""
    r, c = int(np.floor(y)), int(np.floor(x))
    total, weight = 0.0, 0.0
    for p in range(max(r, 0), min(r + 2, parts.shape[0])):
        for q in range(max(c, 0), min(c + 2, parts.shape[1])):
            if parts[p, q] == part:
                w = (1 - abs(y - p)) * (1 - abs(x - q))
                total += w * section[p, q]
                weight += w
    return total / weight
