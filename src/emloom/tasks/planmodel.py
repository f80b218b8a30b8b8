"""How `emloom plan` uses a model that exists."""

from __future__ import annotations

import json
from pathlib import Path

from emloom.errors import InputError
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.model import ModelSpec
from emloom.nn.samples import require_voxel_size
from emloom.nn.shipped import model_path
from emloom.tasks.pipelinespec import NeuronsStage, TrainedModel
from emloom.tasks.planneurons import segmentation_for
from emloom.tasks.planseen import Seen, absolute
from emloom.tasks.planwords import Notes

DEFAULT_THRESHOLD = 0.5


def model_stage(path: str, seen: Seen) -> tuple[NeuronsStage, Notes]:
    """Return the stage that segments with a model, and why it is as it is.

    Raises:
        InputError: the model is missing, does not segment neurons, or was made for another voxel size.
    """
    file = model_path(path)
    _, text, _ = load_checkpoint(file)
    model = ModelSpec.from_yaml(text, f"the spec inside {path}")
    if model.objective.kind != "neurons":
        raise InputError(
            f"{path} learned {model.objective.kind}, not neurons: give a model of a job of kind neurons, or "
            "labels to train one"
        )
    require_voxel_size(model, seen.look.size_nm, seen.path)
    segmentation, why = segmentation_for(seen.look.flat)
    chosen = chosen_threshold(file)
    notes = why.below("segmentation")
    notes["source",] = "made for this voxel size; whether it knows such tissue, only a look can tell"
    notes["threshold",] = (
        "no scores lie beside the model: half way. Lower merges more; try 0.4 to 0.8"
        if chosen is None
        else "what the validation boxes of its training chose"
    )
    threshold = DEFAULT_THRESHOLD if chosen is None else chosen
    source = TrainedModel(model=path if file != path else absolute(path))
    return NeuronsStage(source=source, segmentation=segmentation, threshold=threshold), notes


def chosen_threshold(path: str) -> float | None:
    """Return the threshold that the job of a model chose, from the scores in its folder; None where there "
    "are none."""
    scores = Path(path).absolute().parent.parent / "evaluate" / "scores.json"
    try:
        threshold = json.loads(scores.read_text(encoding="utf-8"))["threshold"]
        return min(max(float(threshold), 0.0), 1.0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
