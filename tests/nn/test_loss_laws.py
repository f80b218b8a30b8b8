"""What holds of every loss: silence where nothing is known, no NaN, a minimum at the truth."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emloom.errors import InputError
from emloom.nn.losses import (
    Bce,
    ClassDice,
    CrossEntropy,
    Dice,
    Focal,
    FocalCrossEntropy,
    GeneralisedDice,
    LossSpec,
    LossSum,
    Regression,
    SensitivitySpecificity,
    Tversky,
    TwoClassDice,
    Vectors,
    WassersteinDice,
    build_loss,
)

SHAPE = (2, 3, 4, 5, 6)
NEAR = ((0.0, 1.0, 1.0), (1.0, 0.0, 0.5), (1.0, 0.5, 0.0))
BINARY = {
    "bce": Bce(balance=None),
    "bce_crop": Bce(),
    "bce_channel": Bce(balance="channel"),
    "focal": Focal(),
    "dice": Dice(),
    "dice_sample": Dice(per="sample"),
    "dice_squared": Dice(squared=True),
    "dice_weighted": Dice(class_weights=(1.0, 2.0, 0.5)),
    "two_class_dice": TwoClassDice(),
    "generalised_dice": GeneralisedDice(),
    "generalised_dice_batch": GeneralisedDice(per="batch"),
    "tversky": Tversky(),
    "sensitivity_specificity": SensitivitySpecificity(),
    "bce_dice": LossSum.bce_dice(),
    "focal_dice": LossSum.focal_dice(),
    "mse": Regression(),
}
ONE_HOT = {
    "cross_entropy": CrossEntropy(),
    "cross_entropy_weighted": CrossEntropy(class_weights=(0.1, 1.0, 3.0)),
    "focal_cross_entropy": FocalCrossEntropy(),
    "focal_cross_entropy_weighted": FocalCrossEntropy(gamma=1.0, class_weights=(0.1, 1.0, 3.0)),
    "class_dice": ClassDice(),
    "class_dice_sample": ClassDice(per="sample", class_weights=(0.5, 2.0, 1.0)),
    "cross_entropy_class_dice": LossSum(parts=(CrossEntropy(), ClassDice())),
    "wasserstein_dice": WassersteinDice(distances=NEAR),
    "wasserstein_dice_batch": WassersteinDice(distances=NEAR, per="batch"),
}
NUMBERS = {
    "l1": Regression(error="absolute", output="linear"),
    "smooth_l1": Regression(error="smooth", output="linear"),
    "sted": Regression(output="signed", balance="threshold"),
    "proximity": Regression(output="signed", balance="proximity"),
    "vectors": Vectors(),
}
LOSSES = BINARY | ONE_HOT | NUMBERS
each_loss = pytest.mark.parametrize("name", LOSSES)


def truth(name: str, rng: torch.Generator) -> Tensor:
    if name in ONE_HOT:
        ids = torch.randint(0, 3, (SHAPE[0], *SHAPE[2:]), generator=rng)
        return torch.nn.functional.one_hot(ids, 3).movedim(-1, 1).float()
    if name in NUMBERS:
        return torch.tanh(2 * torch.randn(SHAPE, generator=rng))
    return (torch.rand(SHAPE, generator=rng) > 0.7).float()


def answer(name: str, target: Tensor) -> Tensor:
    """Logits that say the truth."""
    if name in ("sted", "proximity"):
        return 2 * torch.atanh(target.clamp(-1 + 1e-6, 1 - 1e-6))
    return target if name in NUMBERS else 40 * (2 * target - 1)


def example(name: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(SHAPE, generator=rng)
    target = truth(name, rng)
    one = (SHAPE[0], 1, *SHAPE[2:])
    weight = (0.5 + torch.rand(one, generator=rng)) * (torch.rand(one, generator=rng) > 0.4)
    return logits, target, weight


def value_and_gradient(name: str, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    logits = logits.clone().requires_grad_()
    value = LOSSES[name](logits, target, weight)
    value.backward()
    assert logits.grad is not None
    return float(value.detach()), logits.grad


def test_every_kind_of_the_union_is_held_to_the_laws():
    def classes(part: object) -> set[object]:
        found = {cls for each in get_args(part) for cls in classes(each)}
        return found or ({part} if isinstance(part, type) else set())

    assert {type(loss) for loss in LOSSES.values()} == classes(LossSpec)


@each_loss
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_unknown_voxels_add_nothing_whatever_stands_there(name, seed):
    logits, target, weight = example(name, seed)
    known = (weight > 0).expand(SHAPE)
    value, gradient = value_and_gradient(name, logits, target, weight)
    wild = torch.where(known, target, torch.nan)
    other, other_gradient = value_and_gradient(name, torch.where(known, logits, torch.inf), wild, weight)
    assert other == value
    assert torch.equal(other_gradient, gradient)
    assert bool((gradient[~known] == 0).all())
    assert bool((gradient[known] != 0).any())


@each_loss
def test_nothing_known_is_a_loss_of_zero_with_zero_gradient(name):
    logits, target, weight = example(name, 0)
    value, gradient = value_and_gradient(name, logits, target * torch.nan, torch.zeros_like(weight))
    assert value == 0.0
    assert torch.equal(gradient, torch.zeros(SHAPE))


@each_loss
def test_a_sample_without_known_voxels_changes_nothing(name):
    logits, target, weight = example(name, 1)
    alone = LOSSES[name](logits[:1], target[:1], weight[:1])
    beside = LOSSES[name](logits, target, weight * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1, 1))
    torch.testing.assert_close(beside, alone)


@each_loss
@pytest.mark.parametrize("size", [-80.0, 0.0, 80.0, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_crop_and_no_logit_makes_a_nan(name, size, dtype):
    """Bug 8 of the original: Dice without smoothing is 0 / 0 on an empty crop."""
    logits, target, weight = example(name, 2)
    logits = torch.full(SHAPE, size) if size is not None else 80 * logits.sign()
    weights = [weight, torch.ones_like(weight), 1e-4 * weight]
    for t in (torch.zeros(SHAPE), torch.ones(SHAPE), target):
        for w in weights:
            value, gradient = value_and_gradient(name, logits.to(dtype), t.to(dtype), w.to(dtype))
            assert math.isfinite(value)
            assert bool(gradient.isfinite().all())


@each_loss
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_the_truth_is_the_minimum(name, seed):
    logits, target, weight = example(name, seed)
    best = float(LOSSES[name](answer(name, target), target, weight))
    assert best == pytest.approx(0, abs=1e-5)
    assert float(LOSSES[name](logits, target, weight)) > best + 1e-3
    nudged = answer(name, target) + 0.5 * logits.sign()
    assert float(LOSSES[name](nudged, target, weight)) >= best - 1e-6


@each_loss
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_the_gradient_points_to_the_truth(name, seed):
    logits, target, weight = example(name, seed)
    _, gradient = value_and_gradient(name, logits, target, weight)
    towards = answer(name, target) - logits
    assert float((gradient * towards).sum()) < 0
    if name not in ONE_HOT:  # a softmax trades one channel for another: only the whole voxel must improve
        assert bool((gradient * towards <= 0).all())


@each_loss
def test_the_order_of_the_batch_changes_nothing(name):
    logits, target, weight = example(name, 3)
    value, gradient = value_and_gradient(name, logits, target, weight)
    turned, turned_gradient = value_and_gradient(name, logits.flip(0), target.flip(0), weight.flip(0))
    assert turned == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(turned_gradient.flip(0), gradient, rtol=1e-4, atol=1e-7)


@each_loss
def test_a_weight_without_channels_counts_for_every_channel(name):
    logits, target, weight = example(name, 4)
    wide = weight.expand(SHAPE).contiguous()
    torch.testing.assert_close(LOSSES[name](logits, target, weight), LOSSES[name](logits, target, wide))


@each_loss
def test_half_precision_loses_nothing_but_its_own_rounding(name):
    logits, target, weight = example(name, 5)
    half, t, w = logits.bfloat16(), target.bfloat16(), weight.bfloat16()
    value = LOSSES[name](half, t, w)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, LOSSES[name](half.float(), t.float(), w.float()))


@each_loss
def test_the_gradient_is_that_of_finite_differences(name):
    logits, target, weight = (x[:, :, :1, :2, :2].double() for x in example(name, 6))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, target, weight), (logits,))


@each_loss
def test_a_target_is_never_broadcast(name):
    logits, target, weight = example(name, 7)
    with pytest.raises(ValueError, match="differ in shape"):
        LOSSES[name](logits, target[:, :1], weight)


@each_loss
def test_a_job_file_can_name_it(name):
    loss = LOSSES[name]
    assert build_loss(loss.to_dict()) == loss
    assert type(loss).from_yaml(loss.to_yaml()) == loss


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"kind": "dise"}, "did you mean 'dice'"),
        ({"kind": "dice", "smooth": 0}, "loss.smooth: .*greater than 0"),  # bug 8
        (
            {"kind": "sum", "parts": [{"kind": "dice", "smoth": 1}]},
            r"loss\.parts\.0\.smoth.*did you mean 'smooth'",
        ),
        ({"kind": "sum", "parts": [{"kind": "bce"}], "weights": [1, 2]}, "1 parts need as many weights"),
        ({"kind": "cross_entropy", "class_weights": [1, -1]}, "greater than or equal to 0"),
        ({"kind": "wasserstein_dice", "distances": [[0, 1], [0.5, 0]]}, "symmetric"),
        ({"kind": "wasserstein_dice", "distances": [[0, 1]]}, "too_short|at least 2"),
        ({"kind": "wasserstein_dice", "distances": [[0, 1], [1, 0, 0]]}, "square"),
    ],
)
def test_impossible_losses_are_refused(data, words):
    with pytest.raises(InputError, match=words):
        build_loss(data)


@pytest.mark.parametrize(
    "loss",
    [
        Dice(class_weights=(1.0,)),
        CrossEntropy(class_weights=(1.0,)),
        FocalCrossEntropy(class_weights=(1.0,)),
        ClassDice(class_weights=(1.0,)),
        WassersteinDice(distances=((0, 1), (1, 0))),
    ],
)
def test_numbers_per_class_must_match_the_channels(loss):
    logits, target, weight = example("cross_entropy", 0)
    with pytest.raises(InputError, match="3 channels"):
        loss(logits, target, weight)
