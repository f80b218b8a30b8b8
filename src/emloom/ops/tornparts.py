"""The parts of a torn section, the gap between them, and what is outside.

::

    void     no tissue (`voids`): what was filled in, or, if that leaves one part, what is seen through as well;
             long or broad enough to matter; the rest is holes of a part: filled
    part     tissue that hangs together, by more than a bridge; small islands join the part they touch, or are
             dropped: a crumb that floats in the gap belongs to it
    gap      void between two parts, as wide as the crack nearby; void that is enclosed, or narrow
    outside  the rest of the void, along the border: canvas that the section does not cover

          1 1 1 . . 2 2 2         d1 + d2, the distances to the nearest two parts, is the width of the crack in it,
          1 1 1 1 . . 2 2         and much more where void is not between them
          1 1 1 1 . . 2 2
          - - 1 1 . . - -         . gap   - outside

A crack that ends within the section leaves one part, which keeps one map: its slit is a gap to be filled in, and
`Parts.notes` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.bands import LEAST_ELONGATION
from emloom.ops.voids import filled_in, void_of

Bool = NDArray[np.bool_]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_EIGHT = np.ones((3, 3), np.bool_)
_MOST_PARTS = 255
_CELL = 4  # pixels of a side of the lattice on which widths are measured
_WIDER = 1.3  # than the crack nearby: no longer between its sides


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a section.

    Attributes:
        parts: uint8 [Y, X]: 1, 2, ... by falling area; 0 in none.
        gap: bool [Y, X]: void between or within parts.
        outside: bool [Y, X]: void beyond the section.
        notes: what was found, in words.
    """

    parts: NDArray[np.uint8]
    gap: Bool
    outside: Bool
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many parts there are."""
        return int(self.parts.max(initial=0))

    @property
    def shares(self) -> tuple[float, ...]:
        """Area of every part, as a share of the image."""
        sizes = np.bincount(self.parts.ravel(), minlength=self.count + 1)[1:]
        return tuple(float(n) / self.parts.size for n in sizes)


def parts_of(
    section_YX: NDArray[Any],
    *,
    above: float | None = None,
    within_YX: Bool | None = None,
    least_share: float = 0.02,
    bridge_px: int = 5,
) -> Parts:
    """Return the parts of a torn section.

    Args:
        section_YX: grey values of any real type.
        above: grey value that all tissue is above, where that is known; otherwise void is found by what it looks
            like, dark or bright.
        within_YX: where a gap may be, as a quality check says; elsewhere only void at the border counts.
        least_share: of all tissue, that a part has.
        bridge_px: widest threads of tissue that are torn for it.

    Raises:
        InputError: there is no tissue, or a parameter is out of range.
    """
    if not 0 < least_share <= 0.5 or bridge_px < 0:
        raise InputError(
            f"least_share={least_share} and bridge_px={bridge_px}: give a share above 0, up to 0.5, and no less "
            "than 0 pixels"
        )
    parts, crumbs = np.zeros(section_YX.shape, np.uint8), 0
    # Where a program filled in the gap its border is known, and dark tissue beside it is none of it.
    for find in (filled_in, void_of) if above is None else (lambda section: void_of(section, above),):
        void = find(section_YX)
        void = _that_matters(void if within_YX is None else _allowed(void, within_YX))
        if void.all():
            raise InputError("the section shows no tissue anywhere: it is missing, not torn")
        parts, crumbs = _parts(~void, least_share, bridge_px)
        if parts.max() > 1:
            break
    rest = parts == 0
    outside = _outside(parts, rest)
    gap: Bool = rest & ~outside
    return Parts(parts, gap, outside, _notes(parts, gap, crumbs))


def tissue_of(section_YX: NDArray[Any]) -> Bool:
    """Return where a good section shows tissue: everywhere but where a program filled it in.

    Raises:
        InputError: the section is no plane, or not finite.
    """
    return ~_that_matters(filled_in(section_YX))


def _allowed(void: Bool, within: Bool) -> Bool:
    """Return the void in a region, and what of it touches the border of the image."""
    if within.shape != void.shape:
        raise InputError(f"the region of a gap is {within.shape}, the section {void.shape}: give the same shape")
    names, count = ndimage.label(void & ~within, _EIGHT)
    at_border = np.zeros(count + 1, np.bool_)
    at_border[np.unique(np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]]))] = True
    at_border[0] = False
    kept: Bool = (void & within) | at_border[names]
    return kept


def _that_matters(void: Bool) -> Bool:
    """Return the void components that are long, or, at the border, broad; others are holes of the tissue."""
    names, count = ndimage.label(void, _EIGHT)
    if count == 0:
        return void
    least_length = 0.1 * min(void.shape)
    area = np.bincount(names.ravel(), minlength=count + 1).astype(float)
    width = _widths(void, names, count)
    long = (area >= least_length * width) & (area >= LEAST_ELONGATION * width**2)
    border = np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])
    touching = np.bincount(border, minlength=count + 1)
    broad = (touching >= least_length) | ((touching > 0) & (area >= 0.002 * void.size))
    kept = long | broad
    kept[0] = False
    out: Bool = kept[names]
    return out


def _widths(void: Bool, names: I32, count: int) -> NDArray[np.float64]:
    """Return twice the largest depth of every component; beyond the image it goes on."""
    depth = edt.edt(void, black_border=False)
    most = np.zeros(count + 1)
    np.maximum.at(most, names[void], depth[void])
    out: NDArray[np.float64] = np.maximum(2 * most - 1, 1)
    return out


def _parts(tissue: Bool, least_share: float, bridge: int) -> tuple[NDArray[np.uint8], int]:
    """Return parts by falling area, their holes filled, and how many islands were dropped."""
    side = 2 * (bridge // 2) + 1
    core = ndimage.minimum_filter(tissue, side, mode="nearest")
    names, count = ndimage.label(core)
    sizes = np.bincount(names.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = [int(k) for k in np.argsort(-sizes, kind="stable") if sizes[k] >= max(1, least_share * tissue.sum())]
    order = order[:_MOST_PARTS] or [int(np.argmax(sizes))]
    number = np.zeros(count + 1, np.uint8)
    number[order] = np.arange(1, len(order) + 1)
    parts = _regrown(number[names], tissue, side)
    parts, crumbs = _with_islands(parts, tissue & (parts == 0))
    return _by_area(_filled(parts)), crumbs


def _by_area(parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return parts numbered by falling area: what they took on may have changed their order."""
    sizes = np.bincount(parts.ravel())
    number = np.zeros(len(sizes), np.uint8)
    number[1 + np.argsort(-sizes[1:], kind="stable")] = np.arange(1, len(sizes))
    return number[parts]


