"""The metrics of synapses that can be asked for by name, in the manner of `emloom.metrics.book`.

A metric has a name (`partners`), values, each with a unit and the direction that is better, and a definition. No
name and no key stands in the other book: `cremi` there is about neurons. Keys begin with what they are about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emloom.metrics.book import named

Direction = Literal["lower", "higher", "near 0"]


@dataclass(frozen=True)
class SynapseValue:
    """One number of a metric.

    Attributes:
        key: its name in `scores.json` and `scores.csv`.
        title: its name for people.
        better: which direction is better.
        field: of the scores it is taken from.
        unit: "nm", "voxels" .., or "" for a share.
    """

    key: str
    title: str
    better: Direction
    field: str
    unit: str = ""


@dataclass(frozen=True)
class SynapseMetric:
    """A metric that can be asked for.

    Attributes:
        name: as in ``--metrics``.
        values: what it says.
        headline: key of the value that stands for the metric.
        text: definition, in a sentence or two.
    """

    name: str
    values: tuple[SynapseValue, ...]
    headline: str
    text: str

    def of(self, scores: Any) -> dict[str, float]:
        """Return the values by key, from the scores of the metric."""
        return {value.key: getattr(scores, value.field) for value in self.values}


def _values(prefix: str, *rows: tuple[str, str, Direction, str]) -> tuple[SynapseValue, ...]:
    return tuple(
        SynapseValue(f"{prefix}_{field}", title, better, field, unit) for field, title, better, unit in rows
    )


METRICS: Mapping[str, SynapseMetric] = {
    metric.name: metric
    for metric in (
        SynapseMetric(
            "clefts",
            _values(
                "cleft",
                ("cremi_score_nm", "CREMI score of clefts", "lower", "nm"),
                ("adgt_nm", "mean distance from the result to the truth (ADGT)", "lower", "nm"),
                ("adf_nm", "mean distance from the truth to the result (ADF)", "lower", "nm"),
                ("fp", "false positive cleft voxels", "lower", "voxels"),
                ("fn", "false negative cleft voxels", "lower", "voxels"),
                ("precision", "cleft precision", "higher", ""),
                ("recall", "cleft recall", "higher", ""),
                ("f1", "cleft F1", "higher", ""),
            ),
            "cleft_cremi_score_nm",
            "Cleft voxels as CREMI scores them. A voxel is false where the nearest cleft of the other side is "
            "farther than 200 nm (or the limit that was asked for); the CREMI score is the mean of both mean "
            "distances, 0 is perfect. What the truth ignores, or the mask leaves out, counts nowhere.",
        ),
        SynapseMetric(
            "cleft_objects",
            _values(
                "cleft_objects",
                ("f1", "F1 of clefts as objects", "higher", ""),
                ("f1_low", "lower end of its 95 % interval", "higher", ""),
                ("f1_high", "upper end of its 95 % interval", "higher", ""),
                ("precision", "precision of clefts as objects", "higher", ""),
                ("precision_low", "lower end of its 95 % interval", "higher", ""),
                ("precision_high", "upper end of its 95 % interval", "higher", ""),
                ("recall", "recall of clefts as objects", "higher", ""),
                ("recall_low", "lower end of its 95 % interval", "higher", ""),
                ("recall_high", "upper end of its 95 % interval", "higher", ""),
                ("tp", "clefts found", "higher", "clefts"),
                ("fp", "clefts invented", "lower", "clefts"),
                ("fn", "clefts missed", "lower", "clefts"),
                ("mean_iou", "mean IoU of the matches", "higher", ""),
            ),
            "cleft_objects_f1",
            "Connected clefts, or those of one id, matched one to one where they have at least a tenth of their "
            "union (or the part that was asked for) in common. Intervals are bootstrap intervals over objects. "
            "1 is perfect; what the truth ignores, or the mask leaves out, counts nowhere.",
        ),
        SynapseMetric(
            "partners",
            _values(
                "partner",
                ("fscore", "partner F-score", "higher", ""),
                ("precision", "partner precision", "higher", ""),
                ("recall", "partner recall", "higher", ""),
                ("tp", "partner pairs found", "higher", "pairs"),
                ("fp", "partner pairs invented", "lower", "pairs"),
                ("fn", "partner pairs missed", "lower", "pairs"),
                ("cost_nm", "cost of the matches", "lower", "nm"),
            ),
            "partner_fscore",
            "Pairs of pre and post sites as CREMI matches them: same two true neurons, sites at most 400 nm (or "
            "the limit that was asked for) apart, the cheapest matching of all. 1 is perfect.",
        ),
        SynapseMetric(
            "polyads",
            _values(
                "polyad",
                ("set_f1", "F1 of sets of partners", "higher", ""),
                ("set_precision", "precision of sets of partners", "higher", ""),
                ("set_recall", "recall of sets of partners", "higher", ""),
                ("exact", "pre sites with just the right partners", "higher", ""),
                ("mean_jaccard", "mean Jaccard index of sets of partners", "higher", ""),
                ("tp", "pre sites found", "higher", "pre sites"),
                ("fp", "pre sites invented", "lower", "pre sites"),
                ("fn", "pre sites missed", "lower", "pre sites"),
            ),
            "polyad_set_f1",
            "The set of neurons that each pre site talks to. Pre sites are matched one to one, in the same true "
            "neuron and at most 400 nm (or the limit that was asked for) apart; a missed or invented pre site "
            "counts with all its partners. 1 is perfect.",
        ),
        SynapseMetric(
            "connections",
            _values(
                "connection",
                ("f1", "connection F1", "higher", ""),
                ("precision", "connection precision", "higher", ""),
                ("recall", "connection recall", "higher", ""),
                ("tp", "connections found", "higher", "connections"),
                ("fp", "connections invented", "lower", "connections"),
                ("fn", "connections missed", "lower", "connections"),
                ("synapse_precision", "synapse precision of connections", "higher", ""),
                ("synapse_recall", "synapse recall of connections", "higher", ""),
                ("edge_weight_f1", "edge-weight F1", "higher", ""),
                ("pearson", "Pearson's r of weights", "higher", ""),
                ("spearman", "Spearman's rho of weights", "higher", ""),
                ("median_log2_ratio", "median log2 of found by true weight", "near 0", ""),
            ),
            "connection_edge_weight_f1",
            "Neurons joined by at least the minimum weight of synapses, edge by edge, positions aside. The "
            "edge-weight F1 counts the synapses of an edge that both sides have; correlations look at the "
            "connections that exist in both. 1 is perfect; background is no neuron.",
        ),
    )
}
"""Every metric by name."""


def synapse_metrics_named(names: Sequence[str]) -> list[SynapseMetric]:
    """Return metrics by name, each once, in the order asked for; raises as `book.named`."""
    return named(METRICS, names, " of synapses")
