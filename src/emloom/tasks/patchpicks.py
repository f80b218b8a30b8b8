"""Which patches somebody shall look at: all of a lattice, or a random few from everywhere.

A random sample is **stratified**: the places where a patch may begin are cut into about as many blocks as
patches are wanted, cubes in nm as nearly as whole voxels allow, and every block gives one before any gives a
second. So two hundred patches come from two hundred places, not from two columns (88 % of the clean patches of
genEM3 did). Patches of one value throughout, where nothing was recorded, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import UNKNOWN, PatchLabels
from emloom.io.volume import Volume, VolumeInfo

Rows = NDArray[np.int64]

MOST = 1_000_000
"""Patches of a lattice that are listed: nobody looks at more."""

_ROUNDS = 20


def unknown_labels(
    info: VolumeInfo, shape: Vec, starts_N3: Rows, classes: tuple[str, ...], source: str = "patches"
) -> PatchLabels:
    """Return patches of a volume of which nobody has said anything."""
    starts = np.asarray(starts_N3, np.int64).reshape(-1, 3)
    return PatchLabels(
        info.grid, shape, starts, classes, np.full((len(starts), len(classes)), UNKNOWN, np.int8), source=source
    )


def places_of(info: VolumeInfo, shape: Vec) -> Box:
    """Return the voxels at which a patch may begin so that it lies in the volume.

    Raises:
        InputError: the volume is smaller than a patch.
    """
    room = tuple(n - size + 1 for n, size in zip(info.shape, shape, strict=True))
    if min(room) < 1:
        raise InputError(
            f"a patch of {tuple(shape)} voxels does not fit into {info.source}, {info.shape} (z, y, x): choose a "
            "smaller patch"
        )
    return Box.whole(room)


def lattice_patches(info: VolumeInfo, lattice: Lattice) -> Rows:
    """Return where the patches of a lattice that lie in a volume begin, int64 [N, 3], x fastest.

    Raises:
        InputError: there are none, or too many to look at.
    """
    places_of(info, lattice.shape)
    indices = lattice.inside(info.box)
    if not 0 < indices.size <= MOST:
        raise InputError(
            f"{indices.size} patches of {lattice.shape} every {lattice.stride} voxels lie in {info.source}: "
            f"choose 1 to {MOST}, by a stride of other length, or a random sample"
        )
    return lattice.starts(indices)


def random_patches(raw: Volume, shape: Vec, count: int, seed: int = 0, *, blank: bool = False) -> Rows:
    """Return where patches of a stratified random sample begin, int64 [count, 3], each once, in random order.

    Fewer, where the volume has no more places, or nearly all of it is of one value.

    Args:
        raw: what they are patches of.
        shape: voxels (z, y, x) of a patch.
        count: how many.
        seed: of all randomness.
        blank: take patches of one value throughout, too.

    Raises:
        InputError: the volume is smaller than a patch, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"a sample of {count} patches is none: give at least 1")
    places = places_of(raw.info, shape)
    generator = np.random.default_rng(seed)
    taken: dict[Vec, None] = {}
    if places.size <= count:
        drawn: Iterator[Vec] = _everywhere(places, generator)
    else:
        drawn = _drawn(strata(places, raw.info.grid.voxel_size_nm, count), generator, count * _ROUNDS)
    for start in drawn:
        if start not in taken and (blank or not _is_blank(raw, Box(start, shape))):
            taken[start] = None
        if len(taken) == count:
            break
    return np.array(list(taken), np.int64).reshape(-1, 3)


def strata(places: Box, voxel_size_nm: tuple[float, float, float], count: int) -> list[Box]:
    """Return boxes that share out the places: at least `count` of them, as nearly cubes in nm as can be."""
    extent = np.array(places.shape) * np.array(voxel_size_nm)
    low, high = 0.0, float(extent.max())

    def cut(edge_nm: float) -> list[int]:
        return [
            min(n, max(1, ceil(length / edge_nm))) for n, length in zip(places.shape, extent.tolist(), strict=True)
        ]

    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if prod(cut(middle)) >= count else (low, middle)
    parts = cut(low) if low > 0 else list(places.shape)
    faces = [
        [start + n * k // m for k in range(m + 1)]
        for start, n, m in zip(places.start, places.shape, parts, strict=True)
    ]
    return [
        Box.of(
            [axis[k] for axis, k in zip(faces, index, strict=True)],
            [axis[k + 1] for axis, k in zip(faces, index, strict=True)],
        )
        for index in product(*(range(m) for m in parts))
    ]


def _everywhere(places: Box, generator: np.random.Generator) -> Iterator[Vec]:
    for flat in generator.permutation(places.size).tolist():
        yield as_vec([int(v) + a for v, a in zip(np.unravel_index(flat, places.shape), places.start, strict=True)])


def _drawn(boxes: list[Box], generator: np.random.Generator, most: int) -> Iterator[Vec]:
    """Yield one place of each box, in random order, then another of each, ..."""
    left = most
    while left > 0:
        for number in generator.permutation(len(boxes)).tolist():
            box = boxes[number]
            yield as_vec([int(v) for v in generator.integers(box.start, box.stop)])
            left -= 1


def _is_blank(raw: Volume, box: Box) -> bool:
    voxels = raw.read(box)
    return bool((voxels == voxels.flat[0]).all())
