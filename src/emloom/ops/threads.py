"""Rows of a kernel, or pieces of work, shared out among threads.

A kernel that releases the interpreter's lock (``nogil``) and writes rows ``first`` to ``last`` of its output gives
the same bits whatever the number of threads. Unlike numba's own threads, these may be started from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_PARTS = 4  # per thread, so that a slow one does not keep the others waiting


class Threads:
    """A few threads, for as long as it is entered::

        with Threads(2) as threads:
            threads.rows(kernel, len(out), image, out)      # kernel(image, out, first, last), several at a time

    Args:
        count: how many; 1 computes in the caller's thread.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = max(1, count)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def rows(self, kernel: Callable[..., None], total: int, *arguments: Any) -> None:
        """Call ``kernel(*arguments, first, last)`` for parts that together are rows 0 to `total`."""
        if self._pool is None or total < 2:
            kernel(*arguments, 0, total)
            return
        parts = ranges(total, _PARTS * self.count)
        waiting = [self._pool.submit(kernel, *arguments, first, last) for first, last in parts]
        for part in waiting:
            part.result()


def ranges(n: int, parts: int) -> list[tuple[int, int]]:
    """Return at most `parts` half-open ranges of nearly equal length that cover ``range(n)``, in order."""
    parts = max(1, min(n, parts))
    cuts = [n * k // parts for k in range(parts + 1)]
    return list(pairwise(cuts))


def each(work: Callable[[T], object], pieces: Sequence[T], threads: int) -> None:
    """Call `work` on every piece, on as many threads; a failure is raised."""
    if threads <= 1 or len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pieces))
