"""All geometry of an augmented sample as one coordinate map: output voxel -> position in the source frame.

A *frame* is the box of voxels a sample is made of. For the output voxel ``p = (z, y, x)`` of the frame, with the
centre ``c = (shape - 1) / 2``, the map is::

    r(p) = c + A (p - c) + e(p) + t[z]

    A      rotation, scale and shear within the section, in physical units (pixels need not be square)
    e(p)   elastic: a cubic B-spline through independent normal control points
    t[z]   whole-voxel displacement of section z within its plane: slips and shifts

The elastic field is divided by the norm of the spline's weights at every voxel, so its standard deviation is
*exactly* the one asked for, everywhere, not only on average and not only at the control points.

The map is kept at nodes: every section, and every `step` voxels within it; between nodes it is linear. What the
gather samples, `positions` returns and `inverse` inverts is this one linear map, so raw, labels and points agree.
Its extremes stand at nodes, hence the box to be read from the source is exact (`box_to_read`). Where A is the
identity and nothing else moves, positions are whole numbers and the gather copies voxels bit for bit.

A *fold* of a section pulls both sides of a line towards it, so a stripe of tissue disappears::

    n . p > c:  r(p) + s n            n . p <= c:  r(p) - s n           n: unit normal, s: strength, voxels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, radians, sin, tan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Nodes are at most this many voxels apart within a section.
LARGEST_STEP = 8
_INVERSE_STEPS = 50
_SLACK_VOX = 1e-2
_INVERSE_TOLERANCE_VOX = 1e-4


@dataclass(frozen=True)
class Elastic:
    """Independent standard normal displacements on a lattice of control points.

    Attributes:
        spacing_vox: distance (z, y, x) of control points.
        sigma_vox: standard deviation (z, y, x) of the displacement of every voxel; 0 leaves an axis alone.
        normals: ``[axes with sigma > 0, Cz, Cy, Cx]``, see `control_shape`.
    """

    spacing_vox: tuple[float, float, float]
    sigma_vox: tuple[float, float, float]
    normals: F64


@dataclass(frozen=True)
class CoordinateMap:
    """Where every voxel of a frame comes from.

    Attributes:
        shape: voxels (z, y, x) of the frame.
        step: voxels between nodes within a section.
        nodes: ``[Z, 3, Gy, Gx]`` source position (z, y, x) of the nodes of every section; all zeros along the
            first of the three where `planar`, because then z is the section's own number.
        linear: A as ``[2, 2]`` (y, x); the approximate slope of the map, from which its inverse starts.
        planar: whether every voxel comes from the section of its own number.
    """

    shape: Vec
    step: int
    nodes: F64 = field(repr=False)
    linear: F64
    planar: bool


def linear_map(
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    shear_deg: float = 0.0,
    spacing_yx_nm: Sequence[float] = (1.0, 1.0),
) -> F64:
    """Return A as ``[2, 2]`` (y, x): from displacements in the output to displacements in the source, voxels.

    Args:
        rotation_deg: content turns by this angle from y to x.
        scale: content becomes this many times larger.
        shear_deg: content shears along x by this angle.
        spacing_yx_nm: voxel size, so that a rotation is one in nm.

    Raises:
        InputError: scale is not positive, or the shear is 90 degrees or more.
    """
    if scale <= 0 or abs(shear_deg) >= 90:
        raise InputError(f"scale {scale} and shear {shear_deg} deg: give a scale above 0 and a shear below 90 deg")
    if rotation_deg == 0 and scale == 1 and shear_deg == 0:
        return np.eye(2)
    a = radians(rotation_deg)
    turn = np.array([[cos(a), -sin(a)], [sin(a), cos(a)]])
    shear = np.array([[1.0, 0.0], [tan(radians(shear_deg)), 1.0]])
    nm = np.diag(np.asarray(spacing_yx_nm, float))
    forward = turn @ shear * scale
    inverse: F64 = np.linalg.inv(nm) @ np.linalg.inv(forward) @ nm
    return inverse


def control_shape(shape: Vec, spacing_vox: Sequence[float]) -> Vec:
    """Return how many control points (z, y, x) a frame needs: the spline at a voxel depends on four per axis."""
    z, y, x = (int((n - 1) / s) + 4 for n, s in zip(shape, spacing_vox, strict=True))
    return (z, y, x)


def coordinate_map(shape: Vec, linear: F64 | None = None, elastic: Elastic | None = None) -> CoordinateMap:
    """Return the map of a frame.

    Args:
        shape: voxels (z, y, x) of the frame.
        linear: A, see `linear_map`; None is the identity.
        elastic: control points; None is none.

    Raises:
        InputError: the control points are not those of the frame, or a spacing or sigma is not valid.
    """
    a = np.eye(2) if linear is None else np.asarray(linear, float)
    step = LARGEST_STEP if elastic is None else _step_of(elastic)
    y, x = _node_axis(shape[1], step), _node_axis(shape[2], step)
    nodes = np.zeros((shape[0], 3, y.size, x.size))
    cy, cx = (shape[1] - 1) / 2, (shape[2] - 1) / 2
    if linear is None or np.array_equal(a, np.eye(2)):
        nodes[:, 1], nodes[:, 2] = y[:, None], x  # not c + (p - c): halves would cost the last bit
    else:
        dy, dx = (y - cy)[:, None], x - cx
        nodes[:, 1] = cy + a[0, 0] * dy + a[0, 1] * dx
        nodes[:, 2] = cx + a[1, 0] * dy + a[1, 1] * dx
    planar = elastic is None or elastic.sigma_vox[0] == 0
    if elastic is not None:
        moves = _spline(
            elastic, (np.arange(shape[0], dtype=float), y, x), control_shape(shape, elastic.spacing_vox)
        )
        for axis, move in moves.items():
            nodes[:, axis] += move
    if not planar:
        nodes[:, 0] += np.arange(shape[0])[:, None, None]
    return CoordinateMap(shape, step, nodes, a, planar)


def _step_of(elastic: Elastic) -> int:
    """Return the node distance: a power of two, at most a quarter of the control points' distance."""
    if min(elastic.spacing_vox) <= 0 or min(elastic.sigma_vox) < 0:
        raise InputError(
            f"control points every {elastic.spacing_vox} voxels that move by {elastic.sigma_vox}: spacing must be "
            "positive and sigma not negative"
        )
    step = LARGEST_STEP
    while step > 1 and step > min(elastic.spacing_vox[1:]) / 4:
        step //= 2
    return step


