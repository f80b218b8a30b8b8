"""`emloom run` of a `ReconstructionStudy`: the same job with several networks and seeds, and what differs.

::

    study.yaml  report.html
    runs/<arm>-<seed>/     a `ReconstructionJob` each, with its own page; done once, gone on with after a crash
    scores.csv             every run and test
    summary.csv            every arm and test: mean over seeds, and its 95 % interval

Arms differ in the network, and may differ in the objective or the number of steps; an *ablation* takes the weights
of an arm as they are and switches skips off. Seeds draw weights, crops and augmentation anew. Intervals are of
Student's t over seeds: they say how much training varies, on these data; not how much data vary.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.io.open import open_volume
from emloom.metrics.replicates import replicated
from emloom.nn.autoencoders import AutoencoderSpec
from emloom.nn.hardware import Hardware
from emloom.nn.level_autoencoders import UNetAutoencoderSpec
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.run.machine import cores
from emloom.run.provenance import fingerprint, write_provenance
from emloom.spec import Spec
from emloom.tasks import reconstruction
from emloom.tasks.reconstructionjob import ReconstructionJob, require_file_name
from emloom.tasks.scorefiles import read_rows, write_rows
from emloom.tasks.steps import Listener, Silent
from emloom.tasks.studyreport import Found, write_study_report


class ArmSpec(Spec):
    """One arm of a study: what it does otherwise than the job that all share."""

    network: AutoencoderSpec
    objective: ReconstructionObjective | None = None
    """Default: that of the job."""
    steps: int | None = Field(default=None, gt=0)
    """Training steps; default: those of the job."""


class AblationSpec(Spec):
    """An arm that does not train: the weights of another, with skips switched off."""

    of: str
    """Name of the arm, which must be a `unet_autoencoder`."""
    skips: tuple[bool, ...]
    """One switch per skip, full resolution first."""


class ReconstructionStudy(Spec):
    """Compare autoencoders: one job, several arms, several seeds."""

    kind: Literal["reconstruction_study"] = "reconstruction_study"
    name: str = Field(min_length=1)
    job: ReconstructionJob
    """What all arms share; its network and seed are not used."""
    arms: dict[str, ArmSpec] = Field(min_length=1)
    ablations: dict[str, AblationSpec] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.job.weights is not None:
            raise ValueError("the job of a study trains: leave out its `weights`, or make ablations")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} name one twice: a seed gives the same result again")
        for name in [*self.arms, *self.ablations]:
            require_file_name(name)
        for name, each in self.ablations.items():
            if each.of not in self.arms or name in self.arms:
                raise ValueError(
                    f"ablation {name!r} needs a name of its own and an arm to start from, not {each.of!r}: "
                    f"there are {', '.join(self.arms)}"
                )
            if not isinstance(self.arms[each.of].network, UNetAutoencoderSpec):
                raise ValueError(
                    f"ablation {name!r}: the arm {each.of!r} has no skips, only a unet_autoencoder has some"
                )
            self._cut(each)
        return self

    def runs(self, folder: Path) -> list[StudyRun]:
        """Return every run, those that train first."""
        trained = [
            StudyRun(name, seed, self._trains(name, arm, seed))
            for name, arm in self.arms.items()
            for seed in self.seeds
        ]
        ablated = [
            StudyRun(name, seed, self._ablates(name, each, seed, folder))
            for name, each in self.ablations.items()
            for seed in self.seeds
        ]
        return trained + ablated

    def _trains(self, name: str, arm: ArmSpec, seed: int) -> ReconstructionJob:
        training = self.job.training.model_copy(
            update={"seed": seed, **({} if arm.steps is None else {"steps": arm.steps})}
        )
        return self.job.model_copy(
            update={
                "name": f"{name}-{seed}",
                "network": arm.network,
                "objective": arm.objective or self.job.objective,
                "training": training,
            }
        )

    def _ablates(self, name: str, each: AblationSpec, seed: int, folder: Path) -> ReconstructionJob:
        whole = self._trains(name, self.arms[each.of], seed)
        weights = folder / "runs" / f"{each.of}-{seed}" / "train" / "model.safetensors"
        return whole.model_copy(update={"network": self._cut(each), "weights": str(weights)})

    def _cut(self, each: AblationSpec) -> UNetAutoencoderSpec:
        """Return the network of an ablation; raises `ValueError` where skips and switches differ in number."""
        return UNetAutoencoderSpec.model_validate(self.arms[each.of].network.to_dict() | {"skips": each.skips})


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    arm: str
    seed: int
    job: ReconstructionJob


def run_study(
    study: ReconstructionStudy,
    folder: Path,
    hardware: Hardware | None = None,
    listener: Listener | None = None,
    workers: int = 1,
) -> Path:
    """Run what is not done of a study, and sum up.

    Args:
        study: what to do.
        folder: where everything is written.
        hardware: where to compute.
        listener: told about progress.
        workers: runs at a time, each in a process of its own.

    Returns:
        Path of the report.

    Raises:
        InputError: an input is bad, or the folder holds another study.
    """
    started = time.perf_counter()
    listener = listener or Silent()
    hardware = hardware or Hardware()
    folder = folder.absolute()
    _claim(study, folder)
    runs = study.runs(folder)
    done = 0
    for ablating in (False, True):
        batch = [each for each in runs if (each.job.weights is not None) == ablating]
        for _ in _carried_out(batch, folder, hardware, workers):
            done += 1
            listener.advance("runs", done, len(runs))
    rows = [
        {"arm": each.arm, "seed": each.seed, **row}
        for each in runs
        for row in read_rows(_folder(folder, each) / "evaluate")
    ]
    write_rows(folder / "scores.csv", rows)
    found = summed_up(rows)
    write_rows(folder / "summary.csv", [_row(each) for each in found])
    inputs = {path: fingerprint(path) for path in study.job.paths}
    took = {"study": time.perf_counter() - started}
    provenance = write_provenance(folder / "provenance.json", study.to_dict(), inputs, took)
    return write_study_report(study.name, found, _wavelengths(study), folder, provenance)


def _wavelengths(study: ReconstructionStudy) -> dict[str, list[float]]:
    """Return the wavelengths of the levels of every test, finest first."""
    out = {}
    for item in study.job.tests:
        size = open_volume(item.raw, voxel_size_nm=item.voxel_size_nm, kind="raw").info.grid.voxel_size_nm
        decomposition = study.job.wavelet.decomposition(size)
        levels = range(1, decomposition.n_levels + 1)
        out[item.name] = [decomposition.wavelength_nm(level, size) for level in levels]
    return out


def summed_up(rows: Sequence[Mapping[str, Any]]) -> list[Found]:
    """Return mean and interval over seeds of every arm and test, in the order they come.

    Args:
        rows: one per run and test: `arm`, `seed`, `test`, and numbers by name.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["test"]), []).append(row)
    return [
        Found(
            arm,
            test,
            {
                name: replicated([nan if row[name] is None else row[name] for row in group])
                for name in group[0]
                if name not in ("arm", "seed", "test")
            },
        )
        for (arm, test), group in groups.items()
    ]


def _row(found: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": found.arm, "test": found.test}
    for name, interval in found.values.items():
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def _claim(study: ReconstructionStudy, folder: Path) -> None:
    path = folder / "study.yaml"
    if path.exists() and ReconstructionStudy.load(path) != study:
        raise InputError(f"{folder} holds another study: choose another output folder, or delete this one")
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, study.to_yaml())


def _folder(folder: Path, each: StudyRun) -> Path:
    return folder / "runs" / f"{each.arm}-{each.seed}"


def _carried_out(runs: Sequence[StudyRun], folder: Path, hardware: Hardware, workers: int) -> Iterator[StudyRun]:
    """Do runs and yield each when it is done; the first error is raised when those under way have ended."""
    if workers <= 1:
        for each in runs:
            reconstruction.run(each.job, _folder(folder, each), hardware)
            yield each
        return
    threads = max(1, cores().usable // workers)
    # Volumes may hold threads (TensorStore, HDF5), which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        doing = {pool.submit(reconstruction.run, each.job, _folder(folder, each), hardware): each for each in runs}
        try:
            for done in as_completed(doing):
                done.result()
                yield doing[done]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
