"""`emloom evaluate`: any metric of the book, at any size, for one threshold or a hundred.

::

    overlap      truth, segmentation -> OUT/overlap/<rule>/z_y_x.parquet     the only pass over the voxels
    no-merge     mask, segmentation  -> OUT/no-merge/z_y_x.parquet           with tracings and such a mask
    scores       tables (x look-up tables) -> scores.json, scores.csv, sweep.csv
    report       where it is wrong -> report.html

Where the segmentation is a container that `emloom segment` wrote, its *fragments* are counted, and every threshold
of its merge tree is scored without reading a voxel again. Where tracings are all that is known, only the chunks in
which their nodes lie are read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block, blocks
from emloom.io.files import explained
from emloom.io.open import open_volume
from emloom.io.tables import write_csv
from emloom.metrics.book import Metric, metrics_named
from emloom.metrics.contingency import Contingency, Ids
from emloom.metrics.overlap import ObjectError, overlap_scores, worst_objects
from emloom.metrics.runlength import RunLengthScores
from emloom.metrics.runlengtherrors import RunLengths
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.nomerge import CountNoMerge
from emloom.tasks.overlaptable import CELL, Compared, CountOverlap, Rule, read_overlap
from emloom.tasks.qcmask import source_of
from emloom.tasks.scorefiles import definitions, write_scores
from emloom.tasks.scorenodes import Nodes, nodes_of, skeletons_of
from emloom.tasks.scorespec import EvaluateSpec, Subject, subject_of
from emloom.tasks.scorestages import OnBlock, Stages
from emloom.tasks.truthpieces import truth_in_pieces

FORMAT = 1
WORST = 10
"""Largest splits, and largest merges, that are listed and drawn."""


Evidence = dict[Literal["known", "inner", "cremi", "whole", "nodes"], Contingency | RunLengthScores]


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
            found["nodes"] = self.nodes.scores(subject.lut)
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
class Voxels:
    """The comparison with true labels.

    Attributes:
        compared: what was compared, and how.
        cells: blocks that were counted.
        known: the table of the segmentation over all voxels whose truth is known.
        worst: the objects that cost most, by kind ("split", "merge"), worst first.
    """

    compared: Compared
    cells: list[Block]
    known: Contingency
    worst: dict[str, list[ObjectError]]

    @classmethod
    def of(cls, compared: Compared, known: Contingency) -> Voxels:
        """Return the comparison; raises `InputError` where nothing counts."""
        overlap_scores(known)
        worst = {kind: worst_objects(known, kind, WORST) for kind in ("split", "merge")}
        return cls(compared, compared.cells(), known, worst)

    def row(self) -> dict[str, int]:
        """Return what was counted."""
        return {
            "n_voxels": self.known.n_voxels,
            "n_truth": len(self.known.truth_sizes()[0]),
            "n_segments": len(self.known.segment_sizes()[0]),
        }


@dataclass(frozen=True)
class Traced:
    """The comparison with tracings.

    Attributes:
        nodes: the tracings, and what lies under their nodes.
        segments: uint64 [N], the segment under each.
        lengths: run lengths, and the errors behind them.
    """

    nodes: Nodes
    segments: Ids
    lengths: RunLengths

    @classmethod
    def of(cls, nodes: Nodes, subject: Subject) -> Traced:
        """Return the comparison of a segmentation."""
        return cls(nodes, nodes.segments(subject.lut), nodes.lengths(subject.lut))

    def row(self) -> dict[str, float]:
        """Return what was counted."""
        scores = self.lengths.scores
        return {
            "path_nm": scores.path_nm,
            "n_skeletons": scores.n_skeletons,
            "n_nodes": scores.n_nodes,
            "n_nodes_outside": self.nodes.n_outside,
        }


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        row: the scores of the segmentation, with what it is called.
        sweep: the scores at every threshold; empty where there is no tree.
        subject: what was scored.
        metrics: what was asked for.
        undefined: why a metric has no value, by its name.
        voxels: the comparison with true labels; None where there are none.
        traced: the comparison with tracings; None where there are none.
    """

    row: dict[str, Any]
    sweep: list[dict[str, float]]
    subject: Subject
    metrics: list[Metric]
    undefined: dict[str, str]
    voxels: Voxels | None
    traced: Traced | None


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
    started = time.perf_counter()
    stages = Stages(Path(spec.output).absolute(), executor or Serial(), on_block)
    metrics = metrics_named(spec.metrics)
    skeletons = skeletons_of(spec, metrics)
    subject = subject_of(spec.segmentation)
    compared, region = _compared(spec, metrics, subject), _region(spec, subject, stages.folder)
    with explained(stages.folder):
        stages.folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: fingerprint(path) for name, path in _inputs(spec, subject).items()}
    nodes = None if skeletons is None else nodes_of(spec, skeletons, subject)
    if nodes is not None and region is not None:
        nodes = replace(nodes, no_merge=_entered(region, stages, inputs))
    if compared is not None and spec.split_truth:
        pieces = truth_in_pieces(compared.truth, stages, inputs["truth"])
        compared = replace(compared, truth=pieces)
    tables = {} if compared is None else _counted(compared, stages, inputs)
    counted = _Counted(tables, nodes, 0 if compared is None else compared.n_voxels)
    voxels = None if compared is None else Voxels.of(compared, subject.of(tables["known"]))
    traced = None if nodes is None else Traced.of(nodes, subject)
    found = counted.evidence(subject)
    row: dict[str, Any] = {"segmentation": spec.segmentation, "threshold": subject.threshold}
    row |= counted.values(metrics, found)
    for part in (voxels, traced):
        row |= {} if part is None else part.row()
    sweep = _sweep(spec, subject, metrics, counted)
    result = Evaluation(row, sweep, subject, metrics, _undefined(metrics, found), voxels, traced)
    _write(result, stages.folder)
    seconds = {"evaluate": time.perf_counter() - started}
    write_provenance(stages.folder / "provenance.json", spec.to_dict(), inputs, seconds)
    return result