def _node_axis(extent: int, step: int) -> F64:
    """Return node positions that cover voxels 0 .. extent - 1."""
    return np.arange(0, max(1, -(-(extent - 1) // step)) + 1, dtype=float) * step


def _spline(elastic: Elastic, at: tuple[F64, F64, F64], control: Vec) -> dict[int, F64]:
    """Return the displacement of the axes that move, ``[Z, Gy, Gx]`` each, voxels."""
    moving = [axis for axis in range(3) if elastic.sigma_vox[axis] > 0]
    if elastic.normals.shape != (len(moving), *control):
        raise InputError(
            f"control points of shape {elastic.normals.shape}: this frame needs {(len(moving), *control)}"
        )
    # Nodes may lie up to a step beyond the last voxel: they see the last control points there.
    weights = [_weights(p / s, n) for p, s, n in zip(at, elastic.spacing_vox, control, strict=True)]
    out = {}
    for index, axis in enumerate(moving):
        along_z = weights[0] @ elastic.normals[index].reshape(control[0], -1)
        field_zyx = np.matmul(weights[1], along_z.reshape(-1, *control[1:]))
        out[axis] = np.matmul(field_zyx, weights[2].T) * elastic.sigma_vox[axis]
    return out


def _weights(u: F64, control: int) -> F64:
    """Return cubic B-spline weights ``[positions, control points]``, each row of norm 1."""
    u = np.clip(u, 0, control - 3 - 1e-9)
    base = np.floor(u).astype(int)
    t = u - base
    cubic = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    cubic /= np.linalg.norm(cubic, axis=1, keepdims=True)
    out = np.zeros((u.size, control))
    np.put_along_axis(out, base[:, None] + np.arange(4), cubic, axis=1)
    return out


def positions(mapping: CoordinateMap, points: NDArray[Any], moves: I64, folds: F64 | None = None) -> F64:
    """Return the source positions ``[N, 3]`` of points of the frame.

    A point belongs to the section whose voxels are nearest; beyond the frame the map goes on linearly.

    Args:
        mapping: the map.
        points: ``[N, 3]`` (z, y, x) in voxels of the frame; a voxel's centre is a whole number.
        moves: ``[Z, 2]`` t, voxels (y, x) per section.
        folds: ``[Z, 4]`` n_y, n_x, c, strength per section; None: nothing is folded.
    """
    p = np.asarray(points, float)
    section = np.clip(np.floor(p[:, 0] + 0.5), 0, mapping.shape[0] - 1).astype(int)
    gy, gx = mapping.nodes.shape[2:]
    y, x = p[:, 1] / mapping.step, p[:, 2] / mapping.step
    iy, ix = np.clip(np.floor(y), 0, gy - 2).astype(int), np.clip(np.floor(x), 0, gx - 2).astype(int)
    fy, fx = (y - iy)[:, None], (x - ix)[:, None]
    n = mapping.nodes
    low = n[section, :, iy, ix] * (1 - fx) + n[section, :, iy, ix + 1] * fx
    high = n[section, :, iy + 1, ix] * (1 - fx) + n[section, :, iy + 1, ix + 1] * fx
    out: F64 = low * (1 - fy) + high * fy
    out[:, 0] = p[:, 0] if mapping.planar else out[:, 0] + p[:, 0] - section
    out[:, 1:] += moves[section]
    if folds is not None:
        ny, nx, c, strength = folds[section].T
        side = np.where(ny * p[:, 1] + nx * p[:, 2] > c, strength, -strength)
        out[:, 1:] += side[:, None] * np.stack([ny, nx], axis=1)
    return out


def inverse(mapping: CoordinateMap, positions_N3: NDArray[Any], moves: I64, folds: F64 | None = None) -> F64:
    """Return the points of the frame whose source positions these are; NaN where there is none.

    There is none for what lies in the stripe a fold has hidden, in tissue that a slip moved out of its section,
    and far outside the frame. Solved section by section, the nearest first, by iteration within the section:
    ``p <- p + A^-1 (s - r(p))``, to 1e-4 voxels.

    Args:
        mapping: the map.
        positions_N3: ``[N, 3]`` (z, y, x) in voxels of the source frame.
        moves: see `positions`.
        folds: see `positions`.
    """
    s = np.asarray(positions_N3, float)
    out: F64 = np.full_like(s, np.nan)
    last = mapping.shape[0] - 1
    for offset in _sections_apart(mapping):
        left = np.flatnonzero(np.isnan(out[:, 0]))
        if not left.size:
            break
        section = np.clip(np.floor(s[left, 0] + 0.5) + offset, 0, last)
        p = _inverse_within(mapping, s[left], section, (moves, folds))
        # A solution counts if it lies in the section it was sought in: its neighbour may have moved elsewhere.
        there = np.clip(np.floor(p[:, 0] + 0.5), 0, last) == section
        out[left[there]] = p[there]
    return out


def _sections_apart(mapping: CoordinateMap) -> list[int]:
    """Return by how many sections voxels may be displaced, small steps first."""
    if mapping.planar:
        return [0]
    along_z = mapping.nodes[:, 0] - np.arange(mapping.shape[0])[:, None, None]
    reach = int(np.ceil(np.abs(along_z).max()))
    return sorted(range(-reach, reach + 1), key=abs)


def _inverse_within(mapping: CoordinateMap, s: F64, section: F64, moved: tuple[I64, F64 | None]) -> F64:
    """Return the points of given sections whose source positions these are; NaN where iteration finds none."""
    solve = np.linalg.inv(mapping.linear)
    centre = (np.array(mapping.shape[1:]) - 1) / 2
    p = np.column_stack([section, (s[:, 1:] - centre) @ solve.T + centre])
    for _ in range(_INVERSE_STEPS):
        missing = s - positions(mapping, p, *moved)
        left = np.abs(missing[:, 1:]).max(axis=1)
        if left.max() < _INVERSE_TOLERANCE_VOX:
            break
        p[:, 1:] += missing[:, 1:] @ solve.T
    p[:, 0] += missing[:, 0]
    p[left >= _INVERSE_TOLERANCE_VOX] = np.nan
    return p


def box_to_read(mapping: CoordinateMap, part: Box, moves: I64, reach_vox: F64 | None = None) -> Box:
    """Return the source voxels that the linear gather of a part of the frame touches.

    Args:
        mapping: the map.
        part: box of the frame's voxels.
        moves: see `positions`.
        reach_vox: how far each section's fold reaches, voxels; None: nothing is folded.
    """
    z0, z1 = part.start[0], part.stop[0]
    faces = zip(part.start[1:], part.stop[1:], strict=True)
    y, x = (slice(a // mapping.step, -(-(b - 1) // mapping.step) + 1) for a, b in faces)
    nodes = mapping.nodes[z0:z1, :, y, x]
    low, high = nodes.min(axis=(2, 3)), nodes.max(axis=(2, 3))
    reach = np.zeros(z1 - z0) if reach_vox is None else np.asarray(reach_vox, float)[z0:z1]
    low[:, 1:] += moves[z0:z1] - reach[:, None]
    high[:, 1:] += moves[z0:z1] + reach[:, None]
    # Between nodes of whole numbers nothing is rounded; elsewhere float32 may be off in the fourth decimal.
    slack = 0.0 if np.array_equal(low, np.round(low)) and np.array_equal(high, np.round(high)) else _SLACK_VOX
    start, stop = np.floor(low.min(axis=0) - slack), np.floor(high.max(axis=0) + slack) + 2
    if mapping.planar:
        start[0], stop[0] = z0, z1
    return Box.of([int(v) for v in start], [int(v) for v in stop])
