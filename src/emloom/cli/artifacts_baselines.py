"""`emloom artifacts baselines`: what frozen features do, before a classifier is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer_file
from emloom.cli.options import (
    Device,
    Json,
    Output,
    Settings,
    VoxelSize,
    merged,
    read_settings,
    three,
    three_whole,
)


def register(group: typer.Typer) -> None:
    """Add the command of this file."""
    group.command("baselines")(baselines)


def baselines(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(metavar="RAW", help="The volume that was labelled.")],
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS",
            help="Labels of patches (CSV, JSON, evaluation box), or a folder that `artifacts labels split` wrote.",
        ),
    ],
    output: Output,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Checkpoint: an autoencoder, or a classifier of patches. Default: none."),
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="The class; default: the first.")] = None,
    recall: Annotated[
        float | None, typer.Option("--recall", help="What a threshold must find on the validation part (0.8).")
    ] = None,
    block: Annotated[
        str | None,
        typer.Option("--block", metavar="Z,Y,X", help="Voxels of the blocks that go to one part as a whole."),
    ] = None,
    gap: Annotated[
        str | None, typer.Option("--gap", metavar="Z,Y,X", help="Distance of parts; default: 5 sections, a patch.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the split (0).")] = None,
    voxel_size: VoxelSize = None,
    settings: Settings = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare detectors that need no training: lines, neighbours, a memory bank, reconstruction errors.

    Examples: emloom artifacts baselines raw.zarr labels.csv --model autoencoder.safetensors -o baselines/ |
    emloom artifacts baselines raw.zarr splits/ --model detector.safetensors --recall 0.9 -o baselines/
    """
    from emloom.cli.progress import TerminalListener
    from emloom.nn.hardware import Hardware
    from emloom.tasks.artifactbaselines import compare_baselines
    from emloom.tasks.artifactbaselinesreport import write_baselines_report
    from emloom.tasks.artifactbaselinesspec import ArtifactBaselinesJob

    split = {"block_vox": three_whole(block, "--block"), "gap_vox": three_whole(gap, "--gap"), "seed": seed}
    given: dict[str, Any] = {
        "raw": raw,
        "labels": labels,
        "output": output,
        "model": model,
        "target": target,
        "recall": recall,
        "split": {name: value for name, value in split.items() if value is not None} or None,
        "voxel_size_nm": three(voxel_size, "--voxel-size"),
    }
    words = {name: value for name, value in given.items() if value is not None}
    job = ArtifactBaselinesJob.from_dict(merged(read_settings(settings), words), "baselines")
    with TerminalListener() as listener:
        found = compare_baselines(job, str(Hardware(device).torch_device), listener.advance)
    page = write_baselines_report(job, found)
    lines = [f"{'on the test part':<40} {'AP':>6} {'low':>6} {'high':>6} {'ROC':>6}"]
    for each in found.results:
        average, area = (each.intervals[name] for name in ("average_precision", "roc_auc"))
        figures = (average.value, average.low, average.high, area.value)
        lines.append(f"{each.name:<40} {' '.join(f'{figure:6.3f}' for figure in figures)}")
    lines.append(f"best on the validation part: {found.results[found.best].name}")
    lines += [f"note: {note}" for note in found.notes]
    answer_file(as_json, Path(output) / "scores.json", [*lines, f"report: {page}"])
