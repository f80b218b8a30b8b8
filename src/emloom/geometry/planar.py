"""Maps of the plane of one section: where a place of it lies after it was shifted, bent, or mended.

Convention: places are continuous pixel coordinates (y, x) with pixel corners at whole numbers, as in `Grid`: pixel
``i`` fills ``[i, i + 1)``, its centre is ``i + 0.5``. A map takes places of a *source* section to places of a
*target* section; float64 [N, 2] in, float64 [N, 2] out, NaN where there is nothing. ::

    Shift     p + t
    Affine    M p + t
    Field     p + u(p)            u between the nodes of a lattice, constant beyond its border
    Pieces    M_k p + t_k         k: the part of a torn section in which p lies; NaN in none
    Chain     one after the other

Algebra::

    m.inverse()(m(p)) == p        to the bit for whole shifts, 1e-9 px for affine maps, 1e-6 px for fields
    m.inverse().inverse() == m
    m.then(n)(p) == n(m(p))       to the bit; identities vanish, whole shifts add up
    from_plain(to_plain(m)) == m

Pieces may come to lie on each other; then the inverse of a place there is in the first of them, and
``m.inverse()(m(p)) == p`` holds for that one only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError

F64 = NDArray[np.float64]
Keep = Callable[[NDArray[Any]], str]
"""Stores an array, returns its name."""
Find = Callable[[str], NDArray[Any]]
"""Returns the array of a name."""

_CLOSE_PX = 1e-7
_MOST_STEPS = 200


@runtime_checkable
class PlanarMap(Protocol):
    """A map from places of one section to places of another; see the module."""

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] go; NaN where there is nothing."""

    def inverse(self) -> PlanarMap:
        """Return the map back."""

    def then(self, after: PlanarMap) -> PlanarMap:
        """Return this map followed by another."""

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values; arrays go to `keep`."""


class _Map:
    def then(self: PlanarMap, after: PlanarMap) -> PlanarMap:
        """Return this map followed by another."""
        return chain(self, after)


@dataclass(frozen=True)
class Shift(_Map):
    """A displacement by (y, x) pixels.

    Raises:
        InputError: it is not finite.
    """

    y: float = 0.0
    x: float = 0.0

    def __post_init__(self) -> None:
        if not np.isfinite([self.y, self.x]).all():
            raise InputError(f"the shift ({self.y}, {self.x}) is not finite: give pixels along y and x")

    @property
    def is_whole(self) -> bool:
        """Whether it moves by whole pixels, so that nothing is interpolated."""
        return float(self.y).is_integer() and float(self.x).is_integer()

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] go."""
        moved: F64 = _places(yx) + np.array([self.y, self.x])
        return moved

    def inverse(self) -> Shift:
        """Return the map back."""
        return Shift(-self.y, -self.x)

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"shift": [float(self.y), float(self.x)]}


IDENTITY = Shift()


