"""What networks of a pipeline cost is timed here: more of the same takes longer in proportion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emloom.tasks.pipelinecost import OVERLAP, model_of, prediction_seconds, training_bytes, training_seconds
from emloom.tasks.pipelinespec import TrainedHere, TrainedModel
from tests.tasks.pipelines import neurons_job

SIZE = (8.0, 8.0, 8.0)


def test_costs_grow_with_the_work(tmp_path: Path) -> None:
    job = neurons_job(tmp_path)
    model = model_of(TrainedHere(job=job), SIZE)
    assert model is not None
    before = torch.random.get_rng_state()
    one = prediction_seconds(model, 1_000_000, 1)
    assert torch.equal(before, torch.random.get_rng_state())  # nobody's seeds are touched
    assert one is not None
    assert one > 0
    assert prediction_seconds(model, 3_000_000, 2) == pytest.approx(6 * one)
    training = job.training.model_copy(update={"crop_shape_vox": (32, 32, 32), "steps": 10, "batch_size": 1})
    took = training_seconds(model, training)
    assert took == pytest.approx(5 * 10 * 32**3 * one / 1e6 / OVERLAP)  # a network that pads sees its crop
    assert training_seconds(model, training.model_copy(update={"steps": 30})) == pytest.approx(3 * took)
    larger = training.model_copy(update={"crop_shape_vox": (64, 64, 64)})
    assert training_bytes(model, larger) > training_bytes(model, training) > 2**29


def test_nobody_guesses_about_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    assert model_of(TrainedModel(model=str(tmp_path / "model.safetensors")), SIZE) is None
