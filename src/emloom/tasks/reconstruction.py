"""`emloom run` of a `ReconstructionJob`: train, reconstruct, judge, report — skipping what is already done.

::

    job.yaml  provenance.json  report.html
    train/      model.safetensors, state, history, tensorboard
    predict/    <test>.zarr/reconstruction         one per test: a raw volume like its own raw
    evaluate/   scores.json, scores.csv; <test>/   what `emloom frequency` says about it, with a page of its own
    markers/    one per finished step

How steps are skipped, gone on with and refused: `emloom.tasks.steps`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.crops import TrainingVolume
from emloom.nn.engine import Engine
from emloom.nn.model import build, save
from emloom.nn.reconstruct import RECONSTRUCTION
from emloom.nn.train import crop_shape
from emloom.run.journal import key_of
from emloom.tasks.frequency import measure_frequencies
from emloom.tasks.frequencyreport import write_frequency_report
from emloom.tasks.frequencyspec import FrequencySpec
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.reconstructionjob import (
    RawStack,
    ReconstructionJob,
    TestItem,
    open_raw_stack,
    require_unseen,
)
from emloom.tasks.reconstructionreport import Judged, write_reconstruction_report
from emloom.tasks.scorefiles import write_scores
from emloom.tasks.trainingjob import Execution, Runner

Stage = Literal["train", "predict", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Run(Execution[ReconstructionJob]):
    """One execution of a job in a folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in self.job.tests:
            _check_type(item)

    @cached_property
    def stacks(self) -> list[RawStack]:
        """The opened stacks."""
        return [open_raw_stack(spec) for spec in self.job.data]

    @property
    def volumes(self) -> list[TrainingVolume]:
        """Where samples are drawn."""
        return [stack.unlabelled for stack in self.stacks]

    def keys(self) -> dict[str, str]:
        """Return the key of every step: parameters, inputs, and the keys of the steps before it."""
        job = self.job
        foreign = {each.raw: self.inputs[each.raw] for each in job.foreign}
        trained = self.trained_key({path: mark for path, mark in self.inputs.items() if path not in foreign})
        predicted = key_of(trained, "predict", [each.to_dict() for each in job.foreign], foreign)
        evaluated = key_of(predicted, job.wavelet.content_hash())
        return {
            "train": trained,
            "predict": predicted,
            "evaluate": evaluated,
            "report": key_of(evaluated, job.name),
        }

    def reconstruction(self, item: TestItem) -> str:
        """Return the path of the reconstruction of a test."""
        return str(self.folder / "predict" / f"{item.name}.zarr" / RECONSTRUCTION)

    def comparison(self, item: TestItem) -> FrequencySpec:
        """Return how the reconstruction of a test is compared with its raw."""
        return FrequencySpec(
            reference=item.raw,
            outputs=(self.reconstruction(item),),
            output=str(self.folder / "evaluate" / item.name),
            wavelet=self.job.wavelet,
            names=(self.job.name,),
        )


def _check_type(item: TestItem) -> None:
    info = open_volume(item.raw, voxel_size_nm=item.voxel_size_nm, kind="raw").info
    if info.channels is not None:
        raise InputError(f"{item.raw} has {info.channels} channels: reconstruct a volume of one")


def _train(this: Run) -> None:
    if this.job.weights is not None:
        _take_over(this, Path(this.job.weights))
        return
    crop = crop_shape(build(this.model), this.job.training.crop_shape_vox)
    for stack in this.stacks:
        require_unseen(stack, crop)
    this.train()


def _take_over(this: Run, checkpoint: Path) -> None:
    """Write the checkpoint of a job that does not train: the weights of another one in this job's network."""
    state, _, info = load_checkpoint(checkpoint)
    network = build(this.model)
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        raise InputError(
            f"the weights of {checkpoint} do not fit the network of {this.job.name}: {problem}"
        ) from None
    this.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save(this.checkpoint, this.model, state, {**info, "weights": str(checkpoint)})


def _predict(this: Run) -> None:
    engine = Engine(this.hardware.torch_device)
    tests = this.job.tests
    for done, item in enumerate(tests, start=1):
        job = PredictJob(
            raw=item.raw,
            model=str(this.checkpoint),
            output=str(this.folder / "predict" / f"{item.name}.zarr"),
            box=item.box,
            voxel_size_nm=item.voxel_size_nm,
            any_voxel_size=item.foreign,
        )
        predict_volume(job, engine, executor=this.executor, discard=True)
        this.listener.advance("predict", done, len(tests))


def _evaluate(this: Run) -> None:
    rows: list[dict[str, Any]] = []
    tests = this.job.tests
    for done, item in enumerate(tests, start=1):
        spec = this.comparison(item)
        found = measure_frequencies(spec, this.executor)
        write_frequency_report(spec, found)
        kept = found.outputs[0]
        row: dict[str, Any] = {
            "test": item.name,
            "psnr_db": kept.psnr_db,
            "rmse": kept.rmse,
        }
        for band in kept.levels:
            row |= {
                f"ratio_{band.level}": band.ratio.value,
                f"coherence_{band.level}": band.coherence.value,
                f"share_{band.level}": band.share_y.value,
                f"raw_share_{band.level}": band.share_x.value,
            }
        rows.append(row)
        this.listener.advance("evaluate", done, len(tests))
    write_scores(this.folder / "evaluate", rows)


def _report(this: Run) -> None:
    provenance = this.provenance(STAGES)
    # What was counted for the scores is read here, not counted again.
    judged = [
        Judged(item, measure_frequencies(this.comparison(item), this.executor).outputs[0])
        for item in this.job.tests
    ]
    write_reconstruction_report(this.job, judged, this.folder, provenance)


run = Runner(Run, {"train": _train, "predict": _predict, "evaluate": _evaluate, "report": _report})
"""Runs a job in a folder, going on where an earlier call stopped."""
