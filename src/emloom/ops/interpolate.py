"""A section that is missing, made of the two around it: sampled along the flow between them, and blended.

::

    before   p - t v(p)             value  (1 - t) before + t after     grey: only where both are usable;
    missing  p                             the one that is, elsewhere; 0 where neither is
    after    p + (1 - t) v(p)       id     of the nearer one; of the other where that shows nothing

Beyond its border a section goes on as it ends, but one that is looked at inside is preferred. A value lies between
those it is made of. The flow is that of `emloom.ops.opticalflow.flow_between` at the same t.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import Field

Bool = NDArray[np.bool_]


def between(
    before_YX: NDArray[Any],
    after_YX: NDArray[Any],
    flow: Field,
    t: float = 0.5,
    *,
    usable: tuple[NDArray[Any] | None, NDArray[Any] | None] = (None, None),
) -> NDArray[Any]:
    """Return the grey values of a section between two.

    Args:
        before_YX: a section of grey values.
        after_YX: another one of the same shape and type.
        flow: from `before` to `after`, pixels, at the places of the section between them.
        t: where it lies: 0 at `before`, 1 at `after`; of n missing sections the k-th at k / (n + 1).
        usable: not 0 where pixels of `before`, of `after`, show tissue; None: all do.

    Returns:
        [Y, X] of the same type; whole numbers rounded to the nearest.

    Raises:
        InputError: shapes or types differ, or t is not within 0 and 1.
    """
    _require_alike(before_YX, after_YX, t)
    seen = [_seen(before_YX, usable[0]), _seen(after_YX, usable[1])]
    pair = [np.ascontiguousarray(section, np.float32) for section in (before_YX, after_YX)]
    out = np.zeros(before_YX.shape, np.float32)
    _blend((pair[0], seen[0]), (pair[1], seen[1]), _lattice(flow), np.float32(t), out)
    if before_YX.dtype.kind in "iu":
        out = np.rint(out)
    return out.astype(before_YX.dtype)


def nearest_between(before_YX: NDArray[Any], after_YX: NDArray[Any], flow: Field, t: float = 0.5) -> NDArray[Any]:
    """Return the ids of a section between two: those of the nearer one along the flow, never mixed.

    Args:
        before_YX: ids of a section, any integers.
        after_YX: ids of the other one, of the same shape and type.
        flow: as of `between`.
        t: where the section lies; halfway, `before` is the nearer one.

    Returns:
        [Y, X] of the same type.

    Raises:
        InputError: shapes or types differ, ids are no integers, or t is not within 0 and 1.
    """
    _require_alike(before_YX, after_YX, t)
    if before_YX.dtype.kind not in "iub":
        raise InputError(f"{before_YX.dtype} are no ids: labels are integers, grey values go through `between`")
    rows, columns = np.indices(before_YX.shape, np.float64) + 0.5
    places = np.column_stack([rows.ravel(), columns.ravel()])
    near, step = (before_YX, -t) if t <= 0.5 else (after_YX, 1 - t)
    far, other = (after_YX, 1 - t) if t <= 0.5 else (before_YX, -t)
    v = flow.at(places)
    found, inside = _nearest(near, places + step * v)
    instead, _ = _nearest(far, places + other * v)
    out: NDArray[Any] = np.where(inside, found, instead).reshape(before_YX.shape)
    return out


def _nearest(ids_YX: NDArray[Any], places: NDArray[np.float64]) -> tuple[NDArray[Any], Bool]:
    """Return the ids at places, of the nearest pixel beyond the border, and which lie inside."""
    at = np.floor(places).astype(np.int64)
    last = np.array(ids_YX.shape) - 1
    inside: Bool = np.all((at >= 0) & (at <= last), axis=1)
    y, x = np.clip(at, 0, last).T
    return ids_YX[y, x], inside


def _seen(section_YX: NDArray[Any], usable: NDArray[Any] | None) -> Bool:
    if usable is None:
        return np.ones(section_YX.shape, np.bool_)
    seen: Bool = np.not_equal(usable, 0)
    return seen


def _require_alike(before_YX: NDArray[Any], after_YX: NDArray[Any], t: float) -> None:
    if before_YX.ndim != 2 or before_YX.shape != after_YX.shape or before_YX.dtype != after_YX.dtype:
        raise InputError(
            f"between a section of {before_YX.dtype} {before_YX.shape} and one of {after_YX.dtype} "
            f"{after_YX.shape} lies none: give two [Y, X] of one shape and type"
        )
    if not 0 <= t <= 1:
        raise InputError(f"a section at {t} lies not between two: give 0 (the first) to 1 (the second)")


def _lattice(flow: Field) -> tuple[NDArray[np.float32], float, float, float, float]:
    (sy, sx), (oy, ox) = flow.spacing, flow.origin
    return (np.ascontiguousarray(flow.displacement), float(sy), float(sx), float(oy), float(ox))


@njit(cache=True, nogil=True)
def _displacement(flow, y, x):  # type: ignore[no-untyped-def]
    v, sy, sx, oy, ox = flow
    rows, columns = v.shape[1], v.shape[2]
    j = min(max((y - oy) / sy, 0.0), rows - 1.0)
    i = min(max((x - ox) / sx, 0.0), columns - 1.0)
    j0, i0 = int(j), int(i)
    j1, i1 = min(j0 + 1, rows - 1), min(i0 + 1, columns - 1)
    f, g = j - j0, i - i0
    dy = (1 - f) * ((1 - g) * v[0, j0, i0] + g * v[0, j0, i1]) + f * ((1 - g) * v[0, j1, i0] + g * v[0, j1, i1])
    dx = (1 - f) * ((1 - g) * v[1, j0, i0] + g * v[1, j0, i1]) + f * ((1 - g) * v[1, j1, i0] + g * v[1, j1, i1])
    return dy, dx


@njit(cache=True, nogil=True)
def _sample(image, seen, y, x):  # type: ignore[no-untyped-def]
    """Return the value between pixel centres, and its worth: 2 all it is made of is usable, 1 outside, 0 not."""
    rows, columns = image.shape
    inside = y >= -0.5 and x >= -0.5 and y <= rows - 0.5 and x <= columns - 0.5
    y, x = min(max(y, 0.0), rows - 1.0), min(max(x, 0.0), columns - 1.0)
    y0, x0 = int(y), int(x)
    f, g = y - y0, x - x0
    y1, x1 = y0 + (f > 0), x0 + (g > 0)
    low = (1 - g) * image[y0, x0] + g * image[y0, x1]
    high = (1 - g) * image[y1, x0] + g * image[y1, x1]
    good = seen[y0, x0] and seen[y0, x1] and seen[y1, x0] and seen[y1, x1]
    return (1 - f) * low + f * high, (1 + inside) * good


@njit(cache=True, nogil=True)
def _blend(before, after, flow, t, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            dy, dx = _displacement(flow, i + 0.5, k + 0.5)
            a, one = _sample(before[0], before[1], i - t * dy, k - t * dx)
            b, other = _sample(after[0], after[1], i + (1 - t) * dy, k + (1 - t) * dx)
            if one == other > 0:
                out[i, k] = (1 - t) * a + t * b
            elif one or other:
                out[i, k] = a if one > other else b
            # neither is usable: out keeps 0
