"""How a command behaves around its work: what it says, how it is stopped, how it fails.

- It is quiet: emloom's own warnings are one line each on stderr, those of libraries are not shown. `-v` shows what
  emloom logs, `-vv` all of it, and the libraries' warnings too; `-q` leaves out progress.
- Ctrl-C and SIGTERM end it in good order, a second one at once. Results are whole or not there, so that nothing is
  lost in either case but the blocks in flight.
- What nobody expected is one line, and a file with the whole trace. `EMLOOM_DEBUG=1` shows the trace itself.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import threading
import traceback
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from emloom import __version__

KEPT = "what was finished is kept; the same command goes on from there"
"""What is said of an interrupted command."""
_TRACES_KEPT = 50

quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether nobody wants to see progress."""


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to stderr as it is now: a progress bar may stand in for it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """The stream of this moment."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        pass


class _OneLine(logging.Formatter):
    """`warning: text`, or with the time and the module for those who want to see everything."""

    def __init__(self, verbose: bool) -> None:
        super().__init__("%(asctime)s %(name)s %(levelname)s: %(message)s" if verbose else "%(message)s")
        self._verbose = verbose

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = super().format(record)
        return text if self._verbose else f"{record.levelname.lower()}: {text}"


def speak(verbose: int) -> None:
    """Show logs on stderr: 0 the warnings of emloom; 1 what else it says; 2 everything, of libraries too."""
    logs, root = logging.getLogger("emloom"), logging.getLogger()
    handler = _Stderr()
    handler.setFormatter(_OneLine(verbose > 0))
    (root if verbose > 1 else logs).addHandler(handler)
    logs.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    if verbose > 1:
        logging.captureWarnings(True)
    elif not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries: emloom itself says what matters in words of its own


@contextmanager
def logs_as_before() -> Iterator[None]:
    """Undo afterwards what `speak` did."""
    logs, root, level = logging.getLogger("emloom"), logging.getLogger(), logging.getLogger("emloom").level
    nobody = logging.NullHandler()
    root.addHandler(nobody)  # else Python would print the warnings of libraries
    try:
        with warnings.catch_warnings():
            yield
    finally:
        root.removeHandler(nobody)
        logging.captureWarnings(False)
        logs.setLevel(level)
        for logger in (logs, root):
            for handler in [each for each in logger.handlers if isinstance(each, _Stderr)]:
                logger.removeHandler(handler)


class Stopping:
    """How a command is asked to stop, by Ctrl-C or SIGTERM: in good order; the second time at once.

    Python itself hears of a signal only between two of its own steps, and a kernel may take minutes. So a thread
    of its own counts the signals, and ends the process at the second, whatever the main thread is doing.

    Attributes:
        status: the exit status that says who asked: 128 and the number of the signal; 0 while nobody did.
    """

    def __init__(self) -> None:
        self.status = 0
        self._handlers: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._fd_before = -1
        self._answer = threading.Lock()  # whoever takes it answers the first signal, and keeps it

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._fd_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._handlers = {number: signal.signal(number, self._stop) for number in _STOPS}
            os.register_at_fork(after_in_child=self._leave_children_alone)
            threading.Thread(target=self._count, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is not None:
            self._restore()
            os.write(self._pipe[1], bytes([_END]))
            os.close(self._pipe[1])
            self._pipe = None

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.status = self.status or 128 + number
        self._answer_once()
        raise KeyboardInterrupt

    def _answer_once(self) -> None:
        if self._answer.acquire(blocking=False):
            _say("\nstopping; once more ends it at once\n")

    def _count(self, pipe: int) -> None:
        """Count signals as they come, until `_END` does."""
        asked = 0
        with os.fdopen(pipe, "rb", buffering=0) as numbers:
            while (byte := numbers.read(1)) and byte[0] != _END:
                asked += byte[0] in _STOPS
                if asked > 1:
                    _say(f"\nended at once: {KEPT}\n")
                    _end_children()
                    os._exit(128 + byte[0])
                if asked:
                    self._answer_once()

    def _restore(self) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _leave_children_alone(self) -> None:
        """In a process that was forked: its signals are not those of the command."""
        if self._pipe is not None:
            self._restore()


_STOPS = (signal.SIGINT, signal.SIGTERM)
_END = 0


def _say(text: str) -> None:
    # Not through Python's buffers, which the interrupted code may hold.
    with suppress(OSError):
        os.write(2, text.encode())


def _end_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


def failure(problem: BaseException, words: list[str]) -> str:
    """Keep the trace of an unexpected error in a file; return the line for a person.

    Args:
        problem: what happened.
        words: the command line.
    """
    what = " ".join(f"{type(problem).__name__}: {problem}".split())
    what = what if len(what) <= 200 else f"{what[:200]}..."
    head = (
        f"emloom {__version__}, Python {platform.python_version()}, {platform.platform()}\n{' '.join(words)}\n\n"
    )
    text = head + "".join(traceback.format_exception(problem))
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{now}-{uuid.uuid4().hex[:6]}.txt"
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        for old in sorted(folder.glob("*.txt"))[:-_TRACES_KEPT]:
            old.unlink(missing_ok=True)
        return f"error: {what} (a bug? full trace: {path})"
    return f"error: {what} (a bug? EMLOOM_DEBUG=1 shows the full trace)"


def _folders() -> Iterator[Path]:
    import tempfile

    state = os.environ.get("XDG_STATE_HOME")
    with suppress(RuntimeError):  # nobody knows where home is
        yield (Path(state) if state else Path.home() / ".local" / "state") / "emloom" / "errors"
    yield Path(tempfile.gettempdir()) / f"emloom-errors-{os.getuid()}"
