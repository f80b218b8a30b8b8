"""The training loop, on one screen.

State is (weights, moving average, optimizer, step); data are a function of the step alone; the learning rate is a
function of the step alone. So a resumed run continues bit for bit on the same CPU. What stands in the folder:

* ``model.safetensors`` the moving-average weights that validated best, with their spec;
* ``state.safetensors``  everything needed to go on;
* ``history.json``       one row per report: step, losses, learning rate, validation;
* ``tensorboard/``       scalars and image panels.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.files import write_text_atomic
from emloom.nn.augment import AugmentSpec
from emloom.nn.checkpoint import load_training_state, save_training_state
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware, Precision
from emloom.nn.library import Library
from emloom.nn.model import ModelSpec, Network, build, save
from emloom.nn.monitor import Monitor
from emloom.nn.objectives.base import Sample
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.samplingreport import SamplingReport
from emloom.nn.strategies import SamplingSpec, Uniform
from emloom.nn.transfer import StartSpec, start_from, to_training
from emloom.nn.validation import Checks
from emloom.spec import Spec

_WARMUP_STEPS = 50
_LOOKED_INTO = 16  # crops per validation whose labels the report of sampling counts


class OptimizerSpec(Spec):
    """How weights follow the gradient: Adam, and a moving average of what it finds."""

    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak of the schedule: linear warm-up, then half a cosine to zero. Nets without `norm` need a third of it."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights that is validated and kept."""


class TrainingSpec(Spec):
    """How long, how fast and on what crops a model is trained."""

    steps: int = Field(gt=0)
    """Number of weight updates."""
    crop_shape_vox: Vec = (64, 64, 64)
    """Network output (z, y, x) of one sample, rounded up to what the network can produce."""
    batch_size: int = Field(default=1, gt=0)
    optimizer: OptimizerSpec = OptimizerSpec()
    validate_every: int = Field(default=100, gt=0)
    """Steps between validations, which also save the state."""
    seed: int = Field(default=0, ge=0)
    sampling: SamplingSpec = Uniform()
    """Which crops are drawn."""
    augment: AugmentSpec = AugmentSpec()
    """What happens to them."""
    start: StartSpec | None = None
    """Weights to start from, and which of them stay as they are; default: all are drawn."""
    precision: Precision | Literal["auto"] = "auto"
    """Of products in the network; `auto` is bf16 where the device multiplies it natively, else float32."""


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on and checked with.

    Attributes:
        volumes: where samples are drawn.
        validation: (index into `volumes`, box) of every validation box.
        library: the artifacts that augmentation blends in; needed where they may happen.
    """

    volumes: Sequence[TrainingVolume]
    validation: Sequence[tuple[int, Box]]
    library: Library | None = None


@dataclass(frozen=True)
class Progress:
    """What the loop reports after every step."""

    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    samples_per_s: float
    wait_share: float
    """Share of the time spent waiting for data."""
    validation: float | None = None


@dataclass
class _State:
    network: Network
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    precision: Precision = "32-true"
    step: int = 0
    best: float = math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


def learning_rate(training: TrainingSpec, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine to zero."""
    warm = min(1.0, (step + 1) / min(_WARMUP_STEPS, training.steps))
    return training.optimizer.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * step / training.steps))


