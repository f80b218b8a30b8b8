"""Split the work of a kernel over threads, so that the bits do not depend on how many there are.

Kernels release the GIL; a piece of work writes what no other piece writes, and its sums have their own order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


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
