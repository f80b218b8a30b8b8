"""Blocks on many processes, here or on a cluster: an executor on dask.distributed.

Scheduling is all that is left to dask: which worker takes which block. What is done stands in the markers, so a
scheduler that dies costs nothing but the blocks in work, and workers may come, go and be killed::

    driver ── at most 2 x threads + 2 blocks under way ──► scheduler ──► workers ──► blocks, markers (shared disk)

A block whose worker dies is given to another one by the scheduler; after some deaths it comes back as an error,
and the runner decides. Such an error also meets blocks that only waited on the same worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import signal
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from emloom.errors import InputError
from emloom.run.executor import Attempt, Executor, Serial
from emloom.run.watch import LIMIT_S

T = TypeVar("T")
R = TypeVar("R")
# Imported where they are used: distributed takes a second. Its own types are too partial to check against.
Client = Any
Future = Any
LocalCluster = Any

_POLL_S = 1.0
_GATHER_S = 10.0
_COUNT_PAUSE_S = 2.0
_LONELY_S = 60.0
_LOCAL_DEATHS = (
    1  # of workers that a block may outlive before it is handed back; few, for each costs a new process
)
_QUIET = {
    "distributed.admin.tick.interval": "1s",  # of a check on the event loop, 50 times a second by default
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.profile.enabled": False,  # which looks at every worker 100 times a second
}
"""What dask watches for its dashboard costs a tenth of a core per process, also while nothing happens."""

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_log = logging.getLogger(__name__)


class Dask:
    """Runs blocks on the workers of a dask scheduler; a context manager.

    Exactly one of the first three arguments says where.

    Args:
        workers: start this many processes on this machine, one thread each, and end them on leaving.
        scheduler: address of a running scheduler, ``tcp://host:8786``; its workers are left alone.
        scheduler_file: the file that ``dask scheduler --scheduler-file`` writes.
        timeout_s: how long a scheduler may take to answer.
        limit_s: how long a block may take before its worker is ended; None: as long as it likes.

    Raises:
        InputError: none or several places are given, or fewer than one worker.
    """

    parallel = True

    def __init__(
        self,
        *,
        workers: int | None = None,
        scheduler: str | None = None,
        scheduler_file: str | Path | None = None,
        timeout_s: float = 10.0,
        limit_s: float | None = LIMIT_S,
    ) -> None:
        if sum(place is not None for place in (workers, scheduler, scheduler_file)) != 1:
            raise InputError("say where blocks run in one way: a number of workers, or a scheduler")
        if limit_s is not None and limit_s <= 0:
            raise InputError(f"a limit of {limit_s} s lets no block end: use some minutes, or no limit")
        if workers is not None and workers < 1:
            raise InputError(f"{workers} workers do nothing: use at least 1")
        self._workers, self._scheduler, self._file = workers, scheduler, scheduler_file
        self._timeout_s = timeout_s
        self.limit_s = limit_s
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None

    def __enter__(self) -> Self:
        """Start the workers, or find the scheduler.

        Raises:
            InputError: the scheduler does not answer.
        """
        import distributed

        if self._workers is not None:
            self._cluster = _local_cluster(self._workers)
            self._client = distributed.Client(self._cluster, set_as_default=False)
            return self
        address = self._scheduler if self._scheduler is not None else self._address()
        try:
            asyncio.run(asyncio.wait_for(_knock(address, self._timeout_s), self._timeout_s))
            self._client = distributed.Client(address, timeout=self._timeout_s, set_as_default=False)
        except (OSError, ValueError) as problem:  # also a time that ran out, and an address that is none
            raise InputError(
                f"the scheduler at {address} does not answer: {problem}; check that it runs (`dask scheduler`) "
                "and that this machine reaches it, or leave --scheduler out to work on this machine alone"
            ) from problem
        return self

    def __exit__(self, *_: object) -> None:
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        if client is not None:
            client.close()
        if cluster is not None:
            cluster.close()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[Attempt[T, R], None, None]:
        """Yield an attempt per item, as they end.

        Raises:
            InputError: the scheduler went away.
            RuntimeError: called outside of the ``with`` block.
        """
        if self._client is None:
            raise RuntimeError("use Dask in a with block: its workers exist only there")
        window = _Window(self._client, self._where, self._restore)
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        pending: dict[str, tuple[Future, T]] = {}
        label = getattr(function, "label", None) or getattr(function, "__name__", "blocks")
        source = iter(items)
        try:
            while True:
                for item in islice(source, max(0, window.size() - len(pending))):
                    # A key of its own per attempt: dask remembers keys. The label lets it learn durations.
                    future = self._client.submit(function, item, key=f"{label}-{uuid.uuid4().hex}")
                    pending[future.key] = (future, item)
                    future.add_done_callback(ended.put)
                if not pending:
                    return
                with suppress(queue.Empty):
                    future, item = pending[ended.get(timeout=_POLL_S).key]
                    attempt = self._attempt(item, future)
                    if attempt is None:
                        future.add_done_callback(ended.put)
                    else:
                        del pending[future.key]
                        yield attempt
        finally:
            if pending and self._client is not None and self._client.status == "running":
                self._client.cancel([future for future, _ in pending.values()])

    def _restore(self, threads: int) -> None:
        """Replace own workers that are gone for good: one killed while it starts is not started again by dask."""
        if self._cluster is not None and self._workers is not None and threads < self._workers:
            self._cluster.scale(self._workers)

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers there are now."""
        if self._client is None:
            return []
        return [int(pid) for pid in self._client.run(os.getpid, on_error="ignore").values()]

    def _attempt(self, item: T, future: Future) -> Attempt[T, Any] | None:
        """Return how an item ended; None where its result died with its worker, and it runs again."""
        try:
            if future.status == "finished":
                return Attempt(item, future.result(timeout=_GATHER_S))
            if future.status == "error":
                return Attempt(item, None, _told(future.exception(timeout=_GATHER_S)))
        except TimeoutError:
            return None
        except asyncio.CancelledError:  # what distributed raises for a future that was dropped
            pass
        except Exception as problem:  # noqa: BLE001 (it ran again, and now has an error: of any kind)
            return Attempt(item, None, _told(problem))
        if future.status in ("lost", "pending"):
            return None
        raise InputError(
            f"the scheduler at {self._where} went away: what is done stays done; start it again, then the same "
            "command goes on from there"
        )

    @property
    def _where(self) -> str:
        if self._client is not None and self._client.scheduler is not None:
            return str(self._client.scheduler.address)
        return str(self._scheduler or self._file or "this machine")

    def _address(self) -> str:
        """Return the address in the scheduler file; it may be about to be written."""
        path = Path(self._file or "")
        deadline = time.monotonic() + self._timeout_s
        while True:
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(json.loads(path.read_text(encoding="utf-8"))["address"])
            if time.monotonic() > deadline:
                break
            time.sleep(min(0.1, self._timeout_s))
        what = "names no address" if path.exists() else "does not exist"
        raise InputError(
            f"the scheduler file {path} {what}: start the scheduler with `dask scheduler --scheduler-file "
            f"{path}`, on a disk that this machine sees"
        )


