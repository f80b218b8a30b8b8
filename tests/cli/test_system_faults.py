"""What the system does to a command: readers that go away, full disks, limits, signals, odd environments."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from emloom.cli.endings import ended
from emloom.cli.main import main
from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.run.provenance import fingerprint

INFO = VolumeInfo((4, 8, 8), np.dtype("uint8"), Grid((40, 4, 4)), None, None, "raw")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("system") / "raw.zarr"
    create_volume(path, INFO).write(INFO.box, np.arange(256, dtype=np.uint8).reshape(INFO.shape))
    return path


def emloom(
    *words: object,
    limit: Callable[[], None] | None = None,
    env: dict[str, str | None] | None = None,
    stdout: int | None = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    changed = {**os.environ, **(env or {})}
    known = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, "-m", "emloom", *map(str, words)]
    return subprocess.run(
        command, check=False, text=True, stdout=stdout, stderr=subprocess.PIPE, env=known, preexec_fn=limit
    )


@pytest.mark.fault(
    "environment", "the reader of a command goes away: `emloom info raw.zarr | head -0`", "it ends without a word"
)
def test_a_reader_that_goes_away_hears_nothing(raw: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = emloom("info", raw, stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.fault(
    "disk",
    "what a command says is written to a full disk: `emloom info raw.zarr > /dev/full`",
    "error: cannot use the output of this command: the disk is full; exit status 2",
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_words_on_a_full_disk(raw: Path) -> None:
    with open("/dev/full", "w") as full:
        done = emloom("info", raw, stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot use the output of this command: the disk is full")
    assert "Traceback" not in done.stderr


@pytest.mark.fault(
    "disk",
    "the account may write no file above 512 bytes (RLIMIT_FSIZE)",
    "error: the file would be larger than this disk or account allows; nothing of the output is left",
)
def test_files_that_may_not_grow(raw: Path, tmp_path: Path) -> None:
    small = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (512, 512))
    done = emloom("export", raw, tmp_path / "out.h5/volumes/raw", limit=small)
    assert done.returncode == 2
    assert "would be larger than this disk or account allows" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_used_up_is_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(MemoryError("Unable to allocate 4 EiB")) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: there is not enough memory (Unable to allocate 4 EiB): take smaller blocks")


def test_what_the_system_did_not_refuse_is_a_bug_with_a_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(**_: object) -> None:
        raise OSError(errno.EILSEQ, "nobody explains this")

    assert ended(OSError(errno.EILSEQ, "nobody explains this")) is None
    assert ended(RuntimeError("nor this")) is None
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("EMLOOM_DEBUG", raising=False)
    monkeypatch.setattr("emloom.cli.main.app", broken)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: OSError: .*nobody explains this \(a bug\? full trace: (\S+)\)\n", told)
    trace = Path(told.rsplit("full trace: ", 1)[1].strip().removesuffix(")"))
    assert trace.is_relative_to(tmp_path)
    assert "in broken" in trace.read_text()


MEMORY = """
import resource, sys
import numpy as np
import emloom.cli.data
from emloom.cli import main
def hungry(*_, **__):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    np.ones(2**30, np.uint8)
import emloom.tasks.info
emloom.tasks.info.info = hungry
sys.argv = ["emloom", "info", sys.argv[1]]
main.main()
"""


@pytest.mark.fault(
    "environment",
    "a command may take no more memory (RLIMIT_AS)",
    "error: there is not enough memory (Unable to allocate 1.00 GiB ...): take smaller blocks; exit status 2",
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_that_is_limited(raw: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, str(raw)], check=False, text=True, capture_output=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: there is not enough memory (Unable to allocate 1.00 GiB")


@pytest.mark.fault(
    "environment",
    "HOME is not set, TMPDIR does not exist, LANG is C, numba may cache nowhere it is told to",
    "the command works",
)
@pytest.mark.parametrize(
    "env",
    [
        {"HOME": None, "TMPDIR": "/nonexistent"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"NUMBA_CACHE_DIR": "/proc/nowhere", "COLUMNS": "nonsense", "EMLOOM_CACHE": "/proc/nowhere"},
    ],
)
def test_odd_environments(raw: Path, env: dict[str, str | None]) -> None:
    done = emloom("info", raw, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "range" in done.stdout


@pytest.mark.fault(
    "environment", "standard input is closed, or the error stream is", "the command works, or fails, as ever"
)
def test_closed_streams(raw: Path) -> None:
    assert emloom("info", raw, limit=partial(os.close, 0)).returncode == 0
    assert emloom("info", raw.with_name("none.zarr"), limit=partial(os.close, 2)).returncode == 2


@pytest.mark.fault(
    "paths",
    "the output is a link to somewhere else, also to nowhere",
    "error: already exists and is never overwritten by accident; nothing is written through it",
)
def test_outputs_that_are_links(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(tmp_path / "elsewhere.zarr")
    done = emloom("export", raw, tmp_path / "link.zarr")
    assert done.returncode == 2
    assert "already exists and is never overwritten by accident" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["link.zarr"]


@pytest.mark.fault(
    "processes",
    "SIGTERM, as batch systems send before they kill, while an export writes",
    "the process ends at once; the output is not there, only a hidden leftover that is never read",
)
def test_a_batch_system_ends_a_command(raw: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom emloom.io import store\nfrom emloom.cli.main import main\n"
        "def stuck(*_):\n    print('writing', flush=True)\n    import time\n    time.sleep(60)\n"
        "store.StoreVolume.write = stuck\nsys.argv = ['emloom', 'export', *sys.argv[1:]]\nmain()\n"
    )
    command = [sys.executable, "-c", script, str(raw), str(tmp_path / "out.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "writing\n"
        run.terminate()
        assert run.wait(30) in (-signal.SIGTERM, 143)
    assert not (tmp_path / "out.zarr").exists()
    assert all(path.name.startswith(".out.partial-") for path in tmp_path.iterdir())


@pytest.mark.fault(
    "environment",
    "clocks jump: inputs are dated 2099, or 1970",
    "a file is another when its date changes in either direction; nothing else depends on clocks",
)
def test_clocks_that_jump(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    create_volume(path, INFO)
    marks = []
    for when in (0, 4_070_908_800, 1_700_000_000):
        os.utime(path, (when, when))
        marks.append(fingerprint(path))
        assert open_volume(path).info.shape == INFO.shape
    assert len(set(marks)) == 3
    os.utime(path, (0, 0))
    assert fingerprint(path) == marks[0]


@pytest.mark.fault(
    "pages",
    "the port of `emloom view` is in use",
    "error: cannot listen on port ...: choose another, or 0 for any",
)
def test_a_port_in_use(raw: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = emloom("view", raw, "--port", taken.getsockname()[1])
    assert done.returncode == 2
    assert "choose another, or 0 for any" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault(
    "disk",
    "a file system of 256 KiB is really full (tmpfs; as root only)",
    "error: the disk is full: free some space or choose another disk; nothing of the output is left",
)
@pytest.mark.parametrize("name", ["out.zarr", "out.tif", "out.h5/raw"])
def test_a_small_disk_is_full(tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        big = VolumeInfo((8, 512, 512), np.dtype("uint8"), Grid((40, 4, 4)), None, None, "raw")
        values = np.random.default_rng(0).integers(0, 255, big.shape, np.uint8)
        create_volume(tmp_path / "big.zarr", big).write(big.box, values)
        done = emloom("export", tmp_path / "big.zarr", disk / name)
        assert done.returncode == 2, done.stderr
        assert "the disk is full: free some space or choose another disk" in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
