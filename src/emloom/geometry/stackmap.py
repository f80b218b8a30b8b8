"""Maps of stacks: which section of a source a section of a target shows, and where its places lie in it.

::

    source  z = 0  1  2  3  4          frames: shape in voxels and grid (voxel size and offset in nm) of each end
                 \\  \\     |  |         homes:  per section of the target the section of the source, None: nothing
    target  z' =  0  1  2  3  4         maps:   per section of the target, places of its home -> its places

A `StackMap` is a sequence of layers, the target of one being the source of the next; composing two only puts their
layers together, so a composition is the sequence, to the bit. Every section of a source is the home of one section
of the target at most, hence every map has an inverse: the same layers, backwards, each turned round. What a
section of the target shows that has no home, and what lies outside, is nothing: 0 in volumes, NaN in points.

Places along z stay where they are within their section. Both ends of a stack map have voxels of the same size:
alignment moves, it does not resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError
from emloom.geometry.box import Box, Vec, as_vec
from emloom.geometry.grid import TOLERANCE_VOX, Grid
from emloom.geometry.planar import IDENTITY, PlanarMap, Shift, chain

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One end of a stack map.

    Attributes:
        shape: voxels (z, y, x).
        grid: voxel size and offset in nm.

    Raises:
        InputError: an extent is below 1.
    """

    shape: Vec
    grid: Grid

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_vec(self.shape))
        if min(self.shape) < 1:
            raise InputError(f"a frame of {self.shape} voxels holds nothing: every extent is at least 1")

    @property
    def box(self) -> Box:
        """All of it."""
        return Box.whole(self.shape)


