"""`emloom evaluate`: any metric of the book, at any size, for one threshold or a hundred.

::

    overlap      truth, segmentation -> OUT/overlap/<rule>/z_y_x.parquet     the only pass over the voxels
    scores       tables (x look-up tables) -> scores.json, scores.csv, sweep.csv
    report       where it is wrong -> report.html

Where the segmentation is a container that `emloom segment` wrote, its *fragments* are counted, and every threshold
of its merge tree is scored without reading a voxel again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block
from emloom.geometry.skeletons import Skeletons
from emloom.io.files import explained
from emloom.io.open import create_volume, open_volume
from emloom.io.skeletons import read_skeletons
from emloom.io.tables import write_csv
from emloom.io.volume import VolumeInfo
from emloom.metrics.book import Metric, metrics_named
from emloom.metrics.contingency import Contingency, Ids
from emloom.metrics.overlap import ObjectError, overlap_scores, worst_objects
from emloom.metrics.runlength import RunLengthRule, RunLengthScores, run_length_scores
from emloom.ops.labels import apply_lut, split_disconnected
from emloom.run.blockjournal import ROOT
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.machine import memory
from emloom.run.provenance import fingerprint, write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Stage
from emloom.tasks.nodelookup import node_segments
from emloom.tasks.overlaptable import Compared, CountOverlap, Rule, read_overlap
from emloom.tasks.scorefiles import definitions, write_scores
from emloom.tasks.scorespec import EvaluateSpec, Subject, subject_of

FORMAT = 1
WORST = 10
"""Largest splits, and largest merges, that are listed and drawn."""

OnBlock = Callable[[int, int], None]


@dataclass(frozen=True)
class Nodes:
    """Skeletons, and the fragments or segments under their nodes.

    Attributes:
        skeletons: the truth.
        labels: uint64 [N], 0 where there is none.
        rule: what counts as a merge.
    """

    skeletons: Skeletons
    labels: Ids
    rule: RunLengthRule

    def scores(self, keys: Ids, values: Ids) -> RunLengthScores:
        """Return the scores of the segmentation that a look-up table makes."""
        return run_length_scores(self.skeletons, apply_lut(self.labels, keys, values), self.rule)


Evidence = dict[Literal["known", "inner", "cremi", "whole", "nodes"], Contingency | RunLengthScores]
_SAME = (np.zeros(0, np.uint64), np.zeros(0, np.uint64))


@dataclass(frozen=True)
class _Counted:
    """All that was read: tables of the labels that were counted, labels of nodes, and the voxels in all."""

    tables: dict[Rule, Contingency]
    nodes: Nodes | None
    n_all: int

    def evidence(self, subject: Subject) -> Evidence:
        """Return what the metrics of the segmentation are computed from."""
        found: Evidence = {rule: subject.of(table) for rule, table in self.tables.items()}
        if self.nodes is not None:
            found["nodes"] = self.nodes.scores(*(subject.lut or _SAME))
        return found

    def values(self, metrics: Sequence[Metric], found: Evidence) -> dict[str, float]:
        """Return every value of every metric; NaN where nothing counts."""
        values: dict[str, float] = {}
        for metric in metrics:
            seen = found[metric.rule]
            empty = isinstance(seen, Contingency) and seen.n_voxels == 0
            values |= dict.fromkeys((v.key for v in metric.values), nan) if empty else metric.of(seen, self.n_all)
        return values


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        row: the scores of the segmentation, with what it is called.
        sweep: the scores at every threshold; empty where there is no tree.
        known: the table of the segmentation over all voxels whose truth is known.
        worst: the objects that cost most, by kind ("split", "merge"), worst first.
        subject: what was scored.
        compared: what it was compared with, and how.
        cells: blocks that were counted.
        metrics: what was asked for.
        undefined: why a metric has no value, by its name.
    """

    row: dict[str, Any]
    sweep: list[dict[str, float]]
    known: Contingency
    worst: dict[str, list[ObjectError]]
    subject: Subject
    compared: Compared
    cells: list[Block]
    metrics: list[Metric]
    undefined: dict[str, str]


def evaluate(spec: EvaluateSpec, executor: Executor | None = None, on_block: OnBlock | None = None) -> Evaluation:
    """Score a segmentation; write `scores.json`, `scores.csv`, `sweep.csv` and `provenance.json`.

    Args:
        spec: what to do; nothing outside of ``spec.output`` is written.
        executor: where voxels are counted; default in this process.
        on_block: called with (blocks counted, blocks in all).

    Raises:
        InputError: a metric is unknown, grids differ, ids are no unsigned integers, or nothing counts. All but the
            last are found before anything is counted.
    """
    started, executor = time.perf_counter(), executor or Serial()
    metrics = metrics_named(spec.metrics)
    skeletons = _skeletons(spec, metrics)
    subject = subject_of(spec.segmentation)
    compared = _compared(spec, metrics, subject)
    folder = Path(spec.output).absolute()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: fingerprint(path) for name, path in compared.paths.items() if path is not None}
    if spec.split_truth:
        compared = _with_pieces(compared, folder)
    nodes = None if skeletons is None else _nodes(spec, skeletons, subject)
    tables = _counted(compared, folder, key_of(FORMAT, asdict(compared), inputs), executor, on_block)
    counted = _Counted(tables, nodes, compared.n_voxels)
    known = subject.of(tables["known"])
    overlap_scores(known)  # an error where nothing counts
    found = counted.evidence(subject)
    row: dict[str, Any] = {"segmentation": spec.segmentation, "threshold": subject.threshold}
    row |= counted.values(metrics, found)
    row |= {
        "n_voxels": known.n_voxels,
        "n_truth": len(known.truth_sizes()[0]),
        "n_segments": len(known.segment_sizes()[0]),
    }
    result = Evaluation(
        row,
        _sweep(spec, subject, metrics, counted),
        known,
        {"split": worst_objects(known, "split", WORST), "merge": worst_objects(known, "merge", WORST)},
        subject,
        compared,
        compared.cells(),
        metrics,
        _undefined(metrics, found),
    )
    _write(result, folder)
    seconds = {"evaluate": time.perf_counter() - started}
    write_provenance(folder / "provenance.json", spec.to_dict(), inputs, seconds)
    return result


