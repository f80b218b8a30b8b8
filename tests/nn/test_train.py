"""Training: resume equals uninterrupted, workers change nothing, sources are read-only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import Array
from emloom.nn.augment import AugmentSpec
from emloom.nn.hardware import Hardware
from emloom.nn.model import load
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples, cover
from emloom.nn.train import OptimizerSpec, Progress, TrainingData, TrainingSpec, learning_rate, train
from tests.nn.tissue import cubes, tiny_model

HERE = Hardware("cpu", 1, 0)
SPEC = TrainingSpec(steps=6, crop_shape_vox=(8, 8, 8), validate_every=2)
VALIDATION = [(0, Box((8, 8, 8), (8, 8, 8)))]


def run(folder: Path, spec: TrainingSpec = SPEC, on_step: Any = lambda _: None, **objective: object) -> Path:
    return train(tiny_model(**objective), spec, TrainingData([cubes()], VALIDATION), folder, HERE, on_step)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load(path)[1].state_dict())


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen step."""


def stop_at(step: int) -> Any:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise Stop

    return on_step


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, stop: int) -> None:
    clean = run(tmp_path / "clean")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", on_step=stop_at(stop))
    resumed = run(tmp_path / "cut")
    a, b = weights(clean), weights(resumed)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    histories = [(tmp_path / name / "history.json").read_text() for name in ("clean", "cut")]
    assert histories[0] == histories[1]
    assert [row["step"] for row in json.loads(histories[0])] == [1, 2, 3, 4, 5, 6]


@pytest.mark.fault(
    "processes",
    "a training is stopped between a validation and its end",
    "it goes on, and its history is that of a training that was never stopped",
)
def test_a_training_that_was_killed_loses_nothing_of_what_it_validated(tmp_path: Path) -> None:
    # Regression: the state was saved before the row of its own step was, which a killed training then lacked.
    def die(progress: Progress) -> None:
        if progress.step == 4:
            raise RuntimeError("killed")

    run(tmp_path / "clean")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "cut", on_step=die)
    run(tmp_path / "cut")
    histories = [(tmp_path / name / "history.json").read_text() for name in ("clean", "cut")]
    assert histories[0] == histories[1]


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    model = run(tmp_path)
    before = model.read_bytes()
    steps: list[int] = []
    run(tmp_path, on_step=lambda progress: steps.append(progress.step))
    assert not steps
    assert model.read_bytes() == before


def test_the_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="another job"):
        run(tmp_path, SPEC.model_copy(update={"seed": 1}))


def test_learning_lowers_the_validation_loss(tmp_path: Path) -> None:
    seen: list[float] = []

    def on_step(progress: Progress) -> None:
        if progress.validation is not None:
            seen.append(progress.validation)

    run(
        tmp_path,
        TrainingSpec(
            steps=90, crop_shape_vox=(8, 8, 8), validate_every=15, optimizer=OptimizerSpec(learning_rate=0.02)
        ),
        on_step,
    )
    assert min(seen) < 0.85 * seen[0]
    info = load(tmp_path / "model.safetensors")[2]
    assert float(info["validation_loss"]) == min(seen)


@pytest.mark.parametrize("variant", ["mtlsd", "affinities", "aclsd", "acrlsd"])
def test_every_variant_trains_all_its_weights(tmp_path: Path, variant: str) -> None:
    fresh = run(tmp_path / "one", TrainingSpec(steps=1, crop_shape_vox=(8, 8, 8)), variant=variant)
    trained = run(tmp_path / "many", TrainingSpec(steps=8, crop_shape_vox=(8, 8, 8)), variant=variant)
    a, b = weights(fresh), weights(trained)
    assert not any(torch.equal(a[name], b[name]) for name in a)


def test_samples_do_not_depend_on_workers(tmp_path: Path) -> None:
    maker = SampleMaker(tiny_model(), [cubes()], CropShape((8, 8, 8), (8, 8, 8)))
    dataset = TrainingSamples(maker, SPEC.model_copy(update={"seed": 3}), count=6)
    loaded = [
        list(
            torch.utils.data.DataLoader(
                dataset, batch_size=2, num_workers=n, multiprocessing_context="spawn" if n else None
            )
        )
        for n in (0, 2)
    ]
    for (raw_a, targets_a), (raw_b, targets_b) in zip(*loaded, strict=True):
        assert torch.equal(raw_a, raw_b)
        for head in targets_a:
            assert all(torch.equal(x, y) for x, y in zip(targets_a[head], targets_b[head], strict=True))


def test_sources_are_never_changed(tmp_path: Path) -> None:
    volume = cubes((32, 64, 64))

    def digest(array: Array) -> str:
        return hashlib.sha256(array.tobytes()).hexdigest()

    before = [digest(v.read(v.info.box)) for v in (volume.raw, volume.labels)]
    maker = SampleMaker(tiny_model(), [volume], CropShape((8, 8, 8), (8, 8, 8)))
    everything = SPEC.model_copy(update={"augment": AugmentSpec.serial_sections()})
    dataset = TrainingSamples(maker, everything, count=1000)
    for index in range(1000):
        dataset[index]
    assert before == [digest(v.read(v.info.box)) for v in (volume.raw, volume.labels)]


def test_a_crop_that_does_not_fit_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="crop_shape_vox"):
        run(tmp_path, TrainingSpec(steps=1, crop_shape_vox=(64, 64, 64)))


def test_a_volume_of_another_voxel_size_is_refused() -> None:
    model = tiny_model().model_copy(update={"voxel_size_nm": (40.0, 4.0, 4.0)})
    with pytest.raises(InputError, match="voxel size"):
        SampleMaker(model, [cubes()], CropShape((8, 8, 8), (8, 8, 8)))


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    spec = TrainingSpec(steps=1000)
    rates = [learning_rate(spec, step) for step in range(1000)]
    assert rates[0] < 0.1 * max(rates)
    assert max(rates) == pytest.approx(spec.optimizer.learning_rate, rel=0.01)
    assert rates[-1] < 1e-4 * spec.optimizer.learning_rate


def test_cover_reaches_every_voxel_and_stays_inside() -> None:
    box = Box((3, 5, 7), (10, 9, 8))
    seen = np.zeros((20, 20, 20), bool)
    for start in cover(box, (4, 4, 8)):
        assert box.contains(Box(start, (4, 4, 8)))
        seen[Box(start, (4, 4, 8)).slices()] = True
    assert seen[box.slices()].all()
    with pytest.raises(InputError, match="smaller than the crop"):
        cover(box, (11, 1, 1))


def test_what_was_drawn_stands_in_the_history(tmp_path: Path) -> None:
    run(tmp_path)
    history = json.loads((tmp_path / "history.json").read_text())
    reports = [row["drawn"] for row in history if "drawn" in row]
    assert len(reports) == 3
    assert sum(report["draws"] for report in reports) == 6
