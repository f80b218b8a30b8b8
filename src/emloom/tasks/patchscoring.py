"""Scoring a detector of artifacts: what it says about patches against what people say.

Everything is read from one table of patches with score and truth (`emloom.metrics.patches.Judged`). The threshold
is chosen on validation data, at a recall; where there are none it is chosen on the test itself, and the report
says so.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.patches import UNKNOWN, YES, PatchLabels
from emloom.io.files import refuse_existing
from emloom.io.open import open_volume
from emloom.io.patchopen import open_patches
from emloom.io.patchscores import Decode, read_scores
from emloom.metrics.agreement import Agreement, pairwise_agreement
from emloom.metrics.bootstrap import Interval
from emloom.metrics.calibration import calibration
from emloom.metrics.curves import (
    OperatingPoint,
    adjusted_precision,
    at_false_positive_rate,
    at_recall,
    at_threshold,
    average_precision,
    false_positive_density,
    ranked_scores,
    roc_auc,
)
from emloom.metrics.patches import Judged, Statistic, bootstrapped, judged
from emloom.metrics.patchobjects import (
    ObjectScores,
    inferred_stride,
    object_scores,
    of_sections,
    patch_objects,
)
from emloom.metrics.ranking import Ranking, ranking
from emloom.metrics.recalibrate import Recalibration, fit_platt, fit_temperature
from emloom.ops.logits import decode_probabilities
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.patchevaluation import WORDS, Calibrated, PatchEvaluation, write_evaluation
from emloom.tasks.patchspec import PatchSpec, stride_of

GROUPED = ("tissue", "box")
EVERYWHERE = "all"


@dataclass(frozen=True)
class _Tables:
    """Truth and scores as they were read."""

    truth: PatchLabels
    patches: Judged
    agreement: list[Agreement]


def evaluate_patches(spec: PatchSpec) -> PatchEvaluation:
    """Score a detector; write `scores.json`, `scores.csv`, `points.csv`, `curves.csv`, `patches.csv`,
    `provenance.json`.

    Raises:
        InputError: the output exists, files cannot be read or are of different patches, nothing is positive or
            nothing negative, or as the readers.
    """
    started = time.perf_counter()
    folder = Path(spec.output)
    refuse_existing(folder)
    inputs = {name: fingerprint(path) for name, path in _paths(spec).items()}
    test = _read(spec, spec.found, spec.truth)
    if spec.raw is not None:
        raw_start(spec.raw, test.patches)
    found = _evaluated(spec, test)
    write_evaluation(folder, found)
    write_provenance(
        folder / "provenance.json", spec.to_dict(), inputs, {"evaluate": time.perf_counter() - started}
    )
    return found


def raw_start(path: str, patches: Judged) -> Vec:
    """Return the voxel of a raw volume at which the volume of the patches begins.

    Raises:
        InputError: the raw volume cannot be opened, or is of another voxel size or between its voxels.
    """
    grid = open_volume(path, kind="raw").info.grid
    start = grid.containing(patches.grid.centre((0, 0, 0)))
    if not Grid(grid.voxel_size_nm, grid.to_world(start)).matches(patches.grid):
        raise InputError(
            f"{path} has voxels of {grid.voxel_size_nm} nm at {grid.offset_nm} nm, the patches are of "
            f"{patches.grid.voxel_size_nm} nm at {patches.grid.offset_nm} nm: give the volume that they were "
            "taken from"
        )
    return start


def _paths(spec: PatchSpec) -> dict[str, str]:
    paths = {"found": spec.found, "truth": spec.truth}
    if spec.raw is not None:
        paths["raw"] = spec.raw
    if spec.validation is not None:
        paths |= {"validation found": spec.validation.found, "validation truth": spec.validation.truth}
    return paths


def _read(spec: PatchSpec, found: str, truth: str) -> _Tables:
    said = open_patches(truth, spec.reading.reading())
    name = spec.target or said.classes[0]
    agreement = pairwise_agreement(said, name)
    agreed = said.consensus(spec.reading.final)
    others = {
        other: np.array([WORDS[v] for v in agreed.of(other).tolist()], np.str_)
        for other in agreed.classes
        if other != name
    }
    agreed = replace(agreed, columns={**agreed.columns, **others})
    scores = read_scores(found, agreed, column=spec.reading.column, decode=_decoding(found))
    patches = judged(scores, agreed, name, partial=spec.reading.partial)
    counted = patches.ranking()
    if not counted.n_positive or not counted.n_negative:
        raise InputError(
            f"{truth} holds {counted.n_positive} patches of {name} and {counted.n_negative} without: nothing can "
            "be scored without some of both"
        )
    return _Tables(agreed, patches, agreement)


def _decoding(found: str) -> Decode | None:
    """Return how the values of a map become probabilities, where they are coded logits."""
    if Path(found).suffix.lower() == ".csv" or open_volume(found).info.kind != "logits":
        return None
    return lambda codes: decode_probabilities(codes).astype(np.float64)


def _evaluated(spec: PatchSpec, test: _Tables) -> PatchEvaluation:
    patches, notes = test.patches, []
    counted = patches.ranking()
    validation = None
    if spec.validation is not None:
        validation = _read(spec, spec.validation.found, spec.validation.truth).patches
    threshold, rule = _threshold(spec, counted, validation)
    if rule.endswith("test"):
        notes.append(
            "The threshold was chosen on the test itself, which flatters every number at it: choose it on "
            "validation data, or state it."
        )
    objects = _objects(spec, test, threshold, notes)
    if patches.n_unscored:
        notes.append(f"{patches.n_unscored} patches of known truth have no score and were left out.")
    if not test.agreement:
        notes.append(
            "One annotator judged: how far people agree, and so how good a detector can look, is unknown."
        )
    return PatchEvaluation(
        name=spec.target or test.truth.classes[0],
        patches=patches,
        ranked=ranked_scores(counted),
        intervals=_intervals(spec, patches, threshold),
        points=_points(spec, patches, counted, (threshold, rule)),
        objects=objects,
        sections=_sections(patches, threshold),
        groups=_groups(test, threshold),
        calibrated=_calibrated(spec, patches, validation, notes),
        agreement=test.agreement,
        notes=notes,
    )


def _threshold(spec: PatchSpec, test: Ranking, validation: Judged | None) -> tuple[float, str]:
    if spec.threshold.value is not None:
        return spec.threshold.value, "stated"
    chosen_on, where = (test, "the test") if validation is None else (validation.ranking(), "validation data")
    return at_recall(chosen_on, spec.threshold.recall).threshold, f"recall {spec.threshold.recall:g} on {where}"


def _intervals(spec: PatchSpec, patches: Judged, threshold: float) -> dict[str, Interval]:
    if not spec.bootstrap.resamples:
        return {}
    statistics: dict[str, Statistic] = {"average_precision": average_precision, "roc_auc": roc_auc}
    for name in ("recall", "precision", "f1", "false_positive_rate"):
        statistics[name] = _at(threshold, name)
    if spec.prevalence is not None:
        pi = spec.prevalence
        statistics["average_precision_at_prevalence"] = lambda r: average_precision(r, pi)
        statistics["precision_at_prevalence"] = lambda r: adjusted_precision(at_threshold(r, threshold), pi)
    how = spec.bootstrap
    return bootstrapped(
        patches, statistics, np.random.default_rng(how.seed), resamples=how.resamples, level=how.level
    )


def _at(threshold: float, name: str) -> Statistic:
    return lambda counted: float(getattr(at_threshold(counted, threshold), name))


def _points(
    spec: PatchSpec, patches: Judged, counted: Ranking, applied: tuple[float, str]
) -> list[dict[str, Any]]:
    threshold, rule = applied
    rules: dict[str, OperatingPoint] = {rule: at_threshold(counted, threshold)}
    if threshold != 0.5:
        rules["0.5"] = at_threshold(counted, 0.5)
    rules |= {
        f"FPR {rate:g}": at_false_positive_rate(counted, rate) for rate in spec.threshold.false_positive_rates
    }
    area, n_sections = patches.covered_mm2(), np.unique(patches.sections[patches.known]).size
    rows = []
    for name, point in rules.items():
        density = false_positive_density(point.n_false_positive, n_sections, area)
        row: dict[str, Any] = {
            "rule": name,
            **asdict(point),
            "false_positives_per_mm2": density.per_mm2,
            "false_positives_per_section": density.per_section,
        }
        if spec.prevalence is not None:
            row["precision_at_prevalence"] = adjusted_precision(point, spec.prevalence)
        rows.append(row)
    return rows


def _objects(spec: PatchSpec, test: _Tables, threshold: float, notes: list[str]) -> ObjectScores | None:
    patches = test.patches
    try:
        stride = stride_of(spec) or inferred_stride(patches.starts, test.truth.source)
    except InputError as problem:
        notes.append(f"Objects are not scored: {problem}.")
        return None
    found = patch_objects(patches.starts, patches.scores >= threshold, stride)
    true = patch_objects(patches.starts, patches.truth == YES, stride)
    return object_scores(found, true, patches.known)


def _sections(patches: Judged, threshold: float) -> dict[str, Any]:
    _, scores, truth = of_sections(patches.sections, patches.scores, patches.truth)
    counted = ranking(scores, truth, ignore=UNKNOWN)
    point = at_threshold(counted, threshold)
    return {
        "n_truth": counted.n_positive,
        "n_sections": counted.n_positive + counted.n_negative,
        "precision": point.precision,
        "recall": point.recall,
        "f1": point.f1,
        "average_precision": average_precision(counted),
        "n_false_positive": point.n_false_positive,
    }


def _groups(test: _Tables, threshold: float) -> list[dict[str, Any]]:
    """Return scores of all patches, of each tissue and box, and of the patches with each auxiliary class."""
    patches = test.patches
    groups = {EVERYWHERE: np.ones(len(patches), np.bool_)}
    for column in GROUPED:
        words = patches.columns.get(column, np.zeros(0, np.str_))
        groups |= {f"{column} {word or '(not said)'}": words == word for word in np.unique(words).tolist()}
    for other in test.truth.classes:
        if other in patches.columns:
            groups |= {f"{other}: {word}": patches.columns[other] == word for word in ("yes", "no")}
    rows = []
    for name, members in groups.items():
        counted = patches.taken(members).ranking()
        point = at_threshold(counted, threshold)
        n = counted.n_positive + counted.n_negative
        if n:
            rows.append(
                {
                    "group": name,
                    "n": n,
                    "n_positive": counted.n_positive,
                    "called": (point.n_true_positive + point.n_false_positive) / n,
                    "average_precision": average_precision(counted),
                    "recall": point.recall,
                    "precision": point.precision,
                    "false_positive_rate": point.false_positive_rate,
                }
            )
    return rows


def _calibrated(spec: PatchSpec, patches: Judged, validation: Judged | None, notes: list[str]) -> list[Calibrated]:
    if not ((patches.scores >= 0) & (patches.scores <= 1)).all():
        notes.append(
            "Scores are not all within 0 and 1: they are no probabilities, and calibration is not judged."
        )
        return []
    lines: dict[str, Recalibration | None] = {"as they are": None}
    if validation is not None:
        known = validation.taken(validation.known)
        try:
            lines["temperature"] = fit_temperature(known.scores, known.truth)
        except InputError as problem:
            notes.append(f"No temperature was fitted: {problem}.")
        lines["Platt"] = fit_platt(known.scores, known.truth)
    found = []
    for name, line in lines.items():
        scores = patches.scores if line is None else line.apply(patches.scores)
        found.append(Calibrated(name, line, calibration(replace(patches, scores=scores).ranking())))
    platt = lines.get("Platt")
    if validation is not None and platt is not None and spec.prevalence is not None:
        fitted = validation.ranking()
        here = fitted.n_positive / (fitted.n_positive + fitted.n_negative)
        found.append(Calibrated(f"Platt, at {spec.prevalence:g}", platt.shifted(here, spec.prevalence), None))
    return found
