"""A mosaic keeps every voxel: whole pixels, true proportions, its colour; and says what is wrong."""

from __future__ import annotations

import io

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.view.colours import grey, overlay
from emloom.view.figures import Figure, Tile, panel
from emloom.view.mosaic import mosaic

RNG = np.random.default_rng(0)


def pixels(figure: Figure) -> np.ndarray:
    """Return uint8 [Y, X, 4]."""
    return np.asarray(iio.imread(io.BytesIO(figure.png), mode="RGBA"))


def images(figure: Figure, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Return the images of one row, of shapes in pixels: they end with the picture, 8 pixels between them."""
    picture, left, found = pixels(figure), 0, []
    top = picture.shape[0] - max(height for height, _ in shapes)
    for height, width in shapes:
        found.append(picture[top : top + height, left : left + width])
        left += width + 8
    assert left - 8 == picture.shape[1]
    return found


@given(
    shape=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    factors=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    n_colours=st.integers(1, 200),
)
@settings(deadline=None, max_examples=25)
def test_a_voxel_is_whole_pixels_of_its_own_colour(shape, factors, n_colours) -> None:
    colours = RNG.integers(0, 256, (n_colours, 3)).astype(np.uint8)
    image = colours[RNG.integers(0, n_colours, shape)]
    finest = min(factors)
    spacing = tuple(4.0 * f / finest for f in factors)
    zoom = max(1, int(384 / max(s * n / 4 for s, n in zip(spacing, shape, strict=True))))
    rows, columns = (round(zoom * s / 4) for s in spacing)
    large = image.repeat(rows, 0).repeat(columns, 1)
    (drawn,) = images(mosaic([Tile("", image, spacing)], columns=1, alt="a"), [large.shape[:2]])
    assert (drawn[..., 3] == 255).all()
    # The scale bar is at most 60 by 110 pixels, in the lower left corner.
    free = np.ones(large.shape[:2], np.bool_)
    free[-60:, :110] = False
    np.testing.assert_array_equal(drawn[..., :3][free], large[free])


def test_the_ground_of_an_overlay_is_the_section_beside_it() -> None:
    raw = grey(RNG.normal(100, 30, (150, 160)))
    ids = np.zeros(raw.shape, np.uint64)
    ids[20:90, 30:100] = 7
    ids[20:50, 30:100] = 8
    tiles = [Tile("raw", raw, (8.0, 8.0)), Tile("ids", overlay(raw, ids, stretch=False), (8.0, 8.0))]
    figure = mosaic(tiles, columns=2, alt="a")
    left, right = (part[..., :3].astype(int) for part in images(figure, [(300, 320), (300, 320)]))
    bare = (ids == 0).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(left[bare], right[bare])
    bare[-60:, :110] = False
    # Fewer colours, none that anybody could tell.
    assert np.abs(left - raw.repeat(2, 0).repeat(2, 1)[..., None])[bare].max() <= 8
    wanted = np.asarray(tiles[1].image).astype(int).repeat(2, 0).repeat(2, 1)
    assert np.abs(right - wanted)[~bare][: -60 * 110].mean() <= 4
    assert figure.png == mosaic(tiles, columns=2, alt="a").png


def test_words_stand_above_and_nothing_between() -> None:
    image = np.full((100, 100), 77, np.uint8)
    tiles = [Tile(name, image, (8.0, 8.0)) for name in ("one", "two", "three")]
    picture = pixels(mosaic(tiles, columns=2, alt="a"))
    alpha = picture[..., 3]
    assert (alpha[:, 300:308] == 0).all()
    for top, left in ((0, 0), (0, 308), (22 + 300 + 8, 0)):
        title = alpha[top : top + 22, left : left + 60]
        assert title.max() == 255
        assert (title == 0).mean() > 0.5
    assert (alpha[22 + 300 :, 308:] == 0).all()  # there is no fourth
    bar = picture[22 + 300 - 60 : 22 + 300, :110, :3]
    assert bar.max() == 255
    assert bar.min() < 40


def test_it_is_smaller_than_a_plotted_panel() -> None:
    raw = grey(RNG.normal(100, 30, (256, 256)))
    tiles = [Tile(name, raw, (8.0, 8.0)) for name in "abc"]
    assert len(mosaic(tiles, columns=3, alt="a").png) < len(panel(tiles).png) / 3


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        mosaic([], columns=3, alt="a")
    with pytest.raises(InputError, match="give uint8"):
        mosaic([Tile("t", np.zeros((4, 4)), (1.0, 1.0))], columns=1, alt="a")  # type: ignore[arg-type]
