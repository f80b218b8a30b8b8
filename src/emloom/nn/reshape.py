"""Exact reshapes of voxels, and which shapes fit a network.

A *stem* folds cells of voxels into channels and back, without loss::

    depth_to_space(space_to_depth(x, s), s) == x
    channel  c * prod(s) + (dz * s_y + dy) * s_x + dx   holds voxel  (dz, dy, dx)  of its cell
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from emloom.errors import InputError
from emloom.geometry import Vec


def fitting_output(input_shape: Sequence[int], lattice: Vec, shrink: Vec) -> Vec:
    """Return the input shape less `shrink` per side; the rest must be a positive multiple of the lattice.

    Raises:
        InputError: it is not; the message names the next larger input that fits.
    """
    shape = _vec(input_shape)
    out = _vec(n - 2 * s for n, s in zip(shape, shrink, strict=True))
    if all(n > 0 and n % step == 0 for n, step in zip(out, lattice, strict=True)):
        return out
    fit = fitting_input(out, lattice, shrink)
    raise InputError(
        f"an input of {shape} voxels does not fit the network, which answers for multiples of {lattice} voxels "
        f"and needs {shrink} more on each side: the next input that fits is {fit}"
    )


def fitting_input(min_output_shape: Sequence[int], lattice: Vec, shrink: Vec) -> Vec:
    """Return the smallest positive multiple of the lattice that covers a shape, plus `shrink` per side."""
    shape = zip(_vec(min_output_shape), lattice, shrink, strict=True)
    return _vec(max(1, -(-n // step)) * step + 2 * s for n, step, s in shape)


def space_to_depth(x: Tensor, factor: Vec) -> Tensor:
    """Fold cells of voxels into channels: ``[N, C, Z, Y, X]`` -> ``[N, C * prod(factor), Z / f_z, ...]``."""
    if factor == (1, 1, 1):
        return x
    n, c, *zyx = x.shape
    a, b, d = factor
    z, y, w = (size // f for size, f in zip(zyx, factor, strict=True))
    cells = x.reshape(n, c, z, a, y, b, w, d).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return cells.reshape(n, c * a * b * d, z, y, w)


def depth_to_space(x: Tensor, factor: Vec) -> Tensor:
    """Unfold channels into cells of voxels: the exact inverse of `space_to_depth`."""
    if factor == (1, 1, 1):
        return x
    n, c, z, y, w = x.shape
    a, b, d = factor
    cells = x.reshape(n, c // (a * b * d), a, b, d, z, y, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return cells.reshape(n, c // (a * b * d), z * a, y * b, w * d)


def crop(x: Tensor, margin: Vec) -> Tensor:
    """Return ``[N, C, Z, Y, X]`` without `margin` voxels on each side."""
    z, y, w = (slice(m, size - m) for m, size in zip(margin, x.shape[2:], strict=True))
    return x[:, :, z, y, w]


def _vec(values: Iterable[int]) -> Vec:
    z, y, x = (int(v) for v in values)
    return (z, y, x)
