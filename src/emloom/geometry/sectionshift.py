"""Translation alignment: every section is moved by whole pixels, so that nothing is interpolated or lost.

A table says how far section z is to be moved relative to section z - 1; what is aligned is a box of the raw (that
of its labels, say), with some sections before and after it and a margin around it. (y, x) pixels, floating point::

    s  = cumsum(d)                                   where a section goes, relative to the first
    p  = s[reference] - s                            where the box lies in a section's pixels, relative to the box
    r  = round(p)                                    half away from zero, as MATLAB has it
    ww = ceil(max p) + margin, ceil(-min p) + margin     pixels of the target before and behind the box

    out[z, v]  = raw[first + z, start + r[z] - ww_before + v]         v: pixels (y, x) of the target
    in[z, u]   = out[z, ww_before - r[z] + u]                         u: pixels (y, x) of the box; the way back

`first` is the raw section of the target's section 0, `start` the first pixel of the box. A section of the target
needs one section of the raw. The section of reference stays where it is in the world; each other goes by -r. The
window of a target section may leave the raw: as a stack map, there is nothing; `aligned` mirrors the raw there,
its border pixel repeated (``numpy.pad(mode="symmetric")``), along x as the published arithmetic does, and along y.

Published for CREMI's padded volumes: 14 sections and 200 pixels of margin around the labels, reference 76 of 153.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError
from emloom.geometry.box import Box
from emloom.geometry.grid import TOLERANCE_VOX, Grid
from emloom.geometry.planar import Shift
from emloom.geometry.stackmap import Frame, StackMap

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_AXES = "yx"


@dataclass(frozen=True)
class SectionShift:
    """A translation alignment; see the module. Made by `of`, which knows what is usual.

    Attributes:
        translations: per section of the target (y, x) pixels by which it is moved relative to the one before; the
            first is (0, 0).
        raw: what is aligned.
        box: the part of the raw that is kept whole in every section, in voxels of the raw.
        reference: section of the target that stays where it is.
        margin_vox: pixels around the box.
        margin_sections: sections before and after the box.

    Raises:
        InputError: another number of translations than of sections, one that is not finite, a first one that is
            not 0, a box or margin sections that leave the raw, a reference that does not exist, a negative margin,
            or a section that would be moved by more than the raw is wide.
    """

    translations: tuple[tuple[float, float], ...]
    raw: Frame
    box: Box
    reference: int
    margin_vox: int = 0
    margin_sections: int = 0

    def __post_init__(self) -> None:
        table = _table(self.translations)
        object.__setattr__(self, "translations", tuple((float(y), float(x)) for y, x in table))
        _require_margins(self)
        n = self.box.shape[0] + 2 * self.margin_sections
        if len(table) != n:
            raise InputError(_length(len(table), n, self))
        if not 0 <= self.reference < n:
            raise InputError(f"the section of reference {self.reference} does not exist: give 0 to {n - 1}")
        _require_overlap(self)

    @classmethod
    def of(
        cls,
        translations: ArrayLike,
        raw: Frame,
        box: Box | None = None,
        *,
        reference: int | None = None,
        margin_vox: int = 0,
        margin_sections: int = 0,
    ) -> SectionShift:
        """Return the alignment of a table.

        Args:
            translations: [Z, 2], (y, x) pixels relative to the section before.
            raw: what is aligned.
            box: the part of it that is kept whole; all of it by default.
            reference: section of the target that stays; the middle one by default, ``Z // 2``.
            margin_vox: pixels around the box.
            margin_sections: sections before and after the box.

        Raises:
            InputError: see the class.
        """
        table = _table(translations)
        middle = len(table) // 2 if reference is None else reference
        rows = tuple((float(y), float(x)) for y, x in table)
        return cls(rows, raw, raw.box if box is None else box, middle, margin_vox, margin_sections)

    @cached_property
    def s(self) -> F64:
        """Where every section goes relative to the first, float64 [Z, 2]."""
        return np.cumsum(np.array(self.translations), axis=0)

    @cached_property
    def p(self) -> F64:
        """Where the box lies in every section, relative to the box, float64 [Z, 2]."""
        relative: F64 = self.s[self.reference] - self.s
        return relative

    @cached_property
    def r(self) -> I64:
        """`p` in whole pixels, halves away from zero, int64 [Z, 2]."""
        return away_from_zero(self.p)

    @cached_property
    def ww(self) -> I64:
        """Pixels of the target [before, behind] the box along [y, x], int64 [2, 2]; the margin is part of them."""
        room = np.ceil([self.p.max(axis=0), -self.p.min(axis=0)])
        return room.astype(np.int64) + self.margin_vox

    @property
    def first(self) -> int:
        """Section of the raw that the target's section 0 shows."""
        return self.box.start[0] - self.margin_sections

    @cached_property
    def target(self) -> Frame:
        """The aligned volume: the section of reference lies in the world where it lay."""
        y, x = np.array(self.box.shape[1:]) + self.ww.sum(axis=0)
        corner = np.array(self.box.start[1:]) - self.ww[0]
        offset = self.raw.grid.to_world((self.first, *corner.tolist()))
        return Frame((len(self.translations), int(y), int(x)), Grid(self.raw.grid.voxel_size_nm, offset))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of the aligned volume."""
        return self.target.shape

    @cached_property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels ((before, behind) along y, along x) by which windows leave the raw, at most."""
        low = self._corners().min(axis=0)
        high = self._corners().max(axis=0) + self.shape[1:]
        (top, left), (bottom, right) = np.maximum(-low, 0), np.maximum(high - self.raw.shape[1:], 0)
        return (int(top), int(bottom)), (int(left), int(right))

    def _corners(self) -> I64:
        """Return the raw's pixel that is the first of every section of the target, int64 [Z, 2]."""
        corners: I64 = np.array(self.box.start[1:]) + self.r - self.ww[0]
        return corners

    def window(self, z: int) -> Box:
        """Return where the box's part of section z of the target lies in the target; inside of it, always."""
        y, x = (self.ww[0] - self.r[z]).tolist()
        return Box((z, y, x), (1, *self.box.shape[1:]))

    def sources(self, z: int) -> tuple[I64, I64]:
        """Return the rows and columns of the raw that section z of the target shows, mirrored at its border."""
        rows, columns = (
            _mirrored(corner + np.arange(n), extent)
            for corner, n, extent in zip(self._corners()[z], self.shape[1:], self.raw.shape[1:], strict=True)
        )
        return rows, columns

    def aligned(self, section_YX: NDArray[Any], z: int) -> NDArray[Any]:
        """Return section z of the target.

        Args:
            section_YX: the raw's section ``first + z``, whole.
            z: section of the target.

        Raises:
            InputError: the section has another shape than those of the raw.
        """
        _require_shape(section_YX, self.raw.shape[1:], "a section of the raw")
        moved: NDArray[Any] = section_YX[np.ix_(*self.sources(z))]
        return moved

    def placed(self, section_YX: NDArray[Any], z: int) -> NDArray[Any]:
        """Return section z of the target with what is known in the box only (labels, masks), 0 elsewhere.

        Args:
            section_YX: the box's section ``z - margin_sections``.
            z: section of the target.

        Raises:
            InputError: the section has another shape than those of the box.
        """
        _require_shape(section_YX, self.box.shape[1:], "a section of the box")
        out = np.zeros(self.shape[1:], section_YX.dtype)
        out[self.window(z).slices()[1:]] = section_YX
        return out

    def brought_back(self, section_YX: NDArray[Any], z: int) -> NDArray[Any]:
        """Return the box's part of section z of the target: a view, nothing is computed.

        Args:
            section_YX: section z of the target.
            z: its number.

        Raises:
            InputError: the section has another shape than those of the target.
        """
        _require_shape(section_YX, self.shape[1:], "a section of the aligned volume")
        part: NDArray[Any] = section_YX[self.window(z).slices()[1:]]
        return part

    def stackmap(self) -> StackMap:
        """Return the map from the raw to the aligned volume; whole shifts only."""
        homes = range(self.first, self.first + self.shape[0])
        maps = [Shift(float(-y), float(-x)) for y, x in self._corners().tolist()]
        return StackMap.of(self.raw, self.target, maps, homes)

    def inverse(self) -> StackMap:
        """Return the map back."""
        return self.stackmap().inverse()

    def compose(self, after: StackMap) -> StackMap:
        """Return this alignment followed by another map, that begins where this ends."""
        return self.stackmap().then(after)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "translations": [list(row) for row in self.translations],
            "raw": {
                "shape": list(self.raw.shape),
                "voxel_size_nm": list(self.raw.grid.voxel_size_nm),
                "offset_nm": list(self.raw.grid.offset_nm),
            },
            "box": {"start": list(self.box.start), "shape": list(self.box.shape)},
            "reference": self.reference,
            "margin_vox": self.margin_vox,
            "margin_sections": self.margin_sections,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> SectionShift:
        """Return the alignment that `to_plain` described.

        Raises:
            InputError: a value is missing, unknown or contradicts another.
        """
        try:
            raw, box, more = dict(plain["raw"]), dict(plain["box"]), dict(plain)
            more["raw"] = Frame(raw.pop("shape"), Grid(**raw))
            more["box"] = Box(**box)
            return cls(**more)
        except (KeyError, TypeError, ValueError) as problem:
            if isinstance(problem, InputError):
                raise
            raise InputError(f"this describes no alignment by translations: {problem!r}") from None


