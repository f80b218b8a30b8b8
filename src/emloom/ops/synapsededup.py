"""What does not belong into a table of synapses: contacts of a segment with itself, and the same contact twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.synapses import SynapseTable
from emloom.ops.partnering import near_pairs

Mask = NDArray[np.bool_]


def autapses(table: SynapseTable) -> Mask:
    """Return which synapses join a segment with itself, bool [n]; two sites in segment 0 are none."""
    found: Mask = (table.pre_segments == table.post_segments) & (table.pre_segments != 0)
    return found


def duplicates(table: SynapseTable, within_nm: float) -> Mask:
    """Return which synapses are said again by a better one, bool [n].

    From the best score down (the smaller id where scores tie), a synapse is a duplicate if one that is kept joins
    the same two segments, and both its sites are as near as `within_nm` to those of the other.

    Args:
        table: synapses.
        within_nm: distance of pre sites, and of post sites.
    """
    n = len(table)
    pairs, _ = near_pairs(table.post_nm, table.post_nm, within_nm)
    a, b = pairs[:, 0], pairs[:, 1]
    same = (table.pre_segments[a] == table.pre_segments[b]) & (table.post_segments[a] == table.post_segments[b])
    apart = table.pre_nm[a] - table.pre_nm[b]
    same &= (apart**2).sum(axis=1) <= within_nm**2
    same &= a != b
    a, b = a[same], b[same]
    starts = np.searchsorted(a, np.arange(n + 1))
    gone = np.zeros(n, np.bool_)
    for i in np.lexsort((table.ids, -table.scores)):
        if not gone[i]:
            others = b[starts[i] : starts[i + 1]]
            # Those of a better score were looked at before: they are kept only if they are not near this one.
            gone[others] = True
    return gone
