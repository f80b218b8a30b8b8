"""What every job that trains something on stacks has in common, and one execution of it in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import Field

from emloom.geometry.grid import Vec3
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware
from emloom.nn.library import Library
from emloom.nn.model import ModelSpec, ObjectiveSpec
from emloom.nn.networks import NetworkSpec
from emloom.nn.preprocess import Preprocessing
from emloom.nn.train import TrainingData, TrainingSpec, train
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint, write_provenance
from emloom.spec import Spec
from emloom.tasks.data import SplitSpec, held_out
from emloom.tasks.library import open_library
from emloom.tasks.steps import Listener, Plan, Silent, Step, seconds

DECISIVE = frozenset({"data", "objective", "network", "preprocessing", "training"})
"""Fields of a job that decide whether an unfinished training may be gone on with."""


class StackJob(Spec):
    """The part of a job that says what is learned from; kinds of jobs narrow the fields."""

    name: str = Field(min_length=1)
    """Shown in the report."""
    data: tuple[SplitSpec, ...] = Field(min_length=1)
    """One or more stacks of the same voxel size."""

    @property
    def paths(self) -> list[str]:
        """Every file the job reads."""
        return [path for stack in self.data for path in stack.paths]


class TrainingJob(StackJob):
    """The part of a job that says which network learns what from what; kinds of jobs narrow the fields."""

    objective: ObjectiveSpec
    network: NetworkSpec
    preprocessing: Preprocessing = Preprocessing()
    training: TrainingSpec

    @property
    def paths(self) -> list[str]:
        """Every file the job reads."""
        library, start = self.training.augment.defects.library, self.training.start
        weights = [] if start is None or start.model is None else [start.model]
        return [*super().paths, *(library.paths if library else []), *weights]

    def model(self, voxel_size_nm: Vec3) -> ModelSpec:
        """Return what goes into the checkpoint."""
        return ModelSpec(
            objective=self.objective,
            network=self.network,
            preprocessing=self.preprocessing,
            voxel_size_nm=voxel_size_nm,
        )


S = TypeVar("S", bound=StackJob)


@dataclass
class FolderRun(Generic[S]):
    """One execution of a job in a folder; kinds of jobs open their data and do their steps.

    Attributes:
        job: what to do.
        folder: where everything is written.
        hardware: where to compute.
        listener: told about progress.
        executor: where blocks run.
    """

    job: S
    folder: Path
    hardware: Hardware = field(default_factory=Hardware)
    listener: Listener = field(default_factory=Silent)
    executor: Executor = field(default_factory=Serial)

    def __post_init__(self) -> None:
        _ = self.volumes  # what cannot be opened is said before anything is done

    @property
    def volumes(self) -> Sequence[TrainingVolume]:
        """Where samples are drawn."""
        raise NotImplementedError

    @property
    def splits(self) -> Sequence[SplitSpec]:
        """How every stack is split, in boxes."""
        return self.job.data

    @property
    def voxel_size_nm(self) -> Vec3:
        """Voxel size (z, y, x) of the data."""
        return self.volumes[0].raw.info.grid.voxel_size_nm

    @property
    def checkpoint(self) -> Path:
        """The trained model."""
        return self.folder / "train" / "model.safetensors"

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Path and fingerprint of every file the job reads."""
        return {path: fingerprint(path) for path in self.job.paths}

    def keys(self) -> dict[str, str]:
        """Return the key of every step: parameters, inputs, and the keys of the steps before it."""
        raise NotImplementedError

    def provenance(self, stages: Sequence[str]) -> dict[str, Any]:
        """Write provenance.json, and return it."""
        took = seconds(self.folder, stages)
        return write_provenance(self.folder / "provenance.json", self.job.to_dict(), self.inputs, took)

    def carry_out(
        self,
        keys: Mapping[str, str],
        work: Mapping[str, Callable[[Self], None]],
        *,
        overwrite: bool = False,
        until: str = "report",
    ) -> Path:
        """Do the steps that are not done, in the order of `work`; return the path of the report.

        Raises:
            InputError: an input is bad, or the folder holds another job and `overwrite` is not set.
        """
        steps = [Step(name, keys[name], partial(do, self)) for name, do in work.items()]
        Plan(self.job, self.folder, steps, DECISIVE).carry_out(self.listener, overwrite=overwrite, until=until)
        return self.folder / "report.html"


J = TypeVar("J", bound=TrainingJob)


@dataclass
class Execution(FolderRun[J]):
    """One execution of a job that trains a network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.library  # the same of artifacts

    @property
    def model(self) -> ModelSpec:
        """What is being learned."""
        return self.job.model(self.voxel_size_nm)

    @cached_property
    def library(self) -> Library | None:
        """The artifacts that augmentation blends in."""
        spec = self.job.training.augment.defects.library
        return None if spec is None else open_library(spec, self.job.preprocessing, self.voxel_size_nm)

    def trained_key(self, inputs: Mapping[str, str] | None = None) -> str:
        """Return the key of the training: parameters, and fingerprints of what it reads (default: all inputs)."""
        data = [stack.to_dict() for stack in self.job.data]
        return key_of(
            self.model.content_hash(), self.job.training.content_hash(), data, inputs or dict(self.inputs)
        )

    def train(self) -> None:
        """Train, or go on where a training stopped."""
        validation = [(item.stack, item.box) for item in held_out(self.splits, "validation")]
        data = TrainingData(self.volumes, validation, self.library)
        train(self.model, self.job.training, data, self.checkpoint.parent, self.hardware, self.listener.step)


@dataclass(frozen=True)
class Runner(Generic[S]):
    """Runs jobs of one kind, ``run = Runner(Run, {"train": ..., "predict": ..., ...})``.

    Attributes:
        opened: opens the data of a job, for a folder.
        work: what is done at every step, in order.
    """

    opened: Callable[[S, Path, Hardware, Listener, Executor], FolderRun[S]]
    work: Mapping[str, Callable[[Any], None]]

    def __call__(
        self,
        job: S,
        folder: Path,
        hardware: Hardware | None = None,
        listener: Listener | None = None,
        overwrite: bool = False,
        until: str = "report",
        executor: Executor | None = None,
    ) -> Path:
        """Run a job in a folder, going on where an earlier call stopped.

        Args:
            job: what to do.
            folder: where everything is written.
            hardware: where to compute.
            listener: told about progress.
            overwrite: do steps whose parameters or inputs changed, and all after them, again.
            until: last step to do.
            executor: where blocks run, of the steps that have some; default in this process.

        Returns:
            Path of the report.

        Raises:
            InputError: an input is bad, or the folder holds another job and `overwrite` is not set.
        """
        this = self.opened(job, folder, hardware or Hardware(), listener or Silent(), executor or Serial())
        return this.carry_out(this.keys(), self.work, overwrite=overwrite, until=until)
