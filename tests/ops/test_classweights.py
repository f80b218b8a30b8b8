"""Weights of classes: what they balance, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.nn.losses import CrossEntropy, one_hot
from emloom.ops.classweights import class_weights_of

counts = st.lists(st.integers(1, 10**9), min_size=2, max_size=8)


@given(counts)
def test_the_commonest_weighs_one_and_the_root_is_the_root(voxels):
    inverse, root = class_weights_of(voxels, rarest=1e-12), class_weights_of(voxels, "root", rarest=1e-12)
    assert min(inverse) == inverse[int(np.argmax(voxels))] == 1
    assert np.allclose(np.square(root), inverse)
    assert np.allclose(np.array(voxels) * inverse, max(voxels))


@given(counts, st.floats(1e-6, 1))
def test_no_class_is_taken_for_too_rare(voxels, rarest):
    assert max(class_weights_of(voxels, rarest=rarest)) <= 1 / rarest * (1 + 1e-9)


def test_under_inverse_weights_cross_entropy_is_the_mean_over_classes():
    rng = torch.Generator().manual_seed(0)
    ids = torch.multinomial(torch.tensor([0.7, 0.25, 0.05]), 400, replacement=True, generator=rng)
    ids, logits = ids.reshape(1, 4, 10, 10), torch.randn(1, 3, 4, 10, 10, generator=rng)
    weights = class_weights_of(torch.bincount(ids.flatten()).tolist())
    each = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
    expected = torch.stack([each[ids == c].mean() for c in range(3)]).mean()
    torch.testing.assert_close(CrossEntropy(class_weights=weights)(logits, *one_hot(ids, 3)), expected)


@pytest.mark.parametrize(("voxels", "rarest"), [([], 0.1), ([3, 0], 0.1), ([1, 2], 0.0), ([1, 2], 1.5)])
def test_what_has_no_weights(voxels, rarest):
    with pytest.raises(InputError):
        class_weights_of(voxels, rarest=rarest)
