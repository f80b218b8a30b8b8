"""Translation alignment: the published arithmetic to the pixel, and every voxel back."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil, copysign, floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.planar import Shift
from emloom.geometry.sectionshift import SectionShift, away_from_zero, box_within
from emloom.geometry.stackmap import Frame, StackMap

CREMI = Grid((40.0, 4.0, 4.0))
RAW = Frame((200, 3072, 3072), CREMI)
# Published, per volume: size (Y, X) of the aligned volume, and the ranges of p that lead to it.
PUBLISHED = {
    "A": ((1842, 1727), (-182, 10), (-14, 63)),
    "B": ((1748, 2069), (-40, 58), (-55, 364)),
    "C": ((2036, 1986), (-264, 122), (-86, 250)),
    "A+": ((1912, 1741), (-75, 187), (-72, 19)),
    "B+": ((1937, 2898), (-129, 158), (-703, 545)),
    "C+": ((1983, 1914), (-235, 98), (-54, 210)),
}


def table_of(name: str, n: int = 153, scale: float = 1.0) -> np.ndarray:
    """Return relative translations whose p attains the published range, give or take less than a pixel."""
    _, y, x = PUBLISHED[name]
    p = np.zeros((n, 2))
    rng = np.random.default_rng(len(name) + ord(name[0]))
    for axis, (low, high) in enumerate((y, x)):
        low, high = low * scale + 0.7, high * scale - 0.3  # so that they are rounded up to the published numbers
        walk = np.cumsum(rng.normal(0, 1, n))
        p[:, axis] = np.clip(walk / np.abs(walk).max() * max(high, -low), low + 0.1, high - 0.1)
        p[n // 2, axis] = 0.0
        p[rng.permutation(np.delete(np.arange(n), n // 2))[:2], axis] = low, high
    return -np.diff(p, axis=0, prepend=p[:1])


def cremi(name: str) -> SectionShift:
    start = (38 if name == "A" else 37, 911, 911)
    return SectionShift.of(table_of(name), RAW, Box(start, (125, 1250, 1250)), margin_vox=200, margin_sections=14)


# ---- the published arithmetic, word by word --------------------------------------------------------------------


def half_away(value: float) -> int:
    return int(copysign(floor(abs(value) + 0.5), value))


def literal(d: np.ndarray, reference: int, margin: int) -> tuple[list[Any], list[Any], list[int]]:
    """Return p, r (x, y) and ww of the published text, from rows (dx, dy); loops, nothing of the package."""
    s, sum_x, sum_y = [], 0.0, 0.0
    for dx, dy in d.tolist():
        sum_x, sum_y = sum_x + dx, sum_y + dy
        s.append((sum_x, sum_y))
    p = [(s[reference][0] - x, s[reference][1] - y) for x, y in s]
    r = [(half_away(x), half_away(y)) for x, y in p]
    xs, ys = [x for x, _ in p], [y for _, y in p]
    ww = [ceil(v) + margin for v in (max(xs), max(ys), -min(xs), -min(ys))]
    return p, r, ww


def literal_raw(raw: np.ndarray, d: np.ndarray, box: Box, reference: int, margins: tuple[int, int]) -> np.ndarray:
    (z0, y0, x0), (_, h, w) = box.start, box.shape
    _, r, ww = literal(d, reference, margins[1])
    shape = (h + ww[1] + ww[3], w + ww[0] + ww[2])
    pad = 4 * max(raw.shape)
    out = []
    for z in range(len(d)):
        wide = np.pad(raw[z0 - margins[0] + z], pad, mode="symmetric")
        y, x = y0 + r[z][1] - ww[1] + pad, x0 + r[z][0] - ww[0] + pad
        out.append(wide[y : y + shape[0], x : x + shape[1]])
    return np.array(out)


def literal_labels(
    labels: np.ndarray, d: np.ndarray, reference: int, margins: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels pasted forward, and cropped back."""
    n, h, w = labels.shape
    _, r, ww = literal(d, reference, margins[1])
    out = np.zeros((n + 2 * margins[0], h + ww[1] + ww[3], w + ww[0] + ww[2]), labels.dtype)
    back = np.zeros_like(labels)
    for i in range(n):
        y, x = ww[1] - r[margins[0] + i][1], ww[0] - r[margins[0] + i][0]
        out[margins[0] + i, y : y + h, x : x + w] = labels[i]
    for i in range(n):
        y, x = ww[1] - r[margins[0] + i][1], ww[0] - r[margins[0] + i][0]
        back[i] = out[margins[0] + i, y : y + h, x : x + w]
    return out, back


