"""From clefts to synapses: which of the segments beside a cleft are its pre and its post side.

For every segment s within reach of a cleft: n_s voxels, pre and post evidence e_s and f_s (sums, or means). ::

    dilate_nearest   the two segments of largest n, the largest first; orientation unknown
    max              the pair s != t with the largest e_s + f_t; both above 0
    threshold        s with the largest e_s, and every other t whose mean f is at least a threshold: a polyad

Ties go to the segment that comes first in raster order there, never to an id.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from emloom.geometry import Vec
from emloom.ops.cellparts import Columns
from emloom.ops.runs import I64
from emloom.tasks.synapsedecoders import CleftsDecoder
from emloom.tasks.synapsepairs import F64, Contacts, Notes, scores_of, voxels_at


def cleft_contacts(
    votes: Columns, components: Columns, decoder: CleftsDecoder, shape: Vec, notes: Notes
) -> Contacts:
    """Return the contacts at clefts; see the module.

    Args:
        votes: of clefts and what lies within reach of them, by component and first voxel.
        components: all clefts.
        decoder: how they are assigned.
        shape: of the volume.
        notes: counts clefts that come to nothing.
    """
    notes["cleft components"] += len(components["n"])
    good = (votes["segment"] != 0) & (votes["n"] >= decoder.min_overlap_vox)
    votes = {name: column[good] for name, column in votes.items()}
    starts = np.searchsorted(votes["component"], np.arange(len(components["n"]) + 1))
    evidence = _evidence(votes, decoder)
    pairs, polyads = [], []
    for cleft, (a, b) in enumerate(pairwise(starts.tolist())):
        if b - a < 2:
            notes["clefts with fewer than two segments"] += 1
            continue
        found = _partners(evidence[a:b], votes["n"][a:b], decoder)
        notes["clefts without evidence for two sides"] += not found
        pairs += [(a + i, a + j) for i, j in found]
        polyads += [cleft] * len(found)
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    of = np.array(polyads, np.int64)
    masked = (votes["usable"][rows] == 0).any(axis=1)
    notes["sites in the mask"] += int(masked.sum())
    rows, of = rows[~masked], of[~masked]
    pre, post = rows[:, 0], rows[:, 1]
    return Contacts(
        of,
        voxels_at(votes["place"][pre], shape),
        voxels_at(votes["place"][post], shape),
        votes["segment"][pre],
        votes["segment"][post],
        components["n"][of],
        scores_of({name: column[of] for name, column in components.items()}, decoder.score),
        {"cleft": of},
    )


def _evidence(votes: Columns, decoder: CleftsDecoder) -> F64:
    """Return pre evidence, post evidence, and mean post evidence of every vote, float64 [V, 3]."""
    if decoder.assign == "dilate_nearest":
        return np.zeros((len(votes["n"]), 3))
    pre, post = votes["sum_0"].astype(np.float64), votes["sum_1"].astype(np.float64)
    mean = post / votes["n"]
    if decoder.measure == "mean":
        pre, post = pre / votes["n"], mean
    return np.stack([pre, post, mean], axis=1)


def _partners(evidence: F64, n: I64, decoder: CleftsDecoder) -> list[tuple[int, int]]:
    """Return pairs (pre, post) of the segments of one cleft."""
    if decoder.assign == "dilate_nearest":
        first, second = np.argsort(-n, kind="stable")[:2]
        return [(int(first), int(second))]
    pre, post, mean = evidence.T
    if decoder.assign == "threshold":
        source = int(np.argmax(pre))
        if pre[source] <= 0:
            return []
        level = 255 * decoder.post_threshold
        return [(source, int(t)) for t in np.flatnonzero(mean >= level) if t != source]
    both = np.where((pre[:, None] > 0) & (post[None, :] > 0), pre[:, None] + post[None, :], -1.0)
    np.fill_diagonal(both, -1.0)
    best = int(np.argmax(both))
    return [divmod(best, len(n))] if both.flat[best] >= 0 else []
