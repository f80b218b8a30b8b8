"""`emloom doctor`: what this machine and this folder can do, what is slow or broken, and the line that fixes it.

Every check returns findings and never raises: what cannot be known is said so. Only an error (something emloom
cannot work with) makes the command fail; a warning costs time or safety. The measuring itself is in `io.disk` and
`run.machine`; here stands the judgement.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import emloom
from emloom.errors import InputError
from emloom.io import datasets, disk
from emloom.run import machine
from emloom.tasks.findings import Finding, Report

if TYPE_CHECKING:
    from emloom.nn.devices import Devices

CODECS = ("zstd", "gzip", "blosc/lz4", "blosc/zstd")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LEAST_PYTHON = (3, 11)
LITTLE_SPACE, NO_SPACE = 10 * 10**9, 200 * 10**6
LITTLE_MEMORY, LITTLE_SHARED_MEMORY = 6 * 2**30, 2**30
SLOW_WRITE_MB_S, SLOW_FILES_S = 50.0, 200.0
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "fuse", "9p", "ceph", "glusterfs")
_MINIMUM = re.compile(r"^([A-Za-z0-9._-]+)>=([0-9.]+)$")


def doctor(folder: str | Path = ".") -> Report:
    """Examine this machine, and the file system of a folder.

    Args:
        folder: where data are, or shall be written; small files are made there and removed, for about a second.

    Raises:
        InputError: there is no such folder.
    """
    place = Path(folder).resolve()
    if not place.is_dir():
        raise InputError(f"{folder} is not a folder: name an existing one, or none for the current folder")
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", python),
        ("packages", packages),
        ("codecs", codecs),
        ("threads", lambda: threads(machine.cores(), os.environ)),
        ("memory", lambda: memory(machine.memory(), machine.shared_memory())),
        ("torch", torch),
        ("numba cache", lambda: numba_cache(os.environ)),
        ("data", lambda: data(os.environ)),
        ("space", lambda: space(place)),
        ("folder", lambda: file_system(place, os.environ)),
    )
    return Report(str(place), tuple(found for what, check in checks for found in _guarded(what, check)))


def _guarded(what: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Run a check; one that breaks is a finding itself, so that the others are still seen."""
    try:
        return list(check())
    except Exception as problem:  # noqa: BLE001 (a broken installation may raise anything)
        return [Finding("error", what, f"the check failed: {type(problem).__name__}: {problem}")]


def python() -> Iterator[Finding]:
    """Look at the version of Python."""
    version, least = platform.python_version(), ".".join(map(str, LEAST_PYTHON))
    if _numbers(version) < LEAST_PYTHON:
        yield Finding(
            "error", "python", f"{version}, but emloom needs {least}", f"install Python {least} or newer"
        )
    else:
        yield Finding("ok", "python", f"{version} on {platform.system()} {platform.machine()}")


def packages() -> Iterator[Finding]:
    """Compare installed packages with the minimums that emloom's own metadata state."""
    try:
        required = metadata.requires("emloom") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "warning",
            "packages",
            "emloom is not installed as a package, so its minimums are unknown",
            "pip install -e .",
        )
        return
    minimums = [found.groups() for line in required if (found := _MINIMUM.match(line))]
    bad = [finding for name, least in minimums for finding in _package(name, least)]
    yield from bad
    if not bad:
        yield Finding(
            "ok", "packages", f"emloom {emloom.__version__}; all {len(minimums)} packages are recent enough"
        )


def _package(name: str, least: str) -> Iterator[Finding]:
    fix = f'pip install -U "{name}>={least}"'
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        yield Finding("error", "packages", f"{name} is not installed", fix)
        return
    if _numbers(version) < _numbers(least):
        yield Finding("error", "packages", f"{name} is {version}, but emloom needs {least}", fix)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def codecs() -> Iterator[Finding]:
    """Write and read a tiny array with every codec."""
    missing = []
    for codec in CODECS:
        try:
            disk.codec_round_trip(codec)
        except (ValueError, OSError, RuntimeError) as problem:
            missing.append(f"{codec} ({problem})")
    if missing:
        yield Finding("error", "codecs", f"not working: {'; '.join(missing)}", "pip install -U tensorstore")
    else:
        yield Finding("ok", "codecs", f"{', '.join(CODECS)} write and read back the same values")


