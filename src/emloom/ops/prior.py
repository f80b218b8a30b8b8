"""What is known of artifacts beforehand: they stain one section, wider than one position; biology persists.

A map of logits ``[Z, Y, X]``, a position per lattice step, is filtered, then cut into components::

    g    = logits smoothed within each section, over the positions that are known
    out  = own g - opposition m          m: mean, median or largest of g in the next sections, same position

    candidate   8-connected in its section, out >= low; some position >= high; at least min_size positions
    persistent  a chain of candidates in consecutive sections, each overlapping the next, of `persistent` or more

Filters belong on logits. On probabilities a sure patch weighs as much as a likely one, and smoothing smears what
is sure over its neighbours (genEM3's, which also divided by the largest value of a cube: its threshold then
depends on the cube). With ``own - opposition == 1`` an even map stays as it is.

**blockwise == whole, bit for bit**, where blocks read `halo` around themselves, cut at the volume's ends. A filter
reaches `FilterSpec.halo`. Components have no reach within a section, so blocks are slabs of whole sections (a map
has a thousandth of the voxels of its raw); a chain matters up to `persistent` sections, hence the slab's halo::

    f(map)[a:b] == f(map[max(0, a - h) : b + h], core=...)       h = halo_sections(filter, clean)
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.ops.logits import Codes, decode_logits, encode_logits
from emloom.spec import Spec

F32 = NDArray[np.float32]
Bits = NDArray[np.bool_]
Labels = NDArray[np.int64]

_CORNERS = np.ones((3, 3), np.bool_)  # neighbours of a position within its section

_BESIDE = {"mean": 0, "median": 1, "max": 2}


class FilterSpec(Spec):
    """Smooth within a section, oppose the next ones. The default is the originals' 3x3x3 sandwich, on logits."""

    taps: tuple[float, ...] = (1.0, 2.0, 1.0)
    """Kernel along y and along x, odd in number, scaled to a sum of 1; (1,) smooths nothing."""
    own: float = Field(default=2.0, gt=0)
    """Weight of the section itself."""
    opposition: float = Field(default=1.0, ge=0)
    """Weight of the next sections, subtracted; 0 filters within sections alone."""
    sections: int = Field(default=1, ge=1, le=16)
    """How many next sections, on each side."""
    beside: Literal["mean", "median", "max"] = "mean"
    """What stands for the next sections at a position, of those known; the section itself where none is."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.taps) % 2 == 0 or min(self.taps, default=0) < 0 or sum(self.taps) <= 0:
            raise ValueError(f"taps {self.taps}: give an odd number of weights, not negative, such as (1, 2, 1)")
        return self

    @property
    def halo(self) -> Vec:
        """How far a filtered position looks (z, y, x)."""
        return (self.sections if self.opposition > 0 else 0, len(self.taps) // 2, len(self.taps) // 2)


class CleanSpec(Spec):
    """What makes an artifact of a filtered map; thresholds are logits, to be chosen on validation data."""

    low: float = 0.0
    """Positions from here on belong to a candidate, 0 is a probability of 0.5."""
    high: float = 1.0
    """A candidate has some position from here on."""
    min_size: int = Field(default=1, ge=1)
    """Least number of positions of a candidate."""
    persistent: int | None = Field(default=4, ge=2)
    """Candidates in a chain through this many sections are biology; None keeps all."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """Two candidates of consecutive sections are in one chain if this share of the smaller lies in the larger."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high {self.high} is below low {self.low}: give the stricter threshold as high")
        return self

    @property
    def halo_sections(self) -> int:
        """How many sections on each side decide about a candidate."""
        return 0 if self.persistent is None else self.persistent - 1


def halo_sections(filtering: FilterSpec, cleaning: CleanSpec) -> int:
    """Return how many sections beside a slab `find_artifacts` needs to see."""
    return filtering.halo[0] + cleaning.halo_sections


def filter_logits(logits_ZYX: F32, spec: FilterSpec) -> F32:
    """Return filtered logits, float32 ``[Z, Y, X]``; NaN where the logit itself is not known.

    Args:
        logits_ZYX: floats; NaN is not known, and counts for nothing.
        spec: the filter.

    Raises:
        InputError: a logit is infinite, or the map is not a three-dimensional one of floats.
    """
    if logits_ZYX.ndim != 3 or logits_ZYX.dtype.kind != "f":
        raise InputError(f"a map of type {logits_ZYX.dtype} and shape {logits_ZYX.shape}: give logits [Z, Y, X]")
    if np.isinf(logits_ZYX).any():
        raise InputError("a logit is infinite, and would fill all around it: clip them (encode_logits does)")
    taps = np.array(spec.taps) / sum(spec.taps)
    smooth = _smooth(np.ascontiguousarray(logits_ZYX, np.float64), taps)
    if spec.opposition == 0:
        return np.asarray(spec.own * smooth, np.float32)
    out: F32 = _oppose(smooth, spec.own, spec.opposition, spec.sections, _BESIDE[spec.beside])
    return out


def candidates(logits_ZYX: F32, spec: CleanSpec) -> Labels:
    """Return the candidates of every section, int64 ``[Z, Y, X]``: 1, 2, ... in each, 0 is none.

    Args:
        logits_ZYX: filtered logits; NaN belongs to none.
        spec: thresholds and least size.
    """
    out = np.zeros(logits_ZYX.shape, np.int64)
    above = logits_ZYX >= spec.low  # False for NaN
    for z in np.flatnonzero(above.any(axis=(1, 2))):
        # cc3d 4 joins what does not touch where booleans are connected by corners.
        pieces, _ = ndimage.label(above[z], _CORNERS)
        size = np.bincount(pieces.ravel())
        sure = np.bincount(pieces[logits_ZYX[z] >= spec.high], minlength=size.size) > 0
        kept = sure & (size >= spec.min_size)
        kept[0] = False
        out[z] = np.where(kept, np.cumsum(kept), 0)[pieces]
    return out


