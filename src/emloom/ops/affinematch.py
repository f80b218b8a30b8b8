"""The affine map that lays one section, or a part of it, on another one, and whether to believe it.

From coarse to fine: guesses from afar (`matchcoarse`), Gauss-Newton steps at every level (`affinefit`). Sections
are made comparable first (`matchlevels`), so grey values need not agree. Maps go from places of `a` to places of
`b` in the corner convention of `geometry.planar`.

A map is believed if the picture agrees with it everywhere, not on the whole: `a` is cut into tiles, each looks for
itself where it fits best near the place that the map gives it, and most must find it there. Unlike images have a
best map too, but their tiles find something anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special

from emloom.errors import InputError
from emloom.geometry.planar import Affine
from emloom.ops.affinefit import Fit, fit
from emloom.ops.matchcoarse import guesses
from emloom.ops.matchlevels import Level, finest_of, levels_of

Bool = NDArray[np.bool_]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

STILL = Affine(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
LEAST_OVERLAP = 0.4
"""Share of `a` that must come to lie on `b`."""
MOST_STRAIN = 0.2
"""By how much a map may stretch or shrink."""

_GUESSES = 4
_MANY = 10_000  # pixels
_TILE, _NEAR, _AGREES = 64, 10, 3.5  # pixels of the level that is looked at; tiles overlap by half
# Unlike sections agree in up to 0.25 of 12 tiles or more, and correlate up to 41 / sqrt(pixels) at their best map
# (parts of three real stacks, on each other and on sections far away); true maps in 0.4 at least, and 56 / sqrt.
_LEAST_AGREEMENT, _CHANCE, _ALIKE = 0.33, 0.03, 50.0


@dataclass(frozen=True)
class Match:
    """How one section lies on another.

    Attributes:
        affine: the map; `STILL`, or the start, where none was found.
        ok: whether to believe it.
        reason: why not; empty where it is believed.
        score: correlation of what lies on each other, band-passed, -1 to 1; NaN where nothing does.
        overlap: share of `a` that lies on `b`.
        agreement: share of tiles that fit best where the map puts them.
        residual_px: how far from there they do, median, pixels; NaN without tiles.
    """

    affine: Affine
    ok: bool
    reason: str
    score: float
    overlap: float
    agreement: float
    residual_px: float


def match(
    a_YX: NDArray[Any],
    b_YX: NDArray[Any],
    *,
    mask_a: Bool | None = None,
    mask_b: Bool | None = None,
    start: Affine | None = None,
    reach_px: float | None = None,
) -> Match:
    """Return the affine map from a section to another.

    Args:
        a_YX: a section; grey values of any real type.
        b_YX: another one, of any shape.
        mask_a: where it counts, e.g. one part of a torn section; all of it if not given.
        mask_b: the same of the other.
        start: map about which is searched; none is moved if not given.
        reach_px: how far from it the middle of `a` may lie; a quarter of the longer side of `b` if not given.

    Raises:
        InputError: an image is no plane, or a mask has another shape.
    """
    masks = [_mask_of(image, mask) for image, mask in ((a_YX, mask_a), (b_YX, mask_b))]
    finest = finest_of(b_YX.shape)
    a, b = levels_of(a_YX, masks[0], finest), levels_of(b_YX, masks[1], finest)
    return match_levels(a, b, start or STILL, max(b_YX.shape) / 4 if reach_px is None else reach_px)


def _mask_of(image: NDArray[Any], mask: Bool | None) -> Bool:
    if image.ndim != 2 or 0 in image.shape:
        raise InputError(f"a section of shape {image.shape} is no plane: give grey values [Y, X]")
    if mask is None:
        return np.ones(image.shape, np.bool_)
    if mask.shape != image.shape or mask.dtype != np.bool_:
        raise InputError(
            f"a mask of {mask.dtype} {mask.shape} is none of a section {image.shape}: give bool [Y, X]"
        )
    return mask


def match_levels(a: Sequence[Level], b: Sequence[Level], start: Affine, reach_px: float) -> Match:
    """Return the map between sections whose levels are known; see `match`.

    Raises:
        InputError: their finest levels have different factors.
    """
    depth = min(len(a), len(b))
    if a[0].factor != b[0].factor:
        raise InputError(f"levels that begin at factors {a[0].factor} and {b[0].factor}: give the same for both")
    found = guesses(a[depth - 1], b[depth - 1], start, reach_px, LEAST_OVERLAP)[:_GUESSES]
    fits = _best(_fitted(a, b, depth - 1, guess.affine) for guess in found)
    if not fits:
        return Match(start, False, "the sections do not overlap", float("nan"), 0.0, 0.0, float("nan"))
    # From afar two places may look much alike: the better half of them is looked at closer.
    for k in range(depth - 2, -1, -1):
        fits = _best(_fitted(a, b, k, one.affine) for one in fits) or fits
    return _judged(a, b, fits[0])


def improved(a: Sequence[Level], b: Sequence[Level], match: Match, starts: Sequence[Affine]) -> Match:
    """Return the match, or that from one of other starts nearby, whichever makes the sections more alike."""
    best, first = match, min(2, len(a) - 1, len(b) - 1)
    for start in starts:
        one = _fitted(a, b, first, start)
        for k in range(first - 1, -1, -1):
            one = _fitted(a, b, k, one.affine)
        if one.score > best.score and one.overlap >= LEAST_OVERLAP:
            other = _judged(a, b, one)
            best = other if other.ok else best
    return best


def _judged(a: Sequence[Level], b: Sequence[Level], best: Fit) -> Match:
    k = min(1 if a[0].factor == 1 else 0, len(a) - 1, len(b) - 1)
    far, apart = _tiles(a[k], b[k], best.affine)
    agreement = float((far <= _AGREES).mean()) if len(far) else 0.0
    residual = float(np.median(far)) * a[k].factor if len(far) else float("nan")
    reason = _doubt(best, int(a[0].mask.sum())) or _disagreement(agreement, len(far), apart)
    return Match(best.affine, not reason, reason, best.score, best.overlap, agreement, residual)


_STEPS, _LAST_STEPS = 30, 8


def _fitted(a: Sequence[Level], b: Sequence[Level], k: int, start: Affine) -> Fit:
    """Return the map after some steps on a level, which on the way to the finest one needs not all pixels."""
    return fit(a[k], b[k], start, _STEPS if k else _LAST_STEPS, 2 if k and a[k].mask.size > _MANY else 1)


def _best(fits: Iterable[Fit]) -> list[Fit]:
    """Return the better half of fits, best first; without those that failed."""
    good = [one for one in fits if np.isfinite(one.score) and one.overlap > 0]
    good.sort(key=lambda one: -one.score * min(1.0, one.overlap / LEAST_OVERLAP))
    return good[: (len(good) + 1) // 2]


def _doubt(found: Fit, size: int) -> str:
    """Return what is wrong with a fit in itself, of `size` pixels; empty if nothing."""
    if not np.isfinite(found.score):
        return "no map was found: the steps ran away"
    strains = np.linalg.svd(found.affine.matrix[:, :2], compute_uv=False)
    if abs(strains - 1).max() > MOST_STRAIN:
        return f"it stretches by a factor of {strains[0]:.2f} and {strains[1]:.2f}: more than sections do"
    if found.overlap < LEAST_OVERLAP:
        return f"only {100 * found.overlap:.0f} % lie on the other section"
    least = _ALIKE / np.sqrt(size * found.overlap)
    if found.score < least:
        return f"they are not alike: a correlation of {found.score:.2f}, where any two may reach {least:.2f}"
    if found.last_px > 0.5:
        return f"the steps did not end: the last one still moved it by {found.last_px:.1f} px"
    return ""


def _disagreement(agreement: float, tiles: int, apart: float) -> str:
    """Return why the tiles do not bear a map out; empty if they do.

    Args:
        agreement: share of the tiles that fit best where the map puts them.
        tiles: their number.
        apart: how many tiles that share nothing would cover what they cover.
    """
    by_chance = np.pi * _AGREES**2 / (2 * _NEAR + 1) ** 2
    if tiles == 0:
        return "too small to tell: not one tile of it can be compared"
    hits = agreement * apart
    luck = (
        float(special.betainc(hits, apart - hits + 1, by_chance)) if hits > 0 else 1.0
    )  # binomial, of any number
    if agreement < _LEAST_AGREEMENT or luck > _CHANCE:
        return f"only {100 * agreement:.0f} % of {tiles} tiles fit best where the map puts them"
    return ""


def _tiles(a: Level, b: Level, affine: Affine) -> tuple[F64, float]:
    """Return how far from where a map puts them tiles fit best, pixels of the level, and how many lie apart."""
    m = affine.matrix
    offset = m[:, 2] / a.factor + (m[:, :2].sum(axis=1) - 1) / 2
    how = {"matrix": m[:, :2], "offset": offset, "output_shape": a.image.shape, "order": 1}
    mask = (ndimage.affine_transform(b.mask.astype(np.float32), **how) > 0.99) & a.mask
    moved = ndimage.affine_transform(b.image, **how)
    away = []
    covered = np.zeros(a.image.shape, np.bool_)
    for y in range(0, max(1, a.image.shape[0] - _TILE + 1), _TILE // 2):
        for x in range(0, max(1, a.image.shape[1] - _TILE + 1), _TILE // 2):
            at = (slice(y, y + _TILE), slice(x, x + _TILE))
            if mask[at].sum() >= 0.6 * _TILE**2:
                away.append(_displaced(np.where(mask[at], a.image[at], 0), moved, y, x))
                covered[at] = True
    return np.array(away), float(covered.sum()) / _TILE**2


def _displaced(tile: F32, moved: F32, y: int, x: int) -> float:
    """Return how far from its place a tile fits best, pixels; its border is not looked at."""
    r = _NEAR
    inner = tile[r:-r, r:-r]
    around = moved[y : y + tile.shape[0], x : x + tile.shape[1]]
    shape = tuple(fft.next_fast_len(n, real=True) for n in around.shape)
    other = fft.rfft2(around, s=shape)
    cross = fft.irfft2(np.conj(fft.rfft2(inner, s=shape)) * other, s=shape)[: 2 * r + 1, : 2 * r + 1]
    inside = np.conj(fft.rfft2((inner != 0).astype(np.float32), s=shape))
    power = fft.irfft2(inside * fft.rfft2(around * around, s=shape), s=shape)[: 2 * r + 1, : 2 * r + 1]
    score = cross / np.sqrt(np.maximum(power, 1e-3))
    top = np.unravel_index(int(np.argmax(score)), score.shape)
    up, aside = (_peak(score, int(k), axis, top) - r for axis, k in enumerate(top))
    return float(np.hypot(up, aside))


def _peak(score: F32, k: int, axis: int, top: tuple[Any, ...]) -> float:
    """Return where a parabola through a maximum and its neighbours along an axis is highest."""
    line = score[:, top[1]] if axis == 0 else score[top[0], :]
    if not 0 < k < len(line) - 1:
        return float(k)
    low, middle, high = (float(v) for v in line[k - 1 : k + 2])
    bend = low - 2 * middle + high
    return k + 0.5 * (low - high) / bend if bend < 0 else float(k)
