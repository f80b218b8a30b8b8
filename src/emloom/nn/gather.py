"""The gather of augmentation in torch: what `emloom.ops.resample` does, on any device, from the same arguments.

Sources are uploaded as they are (uint8 raw is a quarter of float32), and everything else happens on the device.
Voxels are found by whole-number arithmetic in flattened sources, never by `grid_sample`, whose normalised float32
coordinates shift positions and cannot carry ids. Positions are computed as the numba kernels do, step by step, so
both agree to rounding: raw to 2e-5, labels but where a position lies in the middle of two voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emloom.geometry import Box
from emloom.ops.deformation import CoordinateMap
from emloom.ops.resample import LabelPart, Moves, RawPart

Gathered = tuple[Tensor, Tensor, Tensor]

_UPLOADED = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}
"""Types that torch stores but cannot index."""


def gather_torch(
    mapping: CoordinateMap, raw: RawPart, labels: LabelPart, device: torch.device | str = "cpu"
) -> Gathered:
    """Return (raw float32, labels int64, known uint8), each ``ZYX`` of its part, on the device.

    Ids are exact; those of uint64 from 2^63 on keep their bits and show as negative. The device needs float64.
    """
    where = torch.device(device)
    return _gather_raw(mapping, raw, where), *_gather_labels(mapping, labels, where)


def gather_batch(
    samples: Sequence[tuple[CoordinateMap, RawPart, LabelPart]], device: torch.device | str = "cpu"
) -> Gathered:
    """Return what `gather_torch` does for samples whose parts have one shape, each ``NZYX``."""
    raw, labels, known = zip(*(gather_torch(*sample, device) for sample in samples), strict=True)
    return torch.stack(raw), torch.stack(labels), torch.stack(known)


def _gather_raw(mapping: CoordinateMap, raw: RawPart, device: torch.device) -> Tensor:
    whole, part = _locate(mapping, raw.part, raw.moves, raw.origin, device)
    source = _upload(raw.source, device)
    flat, (_, ny, nx) = source.reshape(-1), source.shape
    index = (whole[0] * ny + whole[1]) * nx + whole[2]

    def plane(first: int) -> Tensor:
        a, b, c, d = (flat[index + (first + step)].float() for step in (0, 1, nx, nx + 1))
        top, bottom = a + (b - a) * part[2], c + (d - c) * part[2]
        return top + (bottom - top) * part[1]

    value = plane(0)
    if not mapping.planar:
        value = value + (plane(ny * nx) - value) * part[0]
    low, factor = (float(v) for v in np.array([raw.range[0], 2.0 / (raw.range[1] - raw.range[0])], np.float32))
    value = (value - low) * factor - 1.0
    return _apply_tables(value, raw, device)


def _apply_tables(value: Tensor, raw: RawPart, device: torch.device) -> Tensor:
    sections = slice(raw.part.start[0], raw.part.stop[0])
    if not raw.toned[sections].any():
        return value
    tables = _upload(raw.tables[sections], device)
    size = tables.shape[1] - 1
    t = (value * (size / 2) + size / 2).clamp(0.0, size)
    k = t.clamp(max=size - 1).long()
    at = torch.arange(len(tables), device=device)[:, None, None] * (size + 1) + k
    low, high = tables.reshape(-1)[at], tables.reshape(-1)[at + 1]
    toned = _upload(raw.toned[sections], device).bool()[:, None, None]
    return torch.where(toned, low + (high - low) * (t - k), value)


def _gather_labels(mapping: CoordinateMap, labels: LabelPart, device: torch.device) -> tuple[Tensor, Tensor]:
    whole, part = _locate(mapping, labels.part, labels.moves, labels.origin, device)
    z, y, x = whole + (part >= 0.5).long()
    index = (z * labels.source.shape[1] + y) * labels.source.shape[2] + x
    ids = _upload(labels.source, device).reshape(-1)[index].long()
    if not labels.known.size:
        return ids, torch.ones(labels.part.shape, dtype=torch.uint8, device=device)
    return ids, _upload(labels.known, device).reshape(-1)[index]


def _upload(array: NDArray[Any], device: torch.device) -> Tensor:
    # A copy of views and of read-only arrays: torch takes neither.
    kept = np.require(array, _UPLOADED.get(array.dtype), ["C", "W"])
    return torch.from_numpy(kept).to(device)


def _locate(
    mapping: CoordinateMap, part: Box, moves: Moves, origin: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return whole voxels (int64) and fractions (float32) of positions in the source, ``[3, Z, Y, X]``."""
    (za, ya, xa), (zb, yb, xb) = part.start, part.stop
    base = np.broadcast_to(np.array(origin, float), (zb - za, 3)).copy()
    base[:, 1:] -= moves.shift[za:zb]
    nodes = _upload(mapping.nodes[za:zb] - base[:, :, None, None], device)
    column, along = _between(xa, xb, mapping.step, nodes.shape[3], device)
    low = nodes[..., column]
    # float64 up to here, float32 from here on, as in the kernels.
    lines = (low + (nodes[..., column + 1] - low) / mapping.step * along).float()
    row, down = _between(ya, yb, mapping.step, nodes.shape[2], device)
    first = lines[:, :, row]
    position = first + (lines[:, :, row + 1] - first) * (down / mapping.step).float()[:, None]
    if mapping.planar:
        position[:, 0] = (torch.arange(za, zb, device=device) - origin[0])[:, None, None]
    position = position.transpose(0, 1)
    whole = position.floor()
    return _bend(whole.long(), position - whole, part, moves)


def _between(start: int, stop: int, step: int, nodes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return, for voxels along an axis, the node before each (int64) and how far it lies beyond it (float64)."""
    voxel = torch.arange(start, stop, device=device)
    node = (voxel // step).clamp(max=nodes - 2)
    return node, (voxel - node * step).double()


def _bend(whole: Tensor, fraction: Tensor, part: Box, moves: Moves) -> tuple[Tensor, Tensor]:
    """Pull folded sections towards their lines."""
    device = whole.device
    y = torch.arange(part.start[1], part.stop[1], device=device, dtype=torch.float64)[:, None]
    x = torch.arange(part.start[2], part.stop[2], device=device, dtype=torch.float64)
    for z in np.flatnonzero(moves.folds[:, 3]):
        i = int(z) - part.start[0]
        if not 0 <= i < part.shape[0]:
            continue
        ny, nx, c, strength = (float(v) for v in moves.folds[z])
        far = ny * y + nx * x > c
        for axis, normal in ((1, ny), (2, nx)):
            pull = torch.tensor(strength * normal, dtype=torch.float32, device=device)
            moved = fraction[axis, i] + torch.where(far, pull, -pull)
            step = moved.floor()
            whole[axis, i] += step.long()
            fraction[axis, i] = moved - step
    return whole, fraction