def away_from_zero(values: F64) -> I64:
    """Return the nearest whole numbers, halves away from zero: 0.5 -> 1, -2.5 -> -3 (numpy has 0 and -2)."""
    whole = np.trunc(values)  # adding 0.5 first would turn 0.49999999999999994 into 1
    nearest: I64 = (whole + np.sign(values) * (np.abs(values - whole) >= 0.5)).astype(np.int64)
    return nearest


def box_within(raw: Frame, part: Frame) -> Box:
    """Return where a volume that was cut out of a raw (its labels, say) lies in it, by their offsets.

    Raises:
        InputError: voxel sizes differ, it does not begin at a voxel of the raw, or leaves the raw.
    """
    if not np.allclose(raw.grid.voxel_size_nm, part.grid.voxel_size_nm, rtol=TOLERANCE_VOX, atol=0):
        raise InputError(
            f"the raw has voxels of {raw.grid.voxel_size_nm} nm and the labels of {part.grid.voxel_size_nm} nm: "
            "give both at one resolution"
        )
    start = np.array(raw.grid.to_voxel(part.grid.offset_nm))
    if np.abs(start - np.rint(start)).max() > TOLERANCE_VOX:
        raise InputError(
            f"the labels begin at {part.grid.offset_nm} nm, which is voxel {tuple(start.tolist())} of the raw, "
            f"between two: check the offset of both (that of the raw is {raw.grid.offset_nm} nm)"
        )
    box = Box(tuple(np.rint(start).astype(int).tolist()), part.shape)
    if not raw.box.contains(box):
        raise InputError(
            f"the labels fill {box} of the raw, which is {raw.shape} voxels: check their offset, "
            f"{part.grid.offset_nm} nm"
        )
    return box


