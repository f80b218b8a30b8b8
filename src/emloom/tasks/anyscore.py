"""Scores of whatever kind: the metrics that are asked for say whether segments, classes or synapses are meant.

Three tasks score (`scoring`, `classscoring`, `synapsescoring`); this one finds out which is meant, and calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emloom.errors import InputError
from emloom.io.skeletons import is_tracing
from emloom.metrics import book, classbook, synapsebook
from emloom.run.executor import Executor

DEFAULT = ("voi", "arand", "rand", "inner")
"""Of segmentations, where nobody asks for others."""
OF_TRACINGS = ("nerl", "edges")
"""The same, where the truth is tracings."""

OnBlock = Callable[[int, int], None]
Family = Literal["segmentations", "classes", "synapses"]


@dataclass(frozen=True)
class Truth:
    """What is known.

    Attributes:
        labels: path of true labels; None where only tracings are known.
        tracings: path of true tracings.
    """

    labels: str | None
    tracings: str | None

    @property
    def default(self) -> tuple[str, ...]:
        """The metrics of it where nobody asks for any."""
        return DEFAULT if self.labels is not None else OF_TRACINGS


def truth_of(path: str, tracings: str | None = None) -> Truth:
    """Return what a path of the truth stands for, beside tracings that are named as such.

    Raises:
        InputError: both are tracings.
    """
    if not is_tracing(path):
        return Truth(path, tracings)
    if tracings is not None:
        raise InputError(
            f"{path} and {tracings} are both tracings: give true labels in the place of the first, or one of them"
        )
    return Truth(None, path)


def family_of(metrics: Sequence[str]) -> Family:
    """Return what metrics are about; raises `InputError` for unknown ones, and ones that do not go together."""
    books: dict[Family, tuple[str, ...]] = {
        "segmentations": tuple(book.METRICS),
        "classes": classbook.CLASS_METRIC_NAMES,
        "synapses": tuple(synapsebook.METRICS),
    }
    known = {name: family for family, entries in books.items() for name in entries}
    book.named(known, metrics)
    families = list(dict.fromkeys(known[name] for name in metrics))
    if len(families) > 1:
        groups = "; ".join(
            f"{', '.join(name for name in metrics if known[name] == family)} of {family}" for family in families
        )
        raise InputError(f"these metrics do not go together ({groups}): evaluate them one group at a time")
    return families[0]


def score_any(
    family: Family, given: Mapping[str, Any], executor: Executor | None = None, on_block: OnBlock | None = None
) -> tuple[dict[str, Any], Path]:
    """Score, and write scores and report.

    Args:
        family: what is scored.
        given: fields of the Spec of that task: `EvaluateSpec`, `ClassSpec` or `SynapseSpec`.
        executor: where blocks run; default in this process.
        on_block: called with (blocks done, blocks in all).

    Returns:
        The row of scores, and the path of the report.

    Raises:
        InputError: the fields are not valid, or an input is missing or on another grid.
    """
    score = {"segmentations": _segmentations, "classes": _classes, "synapses": _synapses}[family]
    return score(dict(given), executor, on_block)


_Scored = tuple[dict[str, Any], Path]


def _segmentations(given: dict[str, Any], executor: Executor | None, tell: OnBlock | None) -> _Scored:
    from emloom.tasks.scorereport import write_score_report
    from emloom.tasks.scorespec import EvaluateSpec
    from emloom.tasks.scoring import evaluate

    spec = EvaluateSpec.from_dict(given, "evaluate")
    found = evaluate(spec, executor, tell)
    return found.row, write_score_report(spec, found)


def _classes(given: dict[str, Any], executor: Executor | None, tell: OnBlock | None) -> _Scored:
    from emloom.tasks.classreport import write_class_report
    from emloom.tasks.classscoring import evaluate_classes
    from emloom.tasks.classspec import ClassSpec

    spec = ClassSpec.from_dict(given, "evaluate")
    found = evaluate_classes(spec, executor, tell)
    return found.row, write_class_report(spec, found)


def _synapses(given: dict[str, Any], executor: Executor | None, tell: OnBlock | None) -> _Scored:
    from emloom.tasks.synapsereport import write_synapse_report
    from emloom.tasks.synapsescoring import evaluate_synapses
    from emloom.tasks.synapsespec import SynapseSpec

    spec = SynapseSpec.from_dict(given, "evaluate")
    found = evaluate_synapses(spec, executor, tell)
    return found.row, write_synapse_report(spec, found)
