"""Each finding under the condition it is about; what is fine, slow and broken are told apart."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from emloom.errors import InputError
from emloom.io import disk
from emloom.nn.devices import Devices, Gpu
from emloom.run.machine import Cores, Memory
from emloom.tasks import doctor as module
from emloom.tasks.doctor import doctor
from emloom.tasks.findings import Finding, Report

GB = 10**9


def levels(findings: Iterator[Finding]) -> dict[str, str]:
    """Return the worst level per thing."""
    order = ["ok", "warning", "error"]
    worst: dict[str, str] = {}
    for finding in findings:
        worst[finding.what] = max(worst.get(finding.what, "ok"), finding.level, key=order.index)
    return worst


def one(findings: Iterator[Finding], what: str) -> Finding:
    return next(finding for finding in findings if finding.what == what)


# ---- the whole ------------------------------------------------------------------------------------------------


def test_this_machine_is_examined_without_errors(tmp_path: Path) -> None:
    report = doctor(tmp_path)
    assert report.ok, report.to_text()
    seen = {finding.what for finding in report.findings}
    assert seen >= {"python", "packages", "codecs", "cores", "threads", "memory", "shared memory", "torch", "GPU"}
    assert seen >= {"bf16", "numba cache", "EMLOOM_DATA", "data cache", "disk space", "rename", "file locks"}
    assert seen >= {"large files", "small files"}
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    assert json.loads(json.dumps(report.to_dict()))["ok"]


def test_only_a_folder_is_examined(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        doctor(tmp_path / "none")


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("ok", "before", "")
        raise ImportError("libtorch.so not found")

    monkeypatch.setattr(module, "torch", broken)
    report = doctor(tmp_path)
    assert not report.ok
    assert one(iter(report.findings), "torch").text == "the check failed: ImportError: libtorch.so not found"
    assert "large files" in {finding.what for finding in report.findings}, "the others are still seen"


def test_a_report_shows_the_line_that_fixes_it() -> None:
    text = Report("/x", (Finding("warning", "threads", "one", "export A=2"), Finding("ok", "b", "two"))).to_text()
    assert "> export A=2\n" in text
    assert text.endswith("0 errors, 1 warnings")


# ---- software -------------------------------------------------------------------------------------------------


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "python_version", lambda: "3.10.14")
    assert levels(module.python()) == {"python": "error"}


def test_an_old_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["numpy>=2", "numba>=0.60", "no-such-package-anywhere>=1.2", 'zarr>=99; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda _: required)
    true = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.9.1" if name == "numba" else true(name))
    old, missing = [finding for finding in module.packages() if finding.level == "error"]
    assert old == Finding(
        "error", "packages", "numba is 0.9.1, but emloom needs 0.60", 'pip install -U "numba>=0.60"'
    )
    assert "no-such-package-anywhere is not installed" in missing.text


def test_sources_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", none)
    assert levels(module.packages()) == {"packages": "warning"}


@pytest.mark.parametrize(
    ("version", "least", "old"),
    [("2.0.1", "2", False), ("0.9", "0.10", True), ("2.13.0+cpu", "2.6", False), ("3.0rc1", "3.1", True)],
)
def test_versions_compare_by_number(version: str, least: str, old: bool) -> None:
    assert (module._numbers(version) < module._numbers(least)) is old


def test_a_missing_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lz4(codec: str) -> None:
        if codec == "blosc/lz4":
            raise ValueError("not registered")

    monkeypatch.setattr(disk, "codec_round_trip", no_lz4)
    finding = one(module.codecs(), "codecs")
    assert finding.level == "error"
    assert "blosc/lz4 (not registered)" in finding.text
    assert "zstd (" not in finding.text


# ---- cores and memory -----------------------------------------------------------------------------------------

EIGHT, QUOTA_2 = Cores(8, 8, None), Cores(8, 8, 2.0)


@pytest.mark.parametrize(
    ("cores", "environment", "level", "fix"),
    [
        (EIGHT, {}, "ok", None),
        (EIGHT, {"OMP_NUM_THREADS": "8"}, "ok", None),
        (EIGHT, {"OMP_NUM_THREADS": "8,2"}, "ok", None),
        (EIGHT, {"OMP_NUM_THREADS": "1"}, "warning", "export OMP_NUM_THREADS=8"),
        (EIGHT, {"NUMBA_NUM_THREADS": "32"}, "warning", "export NUMBA_NUM_THREADS=8"),
        (EIGHT, {"OMP_NUM_THREADS": "many"}, "warning", "export OMP_NUM_THREADS=8"),
        (EIGHT, {"OMP_NUM_THREADS": "0"}, "warning", "export OMP_NUM_THREADS=8"),
        (QUOTA_2, {}, "warning", "export OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2"),
        (QUOTA_2, {"OMP_NUM_THREADS": "2"}, "ok", None),
        (QUOTA_2, {"OMP_NUM_THREADS": "8"}, "warning", "export OMP_NUM_THREADS=2"),
        (Cores(1, 1, None), {"OMP_NUM_THREADS": "1"}, "ok", None),
    ],
)
def test_threads(cores: Cores, environment: dict[str, str], level: str, fix: str | None) -> None:
    finding = one(module.threads(cores, environment), "threads")
    assert (finding.level, finding.fix) == (level, fix)


@pytest.mark.parametrize(
    ("main", "shared", "expected"),
    [
        (Memory(32 * GB, 20 * GB, None), (16 * GB, 16 * GB), {"memory": "ok", "shared memory": "ok"}),
        (Memory(32 * GB, 2 * GB, 4 * GB), (16 * GB, 16 * GB), {"memory": "warning", "shared memory": "ok"}),
        (Memory(32 * GB, 20 * GB, None), (64 * 2**20, 2**20), {"memory": "ok", "shared memory": "warning"}),
        (Memory(32 * GB, 20 * GB, None), None, {"memory": "ok", "shared memory": "ok"}),
    ],
)
def test_memory(main: Memory, shared: tuple[int, int] | None, expected: dict[str, str]) -> None:
    assert levels(module.memory(main, shared)) == expected
    if shared is None:
        assert "cannot be known" in one(module.memory(main, shared), "shared memory").text


CPU = Devices("2.13.0+cpu", None, None, (), "", 8, False)
CUDA = replace(CPU, torch="2.13.0", cuda_build="13.0", driver="570.86.15", bf16=True)


@pytest.mark.parametrize(
    ("found", "level", "text"),
    [
        (CPU, "ok", "none: no NVIDIA driver"),
        (replace(CPU, driver="570.86.15"), "warning", "torch is a CPU build"),
        (
            replace(CUDA, why_not="The NVIDIA driver is too old"),
            "warning",
            "570.86.15: The NVIDIA driver is too old",
        ),
        (CUDA, "warning", "CUDA_VISIBLE_DEVICES"),
        (
            replace(CUDA, gpus=(Gpu("H200", 150 * GB, 149 * GB),)),
            "ok",
            "H200, 150.0 GB, 149.0 GB free; driver 570",
        ),
        (replace(CUDA, gpus=(Gpu("H200", 150 * GB, None),)), "ok", "does not say"),
    ],
)
def test_gpu(found: Devices, level: str, text: str) -> None:
    finding = one(module.accelerator(found), "GPU")
    assert finding.level == level
    assert text in finding.text
    assert (finding.fix is None) == (level == "ok")


def test_bf16() -> None:
    assert "not in hardware" in one(module.accelerator(CPU), "bf16").text
    assert one(module.accelerator(CUDA), "bf16").text.startswith("in hardware")


# ---- folders and disks ----------------------------------------------------------------------------------------


def test_numba_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"NUMBA_CACHE_DIR": str(tmp_path / "deep" / "cache")}
    assert one(module.numba_cache(asked), "numba cache").level == "ok"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    finding = one(module.numba_cache({"NUMBA_CACHE_DIR": str(tmp_path / "file")}), "numba cache")
    assert finding.level == "warning"
    assert "export NUMBA_CACHE_DIR" in (finding.fix or "")


def test_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMLOOM_CACHE", str(tmp_path / "cache"))
    assert levels(module.data({})) == {"EMLOOM_DATA": "ok", "data cache": "ok"}
    assert levels(module.data({"EMLOOM_DATA": str(tmp_path)}))["EMLOOM_DATA"] == "ok"
    assert levels(module.data({"EMLOOM_DATA": str(tmp_path / "none")}))["EMLOOM_DATA"] == "warning"
    (tmp_path / "cache").touch()
    assert levels(module.data({}))["data cache"] == "warning"


@pytest.mark.parametrize(("free", "level"), [(100 * GB, "ok"), (5 * GB, "warning"), (10**6, "error")])
def test_space(free: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": free, "total": 200 * GB})()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    assert one(module.space(tmp_path), "disk space").level == level


def raising(number: int, text: str) -> Any:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, text)

    return fail


@pytest.mark.fault(
    "disk",
    "`emloom doctor` is asked about a folder that cannot be written",
    "an error among its findings, with the reason",
)
def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.tempfile, "mkdtemp", raising(errno.EROFS, "Read-only file system"))
    finding = one(module.file_system(tmp_path, {}), "writing")
    assert finding.level == "error"
    assert "Read-only file system" in finding.text


def test_a_disk_that_fills_up_during_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "speed", raising(errno.ENOSPC, "No space left on device"))
    assert levels(module.file_system(tmp_path, {}))["writing"] == "error"
    assert not list(tmp_path.iterdir())


def test_renaming_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(module.renaming(tmp_path)) == {"rename": "ok"}
    monkeypatch.setattr(disk.os, "fsync", raising(errno.EINVAL, "Invalid argument"))
    assert levels(module.renaming(tmp_path)) == {"rename": "error"}


def test_locks_that_hold(tmp_path: Path) -> None:
    assert levels(module.locking(tmp_path, {}, "ext4")) == {"file locks": "ok"}
    text = one(module.locking(tmp_path, {}, "nfs4"), "file locks").text
    assert "between machines (nfs4) it cannot be known" in text


@pytest.mark.fault(
    "disk",
    "`emloom doctor` is asked about a disk without locks",
    "a warning, with what follows from it",
)
def test_locks_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.fcntl, "flock", raising(errno.ENOLCK, "No locks available"))
    finding = one(module.locking(tmp_path, {}, None), "file locks")
    assert finding.level == "warning"
    assert "No locks available" in finding.text


def test_locks_that_are_not_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.fcntl, "flock", lambda *_: None)
    assert "not enforced" in one(module.locking(tmp_path, {}, None), "file locks").text


def test_locks_that_are_switched_off(tmp_path: Path) -> None:
    finding = one(module.locking(tmp_path, {"HDF5_USE_FILE_LOCKING": "FALSE"}, None), "file locks")
    assert (finding.level, finding.fix) == ("warning", "unset HDF5_USE_FILE_LOCKING")


def test_hdf5_that_cannot_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "write_hdf5", raising(errno.ENOLCK, "unable to lock file, errno = 37"))
    finding = one(module.locking(tmp_path, {}, "nfs"), "HDF5")
    assert finding.level == "error"
    assert (finding.fix or "").startswith("export HDF5_USE_FILE_LOCKING=FALSE")
    off = {"HDF5_USE_FILE_LOCKING": "FALSE"}
    assert one(module.locking(tmp_path, off, "nfs"), "HDF5").fix is None, "no advice that is already followed"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (disk.Speed(500, 900, False, 5000), {"large files": "ok", "small files": "ok"}),
        (disk.Speed(20, 900, True, 5000), {"large files": "warning", "small files": "ok"}),
        (disk.Speed(500, 900, False, 30), {"large files": "ok", "small files": "warning"}),
    ],
)
def test_speed(
    measured: disk.Speed, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "speed", lambda _: measured)
    assert levels(module.speed(tmp_path)) == expected
    assert ("from memory" in one(module.speed(tmp_path), "large files").text) is measured.read_is_cached
