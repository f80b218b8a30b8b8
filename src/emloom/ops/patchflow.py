"""Patch flow: how far the patches of one section must move to lie on what they resemble in another.

A displacement ``d`` at a place ``p`` says that what is at ``p`` in section a is at ``p + d`` in section b. Pixels
have their corners at whole numbers (`emloom.geometry.planar`), and are those of full resolution also where smaller
images are compared. ::

    texture   band-passed, of even contrast, 0 where nothing was measured: what is blank attracts nothing
    start     what is known already, places of a -> places of b; b is brought onto a by it
    r         where the masked correlation coefficient of a patch of a with b so brought is largest, to a part of a
              pixel
    d(p)      start(p + r) - p

so a large displacement is found in rounds: on small images first, then with the map fitted to that as the start.

Masked correlation: Padfield 2012 (doi:10.1109/TIP.2011.2181402). Nodes are judged as in SOFIMA (Januszewski et al.
2024, github.com/google-research/sofima): by how far the peak stands out and how sharp it is; and by the normalised
median of their neighbours (Westerweel & Scarano 2005, doi:10.1007/s00348-005-0016-6).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from emloom.errors import InputError
from emloom.geometry.planar import IDENTITY, PlanarMap, Shift
from emloom.ops.flowpeaks import median_faults, peaks
from emloom.ops.flowtexture import Texture, brought

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_OVER = 4  # patches hang over the rim of a section by a quarter: there they are judged by what is left of them
_AT_ONCE = 32  # patches that are transformed together: their spectra fit the cache


class NodeState(IntEnum):
    """Whether a node is valid, or why it is not."""

    VALID = 0
    EMPTY = 1  #: too little of the patch was measured, or it meets nothing that was
    EDGE = 2  #: the peak lies at the edge of the search
    WEAK = 3  #: the correlation is too small
    DOUBTFUL = 4  #: another peak is nearly as high
    BLUNT = 5  #: the peak is flat along some direction
    FAR = 6  #: the displacement is larger than allowed
    ODD = 7  #: its neighbours move otherwise


@dataclass(frozen=True)
class Patches:
    """How patches are cut, searched for, and judged; lengths in pixels of the images that are compared.

    Attributes:
        size: side of a patch.
        step: distance of patches, at most; they spread evenly over the section.
        search: how far a patch may move from the start, along y and x.
        measured: part of a patch that must be measured, and meet what is measured, 0 to 1.
        score: least correlation coefficient.
        ratio: least ratio of the peak to the next one, `apart` or more away.
        apart: distance from which a peak is another one.
        sharpness: least curvature of the peak over its height, along its longest direction, 1 / pixel².
        most: largest displacement from the start, pixels; None: what the search allows.
        deviation: how many times more than its neighbours differ among themselves a node may differ from them;
            half a pixel is granted.
        rough: by how much it may differ from them at most, and they among themselves, pixels.

    Raises:
        InputError: a length is below 1.
    """

    size: int = 128
    step: int = 64
    search: int = 16
    measured: float = 0.4
    score: float = 0.12
    ratio: float = 1.2
    apart: int = 6
    sharpness: float = 0.005
    most: float | None = None
    deviation: float = 3.0
    rough: float = 5.0

    def __post_init__(self) -> None:
        if min(self.size, self.step, self.search, self.apart) < 1:
            raise InputError(
                f"patches of {self.size} px, every {self.step} px, searched over {self.search} px: "
                "every length is at least 1 px"
            )


@dataclass(frozen=True, eq=False)
class Flow:
    """Displacements from one section to another; see the module.

    Attributes:
        places: float64 [J, I, 2], (y, x) in section a, full-resolution pixels: the middle of what is compared.
        moves: float64 [J, I, 2], displacement along y and x, full-resolution pixels; NaN where not valid.
        score: float32 [J, I], correlation coefficient at the peak; NaN where there was nothing to compare.
        verdict: uint8 [J, I], see `NodeState`.
    """

    places: F64
    moves: F64
    score: F32
    verdict: NDArray[np.uint8]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which nodes hold a displacement."""
        out: NDArray[np.bool_] = self.verdict == NodeState.VALID
        return out


