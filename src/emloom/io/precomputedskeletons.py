"""Skeletons and properties of segments as neuroglancer reads them ("precomputed").

::

    skeletons/info    JSON: @type, transform (identity: positions are nm), vertex attributes
    skeletons/17      counts of nodes and edges (uint32), x y z in nm (float32), edges (uint32), radius (float32)
    segment_properties/info    JSON: ids, and for each property one value for every id

https://github.com/google/neuroglancer, "precomputed", "skeletons" and "segment properties"; little-endian bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.files import write_bytes_atomic, write_text_atomic

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

INFO = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}


def write_skeleton_info(folder: str | Path) -> None:
    """Write the file that tells neuroglancer what the folder holds; makes the folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text_atomic(Path(folder) / "info", json.dumps(INFO))


def write_precomputed_skeleton(
    folder: str | Path, segment: int, nodes_nm: Floats, edges: Rows, radii_nm: Floats
) -> str:
    """Write the skeleton of one segment; return the name of its file.

    Args:
        folder: that exists.
        segment: id.
        nodes_nm: float64 [N, 3], z, y, x in nm.
        edges: int64 [E, 2], rows of nodes.
        radii_nm: float64 [N].
    """
    counts = np.array([len(nodes_nm), len(edges)], "<u4").tobytes()
    places = nodes_nm[:, ::-1].astype("<f4").tobytes()
    content = counts + places + edges.astype("<u4").tobytes() + radii_nm.astype("<f4").tobytes()
    write_bytes_atomic(Path(folder) / str(segment), content)
    return str(segment)


def read_precomputed_skeleton(folder: str | Path, segment: int) -> tuple[Floats, Rows, Floats]:
    """Return (nodes z, y, x in nm, edges, radii) of a segment; raises `InputError` where there is none."""
    path = Path(folder) / str(segment)
    if not path.is_file():
        raise InputError(f"{folder} holds no skeleton of segment {segment}: check the id")
    content = path.read_bytes()
    n, m = np.frombuffer(content, "<u4", 2).tolist()
    if len(content) != 8 + 12 * n + 8 * m + 4 * n:
        raise InputError(f"{path} is damaged ({len(content)} bytes for {n} nodes, {m} edges): copy it again")
    nodes = np.frombuffer(content, "<f4", 3 * n, 8).reshape(-1, 3)[:, ::-1].astype(np.float64)
    edges = np.frombuffer(content, "<u4", 2 * m, 8 + 12 * n).reshape(-1, 2).astype(np.int64)
    return nodes, edges, np.frombuffer(content, "<f4", n, 8 + 12 * n + 8 * m).astype(np.float64)


def write_segment_properties(
    folder: str | Path, ids: Sequence[int], numbers: Mapping[str, tuple[str, NDArray[Any]]]
) -> None:
    """Write what is known of segments, which neuroglancer lists, sorts and filters; makes the folder.

    Args:
        folder: of the properties.
        ids: n segments.
        numbers: name -> (description, n values); integers or floating point.
    """
    properties = []
    for name, (words, values) in numbers.items():
        # The page knows no 64-bit numbers; what does not fit into 32 bits is told as floating point.
        whole = values.dtype.kind in "iu" and (
            not len(values) or 0 <= int(values.min()) <= int(values.max()) < 2**32
        )
        kind = "uint32" if whole else "float32"
        listed = [int(v) for v in values] if whole else [float(np.float32(v)) for v in values]
        properties.append(
            {"id": name, "type": "number", "description": words, "data_type": kind, "values": listed}
        )
    about = {
        "@type": "neuroglancer_segment_properties",
        "inline": {"ids": [str(i) for i in ids], "properties": properties},
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text_atomic(Path(folder) / "info", json.dumps(about))
