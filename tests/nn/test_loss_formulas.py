"""Each loss against its formula written out slowly, against torch, and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from emloom.errors import InputError
from emloom.nn.class_weights import balance_weights, distance_weights, mean_one, proximity_weights
from emloom.nn.losses import (
    Bce,
    CrossEntropy,
    Dice,
    Focal,
    GeneralisedDice,
    LossSum,
    Regression,
    SensitivitySpecificity,
    Tversky,
    TwoClassDice,
    Vectors,
    WassersteinDice,
    one_hot,
)

SHAPE = (2, 3, 4, 5, 6)
ONES = torch.ones(SHAPE)
NEAR = ((0.0, 1.0, 1.0), (1.0, 0.0, 0.5), (1.0, 0.5, 0.0))
seeds = st.integers(0, 10_000)


def example(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(SHAPE, generator=rng)
    target = (torch.rand(SHAPE, generator=rng) > 0.7).float()
    weight = torch.rand(SHAPE, generator=rng) * (torch.rand(SHAPE, generator=rng) > 0.4)
    return logits, target, weight


def classes(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(SHAPE, generator=rng), torch.randint(0, 3, (2, 4, 5, 6), generator=rng)


def numpy_of(*tensors):
    return [t.double().numpy() for t in tensors]


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_overlaps_match_their_formulas(seed):
    logits, target, weight = example(seed)
    x, t, w = numpy_of(logits, target, weight)
    p = 1 / (1 + np.exp(-x))
    dice, squared, tversky, pair, sense = [], [], [], [], []
    for c in range(3):
        pc, tc, wc = p[:, c], t[:, c], w[:, c]
        inter, pred, true = (wc * pc * tc).sum(), (wc * pc).sum(), (wc * tc).sum()
        dice.append(1 - (2 * inter + 1) / (pred + true + 1))
        squared.append(1 - (2 * inter + 1) / ((wc * pc**2).sum() + (wc * tc**2).sum() + 1))
        fp, fn = (wc * pc * (1 - tc)).sum(), (wc * (1 - pc) * tc).sum()
        tversky.append(1 - (inter + 1) / (inter + 0.3 * fp + 0.7 * fn + 1))
        inter0 = (wc * (1 - pc) * (1 - tc)).sum()
        other = 1 - (2 * inter0 + 1) / ((wc * (1 - pc)).sum() + (wc * (1 - tc)).sum() + 1)
        pair.append((dice[-1] + other) / 2)
        error = wc * (tc - pc) ** 2
        sense.append(0.05 * (error * tc).sum() / true + 0.95 * (error * (1 - tc)).sum() / (wc * (1 - tc)).sum())
    assert float(Dice()(logits, target, weight)) == pytest.approx(np.mean(dice), rel=1e-5)
    assert float(Dice(squared=True)(logits, target, weight)) == pytest.approx(np.mean(squared), rel=1e-5)
    assert float(Tversky()(logits, target, weight)) == pytest.approx(np.mean(tversky), rel=1e-5)
    assert float(TwoClassDice()(logits, target, weight)) == pytest.approx(np.mean(pair), rel=1e-5)
    assert float(SensitivitySpecificity()(logits, target, weight)) == pytest.approx(np.mean(sense), rel=1e-5)
    weighted = Dice(class_weights=(1.0, 2.0, 5.0))(logits, target, weight)
    assert float(weighted) == pytest.approx(np.average(dice, weights=[1, 2, 5]), rel=1e-5)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_generalised_dice_matches_its_formula(seed):
    logits, target, weight = example(seed)
    target[0, 1] = 0  # a class without voxels
    x, t, w = numpy_of(logits, target, weight)
    p = 1 / (1 + np.exp(-x))
    losses = []
    for n in range(2):
        size = (w[n] * t[n]).sum(axis=(1, 2, 3))
        k = np.where(size > 0, 1 / np.maximum(size, 1e-9) ** 2, 0)
        k = np.where(size > 0, k, k.max())
        inter = (w[n] * p[n] * t[n]).sum(axis=(1, 2, 3))
        union = (w[n] * (p[n] + t[n])).sum(axis=(1, 2, 3))
        s = k.max()  # smoothing 1 for the rarest class
        losses.append(1 - (2 * (k * inter).sum() + s) / ((k * union).sum() + s))
    assert float(GeneralisedDice()(logits, target, weight)) == pytest.approx(np.mean(losses), rel=1e-5)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_focal_and_sums_match_their_formulas(seed):
    logits, target, weight = example(seed)
    x, t, w = numpy_of(logits, target, weight)
    p = 1 / (1 + np.exp(-x))
    focal = w * (-t * (1 - p) ** 2 * np.log(p) - (1 - t) * p**2 * np.log1p(-p))
    focal = focal.sum() / (w > 0).sum()
    assert float(Focal()(logits, target, weight)) == pytest.approx(focal, rel=1e-5)
    dice = float(Dice()(logits, target, weight))
    assert float(LossSum.focal_dice()(logits, target, weight)) == pytest.approx(focal + dice, rel=1e-5)
    bce = float(Bce(balance=None)(logits, target, weight))
    assert float(LossSum.bce_dice()(logits, target, weight)) == pytest.approx(bce + dice, rel=1e-5)
    uneven = LossSum(parts=(Bce(balance=None), Dice()), weights=(0.5, 3.0))
    assert float(uneven(logits, target, weight)) == pytest.approx(0.5 * bce + 3 * dice, rel=1e-5)
    torch.testing.assert_close(Focal(gamma=0)(logits, target, weight), Bce(balance=None)(logits, target, weight))


@settings(deadline=None, max_examples=10)
@given(seeds, st.sampled_from([0.0, 0.001, 0.02, 0.5, 1.0]))
def test_balanced_bce_is_a_weighted_mean_of_its_voxels(seed, density):
    """Bug 9 of the original: weights up to 9999, not normalised, so one crop in a thousand ruled the step."""
    logits, _, weight = example(seed)
    target = (torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) < density).float()
    mask = (weight > 0).float()
    voxels = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[mask > 0]
    value = float(Bce()(logits, target, mask))
    assert float(voxels.min()) <= value * (1 + 1e-5)
    assert value <= float(voxels.max()) * (1 + 1e-5)


def test_balanced_bce_weighs_both_classes_of_a_crop_the_same():
    logits, target, _ = example(0)
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    halves = [loss[n, c][target[n, c] == k].mean() for n in range(2) for c in range(3) for k in (0, 1)]
    torch.testing.assert_close(Bce()(logits, target, ONES), torch.stack(halves).mean())


def test_the_ratio_of_the_balance_is_that_of_the_literature():
    _, target, _ = example(1)
    w = balance_weights(target, ONES, (1e-6, 1 - 1e-6), per="crop")
    for n in range(2):
        for c in range(3):
            f = float(target[n, c].mean())
            positive, negative = w[n, c][target[n, c] == 1].unique(), w[n, c][target[n, c] == 0].unique()
            assert float(positive / negative) == pytest.approx((1 - f) / f, rel=1e-5)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_mean_one_scales_every_crop(seed):
    _, _, weight = example(seed)
    scaled = mean_one(7 * weight, weight)
    for n in range(2):
        for c in range(3):
            known = weight[n, c] > 0
            assert float(scaled[n, c][known].mean()) == pytest.approx(1, rel=1e-5)
    assert torch.equal(mean_one(torch.zeros(SHAPE), weight), torch.zeros(SHAPE))


def test_proximity_balance_counts_sites_and_background():
    t = torch.zeros(1, 1, 1, 10, 10)
    t[..., 0, :2] = torch.tensor([1.0, -1.0])
    t[..., 0, 2] = 0.5  # on the slope: weighs as a site, but is not counted
    w = proximity_weights(t, torch.ones_like(t))
    assert float(w[..., 0, 0]) == float(w[..., 0, 1]) == float(w[..., 0, 2]) == pytest.approx(99 / (2 * 2))
    assert float(w[..., 5, 5]) == pytest.approx(99 / (2 * 97))
    assert float(proximity_weights(torch.zeros_like(t), torch.ones_like(t)).max()) == pytest.approx(1 / (2 * 0.99))
    assert float(proximity_weights(t, torch.zeros_like(t)).max()) == 0


def test_distance_weights_are_tanh_for_negatives_and_one_for_positives():
    target = torch.tensor([1.0, 0.0, 0.0, 0.0])
    distance = torch.tensor([0.0, 0.0, 50.0, torch.inf])
    w = distance_weights(target, distance, 50.0)
    assert w.tolist() == pytest.approx([1.0, 0.0, np.tanh(1.0), 1.0])


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_cross_entropy_is_that_of_torch(seed):
    logits, ids = classes(seed)
    ids[:, 0] = -1
    target, weight = one_hot(ids, 3)
    for k in (None, (0.1, 1.0, 3.0)):
        expected = functional.cross_entropy(
            logits, ids, weight=None if k is None else torch.tensor(k), ignore_index=-1
        )
        torch.testing.assert_close(CrossEntropy(class_weights=k)(logits, target, weight), expected)


def test_one_hot_refuses_ids_that_are_no_class():
    ids = torch.tensor([[[[0, 2, 255]]]])
    target, weight = one_hot(ids, 3, ignore=255)
    assert target[0, :, 0, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert weight.flatten().tolist() == [1, 1, 0]
    with pytest.raises(InputError, match="class id 255 is none of the 3 classes"):
        one_hot(ids, 3)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_regression_and_vectors_match_their_formulas(seed):
    logits, _, weight = example(seed)
    target = torch.tanh(torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))
    x, t, w = numpy_of(logits, target, weight)
    n = (w > 0).sum()
    signed = 2 / (1 + np.exp(-x)) - 1

    def value(**options):
        return float(Regression(**options)(logits, target, weight))

    assert value(output="signed") == pytest.approx((w * (signed - t) ** 2).sum() / n, rel=1e-5)
    assert value(output="linear", error="absolute") == pytest.approx((w * abs(x - t)).sum() / n, rel=1e-5)
    smooth = functional.smooth_l1_loss(logits, target, reduction="none", beta=0.1).double().numpy()
    assert value(output="linear", error="smooth") == pytest.approx((w * smooth).sum() / n, rel=1e-5)
    lengths = ((x - t) ** 2).sum(axis=1)
    one = w[:, 0]
    vectors = float(Vectors()(logits, target, weight[:, :1]))
    assert vectors == pytest.approx((one * lengths).sum() / (one > 0).sum(), rel=1e-5)


def test_a_signed_distance_balanced_by_threshold_weighs_inside_and_outside_the_same():
    logits, _, _ = example(3)
    target = torch.tanh(torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)) - 1.5)
    error = (torch.tanh(logits / 2) - target) ** 2
    halves = [
        error[n, c][side[n, c]].mean() for n in range(2) for c in range(3) for side in (target > 0, target <= 0)
    ]
    loss = Regression(output="signed", balance="threshold")
    torch.testing.assert_close(loss(logits, target, ONES), torch.stack(halves).mean())


# --- MONAI ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def monai():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # its imports warn of what is not installed
        return pytest.importorskip("monai.losses")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_dice_is_that_of_monai(monai, seed, per):
    logits, target, _ = example(seed)
    options = {"sigmoid": True, "batch": per == "batch", "smooth_nr": 1.0, "smooth_dr": 1.0}
    for squared in (False, True):
        theirs = monai.DiceLoss(squared_pred=squared, **options)(logits, target)
        torch.testing.assert_close(Dice(per=per, squared=squared)(logits, target, ONES), theirs)
    tversky = monai.TverskyLoss(alpha=0.3, beta=0.7, **options)(logits, target)
    torch.testing.assert_close(Tversky(per=per)(logits, target, ONES), tversky)


@pytest.mark.parametrize("seed", range(3))
def test_focal_and_focal_dice_are_those_of_monai(monai, seed):
    logits, target, _ = example(seed)
    torch.testing.assert_close(Focal()(logits, target, ONES), monai.FocalLoss(gamma=2.0)(logits, target))
    theirs = monai.DiceFocalLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target)
    torch.testing.assert_close(LossSum.focal_dice()(logits, target, ONES), theirs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("empty", [False, True])
def test_generalised_dice_is_that_of_monai(monai, seed, empty):
    logits, target, _ = example(seed)
    target = target[:1]  # their smoothing is absolute, ours relative to the rarest class: one sample, one scale
    if empty:
        target[:, 1] = 0
    size = target.sum(dim=(0, 2, 3, 4))
    s = float((1 / size[size > 0] ** 2).max())
    theirs = monai.GeneralizedDiceLoss(sigmoid=True, smooth_nr=s, smooth_dr=s)(logits[:1], target)
    torch.testing.assert_close(GeneralisedDice()(logits[:1], target, ONES[:1]), theirs)


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_dice_is_that_of_monai(monai, seed):
    logits, ids = classes(seed)
    target, weight = one_hot(ids, 3)
    loss = monai.GeneralizedWassersteinDiceLoss(np.array(NEAR, np.float32), smooth_nr=1.0, smooth_dr=1.0)
    ours = WassersteinDice(distances=NEAR)(logits, target, weight)
    torch.testing.assert_close(ours, loss(logits, ids))
