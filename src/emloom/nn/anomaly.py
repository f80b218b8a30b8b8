"""Detectors without a training loop: what can be said of a patch from frozen features of it.

Features are float32 ``[N, P, D]``: of each of N patches P positions, of each D numbers; labels int8 ``[N]``, 1
yes, 0 no, -1 unknown. Four ways from them to a score, more being more likely an artifact; each is fitted once,
without chance or from a seed, and says the same of a patch whatever else is asked in the same call::

    linear_probe   log odds of a logistic regression                     learns from yes and no
    neighbours     share of yes among the nearest labelled patches       learns from yes and no
    memory_bank    distance from all clean tissue that was seen          learns from no alone
    deviation      how unusual one number (an error) is among clean ones learns from no alone

Features are standardised first, by the mean and standard deviation of those that were fitted; the first two see
all positions of a patch as one row of numbers. Unknown patches teach nothing.

The memory bank is PatchCore (Roth et al. 2022, arXiv:2106.08265, equations 2 to 7): of all positions of clean
patches a coreset is kept; of a patch, the position farthest from the bank counts, its distance ``s`` from the
nearest item ``m`` weighed by how lonely ``m`` is itself::

    score = (1 - exp(s) / sum over the b items nearest to m, m among them, of exp(distance to the item)) * s

Unlike the paper, features are standardised; what it does by pooling 3 x 3 positions, cells do
(`emloom.nn.patchfeatures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logsumexp

from emloom.errors import InputError
from emloom.geometry.patches import NO, UNKNOWN, YES, Labels
from emloom.ops.coreset import farthest_first, projected
from emloom.ops.logistic import balanced_weights, logistic_regression
from emloom.ops.nearest import nearest
from emloom.spec import Spec

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_LEAST = 1e-12  # of a number whose logarithm is taken


class LinearProbeSpec(Spec):
    """A line between yes and no: logistic regression on standardised features."""

    kind: Literal["linear_probe"] = "linear_probe"
    strength: float = Field(default=0.01, gt=0)
    """C of `emloom.ops.logistic`: less is a stronger penalty, which many features of few patches need."""
    balanced: bool = True
    """Count yes and no alike, however rare yes is."""


class NeighboursSpec(Spec):
    """The share of yes among the nearest labelled patches, each counted by 1 / its distance."""

    kind: Literal["neighbours"] = "neighbours"
    k: int = Field(default=9, ge=1)
    """How many count; all where there are fewer."""


class MemoryBankSpec(Spec):
    """The distance from a bank of clean tissue; see the module."""

    kind: Literal["memory_bank"] = "memory_bank"
    items: int = Field(default=2000, ge=1)
    """Positions that are kept."""
    looked_at: int = Field(default=20_000, ge=1)
    """Positions, drawn at random where there are more, of which they are chosen."""
    projection: int = Field(default=128, ge=1)
    """Dimensions in which they are chosen; distances of scores are those of all features."""
    neighbours: int = Field(default=9, ge=1)
    """b: items that say how lonely the nearest one is; 1: scores are distances."""
    seed: int = Field(default=0, ge=0)


class DeviationSpec(Spec):
    """How many standard deviations the logarithm of a number is from that of clean patches."""

    kind: Literal["deviation"] = "deviation"
    sides: Literal["high", "both"] = "high"
    """Whether small numbers are suspicious, too: of a blank section nothing is lost."""


ScorerSpec = Annotated[
    LinearProbeSpec | NeighboursSpec | MemoryBankSpec | DeviationSpec, Field(discriminator="kind")
]
"""How features become a score."""


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted line.

    Attributes:
        spec: how it was fitted.
        centre: float64 [P * D], mean of the features.
        scale: float64 [P * D], their standard deviation.
        weights: float64 [P * D], of standardised features.
        offset: float64 [].
    """

    spec: LinearProbeSpec
    centre: F64
    scale: F64
    weights: F64
    offset: F64

    @classmethod
    def fit(cls, spec: LinearProbeSpec, features_NPD: F32, labels_N: Labels) -> LinearProbe:
        """Return the line; raises `InputError` where yes or no is missing."""
        features, positive = _known(features_NPD, labels_N)
        centre, scale = _spread(features)
        weights = balanced_weights(positive) if spec.balanced else None
        line, offset = logistic_regression((features - centre) / scale, positive, spec.strength, weights)
        return cls(spec, centre, scale, line, np.array(offset))

    def scores(self, features_NPD: F32) -> F64:
        """Return log odds, float64 [N]."""
        standard = (_flat(features_NPD, len(self.centre)) - self.centre) / self.scale
        # Sums of rows, not a product of matrices: what is said of a patch does not depend on the others.
        odds: F64 = (standard * self.weights).sum(axis=1) + self.offset
        return odds


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Labelled patches.

    Attributes:
        spec: how many count.
        centre: float64 [P * D], mean of the features.
        scale: float64 [P * D], their standard deviation.
        features: float64 [M, P * D], standardised.
        positive: bool [M].
    """

    spec: NeighboursSpec
    centre: F64
    scale: F64
    features: F64
    positive: NDArray[np.bool_]

    @classmethod
    def fit(cls, spec: NeighboursSpec, features_NPD: F32, labels_N: Labels) -> Neighbours:
        """Return the patches that are known; raises `InputError` where yes or no is missing."""
        features, positive = _known(features_NPD, labels_N)
        if positive.all() or not positive.any():
            raise InputError(
                f"{int(positive.sum())} of {len(positive)} known patches say yes: neighbours need some of both"
            )
        centre, scale = _spread(features)
        return cls(spec, centre, scale, (features - centre) / scale, positive)

    def scores(self, features_NPD: F32) -> F64:
        """Return shares of yes, float64 [N], 0 to 1; where patches are at distance 0, they alone count."""
        standard = (_flat(features_NPD, len(self.centre)) - self.centre) / self.scale
        distances, rows = nearest(standard, self.features, min(self.spec.k, len(self.features)))
        same = distances == 0
        with np.errstate(divide="ignore"):
            weights = np.where(same.any(axis=1, keepdims=True), same, 1.0 / distances)
        shares: F64 = (weights * self.positive[rows]).sum(axis=1) / weights.sum(axis=1)
        return shares


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """What clean tissue looks like.

    Attributes:
        spec: how it was filled.
        centre: float64 [D], mean of the features of a position.
        scale: float64 [D], their standard deviation.
        items: float32 [M, D], standardised.
        radius: float64 [], within which every position looked at lies from an item, in the projection.
    """

    spec: MemoryBankSpec
    centre: F64
    scale: F64
    items: F32
    radius: F64

    @classmethod
    def fit(cls, spec: MemoryBankSpec, features_NPD: F32, labels_N: Labels) -> MemoryBank:
        """Return the bank of the patches labelled no; raises `InputError` where there is none."""
        clean = _clean(features_NPD, labels_N)
        positions = clean.reshape(-1, clean.shape[2])
        rng = np.random.default_rng(spec.seed)
        if len(positions) > spec.looked_at:
            positions = positions[np.sort(rng.choice(len(positions), spec.looked_at, replace=False))]
        centre, scale = _spread(positions.astype(np.float64))
        standard = _standard(positions, centre, scale)
        flat = projected(standard.astype(np.float64), spec.projection, rng)
        chosen = farthest_first(flat, spec.items, int(rng.integers(len(flat))))
        return cls(spec, centre, scale, standard[chosen.rows], np.array(chosen.radius))

    def distances(self, features_NPD: F32) -> F64:
        """Return the distance of every position from the bank, float64 [N, P]."""
        return self._nearest(features_NPD)[0]

    def scores(self, features_NPD: F32) -> F64:
        """Return weighed distances of the farthest positions, float64 [N], 0 or more."""
        distances, rows = self._nearest(features_NPD)
        n = np.arange(len(distances))
        farthest = distances.argmax(axis=1)
        far, item = distances[n, farthest], rows[n, farthest]
        b = min(self.spec.neighbours, len(self.items))
        if b == 1 or not len(n):
            alone: F64 = far
            return alone
        items = self.items.astype(np.float64)
        _, around = nearest(items[item], items, b)
        position = self._standard(features_NPD)[n, farthest].astype(np.float64)
        apart = np.sqrt(((items[around] - position[:, None]) ** 2).sum(axis=2))
        weighed: F64 = (1.0 - np.exp(far - logsumexp(apart, axis=1))) * far
        return weighed

    def _standard(self, features_NPD: F32) -> F32:
        if features_NPD.ndim != 3 or features_NPD.shape[2] != len(self.centre):
            raise _unlike(features_NPD, f"[N, P, {len(self.centre)}]")
        return _standard(features_NPD, self.centre, self.scale)

    def _nearest(self, features_NPD: F32) -> tuple[F64, NDArray[np.int64]]:
        n, p, d = features_NPD.shape
        standard = self._standard(features_NPD).reshape(-1, d).astype(np.float64)
        distances, rows = nearest(standard, self.items.astype(np.float64), 1)
        return distances.reshape(n, p), rows.reshape(n, p)


@dataclass(frozen=True, eq=False)
class Deviation:
    """The distribution of a number among clean patches.

    Attributes:
        spec: which side is suspicious.
        centre: float64 [], mean of its logarithm.
        scale: float64 [], standard deviation of it.
    """

    spec: DeviationSpec
    centre: F64
    scale: F64

    @classmethod
    def fit(cls, spec: DeviationSpec, features_NPD: F32, labels_N: Labels) -> Deviation:
        """Return the distribution; raises `InputError` where no patch is labelled no."""
        centre, scale = _spread(_logarithm(_clean(features_NPD, labels_N))[:, None])
        return cls(spec, centre[0], scale[0])

    def scores(self, features_NPD: F32) -> F64:
        """Return standard deviations from the mean, float64 [N]; of `both` sides, their size."""
        away: F64 = (_logarithm(features_NPD) - self.centre) / self.scale
        if self.spec.sides == "high":
            return away
        size: F64 = np.abs(away)
        return size


Scorer = LinearProbe | Neighbours | MemoryBank | Deviation
"""Any way from features to a score."""

_OF: Mapping[type[Spec], Any] = {
    LinearProbeSpec: LinearProbe,
    NeighboursSpec: Neighbours,
    MemoryBankSpec: MemoryBank,
    DeviationSpec: Deviation,
}


def fit_scorer(spec: ScorerSpec, features_NPD: F32, labels_N: Labels) -> Scorer:
    """Return the scorer of a spec, fitted.

    Args:
        spec: which.
        features_NPD: float32 [N, P, D], finite.
        labels_N: int8 [N], 1 yes, 0 no, -1 unknown.

    Raises:
        InputError: shapes disagree, or there are no patches it could learn from.
    """
    if features_NPD.ndim != 3 or labels_N.shape != features_NPD.shape[:1]:
        raise InputError(
            f"features {features_NPD.shape} and labels {labels_N.shape} do not belong together: give [N, P, D] "
            "and [N]"
        )
    fitted: Scorer = _OF[type(spec)].fit(spec, features_NPD, labels_N)
    return fitted


def arrays_of(scorer: Scorer) -> dict[str, NDArray[Any]]:
    """Return all of a scorer but its spec, by name."""
    return {each.name: getattr(scorer, each.name) for each in fields(scorer) if each.name != "spec"}


def scorer_of(spec: ScorerSpec, arrays: Mapping[str, NDArray[Any]]) -> Scorer:
    """Return the scorer of `arrays_of`; raises `InputError` where the names are others."""
    kind = _OF[type(spec)]
    wanted = {each.name for each in fields(kind)} - {"spec"}
    if set(arrays) != wanted:
        raise InputError(
            f"a {spec.kind} has the arrays {', '.join(sorted(wanted))}, not {', '.join(sorted(arrays)) or 'none'}"
        )
    made: Scorer = kind(spec, **arrays)
    return made


def _known(features: F32, labels: Labels) -> tuple[F64, NDArray[np.bool_]]:
    known = labels != UNKNOWN
    return features[known].reshape(int(known.sum()), -1).astype(np.float64), labels[known] == YES


def _clean(features: F32, labels: Labels) -> F32:
    clean: F32 = features[labels == NO]
    if not len(clean):
        raise InputError(f"none of {len(labels)} patches is labelled no: there is no clean tissue to learn from")
    return clean


def _spread(rows: F64) -> tuple[F64, F64]:
    """Return mean and standard deviation of columns; 1 where nothing varies."""
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    # Rounding leaves a little of what is constant.
    return centre, np.where(scale > 1e-9 * np.maximum(np.abs(centre), 1e-30), scale, 1.0)


def _standard(features: F32, centre: F64, scale: F64) -> F32:
    standard: F32 = ((features - centre) / scale).astype(np.float32)
    return standard


def _flat(features: F32, length: int) -> F64:
    flat = features.reshape(len(features), -1).astype(np.float64)
    if len(features) and flat.shape[1] != length:
        raise _unlike(features, f"{length} numbers of each patch")
    return flat.reshape(len(features), length)


def _logarithm(features: F32) -> F64:
    if features.ndim != 3 or features.shape[2] != 1:
        raise _unlike(features, "[N, P, 1], one number of each position")
    logarithm: F64 = np.log(np.maximum(features[:, :, 0].mean(axis=1, dtype=np.float64), _LEAST))
    return logarithm


def _unlike(features: F32, wanted: str) -> InputError:
    return InputError(
        f"features of shape {features.shape} are not those that were fitted, {wanted}: compute them with the "
        "encoder and the features of the detector"
    )
