"""Wherever blocks run, and whoever dies meanwhile: the outcome is that of one undisturbed process."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path

import dask.config
import psutil
import pytest

import emloom
from emloom.errors import InputError
from emloom.run import cluster
from emloom.run.cluster import Dask, executor_of
from emloom.run.executor import Serial
from emloom.run.perworker import once
from emloom.run.runner import BlocksFailedError, WorkerVersionError, run_stage
from emloom.run.verify import verify
from tests.run.painting import calls, outcome, paint_stage

ROOT = Path(__file__).parents[2]
SHAPE = (8, 12, 12)  # 18 blocks
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("clean")
    run_stage(paint_stage(folder), folder, Serial())
    return outcome(folder)


@pytest.fixture(scope="module")
def two() -> Iterator[Dask]:
    """Two workers on this machine; starting them takes seconds. The environment leaves their threads open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        with Dask(workers=2) as dask:
            yield dask


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


# ---- workers of our own -----------------------------------------------------------------------------------------


def test_one_and_two_workers_do_what_one_process_does(tmp_path: Path, two: Dask, clean: dict[str, str]) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        if workers == 2:
            report = run_stage(paint_stage(folder), folder, two)
            assert run_stage(paint_stage(folder), folder, two).ran == 0
        else:
            with Dask(workers=1) as dask:
                report = run_stage(paint_stage(folder), folder, dask)
        assert (report.ran, report.done) == (18, 18)
        assert outcome(folder) == clean
        assert verify(folder, paint_stage(folder), two) == []


def test_damage_is_found_by_workers_too(tmp_path: Path, two: Dask) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, two)
    (tmp_path / "parts" / "1_1_1.txt").unlink()
    assert [(d.index, d.place) for d in verify(tmp_path, stage, two)] == [((1, 1, 1), "parts/1_1_1.txt")]


@pytest.mark.fault(
    "workers",
    "one block raises, one kills its worker, one finds the disk full",
    "error: lists the three with their reasons; the others are done",
)
def test_blocks_that_raise_or_kill_are_listed_and_the_others_done(
    tmp_path: Path, two: Dask, clean: dict[str, str]
) -> None:
    stage = paint_stage(tmp_path, mischief={(0, 0, 1): "raise", (0, 2, 2): "die", (1, 1, 1): "disk full"})
    with pytest.raises(BlocksFailedError) as caught:
        run_stage(stage, tmp_path, two)
    poisoned, deadly, full = caught.value.failures
    assert (poisoned.index, poisoned.error) == ((0, 0, 1), "RuntimeError: poisoned")
    assert deadly.index == (0, 2, 2)
    assert "its worker died" in deadly.error
    assert "the disk is full" in full.error
    counts = Counter(calls(tmp_path))
    # Three attempts and one; a few more where news of them died with a worker that was killed next.
    assert 3 <= counts["0_0_1"] <= 3 + 6
    assert 1 <= counts["1_1_1"] <= 1 + 6
    assert 3 <= counts["0_2_2"] <= 3 * 2  # three attempts; the scheduler gives each a second worker
    (failed,) = (tmp_path / "run").rglob("0_2_2.json")  # written by the driver: its worker could not
    assert "its worker died" in json.loads(failed.read_text())["error"]
    assert run_stage(paint_stage(tmp_path), tmp_path, two).ran == 3
    assert outcome(tmp_path) == clean


