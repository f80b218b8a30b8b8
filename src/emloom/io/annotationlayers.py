"""Contacts as lines from pre to post site, for neuroglancer: precomputed annotations, or one file of a state.

`write_annotation_layer` writes the format ``neuroglancer_annotations_v1``, in little-endian bytes::

    info                    JSON: dimensions x, y, z, bounds, properties, relationships
    by_id/17                the line of synapse 17, then how many and which segments it relates to
    rel_pre_segment/7       count, the lines whose pre site lies in segment 7, their ids
    rel_post_segment/12     count, the lines whose post site does, their ids
    spatial0/0_0_0          count, all lines, their ids: one cell, so that a page loads all of them at once

A line is two points of three float32 (x, y, z in voxels, or in nm where no voxel size is known), score (float32)
and size (uint32). That is a file for every synapse and segment: good up to some hundred thousand.

`write_state` writes a state of neuroglancer (JSON) with the lines inside of it, in a layer of local annotations: a
page loads it by pasting, and it needs no server.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.grid import Vec3
from emloom.geometry.synapses import SynapseTable
from emloom.io.files import staged, write_text_atomic

LINE = np.dtype([("points", "<f4", (2, 3)), ("score", "<f4"), ("size_vox", "<u4")])
"""A line in precomputed annotations: points x, y, z of the pre and the post site."""
RELATIONSHIPS = ("pre_segment", "post_segment")
_NM = 1e-9
_PROPERTIES = ("score", "float32", "of the contact, 0 to 1"), ("size_vox", "uint32", "voxels of the cleft")


def write_annotation_layer(
    folder: str | Path, table: SynapseTable, voxel_size_nm: Vec3 = (1.0, 1.0, 1.0), *, overwrite: bool = False
) -> None:
    """Write contacts as precomputed annotations, in one step.

    Args:
        folder: to be made.
        table: the contacts.
        voxel_size_nm: unit (z, y, x) of the positions in the files.
        overwrite: replace a folder that is there.

    Raises:
        InputError: the folder exists, or the disk refuses.
    """
    lines, ids = _lines(table, voxel_size_nm), table.ids
    related = [table.pre_segments, table.post_segments]
    with staged(folder, overwrite=overwrite) as temporary:
        for part in ("by_id", "spatial0", *(f"rel_{name}" for name in RELATIONSHIPS)):
            (temporary / part).mkdir(parents=True)
        (temporary / "info").write_text(json.dumps(_info(lines, voxel_size_nm), indent=1), encoding="utf-8")
        (temporary / "spatial0" / "0_0_0").write_bytes(_listed(lines, ids))
        for row, number in enumerate(ids.tolist()):
            # One segment on either side; a site in none relates to none.
            words = [
                struct.pack("<IQ", 1, s) if s else struct.pack("<I", 0) for s in (int(r[row]) for r in related)
            ]
            (temporary / "by_id" / str(number)).write_bytes(lines[row].tobytes() + b"".join(words))
        for name, segments in zip(RELATIONSHIPS, related, strict=True):
            for segment in np.unique(segments[segments != 0]).tolist():
                rows = np.flatnonzero(segments == segment)
                (temporary / f"rel_{name}" / str(segment)).write_bytes(_listed(lines[rows], ids[rows]))


def read_annotation_lines(folder: str | Path) -> tuple[NDArray[np.uint64], NDArray[Any]]:
    """Return (ids, lines of dtype `LINE`) of a layer of `write_annotation_layer`, from its spatial index."""
    raw = (Path(folder) / "spatial0" / "0_0_0").read_bytes()
    (count,) = struct.unpack_from("<Q", raw)
    lines = np.frombuffer(raw, LINE, count, 8)
    return np.frombuffer(raw, "<u8", count, 8 + count * LINE.itemsize).astype(np.uint64), lines


def write_state(
    path: str | Path,
    table: SynapseTable,
    voxel_size_nm: Vec3 = (1.0, 1.0, 1.0),
    segmentation: str | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a state of neuroglancer with contacts as lines, in one step.

    Args:
        path: `.json`.
        table: the contacts.
        voxel_size_nm: (z, y, x), the dimensions of the page.
        segmentation: address of the labels for a layer of their own, such as ``precomputed://https://...``; the
            lines are then linked to its segments.
        overwrite: replace a file that is there.

    Raises:
        InputError: the file exists, or the disk refuses.
    """
    write_text_atomic(
        path, json.dumps(state_of(table, voxel_size_nm, segmentation), indent=1), overwrite=overwrite
    )


