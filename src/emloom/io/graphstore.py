"""The region graph on disk: Parquet files below a segmentation, one per cell, so that cells write side by side.

::

    seg.zarr/graph/edges/<z>_<y>_<x>.parquet    u < v, n, total, peak, contacts [, histogram]: edges the cell owns
                   nodes/<z>_<y>_<x>.parquet    id, size, sum_z .. sum_x, z0 .. x1: fragments' voxels in the cell
                   merges.parquet               score_num, score_den, a, b: the merge tree, best first
                   luts/<linkage>/0.57.parquet  fragment, segment: the fragments that change at this threshold

``z_y_x`` is the position of the cell on the lattice of cells. An edge, or a fragment, that reaches into several
cells has a row in each; **the sum over files is the whole** (of peaks the maximum, of bounding boxes the hull),
exactly and in any order, because everything is an integer. Files are sorted, written whole or not at all, and the
same bytes for the same columns. Numbers are stored as differences (DELTA_BINARY_PACKED) under zstd; `histogram` is
`io.histograms.pack` of each row. What the columns cannot say (voxel size, cells, bins) stands in each file's
metadata.

Law: ``read_*(write_*(columns, info)) == (columns, info)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.box import as_vec
from emloom.io.histograms import pack, unpack
from emloom.io.tables import Table, read_arrow, read_table, write_arrow

Columns = dict[str, NDArray[Any]]
Part = Literal["edges", "nodes"]

SCHEMA = 1
"""Version of the layout; files of another one are refused."""

EDGES = {"u": "uint64", "v": "uint64", "n": "int64", "total": "int64", "peak": "int64", "contacts": "int64"}
NODES = {
    "id": "uint64",
    "size": "int64",
    **dict.fromkeys(("sum_z", "sum_y", "sum_x"), "uint64"),
    **dict.fromkeys(("z0", "y0", "x0", "z1", "y1", "x1"), "int64"),
}
MERGES = {"score_num": "int64", "score_den": "int64", "a": "uint64", "b": "uint64"}
LUT = {"fragment": "uint64", "segment": "uint64"}

_BLOCK = re.compile(r"(-?\d+)_(-?\d+)_(-?\d+)\.parquet")
_KEY = "emloom.graph"


@dataclass(frozen=True)
class GraphInfo:
    """What every file of a region graph says about itself.

    Attributes:
        grid: voxel size and offset of the volume whose voxels the positions count.
        cell_shape: voxels per cell; cell ``(z, y, x)`` begins at voxel ``(z, y, x) * cell_shape``.
        bins: histogram bins per edge, 0 without.
    """

    grid: Grid
    cell_shape: Vec
    bins: int = 0


def graph_folder(folder: str | Path) -> Path:
    """Return the folder of the graph tables of a segmentation container."""
    return Path(folder) / "graph"


def block_file(folder: str | Path, part: Part, index: Vec) -> Path:
    """Return the file of one cell's edges or nodes, given the container."""
    return graph_folder(folder) / part / ("_".join(map(str, index)) + ".parquet")


def block_files(folder: str | Path, part: Part) -> dict[Vec, Path]:
    """Return the finished files of a container's edges or nodes by cell, in z, y, x order; empty where none is."""
    found = ((_BLOCK.fullmatch(path.name), path) for path in (graph_folder(folder) / part).glob("*.parquet"))
    return dict(sorted((as_vec([int(v) for v in name.groups()]), path) for name, path in found if name))


def merges_file(folder: str | Path) -> Path:
    """Return the file of the merge tree, given the container."""
    return graph_folder(folder) / "merges.parquet"


def lut_file(folder: str | Path, linkage: str, threshold: float) -> Path:
    """Return the file of the LUT at a threshold, named by the decimal as written: 0.57, never int(100 t)."""
    return graph_folder(folder) / "luts" / linkage / f"{float(threshold)!r}.parquet"


