"""Commands about tracings: skeleton info, measure, convert, plot."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, VoxelSize, three
from emloom.cli.texttable import text_table
from emloom.cli.volumes import interval_of
from emloom.errors import InputError

Source = Annotated[str, typer.Argument(metavar="TRACING", help=".nml, .zip, .nmx, .swc, or a folder of SWC.")]
Unit = Annotated[
    str | None, typer.Option("--unit", metavar="NM", help="nm per unit of SWC: 1000 for µm; or three, z,y,x.")
]
Trees = Annotated[
    str | None, typer.Option("--trees", metavar="REGEX", help="Only trees whose name holds a match.")
]

_COLUMNS = ("skeleton", "name", "nodes", "ends", "branches", "cycles", "length_um", "longest_um", "tortuosity")
_FOUND = ("segments", "main_segment", "main_share", "outside")


def register(app: typer.Typer) -> None:
    """Add the commands of this file, as a group of their own."""
    group = typer.Typer(
        name="skeleton",
        help="Tracings: what they hold, how long they are, in another format, as a picture.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("info")(info)
    group.command("measure")(measure)
    group.command("convert")(convert)
    group.command("plot")(plot)
    app.add_typer(group)


def info(
    tracing: Source, unit: Unit = None, voxel_size: VoxelSize = None, trees: Trees = None, as_json: Json = False
) -> None:
    """Say what a tracing holds: trees, nodes, lengths, groups, comments, and what is odd about it.

    Examples: emloom skeleton info axons.nml | emloom skeleton info neuron.swc --unit 8 --json
    """
    from emloom.tasks.skeletoninfo import skeleton_info

    found = skeleton_info(_source(tracing, unit, voxel_size, trees))
    answer(as_json, found, lambda: "\n".join(each.to_text() for each in found))


def measure(  # noqa: PLR0913 (one parameter per option)
    tracing: Source,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Table of trees: .csv, .parquet or .json; must not exist.")
    ] = None,
    nodes: Annotated[str | None, typer.Option("--nodes", help="Table of nodes, likewise.")] = None,
    segmentation: Annotated[
        str | None,
        typer.Option("--segmentation", metavar="SEG", help="Labels: the segments that nodes lie in are added."),
    ] = None,
    unit: Unit = None,
    voxel_size: VoxelSize = None,
    trees: Trees = None,
    as_json: Json = False,
) -> None:
    """Measure every tree: path length, ends, branches, longest path, tortuosity, box; segments under its nodes.

    Examples: emloom skeleton measure axons.nml -o trees.csv | emloom skeleton measure axons.nml --segmentation
    seg.zarr/segmentation --nodes nodes.parquet | emloom skeleton measure neuron.swc --unit 8 --json
    """
    from emloom.tasks.skeletonmeasure import MeasureSpec
    from emloom.tasks.skeletonmeasure import measure as run

    given = {"output": output, "nodes": nodes, "segmentation": segmentation}
    source = _source(tracing, unit, voxel_size, trees)
    found = run(MeasureSpec.from_dict({"source": source, **given}, "measure"))
    rows = found.rows()
    if as_json:
        answer(as_json, rows, "")
        return
    for row in rows:
        row |= {f"{word}_um": row[f"{word}_nm"] / 1000 for word in ("length", "longest")}
    first = ("file",) if "file" in found.trees else ()
    columns = [*first, *_COLUMNS, *(_FOUND if segmentation is not None else ())]
    typer.echo(text_table(columns, rows, all_of_it="-o FILE.csv"))
    for path, table in ((output, found.trees), (nodes, found.nodes)):
        if path is not None:
            typer.echo(f"{path}: {len(table['skeleton'])} rows")


def convert(  # noqa: PLR0913 (one parameter per option)
    tracing: Source,
    target: Annotated[
        str, typer.Argument(help=".nml, .zip, .nmx, .swc, or a folder for an SWC of each tree; must not exist.")
    ],
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="NM", help="nm per unit of the SWC that is read or written: 1000 for µm."),
    ] = None,
    to_unit: Annotated[
        float | None, typer.Option("--to-unit", metavar="NM", help="Of the SWC written, where both are SWC.")
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option("--voxel-size", metavar="Z,Y,X", help="Of NML made from SWC, or that states none; nm."),
    ] = None,
    radius: Annotated[
        float | None, typer.Option("--radius", metavar="NM", help="For SWC: of nodes that have none.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="In nm: what lies inside, cut at the faces."),
    ] = None,
    resample: Annotated[
        float | None, typer.Option("--resample", metavar="NM", help="Nodes at most so far apart along paths.")
    ] = None,
    simplify: Annotated[
        float | None, typer.Option("--simplify", metavar="NM", help="Leave out nodes so near to a straight line.")
    ] = None,
    trees: Trees = None,
    as_json: Json = False,
) -> None:
    """Write a tracing in another format, or a part of it: trees by name, a box, with more nodes, or fewer.

    Examples: emloom skeleton convert axons.nml axons --unit 1000 --radius 50 | emloom skeleton convert neuron.swc
    neuron.nml --unit 8 --voxel-size 8,8,8 | emloom skeleton convert axons.nml part.nml --trees '^axon' --box
    0:4000,0:9000,0:9000 --simplify 20
    """
    from emloom.tasks.skeletonconvert import ConvertTracingSpec, convert_tracing
    from emloom.tasks.tracingsource import TracingSource

    from_swc = TracingSource(path=tracing).is_swc
    per_unit = _unit(unit)
    if not from_swc and to_unit is None:
        if isinstance(per_unit, tuple):
            raise InputError(f"--unit {unit}: SWC is written in one unit for all axes, like --unit 1000")
        to_unit = per_unit
    given: dict[str, Any] = {
        "source": _source(tracing, unit if from_swc else None, None if from_swc else voxel_size, trees),
        "target": target,
        "to_unit_nm": to_unit,
        "to_voxel_size_nm": three(voxel_size, "voxel size") if from_swc else None,
        "radius_nm": radius,
        "box_nm": None if box is None else interval_of(box),
        "resample_nm": resample,
        "simplify_nm": simplify,
    }
    made = convert_tracing(ConvertTracingSpec.from_dict(given, "convert"))
    answer(as_json, made, made.to_text)


def plot(  # noqa: PLR0913 (one parameter per option)
    tracing: Source,
    output: Annotated[str, typer.Option("--output", "-o", help=".png, .svg or .pdf; must not exist.")],
    view: Annotated[
        str, typer.Option("--view", metavar="all|xy|xz|yz|3d", help="Projections, or in space.")
    ] = "all",
    axes: Annotated[str, typer.Option("--axes", metavar="um|nm|vx", help="Unit of the axes.")] = "um",
    marks: Annotated[bool, typer.Option("--marks", help="Show ends as rings and branches as dots.")] = False,
    colours: Annotated[
        str, typer.Option("--colours", metavar="file|ids", help="Those of the file, or by the ids.")
    ] = "file",
    unit: Unit = None,
    voxel_size: VoxelSize = None,
    trees: Trees = None,
    as_json: Json = False,
) -> None:
    """Draw tracings: three projections on one scale, one of them, or in space.

    Examples: emloom skeleton plot axons.nml -o axons.png | emloom skeleton plot neuron.swc --unit 8 --view 3d
    --marks -o neuron.svg
    """
    from emloom.tasks.skeletonplot import PlotSpec
    from emloom.tasks.skeletonplot import plot as draw

    given = {"output": output, "view": view, "unit": axes, "marks": marks, "colours": colours}
    source = _source(tracing, unit, voxel_size, trees)
    drawn = draw(PlotSpec.from_dict({"source": source, **given}, "plot"))
    words = {"output": output, "trees": drawn.trees, "nodes": drawn.nodes}
    answer(as_json, words, f"{output}: {drawn.trees} trees, {drawn.nodes} nodes")


def _source(path: str, unit: str | None, voxel_size: str | None, trees: str | None) -> Any:
    from emloom.tasks.tracingsource import TracingSource

    given = {
        "path": path,
        "unit_nm": _unit(unit),
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "trees": trees,
    }
    return TracingSource.from_dict(given, "tracing")


def _unit(text: str | None) -> float | tuple[float, float, float] | None:
    if text is None or "," in text:
        return three(text, "unit")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"unit {text!r} is no number: give nm per unit, 1000 for µm, or three, z,y,x") from None
