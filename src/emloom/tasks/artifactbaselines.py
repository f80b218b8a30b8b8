"""Do frozen features do? Detectors without a training loop, fitted, tried and judged on parts that share no
tissue.

::

    labels ── split by blocks with a gap ──┬── train   every baseline is fitted
                                           ├── val     its threshold is chosen, at a recall; the best is named
                                           └── test    it is scored, once

    scores.json  scores.csv  patches.csv  report.html  provenance.json  detectors/<baseline>.safetensors

All read the same features of the same patches, so what differs is the baseline. The test names no winner: the best
is that of the validation part, and the test says how good it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.patches import UNKNOWN, YES, PatchLabels, joined
from emloom.io.files import refuse_existing
from emloom.io.open import open_volume
from emloom.io.patchopen import PatchReading, open_patches
from emloom.io.tables import write_csv
from emloom.io.volume import Volume, cached
from emloom.metrics.bootstrap import Interval
from emloom.metrics.curves import (
    OperatingPoint,
    at_recall,
    at_threshold,
    average_precision,
    roc_auc,
)
from emloom.metrics.patches import Judged, Statistic, bootstrapped
from emloom.metrics.ranking import Ranking
from emloom.nn.model import ModelSpec, Network, load
from emloom.nn.patchdetector import (
    BaselineSpec,
    DetectorSpec,
    PatchDetector,
    fit_detector,
    model_mark,
    save_detector,
)
from emloom.nn.patchfeatures import PatchFeatures, PixelFeatures
from emloom.nn.preprocess import Preprocessing
from emloom.nn.samples import require_voxel_size
from emloom.ops.patchsplits import NO_SPLIT, SPLITS, leaks, split_by_blocks
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.artifactbaselinesspec import ArtifactBaselinesJob, default_baselines
from emloom.tasks.scorefiles import write_scores

TRAIN, VAL, TEST = range(3)
Progress = Callable[[str, int, int], None]
_SCORES: Mapping[str, Statistic] = {"average_precision": average_precision, "roc_auc": roc_auc}


@dataclass(frozen=True, eq=False)
class Parts:
    """Labelled patches and the part that each is in.

    Attributes:
        labels: each patch once.
        said: int8 [N], of the class that is looked for.
        name: of that class.
        part: int8 [N], 0 training, 1 validation, 2 test, -1 none.
    """

    labels: PatchLabels
    said: NDArray[np.int8]
    name: str
    part: NDArray[np.int8]

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the patches of a part of which the class is known."""
        return np.flatnonzero((self.part == part) & (self.said != UNKNOWN))

    def counts(self, part: int) -> tuple[int, int]:
        """Return how many of them say yes, and how many no."""
        said = self.said[self.rows(part)]
        return int((said == YES).sum()), int((said != YES).sum())


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """What one baseline is worth.

    Attributes:
        detector: fitted on the training part.
        scores: float64 [N], NaN for patches of no part.
        validation: average precision on the validation part.
        intervals: of average precision and ROC AUC on the test part.
        applied: the threshold chosen on the validation part, on the test part.
        at_recall: precision on the test part at the recall asked for, had the threshold been known.
        seconds: of fitting, features not counted.
    """

    detector: PatchDetector
    scores: NDArray[np.float64]
    validation: float
    intervals: Mapping[str, Interval]
    applied: OperatingPoint
    at_recall: OperatingPoint
    seconds: float

    @property
    def name(self) -> str:
        """Of the baseline."""
        return self.detector.spec.baseline.name

    def row(self) -> dict[str, Any]:
        """Return the values by name."""
        spec = self.detector.spec.baseline
        values: dict[str, Any] = {
            "baseline": self.name,
            "features": spec.features.kind,
            "scorer": spec.scorer.kind,
            "validation_average_precision": self.validation,
        }
        for name, interval in self.intervals.items():
            values |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        return {
            **values,
            "threshold": self.applied.threshold,
            "recall": self.applied.recall,
            "precision": self.applied.precision,
            "f1": self.applied.f1,
            "false_positive_rate": self.applied.false_positive_rate,
            "precision_at_recall": self.at_recall.precision,
            "fit_seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class BaselinesFound:
    """All results, in the order asked for.

    Attributes:
        parts: of the labels.
        results: one per baseline.
        preprocessing: with which patches are seen.
        notes: what to know before believing a number.
    """

    parts: Parts
    results: list[BaselineResult]
    preprocessing: Preprocessing
    notes: list[str]

    @property
    def best(self) -> int:
        """Which is best on the validation part; of equals the first."""
        return int(np.argmax([each.validation for each in self.results]))


def compare_baselines(
    job: ArtifactBaselinesJob, device: str = "cpu", progress: Progress | None = None
) -> BaselinesFound:
    """Fit and judge baselines; write all but the page.

    Args:
        job: what to compare.
        device: a torch device.
        progress: called with (which features, patches done, in all).

    Raises:
        InputError: the output exists, an input is missing or damaged, labels are not of this raw, a part lacks yes
            or no, or parts share tissue.
    """
    started = time.perf_counter()
    folder = Path(job.output)
    refuse_existing(folder)
    raw = cached(open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw"))
    parts = _parts(job, raw)
    model = _model(job, raw)
    specs = job.baselines or default_baselines(model[0] if model else None)
    computed = _all_features(specs, parts, raw, (model, device), progress)
    results = [_result(job, spec, parts, computed[spec.features.content_hash()], raw, model) for spec in specs]
    preprocessing = model[0].preprocessing if model else Preprocessing()
    found = BaselinesFound(parts, results, preprocessing, _notes(parts, results))
    _write(job, found)
    paths = {"raw": job.raw, "labels": job.labels, **({"model": job.model} if job.model else {})}
    write_provenance(
        folder / "provenance.json",
        job.to_dict(),
        {name: fingerprint(path) for name, path in paths.items()},
        {"baselines": time.perf_counter() - started},
        {"computed_by": device},
    )
    return found


def file_name(baseline: str) -> str:
    """Return the name of a detector's file."""
    return re.sub(r"[^a-z0-9]+", "-", baseline.lower()).strip("-") + ".safetensors"


def _parts(job: ArtifactBaselinesJob, raw: Volume) -> Parts:
    labels, part = _split_labels(job) if Path(job.labels).is_dir() else _labels_to_split(job)
    # By place, so that no sum and no draw depends on the order of a table.
    order = np.lexsort(labels.starts.T[::-1])
    labels, part = labels.taken(order), None if part is None else part[order]
    if not labels.grid.matches(raw.info.grid):
        raise InputError(
            f"{labels.source} is about {labels.grid}, {raw.info.source} has {raw.info.grid}: give the labels of "
            "this volume"
        )
    name = job.target or labels.classes[0]
    said = labels.of(name)
    if part is None:
        part = split_by_blocks(labels.starts, labels.shape, said == YES, job.split.split(labels.shape))
    shared = leaks(labels.starts, labels.shape, part)
    if len(shared):
        one, other = labels.starts[shared.rows[0]].tolist()
        raise InputError(
            f"{len(shared)} pairs of patches of different parts show the same tissue, such as those at {one} and "
            f"{other} (z, y, x): split the labels with a gap (`emloom artifacts labels split`)"
        )
    parts = Parts(labels, said, name, part)
    for number, word in enumerate(SPLITS):
        yes, no = parts.counts(number)
        if not yes or not no:
            raise InputError(
                f"the {word} part of {labels.source} has {yes} patches with {name} and {no} without; each part "
                "needs both: label more, or choose smaller blocks or another seed of the split"
            )
    return parts


def _labels_to_split(job: ArtifactBaselinesJob) -> tuple[PatchLabels, None]:
    return open_patches(job.labels, PatchReading(voxel_size_nm=job.voxel_size_nm)).consensus(), None


def _split_labels(job: ArtifactBaselinesJob) -> tuple[PatchLabels, NDArray[np.int8]]:
    tables = [open_patches(Path(job.labels) / f"{word}.csv").consensus() for word in SPLITS]
    whole = joined(tables, source=job.labels)
    if len(np.unique(whole.starts, axis=0)) < sum(map(len, tables)):
        raise InputError(f"parts in {job.labels} have a patch in common: split the labels again")
    return whole, np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(table) for table in tables])


