"""Commands about volumes: info, import, phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emloom.cli import complete
from emloom.cli.jsonout import answer
from emloom.cli.options import Json, VoxelSize, three, three_whole


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("info")(info)
    app.command("import")(import_)
    app.command("phantom")(phantom)


def info(path: str, as_json: Json = False) -> None:
    """Say what a volume is, and what its file does not say.

    Examples: emloom info stack.h5 | emloom info raw.zarr --json | emloom info 'sections/*.png'
    """
    from emloom.tasks.info import info as describe

    reports = describe(path)
    answer(as_json, reports, lambda: "\n\n".join(report.to_text() for report in reports))


def import_(
    source: str,
    target: str,
    voxel_size: VoxelSize = None,
    offset: Annotated[
        str | None, typer.Option("--offset", metavar="Z,Y,X", help="World position of voxel 0, nm.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="raw, labels, mask, affinities, ...", autocompletion=complete.kinds),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a volume to OME-NGFF zarr (or .h5), and verify it by reading it back.

    Examples: emloom import stack.tif raw.zarr --voxel-size 40,4,4 | emloom import a.h5/volumes/raw raw.zarr
    """
    from emloom.cli.progress import bar
    from emloom.tasks.convert import ConvertSpec, convert

    spec = ConvertSpec.from_dict(
        {
            "source": source,
            "target": target,
            "voxel_size_nm": three(voxel_size, "voxel size"),
            "offset_nm": three(offset, "offset"),
            "kind": kind,
        },
        "import",
    )
    with bar("import") as advance:
        convert(spec, advance)
    answer(as_json, {"output": target, "verified": True}, f"{target}: written and verified by read-back")


def phantom(
    output: Annotated[str, typer.Argument(help="Folder to be made; receives raw.zarr and labels.zarr.")],
    shape: Annotated[str, typer.Option("--shape", metavar="Z,Y,X", help="Voxels.")] = "128,256,256",
    voxel_size: Annotated[str, typer.Option("--voxel-size", metavar="Z,Y,X", help="nm.")] = "8,8,8",
    seed: Annotated[int, typer.Option("--seed", help="Another seed is another piece of tissue.")] = 0,
    synapses: Annotated[
        float,
        typer.Option("--synapses", help="Pre sites per cubic micrometre; adds clefts.zarr, synapses.parquet."),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Grow synthetic neuropil with known truth: a raw volume, its labels and, if wanted, its synapses.

    Examples: emloom phantom tissue/ | emloom phantom sections/ --voxel-size 40,4,4 --shape 32,512,512
    | emloom phantom tissue/ --synapses 10
    """
    from emloom.io.synapsetable import SYNAPSES, read_synapse_table
    from emloom.testing.phantom import PhantomSpec, write_phantom

    spec = PhantomSpec.from_dict(
        {
            "shape": three_whole(shape, "shape"),
            "voxel_size_nm": three(voxel_size, "voxel size"),
            "seed": seed,
            "synapses": synapses,
        },
        "phantom",
    )
    write_phantom(spec, Path(output))
    words: dict[str, Any] = {"output": output, "raw": f"{output}/raw.zarr", "labels": f"{output}/labels.zarr"}
    if not synapses:
        answer(as_json, words, f"{output}: raw.zarr and labels.zarr written")
        return
    table = read_synapse_table(output)
    pre_sites = len(set(table.polyads.tolist()))
    words |= {"clefts": f"{output}/clefts.zarr", "synapses": f"{output}/{SYNAPSES}"}
    answer(
        as_json,
        words | {"n_pre_sites": pre_sites, "n_synapses": len(table)},
        f"{output}: raw.zarr, labels.zarr, clefts.zarr and {SYNAPSES} written ({pre_sites} pre sites, "
        f"{len(table)} synapses)",
    )
