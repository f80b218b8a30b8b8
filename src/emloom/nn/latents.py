"""Principal components of latents: along which few directions patches differ most.

Latents that fit in memory are decomposed as they are (`principal_components`). Of more, number, mean and scatter
are enough, the `Moments`, which batches have and which add up: Chan, Golub & LeVeque 1983
(doi:10.1080/00031305.1983.10483115)::

    d = b.mean - a.mean         N = a.count + b.count
    mean = a.mean + d * b.count / N
    scatter = a.scatter + b.scatter + d d^T * a.count * b.count / N

Order and batches change nothing but rounding. The scatter has the squares of the singular values: what
varies less than about 1e-8 times as much as the first component, in standard deviations, drowns in rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

F64 = NDArray[np.float64]

_LONGEST = 4096


@dataclass(frozen=True, eq=False)
class Components:
    """The K directions of largest variance among latents of D numbers; all float64.

    Attributes:
        mean: [D], of the latents.
        axes: [K, D], orthonormal rows; the entry of largest size in each is positive.
        variance: [K], along each axis, divided by N - 1, descending.
        share: [K], of the whole variance; 0 where there is none at all.
    """

    mean: F64
    axes: F64
    variance: F64
    share: F64

    def project(self, latents_ND: NDArray[Any]) -> F64:
        """Return float64 [N, K]: the coordinates of latents along the axes."""
        scores: F64 = (np.asarray(latents_ND, np.float64) - self.mean) @ self.axes.T
        return scores

    def restore(self, scores_NK: NDArray[Any]) -> F64:
        """Return float64 [N, D]: the latents with these coordinates, and the mean in all other directions."""
        latents: F64 = np.asarray(scores_NK, np.float64) @ self.axes + self.mean
        return latents


def principal_components(latents_ND: NDArray[Any], count: int) -> Components:
    """Return the first `count` principal components, exact, by singular values of the centred latents in float64.

    Args:
        latents_ND: N latents of D numbers.
        count: how many, at most the smaller of N and D.

    Raises:
        InputError: latents are not [N, D] with N at least 2, hold NaN or infinity, or the count is out of range.
    """
    latents = np.asarray(latents_ND, np.float64)
    if latents.ndim != 2 or len(latents) < 2:
        raise _too_few(latents.shape)
    _check_values(latents)
    _check_count(count, *latents.shape)
    mean = latents.mean(axis=0)
    _, singular, axes = np.linalg.svd(latents - mean, full_matrices=False)
    return _components(mean, axes, singular**2 / (len(latents) - 1), count)


@dataclass(frozen=True, eq=False)
class Moments:
    """What principal components need to know of N latents of D numbers; D is at most 4096 (128 MiB).

    Attributes:
        count: N.
        mean: float64 [D].
        scatter: float64 [D, D], the sum over latents of the products of their differences from the mean.
    """

    count: int
    mean: F64
    scatter: F64

    @classmethod
    def of(cls, latents_ND: NDArray[Any]) -> Moments:
        """Return the moments of at least one latent, in float64.

        Raises:
            InputError: latents are not [N, D] with N at least 1 and D at most 4096, or hold NaN or infinity.
        """
        latents = np.asarray(latents_ND, np.float64)
        if latents.ndim != 2 or not latents.size:
            raise InputError(f"latents of shape {latents.shape} have no moments: give at least 1, as [N, D]")
        length = latents.shape[1]
        if length > _LONGEST:
            raise InputError(
                f"latents of {length} numbers have a scatter of {length} x {length}: "
                f"give at most {_LONGEST} numbers, or a sample that fits in memory to principal_components"
            )
        _check_values(latents)
        mean = latents.mean(axis=0)
        centred = latents - mean
        return cls(len(latents), mean, centred.T @ centred)

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both together.

        Raises:
            InputError: their latents have different lengths.
        """
        if self.mean.shape != other.mean.shape:
            raise InputError(
                f"latents of {self.mean.size} and of {other.mean.size} numbers cannot be put together: "
                "give those of one encoder"
            )
        count = self.count + other.count
        apart = other.mean - self.mean
        share = other.count / count
        scatter = np.outer(apart, apart * (self.count * share))
        scatter += self.scatter
        scatter += other.scatter
        return Moments(count, self.mean + apart * share, scatter)

    def components(self, count: int) -> Components:
        """Return the first `count` principal components, as `principal_components` of all latents does.

        Args:
            count: how many, at most the smaller of N and D.

        Raises:
            InputError: there are fewer than 2 latents, or the count is out of range.
        """
        if self.count < 2:
            raise _too_few((self.count, self.mean.size))
        _check_count(count, self.count, self.mean.size)
        squares, axes = np.linalg.eigh(self.scatter)
        variance = np.maximum(squares[::-1], 0) / (self.count - 1)
        return _components(self.mean, axes.T[::-1], variance, count)


def moments(batches: Iterable[NDArray[Any]]) -> Moments:
    """Return the moments of all latents of batches, one batch in memory at a time.

    Args:
        batches: at least one, each of at least one latent, [N, D].

    Raises:
        InputError: there is no batch, one is not valid, see `Moments.of`, or their lengths differ.
    """
    parts = map(Moments.of, batches)
    first = next(parts, None)
    if first is None:
        raise InputError("there are no batches, so no moments: give at least 1 batch of latents")
    return reduce(Moments.merged, parts, first)


def _components(mean: F64, axes: F64, variance: F64, count: int) -> Components:
    """Return the first of all components, which are sorted, their signs fixed."""
    total = variance.sum()
    axes = axes[:count]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)
    share = variance[:count] / total if total > 0 else np.zeros(count)
    return Components(mean, axes * np.where(largest < 0, -1.0, 1.0), variance[:count], share)


def _too_few(shape: tuple[int, ...]) -> InputError:
    return InputError(f"latents of shape {shape} have no principal components: give at least 2, as [N, D]")


def _check_values(latents: F64) -> None:
    if not np.isfinite(latents).all():
        raise InputError("latents hold NaN or infinity: leave those samples out")


def _check_count(count: int, n: int, d: int) -> None:
    if not 1 <= count <= min(n, d):
        raise InputError(f"{count} components of {n} latents with {d} numbers: ask for 1 to {min(n, d)}")