def patch_flow(a: Texture, b: Texture, start: PlanarMap = IDENTITY, patches: Patches | None = None) -> Flow:
    """Return where the patches of one section lie in another.

    Args:
        a: section whose patches are looked for.
        b: section they are looked for in; both made with the same `factor`.
        start: from places of `a` to places of `b`, as far as known.
        patches: how they are cut, searched for, and judged.

    Raises:
        InputError: the patches are larger than `a`, or the sections have pixels of different sizes.
    """
    how = patches or Patches()
    if a.factor != b.factor:
        raise InputError(f"sections are made smaller {a.factor} and {b.factor} times: compare them at one size")
    if how.size > min(a.values.shape):
        raise InputError(
            f"patches of {how.size} px do not fit into a section of {' x '.join(map(str, a.values.shape))} px: "
            "make them smaller"
        )
    rim = how.size // _OVER
    corners = [_corners(n + 2 * rim, how) for n in a.values.shape]
    grid = (len(corners[0]), len(corners[1]))
    at = np.stack(np.meshgrid(*corners, indexing="ij"), -1).reshape(-1, 2)
    known = _whole(start, a.factor)
    own = Texture(np.pad(a.values, rim), np.pad(a.mask, rim), a.factor)
    values, mask = brought(b, known, a.values.shape, how.search + rim)
    found = np.concatenate(
        [_found(own, values, mask, at[k : k + _AT_ONCE], how) for k in range(0, len(at), _AT_ONCE)]
    )
    r, score = found[:, :2], found[:, 2]
    verdict = _verdicts(found, how).reshape(grid)
    verdict[(verdict == 0) & median_faults(r.reshape(*grid, 2), verdict == 0, how.deviation, how.rough)] = (
        NodeState.ODD
    )
    places = (at - rim + found[:, 5:]) * a.factor
    moves = np.full(places.shape, np.nan)
    good = verdict.ravel() == 0
    moves[good] = known(places[good] + r[good] * a.factor) - places[good]
    lost = np.isnan(moves).any(1) & good
    verdict[lost.reshape(grid)] = NodeState.EMPTY
    moves[lost] = np.nan
    return Flow(places.reshape(*grid, 2), moves.reshape(*grid, 2), score.reshape(grid).astype(np.float32), verdict)


