"""A volume seen at a scale: Gaussian smoothing, and what its first and second derivatives say.

Everything is *valid*: an answer is given where all that it looks at is there, so it does not depend on the box it
was asked in, to the last bit::

    image   |<------------------- n + 2 r ------------------->|
    smooth          |<------- n ------->|                        r = round(3 sigma) voxels per side

A scale has a sigma per axis, in voxels. Where that of z is 0 the scale is *flat*: nothing is mixed across
sections, and derivatives are those within the section.

Derivatives are central differences of the smoothed image, (b - a) / 2 and a - 2 b + c, times a factor per axis,
sigma / voxel size: so they are per sigma rather than per nm, in grey values, and scales can be compared (Lindeberg
1998, doi:10.1023/A:1008045108935).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, floor, pi

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.ops.threads import Threads

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

TRUNCATE = 3.0
"""Kernels reach this many sigma."""


def radius_of(sigma_vox: float) -> int:
    """Return how many voxels per side a Gaussian reaches; 0 for sigma 0."""
    return floor(TRUNCATE * sigma_vox + 0.5)


def half_gaussian(sigma_vox: float) -> F32:
    """Return the weights of a Gaussian from its middle outward, float32 [radius + 1]; the whole sums to 1."""
    radius = radius_of(sigma_vox)
    if radius == 0:
        return np.ones(1, np.float32)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma_vox) ** 2)
    half: F32 = (weights / (2 * weights.sum() - weights[0])).astype(np.float32)
    return half


def smooth(image_ZYX: F32, sigma_vox: Sequence[float], threads: Threads) -> F32:
    """Return the image smoothed, smaller by `radius_of` per side along every axis.

    Args:
        image_ZYX: float32.
        sigma_vox: (z, y, x); an axis of 0 is left as it is.
        threads: compute.
    """
    out = image_ZYX
    for axis, sigma in enumerate(sigma_vox):
        half = half_gaussian(sigma)
        if len(half) == 1:
            continue
        shape = [n - 2 * (len(half) - 1) * (a == axis) for a, n in enumerate(out.shape)]
        made = np.empty(shape, np.float32)
        threads.rows(_ALONG[axis], shape[0] * shape[1], out, half, made)
        out = made
    return out


def inner(image: F32, margin: Vec) -> F32:
    """Return ``[..., Z, Y, X]`` without its outer `margin` voxels (a view)."""
    z, y, x = (slice(m, n - m) for m, n in zip(margin, image.shape[-3:], strict=True))
    return image[..., z, y, x]


@njit(cache=True, nogil=True)
def _along_z(image, half, out, first, last):  # type: ignore[no-untyped-def]
    radius, depth = half.size - 1, out.shape[0]
    for row in range(first, last):  # rows of equal y one after the other: they read the same rows of the image
        y, z = row // depth, row % depth
        for x in range(out.shape[2]):
            out[z, y, x] = half[0] * image[z + radius, y, x]
        for k in range(1, radius + 1):
            weight = half[k]
            for x in range(out.shape[2]):
                out[z, y, x] += weight * (image[z + radius - k, y, x] + image[z + radius + k, y, x])


@njit(cache=True, nogil=True)
def _along_y(image, half, out, first, last):  # type: ignore[no-untyped-def]
    radius, height = half.size - 1, out.shape[1]
    for row in range(first, last):
        z, y = row // height, row % height
        for x in range(out.shape[2]):
            out[z, y, x] = half[0] * image[z, y + radius, x]
        for k in range(1, radius + 1):
            weight = half[k]
            for x in range(out.shape[2]):
                out[z, y, x] += weight * (image[z, y + radius - k, x] + image[z, y + radius + k, x])


@njit(cache=True, nogil=True)
def _along_x(image, half, out, first, last):  # type: ignore[no-untyped-def]
    radius, height = half.size - 1, out.shape[1]
    for row in range(first, last):
        z, y = row // height, row % height
        for x in range(out.shape[2]):
            out[z, y, x] = half[0] * image[z, y, x + radius]
        for k in range(1, radius + 1):
            weight = half[k]
            for x in range(out.shape[2]):
                out[z, y, x] += weight * (image[z, y, x + radius - k] + image[z, y, x + radius + k])


_ALONG = (_along_z, _along_y, _along_x)


def gradient(smoothed_ZYX: F32, factors: F64, out_ZYX: F32, threads: Threads) -> None:
    """Fill in the length of the gradient.

    Args:
        smoothed_ZYX: one voxel more per side than the output; of a flat scale none more along z.
        factors: float64 [3], of (z, y, x); 0 along z for a flat scale.
        out_ZYX: float32.
        threads: compute.
    """
    threads.rows(_gradient, out_ZYX.shape[0] * out_ZYX.shape[1], smoothed_ZYX, factors, out_ZYX)


@njit(cache=True, nogil=True)
def _gradient(image, factors, out, first, last):  # type: ignore[no-untyped-def]
    dz = 0 if factors[0] == 0.0 else 1
    fz, fy, fx = 0.5 * factors[0], 0.5 * factors[1], 0.5 * factors[2]
    for row in range(first, last):
        oz, oy = row // out.shape[1], row % out.shape[1]
        z, y = oz + dz, oy + 1
        for ox in range(out.shape[2]):
            x = ox + 1
            gz = fz * (image[z + dz, y, x] - image[z - dz, y, x])
            gy = fy * (image[z, y + 1, x] - image[z, y - 1, x])
            gx = fx * (image[z, y, x + 1] - image[z, y, x - 1])
            out[oz, oy, ox] = np.sqrt(gz * gz + gy * gy + gx * gx)


def structure_tensor(smoothed_ZYX: F32, factors: F64, outer_vox: Sequence[float], threads: Threads) -> F32:
    """Return products of the gradient's components, smoothed: float32 [6, Z, Y, X], zz yy xx zy zx yx; of a flat
    scale [3, Z, Y, X], yy xx yx.

    Args:
        smoothed_ZYX: larger than the output by 1 per side, as of `gradient`, and the radius of the outer sigma.
        factors: as `gradient`.
        outer_vox: sigma (z, y, x) of the outer smoothing.
        threads: compute.
    """
    flat = factors[0] == 0.0
    shape = inner(smoothed_ZYX, (0 if flat else 1, 1, 1)).shape
    out = []
    for a, b in ((1, 1), (2, 2), (1, 2)) if flat else ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        product = np.empty(shape, np.float32)
        threads.rows(_product, shape[0] * shape[1], smoothed_ZYX, factors, (a, b), product)
        out.append(smooth(product, outer_vox, threads))
    return np.stack(out)


@njit(cache=True, nogil=True)
def _product(image, factors, axes, out, first, last):  # type: ignore[no-untyped-def]
    dz = 0 if factors[0] == 0.0 else 1
    a, b = axes
    az, ay, ax, bz, by, bx = int(a == 0), int(a == 1), int(a == 2), int(b == 0), int(b == 1), int(b == 2)
    factor = np.float32(0.25 * factors[a] * factors[b])
    for row in range(first, last):
        oz, oy = row // out.shape[1], row % out.shape[1]
        z, y = oz + dz, oy + 1
        for ox in range(out.shape[2]):
            x = ox + 1
            one = image[z + az, y + ay, x + ax] - image[z - az, y - ay, x - ax]
            other = image[z + bz, y + by, x + bx] - image[z - bz, y - by, x - bx]
            out[oz, oy, ox] = factor * one * other


def eigenvalues(tensor_CZYX: F32, out_EZYX: F32, threads: Threads) -> None:
    """Fill in the eigenvalues of symmetric tensors, largest first.

    Args:
        tensor_CZYX: as `structure_tensor` returns it, of 6 components or of 3.
        out_EZYX: float32, of 3 or of 2 eigenvalues.
        threads: compute.
    """
    threads.rows(_eigenvalues, out_EZYX.shape[1] * out_EZYX.shape[2], tensor_CZYX, out_EZYX)


@njit(cache=True, nogil=True)
def _eigenvalues(tensor, out, first, last):  # type: ignore[no-untyped-def]
    height = out.shape[2]
    for row in range(first, last):
        z, y = row // height, row % height
        for x in range(out.shape[3]):
            t = tensor[:, z, y, x]
            if t.size == 3:
                out[0, z, y, x], out[1, z, y, x] = _eigen2(t[0], t[1], t[2])
            else:
                high, middle, low = _eigen3(t[0], t[1], t[2], t[3], t[4], t[5])
                out[0, z, y, x], out[1, z, y, x], out[2, z, y, x] = high, middle, low


def second_derivatives(
    smoothed_ZYX: F32, factors: F64, laplacian_ZYX: F32, hessian_EZYX: F32, threads: Threads
) -> None:
    """Fill in the Laplacian, and the eigenvalues of the Hessian, largest first.

    Args:
        smoothed_ZYX: as `gradient`.
        factors: as `gradient`.
        laplacian_ZYX: float32, or empty where it is not wanted.
        hessian_EZYX: float32 of 3 eigenvalues, of a flat scale 2; empty where they are not wanted.
        threads: compute.
    """
    shape = laplacian_ZYX.shape if laplacian_ZYX.size else hessian_EZYX.shape[1:]
    threads.rows(_second, shape[0] * shape[1], smoothed_ZYX, factors, laplacian_ZYX, hessian_EZYX, shape)


@njit(cache=True, nogil=True)
def _second(image, factors, laplacian, hessian, shape, first, last):  # type: ignore[no-untyped-def]
    flat = factors[0] == 0.0
    dz = 0 if flat else 1
    for row in range(first, last):
        oz, oy = row // shape[1], row % shape[1]
        for ox in range(shape[2]):
            zz, yy, xx, zy, zx, yx = _hessian(image, factors, dz, oz + dz, oy + 1, ox + 1)
            if laplacian.size:
                laplacian[oz, oy, ox] = zz + yy + xx
            if hessian.size and flat:
                hessian[0, oz, oy, ox], hessian[1, oz, oy, ox] = _eigen2(yy, xx, yx)
            elif hessian.size:
                high, middle, low = _eigen3(zz, yy, xx, zy, zx, yx)
                hessian[0, oz, oy, ox], hessian[1, oz, oy, ox], hessian[2, oz, oy, ox] = high, middle, low


@njit(cache=True, nogil=True, inline="always")
def _hessian(image, factors, dz, z, y, x):  # type: ignore[no-untyped-def]
    fz, fy, fx = factors[0], factors[1], factors[2]
    twice = 2.0 * image[z, y, x]
    yy = fy * fy * (image[z, y - 1, x] - twice + image[z, y + 1, x])
    xx = fx * fx * (image[z, y, x - 1] - twice + image[z, y, x + 1])
    d = image[z, y - 1, x - 1] - image[z, y - 1, x + 1] - image[z, y + 1, x - 1] + image[z, y + 1, x + 1]
    yx = 0.25 * fy * fx * d
    zz, zy, zx = 0.0, 0.0, 0.0
    if dz:
        zz = fz * fz * (image[z - 1, y, x] - twice + image[z + 1, y, x])
        d = image[z - 1, y - 1, x] - image[z - 1, y + 1, x] - image[z + 1, y - 1, x] + image[z + 1, y + 1, x]
        zy = 0.25 * fz * fy * d
        d = image[z - 1, y, x - 1] - image[z - 1, y, x + 1] - image[z + 1, y, x - 1] + image[z + 1, y, x + 1]
        zx = 0.25 * fz * fx * d
    return zz, yy, xx, zy, zx, yx


@njit(cache=True, nogil=True, inline="always")
def _eigen2(yy, xx, yx):  # type: ignore[no-untyped-def]
    """Return the eigenvalues of [[yy, yx], [yx, xx]], the larger first."""
    mean, half = 0.5 * (np.float64(yy) + xx), 0.5 * (np.float64(yy) - xx)
    apart = np.sqrt(half * half + np.float64(yx) * yx)
    return mean + apart, mean - apart


@njit(cache=True, nogil=True)
def _eigen3(zz, yy, xx, zy, zx, yx):  # type: ignore[no-untyped-def]
    """Return the eigenvalues of a symmetric 3 x 3 matrix, largest first.

    Smith, Communications of the ACM 1961 (doi:10.1145/355578.366316).
    """
    zz, yy, xx = np.float64(zz), np.float64(yy), np.float64(xx)
    zy, zx, yx = np.float64(zy), np.float64(zx), np.float64(yx)
    mean = (zz + yy + xx) / 3.0
    a, b, c = zz - mean, yy - mean, xx - mean
    spread = np.sqrt((a * a + b * b + c * c + 2.0 * (zy * zy + zx * zx + yx * yx)) / 6.0)
    if spread == 0.0:
        return mean, mean, mean
    a, b, c, d, e, f = a / spread, b / spread, c / spread, zy / spread, zx / spread, yx / spread
    half = 0.5 * (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e))
    angle = np.arccos(min(1.0, max(-1.0, half))) / 3.0
    high = mean + 2.0 * spread * cos(angle)
    low = mean + 2.0 * spread * cos(angle + 2.0 * pi / 3.0)
    middle = min(high, max(low, 3.0 * mean - high - low))  # in order, also where two are equal but for rounding
    return high, middle, low