def forward(shift: SectionShift, raw: np.ndarray) -> np.ndarray:
    return np.stack([shift.aligned(raw[shift.first + z], z) for z in range(shift.shape[0])])


def placed(shift: SectionShift, labels: np.ndarray) -> np.ndarray:
    out = np.zeros(shift.shape, labels.dtype)
    for i in range(len(labels)):
        z = i + shift.margin_sections
        out[z] = shift.placed(labels[i], z)
    return out


def back(shift: SectionShift, aligned: np.ndarray) -> np.ndarray:
    k = shift.margin_sections
    return np.stack([shift.brought_back(aligned[z], z) for z in range(k, shift.shape[0] - k)])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    shift = cremi(name)
    assert shift.reference == 76
    assert shift.shape == (153, *PUBLISHED[name][0])
    assert shift.first == (24 if name == "A" else 23)
    (_, y, x) = PUBLISHED[name]
    assert (ceil(shift.p[:, 0].max()), floor(shift.p[:, 0].min())) == y[::-1]
    assert (ceil(shift.p[:, 1].max()), floor(shift.p[:, 1].min())) == x[::-1]


def test_only_one_published_volume_needs_padding() -> None:
    padding = {name: cremi(name).padding for name in PUBLISHED}
    assert padding.pop("B+") == ((0, 0), (536, 537))
    assert set(padding.values()) == {((0, 0), (0, 0))}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_round_trip(name: str) -> None:
    """All sections' places at full size, and the voxels of three sections: the two extremes and the reference."""
    shift = cremi(name)
    p, r, ww = literal(table_of(name)[:, ::-1], 76, 200)
    np.testing.assert_array_equal(shift.p, np.array(p)[:, ::-1])
    np.testing.assert_array_equal(shift.r, np.array(r)[:, ::-1])
    np.testing.assert_array_equal(shift.ww, [[ww[1], ww[0]], [ww[3], ww[2]]])
    labels = np.random.default_rng(3).integers(1, 2**63, (1250, 1250), dtype=np.uint64)
    for z in sorted({76, int(shift.p[:, 1].argmax()), int(shift.p[:, 1].argmin())}):
        moved = shift.placed(labels, z)
        y, x = ww[1] - r[z][1], ww[0] - r[z][0]
        np.testing.assert_array_equal(moved[y : y + 1250, x : x + 1250], labels)
        assert np.count_nonzero(moved) == 1250 * 1250
        np.testing.assert_array_equal(shift.brought_back(moved, z), labels)


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_voxels_of_a_stack_a_tenth_as_wide(name: str) -> None:
    rng = np.random.default_rng(7)
    raw = rng.integers(0, 256, (22, 307, 309), dtype=np.uint8)
    labels = rng.integers(0, 2**40, (13, 125, 127), dtype=np.uint64)
    d, box = table_of(name, 17, 0.1), Box((4, 91, 90), labels.shape)
    shift = SectionShift.of(d, Frame(raw.shape, CREMI), box, margin_vox=20, margin_sections=2)
    np.testing.assert_array_equal(forward(shift, raw), literal_raw(raw, d[:, ::-1], box, 8, (2, 20)))
    aligned, again = literal_labels(labels, d[:, ::-1], 8, (2, 20))
    np.testing.assert_array_equal(placed(shift, labels), aligned)
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_array_equal(back(shift, placed(shift, labels)), labels)
    np.testing.assert_array_equal(back(shift, forward(shift, raw)), raw[box.slices()])


# ---- laws ------------------------------------------------------------------------------------------------------


