"""What is odd about skeletons: cycles, pieces, repeated edges. Defined results, and said so.

Every measure has a defined result on such skeletons (`emloom.geometry.skeletons`): a cycle counts every edge once,
a skeleton in pieces is one skeleton, repeated edges count once, an edge from a node to itself does not count. They
are usually a mistake of the tracer all the same, so `findings` names each skeleton and what it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from emloom.geometry.skeletons import Skeletons

Oddity = Literal["pieces", "cycles", "repeated edges", "self loops", "no edge"]
_MEANING: dict[Oddity, str] = {
    "pieces": "falls into {n} pieces and counts as one skeleton; a lost edge, or a crop, may be the reason",
    "cycles": "has {n} independent cycles; every edge of them counts once",
    "repeated edges": "lists {n} edges again; each counts once",
    "self loops": "has {n} edges from a node to itself; they do not count",
    "no edge": "has {n} nodes and no edge: it adds no path length, but its nodes can tell a merge",
}


@dataclass(frozen=True)
class SkeletonFinding:
    """One odd thing about one skeleton.

    Attributes:
        kind: what it is.
        skeleton: id of the skeleton.
        count: how many pieces, cycles or edges; for "no edge", how many nodes.
    """

    kind: Oddity
    skeleton: int
    count: int

    def __str__(self) -> str:
        return f"skeleton {self.skeleton} {_MEANING[self.kind].format(n=self.count)}"


def components(skeletons: Skeletons) -> NDArray[np.int64]:
    """Return int64 [N], a number for each node: equal where a path joins two nodes."""
    n = len(skeletons.node_ids)
    a, b = skeletons.links.T
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers


def findings(skeletons: Skeletons) -> list[SkeletonFinding]:
    """Return everything odd, sorted by skeleton in the order of `ids`; empty for a forest of trees, one per id."""
    k = len(skeletons.ids)
    nodes = np.bincount(skeletons.skeletons, minlength=k)
    links = np.bincount(skeletons.link_skeletons, minlength=k)
    _, one_of_each = np.unique(components(skeletons), return_index=True)
    pieces = np.bincount(skeletons.skeletons[one_of_each], minlength=k)
    loop = skeletons.edges[:, 0] == skeletons.edges[:, 1]
    whose = skeletons.skeletons[skeletons.edges[:, 0]]
    loops = np.bincount(whose[loop], minlength=k)
    repeated = np.bincount(whose[~loop], minlength=k) - links
    without = np.where(links == 0, nodes, 0)
    columns: dict[Oddity, NDArray[np.int64]] = {
        "pieces": np.where((pieces > 1) & (links > 0), pieces, 0),
        "cycles": links - nodes + pieces,  # Euler: edges - nodes + pieces
        "repeated edges": repeated,
        "self loops": loops,
        "no edge": without,
    }
    return [
        SkeletonFinding(kind, int(skeletons.ids[row]), int(counts[row]))
        for row in range(k)
        for kind, counts in columns.items()
        if counts[row] > 0
    ]
