"""Where a result came from: enough, beside every output, to make it again.

A fingerprint identifies an input without reading terabytes: names, sizes and modification times of its files, and
the first and last 64 KiB of a single file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from emloom import __version__
from emloom.errors import InputError
from emloom.io.files import write_text_atomic

_EDGE_BYTES = 65536
_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "torch",
    "openvino",
    "tensorstore",
    "h5py",
    "edt",
    "connected-components-3d",
    "fastremap",
)


def fingerprint(path: str | Path) -> str:
    """Return a short hash that changes when the file or folder that holds `path` changes.

    `path` may go on inside a container (``stack.h5/volumes/raw``).

    Raises:
        InputError: nothing exists there.
    """
    place = next((p for p in (Path(path), *Path(path).parents) if p.exists()), Path(path))
    # Going on inside a container is fine for a file (HDF5); a folder's inner parts exist by themselves.
    if not place.exists() or (place != Path(path) and not place.is_file()):
        raise InputError(f"{path} does not exist: check the path")
    digest = hashlib.sha256(str(path).encode())
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    for file in files:
        status = file.stat()
        name = file.name if file == place else str(file.relative_to(place))
        digest.update(f"{name}:{status.st_size}:{status.st_mtime_ns};".encode())
    if place.is_file():
        digest.update(_edges(place))
    return digest.hexdigest()[:16]


def _edges(path: Path) -> bytes:
    with path.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, path.stat().st_size - _EDGE_BYTES))
        return head + stream.read(_EDGE_BYTES)


def environment() -> dict[str, Any]:
    """Return versions of emloom, Python and the packages that decide numbers, and the machine's size."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "emloom": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }


def write_provenance(
    path: Path,
    spec: Mapping[str, Any],
    inputs: Mapping[str, str],
    seconds: Mapping[str, float],
    more: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write what was run (resolved spec), on what (fingerprints), with what (versions) and how long it took.

    `more` says what else decided the result, e.g. which backend computed it.
    """
    record = {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "environment": environment(),
        **(more or {}),
        "inputs": dict(inputs),
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "spec": dict(spec),
    }
    write_text_atomic(path, json.dumps(record, indent=2))
    return record
