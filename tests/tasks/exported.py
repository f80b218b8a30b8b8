"""A small tissue on disk with synapses, for tests of exports and of the view."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emloom.testing.phantom import PhantomSpec, write_phantom

ROOT = Path(__file__).parents[2]
SPEC = PhantomSpec.from_dict({"shape": (48, 80, 88), "seed": 8, "neurite_nm": 120.0, "synapses": 40.0}, "test")

_JUDGE = """
import json, sys
import cloudvolume, numpy as np
volume = cloudvolume.CloudVolume("file://" + sys.argv[1], progress=False)
said = {"bounds": [volume.bounds.minpt.tolist(), volume.bounds.maxpt.tolist()]}
for segment in map(int, sys.argv[2:]):
    mesh = volume.mesh.get(segment)
    mesh = mesh[segment] if isinstance(mesh, dict) else mesh
    corners = mesh.vertices[mesh.faces].astype(float)
    inside = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    line = volume.skeleton.get(segment)
    said[segment] = {
        "inside_nm3": inside, "low": mesh.vertices.min(0).tolist(), "high": mesh.vertices.max(0).tolist(),
        "length_nm": float(line.cable_length()), "nodes": line.vertices.tolist(), "radii": line.radius.tolist(),
    }
print(json.dumps(said))
"""


def tissue(folder: Path) -> Path:
    """Write raw.zarr, labels.zarr, synapses.parquet and more; return the folder."""
    write_phantom(SPEC, folder)
    return folder


def judged(volume: Path, *segments: int) -> dict[str, Any]:
    """Return what cloud-volume says about a precomputed volume, its meshes and its skeletons."""
    python = Path(os.environ.get("EMLOOM_PEERS", ROOT / ".venv-peers/bin/python"))
    if not python.exists():
        pytest.skip(f"no cloud-volume at {python}: run `make peers`")
    command = [str(python), "-I", "-c", _JUDGE, str(volume), *map(str, segments)]
    environment = {**os.environ, "HOME": str(volume.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
