"""A forest job: draw labelled voxels, grow trees on their features, predict held-out boxes, score them.

Its folder, its steps after `train`, and its scores are those of a semantic job (`emloom.tasks.semantic`)::

    train/      model.safetensors     trees and spec, which `emloom predict` takes like a network's
                forest.json           voxels of every class, and what each feature is worth
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.nn.crops import TrainingVolume
from emloom.nn.forest import Forest, require_reach
from emloom.nn.forestfit import fit_forest, losses_by_group, require_sklearn
from emloom.nn.model import ModelSpec, build, save
from emloom.nn.samples import require_voxel_size
from emloom.nn.voxeldraw import Draw, Place, draw_voxels, features_of
from emloom.run.journal import key_of
from emloom.run.machine import cores
from emloom.tasks.check import check_voxel_size
from emloom.tasks.checktraining import Finding
from emloom.tasks.data import HeldOut, Stack, StackSpec, held_out
from emloom.tasks.forestjob import ForestJob
from emloom.tasks.forestreport import forest_section
from emloom.tasks.semantic import (
    STAGES,
    evaluate_boxes,
    open_stacks,
    predict_boxes,
    report_boxes,
    require_known,
)
from emloom.tasks.trainingjob import FolderRun, Runner

_FEW = 500  # labelled voxels of a class: fewer are a stroke or two
_JUDGED = 2000  # voxels of each class of the validation boxes that features are judged on


class _Run(FolderRun[ForestJob]):
    """One execution of a job in a folder."""

    @cached_property
    def stacks(self) -> list[Stack]:
        """The opened stacks."""
        return open_stacks(self.job)

    @property
    def splits(self) -> list[StackSpec]:
        """How every stack is split, in boxes."""
        return [stack.spec for stack in self.stacks]

    @cached_property
    def volumes(self) -> list[TrainingVolume]:
        """Where voxels are drawn: as far off held-out pieces that no feature shows any of these."""
        network = build(self.job.model(self.stacks[0].raw.info.grid.voxel_size_nm))
        assert isinstance(network, Forest)
        return [
            stack.labelled_off(network.context) if stack.held_pieces else stack.labelled for stack in self.stacks
        ]

    @property
    def model(self) -> ModelSpec:
        """What is being learned."""
        return self.job.model(self.voxel_size_nm)

    def keys(self) -> dict[str, str]:
        """Return the key of every step: parameters, inputs, and the keys of the steps before it."""
        data = [stack.to_dict() for stack in self.job.data]
        trained = key_of("forest", self.model.content_hash(), data, dict(self.inputs))
        predicted = key_of(trained, "predict")
        evaluated = key_of(predicted, self.job.scoring.content_hash())
        named = key_of(evaluated, self.job.name)
        return dict(zip(STAGES, (trained, predicted, evaluated, named), strict=True))


def require_drawable(this: _Run, network: Forest) -> None:
    """Raise `InputError` where stacks do not fit the model or the features, or a held-out box knows nothing."""
    for stack in this.stacks:
        require_voxel_size(this.model, stack.raw.info.grid.voxel_size_nm, stack.raw.info.source)
        require_reach(network, stack.raw.info)
    require_known(this)


def drawn(this: _Run) -> Draw:
    """Return the voxels to learn from; raises `InputError` where a class has none."""
    job = this.job
    places = [Place(volume, volume.region.intersect(volume.raw.info.box)) for volume in this.volumes]
    draw = draw_voxels(places, job.objective, job.forest.per_class, job.forest.seed)
    lacking = [name for name, count in zip(job.objective.names, draw.known, strict=True) if not count]
    if lacking:
        labels = ", ".join(stack.labels.info.source for stack in this.stacks)
        raise InputError(
            f"no voxel of {', '.join(lacking)} may be learned from in {labels}: label some outside of the "
            "held-out boxes and their gap, give the class other ids, or leave it out"
        )
    return draw


def _train(this: _Run) -> None:
    require_sklearn()
    network = build(this.model)
    assert isinstance(network, Forest)
    require_drawable(this, network)
    started, threads, job = time.perf_counter(), cores().usable, this.job
    draw = drawn(this)
    rows, classes = features_of(
        draw,
        network.features,
        job.preprocessing,
        threads,
        lambda done, total: this.listener.advance("train", done, total),
    )
    computed = time.perf_counter()
    network.grow(*fit_forest(job.forest, rows, classes, len(job.objective.classes), threads))
    grown = time.perf_counter()
    judged = _judge(this, network, threads)
    seconds = {"features": computed - started, "trees": grown - computed, "judge": time.perf_counter() - grown}
    this.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    found = _found(this, draw, network, judged) | {"seconds": seconds}
    save(this.checkpoint, this.model, network.state_dict(), {"validation_recall": f"{judged[0]:.4f}"})
    write_text_atomic(this.checkpoint.parent / "forest.json", json.dumps(found, indent=1))


def _judge(this: _Run, network: Forest, threads: int) -> tuple[float, dict[str, float]]:
    """Return the mean recall on validation boxes, and what each group of features is worth there."""
    items: Sequence[HeldOut] = held_out(this.splits, "validation")
    places = [Place(this.volumes[item.stack], item.box, held_out=True) for item in items]
    draw = draw_voxels(places, this.job.objective, _JUDGED, this.job.forest.seed)
    rows, classes = features_of(draw, network.features, this.job.preprocessing, threads)
    return losses_by_group(network.trees, rows, classes, network.features.groups, this.job.forest.seed)


def _found(this: _Run, draw: Draw, network: Forest, judged: tuple[float, dict[str, float]]) -> dict[str, Any]:
    drawn_of = zip(this.job.objective.names, draw.known.tolist(), draw.taken.tolist(), strict=True)
    shares = zip(network.features.names, network.importances.tolist(), strict=True)
    recall, lost = judged
    return {
        "classes": [{"name": name, "known": known, "drawn": taken} for name, known, taken in drawn_of],
        "features": [{"name": name, "share": round(share, 6)} for name, share in shares],
        "groups": [{"name": name, "recall_lost": loss} for name, loss in lost.items()],
        "reach_vox": list(network.context),
        "trees": len(network.trees.roots),
        "nodes": len(network.trees.feature),
        "validation_recall": recall,
    }


def _report(this: _Run) -> None:
    found = json.loads((this.folder / "train" / "forest.json").read_text(encoding="utf-8"))
    report_boxes(this, this.provenance(STAGES), [forest_section(found)])


def check_forest(job: ForestJob) -> list[Finding]:
    """Return every finding about a forest job; raises `InputError` where data cannot be opened at all."""
    this = _Run(job, Path())
    return [*(check_voxel_size(stack.raw) for stack in this.stacks), *_checked(this)]


def _checked(this: _Run) -> Iterator[Finding]:
    try:
        require_sklearn()
    except InputError as problem:
        yield Finding("error", "forest", str(problem))
    try:
        network = build(this.model)
        assert isinstance(network, Forest)
        require_drawable(this, network)
        draw = drawn(this)
    except InputError as problem:
        yield Finding("error", "labels", str(problem))
        return
    names = this.job.objective.names
    told = ", ".join(f"{name} {known:,}" for name, known in zip(names, draw.known.tolist(), strict=True))
    yield Finding(
        "ok", "labels", f"labelled voxels: {told}; at most {this.job.forest.per_class:,} of each are drawn"
    )
    reach = network.context
    yield Finding(
        "ok", "features", f"{len(network.features.names)} features, which look {reach} voxels (z, y, x) far"
    )
    thin = [name for name, known in zip(names, draw.known.tolist(), strict=True) if known < _FEW]
    if thin:
        yield Finding("warning", "labels", f"fewer than {_FEW} voxels of {', '.join(thin)}: label more")


run = Runner(_Run, {"train": _train, "predict": predict_boxes, "evaluate": evaluate_boxes, "report": _report})
"""Runs a job in a folder, going on where an earlier call stopped."""