def threads(cores: machine.Cores, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Compare the cores this process may use with the threads that libraries are told to start."""
    n = cores.usable
    quota = "" if cores.quota is None else f", {cores.quota:g} by the control group's quota"
    yield Finding(
        "ok", "cores", f"{n} usable: {cores.machine} in the machine, {cores.affinity} by affinity{quota}"
    )
    told = {name: environment[name] for name in THREAD_VARIABLES if environment.get(name)}
    bad = [finding for name, text in told.items() for finding in _threads_of(name, text, n)]
    yield from bad
    if n < cores.affinity and "OMP_NUM_THREADS" not in told:
        yield Finding(
            "warning",
            "threads",
            f"libraries count {cores.affinity} cores and start as many threads, but the quota grants {n}",
            f"export OMP_NUM_THREADS={n} NUMBA_NUM_THREADS={n}",
        )
    elif not bad:
        settings = ", ".join(f"{name}={text}" for name, text in told.items()) or "as many as there are cores"
        yield Finding("ok", "threads", settings)


def _threads_of(name: str, text: str, usable: int) -> Iterator[Finding]:
    fix = f"export {name}={usable}"
    count = text.split(",")[0]
    if not count.isdigit() or int(count) == 0:
        yield Finding("warning", "threads", f"{name}={text} is not a number of threads", fix)
    elif int(count) > usable:
        yield Finding("warning", "threads", f"{name}={text}, but {usable} cores are usable: they will queue", fix)
    elif int(count) == 1 and usable > 1:
        yield Finding("warning", "threads", f"{name}=1 leaves {usable - 1} of {usable} cores idle", fix)


def memory(main: machine.Memory, shared: tuple[int, int] | None) -> Iterator[Finding]:
    """Look at main memory and at the shared memory that loader processes need."""
    limit = (
        "no control-group limit" if main.limit is None else f"limited to {_gb(main.limit)} by its control group"
    )
    text = f"{_gb(main.machine)} in the machine, {limit}, {_gb(main.available)} free"
    if main.usable < LITTLE_MEMORY:
        yield Finding(
            "warning", "memory", f"{text}: little for training", "add --workers 0 to emloom run and train"
        )
    else:
        yield Finding("ok", "memory", text)
    if shared is None:
        yield Finding("ok", "shared memory", "cannot be known on this system")
    elif shared[0] < LITTLE_SHARED_MEMORY:
        yield Finding(
            "warning",
            "shared memory",
            f"/dev/shm has {_gb(shared[0])}: loader processes may die of it (bus error)",
            "in a container: docker run --shm-size=8g ...; else add --workers 0",
        )
    else:
        yield Finding("ok", "shared memory", f"/dev/shm has {_gb(shared[0])}, {_gb(shared[1])} free")


def torch() -> Iterator[Finding]:
    """Ask torch what it can compute on; importing it takes seconds, so it happens here."""
    from emloom.nn.devices import devices

    return accelerator(devices())


def accelerator(found: Devices) -> Iterator[Finding]:
    """Look at the GPU, its driver, and whether the device multiplies brain floats."""
    build = "a CPU build" if found.cuda_build is None else f"built for CUDA {found.cuda_build}"
    driver = "no NVIDIA driver is loaded" if found.driver is None else f"driver {found.driver}"
    yield Finding("ok", "torch", f"{found.torch}, {build}, {found.threads} threads")
    for gpu in found.gpus:
        free = "how much is free it does not say" if gpu.free is None else f"{_gb(gpu.free)} free"
        yield Finding("ok", "GPU", f"{gpu.name}, {_gb(gpu.memory)}, {free}; {driver}")
    if not found.gpus and found.driver is None:
        yield Finding("ok", "GPU", f"none: {driver}; training runs on the processor")
    elif not found.gpus and found.cuda_build is None:
        text = f"{driver} is loaded, but torch is a CPU build and cannot use the GPU"
        yield Finding(
            "warning", "GPU", text, "pip install --force-reinstall torch   # see https://pytorch.org for CUDA"
        )
    elif not found.gpus:
        said = found.why_not or "no device is visible to this process (CUDA_VISIBLE_DEVICES? rights?)"
        text = f"torch ({build}) does not use it; {driver}: {said}"
        yield Finding(
            "warning", "GPU", text, "nvidia-smi   # then update the driver, or install a torch that fits it"
        )
    native = "in hardware: training uses them" if found.bf16 else "not in hardware: training uses float32"
    yield Finding("ok", "bf16", f"{native} ({'GPU' if found.gpus else 'processor'})")


def numba_cache(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look for a folder where compiled kernels can be kept; without one, every start compiles anew."""
    asked = environment.get("NUMBA_CACHE_DIR")
    beside = Path(emloom.__file__).parent / "ops"
    user = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba"
    places = [Path(asked)] if asked else [beside / "__pycache__", user]
    usable = next((place for place in places if _writable(place)), None)
    if usable is None:
        yield Finding(
            "warning",
            "numba cache",
            f"not writable: {', '.join(map(str, places))}; every start compiles its kernels anew",
            "export NUMBA_CACHE_DIR=$HOME/.numba-cache   # any folder you may write",
        )
    else:
        yield Finding("ok", "numba cache", str(usable))


def data(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the folders of data sets."""
    own = environment.get("EMLOOM_DATA")
    if own and not Path(own).is_dir():
        yield Finding(
            "warning",
            "EMLOOM_DATA",
            f"{own} is not a folder",
            "export EMLOOM_DATA=/folder/with/one/folder/per/set",
        )
    else:
        yield Finding("ok", "EMLOOM_DATA", own or "not set; `emloom data fetch` downloads to the cache")
    cache = datasets.cache_folder()
    if _writable(cache):
        yield Finding("ok", "data cache", str(cache))
    else:
        yield Finding(
            "warning", "data cache", f"{cache} is not writable", "export EMLOOM_CACHE=/folder/you/may/write"
        )


def space(folder: Path) -> Iterator[Finding]:
    """Look at the free space of the folder's disk; quotas of accounts are not seen."""
    usage = shutil.disk_usage(folder)
    text = f"{_gb(usage.free)} free of {_gb(usage.total)} at {folder} (an account's quota cannot be known)"
    if usage.free < NO_SPACE:
        yield Finding("error", "disk space", text, "free some space, or choose a folder on another disk")
    elif usage.free < LITTLE_SPACE:
        yield Finding("warning", "disk space", text, "free some space, or choose a folder on another disk")
    else:
        yield Finding("ok", "disk space", text)


def file_system(folder: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Try out what the folder's file system can do."""
    kind = disk.file_system(folder)
    yield Finding("ok", "file system", kind or "its type cannot be known")
    try:
        with disk.trial_folder(folder) as trial:
            yield from renaming(trial)
            yield from locking(trial, environment, kind)
            yield from speed(trial)
    except OSError as problem:
        yield Finding(
            "error",
            "writing",
            f"{folder}: {problem.strerror or problem}",
            "choose a folder you may write, or another disk",
        )


def renaming(trial: Path) -> Iterator[Finding]:
    """Try the way every output is finished: flush, then rename."""
    try:
        disk.replace_in_one_step(trial)
    except OSError as problem:
        yield Finding(
            "error",
            "rename",
            f"a finished file cannot be flushed and renamed ({problem}): outputs would not be safe from crashes",
            "choose a folder on another file system",
        )
    else:
        yield Finding("ok", "rename", "files are flushed and replaced in one step")


def locking(trial: Path, environment: Mapping[str, str], kind: str | None) -> Iterator[Finding]:
    """Try file locks, on which HDF5 relies to keep two writers apart."""
    switch = environment.get("HDF5_USE_FILE_LOCKING", "").upper()
    off = switch in ("FALSE", "0")
    try:
        disk.write_hdf5(trial)
    except (OSError, RuntimeError) as problem:
        text = f"HDF5 files cannot be written here ({problem})"
        fix = None if off else "export HDF5_USE_FILE_LOCKING=FALSE   # and never let two processes write one file"
        yield Finding("error", "HDF5", text, fix)
    try:
        held = disk.locks_hold(trial)
    except OSError as problem:
        held = False
        reason = f"not supported ({problem.strerror})"
    else:
        reason = "" if held else "accepted but not enforced"
    if off:
        text = "switched off for HDF5 (HDF5_USE_FILE_LOCKING): two writers of one file would not be noticed"
        yield Finding("warning", "file locks", text, "unset HDF5_USE_FILE_LOCKING" if held else None)
    elif not held:
        text = f"{reason}: two writers of one HDF5 file would not be noticed"
        yield Finding("warning", "file locks", text, "use zarr for outputs of several processes")
    elif kind is not None and kind.startswith(NETWORK_FILE_SYSTEMS):
        yield Finding(
            "ok", "file locks", f"hold on this machine; between machines ({kind}) it cannot be known from here"
        )
    else:
        yield Finding("ok", "file locks", "hold")


def speed(trial: Path) -> Iterator[Finding]:
    """Measure one large and many small files."""
    found = disk.speed(trial)
    cached = " (from memory)" if found.read_is_cached else ""
    text = f"writes {found.write_mb_s:.0f} MB/s, reads {found.read_mb_s:.0f} MB/s{cached}"
    if found.write_mb_s < SLOW_WRITE_MB_S:
        yield Finding("warning", "large files", f"{text}: slow", "write to a local disk and copy the result")
    else:
        yield Finding("ok", "large files", text)
    text = f"{found.files_s:.0f} files of 4 KiB per second"
    if found.files_s < SLOW_FILES_S:
        fix = "keep volumes in few large files (HDF5, sharded zarr), or work on a local disk"
        yield Finding("warning", "small files", f"{text}: slow, every chunk of a zarr is a file", fix)
    else:
        yield Finding("ok", "small files", text)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself can be made; nothing is left behind."""
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    try:
        with disk.trial_folder(folder):
            return True
    except OSError:
        return False


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
