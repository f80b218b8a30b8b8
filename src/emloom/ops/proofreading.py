"""Decisions of a proofreader on a segmentation, as algebra on fragments: no voxel is touched.

A segmentation is held together by two things: *pieces*, sets of fragments that agglomeration merged, and *links*,
pairs of fragments that a person merged::

    piece   a-b-c      d-e            link c~d: one segment a b c d e
             \\_________/

A table of decisions is applied as a whole, so the order of its rows does not matter:

1. every `merge` becomes a link;
2. every `split` of a and b, in the order of their ids, cuts what holds a and b together where it is weakest: a
   minimum cut of the graph whose nodes are the fragments of the segment, and whose edges are contacts inside a
   piece, weighted by area and affinity (`strengths`), and links. A link of an earlier table weighs less than any
   contact; one of this table cannot be cut.

So a split undoes an earlier merge of the same pair, and nothing else; a merge of the two parts of a split gives
back the whole. A segment's id is the smallest id of its fragments, as in `ops.agglomerate`: segments that no
decision touches keep theirs.

Minimum cut by maximum flow: Dinic 1970, of `scipy.sparse.csgraph`; the cut nearest to the smaller id, which does
not depend on the flow that was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emloom.ops.regions import RegionGraph

Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pair = tuple[int, int]

_HARD = 2**30
_SOFT_MOST = 2**29  # all that may be cut, together


class HeldTogetherError(ValueError):
    """Two fragments shall be split that merges of the same table hold together.

    Attributes:
        pair: the two fragments.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__(f"fragments {pair[0]} and {pair[1]} are held together")
        self.pair = pair


@dataclass(frozen=True, eq=False)
class Held:
    """What holds fragments together.

    Attributes:
        ids: uint64 [N], every fragment, sorted.
        piece: int64 [N], number of the piece of each.
        links: int64 [L, 2], rows of fragments that were merged by hand; sorted, each once.
    """

    ids: Ids
    piece: Rows
    links: Rows

    @classmethod
    def of(cls, ids: Ids, segments: Ids) -> Held:
        """Return what agglomeration made: a piece for every segment."""
        _, piece = np.unique(segments, return_inverse=True)
        return cls(ids, piece.reshape(-1).astype(np.int64), np.zeros((0, 2), np.int64))

    def groups(self) -> Rows:
        """Return the number of the segment of each fragment, int64 [N]."""
        return _joined(self.piece, self.links)

    def segments(self) -> Ids:
        """Return the segment of each fragment, uint64 [N]: the smallest id in it."""
        groups = self.groups()
        least = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(least, groups, self.ids)
        return least[groups]


def apply_decisions(held: Held, graph: RegionGraph, merges: Sequence[Pair], splits: Sequence[Pair]) -> Held:
    """Return what holds fragments together after a table of decisions.

    Args:
        held: before.
        graph: contacts of the fragments, with their sums of affinities.
        merges: pairs of fragment ids; those of one segment hold it together there.
        splits: pairs of fragment ids.

    Raises:
        HeldTogetherError: the merges alone hold the two sides of a split together.
        KeyError: an id is none of the fragments.
    """
    hard = _links(held.ids, merges)
    now = replace(held, links=np.unique(np.concatenate([held.links, hard]), axis=0))
    u, v = (np.searchsorted(held.ids, end) for end in (graph.u, graph.v))
    touching = graph.contacts > 0
    edges = np.stack([u[touching], v[touching], strengths(graph)[touching]], axis=1)
    for pair in sorted({(min(p), max(p)) for p in splits}):
        now = _cut(now, edges, hard, pair)
    return now


def strengths(graph: RegionGraph) -> Rows:
    """Return how much each contact holds, int64 [E]: its area times the odds of its mean affinity, to the fourth.

    So steep, because a cut shall go along a large weak contact, and not around one small fragment: where the mean
    is 0.5 a contact counts 1 for each voxel pair, at 0.6 it counts 5, from 0.9 on it counts 6561.
    """
    mean = np.clip(graph.total / (255 * np.maximum(graph.n, 1)), 0.1, 0.9)
    held: Rows = np.rint(2**16 * graph.contacts * (mean / (1 - mean)) ** 4).astype(np.int64)
    return held


