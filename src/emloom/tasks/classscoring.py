"""Score semantic results: predicted classes or probabilities against true classes, at any size.

::

    tables       truth, prediction -> OUT/classes/z_y_x.parquet      the only pass over the voxels (`classtable`)
    scores       their sum -> scores.json, scores.csv, classes.csv, confusion.csv, curves.csv
    intervals    sums of units drawn with replacement (`metrics.bootstrap`)

Every score is a function of exact counts, so it is the same whatever the blocks are; only intervals depend on
them, where blocks are what is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import nan, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.files import explained
from emloom.io.open import open_volume
from emloom.io.tables import write_csv
from emloom.io.volume import Volume, VolumeInfo
from emloom.metrics.bootstrap import Interval, bootstrap
from emloom.metrics.classbook import ClassEvidence, ClassMetric, class_metrics_named
from emloom.metrics.counts import NOTHING_COUNTS
from emloom.metrics.curves import (
    OperatingPoint,
    adjusted_precision,
    at_best_f1,
    at_recall,
    at_threshold,
    average_precision,
    curve,
    roc_auc,
)
from emloom.metrics.interfaces import Near, boundary_scores
from emloom.metrics.ranking import Ranking
from emloom.ops.enclosure import Enclosure, resolve
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.machine import memory
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.classspec import ClassSpec
from emloom.tasks.classtable import CountClasses, Extra, Judged, Units, read_units
from emloom.tasks.lattice import common_box
from emloom.tasks.qcmask import open_usable
from emloom.tasks.scorefiles import definitions, write_scores
from emloom.tasks.scorestages import OnBlock, Stages

FORMAT = 1
FEW_UNITS = 20
"""With fewer blocks or sections an interval is too narrow."""


@dataclass(frozen=True)
class ClassEvaluation:
    """What was found.

    Attributes:
        row: the scores by key, with what was scored and how many voxels counted.
        intervals: of every score by key; empty where none were asked for.
        classes: one row per class: its name, counts and scores.
        points: thresholds of every class that has a probability: the one applied, the one of the highest F1 on
            this truth, and the one that reaches the recall asked for.
        evidence: the tables that all is read from.
        names: of the classes.
        metrics: what was asked for.
        undefined: why a metric has no value, by its name.
        units: blocks or sections in which a voxel counts.
        judged: what was counted, and how.
        most_confused: int64 [blocks of `judged.cells`], voxels of the confusion that each holds most of.
    """

    row: dict[str, Any]
    intervals: dict[str, Interval]
    classes: list[dict[str, Any]]
    points: list[dict[str, Any]]
    evidence: ClassEvidence
    names: tuple[str, ...]
    metrics: list[ClassMetric]
    undefined: dict[str, str]
    units: int
    judged: Judged
    most_confused: NDArray[np.int64]


def evaluate_classes(
    spec: ClassSpec, executor: Executor | None = None, on_block: OnBlock | None = None
) -> ClassEvaluation:
    """Score a semantic result; write `scores.json`, csv tables and `provenance.json`.

    Args:
        spec: what to do; nothing outside of ``spec.output`` is written.
        executor: where voxels are counted; default in this process.
        on_block: called with (blocks counted, blocks in all).

    Raises:
        InputError: a metric is unknown or needs what is not given, grids or classes differ, a value is no class or
            no probability, or nothing counts. All but the last two are found before anything is counted.
    """
    started, executor = time.perf_counter(), executor or Serial()
    metrics = metrics_of(spec)
    judged = judged_of(spec, metrics)
    averaged = _averaged(spec, judged.n_classes)
    cells = judged.cells()
    _check_memory(spec, judged, len(cells))
    folder = Path(spec.output).absolute()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: fingerprint(path) for name, path in judged.paths.items()}
    key = key_of(FORMAT, asdict(judged), inputs)
    Stages(folder, executor, on_block).run("classes", key, cells, CountClasses(judged, folder))
    units = read_units(folder, judged, averaged, cells)
    if not len(units):
        raise InputError(f"there is no voxel to score: {NOTHING_COUNTS} in {spec.truth}")
    found = score_units(spec, metrics, units, prod(open_volume(spec.predicted).info.shape))
    _write(spec, found, folder)
    write_provenance(
        folder / "provenance.json", spec.to_dict(), inputs, {"evaluate": time.perf_counter() - started}
    )
    return found


def judged_of(spec: ClassSpec, metrics: Sequence[ClassMetric]) -> Judged:
    """Return what is counted; raises `InputError` as `evaluate_classes`, before anything is counted."""
    truth, predicted = open_volume(spec.truth), open_volume(spec.predicted)
    _require_classes(truth.info, "the truth")
    common_box(predicted, truth)
    if spec.mask is not None:
        _require_beside(predicted, open_usable(spec.mask), "a mask")
    if spec.raw is not None:
        _require_beside(predicted, open_volume(spec.raw, kind="raw"), "a raw volume")
    channels = _channels(spec, predicted.info)
    extra: list[Extra] = [need for metric in metrics if (need := metric.needs) != "confusion"]
    near = None
    if {"band", "boundary"} & set(extra):
        asked = ", ".join(metric.name for metric in metrics if metric.needs in ("band", "boundary"))
        if spec.near is None:
            raise InputError(
                f"{asked} are about what is near an interface: say how near (near.distance_nm), or leave them out"
            )
        near = Near(spec.near.distance_nm, predicted.info.grid.voxel_size_nm, spec.near.in_plane)
    if not channels and "scores" in extra:
        asked = ", ".join(metric.name for metric in metrics if metric.needs == "scores")
        raise InputError(
            f"{asked} are read from probabilities, and {spec.predicted} holds classes: score the probabilities, "
            "or leave them out"
        )
    stored = predicted.info.dtype
    return Judged(
        truth=spec.truth,
        predicted=spec.predicted,
        mask=spec.mask,
        ignore=spec.classes.ignore,
        n_classes=_n_classes(spec, channels),
        channels=channels,
        levels=spec.reading.levels if stored.kind == "f" else 256 ** min(stored.itemsize, 2),
        threshold=spec.reading.threshold,
        near=near,
        extra=tuple(dict.fromkeys(extra)),
        by_section=spec.bootstrap.by == "section",
        cell=spec.bootstrap.block_vox,
        rules=rules_of(spec),
    )


def metrics_of(spec: ClassSpec) -> list[ClassMetric]:
    """Return what is asked for; raises `InputError` where a metric or a class of a rule is unknown."""
    return class_metrics_named(spec.metrics, rules_of(spec))


def rules_of(spec: ClassSpec) -> tuple[Enclosure, ...]:
    """Return what encloses what; raises `InputError` where a rule names no class."""
    if not spec.classes.enclosed:
        return ()
    spacing = open_volume(spec.predicted).info.grid.voxel_size_nm
    return resolve(spec.classes.enclosed, spec.classes.names, spacing)


def _require_beside(predicted: Volume, other: Volume, what: str) -> None:
    common_box(predicted, other)
    if other.info.channels is not None:
        raise InputError(
            f"{other.info.source} has {other.info.channels} channels: {what} is zyx, without channels"
        )


def _require_classes(info: VolumeInfo, what: str) -> None:
    if info.channels is not None or info.dtype.kind not in "bui":
        raise InputError(
            f"{what} {info.source} is {info.axes} of {info.dtype}: class ids are whole numbers, without channels"
        )


def _channels(spec: ClassSpec, info: VolumeInfo) -> int:
    """Return how many probabilities a voxel has; 0 where it has a class."""
    values = spec.reading.values
    if info.kind in ("affinities", "lsds"):
        raise InputError(f"{info.source} holds {info.kind}: give classes, or their probabilities")
    if values == "auto":
        is_probability = info.kind == "probabilities" or info.channels is not None or info.dtype.kind == "f"
        values = "probabilities" if is_probability else "classes"
    if values == "classes":
        _require_classes(info, "the prediction")
        return 0
    if info.dtype.kind != "f" and info.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{info.source} stores {info.dtype}: probabilities are uint8, uint16 (of the highest value) or floats"
        )
    return info.channels or 1


def _n_classes(spec: ClassSpec, channels: int) -> int:
    said = spec.classes.n or len(spec.classes.names) or None
    held = max(2, channels) if channels else None
    if said is None and held is None:
        raise InputError(
            f"{spec.predicted} does not say how many classes there are: name them (--names), background "
            "included, or give their number (classes.n)"
        )
    if said is not None and held is not None and said != held:
        raise InputError(
            f"{spec.predicted} has {channels} channels, which is {held} classes, not {said}: one channel is the "
            "probability of class 1, else there is one per class"
        )
    return said or held or 0


def _averaged(spec: ClassSpec, n_classes: int) -> tuple[int, ...] | None:
    chosen = spec.classes.averaged
    if chosen is not None and (not chosen or max(chosen) >= n_classes or len(set(chosen)) < len(chosen)):
        raise InputError(f"classes.averaged {chosen}: give each class once, from 0 to {n_classes - 1}")
    return chosen


def _check_memory(spec: ClassSpec, judged: Judged, n_blocks: int) -> None:
    units = open_volume(judged.predicted).info.shape[0] if judged.by_section else n_blocks
    need = 3 * 8 * units * sum(prod(shape) for shape in judged.shapes.values())
    free = memory().available
    if need > free:
        raise InputError(
            f"the tables of {units} {spec.bootstrap.by}s may need {need / 2**30:.1f} GiB of {free / 2**30:.1f} "
            "that are free: take larger blocks (bootstrap.block_vox), or 256 levels (reading.levels)"
        )


def _values(metrics: Sequence[ClassMetric], seen: ClassEvidence) -> dict[str, float]:
    return {key: value for metric in metrics for key, value in metric.of(seen).items()}


def score_units(spec: ClassSpec, metrics: list[ClassMetric], units: Units, n_all: int) -> ClassEvaluation:
    """Return the scores of counted tables, and their intervals.

    Args:
        spec: how they are read; nothing is opened.
        metrics: what is asked for.
        units: the tables.
        n_all: voxels that were looked at, whether they count or not.
    """
    seen = units.evidence()
    n = seen.confusion.n_voxels
    names = spec.classes.names or tuple(str(label) for label in range(units.judged.n_classes))
    row: dict[str, Any] = {"predicted": spec.predicted, **_values(metrics, seen)}
    row |= {"n_voxels": n, "part_counted": n / n_all}
    reasons = {metric.name: metric.reason(seen) for metric in metrics}
    return ClassEvaluation(
        row=row,
        intervals=_intervals(spec, metrics, units) if spec.bootstrap.resamples else {},
        classes=_per_class(seen, names),
        points=_points(spec, seen, names),
        evidence=seen,
        names=names,
        metrics=metrics,
        undefined={name: why for name, why in reasons.items() if why},
        units=len(units),
        judged=units.judged,
        most_confused=units.most_confused,
    )


def _intervals(spec: ClassSpec, metrics: Sequence[ClassMetric], units: Units) -> dict[str, Interval]:
    """Return the interval of every score; all are of the same resamples, each of which is scored once."""
    how, seen = spec.bootstrap, dict[bytes, dict[str, float]]()

    def score(times: NDArray[np.int64], key: str) -> float:
        drawn = times.tobytes()
        if drawn not in seen:
            seen[drawn] = _values(metrics, units.evidence(times))
        return seen[drawn][key]

    once = list(np.eye(len(units), dtype=np.int64))
    return {
        value.key: bootstrap(
            once,
            lambda times, key=value.key: score(times, key),  # type: ignore[misc]
            lambda drawn: np.sum(drawn, axis=0),
            np.random.default_rng(how.seed),
            resamples=how.resamples,
            level=how.level,
        )
        for metric in metrics
        for value in metric.values
    }


def _per_class(seen: ClassEvidence, names: Sequence[str]) -> list[dict[str, Any]]:
    borders = None if seen.boundary is None else boundary_scores(seen.boundary)
    rows = []
    # Every class has a row, also those that means are not over.
    for score in ClassEvidence(seen.confusion).scores().classes:
        label = score.label
        row: dict[str, Any] = {"class": label, "name": names[label]}
        row |= {key: getattr(score, key) for key in ("n_truth", "n_predicted", "n_correct")}
        row |= {key: getattr(score, key) for key in ("precision", "recall", "f1", "iou")}
        reasons = [score.reason]
        if borders is not None:
            row |= {f"boundary_{key}": getattr(borders[label], key) for key in ("precision", "recall", "f1")}
            row["surface_dice"] = borders[label].surface_dice
            reasons.append(borders[label].reason)
        if seen.rankings:
            ranking = seen.rankings.get(label)
            row["average_precision"] = nan if ranking is None else average_precision(ranking)
            row["roc_auc"] = nan if ranking is None else roc_auc(ranking)
            if ranking is None:
                reasons.append(f"{names[label]} has no probability of its own, so no AP and AUC")
        rows.append({**row, "reason": "; ".join(reason for reason in reasons if reason)})
    return rows


def _points(spec: ClassSpec, seen: ClassEvidence, names: Sequence[str]) -> list[dict[str, Any]]:
    how, rows = spec.reading, []
    for label, ranking in seen.rankings.items():
        chosen: dict[str, OperatingPoint] = {}
        if len(seen.rankings) == 1:
            chosen["applied"] = at_threshold(ranking, how.threshold)
        chosen["highest F1 here"] = at_best_f1(ranking)
        chosen[f"recall {how.recall:g} here"] = at_recall(ranking, how.recall)
        for rule, point in chosen.items():
            row = {"class": label, "name": names[label], "rule": rule, **asdict(point)}
            if how.prevalence is not None:
                row["precision_at_prevalence"] = adjusted_precision(point, how.prevalence)
            rows.append({**row, "reason": row.pop("reason")})
    return rows


def _write(spec: ClassSpec, found: ClassEvaluation, folder: Path) -> None:
    write_scores(
        folder,
        [found.row],
        undefined=found.undefined,
        intervals={key: asdict(interval) for key, interval in found.intervals.items()},
        bootstrap={**spec.bootstrap.to_dict(), "units": found.units},
        classes=found.classes,
        confusion=found.evidence.confusion.counts.tolist(),
        points=found.points,
        metrics=definitions(found.metrics),
    )
    _write_rows(folder / "classes.csv", found.classes)
    _write_rows(folder / "thresholds.csv", found.points)
    counts = found.evidence.confusion.counts
    columns = {f"called {name}": counts[:, label] for label, name in enumerate(found.names)}
    write_csv(folder / "confusion.csv", {"truth": np.array(found.names, object), **columns})
    drawn = [_curve_columns(label, ranking) for label, ranking in found.evidence.rankings.items()]
    target = folder / "curves.csv"
    if drawn:
        write_csv(target, {name: np.concatenate([columns[name] for columns in drawn]) for name in drawn[0]})
    else:
        target.unlink(missing_ok=True)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        write_csv(path, {name: np.array([row[name] for row in rows], object) for name in rows[0]})
    else:
        path.unlink(missing_ok=True)


def _curve_columns(label: int, ranking: Ranking) -> dict[str, NDArray[Any]]:
    points = curve(ranking)
    return {
        "class": np.full(len(points.thresholds), label),
        "threshold": points.thresholds,
        "recall": points.recall,
        "precision": points.precision,
        "false_positive_rate": points.false_positive_rate,
    }
