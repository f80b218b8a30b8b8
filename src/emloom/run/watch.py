"""A time limit for a block: a worker that hangs on one is ended, so that others go on.

What hangs (a network disk that does not answer, a kernel without end) cannot be interrupted in Python, only its
process can be ended. So there is a limit only where blocks run in processes of their own; a block in this process
may take as long as it likes.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT_S = 600.0
"""How long a block of a bounded size may take, unless told otherwise."""

_EXIT_STATUS = 75  # EX_TEMPFAIL: try again


@contextmanager
def ended_after(limit_s: float | None, last_words: Callable[[str], object]) -> Iterator[None]:
    """End this process if the body takes longer than `limit_s` seconds; None: as long as it likes.

    Args:
        limit_s: the limit.
        last_words: called before the end with the stack of the thread that hangs.
    """
    if limit_s is None:
        yield
        return
    hanging = threading.get_ident()

    def end() -> None:
        try:
            last_words(_stack_of(hanging))
        finally:
            os._exit(_EXIT_STATUS)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame))
