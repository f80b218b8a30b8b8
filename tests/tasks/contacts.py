"""Small worlds whose synapses are known, and the perfect predictions of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from emloom.geometry import Grid, Vec
from emloom.geometry.synapses import SynapseTable
from emloom.io.volume import ArrayVolume, Volume
from emloom.ops.polarity import signed_proximity
from emloom.tasks.synapsedecoders import Decoder
from emloom.tasks.synapsescene import Scene

GRID = Grid((20.0, 8.0, 8.0), (400.0, -80.0, 16.0))
SHAPE = (32, 112, 112)
RADIUS_NM = 30.0
VECTOR_NM = 250.0

Bits = NDArray[np.uint8]
Ids = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class World:
    """Neurons and their synapses.

    Attributes:
        neurons: uint64 [Z, Y, X].
        table: the true synapses, sites at centres of voxels.
        grid: where the voxels lie.
    """

    neurons: Ids
    table: SynapseTable
    grid: Grid = GRID

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size."""
        return np.array(self.grid.voxel_size_nm)

    def voxels(self, side: str) -> NDArray[np.int64]:
        """Return the voxels of the pre or post sites."""
        points = getattr(self.table, f"{side}_nm")
        return np.array([self.grid.containing(p) for p in points], np.int64).reshape(-1, 3)

    def balls(self, voxels: NDArray[np.int64], radius_nm: float = RADIUS_NM) -> NDArray[np.int64]:
        """Return which site's ball each voxel is in, 1 + its row; each clipped to the neuron that holds it."""
        out = np.zeros(self.neurons.shape, np.int64)
        at = np.indices(out.shape).transpose(1, 2, 3, 0)
        for row, centre in enumerate(voxels):
            near = (((at - centre) * self.spacing) ** 2).sum(-1) <= radius_nm**2
            out[near & (self.neurons == self.neurons[tuple(centre)])] = row + 1
        return out

    def parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the balls of pre sites, one per polyad, and those of post sites, one per row."""
        return self.balls(self.voxels("pre")), self.balls(self.voxels("post"))

    def heads(self, kind: str) -> dict[str, Volume]:
        """Return the perfect prediction of a kind."""
        pre, post = self.parts()
        arrays: dict[str, Bits] = {}
        if kind == "sites":
            arrays["sites"] = _bytes(np.stack([pre > 0, post > 0]))
        elif kind == "vectors":
            arrays["post"], arrays["vectors"] = _bytes(post > 0)[None], self._vectors(post)
        elif kind == "proximity":
            sides = np.where(pre > 0, 1, np.where(post > 0, 2, 0)).astype(np.uint64)
            signed, _ = signed_proximity(sides, self.grid.voxel_size_nm, 10.0)
            arrays["proximity"] = np.rint((signed + 1) / 2 * 255).astype(np.uint8)[None]
        elif kind == "polarity":
            arrays["polarity"] = _bytes(np.stack([pre > 0, post > 0, self.unions() > 0]))
        else:
            arrays["clefts"] = _bytes(self.unions() > 0)[None]
        return {name: ArrayVolume(array, self.grid, source=name) for name, array in arrays.items()}

    def unions(self) -> NDArray[np.int64]:
        """Return which polyad each voxel belongs to: its sites' balls, and a thread between them; 0 for none."""
        out = np.zeros(self.neurons.shape, np.int64)
        pre, post = self.parts()
        for row, (a, b) in enumerate(zip(self.voxels("pre"), self.voxels("post"), strict=True)):
            polyad = int(self.table.polyads[row])
            line = np.rint(np.linspace(a, b, 200)).astype(int)
            thread = np.zeros(out.shape, np.bool_)
            thread[tuple(line.T)] = True
            thread = ndimage.binary_dilation(thread, np.ones((1, 3, 3)))
            out[thread | (post == row + 1) | ((pre > 0) & (self.balls(a[None]) > 0))] = polyad
        return out

    def _vectors(self, post: NDArray[np.int64]) -> Bits:
        out = np.full((3, *post.shape), 127.5)
        at = np.nonzero(post)
        to = self.voxels("pre")[post[at] - 1]
        for axis in range(3):
            out[axis][at] = ((to[:, axis] - at[axis]) * self.spacing[axis] / VECTOR_NM + 1) / 2 * 255
        return np.rint(out.clip(0, 255)).astype(np.uint8)

    def scene(self, decoder: Decoder, mask: Volume | None = None, **more: Any) -> Scene:
        """Return the perfect prediction, ready to be decoded."""
        segmentation = ArrayVolume(self.neurons, self.grid, "labels", source="segmentation")
        return Scene.of(decoder, self.heads(decoder.kind), segmentation, mask=mask, **more)


