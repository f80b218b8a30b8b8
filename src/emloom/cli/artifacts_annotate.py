"""Commands that let people judge patches: artifacts annotate, select, mine; and those of artifacts_adjudicate."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emloom.cli import artifacts_adjudicate
from emloom.cli.jsonout import answer
from emloom.cli.options import Device, Json, Output, VoxelSize, three, three_whole
from emloom.errors import InputError

if TYPE_CHECKING:
    from emloom.tasks.mining import MineSpec

Raw = Annotated[str, typer.Argument(help="The volume that the patches are of.")]
Patch = Annotated[
    str | None, typer.Option("--patch", metavar="Z,Y,X", help="Voxels of a patch; default 1,140,140.")
]
Margin = Annotated[int, typer.Option("--margin", min=0, help="Voxels of tissue shown around a patch.")]
Classes = Annotated[
    str | None, typer.Option("--classes", metavar="A,B", help="What is asked, what is looked for first.")
]
Labels = Annotated[str | None, typer.Option("--labels", help="Table of what is known.")]
Threshold = Annotated[float, typer.Option("--threshold", help="Probability from which a model says yes.")]


def register(group: typer.Typer) -> None:
    """Add the commands of this file to the group `artifacts`."""
    group.command("annotate")(annotate)
    group.command("select")(select)
    group.command("mine")(mine)
    artifacts_adjudicate.register(group)


def annotate(  # noqa: PLR0913 (one parameter per option)
    raw: Raw,
    labels: Annotated[str, typer.Argument(help="Table of answers, .csv or .json: is made, or goes on.")],
    annotator: Annotated[str, typer.Option("--annotator", help="Your name: it stands with every answer.")],
    candidates: Annotated[
        str | None,
        typer.Option(
            "--candidates",
            metavar="TABLE|MAP",
            help="Look at the patches of a table, or the unsure ones of a map.",
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", metavar="N", min=1, help="Look at N patches from everywhere.")
    ] = None,
    lattice: Annotated[
        str | None, typer.Option("--lattice", metavar="Z,Y,X", help="Look at patches every so many voxels.")
    ] = None,
    patch: Patch = None,
    classes: Classes = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random sample.")] = 0,
    margin: Margin = 35,
    voxel_size: VoxelSize = None,
    host: Annotated[str, typer.Option("--host", help="Address of this machine to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 0,
    let_others_in: Annotated[
        bool, typer.Option("--let-others-in", help="Allow a --host that other machines reach; not encrypted.")
    ] = False,
) -> None:
    """Say what patches hold, on a local page, with the keys y, n and u; every answer is kept at once.

    Starting again goes on behind the last answer.

    Examples: emloom artifacts annotate raw.zarr labels.csv --annotator ada --random 200 --classes debris,myelin |
    emloom artifacts annotate raw.zarr labels.csv --annotator ada --candidates picked/candidates.csv
    """
    from emloom.tasks.annotating import AnnotateSpec, open_raw, session_of, sights_of
    from emloom.tasks.labelsession import locked
    from emloom.view.labelpage import serve

    given = {
        "raw": raw,
        "labels": labels,
        "annotator": annotator,
        "patches": _patches(candidates, random, lattice, three_whole(patch, "patch"), seed),
        "classes": _names(classes),
        "margin_vox": margin,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    spec = AnnotateSpec.from_dict(given, "annotate")
    volume = open_raw(spec.raw, spec.voxel_size_nm)
    with locked(spec.labels):
        session = session_of(spec, volume)
        sights = sights_of(session, volume, spec.margin_vox)
        with (
            suppress(KeyboardInterrupt),
            serve(session, sights, host=host, port=port, let_others_in=let_others_in) as page,
        ):
            typer.echo(f"{session.done()} of {len(session)} patches are answered; answers go to {labels}")
            typer.echo(f"{page.url}\nopen this address in a browser; Ctrl-C stops")
            while True:
                time.sleep(3600)
        typer.echo(f"\n{session.done()} of {len(session)} patches are answered")


def select(  # noqa: PLR0913 (one parameter per option)
    map_path: Annotated[str, typer.Argument(metavar="MAP", help="A map of artifacts: one voxel per patch.")],
    raw: Raw,
    output: Output,
    how: Annotated[str, typer.Option("--how", help="uncertain, wrong, positive or random.")] = "uncertain",
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Patches, at most.")] = 100,
    labels: Labels = None,
    threshold: Threshold = 0.5,
    patch: Patch = None,
    classes: Classes = None,
    apart: Annotated[
        str | None,
        typer.Option("--apart", metavar="Z,Y,X", help="Voxels between candidates; default: 5 sections, a patch."),
    ] = None,
    block: Annotated[
        str, typer.Option("--block", metavar="Z,Y,X", help="Blocks that give one candidate each in turn, voxels.")
    ] = "1,1024,1024",
    per_block: Annotated[
        int | None, typer.Option("--per-block", min=1, help="Most candidates of one block.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is random.")] = 0,
    margin: Margin = 35,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Choose the patches of a map that somebody should look at: table, tracing and contact sheets in a folder.

    Examples: emloom artifacts select map.zarr/artifact raw.zarr --how uncertain -n 100 -o picked |
    emloom artifacts select map.zarr/artifact raw.zarr --how wrong --labels labels.csv -o contradicted
    """
    from emloom.tasks.selecting import SelectSpec
    from emloom.tasks.selecting import select as choose

    spread = {
        "apart_vox": three_whole(apart, "apart"),
        "block_vox": three_whole(block, "block"),
        "per_block": per_block,
    }
    given = {
        "map": map_path,
        "raw": raw,
        "output": output,
        "question": {"how": how, "count": count, "threshold": threshold, "seed": seed, "spread": spread},
        "labels": labels,
        "patch_vox": three_whole(patch, "patch"),
        "classes": _names(classes),
        "margin_vox": margin,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    found = choose(SelectSpec.from_dict(given, "select"))
    table = f"{output}/candidates.csv"
    words = {"output": output, "patches": len(found.patches), "candidates": table, "page": f"{output}/index.html"}
    lines = [
        f"{output}: {len(found.patches)} patches; look at {output}/index.html, then answer them with",
        f"emloom artifacts annotate {raw} labels.csv --annotator NAME --candidates {table}",
    ]
    answer(as_json, words, lines)


def mine(  # noqa: PLR0913 (one parameter per option)
    raw: Raw,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to be made; with --adopt, to be read.")],
    model: Annotated[
        str | None, typer.Option("--model", help="A detector; its map is made beside the folder.")
    ] = None,
    map_path: Annotated[str | None, typer.Option("--map", help="A map that exists, instead of a model.")] = None,
    labels: Labels = None,
    per_block: Annotated[int, typer.Option("--per-block", min=1, help="Candidates of one block, at most.")] = 10,
    block: Annotated[
        str, typer.Option("--block", metavar="Z,Y,X", help="Blocks of the volume, voxels.")
    ] = "16,1024,1024",
    threshold: Threshold = 0.5,
    patch: Patch = None,
    classes: Classes = None,
    margin: Margin = 35,
    voxel_size: VoxelSize = None,
    device: Device = "auto",
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take what was answered of the folder's patches into --labels.")
    ] = False,
    annotator: Annotated[
        str | None, typer.Option("--annotator", help="With --adopt: read the tracing, answered by this person.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what a detector calls positive and nobody else does, block by block: hard negatives to learn from.

    Examples: emloom artifacts mine raw.zarr --model detector --labels labels.csv -o round1 |
    emloom artifacts annotate raw.zarr round1/answers.csv --annotator ada --candidates round1/candidates.csv |
    emloom artifacts mine raw.zarr --labels labels.csv -o round1 --adopt
    """
    from emloom.tasks.mining import ANSWERS, MineSpec
    from emloom.tasks.mining import mine as find

    if adopt:
        _adopt(output, labels, annotator, model or map_path, as_json)
        return
    if (model is None) == (map_path is None):
        raise InputError("candidates come from one detector: give --model, or --map for a map that exists")
    given = {
        "raw": raw,
        "output": output,
        "labels": labels,
        "per_block": per_block,
        "block_vox": three_whole(block, "block"),
        "threshold": threshold,
        "patch_vox": three_whole(patch, "patch") or _patch_of(model),
        "classes": _names(classes),
        "margin_vox": margin,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    spec = MineSpec.from_dict(given, "mine")
    found = find(spec, _map_maker(spec, model, map_path, device))
    table, answers = f"{output}/candidates.csv", f"{output}/{ANSWERS}"
    words = {"output": output, "patches": len(found.patches), "candidates": table, "page": f"{output}/index.html"}
    lines = [
        f"{output}: {len(found.patches)} candidates; look at {output}/index.html, then answer them with",
        f"emloom artifacts annotate {raw} {answers} --annotator NAME --candidates {table}",
        "and take the answers over with --adopt",
    ]
    answer(as_json, words, lines)


def _adopt(output: str, labels: str | None, annotator: str | None, source: str | None, as_json: bool) -> None:
    from emloom.tasks.mining import adopt_mined

    if labels is None or source is not None:
        raise InputError("--adopt takes answers into a table: give --labels, and neither --model nor --map")
    found = adopt_mined(output, labels, annotator)
    answer(
        as_json,
        {"labels": labels, "adopted": found},
        f"{labels}: {found.negatives} negatives, {found.positives} positives and {found.unsure} unsure come from "
        f"{output}; {found.open} of its candidates have no answer",
    )


def _map_maker(spec: MineSpec, model: str | None, map_path: str | None, device: str) -> Callable[[], str]:
    """Return what gives the map of a volume: a path as it is, or the prediction of a model."""
    if map_path is not None:
        return lambda: map_path

    def predicted() -> str:
        from emloom.cli.progress import blocks_bar
        from emloom.nn.hardware import Hardware
        from emloom.tasks.artifactmap import MapJob, predict_map

        output = f"{spec.output.rstrip('/')}.map.zarr"
        job = MapJob(raw=spec.raw, model=str(model), output=output, voxel_size_nm=spec.voxel_size_nm)
        with blocks_bar() as tell:
            return predict_map(job, Hardware(device).torch_device, lambda *n: tell("map", *n))

    return predicted


def _patch_of(model: str | None) -> tuple[int, int, int] | None:
    """Return the patch that a model sees; None without one."""
    if model is None:
        return None
    from emloom.tasks.artifactmap import patch_predictor

    return patch_predictor(model, 1)[1].lattice.shape


def _patches(
    candidates: str | None, random: int | None, lattice: str | None, patch: Any, seed: int
) -> dict[str, Any] | None:
    given = [
        name
        for name, value in (("--candidates", candidates), ("--random", random), ("--lattice", lattice))
        if value
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} each say what to look at: give one; the queue keeps the others")
    shape = {} if patch is None else {"patch_vox": patch}
    if candidates is not None:
        if not candidates.lower().endswith((".csv", ".json")):
            return {"kind": "map", "path": candidates, **shape}
        if patch is not None:
            raise InputError(f"{candidates} says how large its patches are: leave out --patch")
        return {"kind": "table", "path": candidates}
    if random is not None:
        return {"kind": "random", "count": random, "seed": seed, **shape}
    if lattice is not None:
        return {"kind": "lattice", "stride_vox": three_whole(lattice, "lattice"), **shape}
    return None


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]
