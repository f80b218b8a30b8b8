"""Logits as bytes: both ways to half a step, in order, and never wrapped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from emloom.errors import InputError
from emloom.ops.logits import (
    LARGEST,
    STEPS_PER_LOGIT,
    decode_logits,
    decode_probabilities,
    encode_logits,
    encode_probabilities,
)

floats = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-40, 40, width=32))


@given(floats)
def test_decoding_inverts_encoding_to_half_a_step(logits):
    back = decode_logits(encode_logits(logits))
    assert back.dtype == np.float32
    assert back.shape == logits.shape
    np.testing.assert_allclose(back, logits.clip(-LARGEST, LARGEST), atol=0.5 / STEPS_PER_LOGIT)


def test_every_code_stands_for_one_logit_in_order():
    codes = np.arange(256, dtype=np.uint8)
    logits = decode_logits(codes)
    np.testing.assert_array_equal(encode_logits(logits), codes)
    assert np.isnan(logits[0])
    assert (np.diff(logits[1:]) == 1 / STEPS_PER_LOGIT).all()
    assert (logits[1], logits[128], logits[255]) == (-LARGEST, 0.0, LARGEST)
    np.testing.assert_allclose(decode_probabilities(codes)[1:], special.expit(logits[1:].astype(float)), rtol=1e-6)


def test_encoding_keeps_order_up_to_certainty():
    """The originals' encoding had no clip: what was surest wrapped to 0 and became the cleanest of all."""
    q = 10.0 ** -np.arange(0.5, 18, 0.25)
    p = np.concatenate([[0.0], q[::-1], 1 - q, [1.0]])
    for kind in (np.float64, np.float32, np.float16):
        codes = encode_probabilities(p.astype(kind))
        assert (np.diff(codes.astype(int)) >= 0).all()
        assert (codes[0], codes[-1]) == (1, 255)
    sure = np.array([0.9, 1 - 1e-6, 1 - 1e-8])
    wrapped = ((special.logit(sure) + 16) * 256 / 32).astype(np.int64).astype(np.uint8)
    assert wrapped[2] < wrapped[0]
    assert encode_probabilities(sure).tolist() == [146, 239, 255]


def test_nan_is_not_known_and_infinities_are_the_ends():
    codes = encode_logits(np.array([np.nan, -np.inf, np.inf, 0.0, -0.0]))
    assert codes.tolist() == [0, 1, 255, 128, 128]
    assert encode_probabilities(np.array([np.nan, 0.5])).tolist() == [0, 128]
    assert np.isnan(decode_probabilities(codes)[0])


def test_what_is_no_logit_is_refused():
    for p in (-1e-9, 1.5, np.inf):
        with pytest.raises(InputError, match="is no probability"):
            encode_probabilities(np.array([0.5, p]))
    with pytest.raises(InputError, match="int64"):
        encode_logits(np.arange(3))
    with pytest.raises(InputError, match="uint16"):
        decode_logits(np.zeros(3, np.uint16))
    with pytest.raises(InputError, match="uint8"):
        encode_probabilities(np.zeros(3, np.uint8))
