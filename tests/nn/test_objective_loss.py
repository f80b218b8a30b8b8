"""The loss of neurons: which loss a job names, and what coarser levels of a network add."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.nn.hardware import Hardware
from emloom.nn.losses import LossSum, Tversky, balance_weights, balanced_bce, weighted_mse_sigmoid
from emloom.nn.model import ModelSpec, load
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.predict import Predictor
from emloom.nn.resunet import ResUNetSpec
from emloom.nn.supervision import coarser
from emloom.nn.train import OptimizerSpec, TrainingData, TrainingSpec, train
from tests.nn.tissue import cubes, tiny_model

SHAPE = (1, 3, 4, 4, 4)


def example() -> tuple[dict[str, torch.Tensor], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    rng = torch.Generator().manual_seed(0)
    logits = {"affinities": torch.randn(SHAPE, generator=rng), "lsds": torch.randn(1, 10, 4, 4, 4, generator=rng)}
    weight = (torch.rand(SHAPE, generator=rng) > 0.2).float()
    target = (torch.rand(SHAPE, generator=rng) > 0.4).float()
    known = (torch.rand(1, 10, 4, 4, 4, generator=rng) > 0.2).float()
    return logits, {
        "affinities": (target, weight),
        "lsds": (torch.rand(1, 10, 4, 4, 4, generator=rng), known),
    }


@pytest.mark.parametrize("name", ["bce", "mse"])
def test_named_losses_are_balanced_by_channel(name):
    logits, targets = example()
    total, parts = NeuronsObjective(affinity_loss=name, lsd_weight=0.5).loss(logits, targets)
    target, valid = targets["affinities"]
    plain = balanced_bce if name == "bce" else weighted_mse_sigmoid
    expected = plain(logits["affinities"], target, balance_weights(target, valid))
    assert torch.equal(parts["affinities"], expected)
    lsds = weighted_mse_sigmoid(logits["lsds"], *targets["lsds"])
    torch.testing.assert_close(total, expected + 0.5 * lsds)


def test_a_described_loss_is_the_one_used():
    logits, targets = example()
    objective = NeuronsObjective.from_dict({"affinity_loss": {"kind": "tversky", "false_positive": 0.8}})
    assert objective.affinity_loss == Tversky(false_positive=0.8)
    assert NeuronsObjective.from_yaml(objective.to_yaml()) == objective
    _, parts = objective.loss(logits, targets)
    expected = Tversky(false_positive=0.8)(logits["affinities"], *targets["affinities"])
    torch.testing.assert_close(parts["affinities"], expected)


def test_coarser_levels_add_half_each():
    logits, targets = example()
    coarse = {"affinities@1": torch.randn(1, 3, 4, 2, 2), "lsds@1": torch.randn(1, 10, 4, 2, 2)}
    objective = NeuronsObjective()
    top, _ = objective.loss(logits, targets)
    total, _ = objective.loss({**logits, **coarse}, targets)
    t, w = coarser(*targets["affinities"], (1, 2, 2), "majority")
    extra = balanced_bce(coarse["affinities@1"], t, balance_weights(t, w))
    extra = extra + weighted_mse_sigmoid(coarse["lsds@1"], *coarser(*targets["lsds"], (1, 2, 2), "mean"))
    torch.testing.assert_close(total, top + 0.5 * extra)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("bec", r"affinity_loss: 'bec' is not valid; did you mean 'bce'"),
        ({"kind": "dise"}, r"affinity_loss\.kind: 'dise' is not valid; did you mean 'dice'"),
        ({"kind": "dice", "smooth": 0}, r"affinity_loss\.smooth: Input should be greater than 0"),
        ({"kind": "cross_entropy"}, "probability of its own"),
        ({"kind": "regression", "output": "linear"}, "probability of its own"),
        ({"kind": "sum", "parts": [{"kind": "bce"}, {"kind": "vectors"}]}, "probability of its own"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_in_one_line(loss, words):
    with pytest.raises(InputError, match=words) as caught:
        NeuronsObjective.from_dict({"affinity_loss": loss})
    assert "has 1 problem" in str(caught.value)


@pytest.mark.parametrize("norm", ["weight", "batch"])
def test_a_residual_net_with_supervision_learns_and_predicts(tmp_path: Path, norm: str) -> None:
    network = ResUNetSpec(features=(4, 6, 8), flat_levels=0, norm=norm, supervision=1)
    objective = tiny_model(variant="affinities", affinity_loss=LossSum.bce_dice().to_dict()).objective
    model = ModelSpec(objective=objective, network=network, voxel_size_nm=(10, 10, 10))
    losses: list[float] = []
    training = TrainingSpec(
        steps=60,
        crop_shape_vox=(8, 8, 8),
        validate_every=30,
        batch_size=2,
        optimizer=OptimizerSpec(learning_rate=1e-2),
    )
    path = train(
        model,
        training,
        TrainingData([cubes()], [(0, Box((8, 8, 8), (8, 8, 8)))]),
        tmp_path,
        Hardware("cpu", 1, 0),
        lambda progress: losses.append(progress.loss),
    )
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
    spec, net, _ = load(path)
    assert spec == model
    shown = [n + 2 * c for n, c in zip(net.lattice, net.context, strict=True)]
    raw = torch.randint(0, 255, shown, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    answers = Predictor(net, spec.preprocessing)(raw)
    assert set(answers) == {"affinities"}
    assert answers["affinities"].std() > 0
