"""The steps of a job in its folder: each is done once, under a key that says what went in.

::

    job.yaml  report.html
    <step>/           what a step made; the step `train` can be cut short and gone on with
    markers/          one per finished step

A step is skipped if its marker carries the key we would write now: a hash of its own parameters, of the
fingerprints of its inputs and of the keys before it. A folder of another job is refused before anything in it is
touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emloom.errors import InputError, did_you_mean
from emloom.io.files import write_text_atomic
from emloom.nn.train import Progress
from emloom.run.alone import work_alone
from emloom.run.journal import Journal
from emloom.spec import Spec


class Listener(Protocol):
    """What a run tells whoever watches it."""

    def stage(self, name: str, skipped: bool) -> None:
        """Say that a step starts, or is skipped because it is done."""

    def step(self, progress: Progress) -> None:
        """Say that a training step is done."""

    def advance(self, name: str, done: int, total: int) -> None:
        """Say that one of `total` parts of a step is done."""


class Silent:
    """A listener that says nothing."""

    def stage(self, name: str, skipped: bool) -> None:
        """Say nothing."""

    def step(self, progress: Progress) -> None:
        """Say nothing."""

    def advance(self, name: str, done: int, total: int) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Step:
    """One step of a job.

    Attributes:
        name: of the step, and of the folder of what it makes.
        key: says what went in.
        work: does it.
    """

    name: str
    key: str
    work: Callable[[], None]


TRAIN = "train"
"""Name of the step whose unfinished state is kept."""
REPORT = "report"
"""Name of the step that makes no folder."""


@dataclass(frozen=True)
class Plan:
    """All steps of a job, in their order.

    Attributes:
        job: what is written into the folder.
        folder: where.
        steps: what is done.
        decisive: fields of the job that decide whether an unfinished training may be gone on with.
    """

    job: Spec
    folder: Path
    steps: Sequence[Step]
    decisive: frozenset[str]

    def carry_out(self, listener: Listener, *, overwrite: bool = False, until: str = REPORT) -> None:
        """Do what is not done.

        Args:
            listener: told about progress.
            overwrite: do steps whose parameters or inputs changed, and all after them, again.
            until: last step to do.

        Raises:
            InputError: the folder holds another job and `overwrite` is not set, another process is at work in it,
                or there is no such step.
        """
        names = [step.name for step in self.steps]
        if until not in names:
            raise InputError(
                f"there is no step {until!r}{did_you_mean(until, names)}: there are {', '.join(names)}"
            )
        journal = Journal(self.folder)
        if self.folder.is_dir():
            work_alone(self.folder)
        if overwrite:
            self._forget_changed(journal)
        # Asked of all steps before any is done: a folder of another job is refused before it is touched.
        done = {step.name: journal.is_done(step.name, step.key) for step in self.steps}
        self.folder.mkdir(parents=True, exist_ok=True)
        work_alone(self.folder)
        write_text_atomic(self.folder / "job.yaml", self.job.to_yaml())
        for step in self.steps[: names.index(until) + 1]:
            listener.stage(step.name, done[step.name])
            if not done[step.name]:
                with journal.record(step.name, step.key):
                    step.work()

    def _forget_changed(self, journal: Journal) -> None:
        if journal.marker(TRAIN) is None and self._training_differs():
            shutil.rmtree(self.folder / TRAIN, ignore_errors=True)
        markers = {step.name: journal.marker(step.name) for step in self.steps}
        changed = [n for n, step in enumerate(self.steps) if (m := markers[step.name]) and m.key != step.key]
        if not changed:
            return
        for step in self.steps[changed[0] :]:
            journal.forget(step.name)
            if step.name != REPORT:
                shutil.rmtree(self.folder / step.name, ignore_errors=True)

    def _training_differs(self) -> bool:
        """Whether an interrupted training in the folder, which has no marker yet, belongs to another job."""
        path = self.folder / "job.yaml"
        if not path.exists():
            return False
        try:
            before = type(self.job).load(path)
        except InputError:  # a job of another kind
            return True
        return before.model_dump(include=set(self.decisive)) != self.job.model_dump(include=set(self.decisive))


def seconds(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Return how long the finished steps of a folder took."""
    journal = Journal(folder)
    return {name: marker.seconds for name in names if (marker := journal.marker(name))}
