"""Which planes to label next: a choice among windows of a volume, from what was counted in each.

For a window, ``n[k]`` counts its voxels of the predicted class k, and ``u[k]`` their summed uncertainty (1 minus
confidence), as if only that part of them told anything new. What a window is worth::

    gain      = sum over k of log(1 + K u[k] / (S + K labelled[k]))        S voxels of a window, K classes
    nearness  = min(1, mean distance to what is labelled / spread)
    score     = gain * nearness

The gain is the growth of ``sum log(1 + K labelled[k] / S)``: twice as many voxels of a class are not worth twice
as much, a class with few labels is worth more than one with many, and all classes weigh the same, as in macro
scores. The distance is the mean over nine points of the window (corners, middles of edges, centre) to the nearest
labelled or chosen box; so planes that cross are near each other only where they do.

The choice is greedy: the best window is taken, its voxels count as labelled, and all are scored again. Of equals
the first in order is taken. Two other strategies know nothing of the prediction: `spread` takes the window
furthest from all that is labelled, `random` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.geometry.grid import Vec3

Strategy = Literal["uncertainty", "spread", "random"]
Floats = NDArray[np.float64]

_DIGITS = 9  # scores that agree so far are equal: sums may round differently elsewhere


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows that can be chosen.

    Attributes:
        start: int64 [W, 3], first voxel (z, y, x).
        shape: int64 [W, 3], one of them 1.
        voxels: int64 [W, K], voxels of every predicted class.
        uncertain: float64 [W, K], their summed uncertainty in voxels.
    """

    start: NDArray[np.int64]
    shape: NDArray[np.int64]
    voxels: NDArray[np.int64]
    uncertain: Floats

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.start)

    def box(self, number: int) -> Box:
        """Return the voxels of one."""
        return Box.of(self.start[number].tolist(), (self.start[number] + self.shape[number]).tolist())

    def points_nm(self, spacing_nm: Vec3) -> Floats:
        """Return nine points of every window: corners, middles of edges, centre; float64 [W, 9, 3]."""
        rows, columns = np.divmod(np.arange(9), 3)
        normal = self.shape.argmin(axis=1)
        normal[(self.shape == 1).all(axis=1)] = 0
        points = np.repeat((self.start + 0.5)[:, None], 9, axis=1)
        for axis in range(3):
            of_axis = np.flatnonzero(normal == axis)
            first, second = (a for a in range(3) if a != axis)
            for along, step in ((first, rows), (second, columns)):
                points[of_axis, :, along] += (self.shape[of_axis, along, None] - 1) * step / 2
        found: Floats = points * np.array(spacing_nm)
        return found


@dataclass(frozen=True)
class Chosen:
    """One chosen window.

    Attributes:
        number: of the window.
        score: what it was chosen by; of `random` and `spread` also the gain times nearness.
        gains: what every class added, [K]; their sum is the gain.
        distance_nm: mean distance to what was labelled or chosen before; infinite where nothing was.
        labelled: voxels of every class that counted as labelled before, [K].
    """

    number: int
    score: float
    gains: tuple[float, ...]
    distance_nm: float
    labelled: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """How windows are chosen.

    Attributes:
        count: how many.
        size: voxels of a window, S.
        spread_nm: from this distance on a window is not made worth less for being near.
        strategy: see the module.
        seed: of `random`.
    """

    count: int
    size: int
    spread_nm: float
    strategy: Strategy = "uncertainty"
    seed: int = 0


def choose(
    windows: Windows,
    how: Choice,
    spacing_nm: Vec3,
    labelled: Sequence[Box] = (),
    labelled_voxels: NDArray[np.int64] | None = None,
) -> list[Chosen]:
    """Return the windows to label next, the best first; fewer than asked for where there are no more.

    Args:
        windows: to choose from.
        how: many, and by what.
        spacing_nm: voxel size (z, y, x).
        labelled: boxes that are labelled.
        labelled_voxels: int64 [K], of every class; None: none.
    """
    known = np.zeros(windows.voxels.shape[1], np.int64)
    known += 0 if labelled_voxels is None else labelled_voxels
    points = windows.points_nm(spacing_nm)
    nearest = np.full(points.shape[:2], np.inf)
    for box in labelled:
        np.minimum(nearest, distance_to(box, points, spacing_nm), out=nearest)
    order = np.random.default_rng(how.seed).permutation(len(windows))
    left = np.ones(len(windows), np.bool_)
    chosen: list[Chosen] = []
    while len(chosen) < how.count and left.any():
        gains = gains_of(windows.uncertain, known, how.size)
        distance = nearest.mean(axis=1)
        score = gains.sum(axis=1) * np.minimum(1.0, distance / how.spread_nm)
        number = _best(how.strategy, np.round(score, _DIGITS), distance, order, left, points)
        chosen.append(
            Chosen(
                number,
                float(score[number]),
                tuple(gains[number].tolist()),
                float(distance[number]),
                tuple(known.tolist()),
            )
        )
        left[number] = False
        known = known + windows.voxels[number]
        np.minimum(nearest, distance_to(windows.box(number), points, spacing_nm), out=nearest)
    return chosen


def gains_of(uncertain: Floats, labelled: NDArray[np.int64], size: int) -> Floats:
    """Return what every class adds to the gain of every window, float64 [W, K]; see the module."""
    count = uncertain.shape[1]
    gains: Floats = np.log1p(count * uncertain / (size + count * labelled))
    return gains


def distance_to(box: Box, points_nm: Floats, spacing_nm: Vec3) -> Floats:
    """Return the distance in nm of points [..., 3] to the centres of the voxels of a box; 0 between them."""
    spacing = np.array(spacing_nm)
    low, high = (np.array(box.start) + 0.5) * spacing, (np.array(box.stop) - 0.5) * spacing
    apart = np.maximum(np.maximum(low - points_nm, points_nm - high), 0)
    found: Floats = np.sqrt((apart**2).sum(axis=-1))
    return found


def _best(
    strategy: Strategy,
    score: Floats,
    distance: Floats,
    order: NDArray[Any],
    left: NDArray[np.bool_],
    points: Floats,
) -> int:
    if strategy == "random":
        return int(order[left[order]][0])
    if strategy == "spread":
        score = np.round(distance, _DIGITS)
        if np.isinf(distance).any():  # nothing is labelled: begin in the middle
            centre = points[:, 4]
            middle = (points.reshape(-1, 3).min(axis=0) + points.reshape(-1, 3).max(axis=0)) / 2
            score = -np.round(np.linalg.norm(centre - middle, axis=1), _DIGITS)
    return int(np.where(left, score, -np.inf).argmax())
