"""Tracings as `emloom evaluate` scores them: what lies under their nodes, for one threshold or a hundred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.io.open import open_volume
from emloom.io.skeletons import read_skeletons
from emloom.metrics.book import Metric
from emloom.metrics.contingency import Contingency, Ids
from emloom.metrics.runlength import RunLengthRule, RunLengthScores, run_length_scores
from emloom.metrics.runlengtherrors import RunLengths, run_lengths
from emloom.ops.labels import apply_lut
from emloom.tasks.nodelookup import node_segments
from emloom.tasks.scorespec import EvaluateSpec, Subject

Lut = tuple[Ids, Ids]


@dataclass(frozen=True)
class Nodes:
    """Skeletons, and the fragments or segments under their nodes.

    Attributes:
        skeletons: the truth.
        labels: uint64 [N], 0 where there is none.
        n_outside: nodes outside of the segmentation, which count as in none.
        rule: what counts as a merge.
        no_merge: voxels of the labels in the region they must not enter.
    """

    skeletons: Skeletons
    labels: Ids
    n_outside: int
    rule: RunLengthRule
    no_merge: Contingency | None = None

    def segments(self, lut: Lut | None) -> Ids:
        """Return the segment under each node; `lut` makes segments of the labels, None: they are."""
        return self.labels if lut is None else apply_lut(self.labels, *lut)

    def scores(self, lut: Lut | None) -> RunLengthScores:
        """Return the scores of the segmentation that a look-up table makes."""
        return run_length_scores(self.skeletons, self.segments(lut), self.rule, no_merge=self._entered(lut))

    def lengths(self, lut: Lut | None) -> RunLengths:
        """Return those, and the errors behind them."""
        return run_lengths(self.skeletons, self.segments(lut), self.rule, no_merge=self._entered(lut))

    def _entered(self, lut: Lut | None) -> Contingency | None:
        return self.no_merge if self.no_merge is None or lut is None else self.no_merge.relabelled(*lut)


def skeletons_of(spec: EvaluateSpec, metrics: Sequence[Metric]) -> Skeletons | None:
    """Return the tracings of a job; raises `InputError` where there are none but metrics need them."""
    names = [metric.name for metric in metrics if metric.rule == "nodes"]
    if names and spec.skeletons is None:
        raise InputError(
            f"{', '.join(names)} are about skeletons: give their file (--skeletons, or in the place of the "
            "truth), or leave them out"
        )
    if spec.skeletons is None:
        return None
    return read_skeletons(spec.skeletons.path, unit_nm=spec.skeletons.unit_nm)


def nodes_of(spec: EvaluateSpec, skeletons: Skeletons, subject: Subject) -> Nodes:
    """Look up what lies under the nodes; raises `InputError` where some lie outside and may not."""
    assert spec.skeletons is not None
    volume = open_volume(subject.labels, kind="labels")
    found = node_segments(volume, skeletons, outside=spec.skeletons.outside)
    return Nodes(skeletons, found.segments, found.n_outside, spec.skeletons.rule)
