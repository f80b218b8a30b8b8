"""How large a stack must be to hold sections that have moved."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.box import Box
from emloom.geometry.planar import Chain, Field, Inverted, Pieces, PlanarMap, Shift
from emloom.geometry.stackmap import Frame, StackMap

F64 = NDArray[np.float64]
_STEP_PX = 64.0  # between the places of a border that are looked at: maps are smooth
_HAIR_PX = 1e-6  # a border that lies this little beyond a pixel's edge lies on it


def laid_out(source: Frame, maps: Sequence[PlanarMap], keep: bool = False) -> StackMap:
    """Return the stack map of sections that each move by their own map, on a canvas that holds all of them.

    World positions stay: the canvas begins where it must, and what a map leaves in place keeps its position in nm.

    Args:
        source: what moves.
        maps: of every section, in pixels of the source.
        keep: the canvas is that of the source, whatever leaves it.
    """
    if keep:
        return StackMap.of(source, source, maps)
    low, high = bounds(source, maps)
    start = (0, floor(low[0] + _HAIR_PX), floor(low[1] + _HAIR_PX))
    stop = (source.shape[0], ceil(high[0] - _HAIR_PX), ceil(high[1] - _HAIR_PX))
    box = Box.of(start, stop)
    target = Frame(box.shape, source.grid.crop(box))
    place = Shift(-start[1], -start[2])
    return StackMap.of(source, target, [move.then(place) for move in maps])


def bounds(source: Frame, maps: Sequence[PlanarMap]) -> tuple[F64, F64]:
    """Return the least and the largest place (y, x) to which any place of any section goes."""
    edge = _border(source.shape[1], source.shape[2])
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for move in maps:
        there = move(edge if _is_smooth(move) else _everywhere(source.shape[1], source.shape[2]))
        there = there[np.isfinite(there[:, 0])]
        if len(there):
            low, high = np.minimum(low, there.min(0)), np.maximum(high, there.max(0))
    if not np.isfinite(low).all():  # no section shows anything: as large as it was
        low, high = np.zeros(2), np.array(source.shape[1:], np.float64)
    return low, high


def _is_smooth(move: PlanarMap) -> bool:
    """Whether what lies inside of a section stays inside of its moved border."""
    if isinstance(move, Chain):
        return all(_is_smooth(one) for one in move.maps)
    if isinstance(move, Inverted):
        return isinstance(move.of, Field)
    return not isinstance(move, Pieces)


def _border(rows: int, columns: int) -> F64:
    y, x = _steps(rows), _steps(columns)
    sides = [
        (y, np.zeros_like(y)),
        (y, np.full_like(y, columns)),
        (np.zeros_like(x), x),
        (np.full_like(x, rows), x),
    ]
    return np.concatenate([np.stack(side, 1) for side in sides])


def _everywhere(rows: int, columns: int) -> F64:
    y, x = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    return np.stack([y.ravel(), x.ravel()], 1)


def _steps(extent: int) -> F64:
    return np.linspace(0.0, extent, ceil(extent / _STEP_PX) + 1)