def _model(job: ArtifactBaselinesJob, raw: Volume) -> tuple[ModelSpec, Network] | None:
    if job.model is None:
        return None
    spec, network, _ = load(Path(job.model))
    require_voxel_size(spec, raw.info.grid.voxel_size_nm, raw.info.source)
    return spec, network


@dataclass(frozen=True, eq=False)
class _Computed:
    """Features of all patches that are in a part and known; NaN for the others."""

    made: PatchFeatures
    values: NDArray[np.float32]


def _all_features(
    specs: tuple[BaselineSpec, ...],
    parts: Parts,
    raw: Volume,
    where: tuple[tuple[ModelSpec, Network] | None, str],
    progress: Progress | None,
) -> dict[str, _Computed]:
    """Return features by the hash of their spec, each kind computed once."""
    model, device = where
    used = np.flatnonzero((parts.part != NO_SPLIT) & (parts.said != UNKNOWN))
    computed: dict[str, _Computed] = {}
    for spec in (each.features for each in specs):
        key = spec.content_hash()
        if key in computed:
            continue
        made = PatchFeatures(spec, parts.labels.shape, model, device=device)

        def tell(done: int, of: int, kind: str = spec.kind) -> None:
            if progress is not None:
                progress(kind, done, of)

        rows = made.of(raw, parts.labels.starts[used], tell)
        values = np.full((len(parts.labels), *rows.shape[1:]), np.nan, np.float32)
        values[used] = rows
        computed[key] = _Computed(made, values)
    return computed


