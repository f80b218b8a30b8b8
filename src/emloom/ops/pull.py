"""Where the pixels of a window come from: maps of a section turned round, at all pixel centres, fast.

What `PlanarMap` does for a list of places, the kernels here do for every pixel of a window::

    target window                source section
    ┌─┬─┬─┬─┐                        ·
    │·│·│·│·│     map.inverse()    ·    ·       float64 [2, Y, X], y and x; NaN: nothing is shown there
    ├─┼─┼─┼─┤   ──────────────►      ·    ·
    │·│·│·│·│                          ·
    └─┴─┴─┴─┘

Law: the place of a pixel does not depend on the window it was computed in, to the bit. So the inverse of a field,
which is found by iteration from the displacement of the neighbour to the left, starts anew at every 32nd column of
the target, and a window that begins between two of these is computed from the one before.

A torn section moves in parts, and the pixels of different parts must not be mixed. `traced` therefore also says
in which part each place lies: a number per pixel, the same for the same part seen from either end; 0 is in none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import Affine, Chain, Field, Inverted, Pieces, PlanarMap, Shift

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
YX = tuple[int, int]

_RUN = 32  # columns after which the iteration starts anew
_CLOSE_PX = 1e-5  # of the last step; what is left is smaller by the slope of the field, 1e-6 px by custom
_MOST_STEPS = 200
_MOST_TORN = 7


class Traced(NamedTuple):
    """Where pixels go or come from.

    Attributes:
        coords: float64 [2, Y, X], y and x; NaN where there is nothing.
        parts: int64 [Y, X], in which part of a torn section each lies, 0: in none; None: nothing is torn.
    """

    coords: F64
    parts: I64 | None


def pull(move: PlanarMap, start_yx: YX, shape_yx: YX) -> F64:
    """Return where the pixels of a window of the target come from.

    Args:
        move: source to target.
        start_yx: first pixel of the window.
        shape_yx: pixels of it.

    Returns:
        float64 [2, Y, X], places of the source whose pixel i fills ``[i, i + 1)``; NaN where there is nothing.
    """
    return traced(move, start_yx, shape_yx).coords


def traced(move: PlanarMap, start_yx: YX, shape_yx: YX, *, back: bool = True) -> Traced:
    """Return where the pixels of a window come from (`back`, a window of the target) or go (one of the source).

    Raises:
        InputError: the section was torn more than seven times.
    """
    stages = steps_of(move.inverse() if back else move)
    torn = [k for k, stage in enumerate(stages) if _torn(stage) is not None]
    if len(torn) > _MOST_TORN:
        raise InputError(f"a map mends {len(torn)} tears one after the other: {_MOST_TORN} is the most")
    early = start_yx[1] % _RUN
    (y, x), (height, width) = (start_yx[0], start_yx[1] - early), (shape_yx[0], shape_yx[1] + early)
    coords = np.empty((2, height, width))
    coords[0], coords[1] = np.arange(y, y + height)[:, None] + 0.5, np.arange(x, x + width) + 0.5
    parts = np.zeros((height, width) if torn else (0, 0), np.int64)
    for k, stage in enumerate(stages):
        # The first tear from the source is the lowest digit, whichever way we go.
        digit = (len(torn) - 1 - torn.index(k) if back else torn.index(k)) if k in torn else 0
        _advance(stage, coords, parts, digit)
    if not torn:
        return Traced(coords[:, :, early:], None)
    parts[np.isnan(coords[0])] = 0
    return Traced(coords[:, :, early:], parts[:, early:])


def steps_of(move: PlanarMap) -> list[PlanarMap]:
    """Return the maps of which a map is made, the first first."""
    return [step for one in move.maps for step in steps_of(one)] if isinstance(move, Chain) else [move]


def extent(move: PlanarMap, start_yx: YX, shape_yx: YX) -> tuple[F64, F64] | None:
    """Return the corners (low, high) of a rectangle of the source from which a window of the target comes.

    It holds every place that `pull` gives, is computed without looking at pixels, and so may be larger than needed
    where a field bends much; None where nothing comes from anywhere.
    """
    low = np.array(start_yx, np.float64) + 0.5
    high = low + np.array(shape_yx) - 1.0
    for stage in steps_of(move.inverse()):
        low, high = _extent(stage, low, high)
        if (low > high).any():
            return None
    return low, high


# ---- one step -------------------------------------------------------------------------------------------------


def _torn(stage: PlanarMap) -> Pieces | None:
    inner = stage.of if isinstance(stage, Inverted) else stage
    return inner if isinstance(inner, Pieces) else None


def _advance(stage: PlanarMap, coords: F64, parts: I64, digit: int) -> None:
    torn = _torn(stage)
    if torn is not None:
        forwards = stage is torn
        maps = np.array([_rows(one if forwards else one.inverse()) for one in torn.maps]).reshape(-1, 2, 3)
        kernel = _piecewise if forwards else _pieced
        kernel(coords, parts, np.ascontiguousarray(torn.parts), maps, 256**digit)
    elif isinstance(stage, Shift | Affine):
        _linearly(coords, _rows(stage))
    elif isinstance(stage, Field):
        _displaced(coords, *_field(stage))
    elif isinstance(stage, Inverted) and isinstance(stage.of, Field):
        _replaced(coords, *_field(stage.of))
    else:  # a map of another module: correct, not fast
        height, width = coords.shape[1:]
        coords[:] = stage(coords.reshape(2, -1).T).T.reshape(2, height, width)


def _rows(move: Shift | Affine) -> F64:
    if isinstance(move, Affine):
        return move.matrix
    return np.array([[1.0, 0.0, move.y], [0.0, 1.0, move.x]])


def _field(field: Field) -> tuple[NDArray[np.float32], F64]:
    u = np.ascontiguousarray(field.displacement)
    return u, np.array([*field.origin, 1.0 / field.spacing[0], 1.0 / field.spacing[1]])


def _extent(stage: PlanarMap, low: F64, high: F64) -> tuple[F64, F64]:
    torn = _torn(stage)
    if torn is not None:
        return _extent_torn(torn, stage is torn, low, high)
    if isinstance(stage, Shift | Affine):
        return _extent_linear(stage, low, high)
    if isinstance(stage, Field):
        least, most = _range(stage, low, high)
        return low + least, high + most
    if isinstance(stage, Inverted) and isinstance(stage.of, Field):
        before = (np.full(2, -np.inf), np.full(2, np.inf))
        for _ in range(3):  # every round looks at fewer nodes
            least, most = _range(stage.of, *before)
            before = (low - most, high - least)
        return before
    raise InputError(
        f"{type(stage).__name__} is no map whose extent is known: use those of emloom.geometry.planar"
    )


def _extent_linear(move: Shift | Affine, low: F64, high: F64) -> tuple[F64, F64]:
    corners = np.array([[y, x] for y in (low[0], high[0]) for x in (low[1], high[1])])
    places = move(corners)
    return places.min(axis=0), places.max(axis=0)


def _extent_torn(torn: Pieces, forwards: bool, low: F64, high: F64) -> tuple[F64, F64]:
    all_low, all_high = np.full(2, np.inf), np.full(2, -np.inf)
    end = np.array(torn.parts.shape, np.float64)
    for move in torn.maps:
        if forwards:
            a, b = np.maximum(low, 0.0), np.minimum(high, end)
        else:
            a, b = _extent_linear(move.inverse(), low, high)
            a, b = np.maximum(a, 0.0), np.minimum(b, end)
        if (a > b).any():
            continue
        if forwards:
            a, b = _extent_linear(move, a, b)
        all_low, all_high = np.minimum(all_low, a), np.maximum(all_high, b)
    return all_low, all_high


def _range(field: Field, low: F64, high: F64) -> tuple[F64, F64]:
    """Return the least and the most displacement (y, x) of a rectangle of places."""
    index = []
    for axis in range(2):
        n = field.displacement.shape[axis + 1]
        ends = (np.array([low[axis], high[axis]]) - field.origin[axis]) / field.spacing[axis]
        first, last = np.clip(np.floor(ends), 0, n - 1).astype(int)
        index.append(slice(max(first - 1, 0), last + 3))
    u = field.displacement[:, index[0], index[1]].astype(np.float64)
    return u.min(axis=(1, 2)), u.max(axis=(1, 2))


# ---- kernels, in place ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _linearly(coords: Any, m: Any) -> None:
    for i in range(coords.shape[1]):
        for j in range(coords.shape[2]):
            y, x = coords[0, i, j], coords[1, i, j]
            coords[0, i, j] = m[0, 0] * y + m[0, 1] * x + m[0, 2]
            coords[1, i, j] = m[1, 0] * y + m[1, 1] * x + m[1, 2]


@njit(cache=True, nogil=True, inline="always")
def _at(u: Any, lattice: Any, y: float, x: float) -> tuple[float, float]:
    """Return the displacement of one place, as `Field.at`."""
    rows, columns = u.shape[1], u.shape[2]
    v = min(max((y - lattice[0]) * lattice[2], 0.0), rows - 1.0)
    h = min(max((x - lattice[1]) * lattice[3], 0.0), columns - 1.0)
    y0, x0 = max(min(int(v), rows - 2), 0), max(min(int(h), columns - 2), 0)
    y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
    v, h = v - y0, h - x0
    a, b, c, d = (1.0 - v) * (1.0 - h), (1.0 - v) * h, v * (1.0 - h), v * h
    uy = a * u[0, y0, x0] + b * u[0, y0, x1] + c * u[0, y1, x0] + d * u[0, y1, x1]
    ux = a * u[1, y0, x0] + b * u[1, y0, x1] + c * u[1, y1, x0] + d * u[1, y1, x1]
    return uy, ux


@njit(cache=True, nogil=True)
def _displaced(coords: Any, u: Any, lattice: Any) -> None:
    for i in range(coords.shape[1]):
        for j in range(coords.shape[2]):
            y, x = coords[0, i, j], coords[1, i, j]
            if np.isnan(y) or np.isnan(x):
                continue
            uy, ux = _at(u, lattice, y, x)
            coords[0, i, j], coords[1, i, j] = y + uy, x + ux


@njit(cache=True, nogil=True)
def _solved(u: Any, lattice: Any, qy: float, qx: float, vy: float, vx: float) -> tuple[float, float]:
    """Return the place p with ``p + u(p) = q``, beginning at ``q - v``; NaN where none is found."""
    py, px = qy - vy, qx - vx
    for _ in range(_MOST_STEPS):
        uy, ux = _at(u, lattice, py, px)
        ey, ex = qy - uy - py, qx - ux - px
        py, px = py + ey, px + ex
        if abs(ey) <= _CLOSE_PX and abs(ex) <= _CLOSE_PX:
            return py, px
    return np.nan, np.nan


@njit(cache=True, nogil=True)
def _replaced(coords: Any, u: Any, lattice: Any) -> None:
    """Invert a field: fixed-point iteration, begun where the two neighbours to the left lead."""
    for i in range(coords.shape[1]):
        known = 0
        last_y, last_x, before_y, before_x = 0.0, 0.0, 0.0, 0.0
        for j in range(coords.shape[2]):
            if j % _RUN == 0:
                known = 0
            qy, qx = coords[0, i, j], coords[1, i, j]
            if np.isnan(qy) or np.isnan(qx):
                known = 0
                continue
            py, px = np.nan, np.nan
            if known == 1:
                py, px = _solved(u, lattice, qy, qx, last_y, last_x)
            elif known == 2:
                py, px = _solved(u, lattice, qy, qx, 2 * last_y - before_y, 2 * last_x - before_x)
            if np.isnan(py):
                vy, vx = _at(u, lattice, qy, qx)
                py, px = _solved(u, lattice, qy, qx, vy, vx)
            coords[0, i, j], coords[1, i, j] = py, px
            if np.isnan(py):
                known = 0
                continue
            before_y, before_x, last_y, last_x = last_y, last_x, qy - py, qx - px
            known = min(known + 1, 2)


@njit(cache=True, nogil=True, inline="always")
def _part_of(parts: Any, y: float, x: float) -> int:
    if not (y >= 0 and x >= 0 and y < parts.shape[0] and x < parts.shape[1]):
        return 0
    return int(parts[int(y), int(x)])


@njit(cache=True, nogil=True)
def _piecewise(coords: Any, found: Any, parts: Any, maps: Any, digit: int) -> None:
    """Every place moves as its part."""
    for i in range(coords.shape[1]):
        for j in range(coords.shape[2]):
            y, x = coords[0, i, j], coords[1, i, j]
            k = _part_of(parts, y, x)
            if k == 0:
                coords[0, i, j], coords[1, i, j] = np.nan, np.nan
                continue
            m = maps[k - 1]
            coords[0, i, j] = m[0, 0] * y + m[0, 1] * x + m[0, 2]
            coords[1, i, j] = m[1, 0] * y + m[1, 1] * x + m[1, 2]
            found[i, j] += k * digit


@njit(cache=True, nogil=True)
def _pieced(coords: Any, found: Any, parts: Any, maps: Any, digit: int) -> None:
    """Every place comes from the first part that came to lie there; `maps` lead back."""
    for i in range(coords.shape[1]):
        for j in range(coords.shape[2]):
            y, x = coords[0, i, j], coords[1, i, j]
            coords[0, i, j], coords[1, i, j] = np.nan, np.nan
            for k in range(maps.shape[0]):
                m = maps[k]
                py = m[0, 0] * y + m[0, 1] * x + m[0, 2]
                px = m[1, 0] * y + m[1, 1] * x + m[1, 2]
                if _part_of(parts, py, px) == k + 1:
                    coords[0, i, j], coords[1, i, j] = py, px
                    found[i, j] += (k + 1) * digit
                    break