@st.composite
def alignments(draw: st.DrawFn) -> SectionShift:
    n, margin = draw(st.integers(1, 6)), draw(st.integers(0, 2))
    extent = (n + 2 * margin + draw(st.integers(0, 2)), draw(st.integers(3, 12)), draw(st.integers(3, 12)))
    box = Box(
        (margin, draw(st.integers(0, extent[1] - 2)), draw(st.integers(0, extent[2] - 2))), (n, 2, 2)
    )  # whole pixels, halves, and anything
    total = n + 2 * margin
    reach = st.floats(-min(extent[1:]) / 2 + 0.6, min(extent[1:]) / 2 - 0.6)
    value = st.one_of(reach, reach.map(lambda v: round(2 * v) / 2))
    s = np.array(draw(st.lists(st.tuples(value, value), min_size=total, max_size=total)))
    raw = Frame(extent, Grid((40.0, 4.0, 4.5), (120.0, -8.0, 9.0)))
    return SectionShift.of(
        np.diff(s, axis=0, prepend=s[:1]),
        raw,
        box,
        reference=draw(st.integers(0, total - 1)),
        margin_vox=draw(st.integers(0, 9)),
        margin_sections=margin,
    )


@settings(max_examples=60, deadline=None)
@given(alignments())
def test_arithmetic_is_the_published_one(shift: SectionShift) -> None:
    rng = np.random.default_rng(1)
    d = np.array(shift.translations)[:, ::-1]
    raw = rng.integers(0, 256, shift.raw.shape, dtype=np.uint8)
    margins = (shift.margin_sections, shift.margin_vox)
    np.testing.assert_array_equal(forward(shift, raw), literal_raw(raw, d, shift.box, shift.reference, margins))
    labels = rng.integers(0, 2**63, shift.box.shape, dtype=np.uint64)
    np.testing.assert_array_equal(placed(shift, labels), literal_labels(labels, d, shift.reference, margins)[0])
    np.testing.assert_array_equal(back(shift, placed(shift, labels)), labels)


@settings(max_examples=60, deadline=None)
@given(alignments())
def test_the_stack_map_does_the_same_but_for_what_is_mirrored(shift: SectionShift) -> None:
    raw = np.random.default_rng(1).integers(1, 256, shift.raw.shape, dtype=np.uint8)
    aligned, stack = forward(shift, raw), shift.stackmap()
    assert stack.source == shift.raw
    assert stack.target.shape == aligned.shape
    for z in range(len(aligned)):
        move = stack.map(z)
        assert isinstance(move, Shift)
        assert move.is_whole
        centres = np.argwhere(np.ones(aligned.shape[1:], np.bool_)) + 0.5
        there = np.floor(move.inverse()(centres)).astype(int)
        inside = ((there >= 0) & (there < raw.shape[1:])).all(axis=1)
        shown = aligned[z].ravel()
        assert stack.home(z) == shift.first + z
        np.testing.assert_array_equal(shown[inside], raw[shift.first + z][tuple(there[inside].T)])
        leaves = bool((~inside).any())
        assert not leaves or any(any(side) for side in shift.padding)


