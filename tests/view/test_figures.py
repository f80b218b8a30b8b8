"""Pictures decode, keep proportions, colour ids stably, and say in words what they show."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.view.colours import grey, id_colours, overlay
from emloom.view.curves import Trade, split_merge_plot, threshold_curve, training_curves
from emloom.view.figures import Figure, Tile, length_label, nice_length, panel, views

RNG = np.random.default_rng(0)


def pixels(figure: Figure) -> Any:
    return iio.imread(io.BytesIO(figure.png))


def points(*values: tuple[float, float, float]) -> list[Any]:
    return [SimpleNamespace(threshold=t, scores=SimpleNamespace(voi_split=s, voi_merge=m)) for t, s, m in values]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40, unique=True))
@settings(deadline=None, max_examples=30)
def test_a_colour_depends_on_the_id_alone(ids: list[int]) -> None:
    array = np.array(ids, np.uint64)
    together = id_colours(array)
    for value, colour in zip(array, together, strict=True):
        np.testing.assert_array_equal(id_colours(np.array([value]))[0], colour)
        assert (colour.max() == 0) == (value == 0)


def test_neighbouring_ids_look_different() -> None:
    colours = id_colours(np.arange(1, 201, dtype=np.uint32)).astype(int)
    assert len(np.unique(colours, axis=0)) > 170
    assert colours.max(axis=1).min() > 90  # none vanishes on dark EM
    steps = np.abs(np.diff(colours, axis=0)).sum(axis=1)
    assert np.median(steps) > 80


def test_an_overlay_leaves_background_and_marks_borders() -> None:
    raw = RNG.integers(0, 256, (9, 10)).astype(np.uint8)
    labels = np.zeros((9, 10), np.uint64)
    labels[:, 5:] = 7
    blended = overlay(raw, labels)
    np.testing.assert_array_equal(blended[:, :5], np.repeat(grey(raw)[:, :5, None], 3, axis=2))
    colour = id_colours(np.array([7], np.uint64))[0].astype(int)
    assert np.abs(blended[:, 5].astype(int) - colour).max() <= 13  # 95 % opaque
    np.testing.assert_array_equal(overlay(raw, labels, opacity=0, contours=False), overlay(raw, labels * 0))


def test_grey_stretches_any_type() -> None:
    for raw in (RNG.random((20, 20)) * 1e-3, RNG.integers(500, 60_000, (20, 20)).astype(np.uint16)):
        assert (grey(raw).min(), grey(raw).max()) == (0, 255)
    assert len(np.unique(grey(np.full((4, 4), 3)))) == 1


def test_a_panel_keeps_the_proportions_of_the_specimen() -> None:
    square = panel([Tile("a", np.zeros((50, 50), np.uint8), (10, 10))])
    flat = panel([Tile("a", np.zeros((10, 50), np.uint8), (10, 10))])
    thick = panel([Tile("a", np.zeros((10, 50), np.uint8), (50, 10))])
    heights = [pixels(f).shape[0] for f in (square, flat, thick)]
    assert heights[0] == heights[2] > 3 * heights[1]


def test_a_panel_shows_the_image_and_a_white_bar() -> None:
    tile = Tile("dark", np.full((40, 40, 3), (200, 30, 30), np.uint8), (8, 8))
    image = pixels(panel([tile, tile, tile], columns=2))
    assert image.shape[2] == 4
    assert image[..., 3].min() == 0  # transparent ground
    opaque = image[image[..., 3] == 255][:, :3]
    for colour in ((200, 30, 30), (255, 255, 255)):
        assert (opaque == colour).all(axis=1).any()


def test_views_shows_both_planes_of_every_volume() -> None:
    raw = RNG.integers(0, 256, (6, 20, 30)).astype(np.uint8)
    labels = RNG.integers(0, 4, (6, 20, 30)).astype(np.uint64)
    figure = views(raw, [("truth", labels), ("result", labels)], (40, 4, 4), at=(2, 10, 0), caption="c")
    assert pixels(figure).size > 0
    for word in ("raw", "truth", "result", "z = 2", "y = 10"):
        assert word in figure.alt


def test_curves_say_what_they_show() -> None:
    figure = threshold_curve(points((0.6, 1.0, 0.5), (0.4, 0.4, 0.7), (0.2, 0.2, 2.0)), chosen=0.4)
    assert "lowest, 1.100 bits, at 0.4" in figure.alt
    assert "Chosen: 0.4" in figure.alt
    assert pixels(figure).shape[1] > 1000
    steps = np.arange(300)
    trained = training_curves(steps, np.exp(-steps / 100), [(100, 0.5), (200, 0.3), (299, 0.4)], caption="c")
    assert "lowest, 0.3, at step 200" in trained.alt
    assert pixels(trained).shape[1] > 1000
    assert pixels(training_curves([1], [0.5])).shape[1] > 1000


def test_results_stand_where_their_errors_are() -> None:
    results = [Trade("a", 1.0, 0.5, [(2.0, 0.1), (0.2, 1.5)]), Trade("b", 0.25, 2.0)]
    figure = split_merge_plot(results, caption="two")
    assert figure.caption == "two"
    assert "a: split 1.000, merge 0.500 bits; b: split 0.250, merge 2.000 bits" in figure.alt
    image = pixels(split_merge_plot([Trade("a", 1.0, 0.5), Trade("b", 0.25, 2.0)]))[..., :3].astype(int)
    blue, orange = (
        np.argwhere((abs(image - np.array(colour)) < 12).all(axis=-1))
        for colour in ((0x1A, 0x7F, 0xC1), (0xD9, 0x60, 0x0F))
    )
    # The legend lies in the upper right: left of it, and below it, are the markers alone.
    assert blue[:, 1].min() < image.shape[1] // 3
    assert orange[:, 0].max() > image.shape[0] // 2
    assert orange[:, 1].min() > image.shape[1] // 2
    with pytest.raises(InputError, match="no result to draw"):
        split_merge_plot([])


def test_equal_pictures_are_equal_bytes() -> None:
    a, b = (threshold_curve(points((0.1, 1, 1), (0.2, 1, 2))) for _ in range(2))
    assert a == b


@given(st.floats(1, 1e9))
@settings(deadline=None, max_examples=60)
def test_scale_bars_are_round_and_fit(extent: float) -> None:
    length = nice_length(extent)
    assert extent / 10 - 1e-9 <= length <= extent / 4 + 1e-9
    assert f"{length:.6e}"[0] in "125"
    assert set(f"{length:.6e}"[1:8]) <= set(".0")


def test_lengths_are_labelled_for_people() -> None:
    assert [length_label(v) for v in (0.5, 200, 1000, 20_000, 5e6)] == [
        "0.5 nm",
        "200 nm",
        "1 µm",
        "20 µm",
        "5 mm",
    ]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        panel([])
    with pytest.raises(InputError, match="give uint8"):
        panel([Tile("a", np.zeros((4, 4)), (1, 1))])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ids are unsigned"):
        id_colours(np.zeros(3, np.int64))
    with pytest.raises(InputError, match="two sections of one shape"):
        overlay(np.zeros((3, 3)), np.zeros((3, 4), np.uint64))
    with pytest.raises(InputError, match="sweep at least one"):
        threshold_curve([])
    with pytest.raises(InputError, match="2 steps and 1 losses"):
        training_curves([1, 2], [0.5])
