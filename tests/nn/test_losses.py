"""The laws of the losses: formulas, masks, and silence where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from emloom.nn.losses import balance_weights, balanced_bce, weighted_mse_sigmoid

LOSSES = [weighted_mse_sigmoid, balanced_bce]
SHAPE = (2, 3, 4, 5, 6)


def example(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(SHAPE, generator=rng)
    target = (torch.rand(SHAPE, generator=rng) > 0.7).float()
    weight = torch.rand(SHAPE, generator=rng) * (torch.rand(SHAPE, generator=rng) > 0.4)
    return logits, target, weight


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_losses_match_their_formula(seed):
    logits, target, weight = example(seed)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    t, w = target.double().numpy(), weight.double().numpy()
    known = w > 0
    mse = (w * (p - t) ** 2)[known].mean()
    bce = (w * -(t * np.log(p) + (1 - t) * np.log1p(-p)))[known].mean()
    assert float(weighted_mse_sigmoid(logits, target, weight)) == pytest.approx(mse, rel=1e-5)
    assert float(balanced_bce(logits, target, weight)) == pytest.approx(bce, rel=1e-5)


def test_unweighted_losses_are_those_of_torch():
    logits, target, _ = example(0)
    ones = torch.ones(SHAPE)
    torch.testing.assert_close(
        balanced_bce(logits, target, ones), functional.binary_cross_entropy_with_logits(logits, target)
    )
    torch.testing.assert_close(
        weighted_mse_sigmoid(logits, target, ones), functional.mse_loss(torch.sigmoid(logits), target)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_without_channels_counts_for_every_channel(loss):
    logits, target, weight = example(1)
    one = weight[:, :1]
    torch.testing.assert_close(loss(logits, target, one), loss(logits, target, one.expand(SHAPE).contiguous()))


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_voxels_add_nothing_whatever_stands_there(loss):
    logits, target, weight = example(2)
    other = torch.where(weight > 0, target, torch.nan)
    logits = logits.requires_grad_()
    value = loss(logits, other, weight)
    value.backward()
    assert float(value.detach()) == float(loss(logits.detach(), target, weight))
    assert logits.grad is not None
    assert bool((logits.grad[weight == 0] == 0).all())
    assert bool((logits.grad[weight > 0] != 0).any())


@pytest.mark.parametrize("loss", LOSSES)
def test_no_weight_is_a_loss_of_zero_with_zero_gradient(loss):
    logits, target, _ = example(3)
    logits = logits.requires_grad_()
    value = loss(logits, target, torch.zeros(2, 1, 4, 5, 6))
    value.backward()
    assert float(value.detach()) == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(SHAPE))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_target_is_never_broadcast(loss):
    logits, target, weight = example(4)
    with pytest.raises(ValueError, match="differ in shape"):
        loss(logits, target[:, :1], weight)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_lose_nothing_but_their_own_rounding(loss):
    logits, target, weight = example(5)
    half = logits.bfloat16()
    assert loss(half, target, weight).dtype == torch.float32
    torch.testing.assert_close(loss(half, target, weight), loss(half.float(), target, weight))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(["channel", "batch"]))
def test_balanced_classes_weigh_the_same(seed, per):
    _, target, weight = example(seed)
    mask = weight[:, :1]
    w = balance_weights(target, mask, clip=(1e-6, 1 - 1e-6), per=per)
    known = (mask > 0).expand(SHAPE)
    assert bool((w[~known] == 0).all())
    groups = (
        [(slice(None), slice(c, c + 1)) for c in range(3)] if per == "channel" else [(slice(None), slice(None))]
    )
    for group in groups:
        positive = w[group][known[group] & (target[group] > 0.5)].sum()
        negative = w[group][known[group] & (target[group] <= 0.5)].sum()
        torch.testing.assert_close(positive, negative, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(positive + negative, known[group].sum().float(), rtol=1e-4, atol=1e-4)


def test_balance_is_clipped_for_rare_and_absent_classes():
    target = torch.zeros(1, 1, 1, 10, 10)
    mask = torch.ones(1, 1, 1, 10, 10)
    assert torch.unique(balance_weights(target, mask)).tolist() == pytest.approx([1 / (2 * 0.95)])
    target[..., 0, 0] = 1
    assert balance_weights(target, mask).max().item() == pytest.approx(1 / (2 * 0.05))
    assert bool((balance_weights(target, torch.zeros_like(mask)) == 0).all())