@settings(max_examples=60, deadline=None)
@given(alignments(), st.integers(0, 10**6))
def test_points_agree_with_labels(shift: SectionShift, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(1, shift.box.size + 1, dtype=np.uint64).reshape(shift.box.shape)
    aligned = placed(shift, labels)
    voxels = np.array([rng.integers(0, n, 20) for n in shift.box.shape]).T
    inside = rng.uniform(0.01, 0.99, voxels.shape)
    size, zero = np.array(shift.raw.grid.voxel_size_nm), np.array(shift.raw.grid.offset_nm)
    points = (voxels + shift.box.start + inside) * size + zero
    moved = shift.stackmap().moved(points)
    there = [shift.target.grid.containing(p) for p in moved]
    np.testing.assert_array_equal(aligned[tuple(np.array(there).T)], labels[tuple(voxels.T)])
    np.testing.assert_allclose(shift.inverse().moved(moved), points, rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(alignments())
def test_values_survive_json_and_the_reference_stays(shift: SectionShift) -> None:
    assert SectionShift.from_plain(json.loads(json.dumps(shift.to_plain()))) == shift
    raw = shift.raw.grid
    here = np.array([raw.centre((shift.first + shift.reference, *shift.box.start[1:]))])
    np.testing.assert_allclose(shift.stackmap().moved(here), here, rtol=0, atol=1e-9)


def test_a_composition_is_the_sequence() -> None:
    shift = SectionShift.of([[0, 0], [2, -1.4], [0.5, 3]], Frame((3, 9, 9), CREMI))
    later = StackMap.of(shift.target, shift.target, [Shift(0, 2)] * 3)
    points = np.array([[60.0, 10.0, 20.0], [110.0, 3.0, 9.0]])
    both = shift.compose(later)
    np.testing.assert_array_equal(both.moved(points), later.moved(shift.stackmap().moved(points)))
    round_trip = shift.compose(shift.inverse())
    assert all(round_trip.map(z) == Shift() for z in range(3))


@given(st.floats(-1e6, 1e6))
def test_halves_go_away_from_zero(value: float) -> None:
    assert away_from_zero(np.array([value]))[0] == -away_from_zero(np.array([-value]))[0]
    assert abs(away_from_zero(np.array([value]))[0] - value) <= 0.5
    half = np.trunc(value) + 0.5 * np.sign(value)
    assert abs(away_from_zero(np.array([half]))[0]) == (abs(np.trunc(value)) + 1 if value else 0)


def test_just_below_a_half_is_rounded_down() -> None:
    assert away_from_zero(np.array([0.49999999999999994, 0.5, 1.5, 2.5, -0.5, -2.5])).tolist() == [
        0,
        1,
        2,
        3,
        -1,
        -3,
    ]


# ---- mistakes of the original, each by name --------------------------------------------------------------------


def small(margin_vox: int = 0, margin_sections: int = 0) -> SectionShift:
    n = 3 + 2 * margin_sections
    d = np.array([[0, 0], *[[1, -2], [-3, 1]] * n])[:n]
    return SectionShift.of(
        d, Frame((9, 24, 31), CREMI), Box((3, 7, 9), (3, 8, 12)), margin_vox=margin_vox,
        margin_sections=margin_sections,
    )  # fmt: skip


@pytest.mark.parametrize("margins", [(0, 0), (5, 0), (0, 2), (4, 2)])
def test_no_crop_ends_at_minus_zero(margins: tuple[int, int]) -> None:
    """`[m:-m]` with a margin of 0 holds nothing."""
    shift = small(*margins)
    labels = np.arange(1, 289, dtype=np.uint64).reshape(3, 8, 12)
    np.testing.assert_array_equal(back(shift, placed(shift, labels)), labels)


def test_windows_are_as_large_as_the_box() -> None:
    """`910 + 1250` slices had 1249 rows."""
    for shift in (cremi("A"), small(3, 1)):
        for z in range(shift.shape[0]):
            assert shift.window(z).shape == (1, *shift.box.shape[1:])
            assert Box.whole(shift.shape).contains(shift.window(z))


def test_two_volumes_come_out_as_themselves() -> None:
    """Clefts were written from the segmentation."""
    shift = small(2, 1)
    rng = np.random.default_rng(0)
    neurons, clefts = rng.integers(1, 100, (2, 3, 8, 12)).astype(np.uint64)
    assert (placed(shift, neurons) != placed(shift, clefts)).any()
    np.testing.assert_array_equal(back(shift, placed(shift, neurons)), neurons)
    np.testing.assert_array_equal(back(shift, placed(shift, clefts)), clefts)


def test_axes_are_not_swapped_between_raw_and_labels() -> None:
    """Label axes were swapped, one size served both axes, and (before, behind) padding was taken for (y, x)."""
    shift = small(2, 1)
    raw = np.random.default_rng(5).integers(1, 256, shift.raw.shape, dtype=np.uint8)
    aligned, labels = forward(shift, raw), placed(shift, raw[shift.box.slices()])
    assert aligned.shape == labels.shape == shift.shape
    assert shift.shape[1] != shift.shape[2]
    np.testing.assert_array_equal(aligned[labels > 0], labels[labels > 0])


def test_sections_are_not_off_by_one_and_not_offset_twice() -> None:
    shift = small(0, 2)
    labels = np.repeat(np.arange(1, 4, dtype=np.uint64), 96).reshape(3, 8, 12)
    aligned = placed(shift, labels)
    assert [int(section.max()) for section in aligned] == [0, 0, 1, 2, 3, 0, 0]
    assert [shift.stackmap().home(z) for z in range(7)] == [1, 2, 3, 4, 5, 6, 7]


def test_the_way_back_has_the_opposite_sign() -> None:
    shift = small()
    there, here = shift.stackmap(), shift.inverse()
    for z in range(3):
        assert there.map(z).inverse() == here.map(there.home(z) or 0)
    assert any(there.map(z) != here.map(there.home(z) or 0) for z in range(3))


@pytest.mark.parametrize(("nm", "first"), [((1520.0, 3644.0, 3644.0), 38), ((1480.0, 3644.0, 3644.0), 37)])
def test_the_box_is_read_from_the_offset(nm: tuple[float, float, float], first: int) -> None:
    labels = Frame((125, 1250, 1250), Grid((40.0, 4.0, 4.0), nm))
    assert box_within(RAW, labels) == Box((first, 911, 911), labels.shape)


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Frame((5, 5, 5), Grid((40.0, 8.0, 8.0))), "one resolution"),
        (Frame((5, 5, 5), Grid((40.0, 4.0, 4.0), (0.0, 2.0, 0.0))), "between two"),
        (Frame((5, 5, 5), Grid((40.0, 4.0, 4.0), (-40.0, 0.0, 0.0))), "check their offset"),
        (Frame((201, 5, 5), CREMI), "check their offset"),
    ],
)
def test_labels_that_do_not_lie_in_the_raw(labels: Frame, words: str) -> None:
    with pytest.raises(InputError, match=words):
        box_within(RAW, labels)