def _links(ids: Ids, pairs: Sequence[Pair]) -> Rows:
    rows = [tuple(sorted((_row(ids, a), _row(ids, b)))) for a, b in pairs if a != b]
    return np.unique(np.array(rows, np.int64).reshape(-1, 2), axis=0)


def _row(ids: Ids, fragment: int) -> int:
    row = int(np.searchsorted(ids, np.uint64(fragment)))
    if row == len(ids) or int(ids[row]) != fragment:
        raise KeyError(fragment)
    return row


def _joined(piece: Rows, links: Rows) -> Rows:
    """Return the connected component of every fragment."""
    from scipy.sparse import coo_array  # not at import: scipy takes its time
    from scipy.sparse.csgraph import connected_components

    n = int(piece.max(initial=-1)) + 1
    ends = piece[links]
    matrix = coo_array((np.ones(len(links), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, component = connected_components(matrix, directed=False)
    out: Rows = component.astype(np.int64)[piece]
    return out


def _cut(held: Held, edges: Rows, hard: Rows, pair: Pair) -> Held:
    """Return what is left after one split."""
    a, b = (_row(held.ids, fragment) for fragment in pair)
    groups = held.groups()
    if groups[a] != groups[b]:
        return held
    members = np.flatnonzero(groups == groups[a])
    near = _source_side(
        _network(held, edges, hard, members), int(np.searchsorted(members, a)), int(np.searchsorted(members, b))
    )
    if near is None:
        raise HeldTogetherError(pair)
    mine = np.zeros(len(held.ids), bool)
    mine[members[near]] = True
    piece = held.piece.copy()
    _, new = np.unique(piece[mine], return_inverse=True)
    piece[mine] = int(piece.max()) + 1 + new.reshape(-1)
    _, dense = np.unique(piece, return_inverse=True)
    kept = mine[held.links[:, 0]] == mine[held.links[:, 1]]
    return Held(held.ids, dense.reshape(-1).astype(np.int64), held.links[kept])


def _network(held: Held, edges: Rows, hard: Rows, members: Rows) -> tuple[int, Rows, Rows]:
    """Return nodes, edges (int64 [E, 2]) and capacities of what holds a segment together."""
    local = np.full(len(held.ids), -1)
    local[members] = np.arange(len(members))
    inside = edges[(local[edges[:, 0]] >= 0) & (held.piece[edges[:, 0]] == held.piece[edges[:, 1]])]
    links = held.links[local[held.links[:, 0]] >= 0]
    of_table = (links[:, None] == hard[None]).all(axis=2).any(axis=1) if len(hard) else np.zeros(len(links), bool)
    shift, weights = 0, inside[:, 2]
    while int((weights >> shift).sum()) + (len(weights) + 1) * (len(links) + 1) > _SOFT_MOST:
        shift += 1
    capacity = np.concatenate([(weights >> shift) + len(links) + 1, np.where(of_table, _HARD, 1)])
    ends = np.concatenate([inside[:, :2], links])
    return len(members), local[ends], capacity


def _source_side(network: tuple[int, Rows, Rows], source: int, sink: int) -> Rows | None:
    """Return the nodes on the side of the source of the cut nearest to it; None where that cuts hard links."""
    from scipy.sparse import coo_array, csr_array  # not at import: scipy takes its time
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    n, ends, capacity = network
    if source == sink:
        return None
    rows, columns = np.concatenate([ends, ends[:, ::-1]]).T
    both = csr_array(coo_array((np.tile(capacity, 2), (rows, columns)), shape=(n, n)))
    both.data = np.minimum(both.data, _HARD)  # parallel edges added up
    both = csr_array(
        (both.data.astype(np.int32), both.indices.astype(np.int32), both.indptr.astype(np.int32)), shape=(n, n)
    )
    found = maximum_flow(both, source, sink)
    if found.flow_value >= _HARD:
        return None
    left = csr_array(both.astype(np.int64) - found.flow.astype(np.int64))
    left.eliminate_zeros()
    reached: Rows = breadth_first_order(left, source, return_predecessors=False).astype(np.int64)
    return reached
