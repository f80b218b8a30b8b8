"""What the page of `emloom evaluate` says about tracings: run lengths, and pictures of what shortens them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isnan

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.geometry.skeletons import voxels_containing
from emloom.io.open import open_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.runlength import EDGE_CLASSES
from emloom.metrics.runlengtherrors import MergingSegment, SkeletonScore, merge_place, split_place
from emloom.tasks.errorplaces import openings_of, read_raw, read_segments
from emloom.tasks.scorespec import EvaluateSpec, Subject
from emloom.tasks.scoring import WORST, Evaluation, Traced
from emloom.view.curves import run_length_curve
from emloom.view.figures import Figure
from emloom.view.marked import CROSS_RGB, RING_RGB, Marked, window_around
from emloom.view.mosaic import mosaic
from emloom.view.report import Cell, Section, Table

_WINDOW_NM = 1600.0


@dataclass(frozen=True)
class PathPlace:
    """Where a tracing meets an error.

    Attributes:
        at: voxel (z, y, x) of the segmentation in the middle.
        marks: voxels of two nodes: the ring and the cross.
        segments: ids under them, without background.
        words: what there is to see.
    """

    at: Vec
    marks: tuple[Vec, Vec]
    segments: tuple[int, ...]
    words: str


def skeleton_sections(spec: EvaluateSpec, found: Evaluation, traced: Traced) -> list[Section]:
    """Return the sections of the page about tracings."""
    sections = [_run_lengths(found, traced)]
    errors, draw = Errors(traced, found.subject), _Drawing(spec, found.subject)
    scores, merges = traced.lengths.worst_skeletons(WORST), traced.lengths.worst_merges(WORST)
    if scores:
        sections.append(_skeletons(scores, draw([errors.split(row) for row in scores])))
    if merges:
        sections.append(_merges(merges, draw([errors.merge(row) for row in merges])))
    return sections


@dataclass(frozen=True)
class Errors:
    """Finds the places of errors along tracings.

    Attributes:
        traced: the tracings, and the segments under their nodes.
        subject: what was scored.
    """

    traced: Traced
    subject: Subject

    @cached_property
    def _info(self) -> VolumeInfo:
        return open_volume(self.subject.labels, kind="labels").info

    def split(self, score: SkeletonScore) -> PathPlace | None:
        """Return where it would help a skeleton most to be joined; None where no link leaves its segment."""
        rows = split_place(self.traced.nodes.skeletons, self.traced.segments, score.skeleton)
        if rows is None:
            return None
        a, b = (int(self.traced.segments[row]) for row in rows)
        ends = [f"segment {i}" if i else "background" for i in (a, b)]
        return self._place(rows, f"Skeleton {_called(score)} leads from {ends[0]} (ring) to {ends[1]} (cross).")

    def merge(self, merge: MergingSegment) -> PathPlace | None:
        """Return where a segment joins two skeletons; None where it merges with the no-merge region only."""
        skeletons = self.traced.nodes.skeletons
        rows = merge_place(skeletons, self.traced.segments, merge.segment)
        if rows is None:
            return None
        a, b = (skeletons.ids[skeletons.skeletons[row]] for row in rows)
        return self._place(rows, f"Segment {merge.segment} holds nodes of skeletons {a} (ring) and {b} (cross).")

    def _place(self, rows: tuple[int, int], words: str) -> PathPlace | None:
        ends = self.traced.nodes.skeletons.positions_nm[list(rows)]
        points = np.stack([ends.mean(axis=0), *ends])
        at, ring, cross = ((z, y, x) for z, y, x in voxels_containing(self._info.grid, points).tolist())
        if not self._info.box.contains(Box(at, (1, 1, 1))):
            return None
        segments = (int(self.traced.segments[row]) for row in rows)
        return PathPlace(at, (ring, cross), tuple(dict.fromkeys(i for i in segments if i)), words)


@dataclass(frozen=True)
class _Drawing:
    spec: EvaluateSpec
    subject: Subject

    def __call__(self, places: Sequence[PathPlace | None]) -> list[Figure]:
        """Return pictures of the places that there are."""
        openings = openings_of(self.spec, self.subject)
        return [
            replace(self._picture(place), opening=openings.opening(place.at, (("segmentation", place.segments),)))
            for place in places
            if place is not None
        ]

    def _picture(self, place: PathPlace) -> Figure:
        info = open_volume(self.subject.labels, kind="labels").info
        size = info.grid.voxel_size_nm
        apart = np.abs(np.subtract(*place.marks)) * np.array(size)
        window = window_around(place.at, info, _WINDOW_NM, apart)
        wanted = np.array(place.segments, np.uint64)

        def shown(box: Box) -> NDArray[np.uint64]:
            ids = read_segments(self.subject, box)
            return np.where(np.isin(ids, wanted), ids, np.uint64(0))

        raw = None if self.spec.raw is None else open_volume(self.spec.raw, kind="raw")
        ground = None if raw is None else partial(read_raw, self.subject, raw)
        marked = Marked(window, place.at, place.marks, size, ground, {"segmentation": shown})
        z, y, x = place.at
        caption = f"{place.words} Sections through z = {z}, y = {y}, x = {x}."
        columns, exact = 1 + (raw is not None), (RING_RGB, CROSS_RGB)
        return mosaic(list(marked.tiles()), columns=columns, alt=caption, caption=caption, exact=exact)


def _run_lengths(found: Evaluation, traced: Traced) -> Section:
    scores = traced.lengths.scores
    total = sum(scores.edges)
    rows: list[list[Cell]] = [
        [name, count, count / total if total else None, nm / 1000]
        for name, count, nm in zip(EDGE_CLASSES, scores.edges, scores.edges_nm, strict=True)
    ]
    text = (
        f"{scores.n_skeletons} skeletons with {scores.n_nodes} nodes and {scores.path_nm / 1000:.3f} µm of path; "
        f"{scores.n_omitted_nodes} nodes lie in no segment, {traced.nodes.n_outside} of them outside of the "
        f"segmentation. {scores.n_splits} pieces and {scores.n_merges} merges too many."
    )
    figures = []
    if found.sweep and "nerl" in found.sweep[0]:
        points = [(p["threshold"], p["erl_nm"] / 1000) for p in found.sweep if not isnan(p["erl_nm"])]
        best = max(points, key=lambda point: point[1], default=None)
        if best is not None:
            text += (
                f"\n\nThe expected run length on these tracings is longest at the threshold {best[0]:g}, "
                f"{best[1]:.3f} µm; a threshold chosen here must be tested elsewhere."
            )
            figures.append(
                run_length_curve(
                    points, scores.erl_truth_nm / 1000, found.subject.threshold, caption="All in sweep.csv."
                )
            )
    table = Table(["edges", "count", "share", "µm"], rows, "edges of the skeletons by what became of them")
    return Section("Along the skeletons", text, figures, [table])


def _skeletons(scores: Sequence[SkeletonScore], figures: list[Figure]) -> Section:
    text = (
        "The skeletons that cost most of the expected run length. A picture shows the edge which, joined, would "
        "help most: of those between two segments the one whose shorter side is longest. A skeleton that loses by "
        "merges alone has no picture here. Positions are voxels (z, y, x) of the segmentation."
    )
    rows: list[list[Cell]] = [
        [_called(s), s.path_nm / 1000, s.run_nm / 1000, s.lost_nm / 1000, s.n_segments, s.n_merging]
        for s in scores
    ]
    columns = ["skeleton", "path (µm)", "run length (µm)", "costs (µm)", "segments", "of them merge"]
    return Section("Skeletons that lose most", text, figures, [Table(columns, rows, "the same in numbers")])


def _merges(merges: Sequence[MergingSegment], figures: list[Figure]) -> Section:
    text = (
        "The segments that merge skeletons, or enter the region they must not enter, and the path that does not "
        "count because of each. A picture shows the two nodes of different skeletons that lie nearest to each "
        "other in the segment: the merge is probably near."
    )
    rows: list[list[Cell]] = [
        [
            str(m.segment),
            m.zeroed_nm / 1000,
            ", ".join(map(str, m.skeletons[:5])) + (" …" if len(m.skeletons) > 5 else ""),
            sum(m.nodes),
            m.no_merge_voxels,
        ]
        for m in merges
    ]
    columns = ["segment", "does not count (µm)", "skeletons", "nodes", "voxels in the no-merge region"]
    return Section("Merges of skeletons", text, figures, [Table(columns, rows, "the same in numbers")])


def _called(score: SkeletonScore) -> str:
    return f"{score.skeleton} ({score.name})" if score.name else str(score.skeleton)