NINE = Frame((9, 24, 31), CREMI)


@pytest.mark.parametrize(
    ("table", "how", "words"),
    [
        (np.zeros((7, 2)), {}, r"7 translations, and 9 sections make 9: give one"),
        (np.zeros((8, 2)), {}, "first row, 0,0, seems to be missing"),
        (np.zeros((9, 3)), {}, r"\[Z, 2\]"),
        (np.zeros((0, 2)), {}, r"\[Z, 2\]"),
        ([["a", "b"]], {}, "not numbers"),
        (np.array([[0, 0], [np.nan, 1]]), {}, r"section 1 is not finite"),
        (np.ones((9, 2)), {}, "must be 0, 0"),
        (np.zeros((9, 2)), {"reference": 9}, "0 to 8"),
        (np.zeros((9, 2)), {"margin_vox": -1}, "at least 0"),
        (np.zeros((11, 2)), {"margin_sections": 1}, "leave the raw: it has 0 before and 0 behind"),
        (np.zeros((9, 2)), {"box": Box((0, 0, 0), (9, 25, 31))}, "does not lie in the raw"),
        ([[0, 0], *[[0, 8]] * 8], {}, "by -32 pixels along x relative to section 4"),
        ([[0, 0], *[[6, 0]] * 8], {}, "only 24"),
    ],
)
def test_bad_tables(table: Any, how: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SectionShift.of(table, NINE, **how)


def test_bad_sections_and_bad_descriptions() -> None:
    shift = small()
    for call in (shift.aligned, shift.placed, shift.brought_back):
        with pytest.raises(InputError, match="give it whole"):
            call(np.zeros((2, 2), np.uint8), 0)
    plain = shift.to_plain()
    for wrong in ({}, {**plain, "raw": {}}, {**plain, "extra": 1}):
        with pytest.raises(InputError, match="describes no alignment"):
            SectionShift.from_plain(wrong)
    with pytest.raises(InputError, match="give one per section"):
        replace(shift, margin_sections=1)