def persistent(labels_ZYX: Labels, sections: int, overlap: float = 0.5) -> Bits:
    """Return which positions belong to candidates in a chain through enough sections, bool ``[Z, Y, X]``.

    Args:
        labels_ZYX: candidates of every section, see `candidates`.
        sections: least length of a chain; longer ones are not told apart.
        overlap: share of the smaller candidate that must lie in the larger.
    """
    sizes = [np.bincount(section.ravel()) for section in labels_ZYX]
    links = [_links(labels_ZYX[z : z + 2], (sizes[z], sizes[z + 1]), overlap) for z in range(len(labels_ZYX) - 1)]
    below = _chains(sizes, links, sections)
    above = _chains(sizes[::-1], [(b, a) for a, b in links[::-1]], sections)[::-1]
    out = np.zeros(labels_ZYX.shape, np.bool_)
    for z, section in enumerate(labels_ZYX):
        long = below[z] + above[z] - 1 >= sections
        long[0] = False
        out[z] = long[section]
    return out


def _links(pair: Labels, sizes: tuple[Labels, Labels], overlap: float) -> tuple[Labels, Labels]:
    """Return which candidates of two sections are in one chain: numbers in the first, numbers in the second."""
    both = (pair[0] > 0) & (pair[1] > 0)
    n = sizes[1].size
    key, shared = np.unique(pair[0][both] * n + pair[1][both], return_counts=True)
    first, second = key // n, key % n
    enough = shared >= overlap * np.minimum(sizes[0][first], sizes[1][second])
    return first[enough], second[enough]


def _chains(sizes: list[Labels], links: list[tuple[Labels, Labels]], most: int) -> list[Labels]:
    """Return, for the candidates of every section, the sections of the longest chain up to it, up to `most`."""
    lengths = [np.ones(size.size, np.int64) for size in sizes]
    for z, (first, second) in enumerate(links):
        np.maximum.at(lengths[z + 1], second, np.minimum(lengths[z][first] + 1, most))
    return lengths


def clean(logits_ZYX: F32, spec: CleanSpec, core: slice = slice(None)) -> Bits:
    """Return which positions are artifacts, bool ``[Z', Y, X]`` of the sections in `core`.

    Args:
        logits_ZYX: filtered logits of whole sections; NaN is not known, and no artifact.
        spec: what makes an artifact.
        core: the sections that are asked for; the others are their halo, `spec.halo_sections` on each side except
            at the volume's ends.
    """
    labels = candidates(logits_ZYX, spec)
    found = labels > 0
    if spec.persistent is not None:
        found &= ~persistent(labels, spec.persistent, spec.overlap)
    return np.asarray(found[core])


def find_artifacts(
    codes_ZYX: Codes, filtering: FilterSpec, cleaning: CleanSpec, core: slice = slice(None)
) -> tuple[Codes, Bits]:
    """Return a slab's filtered map as bytes of logits, and its artifacts, bool; both ``[Z', Y, X]`` of `core`.

    What is cut into components is what is stored, so a threshold can be chosen again on the stored map.

    Args:
        codes_ZYX: bytes of logits (`emloom.ops.logits`) of whole sections.
        filtering: the filter.
        cleaning: what makes an artifact.
        core: the sections that are asked for; the others are their halo, `halo_sections` on each side except at
            the volume's ends.
    """
    filtered = encode_logits(filter_logits(decode_logits(codes_ZYX), filtering))
    return filtered[core], clean(decode_logits(filtered), cleaning, core)


# ---- kernels: a position adds up its neighbours in their order, so bits do not depend on the block ------------


@njit(cache=True, nogil=True)
def _smooth(logits, taps):  # type: ignore[no-untyped-def]
    depth, height, width = logits.shape
    r = taps.size // 2
    out = np.full_like(logits, np.nan)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if np.isnan(logits[z, y, x]):
                    continue
                total, weight = 0.0, 0.0
                for dy in range(max(-r, -y), min(r, height - 1 - y) + 1):
                    for dx in range(max(-r, -x), min(r, width - 1 - x) + 1):
                        value = logits[z, y + dy, x + dx]
                        if not np.isnan(value):
                            w = taps[r + dy] * taps[r + dx]
                            total += w * value
                            weight += w
                # A kernel may be 0 in its middle; alone, a position stays as it is.
                out[z, y, x] = total / weight if weight > 0.0 else logits[z, y, x]
    return out


@njit(cache=True, nogil=True)
def _oppose(smooth, own, opposition, reach, how):  # type: ignore[no-untyped-def]
    depth, height, width = smooth.shape
    out = np.empty(smooth.shape, np.float32)
    found = np.empty(2 * reach)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                g = smooth[z, y, x]
                n = 0
                for dz in range(max(-reach, -z), min(reach, depth - 1 - z) + 1):
                    if dz != 0 and not np.isnan(smooth[z + dz, y, x]):
                        found[n] = smooth[z + dz, y, x]
                        n += 1
                m = g
                if n > 0:
                    if how == 0:
                        m = found[:n].sum() / n
                    elif how == 1:
                        m = np.median(found[:n])
                    else:
                        m = found[:n].max()
                out[z, y, x] = own * g - opposition * m
    return out
