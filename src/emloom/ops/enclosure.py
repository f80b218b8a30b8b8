"""The enclosure rule: a class that is always wrapped in another, such as a mitochondrion in its membrane.

A *face* is where two voxels touch. The surface of the inside class is all its faces with voxels of other known
classes; a face with a class that is neither the wall nor allowed violates the rule. Faces of the volume, and faces
with undecided voxels (255), are no surface: nobody knows what is beyond::

    c c c c c c         c cytoplasm   M inside (mitochondrion)   # wall (its membrane)
    c # # # # c         surface 10 faces, of which 2 violate:    c|M
    c # M M M|c                                                  rate 2/10, here of equal areas
    c # # # # c

* **measure** — violating area over surface area; counted as whole faces per axis, so counts of blocks add up. A
  face belongs to the block of its lower voxel.
* **repair** — at every violating face one of its two voxels becomes wall: the inside voxel, where its share of the
  wall is at least that of the outside one; else the outside voxel, unless the inside one gives way at another
  face.

What the repair guarantees, for one rule:

1. no face violates the rule afterwards: only wall is added to both sides, and wall violates nothing;
2. repairing again changes nothing: every change starts at a violating face;
3. only voxels with a violating face change, and specks (below), which are at most `specks_nm` long;
4. it is local: with `halo_vox` around a block, blockwise equals whole.

Specks come first. An outside piece no longer than `specks_nm` along any axis that touches nothing but the inside
is a hole, and becomes inside; an inside piece no longer than that with a violating face and no wall is stray, and
becomes the class that most of its faces touch. A piece at a face of the volume, whose size nobody knows, is left
alone.

Several rules are applied in order. Where they contradict each other, `contradictions` says so; where a later one
may undo an earlier one, it is measured afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Vec
from emloom.geometry.grid import TOLERANCE_VOX, Vec3
from emloom.ops.decide import UNDECIDED
from emloom.ops.specks import fill_holes, recolour_strays
from emloom.spec import Spec

Labels = NDArray[np.uint8]
Faces = NDArray[np.int64]


class EnclosureRule(Spec):
    """One class is always enclosed by another."""

    inside: str
    """The class that is enclosed."""
    wall: str
    """The class that encloses it."""
    allowed: tuple[str, ...] = ()
    """Further classes it may touch."""
    specks_nm: float = Field(default=0.0, ge=0)
    """Holes and stray pieces up to this long along every axis are removed before the wall is closed; 0: none."""
    in_plane: bool = False
    """Look at faces within sections only: for sections so thick that a wall is crossed between two of them."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.inside in (self.wall, *self.allowed):
            raise ValueError(f"{self.inside} is enclosed by itself: name another class as its wall")
        return self