@pytest.mark.fault(
    "workers",
    "workers are killed at random",
    "blocks in flight run again elsewhere: same bits",
)
@pytest.mark.parametrize("seed", range(2))
def test_workers_may_be_killed_at_any_time(tmp_path: Path, two: Dask, seed: int, clean: dict[str, str]) -> None:
    draw = random.Random(seed)
    stop, killed, unlucky = threading.Event(), [], []

    def kill() -> None:
        while len(killed) < 4 and not stop.wait(draw.uniform(0.1, 0.7)):
            if pids := two.worker_pids():
                killed.append(draw.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(10):  # a block that was unlucky in every attempt is listed, and a later run does it
            try:
                run_stage(paint_stage(tmp_path, pause_s=0.25), tmp_path, two)
                break
            except BlocksFailedError as problem:
                unlucky += problem.failures
    finally:
        stop.set()
        killer.join()
    assert killed
    assert all("its worker died" in failure.error for failure in unlucky)
    assert outcome(tmp_path) == clean
    assert verify(tmp_path, paint_stage(tmp_path)) == []


def test_a_worker_that_nobody_restarts_is_replaced(two: Dask) -> None:
    first = two.worker_pids()
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        nanny = two._cluster.workers[0]
        two._cluster.loop.add_callback(nanny.close)
        wait_until(lambda: len(two._client.nthreads()) == 1, "the worker is gone")
        attempts = two.map(time.sleep, repeat(0.05))
        wait_until(lambda: next(attempts) and len(two._client.nthreads()) == 2, "another takes its place")
        attempts.close()
    assert set(two.worker_pids()) != set(first)


def test_the_window_bounds_what_is_under_way_and_closing_drops_it(tmp_path: Path, two: Dask) -> None:
    drawn: list[float] = []

    def items() -> Iterator[float]:
        while True:
            drawn.append(0.2)
            yield 0.2

    attempts = two.map(time.sleep, items())
    next(attempts)
    for _ in range(15):
        next(attempts)
    assert len(drawn) <= 16 + 2 * 2 + 2
    attempts.close()
    done = [attempt.result for attempt in two.map(len, ["a", "bb"])]
    assert sorted(done) == [1, 2]
    assert len(drawn) <= 16 + 2 * 2 + 2


@pytest.mark.fault(
    "workers",
    "a worker runs another version of emloom",
    "error: the worker on host runs emloom 1, this command emloom 2: install the same version for both",
)
def test_a_worker_with_another_emloom_is_named(tmp_path: Path, two: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = emloom.__version__
    monkeypatch.setattr(emloom, "__version__", "9.9.9")
    expected = rf"worker on {socket.gethostname()} runs emloom {theirs}, this command emloom 9\.9\.9: install"
    with pytest.raises(WorkerVersionError, match=expected):
        run_stage(paint_stage(tmp_path), tmp_path, two)
    assert calls(tmp_path) == []


def made_here(_: int) -> tuple[int, int]:
    made = once("a model", lambda: time.perf_counter_ns())
    return os.getpid(), made


def test_a_worker_makes_large_things_once(two: Dask) -> None:
    results = {attempt.result for attempt in two.map(made_here, range(20))}
    assert len(results) == len({pid for pid, _ in results if _}) <= 2


def test_workers_leave_threads_to_each_other_and_this_process_alone(two: Dask) -> None:
    names = ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    assert [attempt.result for attempt in two.map(os.environ.get, [])] == []
    before = dict(os.environ)
    assert {attempt.result for attempt in two.map(thread_limit, names)} == {"1"}
    assert dict(os.environ) == before


def thread_limit(name: str) -> str | None:
    return os.environ.get(name)


class Locked:
    def __reduce__(self) -> str:
        raise TypeError("this does not travel")


def test_what_cannot_travel_is_an_error(two: Dask) -> None:
    with pytest.raises(TypeError, match=r"travel|pickle|serialize"):
        list(two.map(len, [Locked()]))


@pytest.mark.fault(
    "workers",
    "the driver is killed, or gets Ctrl-C, while its workers work",
    "its workers end with it; the same command goes on",
)
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_driver_takes_its_workers_along_and_the_rest_resumes(
    tmp_path: Path, blow: signal.Signals, clean: dict[str, str]
) -> None:
    paint_stage(tmp_path)
    command = [sys.executable, "-m", "tests.run.driving", str(tmp_path)]
    driver = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the suite in the background has Ctrl-C ignored, and everything below it inherits that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert driver.stdout is not None
    pids = [int(word) for word in driver.stdout.readline().split()]
    workers = [psutil.Process(pid) for pid in pids]
    assert len(workers) == 2
    wait_until(lambda: len(calls(tmp_path)) >= 4, "blocks begin")
    if blow == signal.SIGINT:
        os.killpg(driver.pid, blow)  # as a terminal does: to everybody
    else:
        driver.send_signal(blow)
    _, told = driver.communicate(timeout=TIMEOUT_S)
    if blow == signal.SIGINT:
        assert driver.returncode == 130, told
        assert "interrupted: what was finished is kept" in told
        assert "Traceback" not in told
    wait_until(lambda: not any(worker.is_running() for worker in workers), "workers are gone")
    assert verify(tmp_path, paint_stage(tmp_path)) == []
    assert run_stage(paint_stage(tmp_path), tmp_path, Serial()).skipped > 0
    assert outcome(tmp_path) == clean


# ---- a scheduler and workers elsewhere --------------------------------------------------------------------------


@contextmanager
def started(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(emloom.__file__).parents[1])])}
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_from_a_scheduler_file(tmp_path: Path, clean: dict[str, str]) -> None:
    """One of two workers is killed in mid-run, then the scheduler; the outcome never notices."""
    file, folder = tmp_path / "scheduler.json", tmp_path / "out"
    folder.mkdir()
    worker = (
        "distributed.cli.dask_worker",
        "--scheduler-file",
        file,
        "--nthreads",
        1,
        "--no-dashboard",
        "--no-nanny",
    )
    scheduler = ("distributed.cli.dask_scheduler", "--scheduler-file", file, "--port", 0, "--no-dashboard")
    with started(*scheduler) as head, started(*worker) as first, started(*worker):
        with executor_of(1, str(file)) as dask:
            killer = threading.Timer(0.0, lambda: None)

            def progress(done: int, total: int) -> None:
                nonlocal killer
                if done == 4 and not killer.is_alive():
                    killer = threading.Timer(0.1, first.kill)
                    killer.start()

            report = run_stage(paint_stage(folder, pause_s=0.15), folder, dask, progress=progress)
        assert report.ran == 18
        assert first.wait(TIMEOUT_S) == -signal.SIGKILL
        assert outcome(folder) == clean

        (tmp_path / "again").mkdir()
        folder = tmp_path / "again"

        def behead(done: int, total: int) -> None:
            if done == 3:
                head.kill()

        lost = pytest.raises(InputError, match=r"scheduler at tcp://.* went away: what is done stays done")
        with executor_of(1, str(file)) as dask, lost:
            run_stage(paint_stage(folder, pause_s=0.05), folder, dask, progress=behead)
    assert run_stage(paint_stage(folder), folder, Serial()).skipped >= 3
    assert outcome(folder) == clean