def write_edges(path: str | Path, columns: Mapping[str, NDArray[Any]], info: GraphInfo) -> None:
    """Write the edges one cell owns, replacing an earlier file.

    Args:
        path: see `block_file`.
        columns: those of `EDGES`, each [E], sorted by (u, v) with u < v, each pair once; and ``histogram``, int64
            [E, bins], where ``info.bins`` is not 0.
        info: what to say about them.

    Raises:
        InputError: a column is missing or has another type or length, rows are unsorted, or the disk refuses.
    """
    given = dict(columns)
    histogram = given.pop("histogram", None)
    checked = _require(path, given, EDGES)
    u, v = checked["u"], checked["v"]
    if not _ascending(u, v) or not np.all(u < v):
        raise InputError(
            f"{path}: edges are not sorted by (u, v), each once, with u < v: use ops.regions.merge_graphs"
        )
    bins = 0 if histogram is None else histogram.shape[-1]
    if bins != info.bins:
        raise InputError(f"{path}: edges have {bins} histogram bins, but the graph says {info.bins}")
    arrays: dict[str, Any] = dict(checked)
    encodings = dict.fromkeys(EDGES, "DELTA_BINARY_PACKED")
    if histogram is not None:
        starts, packed = pack(histogram)
        if len(starts) != len(u) + 1:
            raise InputError(f"{path}: {len(starts) - 1} histograms for {len(u)} edges: give one for each")
        buffers = [None, pa.py_buffer(starts), pa.py_buffer(packed)]
        arrays["histogram"] = pa.Array.from_buffers(pa.large_binary(), len(u), buffers)
        encodings["histogram"] = "DELTA_LENGTH_BYTE_ARRAY"
    write_arrow(path, _described(arrays, info), encodings=encodings)


def read_edges(path: str | Path) -> tuple[Columns, GraphInfo]:
    """Return the edges in a file and what it says of itself; ``histogram`` is int64 [E, bins], if they have one.

    Raises:
        InputError: the file is missing, damaged, or no table of edges.
    """
    table = read_arrow(path)
    info = _info(path, table.schema.metadata)
    packed = table.column("histogram") if info.bins and "histogram" in table.column_names else None
    columns = _require(path, {name: table[name].to_numpy() for name in table.column_names if name in EDGES}, EDGES)
    if packed is not None:
        columns["histogram"] = _histograms(packed, info.bins)
    elif info.bins:
        raise InputError(f"{path} says {info.bins} histogram bins but has no histograms: write it again")
    return columns, info


def write_nodes(path: str | Path, columns: Mapping[str, NDArray[Any]], info: GraphInfo) -> None:
    """Write the fragments of one cell (columns of `NODES`, each [N], ascending ids), replacing an earlier file.

    Raises:
        InputError: a column is missing or has another type or length, ids do not ascend, or the disk refuses.
    """
    checked = _require(path, columns, NODES)
    if not _ascending(checked["id"]):
        raise InputError(f"{path}: node ids are not ascending, each once: use ops.nodes.merge_nodes")
    write_arrow(path, _described(checked, info), encodings=dict.fromkeys(NODES, "DELTA_BINARY_PACKED"))


def read_nodes(path: str | Path) -> tuple[Columns, GraphInfo]:
    """Return the fragments in a file and what it says of itself; raises `InputError` as `read_edges`."""
    table = read_arrow(path)
    info = _info(path, table.schema.metadata)
    return _require(path, {name: table[name].to_numpy() for name in table.column_names}, NODES), info


def info_of(path: str | Path) -> GraphInfo:
    """Return what a file of edges or nodes says about itself, without reading its rows.

    Raises:
        InputError: it is missing, damaged, no such file, or of another version of the layout.
    """
    return _info(path, read_arrow(path, columns=[]).schema.metadata)


def write_merges(path: str | Path, columns: Mapping[str, NDArray[Any]], floor: float) -> None:
    """Write a merge tree (columns of `MERGES`, best first), complete down to the score `floor`.

    Raises:
        InputError: a column is missing or has another type or length, or the disk refuses.
    """
    table = pa.table(_require(path, columns, MERGES)).replace_schema_metadata({"floor": repr(float(floor))})
    write_arrow(path, table)


