"""Losses of classes with sets of candidates, against the formulas written out slowly, and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from emloom.nn.class_losses import ClassDice, CrossEntropy, FocalCrossEntropy, WassersteinDice
from emloom.nn.losses import Loss, one_hot
from emloom.nn.supervision import coarser, deep_supervision

CLASSES, SHAPE = 4, (2, 4, 2, 3, 3)
WEIGHTS = (0.5, 3.0, 1.0, 0.25)
NEAR = ((0.0, 1.0, 1.0, 0.75), (1.0, 0.0, 0.5, 0.25), (1.0, 0.5, 0.0, 1.0), (0.75, 0.25, 1.0, 0.0))
LOSSES: dict[str, Loss] = {
    "cross_entropy": CrossEntropy(),
    "cross_entropy_weighted": CrossEntropy(class_weights=WEIGHTS),
    "focal": FocalCrossEntropy(),
    "focal_weighted": FocalCrossEntropy(gamma=0.5, class_weights=WEIGHTS),
    "class_dice": ClassDice(),
    "class_dice_sample": ClassDice(per="sample", class_weights=WEIGHTS),
    "wasserstein_dice": WassersteinDice(distances=NEAR),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
seeds = st.integers(0, 10_000)
quick = settings(deadline=None, max_examples=15)


def example(seed: int, share: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    """Logits; candidates: none, one, several or all of the classes; weights, some of them 0."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(SHAPE, generator=rng)
    target = (torch.rand(SHAPE, generator=rng) < share).float()
    weight = (0.5 + torch.rand(SHAPE, generator=rng)[:, :1]) * (torch.rand(SHAPE, generator=rng)[:, :1] > 0.3)
    return logits, target, weight


def value_and_gradient(loss: Loss, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(value, logits)
    return float(value.detach()), gradient


def voxels(logits: Tensor, target: Tensor, weight: Tensor) -> list[tuple[int, np.ndarray, np.ndarray, float]]:
    """(sample, probabilities, candidates, weight) of the voxels that say something."""
    x, t, w = (np.moveaxis(each.double().numpy(), 1, -1) for each in (logits, target, weight))
    found = []
    for n, z, y, xx in np.ndindex(*x.shape[:-1]):
        p = np.exp(x[n, z, y, xx])
        s = t[n, z, y, xx] == 1
        if w[n, z, y, xx, 0] > 0 and s.any() and not s.all():
            found.append((n, p / p.sum(), s, w[n, z, y, xx, 0]))
    return found


# ---- formulas -------------------------------------------------------------------------------------------------


@quick
@given(seeds, st.sampled_from([None, WEIGHTS]), st.sampled_from([0.0, 1.0, 2.0]))
def test_cross_entropies_are_those_of_the_summed_probability(seed, class_weights, gamma):
    given_ = example(seed)
    above = below = 0.0
    for _, p, s, w in voxels(*given_):
        k = 1.0 if class_weights is None else min(np.array(class_weights)[s])
        above += w * k * (1 - p[s].sum()) ** gamma * -np.log(p[s].sum())
        below += k
    found = float(FocalCrossEntropy(gamma=gamma, class_weights=class_weights)(*given_))
    assert found == pytest.approx(above / max(below, 1e-9), rel=1e-5)
    if gamma == 0:
        assert float(CrossEntropy(class_weights=class_weights)(*given_)) == found


@quick
@given(seeds, st.sampled_from(["batch", "sample"]), st.sampled_from([None, WEIGHTS, (0.0, 1.0, 1.0, 1.0)]))
def test_class_dice_counts_voxels_whose_membership_is_known(seed, per, class_weights):
    given_ = example(seed)
    losses, importance = [], []
    for group in [(0, 1)] if per == "batch" else [(0,), (1,)]:
        for c in range(CLASSES):
            overlap = size = seen = 0.0
            for n, p, s, w in voxels(*given_):
                if n not in group or (s[c] and s.sum() > 1):
                    continue
                overlap += 2 * w * p[c] * s[c]
                size += w * (p[c] + s[c])
                seen += 1
            if seen:
                losses.append(1 - (overlap + 1) / (size + 1))
                importance.append(1.0 if class_weights is None else class_weights[c])
    expected = np.average(losses, weights=importance) if losses else 0.0
    found = float(ClassDice(per=per, class_weights=class_weights)(*given_))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@quick
@given(seeds)
def test_wasserstein_dice_moves_all_that_is_outside_to_the_nearest_candidate(seed):
    given_ = example(seed)
    m, losses = np.array(NEAR), []
    for sample in range(2):
        hit = error = seen = 0.0
        for n, p, s, w in voxels(*given_):
            if n == sample:
                d = sum(p[c] * m[s, c].min() for c in range(CLASSES))
                hit += 2 * w * m[s, 0].min() * (1 - d)
                error += w * d
                seen += 1
        if seen:
            losses.append(1 - (hit + 1) / (hit + error + 1))
    found = float(WassersteinDice(distances=NEAR)(*given_))
    assert found == pytest.approx(np.mean(losses) if losses else 0.0, rel=1e-5, abs=1e-7)


# ---- laws -----------------------------------------------------------------------------------------------------


@each_loss
@quick
@given(
    seed=seeds,
    wild=arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    said=arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 1.0, np.nan])),
)
def test_voxels_that_say_nothing_change_neither_loss_nor_gradient_by_one_bit(name, seed, wild, said):
    logits, target, weight = example(seed)
    many = target.sum(dim=1, keepdim=True)
    says = (weight > 0) & (many > 0) & (many < CLASSES)
    value, gradient = value_and_gradient(LOSSES[name], logits, target, weight)
    other_logits = torch.where(says, logits, torch.from_numpy(wild))
    other_target = torch.where(weight > 0, target, torch.from_numpy(said))
    other, other_gradient = value_and_gradient(LOSSES[name], other_logits, other_target, weight)
    assert other == value
    assert torch.equal(other_gradient, gradient)
    assert bool((gradient[~says.expand(SHAPE)] == 0).all())


