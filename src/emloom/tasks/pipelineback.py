"""Results brought back to the grid of the raw, and scored there.

::

    segment.zarr, synapses/ ──map, turned round──► restored/segmentation.zarr, restored/synapses.parquet
                                                   restored/restored.json: whether anything moved at all
    restored (or as they are) + truth ───────────► evaluate/neurons, evaluate/synapses, evaluate/mask.zarr

Where nothing moved nothing is copied. Scores count where the raw shows tissue that was measured: not in what
quality control masked, what repair made up, or outside of the boxes of the job.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.files import staged, write_text_atomic
from emloom.io.open import open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.io.synapsetable import ORIENTED, SYNAPSES, read_synapse_table, words_of_table, write_synapse_table
from emloom.io.tables import read_table, write_csv
from emloom.io.volume import Volume
from emloom.metrics.connections import Connectome, connection_scores, majority_match, matched
from emloom.run.executor import Executor, Serial
from emloom.tasks.movepoints import moved_points
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.nodelookup import by_chunk
from emloom.tasks.partnersource import LEFT_OUT, read_synapses
from emloom.tasks.pipelinemasks import MaskJob, is_moving, make_mask
from emloom.tasks.pipelinestages import Layout
from emloom.tasks.scorereport import write_score_report
from emloom.tasks.scorespec import EvaluateSpec
from emloom.tasks.scoring import evaluate
from emloom.tasks.synapsereport import write_synapse_report
from emloom.tasks.synapsescoring import evaluate_synapses
from emloom.tasks.synapsesites import connectome_of, overlap_of, segments_under, stored_labels
from emloom.tasks.synapsesource import read_source
from emloom.tasks.synapsespec import PartnersSpec, SynapseSpec

OnBlock = Callable[[str, int, int], None]
RESTORED = "restored.json"
"""Written last: says whether anything moved."""
UNDIRECTED = "undirected.json"
"""Scores of connections whichever side sends, where nobody knows which does."""
LOST = "lost.csv"
"""Synapses with a site that has no place in the raw."""


@dataclass(frozen=True)
class Results:
    """Where the results on the grid of the raw lie.

    Attributes:
        segmentation: a volume of labels, or the container of `emloom segment`.
        synapses: table; None where there are none.
    """

    segmentation: str
    synapses: str | None


def results(layout: Layout) -> Results:
    """Return where the results on the grid of the raw lie, once they are there."""
    synapses = layout.path("synapses") / SYNAPSES if layout.job.synapses else None
    home = layout.path("restore")
    if layout.moves and json.loads((home / RESTORED).read_text(encoding="utf-8"))["moved"]:
        table = None if synapses is None else str(home / SYNAPSES)
        return Results(str(home / "segmentation.zarr" / "segmentation"), table)
    return Results(str(layout.path("segment")), None if synapses is None else str(synapses))


def restore(layout: Layout, executor: Executor | None, on_block: OnBlock | None, discard: bool) -> None:
    """Bring segmentation and synapses back to the grid of the raw, where alignment or repair moved anything.

    Raises:
        InputError: an input is missing, or the disk refuses.
    """
    home = layout.path("restore")
    home.mkdir(parents=True, exist_ok=True)
    (home / RESTORED).unlink(missing_ok=True)
    assert layout.moves is not None
    by = layout.path(layout.moves)
    moved = is_moving(read_stackmap(by))
    said: dict[str, Any] = {"moved": moved}
    if moved:
        job = MoveJob(
            source=str(layout.path("segment") / "segmentation"),
            by=str(by),
            output=str(home / "segmentation.zarr"),
            direction="invert",
            what="labels",
        )
        tell = None if on_block is None else (lambda done, total: on_block("segmentation", done, total))
        move_volume(job, tell, executor, discard)
        if layout.job.synapses:
            said["lost"] = _restore_synapses(layout, by)
    write_text_atomic(home / RESTORED, json.dumps(said))


def _restore_synapses(layout: Layout, by: Path) -> int:
    """Write the synapses at their places in the raw; return how many have none."""
    home, source = layout.path("restore"), layout.path("synapses")
    table, back = read_synapse_table(source), read_stackmap(by).inverse()
    pre, post = (moved_points(back, sites) for sites in (table.pre_nm, table.post_nm))
    kept = ~np.isnan(np.concatenate([pre, post], axis=1)).any(axis=1)
    there = replace(table.rows(kept), pre_nm=pre[kept], post_nm=post[kept], source=str(home / SYNAPSES))
    write_synapse_table(home / SYNAPSES, there, {**words_of_table(source), "brought_back_by": str(by)})
    (home / LOST).unlink(missing_ok=True)
    if not kept.all():
        gone = table.rows(~kept)
        columns: dict[str, NDArray[Any]] = {"id": gone.ids}
        for name, sites in (("pre", gone.pre_nm), ("post", gone.post_nm)):
            columns |= {f"{name}_{axis}": sites[:, k] for k, axis in enumerate("zyx")}
        write_csv(home / LOST, columns)
    return int(np.count_nonzero(~kept))


def score(layout: Layout, executor: Executor | None, on_block: OnBlock | None, discard: bool) -> None:
    """Score what was found against the truth, on the grid of the raw.

    Raises:
        InputError: truth is on another grid, or nothing counts.
    """
    job, truth, found = layout.job, layout.job.truth, results(layout)
    assert truth is not None
    home = layout.path("evaluate")
    home.mkdir(parents=True, exist_ok=True)
    mask = MaskJob(
        what="counted",
        output=str(home / "mask.zarr"),
        bad=layout.measured,
        by=None if layout.moves is None else str(layout.path(layout.moves)),
        raw=job.raw,
        voxel_size_nm=job.voxel_size_nm,
        boxes=truth.boxes,
    )
    counted = str(make_mask(mask, executor, on_block, discard) / "mask")
    raw = job.raw if job.voxel_size_nm is None else None
    if truth.labels is not None:
        spec = EvaluateSpec(
            segmentation=found.segmentation,
            truth=truth.labels,
            output=str(home / "neurons"),
            mask=counted,
            raw=raw,
        )
        tell = None if on_block is None else (lambda done, total: on_block("neurons", done, total))
        write_score_report(spec, evaluate(spec, executor or Serial(), tell))
    if truth.synapses is not None and found.synapses is not None:
        _score_synapses(layout, found, open_volume(counted), raw)


def _score_synapses(layout: Layout, found: Results, counted: Volume, raw: str | None) -> None:
    truth, home = layout.job.truth, layout.path("evaluate") / "synapses"
    assert truth is not None
    assert truth.synapses is not None
    assert found.synapses is not None
    segments = found.segmentation
    if (Path(segments) / "segmentation").is_dir():
        segments = str(Path(segments) / "segmentation")
    home.mkdir(parents=True, exist_ok=True)
    tables = {
        "truth": read_source(truth.synapses, counted.info.grid.voxel_size_nm).table,
        "found": _with_edges(layout, read_synapse_table(found.synapses)),
    }
    for name, table in tables.items():
        with staged(home / f"{name}.parquet", overwrite=True) as path:
            write_synapse_table(path, table.rows(_counts(table, counted)))
    spec = SynapseSpec(
        found=str(home / "found.parquet"),
        truth=str(home / "truth.parquet"),
        output=str(home),
        metrics=("partners", "connections"),
        segmentation=truth.labels or segments,
        found_segmentation=segments if truth.labels else None,
        raw=raw,
        partners=PartnersSpec(outside="unmatched"),
    )
    write_synapse_report(spec, evaluate_synapses(spec))
    (home / UNDIRECTED).unlink(missing_ok=True)
    if words_of_table(layout.path("synapses")).get(ORIENTED) == "no":
        write_text_atomic(home / UNDIRECTED, json.dumps(_undirected(spec)))


def _undirected(spec: SynapseSpec) -> dict[str, Any]:
    """Return how well connections agree, whichever side sends: nothing else can be asked without direction."""
    assert spec.segmentation is not None
    neurons = stored_labels(spec.segmentation)
    others = neurons if spec.found_segmentation is None else stored_labels(spec.found_segmentation)
    size = neurons.info.grid.voxel_size_nm
    truth = connectome_of(segments_under(read_synapses(spec.truth, size).pairs, neurons, "unmatched").segments)
    found = connectome_of(segments_under(read_synapses(spec.found, size).pairs, others, "unmatched").segments)
    if spec.found_segmentation is not None:
        found = matched(found, *majority_match(overlap_of(neurons, others)))
    said = connection_scores(_folded(truth), _folded(found))
    return {"f1": _known(said.f1), "edge_weight_f1": _known(said.edge_weight_f1), "pairs_truth": said.tp + said.fn}


def _folded(edges: Connectome) -> Connectome:
    low, high = np.minimum(edges.pre, edges.post), np.maximum(edges.pre, edges.post)
    return Connectome.from_rows(low, high, edges.weights)


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def _with_edges(layout: Layout, table: SynapseTable) -> SynapseTable:
    """Return the synapses that make an edge of the connectome."""
    contacts = read_table(layout.path("connectome") / SYNAPSES).columns
    used = np.array([not why for why in contacts[LEFT_OUT].tolist()], bool)
    return table.rows(np.isin(table.ids, contacts["id"][used]))


def _counts(table: SynapseTable, counted: Volume) -> NDArray[np.bool_]:
    """Return of which synapses both sites lie where results count, bool [n]."""
    return _inside(counted, table.pre_nm) & _inside(counted, table.post_nm)


def _inside(counted: Volume, points_nm: NDArray[np.float64]) -> NDArray[np.bool_]:
    info = counted.info
    voxels = voxels_containing(info.grid, points_nm)
    inside = np.flatnonzero(((voxels >= 0) & (voxels < np.array(info.shape))).all(axis=1))
    out = np.zeros(len(voxels), bool)
    for rows, box in by_chunk(info, voxels[inside]):
        z, y, x = (voxels[inside[rows]] - np.array(box.start)).T
        out[inside[rows]] = counted.read(box)[z, y, x] != 0
    return out