class Maps(Protocol):
    """The maps of the sections of a target: a list, or read from disk one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, z: int, /) -> PlanarMap: ...


@dataclass(frozen=True, eq=False)
class Layer:
    """One step from a source to a target; see the module.

    Attributes:
        source: where places come from.
        target: where they go.
        homes: per section of the target the section of the source, None where there is none.
        maps: per section of the target; those of sections without a home are never asked for.
        turned: whether homes and maps are those of the opposite direction: per section of the *source*, to it.

    Raises:
        InputError: lengths differ, a home does not exist or is that of two sections, or voxel sizes differ.
    """

    source: Frame
    target: Frame
    homes: tuple[int | None, ...]
    maps: Maps
    turned: bool = False

    def __post_init__(self) -> None:
        there, here = (self.target, self.source) if self.turned else (self.source, self.target)
        n = here.shape[0]
        if len(self.homes) != n or len(self.maps) != n:
            raise InputError(
                f"a stack map to {n} sections has {len(self.homes)} homes and {len(self.maps)} maps: one of each "
                "per section"
            )
        known = [home for home in self.homes if home is not None]
        if any(not 0 <= home < there.shape[0] for home in known):
            raise InputError(f"a stack map names sections beyond 0 to {there.shape[0] - 1}: {sorted(known)[-1]}")
        if len(set(known)) < len(known):
            twice = next(home for home in known if known.count(home) > 1)
            raise InputError(f"section {twice} is the home of two sections: a map back could not choose")
        sizes = zip(self.source.grid.voxel_size_nm, self.target.grid.voxel_size_nm, strict=True)
        if not all(isclose(a, b, rel_tol=TOLERANCE_VOX) for a, b in sizes):
            raise InputError(
                f"a stack map goes from voxels of {self.source.grid.voxel_size_nm} nm to "
                f"{self.target.grid.voxel_size_nm} nm: it moves, it does not resample"
            )

    @cached_property
    def _guests(self) -> dict[int, int]:
        return {home: z for z, home in enumerate(self.homes) if home is not None}

    def home(self, z: int) -> int | None:
        """Return the section of the source that section z of the target shows."""
        return self._guests.get(z) if self.turned else self.homes[z]

    def guest(self, z: int) -> int | None:
        """Return the section of the target that shows section z of the source."""
        return self.homes[z] if self.turned else self._guests.get(z)

    def map(self, z: int) -> PlanarMap:
        """Return the map to section z of the target; that has a home."""
        if not self.turned:
            return self.maps[z]
        return self.maps[self._guests[z]].inverse()

    def inverse(self) -> Layer:
        """Return the step back."""
        return Layer(self.target, self.source, self.homes, self.maps, not self.turned)


@dataclass(frozen=True, eq=False)
class StackMap:
    """A map from one stack to another, in layers; see the module.

    Raises:
        InputError: there is no layer, or one does not begin where the one before ends.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("a stack map without layers leads nowhere: give one")
        for before, after in zip(self.layers, self.layers[1:], strict=False):
            _require_same(before.target, after.source)

    @classmethod
    def of(
        cls, source: Frame, target: Frame, maps: Sequence[PlanarMap], homes: Sequence[int | None] | None = None
    ) -> StackMap:
        """Return a map of one layer; homes are, if not given, the sections of the same number."""
        where = range(target.shape[0]) if homes is None else homes
        return cls((Layer(source, target, tuple(where), list(maps)),))

    @classmethod
    def identity(cls, frame: Frame) -> StackMap:
        """Return the map that leaves everything where it is."""
        return cls.of(frame, frame, [IDENTITY] * frame.shape[0])

    @property
    def source(self) -> Frame:
        """Where places come from."""
        return self.layers[0].source

    @property
    def target(self) -> Frame:
        """Where places go."""
        return self.layers[-1].target

    def inverse(self) -> StackMap:
        """Return the map back."""
        return StackMap(tuple(layer.inverse() for layer in reversed(self.layers)))

    def then(self, after: StackMap) -> StackMap:
        """Return this map followed by another; raises `InputError` where that does not begin where this ends."""
        return StackMap((*self.layers, *after.layers))

    def home(self, z: int) -> int | None:
        """Return the section of the source that section z of the target shows, None: nothing."""
        at: int | None = z
        for layer in reversed(self.layers):
            at = None if at is None else layer.home(at)
        return at

    def map(self, z: int) -> PlanarMap:
        """Return the map from the home of section z of the target to it.

        Raises:
            InputError: it has no home.
        """
        maps: list[PlanarMap] = []
        at: int | None = z
        for layer in reversed(self.layers):
            home = None if at is None else layer.home(at)
            if at is None or home is None:
                raise InputError(f"section {z} shows nothing: it has no map")
            maps.append(layer.map(at))
            at = home
        return chain(*reversed(maps))

    def guest(self, z: int) -> int | None:
        """Return the section of the target that shows section z of the source, None: none does."""
        at: int | None = z
        for layer in self.layers:
            at = None if at is None else layer.guest(at)
        return at

    def moved(self, points_nm: ArrayLike) -> F64:
        """Return where world positions of the source lie in the target.

        Args:
            points_nm: [N, 3], (z, y, x) in nm.

        Returns:
            float64 [N, 3]; NaN where a point leaves the source or lies in nothing that the target shows. A point
            may leave the target's shape: what is cut off there keeps its place.

        Raises:
            InputError: not three numbers per point.
        """
        points = np.asarray(points_nm, np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(f"points of shape {points.shape} are no places: give (z, y, x) in nm, [N, 3]")
        size, zero, end = (
            np.array(v)
            for v in (self.source.grid.voxel_size_nm, self.source.grid.offset_nm, self.target.grid.offset_nm)
        )
        vox = (points - zero) / size
        out = np.full(vox.shape, np.nan)
        known = np.isfinite(vox).all(1)
        # A hair below a face is on it, as `Grid.containing` has it.
        section = np.floor(np.where(known, vox[:, 0], -1) + TOLERANCE_VOX).astype(np.int64)
        for z in np.unique(section[(section >= 0) & (section < self.source.shape[0])]).tolist():
            there = self.guest(z)
            if there is not None:
                rows, move = section == z, self.map(there)
                if isinstance(move, Shift):  # one sum in nm: taken back, it leaves no rounding
                    out[rows] = points[rows] + (np.array([there - z, move.y, move.x]) * size + (end - zero))
                else:
                    moved = np.column_stack([vox[rows, 0] + (there - z), move(vox[rows, 1:])])
                    out[rows] = moved * size + end
        out[np.isnan(out).any(1)] = np.nan
        return out


def _require_same(one: Frame, other: Frame) -> None:
    if one.shape != other.shape or not one.grid.matches(other.grid):
        own, next_ = (
            f"{f.shape} voxels of {f.grid.voxel_size_nm} nm at {f.grid.offset_nm} nm" for f in (one, other)
        )
        raise InputError(
            f"a stack map ends at {own}, and the next begins at {next_}: only maps that meet can be composed"
        )