@each_loss
@pytest.mark.parametrize("all_or_none", [0.0, 1.0])
def test_a_set_of_all_classes_or_of_none_is_a_loss_of_zero_with_zero_gradient(name, all_or_none):
    logits, target, weight = example(0)
    value, gradient = value_and_gradient(LOSSES[name], logits, torch.full_like(target, all_or_none), weight)
    assert value == 0.0
    assert torch.equal(gradient, torch.zeros(SHAPE))


@each_loss
@quick
@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_no_gradient_lowers_the_logit_of_a_candidate(name, seed, scale):
    """A step down never makes a candidate less likely against all others together."""
    logits, target, weight = example(seed)
    _, gradient = value_and_gradient(LOSSES[name], scale * logits.double(), target, weight)
    assert float(gradient[target == 1].max()) <= 1e-12
    assert float(gradient.sum(dim=1).abs().max()) <= 1e-12
    if name.startswith(("cross", "focal")):  # exactly so, in any precision; and of the others none is raised
        _, gradient = value_and_gradient(LOSSES[name], scale * logits, target, weight)
        assert float(gradient[target == 1].max()) <= 0
        assert float(gradient[target == 0].min()) >= 0


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_weighted", "focal", "focal_weighted"])
@quick
@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_a_set_costs_no_more_than_any_of_its_members(name, seed, scale):
    logits, target, _ = example(seed)
    ones = torch.ones(1, 1, 1, 1, 1)
    several = (target.sum(dim=1) > 1) & (target.sum(dim=1) < CLASSES)
    for n, z, y, x in several.nonzero()[:8].tolist():
        at = (slice(n, n + 1), slice(None), slice(z, z + 1), slice(y, y + 1), slice(x, x + 1))
        whole = float(LOSSES[name](scale * logits[at], target[at], ones))
        for c in target[n, :, z, y, x].nonzero().flatten().tolist():
            member = torch.zeros_like(target[at])
            member[:, c] = 1
            assert whole <= float(LOSSES[name](scale * logits[at], member, ones)) * (1 + 1e-6) + 1e-37


@each_loss
def test_the_smallest_loss_is_where_the_candidates_have_all_probability(name):
    """However they share it: 40 for one of them and 38 for another is as good as the reverse."""
    _, target, weight = example(1)
    rng = torch.Generator().manual_seed(1)
    certain = torch.where(target == 1, 38 + 2 * torch.rand(SHAPE, generator=rng), -40.0)
    value, gradient = value_and_gradient(LOSSES[name], certain, target, weight)
    assert value == pytest.approx(0, abs=1e-6)
    assert float(gradient.abs().max()) < 1e-6


