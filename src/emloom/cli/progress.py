"""Progress on the terminal: a bar per stage with rate, time to go and memory; else a line per stage and minute.

Everything goes to stderr. `--quiet` leaves all of it out. The memory is what this process and those that it
started hold now; what they share is counted once for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from emloom.cli.manners import quiet
from emloom.run.pace import Pace

if TYPE_CHECKING:
    from emloom.nn.train import Progress as TrainingProgress

LINE_SECONDS = 60.0
"""Without a terminal, one line this often."""
_GIB = 2**30


def resident_bytes() -> int:
    """Return the memory that this process and its children hold; 0 where nobody can say."""
    import psutil

    total = 0
    with suppress(psutil.Error):
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended meanwhile
                total += int(process.memory_info().rss)
    return total


def memory_text() -> str:
    """Return that memory in words."""
    return f"{resident_bytes() / _GIB:.1f} GiB"


class MemoryColumn(ProgressColumn):
    """The memory of the command and its workers."""

    max_refresh = 2.0

    def render(self, task: Task) -> Text:
        """Return the column of a task; nothing once it is done."""
        return Text("" if task.finished else memory_text())


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("eta"),
        TimeRemainingColumn(),
        MemoryColumn(),
        console=console,
        disable=quiet.get() or not console.is_terminal,
    )


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show one bar; yields a function of (parts done, parts in all)."""
    with TerminalListener() as listener:
        yield lambda done, total: listener.advance(name, done, total)


@contextmanager
def blocks_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar per stage, with blocks per second; yields a function of (stage, blocks done, blocks in all)."""
    with TerminalListener() as listener:
        yield listener.blocks


class TerminalListener:
    """Shows the stages of a run as they happen."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, quiet=quiet.get())
        self.progress = _progress(self.console)
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._ended: set[str] = set()
        self._spoke = time.monotonic()

    def __enter__(self) -> TerminalListener:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def stage(self, name: str, skipped: bool) -> None:
        """Say that a stage starts, or is skipped because it is done."""
        self._line(f"{name}: " + ("already done, skipped" if skipped else "running"))

    def step(self, progress: TrainingProgress) -> None:
        """Show a training step: loss, samples per second, share of time waiting for data."""
        note = f"loss {progress.loss:.3f}  {progress.samples_per_s:.2f} samples/s  wait {progress.wait_share:.0%}"
        if progress.validation is not None:
            self._line(f"  step {progress.step}: validation loss {progress.validation:.4f}  ({note})")
        self._update("train", progress.step, progress.steps, note)

    def advance(self, name: str, done: int, total: int) -> None:
        """Show that one of `total` parts of a stage is done."""
        self._update(name, done, total, "")

    def blocks(self, name: str, done: int, total: int) -> None:
        """Show how many blocks of a stage are done, and how fast they are done now."""
        pace = self._pace(name, done, total)
        rate = f"{pace.blocks_per_s:.3g} blocks/s" if done > pace.before and pace.blocks_per_s > 0 else ""
        self._update(name, done, total, rate)

    def _pace(self, name: str, done: int, total: int) -> Pace:
        pace = self._paces.setdefault(name, Pace(total, done))
        pace.total, pace.done = total, max(done, pace.before)
        return pace

    def _update(self, name: str, done: int, total: int, note: str) -> None:
        pace = self._pace(name, done, total)
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total, note=note)
        self.progress.update(self._tasks[name], completed=done, total=total, note=note)
        if not (self.console.is_terminal or self.console.quiet):
            ended = done >= total and name not in self._ended
            if ended or time.monotonic() - self._spoke >= LINE_SECONDS:
                parts = [f"  {name} {done}/{total}", note, "" if ended else pace.to_go, memory_text()]
                self._line("  ".join(part for part in parts if part))
            if ended:
                self._ended.add(name)

    def _line(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(text, highlight=False)
