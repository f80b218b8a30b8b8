"""Commands that make volumes from volumes, or measure them: pyramid, crop, stats, export."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emloom.cli import complete
from emloom.cli.jsonout import answer
from emloom.cli.options import Json, Triple, VoxelSize, box_of, three, three_whole
from emloom.errors import InputError

Kind = Annotated[
    str | None, typer.Option("--kind", help="raw, labels, mask, affinities, ...", autocompletion=complete.kinds)
]
Offset = Annotated[str | None, typer.Option("--offset", metavar="Z,Y,X", help="World position of voxel 0, nm.")]
Chunk = Annotated[str | None, typer.Option("--chunk", metavar="Z,Y,X", help="Voxels per chunk.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("pyramid")(pyramid)
    app.command("crop")(crop)
    app.command("stats")(stats)
    app.command("export")(export)


def pyramid(
    image: Annotated[
        str,
        typer.Argument(
            help="out.zarr, out.zarr/raw, out.n5/raw (of levels s0, ...), out.precomputed, out.wkw/color."
        ),
    ],
    levels: Annotated[
        int | None, typer.Option("--levels", help="Coarser levels; default: until 128 voxels are enough.")
    ] = None,
    factors: Annotated[
        str | None, typer.Option("--factors", metavar="Z,Y,X", help="Per level; default: towards cubic voxels.")
    ] = None,
    kind: Kind = None,
    voxel_size: VoxelSize = None,
    replace: Annotated[bool, typer.Option("--replace", help="Make existing coarser levels anew.")] = False,
    as_json: Json = False,
) -> None:
    """Add coarser levels: means of images, majorities of labels; goes on where it was interrupted.

    Examples: emloom pyramid raw.zarr | emloom pyramid seg.precomputed --levels 4 --factors 1,2,2
    """
    from emloom.cli.progress import bar
    from emloom.tasks.pyramid import PyramidSpec
    from emloom.tasks.pyramid import pyramid as build

    given = {
        "image": image,
        "levels": levels,
        "factors": three_whole(factors, "factors"),
        "kind": kind,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "replace": replace,
    }
    with bar("pyramid") as advance:
        made = build(PyramidSpec.from_dict(given, "pyramid"), advance)
    lines = []
    for level in made:
        size = ", ".join(f"{s:g}" for s in level.grid.voxel_size_nm)
        lines.append(f"{image}/{level.name}: {' x '.join(map(str, level.shape))} voxels of {size} nm")
    answer(
        as_json,
        {
            "image": image,
            "levels": [
                {"name": level.name, "shape": level.shape, "voxel_size_nm": level.grid.voxel_size_nm}
                for level in made
            ],
        },
        lines or f"{image} is small: no coarser level is needed (--levels makes some)",
    )


def crop(  # noqa: PLR0913 (one parameter per option)
    source: str,
    target: str,
    box: Annotated[str | None, typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Voxels.")] = None,
    box_nm: Annotated[
        str | None, typer.Option("--box-nm", metavar="Z0:Z1,Y0:Y1,X0:X1", help="World, nm; grows to whole voxels.")
    ] = None,
    kind: Kind = None,
    voxel_size: VoxelSize = None,
    chunk: Chunk = None,
    as_json: Json = False,
) -> None:
    """Copy a box of a volume, verified; its offset says where in the world it is.

    Examples: emloom crop raw.zarr part.zarr --box 0:64,0:512,0:512 | emloom crop a.h5/volumes/raw b.zarr --box-nm
    0:2000,400:2400,0:2000
    """
    from emloom.cli.progress import bar
    from emloom.tasks.crop import CropSpec
    from emloom.tasks.crop import crop as cut

    given: dict[str, Any] = {"source": source, "target": target, "kind": kind}
    given["voxel_size_nm"] = three(voxel_size, "voxel size")
    voxels = box_of(box)
    if voxels is not None:
        given["start"] = voxels["start"]
        given["stop"] = [a + n for a, n in zip(voxels["start"], voxels["shape"], strict=True)]
    if box_nm is not None:
        given["start_nm"], given["stop_nm"] = interval_of(box_nm)
    if chunk is not None:
        given["chunk_vox"] = three_whole(chunk, "chunk")
    with bar("crop") as advance:
        report = cut(CropSpec.from_dict(given, "crop"), advance)
    answer(as_json, report, report.to_text)


def interval_of(text: str) -> tuple[Triple, Triple]:
    """Return where `z0:z1,y0:y1,x0:x1` begins and ends, in the unit of the numbers.

    Raises:
        InputError: the text is not three ranges of numbers.
    """
    try:
        (z0, z1), (y0, y1), (x0, x1) = [[float(v) for v in part.split(":")] for part in text.split(",")]
    except ValueError:
        raise InputError(f"box {text!r} is not understood: write z0:z1,y0:y1,x0:x1 in nm") from None
    return (z0, y0, x0), (z1, y1, x1)


def stats(
    source: str,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Table: .parquet or .csv; sections, or sizes of labels.")
    ] = None,
    kind: Kind = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Measure a volume: histogram, percentiles, mean and contrast of every section, sizes of labels.

    Examples: emloom stats raw.zarr --json | emloom stats seg.zarr/segmentation -o sizes.csv
    """
    from emloom.cli.progress import bar
    from emloom.tasks.stats import StatsSpec
    from emloom.tasks.stats import stats as measure

    given = {"source": source, "output": output, "kind": kind, "voxel_size_nm": three(voxel_size, "voxel size")}
    with bar("stats") as advance:
        report = measure(StatsSpec.from_dict(given, "stats"), advance)
    answer(as_json, report, report.to_text)


def export(  # noqa: PLR0913 (one parameter per option)
    source: str,
    target: str,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="zarr, zarr2, n5, precomputed, wkw, hdf5, tiff; default: the suffix.",
            autocompletion=complete.one_of("zarr", "zarr2", "n5", "precomputed", "wkw", "hdf5", "tiff"),
        ),
    ] = None,
    voxel_size: VoxelSize = None,
    offset: Offset = None,
    kind: Kind = None,
    chunk: Chunk = None,
    as_json: Json = False,
) -> None:
    """Write a volume in the format of another tool, and verify it by reading it back.

    Examples: emloom export raw.zarr out --to precomputed | emloom export seg.zarr/segmentation labels.h5
    """
    from emloom.cli.progress import bar
    from emloom.tasks.export import ExportSpec
    from emloom.tasks.export import export as write

    given = {
        "source": source,
        "target": target,
        "to": to,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "offset_nm": three(offset, "offset"),
        "kind": kind,
        "chunk_vox": three_whole(chunk, "chunk"),
    }
    with bar("export") as advance:
        report = write(ExportSpec.from_dict(given, "export"), advance)
    answer(as_json, report, report.to_text)
