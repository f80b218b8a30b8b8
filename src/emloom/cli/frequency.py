"""`emloom frequency`: which spatial frequencies of a reference its outputs keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emloom.cli.jsonout import answer_file
from emloom.cli.options import (
    AnyVoxelSize,
    BlockMinutes,
    Device,
    Json,
    Output,
    Scheduler,
    Settings,
    Workers,
    merged,
    read_settings,
)

if TYPE_CHECKING:
    from emloom.tasks.frequency import Kept


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("frequency")(frequency)


def frequency(  # noqa: PLR0913 (one parameter per option)
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="The volume that outputs were made of.")],
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="OUTPUT...", help="Denoised, compressed, resampled ... volumes on its grid, or models."
        ),
    ],
    output: Output,
    levels: Annotated[
        int | None, typer.Option("--levels", help="Levels; the finest is of 2 voxels, each doubles it (8).")
    ] = None,
    wavelet: Annotated[
        str | None, typer.Option("--wavelet", help="An orthogonal wavelet of PyWavelets (db1, that is Haar).")
    ] = None,
    volume: Annotated[
        bool, typer.Option("--volume", help="Decompose in three dimensions, not section by section.")
    ] = False,
    names: Annotated[
        str | None, typer.Option("--names", metavar="A,B", help="What the outputs are called.")
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 1 where a limit of the settings is broken.")
    ] = False,
    settings: Settings = None,
    any_voxel_size: AnyVoxelSize = False,
    device: Device = "auto",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Say which spatial frequencies of a reference its outputs keep: scores.json, .csv and report.html.

    An output that ends in .safetensors is a model, and what it makes of the reference is compared.

    Examples: emloom frequency raw.zarr denoised.zarr compressed.zarr -o fidelity/ |
    emloom frequency raw.zarr denoised.zarr --settings limits.yaml --gate -o fidelity/
    """
    from emloom.cli.progress import blocks_bar
    from emloom.errors import InputError
    from emloom.run.cluster import executor_of
    from emloom.tasks.frequency import measure_frequencies
    from emloom.tasks.frequencyreport import write_frequency_report
    from emloom.tasks.frequencyspec import FrequencySpec

    shape = {"levels": levels, "name": wavelet, "volume": volume or None}
    given: dict[str, Any] = {
        "reference": reference,
        "outputs": outputs,
        "output": output,
        "wavelet": {key: value for key, value in shape.items() if value is not None},
    }
    if names is not None:
        given["names"] = [name.strip() for name in names.split(",")]
    spec = FrequencySpec.from_dict(merged(read_settings(settings), given), "frequency")
    if gate and not spec.gate:
        raise InputError("--gate has no limit to keep: write them under `gate:` in a file, and give --settings")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        if any(path.endswith(".safetensors") for path in outputs):
            from emloom.nn.engine import Engine  # slow to import, and needed for models only
            from emloom.nn.hardware import Hardware
            from emloom.tasks.frequencymodels import reconstruct_models

            engine = Engine(Hardware(device).torch_device)
            spec = reconstruct_models(spec, engine, executor, lambda *n: tell("predict", *n), any_voxel_size)
        found = measure_frequencies(spec, executor, lambda *n: tell("count", *n))
    page = write_frequency_report(spec, found)
    lines = [line for kept in found.outputs for line in _told(kept)]
    answer_file(as_json, Path(output) / "scores.json", [*lines, f"report: {page}"])
    if gate and not found.passed:
        raise typer.Exit(1)


def _told(kept: Kept) -> list[str]:
    lines = [f"{kept.name}: ratio and coherence by wavelength"]
    for band in kept.levels:
        lines.append(f"  {band.wavelength_nm:>8g} nm {band.ratio.value:8.3f} {band.coherence.value:8.3f}")
    for broken in (verdict for verdict in kept.verdicts if not verdict.kept):
        words = f"{broken.limit.statistic} {broken.value:.3f} at {broken.wavelength_nm:g} nm"
        lines.append(f"  limit broken: {words}")
    return lines
