"""Detected synapses against a truth: which are right, what is missed, and what a threshold would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.synapses import SynapseTable
from emloom.io.cremi import NEURON_IDS
from emloom.metrics.partnerpairs import site_voxels
from emloom.metrics.partners import PartnerOptions, PartnerScores, match_pairs
from emloom.metrics.partnersweep import FoundPairs, Sweep, partner_sweep
from emloom.tasks.partnersource import Synapses, is_file_of_hdf5, of_table, read_synapses, volume_in
from emloom.tasks.synapsesites import segments_under, stored_labels


@dataclass(frozen=True, eq=False)
class Judged:
    """What a truth says about detections.

    Attributes:
        scores: of all detections together.
        right: bool [n], detections that have a match.
        missed: the true contacts without one.
        n_true: true contacts that lie in the neurons.
        sweep: what thresholds give; None where all scores are the same.
    """

    scores: PartnerScores
    right: NDArray[np.bool_]
    missed: SynapseTable
    n_true: int
    sweep: Sweep | None


def judge(table: SynapseTable, truth: str | None, segmentation: str | None) -> tuple[Judged | None, list[str]]:
    """Match detections with a truth by CREMI's rules; return what it says, and remarks.

    True contacts with a site outside of the neurons are left out, and counted in a remark. Detections with one are
    wrong.

    Args:
        table: the detections.
        truth: a CREMI file, or a table of synapses; None: nothing is judged.
        segmentation: neurons in which sites are looked up where the truth has none.

    Raises:
        InputError: a file is missing or damaged.
    """
    if truth is None:
        return None, []
    path = _neurons_of(truth) or segmentation
    if path is None:
        return None, [f"Nothing is judged: {truth} holds no neurons, and there is no segmentation instead."]
    neurons = stored_labels(path)
    info = neurons.info
    true, found = read_synapses(truth, info.grid.voxel_size_nm), of_table(table, info.grid.voxel_size_nm)
    sites = site_voxels(true.pairs, info.shape, info.grid, "unmatched")[1]
    inside = sites[:, 0] & sites[:, 1]
    remarks = []
    if not inside.all():
        away = f"{np.count_nonzero(~inside)} of {len(inside)} true contacts"
        remarks.append(f"{away} have a site outside of {path} and are left out.")
    true = Synapses(true.pairs.rows(inside), true.sites[inside], true.polyads[inside])
    a, b = segments_under(true.pairs, neurons), segments_under(found.pairs, neurons, "unmatched")
    options = PartnerOptions(outside="unmatched")
    scores = match_pairs(true.pairs, found.pairs, a.segments, b.segments, inside=b.inside, options=options)
    right = np.zeros(len(table), bool)
    right[scores.matches[:, 1]] = True
    sweep = None
    if np.unique(table.scores).size > 1:
        pairs = FoundPairs(found.pairs, b.segments, table.scores, b.inside)
        sweep = partner_sweep(true.pairs, a.segments, pairs, options)
    missed = _as_table(true, a.segments, scores.missed, info.grid.voxel_size_nm)
    return Judged(scores, right, missed, len(true.pairs), sweep), remarks


def _neurons_of(truth: str) -> str | None:
    """Return the path of the neuron ids of a CREMI file, None where it has none."""
    if not is_file_of_hdf5(truth):
        return None
    try:
        return volume_in(truth, NEURON_IDS, "segmentation")
    except InputError:
        return None


def _as_table(
    true: Synapses, segments: NDArray[np.uint64], rows: NDArray[np.int64], size_nm: Vec3
) -> SynapseTable:
    """Return true contacts as a table, with sites in the voxels that contain them."""
    half = np.array(size_nm) / 2
    chosen = true.pairs.rows(rows)
    n = len(rows)
    return SynapseTable(
        rows.astype(np.uint64) + np.uint64(1),
        rows.astype(np.uint64) + np.uint64(1),
        chosen.pre_nm + half,
        chosen.post_nm + half,
        segments[rows, 0],
        segments[rows, 1],
        np.zeros(n, np.int64),
        np.ones(n, np.float32),
        true.pairs.source,
    )