@contextmanager
def executor_of(
    workers: int = 1, scheduler: str | None = None, limit_s: float | None = LIMIT_S
) -> Iterator[Executor]:
    """Yield the executor that ``--workers`` and ``--scheduler`` ask for.

    Args:
        workers: processes on this machine; 1 is this process itself.
        scheduler: address of a scheduler (``tcp://host:8786``) or path of a scheduler file; `workers` is then 1.
        limit_s: how long a block may take in another process; None: as long as it likes.

    Raises:
        InputError: both are given, fewer than one worker, or the scheduler does not answer.
    """
    if scheduler is None and workers == 1:
        yield Serial()
        return
    if scheduler is None:
        dask = Dask(workers=workers, limit_s=limit_s)
    elif workers != 1:
        raise InputError(
            f"--workers {workers} and --scheduler {scheduler} exclude each other: a scheduler has its own workers"
        )
    elif "://" in scheduler:
        dask = Dask(scheduler=scheduler, limit_s=limit_s)
    else:
        dask = Dask(scheduler_file=scheduler, limit_s=limit_s)
    with dask:
        yield dask


async def _knock(address: str, timeout_s: float) -> None:
    """Connect once and leave. (A client that fails to connect never lets go of its threads.)"""
    from distributed import Security
    from distributed.comm import connect

    comm = await connect(address, timeout=timeout_s, **Security().get_connection_args("client"))
    comm.abort()


class _Window:
    """How many blocks may be under way, from the workers there are now."""

    def __init__(self, client: Client, where: str, restore: Callable[[int], None]) -> None:
        self._client, self._where, self._restore = client, where, restore
        self._threads, self._counted = 0, float("-inf")
        self._lonely_since: float | None = None

    def size(self) -> int:
        """Return the window; says so, once a minute, when nobody is there to work."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_PAUSE_S and self._client.status == "running":
            self._counted = now
            with suppress(OSError):  # a connection that is lost ends the blocks under way, which is seen there
                self._threads = sum(self._client.nthreads().values())
            self._restore(self._threads)
            self._complain(now)
        return 2 * self._threads + 2

    def _complain(self, now: float) -> None:
        if self._threads or self._lonely_since is None:
            self._lonely_since = now
        elif now - self._lonely_since >= _LONELY_S:
            self._lonely_since = now
            _log.warning(
                "the scheduler at %s has had no workers for a minute: blocks wait; start workers with "
                "`dask worker %s`",
                self._where,
                self._where,
            )


def _told(problem: BaseException | None) -> str:
    from distributed import KilledWorker

    if isinstance(problem, KilledWorker):
        return (
            f"its worker died, {problem.allowed_failures + 1} times (last {problem.last_worker.address}): out "
            "of memory, out of its time limit, or a library that crashed; see the worker's own log"
        )
    return f"{type(problem).__name__}: {problem}"


def dask_setup(_: Any) -> None:
    """Leave Ctrl-C to the driver, which ends its workers in good order; called by dask in each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _local_cluster(workers: int) -> LocalCluster:
    import dask
    import distributed

    # Starting workers sets their environment in this process, too; what it was is put back.
    before = dict(os.environ)
    try:
        with dask.config.set(_QUIET):
            return distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # none: dask would pause and kill workers by its own rules
                dashboard_address="127.0.0.1:0",  # for this machine only, at any port
                worker_dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                scheduler_kwargs={"allowed_failures": _LOCAL_DEATHS},
                env=dict.fromkeys(_ONE_THREAD, "1"),
                preload=[__name__],
                config=_QUIET,  # of workers that come later, too
            )
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
