"""Find parameters of a CRF by trying: random draws, scored on validation truth.

The macro F1 is over the classes that the truth holds, the same in every trial.
Trial 0 is the probabilities as they are: a CRF that does not beat it is better left out. Every other trial draws
sigmas, weights, the scale of the named penalties and the temperature, each evenly in its logarithm, from (seed,
trial) alone; so more trials repeat the fewer. The temperature is drawn around the one that makes the classifier as
sure as it is right on the same truth (`emloom.metrics.temperature`).

Parameters chosen here are fitted to this truth: score them on other data. Boxes that a job holds out as its test
are refused.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Bounds

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.files import explained, write_text_atomic
from emloom.io.open import open_volume
from emloom.io.tables import write_csv
from emloom.metrics.classify import confusion, confusion_scores
from emloom.metrics.temperature import fit_class_temperature
from emloom.ops.crf import mean_field
from emloom.run.provenance import fingerprint, write_provenance
from emloom.spec import Spec
from emloom.tasks.classnames import names_of
from emloom.tasks.crfspec import BilateralKernelSpec, CrfSpec, Penalty, SpatialKernelSpec
from emloom.tasks.lattice import common_box
from emloom.tasks.refine import Scene, as_shares, floor_of, spread

LARGEST_VOX = 256**3
_FITTED_VOX = 1 << 20  # voxels with truth that a temperature is fitted to

Violation = Callable[[NDArray[np.int64], NDArray[Any]], float]
"""Given classes and truth [Z, Y, X], what is subtracted from the macro F1, weighted: say enclosure violations."""


class SearchJob(Spec):
    """Search for parameters of a CRF (`emloom refine-search`)."""

    predicted: str
    """Probabilities of a validation region, one channel per class."""
    raw: str
    truth: str
    """True classes of a part of it or all; the search reads the probabilities and the raw in its box only."""
    output: str
    """Folder of `crf.yaml`, `trials.csv` and `search.json`."""
    names: tuple[str, ...] = ()
    """Of the classes; default: as the model calls them."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x) of the raw, only where it does not state it."""
    compatibility: dict[str, Penalty] = Bounds(default={})
    """Penalties of named pairs, as in a CRF's file; all are scaled together."""
    ignore: tuple[int, ...] = (255,)
    """Values of the truth that do not count."""
    trials: Annotated[int, Bounds(ge=1, le=10_000)] = 30
    seed: Annotated[int, Bounds(ge=0)] = 0


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        crf: the best parameters.
        rows: one per trial, trial 0 without a CRF.
        best: number of the best trial that has a CRF.
        temperature: the one that was fitted.
    """

    crf: CrfSpec
    rows: list[dict[str, Any]]
    best: int
    temperature: float

    @property
    def helps(self) -> bool:
        """Whether the best CRF beats the probabilities as they are."""
        return bool(self.rows[self.best]["objective"] > self.rows[0]["objective"])


@dataclass(frozen=True)
class _Evidence:
    names: tuple[str, ...]
    voxel_size_nm: Vec3
    shares: NDArray[np.float32]
    raw: NDArray[Any]
    truth: NDArray[Any]
    floor: float
    spread: float
    ignore: tuple[int, ...]


def search(
    job: SearchJob,
    on_trial: Callable[[int, int], None] | None = None,
    *,
    violation: Violation | None = None,
    violation_weight: float = 1.0,
    threads: int = 1,
) -> Found:
    """Try parameters and write the best.

    Args:
        job: what to search.
        on_trial: called with (trials done, trials in all).
        violation: measured on every trial's classes.
        violation_weight: of that in the objective, ``macro F1 - weight violation``.
        threads: how many work on a trial.

    Raises:
        InputError: as `emloom.tasks.refine.refine`, or the truth is too large, holds no class, or is a test box.
    """
    started = time.perf_counter()
    _refuse_test(job.predicted)
    seen = _evidence(job)
    fitted = _temperature(seen, job.seed)
    rows: list[dict[str, Any]] = []
    tried: list[CrfSpec] = []
    for trial in range(job.trials + 1):
        spec = None if trial == 0 else draw(job, trial, seen.voxel_size_nm, seen.spread, fitted)
        classes = _classes(seen, spec, threads)
        row = _scored(seen, classes, violation, violation_weight)
        rows.append({"trial": trial, **row, **_settings(spec)})
        tried += [] if spec is None else [spec]
        if on_trial is not None:
            on_trial(trial, job.trials)
    best = 1 + int(np.argmax([row["objective"] for row in rows[1:]]))
    found = Found(tried[best - 1], rows, best, fitted)
    _write(job, found, time.perf_counter() - started)
    return found


def draw(job: SearchJob, trial: int, voxel_size_nm: Sequence[float], spread: float, temperature: float) -> CrfSpec:
    """Return the parameters of a trial, which depend on (seed, trial) only, and on the scales that are given."""
    rng = np.random.default_rng((job.seed, trial))

    def between(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(log(low), log(high))):.4g}")

    voxel = min(voxel_size_nm)
    near = SpatialKernelSpec(sigma_nm=between(0.7 * voxel, 4 * voxel), weight=between(0.1, 10))
    alike = BilateralKernelSpec(
        sigma_nm=between(1.5 * voxel, 12 * voxel),
        sigma_intensity=between(spread / 8, 1.5 * spread),
        weight=between(0.1, 30),
    )
    scale = between(0.1, 3)
    return CrfSpec(
        kernels=(near, alike),
        compatibility={pair: float(f"{penalty * scale:.4g}") for pair, penalty in job.compatibility.items()},
        temperature=between(0.7 * temperature, 2 * temperature),
    )


def _refuse_test(predicted: str) -> None:
    """Raise `InputError` where probabilities are of a test box of a job's folder."""
    container = Path(predicted).parent
    if re.search(r"_test_\d+$", container.stem) and (container.parent.parent / "job.yaml").is_file():
        raise InputError(
            f"{predicted} is a test box of the job in {container.parent.parent}: parameters chosen on it would be "
            "scored on what they were chosen by; predict a validation box with `emloom predict --box`"
        )


