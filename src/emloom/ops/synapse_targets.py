"""What a network learns about synapses: where clefts are, where pre and post sites, and who talks to whom.

Every target comes with a weight, uint8 [Z, Y, X], which is 0 where nothing is known: background that was looked at
and voxels nobody annotated are two things. (CREMI stores TRANSPARENT and INVALID; `emloom.io.cremi` opens them as
background 0 and as a mask, which are the labels and masks meant here.)

Sites are points with an id, in world nm. Everything refers to ids and nothing to rows: shuffling sites or partners
changes no target. A site stands at the centre of the voxel that contains it, so that its ball holds this voxel,
however small the radius is beside the thickness of a section.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.grid import Vec3
from emloom.ops.labels import Bits, Ids, known_mask, require_ids, require_labels_array, require_mask_array

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sites:
    """Points with an id.

    Attributes:
        ids: unsigned [n], each once, below 2**63.
        locations_nm: [n, 3], world positions (z, y, x) in nm.
        owners: unsigned [n], the neuron that holds each site, to which its ball is clipped; 0 where that is
            unknown: not clipped. None: all unknown.

    Raises:
        InputError: lengths disagree, an id stands twice or is not an id, a position is not finite.
    """

    ids: Array
    locations_nm: Array
    owners: Array | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        ids, owners = require_ids(self.ids, "sites"), require_ids(self._owners(n), "owners")
        if ids.shape != (n,) or np.shape(self.locations_nm) != (n, 3) or owners.shape != (n,):
            raise InputError(
                f"{n} sites have locations {np.shape(self.locations_nm)} and owners {owners.shape}: give [n, 3] "
                "and [n]"
            )
        if not np.isfinite(self.locations_nm).all():
            raise InputError("a site's location is not finite: give z, y, x in nm")
        present, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise InputError(f"the site {int(present[times > 1][0])} stands twice: an id names one site")

    def _owners(self, n: int) -> Array:
        return np.zeros(n, np.uint64) if self.owners is None else self.owners

    def sorted(self) -> tuple[Ids, F64, Ids]:
        """Return ids, locations and owners in increasing order of id."""
        order = np.argsort(self.ids, kind="stable")
        ids, owners = require_ids(self.ids), require_ids(self._owners(len(order)))
        return ids[order], np.asarray(self.locations_nm, np.float64)[order], owners[order]


@dataclass(frozen=True, eq=False)
class Crop:
    """The voxels to describe.

    Attributes:
        grid: where they lie.
        shape: how many they are along z, y, x.
        neurons: neuron ids [Z, Y, X] of them, to which balls are clipped; None: no ball is.
        known: [Z, Y, X], 0 where nobody looked for sites; None: all known.

    Raises:
        InputError: shapes disagree, or `known` is no mask.
    """

    grid: Grid
    shape: Vec
    neurons: Array | None = None
    known: Array | None = None

    def __post_init__(self) -> None:
        require_mask_array(self.known, self.shape)
        if self.neurons is not None and self.neurons.shape != tuple(self.shape):
            raise InputError(f"neurons have shape {self.neurons.shape}, the crop {self.shape}: same voxels")


def owners_at(neurons_ZYX: Array, grid: Grid, locations_nm: Array) -> Ids:
    """Return the neuron at every location, uint64 [n]; 0 on background and outside the array.

    Raises:
        InputError: invalid labels, or locations that are not finite positions.
    """
    neurons = require_labels_array(neurons_ZYX, "neurons")
    voxels = _voxels(grid, locations_nm)
    inside = ((voxels >= 0) & (voxels < neurons.shape)).all(axis=1)
    owners = np.zeros(len(voxels), np.uint64)
    owners[inside] = neurons[tuple(voxels[inside].T)]
    return owners


def cleft_mask(clefts_ZYX: Array, *, mask_ZYX: Array | None = None) -> tuple[Bits, Bits]:
    """Return where clefts are, and where that is known.

    Args:
        clefts_ZYX: cleft ids, any unsigned integer; 0 is background.
        mask_ZYX: 0 where nobody looked (CREMI: INVALID and OUTSIDE); None: all known.

    Returns:
        target uint8 [Z, Y, X]: 1 in clefts that are known, else 0; and weight uint8 [Z, Y, X].

    Raises:
        InputError: invalid labels or mask. Labels as CREMI stores them, with TRANSPARENT for background, are
            invalid: 0 and TRANSPARENT would both be background.
    """
    clefts = require_labels_array(
        clefts_ZYX, "clefts (if these are CREMI's stored values, open them with emloom.io: background becomes 0)"
    )
    weight = known_mask(mask_ZYX, clefts.shape)
    return (clefts != 0).view(np.uint8) & weight, weight


def site_mask(sites: Sites, crop: Crop, radius_nm: float) -> tuple[Bits, Bits]:
    """Return balls around sites, each clipped to the neuron that holds it.

    Buhmann et al., Nature Methods 2021 (doi:10.1038/s41592-021-01183-7) learn post sites of 10 nm radius; for pre
    and post masks call it once for the pre and once for the post sites.

    Args:
        sites: points; those beyond the crop count as far as their ball reaches into it.
        crop: the voxels to describe.
        radius_nm: a voxel whose centre is as near as this belongs to the ball.

    Returns:
        target uint8 [Z, Y, X]: 1 in balls, 0 elsewhere and where unknown; and weight uint8 [Z, Y, X].

    Raises:
        InputError: the radius is not a length, or sites have owners and the crop no neurons.
    """
    weight = known_mask(crop.known, crop.shape)
    return (_nearest_site(sites, crop, radius_nm) >= 0).view(np.uint8) & weight, weight


def partner_vectors(
    post: Sites, pre: Sites, partners: Array, crop: Crop, radius_nm: float = 100.0
) -> tuple[F32, Bits]:
    """Return, around every post site that has a partner, the way from each voxel to its pre site.

    Buhmann et al., Nature Methods 2021 (doi:10.1038/s41592-021-01183-7). Where balls overlap, the nearest post
    site decides; the one of the smaller id where two are as near. A post site with several partners points to the
    nearest of them.

    Args:
        post: post sites.
        pre: pre sites.
        partners: unsigned [m, 2], pairs (id of the pre site, id of the post site).
        crop: the voxels to describe.
        radius_nm: of the balls around post sites.

    Returns:
        vectors float32 [3, Z, Y, X]: nm along z, y, x from the voxel's centre to the pre site's location, 0
        outside balls; and weight uint8 [Z, Y, X]: 1 in balls, where known.

    Raises:
        InputError: as `site_mask`, or partners name a site that does not exist.
    """
    pairs = require_ids(partners, "partners")
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"partners have shape {pairs.shape}: give [m, 2], pairs of (pre id, post id)")
    pre_ids, pre_at, _ = pre.sorted()
    post_ids, post_at, owners = post.sorted()
    pre_rows, post_rows = _rows(pairs[:, 0], pre_ids, "pre"), _rows(pairs[:, 1], post_ids, "post")
    distance = np.linalg.norm(pre_at[pre_rows] - post_at[post_rows], axis=1)
    # The first row of every post site in this order is its partner.
    order = np.lexsort((pre_rows, distance, post_rows))
    used, first = np.unique(post_rows[order], return_index=True)
    target = pre_at[pre_rows[order][first]]
    chosen = Sites(post_ids[used], post_at[used], owners[used])
    nearest = _nearest_site(chosen, crop, radius_nm)
    vectors = np.zeros((3, *nearest.shape), np.float32)
    at = np.nonzero(nearest >= 0)
    for axis in range(3):
        centre = crop.grid.offset_nm[axis] + (at[axis] + 0.5) * crop.grid.voxel_size_nm[axis]
        vectors[axis][at] = target[nearest[at], axis] - centre
    return vectors, (nearest >= 0).view(np.uint8) & known_mask(crop.known, crop.shape)


def _rows(wanted: Ids, ids_sorted: Ids, what: str) -> I64:
    rows = np.searchsorted(ids_sorted, wanted)
    found = rows < len(ids_sorted)
    found[found] = ids_sorted[rows[found]] == wanted[found]
    if not found.all():
        raise InputError(f"partners name the {what} site {int(wanted[~found][0])}, which does not exist")
    return rows


def _voxels(grid: Grid, locations_nm: Array) -> I64:
    """Return the voxel [n, 3] that contains every location, as `Grid.containing`."""
    return np.array([grid.containing(p) for p in np.asarray(locations_nm, np.float64)], np.int64).reshape(-1, 3)


def _nearest_site(sites: Sites, crop: Crop, radius_nm: float) -> NDArray[np.int32]:
    """Return which site's ball each voxel lies in: its rank among the ids, -1 where there is none."""
    if not 0 <= radius_nm < np.inf:
        raise InputError(f"radius {radius_nm} nm is not a length: give a finite number of nm, 0 or more")
    _, locations, owners = sites.sorted()
    neurons = np.zeros((0, 0, 0), np.uint64)
    if crop.neurons is not None:
        neurons = require_labels_array(crop.neurons, "neurons")
    elif owners.any():
        raise InputError("sites have owners, but the crop has no neurons to clip to: give them")
    radii = np.full(len(locations), float(radius_nm))
    return _drawn(_voxels(crop.grid, locations), (owners, radii), crop.grid.voxel_size_nm, neurons, crop.shape)


