"""One process at a time in a folder of results.

Two processes that do the same job in one folder would do everything twice, and the first to finish would move the
folder away under the other. So whoever works there holds a lock, which the system takes back when the process
ends, however it ends: nothing has to be cleaned up after `kill -9`.

The lock belongs to the process (POSIX record locks): calls inside it share it, and workers do not inherit it.
Where a file system has no locks, there is none, and nothing is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from emloom.errors import InputError
from emloom.io.files import explained

LOCK = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
#: Handles of what this process holds, by device and inode. They stay open until it ends: closing any handle of a
#: file gives back the locks that a process has on it.
_HELD: dict[tuple[int, int], int] = {}


def work_alone(folder: Path) -> None:
    """Keep other processes out of an existing folder until this one ends.

    Raises:
        InputError: another process works there.
    """
    path = folder / LOCK
    if path.exists() and _key(path.stat()) in _HELD:
        return
    with explained(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        who = os.read(handle, 200).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        if problem.errno in _TAKEN:
            raise InputError(
                f"another process ({who}) is at work in {folder}: wait for it, stop it, or choose another output"
            ) from None
        return
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()} on {socket.gethostname()}".encode())
    _HELD[_key(os.fstat(handle))] = handle


def _key(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)
