"""Moving pictures: every section is in them, they are bounded, and a page shows them to whoever wants motion."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from emloom.errors import InputError
from emloom.view.flicker import flicker
from emloom.view.report import Report, Section

RNG = np.random.default_rng(0)


def frames(gif: bytes) -> list[np.ndarray]:
    picture = Image.open(BytesIO(gif))
    out = []
    for k in range(getattr(picture, "n_frames", 1)):
        picture.seek(k)
        out.append(np.array(picture.convert("RGBA")))
    return out


def test_every_section_is_a_frame_beside_the_other() -> None:
    levels = np.array([10, 90, 170, 250], np.uint8)
    before = np.repeat(levels, 40 * 50).reshape(4, 40, 50)
    figure = flicker([("before", before), ("after", before[::-1].copy())], [7, 8, 9, 10], alt="sections")
    assert figure.motion is not None
    shown = frames(figure.motion)
    assert [f.shape for f in shown] == [(40, 108, 4)] * 4
    for k, frame in enumerate(shown):
        assert abs(int(frame[30, 25, 0]) - int(levels[k])) <= 4
        assert abs(int(frame[30, 80, 0]) - int(levels[3 - k])) <= 4
        assert (frame[:, 50:58, 3] == 0).all()  # nothing between them
        assert (frame[:, :50, 3] == 255).all()
    still = np.array(Image.open(BytesIO(figure.png)).convert("RGBA"))
    np.testing.assert_array_equal(still, shown[0])
    assert Image.open(BytesIO(figure.motion)).info["loop"] == 0


def test_it_is_bounded_and_still_moves() -> None:
    noise = RNG.integers(0, 256, (8, 200, 200), dtype=np.uint8)
    large = flicker([("before", noise)], range(8), alt="a", most_bytes=10**7)
    small = flicker([("before", noise)], range(8), alt="a", most_bytes=40_000)
    assert large.motion is not None
    assert small.motion is not None
    assert len(small.motion) <= 40_000 < len(large.motion)
    assert len(frames(small.motion)) == 8
    nothing = flicker([("before", noise)], range(8), alt="a", most_bytes=100)
    assert nothing.motion is None
    assert nothing.png.startswith(b"\x89PNG")


def test_numbers_are_drawn() -> None:
    flat = np.full((2, 100, 200), 90, np.uint8)
    one, two = (flicker([("after", flat)], numbers, alt="a").motion or b"" for numbers in ([1, 2], [3, 4]))
    assert one != two
    assert (np.array(frames(one)[0])[60:, :, 0] == np.array(frames(two)[0])[60:, :, 0]).all()


def test_a_page_moves_for_those_who_want_it() -> None:
    noise = RNG.integers(0, 256, (2, 60, 60), dtype=np.uint8)
    figure = flicker([("before", noise)], [0, 1], alt="two sections")
    page = Report("t", sections=[Section("s", figures=[figure])]).render()
    found = re.search(r'prefers-reduced-motion: no-preference\)" srcset="data:image/gif;base64,([^"]+)"', page)
    assert found
    assert b64decode(found.group(1)) == figure.motion
    assert 'src="data:image/png;base64,' in page
    assert 'alt="two sections"' in page


@pytest.mark.parametrize(
    ("sides", "numbers", "words"),
    [
        ([], [0], "at least one"),
        ([("a", np.zeros((0, 4, 4), np.uint8))], [], "at least one"),
        ([("a", np.zeros((2, 4, 4), np.uint8))], [0], "one each"),
        ([("a", np.zeros((1, 4, 4), np.uint8)), ("b", np.zeros((1, 4, 5), np.uint8))], [0], "one each"),
        ([("a", np.zeros((1, 4, 4), np.float32))], [0], "stretch"),
    ],
)
def test_bad_input(sides, numbers, words) -> None:
    with pytest.raises(InputError, match=words):
        flicker(sides, numbers, alt="a")