def test_hidden_mitochondria_are_not_taught_away():
    """Class 1 painted in one section only: elsewhere "not 2" leaves the net free to find it."""
    logits = torch.zeros(1, 3, 1, 1, 2, requires_grad=True)
    target = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]).reshape(1, 3, 1, 1, 2)
    weight = torch.ones(1, 1, 1, 1, 2)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(CrossEntropy()(logits, target, weight), logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    p = torch.softmax(logits.detach(), dim=1)[0, :, 0, 0]
    assert float(p[2].max()) < 0.01  # what was excluded goes
    assert p[:2, 0].tolist() == pytest.approx([0.5, 0.5], abs=0.01)  # between candidates nothing is learned
    assert float(p[0, 1]) > 0.99


# ---- levels ---------------------------------------------------------------------------------------------------


def slow_cell(sets: list[frozenset[int]], weights: list[float]) -> tuple[set[int], float]:
    """The rule as it is written."""
    says = [0 < len(s) < CLASSES and w > 0 for s, w in zip(sets, weights, strict=True)]
    total = sum(w for w, ok in zip(weights, says, strict=True) if ok)
    among = zip(sets, weights, says, strict=True)
    kept = [(s, w) for s, w, ok in among if ok]
    possible = {c for c in range(CLASSES) if sum(w for s, w in kept if c in s) > total / 2}
    if sum(w for s, w in kept if s <= possible) > total / 2:
        return possible, total / len(sets)
    return set(), 0.0


@quick
@given(seeds, st.sampled_from([0.2, 0.4, 0.6]), st.booleans())
def test_a_cell_may_be_what_more_than_half_of_it_may_be(seed, share, whole):
    shape, factor = (1, CLASSES, 2, 4, 6), (1, 2, 3)
    rng = torch.Generator().manual_seed(seed)
    target = (torch.rand(shape, generator=rng) < share).float()
    weight = torch.randint(0, 3, (1, 1, *shape[2:]), generator=rng).float()
    if whole:
        weight = torch.ones_like(weight)
    t, w = coarser(target, weight, factor, "classes")
    assert t.shape == (1, CLASSES, 2, 2, 2)
    assert w.shape == (1, 1, 2, 2, 2)
    for z, y, x in np.ndindex(2, 2, 2):
        cell = (slice(z, z + 1), slice(2 * y, 2 * y + 2), slice(3 * x, 3 * x + 3))
        columns = target[0][(slice(None), *cell)].reshape(CLASSES, -1).T
        sets = [frozenset(np.flatnonzero(column)) for column in columns]
        possible, size = slow_cell(sets, weight[0, 0][cell].flatten().tolist())
        assert set(np.flatnonzero(t[0, :, z, y, x])) == possible
        assert float(w[0, 0, z, y, x]) == pytest.approx(size)


@quick
@given(seeds)
def test_of_one_class_a_voxel_the_rule_is_the_majority(seed):
    rng = torch.Generator().manual_seed(seed)
    target, weight = one_hot(torch.randint(-1, 3, (1, 2, 4, 4), generator=rng), 3)
    t, w = coarser(target, weight, (1, 2, 2), "classes")
    expected, all_weights = coarser(target, weight, (1, 2, 2), "majority")
    assert torch.equal(t, expected)
    assert torch.equal(w, all_weights * expected.any(dim=1, keepdim=True))


@each_loss
def test_levels_ask_for_candidates_and_never_for_what_is_unknown(name):
    _, target, weight = example(3, 0.3)
    target, weight = target[..., :2], weight[..., :2]
    levels = [torch.randn(2, CLASSES, 2, 3, 2), torch.randn(2, CLASSES, 1, 3, 1)]
    total = float(deep_supervision(LOSSES[name], levels, target, weight, "classes"))
    t, w = coarser(target, weight, (2, 1, 2), "classes")
    parts = [float(LOSSES[name](levels[0], target, weight)), 0.5 * float(LOSSES[name](levels[1], t, w))]
    assert total == pytest.approx(sum(parts), rel=1e-6)
    wild = torch.where(weight > 0, target, torch.nan)
    assert float(deep_supervision(LOSSES[name], levels, wild, weight, "classes")) == total


# ---- MONAI ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def monai():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # its imports warn of what is not installed
        return pytest.importorskip("monai.losses")


@pytest.mark.parametrize("seed", range(3))
def test_one_class_a_voxel_is_what_monai_computes(monai, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(SHAPE, generator=rng)
    target, weight = one_hot(torch.randint(0, CLASSES, (SHAPE[0], *SHAPE[2:]), generator=rng), CLASSES)
    theirs = monai.FocalLoss(gamma=2.0, use_softmax=True)(logits, target)  # a mean over the channels, too
    torch.testing.assert_close(FocalCrossEntropy()(logits, target, weight), CLASSES * theirs)
    weights = torch.tensor(WEIGHTS)
    theirs = monai.FocalLoss(gamma=1.0, use_softmax=True, weight=weights, reduction="none")(logits, target).sum()
    share = (target * weights.reshape(1, -1, 1, 1, 1)).sum()
    ours = FocalCrossEntropy(gamma=1.0, class_weights=WEIGHTS)(logits, target, weight)
    torch.testing.assert_close(ours, theirs / share)
    for per in ("batch", "sample"):
        options = {"softmax": True, "batch": per == "batch", "smooth_nr": 1.0, "smooth_dr": 1.0}
        torch.testing.assert_close(
            ClassDice(per=per)(logits, target, weight), monai.DiceLoss(**options)(logits, target)
        )
        background = monai.DiceLoss(include_background=False, **options)(logits, target)
        without = ClassDice(per=per, class_weights=(0, 1, 1, 1))(logits, target, weight)
        torch.testing.assert_close(without, background)
    both = monai.DiceCELoss(softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target)
    ours = CrossEntropy()(logits, target, weight) + ClassDice()(logits, target, weight)
    torch.testing.assert_close(ours, both)
