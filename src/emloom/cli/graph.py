"""Commands about region graphs: graph query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, box_of
from emloom.cli.texttable import text_table
from emloom.errors import InputError

if TYPE_CHECKING:
    from emloom.tasks.graph import GraphQuery


def register(app: typer.Typer) -> None:
    """Add the commands of this file, as a group of their own."""
    group = typer.Typer(
        name="graph",
        help="The region graph of a segmentation: fragments, their contacts, and what merges into what.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(_root)
    group.command("query")(query)
    app.add_typer(group)


def _root() -> None:
    pass


def query(  # noqa: PLR0913 (one parameter per option)
    container: Annotated[str, typer.Argument(metavar="OUT", help="Segmentation with a graph/, e.g. seg.zarr.")],
    largest: Annotated[int | None, typer.Option("--largest", metavar="N", help="The N largest segments.")] = None,
    neighbours: Annotated[
        int | None, typer.Option("--neighbours", metavar="ID", help="What touches segment ID, and how much.")
    ] = None,
    box: Annotated[
        str | None, typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Edges in a box of voxels.")
    ] = None,
    sql: Annotated[
        str | None,
        typer.Option("--sql", help="A SELECT on edges, nodes, merges, lut (edge_parts, node_parts: per cell)."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Affinity at which merging stops; default: fragments.")
    ] = None,
    csv: Annotated[str | None, typer.Option("--csv", help="Also write all rows as CSV; must not exist.")] = None,
    as_json: Json = False,
) -> None:
    """Ask the region graph: largest segments, neighbours of one, edges in a box, or anything in SQL.

    Examples: emloom graph query seg.zarr --largest 20 --threshold 0.6 | emloom graph query seg.zarr --neighbours
    812 --threshold 0.6 --csv contacts.csv | emloom graph query seg.zarr --box 0:64,0:512,0:512 | emloom graph
    query seg.zarr --sql 'SELECT count(*), sum(contacts) FROM edges WHERE mean < 0.2'
    """
    given = {"--largest": largest, "--neighbours": neighbours, "--box": box, "--sql": sql}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise InputError(f"{' and '.join(asked) or 'nothing'} asked: give one of {', '.join(given)}")
    if box is not None and threshold is not None:
        raise InputError("--box lists edges between fragments, at no threshold: leave out --threshold")
    from emloom.io.files import refuse_existing
    from emloom.io.tables import write_csv
    from emloom.tasks.graph import GraphQuery

    if csv is not None:
        refuse_existing(csv)
    with GraphQuery(container) as graph:
        columns = _answer(graph, {"largest": largest, "neighbours": neighbours, "box": box, "sql": sql}, threshold)
        size = ",".join(f"{v:g}" for v in graph.info.grid.voxel_size_nm)
    rows = [
        dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]
    if csv is not None:
        write_csv(csv, columns, overwrite=False)
    what = "fragments" if threshold is None else f"segments at threshold {threshold:g}"
    head, written = (
        f"{container}: {what}, voxels of {size} nm (z,y,x)",
        [] if csv is None else [f"{csv}: {len(rows)} rows"],
    )
    answer(as_json, rows, lambda: "\n".join([head, text_table(list(columns), rows), *written]))


def _answer(graph: GraphQuery, given: Mapping[str, Any], threshold: float | None) -> dict[str, Any]:
    if given["largest"] is not None:
        return graph.largest(given["largest"], threshold)
    if given["neighbours"] is not None:
        return graph.neighbours(given["neighbours"], threshold)
    if given["sql"] is not None:
        return graph.sql(given["sql"], threshold)
    from emloom.geometry import Box

    return graph.edges_in(Box(**(box_of(given["box"]) or {})))
