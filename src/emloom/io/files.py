"""Outputs that exist whole or not at all.

Everything emloom writes is first built under a temporary name beside its final place and moved there in one
step, so a crash, a full disk or an impatient Ctrl-C leaves either the finished output or none::

    .out.partial-3f9a1c2b.zarr   ──rename──►   out.zarr

A process that is killed outright (``kill -9``) cannot clean up: its hidden ``.*.partial-*`` sibling stays, is
never read by emloom, and may be deleted.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emloom.errors import InputError

_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free some space or choose another disk",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another disk",
    errno.EFBIG: "the file would be larger than this disk or account allows: choose another disk",
    errno.EACCES: "permission denied: change its permissions or choose another place",
    errno.EPERM: "permission denied: change its permissions or choose another place",
    errno.EROFS: "the disk is mounted read-only: choose another place",
    errno.ENOTDIR: "a parent of it is a file, not a folder: choose another place",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}
_REMOVAL_ATTEMPTS = 20
_REMOVAL_PAUSE_S = 0.05
_PARTIAL = re.compile(r"^\.(.*)\.partial-[0-9a-f]{8}(.*)$")
_CODE_IN_TEXT = re.compile(r"(?:os_error_code='|errno = )(\d+)")


def way_out(problem: Exception) -> str | None:
    """Return what a person can do about a failed file operation, None where it is not theirs to mend.

    TensorStore and HDF5 report the operating system's error only inside their message; it is found there too.
    """
    code = problem.errno if isinstance(problem, OSError) else None
    if code is None:
        inside = _CODE_IN_TEXT.search(str(problem))
        code = int(inside.group(1)) if inside else None
    return None if code is None else _WAYS_OUT.get(code)


@contextmanager
def explained(path: str | Path, doing: str = "write") -> Iterator[None]:
    """Turn a full disk, missing permissions and the like inside the block into an `InputError` naming `path`."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as problem:
        advice = way_out(problem)
        if advice is None:
            raise
        shown = path if "://" in str(path) else final_path(path)
        raise InputError(f"cannot {doing} {shown}: {advice}") from problem


def require_space(path: str | Path, n_bytes: int) -> None:
    """Raise `InputError` unless the disk of an existing file can take `n_bytes` more.

    For libraries that do not survive a full disk; others say so themselves, see `explained`.
    """
    free = shutil.disk_usage(path).free
    if free < n_bytes:
        raise InputError(
            f"cannot write {final_path(path)}: {_WAYS_OUT[errno.ENOSPC]} ({free} bytes are free, {n_bytes} needed)"
        )


def reserve(path: str | Path) -> None:
    """Take the disk space of a file with holes, so that no later write into its memory map runs out of disk.

    (A full disk kills a process that writes through a map; here it is an error.)
    """
    n_bytes = os.path.getsize(path)
    if not hasattr(os, "posix_fallocate"):
        require_space(path, n_bytes)
        return
    handle = os.open(path, os.O_RDWR)
    try:
        with explained(path):
            os.posix_fallocate(handle, 0, n_bytes)
    finally:
        os.close(handle)


def refuse_existing(path: str | Path) -> None:
    """Raise `InputError` where something already exists at `path`."""
    if os.path.lexists(path):
        raise InputError(
            f"{path} already exists and is never overwritten by accident: choose another name, remove it, "
            "or ask to overwrite it"
        )


@contextmanager
def staged(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Build a file or a folder under a temporary name and move it to `path` when the block ends well.

    Whatever ends the block early (an error, Ctrl-C) removes the temporary; `path` is then as it was. The
    temporary is a hidden sibling with the same suffix, so it is on the same disk and opens as the same format. A
    sidecar, `<temporary>.json`, that the block puts beside it travels with it, and arrives first.

    Args:
        path: where the output shall be; missing parent folders are made.
        overwrite: replace what is there; otherwise an existing path is refused, also when it appears meanwhile.

    Yields:
        The temporary path; the block creates a file or a folder there.

    Raises:
        InputError: `path` exists, or the disk is full, read-only or not permitted.
    """
    target = Path(path)
    if not overwrite:
        refuse_existing(target)
    temporary = _partial(target)
    try:
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            _move_sidecar(temporary, target)
            _move(temporary, target, overwrite)
            _flush(target.parent)
    finally:
        _remove(temporary)
        _remove(_sidecar(temporary))


def final_name(path: str | Path) -> str:
    """Return the name a path will have in the end: of a temporary of `staged`, the name it is built for."""
    name = Path(path).name
    while inside := _PARTIAL.match(name):
        name = inside.group(1) + inside.group(2)
    return name


def final_path(path: str | Path) -> Path:
    """Return a path with every temporary name of `staged` in it replaced by the final one, for messages."""
    return Path(*(final_name(part) or part for part in Path(path).parts))


def write_bytes_atomic(path: str | Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file in one step: a reader sees the old bytes or the new ones, never a part."""
    with staged(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write a UTF-8 text file in one step; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"), overwrite=overwrite)


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.stem}.partial-{uuid.uuid4().hex[:8]}{target.suffix}")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _move_sidecar(temporary: Path, target: Path) -> None:
    source = _sidecar(temporary)
    if source.exists():
        _flush(source)
        source.replace(_sidecar(target))


def _flush(path: Path) -> None:
    """Ask the disk to keep a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(source: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        _replace(source, target)
    elif source.is_dir():
        # rename() may only replace an empty folder, so a finished output is never lost here.
        try:
            source.rename(target)
        except OSError as problem:
            if problem.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                refuse_existing(target)
            raise
    else:
        _move_new_file(source, target)


def _move_new_file(source: Path, target: Path) -> None:
    """Give a file its final name; unlike rename(), link() fails where the name was taken meanwhile."""
    try:
        os.link(source, target)
    except FileExistsError:
        refuse_existing(target)
        raise
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        refuse_existing(target)
        source.rename(target)


def _replace(source: Path, target: Path) -> None:
    if not target.is_dir() and not source.is_dir():
        source.replace(target)
        return
    # Folders cannot be swapped in one step everywhere: step aside first, and step back if the move fails.
    aside = _partial(target)
    if os.path.lexists(target):
        target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # After Ctrl-C, writes in flight on other threads may still add files to a folder being removed.
        for _ in range(_REMOVAL_ATTEMPTS - 1):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(_REMOVAL_PAUSE_S)
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
