"""Region-graph store: Parquet per cell and DuckDB against one SQLite file, side by side on the same edges.

    python benchmarks/graphstore.py [edges in millions]

Edges of a synthetic FIB-SEM volume: a jittered lattice of fragments whose ids are voxel positions, 9 edges per
fragment, lognormal numbers of voxel pairs, 64 cells; a tenth of the edges reaches into a second cell. Each store

* **writes** the 64 cells: ours a file per cell, flushed and renamed; SQLite `executemany` into a table WITHOUT
  ROWID with key (u, v, cell), all in one transaction, default safety;
* **pools** all edges over cells (`GROUP BY u, v`), the result as arrays;
* answers **edges of one fragment** (the mean of 20 such questions counts once); SQLite as written, where `v = ?`
  scans the table, and again with an index on v, whose making then counts as writing.

Answers must be equal, and both hold the same columns. The ratio is of the three steps' sum, and takes SQLite's
faster one, with or without the index: with it, SQLite answers the small question some hundred times faster than
either way without, which pays after some fifty questions. Each has one thread; CPU seconds (a busy machine changes
them little; wall-clock seconds, with every flush to disk, stand below), alternating, medians of 3; the page cache
is warm for both.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Grid
from emloom.io.graphstore import EDGES, GraphInfo, block_file, block_files, write_edges, write_nodes
from emloom.ops.nodes import node_table
from emloom.tasks.graph import GraphQuery

EDGES_WANTED = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 3_200_000
CELLS = 4
ROUNDS = 3
ASKED = 20
SPACING = 24  # voxels between fragments: about 14 000 voxels each
Columns = dict[str, NDArray[Any]]
Index = tuple[int, int, int]


def cells() -> dict[Index, Columns]:
    """Return the edges every cell owns."""
    rng = np.random.default_rng(0)
    side = max(CELLS, round((EDGES_WANTED / 9.3) ** (1 / 3)))
    extent = side * SPACING
    spots = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    voxels = spots * SPACING + rng.integers(0, SPACING, spots.shape)
    ids = (1 + np.ravel_multi_index(tuple(voxels.T), (extent,) * 3)).astype(np.uint64)
    steps = [d for d in np.ndindex(3, 3, 3) if d > (1, 1, 1)]  # half of the 26 neighbours
    ends = []
    for step in np.array(steps) - 1:
        there = spots + step
        chosen = ((there >= 0) & (there < side)).all(1) & (rng.random(len(spots)) < 0.7)
        at = np.flatnonzero(chosen)
        ends.append(np.stack([at, np.ravel_multi_index(tuple(there[at].T), (side,) * 3)], 1))
    pairs = np.concatenate(ends)
    twice = rng.random(len(pairs)) < 0.1
    owner = voxels[np.concatenate([pairs[:, 0], pairs[twice, 1]])] * CELLS // extent
    pairs = np.concatenate([pairs, pairs[twice]])
    u, v = np.sort(ids[pairs], axis=1).T
    n = np.maximum(1, rng.lognormal(4, 1.1, len(u))).astype(np.int64)
    mean = rng.beta(2, 1.2, len(u)) * 255
    columns = {"u": u, "v": v, "n": n, "total": (mean * n).astype(np.int64), "contacts": n}
    columns["peak"] = np.clip(mean + 60, 0, 255).astype(np.int64)
    order = np.lexsort((v, u, *owner.T[::-1]))
    flat = np.ravel_multi_index(tuple(owner[order].T), (CELLS,) * 3)
    out = {}
    for k in range(CELLS**3):
        rows = order[flat == k]
        # The second cell of a pair may be the first again: one row per pair and cell.
        first = np.r_[True, (u[rows][1:] != u[rows][:-1]) | (v[rows][1:] != v[rows][:-1])][: len(rows)]
        index = np.unravel_index(k, (CELLS,) * 3)
        out[(int(index[0]), int(index[1]), int(index[2]))] = {name: columns[name][rows[first]] for name in EDGES}
    return out


class Ours:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = GraphInfo(Grid((8, 8, 8)), (SPACING * 18,) * 3)

    def write(self, parts: dict[Index, Columns]) -> None:
        for index, columns in parts.items():
            write_edges(block_file(self.folder, "edges", index), columns, self.info)

    def open(self) -> None:
        # These questions are about edges only, so a table of no fragment will do.
        nothing = node_table(np.zeros((1, 1, 1), np.uint64))
        write_nodes(block_file(self.folder, "nodes", (0, 0, 0)), nothing, self.info)

    def pooled(self) -> Columns:
        with GraphQuery(self.folder, threads=1) as graph:
            return graph.sql("SELECT u, v, n, total, peak, contacts FROM edges")

    def of_fragments(self, ids: list[int]) -> list[Columns]:
        question = "SELECT u, v, n, total, peak, contacts FROM edges WHERE u = {0} UNION ALL "
        question += "SELECT u, v, n, total, peak, contacts FROM edges WHERE v = {0}"
        with GraphQuery(self.folder, threads=1) as graph:
            return [graph.sql(question.format(fragment)) for fragment in ids]

    def size(self) -> int:
        return sum(path.stat().st_size for path in block_files(self.folder, "edges").values())


class SQLite:
    pool = "SELECT u, v, sum(n), sum(total), max(peak), sum(contacts) FROM edges {} GROUP BY u, v"

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, parts: dict[Index, Columns]) -> None:
        with sqlite3.connect(self.path) as base:
            base.execute(
                "CREATE TABLE edges (u INTEGER, v INTEGER, cell INTEGER, n INTEGER, total INTEGER, peak INTEGER, "
                "contacts INTEGER, PRIMARY KEY (u, v, cell)) WITHOUT ROWID"
            )
            for cell, columns in enumerate(parts.values()):
                u, v, *rest = (columns[name].tolist() for name in EDGES)
                rows = zip(u, v, [cell] * len(u), *rest, strict=True)
                base.executemany("INSERT INTO edges VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        base.close()

    def index(self) -> None:
        with sqlite3.connect(self.path) as base:
            base.execute("CREATE INDEX by_v ON edges (v)")
        base.close()

    def pooled(self) -> Columns:
        return self._ask(self.pool.format(""))

    def of_fragments(self, ids: list[int]) -> list[Columns]:
        question = f"{self.pool.format('WHERE u = ?')} UNION ALL {self.pool.format('WHERE v = ?')}"
        return [self._ask(question, (fragment, fragment)) for fragment in ids]

    def _ask(self, question: str, values: tuple[int, ...] = ()) -> Columns:
        base = sqlite3.connect(self.path)
        rows = np.array(base.execute(question, values).fetchall(), np.int64).reshape(-1, 6)
        base.close()
        return {name: rows[:, k].astype(EDGES[name]) for k, name in enumerate(EDGES)}

    def size(self) -> int:
        return self.path.stat().st_size


def clocked(action: Callable[[], Any]) -> tuple[NDArray[np.float64], Any]:
    """Return (CPU seconds, wall-clock seconds) of an action, and its result."""
    start = time.process_time(), time.perf_counter()
    out = action()
    return np.array([time.process_time() - start[0], time.perf_counter() - start[1]]), out


def require_equal(a: Columns, b: Columns) -> None:
    one, other = (np.stack([c[name].astype(np.int64) for name in EDGES]) for c in (a, b))
    one, other = (rows[:, np.lexsort((rows[1], rows[0]))] for rows in (one, other))
    if not np.array_equal(one, other):
        raise SystemExit("the two stores answer differently")


def round_(parts: dict[Index, Columns], asked: list[int]) -> dict[str, NDArray[np.float64]]:
    """Return the (CPU, wall-clock) seconds of every step, after checking that the answers agree."""
    with tempfile.TemporaryDirectory() as folder:
        ours, sqlite = Ours(Path(folder) / "seg.zarr"), SQLite(Path(folder) / "graph.sqlite")
        seconds = {"write": clocked(lambda: ours.write(parts))[0]}
        ours.open()
        seconds["pool"], mine = clocked(ours.pooled)
        seconds["one"], my_edges = clocked(lambda: ours.of_fragments(asked))
        seconds["sqlite write"] = clocked(lambda: sqlite.write(parts))[0]
        seconds["bytes"], seconds["sqlite bytes"] = np.array(ours.size()), np.array(sqlite.size())
        seconds["sqlite pool"], theirs = clocked(sqlite.pooled)
        require_equal(mine, theirs)
        del mine, theirs
        seconds["sqlite one"], their_edges = clocked(lambda: sqlite.of_fragments(asked))
        seconds["indexed write"] = seconds["sqlite write"] + clocked(sqlite.index)[0]
        seconds["indexed one"], indexed = clocked(lambda: sqlite.of_fragments(asked))
        for a, b, c in zip(my_edges, their_edges, indexed, strict=True):
            require_equal(a, b)
            require_equal(b, c)
    for name in ("one", "sqlite one", "indexed one"):
        seconds[name] /= ASKED
    seconds["indexed pool"] = seconds["sqlite pool"]
    for who in ("", "sqlite ", "indexed "):
        seconds[f"{who}all"] = seconds[f"{who}write"] + seconds[f"{who}pool"] + seconds[f"{who}one"]
    return seconds


def main() -> None:
    parts = cells()
    edges = sum(len(columns["u"]) for columns in parts.values())
    some = np.concatenate([columns["u"] for columns in parts.values()])
    asked = np.random.default_rng(1).choice(some, ASKED, replace=False).tolist()
    rounds = [round_(parts, asked) for _ in range(ROUNDS)]
    s = {name: np.median([one[name] for one in rounds], axis=0) for name in rounds[0]}
    print(f"{edges} edges in {len(parts)} cells; medians of {ROUNDS}; answers equal")
    print(
        f"bytes per edge: emloom {s['bytes'] / edges:.2f}, SQLite {s['sqlite bytes'] / edges:.2f} (without index)"
    )
    print(f"{'':<36}{'emloom':>10}{'SQLite':>10}{'indexed':>10}")
    for name, step, value in (
        ("write, million edges per CPU second", "write", lambda t: edges / t[0] / 1e6),
        ("pool, million edges per CPU second", "pool", lambda t: edges / t[0] / 1e6),
        ("edges of one fragment, CPU ms", "one", lambda t: t[0] * 1e3),
        ("the three, CPU seconds", "all", lambda t: t[0]),
        ("the three, wall-clock seconds", "all", lambda t: t[1]),
    ):
        print(f"{name:<36}" + "".join(f"{value(s[who + step]):>10.2f}" for who in ("", "sqlite ", "indexed ")))
    print(f"RATIO graphstore {min(s['sqlite all'][0], s['indexed all'][0]) / s['all'][0]:.2f}")


if __name__ == "__main__":
    main()
