"""Pictures of alignment and repair: one grey for one value, marks are where they belong, words are right."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from emloom.errors import InputError
from emloom.view.alignfigures import (
    MARK_RGB,
    Plane,
    before_after,
    end_to_end,
    field_plot,
    flow_colours,
    largest_step,
    residual_plot,
    shift_curves,
    stretched,
)
from emloom.view.repairfigures import outlined, replaced_section, torn_section

RNG = np.random.default_rng(0)
NONE = np.zeros(6, np.bool_)


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(png)).convert("RGBA"))


def marked(png: bytes) -> np.ndarray:
    picture = pixels(png)
    return (picture[..., :3] == MARK_RGB).all(axis=2) & (picture[..., 3] == 255)


def plane(bad: np.ndarray, shape: tuple[int, int] = (6, 100)) -> Plane:
    before = RNG.integers(1, 256, shape, dtype=np.uint8)
    return Plane("xz, y = 5", before, before[:, ::-1].copy(), (40.0, 8.0), bad)


def test_one_scale_of_greys_for_all_and_nothing_is_black() -> None:
    dark, bright = np.full((5, 5), 100, np.uint16), np.full((5, 5), 60_000, np.uint16)
    dark[0] = 0
    low, high = stretched([dark, bright])
    assert (low[1:] == 0).all()
    assert (high == 255).all()
    assert [image.dtype for image in (low, high)] == [np.uint8] * 2
    assert (stretched([np.zeros((3, 3), np.uint8)])[0] == 0).all()


def test_bad_sections_are_marked_on_both_sides_only() -> None:
    assert not marked(before_after([plane(NONE)]).png).any()
    bad = NONE.copy()
    bad[2] = True
    figure = before_after([plane(bad)])
    here = marked(figure.png)
    rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
    # A voxel of 40 x 8 nm is 15 x 3 pixels: 300 per side, 22 of words above, 8 between.
    assert rows.tolist() == list(range(22 + 2 * 15, 22 + 3 * 15))
    assert columns.tolist() == [*range(12), *range(308, 320)]
    assert figure.alt == "The stack from the side, before and after: xz, y = 5."


def test_curves_say_and_show_what_is_bad() -> None:
    z = np.arange(6)
    shift = np.array([[0, 0], [3, 4], [6, 8], [np.nan, np.nan], [0, 0], [0, 0]])
    bad = z == 3
    figure = shift_curves(z, shift, bad)
    assert figure.alt == "Shifts of 6 sections along z: up to 10.0 pixels; 1 is bad."
    assert figure.png != shift_curves(z, shift, NONE).png
    median = np.array([0.1, 0.2, 0.3, np.nan, 0.2, 0.6])
    figure = residual_plot(z, median, 2 * median, bad)
    assert "median over sections 0.20 pixels, at most 0.60" in figure.alt
    nothing = np.full(6, np.nan)
    assert "unknown" in residual_plot(z, nothing, nothing, bad).alt
    assert "up to 0.0" in shift_curves(z[:1], np.full((1, 2), np.nan), bad[:1]).alt


def test_long_stacks_are_thinned() -> None:
    n = 40_000
    walk = np.cumsum(RNG.normal(size=(n, 2)), axis=0)
    assert len(shift_curves(np.arange(n), walk, np.arange(n) % 4000 == 7).png) < 200_000


def test_steps_and_ends() -> None:
    shift = np.array([[np.nan, np.nan], [1.0, 1.0], [1.0, 2.0], [4.0, 6.0], [4.0, 5.0]])
    assert largest_step(shift) == 3
    assert largest_step(np.zeros((4, 2))) == 0
    assert largest_step(np.zeros((1, 2))) == 0
    assert end_to_end(shift) == 5.0
    assert np.isnan(end_to_end(shift[:1]))


def test_colours_of_displacements_turn_with_them() -> None:
    angles = np.linspace(0, 2 * np.pi, 13)[:-1]
    u = np.stack([np.sin(angles), np.cos(angles)])[:, None]
    colours = flow_colours(u, 1.0)[0]
    assert len({tuple(c) for c in colours.tolist()}) == 12
    assert (flow_colours(0 * u, 1.0) == 255).all()
    np.testing.assert_array_equal(flow_colours(3 * u, 1.0)[0], colours)  # no more than full
    half = flow_colours(u / 2, 1.0)[0].astype(int)
    assert (np.ptp(half, axis=1) < np.ptp(colours.astype(int), axis=1)).all()


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 3, 90), (2, 40, 20)])
def test_fields_of_any_lattice(shape: tuple[int, int, int]) -> None:
    u = RNG.normal(size=shape)
    u[0, 0, 0], u[1, 0, 0] = 30.0, 40.0
    u[:, -1, -1] = np.nan if shape[1] > 1 else u[:, -1, -1]
    assert field_plot(u, (100.0, 300.0), "section 3").alt.endswith("up to 50.00 pixels.")
    assert field_plot(0 * u, (100.0, 300.0), "section 3").png != field_plot(u, (100.0, 300.0), "section 3").png


def test_outlines_are_outside() -> None:
    inside = np.zeros((20, 20), np.bool_)
    inside[8:12, 8:12] = True
    image = np.full((20, 20), 50, np.uint8)
    drawn = (outlined(image, inside, 1) == MARK_RGB).all(axis=2)
    assert not (drawn & inside).any()
    assert drawn.sum() == 16
    assert (outlined(image, inside, 1)[~drawn] == 50).all()
    assert not (outlined(image, ~np.zeros_like(inside)) == MARK_RGB).all(axis=2).any()


def test_torn_sections_show_parts_and_what_is_invented() -> None:
    before = RNG.integers(1, 256, (100, 100), dtype=np.uint8)
    parts = np.ones((100, 100), np.uint8)
    parts[:, 40:] = 2
    gap = np.zeros((100, 100), np.bool_)
    gap[:, 48:52] = True
    figure = torn_section(before, parts, before, gap, (8.0, 8.0), name="section 7")
    assert figure.alt == (
        "section 7, torn: before, its 2 parts, in place, and filled; 4.0 % of what is shown is invented."
    )
    height, width = marked(figure.png).shape
    left, right = (
        marked(figure.png)[height // 2 + 20 :, :300],
        marked(figure.png)[height // 2 + 20 :, width - 300 :],
    )
    assert 0 < right.sum() < left.sum() * 1.1
    assert "0 parts" in torn_section(before, None, before, gap, (8.0, 8.0)).alt


def test_replacements_are_outlined_whole_or_in_part() -> None:
    images = [(f"z = {z}", RNG.integers(1, 256, (64, 64), dtype=np.uint8)) for z in range(4)]
    whole = replaced_section(images[:3], images[3], (8.0, 8.0))
    some = np.zeros((64, 64), np.bool_)
    some[10:20, 10:20] = True
    part = replaced_section(images[:3], images[3], (8.0, 8.0), invented=some)
    assert marked(whole.png).sum() > marked(part.png).sum() > 0
    assert "z = 3" in whole.alt


def test_bad_input() -> None:
    with pytest.raises(InputError, match="give a plane"):
        before_after([])
    with pytest.raises(InputError, match="the same sections"):
        before_after([plane(NONE[:2])])
    with pytest.raises(InputError, match=r"\[2, J, I\]"):
        field_plot(np.zeros((3, 4, 4)), (4, 4), "a")
    two, three = np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8)
    with pytest.raises(InputError, match="same place"):
        torn_section(two, three, two, two > 0, (4, 4))
    with pytest.raises(InputError, match="same place"):
        replaced_section([("a", two)], ("b", three), (4, 4))
    with pytest.raises(InputError, match="at least one section"):
        replaced_section([], ("b", three), (4, 4))
