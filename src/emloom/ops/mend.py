"""Mend a torn section: every part goes where its neighbours say, and what opens between is named as a gap.

::

    torn section z                    z - 1, z + 1, ... good sections, already aligned
      parts_of: parts, gap            match: one affine map for every part and neighbour
                     \\                /
                      maps that agree, averaged   ->  Pieces, the section laid, the gap to be filled in

The tissue of a torn section lies between that of its neighbours, so a part goes to the mean of what they say
(weighted by how well each fits), where they agree. Nothing is invented here: others fill in the gap, and paste
with `feather.feathered`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import IDENTITY, Affine, Pieces, Shift
from emloom.ops.affinematch import STILL, Match, improved, match_levels
from emloom.ops.matchlevels import Level, finest_of, levels_of
from emloom.ops.tornparts import Parts, parts_of, tissue_of
from emloom.ops.warp import Window, moved_section

Bool = NDArray[np.bool_]
F64 = NDArray[np.float64]

AGREE_PX, AGREE_SHARE = 24.0, 0.02
"""Pixels by which the maps of neighbours may differ, or a share of the longer side: no stack is aligned better."""
_LATTICE = 16


@dataclass(frozen=True)
class PartFit:
    """Where one part went, and why.

    Attributes:
        map: of the part.
        ok: whether a neighbour bears it out, and no other contradicts.
        how: in words.
        score: correlation with the neighbours that were used, the mean of them; NaN without.
        residual_px: how far from their place its tiles fit best, pixels, the mean of them; NaN without.
        disagreement_px: median distance between what the neighbours that were used say, at most; NaN below two.
        matches: with every neighbour, in their order.
    """

    map: Shift | Affine
    ok: bool
    how: str
    score: float
    residual_px: float
    disagreement_px: float
    matches: tuple[Match, ...]


@dataclass(frozen=True, eq=False)
class Mended:
    """A torn section mended.

    Attributes:
        pieces: map of the torn section to the frame of its neighbours.
        section: [Y, X], the parts where they went, of the section's type; 0 where there is none.
        shown: uint8 [Y, X], the part that every pixel shows; 0: none.
        gap: bool [Y, X], where no part is though tissue is expected: that of the neighbours.
        parts: of the torn section, in its own frame.
        fits: one for every part.
        notes: what was done, in words.
    """

    pieces: Pieces
    section: NDArray[Any]
    shown: NDArray[np.uint8]
    gap: Bool
    parts: Parts
    fits: tuple[PartFit, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every part found its place."""
        return all(one.ok for one in self.fits)


def mend(
    torn_YX: NDArray[Any],
    neighbours: Sequence[NDArray[Any]],
    *,
    parts: Parts | None = None,
    reach_px: float | None = None,
) -> Mended:
    """Return a torn section with its parts where good sections nearby say.

    Args:
        torn_YX: grey values of any real type.
        neighbours: good sections, aligned, the nearest first; none: the parts stay where they are.
        parts: of the torn section, where they are known.
        reach_px: how far a part may move; a quarter of the longer side if not given.

    Raises:
        InputError: shapes differ, or the section shows no tissue.
    """
    for one in neighbours:
        if one.shape != torn_YX.shape:
            raise InputError(f"a neighbour is {one.shape}, the torn section {torn_YX.shape}: align them first")
    found = parts_of(torn_YX) if parts is None else parts
    if found.parts.shape != torn_YX.shape:
        raise InputError(f"the parts are {found.parts.shape}, the section {torn_YX.shape}: give the same shape")
    tissue = [tissue_of(one) for one in neighbours]
    fits = _fits(torn_YX, found, neighbours, tissue, reach_px)
    pieces = Pieces(found.parts, tuple(one.map for one in fits))
    window = Window((0, 0), (torn_YX.shape[0], torn_YX.shape[1]))
    section = moved_section(torn_YX, (0, 0), pieces, window, "linear")
    shown = moved_section(found.parts, (0, 0), pieces, window, "nearest")
    expected = np.any(tissue, axis=0) if tissue else found.gap
    gap: Bool = expected & (shown == 0)
    return Mended(pieces, section, shown, gap, found, fits, (*found.notes, *_notes(fits, gap)))


