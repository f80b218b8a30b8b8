"""How fast a stage goes: blocks per second and time to go, from the blocks of this run alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Counts blocks.

    Attributes:
        total: blocks of the stage.
        before: blocks that were done when this run began; they say nothing about its speed.
        done: blocks that are done now.
    """

    total: int
    before: int = 0
    clock: Callable[[], float] = time.monotonic
    done: int = field(init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self.done = self.before
        self._started = self.clock()

    def advance(self) -> None:
        """Count one more block."""
        self.done += 1

    @property
    def blocks_per_s(self) -> float:
        """Blocks per second of this run; 0 before the first."""
        seconds = self.clock() - self._started
        return (self.done - self.before) / seconds if seconds > 0 else 0.0

    @property
    def seconds_to_go(self) -> float | None:
        """Seconds until all blocks are done at this speed; None while nothing is known."""
        rate = self.blocks_per_s
        return (self.total - self.done) / rate if rate > 0 else None

    @property
    def to_go(self) -> str:
        """The time to go in words; empty while nothing is known."""
        left = self.seconds_to_go
        return "" if left is None else f"{_clock(left)} to go"

    def __str__(self) -> str:
        text = f"{self.done} of {self.total} blocks, {self.blocks_per_s:.3g} blocks/s"
        return f"{text}, {self.to_go}" if self.to_go else text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
