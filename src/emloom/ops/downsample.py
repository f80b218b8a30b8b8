"""Coarser copies of an array: the mean of an image, the majority of labels.

A coarse voxel stands for one window of fine voxels and depends on nothing else; windows lie on the lattice
``k * factor`` of the finest voxel (0, 0, 0). So an array may be cut along that lattice anywhere, and its parts,
downsampled each on its own, are the parts of the downsampled whole::

    fine     a a b b|b c c c|c        factor 4; the last window is partial: it counts the voxels it has
    coarse      a   |   c   |c        a, a, b, b is a tie: the smallest id wins

Where the lattice begins before the array (`in_phase`), the first window is partial, too, by the same rule.

Mean: integers are summed exactly and rounded half up (``floor(sum / n + 1/2)``, also below zero); floats are
summed in float64 in z, y, x order and rounded once to the element type. One NaN makes its window NaN.

Majority: the value that fills most of the window; among equals the smallest. 0 is a value like any other, so a
thin object on background may vanish, but never grows. Values are never mixed: every id in the result was there.

A pyramid downsamples each level from the one before. For means of integers, every level rounds once more: two
steps of 2 may differ by one grey value from one step of 4. The majority of majorities is not the majority of
the whole either. Both are what everyone's pyramid holds; what is exact is that blocks and workers do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.box import as_vec

Array = NDArray[Any]
_SORT_ABOVE = 32


def coarse_shape(shape: Sequence[int], factors: int | Sequence[int]) -> Vec:
    """Return the extents (z, y, x) of a downsampled array: each divided by its factor, rounded up.

    Raises:
        InputError: a factor is below 1.
    """
    f = as_vec(factors)
    if min(f) < 1:
        raise InputError(f"downsampling factors {f} are not positive: give whole numbers z, y, x like 1,2,2")
    z, y, x = (-(-n // k) for n, k in zip(shape, f, strict=True))
    return (z, y, x)


def downsample_mean(image: Array, factors: int | Sequence[int]) -> Array:
    """Return the mean of every window; see the module for rounding.

    Args:
        image: ``[C,]ZYX`` of integers or floating point; channels are averaged each on its own.
        factors: voxels per window (z, y, x).

    Returns:
        Same dtype, extents divided by the factors and rounded up.

    Raises:
        InputError: not 3- or 4-dimensional, other element types, or a factor below 1.
    """
    if image.dtype.kind not in "iuf":
        raise InputError(f"{image.dtype} values have no mean: downsample masks and labels by majority")
    if image.dtype.kind == "f":
        wide = np.float32 if image.dtype.itemsize < 4 else image.dtype  # numba has no float16
        return _per_channel(_mean_floats, image.astype(wide, copy=False), factors).astype(image.dtype, copy=False)
    return _per_channel(_mean_wide if image.dtype.itemsize == 8 else _mean_integers, image, factors)


def downsample_majority(labels: Array, factors: int | Sequence[int]) -> Array:
    """Return the most frequent value of every window, the smallest where several are; for labels and masks.

    Args:
        labels: ``[C,]ZYX`` of integers or booleans.
        factors: voxels per window (z, y, x).

    Returns:
        Same dtype, extents divided by the factors and rounded up.

    Raises:
        InputError: not 3- or 4-dimensional, other element types, or a factor below 1.
    """
    if labels.dtype.kind not in "iub":
        raise InputError(
            f"{labels.dtype} values have no majority: labels are integers, masks booleans or integers"
        )
    if labels.dtype.kind == "b":
        bits = np.ascontiguousarray(labels).view(np.uint8)
        return _per_channel(_majority, bits, factors).view(labels.dtype)
    return _per_channel(_majority, labels, factors)


def in_phase(method: Callable[[Array, Vec], Array], array: Array, factors: Vec, phase: Vec) -> Array:
    """Return what a method makes of an array whose first window begins `phase` voxels (z, y, x) before it.

    Args:
        method: `downsample_mean` or `downsample_majority`.
        array: ``[C,]ZYX``.
        factors: voxels per window (z, y, x).
        phase: voxels missing from the first window along z, y, x.

    Raises:
        InputError: a phase is negative or leaves nothing of its window, or see the method.
    """
    if any(not 0 <= p < f for p, f in zip(phase, factors, strict=True)):
        raise InputError(f"phase {phase} does not lie in a window of {factors} voxels: give 0 up to below that")
    for axis in (0, 1, 2):
        first = factors[axis] - phase[axis]
        if phase[axis] and first < array.shape[axis - 3]:
            # Windows are independent: a partial one is the whole of what it has.
            rest = (*phase[:axis], 0, *phase[axis + 1 :])
            parts = np.split(array, [first], axis - 3)
            return np.concatenate([in_phase(method, p, factors, as_vec(rest)) for p in parts], axis - 3)
    return method(array, factors)


def _per_channel(kernel: Callable[[Array, int, int, int, Array], None], array: Array, factors: Any) -> Array:
    if array.ndim not in (3, 4):
        raise InputError(f"the array has {array.ndim} dimensions: a volume is zyx or czyx")
    shape = coarse_shape(array.shape[-3:], factors)
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    out = np.empty((*array.shape[:-3], *shape), native.dtype)
    channels = zip(native, out, strict=True) if array.ndim == 4 else [(native, out)]
    for fine, coarse in channels:
        kernel(fine, *as_vec(factors), coarse)
    return out


# Rows first: the rows of a window are added up voxel by voxel (which the compiler turns into vector
# instructions), and only their sum is cut into windows along x.
@njit(cache=True, nogil=True)
def _mean_integers(fine: Array, fz: int, fy: int, fx: int, out: Array) -> None:
    """Integers of at most 32 bits: an int64 sum of a window never overflows."""
    size_z, size_y, size_x = fine.shape
    sums = np.empty(size_x, np.int64)
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, size_z)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, size_y)
            sums[:] = 0
            for i in range(z * fz, z1):
                for j in range(y * fy, y1):
                    for x in range(size_x):
                        sums[x] += fine[i, j, x]
            _round_row(sums, fx, (z1 - z * fz) * (y1 - y * fy), out[z, y])


@njit(cache=True, nogil=True)
def _round_row(sums: NDArray[np.int64], fx: int, rows: int, out: Array) -> None:
    whole = sums.size // fx
    n = rows * fx
    shift = 0
    while (1 << shift) < n:
        shift += 1
    if (1 << shift) == n and fx == 2:
        half = n // 2
        for x in range(whole):
            out[x] = (sums[2 * x] + sums[2 * x + 1] + half) >> shift
    else:
        for x in range(whole):
            total = np.int64(0)
            for k in range(x * fx, (x + 1) * fx):
                total += sums[k]
            out[x] = (2 * total + n) // (2 * n)
    if whole < out.size:
        n = rows * (sums.size - whole * fx)
        total = np.int64(0)
        for k in range(whole * fx, sums.size):
            total += sums[k]
        out[whole] = (2 * total + n) // (2 * n)


@njit(cache=True, nogil=True)
def _mean_wide(fine: Array, fz: int, fy: int, fx: int, out: Array) -> None:
    """64-bit integers: quotients and remainders are summed apart, so that nothing overflows."""
    size_z, size_y, size_x = fine.shape
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, size_z)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, size_y)
            for x in range(out.shape[2]):
                x1 = min((x + 1) * fx, size_x)
                n = fine.dtype.type((z1 - z * fz) * (y1 - y * fy) * (x1 - x * fx))
                whole = fine.dtype.type(0)
                rest = fine.dtype.type(0)
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            quotient = fine[i, j, k] // n
                            whole += quotient
                            rest += fine[i, j, k] - quotient * n
                two = fine.dtype.type(2)
                out[z, y, x] = whole + (two * rest + n) // (two * n)


@njit(cache=True, nogil=True)
def _mean_floats(fine: Array, fz: int, fy: int, fx: int, out: Array) -> None:
    size_z, size_y, size_x = fine.shape
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, size_z)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, size_y)
            for x in range(out.shape[2]):
                x1 = min((x + 1) * fx, size_x)
                total = 0.0
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            total += fine[i, j, k]
                out[z, y, x] = total / ((z1 - z * fz) * (y1 - y * fy) * (x1 - x * fx))


@njit(cache=True, nogil=True)
def _majority(fine: Array, fz: int, fy: int, fx: int, out: Array) -> None:
    size_z, size_y, size_x = fine.shape
    window = np.empty(fz * fy * fx, fine.dtype)
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, size_z)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, size_y)
            for x in range(out.shape[2]):
                x1 = min((x + 1) * fx, size_x)
                first = fine[z * fz, y * fy, x * fx]
                n = 0
                mixed = False
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            window[n] = fine[i, j, k]
                            mixed |= window[n] != first
                            n += 1
                # Objects are many voxels wide: most windows hold one value.
                out[z, y, x] = _most_frequent(window[:n]) if mixed else first


@njit(cache=True, nogil=True)
def _most_frequent(values: Array) -> Any:
    """Return the most frequent value, the smallest among equals; sorts `values`."""
    if values.size > _SORT_ABOVE:
        values.sort()
    else:
        for i in range(1, values.size):
            value = values[i]
            j = i
            while j > 0 and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
    best, longest, run = values[0], 0, 0
    for i in range(values.size):
        run = run + 1 if i > 0 and values[i] == values[i - 1] else 1
        if run > longest:
            best, longest = values[i], run
    return best
