"""Pictures of quality control: what stands out is seen, and said."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from emloom.errors import InputError
from emloom.view.qcfigures import Projection, Series, coloured, defect_map, series_plot


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(png)).convert("RGBA"))


def test_what_stands_out_is_drawn_and_said() -> None:
    values = np.sin(np.arange(50.0))
    marked = np.arange(50) == 20
    plain = Series("sharpness", values, values, np.zeros(50, np.bool_))
    figures = [
        series_plot(np.arange(50), [plain]),
        series_plot(np.arange(50), [Series("sharpness", values, values, marked)]),
    ]
    assert "sharpness: 0 stand out" in figures[0].alt
    assert "sharpness: 1 stand out" in figures[1].alt
    orange = [
        ((p[..., 0] > 180) & (p[..., 2] < 60) & (p[..., 3] > 200)).sum() for p in (pixels(f.png) for f in figures)
    ]
    assert orange[0] == 0
    assert orange[1] > 20


def test_a_long_stack_is_thinned_but_for_what_stands_out() -> None:
    n = 20_000
    values = np.zeros(n)
    marked = np.arange(n) == 12_345
    figure = series_plot(np.arange(n), [Series("void", values, np.full(n, np.nan), marked)])
    assert "20000 sections" in figure.alt
    assert "1 stand out" in figure.alt
    assert len(figure.png) < 100_000


def test_defects_are_coloured_and_the_rest_is_grey() -> None:
    picture = np.full((6, 6), 100, np.uint8)
    code = np.zeros((6, 6), np.uint8)
    code[2:4, 2:4], code[5, 5] = 3, 7
    out = coloured(picture, code, 16)
    assert (out[code == 0] == 100).all()
    assert len({tuple(c) for c in out[code > 0].tolist()}) == 2
    assert (np.ptp(out[code > 0].astype(int), axis=1) > 10).all()


def test_maps_say_what_they_show() -> None:
    code = np.zeros((4, 9), np.uint8)
    code[1, 2:5] = 3
    figure = defect_map([Projection("seen along z", "y", "x", code)], {3: "crack"}, 16)
    assert figure.alt == "Where defects are: crack."
    assert "none was found" in defect_map([Projection("seen along z", "y", "x", code * 0)], {}, 16).alt
    for empty in (lambda: series_plot(np.arange(2), []), lambda: defect_map([], {}, 16)):
        with pytest.raises(InputError, match="give one"):
            empty()
