"""One temperature for several classes: against the binary fit, a planted one, and its own minimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from emloom.errors import InputError
from emloom.metrics.recalibrate import fit_temperature
from emloom.metrics.temperature import fit_class_temperature


def drawn(n, k, seed, temperature):
    """Probabilities that are right once they are taken at a temperature."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((k, n))
    truth = (softmax(logits / temperature, 0).cumsum(0) < rng.random(n)).sum(0)
    return softmax(logits, 0), truth.clip(0, k - 1)


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.5])
def test_a_planted_temperature_is_found(planted):
    p, truth = drawn(40_000, 5, 0, planted)
    found = fit_class_temperature(p, truth, floor=1e-9)
    assert found.value == pytest.approx(planted, rel=0.04)
    assert found.nll_after <= found.nll_before + 1e-12


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.6, 3))
def test_no_other_temperature_is_better_and_two_classes_are_the_binary_fit(seed, planted):
    p, truth = drawn(400, 2, seed, planted)
    found = fit_class_temperature(p, truth, floor=1e-12)
    for other in (0.9, 0.99, 1.01, 1.1):
        logs = log_softmax(np.log(p) / (found.value * other), axis=0)
        assert -np.take_along_axis(logs, truth[None], 0).mean() >= found.nll_after - 1e-12
    assert found.value == pytest.approx(1 / fit_temperature(p[1], truth).slope, rel=1e-6)


def test_what_does_not_count_does_not():
    p, truth = drawn(500, 3, 1, 1.5)
    more = np.concatenate([p, p[::-1]], axis=1).reshape(3, 2, 500)
    both = np.stack([truth, np.full(500, 255)])
    assert fit_class_temperature(more, both).value == fit_class_temperature(p, truth).value


def test_bad_evidence_is_told():
    p, truth = drawn(100, 3, 1, 1)
    with pytest.raises(InputError, match=r"\(classes, ...\)"):
        fit_class_temperature(p, truth[1:])
    with pytest.raises(InputError, match="no voxel"):
        fit_class_temperature(p, np.full(100, 255))
    with pytest.raises(InputError, match="class 7"):
        fit_class_temperature(p, np.full(100, 7))
    with pytest.raises(InputError, match="divide"):
        fit_class_temperature(p * 255, truth)
    with pytest.raises(InputError, match="right class"):
        fit_class_temperature(np.eye(3)[:, truth] * 0.4 + 0.2, truth)
    with pytest.raises(InputError, match="say nothing"):
        fit_class_temperature(1 / 3 - 0.2 * (np.eye(3)[:, truth] - 1 / 3), truth)
