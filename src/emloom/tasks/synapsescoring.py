"""`emloom evaluate` for synapses: clefts, partners and connections of a result against the truth.

::

    clefts         two volumes -> exact sums, block by block         (`tasks.cleftblocks`)
    cleft_objects  the same as objects -> matches by overlap         (`tasks.cleftobjects`)
    partners       two lists of pairs (`tasks.partnersource`), true neurons under every site -> cheapest matching
    polyads        the same pairs by pre site -> the set of partners of each
    connections    the same pairs as two connectomes -> edge by edge

Everything is written into one folder: `scores.json`, `scores.csv`, the partner pairs that are wrong with their
positions in nm (`missed.csv`, `invented.csv`), what thresholds of the scores would give (`sweep.csv`), every
cleft with what it is judged (`cleft_objects.csv`), and `provenance.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emloom.io.cremi import CLEFTS, NEURON_IDS
from emloom.io.files import explained
from emloom.io.open import open_volume
from emloom.io.tables import write_csv
from emloom.io.volume import Volume
from emloom.metrics.clefttally import CleftOptions
from emloom.metrics.connections import ConnectionScores, connection_scores, majority_match, matched
from emloom.metrics.partnerpairs import site_voxels
from emloom.metrics.partners import PartnerScores, match_pairs
from emloom.metrics.partnersweep import FoundPairs, Sweep, partner_sweep
from emloom.metrics.polyads import polyad_scores, polyads_of
from emloom.metrics.synapsebook import SynapseMetric, synapse_metrics_named
from emloom.run.executor import Executor, Serial
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.cleftblocks import CleftPaths, score_clefts
from emloom.tasks.cleftobjects import OBJECTS, score_objects
from emloom.tasks.lattice import common_box, start_in
from emloom.tasks.partnersource import Synapses, read_synapses, volume_in
from emloom.tasks.scorefiles import definitions, write_rows, write_scores
from emloom.tasks.synapsecounts import counts_of, remarks_on
from emloom.tasks.synapsesites import Placed, connectome_of, overlap_of, segments_under, stored_labels
from emloom.tasks.synapsespec import SynapseSpec
from emloom.tasks.wrongpairs import WRONG, Wrong, WrongPairs, columns_of, wrong_pairs

OnBlock = Callable[[int, int], None]
_OF_VOLUMES = frozenset({"clefts", "cleft_objects"})


@dataclass(frozen=True, eq=False)
class SynapseEvaluation:
    """What was found.

    Attributes:
        row: the scores, with what they are about.
        metrics: what was asked for.
        undefined: why values of a metric are NaN, by its name.
        notes: what else deserves a look, by name of the metric.
        wrong: partner pairs that are wrong; empty where partners were not asked for.
        cleft_paths: the volumes of clefts, where there are.
        sweep: what thresholds of the scores of found pairs give; None where they have no scores, or just one.
    """

    row: dict[str, Any]
    metrics: list[SynapseMetric]
    undefined: dict[str, str]
    notes: dict[str, list[str]]
    wrong: Mapping[Wrong, WrongPairs] = field(default_factory=dict)
    cleft_paths: CleftPaths | None = None
    sweep: Sweep | None = None


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Both sides' pairs and the true neurons."""

    truth: Synapses
    found: Synapses
    neurons: Volume
    inputs: Mapping[str, str]
    others: Volume | None = None


def evaluate_synapses(
    spec: SynapseSpec, executor: Executor | None = None, on_block: OnBlock | None = None
) -> SynapseEvaluation:
    """Score synapses; write `scores.json`, `scores.csv`, lists of pairs, and `provenance.json`.

    Args:
        spec: what to do; nothing outside of ``spec.output`` is written.
        executor: where cleft voxels are counted; default in this process.
        on_block: called with (blocks counted, blocks in all) of clefts, for either pass over them.

    Raises:
        InputError: a metric is unknown, a file or volume is missing or damaged, grids differ, annotations
            contradict each other, or sites lie outside. All are found before anything is counted.
    """
    started = time.perf_counter()
    metrics = synapse_metrics_named(spec.metrics)
    asked = {metric.name for metric in metrics}
    clefts = _clefts(spec) if asked & _OF_VOLUMES else None
    pairs = _pairs(spec) if asked - _OF_VOLUMES else None
    inputs = {**({} if clefts is None else clefts.paths), **({} if pairs is None else pairs.inputs)}
    if spec.raw is not None:
        _check_raw(spec.raw, clefts)
        inputs["raw"] = spec.raw
    prints = {name: fingerprint(path) for name, path in inputs.items()}
    folder = Path(spec.output).absolute()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = {}
    wrong: dict[Wrong, WrongPairs] = {}
    sweep = None
    if pairs is not None:
        placed = _placed(spec, pairs)
        scores |= _pair_scores(spec, pairs, placed, asked)
        if "partners" in asked:
            wrong = wrong_pairs(pairs.truth, pairs.found, placed, scores["partners"])
            sweep = _swept(spec, pairs, placed)
    if clefts is not None:
        scores |= _cleft_scores(spec, clefts, asked, folder, (executor or Serial(), on_block))
    row: dict[str, Any] = {"found": spec.found, "truth": spec.truth}
    for metric in metrics:
        row |= metric.of(scores[metric.name])
    row |= counts_of(scores)
    undefined, notes = remarks_on(metrics, row, scores)
    result = SynapseEvaluation(row, metrics, undefined, notes, wrong, clefts, sweep)
    _write(result, folder)
    write_provenance(
        folder / "provenance.json", spec.to_dict(), prints, {"evaluate": time.perf_counter() - started}
    )
    return result


