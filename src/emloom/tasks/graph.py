"""Questions to the region graph of a segmentation, answered by DuckDB from its Parquet files.

No server and no import: DuckDB reads the files of `io.graphstore` where they lie, only the columns and row groups
a question needs, in parallel, and spills to disk what exceeds its memory. Nothing is ever written to the graph.

Whatever cells the volume was cut into, every answer is the same: rows of the same edge or fragment are summed over
all files first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.graphstore import MERGES, GraphInfo, graph_folder, info_of, merges_file
from emloom.ops.agglomerate import MergeTree
from emloom.tasks.ducktables import Columns, columns_of, opened, sql_list
from emloom.tasks.graphfiles import load_tree, require_files

_VIEWS = """
CREATE VIEW edge_parts AS SELECT * FROM read_parquet({edges});
CREATE VIEW node_parts AS SELECT * FROM read_parquet({nodes});
CREATE VIEW edges AS
    SELECT u, v, sum(n)::BIGINT AS n, sum(total)::BIGINT AS total, max(peak) AS peak,
           sum(contacts)::BIGINT AS contacts, sum(total) / (255.0 * sum(n)) AS mean
    FROM edge_parts GROUP BY u, v;
CREATE VIEW nodes AS
    SELECT id, sum(size)::BIGINT AS size, sum(sum_z)::UBIGINT AS sum_z, sum(sum_y)::UBIGINT AS sum_y,
           sum(sum_x)::UBIGINT AS sum_x, min(z0) AS z0, min(y0) AS y0, min(x0) AS x0,
           max(z1) AS z1, max(y1) AS y1, max(x1) AS x1
    FROM node_parts GROUP BY id;
"""

_EDGES_IN = """
WITH inside AS MATERIALIZED (
    SELECT id FROM nodes
    WHERE z0 < $z1 AND y0 < $y1 AND x0 < $x1 AND z1 > $z0 AND y1 > $y0 AND x1 > $x0
)
SELECT u, v, sum(n)::BIGINT AS n, sum(total)::BIGINT AS total, max(peak) AS peak,
       sum(contacts)::BIGINT AS contacts, sum(total) / (255.0 * sum(n)) AS mean
FROM edge_parts WHERE u IN (FROM inside) AND v IN (FROM inside)
GROUP BY u, v ORDER BY u, v
"""

# A fragment cut by cells has several rows; the LUT joins each of them to the same segment.
_LARGEST = """
SELECT coalesce(lut.segment, id) AS segment, sum(size)::BIGINT AS voxels, count(DISTINCT id) AS fragments,
       sum(sum_z)::DOUBLE AS sum_z, sum(sum_y)::DOUBLE AS sum_y, sum(sum_x)::DOUBLE AS sum_x,
       min(z0) AS z0, min(y0) AS y0, min(x0) AS x0, max(z1) AS z1, max(y1) AS y1, max(x1) AS x1
FROM node_parts LEFT JOIN lut ON lut.fragment = id
GROUP BY ALL ORDER BY voxels DESC, segment LIMIT $count
"""

# Two scans, one per end: each skips the row groups whose ids are out of reach. Pooled per pair of fragments first,
# because pairs that touch nowhere (long-range channels) do not count, in agglomeration as here.
_NEIGHBOURS = """
WITH seen AS (
    SELECT u AS mine, v AS other, n, total, peak, contacts FROM edge_parts WHERE u IN (FROM member)
    UNION ALL
    SELECT v AS mine, u AS other, n, total, peak, contacts FROM edge_parts WHERE v IN (FROM member)
), pairs AS (
    SELECT mine, other, sum(n) AS n, sum(total) AS total, max(peak) AS peak, sum(contacts) AS contacts
    FROM seen GROUP BY ALL HAVING sum(contacts) > 0
)
SELECT coalesce(lut.segment, other) AS neighbour, sum(n)::BIGINT AS n, sum(total)::BIGINT AS total,
       max(peak) AS peak, sum(contacts)::BIGINT AS contacts, sum(total) / (255.0 * sum(n)) AS mean
