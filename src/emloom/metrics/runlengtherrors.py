"""Where a segmentation errs along skeletons: every skeleton, every segment that merges, and the place of a merge.

The definitions are those of `emloom.metrics.runlength`; these are the rows behind its scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons, grouped_fsum
from emloom.metrics.contingency import Contingency
from emloom.metrics.runlength import (
    EDGE_CLASSES,
    MERGED,
    Judged,
    RunLengthRule,
    RunLengthScores,
    Sampling,
    per_node,
)


@dataclass(frozen=True)
class SkeletonScore:
    """What became of one skeleton.

    Attributes:
        skeleton: its id.
        name: its name, may be empty.
        path_nm: its length.
        run_nm: sum_s l_ks^2 / L_k, its own expected run length; NaN without path.
        lost_nm: what it costs the ERL, (L_k^2 - sum_s l_ks^2) / sum L; over all skeletons these sum to
            ERL of the truth - ERL.
        edges: its links per class.
        edges_nm: their length per class.
        n_segments: segments under its nodes.
        n_merging: how many of them merge.
    """

    skeleton: int
    name: str
    path_nm: float
    run_nm: float
    lost_nm: float
    edges: tuple[int, int, int, int]
    edges_nm: tuple[float, float, float, float]
    n_segments: int
    n_merging: int


@dataclass(frozen=True)
class MergingSegment:
    """One segment that merges.

    Attributes:
        segment: its id.
        skeletons: ids of the skeletons it touches, those with most nodes first.
        nodes: nodes of each of them in it.
        no_merge_voxels: its voxels in the no-merge region.
        zeroed_nm: path that does not count because of it; two segments may zero the same skeleton.
    """

    segment: int
    skeletons: tuple[int, ...]
    nodes: tuple[int, ...]
    no_merge_voxels: int
    zeroed_nm: float


@dataclass(frozen=True, eq=False)
class RunLengths:
    """Scores, and the errors behind them.

    Attributes:
        scores: the scores.
        skeletons: one row per skeleton, in the order of `Skeletons.ids`.
        merges: the merging segments, the one that zeroes most path first.
        edge_classes: uint8 [M], class of each row of `Skeletons.links`, an index of `EDGE_CLASSES`.
    """

    scores: RunLengthScores
    skeletons: tuple[SkeletonScore, ...]
    merges: tuple[MergingSegment, ...]
    edge_classes: NDArray[np.uint8] = field(repr=False)

    @classmethod
    def of(cls, judged: Judged) -> RunLengths:
        """Return the scores and errors of one judged segmentation."""
        return cls(judged.scores(), _skeleton_scores(judged), _merging_segments(judged), judged.classes)

    def worst_skeletons(self, k: int = 10) -> list[SkeletonScore]:
        """Return the skeletons that cost the ERL most, worst first, equals by id; none without loss."""
        lossy = [row for row in self.skeletons if row.lost_nm > 0]
        return sorted(lossy, key=lambda row: (-row.lost_nm, row.skeleton))[:k]

    def worst_merges(self, k: int = 10) -> list[MergingSegment]:
        """Return the merging segments that zero most path, worst first."""
        return list(self.merges[:k])


def run_lengths(
    skeletons: Skeletons,
    segments: ArrayLike,
    rule: RunLengthRule | None = None,
    *,
    no_merge: Contingency | None = None,
) -> RunLengths:
    """Score a segmentation by skeletons, and say where it errs.

    Args:
        skeletons: the truth.
        segments: unsigned ids [N], the segment under each node; 0 is background.
        rule: what counts as a merge; None takes the defaults.
        no_merge: voxels of segments in the region they must not enter (other tissue, a lumen): a contingency
            table of that region's mask and the segments, whatever its truth ids.

    Raises:
        InputError: there is not one segment per node, or an id is negative or no whole number.
    """
    state = Sampling(skeletons, segments)
    return RunLengths.of(Judged(state, state.fragments, rule or RunLengthRule(), no_merge))


def merge_place(skeletons: Skeletons, segments: ArrayLike, segment: int) -> tuple[int, int] | None:
    """Return where a segment probably merges: the nearest two of its nodes that belong to different skeletons.

    One is a node of the skeleton with most nodes in the segment (equals: the first in `ids`).

    Returns:
        two rows of nodes, or None where the segment holds nodes of one skeleton only.

    Raises:
        InputError: there is not one segment per node.
    """
    rows = np.flatnonzero(per_node(skeletons, segments) == np.uint64(segment))
    whose = skeletons.skeletons[rows]
    if len(np.unique(whose)) < 2:
        return None
    largest = whose == np.bincount(whose).argmax()
    distance, nearest = cKDTree(skeletons.positions_nm[rows[largest]]).query(
        skeletons.positions_nm[rows[~largest]]
    )
    at = int(np.argmin(distance))
    return int(rows[largest][nearest[at]]), int(rows[~largest][at])


def split_place(skeletons: Skeletons, segments: ArrayLike, skeleton: int) -> tuple[int, int] | None:
    """Return where it would help a skeleton most to be joined: the ends of one link.

    Of links between two segments it is the one whose shorter side, the path of the skeleton within that segment,
    is longest; where there is none, a link that leads into background, from the longest path. Equals: the first.

    Returns:
        two rows of nodes, or None where no link leaves its segment.

    Raises:
        InputError: there is not one segment per node, or no such skeleton.
    """
    ids = per_node(skeletons, segments)
    row = np.flatnonzero(skeletons.ids == np.uint64(skeleton))
    if not len(row):
        raise InputError(f"{skeletons.source} has no skeleton {skeleton}: give one of its {len(skeletons.ids)}")
    links = np.flatnonzero(skeletons.link_skeletons == row[0])
    ends, nm = ids[skeletons.links[links]], skeletons.link_lengths_nm[links]
    leaves = (ends[:, 0] != ends[:, 1]) & (ends != 0).any(axis=1)
    if not leaves.any():
        return None
    names, number = np.unique(ends, return_inverse=True)
    number = number.reshape(ends.shape)
    inside = (ends[:, 0] == ends[:, 1]) & (ends[:, 0] != 0)
    path = grouped_fsum(number[inside, 0], nm[inside], len(names))
    short, long = np.sort(path[number], axis=1).T
    # Last key first: links between segments, then the shorter side, then the longer one.
    at = np.lexsort((np.arange(len(links)), -long, -short, (ends == 0).any(axis=1), ~leaves))[0]
    a, b = skeletons.links[links[at]].tolist()
    return a, b


def _skeleton_scores(judged: Judged) -> tuple[SkeletonScore, ...]:
    state, skeletons = judged.state, judged.state.skeletons
    k, c = len(skeletons.ids), len(EDGE_CLASSES)
    key = skeletons.link_skeletons * c + judged.classes
    counts = np.bincount(key, minlength=k * c).reshape(k, c).tolist()
    lengths = grouped_fsum(key, skeletons.link_lengths_nm, k * c).reshape(k, c).tolist()
    squares = grouped_fsum(judged.pair_skeleton, judged.run_squares(), k).tolist()
    pieces = judged.pieces().tolist()
    merging = np.bincount(judged.pair_skeleton[judged.merged], minlength=k).tolist()
    rows = []
    for row, path in enumerate(skeletons.lengths_nm.tolist()):
        n, nm = counts[row], lengths[row]
        rows.append(
            SkeletonScore(
                skeleton=int(skeletons.ids[row]),
                name=skeletons.names[row],
                path_nm=path,
                run_nm=squares[row] / path if path else nan,
                lost_nm=max(0.0, path**2 - squares[row]) / state.path_nm if path else 0.0,
                edges=(n[0], n[1], n[2], n[3]),
                edges_nm=(nm[0], nm[1], nm[2], nm[3]),
                n_segments=pieces[row],
                n_merging=merging[row],
            )
        )
    return tuple(rows)


def _merging_segments(judged: Judged) -> tuple[MergingSegment, ...]:
    wanted = (judged.merging | judged.forbidden) & (judged.touched > 0)
    pairs = np.flatnonzero(wanted[judged.pair_segment] & judged.touches)
    ids = judged.state.skeletons.ids[judged.pair_skeleton[pairs]]
    order = np.lexsort((ids, -judged.pair_nodes[pairs], judged.pair_segment[pairs]))
    pairs, ids = pairs[order], ids[order]
    rows, first = np.unique(judged.pair_segment[pairs], return_index=True)
    zeroed = _zeroed_nm(judged)
    found = [
        MergingSegment(
            segment=int(judged.segments[row]),
            skeletons=tuple(some_ids.tolist()),
            nodes=tuple(judged.pair_nodes[some].tolist()),
            no_merge_voxels=int(judged.entered[row]) if judged.forbidden[row] else 0,
            zeroed_nm=float(zeroed[row]),
        )
        for row, some, some_ids in zip(rows, np.split(pairs, first[1:]), np.split(ids, first[1:]), strict=False)
    ]
    return tuple(sorted(found, key=lambda merge: (-merge.zeroed_nm, merge.segment)))


def _zeroed_nm(judged: Judged) -> NDArray[np.float64]:
    """Return float64 [S], the path that does not count because of each segment."""
    if judged.rule.zeroed == "skeleton":
        lengths = judged.state.skeletons.lengths_nm[judged.pair_skeleton[judged.merged]]
        return grouped_fsum(judged.pair_segment[judged.merged], lengths, judged.n)
    return judged.state.lengths.of(judged.link_segment, judged.n, judged.classes == MERGED)
