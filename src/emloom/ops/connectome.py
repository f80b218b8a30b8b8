"""The connectome: edges between neurons, and what each neuron sends and receives, from a table of synapses.

A *contact* is a row of the table. It makes an edge where nothing leaves it out; each contact that does not has one
reason, the first that holds::

    outside      a site lies outside the segmentation
    background   a site lies in segment 0: in no neuron
    autapse      both sites lie in one neuron, and such contacts are not wanted
    score        its score is below the minimum
    weight       the contacts between its two neurons are fewer than the minimum

Everything is counted in integers (scores in units of 2^-32, exact for every float32 of 2^-9 and more), so no order
of rows changes a bit, and merging neurons commutes with counting::

    edges_of(table of merged segments) == edges_of(table).merged(keys, neurons)

and renaming neurons renames the graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.ops.labels import apply_lut

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Words = NDArray[np.object_]

OUTSIDE, BACKGROUND, AUTAPSE, SCORE, WEIGHT = "outside", "background", "autapse", "score", "weight"
REASONS = (OUTSIDE, BACKGROUND, AUTAPSE, SCORE, WEIGHT)
"""Why a contact makes no edge, first things first; the empty word where it makes one."""

_UNIT = 2.0**32


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges between neurons, each once, sorted by (pre, post).

    Attributes:
        pre: uint64 [m], pre neurons.
        post: uint64 [m], post neurons.
        counts: int64 [m], contacts.
        sizes_vox: int64 [m], sum of the sizes of the contacts.
        score_sums: int64 [m], sum of their scores, in units of 2^-32.
        max_scores: float32 [m], the best of them.
    """

    pre: Ids
    post: Ids
    counts: Counts
    sizes_vox: Counts
    score_sums: Counts
    max_scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def mean_scores(self) -> NDArray[np.float64]:
        """float64 [m], mean score of the contacts of each edge."""
        mean: NDArray[np.float64] = self.score_sums / (self.counts * _UNIT)
        return mean

    def rows(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Edges:
        """Return some edges, by a mask or by numbers."""
        return Edges(
            self.pre[keep], self.post[keep], self.counts[keep],
            self.sizes_vox[keep], self.score_sums[keep], self.max_scores[keep],
        )  # fmt: skip

    def merged(self, keys_sorted: Ids, neurons: Ids) -> Edges:
        """Return the edges after every neuron that stands in `keys_sorted` became the neuron beside it.

        What becomes 0 is in no neuron, and its edges are gone.

        Raises:
            InputError: as `ops.labels.apply_lut`.
        """
        pre, post = (apply_lut(ids, keys_sorted, neurons) for ids in (self.pre, self.post))
        keep = (pre != 0) & (post != 0)
        moved = Edges(pre, post, self.counts, self.sizes_vox, self.score_sums, self.max_scores)
        return _pooled(moved.rows(keep))


@dataclass(frozen=True, eq=False)
class Neurons:
    """What each neuron sends and receives, sorted by id.

    Attributes:
        ids: uint64 [k].
        voxels: int64 [k], of the segmentation; 0 where they were not counted.
        pre_sites: int64 [k], polyads: pre sites of its own, each once however many partners it has.
        outputs: int64 [k], contacts in which it is the pre neuron.
        inputs: int64 [k], contacts in which it is the post neuron.
        partners_out: int64 [k], neurons it talks to, itself included where it has autapses.
        partners_in: int64 [k], neurons that talk to it.
    """

    ids: Ids
    voxels: Counts
    pre_sites: Counts
    outputs: Counts
    inputs: Counts
    partners_out: Counts
    partners_in: Counts

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Rules:
    """Which contacts make edges.

    Attributes:
        autapses: whether contacts of a neuron with itself do.
        minimum_score: least score of a contact.
        minimum_weight: least number of contacts of an edge.

    Raises:
        InputError: a minimum is out of range.
    """

    autapses: bool = True
    minimum_score: float = 0.0
    minimum_weight: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_score <= 1:
            raise InputError(f"minimum score {self.minimum_score} is not within 0 and 1, as scores are")
        if self.minimum_weight < 1:
            raise InputError(f"minimum weight {self.minimum_weight} is below 1: an edge has at least one contact")


def left_out(table: SynapseTable, outside: Mask, rules: Rules) -> Words:
    """Return why each contact makes no edge, one of `REASONS`, or the empty word where it makes one.

    Args:
        table: contacts, by the segments of the final neurons.
        outside: bool [n], contacts of which a site lies outside the segmentation.
        rules: which are wanted.

    Returns:
        n words.
    """
    pre, post = table.pre_segments, table.post_segments
    why: Words = np.full(len(table), "", object)
    # Backwards, so that the first reason is written last.
    # The minimum is compared as it is stored: 0.9 is no float32, and a score of 0.9 is not below it.
    why[table.scores < np.float32(rules.minimum_score)] = SCORE
    if not rules.autapses:
        why[pre == post] = AUTAPSE
    why[(pre == 0) | (post == 0)] = BACKGROUND
    why[outside] = OUTSIDE
    used = np.flatnonzero(why == "")
    if used.size and rules.minimum_weight > 1:
        _, which, counts = np.unique(_pairs(pre[used], post[used]), return_inverse=True, return_counts=True)
        why[used[counts[which] < rules.minimum_weight]] = WEIGHT
    return why


def edges_of(table: SynapseTable) -> Edges:
    """Return the edges that contacts make, every row counted whose two sites lie in neurons (not 0)."""
    used = table.rows((table.pre_segments != 0) & (table.post_segments != 0))
    scores = np.rint(used.scores.astype(np.float64) * _UNIT).astype(np.int64)
    ones = np.ones(len(used), np.int64)
    return _pooled(Edges(used.pre_segments, used.post_segments, ones, used.sizes_vox, scores, used.scores))


def neurons_of(table: SynapseTable, edges: Edges, ids: Ids, voxels: Counts) -> Neurons:
    """Return the neurons of a segmentation and of contacts.

    Args:
        table: the contacts that make edges.
        edges: those.
        ids: uint64 [j], segments of the segmentation, ascending, without 0.
        voxels: int64 [j].

    Returns:
        Every segment, and every neuron of a contact, though the segmentation has it not (`voxels` is then 0).
    """
    all_ids = np.unique(np.concatenate([ids, table.pre_segments, table.post_segments]))
    size = np.zeros(len(all_ids), np.int64)
    size[np.searchsorted(all_ids, ids)] = voxels

    def tally(of: Ids) -> Counts:
        return np.bincount(np.searchsorted(all_ids, of), minlength=len(all_ids)).astype(np.int64)

    _, first = np.unique(table.polyads, return_index=True)
    return Neurons(
        all_ids, size, tally(table.pre_segments[first]), tally(table.pre_segments), tally(table.post_segments),
        tally(edges.pre), tally(edges.post),
    )  # fmt: skip


def strongest(edges: Edges, count: int) -> Edges:
    """Return the edges with most contacts, most first; of equally strong ones that of the lower ids."""
    return edges.rows(np.lexsort((edges.post, edges.pre, -edges.counts))[:count])


def busiest(neurons: Neurons, count: int) -> NDArray[np.int64]:
    """Return the rows of the neurons with most contacts, sent and received, most first; ties by id."""
    total = neurons.outputs + neurons.inputs
    order = np.lexsort((neurons.ids, -total))[:count]
    return order[total[order] > 0]


def adjacency(edges: Edges, ids: Ids) -> Counts:
    """Return the matrix of contacts among some neurons, int64 [k, k]: from the row's to the column's neuron."""
    order = np.argsort(ids)
    matrix = np.zeros((len(ids), len(ids)), np.int64)
    keep = np.isin(edges.pre, ids) & np.isin(edges.post, ids)
    rows, columns = (order[np.searchsorted(ids, of[keep], sorter=order)] for of in (edges.pre, edges.post))
    matrix[rows, columns] = edges.counts[keep]
    return matrix


def clustered(matrix: Counts) -> NDArray[np.int64]:
    """Return an order of the neurons of a matrix in which those with like partners stand side by side.

    Average linkage (Sokal & Michener 1958) of the directions of their logarithmic rows and columns together; the
    matrix decides alone, and 0, 1 or 2 neurons keep their order.
    """
    k = len(matrix)
    if k < 3:
        return np.arange(k)
    profile = np.log1p(np.concatenate([matrix, matrix.T], axis=1).astype(np.float64))
    length = np.linalg.norm(profile, axis=1, keepdims=True)
    order: NDArray[np.int64] = leaves_list(linkage(profile / np.where(length > 0, length, 1), "average")).astype(
        np.int64
    )
    return order


def _pairs(pre: Ids, post: Ids) -> NDArray[np.void]:
    pairs = np.zeros(len(pre), np.dtype([("pre", np.uint64), ("post", np.uint64)]))
    pairs["pre"], pairs["post"] = pre, post
    return pairs


def _pooled(rows: Edges) -> Edges:
    """Return each pair of neurons once, with what its rows add up to."""
    if not len(rows):
        return rows
    order = np.lexsort((rows.post, rows.pre))
    pre, post = rows.pre[order], rows.post[order]
    starts = np.flatnonzero(np.concatenate([[True], (pre[1:] != pre[:-1]) | (post[1:] != post[:-1])]))

    def total(values: Counts) -> Counts:
        sums: Counts = np.add.reduceat(values[order], starts)
        return sums

    return Edges(
        pre[starts], post[starts], total(rows.counts), total(rows.sizes_vox), total(rows.score_sums),
        np.maximum.reduceat(rows.max_scores[order], starts),
    )  # fmt: skip
