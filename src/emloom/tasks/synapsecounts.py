"""What synapses' scores stand on: how many of what were counted, and what is remarkable about them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from emloom.metrics.cleftobjects import ObjectScores
from emloom.metrics.clefts import CleftScores
from emloom.metrics.connections import ConnectionScores
from emloom.metrics.partners import PartnerScores
from emloom.metrics.polyads import PolyadScores
from emloom.metrics.synapsebook import SynapseMetric


def counts_of(scores: Mapping[str, Any]) -> dict[str, int]:
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
    if isinstance(polyads := scores.get("polyads"), PolyadScores):
        counts |= {"n_polyads_truth": polyads.tp + polyads.fn, "n_polyads_found": polyads.tp + polyads.fp}
        counts |= {"n_partners_truth": polyads.true_partners, "n_partners_found": polyads.found_partners}
    if isinstance(objects := scores.get("cleft_objects"), ObjectScores):
        counts |= {"n_clefts_truth": objects.tp + objects.fn, "n_clefts_found": objects.tp + objects.fp}
        counts |= {"n_clefts_doubtful": objects.doubtful}
    return counts


def remarks_on(
    metrics: list[SynapseMetric], row: Mapping[str, Any], scores: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return why values of a metric are NaN, and what else deserves a look, by name of the metric."""
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
