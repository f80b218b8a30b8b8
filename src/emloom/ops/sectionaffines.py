"""One affine map per section, solved over the whole stack from the links between its sections.

::

    E = sum over links (i, j), places p with moves d     w |M_i(p) - M_j(p + d)|²      they shall meet
      + sum over sections z                      1/L²  |A_z - R_z|²                    and stay near a rotation
      + sum over sections z                      tiny  |M_z - M_(z+1)|²                where nothing else tells

``A_z`` is the linear part of ``M_z``, ``R_z`` the rotation nearest to it. Without the second term small errors of
links add up over a stack, and to shrink everything would be cheap; L is the number of sections over which links
outweigh it, so it holds slow drift and leaves alone what one section did. The reference section stays where it is.
Rows of the maps, along y and x, share one banded matrix: memory is that of sections times how far links reach.

Weights are those of Geman & McClure 1985, found anew after every solution (iteratively reweighted least squares).
Elastic alignment of large stacks by affine maps and springs: Saalfeld et al. 2012 (doi:10.1038/nmeth.2072).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from emloom.errors import InputError
from emloom.geometry.planar import Affine
from emloom.ops.patchlinks import Link

F64 = NDArray[np.float64]

_TINY = 1e-7
_HELD = 1e6  # weight of the reference
_STEPS = 30
_STILL = 1e-4  # pixels
_STRANGE = 2.0  # times: no section was stretched or shrunk by as much
_TIMES_OWN, _TIMES_ALL = 3.0, 4.0  # a link of chance matches is worse than others, and loses its trust


@dataclass(frozen=True)
class AffineStack:
    """How the maps of a stack are solved.

    Attributes:
        reference: the section that stays; None: the middle one.
        drift_sections: L of the module; None: no pull towards rotations.
        fewest: a link that is left with less than this many places, weights counted, does not count.
        least_px: residuals below this are never an outlier's.

    Raises:
        InputError: a number is not positive.
    """

    reference: int | None = None
    drift_sections: float | None = 30.0
    fewest: float = 5.0
    least_px: float = 1.0

    def __post_init__(self) -> None:
        if min(self.drift_sections or 1.0, self.fewest, self.least_px) <= 0:
            raise InputError(
                f"drift over {self.drift_sections} sections, at least {self.fewest} places, residuals of "
                f"{self.least_px} px: give numbers above 0"
            )


@dataclass(frozen=True)
class LinkFit:
    """How well a link is met.

    Attributes:
        first: number of the one section.
        second: number of the other.
        median_px: median distance at which places meet; NaN without any.
        p95_px: that of the 95th percentile.
        trusted: part of the weight that robust weights left, 0 to 1.
        used: whether it counted.
    """

    first: int
    second: int
    median_px: float
    p95_px: float
    trusted: float
    used: bool


@dataclass(frozen=True, eq=False)
class SectionAffines:
    """The maps of a stack.

    Attributes:
        maps: per section, source section -> common frame.
        linked: per section, whether links join it to the reference; if not its map is that of its neighbours.
        residual_px: per section, the median distance at which its places meet those of others; NaN: no links.
        links: how well each is met, in the order given.
    """

    maps: tuple[Affine, ...]
    linked: NDArray[np.bool_]
    residual_px: F64
    links: tuple[LinkFit, ...]


def section_affines(
    sections: int, links: Sequence[Link], start: ArrayLike | None = None, how: AffineStack | None = None
) -> SectionAffines:
    """Return the affine maps of all sections of a stack.

    Args:
        sections: their number.
        links: between them.
        start: positions [Z, 2] known already, (y, x) pixels by which each section is moved: unlinked sections keep
            their distance to neighbours, and slow drift is held to them. None: none are known.
        how: weights and limits.

    Raises:
        InputError: a link or the reference is not of the stack, positions are not finite or not [Z, 2], or no link
            holds enough places.
    """
    how = how or AffineStack()
    reference = sections // 2 if how.reference is None else how.reference
    moved = np.zeros((sections, 2)) if start is None else np.asarray(start, np.float64)
    _check(sections, links, reference, moved)
    system = _System.of(sections, links, replace(how, reference=reference), moved, start is not None)
    used = np.array([link.weights.sum() > 0 for link in links])
    used &= np.array([len(link.places) >= how.fewest for link in links])
    while True:
        if not used.any():
            raise InputError(
                f"none of {len(links)} links holds {how.fewest:g} places that agree: sections do not overlap, or "
                "resemble each other nowhere"
            )
        solution, trust = system.solved(used)
        keep = used & ~system.weak(trust) & ~system.strange(solution)
        if (keep == used).all():
            break
        used = keep
    return system.result(solution, trust, used)


def _check(sections: int, links: Sequence[Link], reference: int, moved: F64) -> None:
    if not 0 <= reference < sections:
        raise InputError(f"the reference section {reference} is not one of 0 to {sections - 1}")
    if moved.shape != (sections, 2) or not np.isfinite(moved).all():
        raise InputError(f"positions of shape {moved.shape} are not finite (y, x) of {sections} sections")
    if not links:
        raise InputError("there are no links between sections: measure their flow first")
    last = max(max(link.first, link.second) for link in links)
    if last >= sections:
        raise InputError(f"a link leads to section {last} of a stack of {sections}")


@dataclass(frozen=True, eq=False)
class _System:
    """Everything in units of the places' spread, around their centre: a map is [3, 2], for (y, x, 1)."""

    sections: int
    links: Sequence[Link]
    how: AffineStack
    centre: F64
    size: float
    ends: list[tuple[F64, F64]]
    weights: list[F64]
    moved: F64
    anchored: bool

    @classmethod
    def of(cls, sections: int, links: Sequence[Link], how: AffineStack, moved: F64, anchored: bool) -> _System:
        places = np.concatenate([link.places for link in links])
        centre = places.mean(0) if len(places) else np.zeros(2)
        size = max(float(np.sqrt(np.square(places - centre).sum(1).mean())) if len(places) else 0.0, 1.0)
        ones = [np.ones((len(link.places), 1)) for link in links]
        ends = [
            (np.hstack([(p - centre) / size, one]), np.hstack([(p + link.moves - centre) / size, one]))
            for link, one in zip(links, ones, strict=True)
            for p in [link.places]
        ]
        # A whole link weighs about 1: the pull, which does not grow with places, is weighed against it.
        sums = [link.weights.sum() for link in links if link.weights.sum() > 0]
        typical = float(np.median(sums)) if sums else 1.0
        weights = [link.weights / typical for link in links]
        return cls(sections, links, how, centre, size, ends, weights, moved / size, anchored)

    def solved(self, used: NDArray[np.bool_]) -> tuple[F64, list[F64]]:
        """Return maps [Z, 3, 2] and robust weights of all places."""
        trust = [np.ones(len(w)) for w in self.weights]
        maps = np.concatenate([np.broadcast_to(np.eye(2), (self.sections, 2, 2)), self.moved[:, None]], axis=1)
        band = 3 * (max(abs(link.first - link.second) for link in self.links) + 1)
        for _ in range(_STEPS):
            before = maps
            matrix, right = self._equations(maps, trust, used, band)
            maps = linalg.solveh_banded(matrix, right, lower=True, check_finite=False)
            maps = maps.reshape(self.sections, 3, 2)
            trust = self._trusted(maps, used)
            if np.abs(maps - before).max() * self.size < _STILL:
                break
        return maps, trust

    def _equations(self, maps: F64, trust: list[F64], used: NDArray[np.bool_], band: int) -> tuple[F64, F64]:
        """Return the banded matrix and the right side of the next solution."""
        n = self.sections
        matrix, right = np.zeros((band, 3 * n)), np.zeros((n, 3, 2))
        for k in np.flatnonzero(used).tolist():
            (p, q), w = self.ends[k], (self.weights[k] * trust[k])[:, None]
            i, j = self.links[k].first, self.links[k].second
            _add(matrix, i, i, p.T @ (w * p))
            _add(matrix, j, j, q.T @ (w * q))
            low, high = (p, q) if i > j else (q, p)
            _add(matrix, max(i, j), min(i, j), -(low.T @ (w * high)))
        pull = 0.0 if self.how.drift_sections is None else 1.0 / self.how.drift_sections**2
        half = np.array([0.5, 0.5, 1.0 if self.anchored else 0.0]) * pull
        rest = np.concatenate([_rotations(maps[:, :2]), self.moved[:, None]], axis=1)
        held = np.tile(half, (n, 1))
        ends = [z for k in np.flatnonzero(used).tolist() for z in _of(self.links[k])]
        held[np.setdiff1d(np.arange(n), ends)] = 0.0  # what is linked to nothing follows its neighbours alone
        held[self.how.reference] = _HELD
        rest[self.how.reference, :2] = np.eye(2)
        matrix[0] += held.ravel()
        right += held[:, :, None] * rest
        self._join(matrix, right)
        return matrix, right.reshape(3 * n, 2)

    def _join(self, matrix: F64, right: F64) -> None:
        """Join every section to the next, ever so weakly."""
        tiny = _TINY * np.diag([0.5, 0.5, 1.0])
        for z in range(self.sections - 1):
            _add(matrix, z, z, tiny)
            _add(matrix, z + 1, z + 1, tiny)
            _add(matrix, z + 1, z, -tiny)
        apart = np.diff(self.moved, axis=0) * _TINY
        right[1:, 2] += apart
        right[:-1, 2] -= apart

    def residuals(self, maps: F64) -> list[F64]:
        """Return the distance, in pixels, at which the two ends of every place come to lie."""
        return [
            np.hypot(*((p @ maps[link.first] - q @ maps[link.second]).T * self.size))
            for link, (p, q) in zip(self.links, self.ends, strict=True)
        ]

    def _trusted(self, maps: F64, used: NDArray[np.bool_]) -> list[F64]:
        far = self.residuals(maps)
        middle = np.array([np.median(e) if len(e) else 0.0 for e in far])
        most = _TIMES_ALL * float(np.median(middle[used]))
        scales = np.maximum(np.minimum(_TIMES_OWN * middle, most), self.how.least_px)
        return [1 / np.square(1 + np.square(e / scale)) for e, scale in zip(far, scales, strict=True)]

    def weak(self, trust: list[F64]) -> NDArray[np.bool_]:
        """Return which links are left with too few places."""
        left = []
        for link, t in zip(self.links, trust, strict=True):
            # As many equal places hold as much (Kish 1965), of those that are trusted.
            alike = link.weights.sum() ** 2 / max(np.square(link.weights).sum(), 1e-12)
            left.append(float(alike * (link.weights * t).sum() / max(link.weights.sum(), 1e-12)))
        return np.array(left) < self.how.fewest

    def strange(self, maps: F64) -> NDArray[np.bool_]:
        """Return which links lead to a section that they stretch or shrink beyond belief, or turn over."""
        stretch = np.linalg.svd(maps[:, :2], compute_uv=False)
        odd = (stretch.max(1) > _STRANGE) | (stretch.min(1) < 1 / _STRANGE)
        odd |= np.linalg.det(maps[:, :2]) <= 0
        return np.array([bool(odd[link.first] or odd[link.second]) for link in self.links])

    def result(self, maps: F64, trust: list[F64], used: NDArray[np.bool_]) -> SectionAffines:
        """Return maps in pixels, exactly still at the reference, and how well they fit."""
        reference = int(self.how.reference or 0)
        home = maps[reference]
        still = np.linalg.inv(home[:2])
        linear = maps[:, :2] @ still
        shift = (maps[:, 2] - home[2]) @ still + self.moved[reference]
        linear[reference], shift[reference] = np.eye(2), self.moved[reference]
        affine = []
        for a, t in zip(linear.transpose(0, 2, 1), shift, strict=True):
            affine.append(Affine.of(np.column_stack([a, self.centre + t * self.size - a @ self.centre])))
        far = self.residuals(np.concatenate([linear, shift[:, None]], axis=1))
        fits = []
        for link, e, t, kept in zip(self.links, far, trust, used, strict=True):
            median, p95 = np.percentile(e, [50, 95]) if len(e) else (np.nan, np.nan)
            trusted = float((link.weights * t).sum() / max(link.weights.sum(), 1e-12))
            fits.append(LinkFit(link.first, link.second, float(median), float(p95), trusted, bool(kept)))
        residual = np.full(self.sections, np.nan)
        for z in range(self.sections):
            near = [e for link, e, kept in zip(self.links, far, used, strict=True) if kept and z in _of(link)]
            if near:
                residual[z] = np.median(np.concatenate(near))
        return SectionAffines(
            tuple(affine), _joined(self.sections, self.links, used, reference), residual, tuple(fits)
        )


def _of(link: Link) -> tuple[int, int]:
    return link.first, link.second


def _add(matrix: F64, row: int, column: int, block: NDArray[Any]) -> None:
    """Add a 3 x 3 block to a matrix of which the lower bands are kept."""
    for r in range(3):
        for c in range(3):
            down = 3 * (row - column) + r - c
            if down >= 0:
                matrix[down, 3 * column + c] += block[r, c]


def _rotations(linear: F64) -> F64:
    """Return the rotations nearest to matrices [Z, 2, 2]."""
    angle = np.arctan2(linear[:, 0, 1] - linear[:, 1, 0], linear[:, 0, 0] + linear[:, 1, 1])
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1)


def _joined(sections: int, links: Sequence[Link], used: NDArray[np.bool_], reference: int) -> NDArray[np.bool_]:
    """Return which sections links join to the reference."""
    out = np.zeros(sections, bool)
    out[reference] = True
    while True:
        before = out.sum()
        for link, kept in zip(links, used, strict=True):
            if kept and (out[link.first] or out[link.second]):
                out[[link.first, link.second]] = True
        if out.sum() == before:
            return out
