"""The thresholds of a pipeline whose networks are trained here: those that the validation boxes chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.tasks.pipelinespec import TrainedHere
from emloom.tasks.pipelinestages import Layout
from emloom.tasks.scorefiles import read_rows
from emloom.tasks.synapsedecoders import CleftsDecoder, Decoder, EvidenceSpec, SitesDecoder
from emloom.tasks.synapsescores import ALL


def threshold_of(layout: Layout) -> float:
    """Return the affinity at which merging stops: that of the job, or the one that validation chose.

    Raises:
        InputError: the scores of the training are missing or damaged.
    """
    stage = layout.job.neurons
    assert stage is not None
    if stage.threshold is not None:
        return stage.threshold
    path = layout.path("neurons") / "evaluate" / "scores.json"
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(f"cannot read the threshold in {path} ({problem}): train again, or give one") from None


def decoder_of(layout: Layout) -> Decoder | None:
    """Return the decoder of synapses: that of the job, or the usual one at the thresholds that validation chose.

    None: that of the heads of the model, with its defaults.
    """
    stage = layout.job.synapses
    assert stage is not None
    if stage.decoder is not None or not isinstance(stage.source, TrainedHere):
        return stage.decoder
    chosen = _chosen(layout.path("synapses-model") / "evaluate")
    job = stage.source.job
    if job.kind == "clefts" and "cleft" in chosen:
        usual = CleftsDecoder()
        return usual.model_copy(update={"cleft": _at(usual.cleft, chosen["cleft"])})
    if getattr(job.objective, "variant", None) == "sites" and {"pre", "post"} <= set(chosen):
        sites = SitesDecoder()
        return sites.model_copy(
            update={"pre": _at(sites.pre, chosen["pre"]), "post": _at(sites.post, chosen["post"])}
        )
    return None


def _at(evidence: EvidenceSpec, threshold: float) -> EvidenceSpec:
    return EvidenceSpec.from_dict({**evidence.to_dict(), "threshold": min(1.0, max(threshold, 1 / 255))})


def _chosen(folder: Path) -> dict[str, float]:
    """Return the threshold of every channel; {} where no test box told any."""
    try:
        rows: list[dict[str, Any]] = read_rows(folder)
    except InputError:
        return {}
    return {
        str(row["channel"]): float(row["threshold"]) for row in rows if row.get("box") == ALL and row["threshold"]
    }
