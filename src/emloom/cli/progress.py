"""Progress on the terminal: a bar per stage with rate and time to go; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from emloom.nn.train import Progress as TrainingProgress

_QUIET_SECONDS = 30.0  # without a terminal, one line this often


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show one bar; yields a function of (parts done, parts in all)."""
    with _progress(Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None, note="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def blocks_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar per stage, with blocks per second; yields a function of (stage, blocks done, blocks in all)."""
    with TerminalListener() as listener:
        yield listener.blocks


class TerminalListener:
    """Shows the stages of a run as they happen."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.progress = _progress(self.console)
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[int, float]] = {}
        self._spoke = time.monotonic()

    def __enter__(self) -> TerminalListener:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def stage(self, name: str, skipped: bool) -> None:
        """Say that a stage starts, or is skipped because it is done."""
        self.console.print(f"{name}: " + ("already done, skipped" if skipped else "running"), highlight=False)

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
        first, began = self._began.setdefault(name, (done, time.monotonic()))
        seconds = time.monotonic() - began
        rate = f"{(done - first) / seconds:.3g} blocks/s" if done > first and seconds > 0 else ""
        self._update(name, done, total, rate)

    def _update(self, name: str, done: int, total: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total, note=note)
        self.progress.update(self._tasks[name], completed=done, note=note)
        if not self.console.is_terminal and time.monotonic() - self._spoke > _QUIET_SECONDS:
            self._line(f"  {name} {done}/{total}  {note}")

    def _line(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(text, highlight=False)
