"""`emloom artifacts labels`: convert, split, check and compare tables of labelled patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, Output, VoxelSize, box_of, three, three_whole
from emloom.errors import InputError

if TYPE_CHECKING:
    from emloom.geometry.patches import PatchLabels

Patch = Annotated[
    str | None, typer.Option("--patch", metavar="Z,Y,X", help="Voxels of a patch, where the file lacks it.")
]
Class = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME[=WHAT]",
        help="A class, the one looked for first; of a volume with its ids (a=1,2), of a tracing with a pattern of "
        "names; repeatable.",
    ),
]


DataSet = Annotated[
    str, typer.Option("--data-set", metavar="NAME", help="What webKnossos calls the data set of an .nml.")
]


def register(group: typer.Typer) -> None:
    """Add the commands of this file."""
    labels = typer.Typer(name="labels", help="Tables of labelled patches.", no_args_is_help=True)
    labels.command("blank")(blank)
    labels.command("convert")(convert)
    labels.command("split")(split)
    labels.command("leaks")(find_leaks)
    labels.command("compare")(compare)
    group.add_typer(labels)


def convert(  # noqa: PLR0913 (one parameter per option)
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...", help="Labels (CSV, JSON, NML, genEM3's files), or a volume; several join."
        ),
    ],
    output: Output,
    voxel_size: VoxelSize = None,
    patch: Patch = None,
    stride: Annotated[
        str | None,
        typer.Option("--stride", metavar="Z,Y,X", help="Voxels between patches of a volume, or of a larger box."),
    ] = None,
    classes: Class = None,
    least: Annotated[
        float, typer.Option("--least", help="Part of a patch of a volume that makes it yes; less is unsure.")
    ] = 0.05,
    margin: Annotated[
        str | None,
        typer.Option("--margin", metavar="Z,Y,X", help="Voxels around the boxes of a data source, to be cut off."),
    ] = None,
    consensus: Annotated[
        bool, typer.Option("--consensus", help="One row per patch; what annotators disagree about is unsure.")
    ] = False,
    image: Annotated[
        str | None, typer.Option("--image", help="Write a data source of genEM3, about this image.")
    ] = None,
    data_set: DataSet = "",
    as_json: Json = False,
) -> None:
    """Convert labels of patches: to a table (.csv, .json), an evaluation box (.nml), a data source (--image).

    Examples: emloom artifacts labels convert nodes.nml --patch 1,140,140 -o labels.csv |
    emloom artifacts labels convert folds.zarr --class fold=1 --patch 1,140,140 --stride 1,70,70 -o labels.csv
    """
    from emloom.tasks.patchlabels import join_labels, save_labels

    how = {"stride": stride, "margin": margin, "voxel_size": voxel_size, "patch": patch}
    labels = join_labels([_opened(source, classes, least=least, **how) for source in sources])
    labels = labels.consensus() if consensus else labels
    save_labels(output, labels, image=image, data_set=data_set)
    answer(as_json, {"output": output, **_counts(labels)}, f"{output}: {_counted(labels)}")


def blank(  # noqa: PLR0913 (one parameter per option)
    output: Output,
    box: Annotated[str, typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Voxels that hold the patches.")],
    patch: Annotated[str, typer.Option("--patch", metavar="Z,Y,X", help="Voxels of a patch.")],
    voxel_size: Annotated[str, typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm.")],
    stride: Annotated[
        str | None, typer.Option("--stride", metavar="Z,Y,X", help="Voxels between patches; default: the patch.")
    ] = None,
    name: Annotated[str, typer.Option("--class", help="What will be looked for.")] = "artifact",
    data_set: DataSet = "",
    as_json: Json = False,
) -> None:
    """Write unlabelled patches: an evaluation box for webKnossos (.nml), or a table (.csv, .json).

    Examples: emloom artifacts labels blank --box 5603:5660,24926:25206,29022:29302 --patch 1,140,140 --stride
        1,35,35
    --voxel-size 35,32,32 --data-set my_data_mag8 -o box.nml
    """
    from emloom.geometry import Box, Grid
    from emloom.geometry.lattice import Lattice
    from emloom.tasks.patchlabels import blank_labels, save_labels

    shape, steps, size = three_whole(patch, "--patch"), three_whole(stride, "--stride"), three(voxel_size, "size")
    where = box_of(box)
    assert shape is not None
    assert size is not None
    assert where is not None
    inside = Box(**where)
    labels = blank_labels(Grid(size), Lattice(shape, steps or shape, inside.start), inside, name)
    save_labels(output, labels, data_set=data_set)
    answer(as_json, {"output": output, **_counts(labels)}, f"{output}: {_counted(labels)}")


def split(  # noqa: PLR0913 (one parameter per option)
    source: Annotated[str, typer.Argument(metavar="LABELS", help="A table of labelled patches.")],
    output: Output,
    block: Annotated[
        str, typer.Option("--block", metavar="Z,Y,X", help="Voxels of the blocks that go to one split as a whole.")
    ],
    gap: Annotated[
        str | None,
        typer.Option("--gap", metavar="Z,Y,X", help="Distance between splits; default: 5 sections, a patch."),
    ] = None,
    fractions: Annotated[str, typer.Option("--fractions", help="Parts for train, val, test.")] = "0.7,0.15,0.15",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    voxel_size: VoxelSize = None,
    patch: Patch = None,
    classes: Class = None,
    as_json: Json = False,
) -> None:
    """Split labelled patches by blocks of space, with a gap between: train.csv, val.csv, test.csv, gap.csv.

    Examples: emloom artifacts labels split labels.csv --block 200,1000,1000 -o splits/
    """
    from emloom.ops.patchsplits import BlockSplit
    from emloom.tasks.patchlabels import split_labels, write_split

    labels = _opened(source, classes, voxel_size=voxel_size, patch=patch)
    vox = three_whole(gap, "--gap") or (5, *labels.shape[1:])
    whole = three_whole(block, "--block")
    assert whole is not None
    found = split_labels(labels, BlockSplit(whole, vox, _parts(fractions), seed))
    write_split(output, found)
    parts = {**found.parts, "gap": found.left_out}
    counts = {name: {"patches": len(p), "positive": int((p.labels[:, 0] == 1).sum())} for name, p in parts.items()}
    answer(as_json, counts, [f"{name}: {_counted(part)}" for name, part in parts.items()])


def find_leaks(
    tables: Annotated[list[str], typer.Argument(metavar="TRAIN VAL...", help="One table of labels per split.")],
    iou: Annotated[
        float, typer.Option("--iou", help="Least overlap in the plane; a third is half of a patch.")
    ] = 1 / 3,
    sections: Annotated[int, typer.Option("--sections", help="Most sections between two patches.")] = 1,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write all pairs as CSV.")] = None,
    voxel_size: VoxelSize = None,
    patch: Patch = None,
    as_json: Json = False,
) -> None:
    """Name the patches of different splits that show the same tissue; exits with 1 where there are any.

    Examples: emloom artifacts labels leaks splits/train.csv splits/val.csv splits/test.csv
    """
    from emloom.tasks.patchlabels import leak_columns, leak_summary, write_columns

    names = [Path(path).stem for path in tables]
    if len(set(names)) < len(names):
        names = list(tables)
    opened = [_opened(path, None, voxel_size=voxel_size, patch=patch) for path in tables]
    parts = dict(zip(names, opened, strict=True))
    columns = leak_columns(parts, iou=iou, sections=sections)
    summary = leak_summary(parts, columns)
    if output is not None:
        write_columns(output, columns)
    lines = [f"{n}: {each['leaking']} of {each['patches']} patches leak" for n, each in summary["tables"].items()]
    for row in list(zip(*(column.tolist() for column in columns.values()), strict=True))[:10]:
        lines.append(f"  {row[0]} {row[1:4]} and {row[4]} {row[5:8]}: IoU {row[8]:.2f}, {row[9]} sections apart")
    answer(as_json, summary, lines)
    if summary["pairs"]:
        raise typer.Exit(1)


def compare(
    tables: Annotated[
        list[str], typer.Argument(metavar="A [B]", help="Two tables, or one that several annotators judged.")
    ],
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write the differences as CSV.")] = None,
    voxel_size: VoxelSize = None,
    patch: Patch = None,
    classes: Class = None,
    as_json: Json = False,
) -> None:
    """Compare labels: where they differ, how far people agree, and so what a detector can be tested for.

    Examples: emloom artifacts labels compare first.csv second.csv -o differences.csv
    """
    from emloom.tasks.patchlabels import compare_annotators, compare_labels, write_columns

    if len(tables) > 2:
        raise InputError(f"{len(tables)} tables are given: compare two, or the annotators of one")
    opened = [_opened(path, classes, voxel_size=voxel_size, patch=patch) for path in tables]
    if len(opened) == 1:
        if output is not None:
            raise InputError("the annotators of one table have no table of differences: leave out --output")
        pairs = compare_annotators(opened[0])
    else:
        found = compare_labels(*opened)
        pairs = [found.agreement]
        if output is not None:
            write_columns(output, found.differences.columns())
    lines = [
        f"{pair.first} and {pair.second}: {pair.n_disagreements} of {pair.n} differ; kappa {pair.kappa:.3f} "
        f"({pair.low:.3f} to {pair.high:.3f}); the second as a detector of the first: precision "
        f"{pair.precision:.3f}, recall {pair.recall:.3f}, F1 {pair.f1:.3f}"
        for pair in pairs
    ]
    answer(as_json, pairs, lines)


def _opened(path: str, classes: list[str] | None, *, least: float = 0.05, **texts: str | None) -> PatchLabels:
    from emloom.io.patchopen import PatchReading
    from emloom.tasks.patchlabels import open_labels

    named = dict(word.partition("=")[::2] for word in classes or ())
    how: dict[str, Any] = {
        "voxel_size_nm": three(texts.get("voxel_size"), "--voxel-size"),
        "shape": three_whole(texts.get("patch"), "--patch"),
        "stride": three_whole(texts.get("stride"), "--stride"),
        "margin_vox": three_whole(texts.get("margin"), "--margin") or (0, 0, 0),
    }
    return open_labels(path, PatchReading(**how), named, least=least)


def _counts(labels: PatchLabels) -> dict[str, Any]:
    classes = {
        name: {"positive": int((labels.of(name) == 1).sum()), "unsure": int((labels.of(name) == -1).sum())}
        for name in labels.classes
    }
    return {"patches": len(labels), "classes": classes}


def _counted(labels: PatchLabels) -> str:
    said = ", ".join(
        f"{int((labels.of(name) == 1).sum())} {name}, {int((labels.of(name) == -1).sum())} unsure"
        for name in labels.classes
    )
    return f"{len(labels)} patches: {said}"


def _parts(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"fractions {text!r} are not numbers: write parts of 1 like 0.7,0.15,0.15") from None
