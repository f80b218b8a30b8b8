"""Commands that refine classes by a fully connected CRF: refine, refine-search."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import (
    BlockMinutes,
    Json,
    Output,
    Scheduler,
    Settings,
    VoxelSize,
    Workers,
    read_settings,
    three,
    three_whole,
)

Predicted = Annotated[str, typer.Argument(metavar="PRED", help="Probabilities of classes, e.g. pred.zarr/classes")]
Raw = Annotated[str, typer.Option("--raw", help="The raw volume they were predicted from.")]
Names = Annotated[
    str | None, typer.Option("--names", metavar="A,B,C", help="Names of the classes; default: as the model says.")
]
Threads = Annotated[int, typer.Option("--threads", help="Threads per block; results do not depend on it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("refine")(refine)
    app.command("refine-search")(refine_search)


def refine(  # noqa: PLR0913 (one parameter per option)
    predicted: Predicted,
    raw: Raw,
    crf: Annotated[str, typer.Option("--crf", metavar="YAML", help="Kernels, penalties of pairs, temperature.")],
    output: Output,
    names: Names = None,
    mask: Annotated[
        str | None,
        typer.Option("--mask", help="Only where this is not 0, or emloom qc (its folder) found nothing."),
    ] = None,
    voxel_size: VoxelSize = None,
    cell: Annotated[str | None, typer.Option("--cell", metavar="Z,Y,X", help="Voxels per block.")] = None,
    halo: Annotated[
        str | None,
        typer.Option("--halo", metavar="NM|Z,Y,X|exact", help="Context around a block; default: 3 sigmas."),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    threads: Threads = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Refine probabilities of classes by a fully connected CRF: alike neighbours agree, named pairs keep apart.

    Block by block; the same command goes on after a crash. Look at report.html before you believe it.

    Examples: emloom refine pred.zarr/classes --raw raw.zarr --crf crf.yaml -o refined.zarr |
    emloom refine pred.zarr/classes --raw raw.zarr --crf crf.yaml -o refined.zarr --halo exact --workers 4
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.crfspec import CrfSpec
    from emloom.tasks.refine import RefineJob
    from emloom.tasks.refine import refine as execute

    given: dict[str, Any] = {
        "predicted": predicted,
        "raw": raw,
        "output": output,
        "crf": CrfSpec.load(crf),
        "names": _named(names),
        "mask": mask,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "halo_nm": _halo(halo),
    }
    if cell is not None:
        given["cell_shape_vox"] = three_whole(cell, "cell")
    job = RefineJob.from_dict(given, "refine")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        page = execute(job, executor, lambda *n: tell("refine", *n), overwrite, threads)
    answer(as_json, {"output": output, "report": page}, f"{output}: written; look at {page}")


def refine_search(  # noqa: PLR0913 (one parameter per option)
    predicted: Predicted,
    raw: Raw,
    truth: Annotated[str, typer.Option("--truth", help="True classes of validation voxels; 255 is unknown.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of crf.yaml and the table of trials.")],
    names: Names = None,
    voxel_size: VoxelSize = None,
    trials: Annotated[int, typer.Option("--trials", help="How many parameters to try.")] = 30,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    settings: Settings = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Find parameters of a CRF on validation truth: random draws, the best macro F1, against no CRF at all.

    Never on test data: what is chosen is fitted to this truth. SETTINGS may hold `compatibility` and `ignore`.

    Example: emloom refine-search val.zarr/classes --raw raw.zarr --truth val_truth.zarr --trials 50 -o search
    """
    from emloom.tasks.refinesearch import SearchJob, search

    given = {
        "predicted": predicted,
        "raw": raw,
        "truth": truth,
        "output": output,
        "names": _named(names),
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "trials": trials,
        "seed": seed,
    }
    found = search(SearchJob.from_dict(read_settings(settings) | given, "refine-search"), threads=threads)
    best, plain = found.rows[found.best], found.rows[0]
    lines = [
        f"macro F1 {plain['macro_f1']:.4f} without a CRF, {best['macro_f1']:.4f} with the best of {trials}",
        *([] if found.helps else ["no CRF beat the probabilities as they are: leave it out"]),
        f"{output}/crf.yaml: written (trial {found.best})",
    ]
    words = {"crf": f"{output}/crf.yaml", "best": found.best, "helps": found.helps, "trials": found.rows}
    answer(as_json, words, lines)


def _named(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]


def _halo(text: str | None) -> Any:
    if text is None or text == "exact":
        return text
    if "," in text:
        return three(text, "halo")
    return three(f"{text},{text},{text}", "halo")
