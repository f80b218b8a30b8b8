"""Pairs of synaptic partners as two lists of points, and the segments they lie in.

A partner pair is a pre site and a post site. A site is looked up in voxel ``floor(position / voxel size + 1/2)``
along each axis, counted from the corner of the segmentation, as cremi_python does (Python 2 rounds half away from
zero). So positions refer to voxel centres at whole multiples of the voxel size, half a voxel from where
`Grid.containing` looks. As there, a position within `TOLERANCE_VOX` of the limit of two voxels lies on it, and
belongs to the upper one: rounding of floats decides nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.grid import TOLERANCE_VOX, Vec3
from emloom.metrics.contingency import as_ids

F64 = NDArray[np.float64]
Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]
Outside = Literal["refuse", "unmatched"]


@dataclass(frozen=True, eq=False)
class PartnerPairs:
    """Pre and post sites, row by row.

    Attributes:
        pre_nm: float64 [m, 3], positions (z, y, x) in nm of the pre sites.
        post_nm: float64 [m, 3], of the post sites.
        source: name shown in messages.
        stored_nm: (z, y, x) in nm, what to add for the positions that `source` holds, where it counts from
            another place of a voxel.

    Raises:
        InputError: shapes differ, or a position is not finite.
    """

    pre_nm: F64
    post_nm: F64
    source: str = "pairs"
    stored_nm: Vec3 = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("pre_nm", "post_nm"):
            object.__setattr__(self, name, _points(getattr(self, name), f"{self.source}: {name}"))
        if self.pre_nm.shape != self.post_nm.shape:
            raise InputError(
                f"{self.source} has {len(self.pre_nm)} pre and {len(self.post_nm)} post positions: give one of "
                "each per pair"
            )
        for what, points in (("pre", self.pre_nm), ("post", self.post_nm)):
            bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
            if bad.size:
                raise InputError(
                    f"{self.source}: the {what} site of pair {bad[0]} lies at {_shown(points[bad[0]])} nm: "
                    "positions are finite, z, y, x in nm; leave the pair out or mend it"
                )

    def __len__(self) -> int:
        return len(self.pre_nm)

    def rows(self, keep: NDArray[Any]) -> PartnerPairs:
        """Return some pairs, by a mask or by numbers."""
        return replace(self, pre_nm=self.pre_nm[keep], post_nm=self.post_nm[keep])

    def stored(self) -> tuple[F64, F64]:
        """Return the positions of pre and post sites, float64 [m, 3] each, as `source` holds them."""
        return self.pre_nm + np.array(self.stored_nm), self.post_nm + np.array(self.stored_nm)

    @classmethod
    def from_sites(
        cls, ids: ArrayLike, locations_nm: ArrayLike, partners: ArrayLike, source: str = "pairs"
    ) -> PartnerPairs:
        """Return the pairs of sites that are joined by id, in the order of `partners`.

        Args:
            ids: unsigned integers [n], each once.
            locations_nm: [n, 3], positions (z, y, x) in nm, in the order of `ids`.
            partners: unsigned integers [m, 2], (id of the pre site, id of the post site).
            source: name shown in messages.

        Raises:
            InputError: an id stands twice, a pair names a site that does not exist, or a length or position is
                wrong.
        """
        keys, points = as_ids(ids, f"{source}: ids"), _points(locations_nm, f"{source}: locations")
        wanted = as_ids(partners, f"{source}: partners")
        if wanted.size == 0:
            wanted = wanted.reshape(0, 2)
        if wanted.shape[1:] != (2,):
            raise InputError(f"{source}: partners have shape {wanted.shape}: give [m, 2], (pre id, post id)")
        if keys.ndim != 1 or len(keys) != len(points):
            raise InputError(
                f"{source} has ids of shape {keys.shape} and {len(points)} locations: give one of each"
            )
        twice = [i for i, n in Counter(keys.tolist()).items() if n > 1]
        if twice:
            raise InputError(f"{source}: the site {twice[0]} stands twice: an id names one site; renumber them")
        order = np.argsort(keys)
        at = np.searchsorted(keys, wanted, sorter=order)
        rows = order[np.minimum(at, len(keys) - 1)] if len(keys) else np.zeros(wanted.shape, np.intp)
        strange = wanted[keys[rows] != wanted] if len(keys) else wanted.ravel()
        if strange.size:
            raise InputError(
                f"{source}: partners name the site {strange[0]}, which does not exist: leave the pair out or add "
                "the site"
            )
        return cls(points[rows[:, 0]], points[rows[:, 1]], source)


def segments_of(
    pairs: PartnerPairs,
    segments_ZYX: NDArray[Any],
    grid: Grid,
    outside: Outside = "refuse",
) -> tuple[Ids, NDArray[np.bool_]]:
    """Return the (pre segment, post segment) of pairs, uint64 [m, 2], and which pairs lie inside, bool [m].

    Raises:
        InputError: a site lies outside, unless that is allowed (its segment is then 0); or segments are no ids.
    """
    if segments_ZYX.ndim != 3 or segments_ZYX.dtype.kind != "u":
        raise InputError(f"segments are {segments_ZYX.dtype} {segments_ZYX.shape}: give unsigned ids, z, y, x")
    voxels, fits = site_voxels(pairs, segments_ZYX.shape, grid, outside)
    segments = np.zeros((len(pairs), 2), np.uint64)
    z, y, x = voxels[fits].T
    segments[fits] = segments_ZYX[z, y, x]
    return segments, fits[:, 0] & fits[:, 1]


def site_voxels(
    pairs: PartnerPairs, shape: tuple[int, ...], grid: Grid, outside: Outside = "refuse"
) -> tuple[Rows, NDArray[np.bool_]]:
    """Return the voxels of (pre, post) sites, int64 [m, 2, 3], and which lie inside the segmentation, bool [m, 2].

    Raises:
        InputError: a site lies outside, unless that is allowed (its voxel is then 0, 0, 0).
    """
    voxels, inside = np.zeros((len(pairs), 2, 3), np.int64), np.ones((len(pairs), 2), bool)
    for column, (what, points) in enumerate((("pre", pairs.pre_nm), ("post", pairs.post_nm))):
        at = np.floor((points - np.array(grid.offset_nm)) / np.array(grid.voxel_size_nm) + 0.5 + TOLERANCE_VOX)
        fits = ((at >= 0) & (at < shape)).all(axis=1)
        if outside == "refuse" and not fits.all():
            row = int(np.flatnonzero(~fits)[0])
            place = _shown(points[row] + np.array(pairs.stored_nm))
            raise InputError(
                f"{pairs.source}: the {what} site of pair {row} lies at {place} nm, voxel "
                f"{_shown(at[row])} of a segmentation of {shape} that starts at {grid.offset_nm} nm "
                f"({np.count_nonzero(~fits)} sites lie outside): give positions and offsets of one world, leave "
                "such pairs out, or count found ones as false (outside='unmatched')"
            )
        voxels[fits, column] = at[fits].astype(np.int64)
        inside[:, column] = fits
    return voxels, inside


def _points(values: ArrayLike, what: str) -> F64:
    points = np.asarray(values, np.float64)
    if points.size == 0:
        return np.zeros((0, 3))
    if points.shape[1:] != (3,):
        raise InputError(f"{what} have shape {points.shape}: give [m, 3], z, y, x in nm")
    return points


def _shown(point: F64) -> tuple[float, ...]:
    return tuple(float(f"{v:.6g}") for v in point)
