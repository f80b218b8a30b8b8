"""Fidelity per level: laws of known outputs, and the figures measured on real data."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.metrics.bootstrap import bootstrap
from emloom.metrics.frequency import ALL, NO_OUTPUT, NO_REFERENCE, BandFidelity, fidelity, local_map
from emloom.metrics.spectra import concatenate, spectra
from emloom.ops.wavelets import Decomposition, of_sections, of_volume

NM = (5.0, 5.0, 5.0)
FEW = of_sections(4)


def rng(seed=0):
    return np.random.default_rng(seed)


def tissue(shape, seed=0, dtype=np.uint8):
    """Return something with power at all wavelengths."""
    noise = rng(seed).normal(size=shape)
    layers = [ndimage.gaussian_filter(noise, (0, s, s), mode="wrap") * 12 * s for s in (0.5, 1, 2, 4, 8)]
    return np.clip(128 + sum(layers), 0, 255).astype(dtype)


def fidelity_of(x, y, decomposition=FEW, resamples=50):
    return fidelity(spectra(x, y, decomposition, NM), rng(), resamples=resamples)


def whole_levels(rows):
    return [row for row in rows if row.orientation == ALL]


# ---- known outputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize(
    "decomposition",
    [FEW, of_sections(4, wavelet="db2"), of_volume((20, 5, 5), 4)],
    ids=["sections", "db2", "volume"],
)
def test_an_identical_output_is_perfect(dtype, decomposition):
    x = tissue((8, 64, 64), dtype=dtype)
    for row in fidelity_of(x, x, decomposition):
        assert (row.ratio.value, row.median_ratio.value, row.coherence.value, row.error.value) == (1, 1, 1, 0)
        assert row.share_x.value == row.share_y.value
        assert row.ratio.reason == ""
        for found, truth in ((row.ratio, 1), (row.median_ratio, 1), (row.coherence, 1), (row.error, 0)):
            assert found.low == pytest.approx(truth, abs=1e-12)
            assert found.high == pytest.approx(truth, abs=1e-12)


def test_shares_add_up_and_know_no_brightness():
    x = tissue((2, 64, 64)) // 2
    rows, bright = (fidelity_of(a, a) for a in (x, x + np.uint8(100)))
    assert sum(row.share_x.value for row in whole_levels(rows)) == pytest.approx(1)
    parts = [row.share_x.value for row in rows if row.orientation != ALL]
    assert sum(parts) == pytest.approx(1)
    assert [row.share_x for row in rows] == [row.share_x for row in bright]


@pytest.mark.parametrize("factor", [-1.0, 0.5, 2.0, 3.7])
def test_contrast_changes_ratio_and_not_coherence(factor):
    x = tissue((2, 32, 32), dtype=np.float64)
    for row in fidelity_of(x, factor * x + 20):
        assert row.ratio.value == pytest.approx(factor**2)
        assert row.coherence.value == pytest.approx(np.sign(factor))
        assert row.error.value == pytest.approx((factor - 1) ** 2)


def test_white_noise_gives_the_analytic_curve():
    """Every orthonormal coefficient gets sigma^2; a sum of n of their squares is known to about sqrt(2 n)."""
    x, sigma = tissue((8, 256, 256), dtype=np.float64), 20.0
    table = spectra(x, x + rng(1).normal(0, sigma, x.shape), FEW, NM)
    for row in fidelity(table, rng(), resamples=10):
        columns = table.columns(row.level, None if row.orientation == ALL else row.orientation)
        n = sum(table.bands[i].n_coefficients for i in columns) * len(table.tiles)
        energy = table.totals(columns)[0]
        noise = n * sigma**2
        deviation = np.sqrt(2 * n) * sigma**2 + 2 * sigma * np.sqrt(energy)
        assert abs(row.ratio.value - (1 + noise / energy)) < 5 * deviation / energy
        assert abs(row.error.value - noise / energy) < 5 * np.sqrt(2 * n) * sigma**2 / energy
        expected = np.sqrt(energy / (energy + noise))
        assert abs(row.coherence.value - expected) < 5 * sigma / np.sqrt(energy + noise)


def test_an_unrelated_output_has_no_coherence():
    x, y = tissue((8, 128, 128), dtype=np.float64), tissue((8, 128, 128), 9, np.float64)
    for row in whole_levels(fidelity_of(x, y)):
        assert row.ratio.value == pytest.approx(1, abs=0.2)
        assert abs(row.coherence.value) < 0.1
        assert row.error.value == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(
    ("wavelet", "n_levels", "level"),
    [("db1", 6, 1), ("db1", 6, 4), ("db1", 6, 6), ("sym4", 3, 1), ("sym4", 3, 3)],
)
def test_a_band_stop_is_seen_at_its_level_only(wavelet, n_levels, level):
    x = tissue((1, 64, 64), dtype=np.float64)
    c = pywt.wavedec2(x[0], wavelet, mode="periodization", level=n_levels)
    c[-level] = tuple(np.zeros_like(d) for d in c[-level])
    y = pywt.waverec2(c, wavelet, mode="periodization")[None]
    decomposition = Decomposition((1, 64, 64), ((1, 2),) * n_levels, wavelet)
    for row in fidelity_of(x, y, decomposition):
        stopped = row.level == level
        assert row.ratio.value == pytest.approx(0 if stopped else 1, abs=1e-10)
        assert row.error.value == pytest.approx(1 if stopped else 0, abs=1e-10)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
def test_a_blur_keeps_what_its_frequency_response_says(sigma):
    """Of white noise a band keeps the mean of |H|^2, weighted with the response |W|^2 of its wavelet.

    The response of a Haar wavelet is known: a finest difference has 4 sin^2(w / 2), a mean 4 cos^2(w / 2), and
    every next level sees the frequency doubled.
    """
    x = rng().normal(size=(32, 256, 256))
    frequency = np.fft.fftfreq(256)
    gauss = np.exp(-2 * (np.pi * frequency * sigma) ** 2)
    kept = np.multiply.outer(gauss, gauss) ** 2
    y = np.fft.ifft2(np.fft.fft2(x) * np.sqrt(kept)).real
    rows = fidelity_of(x, y, FEW)
    mean, difference = np.ones(256), None
    for level in range(1, 5):
        angle = np.pi * frequency * 2 ** (level - 1)
        difference, mean = mean * np.sin(angle) ** 2, mean * np.cos(angle) ** 2
        response = {
            "x": np.multiply.outer(mean, difference),
            "y": np.multiply.outer(difference, mean),
            "yx": np.multiply.outer(difference, difference),
        }
        for row in rows:
            if row.level == level and row.orientation != ALL:
                weight = response[row.orientation]
                n = x.size / 4**level
                expected = (kept * weight).sum() / weight.sum()
                assert row.ratio.value == pytest.approx(expected, rel=6 / np.sqrt(n))
    ratios = [row.ratio.value for row in whole_levels(rows)]
    assert ratios == sorted(ratios)


# ---- tables ---------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.data(), st.sampled_from([np.uint8, np.float32]), st.integers(0, 1000))
def test_any_split_into_blocks_in_any_order_is_the_whole(data, dtype, seed):
    """G0 to G2: the table, and all values and intervals, bit for bit."""
    decomposition = of_volume((20, 5, 5), 3)
    tile = decomposition.tile_vox
    tiles = (3, 4, 3)
    shape = tuple(n * t for n, t in zip(tiles, tile, strict=True))
    x, y = (rng(seed + i).integers(0, 255, shape).astype(dtype) for i in (0, 1))
    cuts = [[0, *sorted(data.draw(st.sets(st.integers(1, n - 1)))), n] for n in tiles]
    parts = []
    for start in np.ndindex(*(len(cut) - 1 for cut in cuts)):
        first = tuple(cut[i] for cut, i in zip(cuts, start, strict=True))
        stop = tuple(cut[i + 1] for cut, i in zip(cuts, start, strict=True))
        where = Box.of(
            [a * t for a, t in zip(first, tile, strict=True)], [a * t for a, t in zip(stop, tile, strict=True)]
        ).slices()
        parts.append(spectra(x[where], y[where], decomposition, (20, 5, 5), first))
    whole = spectra(x, y, decomposition, (20, 5, 5))
    blockwise = concatenate(data.draw(st.permutations(parts)))
    for name in ("tiles", "n_tiles", "sums"):
        np.testing.assert_array_equal(getattr(blockwise, name), getattr(whole, name))
    assert fidelity(blockwise, rng(), resamples=20) == fidelity(whole, rng(), resamples=20)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_coarse_rows_hold_the_same_energy(dtype):
    x, y = tissue((4, 64, 64), dtype=dtype), tissue((4, 64, 64), 3, dtype)
    table = spectra(x, y, FEW, NM)
    coarse = table.coarsened((2, 4, 4))
    assert coarse.tiles.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert coarse.n_tiles.tolist() == [32, 32]
    for level in range(1, 5):
        columns = table.columns(level)
        assert coarse.totals(columns) == pytest.approx(table.totals(columns), rel=1e-14)
        assert coarse.normalised_sums(level) == pytest.approx(table.normalised_sums(level), rel=1e-14)
    if dtype == np.uint8:
        assert [r.ratio.value for r in fidelity(coarse, rng(), resamples=9)] == [
            r.ratio.value for r in fidelity(table, rng(), resamples=9)
        ]
        halves = concatenate(
            [spectra(x[a:b], y[a:b], FEW, NM, (a, 0, 0)).coarsened((2, 4, 4)) for a, b in ((2, 4), (0, 2))]
        )
        np.testing.assert_array_equal(halves.sums, coarse.sums)


def test_totals_of_large_volumes_do_not_overflow():
    """Sums of a million tiles at the limit of 64 bits each."""
    table = spectra(tissue((1, 16, 16)), tissue((1, 16, 16), 1), FEW, NM)
    n = 1_000_000
    sums = np.full((1, *table.sums.shape[1:]), 2**61 + 1, np.int64)
    large = replace(
        table,
        tiles=np.broadcast_to(np.zeros(3, np.int64), (n, 3)),
        n_tiles=np.broadcast_to(np.ones(1, np.int64), n),
        sums=np.broadcast_to(sums, (n, *sums.shape[1:])),
    )
    column = large.columns(1, "x")
    assert large.totals(column) == ((2**61 + 1) * n / 4, (2**61 + 1) * n / 4, (2**61 + 1) * n / 4, 0)
    pair = spectra(tissue((1, 16, 32)), tissue((1, 16, 32), 1), FEW, NM)
    with pytest.raises(InputError, match="coarsen by less"):
        replace(pair, sums=np.full_like(pair.sums, 2**58)).coarsened(2)


def test_the_error_of_nearly_equal_integers_is_exact():
    """E_x + E_y - 2 C would leave 64 bits on its way, and no digit in floats."""
    x = np.full((1, 16, 16), 255, np.uint8)
    x[0, :, ::2] = 0
    y = x.copy()
    y[0, 0, 0] = 1
    table = spectra(x, y, FEW, NM)
    total = sum(table.totals(table.columns(level))[3] for level in range(1, 5))
    assert total + table.totals(table.columns(4, ""))[3] == 1
    extreme = np.where(np.indices((1, 256, 256)).sum(axis=0) % 2, 2**15 - 1, -(2**15)).astype(np.int16)
    deep = spectra(extreme, -1 - extreme, of_sections(8), NM)
    assert deep.exact
    assert fidelity(deep, rng(), resamples=1)[0].error.value == 4


def test_normalised_sums_are_mean_absolute_coefficients():
    x = tissue((1, 64, 64))
    decomposition = of_sections(6)
    _, *details = pywt.wavedec2(x[0].astype(float), "db1", level=6, mode="periodization")
    table = spectra(x, x[:, ::-1].copy(), decomposition, NM)
    for level, detail in enumerate(details[::-1], 1):
        assert table.normalised_sums(level)[0] == pytest.approx(np.mean([np.abs(d).mean() for d in detail]))
        assert table.normalised_sums(level, "x")[0] == pytest.approx(np.abs(detail[1]).mean())
        assert table.normalised_sums(level)[1] == pytest.approx(table.normalised_sums(level)[0])


def test_wavelengths_are_labelled_by_the_finest_axis():
    rows = fidelity(spectra(tissue((4, 64, 64)), tissue((4, 64, 64)), of_volume((40, 4, 4), 4), (40, 4, 4)), rng())
    assert {row.level: row.wavelength_nm for row in rows} == {1: 8, 2: 16, 3: 32, 4: 64}
    assert [row.orientation for row in rows if row.level == 1] == [ALL, "x", "y", "yx"]
    assert [row.orientation for row in rows if row.level == 4] == [ALL, "x", "y", "yx", "z", "zx", "zy", "zyx"]


# ---- intervals ------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_the_generic_bootstrap():
    """The same draws, in Python, tile by tile."""
    x = tissue((7, 48, 64), dtype=np.float64)
    x[0, :16, :16] = 7  # a tile without power
    table = spectra(x, x + rng(5).normal(0, 9, x.shape), FEW, NM)
    for row in fidelity(table, rng(3), resamples=60, level=0.9):
        columns = table.columns(row.level, None if row.orientation == ALL else row.orientation)
        tiles = list(table.energies(columns))
        powers = [
            sum(table.energies(table.columns(level))[t, 0] for level in range(1, 5)) for t in range(len(tiles))
        ]
        blocks = [np.append(tile, power) for tile, power in zip(tiles, powers, strict=True)]

        def median(rows):
            return float(np.median([r[1] / r[0] for r in rows if r[0] > 0]))

        statistics = {
            "share_x": lambda rows: sum(r[0] for r in rows) / sum(r[4] for r in rows),
            "ratio": lambda rows: sum(r[1] for r in rows) / sum(r[0] for r in rows),
            "median_ratio": median,
            "coherence": lambda rows: (
                sum(r[2] for r in rows) / np.sqrt(sum(r[0] for r in rows) * sum(r[1] for r in rows))
            ),
            "error": lambda rows: sum(r[3] for r in rows) / sum(r[0] for r in rows),
        }
        for name, statistic in statistics.items():
            expected = bootstrap(blocks, statistic, list, rng(3), resamples=60, level=0.9)
            found = getattr(row, name)
            assert (found.value, found.low, found.high) == pytest.approx(
                (expected.value, expected.low, expected.high), rel=1e-10
            )
            assert (found.n_blocks, found.n_resamples, found.n_undefined, found.reason) == (84, 60, 0, "")


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    table = spectra(tissue((7, 48, 64)), tissue((7, 48, 64), 1), FEW, NM)
    whole = fidelity(table, rng(), resamples=30)
    monkeypatch.setattr("emloom.metrics.frequency._DRAWN_AT_ONCE", 7 * 84)
    for a, b in zip(whole, fidelity(table, rng(), resamples=30), strict=True):
        assert a.ratio == b.ratio
        assert a.median_ratio == b.median_ratio


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """R = 1 + sigma^2 for white noise of variance 1: 300 experiments of 40 tiles, 80 % intervals."""
    hits = 0
    for seed in range(300):
        x = rng(seed).normal(size=(40, 4, 4))
        y = x + 0.5 * rng(10_000 + seed).normal(size=x.shape)
        row = fidelity(spectra(x, y, of_sections(2), NM), rng(seed), resamples=200, level=0.8)[0]
        hits += row.ratio.low <= 1.25 <= row.ratio.high
    assert 0.7 < hits / 300 < 0.88


# ---- undefined ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_constant_image_has_reasons_and_no_numbers(dtype):
    flat, x = np.full((2, 32, 32), 90, dtype), tissue((2, 32, 32), dtype=dtype)
    for row in fidelity_of(flat, x):
        assert np.isnan([row.share_x.value, row.ratio.value, row.median_ratio.value, row.coherence.value]).all()
        assert np.isnan([row.error.value, row.ratio.low, row.ratio.high]).all()
        assert row.ratio.reason == row.error.reason == row.coherence.reason == NO_REFERENCE
        assert "constant in every tile" in row.share_x.reason
        assert row.share_y.value > 0
    for row in fidelity_of(x, flat):
        assert (row.ratio.value, row.median_ratio.value, row.error.value, row.share_x.reason) == (0, 0, 1, "")
        assert np.isnan(row.coherence.value)
        assert row.coherence.reason == NO_OUTPUT


def test_a_constant_tile_leaves_the_others_alone():
    x = tissue((4, 32, 32), dtype=np.float64)
    y = 2 * x
    x[0, :16, :16] = 7
    y[0, :16, :16] = 7
    for row in whole_levels(fidelity_of(x, y)):
        assert row.median_ratio.value == pytest.approx(4)
        assert row.median_ratio.n_undefined == 0


def test_a_power_in_few_tiles_says_how_many_resamples_lack_it():
    x = np.full((4, 16, 16), 9.0)
    x[0] = tissue((1, 16, 16))[0]
    row = fidelity_of(x, x, resamples=400)[0]
    assert row.ratio.value == 1
    assert row.ratio.n_undefined == row.median_ratio.n_undefined > 0
    assert "left out" in row.ratio.reason


def test_one_tile_has_no_interval():
    row = fidelity_of(tissue((1, 16, 16)), tissue((1, 16, 16)))[0]
    assert row.ratio.value == 1
    assert np.isnan(row.ratio.low)
    assert "one block" in row.ratio.reason


def test_what_does_not_go_together_is_refused():
    x = tissue((2, 32, 32))
    table = spectra(x, x, FEW, NM)
    with pytest.raises(InputError, match=r"tile \(0, 0, 0\) .* in two tables"):
        concatenate([table, table])
    with pytest.raises(InputError, match="differ in decomposition"):
        concatenate([table, spectra(x, x, of_sections(3), NM, (2, 0, 0))])
    with pytest.raises(InputError, match="differ in decomposition"):
        concatenate([table, spectra(x.astype(float), x, FEW, NM, (2, 0, 0))])
    with pytest.raises(InputError, match="no table"):
        concatenate([])
    with pytest.raises(InputError, match="not positive"):
        spectra(x, x, FEW, (5, 0, 5))
    with pytest.raises(InputError, match=r"level 9 .* 1 \(finest\) to 4"):
        table.columns(9)
    with pytest.raises(InputError, match="'z'"):
        table.columns(1, "z")
    with pytest.raises(InputError, match="level 3 and orientation ''"):
        table.columns(3, "")  # only the last level leaves an approximation
    with pytest.raises(InputError, match="at least 1"):
        table.coarsened(0)
    with pytest.raises(InputError, match="level such as"):
        fidelity(table, rng(), level=95)
    empty = replace(table, tiles=table.tiles[:0], n_tiles=table.n_tiles[:0], sums=table.sums[:0])
    with pytest.raises(InputError, match="no block"):
        fidelity(empty, rng())
    with pytest.raises(InputError, match="no tile"):
        local_map(empty, 1)


def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "metrics-frequency.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    names = {"reference": tissue((2, 256, 512)), "output": tissue((2, 256, 512), 1)}
    exec(example, names)
    assert len(capsys.readouterr().out.splitlines()) == 8 * 4
    np.testing.assert_array_equal(names["blockwise"].sums, names["table"].sums)
    shown = {line.split("`")[1::2][0] for line in page.splitlines() if line.startswith("| `")}
    assert {field.name for field in fields(BandFidelity)} - {
        "level",
        "orientation",
        "wavelength_nm",
        "share_y",
    } <= shown


# ---- maps -----------------------------------------------------------------------------------------------------


def test_a_map_finds_the_tile_that_was_made_up():
    x = tissue((2, 64, 48), dtype=np.float64)
    y = x.copy()
    y[1, 32:48, 16:32] = tissue((1, 64, 48), 8, np.float64)[0, 32:48, 16:32]  # as much, but not the same
    y[0, :16, :16] *= 0.1  # lost, not invented
    found = local_map(spectra(x, y, FEW, NM, (5, 0, 2)), 2)
    assert found.first_tile == (5, 0, 2)
    assert np.argwhere(found.hallucinated((0.3, 3))).tolist() == [[1, 2, 1]]
    assert found.invented_ZYX[1, 2, 1] > 0.2
    assert found.ratio_ZYX[0, 0, 0] == pytest.approx(0.01)
    assert found.error_ZYX[0, 0, 0] == pytest.approx(0.81)
    others = np.ones(found.ratio_ZYX.shape, bool)
    others[1, 2, 1] = False
    assert np.abs(found.invented_ZYX[others]).max() < 1e-12


def test_a_map_has_holes_where_there_is_nothing():
    x = tissue((1, 32, 32))
    table = concatenate([spectra(x, x, FEW, NM, (0, 0, 0)), spectra(x, x, FEW, NM, (0, 4, 4))])
    ratio = local_map(table, 1, "yx").ratio_ZYX
    assert ratio.shape == (1, 6, 6)
    assert np.isnan(ratio).sum() == 36 - 8
    assert not local_map(table, 1).hallucinated().any()
