"""Local shape descriptors of a batch, in torch, on a processor or a GPU; defined in `emloom.ops.descriptors`.

Every object of the batch is cut out where it is seen, and objects of like size are worked on together. Moments are
three products with banded matrices, one per axis, in which row ``o`` holds the window around voxel ``o``::

    x    [3, Ox, Ix]   w, w d, w d^2      sums of the object's mask
    y    [3, Oy, Iy]   powers (y, x): 00 01 02 10 11 20
    z    [3, Oz, Iz]   the ten moments

Sums are float64 unless asked otherwise: variance is the difference of two squares, of which float32 leaves 1e-7 of
the squared distance, and in a thin object that the window sees from afar this is more than the variance itself. On
real neurites float32 differs by 1e-6. TF32 and autocast are off for the products, whatever is set around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import sub
from emloom.ops.descriptors import SMALLEST_VARIANCE_NM2, checked, context_vox, seen_box, window

N_CHANNELS = 10
_BUCKET = 8  # crops are padded to multiples of this, so that many have one shape
_LARGEST = 2**24  # elements of an intermediate result, unless one object alone has more


def local_shape_descriptors(
    labels_NZYX: Tensor,
    spacing_nm: Sequence[float],
    sigma_nm: float | Sequence[float] = 80.0,
    *,
    downsample: int | Sequence[int] = (1, 1, 1),
    box: Box | None = None,
    known_NZYX: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Return the descriptors of `emloom.ops.descriptors.local_shape_descriptors` for every sample of a batch.

    Args:
        labels_NZYX: instance ids, any integer type, at least 0; 0 is background. Ids of two samples have nothing
            to do with each other.
        spacing_nm: voxel size (z, y, x) in nm.
        sigma_nm: standard deviation of the window in nm, or one per axis (z, y, x).
        downsample: see objects on every f-th voxel only, per axis (z, y, x).
        box: voxels to describe; the rest of the array is context. Default: all.
        known_NZYX: 0 where labels are unknown; None: all known.
        dtype: of the sums; see the module before choosing float32.

    Returns:
        descriptors float32 [N, 10, Z, Y, X] in [0, 1] and weight uint8 [N, Z, Y, X] of `box`, on the labels'
        device.

    Raises:
        InputError: labels are not integers [N, Z, Y, X] or below 0, the mask has another shape, a length is not
            positive, or `box` leaves the array.
    """
    spacing, sigma, factor = checked(spacing_nm, sigma_nm, downsample)
    _require(labels_NZYX, known_NZYX)
    whole = Box.whole(labels_NZYX.shape[1:])
    box = whole if box is None else box
    seen = seen_box(box, whole, context_vox(spacing, sigma, factor), factor)
    coarse = labels_NZYX[:, *seen.slices()][:, :: factor[0], :: factor[1], :: factor[2]]
    found = _find(labels_NZYX[:, *box.slices()], coarse, (factor, sub(box.start, seen.start)))
    device = labels_NZYX.device
    windows = [
        torch.as_tensor(window(s * f, g), dtype=dtype, device=device)
        for s, f, g in zip(spacing, factor, sigma, strict=True)
    ]
    floors = torch.as_tensor([SMALLEST_VARIANCE_NM2 / s**2 for s in sigma], dtype=dtype, device=device)
    lsds = torch.zeros((len(labels_NZYX), N_CHANNELS, *box.shape), device=device)
    with torch.no_grad(), _exact_products(device):
        for group in _groups(found, [w.shape[1] // 2 for w in windows]):
            channels = _channels(_moments(found.coarse, group, windows), floors)
            _spread(channels, group, found, lsds)
    weight = (lsds[:, -1] > 0).to(torch.uint8)
    if known_NZYX is not None:
        weight *= (known_NZYX[:, *box.slices()] != 0).to(torch.uint8)
    return lsds, weight


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Multiply in the type that is given: no TF32, no autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _require(labels: Tensor, known: Tensor | None) -> None:
    if labels.ndim != 4 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels are {labels.dtype} {tuple(labels.shape)}: give integers [N, Z, Y, X]")
    if labels.numel() and int(labels.min()) < 0:
        raise InputError(f"labels hold {int(labels.min())}: ids are 1 or more, background is 0")
    if known is not None and known.shape != labels.shape:
        raise InputError(f"mask has shape {tuple(known.shape)}, labels {tuple(labels.shape)}: same voxels")


@dataclass(frozen=True)
class _Found:
    """Objects that occur in the box, numbered from 0 throughout the batch; places on the strided grid.

    Attributes:
        coarse: [N, Z, Y, X] numbers on the strided grid; -1: none.
        place: [V, 4] sample, z, y, x in the box of every voxel to describe, object by object.
        strided: [V, 3] the voxel that stands for it.
        ends: where the voxels of each object end, K numbers.
        sample: [K].
        boxes: [K, 4, 3] low and high of what is seen of the object, low and high of what is to be described.
    """

    coarse: Tensor
    place: Tensor
    strided: Tensor
    ends: list[int]
    sample: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class _Group:
    """Objects [B] whose padded crops have one shape.

    Attributes:
        number: [B] of the objects.
        sample: [B].
        low_in, low_out: [B, 3] first voxels seen and described.
        shape_in, shape_out: of the crops.
    """

    number: Tensor
    sample: Tensor
    low_in: Tensor
    low_out: Tensor
    shape_in: Vec
    shape_out: Vec


def _find(fine: Tensor, coarse: Tensor, frame: tuple[Vec, Vec]) -> _Found:
    ids = [torch.unique(labels) for labels in fine]
    ids = [present[present > 0] for present in ids]
    counts = torch.tensor([len(present) for present in ids], dtype=torch.long)
    samples = torch.repeat_interleave(counts).to(fine.device)
    n = len(samples)
    firsts = (torch.cumsum(counts, 0) - counts).tolist()
    fine, coarse = _numbered(fine, ids, firsts), _numbered(coarse, ids, firsts)
    place = torch.nonzero(fine >= 0)
    number = fine[tuple(place.T)]
    number, order = torch.sort(number, stable=True)
    place = place[order]
    factor, start = (torch.tensor(v, device=fine.device) for v in frame)
    strided = (place[:, 1:] + start) // factor
    seen = torch.nonzero(coarse >= 0)
    boxes = torch.stack([*_extents(seen[:, 1:], coarse[tuple(seen.T)], n), *_extents(strided, number, n)], 1)
    ends = torch.cumsum(torch.bincount(number, minlength=n), 0).tolist()
    return _Found(coarse, place, strided, ends, samples, boxes)


def _numbered(labels: Tensor, ids: list[Tensor], firsts: list[int]) -> Tensor:
    """Return the number of every id that is listed for its sample, counted from `firsts`; else -1."""
    out = torch.full(labels.shape, -1, dtype=torch.long, device=labels.device)
    for inside, present, first, numbers in zip(labels, ids, firsts, out, strict=True):
        if len(present):
            at = torch.searchsorted(present, inside.contiguous()).clamp(max=len(present) - 1)
            numbers[:] = torch.where(present[at] == inside, at + first, -1)
    return out


def _extents(places: Tensor, number: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the lowest and one past the highest place of every object; where it has none, an empty box."""
    index = number[:, None].expand(-1, 3)
    low = places.new_full((n, 3), torch.iinfo(torch.int32).max).scatter_reduce(0, index, places, "amin")
    high = places.new_zeros((n, 3)).scatter_reduce(0, index, places + 1, "amax")
    return low, high


def _groups(found: _Found, radii: list[int]) -> Iterator[_Group]:
    """Yield objects of like size together, as many as memory allows."""
    reach = torch.tensor(radii, device=found.boxes.device)
    low, high, low_out, high_out = found.boxes.unbind(1)
    low, high = torch.maximum(low, low_out - reach), torch.minimum(high, high_out + reach)
    sizes = torch.cat([high - low, high_out - low_out], 1)
    visible = (sizes > 0).all(1).tolist()
    padded = (-(-sizes // _BUCKET) * _BUCKET).tolist()
    members: dict[tuple[Vec, Vec], list[int]] = {}
    for k, (iz, iy, ix, oz, oy, ox) in enumerate(padded):
        if visible[k]:  # else nothing of it stands on the strided grid within reach
            members.setdefault(((iz, iy, ix), (oz, oy, ox)), []).append(k)
    for (shape_in, shape_out), numbers in members.items():
        (iz, iy, _), (oz, oy, ox) = shape_in, shape_out
        each = max(3 * iz * iy * ox, 6 * iz * oy * ox, N_CHANNELS * oz * oy * ox)
        size = max(1, _LARGEST // each)
        for first in range(0, len(numbers), size):
            some = torch.tensor(numbers[first : first + size], device=low.device)
            yield _Group(some, found.sample[some], low[some], low_out[some], shape_in, shape_out)


def _moments(coarse: Tensor, group: _Group, windows: list[Tensor]) -> Tensor:
    """Return the moments [B, 10, Oz, Oy, Ox], by powers (z, y, x): 000 001 002 010 011 020 100 101 110 200."""
    at = [group.low_in[:, a, None] + torch.arange(group.shape_in[a], device=coarse.device) for a in range(3)]
    inside = [index < size for index, size in zip(at, coarse.shape[1:], strict=True)]
    index = [i.clamp(max=size - 1) for i, size in zip(at, coarse.shape[1:], strict=True)]
    number = coarse[
        group.sample[:, None, None, None],
        index[0][:, :, None, None],
        index[1][:, None, :, None],
        index[2][:, None, None],
    ]
    mask = number == group.number[:, None, None, None]
    mask &= inside[0][:, :, None, None] & inside[1][:, None, :, None] & inside[2][:, None, None]
    z, y, x = (_band(windows[a], at[a], group.low_out[:, a], group.shape_out[a]) for a in range(3))
    sums = mask[:, None].to(x.dtype) @ x.transpose(-1, -2)[:, :, None]
    sums = torch.cat([y[:, p, None, None] @ sums[:, : 3 - p] for p in range(3)], 1)
    rows = ([0, 1, 2, 3, 4, 5], [0, 1, 3], [0])  # whose powers leave room for another one, and for two, of z
    done = torch.cat([z[:, p, None] @ sums[:, rows[p]].flatten(3) for p in range(3)], 1)
    return done.reshape(*done.shape[:3], *sums.shape[3:])


def _band(window: Tensor, at: Tensor, low_out: Tensor, n_out: int) -> Tensor:
    """Return the banded matrices [B, 3, O, I] of a window, whose columns stand at `at`; 0 beyond the window."""
    out = low_out[:, None] + torch.arange(n_out, device=at.device)
    d = at[:, None, :] - out[:, :, None] + window.shape[1] // 2
    table = torch.cat([window, window.new_zeros(3, 1)], 1)
    beyond = (d < 0) | (d >= window.shape[1])
    matrices: Tensor = table[:, torch.where(beyond, window.shape[1], d)].transpose(0, 1)
    return matrices


def _channels(moments: Tensor, floors: Tensor) -> Tensor:
    """Return the ten channels, as float32; all 0 where the window sees nothing of the object."""
    size = moments[:, 0]
    seen = size > 0
    x, xx, y, yx, yy, z, zx, zy, zz = (moments[:, 1:] / torch.where(seen, size, 1)[:, None]).unbind(1)
    pairs = ((z, zz), (y, yy), (x, xx))
    mean = [a / 2 + 0.5 for a, _ in pairs]
    variance = [torch.maximum(aa - a * a, floor) for (a, aa), floor in zip(pairs, floors, strict=True)]
    products = ((zy - z * y, 0, 1), (zx - z * x, 0, 2), (yx - y * x, 1, 2))
    pearson = [c / torch.sqrt(variance[i] * variance[j]) / 2 + 0.5 for c, i, j in products]
    return (torch.stack([*mean, *variance, *pearson, size], 1).clamp(0, 1) * seen[:, None]).float()


def _spread(channels: Tensor, group: _Group, found: _Found, lsds: Tensor) -> None:
    """Give every voxel of the group's objects the channels of the strided voxel that stands for it."""
    numbers = group.number.tolist()
    spans = [(found.ends[k - 1] if k else 0, found.ends[k]) for k in numbers]
    rows = torch.cat([torch.arange(a, b, device=lsds.device) for a, b in spans])
    local = torch.repeat_interleave(torch.tensor([b - a for a, b in spans], device=lsds.device))
    z, y, x = (found.strided[rows] - group.low_out[local]).T
    sample, fine_z, fine_y, fine_x = found.place[rows].T
    lsds[sample, :, fine_z, fine_y, fine_x] = channels[local, :, z, y, x]
