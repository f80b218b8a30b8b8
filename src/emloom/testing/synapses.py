"""Which contacts of a phantom's neurites are synapses, and their true table.

Every face between lattice cells of two neurites is a candidate (`emloom.testing.contacts`). They are tried in an
order of luck until there are as many as the spec asks for; a candidate is left out where another neurite comes
between, where a synapse is near already, or where its sites would not lie in its neurites. So synapses are a
function of the spec, and all that is kept of them is a few numbers each.

Thin neurites tend to be pre, thick ones post; a pair tends to keep its direction. Where a pre site has several
post sites (a polyad), they are the nearest neurites that it sees beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.geometry import Box
from emloom.geometry.synapses import SynapseTable
from emloom.spec import Spec
from emloom.testing import contacts as touch
from emloom.testing import micrograph
from emloom.testing.neurites import uniform
from emloom.testing.synapticzones import (
    ALONG_NM,
    BODY,
    CONTACT,
    EDGE_NM,
    HALF,
    NORMAL,
    POLYAD,
    POST,
    PRE,
    RADIUS,
    Zones,
    no_zones,
)
from emloom.testing.tissue import Tissue, bend

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Synapses keep this far from the faces of the volume, and their discs this far from those of others.
MARGIN_NM, GAP_NM = 120.0, 30.0
# How often a face between two cells is tried.
PLACES = 4
# A site is one of these depths below the membrane: the first at which its voxel belongs to its neurite.
DEPTHS_NM = (20.0, 28.0, 36.0, 44.0, 52.0)
# Posts of a polyad are within this of the pre site.
REACH_NM, MOST_POSTS = 140.0, 5
FEWEST_VESICLES, MOST_VESICLES = 6, 40
# Streams of random numbers, one per purpose.
TURNED, BACK, SEVERAL, SPREAD = 80, 81, 82, 83


class SynapsesSpec(Spec):
    """How many synapses a phantom grows, and of which kind."""

    per_um3: float = Field(default=0.0, ge=0, le=40)
    """Pre sites per cubic micrometre of the tissue that is more than 120 nm from the faces; 0: none. Neuropil has
    about 1 to 3; where there is room for no more, there are fewer."""
    polyads: float = Field(default=0.5, ge=0, le=1)
    """Part of the pre sites that look for more than one post site, up to 5; these have a dense body, as flies."""
    radius_nm: float = Field(default=95.0, ge=40, le=200)
    """Typical radius of the disc of a post site."""


@dataclass
class Synapses:
    """What grew: one row per contact of a pre with a post site.

    Attributes:
        contacts: [N, CONTACT], see `synapticzones`; rows of a polyad follow each other.
        vesicles: centres [V, 3], nm.
        pre_nm: [N, 3], pre site of every contact.
        post_nm: [N, 3], post site.
    """

    contacts: F64
    vesicles: F64
    pre_nm: F64
    post_nm: F64

    @property
    def n_polyads(self) -> int:
        """How many pre sites there are."""
        return int(self.contacts[:, POLYAD].max(initial=0))

    def near(self, box: Box, voxel_nm: tuple[float, float, float]) -> Zones:
        """Return what matters in a box, and perhaps a little more."""
        if not len(self.contacts):
            return no_zones()
        size = np.array(voxel_nm)
        low, high = np.array(box.start) * size, np.array(box.stop) * size
        reach = self.contacts[:, RADIUS].max() + EDGE_NM + ALONG_NM + size[0]
        kept = [
            points[((points[:, :3] > low - reach) & (points[:, :3] < high + reach)).all(axis=1)]
            for points in (self.contacts, self.vesicles)
        ]
        return Zones(np.ascontiguousarray(kept[0]), np.ascontiguousarray(kept[1]))

    def box(self, polyad: int, voxel_nm: tuple[float, float, float]) -> Box:
        """Return a box of voxels that holds a polyad's cleft."""
        rows = self.contacts[self.contacts[:, POLYAD] == polyad]
        reach = rows[:, RADIUS].max() + EDGE_NM + ALONG_NM
        size = np.array(voxel_nm)
        low = np.floor((rows[:, :3].min(axis=0) - reach) / size).astype(int)
        high = np.ceil((rows[:, :3].max(axis=0) + reach) / size).astype(int)
        z, y, x = (int(v) for v in low)
        dz, dy, dx = (int(v) for v in high - low)
        return Box((z, y, x), (dz, dy, dx))

    def table(self, sizes: I64) -> SynapseTable:
        """Return the table; `sizes` are voxels of the cleft of polyad 0 (none), 1, ..."""
        polyads = self.contacts[:, POLYAD].astype(np.uint64)
        n = len(polyads)
        return SynapseTable(
            ids=np.arange(1, n + 1, dtype=np.uint64),
            polyads=polyads,
            pre_nm=self.pre_nm,
            post_nm=self.post_nm,
            pre_segments=self.contacts[:, PRE].astype(np.uint64),
            post_segments=self.contacts[:, POST].astype(np.uint64),
            sizes_vox=sizes[polyads.astype(np.int64)],
            scores=np.ones(n, np.float32),
            source="phantom synapses",
        )


