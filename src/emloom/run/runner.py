"""Run a stage: every block once, whatever happens to the machines that do it.

::

    run_stage ── blocks without a marker ─► executor ─► in a worker: same emloom? no marker yet?
        ▲                                               work(block) ─► outputs, then the marker
        └──── retried, at the end ◄──── failed ◄─────── or a file in failed/ with the traceback

The driver holds nothing that could be lost: killed, it starts again from the markers. Blocks that fail are tried
again after all others, up to `retries` times: a disk that hiccuped may have recovered. An `InputError` is not
tried again. A block whose worker died is tried alone the last time, so that none pays for a neighbour.

A stage with blocks left over is an error that names them; a part of a result is never passed on as a result.
"""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal

import emloom
from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.io.files import way_out
from emloom.run.blockjournal import BlockJournal, Failure, name_of
from emloom.run.executor import Attempt, Executor
from emloom.run.pace import Pace
from emloom.run.stage import B, Output, Stage
from emloom.run.watch import ended_after
from emloom.run.workspace import RECORD

MOST_FAILURES_IN_A_ROW = 20
_MOST_LISTED = 10
_LOG_PAUSE_S = 30.0

_log = logging.getLogger(__name__)


class BlocksFailedError(InputError):
    """Some blocks of a stage are not done; the others are, and stay so.

    Attributes:
        failures: the blocks that failed, in z, y, x order.
        untried: how many blocks were given up without being tried.
    """

    exit_status = 1

    def __init__(self, message: str, failures: Sequence[Failure], untried: int = 0) -> None:
        super().__init__(message)
        self.failures = tuple(failures)
        self.untried = untried


class WorkerVersionError(InputError):
    """A worker runs another version of emloom than the driver."""


@dataclass(frozen=True)
class StageReport:
    """What running a stage came to.

    Attributes:
        name: of the stage.
        key: of the stage.
        done: blocks that are done now: all of them.
        skipped: blocks that were done before.
        ran: blocks that ran now.
        seconds: wall time of this run.
    """

    name: str
    key: str
    done: int
    skipped: int
    ran: int
    seconds: float


@dataclass(frozen=True)
class _Result:
    """How a block ended in its worker; plain values only, so that it always finds its way back."""

    state: Literal["done", "failed", "foreign"]
    failure: Failure | None = None
    again: bool = False
    noted: bool = False


@dataclass(frozen=True)
class _Task(Generic[B]):
    block: B
    attempt: int


@dataclass(frozen=True)
class _Unit(Generic[B]):
    """What a worker does with one block."""

    journal: BlockJournal
    work: Callable[[B], Sequence[Output]]
    version: str
    limit_s: float | None

    @property
    def label(self) -> str:
        """Names the work in a scheduler's own records."""
        return self.journal.stage

    def __call__(self, task: _Task[B]) -> _Result:
        index = task.block.index
        if self.version != emloom.__version__:
            return _Result("foreign", Failure(index, self._foreign(), task.attempt, socket.gethostname()))
        if self.journal.marker(index) is not None:
            return _Result("done")
        started = time.perf_counter()
        try:
            with ended_after(self.limit_s, lambda stack: self._late(task, stack)):
                outputs = self.work(task.block)
            self.journal.mark(index, outputs, time.perf_counter() - started)
        except Exception as problem:  # noqa: BLE001 (a block's function may raise anything, and it is all told)
            return self._failed(task, problem)
        return _Result("done")

    def _failed(self, task: _Task[B], problem: Exception) -> _Result:
        advice = None if isinstance(problem, InputError) else way_out(problem)
        if advice is not None:
            place = getattr(problem, "filename", None) or self.journal.folder
            error, again = f"InputError: {place}: {advice}", False
        else:
            error, again = f"{type(problem).__name__}: {problem}", not isinstance(problem, InputError)
        text = "".join(traceback.format_exception(problem))
        failure = Failure(task.block.index, error, task.attempt, socket.gethostname(), text)
        return _Result("failed", failure, again, self.journal.note(failure))

    def _late(self, task: _Task[B], stack: str) -> None:
        error = (
            f"took longer than {(self.limit_s or 0) / 60:g} minutes, so its worker was ended; where blocks are "
            "slow and do not hang, use smaller ones, or a longer limit (--block-minutes)"
        )
        self.journal.note(Failure(task.block.index, error, task.attempt, socket.gethostname(), stack))

    def _foreign(self) -> str:
        return (
            f"the worker on {socket.gethostname()} runs emloom {emloom.__version__}, this command emloom "
            f"{self.version}: install the same version for both, and start the workers again"
        )