def draw_balls(
    values: Ids, voxels: I64, owners: Ids, radii_nm: F64, spacing_nm: Vec3, neurons_ZYX: Array | None, shape: Vec
) -> Ids:
    """Return an array in which every site has drawn its value as a ball, clipped to the neuron that holds it.

    Where balls meet, the nearest site decides; of those as near the one that is named first. A site's own voxel is
    in its ball, however small the radius.

    Args:
        values: uint64 [n], what each site draws.
        voxels: int64 [n, 3], the voxel (z, y, x) of each; they may lie outside.
        owners: uint64 [n], the neuron that holds each; 0 is not clipped.
        radii_nm: float64 [n]; a voxel whose centre is as near as this belongs to the ball.
        spacing_nm: voxel size (z, y, x) in nm.
        neurons_ZYX: neuron ids of the voxels; None: no ball is clipped.
        shape: voxels along z, y, x.

    Returns:
        uint64 [Z, Y, X], 0 outside balls.
    """
    neurons = np.zeros((0, 0, 0), np.uint64)
    if neurons_ZYX is not None:
        neurons = require_labels_array(neurons_ZYX, "neurons")
    nearest = _drawn(voxels, (owners, radii_nm), spacing_nm, neurons, shape)
    drawn: Ids = np.append(values, np.uint64(0))[nearest]  # -1, nobody's, is the last
    return drawn


