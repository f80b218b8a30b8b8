"""Synapses, the graph they make, and how good a result is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from emloom.api.parts import (
    OnDevice,
    Result,
    Source,
    Target,
    Where,
    WhereAnew,
    executor_for,
    maybe_path,
    path_of,
    stages_told,
    voxel_size_of,
    words_of,
)


def synapses(
    output: Target,
    *,
    segmentation: Source,
    raw: Source | None = None,
    model: Target | None = None,
    prediction: Target | None = None,
    **where: Unpack[OnDevice],
) -> Result:
    """Find synapses and their partners (`emloom synapses`).

    Args:
        output: folder to be made.
        segmentation: the neurons.
        raw: raw volume, for a model.
        model: a model.safetensors that finds synapses; with `raw`.
        prediction: container that `predict` wrote, instead of raw and model.
        where: see `OnDevice`; `settings` are those of `SynapsesJob`, e.g. ``{"decoder": {"kind": "sites"}}``.

    Returns:
        `table`: one row per contact; `summary`: what was counted on the way.

    Raises:
        InputError: an input is missing or on another grid, nothing decodes the prediction, or the output
            is that of another job.
    """
    from emloom.io.synapsetable import SYNAPSES
    from emloom.nn.engine import Engine
    from emloom.nn.hardware import Hardware
    from emloom.tasks.synapsedecoders import SynapsesJob
    from emloom.tasks.synapses import find_synapses
    from emloom.tasks.synapsestages import NOTES

    given: dict[str, Any] = {"output": str(output), "segmentation": path_of(segmentation), "raw": maybe_path(raw)}
    given |= {"model": None if model is None else str(model)}
    given |= {"prediction": None if prediction is None else str(prediction)}
    given |= {"predicting": voxel_size_of(raw) or None}
    with executor_for(where, OnDevice) as executor:
        job = SynapsesJob.from_dict(words_of(given, where), "synapses")
        engine = Engine(Hardware(where.get("device", "auto")).torch_device)
        made = find_synapses(job, executor, stages_told(where), where.get("overwrite", False), engine)
    return Result.of(made, NOTES, table=SYNAPSES)


def connectome(
    synapses: Target,
    output: Target,
    *,
    segmentation: Source | None = None,
    **where: Unpack[WhereAnew],
) -> Result:
    """Make the graph: neurons, and the edges that synapses make between them (`emloom connectome`).

    Args:
        synapses: folder of `synapses`, a table, a CREMI file or a tracing.
        output: folder to be made.
        segmentation: the neurons, looked up under the sites; None: segments are those of the table.
        where: see `WhereAnew`; `settings` are those of `ConnectomeJob`, e.g. ``{"minimum_score": 0.5}``.

    Returns:
        `table`: the edges; `summary`: contacts, edges, neurons, and how many contacts were left out and why.

    Raises:
        InputError: an input is missing or on another grid, or the output is another job's.
    """
    from emloom.tasks.connectome import ConnectomeJob
    from emloom.tasks.connectome import connectome as execute
    from emloom.tasks.connectomegraph import EDGES

    given = {"synapses": str(synapses), "output": str(output), "segmentation": maybe_path(segmentation)}
    with executor_for(where, WhereAnew) as executor:
        job = ConnectomeJob.from_dict(words_of(given, where), "connectome")
        found = execute(job, stages_told(where), executor, where.get("overwrite", False))
    return Result(Path(output), found.to_dict(), table_name=EDGES)


def evaluate(
    found: Source,
    truth: Source,
    output: Target,
    *,
    metrics: Sequence[str] | None = None,
    raw: Source | None = None,
    **where: Unpack[Where],
) -> Result:
    """Score a result against the truth, and show where it is wrong (`emloom evaluate`).

    Args:
        found: labels, what `segment` wrote, classes, or synapses.
        truth: a volume, a table, or tracings (NML, SWC).
        output: folder to be made.
        metrics: their names; they say what is scored. Default: of segmentations; of tracings, where truth is such.
        raw: raw volume, to be drawn below the errors.
        where: see `Where`; `settings` are those of `EvaluateSpec`, `ClassSpec` or `SynapseSpec`.

    Returns:
        `summary`: the scores by name.

    Raises:
        InputError: metrics are unknown or do not go together, or an input is missing or on another grid.
    """
    from emloom.tasks.anyscore import family_of, score_any, truth_of

    known = truth_of(path_of(truth))
    asked = tuple(metrics or known.default)
    family = family_of(asked)
    what = {"segmentations": "segmentation", "classes": "predicted", "synapses": "found"}[family]
    given: dict[str, Any] = {what: path_of(found), "truth": known.labels, "output": str(output)}
    given |= {"metrics": asked, "raw": maybe_path(raw)}
    if known.tracings is not None:
        given["skeletons"] = {"path": known.tracings}
    tell = stages_told(where)
    with executor_for(where, Where) as executor:
        row, page = score_any(family, words_of(given, where), executor, lambda *n: tell("count", *n))
    return Result(page.parent, row)