def _fits(
    torn: NDArray[Any],
    parts: Parts,
    neighbours: Sequence[NDArray[Any]],
    tissue: Sequence[Bool],
    reach_px: float | None,
) -> tuple[PartFit, ...]:
    if not neighbours:
        nan = float("nan")
        alone = PartFit(IDENTITY, False, "stays: there is no neighbour to go by", nan, nan, nan, ())
        return (alone,) * parts.count
    finest = finest_of(torn.shape)
    reach = max(torn.shape) / 4 if reach_px is None else reach_px
    others = [levels_of(one, mask, finest) for one, mask in zip(neighbours, tissue, strict=True)]
    known: list[Affine | None] = [None] * len(others)  # where a larger part went, by neighbour
    out: list[PartFit] = []
    for number in range(1, parts.count + 1):
        mask = parts.parts == number
        own = levels_of(torn, mask, finest)
        matches = tuple(_matched(own, b, start, reach) for b, start in zip(others, known, strict=True))
        matches = _reconsidered(own, others, matches)
        known = [m.affine if m.ok and k is None else k for m, k in zip(matches, known, strict=True)]
        out.append(_agreed(matches, _places(mask), max(torn.shape)))
    if not all(one.ok or one.map != IDENTITY for one in out):
        own = levels_of(torn, parts.parts > 0, finest)
        out = _left_over(out, [match_levels(own, b, STILL, reach) for b in others], parts)
    return tuple(out)


def _matched(a: Sequence[Level], b: Sequence[Level], known: Affine | None, reach: float) -> Match:
    """Return the match of a part; where none is found, another try from where a larger part went."""
    found = match_levels(a, b, STILL, reach)
    if found.ok or known is None:
        return found
    again = match_levels(a, b, known, reach / 3)
    return again if again.ok else found


def _reconsidered(
    a: Sequence[Level], others: Sequence[Sequence[Level]], matches: tuple[Match, ...]
) -> tuple[Match, ...]:
    """Return the matches, each after a look at where the other neighbours would put the part."""
    out = []
    for k, (b, own) in enumerate(zip(others, matches, strict=True)):
        starts = [m.affine for n, m in enumerate(matches) if m.ok and n != k]
        out.append(improved(a, b, own, starts))
    return tuple(out)


def _places(mask: Bool) -> F64:
    """Return places of a lattice in a part, [N, 2]."""
    at = np.argwhere(mask[::_LATTICE, ::_LATTICE]) * _LATTICE
    places: F64 = (at if len(at) else np.argwhere(mask)).astype(np.float64) + 0.5
    return places


def _agreed(matches: tuple[Match, ...], places: F64, side: int) -> PartFit:
    """Return what the neighbours say together."""
    good = [m for m in matches if m.ok]
    nan = float("nan")
    if not good:
        return PartFit(IDENTITY, False, "; ".join(sorted({m.reason for m in matches})), nan, nan, nan, matches)
    said = np.array([m.affine(places) for m in good])
    apart = np.median(np.linalg.norm(said[:, None] - said[None], axis=-1), axis=-1)
    close = apart <= max(AGREE_PX, AGREE_SHARE * side)
    # The largest group that agrees with one of them; of equals that of the best one.
    best = max(range(len(good)), key=lambda k: (close[k].sum(), good[k].agreement * good[k].score))
    used = [k for k in range(len(good)) if close[best, k]]
    weights = np.array([good[k].score for k in used])
    place = np.tensordot(weights / weights.sum(), said[used], axes=1)
    outvoted = len(good) - len(used)
    how = f"fits {len(used)} of {len(matches)} neighbours"
    how += f", {outvoted} of which another place fits better: not used" if outvoted else ""
    return PartFit(
        _through(places, place) if len(used) > 1 else good[best].affine,
        len(used) > outvoted,
        how if len(used) > outvoted else f"neighbours disagree by {apart.max():.0f} px; the best one was believed",
        float(weights.mean()),
        float(np.mean([good[k].residual_px for k in used])),
        float(apart[np.ix_(used, used)].max()) if len(used) > 1 else nan,
        matches,
    )


def _through(places: F64, moved: F64) -> Affine:
    """Return the affine map of places to where they went, by least squares; exact for means of affine maps."""
    columns = np.column_stack([places, np.ones(len(places))])
    return Affine.of(np.linalg.lstsq(columns, moved, rcond=None)[0].T)


def _left_over(fits: list[PartFit], whole: list[Match], parts: Parts) -> list[PartFit]:
    """Return fits in which parts that found no place are shifted as the whole section is."""
    good = max((m for m in whole if m.ok), key=lambda m: m.agreement, default=None)
    out = []
    for number, one in enumerate(fits, 1):
        if one.ok or one.map != IDENTITY:
            out.append(one)
            continue
        middle = _places(parts.parts == number).mean(axis=0, keepdims=True)
        shift = Shift(*(good.affine(middle) - middle)[0]) if good is not None else IDENTITY
        what = "is shifted as the whole section is" if good is not None else "stays where it is"
        how = f"{what}: its own place was not found ({one.how})"
        nan = float("nan")
        out.append(PartFit(shift, False, how, nan, nan, nan, one.matches))
    return out


def _notes(fits: Sequence[PartFit], gap: Bool) -> tuple[str, ...]:
    notes = [f"part {number} {one.how}" for number, one in enumerate(fits, 1)]
    return (*notes, f"{100 * float(gap.mean()):.2g} % of the image is to be filled in")
