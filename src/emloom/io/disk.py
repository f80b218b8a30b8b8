"""What a folder's file system really does: locks, atomic renames, its speed; measured, not looked up.

Everything happens in a hidden folder of its own that is removed at the end.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import psutil
import tensorstore as ts

_BLOCK_BYTES = 4 * 2**20
_MOST_BLOCKS = 64
_SMALL_BYTES = 4096
_MOST_FILES = 2000


@dataclass(frozen=True)
class Speed:
    """Measured speed of a file system.

    Attributes:
        write_mb_s: one large file, flushed to the disk, MB/s (1 MB = 10^6 bytes).
        read_mb_s: the same file.
        read_is_cached: the read came from memory, because the system would not forget the file.
        files_s: small files made per second.
    """

    write_mb_s: float
    read_mb_s: float
    read_is_cached: bool
    files_s: float


@contextmanager
def trial_folder(folder: str | Path) -> Iterator[Path]:
    """Make a hidden folder for trials inside `folder`, and remove it afterwards.

    Raises:
        OSError: it cannot be made there.
    """
    made = Path(tempfile.mkdtemp(prefix=".emloom-doctor-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def locks_hold(trial: Path) -> bool:
    """Whether a second lock on a file is refused while the first is held, on this machine.

    Raises:
        OSError: the file system has no locks at all.
    """
    path = trial / "lock"
    with path.open("w") as first, path.open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def write_hdf5(trial: Path) -> None:
    """Write and read a small HDF5 file.

    Raises:
        OSError: HDF5 cannot lock files here, or cannot write.
    """
    path = trial / "trial.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.arange(8)
    with h5py.File(path, "r") as file:
        if not np.array_equal(file["raw"][:], np.arange(8)):
            raise OSError(f"{path} reads back other values than were written")


def replace_in_one_step(trial: Path) -> None:
    """Flush a file and a folder, and rename over an existing file, as every emloom output is written.

    Raises:
        OSError: the file system cannot.
    """
    old, new = trial / "old", trial / "new"
    old.write_bytes(b"old")
    with new.open("wb") as file:
        file.write(b"new")
        file.flush()
        os.fsync(file.fileno())
    new.replace(old)
    handle = os.open(trial, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if old.read_bytes() != b"new" or new.exists():
        raise OSError(f"renaming in {trial.parent} did not replace the file")


def speed(trial: Path, seconds: float = 0.4) -> Speed:
    """Measure a file system for about three times `seconds`.

    Raises:
        OSError: writing fails, for example on a full disk.
    """
    block = np.random.default_rng(0).bytes(_BLOCK_BYTES)  # random, so that compressing disks cannot cheat
    path = trial / "large"
    blocks, start = 0, time.perf_counter()
    with path.open("wb") as file:
        while blocks < _MOST_BLOCKS and (time.perf_counter() - start < seconds or not blocks):
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            blocks += 1
    write_s = time.perf_counter() - start
    n_bytes = blocks * _BLOCK_BYTES
    cached = not _forget(path)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK_BYTES) and time.perf_counter() - start < seconds:
            pass
        read_bytes = file.tell()
    read_s = time.perf_counter() - start
    path.unlink()
    return Speed(n_bytes / 1e6 / write_s, read_bytes / 1e6 / read_s, cached, _small_files(trial, seconds))


def file_system(folder: str | Path) -> str | None:
    """Return the type of the file system a folder is on (`ext4`, `nfs4`, ...), None where unknown."""
    path = Path(folder).resolve()
    found = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return max(found, key=lambda part: len(part.mountpoint)).fstype or None if found else None


def codec_round_trip(codec: str) -> None:
    """Write and read a tiny zarr 3 array in memory with a codec: `zstd`, `gzip`, or `blosc/lz4` and its kin.

    Raises:
        ValueError: TensorStore lacks the codec, or it changed the data.
    """
    name, _, inner = codec.partition("/")
    settings = {"cname": inner} if inner else {}
    data = np.arange(512, dtype=np.uint16).reshape(8, 8, 8)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "memory"},
        "metadata": {
            "shape": data.shape,
            "data_type": "uint16",
            "codecs": [{"name": "bytes"}, {"name": name, "configuration": settings}],
        },
    }
    store = ts.open(spec, create=True).result()
    store.write(data).result()
    if not np.array_equal(store.read().result(), data):
        raise ValueError(f"{codec} reads back other values than were written")


def _forget(path: Path) -> bool:
    """Ask the system to drop a file from memory, so that reading it measures the disk."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _small_files(trial: Path, seconds: float) -> float:
    folder = trial / "small"
    folder.mkdir()
    payload, made, start = bytes(_SMALL_BYTES), 0, time.perf_counter()
    while made < _MOST_FILES and (time.perf_counter() - start < seconds or not made):
        (folder / str(made)).write_bytes(payload)
        made += 1
    return made / (time.perf_counter() - start)
