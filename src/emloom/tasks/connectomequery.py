"""Questions to a connectome, answered by DuckDB from its Parquet files, as `tasks.graph` answers those to a region
graph: no server, no import, and nothing is ever written.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from emloom.errors import InputError
from emloom.io.synapsetable import SYNAPSES
from emloom.tasks.connectomegraph import EDGES, NEURONS, require_graph
from emloom.tasks.ducktables import Columns, columns_of, opened, sql_list

Side = Literal["out", "in"]
MOST_STEPS = 20

_VIEWS = """
CREATE VIEW edges AS SELECT * FROM read_parquet({edges});
CREATE VIEW neurons AS SELECT * FROM read_parquet({neurons});
CREATE VIEW synapses AS SELECT * FROM read_parquet({synapses});
"""

_STRONGEST = "SELECT * FROM edges WHERE count >= $least ORDER BY count DESC, pre, post LIMIT $limit"

_PARTNERS = """
SELECT {other} AS partner, count, count / sum(count) OVER () AS fraction, size_vox, mean_score, max_score
FROM edges WHERE {mine} = $neuron AND count >= $least ORDER BY count DESC, partner
"""

_BETWEEN = """
SELECT id, polyad, pre_z_nm, pre_y_nm, pre_x_nm, post_z_nm, post_y_nm, post_x_nm, size_vox, score FROM synapses
WHERE pre_segment = $pre AND post_segment = $post AND left_out = '' ORDER BY score DESC, id
"""

# One step of a breadth-first search: every neuron is reached once, from the strongest of its predecessors.
_STEP = """
INSERT INTO reached
SELECT post, arg_max(pre, (count, -pre::HUGEINT)), max(count), $step FROM edges
WHERE count >= $least AND pre IN (SELECT id FROM reached WHERE step = $step - 1)
  AND post NOT IN (SELECT id FROM reached)
GROUP BY post
"""


class ConnectomeQuery:
    """An open connectome; close it, or use it in a `with` statement. Not for several threads at once.

    Args:
        folder: what `emloom connectome` made.
        memory_gb: what DuckDB may use, in units of 10^9 bytes, before it spills to disk.
        threads: how many DuckDB computes with.

    Raises:
        InputError: the folder holds no connectome, or its tables are damaged.
    """

    def __init__(self, folder: str | Path, *, memory_gb: float | None = None, threads: int | None = None) -> None:
        self.folder = require_graph(folder)
        self._duck = opened(self.folder, memory_gb, threads)
        files = {"edges": EDGES, "neurons": NEURONS, "synapses": SYNAPSES}
        views = _VIEWS.format(**{name: sql_list([self.folder / file]) for name, file in files.items()})
        try:
            self._duck.define(views, str(self.folder))
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

    def strongest(self, limit: int, least: int = 1) -> Columns:
        """Return the edges with most contacts, most first; ties by ids.

        Returns:
            The columns of `edges`: ``pre``, ``post``, ``count``, ``size_vox``, ``mean_score``, ``max_score``.

        Raises:
            InputError: a limit below 1.
        """
        if limit < 1:
            raise InputError(f"the {limit} strongest edges were asked for: ask for at least 1")
        return columns_of(self._duck.ask(_STRONGEST, {"limit": limit, "least": least}))

    def partners(self, neuron: int, side: Side = "out", least: int = 1) -> Columns:
        """Return the partners of a neuron, most contacts first.

        Args:
            neuron: its id.
            side: `out`: those it talks to; `in`: those that talk to it.
            least: contacts of an edge.

        Returns:
            ``partner`` (uint64), ``count``, ``fraction`` of the neuron's contacts with all of these,
            ``size_vox``, ``mean_score``, ``max_score``.

        Raises:
            InputError: there is no such neuron.
        """
        self._require_neuron(neuron)
        mine, other = ("pre", "post") if side == "out" else ("post", "pre")
        text = _PARTNERS.format(mine=mine, other=other)
        return columns_of(self._duck.ask(text, {"neuron": neuron, "least": least}))

    def between(self, pre: int, post: int) -> Columns:
        """Return the contacts of one edge, best score first: ids, positions (z, y, x; nm), sizes and scores.

        Raises:
            InputError: there is no such neuron.
        """
        for neuron in (pre, post):
            self._require_neuron(neuron)
        return columns_of(self._duck.ask(_BETWEEN, {"pre": pre, "post": post}))

    def path(self, start: int, end: int, least: int = 1) -> Columns:
        """Return the edges of a shortest path along the direction of synapses; no row where there is none.

        Of paths that are equally short, every neuron is reached from the strongest predecessor (of equally strong
        ones that of the lowest id).

        Args:
            start: neuron it begins at.
            end: neuron it ends at.
            least: contacts of every edge of it.

        Returns:
            ``pre``, ``post``, ``count`` (uint64, uint64, int64), from the start on.

        Raises:
            InputError: there is no such neuron, both are one, or more than `MOST_STEPS` steps would be needed.
        """
        for neuron in (start, end):
            self._require_neuron(neuron)
        if start == end:
            raise InputError(f"a path leads from one neuron to another: {start} was given for both")
        duck = self._duck.duck
        duck.execute(
            "CREATE OR REPLACE TEMP TABLE reached (id UBIGINT, before UBIGINT, count BIGINT, step INTEGER)"
        )
        duck.execute("INSERT INTO reached VALUES ($id, NULL, 0, 0)", {"id": start})
        for step in range(1, MOST_STEPS + 1):
            duck.execute(_STEP, {"step": step, "least": least})
            if self._reached("id = $id", {"id": end}) or not self._reached("step = $step", {"step": step}):
                break
        else:
            raise InputError(
                f"no path of {MOST_STEPS} edges leads from {start} to {end}: longer ones are not sought"
            )
        return columns_of(self._duck.ask(_TRACE, {"id": end}))

    def sql(self, text: str) -> Columns:
        """Return the answer to a question in SQL (DuckDB's), reading only.

        Views: ``edges`` (pre, post, count, size_vox, mean_score, max_score), ``neurons`` (id, voxels, pre_sites,
        outputs, inputs, partners_out, partners_in) and ``synapses`` (id, polyad, pre_z_nm .. post_x_nm,
        pre_segment, post_segment, size_vox, score, left_out).

        Returns:
            One array per column, in order; columns with empty cells are of Python objects, None where empty.

        Raises:
            InputError: not one SELECT, an error in it, files beyond the graph, or two columns of one name.
        """
        self._duck.require_select(text)
        return columns_of(self._duck.ask(text, what="the SQL fails"))

    def _reached(self, where: str, values: dict[str, int]) -> bool:
        return len(self._duck.ask(f"SELECT 1 FROM reached WHERE {where} LIMIT 1", values)) > 0

    def _require_neuron(self, neuron: int) -> None:
        known = 0 < neuron < 2**63
        if not known or not len(self._duck.ask("SELECT 1 FROM neurons WHERE id = $id", {"id": neuron})):
            raise InputError(f"{self.folder} has no neuron {neuron}: `--strongest 20` lists some that it has")


_TRACE = """
WITH RECURSIVE trace AS (
    SELECT before AS pre, id AS post, count, step FROM reached WHERE id = $id AND before IS NOT NULL
    UNION ALL
    SELECT r.before, r.id, r.count, r.step FROM reached AS r JOIN trace ON r.id = trace.pre
    WHERE r.before IS NOT NULL
)
SELECT pre, post, count FROM trace ORDER BY step
"""
