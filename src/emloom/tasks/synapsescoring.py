"""`emloom evaluate` for synapses: clefts, partners and connections of a result against the truth.

::

    clefts        two volumes -> exact sums, block by block         (`tasks.cleftblocks`)
    partners      two CREMI files, true neurons under every site -> the cheapest matching
    connections   the same pairs as two connectomes -> edge by edge

Everything is written into one folder: `scores.json`, `scores.csv`, the partner pairs that are wrong with their
positions in nm (`missed.csv`, `invented.csv`), and `provenance.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.io.cremi import CLEFTS, NEURON_IDS
from emloom.io.files import explained
from emloom.io.open import open_volume
from emloom.io.tables import write_csv
from emloom.io.volume import Volume
from emloom.metrics.clefts import CleftScores
from emloom.metrics.clefttally import CleftOptions
from emloom.metrics.connections import ConnectionScores, connection_scores, majority_match, matched
from emloom.metrics.partnerpairs import Outside, PartnerPairs, site_voxels
from emloom.metrics.partners import PartnerOptions, PartnerScores, match_pairs
from emloom.metrics.synapsebook import SynapseMetric, synapse_metrics_named
from emloom.run.executor import Executor, Serial
from emloom.run.provenance import fingerprint, write_provenance
from emloom.spec import Spec
from emloom.tasks.cleftblocks import CleftPaths, score_clefts
from emloom.tasks.lattice import common_box, start_in
from emloom.tasks.scorefiles import definitions, write_scores
from emloom.tasks.synapsesites import (
    Placed,
    Synapses,
    connectome_of,
    overlap_of,
    read_synapses,
    segments_under,
    stored_labels,
    volume_in,
)

OnBlock = Callable[[int, int], None]
Wrong = Literal["missed", "invented"]
Length = Annotated[float, Field(ge=0)]
_WRONG: tuple[Wrong, ...] = ("missed", "invented")


class CleftsSpec(Spec):
    """Volumes of clefts, where `found` and `truth` do not hold them, and what counts."""

    found: str | None = None
    """Clefts found, any labels or mask with background 0."""
    truth: str | None = None
    """True clefts, on the same voxels or more."""
    mask: str | None = None
    """Non-zero where voxels count, besides what the truth of a CREMI file ignores."""
    limit_nm: Length = 200.0
    """Voxels farther than this from the other side are false."""


class PartnersSpec(Spec):
    """How partner pairs are matched; the defaults are CREMI's."""

    limit_nm: Length = 400.0
    """Sites farther apart than this never match."""
    outside: Outside = "refuse"
    """Found pairs with a site outside the segmentation are an error, or (`unmatched`) wrong."""
    drop_autapses: bool = False
    """Leave out found pairs within one segment; in connections those of the truth, too."""
    redundant_nm: Length = 0.0
    """Of found pairs between the same segments with post sites in steps of this, keep one."""


class SynapseSpec(Spec):
    """Score synapses against their truth."""

    found: str
    """A CREMI file with what was found; for `clefts` alone, any volume of them."""
    truth: str
    """A CREMI file with the truth; for `clefts` alone, any volume of them."""
    output: str
    metrics: tuple[str, ...] = ("partners", "connections")
    """Names of `emloom.metrics.synapsebook`: clefts, partners, connections."""
    segmentation: str | None = None
    """True neurons, in which all sites are looked up; None: the neuron ids of `truth`."""
    found_segmentation: str | None = None
    """Neurons found: where given, connections found are between them, each as the true neuron it overlaps most."""
    raw: str | None = None
    """Raw volume, to be drawn behind what is wrong."""
    clefts: CleftsSpec = CleftsSpec()
    partners: PartnersSpec = PartnersSpec()
    minimum_weight: Annotated[int, Field(ge=1)] = 1
    """Synapses that make a connection."""


@dataclass(frozen=True, eq=False)
class WrongPairs:
    """Partner pairs that are missed (of the truth) or invented (of the result), row by row.

    Attributes:
        rows: int64 [k], among all pairs of their file.
        sites: uint64 [k, 2], ids of the (pre, post) sites.
        pairs: their positions.
        segments: uint64 [k, 2], true segments of the (pre, post) sites.
        nearest_nm: float64 [k], root mean square of the distances of both sites to those of the nearest pair of
            the other side, whatever its segments; NaN where there is none.
    """

    rows: NDArray[np.int64]
    sites: NDArray[np.uint64]
    pairs: PartnerPairs
    segments: NDArray[np.uint64]
    nearest_nm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


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
    """

    row: dict[str, Any]
    metrics: list[SynapseMetric]
    undefined: dict[str, str]
    notes: dict[str, list[str]]
    wrong: Mapping[Wrong, WrongPairs] = field(default_factory=dict)
    cleft_paths: CleftPaths | None = None


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
    """Score synapses; write `scores.json`, `scores.csv`, `missed.csv`, `invented.csv` and `provenance.json`.

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
    clefts = _clefts(spec) if "clefts" in asked else None
    pairs = _pairs(spec) if asked & {"partners", "connections"} else None
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
    if pairs is not None:
        placed = _placed(spec, pairs)
        if "partners" in asked:
            scores["partners"] = partners = _matched(spec, pairs, placed)
            wrong = _wrong(pairs, placed, partners)
        if "connections" in asked:
            scores["connections"] = _connected(spec, pairs, placed)
    if clefts is not None:
        limits = CleftOptions(limit_nm=spec.clefts.limit_nm)
        scores["clefts"] = score_clefts(clefts, limits, folder, executor or Serial(), on_block)
    row: dict[str, Any] = {"found": spec.found, "truth": spec.truth}
    for metric in metrics:
        row |= metric.of(scores[metric.name])
    row |= _counts(scores)
    undefined, notes = _remarks(metrics, row, scores)
    result = SynapseEvaluation(row, metrics, undefined, notes, wrong, clefts)
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
    truth, found = read_synapses(spec.truth), read_synapses(spec.found)
    path = spec.segmentation or volume_in(spec.truth, NEURON_IDS, "segmentation")
    neurons, info = stored_labels(path), open_volume(path).info
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


