"""How commands end, what they say on the way, and what they keep to themselves."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from emloom.cli import manners, progress
from emloom.cli.manners import failure, quiet
from emloom.cli.progress import TerminalListener, bar, resident_bytes
from emloom.run.pace import Pace
from tests.cli.test_cli import emloom

MISBEHAVE = """
import hashlib, logging, sys, time, warnings
from contextlib import suppress
import typer
from emloom.cli.main import app, main
from emloom.errors import InputError
from emloom.run.runner import BlocksFailedError

@app.command("misbehave")
def misbehave(how: str):
    if how == "check":
        raise typer.Exit(1)
    if how == "input":
        raise InputError("size is 3: pass 4")
    if how == "blocks":
        raise BlocksFailedError("1 of 2 blocks failed", [])
    if how == "bug":
        raise ZeroDivisionError("nobody\\nthought of it")
    if how == "disk":
        raise OSError(28, "No space left on device", "/full/out.zarr")
    if how == "wait":
        print("ready", flush=True)
        time.sleep(120)
    while how == "kernel":  # of which Python does not come back for minutes; nor does it mind being asked
        with suppress(KeyboardInterrupt):
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)
    if how == "talk":
        warnings.warn("of a library")
        logging.getLogger("library").warning("beware")
        logging.getLogger("emloom.part").warning("the disk is small")
        logging.getLogger("emloom.part").info("half way")

main()
"""


@pytest.fixture
def start(tmp_path: Path):
    """Return what starts the command line in a process of its own."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    environment.pop("EMLOOM_DEBUG", None)

    def run(*words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MISBEHAVE, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | more,
        )

    return run


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["data", "list"], 0, ""),
        (["misbehave", "check"], 1, ""),
        (["misbehave", "blocks"], 1, "error: 1 of 2 blocks failed\n"),
        (["misbehave", "input"], 2, "error: size is 3: pass 4\n"),
        (
            ["misbehave", "disk"],
            2,
            "error: cannot use /full/out.zarr: the disk is full: free some space or choose another disk\n",
        ),
        (["misbehave"], 2, "Missing argument"),
        (["info", "a", "--nonsense"], 2, "No such option"),
    ],
)
def test_the_exit_status_says_how_it_ended(start, words: list[str], status: int, said: str) -> None:
    run = start(*words)
    _, error = run.communicate(timeout=120)
    assert run.returncode == status
    assert said in error if said else error == ""
    assert "Traceback" not in error


def test_a_bug_is_one_line_and_a_file(start, tmp_path: Path) -> None:
    run = start("misbehave", "bug")
    _, error = run.communicate(timeout=120)
    assert run.returncode == 1
    (trace,) = (tmp_path / "state" / "emloom" / "errors").iterdir()
    assert error == f"error: ZeroDivisionError: nobody thought of it (a bug? full trace: {trace})\n"
    text = trace.read_text()
    assert "emloom misbehave bug" in text
    assert "Traceback" in text
    assert "in misbehave" in text
    run = start("misbehave", "bug", EMLOOM_DEBUG="1")
    _, error = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "Traceback" in error


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_in_good_order(start, number: int, status: int) -> None:
    run = start("misbehave", "wait")
    assert run.stdout.readline() == "ready\n"
    run.send_signal(number)
    _, error = run.communicate(timeout=120)
    assert run.returncode == status
    assert "stopping; once more ends it at once" in error
    assert "interrupted: what was finished is kept; the same command goes on from there" in error
    assert "Traceback" not in error


def test_the_second_ctrl_c_ends_it_whatever_it_does(start) -> None:
    run = start("misbehave", "kernel")
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGINT)
    # The first is answered, although the kernel goes on.
    assert any("stopping" in run.stderr.readline() for _ in range(2))
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "ended at once: what was finished is kept" in error


@pytest.mark.parametrize(
    ("options", "heard", "unheard"),
    [
        ([], ["warning: the disk is small\n"], ["library", "beware", "half way"]),
        (["-v"], ["the disk is small", "half way"], ["of a library", "beware"]),
        (["-vv"], ["the disk is small", "half way", "of a library", "beware"], []),
    ],
)
def test_logs_are_quiet_unless_asked_for(start, options: list[str], heard: list[str], unheard: list[str]) -> None:
    _, error = start(*options, "misbehave", "talk").communicate(timeout=120)
    assert all(words in error for words in heard)
    assert not any(words in error for words in unheard)


def test_a_command_leaves_the_process_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    def state() -> tuple[object, ...]:
        root, own = logging.getLogger(), logging.getLogger("emloom")
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return (*signals, list(root.handlers), list(own.handlers), own.level, signal.set_wakeup_fd(-1))

    before = state()
    assert emloom(capsys, "-vv", "data", "list")[0] == 0
    assert state() == before


def test_a_trace_finds_another_place_where_home_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    line = failure(ValueError("x" * 500), ["emloom", "qc"])
    assert len(line) < 400
    assert str(tmp_path / "emloom-errors") in line


def test_traces_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(manners, "_TRACES_KEPT", 3)
    for n in range(5):
        failure(ValueError(str(n)), ["emloom"])
    assert len(list((tmp_path / "emloom" / "errors").iterdir())) == 3


# ---- progress ---------------------------------------------------------------------------------------------------


def test_without_a_terminal_there_is_a_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalListener() as listener:
        for done in range(5):
            listener.blocks("predict", done, 4)
        listener.blocks("predict", 4, 4)
    with bar("import") as advance:
        advance(0, 2)
        advance(2, 2)
    out = capsys.readouterr()
    assert out.out == ""
    first, second = out.err.splitlines()
    assert first.startswith("  predict 4/4")
    assert second.startswith("  import 2/2")
    assert all(line.endswith("GiB") for line in (first, second))


def test_and_one_per_minute_with_the_time_to_go(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress, "Pace", lambda total, before: Pace(total, before, lambda: next(seconds)))
    with TerminalListener() as listener:
        listener.blocks("segment", 0, 100)
        listener.blocks("segment", 50, 100)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "segment 50/100" in last
    assert "blocks/s" in last
    assert "to go" in last


def test_a_bar_shows_the_memory_of_command_and_workers() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with progress._progress(console) as bars:
        bars.update(bars.add_task("predict", total=4, note=""), completed=1)
    assert "GiB" in screen.getvalue()
    child = subprocess.Popen([sys.executable, "-c", "import sys; a = b'1' * 2**28; sys.stdin.read()"], stdin=-1)
    alone = resident_bytes()
    try:
        while resident_bytes() < alone + 2**27 and child.poll() is None:
            pass
        assert child.poll() is None
    finally:
        child.communicate()


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    token = quiet.set(True)
    try:
        with TerminalListener() as listener:
            listener.stage("train", skipped=False)
            listener.blocks("predict", 4, 4)
    finally:
        quiet.reset(token)
    assert capsys.readouterr().err == ""
