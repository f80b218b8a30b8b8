"""Pictures of a connectome: what is drawn where, what the words say, and what cannot be drawn."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from emloom.errors import InputError
from emloom.view.connectomefigures import adjacency_figure, distributions_figure
from emloom.view.figures import VERMILION, Figure


def inked(figure: Figure) -> np.ndarray:
    """Return where something of the colour of most contacts is drawn."""
    rgba = np.asarray(Image.open(BytesIO(figure.png)).convert("RGBA")).astype(int)
    want = [int(VERMILION[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(rgba[..., :3] - want).max(axis=2) < 12) & (rgba[..., 3] > 200)


def test_the_row_sends_and_the_column_receives() -> None:
    matrix = np.zeros((60, 60), np.int64)
    matrix[2, 50] = 100
    matrix[40, 7] = 1
    figure = adjacency_figure(matrix, list(range(1, 61)), "caption")
    # The strongest stands at the top right; the colour bar is right of the matrix.
    y, x = np.nonzero(inked(figure)[:, :800])
    assert len(y) > 20
    assert y.mean() < 0.2 * 880
    assert x.mean() > 0.6 * 800
    assert figure.alt == "Adjacency matrix of 60 neurons: 2 of 3600 fields have contacts, at most 100."
    assert figure.caption == "caption"


@pytest.mark.parametrize("k", [1, 3, 40, 41])
def test_any_number_of_neurons_can_be_drawn(k: int) -> None:
    assert adjacency_figure(np.ones((k, k), np.int64), list(range(10**9, 10**9 + k))).png.startswith(b"\x89PNG")


def test_distributions_say_what_is_in_them() -> None:
    weights = np.array([1, 1, 2, 30])
    partners = {"partners out": np.array([0, 3, 1]), "partners in": np.array([0, 0, 0])}
    figure = distributions_figure(weights, partners)
    assert "4 edges, 1.5 contacts in the median, at most 30" in figure.alt
    assert "partners out: 2 neurons, at most 3" in figure.alt
    assert "partners in: 0 neurons, at most 0" in figure.alt


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="one row and column"):
        adjacency_figure(np.zeros((2, 3), np.int64), [1, 2])
    with pytest.raises(InputError, match="one row and column"):
        adjacency_figure(np.zeros((0, 0), np.int64), [])
    with pytest.raises(InputError, match="no edge"):
        distributions_figure(np.zeros(0, np.int64), {})