@dataclass(frozen=True)
class Enclosure:
    """A rule about the labels of a volume.

    Attributes:
        names: of the inside, the wall and the allowed classes.
        inside: label.
        wall: label.
        allowed: labels.
        specks_nm: see `EnclosureRule`.
        in_plane: see `EnclosureRule`.
        spacing_nm: voxel size (z, y, x).
    """

    names: tuple[str, ...]
    inside: int
    wall: int
    allowed: tuple[int, ...]
    specks_nm: float
    in_plane: bool
    spacing_nm: Vec3

    @classmethod
    def of(cls, rule: EnclosureRule, labels: Mapping[str, int], spacing_nm: Vec3) -> Self:
        """Return a rule about labels."""
        names = (rule.inside, rule.wall, *rule.allowed)
        inside, wall, *allowed = (labels[name] for name in names)
        return cls(names, inside, wall, tuple(allowed), rule.specks_nm, rule.in_plane, spacing_nm)

    @property
    def name(self) -> str:
        """What the rule is about."""
        return self.names[0]

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes along which voxels touch."""
        return (1, 2) if self.in_plane else (0, 1, 2)

    @property
    def specks_vox(self) -> Vec:
        """Largest extents of a speck."""
        z, y, x = (floor(self.specks_nm / s + TOLERANCE_VOX) for s in self.spacing_nm)
        return (1 if self.in_plane and min(y, x) else z, y, x)

    @property
    def has_specks(self) -> bool:
        """Whether a single voxel may be a speck."""
        return min(self.specks_vox) > 0

    @property
    def halo_vox(self) -> Vec:
        """Voxels around a box that its repair depends on: 2 for the wall, and twice the longest speck plus 1."""
        specks = self.specks_vox if self.has_specks else (-1, -1, -1)
        z, y, x = (2 * (n + 1) + 2 for n in specks)
        return (0 if self.in_plane else z, y, x)

    def foreign(self, labels_ZYX: Labels) -> NDArray[np.bool_]:
        """Return where a class is that the inside must not touch."""
        table = np.ones(256, np.bool_)
        table[[self.inside, self.wall, *self.allowed, UNDECIDED]] = False
        found: NDArray[np.bool_] = table[labels_ZYX]
        return found


def resolve(rules: Sequence[EnclosureRule], names: Sequence[str], spacing_nm: Vec3) -> tuple[Enclosure, ...]:
    """Return rules about labels, which are the places of names.

    Raises:
        InputError: a rule names an unknown class, or rules contradict each other; names all problems.
    """
    problems = []
    for place, rule in enumerate(rules, start=1):
        for what, given in (("inside", (rule.inside,)), ("wall", (rule.wall,)), ("allowed", rule.allowed)):
            problems += [
                f"rule {place}, {what}: {name!r} is no class{did_you_mean(name, names)}"
                for name in given
                if name not in names
            ]
    problems += contradictions(rules)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(
            f"the rules of enclosure have {len(problems)} problem{'s' if len(problems) > 1 else ''} (the classes "
            f"are {', '.join(names)}):\n{listed}"
        )
    index = {name: number for number, name in enumerate(names)}
    return tuple(Enclosure.of(rule, index, spacing_nm) for rule in rules)


def contradictions(rules: Sequence[EnclosureRule]) -> list[str]:
    """Return, in words, the pairs of rules that no volume with their classes can satisfy."""
    found = []
    for place, one in enumerate(rules):
        for other_place, other in enumerate(rules):
            where = f"rules {place + 1} and {other_place + 1}"
            if place < other_place and one.inside == other.inside:
                found.append(f"{where} both enclose {one.inside}: make one rule of them, with `allowed`")
            if (
                place != other_place
                and other.inside == one.wall
                and one.inside not in (other.wall, *other.allowed)
            ):
                found.append(
                    f"{where}: {one.wall} encloses {one.inside}, and must not touch it: add {one.inside} to "
                    f"`allowed` of rule {other_place + 1}"
                )
    return found


def halo_of(rules: Sequence[Enclosure]) -> Vec:
    """Return the voxels around a box that its repair by several rules depends on."""
    z, y, x = (sum(rule.halo_vox[axis] for rule in rules) for axis in range(3))
    return (z, y, x)


def enclosure_faces(
    labels_ZYX: Labels, rule: Enclosure, box: Box | None = None, known_ZYX: NDArray[np.bool_] | None = None
) -> Faces:
    """Count the faces of the inside class.

    Args:
        labels_ZYX: classes; 255 is undecided.
        rule: what encloses what.
        box: voxels that own the faces counted, which need one more voxel after them; None: all.
        known_ZYX: only faces between two of these count.

    Returns:
        int64 [2, 3]: faces of the surface, and violating ones, along z, y and x.
    """
    own = (Box.whole(labels_ZYX.shape) if box is None else box).slices()
    known = labels_ZYX != UNDECIDED
    if known_ZYX is not None:
        known &= known_ZYX
    inside, foreign = (labels_ZYX == rule.inside) & known, rule.foreign(labels_ZYX) & known
    other = known & ~inside
    counts = np.zeros((2, 3), np.int64)
    for axis in rule.axes:
        low, high = _pair(own, axis, labels_ZYX.shape[axis])
        for row, outside in enumerate((other, foreign)):
            counts[row, axis] = np.count_nonzero(inside[low] & outside[high])
            counts[row, axis] += np.count_nonzero(outside[low] & inside[high])
    return counts


def violation_rate(faces: Faces, spacing_nm: Vec3) -> float:
    """Return violating area over surface area, 0 to 1; NaN where there is no surface. Faces are int64 [2, 3]."""
    z, y, x = spacing_nm
    surface, violating = (float(v) for v in faces @ np.array([y * x, z * x, z * y]))
    return violating / surface if surface else float("nan")


def repair(labels_ZYX: Labels, shares_CZYX: NDArray[Any], rules: Sequence[Enclosure]) -> Labels:
    """Return labels that keep every rule, one after the other; see the module for what is guaranteed.

    Args:
        labels_ZYX: classes; 255 is undecided, and stays.
        shares_CZYX: probabilities of the classes: which side of a violating face gives way.
        rules: in this order.
    """
    repaired = labels_ZYX.copy()
    for rule in rules:
        _close(repaired, shares_CZYX[rule.wall], rule)
    return repaired


def _close(labels: Labels, wall_share: NDArray[Any], rule: Enclosure) -> None:
    """Keep one rule, in place."""
    if rule.has_specks:
        foreign = rule.foreign(labels)
        labels[fill_holes(foreign, labels == rule.inside, rule.specks_vox, rule.axes)] = rule.inside
        recolour_strays(labels, rule.inside, rule.wall, rule.foreign(labels), (rule.specks_vox, rule.axes))
    inside, foreign = labels == rule.inside, rule.foreign(labels)
    inner, outer = np.zeros_like(inside), np.zeros_like(inside)
    whole = Box.whole(labels.shape).slices()
    for axis in rule.axes:
        for mine, its in _both_ways(whole, axis, labels.shape[axis]):
            inner[mine] |= inside[mine] & foreign[its] & (wall_share[mine] >= wall_share[its])
    left = inside & ~inner
    for axis in rule.axes:
        for mine, its in _both_ways(whole, axis, labels.shape[axis]):
            outer[mine] |= foreign[mine] & left[its]
    labels[inner | outer] = rule.wall


Slices = tuple[slice, ...]


def _pair(own: Slices, axis: int, length: int) -> tuple[Slices, Slices]:
    """Return the lower voxels of the faces along an axis that a box owns, and the upper ones."""
    start, stop = own[axis].start, min(own[axis].stop, length - 1)
    low, high = list(own), list(own)
    low[axis], high[axis] = slice(start, max(start, stop)), slice(start + 1, max(start, stop) + 1)
    return tuple(low), tuple(high)


def _both_ways(own: Slices, axis: int, length: int) -> tuple[tuple[Slices, Slices], tuple[Slices, Slices]]:
    low, high = _pair(own, axis, length)
    return (low, high), (high, low)
