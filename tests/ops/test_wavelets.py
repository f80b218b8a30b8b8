"""Wavelet energies of a pair: PyWavelets' numbers, exact where they can be, and additive."""

from __future__ import annotations

import warnings
from math import prod

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.haar import fits_int64
from emloom.ops.wavelets import Decomposition, diagonal_histogram, of_sections, of_volume, pair_energies

ANISOTROPIC = of_volume((40, 4, 4), 5)


def noise(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def normalised(energies, decomposition):
    """Return the sums as float64, in units of the orthonormal transform."""
    sums = energies.sums.astype(np.float64)
    if energies.exact:
        halvings = np.array([band.halvings for band in decomposition.bands])[:, None]
        sums[..., :3] /= 2.0**halvings
        sums[..., 3:] /= 2.0 ** (halvings / 2)
    return sums


def by_pywt(tile, decomposition):
    """Return the coefficients of each band from PyWavelets, level after level by `wavedecn`."""
    means, out = tile.astype(np.float64), {}
    for level, axes in enumerate(decomposition.axes, 1):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Level value of 1 is too high")  # short against the filter: it wraps
            means, details = pywt.wavedecn(means, decomposition.wavelet, "periodization", level=1, axes=axes)
        for key, values in details.items():
            name = "".join("zyx"[axis] for axis, letter in zip(axes, key, strict=True) if letter == "d")
            out[level, name] = values
    out[decomposition.n_levels, ""] = means
    return [out[band.level, band.orientation] for band in decomposition.bands]


def by_hand(x, y, decomposition):
    tile = decomposition.tile_vox
    tiles = tuple(n // t for n, t in zip(x.shape, tile, strict=True))
    out = np.zeros((*tiles, len(decomposition.bands), 5))
    for place in np.ndindex(tiles):
        where = Box(tuple(i * t for i, t in zip(place, tile, strict=True)), tile).slices()
        pairs = zip(by_pywt(x[where], decomposition), by_pywt(y[where], decomposition), strict=True)
        out[place] = [
            ((u**2).sum(), (v**2).sum(), (u * v).sum(), np.abs(u).sum(), np.abs(v).sum()) for u, v in pairs
        ]
    return out


# ---- the same numbers as PyWavelets ---------------------------------------------------------------------------


@pytest.mark.parametrize("wavelet", ["db1", "haar", "db2", "sym4"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize(
    ("axes", "tile", "shape"),
    [
        (((1, 2),) * 4, (1, 16, 32), (2, 32, 64)),
        (((0, 1, 2),) * 3, (8, 8, 8), (16, 8, 16)),
        (((1, 2), (1, 2), (0, 1, 2)), (4, 16, 8), (4, 16, 16)),
        (((2,), (0, 2), (0,), (0, 1, 2)), (8, 2, 8), (8, 4, 8)),
    ],
    ids=["sections", "isotropic", "anisotropic", "odd axes"],
)
def test_sums_are_those_of_pywavelets(wavelet, dtype, axes, tile, shape):
    decomposition = Decomposition(tile, axes, wavelet)
    small = np.int16 if dtype == np.int64 else dtype  # squares of wide integers are not what is tested
    x, y = noise(shape, small).astype(dtype), noise(shape, small, 1).astype(dtype)
    expected = by_hand(x, y, decomposition)
    scale = np.abs(expected).max(axis=tuple(range(expected.ndim - 1)))
    np.testing.assert_allclose(
        normalised(pair_energies(x, y, decomposition), decomposition) / scale, expected / scale, atol=1e-12
    )


def test_sections_are_wavedec2():
    x, decomposition = noise((1, 256, 256)), of_sections()
    dc, *details = pywt.wavedec2(x[0].astype(float), "db1", level=8, mode="periodization")
    horizontal_vertical_diagonal = [[(c**2).sum() for c in level] for level in details[::-1]]
    energy = normalised(pair_energies(x, x, decomposition), decomposition)[0, 0, 0, :, 0]
    found = {(b.level, b.orientation): e for b, e in zip(decomposition.bands, energy, strict=True)}
    for level, expected in enumerate(horizontal_vertical_diagonal, 1):
        np.testing.assert_allclose([found[level, o] for o in ("y", "x", "yx")], expected, rtol=1e-12)
    assert found[8, ""] == pytest.approx(float(dc[0, 0]) ** 2)


def test_anisotropic_levels_are_those_a_person_would_choose():
    assert ANISOTROPIC.axes == ((1, 2), (1, 2), (1, 2), (0, 1, 2), (0, 1, 2))
    assert ANISOTROPIC.tile_vox == (4, 32, 32)
    assert of_volume((8, 8, 8), 3).axes == ((0, 1, 2),) * 3
    assert of_volume((30, 6, 6), 4).axes == ((1, 2), (1, 2), (0, 1, 2), (0, 1, 2))
    assert [ANISOTROPIC.wavelength_nm(level, (40, 4, 4)) for level in range(1, 6)] == [8, 16, 32, 64, 128]
    assert sum(b.n_coefficients for b in ANISOTROPIC.bands) == prod(ANISOTROPIC.tile_vox)


# ---- laws -----------------------------------------------------------------------------------------------------


@st.composite
def decompositions(draw):
    axes = draw(st.lists(st.sets(st.integers(0, 2), min_size=1).map(tuple), min_size=1, max_size=4))
    halvings = [sum(axis in level for level in axes) for axis in range(3)]
    return Decomposition(tuple(draw(st.integers(1, 2)) * 2**h for h in halvings), tuple(axes))


@settings(max_examples=40)
@given(decompositions(), st.sampled_from([np.uint8, np.int8, np.int16, bool]), st.integers(0, 2**32 - 1))
def test_parseval_is_exact_for_integers(decomposition, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype is bool:
        x, y = rng.random((2, *decomposition.tile_vox)) < 0.3
    else:
        x, y = noise(decomposition.tile_vox, dtype, seed), noise(decomposition.tile_vox, dtype, seed + 1)
    energies = pair_energies(x, y, decomposition)
    assert energies.exact
    deepest = sum(decomposition.halvings)
    total = [0, 0, 0]
    for band, sums in zip(decomposition.bands, energies.sums[0, 0, 0].tolist(), strict=True):
        total = [t + (s << (deepest - band.halvings)) for t, s in zip(total, sums[:3], strict=True)]
    u, v = x.astype(np.int64), y.astype(np.int64)
    assert total == [int((a * b).sum()) << deepest for a, b in ((u, u), (v, v), (u, v))]


@pytest.mark.parametrize("wavelet", ["db1", "db2", "sym4", "coif2", "db8"])
@pytest.mark.parametrize("decomposition", [of_sections(6), ANISOTROPIC], ids=["sections", "volume"])
def test_parseval_for_floats(wavelet, decomposition):
    decomposition = Decomposition(decomposition.tile_vox, decomposition.axes, wavelet)
    x = noise(tuple(2 * n for n in decomposition.tile_vox), np.float64)
    total = normalised(pair_energies(x, x, decomposition), decomposition)[..., 0].sum()
    assert total == pytest.approx((x**2).sum(), rel=1e-10)


@pytest.mark.parametrize("value", [0, 255])
def test_the_largest_sums_fit(value):
    """A checkerboard of extremes, and all white: where integers are largest."""
    decomposition = of_sections()
    white = np.full((1, 256, 256), 255, np.uint8)
    board = ((np.indices(white.shape).sum(axis=0) % 2) * 255).astype(np.uint8)
    found = {
        (b.level, b.orientation): sums.tolist()
        for b, sums in zip(
            decomposition.bands, pair_energies(white, board, decomposition).sums[0, 0, 0], strict=True
        )
    }
    assert found[8, ""][0] == (255 * 65536) ** 2
    assert found[1, "yx"][1] == (2 * 255) ** 2 * 128 * 128
    assert found[8, ""][2] == 255 * 65536 * 255 * 32768
    if value:
        deepest = np.full((1, 256, 256), -(2**15), np.int16)
        assert pair_energies(deepest, deepest, decomposition).sums.max() == 2**62


def test_what_might_not_fit_is_not_called_exact():
    assert fits_int64(np.dtype(np.uint8), (1, 256, 256), 16)
    assert fits_int64(np.dtype(np.int16), (1, 256, 256), 16)
    assert not fits_int64(np.dtype(np.uint16), (1, 256, 256), 16)
    assert fits_int64(np.dtype(np.uint16), (1, 128, 128), 14)
    assert not fits_int64(np.dtype(np.int32), (1, 256, 256), 16)
    white = np.full((1, 256, 256), 2**16 - 1, np.uint16)
    energies = pair_energies(white, white, of_sections())
    assert not energies.exact
    assert energies.sums[0, 0, 0, -1, 0] == (2.0**16 - 1) ** 2 * 2**16


def test_mixed_types_are_their_values():
    x, y = noise((1, 16, 16)), noise((1, 16, 16), np.int8, 1)
    decomposition = of_sections(4)
    mixed = pair_energies(x, y, decomposition)
    assert mixed.exact
    np.testing.assert_array_equal(
        mixed.sums, pair_energies(x.astype(np.int16), y.astype(">i2"), decomposition).sums
    )
    floats = pair_energies(x, y.astype(np.float32), decomposition)
    np.testing.assert_allclose(floats.sums, normalised(mixed, decomposition), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("wavelet", ["db1", "db2"])
def test_a_tile_has_the_same_bits_in_any_block(dtype, wavelet):
    decomposition = Decomposition((2, 8, 8), ((1, 2), (0, 1, 2)), wavelet)
    x, y = noise((4, 24, 16), dtype), noise((4, 24, 16), dtype, 1)
    whole = pair_energies(x, y, decomposition).sums
    for place in np.ndindex(2, 3, 2):
        where = Box(tuple(i * t for i, t in zip(place, (2, 8, 8), strict=True)), (2, 8, 8)).slices()
        np.testing.assert_array_equal(pair_energies(x[where], y[where], decomposition).sums[0, 0, 0], whole[place])


def test_arrays_need_not_be_contiguous():
    x = noise((32, 16, 2))
    np.testing.assert_array_equal(
        pair_energies(x.T, x.T[:, ::-1], of_sections(4)).sums,
        pair_energies(x.T.copy(), x.T[:, ::-1].copy(), of_sections(4)).sums,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, bool])
def test_the_diagonal_histogram_counts_coefficients(dtype):
    x = noise((3, 21, 34)) > 100 if dtype is bool else noise((3, 21, 34), dtype)
    whole = x[:, :20].astype(np.int64)
    u = np.abs(whole[:, ::2, ::2] - whole[:, ::2, 1::2] - whole[:, 1::2, ::2] + whole[:, 1::2, 1::2])
    counts = diagonal_histogram(x)
    np.testing.assert_array_equal(counts, np.bincount(u.ravel(), minlength=counts.size))
    np.testing.assert_array_equal(counts, sum(diagonal_histogram(section[None]) for section in x))


# ---- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Decomposition((1, 100, 64), ((1, 2),) * 4),
            r"100 voxels along y .* 4 times.* is 112, or at most 2 levels",
        ),
        (lambda: Decomposition((1, 8, 8), ()), "1 level or more"),
        (lambda: Decomposition((1, 8, 8), ((1, 2), ())), "1 level or more"),
        (lambda: Decomposition((1, 8, 8), ((1, 3),)), "0 \\(z\\)"),
        (lambda: of_sections(0), "1 level or more"),
        (lambda: of_sections(3, wavelet="bior2.2"), "not orthogonal"),
        (lambda: of_sections(3, wavelet="dmey"), "not orthogonal"),
        (lambda: of_sections(3, wavelet="smy4"), "did you mean 'sym4'"),
        (lambda: of_volume((40, 0, 4), 3), "not positive"),
    ],
)
def test_impossible_decompositions_say_why(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 300, 256), "300 voxels along y .* crop to 256 or pad to 512; 300 voxels can be halved 2 times"),
        ((1, 256, 40), "40 voxels along x .* of 256: pad to 256; 40 voxels can be halved 3 times"),
        ((0, 256, 256), "0 voxels along z"),
        ((256, 256), "\\[Z, Y, X\\]"),
    ],
)
def test_a_shape_that_is_no_number_of_tiles_says_what_would_be(shape, says):
    with pytest.raises(InputError, match=says):
        pair_energies(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), of_sections())


def test_whole_tiles_of_a_shape_can_be_taken():
    assert of_sections().whole_tiles((3, 1000, 520)) == Box((0, 0, 0), (3, 768, 512))
    assert of_sections().whole_tiles((3, 100, 520)).is_empty


def test_different_shapes_and_complex_numbers_are_refused():
    x = np.zeros((1, 8, 8))
    with pytest.raises(InputError, match="on one grid"):
        pair_energies(x, x[:, :4], of_sections(2))
    with pytest.raises(InputError, match="real"):
        pair_energies(x, x.astype(complex), of_sections(2))


@pytest.mark.parametrize("wavelet", ["db1", "sym4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_what_is_not_finite_is_named(value, wavelet):
    x = np.zeros((2, 16, 16))
    y = x.copy()
    y[1, 3, 12] = value
    with pytest.raises(InputError, match=r"tile \(1, 0, 1\) .* NaN, infinity"):
        pair_energies(x, y, Decomposition((1, 8, 8), ((1, 2),) * 2, wavelet))


def test_only_small_integers_are_counted():
    with pytest.raises(InputError, match="8 or 16 bits"):
        diagonal_histogram(np.zeros((1, 4, 4), np.float32))
