"""Commands that show what augmentation does: augment-preview, augment-effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from emloom.cli.jobs import Job, Settings, load_neurons_job
from emloom.cli.jsonout import answer
from emloom.cli.options import Json
from emloom.errors import InputError

if TYPE_CHECKING:
    from emloom.nn.plan import SamplePlan
    from emloom.tasks.preview import Preview

Picture = Annotated[str, typer.Option("--output", "-o", help="PNG to write; must not exist yet.")]
Count = Annotated[int | None, typer.Option("--count", min=1, max=64, help="Samples on the sheet; default 6.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the seed of the job.")]
Dump = Annotated[str | None, typer.Option("--dump", metavar="PLANS.YAML", help="Also write what was drawn.")]
Replay = Annotated[str | None, typer.Option("--replay", metavar="PLANS.YAML", help="Render dumped plans again.")]

_COUNT = 6


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("augment-preview")(augment_preview)
    app.command("augment-effects")(augment_effects)


def augment_preview(  # noqa: PLR0913 (one parameter per option)
    job: Job,
    settings: Settings = None,
    *,
    output: Picture,
    count: Count = None,
    seed: Seed = None,
    dump: Dump = None,
    replay: Replay = None,
    as_json: Json = False,
) -> None:
    """Draw the first training samples of a job on a contact sheet, with what happened to them in words.

    Examples: emloom augment-preview job.yaml -o sheet.png | emloom augment-preview job.yaml -o again.png
    --replay plans.yaml
    """
    from emloom.io.files import refuse_existing, write_bytes_atomic
    from emloom.tasks.preview import Preview

    _require_png(output)
    if replay is not None and (count is not None or seed is not None):
        raise InputError("--replay renders the plans of a file: leave out --count and --seed, or --replay")
    for path in (output, *([dump] if dump else [])):
        refuse_existing(path)
    preview = Preview.of(load_neurons_job(job, settings or []))
    drawn = preview.plans(count or _COUNT, seed) if replay is None else _replayed(preview, replay, as_json)
    if dump is not None:
        write_bytes_atomic(dump, preview.dump(drawn).to_yaml().encode(), overwrite=False)
    write_bytes_atomic(output, preview.sheet(drawn).png, overwrite=False)
    written = [f"{dump}: {len(drawn)} plans written"] if dump is not None else []
    words = {"output": output, "samples": len(drawn), "plans": dump, "replayed": replay}
    answer(as_json, words, [*written, f"{output}: {len(drawn)} samples drawn"])


def augment_effects(
    job: Job,
    settings: Settings = None,
    *,
    output: Picture,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Draw every effect of augmentation by itself, stronger than in training, on a sample of the job's data.

    Examples: emloom augment-effects emloom.recipes.fib25:quick -o effects.png
    """
    from emloom.io.files import refuse_existing, write_bytes_atomic
    from emloom.tasks.preview import Preview

    _require_png(output)
    refuse_existing(output)
    figure = Preview.of(load_neurons_job(job, settings or [])).effects(seed)
    write_bytes_atomic(output, figure.png, overwrite=False)
    answer(as_json, {"output": output}, f"{output}: every effect drawn")


def _require_png(output: str) -> None:
    if not output.lower().endswith(".png"):
        raise InputError(f"{output} does not end in .png: sheets are PNG pictures")


def _replayed(preview: Preview, path: str, as_json: bool) -> list[SamplePlan]:
    from emloom.tasks.preview import PlanSheet

    plans, changed = preview.replay(PlanSheet.load(path))
    if changed:
        listed = ", ".join(str(number) for number in changed)
        typer.echo(
            f"warning: sample {listed} is not what it was when {path} was written: the data, the job or the "
            "version of emloom differ",
            err=True,
        )
    else:
        typer.echo(f"all {len(plans)} samples are bit for bit what they were", err=as_json)
    return plans
