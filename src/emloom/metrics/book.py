"""The metrics of segmentations that can be asked for by name: what each says, and from which voxels or nodes.

A metric has a name (`voi`), one or more values (`voi_split` ..), each with a unit and the direction that is
better, and the rule that says which voxels count (`emloom.tasks.overlaptable`). Names that are not in the book are
errors: nothing that was asked for is left out without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Literal, TypeVar

from emloom.errors import InputError, did_you_mean
from emloom.metrics.contingency import Contingency
from emloom.metrics.cremi import cremi_neuron_scores
from emloom.metrics.matching import matching_curve, matching_scores, mean_accuracy, symmetric_best_dice
from emloom.metrics.overlap import overlap_scores
from emloom.metrics.runlength import EDGE_CLASSES, RunLengthScores

Values = dict[str, float]
M = TypeVar("M")


@dataclass(frozen=True)
class Value:
    """One number of a metric.

    Attributes:
        key: its name in `scores.json` and `scores.csv`.
        title: its name for people.
        better: which direction is better.
        unit: "bits", or "" for a share.
    """

    key: str
    title: str
    better: Literal["lower", "higher"]
    unit: str = ""


@dataclass(frozen=True)
class Metric:
    """A metric that can be asked for.

    Attributes:
        name: as in ``--metrics``.
        rule: which voxels count; "nodes": the nodes of skeletons.
        values: what it says.
        text: definition, in a sentence or two.
        of: from (contingency table, or `RunLengthScores` of the nodes; voxels in all) to the values by key.
    """

    name: str
    rule: Literal["known", "inner", "cremi", "whole", "nodes"]
    values: tuple[Value, ...]
    text: str
    of: Callable[[Any, int], Values]


def _picked(*keys: str, prefix: str = "") -> Callable[[Contingency, int], Values]:
    def of(table: Contingency, _: int) -> Values:
        scores = overlap_scores(table)
        return {prefix + key: getattr(scores, key) for key in keys}

    return of


def _cremi(table: Contingency, n_all: int) -> Values:
    scores = cremi_neuron_scores(table, n_all)
    names = ("voi_split", "voi_merge", "adapted_rand_error")
    return {f"cremi_{name}": getattr(scores, name) for name in names} | {"cremi_score": scores.cremi_score}


def _matching(table: Contingency, _: int) -> Values:
    scores = matching_scores(table, 0.5)
    found = {f"{name}_at_0.5": getattr(scores, name) for name in ("precision", "recall", "f1")}
    return found | {"mean_accuracy": mean_accuracy(matching_curve(table))}


def _panoptic(table: Contingency, _: int) -> Values:
    scores = matching_scores(table, 0.5)
    return {"panoptic_quality": scores.panoptic_quality, "segmentation_quality": scores.segmentation_quality}


def _run_length(scores: RunLengthScores, _: int) -> Values:
    return {name: getattr(scores, name) for name in ("erl_nm", "erl_truth_nm", "nerl")}


def _edges(scores: RunLengthScores, _: int) -> Values:
    total = sum(scores.edges)
    shares = {
        f"edges_{name}": count / total if total else nan
        for name, count in zip(EDGE_CLASSES, scores.edges, strict=True)
    }
    return shares | {name: getattr(scores, name) for name in ("splits_per_mm", "merges_per_mm")}


_BITS = "bits"

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "voi",
            "known",
            (
                Value("voi_split", "VOI split", "lower", _BITS),
                Value("voi_merge", "VOI merge", "lower", _BITS),
                Value("voi_sum", "VOI", "lower", _BITS),
            ),
            "Variation of information, log base 2: split = H(segments | truth), merge = H(truth | segments). "
            "0 is perfect; there is no upper bound but log2 of the voxels, and it grows with the volume.",
            _picked("voi_split", "voi_merge", "voi_sum"),
        ),
        Metric(
            "arand",
            "known",
            (
                Value("adapted_rand_error", "adapted Rand error (CREMI, SNEMI3D)", "lower"),
                Value("adapted_rand_error_pairs", "adapted Rand error (pairs, scikit-image)", "lower"),
            ),
            "1 - F of the Rand precision and recall, over squares of counts (as SNEMI3D and CREMI), and over "
            "pairs of different voxels (as scikit-image). 0 is perfect, 1 the worst; large objects dominate.",
            _picked("adapted_rand_error", "adapted_rand_error_pairs"),
        ),
        Metric(
            "rand",
            "known",
            (Value("rand_split", "Rand split", "higher"), Value("rand_merge", "Rand merge", "higher")),
            "Recall (split) and precision (merge) of the adapted Rand error: 1 is perfect.",
            _picked("rand_split", "rand_merge"),
        ),
        Metric(
            "nvi",
            "known",
            (Value("nvi", "normalised VOI", "lower"),),
            "VOI divided by the joint entropy, 0 (perfect) to 1.",
            _picked("nvi"),
        ),
        Metric(
            "nid",
            "known",
            (Value("nid", "normalised information distance", "lower"),),
            "1 - I(truth; segments) / max(H(truth), H(segments)), 0 (perfect) to 1.",
            _picked("nid"),
        ),
        Metric(
            "inner",
            "inner",
            (
                Value("inner_voi_split", "inner VOI split", "lower", _BITS),
                Value("inner_voi_merge", "inner VOI merge", "lower", _BITS),
                Value("inner_voi_sum", "inner VOI", "lower", _BITS),
            ),
            "VOI without the voxels next to a true border (--border), whose place is a matter of taste.",
            _picked("voi_split", "voi_merge", "voi_sum", prefix="inner_"),
        ),
        Metric(
            "cremi",
            "cremi",
            (
                Value("cremi_voi_split", "CREMI VOI split", "lower", _BITS),
                Value("cremi_voi_merge", "CREMI VOI merge", "lower", _BITS),
                Value("cremi_adapted_rand_error", "CREMI adapted Rand error", "lower"),
                Value("cremi_score", "CREMI score", "lower"),
            ),
            "As the CREMI leaderboard: truth 0 counts, 2^64 - 1 does not, nor do voxels within 25 nm of a border "
            "in their section; score = sqrt(VOI * adapted Rand error). 0 is perfect.",
            _cremi,
        ),
        Metric(
            "matching",
            "whole",
            (
                Value("precision_at_0.5", "precision at IoU 0.5", "higher"),
                Value("recall_at_0.5", "recall at IoU 0.5", "higher"),
                Value("f1_at_0.5", "F1 at IoU 0.5", "higher"),
                Value("mean_accuracy", "mean TP / (TP + FP + FN), IoU 0.5 to 0.95", "higher"),
            ),
            "Objects matched one to one by intersection over union; every object counts once, whatever its size. "
            "1 is perfect. The mean accuracy is what StarDist and Cellpose call average precision, averaged.",
            _matching,
        ),
        Metric(
            "pq",
            "whole",
            (
                Value("panoptic_quality", "panoptic quality", "higher"),
                Value("segmentation_quality", "segmentation quality", "higher"),
            ),
            "Mean IoU of the objects matched at IoU 0.5 (segmentation quality), times F1. 1 is perfect.",
            _panoptic,
        ),
        Metric(
            "sbd",
            "whole",
            (Value("symmetric_best_dice", "symmetric best Dice", "higher"),),
            "The smaller of two means: the best Dice over true objects, and over segments. 1 is perfect.",
            lambda table, _: {"symmetric_best_dice": symmetric_best_dice(table)},
        ),
        Metric(
            "nerl",
            "nodes",
            (
                Value("erl_nm", "expected run length", "higher", "nm"),
                Value("erl_truth_nm", "ERL of a perfect segmentation", "higher", "nm"),
                Value("nerl", "normalised ERL", "higher"),
            ),
            "How far one can go along a skeleton from a random point of it without an error; a segment that meets "
            "several skeletons counts nothing. NERL divides by that of a perfect segmentation: 1 is best.",
            _run_length,
        ),
        Metric(
            "edges",
            "nodes",
            (
                *(
                    Value(f"edges_{name}", f"{name} edges", "higher" if name == "correct" else "lower")
                    for name in EDGE_CLASSES
                ),
                Value("splits_per_mm", "splits per mm", "lower", "1/mm"),
                Value("merges_per_mm", "merges per mm", "lower", "1/mm"),
            ),
            "Edges of the skeletons: both ends in one segment (correct), in two (split), in one that meets "
            "several skeletons (merged), or in none (omitted); pieces and skeletons too many per length of path.",
            _edges,
        ),
    )
}
"""Every metric by name."""


def metrics_named(names: Sequence[str]) -> list[Metric]:
    """Return metrics by name, each once, in the order asked for; raises as `named`."""
    return named(METRICS, names)


def named(entries: Mapping[str, M], names: Sequence[str], of: str = "") -> list[M]:
    """Return entries of a book by name, each once, in the order asked for.

    Args:
        entries: the book.
        names: what is asked for.
        of: what its metrics are about, for messages, for example " of synapses".

    Raises:
        InputError: there is none, or a name is unknown.
    """
    valid = ", ".join(entries)
    if not names:
        raise InputError(f"no metric is asked for: name some of {valid}")
    for name in names:
        if name not in entries:
            hint = did_you_mean(name, list(entries))
            raise InputError(f"there is no metric{of} {name!r}{hint}: use some of {valid}")
    return [entries[name] for name in dict.fromkeys(names)]