def _result(
    job: ArtifactBaselinesJob,
    spec: BaselineSpec,
    parts: Parts,
    features: _Computed,
    raw: Volume,
    model: tuple[ModelSpec, Network] | None,
) -> BaselineResult:
    started = time.perf_counter()
    rows = parts.rows(TRAIN)
    needs_model = model is not None and not isinstance(spec.features, PixelFeatures)
    about = DetectorSpec(
        baseline=spec,
        shape=parts.labels.shape,
        voxel_size_nm=raw.info.grid.voxel_size_nm,
        preprocessing=features.made.preprocessing,
        encoder=model_mark(*model) if model is not None and needs_model else None,
    )
    fitted = fit_detector(features.made, features.values[rows], parts.said[rows], about)
    seconds = time.perf_counter() - started
    scores = np.full(len(parts.labels), np.nan)
    for part in (TRAIN, VAL, TEST):
        scores[parts.rows(part)] = fitted.scorer.scores(features.values[parts.rows(part)])
    validation, test = (_judged(parts, scores, part) for part in (VAL, TEST))
    threshold = at_recall(validation.ranking(), job.recall).threshold
    ranked = test.ranking()
    return BaselineResult(
        detector=replace(fitted, spec=about.model_copy(update={"threshold": threshold})),
        scores=scores,
        validation=average_precision(validation.ranking()),
        intervals=_intervals(job, test, ranked),
        applied=at_threshold(ranked, threshold),
        at_recall=at_recall(ranked, job.recall),
        seconds=seconds,
    )


def _judged(parts: Parts, scores: NDArray[np.float64], part: int) -> Judged:
    rows, labels = parts.rows(part), parts.labels
    return Judged(labels.starts[rows], labels.shape, labels.grid, scores[rows], parts.said[rows], {})


def _intervals(job: ArtifactBaselinesJob, test: Judged, ranked: Ranking) -> Mapping[str, Interval]:
    how = job.bootstrap
    if not how.resamples:
        nothing = float("nan")
        return {
            name: Interval(of(ranked), nothing, nothing, how.level, 0, 0, 0, "no resamples were asked for")
            for name, of in _SCORES.items()
        }
    # The same sections are drawn for every baseline.
    rng = np.random.default_rng(how.seed)
    return bootstrapped(test, _SCORES, rng, resamples=how.resamples, level=how.level)


def _notes(parts: Parts, results: list[BaselineResult]) -> list[str]:
    lost = int(((parts.part == NO_SPLIT) & (parts.said != UNKNOWN)).sum())
    notes = []
    if lost:
        notes.append(f"{lost} labelled patches lie in the gap between parts and were left out.")
    yes, _ = parts.counts(TEST)
    if yes < 30:
        notes.append(f"Only {yes} test patches hold what is looked for: intervals are wide, and still too narrow.")
    for each in results:
        if each.applied.false_positive_rate == 1:
            notes.append(f"The {each.name} finds as much only by calling every patch: ask for less recall.")
    return notes


def _write(job: ArtifactBaselinesJob, found: BaselinesFound) -> None:
    folder = Path(job.output)
    (folder / "detectors").mkdir(parents=True)
    for each in found.results:
        save_detector(folder / "detectors" / file_name(each.name), each.detector)
    parts = found.parts
    write_scores(
        folder,
        [each.row() for each in found.results],
        target=parts.name,
        recall=job.recall,
        best_on_validation=found.results[found.best].name,
        parts={word: dict(zip(("yes", "no"), parts.counts(k), strict=True)) for k, word in enumerate(SPLITS)},
        intervals={
            each.name: {name: asdict(interval) for name, interval in each.intervals.items()}
            for each in found.results
        },
        notes=found.notes,
    )
    rows = np.concatenate([parts.rows(part) for part in (TRAIN, VAL, TEST)])
    starts = parts.labels.starts[rows]
    write_csv(
        folder / "patches.csv",
        {
            **{axis: starts[:, k] for k, axis in enumerate("zyx")},
            parts.name: np.where(parts.said[rows] == YES, "yes", "no"),
            "part": np.array(SPLITS)[parts.part[rows]],
            **{each.name: each.scores[rows] for each in found.results},
        },
    )