def _drawn(voxels: I64, who: tuple[Ids, F64], spacing_nm: Vec3, neurons: Ids, shape: Vec) -> NDArray[np.int32]:
    nearest = np.full(shape, -1, np.int32)
    _draw(voxels, *who, np.array(spacing_nm), neurons, nearest)
    return nearest


@njit(cache=True, nogil=True)
def _draw(voxels: I64, owners: Ids, radii: F64, spacing: F64, neurons: Ids, nearest: NDArray[np.int32]) -> None:
    size = np.array(nearest.shape)
    best = np.full(nearest.shape, np.inf, np.float32)
    for i in range(len(voxels)):
        centre, radius = voxels[i], radii[i]
        low = np.maximum(0, centre - (radius / spacing).astype(np.int64) - 1)
        high = np.minimum(size, centre + (radius / spacing).astype(np.int64) + 2)
        for z in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                for x in range(low[2], high[2]):
                    dz, dy, dx = z - centre[0], y - centre[1], x - centre[2]
                    squares = (dz * spacing[0]) ** 2 + (dy * spacing[1]) ** 2 + (dx * spacing[2]) ** 2
                    away = np.float32(np.sqrt(squares))
                    mine = neurons.size == 0 or owners[i] == 0 or neurons[z, y, x] == owners[i]
                    if mine and away <= np.float32(radius) and away < best[z, y, x]:
                        best[z, y, x], nearest[z, y, x] = away, i
