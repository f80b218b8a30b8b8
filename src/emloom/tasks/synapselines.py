"""The lines of a table of synapses in neuroglancer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from emloom.geometry.synapses import SynapseTable
from emloom.io.files import write_text_atomic
from emloom.io.synapsetable import read_synapse_table
from emloom.view.partnerlines import PartnerLines, state_of

LINES = 5000
"""Lines of a layer, at most: those of the highest scores. A browser keeps all of them in its address."""

STATE = "neuroglancer.json"
"""Name of the state in a folder of `emloom synapses`."""


def lines_of(table: SynapseTable, name: str = "synapses", most: int = LINES) -> PartnerLines:
    """Return a line from pre to post site for each contact, of the highest scores where there are too many."""
    keep = np.sort(by_score(table)[:most])
    chosen = table.rows(keep)
    rows = zip(
        *(c.tolist() for c in (chosen.pre_segments, chosen.post_segments, chosen.scores, chosen.sizes_vox)),
        strict=True,
    )
    words = [f"{pre} -> {post}, score {score:.3f}, {size} voxels" for pre, post, score, size in rows]
    ids = [str(i) for i in chosen.ids.tolist()]
    return PartnerLines(name, ids, chosen.pre_nm, chosen.post_nm, words)


def by_score(table: SynapseTable) -> np.ndarray:
    """Return the rows from the highest score to the lowest; of equal scores the lowest id first."""
    order: np.ndarray = np.lexsort((table.ids, -table.scores.astype(np.float64)))
    return order


def write_state(folder: Path, table: SynapseTable) -> Path:
    """Write the lines as a neuroglancer state beside the table, in one step; return its path."""
    path = folder / STATE
    write_text_atomic(path, json.dumps(state_of(lines_of(table)), indent=1) + "\n")
    return path


def read_lines(path: str) -> PartnerLines:
    """Return the lines of a table of synapses, or of a folder that holds one; raises as `read_synapse_table`."""
    return lines_of(read_synapse_table(path))