def _bytes(where: NDArray[np.bool_]) -> Bits:
    return np.where(where, 255, 0).astype(np.uint8)


def voronoi(shape: Vec, n: int, seed: int, spacing: Sequence[float]) -> Ids:
    """Return neurons 1 .. n: every voxel belongs to the nearest of random points."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3)) * np.array(shape) * spacing
    at = np.indices(shape).reshape(3, -1).T * np.array(spacing)
    return (cKDTree(points).query(at)[1].reshape(shape) + 1).astype(np.uint64)


def make_world(seed: int = 0, polyads: int = 8, most_posts: int = 3, shape: Vec = SHAPE, n: int = 90) -> World:
    """Return neurons with synapses whose balls are whole and touch no other ball.

    Every post site is nearer to its own pre site than to any other.
    """
    rng = np.random.default_rng(seed)
    spacing = np.array(GRID.voxel_size_nm)
    neurons = voronoi(shape, n, seed, GRID.voxel_size_nm)
    taken: list[tuple[NDArray[np.int64], int]] = []  # voxel, polyad
    rows: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
    polyad = 0
    for _ in range(4000):
        if polyad == polyads:
            break
        pre = rng.integers((2, 5, 5), np.array(shape) - (2, 5, 5))
        if any(np.linalg.norm((pre - other) * spacing) < 290 for other, _ in taken):
            continue
        posts: list[NDArray[np.int64]] = []
        wanted = int(rng.integers(1, most_posts + 1))
        for _ in range(300):
            if len(posts) == wanted:
                break
            step = rng.normal(size=3)
            post = np.rint(pre + step / np.linalg.norm(step) * rng.uniform(85, 125) / spacing).astype(np.int64)
            inside = ((post >= (1, 4, 4)) & (post < np.array(shape) - (1, 4, 4))).all()
            if not inside or neurons[tuple(post)] == neurons[tuple(pre)]:
                continue
            if all(np.linalg.norm((post - other) * spacing) > 80 for other in [pre, *posts]):
                posts.append(post)
        if len(posts) == wanted:
            polyad += 1
            taken += [(pre, polyad), *((post, polyad) for post in posts)]
            rows += [(polyad, pre, post) for post in posts]
    assert polyad == polyads, f"room for {polyad} of {polyads} polyads only"
    pres, posts_ = (np.array([row[k] for row in rows], np.int64) for k in (1, 2))
    table = SynapseTable(
        ids=np.arange(1, len(rows) + 1, dtype=np.uint64),
        polyads=np.array([row[0] for row in rows], np.uint64),
        pre_nm=centres(pres),
        post_nm=centres(posts_),
        pre_segments=neurons[tuple(pres.T)],
        post_segments=neurons[tuple(posts_.T)],
        sizes_vox=np.ones(len(rows), np.int64),
        scores=np.ones(len(rows), np.float32),
    )
    return World(neurons, table)


def centres(voxels: NDArray[np.int64], grid: Grid = GRID) -> NDArray[np.float64]:
    """Return the centres of voxels in nm."""
    return np.array([grid.centre(tuple(v)) for v in voxels.tolist()], np.float64).reshape(-1, 3)


def partners(table: SynapseTable) -> list[tuple[int, tuple[int, ...]]]:
    """Return, per polyad, the pre segment and all post segments: what of a table does not depend on numbering."""
    found = []
    for polyad in np.unique(table.polyads):
        mine = table.polyads == polyad
        found.append((int(table.pre_segments[mine][0]), tuple(sorted(int(s) for s in table.post_segments[mine]))))
    return sorted(found)


def same_rows(a: SynapseTable, b: SynapseTable) -> bool:
    """Whether two tables are the same, bit for bit."""
    names = ("ids", "polyads", "pre_nm", "post_nm", "pre_segments", "post_segments", "sizes_vox", "scores")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
