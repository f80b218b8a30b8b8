"""`emloom artifacts evaluate`: score a detector against labels of patches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer_file
from emloom.cli.options import Json, Output, Settings, VoxelSize, merged, read_settings, three, three_whole


def register(group: typer.Typer) -> None:
    """Add the command of this file."""
    group.command("evaluate")(evaluate)


def evaluate(  # noqa: PLR0913 (one parameter per option)
    found: Annotated[
        str, typer.Argument(metavar="FOUND", help="A CSV with the column prob, or a map with a voxel per patch.")
    ],
    truth: Annotated[
        str, typer.Argument(metavar="TRUTH", help="Labels of patches: CSV, JSON, an evaluation box.")
    ],
    output: Output,
    target: Annotated[str | None, typer.Option("--target", help="The class; default: the first.")] = None,
    validation: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--validation",
            metavar="FOUND TRUTH",
            help="Other data: the threshold is chosen and probabilities are calibrated on them.",
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Called positive from here on; chosen elsewhere.")
    ] = None,
    recall: Annotated[
        float | None, typer.Option("--recall", help="What a threshold that is chosen must find (0.8).")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option("--prevalence", help="Also say what holds where positives are so frequent.")
    ] = None,
    raw: Annotated[
        str | None, typer.Option("--raw", help="Raw volume, for pictures of the worst mistakes.")
    ] = None,
    voxel_size: VoxelSize = None,
    patch: Annotated[
        str | None, typer.Option("--patch", metavar="Z,Y,X", help="Voxels of a patch, where the truth lacks it.")
    ] = None,
    stride: Annotated[
        str | None, typer.Option("--stride", metavar="Z,Y,X", help="Voxels between neighbouring patches.")
    ] = None,
    final: Annotated[
        str | None, typer.Option("--final", metavar="NAME", help="Annotator whose word is the last.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out patches of known truth without a score.")
    ] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Score a detector of artifacts, patch by patch: scores.json, .csv, patches.csv and report.html.

    Examples: emloom artifacts evaluate map.zarr box.nml --threshold 0.93 -o scores/ |
    emloom artifacts evaluate map.zarr labels.csv --validation map.zarr val.csv --prevalence 0.01 -o scores/
    """
    from emloom.tasks.patchreport import write_patch_report
    from emloom.tasks.patchscoring import evaluate_patches
    from emloom.tasks.patchspec import PatchSpec

    given: dict[str, Any] = {
        "found": found,
        "truth": truth,
        "output": output,
        "target": target,
        "validation": None if validation is None else {"found": validation[0], "truth": validation[1]},
        "threshold": _said(value=threshold, recall=recall),
        "prevalence": prevalence,
        "raw": raw,
        "reading": _said(
            voxel_size_nm=three(voxel_size, "--voxel-size"),
            patch_vox=three_whole(patch, "--patch"),
            stride_vox=three_whole(stride, "--stride"),
            final=final,
            partial=partial or None,
        ),
    }
    words = {name: value for name, value in given.items() if value is not None}
    spec = PatchSpec.from_dict(merged(read_settings(settings), words), "evaluate")
    result = evaluate_patches(spec)
    page = write_patch_report(spec, result)
    lines = [
        f"{name:<30} {value:.4f}" if isinstance(value, float) else f"{name:<30} {value}"
        for name, value in result.row().items()
    ]
    for each in result.agreement:
        lines.append(f"{each.first} and {each.second} agree: kappa {each.kappa:.3f}, F1 {each.f1:.3f}")
    lines += [f"note: {note}" for note in result.notes]
    answer_file(as_json, Path(output) / "scores.json", [*lines, f"report: {page}"])


def _said(**values: Any) -> dict[str, Any] | None:
    return {name: value for name, value in values.items() if value is not None} or None