def _regrown(parts: NDArray[np.uint8], tissue: Bool, side: int) -> NDArray[np.uint8]:
    """Return parts grown back over what tearing bridges took from them; of two, the larger part gets it."""
    turned = np.where(parts > 0, 256 - parts.astype(np.int32), 0).astype(np.uint8)
    grown = ndimage.maximum_filter(turned, side + 2, mode="nearest")
    out = np.where(parts > 0, parts, np.where(tissue & (grown > 0), 256 - grown.astype(np.int32), 0))
    result: NDArray[np.uint8] = out.astype(np.uint8)
    return result


def _with_islands(parts: NDArray[np.uint8], left: Bool) -> tuple[NDArray[np.uint8], int]:
    """Return parts with the islands that touch them, and how many others there are."""
    names, count = ndimage.label(left, _EIGHT)
    if count == 0:
        return parts, 0
    turned = np.where(parts > 0, 256 - parts.astype(np.int32), 0).astype(np.uint8)
    near = ndimage.maximum_filter(turned, 3, mode="nearest")
    best = np.zeros(count + 1, np.int32)
    np.maximum.at(best, names[left], near[left])
    number = np.where(best > 0, 256 - best, 0).astype(np.uint8)
    number[0] = 0
    return np.where(left, number[names], parts), int((best[1:] == 0).sum())