def _matched(spec: SynapseSpec, pairs: _Pairs, placed: tuple[Placed, Placed]) -> PartnerScores:
    truth, found = placed
    return match_pairs(
        pairs.truth.pairs,
        pairs.found.pairs,
        truth.segments,
        found.segments,
        inside=found.inside,
        options=PartnerOptions(**spec.partners.to_dict()),
    )


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


def _wrong(pairs: _Pairs, placed: tuple[Placed, Placed], scores: PartnerScores) -> dict[Wrong, WrongPairs]:
    return {
        "missed": _chosen(pairs.truth, placed[0], scores.missed, pairs.found.pairs),
        "invented": _chosen(pairs.found, placed[1], scores.invented, pairs.truth.pairs),
    }


def _chosen(side: Synapses, placed: Placed, rows: NDArray[np.int64], others: PartnerPairs) -> WrongPairs:
    chosen = PartnerPairs(side.pairs.pre_nm[rows], side.pairs.post_nm[rows], side.pairs.source)
    return WrongPairs(rows, side.sites[rows], chosen, placed.segments[rows], _nearest(chosen, others))


def _nearest(pairs: PartnerPairs, others: PartnerPairs) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree  # not at import: scipy takes its time

    if not (len(pairs) and len(others)):
        return np.full(len(pairs), nan)
    mine, theirs = (np.hstack([p.pre_nm, p.post_nm]) for p in (pairs, others))
    distances: NDArray[np.float64] = cKDTree(theirs).query(mine)[0] / np.sqrt(2.0)
    return distances


def _counts(scores: Mapping[str, Any]) -> dict[str, int]:
    """Return what was counted, for people to see how much the scores stand on."""
    counts: dict[str, int] = {}
    if isinstance(clefts := scores.get("clefts"), CleftScores):
        counts |= {"n_cleft_voxels_known": clefts.n_known}
        counts |= {"n_cleft_voxels_truth": clefts.n_truth, "n_cleft_voxels_found": clefts.n_found}
    if isinstance(partners := scores.get("partners"), PartnerScores):
        counts |= {"n_pairs_truth": partners.tp + partners.fn, "n_pairs_found": partners.tp + partners.fp}
        counts |= {"n_pairs_dropped": len(partners.dropped)}
    if isinstance(edges := scores.get("connections"), ConnectionScores):
        counts |= {"minimum_weight": edges.minimum_weight}
        counts |= {"n_connections_truth": edges.tp + edges.fn, "n_connections_found": edges.tp + edges.fp}
        counts |= {"n_synapses_truth": edges.true_synapses, "n_synapses_found": edges.found_synapses}
    return counts


def _remarks(
    metrics: list[SynapseMetric], row: Mapping[str, Any], scores: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    undefined, notes = {}, {}
    for metric in metrics:
        found = scores[metric.name]
        hollow = any(not isfinite(row[value.key]) for value in metric.values)
        remarks = list(getattr(found, "notes", ()))
        if found.reason is not None and hollow:
            undefined[metric.name] = found.reason
        elif found.reason is not None:
            remarks.append(found.reason)
        if remarks:
            notes[metric.name] = remarks
    return undefined, notes


# ---- files ----------------------------------------------------------------------------------------------------


def _write(found: SynapseEvaluation, folder: Path) -> None:
    said = {"undefined": found.undefined, "notes": found.notes}
    write_scores(folder, [found.row], **said, metrics=definitions(found.metrics))
    for kind in _WRONG:
        file = folder / f"{kind}.csv"
        if kind in found.wrong:
            write_csv(file, _columns(found.wrong[kind]))
        else:
            file.unlink(missing_ok=True)


def _columns(wrong: WrongPairs) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {"row": wrong.rows}
    for side, (name, points) in enumerate((("pre", wrong.pairs.pre_nm), ("post", wrong.pairs.post_nm))):
        columns[f"{name}_id"] = wrong.sites[:, side]
        columns |= {f"{name}_{axis}_nm": points[:, k] for k, axis in enumerate("zyx")}
        columns[f"{name}_segment"] = wrong.segments[:, side]
    empty = [None if np.isnan(v) else v for v in wrong.nearest_nm.tolist()]
    return columns | {"nearest_nm": np.array(empty, object)}
