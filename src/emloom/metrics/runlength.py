"""How far one can follow a neurite without meeting an error: expected run length and what lies behind it.

Truth is skeletons, the segmentation is the id of the segment under every node; 0 is background. Skeleton ``k`` has
the path length ``L_k``; every link (edge that counts) is of one class::

    omitted    one of its ends lies in background
    split      its ends lie in two segments
    merged     its ends lie in one segment, which merges
    correct    its ends lie in one segment, which does not

A segment *merges* where it touches two skeletons or more, or a region that it must not enter (`no_merge`). With
``l_ks`` the length of the correct links of skeleton ``k`` in segment ``s``,

    ERL  = sum_k (L_k / sum L) * sum_s (l_ks^2 / L_k) = sum_ks l_ks^2 / sum_k L_k        nm, more is better
    NERL = ERL / ERL of the truth, which is sum_k L_k^2 / sum_k L_k                      0 to 1

is the length of the error-free run around a random point of a random skeleton (Januszewski et al., Nature Methods
2018, doi:10.1038/s41592-018-0049-4). The defaults are those of today's funlib.evaluate; its first
versions and em_erl's let a merge zero the whole skeleton (`RunLengthRule.zeroed`).

Counts are integers and lengths are correctly rounded sums (`math.fsum`): renaming ids, or listing nodes and edges
in another order, changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum, nan
from typing import Annotated, Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.metrics.contingency import Contingency, as_ids
from emloom.metrics.exactsums import ExactSums
from emloom.spec import Spec

Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]
Lut = tuple[float, ArrayLike, ArrayLike]

EDGE_CLASSES = ("correct", "split", "merged", "omitted")
CORRECT, SPLIT, MERGED, OMITTED = range(4)


class RunLengthRule(Spec):
    """What counts as a merge, and what a merge costs."""

    zeroed: Literal["segment", "skeleton"] = "segment"
    """What a merge loses: the path in the merging segment, or every skeleton that the segment meets, whole."""
    merge_tolerance_nodes: Annotated[int, Field(ge=0)] = 0
    """A segment touches a skeleton when it holds more nodes of it than this (em_erl's merge_threshold minus 1)."""
    merge_tolerance_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """And when it holds more than this part of the skeleton's nodes."""
    no_merge_tolerance_vox: Annotated[int, Field(ge=0)] = 0
    """A segment enters the no-merge region when it has more voxels in it than this."""


@dataclass(frozen=True)
class RunLengthScores:
    """The scores of one segmentation; see the module for the formulae.

    Attributes:
        erl_nm: expected run length in nm; NaN where there is no path.
        erl_truth_nm: that of a perfect segmentation.
        nerl: erl_nm / erl_truth_nm, 0 to 1, more is better; NaN where there is no path.
        path_nm: length of all skeletons.
        edges: links per class, in the order of `EDGE_CLASSES`.
        edges_nm: their length per class.
        n_splits: pieces too many: the sum over skeletons of the segments under their nodes, less one.
        n_merges: skeletons too many: the sum over merging segments of the skeletons they touch, less one, and one
            more for entering the no-merge region.
        splits_per_mm: n_splits per mm of path, less is better; NaN where there is no path.
        merges_per_mm: n_merges per mm of path, less is better.
        n_skeletons: skeletons with at least one node.
        n_nodes: nodes.
        n_omitted_nodes: nodes in background.
        reason: why a score is NaN; empty where none is.
    """

    erl_nm: float
    erl_truth_nm: float
    nerl: float
    path_nm: float
    edges: tuple[int, int, int, int]
    edges_nm: tuple[float, float, float, float]
    n_splits: int
    n_merges: int
    splits_per_mm: float
    merges_per_mm: float
    n_skeletons: int
    n_nodes: int
    n_omitted_nodes: int
    reason: str = ""


@dataclass(frozen=True)
class RunLengthPoint:
    """The scores of one agglomeration threshold."""

    threshold: float
    scores: RunLengthScores


def run_length_scores(
    skeletons: Skeletons,
    segments: ArrayLike,
    rule: RunLengthRule | None = None,
    *,
    no_merge: Contingency | None = None,
) -> RunLengthScores:
    """Return the scores of a segmentation; `emloom.metrics.runlengtherrors.run_lengths` also says where it errs.

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
    return Judged(state, state.fragments, rule or RunLengthRule(), no_merge).scores()


def erl_sweep(
    skeletons: Skeletons,
    fragments: ArrayLike,
    luts: Iterable[Lut],
    rule: RunLengthRule | None = None,
    *,
    no_merge: Contingency | None = None,
) -> list[RunLengthPoint]:
    """Score many agglomerations of the same fragments without looking at a voxel again.

    Args:
        skeletons: the truth.
        fragments: unsigned ids [N], the fragment under each node; 0 is background.
        luts: per threshold (threshold, fragment ids, segment ids); fragments without an entry stay alone. Sorted
            fragment ids are faster.
        rule: what counts as a merge; None takes the defaults.
        no_merge: voxels of *fragments* in the region they must not enter.

    Raises:
        InputError: as `run_lengths`, or a LUT's columns differ in length, or it maps a fragment twice.
    """
    state = Sampling(skeletons, fragments)
    points = []
    for threshold, keys, values in luts:
        table = None if no_merge is None else no_merge.relabelled(keys, values)
        judged = Judged(state, state.relabelled(keys, values), rule or RunLengthRule(), table)
        points.append(RunLengthPoint(float(threshold), judged.scores()))
    return points


def skeleton_table(skeletons: Skeletons, segments: ArrayLike) -> Contingency:
    """Return nodes per (skeleton id, segment): skeleton VOI and Rand scores are the overlap scores of this table.

    Every node counts once, so dense tracings weigh more than sparse ones. Nodes in background count as segment 0;
    drop them with `Contingency.without(segments=[0])`.

    Raises:
        InputError: there is not one segment per node.
    """
    ids = per_node(skeletons, segments)
    return Contingency.from_rows(skeletons.ids[skeletons.skeletons], ids, np.ones(len(ids), np.int64))


def per_node(skeletons: Skeletons, segments: ArrayLike) -> Ids:
    """Return the segments as uint64 [N]; raises `InputError` unless there is one per node."""
    ids = as_ids(segments, "segments of nodes")
    if ids.shape != skeletons.node_ids.shape:
        raise InputError(
            f"{skeletons.source} has {len(skeletons.node_ids)} nodes, but there are segments of shape {ids.shape}"
            ": give one id per node, 0 where there is none"
        )
    return ids


class Sampling:
    """Fragments under nodes, with dense numbers: what all thresholds share."""

    def __init__(self, skeletons: Skeletons, fragments: ArrayLike) -> None:
        self.skeletons = skeletons
        self.fragments, of_node = np.unique(per_node(skeletons, fragments), return_inverse=True)
        self.of_node: Rows = of_node.astype(np.int64)
        self.link_fragments: tuple[Rows, Rows] = (
            self.of_node[skeletons.links[:, 0]],
            self.of_node[skeletons.links[:, 1]],
        )
        self.n = max(1, len(self.fragments))
        # Nodes per (skeleton, fragment): a LUT merges these rows, which are far fewer than the nodes.
        keys, self.pair_nodes = np.unique(skeletons.skeletons * self.n + self.of_node, return_counts=True)
        self.pair_skeleton, self.pair_fragment = keys // self.n, keys % self.n
        self.link_pair = np.searchsorted(keys, skeletons.link_skeletons * self.n + self.link_fragments[0])
        self.lengths = ExactSums(skeletons.link_lengths_nm)
        self.nodes_of_skeleton = np.bincount(skeletons.skeletons, minlength=len(skeletons.ids))
        self.path_nm = fsum(skeletons.link_lengths_nm.tolist())
        self.squares: float = fsum((skeletons.lengths_nm**2).tolist())

    def relabelled(self, keys: ArrayLike, values: ArrayLike) -> Ids:
        """Return the segment of each fragment."""
        k, v = as_ids(keys, "LUT keys").ravel(), as_ids(values, "LUT values").ravel()
        if k.shape != v.shape:
            raise InputError(f"the LUT has {k.size} keys but {v.size} values: give one value per key")
        if k.size == 0:
            return self.fragments
        if not np.all(k[1:] >= k[:-1]):
            order = np.argsort(k, kind="stable")
            k, v = k[order], v[order]
        twice = np.flatnonzero(k[1:] == k[:-1])
        if twice.size:
            raise InputError(f"fragment {k[twice[0]]} occurs twice in the LUT: map each fragment once")
        row = np.minimum(np.searchsorted(k, self.fragments), k.size - 1)
        return np.where(k[row] == self.fragments, v[row], self.fragments)


class Judged:
    """One agglomeration: which segments merge, and the class of every link.

    Attributes:
        segments: uint64 [S], sorted.
        pair_skeleton, pair_segment: int64 [P], rows of skeletons and segments that share nodes.
        pair_nodes: int64 [P], how many.
        touches: bool [P], whether that is more than the tolerance.
        entered: int64 [S], voxels in the no-merge region.
        merging: bool [S], whether it touches two skeletons or more.
        forbidden: bool [S], whether it enters the no-merge region.
        merged: bool [P], whether the segment merges this skeleton.
        classes: uint8 [M], class of each link.
        link_pair: int64 [M], the pair of the first end of each link.
        link_segment: int64 [M], the segment of that end.
    """

    def __init__(
        self, state: Sampling, segment_of_fragment: Ids, rule: RunLengthRule, no_merge: Contingency | None
    ) -> None:
        self.state, self.rule = state, rule
        self.segments, self.of_fragment = np.unique(segment_of_fragment, return_inverse=True)
        self.n = max(1, len(self.segments))
        self.foreground = np.append(self.segments, np.zeros(self.n - len(self.segments), np.uint64)) != 0
        self._count_pairs()
        self.entered = self._voxels_in(no_merge)
        self.touched = np.bincount(self.pair_segment[self.touches], minlength=self.n)
        self.merging = (self.touched > 1) & self.foreground
        self.forbidden = (self.entered > rule.no_merge_tolerance_vox) & self.foreground
        # As em_erl: by any node in a segment that merges skeletons, by more than the tolerance in a forbidden one.
        self.merged = self.merging[self.pair_segment] | (self.forbidden[self.pair_segment] & self.touches)
        self._classify()

    def _count_pairs(self) -> None:
        state = self.state
        self.pair_of, pairs = _merged_pairs(
            state.pair_skeleton, self.of_fragment[state.pair_fragment], state.pair_nodes, self.n
        )
        self.pair_skeleton, self.pair_segment, self.pair_nodes = pairs
        least = self.rule.merge_tolerance_fraction * state.nodes_of_skeleton[self.pair_skeleton]
        self.touches = (self.pair_nodes > self.rule.merge_tolerance_nodes) & (self.pair_nodes > least)

    def _voxels_in(self, no_merge: Contingency | None) -> Rows:
        entered = np.zeros(self.n, np.int64)
        if no_merge is not None and len(self.segments):
            ids, voxels = no_merge.segment_sizes()
            row = np.minimum(np.searchsorted(self.segments, ids), len(self.segments) - 1)
            here = self.segments[row] == ids
            entered[row[here]] = voxels[here]
        return entered

    def _classify(self) -> None:
        whose = self.state.skeletons.link_skeletons
        self.link_pair = self.pair_of[self.state.link_pair]
        self.link_segment, other = (self.of_fragment[end] for end in self.state.link_fragments)
        merged = self.merged[self.link_pair]
        if self.rule.zeroed == "skeleton":
            lost = np.zeros(len(self.state.skeletons.ids), bool)
            lost[self.pair_skeleton[self.merged]] = True
            merged = lost[whose]
        background = 0 if self.segments.size and self.segments[0] == 0 else -1
        self.classes: NDArray[np.uint8] = _link_classes(
            self.link_segment, other, background, merged, self.rule.zeroed == "skeleton"
        )

    def run_squares(self) -> NDArray[np.float64]:
        """Return float64 [P], the square of the correct path of each pair, l_ks^2."""
        runs: NDArray[np.float64] = self.state.lengths.of(
            self.link_pair, len(self.pair_skeleton), self.classes == CORRECT
        )
        runs *= runs
        return runs

    def pieces(self) -> Rows:
        """Return int64 [K], segments under the nodes of each skeleton, background not counted."""
        met = self.pair_skeleton[self.foreground[self.pair_segment]]
        return np.bincount(met, minlength=len(self.state.skeletons.ids))

    def scores(self) -> RunLengthScores:
        """Return the scores."""
        state, path = self.state, self.state.path_nm
        erl, truth = (fsum(self.run_squares().tolist()) / path, state.squares / path) if path else (nan, nan)
        splits = int(np.maximum(self.pieces() - 1, 0).sum())
        met = self.forbidden & (self.touched > 0)
        merges = int((self.touched[self.merging] - 1).sum() + met.sum())
        n = np.bincount(self.classes, minlength=len(EDGE_CLASSES)).tolist()
        nm = state.lengths.of(self.classes.astype(np.int64), len(n)).tolist()
        return RunLengthScores(
            erl_nm=erl,
            erl_truth_nm=truth,
            nerl=erl / truth if path else nan,
            path_nm=path,
            edges=(n[0], n[1], n[2], n[3]),
            edges_nm=(nm[0], nm[1], nm[2], nm[3]),
            n_splits=splits,
            n_merges=merges,
            splits_per_mm=splits / (path / 1e6) if path else nan,
            merges_per_mm=merges / (path / 1e6) if path else nan,
            n_skeletons=int((state.nodes_of_skeleton > 0).sum()),
            n_nodes=len(state.skeletons.node_ids),
            n_omitted_nodes=int(self.pair_nodes[~self.foreground[self.pair_segment]].sum()),
            reason="" if path else "the skeletons have no path: no edge joins two different places",
        )


@njit(cache=True, nogil=True)
def _merged_pairs(skeleton: Rows, segment: Rows, nodes: Rows, n_segments: int) -> tuple[Rows, Rows]:
    """Merge rows of equal (skeleton, segment), given sorted by skeleton.

    Returns:
        int64 [rows], the merged row of each; int64 [3, merged rows]: skeleton, segment, nodes.
    """
    of = np.empty(skeleton.size, np.int64)
    out = np.zeros((3, skeleton.size), np.int64)
    last_skeleton, last_row = np.full(n_segments, -1), np.zeros(n_segments, np.int64)
    n = 0
    for row in range(skeleton.size):
        s = segment[row]
        if last_skeleton[s] != skeleton[row]:
            last_skeleton[s], last_row[s] = skeleton[row], n
            out[0, n], out[1, n] = skeleton[row], s
            n += 1
        of[row] = last_row[s]
        out[2, of[row]] += nodes[row]
    return of, out[:, :n]


@njit(cache=True, nogil=True)
def _link_classes(
    first: Rows, second: Rows, background: int, merged: NDArray[np.bool_], whole: bool
) -> NDArray[np.uint8]:
    """Return the class of each link; where skeletons are lost `whole`, merged ones are so whatever their ends."""
    out = np.empty(first.size, np.uint8)
    for i in range(first.size):
        a, b = first[i], second[i]
        if whole and merged[i]:
            out[i] = MERGED
        elif a == background or b == background:
            out[i] = OMITTED
        elif a != b:
            out[i] = SPLIT
        else:
            out[i] = MERGED if merged[i] else CORRECT
    return out
