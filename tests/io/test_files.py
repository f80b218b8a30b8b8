"""Outputs exist whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.io.files import explained, final_name, staged, write_bytes_atomic, write_text_atomic


def build(path: Path, folder: bool, text: str = "new") -> None:
    if folder:
        path.mkdir()
        path = path / "inside.txt"
    path.write_text(text)


def run(target: Path, folder: bool, then: Callable[[], object], *, overwrite: bool = False) -> None:
    with staged(target, overwrite=overwrite) as temporary:
        build(temporary, folder)
        then()


def fail_with(problem: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise problem

    return fail


def content(path: Path) -> str:
    return (path / "inside.txt" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_output_appears_only_at_the_end_and_leaves_no_temporary(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "deep" / "out.zarr"
    with staged(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
        assert final_name(temporary) == target.name
        build(temporary, folder)
        assert not target.exists()
    assert content(target) == "new"
    assert os.listdir(target.parent) == ["out.zarr"]


@pytest.mark.fault(
    "processes",
    "Ctrl-C, or a bug, while an output is built",
    "the output is not there, nor anything of it",
)
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path: Path, folder: bool, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        run(tmp_path / "out.zarr", folder, fail_with(failure()))
    assert os.listdir(tmp_path) == []


@pytest.mark.fault(
    "disk",
    "the output exists",
    "error: already exists and is never overwritten by accident; nothing is computed",
)
@pytest.mark.parametrize("folder", [False, True])
def test_existing_output_is_refused_untouched(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "out.zarr"
    build(target, folder, "old")
    with pytest.raises(InputError, match="already exists"), staged(target):
        pytest.fail("the work must not start")
    assert content(target) == "old"


@pytest.mark.fault(
    "processes",
    "another process makes the output while this one computes it",
    "error: already exists; the other's output stays",
)
@pytest.mark.parametrize("old_folder", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_output_that_appears_meanwhile_is_not_lost(tmp_path: Path, folder: bool, old_folder: bool) -> None:
    target = tmp_path / "out.zarr"
    with pytest.raises(InputError, match="already exists"):
        run(target, folder, lambda: build(target, old_folder, "the other run's"))
    assert content(target) == "the other run's"
    assert os.listdir(tmp_path) == ["out.zarr"]


@pytest.mark.parametrize("old_folder", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_overwrite_replaces_at_the_end_or_not_at_all(tmp_path: Path, folder: bool, old_folder: bool) -> None:
    target = tmp_path / "out.zarr"
    build(target, old_folder, "old")
    with pytest.raises(RuntimeError):
        run(target, folder, fail_with(RuntimeError()), overwrite=True)
    assert content(target) == "old"
    with staged(target, overwrite=True) as temporary:
        build(temporary, folder)
    assert content(target) == "new"
    assert os.listdir(tmp_path) == ["out.zarr"]


@pytest.mark.fault(
    "disk",
    "the disk is full, read-only, or permission is denied",
    "error: cannot write out.h5: the disk is full: free some space or choose another disk; nothing is left",
)
@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission"), (errno.EROFS, "read-only")],
)
def test_disk_refusals_name_the_path_and_the_way_out(tmp_path: Path, code: int, advice: str) -> None:
    with pytest.raises(InputError, match=rf"out\.h5: .*{advice}"):
        run(tmp_path / "out.h5", False, fail_with(OSError(code, os.strerror(code))))
    assert os.listdir(tmp_path) == []


@pytest.mark.fault(
    "disk",
    "a disk that is really full (/dev/full) is written",
    "error: the disk is full",
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="disk is full"), explained(tmp_path / "x"):
        Path("/dev/full").write_bytes(b"x")


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Error writing local file \"0/c/1\": No space left on device [os_error_code='28']",
        "Can't synchronously write data (write failed, errno = 28, error message = 'No space left on device')",
    ],
    ids=["tensorstore", "hdf5"],
)
@pytest.mark.parametrize("kind", [ValueError, RuntimeError, OSError])
def test_full_disk_is_understood_inside_library_messages(message: str, kind: type[Exception]) -> None:
    with pytest.raises(InputError, match=r"cannot write out\.zarr: the disk is full"), explained("out.zarr"):
        raise kind(message)


def test_a_bug_is_not_explained_away() -> None:
    with pytest.raises(ValueError, match="bug") as caught, explained("out.zarr"):
        raise ValueError("bug")
    assert not isinstance(caught.value, InputError)


@pytest.mark.fault(
    "paths",
    "a folder on the way to the output is a file",
    "error: a parent of it is a file, not a folder: choose another place",
)
def test_a_parent_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"), staged(tmp_path / "file" / "sub" / "out"):
        pass


def test_atomic_writers_replace_or_refuse(tmp_path: Path) -> None:
    path = tmp_path / "marker.json"
    write_text_atomic(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    write_bytes_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    with pytest.raises(InputError, match="already exists"):
        write_text_atomic(path, "third", overwrite=False)
    assert path.read_bytes() == b"\x00\x01"
    assert os.listdir(tmp_path) == ["marker.json"]


@pytest.mark.fault(
    "processes",
    "a process is killed (`kill -9`) while an output is built",
    "no output; a hidden leftover that is never read; the next run works",
)
def test_a_killed_run_leaves_no_output_and_the_next_run_works(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from emloom.io.files import staged\n"
        "with staged(sys.argv[1]) as temporary:\n"
        "    temporary.mkdir()\n"
        "    (temporary / 'inside.txt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "out.zarr"
    killed = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    with staged(target) as temporary:
        build(temporary, folder=True)
    assert content(target) == "new"