def _corners(extent: int, how: Patches) -> NDArray[np.int64]:
    """Return the first pixels of patches that cover an extent evenly."""
    room = extent - how.size
    return np.rint(np.linspace(0, room, -(-room // how.step) + 1)).astype(np.int64)


def _whole(start: PlanarMap, factor: int) -> PlanarMap:
    """Return a shift by whole pixels of the images, which blurs nothing; what is cut off is found again."""
    if isinstance(start, Shift):
        return Shift(round(start.y / factor) * factor, round(start.x / factor) * factor)
    return start


def _found(a: Texture, b: F32, b_mask: NDArray[np.bool_], at: NDArray[np.int64], how: Patches) -> F64:
    """Return, per patch, displacement (y, x), score, next score, sharpness, and where in it its weight is (y, x).

    The first are NaN where there is no peak; the displacement of a peak at the edge is infinite.
    """
    n, reach = how.size, how.size + 2 * how.search
    cut = np.stack([a.values[y : y + n, x : x + n] for y, x in at])
    seen = np.stack([a.mask[y : y + n, x : x + n] for y, x in at])
    other = np.stack([b[y : y + reach, x : x + reach] for y, x in at])
    there = np.stack([b_mask[y : y + reach, x : x + reach] for y, x in at])
    window = _window(n)
    whole = float(window.sum())
    seen_weight = seen * window
    out = np.column_stack(
        [np.full((len(at), 5), np.nan), _middles(seen_weight, there[:, how.search :, how.search :])]
    )
    use = np.flatnonzero(seen_weight.sum((1, 2)) >= how.measured * whole)
    if not use.size:
        return out
    holes = use[~(seen[use].all((1, 2)) & there[use].all((1, 2)))]
    surface = np.zeros((len(at), 2 * how.search + 1, 2 * how.search + 1), np.float32)
    plain = np.setdiff1d(use, holes)
    if plain.size:
        energy = np.square(cut[plain]).reshape(len(plain), -1) @ window.ravel()
        near = _correlate(window[None], np.square(other[plain]), how.search)
        surface[plain] = _correlate(cut[plain] * window, other[plain], how.search)
        surface[plain] /= np.sqrt(np.maximum(near * energy[:, None, None], 1e-6))
    if holes.size:
        surface[holes] = _masked(cut[holes], seen_weight[holes], other[holes], there[holes], how)
    out[use, :5] = peaks(surface[use], how.apart)
    return out


def _middles(weight: F32, there: NDArray[np.bool_]) -> F64:
    """Return where the weight of patches [N, n, n] is that meets something measured, (y, x) from their corner."""
    n = weight.shape[-1]
    met = weight * there[:, :n, :n]
    whole = met.sum((1, 2), dtype=np.float64)
    line = np.arange(n) + 0.5
    sums = np.stack([met.sum(2) @ line, met.sum(1) @ line], -1)
    out: F64 = np.where(whole[:, None] > 0, sums / np.maximum(whole, 1e-9)[:, None], n / 2)
    return out


def _masked(cut: F32, weight: F32, other: F32, there: NDArray[np.bool_], how: Patches) -> F32:
    """Return the masked correlation coefficients of patches [N, n, n] in windows [N, m, m]; NaN where few meet."""
    meet = there.astype(np.float32)
    common = _correlate(weight, meet, how.search)
    energy = _correlate(np.square(cut) * weight, meet, how.search)
    near = _correlate(weight, np.square(other), how.search)
    out = _correlate(cut * weight, other, how.search) / np.sqrt(np.maximum(energy * near, 1e-6))
    least = how.measured * float(_window(how.size).sum())
    return np.where(common >= least * 0.999, out, np.float32(np.nan))


def _correlate(patch: F32, window: F32, search: int) -> F32:
    """Return sums of products of patches, moved by -search to search, with what they lie on."""
    m = window.shape[-1]
    size = [fft.next_fast_len(m, real=True)] * 2
    cross = np.conj(fft.rfft2(patch, size)) * fft.rfft2(window, size)
    out: F32 = fft.irfft2(cross, size)[:, : 2 * search + 1, : 2 * search + 1]
    return out


@lru_cache(maxsize=8)
def _window(n: int) -> F32:
    """Return weights that fall as a cosine over the outer quarters of a patch: what is at its rim counts less."""
    edge = max(1, n // 4)
    line = np.ones(n)
    line[:edge] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    line[n - edge :] = line[:edge][::-1]
    out = np.outer(line, line).astype(np.float32)
    out.setflags(write=False)
    return out


def _verdicts(found: F64, how: Patches) -> NDArray[np.uint8]:
    """Return the verdict of every patch on its own; the first that applies."""
    far = np.hypot(found[:, 0], found[:, 1])
    score, following, sharp = found[:, 2:5].T
    cases: list[tuple[NodeState, NDArray[Any]]] = [
        (NodeState.EMPTY, np.isnan(score)),
        (NodeState.EDGE, ~np.isfinite(far)),
        (NodeState.WEAK, score < how.score),
        (NodeState.DOUBTFUL, score < how.ratio * following),
        (NodeState.BLUNT, sharp < how.sharpness),
        (NodeState.FAR, far > (np.inf if how.most is None else how.most)),
    ]
    return np.select([test for _, test in cases], [int(v) for v, _ in cases], 0).astype(np.uint8)
