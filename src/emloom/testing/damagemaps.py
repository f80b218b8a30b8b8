"""The geometry of planted damage: where every place of a damaged section came from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Grid
from emloom.geometry.planar import Affine, Field, Pieces, PlanarMap, Shift, chain
from emloom.geometry.stackmap import Frame
from emloom.ops.textures import lattice, places, profile
from emloom.testing.damagespec import DamageSpec

F64 = NDArray[np.float64]

_FINER = 4
# What every draw is for: its place in the seed, so that one more kind of damage leaves the others as they are.
SHIFTS, AFFINE, BEND, CRACK, BAD, FAULT = range(6)


def draw(spec: DamageSpec, topic: int, z: int) -> np.random.Generator:
    """Return the source of the random numbers of one topic and section."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((spec.seed, topic, z))))


def canvas(before: Frame, margin: int) -> Frame:
    """Return the frame with a margin in pixels on every side, at its place in the world."""
    z, y, x = before.shape
    size, zero = before.grid.voxel_size_nm, before.grid.offset_nm
    offset = zero[0], zero[1] - margin * size[1], zero[2] - margin * size[2]
    return Frame((z, y + 2 * margin, x + 2 * margin), Grid(size, offset))


class Geometry:
    """The maps of the sections from the damaged stack to the undamaged one, made when they are asked for."""

    def __init__(self, spec: DamageSpec, before: Frame, after: Frame) -> None:
        self.spec, self.before, self.after = spec, before, after
        self._shifts = _shifts(spec, before.shape[0])
        self._made: dict[int, PlanarMap] = {}

    def __len__(self) -> int:
        return self.before.shape[0]

    def __getitem__(self, z: int) -> PlanarMap:
        if not 0 <= z < len(self):
            raise IndexError(z)
        if z not in self._made:
            self._made[z] = chain(*self._steps(z))
        return self._made[z]

    def _steps(self, z: int) -> Iterator[PlanarMap]:
        if z in self.spec.cracks.sections:
            yield _torn(self.spec, z, self.after.shape[1:])
        yield self._placed(z)
        if self.spec.elastic.bend_px > 0:
            yield _bent(self.spec, z, self.before.shape[1:])

    def _placed(self, z: int) -> PlanarMap:
        """Return the map from the canvas to the plane of the tissue."""
        shift, affine = self._shifts[z] + self.spec.margin_px, self.spec.affine
        if not (affine.turn_deg or affine.scale or affine.shear):
            return Shift(*(-shift).tolist())
        turn, tall, wide, shear = draw(self.spec, AFFINE, z).normal(size=4)
        angle = np.deg2rad(turn * affine.turn_deg)
        rotated = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = rotated @ np.array(
            [[np.exp(tall * affine.scale), 0.0], [shear * affine.shear, np.exp(wide * affine.scale)]]
        )
        middle = np.array(self.before.shape[1:]) / 2
        return Affine.of(np.column_stack([linear, middle + shift - linear @ middle])).inverse()

    def sources(self, z: int) -> F64:
        """Return where the centres of a section's pixels lie in the undamaged one, [Y, X, 2]; NaN: nowhere."""
        y, x = self.after.shape[1:]
        return self[z](_centres(y, x)).reshape(y, x, 2)


def _shifts(spec: DamageSpec, depth: int) -> F64:
    how, random = spec.shift, draw(spec, SHIFTS, 0)
    jitter, steps = random.normal(size=(2, depth, 2))
    steps[0] = 0
    drift = np.cumsum(steps * how.walk_px, axis=0) + np.arange(depth)[:, None] * np.array(how.trend_px)
    total: F64 = jitter * how.jitter_px + drift
    return np.rint(total) if how.whole else total


def _bent(spec: DamageSpec, z: int, shape: tuple[int, ...]) -> Field:
    cell = spec.elastic.cell_px
    coarse = [int(np.ceil(n / cell)) + 3 for n in shape]  # a cell more than needed on either side
    nodes = draw(spec, BEND, z).normal(scale=spec.elastic.bend_px, size=(2, *coarse))
    at = np.meshgrid(*(np.arange(0, n - 1 + 1e-9, 1 / _FINER) for n in coarse), indexing="ij")
    smooth = np.stack([ndimage.map_coordinates(u, at, order=3, mode="mirror") for u in nodes])
    return Field(smooth.astype(np.float32), (cell / _FINER, cell / _FINER), (-cell, -cell))


def _torn(spec: DamageSpec, z: int, shape: tuple[int, ...]) -> Pieces:
    """Return the parts of a torn section, and the maps that put them together again."""
    how, random = spec.cracks, draw(spec, CRACK, z)
    extent = np.array(shape, float)
    middle = extent * random.uniform(0.4, 0.6, 2)
    angle = random.uniform(0.0, np.pi)
    along, beside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    slip = random.uniform(-0.5, 0.5) * how.slip_px
    turns = np.deg2rad(how.turn_deg) * random.uniform(-1.0, 1.0, 2)
    place = places(int(random.integers(2**31)), 1)[0]
    reach = float(np.hypot(*extent)) + how.gap_px + how.slip_px
    t = np.arange(-reach, reach + 1.0)
    course = how.wander_px * profile(t, max(8.0, float(extent.max()) / 3), 3, place, lattice())
    p = _centres(*shape)
    parts = np.zeros(len(p), np.uint8)
    maps: list[Affine] = []
    for number, (side, turn) in enumerate(zip((-1.0, 1.0), turns, strict=True), 1):
        # Back by half the gap and half the slip, after the turn around the middle.
        back = -side * (0.5 * how.gap_px * beside + slip * along)
        linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        maps.append(Affine.of(np.column_stack([linear, middle - linear @ middle + back])))
        whole = maps[-1](p) - middle
        parts[(side * (whole @ beside - np.interp(whole @ along, t, course)) > 0) & (parts == 0)] = number
    return Pieces(parts.reshape(shape), tuple(maps))


def _centres(y: int, x: int) -> F64:
    return np.stack(np.meshgrid(np.arange(y) + 0.5, np.arange(x) + 0.5, indexing="ij"), -1).reshape(-1, 2)
