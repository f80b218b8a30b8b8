"""Logistic regression of two classes with a penalty on large weights, to the last digits and without chance.

The weights ``w`` and the offset ``b`` that minimise, over samples with classes ``y`` of 0 and 1 and sample weights
``s``::

    1/2 |w|^2  +  C * sum_i s_i * log(1 + exp(-(2 y_i - 1) * (w . x_i + b)))

The offset is not penalised. The objective is strictly convex, so there is one answer, and Newton's method with
halved steps finds it from zero. Where there are more features than samples, the answer lies in the span of the
samples and is looked for there: a problem of N numbers, not of D.

The definition is that of scikit-learn's ``LogisticRegression``. Cox 1958 (doi:10.1111/j.2517-6161.1958.tb00292.x).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from emloom.errors import InputError

F64 = NDArray[np.float64]
Bits = NDArray[np.bool_]

_MOST_STEPS = 200
_HALVINGS = 40
_GAIN = 1e-15  # of the objective, that another step would still bring: less is rounding


def logistic_regression(
    features_ND: F64, positive_N: Bits, strength: float = 1.0, weights_N: F64 | None = None
) -> tuple[F64, float]:
    """Return the weights, float64 [D], and the offset of the best line.

    Args:
        features_ND: float64 [N, D], finite; scaled alike, since the penalty compares weights.
        positive_N: bool [N], class 1.
        strength: C, above 0; less is a stronger penalty.
        weights_N: float64 [N], what each sample counts, not negative; None: 1.

    Raises:
        InputError: shapes disagree, a value is not finite, a class has no sample that counts, or the strength is
            not above 0.
    """
    weights = np.ones(len(positive_N)) if weights_N is None else weights_N
    _check(features_ND, positive_N, strength, weights)
    n, d = features_ND.shape
    if d <= n:
        return _newton(features_ND, positive_N, strength * weights)
    left, singular, span = np.linalg.svd(features_ND, full_matrices=False)
    inside, offset = _newton(left * singular, positive_N, strength * weights)
    return inside @ span, offset


def balanced_weights(positive_N: Bits) -> F64:
    """Return weights, float64 [N], with which both classes count alike, and all samples N together."""
    counts = np.bincount(positive_N.astype(np.int64), minlength=2)
    of_class: F64 = len(positive_N) / (2.0 * np.maximum(counts, 1))
    return of_class[positive_N.astype(np.int64)]


def _check(features: F64, positive: Bits, strength: float, weights: F64) -> None:
    if features.ndim != 2 or positive.shape != features.shape[:1] or weights.shape != features.shape[:1]:
        raise InputError(
            f"features {features.shape}, classes {positive.shape} and weights {weights.shape} do not belong "
            "together: give [N, D], [N] and [N]"
        )
    if not np.isfinite(features).all() or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(
            "features or weights are NaN or infinite, or a weight is negative: leave those samples out"
        )
    if not 0 < strength < np.inf:
        raise InputError(f"a strength of {strength} is not above 0: 1 is usual, 0.01 for many features")
    counted = positive[weights > 0]
    if not counted.any() or counted.all():
        raise InputError(
            f"{int(counted.sum())} of {counted.size} samples that count are positive: a line between two classes "
            "needs some of both"
        )


def _newton(features: F64, positive: Bits, weights: F64) -> tuple[F64, float]:
    """Return weights and offset; `weights` holds C."""
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.ones(design.shape[1])
    penalty[-1] = 0.0
    at = np.zeros(design.shape[1])
    value = _objective(design, positive, weights, penalty, at)
    for _ in range(_MOST_STEPS):
        chance = expit(design @ at)
        slope = design.T @ (weights * (chance - positive)) + penalty * at
        curvature = (design.T * (weights * chance * (1.0 - chance))) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        if slope @ step <= _GAIN * max(value, 1e-300):
            break
        tried, at_value = _halved(design, positive, weights, penalty, (at, value, step))
        if at_value >= value:
            break
        at, value = tried, at_value
    return at[:-1], float(at[-1])


def _halved(
    design: F64, positive: Bits, weights: F64, penalty: F64, start: tuple[F64, float, F64]
) -> tuple[F64, float]:
    """Return the first of ever shorter steps that lowers the objective, and the objective there."""
    at, value, step = start
    length = 1.0
    for _ in range(_HALVINGS):
        tried = at - length * step
        found = _objective(design, positive, weights, penalty, tried)
        if found < value:
            return tried, found
        length /= 2
    return at, value


def _objective(design: F64, positive: Bits, weights: F64, penalty: F64, at: F64) -> float:
    signed = np.where(positive, -1.0, 1.0) * (design @ at)
    return float(weights @ np.logaddexp(0.0, signed) + 0.5 * (penalty * at) @ at)