def state_of(table: SynapseTable, voxel_size_nm: Vec3, segmentation: str | None = None) -> dict[str, Any]:
    """Return the state that `write_state` writes, plain JSON values."""
    points = _points(table, voxel_size_nm)
    linked = segmentation is not None
    annotations = [
        {
            "type": "line",
            "id": str(number),
            "pointA": a,
            "pointB": b,
            "description": f"{pre} to {post}, score {score:.3g}",
            **({"segments": [[str(pre)] if pre else [], [str(post)] if post else []]} if linked else {}),
        }
        for number, (a, b), pre, post, score in zip(
            table.ids.tolist(), points.tolist(), table.pre_segments.tolist(), table.post_segments.tolist(),
            table.scores.tolist(), strict=True,
        )
    ]  # fmt: skip
    dimensions = _dimensions(voxel_size_nm)
    layer: dict[str, Any] = {
        "type": "annotation",
        "name": "synapses",
        "source": {"url": "local://annotations", "transform": {"outputDimensions": dimensions}},
        "annotations": annotations,
    }
    layers = [layer]
    if segmentation is not None:
        layer |= {
            "annotationRelationships": list(RELATIONSHIPS),
            "linkedSegmentationLayer": dict.fromkeys(RELATIONSHIPS, "segmentation"),
        }
        layers.insert(0, {"type": "segmentation", "name": "segmentation", "source": segmentation})
    state: dict[str, Any] = {"dimensions": dimensions, "layers": layers, "layout": "4panel"}
    if len(table):
        state["position"] = points.reshape(-1, 3).mean(axis=0).tolist()
    return state


def _dimensions(voxel_size_nm: Vec3) -> dict[str, Sequence[Any]]:
    return {axis: [size * _NM, "m"] for axis, size in zip("xyz", voxel_size_nm[::-1], strict=True)}


def _points(table: SynapseTable, voxel_size_nm: Vec3) -> NDArray[np.float64]:
    """Return float64 [n, 2, 3]: the pre and the post site, x, y, z in units of the page."""
    sites = np.stack([table.pre_nm, table.post_nm], axis=1) / np.array(voxel_size_nm)
    turned: NDArray[np.float64] = sites[..., ::-1]
    return turned


def _lines(table: SynapseTable, voxel_size_nm: Vec3) -> NDArray[Any]:
    lines = np.zeros(len(table), LINE)
    lines["points"] = _points(table, voxel_size_nm)
    lines["score"] = table.scores
    lines["size_vox"] = np.minimum(table.sizes_vox, np.iinfo(np.uint32).max)
    return lines


def _listed(lines: NDArray[Any], ids: NDArray[np.uint64]) -> bytes:
    return struct.pack("<Q", len(lines)) + lines.tobytes() + ids.astype("<u8").tobytes()


def _info(lines: NDArray[Any], voxel_size_nm: Vec3) -> dict[str, Any]:
    ends = lines["points"].reshape(-1, 3)
    low, high = (ends.min(axis=0), ends.max(axis=0)) if len(ends) else (np.zeros(3), np.zeros(3))
    return {
        "@type": "neuroglancer_annotations_v1",
        "dimensions": _dimensions(voxel_size_nm),
        "lower_bound": low.tolist(),
        "upper_bound": high.tolist(),
        "annotation_type": "line",
        "properties": [{"id": name, "type": kind, "description": text} for name, kind, text in _PROPERTIES],
        "relationships": [{"id": name, "key": f"rel_{name}"} for name in RELATIONSHIPS],
        "by_id": {"key": "by_id"},
        "spatial": [
            {
                "key": "spatial0",
                "grid_shape": [1, 1, 1],
                "chunk_size": np.maximum(high - low, 1).tolist(),
                # Zero is no limit that a page can work with.
                "limit": max(1, len(lines)),
            }
        ],
    }
