"""How a command ends that the system, not its input, has stopped: disks, memory, and readers that went away."""

from __future__ import annotations

import errno
import os
import sys

import typer

from emloom.io.files import way_out


def ended(problem: Exception) -> int | None:
    """Tell in one paragraph what the system refused, and return the exit status; None for what it did not refuse.

    A reader that went away (``emloom info ... | head``) wants to hear nothing more, and is told nothing.
    """
    if isinstance(problem, MemoryError):
        what = f" ({problem})" if str(problem) else ""
        typer.echo(
            f"error: there is not enough memory{what}: take smaller blocks or boxes, fewer workers, or a machine "
            "with more memory; what was finished is kept",
            err=True,
        )
        return 2
    if isinstance(problem, OSError) and problem.errno == errno.EPIPE:
        # Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    advice = way_out(problem)
    if advice is None:
        return None
    place = getattr(problem, "filename", None) or "the output of this command"
    typer.echo(f"error: cannot use {place}: {advice}", err=True)
    return 2