@pytest.mark.fault(
    "workers",
    "the address of the scheduler leads nowhere",
    "error: the scheduler at tcp://... does not answer: ...; or leave --scheduler out",
)
@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:9", "tcp://127.0.0.1", "scp://host:8786"],
    ids=["nobody", "no port", "no such way"],
)
def test_a_scheduler_that_does_not_answer(address: str) -> None:
    with (
        pytest.raises(InputError, match=rf"the scheduler at {address} does not answer: .*leave --scheduler out"),
        Dask(scheduler=address, timeout_s=0.3),
    ):
        pass


@pytest.mark.fault(
    "workers",
    "something else listens where the scheduler should be",
    "error: does not answer",
)
def test_something_that_answers_but_is_no_scheduler() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="does not answer"), Dask(scheduler=address, timeout_s=0.3):
            pass


@pytest.mark.parametrize(
    ("text", "words"), [(None, "does not exist"), ("{}", "names no address"), ("{", "names no")]
)
def test_a_scheduler_file_that_names_none(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "scheduler.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"{words}.*--scheduler-file"), Dask(scheduler_file=path, timeout_s=0.1):
        pass


# ---- choosing ---------------------------------------------------------------------------------------------------


def test_one_worker_is_this_process() -> None:
    with executor_of() as executor:
        assert isinstance(executor, Serial)


def test_workers_and_schedulers_exclude_each_other() -> None:
    with pytest.raises(InputError, match="exclude each other"), executor_of(2, "tcp://host:8786"):
        pass
    with pytest.raises(InputError, match="0 workers do nothing"), executor_of(0):
        pass
    with pytest.raises(InputError, match="in one way"):
        Dask()


def test_outside_of_its_block_there_are_no_workers() -> None:
    with pytest.raises(RuntimeError, match="with block"):
        list(Dask(workers=1).map(len, ["a"]))


class FakeClient:
    status = "running"
    threads: dict[str, int] = {}  # noqa: RUF012 (replaced, never changed)

    def nthreads(self) -> dict[str, int]:
        return self.threads


def test_without_workers_the_log_says_so_every_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    client = FakeClient()
    told: list[int] = []
    window, sizes = cluster._Window(client, "tcp://host:8786", told.append), []
    for second in range(0, 200, 5):
        now[0] = 1000.0 + second
        client.threads = {"a": 2, "b": 3} if 130 <= second < 150 else {}
        sizes.append(window.size())
    assert [record.getMessage()[:57] for record in caplog.records] == [
        "the scheduler at tcp://host:8786 has had no workers for a"
    ] * 2
    assert set(sizes[:26]) == {2}  # two blocks wait for whoever comes
    assert set(sizes[26:30]) == {12}
    assert set(sizes[30:]) == {2}
    assert set(told) == {0, 5}
