"""CREMI's neuron scores, re-derived here from cremi_python's own steps on dense arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.metrics.contingency import contingency
from emloom.metrics.cremi import TRANSPARENT, cremi_border_mask, cremi_neuron_scores

SHAPE = (3, 9, 11)


def reference_border(truth, pixels):
    """Per section: edge-replicated neighbours, then the distance to the border voxels."""
    near = np.zeros(truth.shape, bool)
    for z, section in enumerate(truth):
        padded = np.pad(section, 1, mode="edge")
        border = np.zeros(section.shape, bool)
        for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
            border |= padded[dy : dy + section.shape[0], dx : dx + section.shape[1]] != section
        if border.any():
            near[z] = ndimage.distance_transform_edt(~border) <= pixels
    return near


def reference_scores(truth, segments):
    """cremi_python: truth + 1 wraps, so that TRANSPARENT becomes 0, which is left out."""
    truth = (truth + np.uint64(1)).ravel()
    segments = segments.ravel()
    n = truth.size
    p = np.zeros((int(truth.max()) + 1, int(segments.max()) + 1))
    np.add.at(p, (truth.astype(int), segments.astype(int)), 1)
    p = p[1:]
    a, b, c = p.sum(axis=1), p[:, 1:].sum(axis=0), p[:, 0].sum()
    sum_a, sum_b = (a**2).sum(), (b**2).sum() + c / n
    sum_ab = (p[:, 1:] ** 2).sum() + c / n
    precision, recall = sum_ab / sum_b, sum_ab / sum_a
    error = 1 - 2 * precision * recall / (precision + recall)
    p = p / p.sum()

    def entropy(q):
        q = q[q > 0]
        return -(q * np.log2(q)).sum()

    joint = entropy(p.ravel())
    return joint - entropy(p.sum(axis=1)), joint - entropy(p.sum(axis=0)), error


def arrays(seed):
    rng = np.random.default_rng(seed)
    truth = ndimage.zoom(rng.integers(0, 4, (3, 3, 4)), (1, 3, 2.75), order=0)[:, :9, :11].astype(np.uint64)
    truth[rng.random(SHAPE) < 0.1] = TRANSPARENT
    truth[0, 0, 0] = 1
    segments = np.where(rng.random(SHAPE) < 0.8, truth // np.uint64(2) % np.uint64(7), rng.integers(0, 5, SHAPE))
    segments[0, 0, 0] = 3
    return truth, segments.astype(np.uint64)


@given(st.integers(0, 10**6), st.sampled_from([None, 0.0, 4.0, 9.0]))
@settings(max_examples=60)
def test_parity_with_the_definitions_of_cremi_python(seed, border_nm):
    truth, segments = arrays(seed)
    mask = None
    if border_nm is not None:
        mask = cremi_border_mask(truth, 4.0, border_nm)
        near = reference_border(truth, border_nm / 4.0)
        assert np.array_equal(mask, ~near)
        truth = np.where(near, np.uint64(TRANSPARENT), truth)
        mask = mask if (truth != TRANSPARENT).any() else None
        if mask is None:
            return
    table = contingency(truth, segments, mask=mask, ignore_truth=(TRANSPARENT,))
    scores = cremi_neuron_scores(table, truth.size)
    split, merge, error = reference_scores(truth, segments)
    assert scores.voi_split == pytest.approx(split, abs=1e-12)
    assert scores.voi_merge == pytest.approx(merge, abs=1e-12)
    assert scores.adapted_rand_error == pytest.approx(error, abs=1e-12)
    assert scores.cremi_score == pytest.approx(np.sqrt((split + merge) * error), abs=1e-9)


def test_truth_0_counts_and_transparent_does_not():
    truth = np.array([[[0, 0, 1, TRANSPARENT]]], np.uint64)
    table = contingency(truth, np.ones_like(truth), ignore_truth=(TRANSPARENT,))
    assert table.n_voxels == 3
    assert cremi_neuron_scores(table, 4).voi_merge > 0


def test_the_leaderboard_ignores_six_pixels_of_4_nm():
    truth = np.ones((1, 1, 40), np.uint64)
    truth[..., 20:] = 2
    kept = np.flatnonzero(cremi_border_mask(truth, 4.0)[0, 0])
    # 25 nm are 6.25 pixels from the border voxels 19 and 20.
    assert (kept[kept < 20].max(), kept[kept >= 20].min()) == (19 - 7, 20 + 7)


def test_what_breaks_the_rules_is_named():
    truth = np.array([[[0, TRANSPARENT]]], np.uint64)
    everything = contingency(truth, truth, ignore_truth=())
    with pytest.raises(InputError, match="which CREMI ignores"):
        cremi_neuron_scores(everything, 2)
    table = contingency(truth, truth, ignore_truth=(TRANSPARENT,))
    with pytest.raises(InputError, match="0 voxels in all are fewer than the 1"):
        cremi_neuron_scores(table, 0)
    with pytest.raises(InputError, match="give z, y, x"):
        cremi_border_mask(truth[0], 4.0)
    with pytest.raises(InputError, match="positive lengths"):
        cremi_border_mask(truth, 0.0)
