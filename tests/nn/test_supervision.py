"""Several losses at once: coarser targets, decoder levels, task weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.nn.losses import Bce, Dice, Regression
from emloom.nn.supervision import FixedWeights, LearnedWeights, coarser, deep_supervision

SHAPE = (2, 2, 4, 6, 6)
FACTOR = (1, 2, 3)
PLAIN = Bce(balance=None)


def example(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    target = (torch.rand(SHAPE, generator=rng) > 0.6).float()
    one = (2, 1, *SHAPE[2:])
    weight = torch.rand(one, generator=rng) * (torch.rand(one, generator=rng) > 0.3)
    return target, weight


def slowly(target: np.ndarray, weight: np.ndarray, how: str) -> tuple[float, float]:
    """One cell: its target and weight, by the rule as it is written."""
    known = weight > 0
    mean_weight = weight.mean()
    if how == "nearest":
        centre = tuple(n // 2 for n in target.shape)
        return target[centre], weight[centre]
    if how == "max":
        if known.all() or target[known].max(initial=0) > 0.5:
            return target[known].max(), mean_weight
        return 0.0, 0.0
    if not known.any():
        return 0.0, 0.0
    mean = np.average(target, weights=weight)
    return (mean if how == "mean" else float(mean > 0.5)), mean_weight


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from(["nearest", "majority", "max", "mean"]))
def test_coarser_targets_follow_the_rule_cell_by_cell(seed, how):
    target, weight = example(seed)
    t, w = coarser(target, weight, FACTOR, how)
    assert t.shape == (2, 2, 4, 3, 2)
    assert w.shape == (2, 1, 4, 3, 2) or how == "max"
    w = w.expand(t.shape)
    for n, c, z, y, x in np.ndindex(*t.shape):
        cell = (slice(z, z + 1), slice(2 * y, 2 * y + 2), slice(3 * x, 3 * x + 3))
        expected = slowly(target[n, c][cell].double().numpy(), weight[n, 0][cell].double().numpy(), how)
        here = float(t[n, c, z, y, x]) if expected[1] > 0 else 0.0
        assert here == pytest.approx(expected[0] if expected[1] > 0 else 0.0, abs=1e-6)
        assert float(w[n, c, z, y, x]) == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize("how", ["nearest", "majority", "max", "mean"])
def test_what_stands_at_unknown_voxels_does_not_reach_a_coarser_level(how):
    target, weight = example(0)
    wild = torch.where(weight > 0, target, torch.nan)
    t, w = coarser(target, weight, FACTOR, how)
    u, v = coarser(wild, weight, FACTOR, how)
    assert torch.equal(w, v)
    known = (w > 0).expand(t.shape)
    assert torch.equal(t[known], u[known])
    levels = [torch.zeros(SHAPE), torch.zeros(t.shape)]
    loss = deep_supervision(Dice(), levels, wild, weight, how)
    assert float(loss) == float(deep_supervision(Dice(), levels, target, weight, how))


def test_the_rare_voxel_survives_max_and_not_majority():
    target = torch.zeros(1, 1, 4, 4, 4)
    target[0, 0, 1, 2, 3] = 1
    ones = torch.ones(1, 1, 4, 4, 4)
    assert float(coarser(target, ones, (2, 2, 2), "max")[0].sum()) == 1
    assert float(coarser(target, ones, (2, 2, 2), "majority")[0].sum()) == 0


def test_levels_weigh_half_of_the_finer_one():
    target, weight = example(1)
    levels = [torch.randn(SHAPE[:2] + shape) for shape in ((4, 6, 6), (4, 3, 2), (2, 3, 1))]
    total = 0.0
    for level, logits in enumerate(levels):
        factor = [a // b for a, b in zip(SHAPE[2:], logits.shape[2:], strict=True)]
        t, w = coarser(target, weight, tuple(factor), "majority")
        total += 0.5**level * float(PLAIN(logits, t, w))
    assert float(deep_supervision(PLAIN, levels, target, weight)) == pytest.approx(total, rel=1e-6)
    alone = deep_supervision(PLAIN, levels[:1], target, weight)
    assert float(alone) == float(PLAIN(levels[0], target, weight))


def test_a_level_that_does_not_divide_the_target_is_an_error():
    target, weight = example(2)
    with pytest.raises(ValueError, match="do not divide"):
        deep_supervision(PLAIN, [torch.zeros(2, 2, 4, 6, 4)], target, weight)


def test_nothing_known_at_any_level_is_zero_with_zero_gradient():
    target, weight = example(3)
    logits = torch.randn(2, 2, 4, 3, 2, requires_grad=True)
    for loss in (PLAIN, Dice(), Regression(balance="threshold")):
        value = deep_supervision(loss, [logits], target, 0 * weight, "max")
        value.backward()
        assert float(value.detach()) == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0


def test_fixed_weights_are_a_weighted_sum():
    tasks = FixedWeights({"a": 2.0, "b": 0.5})
    assert float(tasks({"b": torch.tensor(4.0), "a": torch.tensor(1.0)})) == 4.0
    with pytest.raises(ValueError, match="one loss per task"):
        tasks({"a": torch.tensor(1.0)})
    with pytest.raises(InputError, match="negative"):
        FixedWeights({"a": -1.0})


def test_learned_weights_settle_where_the_formula_is_smallest():
    tasks = LearnedWeights({"a": "regression", "b": "classification"})
    losses = {"a": torch.tensor(0.02), "b": torch.tensor(3.0)}
    optimizer = torch.optim.Adam(tasks.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        tasks(losses).backward()
        optimizer.step()
    s = {name: float(value.detach()) for name, value in tasks.log_variances().items()}
    assert s["a"] == pytest.approx(math.log(0.02), abs=0.01)  # 2 k L with k = 1/2
    assert s["b"] == pytest.approx(math.log(6.0), abs=0.01)  # and k = 1
    assert len(list(tasks.parameters())) == 2
    assert tasks.state_dict().keys() == {"raw.a", "raw.b"}


def test_a_crop_without_known_voxels_teaches_the_weights_nothing():
    tasks = LearnedWeights({"a": "regression", "b": "classification"})
    value = tasks({"a": torch.zeros(()), "b": torch.tensor(2.0)})
    value.backward()
    assert float(value.detach()) == 2.0
    assert float(tasks.raw["a"].grad) == 0
    assert float(tasks.raw["b"].grad) == 0.5 - 2.0


def test_a_learned_weight_stays_finite_however_small_a_loss_becomes():
    tasks = LearnedWeights({"a": "regression"})
    with torch.no_grad():
        tasks.raw["a"].fill_(-1e4)
    tasks({"a": torch.tensor(1.0)}).backward()
    assert float(tasks.log_variances()["a"].detach()) >= -8
    assert math.isfinite(float(tasks.raw["a"].grad))
