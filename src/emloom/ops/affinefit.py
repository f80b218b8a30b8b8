"""Gauss-Newton steps to the affine map under which one image explains another.

At a map A the image b is sampled at A(p), and a step d solves, over all p of both masks, ::

    b(A p) + grad b(A p) . d(p)  =  gain a(p) + offset          d(p) = D p + e, 6 unknowns, and gain and offset

in the least squares sense. Gain and offset are found with the step, so brightness and contrast do not matter and
what is maximised is the correlation (Evangelidis & Psarakis 2008, doi:10.1109/TPAMI.2008.113; Lucas & Kanade 1981;
Baker & Matthews 2004, doi:10.1023/B:VISI.0000011205.11775.fd). Residuals are weighed as Cauchy's distribution
weighs them: what differs between sections does not pull at what is the same.

All sums of one step are the Gram matrix of nine columns: ``gy y, gy x, gy, gx y, gx x, gx, a, 1, b``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry.planar import Affine
from emloom.ops.matchlevels import Level

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_CLOSE_PX = 0.01  # a last step moves corners by less
_CAUCHY = 2.385  # 95 % as efficient as least squares where residuals are normal


@dataclass(frozen=True)
class Fit:
    """Where the steps ended.

    Attributes:
        affine: the map, of places of the sections.
        score: correlation of what lies on each other, -1 to 1; NaN where nothing does.
        overlap: share of the mask of `a` that lies on that of `b`.
        last_px: how far the last step moved the corners of `a`, pixels of the level; inf where it failed.
    """

    affine: Affine
    score: float
    overlap: float
    last_px: float


def fit(a: Level, b: Level, start: Affine, steps: int, every: int = 1) -> Fit:
    """Return the map after some steps on one level.

    Args:
        a: level of the section that is mapped.
        b: level of the other, of the same factor.
        start: map of places of the sections.
        steps: at most.
        every: every so manieth pixel along each axis is looked at; levels are smooth, and 2 nearly as good as 1.
    """
    m = start.matrix
    m[:, 2] /= a.factor
    rows, columns = (np.flatnonzero(a.mask.any(axis)) for axis in (1, 0))
    total = int(a.mask[::every, ::every].sum())
    if total == 0 or not b.mask.any():
        return Fit(start, float("nan"), 0.0, float("inf"))
    box = np.array([[rows[0], columns[0]], [rows[-1] + 1, columns[-1] + 1]], np.float64)
    centre, scale = box.mean(axis=0), float(max(box[1] - box[0])) / 2
    stacked = np.dstack([b.image, *np.gradient(b.image)]).astype(np.float32)
    photometric = np.array([0.0, 0.0, np.inf])  # gain, offset, spread of the residual
    moved, gram = np.inf, np.zeros((9, 9))
    for _ in range(steps):
        gram = _gram_of(a, b, stacked, m, np.array([*centre, scale, *photometric, every]))
        step = _solved(gram)
        if step is None:
            moved = np.inf
            break
        d, found = step
        # The spread of the first, unweighted step is kept: weighted ones would shrink it again and again.
        photometric = np.array([found[0], found[1], found[2] if np.isinf(photometric[2]) else photometric[2]])
        m[:, :2] += d[:, :2] / scale
        m[:, 2] += d[:, 2] - d[:, :2] @ centre / scale
        moved = float(np.abs(d).sum(axis=1).max())
        if moved < _CLOSE_PX or not _sane(m):
            break
    if not _sane(m):
        return Fit(start, float("nan"), 0.0, float("inf"))
    gram = _gram_of(a, b, stacked, m, np.array([*centre, scale, 0.0, 0.0, np.inf, every]))
    out = Affine.of(np.column_stack([m[:, :2], m[:, 2] * a.factor]))
    return Fit(out, _correlation(gram), float(gram[7, 7]) / total, moved)


def _gram_of(a: Level, b: Level, stacked: F32, m: F64, how: F64) -> F64:
    gram = np.zeros((9, 9))
    _gram(a.image, a.mask, stacked, b.mask, m, how, gram)
    return gram + np.triu(gram, 1).T


def _sane(m: F64) -> bool:
    """Return whether a map neither folds nor flies away."""
    return bool(np.isfinite(m).all()) and bool(0.25 < np.linalg.det(m[:, :2]) < 4)


def _solved(gram: F64) -> tuple[F64, F64] | None:
    """Return the step [2, 3] and gain, offset, and spread of what is left; None where it is not determined."""
    normal, right = gram[:8, :8].copy(), -gram[:8, 8].copy()
    normal[6:, :6] *= -1  # a and 1 stand on the other side
    normal[:6, 6:] *= -1
    right[6:] *= -1
    if gram[7, 7] < 64 or np.linalg.cond(normal) > 1e10:
        return None
    found: F64 = np.linalg.solve(normal, right).astype(np.float64)
    columns = np.concatenate([found[:6], -found[6:], [1.0]])
    left = max(float(columns @ gram @ columns), 0.0) / gram[7, 7]
    return found[:6].reshape(2, 3), np.array([found[6], found[7], np.sqrt(left)])


def _correlation(gram: F64) -> float:
    """Return the correlation of a and b."""
    n = gram[7, 7]
    if n < 2:
        return float("nan")
    cov = gram[6, 8] - gram[6, 7] * gram[7, 8] / n
    both = (gram[6, 6] - gram[6, 7] ** 2 / n) * (gram[8, 8] - gram[7, 8] ** 2 / n)
    return float(cov / np.sqrt(both)) if both > 0 else float("nan")


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _gram(a, mask_a, stacked, mask_b, m, how, gram):  # type: ignore[no-untyped-def]
    """Add up the products of the columns over all pixels of `a` that come to lie on `b`; upper triangle."""
    rows, columns = a.shape
    rows_b, columns_b = mask_b.shape
    centre_y, centre_x, scale, gain, offset, spread, every = how
    stride = int(every)
    v = np.zeros(9)
    v[7] = 1.0
    for i in range(0, rows, stride):
        y = i + 0.5
        yn = (y - centre_y) / scale
        for j in range(0, columns, stride):
            if not mask_a[i, j]:
                continue
            x = j + 0.5
            xn = (x - centre_x) / scale
            qy = m[0, 0] * y + m[0, 1] * x + m[0, 2]
            qx = m[1, 0] * y + m[1, 1] * x + m[1, 2]
            if not (0.5 <= qy < rows_b - 0.5 and 0.5 <= qx < columns_b - 0.5):
                continue
            if not mask_b[int(qy), int(qx)]:
                continue
            r, c = int(qy - 0.5), int(qx - 0.5)
            fy, fx = qy - 0.5 - r, qx - 0.5 - c
            r1, c1 = min(r + 1, rows_b - 1), min(c + 1, columns_b - 1)
            w00, w01, w10, w11 = (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx
            p, q, s, t = stacked[r, c], stacked[r, c1], stacked[r1, c], stacked[r1, c1]
            b = w00 * p[0] + w01 * q[0] + w10 * s[0] + w11 * t[0]
            gy = w00 * p[1] + w01 * q[1] + w10 * s[1] + w11 * t[1]
            gx = w00 * p[2] + w01 * q[2] + w10 * s[2] + w11 * t[2]
            left = (b - gain * a[i, j] - offset) / (_CAUCHY * spread)
            weight = 1.0 / (1.0 + left * left)
            v[0], v[1], v[2] = gy * yn, gy * xn, gy
            v[3], v[4], v[5] = gx * yn, gx * xn, gx
            v[6], v[8] = a[i, j], b
            for k in range(9):
                wv = weight * v[k]
                for n in range(k, 9):
                    gram[k, n] += wv * v[n]