def run_stage(
    stage: Stage[B],
    folder: str | Path,
    executor: Executor,
    *,
    retries: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> StageReport:
    """Run every block of a stage that has no marker yet.

    Args:
        stage: what to do.
        folder: output folder of the run, the same path for every worker.
        executor: where to do it.
        retries: how often a block that failed is tried again.
        progress: called with (blocks done, blocks in all), at the start and as blocks finish.

    Raises:
        BlocksFailedError: blocks are left over; `emloom.run.verify.status` lists them, too.
        WorkerVersionError: a worker runs another emloom; nothing more is sent out.
        InputError: the folder holds this stage of another job, or the disk refuses.
    """
    started = time.perf_counter()
    journal = BlockJournal(Path(folder), stage.name, stage.key)
    journal.start(len(stage.blocks))
    done = journal.done()
    todo = [block for block in stage.blocks if block.index not in done]
    total = len(stage.blocks)
    run: _Run[B] = _Run(journal, total, progress, Pace(total, total - len(todo)))
    run.tell()
    unit = _Unit(journal, stage.work, emloom.__version__, executor.limit_s if stage.bounded else None)
    run.carry_out(unit, todo, executor, retries)
    ran = run.pace.done - run.pace.before
    return StageReport(
        stage.name, stage.key, run.pace.done, run.pace.before, ran, round(time.perf_counter() - started, 3)
    )


@dataclass
class _Run(Generic[B]):
    """The driver's view of a stage in progress."""

    journal: BlockJournal
    total: int
    progress: Callable[[int, int], None] | None
    pace: Pace
    failures: dict[Vec, Failure] = field(default_factory=dict)
    orphans: set[Vec] = field(default_factory=set)  # their worker died
    in_a_row: int = 0
    spoke: float = field(default_factory=time.monotonic)

    def carry_out(self, unit: _Unit[B], todo: Sequence[B], executor: Executor, retries: int) -> None:
        again = [_Task(block, 1) for block in todo]
        for attempt in range(1, retries + 2):
            last = attempt > 1 and attempt == retries + 1
            alone = [[task] for task in again if last and task.block.index in self.orphans]
            together = [task for task in again if not (last and task.block.index in self.orphans)]
            again = [task for batch in (together, *alone) for task in self._batch(executor, unit, batch)]
        if self.pace.done < self.total:
            raise self._left_over()

    def _batch(self, executor: Executor, unit: _Unit[B], tasks: Sequence[_Task[B]]) -> list[_Task[B]]:
        """Try some blocks; returns those that may be tried again."""
        again: list[_Task[B]] = []
        if not tasks or self.gave_up():
            return again
        with closing(executor.map(unit, tasks)) as attempts:
            for attempt in attempts:
                if self._settle(attempt):
                    again.append(_Task(attempt.item.block, attempt.item.attempt + 1))
                if self.gave_up():
                    break
        return again

    def gave_up(self) -> bool:
        return self.in_a_row >= MOST_FAILURES_IN_A_ROW

    def _settle(self, attempt: Attempt[_Task[B], _Result]) -> bool:
        """Take note of how a block ended; returns whether it may be tried again."""
        index, result = attempt.item.block.index, attempt.result
        if result is None:
            # A worker that was ended for being late has left word of it.
            said = self.journal.failure(index)
            noted = said is not None and said.attempts == attempt.item.attempt
            failure = (
                said if said and noted else Failure(index, attempt.error or "no result", attempt.item.attempt)
            )
            result = _Result("failed", failure, again=True, noted=noted)
            self.orphans.add(index)
        if result.state == "foreign" and result.failure is not None:
            raise WorkerVersionError(result.failure.error)
        if result.failure is None:
            self.failures.pop(index, None)
            self.in_a_row = 0
            self.pace.advance()
            self.tell()
            return False
        self.in_a_row += 1
        self.failures[index] = result.failure
        if not result.noted:  # the worker died, or its disk did: try from here
            self.journal.note(result.failure)
        _log.warning("%s: block %s failed: %s", self.journal.stage, name_of(index), result.failure.error)
        return result.again

    def tell(self) -> None:
        if self.progress is not None:
            self.progress(self.pace.done, self.total)
        if time.monotonic() - self.spoke > _LOG_PAUSE_S:
            self.spoke = time.monotonic()
            _log.info("%s: %s", self.journal.stage, self.pace)

    def _left_over(self) -> BlocksFailedError:
        failures = [self.failures[index] for index in sorted(self.failures)]
        untried = self.total - self.pace.done - len(failures)
        lines = [f"{len(failures)} of {self.total} blocks of stage {self.journal.stage!r} failed:"]
        lines += [
            f"  {name_of(failure.index)}  {_in_a_line(failure.error)}" for failure in failures[:_MOST_LISTED]
        ]
        if len(failures) > _MOST_LISTED:
            lines.append(f"  ... and {len(failures) - _MOST_LISTED} more")
        if self.gave_up():
            lines.append(f"stopped after {self.in_a_row} failures in a row; {untried} blocks were not tried")
        lines.append(f"tracebacks: {self.journal.failed_folder}")
        folder = self.journal.folder
        again = f"`emloom retry {folder}`" if (folder / RECORD).exists() else "the same command"
        lines.append(f"what is done stays done: mend the cause, then {again} runs the others")
        return BlocksFailedError("\n".join(lines), failures, untried)


def _in_a_line(text: str, most: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
