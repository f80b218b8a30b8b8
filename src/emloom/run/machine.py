"""What this process may use of its machine: cores, memory, shared memory.

A container or a scheduler often grants less than the machine has, and libraries that count cores do not notice::

    64 cores in the machine  >  16 by affinity  >  4 by quota (control group)     usable: 4

Control groups nest: the tightest limit on the way from this process to the root holds. Everything is read from
Linux' own files; where there are none, the answer is None, never a guess.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
SHARED_MEMORY = Path("/dev/shm")
_NO_LIMIT_BYTES = 2**60  # the first version writes "no limit" as a huge number


@dataclass(frozen=True)
class Cores:
    """Processor cores.

    Attributes:
        machine: of the whole machine.
        affinity: this process may run on.
        quota: cores' worth of time granted by control groups, None where unlimited or unknown.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """Threads that can really run at the same time, at least 1."""
        return max(1, self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota)))


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes: of the machine, free for use now, and the limit of control groups (None: no limit)."""

    machine: int
    available: int
    limit: int | None

    @property
    def usable(self) -> int:
        """The most this process could ever hold."""
        return self.machine if self.limit is None else min(self.machine, self.limit)


def cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Cores:
    """Return the processor cores this process may use."""
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return Cores(machine, affinity, min(_quotas(cgroups, own), default=None))


def memory(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Memory:
    """Return the main memory this process may use."""
    now = psutil.virtual_memory()
    limit = min(_memory_limits(cgroups, own), default=None)
    return Memory(now.total, now.available if limit is None else min(now.available, limit), limit)


def shared_memory(folder: Path = SHARED_MEMORY) -> tuple[int, int] | None:
    """Return size and free bytes of the memory through which loader processes hand over samples; None: unknown."""
    if not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    for folder in _folders(cgroups, own, "cpu"):
        words = _read(folder / "cpu.max").split()  # second version: "200000 100000" or "max 100000"
        quota, period = words if len(words) == 2 else _first_version(folder)
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _first_version(folder: Path) -> tuple[str, str]:
    return _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()


def _memory_limits(cgroups: Path, own: Path) -> Iterator[int]:
    for folder in _folders(cgroups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name).strip()
            if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
                yield int(text)


def _folders(cgroups: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the control groups of this process and all their parents, of both versions.

    Inside a container the path may not exist below the mount; the root is then the container's own group.
    """
    for line in _read(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        folder = root / path.strip("/")
        while True:
            yield folder
            if folder == root:
                break
            folder = folder.parent


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def give_back() -> None:
    """Return memory that was freed to the system, where the allocators can be asked to (glibc, Arrow).

    They keep it for later. Before a step that needs much at once, what they keep adds to what it needs.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