def _evidence(job: SearchJob) -> _Evidence:
    scene = Scene.of(job.predicted, job.raw, None, job.voxel_size_nm)
    names = names_of(job.predicted, job.names)
    CrfSpec(kernels=(SpatialKernelSpec(sigma_nm=1),), compatibility=job.compatibility).penalties(names)
    truth = open_volume(job.truth)
    box = common_box(truth, scene.predicted)
    if box.size > LARGEST_VOX:
        raise InputError(f"{job.truth} has {box.size:,} voxels, a search at most {LARGEST_VOX:,}: crop the truth")
    grey, values = scene.grey(box), truth.read(Box.whole(box.shape))
    if truth.info.channels is not None or values.dtype.kind not in "ui":
        raise InputError(f"{job.truth} is {truth.info.axes} of {values.dtype}: class ids are whole numbers, zyx")
    dtype = scene.predicted.info.dtype
    return _Evidence(
        names,
        scene.predicted.info.grid.voxel_size_nm,
        as_shares(scene.predicted.read(box)),
        grey,
        values,
        floor_of(dtype),
        spread([grey], job.raw),
        job.ignore,
    )


def _temperature(seen: _Evidence, seed: int) -> float:
    known = np.flatnonzero(~np.isin(seen.truth, seen.ignore))
    if not known.size:
        raise InputError("no voxel of the truth has a class: there is nothing to choose parameters by")
    if known.size > _FITTED_VOX:
        known = np.sort(np.random.default_rng(seed).choice(known, _FITTED_VOX, replace=False))
    shares, truth = seen.shares.reshape(len(seen.shares), -1)[:, known], seen.truth.reshape(-1)[known]
    try:
        return fit_class_temperature(shares, truth, ignore=(), floor=seen.floor).value
    except InputError as problem:
        if "temperature" in str(problem):  # none is the best: stay where we are
            return 1.0
        raise


def _classes(seen: _Evidence, spec: CrfSpec | None, threads: int) -> NDArray[np.int64]:
    shares = seen.shares
    if spec is not None:
        field = spec.field(seen.names, seen.voxel_size_nm, seen.spread, floor=seen.floor)
        shares = mean_field(shares, seen.raw, field, threads=threads).probabilities
    classes: NDArray[np.int64] = shares.argmax(axis=0)
    return classes


def _scored(
    seen: _Evidence, classes: NDArray[np.int64], violation: Violation | None, weight: float
) -> dict[str, float]:
    table = confusion(seen.truth, classes, len(seen.names), ignore=seen.ignore)
    # A mean over the classes that occur in the truth: a trial in which a class vanishes must not be spared its 0.
    present = [k for k in range(len(seen.names)) if table.counts[k].any()]
    scores = confusion_scores(table, present)
    row = {"objective": scores.macro.f1, "macro_f1": scores.macro.f1, "accuracy": scores.accuracy}
    if violation is not None:
        row["violation"] = violation(classes, seen.truth)
        row["objective"] -= weight * row["violation"]
    return row | {f"f1_{seen.names[one.label]}": one.f1 for one in scores.classes}


def _settings(spec: CrfSpec | None) -> Mapping[str, float]:
    empty = dict.fromkeys(_COLUMNS, float("nan"))
    if spec is None:
        return empty
    near, alike = spec.kernels
    assert isinstance(alike, BilateralKernelSpec)  # as they were drawn
    values = (near.sigma_nm, near.weight, alike.sigma_nm, alike.sigma_intensity, alike.weight, spec.temperature)
    return empty | {key: float(v) for key, v in zip(_COLUMNS, values, strict=True)}  # type: ignore[arg-type]


_COLUMNS = (
    "spatial_sigma_nm",
    "spatial_weight",
    "bilateral_sigma_nm",
    "sigma_intensity",
    "bilateral_weight",
    "temperature",
)


def _write(job: SearchJob, found: Found, seconds: float) -> None:
    folder = Path(job.output)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found.crf.dump(folder / "crf.yaml")
    write_csv(folder / "trials.csv", {key: np.array([r[key] for r in found.rows]) for key in found.rows[0]})
    summary = {
        "best_trial": found.best,
        "objective": found.rows[found.best]["objective"],
        "objective_without": found.rows[0]["objective"],
        "helps": found.helps,
        "temperature_fitted": found.temperature,
        "crf": found.crf.to_dict(),
    }
    write_text_atomic(folder / "search.json", json.dumps(summary, indent=2))
    inputs = {
        name: fingerprint(path)
        for name, path in (("predicted", job.predicted), ("raw", job.raw), ("truth", job.truth))
    }
    write_provenance(folder / "provenance.json", job.to_dict(), inputs, {"search": seconds})