def grow_synapses(tissue: Tissue, spec: SynapsesSpec) -> Synapses:
    """Return the synapses of a tissue; see the module."""
    extent = np.multiply(tissue.owner.shape, tissue.cell_nm)
    inner = np.maximum(extent - 2 * MARGIN_NM, 0.0)
    wanted = round(float(spec.per_um3 * inner.prod() * 1e-9))
    growth = _Growth(tissue, spec)
    if wanted:
        for place, first, second in _candidates(tissue):
            growth.attempt(place, first, second)
            if len(growth.grown) == wanted:
                break
    return growth.result()


def _candidates(tissue: Tissue) -> Iterator[tuple[int, I64, I64]]:
    """Yield face neighbours of two neurites in the order in which they may have a synapse: place, cell, cell."""
    luck = touch.face_luck(tissue.owner, tissue.seed)
    order = np.argsort(luck, axis=None, kind="stable")[: np.isfinite(luck).sum()]
    axes, *cells = np.unravel_index(order, luck.shape)
    for place in range(PLACES):
        for axis, *cell in zip(axes, *cells, strict=True):
            first = np.array(cell, np.int64)
            yield place, first, first + (np.arange(3) == axis)


@dataclass
class _Growth:
    """Synapses as they are added; `taken` holds contacts by cells of the largest distance that matters."""

    tissue: Tissue
    spec: SynapsesSpec
    grown: list[tuple[F64, F64, F64]] = field(default_factory=list)
    vesicles: list[F64] = field(default_factory=list)
    taken: dict[tuple[int, ...], list[F64]] = field(default_factory=dict)

    def attempt(self, place: int, first: I64, second: I64) -> None:
        """Add the synapse between two cells' neurites, if there is room for one."""
        tissue = self.tissue
        pre, post = _direction(tissue, first, second)
        contact, key = np.zeros(CONTACT), (_number(tissue, pre) * PLACES + place, _number(tissue, post))
        if not touch.meet(tissue, pre, post, place, contact):
            return
        self._describe(contact, float(tissue.owner[tuple(pre)]), float(tissue.owner[tuple(post)]), key)
        if not self._has_room(contact):
            return
        straight = np.empty(3)
        bend(tissue, contact[:3], straight)
        segments = touch.around(tissue, straight, 1.5 * REACH_NM)
        polyad = uniform(tissue.seed, SEVERAL, *key, 0) < self.spec.polyads
        pair = contact[PRE], contact[POST]
        if touch.breadth(tissue, segments, contact, pair, 0.55 * contact[RADIUS]) < (0.3 if polyad else 0.7):
            return
        if not touch.free_of_mitochondria(tissue, segments, contact, polyad):
            return
        pre_nm, post_nm = _site(tissue, contact, -1), _site(tissue, contact, 1)
        if pre_nm is None or post_nm is None:
            return
        rows, posts = [contact], [post_nm]
        if polyad:
            self._more(segments, pre_nm, rows, posts, key)
        cloud = np.empty((MOST_VESICLES, 3))
        n = touch.vesicles(tissue, segments, contact, key, len(rows) > 1, cloud)
        if n >= FEWEST_VESICLES:
            self._add(rows, pre_nm, posts, cloud[:n])

    def _describe(self, contact: F64, pre: float, post: float, key: tuple[int, int]) -> None:
        spread = uniform(self.tissue.seed, SPREAD, *key, int(post))
        contact[PRE], contact[POST] = pre, post
        contact[RADIUS] = self.spec.radius_nm * (0.75 + 0.5 * spread)
        # Voxels as thick as the cleft may have no centre within 20 nm of its middle.
        contact[HALF] = max(20.0, 0.6 * float(np.abs(contact[NORMAL:PRE]) @ self.tissue.voxel_nm))
        contact[POLYAD] = len(self.grown) + 1

    def _more(self, segments: F64, pre_nm: F64, rows: list[F64], posts: list[F64], key: tuple[int, int]) -> None:
        """Append the further posts of a polyad."""
        seen = np.empty((32, 5))
        n = touch.partners(self.tissue, segments, pre_nm, REACH_NM, seen)
        most = 2 + int(uniform(self.tissue.seed, SEVERAL, *key, 1) * (MOST_POSTS - 1))
        for label, *at, _ in sorted(seen[:n].tolist(), key=lambda row: row[4]):
            # Not on the far side of a thin neurite: a dense body faces what lies around its foot.
            beside = float((np.array(at) - rows[0][:3]) @ rows[0][NORMAL:PRE]) > -70.0
            if label == rows[0][POST] or len(rows) == most or not beside:
                continue
            row = np.zeros(CONTACT)
            row[:3] = at
            if not touch.normal(self.tissue, segments, (rows[0][PRE], label), row):
                continue
            self._describe(row, rows[0][PRE], label, key)
            row[RADIUS] *= 0.8
            post_nm = _site(self.tissue, row, 1)
            if self._has_room(row) and post_nm is not None:
                rows.append(row)
                posts.append(post_nm)

    def _add(self, rows: list[F64], pre_nm: F64, posts: list[F64], cloud: F64) -> None:
        rows[0][BODY] = float(len(rows) > 1)
        self.grown.append((np.array(rows), np.tile(pre_nm, (len(rows), 1)), np.array(posts)))
        self.vesicles.append(cloud)
        for row in rows:
            self.taken.setdefault(self._bin(row), []).append(row)

    def _bin(self, contact: F64) -> tuple[int, ...]:
        return tuple(int(v // self._pitch) for v in contact[:3])

    @property
    def _pitch(self) -> float:
        return 2.5 * self.spec.radius_nm + GAP_NM

    def _has_room(self, contact: F64) -> bool:
        """Whether neither a face of the volume nor a contact of another polyad is near."""
        extent = np.multiply(self.tissue.owner.shape, self.tissue.cell_nm)
        if (contact[:3] < MARGIN_NM).any() or (contact[:3] > extent - MARGIN_NM).any():
            return False
        z, y, x = self._bin(contact)
        for i in range(27):
            for row in self.taken.get((z + i // 9 - 1, y + i // 3 % 3 - 1, x + i % 3 - 1), ()):
                least = row[RADIUS] + contact[RADIUS] + GAP_NM
                if ((row[:3] - contact[:3]) ** 2).sum() < least**2:
                    return False
        return True

    def result(self) -> Synapses:
        """Return what grew."""
        if not self.grown:
            zones = no_zones()
            return Synapses(zones.contacts, zones.vesicles, np.empty((0, 3)), np.empty((0, 3)))
        contacts, pre, post = (np.concatenate(part) for part in zip(*self.grown, strict=True))
        return Synapses(contacts, np.concatenate(self.vesicles), pre, post)


def _number(tissue: Tissue, cell: I64) -> int:
    return int(np.ravel_multi_index(tuple(cell), tissue.owner.shape))


def _direction(tissue: Tissue, first: I64, second: I64) -> tuple[I64, I64]:
    """Return the pre and the post cell."""
    a, b = int(tissue.owner[tuple(first)]), int(tissue.owner[tuple(second)])
    turned = uniform(tissue.seed, TURNED, min(a, b), max(a, b), 0) < 0.2
    turned ^= uniform(tissue.seed, BACK, _number(tissue, first), _number(tissue, second), 0) < 0.08
    return (first, second) if _thinner(tissue, a, b) != turned else (second, first)


def _thinner(tissue: Tissue, a: int, b: int) -> bool:
    # Thick neurites grow first: theirs are the lower numbers.
    return a > b


def _site(tissue: Tissue, contact: F64, side: int) -> F64 | None:
    """Return the site of a contact, before (-1) or behind (1) the membrane; None where the neurite is too thin."""
    label = contact[PRE] if side < 0 else contact[POST]
    for depth in DEPTHS_NM:
        at = contact[:3] + side * depth * contact[NORMAL:PRE]
        voxel = np.floor(at / tissue.voxel_nm + 1e-6).astype(np.int64)
        out = np.empty((1, 1, 1), np.uint64)
        micrograph.fill(tissue, no_zones(), voxel, (out, micrograph.NO_GREY, micrograph.NO_IDS))
        if out[0, 0, 0] == label:
            return np.asarray(at)
    return None
