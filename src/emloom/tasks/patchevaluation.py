"""What an evaluation of patches found, and the files it is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emloom.geometry.patches import NO, UNKNOWN, YES
from emloom.io.tables import write_csv
from emloom.metrics.agreement import Agreement
from emloom.metrics.bootstrap import Interval
from emloom.metrics.calibration import Calibration
from emloom.metrics.curves import RankedScores, curve
from emloom.metrics.patches import Judged
from emloom.metrics.patchobjects import ObjectScores
from emloom.metrics.recalibrate import Recalibration
from emloom.tasks.scorefiles import write_rows, write_scores

WORDS = {YES: "yes", NO: "no", UNKNOWN: "unsure"}


@dataclass(frozen=True)
class Calibrated:
    """Probabilities after one way of calibration, on the patches that count.

    Attributes:
        name: of the way.
        line: through the logits; None for probabilities as they are.
        result: how far they are from frequencies; None for another prevalence than this truth's, where
            frequencies are others.
    """

    name: str
    line: Recalibration | None
    result: Calibration | None


@dataclass(frozen=True)
class PatchEvaluation:
    """All that was found.

    Attributes:
        name: the class that is looked for.
        patches: with score and truth.
        ranked: average precision, ROC AUC and prevalence.
        intervals: of scores, by name.
        points: operating points with a name each, the one applied first.
        objects: at the threshold applied; None where patches are on no lattice.
        sections: likewise, of sections; and average precision by their highest score.
        groups: scores by tissue and auxiliary class, all patches first.
        calibrated: as they are, and by what was fitted on validation data.
        agreement: of all pairs of annotators.
        notes: what to know before believing a number.
    """

    name: str
    patches: Judged
    ranked: RankedScores
    intervals: Mapping[str, Interval]
    points: list[dict[str, Any]]
    objects: ObjectScores | None
    sections: dict[str, Any]
    groups: list[dict[str, Any]]
    calibrated: list[Calibrated]
    agreement: list[Agreement]
    notes: list[str]

    @property
    def applied(self) -> dict[str, Any]:
        """The operating point applied."""
        return self.points[0]

    def row(self) -> dict[str, Any]:
        """Return the headline values by name."""
        point = self.applied
        values = {
            "average_precision": self.ranked.average_precision,
            "roc_auc": self.ranked.roc_auc,
            "prevalence": self.ranked.prevalence,
            "n_positive": self.ranked.n_positive,
            "n_negative": self.ranked.n_negative,
            **{key: value for key, value in point.items() if key not in ("rule", "reason")},
        }
        if self.objects is not None:
            values |= {f"object_{key}": getattr(self.objects, key) for key in ("precision", "recall", "f1")}
        values |= {
            f"section_{key}": self.sections[key] for key in ("precision", "recall", "f1", "average_precision")
        }
        results = [each.result for each in self.calibrated if each.result is not None]
        if results:
            values |= {"ece": results[-1].ece, "brier": results[-1].brier}
        return values


def write_evaluation(folder: Path, found: PatchEvaluation) -> None:
    """Write `scores.json`, `scores.csv`, `points.csv`, `curves.csv` and `patches.csv`."""
    write_scores(
        folder,
        [found.row()],
        target=found.name,
        intervals={name: asdict(interval) for name, interval in found.intervals.items()},
        points=found.points,
        objects=None if found.objects is None else asdict(found.objects),
        sections=found.sections,
        groups=found.groups,
        calibration=[
            {
                "name": each.name,
                "line": None if each.line is None else asdict(each.line),
                "result": None if each.result is None else asdict(each.result),
            }
            for each in found.calibrated
        ],
        agreement=[each.to_dict() for each in found.agreement],
        notes=found.notes,
    )
    write_rows(folder / "points.csv", found.points)
    drawn = curve(found.patches.ranking())
    columns = ("thresholds", "recall", "precision", "false_positive_rate")
    write_csv(folder / "curves.csv", {name: getattr(drawn, name) for name in columns})
    write_csv(folder / "patches.csv", patch_columns(found))


def patch_columns(found: PatchEvaluation) -> dict[str, Any]:
    """Return the patches as columns of a table, worst false positives first, then by falling score."""
    patches = found.patches
    wrong = (patches.truth == NO) & (patches.scores >= found.applied["threshold"])
    order = np.lexsort([*patches.starts.T[::-1], -patches.scores, ~wrong])
    words = np.array([WORDS[v] for v in patches.truth.tolist()], np.str_)
    return {
        **{axis: patches.starts[order, k] for k, axis in enumerate("zyx")},
        "prob": patches.scores[order],
        found.name: words[order],
        "called": np.where(patches.scores >= found.applied["threshold"], "yes", "no")[order],
        **{name: values[order] for name, values in patches.columns.items() if name not in (found.name, "prob")},
    }
