"""Recalibration: a straight line through the logits that makes probabilities frequencies.

Convention: ``logit(p) = log p - log(1 - p)``, and calibrated is ``sigmoid(slope * logit(p) + intercept)``. Fit on
validation data, apply to test data. With a positive slope, which patch ranks before which does not change.

* **Temperature** (Guo et al., ICML 2017, arXiv:1706.04599): intercept 0, slope ``1 / T``.
* **Platt** (Platt 1999): slope and intercept. His targets ``(n_1 + 1) / (n_1 + 2)`` and ``1 / (n_0 + 2)`` in
place of 1
  and 0 keep the optimum finite where a threshold parts the classes; see Lin, Lin and Weng, Machine Learning 2007,
  doi:10.1007/s10994-007-5018-6.
* **Prior shift** (Saerens, Latinne and Decaestecker, Neural Computation 2002, doi:10.1162/089976602753284446):
where
  positives are more or less frequent than in the validation data, and else look the same, the intercept gains
  ``logit(prevalence there) - logit(prevalence here)``.

Both fits are the one minimum of a convex function, found by Newton's method to the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from emloom.errors import InputError
from emloom.metrics.counts import Array, Ignore, known_voxels

F64 = NDArray[np.float64]

CLIP = 1e-12
"""Probabilities are kept this far from 0 and 1: a network in float32 that says 1 does not mean infinity."""

_STEPS = 200
_ENOUGH = 1e-14
_CLOSE = 1e-5


@dataclass(frozen=True)
class Recalibration:
    """A straight line through logits; see the module.

    Attributes:
        slope: 1 leaves the spread of logits as it is.
        intercept: 0 leaves 0.5 where it is.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, probabilities: Array) -> F64:
        """Return calibrated probabilities, float64, the shape of those given.

        Raises:
            InputError: they are not within 0 and 1.
        """
        calibrated: F64 = expit(self.slope * logits(probabilities) + self.intercept)
        return calibrated

    def shifted(self, fitted: float, applied: float) -> Recalibration:
        """Return what holds at another prevalence.

        Args:
            fitted: part of positives in the data this was fitted to.
            applied: part of positives where it will be applied.

        Raises:
            InputError: a prevalence is not between 0 and 1.
        """
        for value in (fitted, applied):
            if not 0 < value < 1:
                raise InputError(f"prevalence {value} is not between 0 and 1: 0.001 is one positive in a thousand")
        shift = log(applied) - log(1 - applied) - log(fitted) + log(1 - fitted)
        return Recalibration(self.slope, self.intercept + shift)


def logits(probabilities: Array) -> F64:
    """Return ``log p - log(1 - p)``, with probabilities kept `CLIP` away from 0 and 1.

    Raises:
        InputError: they are not within 0 and 1.
    """
    p = np.asarray(probabilities, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("scores to calibrate are not all within 0 and 1: apply a sigmoid to logits first")
    p = np.clip(p, CLIP, 1 - CLIP)
    found: F64 = np.log(p) - np.log1p(-p)
    return found


def fit_temperature(probabilities: Array, truth: Array, *, ignore: Ignore = -1) -> Recalibration:
    """Return the slope that makes the true answers most likely; the temperature is its inverse.

    Args:
        probabilities: floats within 0 and 1, any shape.
        truth: 1 or 0, the same shape.
        ignore: value or values of the truth that do not count.

    Raises:
        InputError: shapes differ, scores are no probabilities, only one class occurs, 0.5 parts the classes, so
            that no slope is steep enough, or logits point the wrong way, so that none is flat enough.
    """
    x, y = _evidence(probabilities, truth, ignore)
    if (x * (2 * y - 1) >= 0).all():
        raise InputError("every patch is on the right side of 0.5: no temperature is the best; use Platt's fit")
    if x @ (2 * y - 1) <= 0:
        raise InputError("logits point away from the truth on average: no temperature mends that; use Platt's fit")
    slope, _ = _newton(np.stack([x, np.zeros_like(x)]), y, np.array([True, False]))
    return Recalibration(slope)


def fit_platt(probabilities: Array, truth: Array, *, ignore: Ignore = -1) -> Recalibration:
    """Return slope and intercept that make the true answers most likely, with Platt's targets.

    Args:
        probabilities: floats within 0 and 1, any shape.
        truth: 1 or 0, the same shape.
        ignore: value or values of the truth that do not count.

    Raises:
        InputError: shapes differ, scores are no probabilities, or only one class occurs.
    """
    x, y = _evidence(probabilities, truth, ignore)
    positive = y.sum()
    targets = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (y.size - positive + 2))
    several = bool((x != x[0]).any())
    slope, intercept = _newton(np.stack([x, np.ones_like(x)]), targets, np.array([several, True]))
    return Recalibration(slope, intercept)


def _evidence(probabilities: Array, truth: Array, ignore: Ignore) -> tuple[F64, F64]:
    if np.shape(probabilities) != np.shape(truth):
        raise InputError(f"truth is {np.shape(truth)} but scores are {np.shape(probabilities)}: give one for each")
    known = known_voxels(np.asarray(truth), ignore)
    y = np.asarray(truth)[known].astype(np.float64)
    if not np.isin(y, (0, 1)).all():
        raise InputError(f"truth holds {sorted(set(np.unique(y)) - {0.0, 1.0})}: give 1 for yes and 0 for no")
    if not 0 < y.sum() < y.size:
        raise InputError(
            f"{int(y.sum())} of {y.size} patches to calibrate on are positive: there must be some of both"
        )
    return logits(np.asarray(probabilities)[known]), y


def _newton(features: F64, targets: F64, free: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the two weights of features [2, N] that minimise the cross entropy; those not free stay 0.

    A step is halved until it lowers the loss, so it converges from anywhere: the loss is convex.
    """
    weights = np.array([1.0, 0.0]) * free
    loss = _cross_entropy(weights @ features, targets)
    for _ in range(_STEPS):
        p = expit(weights @ features)
        gradient = features @ (p - targets) * free
        curvature = (features * (p * (1 - p))) @ features.T
        curvature[~free] = np.eye(2)[~free]
        curvature[:, ~free] = np.eye(2)[:, ~free]
        step = np.linalg.solve(curvature + 1e-300 * np.eye(2), gradient)
        size = np.abs(step).max() / (1 + np.abs(weights).max())
        if size <= _CLOSE:  # so near, the loss tells steps apart by its rounding only
            weights = weights - step
            if size <= _ENOUGH:
                break
            loss = _cross_entropy(weights @ features, targets)
            continue
        scale = 1.0
        while (lower := _cross_entropy((weights - scale * step) @ features, targets)) > loss and scale > 1e-10:
            scale /= 2
        if lower > loss:
            break
        weights, loss = weights - scale * step, lower
    return float(weights[0]), float(weights[1])


def _cross_entropy(x: F64, targets: F64) -> float:
    return float(np.sum(np.logaddexp(0, x) - targets * x))
