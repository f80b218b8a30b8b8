"""The tightest limit between a process and its machine holds."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emloom.run.machine import Cores, Memory, cores, memory, shared_memory

UNLIMITED_V1 = "9223372036854771712"


def groups(tmp_path: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Lay out control groups; return (mount, /proc/self/cgroup)."""
    mount, listing = tmp_path / "cgroup", tmp_path / "own"
    mount.mkdir()
    listing.write_text(own)
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    return mount, listing


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/job\n", {"job/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1.0),
        ("0::/elsewhere\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("1:cpu:/j\n", {"cpu/j/cpu.cfs_quota_us": "300000", "cpu/j/cpu.cfs_period_us": "100000"}, 3.0),
        ("1:cpu:/j\n", {"cpu/j/cpu.cfs_quota_us": "-1", "cpu/j/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/j\n", {"memory/j/cpu.max": "100000 100000"}, None),
        ("0::/job\n", {"job/cpu.max": "nonsense\n"}, None),
        ("nonsense\n", {}, None),
        ("", {}, None),
    ],
)
def test_quotas(own: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert cores(*groups(tmp_path, own, files)).quota == quota


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/job\n", {"job/memory.max": "1000\n"}, 1000),
        ("0::/a/b\n", {"a/memory.max": "1000\n", "a/b/memory.max": "2000\n"}, 1000),
        ("0::/job\n", {"job/memory.max": "max\n"}, None),
        ("4:memory:/j\n", {"memory/j/memory.limit_in_bytes": "3000\n"}, 3000),
        ("4:memory:/j\n", {"memory/j/memory.limit_in_bytes": UNLIMITED_V1}, None),
    ],
)
def test_memory_limits(own: str, files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    found = memory(*groups(tmp_path, own, files))
    assert found.limit == limit
    assert found.usable == (limit or found.machine)
    assert found.available <= found.usable


@pytest.mark.parametrize(
    ("given", "usable"),
    [(Cores(64, 16, None), 16), (Cores(64, 16, 3.5), 4), (Cores(64, 2, 8.0), 2), (Cores(64, 16, 0.5), 1)],
)
def test_usable_cores(given: Cores, usable: int) -> None:
    assert given.usable == usable


def test_a_limit_above_the_machine_is_no_limit() -> None:
    assert Memory(100, 50, 1000).usable == 100


def test_this_machine_answers(tmp_path: Path) -> None:
    assert 1 <= cores().usable <= (os.cpu_count() or 1)
    assert 0 < memory().available <= memory().usable
    assert shared_memory(tmp_path / "none") is None
    found = shared_memory(tmp_path)
    assert found is not None
    assert found[0] >= found[1] > 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can be asked to")
def test_freed_memory_goes_back_to_the_system() -> None:
    # In a process of its own: in one that ran other tests, nobody knows what the allocators keep.
    words = """
import psutil
from emloom.run.machine import give_back
def held(): return psutil.Process().memory_info().rss / 1e6
before = held()
small = [bytes(60_000) for _ in range(4000)]  # below what an allocator maps by itself
last = bytes(100)  # above them in the heap
most = held()
del small
give_back()
print(before, most, held())
"""
    found = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True).stdout
    before, most, after = map(float, found.split())
    assert most - before > 150
    assert after - before < 80
