"""Contact sheets show grey values as they are, pixels at their size, and every entry with its words."""

from __future__ import annotations

import io
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.view.colours import overlay
from emloom.view.contact_sheet import Entry, Look, Strip, contact_sheet, strip


def look(shape: tuple[int, int, int] = (5, 16, 12), value: float = 0.0) -> Look:
    return Look(np.full(shape, value, np.float32), np.zeros(shape, np.uint64), np.ones(shape, np.uint8))


@pytest.mark.parametrize(("value", "grey"), [(-1, 0), (0, 128), (0.5, 191), (1, 255), (3, 255), (-2, 0)])
def test_grey_values_are_not_stretched(value: float, grey: int) -> None:
    for labels in (False, True):
        tiles = strip("s", look(value=value), [0], (4, 4, 4), labels=labels).tiles
        assert all((tile == grey).all() for _, tile in tiles)


def test_tiles_have_their_physical_aspect() -> None:
    tiles = dict(strip("s", look((2, 16, 12)), [0, 1], (12.0, 4.0, 8.0), labels=False).tiles)
    assert tiles["z 1"].shape == (16, 24, 3)  # a pixel is 4 nm, x is twice as coarse
    assert tiles["xz, y 8"].shape == (6, 24, 3)


def test_thick_sections_are_cut_to_what_fits_beside_the_others() -> None:
    raw = np.linspace(-1, 1, 9, dtype=np.float32)[:, None, None] * np.ones((9, 16, 12), np.float32)
    tiles = strip("s", Look(raw, look((9, 16, 12)).labels, look((9, 16, 12)).known), [4], (16, 4, 4), labels=False)
    name, tile = tiles.tiles[-1]
    assert name == "xz, y 8, z 2 to 5"
    assert tile.shape == (16, 12, 3)
    np.testing.assert_array_equal(tile[::4, 0, 0], np.rint((raw[2:6, 0, 0] + 1) * 127.5))


def test_labels_are_outlined_and_unknown_voxels_hatched() -> None:
    seen = look()
    seen.labels[:, :, 6:] = 7
    seen.known[:, :4] = 0
    ((_, plain), _) = strip("s", seen, [0], (4, 4, 4), labels=False).tiles
    ((_, tile), _) = strip("s", seen, [0], (4, 4, 4), labels=True).tiles
    changed = (tile != plain).any(axis=2)
    hatch = (tile == (255, 140, 0)).all(axis=2)
    assert 0 < hatch[:4].mean() < 0.5
    assert not hatch[4:].any()
    assert changed[8:, 6:].all()
    assert not changed[8:, :6].any()
    assert (tile[9, 6] != tile[9, 9]).any()  # the outline is stronger than the inside


def test_an_overlay_can_leave_grey_values_alone() -> None:
    raw = np.full((4, 5), 90, np.uint8)
    raw[0, 0] = 100
    none = np.zeros((4, 5), np.uint64)
    np.testing.assert_array_equal(overlay(raw, none, stretch=False)[..., 0], raw)
    assert overlay(raw, none)[0, 0, 0] == 255


def entry(title: str, words: str = "w", **of: Any) -> Entry:
    return Entry(title, words, [strip("", look(**of), [0, 2], (4, 4, 4), labels=False)])


def pixels(entries: list[Entry], **how: Any) -> Any:
    return iio.imread(io.BytesIO(contact_sheet(entries, 4.0, **how).png))[..., :3]


def test_every_tile_is_on_the_page_pixel_for_pixel() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 190, (16, 40, 3)).astype(np.uint8)  # no letter is drawn below row 14 of 64
    page = pixels([entry("b"), Entry("a", "", [Strip("", [("n", image)])])], zoom=4)
    big = np.kron(image, np.ones((4, 4, 1), np.uint8))[40:50]
    rows, width = big.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(page, (rows, width, 3))[:, :, 0]
    assert (windows == big).all(axis=(2, 3, 4)).any()


def test_long_words_and_more_entries_make_the_page_higher() -> None:
    short = pixels([entry("a")])
    assert pixels([entry("a", "many words " * 40)]).shape[0] > short.shape[0]
    assert pixels([entry("a"), entry("b")]).shape[0] > short.shape[0]
    assert pixels([entry("a"), entry("b")], columns=2).shape[1] == 2 * short.shape[1]
    assert pixels([entry("a")], caption="a caption " * 5).shape[0] > short.shape[0]


def test_a_sheet_is_said_in_words_and_is_the_same_bytes_twice() -> None:
    figure = contact_sheet([entry("first", "cost 5 $ and $x"), entry("second", "turned")], 4.0)
    assert "first: cost 5 $ and $x" in figure.alt
    assert "second: turned" in figure.alt
    assert figure.png == contact_sheet([entry("first", "cost 5 $ and $x"), entry("second", "turned")], 4.0).png


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        contact_sheet([], 4.0)
