"""`emloom evaluate`: segmentations, classes and synapses against their truth; several results; submissions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer, answer_file
from emloom.cli.options import BlockMinutes, Json, Output, Scheduler, Settings, Workers, merged, read_settings
from emloom.errors import InputError

_DEFAULT, _OF_TRACINGS = "voi,arand,rand,inner", "nerl,edges"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("evaluate")(evaluate)


def evaluate(  # noqa: PLR0913 (one parameter per option)
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="FOUND TRUTH",
            help="What was found (labels, or what `emloom segment` wrote); the truth "
            "(a volume, or tracings: NML, SWC, a folder of SWC).",
        ),
    ],
    output: Output,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Of segmentations: voi, arand, rand, nvi, nid, inner, cremi, matching, pq, sbd, nerl, edges. Of "
            "classes: confusion, f1, rates, iou, dice, kappa, boundary, band, ap, roc, calibration, enclosure. Of "
            "synapses: clefts, cleft_objects, partners, polyads, connections. "
            f"Default: {_DEFAULT}; of tracings {_OF_TRACINGS}.",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            help="Volume, non-zero where voxels count; or a folder of emloom qc: where nothing was found.",
        ),
    ] = None,
    raw: Annotated[str | None, typer.Option("--raw", help="Raw volume, to be drawn below the errors.")] = None,
    border: Annotated[
        int | None, typer.Option("--border", help="Voxels left out around true borders by `inner` (1).")
    ] = None,
    split_truth: Annotated[
        bool, typer.Option("--split-truth", help="Disconnected pieces of a true object are different objects.")
    ] = False,
    skeletons: Annotated[
        str | None,
        typer.Option("--skeletons", help="True tracings for nerl and edges, beside true labels."),
    ] = None,
    no_merge: Annotated[
        str | None,
        typer.Option("--no-merge", help="Volume, non-zero where segments of tracings must not go."),
    ] = None,
    unit: Annotated[float | None, typer.Option("--unit", metavar="NM", help="nm per unit of SWC.")] = None,
    outside: Annotated[
        str | None,
        typer.Option("--outside", metavar="error|omit", help="What nodes outside of the segmentation are."),
    ] = None,
    thresholds: Annotated[
        int | None, typer.Option("--thresholds", help="How many of a merge tree are scored (100).")
    ] = None,
    ignore: Annotated[
        list[int] | None, typer.Option("--ignore", help="Value of true classes that nobody knows; repeatable.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="A,B", help="Names of the classes, class 0 first.")
    ] = None,
    near: Annotated[
        float | None, typer.Option("--near", metavar="NM", help="How near is near, for boundary and band.")
    ] = None,
    neurons: Annotated[
        str | None,
        typer.Option("--neurons", help="True neurons around synapses; default: of the truth."),
    ] = None,
    settings: Settings = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Put several results in one table: give their folders instead.")
    ] = False,
    submit: Annotated[
        str | None,
        typer.Option("--submit", metavar="cremi", help="Write a submission: clefts=, neuron_ids=, partners=."),
    ] = None,
) -> None:
    """Score a result against the truth, and show where it is wrong: scores.json, .csv and report.html.

    Examples: emloom evaluate seg.zarr truth.h5/volumes/labels/neuron_ids --raw raw.zarr -o scores/ |
    emloom evaluate seg.zarr/segmentation truth.zarr --metrics voi,cremi,matching -o scores/ |
    emloom evaluate seg.zarr tracings.nml --raw raw.zarr -o scores/ |
    emloom evaluate classes.zarr truth.zarr --metrics f1,iou --names background,membrane -o scores/ |
    emloom evaluate found.hdf truth.hdf --metrics partners -o scores/ |
    emloom evaluate syn/ truth.parquet --metrics partners,polyads --neurons neurons.zarr -o scores/ |
    emloom evaluate --compare scores-a/ scores-b/ -o both/ |
    emloom evaluate --submit cremi clefts=pred.zarr/clefts -o submission.hdf
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of

    if submit is not None:
        from emloom.cli.submit import SubmitOptions, submit_to

        submit_to(submit, paths, output, SubmitOptions(as_json=as_json))
        return
    if compare:
        from emloom.tasks.comparing import compare as put_together

        page = put_together(paths, output)
        answer(as_json, {"output": output, "report": page}, f"report: {page}")
        return
    from emloom.tasks.anyscore import family_of, score_any, truth_of

    if len(paths) != 2:
        raise InputError(f"{len(paths)} volumes are given: give what was found, then the truth (or --compare)")
    truth = truth_of(paths[1], skeletons)
    asked = [name.strip() for name in (metrics or ",".join(truth.default)).split(",") if name.strip()]
    common = {"truth": truth.labels, "output": output, "metrics": asked}
    tracings = {"path": truth.tracings, "unit_nm": unit, "outside": outside, "no_merge": no_merge}
    tracings = {name: value for name, value in tracings.items() if value is not None}
    of_family: dict[str, dict[str, Any]] = {
        "segmentations": {
            "segmentation": paths[0],
            "mask": mask,
            "raw": raw,
            "border": None if border is None else {"width_vox": border},
            "skeletons": tracings or None,
            "split_truth": split_truth or None,
            "thresholds": thresholds,
        },
        "classes": {
            "predicted": paths[0],
            "mask": mask,
            "raw": raw,
            "classes": _classes_given(names, ignore),
            "near": None if near is None else {"distance_nm": near},
        },
        "synapses": {"found": paths[0], "segmentation": neurons, "raw": raw},
    }
    family = family_of(asked)
    given = {key: value for key, value in (common | of_family[family]).items() if value is not None}
    words = merged(read_settings(settings), given)
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        row, page = score_any(family, words, executor, lambda *n: tell("count", *n))
    lines = [
        f"{name:<26} {value:.4f}" if isinstance(value, float) else f"{name:<26} {value}"
        for name, value in row.items()
    ]
    answer_file(as_json, Path(output) / "scores.json", [*lines, f"report: {page}"])


def _classes_given(names: str | None, ignore: list[int] | None) -> dict[str, Any] | None:
    said = {"names": names and [name.strip() for name in names.split(",")], "ignore": ignore}
    return {key: value for key, value in said.items() if value} or None