@dataclass(frozen=True)
class Affine(_Map):
    """A linear map of the plane and a displacement.

    Attributes:
        rows: ((yy, yx, ty), (xy, xx, tx)): ``y' = yy y + yx x + ty``, ``x' = xy y + xx x + tx``; pixels.

    Raises:
        InputError: it is not two rows of three finite numbers, or turns the plane over or into a line.
    """

    rows: tuple[tuple[float, float, float], tuple[float, float, float]]

    def __post_init__(self) -> None:
        m = np.asarray(self.rows, np.float64)
        if m.shape != (2, 3) or not np.isfinite(m).all():
            raise InputError(f"the affine map {self.rows} is not two rows of three finite numbers")
        if np.linalg.det(m[:, :2]) <= 0:
            raise InputError(
                f"the affine map {self.rows} turns a section over or into a line: its determinant must be positive"
            )
        object.__setattr__(self, "rows", tuple(tuple(float(v) for v in row) for row in m))

    @classmethod
    def of(cls, matrix: ArrayLike) -> Affine:
        """Return the map of a matrix [2, 3] or [3, 3], rows and columns in the order y, x, 1."""
        m = np.asarray(matrix, np.float64)
        return cls(m[:2].tolist())

    @property
    def matrix(self) -> F64:
        """The rows, float64 [2, 3]."""
        return np.array(self.rows)

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] go."""
        m = self.matrix
        moved: F64 = _places(yx) @ m[:, :2].T + m[:, 2]
        return moved

    def inverse(self) -> Affine:
        """Return the map back."""
        m = self.matrix
        back = np.linalg.inv(m[:, :2])
        return Affine.of(np.column_stack([back, -back @ m[:, 2]]))

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"affine": [list(row) for row in self.rows]}


@dataclass(frozen=True, eq=False)
class Field(_Map):
    """A displacement at the nodes of a lattice; bilinear between them, that of the nearest border beyond.

    Attributes:
        displacement: float32 [2, J, I], along y and x, pixels; of the places that are mapped.
        spacing: pixels between nodes along y and x.
        origin: place (y, x) of the first node.

    Raises:
        InputError: the displacement is not of that form or not finite, or the spacing is not positive.
    """

    displacement: NDArray[np.float32]
    spacing: tuple[float, float]
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        u = np.asarray(self.displacement)
        if u.ndim != 3 or u.shape[0] != 2 or 0 in u.shape or u.dtype != np.float32:
            raise InputError(f"a field of {u.dtype} {u.shape} is no displacement: give float32 [2, J, I]")
        if not np.isfinite(u).all():
            raise InputError("a field has nodes that are not finite: fill them in from their neighbours")
        if min(self.spacing) <= 0:
            raise InputError(f"the spacing {self.spacing} of a field is not positive")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Field):
            return NotImplemented
        same = (self.spacing, self.origin) == (other.spacing, other.origin)
        return same and np.array_equal(self.displacement, other.displacement)

    def at(self, yx: ArrayLike) -> F64:
        """Return the displacement at places [N, 2]."""
        p = _places(yx)
        u = self.displacement
        first, part = [], []
        for axis in range(2):
            n = u.shape[axis + 1]
            node = (p[:, axis] - self.origin[axis]) / self.spacing[axis]
            node = np.clip(np.nan_to_num(node), 0.0, n - 1.0)
            low = np.minimum(node.astype(np.int64), max(n - 2, 0))
            first.append((low, np.minimum(low + 1, n - 1)))
            part.append(node - low)
        (y0, y1), (x0, x1) = first
        v, h = part
        out = (1 - v) * ((1 - h) * u[:, y0, x0] + h * u[:, y0, x1]) + v * (
            (1 - h) * u[:, y1, x0] + h * u[:, y1, x1]
        )
        out[:, np.isnan(p).any(1)] = np.nan
        moved: F64 = out.T
        return moved

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] go."""
        return _places(yx) + self.at(yx)

    def inverse(self) -> PlanarMap:
        """Return the map back, which solves ``p + u(p) = q`` at every place that it is asked for."""
        return Inverted(self)

    def solve(self, yx: ArrayLike) -> F64:
        """Return the places that go to places [N, 2]; NaN where the field folds and none is found.

        Fixed-point iteration, ``p <- q - u(p)``, which contracts where neighbouring nodes move alike.
        """
        q = _places(yx)
        p = q - self.at(q)
        for _ in range(_MOST_STEPS):
            error = q - self.at(p) - p
            p = p + error
            if not (np.abs(error) > _CLOSE_PX).any():
                return p
        p[(np.abs(error) > _CLOSE_PX).any(1)] = np.nan
        return p

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values; the displacement goes to `keep`."""
        where = {"spacing": [float(v) for v in self.spacing], "origin": [float(v) for v in self.origin]}
        return {"field": {"displacement": keep(self.displacement), **where}}


@dataclass(frozen=True, eq=False)
class Pieces(_Map):
    """A torn section: every part of it moves by its own map.

    Attributes:
        parts: uint8 [Y, X] of the whole source section: number 1, 2, ... of the part in which a pixel lies, 0: in
            none (the gap, what lies beneath).
        maps: of part 1, 2, ...

    Raises:
        InputError: parts are not of that form, or there is a part without a map.
    """

    parts: NDArray[np.uint8]
    maps: tuple[Shift | Affine, ...]

    def __post_init__(self) -> None:
        parts = np.asarray(self.parts)
        if parts.ndim != 2 or parts.dtype != np.uint8:
            raise InputError(f"parts are {parts.dtype} {parts.shape}: give uint8 [Y, X]")
        most = int(parts.max(initial=0))
        if most > len(self.maps):
            raise InputError(f"part {most} of a torn section has no map: there are {len(self.maps)}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pieces):
            return NotImplemented
        return self.maps == other.maps and np.array_equal(self.parts, other.parts)

    def part_of(self, yx: ArrayLike) -> NDArray[np.uint8]:
        """Return in which part places [N, 2] lie, 0: in none."""
        p = _places(yx)
        finite = np.isfinite(p.sum(axis=1))
        at = np.floor(np.where(finite[:, None], p, -1)).astype(np.int64)
        inside = finite & (at >= 0).all(1) & (at < self.parts.shape).all(1)
        out = np.zeros(len(p), np.uint8)
        out[inside] = self.parts[tuple(at[inside].T)]
        return out

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] go; NaN in no part."""
        p = _places(yx)
        which = self.part_of(p)
        out = np.full(p.shape, np.nan)
        for number, move in enumerate(self.maps, 1):
            out[which == number] = move(p[which == number])
        return out

    def inverse(self) -> PlanarMap:
        """Return the map back: NaN where no part came to lie."""
        return Inverted(self)

    def solve(self, yx: ArrayLike) -> F64:
        """Return the places that go to places [N, 2]; of parts on each other, in the first."""
        q = _places(yx)
        out = np.full(q.shape, np.nan)
        for number, move in enumerate(self.maps, 1):
            left = np.flatnonzero(np.isnan(out[:, 0]))
            p = move.inverse()(q[left])
            hit = self.part_of(p) == number
            out[left[hit]] = p[hit]
        return out

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values; the parts go to `keep`."""
        return {"pieces": {"parts": keep(self.parts), "maps": [m.to_plain(keep) for m in self.maps]}}


@dataclass(frozen=True)
class Inverted(_Map):
    """The way back through a field or pieces."""

    of: Field | Pieces

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] came from."""
        return self.of.solve(yx)

    def inverse(self) -> PlanarMap:
        """Return the field or the pieces."""
        return self.of

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values; arrays go to `keep`."""
        return {"inverse": self.of.to_plain(keep)}


@dataclass(frozen=True)
class Chain(_Map):
    """Maps one after the other; made by `chain`."""

    maps: tuple[PlanarMap, ...]

    def __call__(self, yx: ArrayLike) -> F64:
        """Return where places [N, 2] go."""
        p = _places(yx)
        for one in self.maps:
            p = one(p)
        return p

    def inverse(self) -> PlanarMap:
        """Return the way back, last map first."""
        return chain(*(one.inverse() for one in reversed(self.maps)))

    def to_plain(self, keep: Keep) -> dict[str, Any]:
        """Return plain JSON values; arrays go to `keep`."""
        return {"chain": [one.to_plain(keep) for one in self.maps]}


def chain(*maps: PlanarMap) -> PlanarMap:
    """Return maps one after the other: chains are flattened, identities vanish, whole shifts are added."""
    out: list[PlanarMap] = []
    for one in (part for whole in maps for part in (whole.maps if isinstance(whole, Chain) else (whole,))):
        last = out[-1] if out else IDENTITY
        if isinstance(one, Shift) and isinstance(last, Shift) and one.is_whole and last.is_whole:
            out[-1:] = [Shift(last.y + one.y, last.x + one.x)]
        else:
            out.append(one)
    kept = [one for one in out if one != IDENTITY]
    if not kept:
        return IDENTITY
    return kept[0] if len(kept) == 1 else Chain(tuple(kept))


def from_plain(plain: Mapping[str, Any], find: Find) -> PlanarMap:
    """Return the map that `to_plain` described.

    Args:
        plain: one key, the kind of map, and its values.
        find: returns the arrays that were kept.

    Raises:
        InputError: it describes none.
    """
    try:
        ((kind, value),) = plain.items()
        match kind:
            case "shift":
                return Shift(*value)
            case "affine":
                return Affine.of(value)
            case "field":
                return Field(find(value["displacement"]), tuple(value["spacing"]), tuple(value["origin"]))
            case "pieces":
                maps = tuple(from_plain(one, find) for one in value["maps"])
                return Pieces(find(value["parts"]), maps)  # type: ignore[arg-type]
            case "inverse":
                return from_plain(value, find).inverse()
            case "chain":
                return Chain(tuple(from_plain(one, find) for one in value))
    except (KeyError, TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{dict(plain)!r} describes no map of a section: {problem!r}") from None
    raise InputError(f"a map of the kind {kind!r} is unknown: it may be of a newer emloom")


def _places(yx: ArrayLike) -> F64:
    p = np.asarray(yx, np.float64)
    if p.ndim != 2 or p.shape[1] != 2:
        raise InputError(f"places of shape {p.shape} are no places of a section: give (y, x) pixels, [N, 2]")
    return p