def read_merges(path: str | Path) -> tuple[Columns, float]:
    """Return a merge tree and its floor; raises `InputError` where the file is missing, damaged or no tree."""
    table = read_table(path)
    if "floor" not in table.metadata:
        raise InputError(f"{path} does not say down to which score it merges: it is no merge tree of emloom")
    return _require(path, table.columns, MERGES), float(table.metadata["floor"])


def write_lut(path: str | Path, fragment: NDArray[np.uint64], segment: NDArray[np.uint64]) -> None:
    """Write which segment each fragment belongs to; fragments not listed are their own segment.

    Args:
        path: see `lut_file`.
        fragment: uint64 [K], ascending.
        segment: uint64 [K].

    Raises:
        InputError: another type, unequal lengths, unsorted fragments, or the disk refuses.
    """
    checked = _require(path, {"fragment": fragment, "segment": segment}, LUT)
    if not _ascending(checked["fragment"]):
        raise InputError(f"{path}: fragments of a LUT are not ascending, each once: sort the rows by fragment")
    write_arrow(path, pa.table(checked), encodings=dict.fromkeys(LUT, "DELTA_BINARY_PACKED"))


def read_lut(path: str | Path) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the fragments (ascending) and segments of a LUT, as `ops.labels.apply_lut` takes them.

    Raises:
        InputError: the file is missing, damaged, or no LUT.
    """
    columns = _require(path, read_table(path).columns, LUT)
    return columns["fragment"], columns["segment"]


def _require(path: str | Path, columns: Mapping[str, Any], wanted: Mapping[str, str]) -> Columns:
    """Return exactly these columns, in order, after checking types and lengths."""
    shown = Table(columns, source=str(path))
    arrays = {name: np.ascontiguousarray(shown[name]) for name in wanted}
    wrong = {name: str(a.dtype) for name, a in arrays.items() if a.dtype != wanted[name] or a.ndim != 1}
    if wrong:
        rules = ", ".join(f"{name} {wanted[name]}" for name in wrong)
        raise InputError(f"{path}: columns {wrong} have the wrong type: they are one-dimensional, {rules}")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: the columns of a table have one length, got {lengths}")
    return arrays


def _ascending(first: NDArray[Any], second: NDArray[Any] | None = None) -> bool:
    rises = first[1:] > first[:-1]
    if second is not None:
        rises |= (first[1:] == first[:-1]) & (second[1:] > second[:-1])
    return bool(rises.all())


def _described(columns: Mapping[str, Any], info: GraphInfo) -> pa.Table:
    words = {"schema": SCHEMA, **asdict(info.grid), "cell_shape": info.cell_shape, "bins": info.bins}
    return pa.table(dict(columns)).replace_schema_metadata({_KEY: json.dumps(words)})


def _info(path: str | Path, metadata: Mapping[bytes, bytes] | None) -> GraphInfo:
    text = (metadata or {}).get(_KEY.encode())
    if text is None:
        raise InputError(f"{path} is a Parquet file, but no part of a region graph of emloom")
    words = json.loads(text)
    if words["schema"] != SCHEMA:
        raise InputError(
            f"{path} has layout {words['schema']} of the region graph, this emloom reads {SCHEMA}: "
            "use the version of emloom that wrote it, or segment again"
        )
    grid = Grid(words["voxel_size_nm"], words["offset_nm"])
    return GraphInfo(grid, as_vec(words["cell_shape"]), int(words["bins"]))


def _histograms(column: pa.ChunkedArray, bins: int) -> NDArray[np.int64]:
    parts = [np.zeros((0, bins), np.int64)]
    for chunk in column.chunks:
        _, starts, packed = chunk.cast(pa.large_binary()).buffers()
        first = np.frombuffer(starts, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        data = np.frombuffer(packed, np.uint8) if packed is not None else np.zeros(0, np.uint8)
        parts.append(unpack(first, data, bins))
    return np.concatenate(parts) if len(parts) > 2 else parts[-1]