# ---- what is compared, checked before anything is counted -----------------------------------------------------


def _clefts(spec: SynapseSpec) -> CleftPaths:
    given = spec.clefts
    truth, found = (
        part or volume_in(whole, CLEFTS, f"clefts.{name}")
        for name, part, whole in (("truth", given.truth, spec.truth), ("found", given.found, spec.found))
    )
    paths = CleftPaths(truth, found, given.mask)
    paths.check()
    return paths


def _pairs(spec: SynapseSpec) -> _Pairs:
    path = spec.segmentation or volume_in(spec.truth, NEURON_IDS, "segmentation, or --neurons")
    neurons, info = stored_labels(path), open_volume(path).info
    truth, found = (read_synapses(side, info.grid.voxel_size_nm) for side in (spec.truth, spec.found))
    site_voxels(truth.pairs, info.shape, info.grid)
    site_voxels(found.pairs, info.shape, info.grid, spec.partners.outside)
    inputs, others = {"truth": spec.truth, "found": spec.found, "segmentation": path}, None
    if spec.found_segmentation is not None:
        inputs["found segmentation"] = spec.found_segmentation
        others = stored_labels(spec.found_segmentation)
        common_box(others, neurons)
        site_voxels(found.pairs, others.info.shape, others.info.grid, spec.partners.outside)
    return _Pairs(truth, found, neurons, inputs, others)


def _check_raw(path: str, clefts: CleftPaths | None) -> None:
    raw = open_volume(path, kind="raw")
    if clefts is not None:
        start_in(open_volume(clefts.truth), raw)


# ---- scores ---------------------------------------------------------------------------------------------------


def _placed(spec: SynapseSpec, pairs: _Pairs) -> tuple[Placed, Placed]:
    return (
        segments_under(pairs.truth.pairs, pairs.neurons),
        segments_under(pairs.found.pairs, pairs.neurons, spec.partners.outside),
    )


def _pair_scores(
    spec: SynapseSpec, pairs: _Pairs, placed: tuple[Placed, Placed], asked: set[str]
) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if "partners" in asked:
        scores["partners"] = _matched(spec, pairs, placed)
    if "polyads" in asked:
        truth, found = (
            polyads_of(side.pairs, side.polyads, at.segments, at.inside)
            for side, at in zip((pairs.truth, pairs.found), placed, strict=True)
        )
        scores["polyads"] = polyad_scores(truth, found, spec.partners.limit_nm)
    if "connections" in asked:
        scores["connections"] = _connected(spec, pairs, placed)
    return scores


def _matched(spec: SynapseSpec, pairs: _Pairs, placed: tuple[Placed, Placed]) -> PartnerScores:
    truth, found = placed
    return match_pairs(
        pairs.truth.pairs,
        pairs.found.pairs,
        truth.segments,
        found.segments,
        inside=found.inside,
        options=spec.partners.options,
    )


def _swept(spec: SynapseSpec, pairs: _Pairs, placed: tuple[Placed, Placed]) -> Sweep | None:
    """Return what thresholds of the scores would give; None where there is nothing to choose between."""
    scores = pairs.found.scores
    if scores is None or np.unique(scores).size < 2:
        return None
    truth, under = placed
    found = FoundPairs(pairs.found.pairs, under.segments, scores, under.inside)
    return partner_sweep(pairs.truth.pairs, truth.segments, found, spec.partners.options, beta=spec.partners.beta)


def _cleft_scores(
    spec: SynapseSpec, clefts: CleftPaths, asked: set[str], folder: Path, how: tuple[Executor, OnBlock | None]
) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if "clefts" in asked:
        limits = CleftOptions(limit_nm=spec.clefts.limit_nm)
        scores["clefts"] = score_clefts(clefts, limits, folder, *how)
    if "cleft_objects" in asked:
        scores["cleft_objects"] = score_objects(clefts, spec.clefts.objects, folder, *how)
    return scores


def _connected(spec: SynapseSpec, pairs: _Pairs, placed: tuple[Placed, Placed]) -> ConnectionScores:
    autapses = not spec.partners.drop_autapses
    truth = connectome_of(placed[0].segments, autapses=autapses)
    if pairs.others is None:
        found = connectome_of(placed[1].segments, autapses=autapses)
    else:
        under = segments_under(pairs.found.pairs, pairs.others, spec.partners.outside)
        found = connectome_of(under.segments, autapses=autapses)
        found = matched(found, *majority_match(overlap_of(pairs.neurons, pairs.others)))
        found = found if autapses else found.without_autapses()
    return connection_scores(truth, found, spec.minimum_weight)


# ---- files ----------------------------------------------------------------------------------------------------


def _write(found: SynapseEvaluation, folder: Path) -> None:
    said = {"undefined": found.undefined, "notes": found.notes}
    write_scores(folder, [found.row], **said, metrics=definitions(found.metrics))
    for kind in WRONG:
        file = folder / f"{kind}.csv"
        if kind in found.wrong:
            write_csv(file, columns_of(found.wrong[kind]))
        else:
            file.unlink(missing_ok=True)
    if all(metric.name != "cleft_objects" for metric in found.metrics):
        (folder / OBJECTS).unlink(missing_ok=True)
    if found.sweep is None:
        (folder / "sweep.csv").unlink(missing_ok=True)
    else:
        write_rows(folder / "sweep.csv", [asdict(point) for point in found.sweep.points])