def _table(translations: ArrayLike) -> F64:
    try:
        table = np.array(translations, np.float64)
    except (TypeError, ValueError) as problem:
        raise InputError(f"translations are not numbers, two per section: {problem}") from None
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise InputError(
            f"translations of shape {table.shape} are no table: give (y, x) pixels per section, [Z, 2]"
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if bad.size:
        y, x = table[bad[0]].tolist()
        raise InputError(
            f"the translation ({y:g}, {x:g}) of section {bad[0]} is not finite: give 0 where nothing is known"
        )
    if table[0].any():
        y, x = table[0].tolist()
        raise InputError(
            f"the translation of section 0 is ({y:g}, {x:g}), and there is none before it: it must be 0, 0; if "
            "the table gives where sections go, and not the step from the one before, say that it is absolute"
        )
    return table


def _require_margins(shift: SectionShift) -> None:
    if min(shift.margin_vox, shift.margin_sections) < 0:
        raise InputError(
            f"margins of {shift.margin_sections} sections and {shift.margin_vox} pixels: they are at least 0"
        )
    if shift.box.is_empty or not shift.raw.box.contains(shift.box):
        raise InputError(f"{shift.box} does not lie in the raw, which is {shift.raw.shape} voxels")
    before, behind = shift.box.start[0], shift.raw.shape[0] - shift.box.stop[0]
    if shift.margin_sections > min(before, behind):
        raise InputError(
            f"{shift.margin_sections} sections of margin around {shift.box} leave the raw: it has {before} before "
            f"and {behind} behind"
        )


def _length(found: int, needed: int, shift: SectionShift) -> str:
    margins = f" and {shift.margin_sections} of margin on either side" if shift.margin_sections else ""
    hint = "; the first row, 0,0, seems to be missing" if found == needed - 1 else ""
    return (
        f"the table has {found} translations, and {shift.box.shape[0]} sections{margins} make {needed}{hint}: "
        "give one per section, or the box and margin that the table was made for"
    )


def _require_overlap(shift: SectionShift) -> None:
    extent = np.array(shift.raw.shape[1:])
    far = np.argwhere(np.abs(shift.p) >= extent)
    if far.size:
        z, axis = far[0].tolist()
        raise InputError(
            f"section {z} would be moved by {-shift.p[z, axis]:g} pixels along {_AXES[axis]} relative to section "
            f"{shift.reference}, and the raw has only {extent[axis]}: nothing of it would overlap; check the "
            "order of the table's columns, whether it is relative, and its unit (pixels)"
        )


def _require_shape(section: NDArray[Any], shape: tuple[int, ...], what: str) -> None:
    if section.shape != shape:
        raise InputError(f"{what} is {shape} pixels, and this one {section.shape}: give it whole, [Y, X]")


def _mirrored(index: I64, n: int) -> I64:
    """Return places of an axis of n pixels, mirrored at both ends as often as needed, border pixels twice."""
    turn = index % (2 * n)
    inside: I64 = np.where(turn < n, turn, 2 * n - 1 - turn)
    return inside
