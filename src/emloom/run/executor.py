"""Where blocks run: one small protocol, and its simplest form, one after the other in this process.

An executor maps a function over items and yields an `Attempt` for each as it ends, in any order. It takes the next
item only when it has room, so a million blocks never queue up; closing the iterator drops what has not begun.
It neither retries nor judges: that is the runner's business. Many processes are in `emloom.run.cluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Attempt(Generic[T, R]):
    """How one item ended: with a result, or with the error that kept the executor from getting one."""

    item: T
    result: R | None
    error: str | None = None


class Executor(Protocol):
    """Maps functions over items.

    Attributes:
        parallel: whether items may run at the same time.
        limit_s: how long one may take before its process is ended; None where it may take as long as it likes.
    """

    parallel: bool
    limit_s: float | None

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[Attempt[T, R], None, None]:
        """Yield an attempt per item, in any order.

        Args:
            function: picklable; catches its own errors, so that whatever else ends an item (its worker was killed,
                it cannot be pickled) is the attempt's error.
            items: picklable; drawn as there is room.
        """


class Serial:
    """One item after the other, here. Its errors are not caught: they are bugs, and a debugger finds them."""

    parallel = False
    limit_s: float | None = None

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[Attempt[T, R], None, None]:
        """Yield an attempt per item, in order."""
        for item in items:
            yield Attempt(item, function(item))
