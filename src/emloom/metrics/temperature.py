"""Temperature of the probabilities of several classes: one number that makes them as sure as they are right.

Guo et al., ICML 2017 (arXiv:1706.04599)::

    calibrated_k  =  p_k^(1/T) / sum over l of  p_l^(1/T)            T above 1 makes less sure

The likeliest class stays what it was. T is the one minimum of the mean negative log likelihood of the true
classes, which is convex in 1/T. For two classes it is what `emloom.metrics.recalibrate.fit_temperature` finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax

from emloom.errors import InputError
from emloom.metrics.counts import Array, Ignore, known_voxels

F64 = NDArray[np.float64]

LIMITS = (1 / 64, 64.0)
"""Temperatures beyond these are no calibration."""
_FLAT = 1e-12


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it was worth.

    Attributes:
        value: T.
        nll_before: mean negative log likelihood of the true classes, in nats, at T = 1.
        nll_after: the same at T.
    """

    value: float
    nll_before: float
    nll_after: float


def fit_class_temperature(
    probabilities: Array, truth: Array, *, ignore: Ignore = 255, floor: float = 1e-5
) -> Temperature:
    """Return the temperature that makes the true classes most likely.

    Args:
        probabilities: floats within 0 and 1, ``[K, ...]``, one channel per class.
        truth: classes 0 to K - 1, of the shape of one channel.
        ignore: value or values of the truth that do not count.
        floor: lower probabilities are taken for this.

    Raises:
        InputError: shapes differ, scores are no probabilities, the truth holds no class, nothing counts, every
            voxel has the right class (no temperature is low enough), or probabilities are no better than chance.
    """
    if probabilities.ndim < 2 or probabilities.shape[1:] != truth.shape:
        raise InputError(
            f"truth is {truth.shape} but probabilities are {probabilities.shape}: give (classes, ...)"
        )
    known = known_voxels(truth, ignore)
    classes = truth[known].astype(np.int64)
    if not classes.size:
        raise InputError("no voxel has a true class: there is nothing to fit a temperature to")
    if not 0 <= classes.min() <= classes.max() < len(probabilities):
        raise InputError(
            f"truth holds class {classes.max()}, and there are {len(probabilities)} probabilities: ignore it"
        )
    p = probabilities[:, known]
    if p.dtype.kind != "f" or not ((p >= 0) & (p <= 1)).all():
        raise InputError("probabilities to calibrate are not all within 0 and 1: divide stored uint8 by 255")
    logs: F64 = np.log(np.maximum(p.astype(np.float64), floor))
    right = np.take_along_axis(logs, classes[None], 0)[0]

    def slope(inverse: float) -> float:
        """Return the derivative of the mean negative log likelihood by 1/T."""
        shares = np.exp(log_softmax(inverse * logs, axis=0))
        return float(((shares * logs).sum(0) - right).mean())

    coldest, hottest = 1 / LIMITS[0], 1 / LIMITS[1]
    if slope(coldest) <= _FLAT:  # the loss falls, or is flat, as far as we look
        raise InputError("nearly every voxel has the right class: no temperature is the best; leave it at 1")
    if slope(hottest) > 0:
        raise InputError("probabilities say nothing about the true classes: no temperature mends that")
    inverse = float(brentq(slope, hottest, coldest, xtol=1e-12))

    def loss(at: float) -> float:
        return -float(np.take_along_axis(log_softmax(at * logs, axis=0), classes[None], 0).mean())

    return Temperature(1 / inverse, loss(1.0), loss(inverse))
