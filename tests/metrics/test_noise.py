"""Noise of a reference, and what an ideal denoiser keeps: known noise, and the figures measured on real data."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy import ndimage

from emloom.errors import InputError
from emloom.metrics.fourier import ring_correlation, ring_sums
from emloom.metrics.frequency import ALL, fidelity
from emloom.metrics.noise import neighbours, noise_sigma, section_sigmas, sigma_of_histogram, signal_targets
from emloom.metrics.spectra import concatenate, spectra
from emloom.ops.wavelets import diagonal_histogram, of_sections, of_volume

NM = (5.0, 5.0, 5.0)
FEW = of_sections(4)


def smooth(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return 128 + 300 * ndimage.gaussian_filter(noise, (8, 4, 4), mode="wrap")


def white(shape, sigma, seed=1):
    return np.random.default_rng(seed).normal(0, sigma, shape)


@pytest.mark.parametrize("sigma", [2.0, 10.0, 30.0])
def test_sigma_of_known_noise_on_smooth_structure(sigma):
    x = smooth((8, 128, 128)) + white((8, 128, 128), sigma)
    assert noise_sigma(x) == pytest.approx(sigma, rel=0.05)
    # Coefficients of integers are whole, so sigma comes in steps of 0.74.
    assert noise_sigma(np.round(x).astype(np.int16)) == pytest.approx(sigma, rel=0.05, abs=0.38)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 5, 8), (2, 64, 65)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_integers_are_counted_and_floats_sorted_to_the_same_sigma(shape, dtype):
    x = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    assert noise_sigma(x) == noise_sigma(x.astype(np.float64))
    halves = [diagonal_histogram(x[:1, a : a + 2]) for a in range(0, shape[1] - 1, 2)]
    assert section_sigmas(x)[0] == sigma_of_histogram(sum(halves))


def test_the_powers_of_the_noise_of_sections_add_up():
    x = np.concatenate([white((1, 128, 128), sigma, seed) for seed, sigma in enumerate((1, 1, 10))])
    np.testing.assert_allclose(section_sigmas(x), [1, 1, 10], rtol=0.05)
    assert noise_sigma(x) == pytest.approx(np.sqrt(102 / 3), rel=0.05)
    table = spectra(x, x, FEW, NM)
    assert signal_targets(table, noise_sigma(x))[0].noise_share == pytest.approx(1, abs=0.08)


def test_sigma_of_a_section_with_a_hole_is_unknown():
    x = white((2, 16, 16), 1)
    x[1, 2, 3] = np.nan
    assert np.isnan(section_sigmas(x)).tolist() == [False, True]
    assert np.isnan(noise_sigma(x))


def test_no_voxels_have_no_noise():
    assert np.isnan(noise_sigma(np.zeros((2, 1, 9), np.uint8)))
    assert np.isnan(noise_sigma(np.zeros((2, 1, 9), np.float32)))
    assert np.isnan(noise_sigma(np.zeros((0, 8, 8), np.uint8)))


def test_both_targets_are_the_share_of_the_signal():
    """Structure that changes slowly with z, and white noise: both targets are the truth."""
    structure, sigma = smooth((16, 128, 128)), 10.0
    x = structure + white(structure.shape, sigma)
    truth = [
        row.ratio.value
        for row in fidelity(spectra(x, structure, FEW, NM), np.random.default_rng(0), resamples=1)
        if row.orientation == ALL
    ]
    table = spectra(x, x, FEW, NM)
    targets = signal_targets(table, noise_sigma(x), neighbours(x, FEW, NM))
    for target, expected in zip(targets, truth, strict=True):
        assert target.by_noise == pytest.approx(expected, abs=0.08)
        assert target.by_neighbours == pytest.approx(expected, abs=0.08)
        assert target.noise_share == pytest.approx(1 - expected, abs=0.08)
        assert target.reason == ""
    assert [target.wavelength_nm for target in targets] == [10, 20, 40, 80]
    assert targets[0].by_noise < 0.1 < 0.85 < targets[3].by_noise


def test_blocks_of_neighbours_overlap_by_a_section():
    x = np.random.default_rng(0).integers(0, 255, (7, 32, 32), np.uint8)
    blocks = [neighbours(x[a : b + 1], FEW, NM, a) for a, b in ((3, 6), (0, 3))]
    np.testing.assert_array_equal(concatenate(blocks).sums, neighbours(x, FEW, NM).sums)


def test_what_has_no_target_says_why():
    x = np.full((2, 16, 16), 9, np.uint8)
    table = spectra(x, x, FEW, NM)
    flat = signal_targets(table, 1.0, neighbours(x, FEW, NM))[0]
    assert np.isnan([flat.noise_share, flat.by_noise, flat.by_neighbours]).all()
    assert "no power" in flat.reason
    x[0, 0, 0] = 200
    alone = signal_targets(spectra(x, x, FEW, NM), 0.0)[0]
    assert (alone.noise_share, alone.by_noise) == (0, 1)
    assert "not compared" in alone.reason
    with pytest.raises(InputError, match="0 or more"):
        signal_targets(table, float("nan"))
    with pytest.raises(InputError, match="use one for both"):
        signal_targets(table, 1.0, neighbours(x, of_sections(3), NM))
    with pytest.raises(InputError, match="of_sections"):
        neighbours(x, of_volume(NM, 1), NM)
    with pytest.raises(InputError, match="there have to be two"):
        neighbours(x[:1], FEW, NM)


@pytest.mark.real_data
def test_figures_of_hippocampus(real_data):
    """Measured before on 100 tiles of the *testing* stack; here are 240 tiles of the training stack, 20 sections.

    Other tissue from the same microscope: coherences agree to 0.005, shares of power to 0.015. The tiles of
    adjacent sections are nearly copies, so 240 of them know the coarse levels little better than the 12 of one.
    """
    path = real_data / "epfl_hippocampus" / "train_z000-019.h5"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with h5py.File(path) as file:
        raw = file["volumes/raw"][:]
    decomposition = of_sections()
    table, adjacent = spectra(raw, raw, decomposition, NM), neighbours(raw, decomposition, NM)
    assert table.exact
    assert table.tiles.shape == (240, 3)
    rng = np.random.default_rng(0)
    rows = [row for row in fidelity(table, rng, resamples=500) if row.orientation == ALL][::-1]
    between = [row for row in fidelity(adjacent, rng, resamples=500) if row.orientation == ALL][::-1]
    coherence = [row.coherence.value for row in between]
    np.testing.assert_allclose(coherence, [0.998, 0.997, 0.993, 0.984, 0.969, 0.927, 0.695, 0.158], atol=0.005)
    share = [row.share_x.value for row in rows]
    np.testing.assert_allclose(share, [0.048, 0.121, 0.150, 0.183, 0.194, 0.134, 0.072, 0.097], atol=0.015)
    assert rows[0].share_x.low < 0.05 < 0.058 < rows[0].share_x.high
    targets = signal_targets(table, noise_sigma(raw), adjacent)
    np.testing.assert_allclose([t.noise_share for t in targets[:3]], [0.77, 0.26, 0.035], rtol=0.03)
    assert targets[0].by_neighbours < targets[0].by_noise < 0.25
    # Fourier rings see the same: adjacent sections stop to agree where the two finest levels lie.
    correlation = ring_correlation([ring_sums(raw[:-1], raw[1:], NM)])
    assert 10 < correlation.resolution_nm < 40


@pytest.mark.real_data
def test_figures_of_thick_sections(real_data):
    """Measured before on ISBI 2012, 30 sections: 28 % and 5 % noise. Here are 20 of them, the last 5 noisier."""
    path = real_data / "isbi2012_cardona" / "train_z00-19.h5"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with h5py.File(path) as file:
        raw = file["volumes/raw"][:]
    size, decomposition = (50, 4, 4), of_sections()
    targets = signal_targets(
        spectra(raw, raw, decomposition, size), noise_sigma(raw), neighbours(raw, decomposition, size)
    )
    np.testing.assert_allclose([t.noise_share for t in targets[:2]], [0.28, 0.05], rtol=0.2)
    assert section_sigmas(raw)[15:].min() > 2 * np.median(section_sigmas(raw)[:15])
    # At 50 nm neighbours share little, and their coherence is no target.
    assert targets[0].by_neighbours < 0.05
