"""Resampling where a map leads: against the maps themselves, SciPy, NumPy's padding, and other windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import AffineTransform, warp

from emloom.errors import InputError
from emloom.geometry.planar import IDENTITY, Affine, Chain, Field, Pieces, PlanarMap, Shift, chain
from emloom.ops.pull import extent, traced
from emloom.ops.warp import Window, linear, mirrored, moved_section, nearest, pixels_needed, pull, shifted

SHAPE = (90, 110)
ALL = Window((0, 0), SHAPE)
RNG = np.random.default_rng(3)
TURN = Affine(((1.01, 0.08, -3.0), (-0.07, 0.98, 4.5)))
BENT = Field(
    ndimage.gaussian_filter(RNG.normal(0, 1, (2, 11, 13)), (0, 1, 1)).astype(np.float32) * 4,
    (9.0, 9.5),
    (-4.0, 2.0),
)
PARTS = np.ones(SHAPE, np.uint8)
PARTS[np.add.outer(np.arange(90), np.arange(110)) > 100] = 0
PARTS[np.add.outer(np.arange(90), np.arange(110)) > 106] = 2
TORN = Pieces(PARTS, (Shift(1.0, 2.0), Affine(((1.0, 0.02, -4.6), (-0.02, 1.0, -2.3)))))
MAPS: dict[str, PlanarMap] = {
    "whole": Shift(4, -7),
    "shift": Shift(0.25, -3.6),
    "affine": TURN,
    "field": BENT,
    "inverted field": BENT.inverse(),
    "pieces": TORN,
    "inverted pieces": TORN.inverse(),
    "chain": chain(Shift(2, 3), TORN, TURN, BENT),
    "inverted chain": chain(Shift(2.5, 3), TORN, TURN, BENT).inverse(),
}
SMOOTH = ndimage.gaussian_filter(RNG.random(SHAPE), 4)
SMOOTH = np.rint((SMOOTH - SMOOTH.min()) / np.ptp(SMOOTH) * 255).astype(np.uint8)

some_map = st.sampled_from(sorted(MAPS)).map(MAPS.get)
some_window = st.builds(
    Window,
    st.tuples(st.integers(-40, 100), st.integers(-40, 100)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)


def centres(window: Window) -> np.ndarray:
    y, x = (np.arange(a, a + n) + 0.5 for a, n in zip(window.start, window.shape, strict=True))
    return np.stack(np.meshgrid(y, x, indexing="ij")).reshape(2, -1).T


# ---- coordinates ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(move=some_map, window=some_window)
def test_coordinates_are_those_of_the_map_turned_round(move, window):
    found = pull(move, window.start, window.shape).reshape(2, -1).T
    expected = move.inverse()(centres(window))
    edge = np.isnan(found[:, 0]) != np.isnan(expected[:, 0])  # a place on the face of a part, rounded
    assert edge.mean() < 0.01
    assert np.abs(found - expected)[~edge & ~np.isnan(found[:, 0])].max(initial=0) < 1e-4


@settings(max_examples=60, deadline=None)
@given(move=some_map, window=some_window, data=st.data())
def test_coordinates_do_not_depend_on_the_window(move, window, data):
    (y, x), (height, width) = window.start, window.shape
    dy, dx = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    small = ((y + dy, x + dx), (height - dy, width - dx))
    whole, part = traced(move, window.start, window.shape), traced(move, *small)
    assert np.array_equal(whole.coords[:, dy:, dx:], part.coords, equal_nan=True)
    assert (whole.parts is None) == (part.parts is None)
    if whole.parts is not None:
        assert np.array_equal(whole.parts[dy:, dx:], part.parts)


@pytest.mark.parametrize("name", ["field", "chain"])
def test_an_iteration_does_not_remember_where_its_window_began(name):
    whole = pull(MAPS[name], (3, -40), (20, 200))
    for later in range(1, 80):
        assert np.array_equal(
            whole[:, :, later:], pull(MAPS[name], (3, later - 40), (20, 200 - later)), equal_nan=True
        )


@settings(max_examples=60, deadline=None)
@given(move=some_map, window=some_window)
def test_the_extent_holds_every_place(move, window):
    coords = pull(move, window.start, window.shape).reshape(2, -1).T
    coords = coords[~np.isnan(coords[:, 0])]
    found = extent(move, window.start, window.shape)
    if found is None:
        assert not len(coords)
    elif len(coords):
        assert (coords.min(0) >= found[0] - 1e-6).all()
        assert (coords.max(0) <= found[1] + 1e-6).all()


def test_a_field_that_folds_has_no_places_where_none_is_found():
    steep = np.zeros((2, 3, 3), np.float32)
    steep[1, :, 1] = 60.0
    fold = Field(steep, (20.0, 20.0))
    found = pull(fold, (0, 0), (40, 100))
    kept = ~np.isnan(found[0])
    assert 0 < kept.sum() < kept.size
    back = fold(found.reshape(2, -1).T[kept.ravel()])
    assert np.abs(back - centres(Window((0, 0), (40, 100)))[kept.ravel()]).max() < 1e-3


def test_a_map_of_another_kind_is_asked_itself():
    class Mirror:
        def __call__(self, yx):
            return np.asarray(yx) * [1.0, -1.0]

        def inverse(self):
            return self

    found = pull(Chain((Mirror(), Shift(0, 10.0))), (0, 0), (3, 4))
    assert np.array_equal(found[1], np.tile([9.5, 8.5, 7.5, 6.5], (3, 1)))


# ---- values ---------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(move=st.sampled_from([MAPS[k] for k in ("shift", "affine", "field", "inverted field")]), window=some_window)
def test_values_are_those_of_scipy(move, window):
    image = SMOOTH.astype(np.float64)
    coords = pull(move, window.start, window.shape)
    inside = ((coords >= 0) & (coords < np.array(SHAPE)[:, None, None])).all(0)
    expected = ndimage.map_coordinates(image, coords - 0.5, order=1, mode="nearest")
    found = moved_section(image, (0, 0), move, window, "linear", fill=-5.0)
    assert np.abs(found - np.where(inside, expected, -5.0)).max() < 1e-9
    ids = RNG.integers(2**63, 2**64 - 1, SHAPE, np.uint64, endpoint=True)
    at = np.floor(np.where(inside, coords, 0)).astype(int)
    found = moved_section(ids, (0, 0), move, window, "nearest", fill=7)
    assert np.array_equal(found, np.where(inside, ids[at[0], at[1]], np.uint64(7)))


def test_an_affine_map_is_that_of_scikit_image():
    # There, (x, y) of pixel centres; the pull of a map is its inverse.
    m = np.vstack([TURN.matrix, [0, 0, 1]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    centred = swap @ np.linalg.inv(half) @ m @ half @ swap
    expected = warp(SMOOTH.astype(float), AffineTransform(centred).inverse, order=1, mode="edge")
    found = moved_section(SMOOTH.astype(float), (0, 0), TURN, ALL, "linear", fill=np.nan)
    shown = ~np.isnan(found)
    assert shown.mean() > 0.8
    assert np.abs(found - expected)[shown].max() < 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16])
def test_whole_numbers_are_rounded_half_to_even(dtype):
    image = np.array([[0, 1, 2, 5]], dtype)
    found = moved_section(image, (0, 0), Shift(0, 0.5), Window((0, 0), (1, 4)), "linear")
    assert found.dtype == dtype
    assert found.tolist() == [[0, 0, 2, 4]]  # 0, 0.5, 1.5, 3.5


def test_floats_stay_and_what_has_no_weight_is_not_looked_at():
    image = np.array([[1.0, np.nan, 3.0, 4.5]], np.float32)
    found = linear(image, pull(IDENTITY, (0, 0), (1, 4)))
    assert np.array_equal(found, image, equal_nan=True)
    found = moved_section(image, (0, 0), Shift(0, 0.5), Window((0, 0), (1, 5)), "linear", fill=-1)
    assert np.array_equal(found, np.array([[1, np.nan, np.nan, 3.75, -1]], np.float32), equal_nan=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint16])
def test_every_type_that_is_interpolated_keeps_it(dtype):
    found = moved_section(SMOOTH.astype(dtype), (0, 0), TURN, ALL, "linear")
    expected = moved_section(SMOOTH.astype(np.float64), (0, 0), TURN, ALL, "linear")
    assert found.dtype == dtype
    assert np.abs(found - expected).max() <= (0.5 if np.dtype(dtype).kind in "ui" else 0.07)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.uint64])
def test_every_type_of_ids_keeps_its_values(dtype):
    found = moved_section(SMOOTH.astype(dtype), (0, 0), TURN, ALL, "nearest")
    assert np.array_equal(found, moved_section(SMOOTH, (0, 0), TURN, ALL, "nearest").astype(dtype))


@settings(max_examples=40, deadline=None)
@given(move=some_map, window=some_window, method=st.sampled_from(["linear", "nearest"]))
def test_the_pixels_needed_are_enough(move, window, method):
    """And raw, labels and a whole section show something at the same pixels."""
    needed = pixels_needed(move, window)
    whole = moved_section(SMOOTH + np.uint16(1), (0, 0), move, window, method)
    if needed is None:
        assert not whole.any()
        return
    low = np.clip(needed.start, 0, SHAPE)
    high = np.clip(needed.stop, low, SHAPE)
    crop = (SMOOTH + np.uint16(1))[low[0] : high[0], low[1] : high[1]]
    assert np.array_equal(moved_section(crop, tuple(low), move, window, method), whole)
    other = moved_section(
        SMOOTH + np.uint16(1), (0, 0), move, window, "linear" if method == "nearest" else "nearest"
    )
    assert np.array_equal(other > 0, whole > 0)


def test_channels_move_alike():
    image = np.stack([SMOOTH, 255 - SMOOTH])
    for move in MAPS.values():
        for method in ("linear", "nearest"):
            both = moved_section(image, (0, 0), move, ALL, method, fill=3)
            each = [moved_section(one, (0, 0), move, ALL, method, fill=3) for one in image]
            assert np.array_equal(both, np.stack(each))


@settings(max_examples=40, deadline=None)
@given(y=st.integers(-120, 120), x=st.integers(-120, 120), window=some_window)
def test_whole_shifts_are_copies(y, x, window):
    image = RNG.integers(0, 2**64 - 1, SHAPE, np.uint64)
    found = shifted(image, (0, 0), Shift(y, x), window, fill=9)
    slow = nearest(image, pull(Affine(((1, 0, y), (0, 1, x))), window.start, window.shape), fill=9)
    assert np.array_equal(found, slow)
    low, high = np.minimum(0, [y, x]), np.maximum(SHAPE, np.add(SHAPE, [y, x]))
    canvas = Window(tuple(low.tolist()), tuple((high - low).tolist()))
    there = shifted(image, (0, 0), Shift(y, x), canvas)
    assert np.array_equal(shifted(there, canvas.start, Shift(-y, -x), ALL), image)


@settings(max_examples=40, deadline=None)
@given(y=st.integers(-200, 200), x=st.integers(-200, 200), window=some_window, part=st.booleans())
def test_a_mirrored_source_is_that_of_numpy(y, x, window, part):
    margin = 400
    padded = np.pad(SMOOTH, margin, mode="symmetric")
    expected = shifted(padded, (-margin, -margin), Shift(y, x), window, fill=0)
    found = moved_section(SMOOTH, (0, 0), Shift(y, x), window, "linear", mirror=ALL)
    assert np.array_equal(found, expected)
    half = Shift(y + 0.5, x + 0.25)
    expected = moved_section(padded, (-margin, -margin), half, window, "linear")
    needed = pixels_needed(half, window, ALL)
    assert needed is not None
    low = needed.start if part else (0, 0)
    crop = SMOOTH[low[0] : needed.stop[0], low[1] : needed.stop[1]] if part else SMOOTH
    found = moved_section(crop, low, half, window, "linear", mirror=ALL)
    assert np.array_equal(found, expected)
    assert (np.array(low) >= 0).all()
    assert (np.array(needed.stop) <= SHAPE).all()


def test_a_mirrored_place_lies_in_the_source():
    at = np.array([-1e-18, -0.5, 0.0, 90.0, 90.5, 179.9, 180.0, -90.0, 1e6 + 0.3])
    folded = mirrored(np.stack([at, at]), ALL)
    assert ((folded >= 0) & (folded < np.array(SHAPE)[:, None])).all()
    assert folded[0, 1] == 0.5
    assert folded[0, 4] == 89.5


@pytest.mark.parametrize("name", sorted(MAPS))
def test_there_and_back_is_within_a_grey_level_of_a_smooth_image(name):
    """Away from borders and seams: interpolating twice costs a quarter of the curvature, and rounding twice."""
    image = ndimage.gaussian_filter(np.random.default_rng(5).random(SHAPE), 8)
    image = np.rint((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)
    canvas = Window((-30, -30), (150, 170))
    there = moved_section(image, (0, 0), MAPS[name], canvas, "linear")
    back = moved_section(there, canvas.start, MAPS[name].inverse(), ALL, "linear")
    near = np.ones(SHAPE, bool)
    near[3:-3, 3:-3] = False
    if any(word in name for word in ("pieces", "chain")):
        near |= back == 0  # seams and what they took away: at most the gap, and as much again of the first part
        assert (back == 0).mean() < 0.25
        near = ndimage.binary_dilation(near | (PARTS == 0), iterations=5)
    assert np.abs(back.astype(int) - image)[~near].max() <= 1
    assert (~near).mean() > 0.5


# ---- torn sections --------------------------------------------------------------------------------------------


def test_parts_on_each_other_show_the_first_and_are_never_added():
    """The sum of two parts, each a warp of the whole with zeros around, wrapped around in uint8 where they met."""
    image = np.full((20, 40), 200, np.uint8)
    parts = np.full((20, 40), 1, np.uint8)
    parts[:, 20:] = 2
    image[:, 20:] = 180
    over = Pieces(parts, (Shift(0.0, 3.5), Affine(((1.0, 0.0, 0.0), (0.0, 1.0, -3.25)))))
    found = moved_section(image, (0, 0), over, Window((0, 0), (20, 40)), "linear")
    assert set(np.unique(found)) == {0, 180, 200}
    # A pixel shows a part if its centre lies in it: the first from 3.5 to 23.5.
    assert (found[:, 3:23] == 200).all()
    assert (found[:, 23:36] == 180).all()
    assert not found[:, 37:].any()
    back = moved_section(found, (0, 0), over.inverse(), Window((0, 0), (20, 40)), "linear", fill=7)
    assert (back[:, :20] == 200).all()
    assert (back[:, 20:26] == 7).all(), "what lies beneath has no pixel that shows it"
    assert (back[:, 27:] == 180).all()


@settings(max_examples=25, deadline=None)
@given(
    y=st.floats(-5, 5), x=st.floats(-5, 5), before=st.sampled_from([IDENTITY, Shift(0.5, 2.25), TURN]),
    after=st.sampled_from([IDENTITY, BENT, Shift(3, 1)]),
)  # fmt: skip
def test_no_part_is_mixed_with_another_or_with_the_gap(y, x, before, after):
    """Every part has one grey value of its own, and none in between may appear, whatever comes before or after."""
    colours = np.array([0, 60, 220], np.uint8)
    move = chain(before, Pieces(PARTS, (Shift(y, x), TORN.maps[1])), after)
    canvas = Window((-20, -20), (140, 160))
    home = traced(move, (0, 0), SHAPE, back=False).parts
    image = colours[home]
    there = moved_section(image, (0, 0), move, canvas, "linear")
    assert set(np.unique(there)) <= {0, 60, 220}
    ids = moved_section(image.astype(np.uint64), (0, 0), move, canvas, "nearest")
    assert np.array_equal(ids, there)
    filled = np.where(there == 0, 128, there).astype(np.uint8)  # what was invented in the gap
    back = moved_section(filled, canvas.start, move.inverse(), ALL, "linear")
    kept = (home > 0) & (back != 0)
    kept[:6], kept[-6:], kept[:, :6], kept[:, -6:] = False, False, False, False
    assert set(np.unique(back[kept])) <= {60, 220}
    assert np.array_equal(back[kept], image[kept])
    assert not back[home == 0].any(), "the gap has no source: nothing that was invented comes back"


def test_ids_and_masks_are_not_interpolated():
    for dtype in (np.uint64, np.int64, np.bool_):
        with pytest.raises(InputError, match="as labels"):
            linear(np.zeros((4, 4), dtype), pull(Shift(0.5, 0), (0, 0), (4, 4)))
    with pytest.raises(InputError, match="7 is the most"):
        traced(Chain((TORN,) * 8), (0, 0), (4, 4))


def test_an_empty_source_shows_nothing():
    found = linear(np.zeros((0, 5), np.uint8), pull(TURN, (0, 0), (3, 4)), fill=2)
    assert found.tolist() == [[2] * 4] * 3
