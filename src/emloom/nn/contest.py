"""Which backend is fastest here: timed once, on the first tile of the job itself.

Every candidate answers the tile twice: once to warm up (OpenVINO compiles) and to be compared with the first
candidate, once against the clock. Those that differ by more than their tolerance are out, the fastest of the rest
computes everything after. The contest costs about as much as two tiles per candidate, so it pays from about ten
tiles on; for a few tiles name a backend instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from emloom.errors import InputError
from emloom.nn.backends import BF16_MEAN_STEPS, BF16_STEPS, Backend, Stored

log = logging.getLogger(__name__)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Entry:
    """How a candidate did: seconds per tile, largest and mean difference to the reference in steps of 1/255."""

    name: str
    seconds: float
    worst: int
    mean: float
    fits: bool

    def __str__(self) -> str:
        """Say it in words."""
        text = f"{self.name} {self.seconds:.2f} s"
        if self.worst:
            text += f" (differs by at most {self.worst}, on average {self.mean:.2g} of 255)"
        return text if self.fits else f"{text}: not close enough"


class Contest:
    """A backend that times its candidates on the first tile it is given, and is the fastest one from then on.

    Args:
        candidates: the first is the reference, and always good enough.
        clock: seconds.
    """

    def __init__(self, candidates: Sequence[Backend], clock: Clock = time.perf_counter) -> None:
        self._candidates = candidates
        self._clock = clock
        self._winner: Backend | None = candidates[0] if len(candidates) == 1 else None
        self._once = threading.Lock()
        self.entries: tuple[Entry, ...] = ()

    @property
    def name(self) -> str:
        """The winner's name, and why it won."""
        if self._winner is None:
            return f"the fastest of {', '.join(candidate.name for candidate in self._candidates)}"
        if not self.entries:
            return self._winner.name
        return f"{self._winner.name} (on the first tile: {'; '.join(map(str, self.entries))})"

    def __call__(self, x: Tensor) -> dict[str, Stored]:
        """Return stored values by head; the first call is the contest."""
        if self._winner is None:
            with self._once:
                if self._winner is None:
                    winner = self._fastest(x)
                    self._candidates = (winner,)  # lets go of what the others hold in memory
                    self._winner = winner
                    log.info("prediction with %s", self.name)
        return self._winner(x)

    def _fastest(self, x: Tensor) -> Backend:
        entries: list[Entry] = []
        running: list[Backend] = []
        reference = self._candidates[0](x)
        for candidate in self._candidates:
            try:
                answer = reference if candidate is self._candidates[0] else candidate(x)
            except InputError as problem:
                log.info("%s does not take part: %s", candidate.name, problem)
                continue
            worst, mean = difference(answer, reference)
            del answer
            start = self._clock()
            candidate(x)
            seconds = self._clock() - start
            entries.append(Entry(candidate.name, seconds, worst, mean, close_enough(candidate.name, worst, mean)))
            running.append(candidate)
        self.entries = tuple(entries)
        fitting = [(e.seconds, place) for place, e in enumerate(entries) if e.fits]
        return running[min(fitting)[1]]


def close_enough(name: str, worst: int, mean: float) -> bool:
    """Whether differences of this size, in steps of 1/255, are within the tolerance of a backend."""
    if name.endswith("bf16"):
        return worst <= BF16_STEPS and mean <= BF16_MEAN_STEPS
    return worst <= 1


def difference(a: dict[str, Stored], b: dict[str, Stored]) -> tuple[int, float]:
    """Return the largest difference and the largest mean difference of any head, in steps of 1/255."""
    worst, mean = 0, 0.0
    for name, values in a.items():
        steps = np.maximum(values, b[name]) - np.minimum(values, b[name])
        worst = max(worst, int(steps.max(initial=0)))
        mean = max(mean, float(steps.mean()) if steps.size else 0.0)
    return worst, mean