def _inputs(spec: EvaluateSpec, subject: Subject) -> dict[str, str]:
    """Return the paths of everything that is read, by name."""
    paths = {"truth": spec.truth, "segmentation": subject.labels, "mask": source_of(spec.mask)}
    if spec.skeletons is not None:
        paths |= {"skeletons": spec.skeletons.path, "no_merge": spec.skeletons.no_merge}
    return {name: path for name, path in paths.items() if path is not None}


def _compared(spec: EvaluateSpec, metrics: Sequence[Metric], subject: Subject) -> Compared | None:
    """Return what is to be counted; raises `InputError` where the volumes do not fit together."""
    asked = [metric.rule for metric in metrics if metric.rule != "nodes"]
    if spec.truth is None:
        if names := [metric.name for metric in metrics if metric.rule != "nodes"]:
            raise InputError(
                f"{', '.join(names)} compare voxels: give true labels, or ask for nerl and edges only"
            )
        return None
    rules: tuple[Rule, ...] = tuple(dict.fromkeys(["known", *asked]))
    border = spec.border
    compared = Compared(spec.truth, subject.labels, spec.mask, border.width_vox, border.in_plane, rules)
    compared.check()
    return compared


def _region(spec: EvaluateSpec, subject: Subject, folder: Path) -> CountNoMerge | None:
    """Return what counts the region that segments must not enter, if there is one."""
    if spec.skeletons is None or spec.skeletons.no_merge is None:
        return None
    region = CountNoMerge(subject.labels, spec.skeletons.no_merge, folder)
    region.check()
    return region


def _counted(compared: Compared, stages: Stages, inputs: dict[str, str]) -> dict[Rule, Contingency]:
    cells = compared.cells()
    work = CountOverlap(compared, stages.folder, 1 if stages.executor.parallel else None)
    read = {name: inputs[name] for name, path in compared.paths.items() if path is not None}
    stages.run("overlap", key_of(FORMAT, asdict(compared), read), cells, work)
    return {rule: read_overlap(stages.folder, rule, cells) for rule in compared.rules}


def _entered(region: CountNoMerge, stages: Stages, inputs: dict[str, str]) -> Contingency:
    cells = blocks(open_volume(region.labels, kind="labels").info.box, CELL)
    read = {name: inputs[name] for name in ("segmentation", "no_merge")}
    stages.run("no-merge", key_of(FORMAT, region.labels, region.mask, read), cells, region)
    return region.read(cells)


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
            found["nodes"] = counted.nodes.scores(subject.tree.table(at))
        points.append({"threshold": at, **counted.values(metrics, found)})
    return points[::-1]


def _write(found: Evaluation, folder: Path) -> None:
    said: dict[str, Any] = {"undefined": found.undefined, "sweep": found.sweep}
    if found.voxels is not None:
        said["worst"] = {k: [asdict(error) for error in errors] for k, errors in found.voxels.worst.items()}
    if found.traced is not None:
        lengths = found.traced.lengths
        said["skeletons"] = [asdict(row) for row in lengths.worst_skeletons(WORST)]
        said["merges"] = [asdict(row) for row in lengths.worst_merges(WORST)]
    write_scores(folder, [found.row], **said, metrics=definitions(found.metrics))
    sweep = folder / "sweep.csv"
    if found.sweep:
        write_csv(sweep, {name: np.array([p[name] for p in found.sweep]) for name in found.sweep[0]})
    else:
        sweep.unlink(missing_ok=True)