def train(
    model: ModelSpec,
    training: TrainingSpec,
    data: TrainingData,
    folder: Path,
    hardware: Hardware | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Train a model, or go on where an earlier call in the same folder stopped.

    Args:
        model: what to learn and with which network.
        training: how.
        data: on what.
        folder: where the checkpoint, the state and the history are kept.
        hardware: where to run.
        on_step: called after every step.

    Returns:
        Path of the checkpoint that validated best.

    Raises:
        InputError: the folder belongs to another job, no crop fits the volumes, or nothing can be validated.
        KeyboardInterrupt: passed on after the state was saved.
    """
    hardware = hardware or Hardware()
    state = _fresh_state(model, training)
    state.precision = hardware.precision(training.precision, state.network)
    fabric = Fabric(accelerator=hardware.accelerator, devices=hardware.devices, precision=state.precision)
    fabric.launch()
    maker = SampleMaker(model, data.volumes, crop_shape(state.network, training.crop_shape_vox), data.library)
    _resume(state, folder, model, training)
    to_training(state.network)
    network, optimizer = fabric.setup(state.network, state.optimizer)
    state.average = {name: tensor.to(fabric.device) for name, tensor in state.average.items()}
    drawn = TrainingSamples(maker, training, training.steps * training.batch_size * fabric.world_size)
    samples = training_loader(drawn, training, hardware, fabric, state.step)
    checks = Checks.of(maker, state.network, data.validation)
    clock = _Clock(training.batch_size * fabric.world_size)
    monitor = Monitor(folder / "tensorboard", state.step, active=fabric.is_global_zero)
    with torch.random.fork_rng(devices=[]), monitor:
        try:
            for raw, targets in clock.timed(samples):
                torch.manual_seed(_seed_of_step(training, state.step, fabric.global_rank))
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(training, state.step)
                loss, parts = model.objective.loss(network(raw), targets, state.step)
                fabric.backward(loss)
                fabric.clip_gradients(
                    network, optimizer, max_norm=training.optimizer.gradient_clip, error_if_nonfinite=False
                )
                optimizer.step()
                optimizer.zero_grad()
                state.step += 1
                _update_average(state, training.optimizer.ema_decay)
                validated = None
                if state.step % training.validate_every == 0 or state.step == training.steps:
                    validated, panel = _validate(fabric, state, model, checks, training.steps)
                    monitor.images(state.step, panel)
                report = clock.report(state.step, training.steps, loss, parts, validated)
                _record(state, monitor, training, report)
                if validated is not None:
                    state.history[-1]["drawn"] = _drawn_lately(drawn, training, state.step).to_dict()
                    if fabric.is_global_zero:
                        _keep(state, folder, model, training, validated)
                    clock.go_on()
                on_step(report)
        except KeyboardInterrupt:
            if fabric.is_global_zero:
                _save_state(state, folder, model, training)
            raise
    if fabric.is_global_zero:
        _save_state(state, folder, model, training)
    return folder / "model.safetensors"


def crop_shape(network: Network, wanted: Vec) -> CropShape:
    """Return the smallest input and output of a network that hold `wanted` voxels of output."""
    input_shape = network.input_shape(wanted)
    return CropShape(input_shape, network.output_shape(input_shape))


def _fresh_state(model: ModelSpec, training: TrainingSpec) -> _State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = build(model)
    if training.start is not None:
        start_from(training.start, network, model)
    learned = [weights for weights in network.parameters() if weights.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=training.optimizer.learning_rate)
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return _State(network, optimizer, average)


def _drawn_lately(dataset: TrainingSamples, training: TrainingSpec, step: int) -> SamplingReport:
    """Return what was drawn since the validation before; a few crops are looked into."""
    per_step = len(dataset) // training.steps
    before = (step - 1) // training.validate_every * training.validate_every
    count = (step - before) * per_step
    return dataset.survey(range(before * per_step, step * per_step), look_every=max(1, count // _LOOKED_INTO))


def training_loader(
    dataset: TrainingSamples, training: TrainingSpec, hardware: Hardware, fabric: Fabric, first_step: int
) -> Iterable[Sample]:
    """Return the batches of a training from `first_step` on, loaded as it loads them."""
    batch, world, rank = training.batch_size, fabric.world_size, fabric.global_rank
    order = [
        step * batch * world + rank * batch + item
        for step in range(first_step, training.steps)
        for item in range(batch)
    ]
    loader = DataLoader(
        dataset,
        batch_size=batch,
        sampler=order,
        num_workers=hardware.workers,
        # Volumes may hold threads (TensorStore, HDF5), which do not survive a fork.
        multiprocessing_context="spawn" if hardware.workers else None,
        prefetch_factor=4 if hardware.workers else None,
    )
    # Fabric moves batches to the device; how samples are spread over devices is decided above.
    placed: Iterable[Sample] = fabric.setup_dataloaders(loader, use_distributed_sampler=False)  # type: ignore[assignment]
    return placed


def _update_average(state: _State, decay: float) -> None:
    # Early weights are forgotten faster, so that the average is useful from the first validation on.
    keep = min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, tensor in state.network.state_dict().items():
            if tensor.is_floating_point():
                state.average[name].lerp_(tensor, 1.0 - keep)
            else:
                state.average[name].copy_(tensor)


def _validate(
    fabric: Fabric, state: _State, model: ModelSpec, checks: Checks, steps: int
) -> tuple[float, dict[str, Tensor]]:
    """Return the mean loss of the averaged weights, weighted as in the last step, and pictures to look at."""
    current = {name: tensor.detach().clone() for name, tensor in state.network.state_dict().items()}
    state.network.load_state_dict(state.average)
    state.network.eval()
    loss, seen = checks.run(fabric, state.network, model.objective, steps)
    with torch.no_grad():
        panel = model.objective.look(state.network, seen)
    state.network.load_state_dict(current)
    to_training(state.network)
    return loss, panel


def _seed_of_step(training: TrainingSpec, step: int, rank: int) -> int:
    """Return the seed of what a network draws in a step, so that a resumed training draws the same."""
    return int(np.random.SeedSequence([training.seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def _record(state: _State, monitor: Monitor, training: TrainingSpec, report: Progress) -> None:
    row: dict[str, Any] = {"step": report.step, "loss": report.loss, **report.parts}
    if report.validation is not None:
        row["validation"] = report.validation
    state.history.append(row)
    monitor.scalars(report.step, {**row, "learning_rate": learning_rate(training, report.step - 1)})


def _keep(state: _State, folder: Path, model: ModelSpec, training: TrainingSpec, validated: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if validated < state.best:
        state.best = validated
        info = {
            "step": str(state.step),
            "validation_loss": repr(validated),
            "training": training.to_yaml(),
            "precision": state.precision,
        }
        save(folder / "model.safetensors", model, state.average, info)
    _save_state(state, folder, model, training)


def _job_key(model: ModelSpec, training: TrainingSpec) -> str:
    return f"{model.content_hash()}-{training.content_hash()}"


def _save_state(state: _State, folder: Path, model: ModelSpec, training: TrainingSpec) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    nested = {
        "network": dict(state.network.state_dict()),
        "average": state.average,
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "best": state.best if math.isfinite(state.best) else None,
        "history": state.history,
        "job": _job_key(model, training),
    }
    save_training_state(folder / "state.safetensors", nested)
    write_text_atomic(folder / "history.json", json.dumps(state.history))


def _resume(state: _State, folder: Path, model: ModelSpec, training: TrainingSpec) -> None:
    path = folder / "state.safetensors"
    if not path.exists():
        return
    saved = load_training_state(path)
    if saved["job"] != _job_key(model, training):
        raise InputError(
            f"{folder} holds the training of another job (its model or training settings differ): "
            "choose another output folder, or delete this one"
        )
    state.network.load_state_dict(saved["network"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.average = saved["average"]
    state.step = saved["step"]
    state.best = math.inf if saved["best"] is None else saved["best"]
    state.history = saved["history"]


class _Clock:
    """Measures throughput and the share of time spent waiting for data, smoothed over recent steps."""

    def __init__(self, samples_per_step: int) -> None:
        self.samples_per_step = samples_per_step
        self.waiting = self.working = 0.0
        self._mark = time.perf_counter()

    def timed(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield the samples, measuring how long each was waited for."""
        self._mark = time.perf_counter()
        for sample in samples:
            now = time.perf_counter()
            self.waiting = 0.95 * self.waiting + now - self._mark
            self._mark = now
            yield sample

    def go_on(self) -> None:
        """Leave out the time since the last report: it was neither work nor waiting for data."""
        self._mark = time.perf_counter()

    def report(
        self, step: int, steps: int, loss: Tensor, parts: dict[str, Tensor], validation: float | None
    ) -> Progress:
        """Close a step and return what to tell."""
        now = time.perf_counter()
        value = float(loss.detach())
        self.working = 0.95 * self.working + now - self._mark
        self._mark = now
        weight = (1.0 - 0.95 ** min(step, 200)) / 0.05
        total = self.waiting + self.working
        return Progress(
            step,
            steps,
            value,
            {name: float(part) for name, part in parts.items()},
            self.samples_per_step * weight / max(total, 1e-9),
            self.waiting / max(total, 1e-9),
            validation,
        )