def _compared(spec: EvaluateSpec, metrics: Sequence[Metric], subject: Subject) -> Compared:
    """Return what is to be counted; raises `InputError` where the volumes do not fit together."""
    asked = [metric.rule for metric in metrics if metric.rule != "nodes"]
    rules: tuple[Rule, ...] = tuple(dict.fromkeys(["known", *asked]))
    border = spec.border
    compared = Compared(spec.truth, subject.labels, spec.mask, border.width_vox, border.in_plane, rules)
    compared.check()
    return compared


def _with_pieces(compared: Compared, folder: Path) -> Compared:
    """Return the comparison with every disconnected piece of the truth as an object of its own."""
    truth = open_volume(compared.truth, kind="labels")
    need = 3 * 8 * int(np.prod(truth.info.shape))
    if need > memory().available:
        raise InputError(
            f"splitting the truth into connected pieces needs all of {compared.truth} in memory, "
            f"{need / 2**30:.1f} GiB of {memory().available / 2**30:.1f} that are free: leave --split-truth out, "
            "or crop the truth"
        )
    path = folder / "truth-pieces.zarr"
    if path.exists():
        shutil.rmtree(path)
    pieces = split_disconnected(truth.read(truth.info.box).astype(np.uint64))
    info = VolumeInfo(truth.info.shape, np.dtype(np.uint64), truth.info.grid, kind="labels")
    create_volume(path, info).write(info.box, pieces)
    return Compared(**{**asdict(compared), "truth": str(path), "rules": compared.rules})


def _counted(
    compared: Compared, folder: Path, key: str, executor: Executor, on_block: OnBlock | None
) -> dict[Rule, Contingency]:
    """Count what is not counted yet, and return the tables."""
    journal = folder / ROOT / "overlap"
    if journal.exists() and not (journal / key).exists():
        # Of another comparison: counts are cheap to make again, and of no use for this one.
        shutil.rmtree(journal)
        shutil.rmtree(folder / "overlap", ignore_errors=True)
    cells = compared.cells()
    work = CountOverlap(compared, folder, 1 if executor.parallel else None)
    run_stage(Stage("overlap", key, cells, work), folder, executor, progress=on_block)
    return {rule: read_overlap(folder, rule, cells) for rule in compared.rules}


def _skeletons(spec: EvaluateSpec, metrics: Sequence[Metric]) -> Skeletons | None:
    names = [metric.name for metric in metrics if metric.rule == "nodes"]
    if names and spec.skeletons is None:
        raise InputError(
            f"{', '.join(names)} are about skeletons: give their file (--skeletons), or leave them out"
        )
    if spec.skeletons is None:
        return None
    return read_skeletons(spec.skeletons.path, unit_nm=spec.skeletons.unit_nm)


def _nodes(spec: EvaluateSpec, skeletons: Skeletons, subject: Subject) -> Nodes:
    assert spec.skeletons is not None
    volume = open_volume(subject.labels, kind="labels")
    found = node_segments(volume, skeletons, outside=spec.skeletons.outside)
    return Nodes(skeletons, found.segments, spec.skeletons.rule)


def _undefined(metrics: Sequence[Metric], found: Evidence) -> dict[str, str]:
    """Return why metrics have no value, by name."""
    reasons = {}
    for metric in metrics:
        seen = found[metric.rule]
        if isinstance(seen, RunLengthScores):
            reasons[metric.name] = seen.reason
        elif seen.n_voxels == 0:
            reasons[metric.name] = "no voxel counts: the mask, the ignored ids and the border leave none"
    return {name: why for name, why in reasons.items() if why}


def _sweep(
    spec: EvaluateSpec, subject: Subject, metrics: Sequence[Metric], counted: _Counted
) -> list[dict[str, float]]:
    """Score every threshold, from the highest: each table is made of the one before, which has fewer rows."""
    if subject.tree is None or not spec.thresholds:
        return []
    tables, points, above = counted.tables, [], None
    for threshold in np.linspace(1.0, subject.tree.floor, spec.thresholds).round(6).tolist():
        at = max(threshold, subject.tree.floor)
        step, above = subject.tree.table(at, above), at
        tables = {rule: table.relabelled(*step) for rule, table in tables.items()}
        found: Evidence = dict(tables.items())
        if counted.nodes is not None:
            found["nodes"] = counted.nodes.scores(*subject.tree.table(at))
        points.append({"threshold": at, **counted.values(metrics, found)})
    return points[::-1]


def _write(found: Evaluation, folder: Path) -> None:
    worst = {kind: [asdict(error) for error in errors] for kind, errors in found.worst.items()}
    said = {"undefined": found.undefined, "sweep": found.sweep, "worst": worst}
    write_scores(folder, [found.row], **said, metrics=definitions(found.metrics))
    sweep = folder / "sweep.csv"
    if found.sweep:
        write_csv(sweep, {name: np.array([p[name] for p in found.sweep]) for name in found.sweep[0]})
    else:
        sweep.unlink(missing_ok=True)
