"""Meshes on disk: neuroglancer precomputed (single resolution), PLY and OBJ.

The precomputed form is a folder with a file of JSON and a file of numbers for each segment, in little-endian bytes
(https://github.com/google/neuroglancer, "precomputed", "legacy single-resolution meshes")::

    mesh/info      {"@type": "neuroglancer_legacy_mesh"}
    mesh/17:0      {"fragments": ["17.mesh"]}
    mesh/17.mesh   count of vertices (uint32), x y z in nm (float32) of each, three rows (uint32) of each triangle

PLY (binary) and OBJ hold x, y, z in nm, too; PLY says so in a comment.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.files import write_bytes_atomic, write_text_atomic

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

INFO = {"@type": "neuroglancer_legacy_mesh"}


def write_mesh_info(folder: str | Path) -> None:
    """Write the file that tells neuroglancer what the folder holds; makes the folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text_atomic(Path(folder) / "info", json.dumps(INFO))


def write_precomputed_mesh(folder: str | Path, segment: int, vertices_nm: Floats, faces: Rows) -> tuple[str, str]:
    """Write the mesh of one segment; return the names of its two files.

    Args:
        folder: that exists.
        segment: id.
        vertices_nm: float64 [V, 3], z, y, x in nm.
        faces: int64 [F, 3], rows of vertices.
    """
    manifest, fragment = f"{segment}:0", f"{segment}.mesh"
    count = np.array([len(vertices_nm)], "<u4").tobytes()
    content = count + vertices_nm[:, ::-1].astype("<f4").tobytes() + faces.astype("<u4").tobytes()
    write_bytes_atomic(Path(folder) / fragment, content)
    write_text_atomic(Path(folder) / manifest, json.dumps({"fragments": [fragment]}))
    return manifest, fragment


def read_precomputed_mesh(folder: str | Path, segment: int) -> tuple[Floats, Rows]:
    """Return (vertices z, y, x in nm, faces) of a segment, all its fragments one after the other.

    Raises:
        InputError: there is no mesh of it, or a file is damaged.
    """
    manifest = Path(folder) / f"{segment}:0"
    if not manifest.is_file():
        raise InputError(f"{folder} holds no mesh of segment {segment} (no file {manifest.name}): check the id")
    vertices, faces, before = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for name in json.loads(manifest.read_text(encoding="utf-8"))["fragments"]:
        content = (Path(folder) / str(name)).read_bytes()
        n = int(np.frombuffer(content, "<u4", 1)[0])
        if (len(content) - 4 - 12 * n) % 12 or len(content) < 4 + 12 * n:
            raise InputError(f"{folder}/{name} is damaged ({len(content)} bytes for {n} vertices): copy it again")
        points = np.frombuffer(content, "<f4", 3 * n, 4).reshape(-1, 3)
        vertices.append(points[:, ::-1].astype(np.float64))
        faces.append(np.frombuffer(content, "<u4", -1, 4 + 12 * n).reshape(-1, 3).astype(np.int64) + before)
        before += n
    return np.concatenate(vertices), np.concatenate(faces)


def write_ply(path: str | Path, vertices_nm: Floats, faces: Rows) -> None:
    """Write a mesh as binary PLY, x y z in nm; vertices float64 [V, 3] are z, y, x, faces int64 [F, 3] rows."""
    head = (
        "ply\nformat binary_little_endian 1.0\ncomment x y z in nm\n"
        f"element vertex {len(vertices_nm)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    listed = np.empty(len(faces), [("n", "u1"), ("rows", "<i4", (3,))])
    listed["n"], listed["rows"] = 3, faces
    points = vertices_nm[:, ::-1].astype("<f4")
    write_bytes_atomic(path, head.encode("ascii") + points.tobytes() + listed.tobytes())


def write_obj(path: str | Path, vertices_nm: Floats, faces: Rows) -> None:
    """Write a mesh as OBJ, x y z in nm; vertices float64 [V, 3] are z, y, x, faces int64 [F, 3] rows."""
    lines = ["# x y z in nm"]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for z, y, x in vertices_nm.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    write_text_atomic(path, "\n".join(lines) + "\n")
