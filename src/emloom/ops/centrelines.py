"""The centre line of a whole neuron as a tracing: nodes with radii, synapses at the nodes nearest to them.

TEASAR (`emloom.ops.bioimage`) walks from voxel to voxel, in a zigzag that is up to a tenth longer than the neurite
and has a node for every voxel; nodes that a straight line does as well are then left out. ::

    type of a node    5 fork, 6 end, 0 otherwise; 7 it has a pre site, 8 a post site (as navis and CATMAID do)
    comment           ids of the synapses whose sites are nearest to the node: ``pre 17; post 4 23``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from emloom.geometry import Grid
from emloom.geometry.columns import Columns
from emloom.geometry.elements import Element
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.synapses import SynapseTable
from emloom.geometry.tracings import Marks, Others, Tracing
from emloom.ops.bioimage import centre_lines
from emloom.ops.tracingredraw import simplified_tracing

Bits = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
PRE, POST = 7, 8
_FORK, _END = 5, 6
# Of an SWC file, whose format says neither.
_HEAD = (
    " unit: nm; id type x y z radius parent",
    " types: 5 fork, 6 end, 7 pre site, 8 post site; ids of synapses behind their nodes",
)


@dataclass(frozen=True, eq=False)
class Sites:
    """Sites of synapses in one neuron.

    Attributes:
        synapses: uint64 [n], ids of the contacts.
        sides: int64 [n], `PRE` or `POST`.
        positions_nm: float64 [n, 3], z, y, x.
    """

    synapses: NDArray[np.uint64]
    sides: Rows
    positions_nm: Floats


NO_SITES = Sites(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros((0, 3)))


def centre_line(
    mask_ZYX: Bits,
    grid: Grid,
    segment: int,
    reach: tuple[float, float],
    tolerance_nm: float,
    sites: Sites = NO_SITES,
) -> Tracing:
    """Return the centre line of an object; a tree for each of its pieces, all under one id.

    Args:
        mask_ZYX: bool [Z, Y, X], the whole object.
        grid: of the mask.
        segment: id of the tracing's one skeleton.
        reach: (scale, constant in nm) of TEASAR: how much around a path needs no other.
        tolerance_nm: how far the line may lie from the voxels that TEASAR walked through.
        sites: that are attached to the nearest nodes.

    Raises:
        InputError: as `bioimage.centre_lines`.
    """
    # With nothing around it, an object that fills its box still has a distance to the outside.
    nodes, edges, radii = centre_lines(np.pad(mask_ZYX, 1), grid.voxel_size_nm, *reach)
    size, offset = np.array(grid.voxel_size_nm), np.array(grid.offset_nm)
    skeletons = Skeletons.from_trees([(segment, nodes - size / 2 + offset, edges)], names=(str(segment),))
    n = len(nodes)
    tracing = Tracing(
        skeletons,
        grid.voxel_size_nm,
        Columns(n).replaced("radius", radii.round(3)),
        Columns(1),
        Columns(len(edges)),
        others=Others(document=tuple(Element.of("meta", {"name": "swc", "content": text}) for text in _HEAD)),
    )
    if n == 0:
        return tracing
    tracing = _with_sites(tracing, sites)
    return _typed(simplified_tracing(tracing, tolerance_nm))


def _with_sites(tracing: Tracing, sites: Sites) -> Tracing:
    if not len(sites.synapses):
        return tracing
    nearest = KDTree(tracing.skeletons.positions_nm).query(sites.positions_nm)[1]
    texts: dict[int, list[str]] = {}
    for row in np.unique(nearest).tolist():
        for word, side in (("pre", PRE), ("post", POST)):
            chosen = np.sort(sites.synapses[(nearest == row) & (sites.sides == side)])
            if len(chosen):
                texts.setdefault(row, []).append(f"{word} {' '.join(map(str, chosen.tolist()))}")
    return replace(tracing, comments=Marks.of(list(texts), content=["; ".join(t) for t in texts.values()]))


def _typed(tracing: Tracing) -> Tracing:
    links, n = tracing.skeletons.links, len(tracing.skeletons.node_ids)
    degree = np.bincount(links.ravel(), minlength=n)
    types = np.where(degree > 2, _FORK, np.where(degree < 2, _END, 0))
    for row, text in zip(tracing.comments.rows.tolist(), tracing.comment_texts(), strict=True):
        types[row] = PRE if text.startswith("pre") else POST
    return replace(tracing, nodes=tracing.nodes.replaced("type", [str(t) for t in types.tolist()]))


def sites_of(table: SynapseTable, segment: int) -> Sites:
    """Return the sites of contacts that lie in a segment."""
    parts: Sequence[tuple[int, Any, Any]] = (
        (PRE, table.pre_segments, table.pre_nm),
        (POST, table.post_segments, table.post_nm),
    )
    chosen = [(side, segments == segment, places) for side, segments, places in parts]
    return Sites(
        np.concatenate([table.ids[rows] for _, rows, _ in chosen]),
        np.concatenate([np.full(int(rows.sum()), side, np.int64) for side, rows, _ in chosen]),
        np.concatenate([places[rows] for _, rows, places in chosen]),
    )
