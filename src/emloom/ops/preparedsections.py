"""A section made ready for comparison with its neighbours: small, and made once.

Two pictures of the section are kept, both with local mean 0 and local deviation 1, in int8, 32 to a deviation:
`fine` for precision and `coarse` for the search. What is no tissue is `VOID` in both: pixels the caller excludes,
values that are not finite, and flat areas (blank, saturated, padded), which no microscope's noise leaves flat. As
the rest has mean 0, the outline of a void is invisible, and does not pull a section to where its neighbour's is.

::

    raw  --mean of f x f-->  fine  --mean of k x k-->  coarse        f k: pixels per side of a coarse pixel
                              long side <= 2048        <= 512

Nothing else is remembered of a section: 4 MB at most, however large it is. `Prepared.arrays` goes into an npz,
`Prepared.of` takes it from there. The spectrum of the coarse picture is made when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy import fft, ndimage

from emloom.errors import InputError
from emloom.ops.finershifts import low_frequencies

I8 = NDArray[np.int8]
F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

VOID = -128
UNIT = 32.0
LEAST_SIDE = 32
_FINE, _WHOLE, _COARSE, _HALVED = 2048, 1024, 512, 256  # pixels of the long side
_LOCAL = 4  # coarse pixels per pixel of the map of local means
_LOCAL_SIGMA = 2.0  # pixels of that map
_FLAT_PX = 9
_FADE = 8  # coarse pixels over which a picture ends


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is kept of a section.

    Attributes:
        shape: (Y, X) of the section, pixels.
        factors: pixels per side of a fine and of a coarse pixel; the second is a multiple of the first.
        fine: int8 [Y // factors[0], X // factors[0]], local mean 0, local deviation `UNIT`; `VOID`: no tissue.
        coarse: the same of coarse pixels, smoothed by one of them.
        usable: share of the section that is tissue.
        contrast: median local deviation of coarse pixels, grey levels; 0 where nothing is usable.
        detail: share of the local variance of fine pixels that is above that of coarse ones; blur takes it away.
    """

    shape: tuple[int, int]
    factors: tuple[int, int]
    fine: I8
    coarse: I8
    usable: float
    contrast: float
    detail: float
    # Not functools.cached_property: its lock, before Python 3.12, would let one thread at a time do this.
    _made: dict[str, NDArray[np.complex64]] = field(default_factory=dict, init=False, repr=False)

    @property
    def spectrum(self) -> NDArray[np.complex64]:
        """Fourier transform of the coarse picture, void 0, faded at its edges; complex64; made once."""
        if "spectrum" not in self._made:
            self._made["spectrum"] = np.asarray(fft.rfft2(_faded(self.coarse), s=self.padded), np.complex64)
        return self._made["spectrum"]

    @property
    def low_frequencies(self) -> NDArray[np.complex64]:
        """Low part of the spectrum of the fine picture, as `emloom.ops.finershifts` has it; made once."""
        if "low" not in self._made:
            self._made["low"] = low_frequencies(_faded(self.fine))
        return self._made["low"]

    @property
    def padded(self) -> tuple[int, int]:
        """Sides of the coarse picture, enlarged to what transforms fast."""
        rows, columns = self.coarse.shape
        return int(fft.next_fast_len(rows, real=True)), int(fft.next_fast_len(columns, real=True))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays by name, for `numpy.savez`."""
        return {
            "fine": self.fine,
            "coarse": self.coarse,
            "shape": np.array(self.shape, np.int64),
            "factors": np.array(self.factors, np.int64),
            "measures": np.array([self.usable, self.contrast, self.detail]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Prepared:
        """Return what `arrays` was called on."""
        (y, x), (fine, coarse) = arrays["shape"].tolist(), arrays["factors"].tolist()
        usable, contrast, detail = arrays["measures"].tolist()
        return cls((y, x), (fine, coarse), arrays["fine"], arrays["coarse"], usable, contrast, detail)


def prepare(section_YX: ArrayLike, usable_YX: ArrayLike | None = None) -> Prepared:
    """Make a section ready.

    Args:
        section_YX: any integers or floats; values that are not finite count as unusable.
        usable_YX: bool, where there is tissue worth comparing; None: wherever the section is not flat.

    Raises:
        InputError: not a picture of at least 32 x 32 pixels, or a mask of another shape.
    """
    image, mask = _checked(section_YX, usable_YX)
    first, second = factors_for(image.shape)
    fine, fine_ok = _shrink(image, mask, first)
    coarse, ok, flat = _shrink_again(fine, fine_ok, second // first)
    ok &= ~_flat(flat, coarse, second)
    local = _local(coarse, ok)
    level = np.median(local[1][local[1] > 0]) if ok.any() else 0.0
    deviation = np.maximum(local[1], np.float32(max(level / 4, 1e-12)))
    scale = (UNIT / deviation).astype(np.float32)
    fine8, power = _normalised(fine, fine_ok, ok, local[0], scale)
    coarse8, smooth_power = _smoothed(_normalised(coarse, ok, ok, local[0], scale)[0])
    return Prepared(
        (image.shape[0], image.shape[1]),
        (first, second),
        fine8,
        coarse8,
        float(ok.mean()),
        float(level),
        max(0.0, 1 - smooth_power / power) if power > 0 else 0.0,
    )


def factors_for(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return pixels per side of a fine and of a coarse pixel for sections of a shape."""
    long = max(shape)
    fine = 1 if long <= _WHOLE else max(2, -(-long // _FINE))
    coarse = max(2 if long >= _HALVED else 1, -(-long // _COARSE))
    return fine, fine * -(-coarse // fine)


def plain(picture_YX: I8) -> F32:
    """Return a picture in local deviations, float32, void 0."""
    out = picture_YX.astype(np.float32)
    out[picture_YX == VOID] = 0
    out /= np.float32(UNIT)
    return out


def _faded(picture: I8) -> F32:
    """Return a picture in local deviations, void 0, faded at its edges."""
    out = plain(picture)
    out *= fade(picture.shape[0])[:, None] * fade(picture.shape[1])
    return out


def fade(n: int) -> F32:
    """Return a window [n] that rises and falls over a few pixels at its ends."""
    width = max(1, min(_FADE, n // 8))
    out = np.ones(n, np.float32)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    out[:width], out[n - width :] = ramp, ramp[::-1]
    return out


def _checked(section: ArrayLike, usable: ArrayLike | None) -> tuple[NDArray[Any], Bool]:
    image = np.asarray(section)
    if image.ndim != 2 or min(image.shape) < LEAST_SIDE:
        raise InputError(
            f"a section of shape {image.shape} cannot be compared: it must be a picture [Y, X] of at least "
            f"{LEAST_SIDE} x {LEAST_SIDE} pixels; give shifts of smaller ones as a table"
        )
    if image.dtype.kind not in "buif":
        raise InputError(f"a section of type {image.dtype} cannot be compared: give integers or real numbers")
    mask = np.ones((0, 0), np.bool_) if usable is None else np.ascontiguousarray(usable, np.bool_)
    if usable is not None and mask.shape != image.shape:
        raise InputError(f"a mask of shape {mask.shape} does not fit a section of shape {image.shape}")
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return np.ascontiguousarray(image), mask
    if image.dtype.itemsize < 4:
        return np.ascontiguousarray(image, np.float32), mask
    # float32 holds seven digits: those that vary.
    seen = image.astype(np.float64)
    finite = seen[np.isfinite(seen)]
    return (seen - (np.median(finite) if finite.size else 0)).astype(np.float32), mask


@njit(cache=True, nogil=True)
def _shrink(image: NDArray[Any], mask: Bool, factor: int) -> tuple[F32, Bool]:
    """Return means of blocks of usable pixels, and where at least half of a block is usable."""
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    out, ok = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.bool_)
    masked = mask.size > 0
    for r in range(rows):
        for c in range(columns):
            total, count = 0.0, 0
            for y in range(r * factor, (r + 1) * factor):
                for x in range(c * factor, (c + 1) * factor):
                    value = np.float64(image[y, x])
                    if np.isfinite(value) and (not masked or mask[y, x]):
                        total += value
                        count += 1
            if 2 * count >= factor * factor:
                out[r, c] = total / count
                ok[r, c] = True
    return out, ok


@njit(cache=True, nogil=True)
def _shrink_again(fine: F32, fine_ok: Bool, factor: int) -> tuple[F32, Bool, Bool]:
    """Return means of blocks, where they are usable, and where all values of a block are the same."""
    rows, columns = fine.shape[0] // factor, fine.shape[1] // factor
    out, ok = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.bool_)
    flat = np.zeros((rows, columns), np.bool_)
    for r in range(rows):
        for c in range(columns):
            total, count, low, high = 0.0, 0, np.inf, -np.inf
            for y in range(r * factor, (r + 1) * factor):
                for x in range(c * factor, (c + 1) * factor):
                    if fine_ok[y, x]:
                        total += fine[y, x]
                        count += 1
                        low, high = min(low, fine[y, x]), max(high, fine[y, x])
            if 2 * count >= factor * factor:
                out[r, c] = total / count
                ok[r, c] = True
                flat[r, c] = low == high
    return out, ok, flat


def _flat(flat: Bool, coarse: F32, factor: int) -> Bool:
    """Return which coarse pixels lie in a flat area, or next to it."""
    if not flat.any():
        return flat
    size = max(3, -(-_FLAT_PX // factor) | 1)
    same = ndimage.maximum_filter(coarse, size) == ndimage.minimum_filter(coarse, size)
    core = ndimage.binary_erosion(flat, np.ones((size, size)), border_value=1) & same
    out: Bool = ndimage.binary_dilation(core, np.ones((3, 3)), iterations=size // 2 + 1)
    return out


def _local(coarse: F32, ok: Bool) -> tuple[F32, F32]:
    """Return local mean and deviation of what is usable, on a map of pixels of `_LOCAL` coarse ones."""
    sums = _moments(coarse, ok, _LOCAL)
    count, total, square = (ndimage.gaussian_filter(s, _LOCAL_SIGMA, mode="constant") for s in sums)
    count = np.maximum(count, 1e-9)
    mean = total / count
    variance = np.maximum(square / count - np.square(mean), 0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


@njit(cache=True, nogil=True)
def _moments(coarse: F32, ok: Bool, factor: int) -> NDArray[np.float64]:
    rows, columns = coarse.shape
    out = np.zeros((3, -(-rows // factor), -(-columns // factor)))
    for y in range(rows):
        for x in range(columns):
            if ok[y, x]:
                value = np.float64(coarse[y, x])
                out[0, y // factor, x // factor] += 1.0
                out[1, y // factor, x // factor] += value
                out[2, y // factor, x // factor] += value * value
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _normalised(image: F32, image_ok: Bool, ok: Bool, mean: F32, scale: F32) -> tuple[I8, float]:
    """Return (the picture less its local mean) times a scale, and the mean square; what `ok` excludes is void.

    `ok` has the pixels of the coarse picture, or is the picture's own; `mean` and `scale` are read between the
    centres of their pixels.
    """
    rows, columns = image.shape
    factor = max(1, rows // ok.shape[0])
    step = factor * 4
    out = np.full((rows, columns), -128, np.int8)
    left, share = np.empty(columns, np.int64), np.empty(columns, np.float32)
    for x in range(columns):
        left[x], share[x] = _between(x, step, mean.shape[1])
    power, count = 0.0, 0
    for y in range(rows):
        y0, wy = _between(y, step, mean.shape[0])
        y1 = min(y0 + 1, mean.shape[0] - 1)
        level, gain = mean[y0] + wy * (mean[y1] - mean[y0]), scale[y0] + wy * (scale[y1] - scale[y0])
        oy = min(y // factor, ok.shape[0] - 1)
        for ox in range(ok.shape[1]):
            if not ok[oy, ox]:
                continue
            for x in range(ox * factor, (ox + 1) * factor):
                if image_ok[y, x]:
                    x0, wx = left[x], share[x]
                    x1 = min(x0 + 1, level.size - 1)
                    value = image[y, x] - (level[x0] + wx * (level[x1] - level[x0]))
                    value *= gain[x0] + wx * (gain[x1] - gain[x0])
                    value = min(max(value, np.float32(-127.0)), np.float32(127.0))
                    power += value * value
                    count += 1
                    out[y, x] = np.int8(np.floor(value + np.float32(0.5)))
    return out, power / max(count, 1)


@njit(cache=True, nogil=True)
def _between(place: int, step: int, size: int) -> tuple[int, np.float32]:
    """Return the pixel of a map, and the share of the next, that a pixel `step` times smaller lies on."""
    at = min(max((place + 0.5) / step - 0.5, 0.0), size - 1.0)
    first = min(int(at), max(size - 2, 0))
    return first, np.float32(at - first)


@njit(cache=True, nogil=True)
def _smoothed(picture: I8) -> tuple[I8, float]:
    """Smooth by (1, 4, 6, 4, 1) / 16 both ways, a deviation of one pixel; void stays, and counts as 0.

    Returns:
        the picture and its mean square.
    """
    rows, columns = picture.shape
    taps = np.array([1.0, 4.0, 6.0, 4.0, 1.0], np.float32) / np.float32(16.0)
    along = np.zeros((rows, columns), np.float32)
    out = np.full((rows, columns), -128, np.int8)
    for y in range(rows):
        for x in range(columns):
            total = np.float32(0.0)
            for k in range(max(-2, -x), min(3, columns - x)):
                if picture[y, x + k] != -128:
                    total += taps[k + 2] * picture[y, x + k]
            along[y, x] = total
    power, count = 0.0, 0
    for y in range(rows):
        first, last = max(-2, -y), min(3, rows - y)
        for x in range(columns):
            if picture[y, x] != -128:
                smooth = np.float32(0.0)
                for k in range(first, last):
                    smooth += taps[k + 2] * along[y + k, x]
                power += np.float64(smooth) * smooth
                count += 1
                out[y, x] = np.int8(np.rint(smooth))
    return out, power / max(count, 1)


__all__ = ["LEAST_SIDE", "UNIT", "VOID", "Prepared", "factors_for", "fade", "plain", "prepare"]