FROM pairs LEFT JOIN lut ON lut.fragment = other
WHERE neighbour <> $segment
GROUP BY ALL ORDER BY contacts DESC, neighbour
"""


class GraphQuery:
    """An open region graph; close it, or use it in a `with` statement. Not for several threads at once.

    A `threshold` always means: the segments into which fragments merge down to this affinity, by the merge tree of
    the container. Without one, fragments themselves are the segments.

    Args:
        folder: the segmentation container, e.g. ``seg.zarr``.
        memory_gb: what DuckDB may use, in units of 10^9 bytes, before it spills to disk (default: DuckDB's own,
            80 % of the machine).
        threads: how many DuckDB computes with (default: one per processor).

    Attributes:
        folder: the container.
        info: voxel size, cells and bins, as the files say.

    Raises:
        InputError: there is no graph below `folder`, or its files are damaged.
    """

    def __init__(self, folder: str | Path, *, memory_gb: float | None = None, threads: int | None = None) -> None:
        self.folder = Path(folder)
        files = {part: list(require_files(folder, part).values()) for part in ("edges", "nodes")}
        self.info: GraphInfo = info_of(files["edges"][0])
        self._tree: MergeTree | None = None
        self._duck = opened(graph_folder(self.folder), memory_gb, threads)
        try:
            self._define(files)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of DuckDB's memory and of what it spilled."""
        self._duck.close()

    def edges_in(self, box: Box) -> Columns:
        """Return the edges in a box of voxels: those both of whose fragments' bounding boxes meet it.

        Bounding boxes and sums are those of the whole fragments and edges, also where they leave the box; so a
        pair may be listed that touches only outside of it, none that touches inside is ever missing, and the
        answer does not depend on the cells.

        Returns:
            ``u``, ``v`` (uint64, u < v), ``n``, ``total``, ``peak``, ``contacts`` (int64, as in
            `ops.regions.RegionGraph`) and ``mean`` (float64, affinity 0 .. 1), sorted by (u, v).
        """
        corners = dict(zip(("z0", "y0", "x0", "z1", "y1", "x1"), (*box.start, *box.stop), strict=True))
        return columns_of(self._duck.ask(_EDGES_IN, {name: int(value) for name, value in corners.items()}))

    def largest(self, count: int, threshold: float | None = None) -> Columns:
        """Return the largest segments, by voxels; of equally large ones the smaller id comes first.

        Returns:
            ``segment`` (uint64), ``voxels``, ``fragments`` (int64), ``volume_um3`` (float64), ``z_nm``, ``y_nm``,
            ``x_nm`` (float64: centre of mass in the world) and the bounding box ``z0`` .. ``x1`` (int64: voxels,
            half-open).

        Raises:
            InputError: a count below 1, or a threshold the merge tree does not know.
        """
        if count < 1:
            raise InputError(f"the {count} largest segments were asked for: ask for at least 1")
        self._use(threshold)
        found = columns_of(self._duck.ask(_LARGEST, {"count": count}))
        voxel, offset = self.info.grid.voxel_size_nm, self.info.grid.offset_nm
        out = {name: found[name] for name in ("segment", "voxels", "fragments")}
        out["volume_um3"] = found["voxels"] * float(np.prod(voxel)) / 1e9
        for axis, size, start in zip("zyx", voxel, offset, strict=True):
            # Half a voxel: positions count voxels, and a voxel's centre is not its corner.
            out[f"{axis}_nm"] = start + (found[f"sum_{axis}"] / found["voxels"] + 0.5) * size
        return out | {name: found[name] for name in ("z0", "y0", "x0", "z1", "y1", "x1")}

    def neighbours(self, segment: int, threshold: float | None = None) -> Columns:
        """Return the segments that touch a segment, largest contact first, with the affinities between the two.

        Pairs of fragments without a contact (compared across a gap only) do not count; the mean is what mean
        linkage would score.

        Returns:
            ``neighbour`` (uint64), ``n``, ``total``, ``peak``, ``contacts`` (int64, pooled over all fragments of
            the two) and ``mean`` (float64, affinity 0 .. 1).

        Raises:
            InputError: no such segment at this threshold, or a threshold the merge tree does not know.
        """
        keys, segments = self._use(threshold)
        if not 0 < segment < 2**63 or not len(
            self._duck.ask("SELECT 1 FROM node_parts WHERE id = $id", {"id": segment})
        ):
            raise InputError(f"{self.folder} has no segment {segment}: `--largest 20` lists some that it has")
        place = int(np.searchsorted(keys, np.uint64(segment)))
        if place < len(keys) and int(keys[place]) == segment:
            raise InputError(
                f"{segment} is a fragment of segment {segments[place]} at threshold {threshold}: ask for that one"
            )
        member = np.append(keys[segments == np.uint64(segment)], np.uint64(segment))
        self._duck.duck.register("member", pa.table({"fragment": member}))
        return columns_of(self._duck.ask(_NEIGHBOURS, {"segment": segment}))

    def sql(self, text: str, threshold: float | None = None) -> Columns:
        """Return the answer to a question in SQL (DuckDB's), reading only.

        Views: ``edges`` (one row per edge: u, v, n, total, peak, contacts, mean), ``nodes`` (one row per fragment:
        id, size, sum_z .. sum_x, z0 .. x1), ``merges`` (score, score_num, score_den, a, b), ``lut`` (fragment,
        segment: fragments that change at `threshold`; empty without), and the tables as the cells wrote them,
        ``edge_parts`` and ``node_parts``.

        Returns:
            One array per column, in order; whole numbers stay whole (int64, or Python integers where they do not
            fit); columns with empty cells are of Python objects, None where empty.

        Raises:
            InputError: not one SELECT, an error in it, files beyond the graph, or two columns of one name.
        """
        self._duck.require_select(text)
        self._use(threshold)
        return columns_of(self._duck.ask(text, what="the SQL fails"))

    def _define(self, files: Mapping[str, list[Path]]) -> None:
        lists = {part: sql_list(paths) for part, paths in files.items()}
        statements = _VIEWS.format(**lists)
        if merges_file(self.folder).is_file():
            names = ", ".join(MERGES)
            statements += (
                f"CREATE VIEW merges AS SELECT score_num / score_den AS score, {names} "
                f"FROM read_parquet({sql_list([merges_file(self.folder)])});"
            )
        self._duck.define(statements, str(self.folder))

    def _use(self, threshold: float | None) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Make the LUT at a threshold known to DuckDB, and return it."""
        keys, segments = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        if threshold is not None:
            if self._tree is None:
                self._tree = load_tree(self.folder)
            keys, segments = self._tree.table(threshold)
        self._duck.duck.register("lut", pa.table({"fragment": keys, "segment": segments}))
        return keys, segments
