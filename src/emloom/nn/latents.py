"""Principal components of latents: along which few directions patches differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

F64 = NDArray[np.float64]


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
        raise InputError(
            f"latents of shape {latents.shape} have no principal components: give at least 2, as [N, D]"
        )
    if not np.isfinite(latents).all():
        raise InputError("latents hold NaN or infinity: leave those samples out")
    if not 1 <= count <= min(latents.shape):
        raise InputError(
            f"{count} components of {latents.shape[0]} latents with {latents.shape[1]} numbers: "
            f"ask for 1 to {min(latents.shape)}"
        )
    mean = latents.mean(axis=0)
    _, singular, axes = np.linalg.svd(latents - mean, full_matrices=False)
    variance = singular**2 / (len(latents) - 1)
    total = variance.sum()
    axes = axes[:count]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)
    share = variance[:count] / total if total > 0 else np.zeros(count)
    return Components(mean, axes * np.where(largest < 0, -1.0, 1.0), variance[:count], share)
