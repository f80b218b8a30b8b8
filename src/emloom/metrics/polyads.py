"""Polyads: whether each pre site was given the right set of partners.

A polyad is one pre site with the set of segments its post sites lie in, T in the truth and F in the result. Pre
sites are matched one to one, as pairs are (`metrics.partners`): in the same true segment, at most a limit apart,
the cheapest matching. F of a true polyad without a match is empty, and so is T of a found one::

    set precision = sum |T and F| / sum |F|      over all polyads, so a missed or an invented pre site counts
    set recall    = sum |T and F| / sum |T|      with all its partners
    set F1        = 2 sum |T and F| / (sum |T| + sum |F|)
    exact         = true polyads with F = T / true polyads
    mean Jaccard  = mean over true polyads of |T and F| / |T or F|

Sets, not lists: two contacts of one pre site with one neuron are one partner, and where on the neuron the post
site lies plays no part. After the evaluation of polyadic synapses in zetta_utils (Zetta AI).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, nan

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.partnerpairs import F64, Ids, PartnerPairs
from emloom.metrics.partners import PartnerOptions, match_pairs


@dataclass(frozen=True, eq=False)
class Polyads:
    """Pre sites with their partners.

    Attributes:
        pre_nm: float64 [p, 3], positions (z, y, x) in nm of the pre sites.
        pre_segments: uint64 [p], the true segments they lie in.
        partners: p sets of the true segments of their post sites.
        inside: bool [p], False for those that can match nothing.
    """

    pre_nm: F64
    pre_segments: Ids
    partners: tuple[frozenset[int], ...]
    inside: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.partners)


@dataclass(frozen=True)
class PolyadScores:
    """How well sets of partners agree; see the module for the formulae. More is better for all ratios, 0 to 1.

    Attributes:
        tp: pre sites that have a match.
        fp: found pre sites without one.
        fn: true pre sites without one.
        set_precision: NaN where no partner was found.
        set_recall: NaN where there is no true partner.
        set_f1: NaN where there is neither.
        exact: NaN where there is no true polyad.
        mean_jaccard: NaN where there is no true polyad.
        true_partners: sum of the sizes of true sets.
        found_partners: sum of the sizes of found sets.
        common_partners: partners that are in both sets of a match.
        reason: why something is NaN, None where everything is defined.
    """

    tp: int
    fp: int
    fn: int
    set_precision: float
    set_recall: float
    set_f1: float
    exact: float
    mean_jaccard: float
    true_partners: int
    found_partners: int
    common_partners: int
    reason: str | None = None


def polyads_of(
    pairs: PartnerPairs, polyads: Ids, segments: Ids, inside: NDArray[np.bool_] | None = None
) -> Polyads:
    """Return the polyads that pairs make.

    Args:
        pairs: positions, row by row.
        polyads: uint64 [m], pairs of one pre site share it.
        segments: uint64 [m, 2], true segments of the (pre, post) sites.
        inside: bool [m], False for pairs with a site outside the segmentation: each is a partner that is nobody's.

    Raises:
        InputError: a column does not have one row per pair, or rows of a polyad differ in their pre site.
    """
    able = np.ones(len(pairs), bool) if inside is None else inside
    if (polyads.shape, segments.shape, able.shape) != ((len(pairs),), (len(pairs), 2), (len(pairs),)):
        raise InputError(f"polyads {polyads.shape} and segments {segments.shape} do not fit {len(pairs)} pairs")
    names, first, where = np.unique(polyads, return_index=True, return_inverse=True)
    apart = (pairs.pre_nm != pairs.pre_nm[first[where]]).any(axis=1)
    if apart.any():
        raise InputError(
            f"{pairs.source}: rows of polyad {int(polyads[apart][0])} differ in their pre site: a polyad is one "
            "pre site with its post sites"
        )
    sets: list[set[int]] = [set() for _ in names]
    for row, (polyad, segment, usable) in enumerate(
        zip(where.tolist(), segments[:, 1].tolist(), able, strict=True)
    ):
        sets[polyad].add(segment if usable else -1 - row)
    usable = np.zeros(len(names), bool)
    np.logical_or.at(usable, where, able)
    heads = np.zeros(len(names), np.uint64)
    heads[where[able]] = segments[able, 0]
    return Polyads(pairs.pre_nm[first], heads, tuple(frozenset(s) for s in sets), usable)


def polyad_scores(truth: Polyads, found: Polyads, limit_nm: float = 400.0) -> PolyadScores:
    """Compare polyads of two sides whose segments are looked up in the same segmentation.

    Args:
        truth: true polyads.
        found: polyads to judge.
        limit_nm: pre sites farther apart than this never match.

    Raises:
        InputError: the limit is negative or not finite.
    """
    (a, p), (b, q) = (
        (PartnerPairs(side.pre_nm, side.pre_nm), np.stack([side.pre_segments] * 2, axis=1))
        for side in (truth, found)
    )
    options = PartnerOptions(limit_nm=limit_nm)
    matches = match_pairs(a, b, p, q, inside=found.inside, options=options).matches
    pairs = [(truth.partners[i], found.partners[j]) for i, j in matches.tolist()]
    common = sum(len(t & f) for t, f in pairs)
    n_t, n_f = (sum(map(len, side.partners)) for side in (truth, found))
    reasons = [f"the {what} has no partner" for what, n in (("truth", n_t), ("result", n_f)) if not n]
    return PolyadScores(
        tp=len(pairs),
        fp=len(found) - len(pairs),
        fn=len(truth) - len(pairs),
        set_precision=_ratio(common, n_f),
        set_recall=_ratio(common, n_t),
        set_f1=_ratio(2 * common, n_t + n_f),
        exact=_ratio(sum(t == f for t, f in pairs), len(truth)),
        mean_jaccard=_ratio(fsum(len(t & f) / len(t | f) for t, f in pairs), len(truth)),
        true_partners=n_t,
        found_partners=n_f,
        common_partners=common,
        reason="; ".join(reasons) or None,
    )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else nan
