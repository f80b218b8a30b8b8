"""Ring and shell correlation: known spectra, a slow version, and additivity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from emloom.errors import InputError
from emloom.metrics.fourier import ring_correlation, ring_sums

NM = (40.0, 4.0, 4.0)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def slow_rings(x, y, spacing):
    """Return ring frequencies and correlation from the full transform, coefficient by coefficient."""
    window = 1.0
    for n in x.shape:
        window = np.multiply.outer(window, np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2)
    of_x, of_y = (np.fft.fftn((a - a.mean()) * window) for a in (x, y))
    width = max(1 / (n * d) for n, d in zip(x.shape, spacing, strict=True))
    n_rings = int(1 / (2 * min(spacing)) / width + 1e-9)
    sums, counts = np.zeros((3, n_rings + 1)), np.zeros(n_rings + 1, int)
    for place in np.ndindex(x.shape):
        q = np.sqrt(sum(np.fft.fftfreq(n, d)[i] ** 2 for i, n, d in zip(place, x.shape, spacing, strict=True)))
        ring = int(np.rint(q / width))
        if ring <= n_rings:
            a, b = of_x[place], of_y[place]
            sums[:, ring] += (a * b.conjugate()).real, abs(a) ** 2, abs(b) ** 2
            counts[ring] += 1
    return sums[0, 1:] / np.sqrt(sums[1, 1:] * sums[2, 1:]), counts[1:]


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 15, 20), (1, 12, 9)])
def test_rings_are_those_of_the_full_transform(shape):
    x = noise(shape)
    y = x + noise(shape, 1)
    expected, counts = slow_rings(x[0], y[0], NM[1:])
    parts = ring_sums(x, y, NM)
    np.testing.assert_array_equal(parts.n_coefficients, counts)
    np.testing.assert_allclose(ring_correlation([parts]).correlation, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 8, 10), (5, 12, 7)])
def test_shells_are_those_of_the_full_transform(shape):
    x = noise(shape)
    y = x + noise(shape, 1)
    expected, counts = slow_rings(x, y, NM)
    parts = ring_sums(x, y, NM, 3)
    np.testing.assert_array_equal(parts.n_coefficients, counts)
    np.testing.assert_allclose(ring_correlation([parts]).correlation, expected, atol=1e-12)
    assert parts.frequency_per_nm[-1] <= 1 / 8 + 1e-12


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_pair_of_equals_correlates_perfectly(dimensions, dtype):
    x = (128 + 20 * noise((4, 64, 64))).astype(dtype)
    found = ring_correlation([ring_sums(x, x, NM, dimensions)])
    assert (found.correlation == 1).all()
    assert np.isnan([found.resolution_nm, found.resolution_half_bit_nm]).all()
    assert "Nyquist" in found.reason


def test_brightness_and_contrast_change_nothing():
    x, y = noise((2, 64, 64)), noise((2, 64, 64), 1)
    plain = ring_correlation([ring_sums(x, x + y, NM)])
    other = ring_correlation([ring_sums(x, 300 + 5 * (x + y), NM)])
    np.testing.assert_allclose(other.correlation, plain.correlation, atol=1e-12)


def test_white_noise_on_white_structure_gives_the_analytic_curve():
    """Re X Y* / ... of y = x + n is sqrt(S / (S + N)) in every ring, up to the number of its coefficients."""
    x = noise((24, 128, 128))
    found = ring_sums(x, x + 2 * noise(x.shape, 1), NM)
    correlation = ring_correlation([found]).correlation
    # A Hann window correlates neighbouring coefficients, so they count for about a quarter of their number.
    deviation = 1 / np.sqrt(24 * found.n_coefficients / 4)
    assert (np.abs(correlation - np.sqrt(1 / 5)) < 5 * deviation).all()


def test_a_blur_is_not_seen_but_lost_frequencies_are():
    """Correlation does not ask how much of a frequency is left; what was cut off entirely has only noise."""
    x = noise((8, 256, 256))
    blurred = ndimage.gaussian_filter(x, (0, 1, 1), mode="wrap")
    # Not quite 1: the window carries some of the strong frequencies to the weak ones.
    assert ring_correlation([ring_sums(x, blurred, NM)]).correlation.min() > 0.95
    transform = np.fft.fft2(x)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256, 4), np.fft.fftfreq(256, 4), indexing="ij"))
    cut = np.fft.ifft2(transform * (frequency < 1 / 20)).real
    found = ring_correlation([ring_sums(x, cut + 1e-3 * noise(x.shape, 2), NM)])
    assert found.resolution_nm == pytest.approx(20, rel=0.05)
    assert found.resolution_half_bit_nm == pytest.approx(20, rel=0.05)
    assert found.reason == ""


def test_shells_are_round_in_nm():
    """A plane wave along z of 160 nm (4 voxels) and one along y of 160 nm (40 voxels) lie in one shell."""
    z, y, _ = np.indices((32, 80, 8))
    waves = [np.cos(2 * np.pi * z / 4), np.cos(2 * np.pi * y / 40)]
    rings = [ring_sums(wave, wave, (40, 4, 40), 3) for wave in waves]
    peaks = [r.frequency_per_nm[np.argmax(r.sums[0, 1])] for r in rings]
    assert peaks[0] == peaks[1] == pytest.approx(1 / 160, rel=0.3)


def test_sections_add_up_in_any_order():
    x, y = noise((5, 32, 48)), noise((5, 32, 48), 1)
    whole = ring_correlation([ring_sums(x, x + y, NM)])
    parts = [ring_sums(x[a:b], (x + y)[a:b], NM) for a, b in ((3, 5), (0, 1), (1, 3))]
    blockwise = ring_correlation(parts)
    np.testing.assert_array_equal(blockwise.correlation, whole.correlation)
    np.testing.assert_array_equal(blockwise.half_bit, whole.half_bit)


def test_the_half_bit_threshold_is_stricter_with_few_coefficients():
    few, many = (ring_correlation([ring_sums(noise((n, 32, 32)), noise((n, 32, 32), 1), NM)]) for n in (1, 50))
    assert (np.diff(few.half_bit) <= 0).sum() > 10
    assert (few.half_bit > many.half_bit).all()
    assert many.half_bit[-1] == pytest.approx(0.2071 / 1.2071, abs=0.03)  # 1/2 bit: SNR of 2^0.5 - 1, halves
    assert "begins below" in few.reason or few.resolution_nm > 0


def test_a_constant_image_has_a_reason():
    x = noise((1, 16, 16))
    found = ring_correlation([ring_sums(x, np.full(x.shape, 7.0), NM)])
    assert np.isnan(found.correlation).all()
    assert np.isnan(found.resolution_nm)
    assert "constant image" in found.reason


def test_what_cannot_be_transformed_is_refused():
    x = noise((2, 16, 16))
    for bad, says in ((x[:, :8], "on one grid"), (x[0], "on one grid"), (x.astype(complex), "real")):
        with pytest.raises(InputError, match=says):
            ring_sums(x, bad, NM)
    with pytest.raises(InputError, match="dimensions=2"):
        ring_sums(x, x, NM, 3)
    with pytest.raises(InputError, match="not positive"):
        ring_sums(x, x, (0, 4, 4))
    for value in (np.nan, np.inf):
        hole = x.copy()
        hole[1, 2, 3] = value
        with pytest.raises(InputError, match="NaN, infinity"):
            ring_sums(x, hole, NM)
    with pytest.raises(InputError, match="rings differ"):
        ring_correlation([ring_sums(x, x, NM), ring_sums(x[:, :8], x[:, :8], NM)])
    with pytest.raises(InputError, match="one part"):
        ring_correlation([])