def _filled(parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return parts without holes that nothing but void too small to matter is in."""
    out = parts.copy()
    names, count = ndimage.label(parts == 0, _EIGHT)
    if count == 0:
        return out
    sizes = np.bincount(names.ravel(), minlength=count + 1)
    least_length = 0.1 * min(parts.shape)
    for number, box in enumerate(ndimage.find_objects(names), start=1):
        inner = all(s.start > 0 and s.stop < n for s, n in zip(box, parts.shape, strict=True))
        small = max(s.stop - s.start for s in box) < least_length
        if inner and small and sizes[number]:
            around = tuple(slice(s.start - 1, s.stop + 1) for s in box)
            hole = names[around] == number
            touching = np.unique(parts[around][ndimage.binary_dilation(hole, _EIGHT) & ~hole])
            if len(touching) == 1:
                out[around][hole] = touching[0]
    return out


def _outside(parts: NDArray[np.uint8], rest: Bool) -> Bool:
    """Return the void that is neither between parts, nor enclosed, nor narrow."""
    if not rest.any():
        return rest
    between = _between(parts, rest)
    names, count = ndimage.label(rest & ~between, _EIGHT)
    rim = np.zeros(rest.shape, np.bool_)
    rim[0], rim[-1], rim[:, 0], rim[:, -1] = True, True, True, True
    numbers = np.arange(1, count + 1)
    width = _widths(rest & ~between, names, count)[1:]
    length = ndimage.sum_labels(rest, names, numbers) / width
    margin = ndimage.sum_labels(rim, names, numbers) > np.minimum(0.5 * length, 2 * width)
    out: Bool = np.concatenate([[False], margin])[names]
    return out


def _between(parts: NDArray[np.uint8], rest: Bool) -> Bool:
    """Return the void between two parts: where it is about as wide as the crack is nearby."""
    count = int(parts.max())
    if count < 2:
        return np.zeros_like(rest)
    cells = parts[::_CELL, ::_CELL]
    first, second = (np.full(cells.shape, np.inf) for _ in range(2))
    for number in range(1, count + 1):
        away = ndimage.distance_transform_edt(cells != number)
        second = np.minimum(second, np.maximum(first, away))
        first = np.minimum(first, away)
    hull = _hull(cells > 0)
    middle = (cells == 0) & hull & (second - first <= 1.5)
    if not middle.any():
        return np.zeros_like(rest)
    at = ndimage.distance_transform_edt(~middle, return_distances=False, return_indices=True)
    width = (first + second)[tuple(at)]
    near = hull & (first + second <= _WIDER * width + 2)
    y, x = rest.shape
    out: Bool = rest & near.repeat(_CELL, 0).repeat(_CELL, 1)[:y, :x]
    return out


def _hull(mask: Bool) -> Bool:
    """Return the convex hull of a mask, by rows: where it is between the leftmost and rightmost of both sides."""
    rows = np.flatnonzero(mask.any(1))
    left = mask.argmax(1)[rows]
    right = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)[rows]
    low = _envelope(rows, left)
    high = -_envelope(rows, -right)
    at = np.arange(mask.shape[1])
    out = np.zeros_like(mask)
    out[rows[0] : rows[-1] + 1] = (at >= low[:, None] - 1e-9) & (at <= high[:, None] + 1e-9)
    return out


def _envelope(rows: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the convex function below values, at every row from the first to the last (Andrew 1979)."""
    chain: list[tuple[int, int]] = []
    for p in zip(rows.tolist(), values.tolist(), strict=True):
        while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= 0:
            chain.pop()
        chain.append(p)
    y, x = np.array(chain).T
    out: NDArray[np.float64] = np.interp(np.arange(rows[0], rows[-1] + 1), y, x)
    return out


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _notes(parts: NDArray[np.uint8], gap: Bool, crumbs: int) -> tuple[str, ...]:
    count, share = int(parts.max()), 100 * float(gap.mean())
    notes = []
    if count > 1:
        notes.append(f"{count} parts; the gap between them is {share:.2g} % of the image")
    elif gap.any():
        notes.append(
            f"the crack does not cross the section, which is one part: its slit, {share:.2g} % of the image, is a "
            "gap to be filled in, and its sides are not moved"
        )
    else:
        notes.append("no crack was found: the section is one part")
    if crumbs:
        notes.append(f"{crumbs} islands that touch no part were dropped: they count as gap")
    return tuple(notes)
