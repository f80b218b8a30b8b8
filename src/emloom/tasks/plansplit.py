"""Which boxes of labelled tissue `emloom plan` holds out: apart, alike, and with room left to train.

::

    ┌─────────┬─────┬────┐     candidates   boxes at corners, edges and middles of what is labelled
    │  val 0  │     │test│     good ones    as full as the whole, many objects, none that fills a quarter: a soma,
    │         │     │ 1  │                  sheets of glia choose thresholds that merge everything; synapses,
    if any
    ├─────────┘     └────┤     a set        four, two to choose by and two to score once, apart by the gap; those
    │      training      │                  go together that resemble each other most
    ├────┐     ┌─────────┤     room         three tenths of the crops that there were are left, or an eighth
    │test│     │  val 1  │
    └────┴─────┴─────────┘

Where four do not fit, two are held out; and where these do not, one, and nothing is tested. Axes too short to be
cut (a few sections) are held out in full. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.nn.starts import free_starts

SHARES = (0.4, 0.34, 0.28, 0.22)
"""Parts of an axis that a held-out box may take, tried in this order."""
ROOMS = (0.3, 0.125)
"""Shares of the crops that shall be left for training: the second only where no split leaves the first."""
_LARGEST = 0.25
_SEVERAL = 1.5  # of four boxes, sides that are cut are longer than the least by this
_FEW = 8
_SETS = 400
_INNER, _NEAR = 0.3, 0.2


@dataclass(frozen=True)
class Tally:
    """What a box holds.

    Attributes:
        labelled: share of its voxels with a label.
        objects: different ids of at least 50 voxels.
        largest: share of the labelled voxels that the largest of them has.
        sites: synapses in it; None where nobody asks.
    """

    labelled: float
    objects: int
    largest: float
    sites: int | None = None

    def badness(self, usual: float) -> float:
        """Return how unfit the box is, 0 for one like the whole with many objects."""
        unlike = 2.0 * abs(self.labelled - usual) / max(usual, 0.05)
        few = max(0, _FEW - self.objects) / _FEW
        return unlike + 4.0 * max(0.0, self.largest - _LARGEST) + few + (4.0 if self.sites == 0 else 0.0)


@dataclass(frozen=True)
class Split:
    """Boxes that are held out, and what is left.

    Attributes:
        validation: boxes that choose.
        test: boxes that are scored once; may be empty.
        crop: voxels of a training crop that has room beside them.
        room: share of the crops of the whole that are left for training.
        tallies: what the boxes hold, those of validation first.
    """

    validation: tuple[Box, ...]
    test: tuple[Box, ...]
    crop: Vec
    room: float
    tallies: tuple[Tally, ...]


@dataclass(frozen=True)
class Wish:
    """What a split must keep.

    Attributes:
        region: voxels that are labelled.
        gap: voxels that training and boxes of different parts keep from each other.
        crops: shapes of training crops, the best first.
        least: shortest side of a held-out box along an axis that is cut.
        most: longest.
        usual: share of voxels of the region with a label.
    """

    region: Box
    gap: Vec
    crops: Sequence[Vec]
    least: Vec
    most: Vec
    usual: float


def split(wish: Wish, tally: Callable[[Box], Tally]) -> Split:
    """Return the best split.

    Args:
        wish: what it must keep.
        tally: says what a box holds; called once per candidate.

    Raises:
        InputError: the labelled tissue is too small for a single held-out box with a training crop beside it.
    """
    known: dict[Box, Tally] = {}

    def of(box: Box) -> Tally:
        if box not in known:
            known[box] = tally(box)
        return known[box]

    for number, room in product((4, 2, 1), ROOMS):
        for crop, share in product(wish.crops, SHARES):
            found = _best(
                wish, (number, room), _held_shape(wish, share, _SEVERAL if number == 4 else 1.0), crop, of
            )
            if found is not None:
                return found
    raise InputError(
        f"the labels cover {wish.region.shape} voxels (z, y, x): too small for one held-out box and, {wish.gap} "
        f"voxels away from it, a training crop of {wish.crops[-1]}: label more, or use a model that exists "
        f"(--model)"
    )


def _held_shape(wish: Wish, share: float, longer: float) -> Vec:
    """Return the shape of held-out boxes: a part of each axis that can be cut, all of the others."""
    shape = []
    for n, gap, least, most in zip(wish.region.shape, wish.gap, wish.least, wish.most, strict=True):
        side = min(int(share * n), most)
        shape.append(
            side if side >= longer * least and 2 * side + gap <= n else min(n, most) if n <= most else most
        )
    return as_vec(shape)


def _candidates(region: Box, shape: Vec) -> list[Box]:
    starts = []
    for first, n, side in zip(region.start, region.shape, shape, strict=True):
        last = first + n - side
        starts.append(sorted({first, (first + last) // 2, last} if n >= 3 * side else {first, last}))
    return [Box(as_vec(start), shape) for start in product(*starts)]


def _best(wish: Wish, least: tuple[int, float], shape: Vec, crop: Vec, of: Callable[[Box], Tally]) -> Split | None:
    """Return the best split into a number of boxes that leaves room; None where there is none."""
    number, least_room = least
    boxes = _candidates(wish.region, shape)
    apart = _apart(boxes, wish.gap)
    if number > len(boxes) or (number > 1 and not apart.any()) or not _fits(crop, wish.region):
        return None
    sets = [
        each for each in combinations(range(len(boxes)), number) if all(apart[p] for p in combinations(each, 2))
    ]
    if not sets:
        return None
    bad = [of(box).badness(wish.usual) + _INNER * _inner(box, wish.region) for box in boxes]
    centres = np.array([np.add(box.start, box.stop) / 2 / wish.region.shape for box in boxes])
    sets.sort(
        key=lambda each: (round(sum(bad[k] for k in each) - _NEAR * number * _spread(centres, each), 9), each)
    )
    whole = free_starts(wish.region, (), crop).count
    for each in sets[:_SETS]:
        chosen = [boxes[k] for k in each]
        room = free_starts(wish.region, [box.grow(wish.gap) for box in chosen], crop).count / whole
        if room >= least_room:
            validation, test = _parts(chosen, of)
            tallies = tuple(of(box) for box in (*validation, *test))
            return Split(validation, test, crop, room, tallies)
    return None


def _fits(crop: Vec, region: Box) -> bool:
    return all(c <= n for c, n in zip(crop, region.shape, strict=True))


def _apart(boxes: Sequence[Box], gap: Vec) -> NDArray[np.bool_]:
    return np.array([[a != b and not a.grow(gap).meets(b) for b in boxes] for a in boxes])


def _inner(box: Box, region: Box) -> int:
    """Count the axes along which a box touches neither end: it costs training on both sides."""
    ends = zip(box.start, box.stop, region.start, region.stop, strict=True)
    return sum(a > low and b < high for a, b, low, high in ends)


def _spread(centres: NDArray[np.float64], each: tuple[int, ...]) -> float:
    return min((float(np.linalg.norm(centres[a] - centres[b])) for a, b in combinations(each, 2)), default=0.0)


def _parts(boxes: Sequence[Box], of: Callable[[Box], Tally]) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """Return validation and test boxes: the two halves that hold most alike, the first box in validation."""
    if len(boxes) < 3:
        return tuple(boxes[:1]), tuple(boxes[1:])
    options = [((boxes[0], boxes[k]), tuple(b for b in boxes[1:] if b != boxes[k])) for k in (1, 2, 3)]
    return min(options, key=lambda option: round(_difference(option[0], option[1], of), 9))


def _difference(a: Sequence[Box], b: Sequence[Box], of: Callable[[Box], Tally]) -> float:
    """Return how unlike two halves are: in what is labelled, in objects, in synapses; nearness counts a little."""
    halves: list[tuple[float, float, float]] = []
    for half in (a, b):
        tallies = [of(box) for box in half]
        halves.append((sum(t.labelled for t in tallies), sum(t.objects for t in tallies), _sites(tallies)))
    return float(sum(abs(x - y) / max(x + y, 1e-9) for x, y in zip(*halves, strict=True)))


def _sites(tallies: Sequence[Tally]) -> int:
    return sum(t.sites or 0 for t in tallies)
