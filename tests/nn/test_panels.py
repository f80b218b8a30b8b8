"""The laws of pictures of reconstructions: every value stands where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.nn.panels import reconstruction_panel


def parts(panel: np.ndarray, n: int, y: int, x: int) -> list[list[np.ndarray]]:
    return [
        [panel[r * (y + 2) : r * (y + 2) + y, c * (x + 2) : c * (x + 2) + x] for c in range(3)] for r in range(n)
    ]


@given(
    n=st.integers(1, 3), y=st.integers(1, 5), x=st.integers(1, 5), colour=st.booleans(), seed=st.integers(0, 99)
)
def test_pictures_stand_side_by_side(n, y, x, colour, seed):
    rng = np.random.default_rng(seed)
    shown, answer = rng.uniform(-1, 1, (2, n, y, x))
    panel = reconstruction_panel(shown, answer, (-1.0, 1.0), colour=colour)
    assert panel.dtype == np.uint8
    assert panel.shape == (n * (y + 2) - 2, 3 * x + 4, *([3] if colour else []))
    used = np.zeros(panel.shape, bool)
    for row in parts(used, n, y, x):
        for picture in row:
            picture[:] = True
    assert (panel[~used] == 255).all()
    for sample, (left, middle, right) in enumerate(parts(panel, n, y, x)):
        for values, picture in ((shown, left), (answer, middle)):
            grey = picture if not colour else picture[..., 0]
            assert np.abs(grey / 255 * 2 - 1 - values[sample]).max() <= 1 / 255 + 1e-9
            assert not colour or (picture == grey[..., None]).all()
        change = (answer - shown)[sample] / 2
        if colour:
            red, green, blue = (right[..., c] / 255 for c in range(3))
            assert np.abs(red - blue - change).max() <= 1 / 255
            assert np.abs(1 - green - np.abs(change)).max() <= 1 / 255
        else:
            assert np.abs((right.astype(float) - 128) / 127.5 - change).max() <= 1 / 127


def test_values_by_hand():
    shown, answer = np.array([[[0.0, 10.0, 5.0, 20.0]]]), np.array([[[0.0, 0.0, 10.0, -20.0]]])
    grey = reconstruction_panel(shown, answer, (0.0, 10.0))
    assert grey.tolist() == [[0, 255, 128, 255, 255, 255, 0, 0, 255, 0, 255, 255, 128, 0, 192, 0]]
    colour = reconstruction_panel(shown, answer, (0.0, 10.0), colour=True)[0, -4:]
    assert colour.tolist() == [[255, 255, 255], [0, 0, 255], [255, 128, 128], [0, 0, 255]]


@pytest.mark.parametrize(
    ("shown", "answer", "span", "words"),
    [
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), (0, 1), "one shape"),
        (np.zeros((2, 2)), np.zeros((2, 2)), (0, 1), r"\[N, Y, X\]"),
        (np.zeros((0, 2, 2)), np.zeros((0, 2, 2)), (0, 1), "one shape"),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), (1, 1), "empty"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), np.nan), (0, 1), "no grey value"),
    ],
)
def test_what_cannot_be_drawn_is_refused(shown, answer, span, words):
    with pytest.raises(InputError, match=words):
        reconstruction_panel(shown, answer, span)
