"""Choose the threshold on validation boxes, score it on test boxes, and put others beside it.

Every method is treated alike: its threshold is the highest of those that do best on the validation boxes (within a
tolerance: a few boxes are a noisy judge, and a merge costs a proofreader more than a split), its test scores are
read once, at that threshold. The boxes of a part are scored together, each box as a world of its own: truth and
every segmentation, given references included, are split into the pieces that are connected inside the box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from emloom.metrics.overlap import ObjectError, SweepPoint, best_threshold, overlap_scores, worst_objects
from emloom.ops.intensity import intensity_affinities
from emloom.ops.labels import split_disconnected
from emloom.tasks.data import PARTS, HeldOut, Part, Stack, held_out
from emloom.tasks.evaluate import Tables, Truth, pooled, row, truth_in
from emloom.tasks.job import NeuronsJob
from emloom.tasks.segment import Segmented, grow_tree
from emloom.tasks.segmentspec import MeanLinkage, SeededSpec, SegmentSpec

BASELINE_FRAGMENT_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
"""Boundary thresholds among which the raw-intensity baseline may choose, on validation, like any method."""

BASELINE_SEED_DISTANCES_VOX = {False: 6, True: 10}
"""Window in which the baseline seeds one fragment: in three dimensions, within sections."""

Grow = Callable[[HeldOut], Segmented]


@dataclass(frozen=True)
class WorstObject:
    """One of the largest errors on the test boxes."""

    box: HeldOut
    kind: Literal["split", "merge"]
    error: ObjectError


@dataclass(frozen=True)
class Judgement:
    """Everything that evaluation found.

    Attributes:
        threshold: agglomeration threshold, chosen on the validation boxes.
        rows: one row per method and part; test rows first.
        validation: the sweep on the validation boxes.
        test: the same sweep on the test boxes, to look at, never to choose from.
        worst: the largest splits and merges on the test boxes, worst first.
    """

    threshold: float
    rows: list[dict[str, Any]]
    validation: list[SweepPoint]
    test: list[SweepPoint]
    worst: list[WorstObject]

    def details(self) -> dict[str, Any]:
        """Return what `scores.json` keeps beside the rows, as plain values."""
        worst = [{"box": w.box.name, "kind": w.kind, **asdict(w.error)} for w in self.worst]
        sweeps = {
            part: [{"threshold": p.threshold, **asdict(p.scores)} for p in points]
            for part, points in (("validation", self.validation), ("test", self.test))
        }
        return {"threshold": self.threshold, "sweeps": sweeps, "worst": worst}


@dataclass(frozen=True)
class Tuned:
    """A method at the threshold that validation chose for it.

    Attributes:
        chosen: the threshold and its validation scores.
        rows: the test row and the validation row.
        validation: the sweep on the validation boxes.
        test: the sweep on the test boxes.
    """

    chosen: SweepPoint
    rows: list[dict[str, Any]]
    validation: list[SweepPoint]
    test: list[SweepPoint]


class Judge:
    """The truth of every held-out box of a job, ready to score any method."""

    def __init__(self, job: NeuronsJob, stacks: Sequence[Stack]) -> None:
        self.job = job
        self.stacks = stacks
        spec = job.evaluation
        self.items: dict[Part, list[HeldOut]] = {part: held_out(job.data, part) for part in PARTS}
        self.truth: dict[HeldOut, Truth] = {
            item: truth_in(
                stacks[item.stack].labels, stacks[item.stack].mask, item.box, spec.border_vox, spec.border_in_plane
            )
            for items in self.items.values()
            for item in items
        }

    def sweep(self, part: Part, grow: Grow) -> list[tuple[SweepPoint, Tables]]:
        """Return scores and tables at every threshold, from one pass over the voxels."""
        trees = [(grow(item), item) for item in self.items[part]]
        counted = [(result, self.truth[item].tables(result.fragments)) for result, item in trees]
        found = []
        for threshold in self.job.segmentation.thresholds:
            merged = pooled([tables.relabelled(result.ids, result.lut(threshold)) for result, tables in counted])
            found.append((SweepPoint(threshold, overlap_scores(merged.plain)), merged))
        return found

    def tuned(self, method: str, grow: Grow) -> Tuned:
        """Choose the threshold of a method on validation and score it on test."""
        validation = self.sweep("validation", grow)
        spec = self.job.evaluation
        chosen = best_threshold([point for point, _ in validation], spec.choose_by, spec.tolerance)
        test = self.sweep("test", grow)
        at = [point.threshold for point, _ in validation].index(chosen.threshold)
        return Tuned(
            chosen,
            [row(method, test[at][1]) | {"part": "test"}, row(method, validation[at][1]) | {"part": "validation"}],
            [point for point, _ in validation],
            [point for point, _ in test],
        )

    def baseline(self) -> Tuned:
        """Score the watershed on smoothed raw with mean merging; its boundary threshold is tuned as well."""
        tried = []
        # The same watershed, whatever fragments the job has: the bar should not move with them.
        planar = self.job.segmentation.fragments.per_section
        for threshold in BASELINE_FRAGMENT_THRESHOLDS:
            fragments = SeededSpec(
                threshold=threshold, per_section=planar, seed_distance_vox=BASELINE_SEED_DISTANCES_VOX[planar]
            )
            spec = self.job.segmentation.model_copy(update={"fragments": fragments, "linkage": MeanLinkage()})
            tried.append(self.tuned("watershed on smoothed raw", partial(self._grow_raw, spec)))
        return min(tried, key=lambda tuned: getattr(tuned.chosen.scores, self.job.evaluation.choose_by))

    def _grow_raw(self, spec: SegmentSpec, item: HeldOut) -> Segmented:
        raw = self.stacks[item.stack].raw
        # Smoothed over about one voxel of the finest axis; sections much thicker than that stay apart.
        spacing = raw.info.grid.voxel_size_nm
        sigma = [1.0 if size < 2 * min(spacing) else 0.0 for size in spacing]
        affinities, neighborhood = intensity_affinities(raw.read(item.box), sigma)
        return grow_tree(affinities, neighborhood, raw.info.grid, spec)

    def reference(self, name: str) -> list[dict[str, Any]]:
        """Score a given segmentation on the test boxes; where it has zeros, also without them."""
        counted = []
        for item in self.items["test"]:
            volume = self.stacks[item.stack].references.get(name)
            if volume is None:
                continue
            pieces = split_disconnected(volume.read(item.box).astype(np.uint64))
            counted.append(self.truth[item].tables(pieces))
        tables = pooled(counted)
        rows = [row(f"given: {name}", tables) | {"part": "test"}]
        if any((t.plain.segment_ids == 0).any() for t in counted):
            without = pooled([t.without_background() for t in counted])
            rows.append(row(f"given: {name}, its zeros ignored", without) | {"part": "test"})
        return rows

    def worst(self, grow: Grow, threshold: float, k: int) -> list[WorstObject]:
        """Return the `k` largest splits and the `k` largest merges on the test boxes."""
        found = []
        for item in self.items["test"]:
            result = grow(item)
            tables = self.truth[item].tables(result.fragments).relabelled(result.ids, result.lut(threshold))
            total = tables.plain.n_voxels
            kinds: tuple[Literal["split", "merge"], ...] = ("split", "merge")
            for kind in kinds:
                found += [
                    (total * e.bits, WorstObject(item, kind, e)) for e in worst_objects(tables.plain, kind, k)
                ]
        found.sort(key=lambda pair: -pair[0])
        kept = [[w for _, w in found if w.kind == kind][:k] for kind in ("split", "merge")]
        return kept[0] + kept[1]


def judge(job: NeuronsJob, stacks: Sequence[Stack], grow: Grow, worst: int = 3) -> Judgement:
    """Evaluate a job: its own segmentation, the baseline and the given references.

    Args:
        job: the job.
        stacks: its opened stacks.
        grow: returns fragments and merge tree of a held-out box.
        worst: how many of the largest splits and merges to list.
    """
    bench = Judge(job, stacks)
    ours = bench.tuned("emloom", grow)
    rows = list(ours.rows)
    if job.evaluation.baseline:
        rows += bench.baseline().rows
    for name in dict.fromkeys(name for stack in job.data for name in stack.references):
        rows += bench.reference(name)
    rows.sort(key=lambda r: str(r["part"]))
    chosen = ours.chosen.threshold
    return Judgement(chosen, rows, ours.validation, ours.test, bench.worst(grow, chosen, worst))
