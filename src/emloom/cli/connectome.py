"""Commands about connectomes: connectome, connectome query, connectome export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from emloom.cli import complete
from emloom.cli.jsonout import answer
from emloom.cli.options import (
    BlockMinutes,
    Json,
    Output,
    Scheduler,
    VoxelSize,
    Workers,
    three,
    three_whole,
)
from emloom.cli.texttable import text_table
from emloom.errors import InputError

if TYPE_CHECKING:
    from emloom.tasks.connectomequery import ConnectomeQuery

_BUILD = "build"
_HELP = ("-h", "--help")


class _OrBuild(TyperGroup):
    """`emloom connectome SEG SYN ...` is `emloom connectome build SEG SYN ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # An option in front would be taken for one of the group.
        first = args[0] if args else "-h"
        return super().parse_args(ctx, [_BUILD, *args] if first.startswith("-") and first not in _HELP else args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else [_BUILD, *args])


def register(app: typer.Typer) -> None:
    """Add the commands of this file, as a group of their own."""
    group = typer.Typer(
        name="connectome",
        cls=_OrBuild,
        help="From synapses and a segmentation to neurons and their edges: emloom connectome SEG SYN -o graph/.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(_root)
    group.command(_BUILD)(build)
    group.command("query")(query)
    group.command("export")(export)
    app.add_typer(group)


def _root() -> None:
    pass


def build(  # noqa: PLR0913 (one parameter per option)
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[SEG] SYN",
            help="Labels or what `emloom segment` wrote; folder of `emloom synapses`, table (.parquet, .csv) or "
            "CREMI file or tracing. Without SEG, segments are those of the table.",
        ),
    ],
    output: Output,
    lut: Annotated[
        str | None, typer.Option("--lut", metavar="PARQUET", help="From segments to neurons, applied last.")
    ] = None,
    keep_segments: Annotated[
        bool,
        typer.Option("--keep-segments", help="Segments are as the table says, not looked up under the sites."),
    ] = False,
    no_autapses: Annotated[
        bool, typer.Option("--no-autapses", help="Contacts of a neuron with itself make no edge.")
    ] = False,
    minimum_score: Annotated[
        float, typer.Option("--minimum-score", help="Least score of a contact, 0 to 1.")
    ] = 0.0,
    minimum_weight: Annotated[int, typer.Option("--minimum-weight", help="Least contacts of an edge.")] = 1,
    voxel_size: VoxelSize = None,
    block: Annotated[str | None, typer.Option("--block", metavar="Z,Y,X", help="Voxels per block.")] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Make the connectome of synapses; the same command goes on after a crash.

    Examples: emloom connectome seg.zarr syn/ -o graph/ | emloom connectome other.zarr syn/ -o graph2/
    --no-autapses --minimum-score 0.5 | emloom connectome syn/ --lut luts/0.6.parquet -o graph3/
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.connectome import ConnectomeJob, connectome

    if not 1 <= len(paths) <= 2:
        raise InputError(
            f"{len(paths)} paths given: give the segmentation and the synapses, or the synapses alone"
        )
    given = {
        "segmentation": paths[0] if len(paths) == 2 else None,
        "synapses": paths[-1],
        "output": output,
        "lut": lut,
        "segments": "table" if keep_segments else "sites",
        "autapses": not no_autapses,
        "minimum_score": minimum_score,
        "minimum_weight": minimum_weight,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    if block is not None:
        given["block_vox"] = three_whole(block, "block")
    job = ConnectomeJob.from_dict(given, "connectome")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        report = connectome(job, tell, executor, overwrite)
    answer(as_json, report, report.to_text)


def query(  # noqa: PLR0913 (one parameter per option)
    folder: Annotated[str, typer.Argument(metavar="GRAPH", help="Folder that `emloom connectome` made.")],
    sql: Annotated[
        str | None, typer.Argument(metavar="[SQL]", help="A SELECT on edges, neurons, synapses.")
    ] = None,
    strongest: Annotated[
        int | None, typer.Option("--strongest", metavar="N", help="The N edges with most contacts.")
    ] = None,
    partners: Annotated[
        int | None, typer.Option("--partners", metavar="ID", help="Whom a neuron talks to.")
    ] = None,
    inputs: Annotated[int | None, typer.Option("--inputs", metavar="ID", help="Who talks to a neuron.")] = None,
    between: Annotated[
        str | None, typer.Option("--between", metavar="PRE,POST", help="The contacts of one edge.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="FROM,TO", help="A shortest path along the synapses.")
    ] = None,
    least: Annotated[int, typer.Option("--least", metavar="N", help="Only edges of at least N contacts.")] = 1,
    csv: Annotated[str | None, typer.Option("--csv", help="Also write all rows as CSV; must not exist.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a connectome: strongest edges, partners of a neuron, contacts of an edge, a path, or anything in SQL.

    Examples: emloom connectome query graph/ --strongest 20 | emloom connectome query graph/ --partners 812 |
    emloom connectome query graph/ --path 812,77 --least 5 | emloom connectome query graph/
    'SELECT id, outputs FROM neurons ORDER BY outputs DESC LIMIT 10' --csv outputs.csv
    """
    from emloom.io.files import refuse_existing
    from emloom.io.tables import write_csv
    from emloom.tasks.connectomequery import ConnectomeQuery

    asked = {
        "a SELECT": sql,
        "--strongest": strongest,
        "--partners": partners,
        "--inputs": inputs,
        "--between": between,
        "--path": path,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        raise InputError(f"{' and '.join(given) or 'nothing'} asked: give one of {', '.join(asked)}")
    if csv is not None:
        refuse_existing(csv)
    with ConnectomeQuery(folder) as graph:
        columns = _answer(graph, *given.popitem(), least)
    rows = [
        dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]
    if csv is not None:
        write_csv(csv, columns, overwrite=False)
    written = [] if csv is None else [f"{csv}: {len(rows)} rows"]
    answer(as_json, rows, lambda: "\n".join([text_table(list(columns), rows), *written]))


def _answer(graph: ConnectomeQuery, name: str, value: Any, least: int) -> dict[str, Any]:
    if name == "--strongest":
        return graph.strongest(value, least)
    if name in ("--partners", "--inputs"):
        return graph.partners(value, "out" if name == "--partners" else "in", least)
    if name == "--between":
        return graph.between(*_two(value, name))
    if name == "--path":
        return graph.path(*_two(value, name), least)
    return graph.sql(value)


def _two(text: str, name: str) -> tuple[int, int]:
    try:
        a, b = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name} {text!r} is not two neurons: write their ids, like 812,77") from None
    return a, b


def export(  # noqa: PLR0913 (one parameter per option)
    folder: Annotated[str, typer.Argument(metavar="GRAPH", help="Folder that `emloom connectome` made.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="graphml, neuprint (CSV), cremi, annotations (precomputed), neuroglancer (a state), nml, csv.",
            autocompletion=complete.one_of(
                "graphml", "neuprint", "cremi", "annotations", "neuroglancer", "nml", "csv"
            ),
        ),
    ],
    output: Output,
    every: Annotated[
        bool, typer.Option("--every", help="Write the contacts that were left out of the edges, too.")
    ] = False,
    voxel_size: VoxelSize = None,
    segmentation: Annotated[
        str | None,
        typer.Option("--segmentation", metavar="URL", help="Labels for a layer of the state of neuroglancer."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a connectome for other programs.

    Examples: emloom connectome export graph/ --to graphml -o graph.graphml | emloom connectome export graph/ --to
    cremi -o partners.h5 | emloom connectome export graph/ --to annotations -o synapses/
    """
    from emloom.tasks.connectomeexport import ExportGraphSpec, export_graph

    given = {
        "graph": folder,
        "to": to,
        "output": output,
        "every": every,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "segmentation": segmentation,
        "overwrite": overwrite,
    }
    made = export_graph(ExportGraphSpec.from_dict(given, "export"))
    answer(as_json, made, made.to_text)
