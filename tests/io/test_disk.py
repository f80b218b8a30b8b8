"""A file system is tried out, and nothing is left behind."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from emloom.io import disk


def test_trials_leave_nothing_behind(tmp_path: Path) -> None:
    with disk.trial_folder(tmp_path) as trial:
        assert disk.locks_hold(trial)
        disk.write_hdf5(trial)
        disk.replace_in_one_step(trial)
    assert not list(tmp_path.iterdir())


def test_a_trial_folder_is_removed_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with disk.trial_folder(tmp_path) as trial:
            (trial / "file").touch()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert not list(tmp_path.iterdir())


def test_speed_is_measured_in_bounded_time(tmp_path: Path) -> None:
    start = time.perf_counter()
    found = disk.speed(tmp_path, seconds=0.05)
    assert time.perf_counter() - start < 5
    assert min(found.write_mb_s, found.read_mb_s, found.files_s) > 0


def test_locks_that_are_not_enforced_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.fcntl, "flock", lambda *_: None)
    assert not disk.locks_hold(tmp_path)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "blosc/lz4", "blosc/zstd"])
def test_codecs(codec: str) -> None:
    disk.codec_round_trip(codec)


def test_an_unknown_codec_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        disk.codec_round_trip("nonsense")


def test_the_nearest_mount_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(mountpoint: Path, fstype: str) -> Any:
        return type("Part", (), {"mountpoint": str(mountpoint), "fstype": fstype})()

    (tmp_path / "data").mkdir()
    parts = [part(Path("/"), "ext4"), part(tmp_path / "data", "nfs4"), part(tmp_path / "dat", "tmpfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert disk.file_system(tmp_path / "data") == "nfs4"
    assert disk.file_system(tmp_path) == "ext4"
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [])
    assert disk.file_system(tmp_path) is None
