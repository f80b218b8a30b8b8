"""Slices are chosen where the prediction doubts, away from each other, and for classes that lack labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.geometry import Box
from emloom.ops.nextslices import Choice, Windows, choose, distance_to, gains_of

SPACING = (8.0, 4.0, 4.0)
SIZE = 16


def windows(uncertain: np.ndarray, voxels: np.ndarray | None = None) -> Windows:
    """Return z windows of 16 x 16 voxels, one per entry of [planes, rows, columns, classes]."""
    planes, rows, columns, classes = uncertain.shape
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (planes, rows, columns)], indexing="ij"), axis=-1)
    start = grid.reshape(-1, 3) * np.array([1, SIZE, SIZE])
    shape = np.tile([1, SIZE, SIZE], (len(start), 1))
    filled = np.full((len(start), classes), SIZE**2 // classes) if voxels is None else voxels.reshape(-1, classes)
    return Windows(start, shape, filled, uncertain.reshape(-1, classes).astype(float))


def how(count: int, **more: object) -> Choice:
    return Choice(count=count, size=SIZE**2, spread_nm=64.0, **more)  # type: ignore[arg-type]


def test_a_planted_uncertain_region_is_chosen_first_and_next_ones_lie_elsewhere() -> None:
    doubt = np.full((20, 4, 4, 2), 15.0)
    doubt[8:13, 2, 1] = 40.0
    seen = windows(doubt)
    chosen = choose(seen, how(5), SPACING)
    first = seen.start[chosen[0].number]
    assert 8 <= first[0] < 13
    assert first[1:].tolist() == [2 * SIZE, SIZE]
    starts = np.array([seen.start[each.number] for each in chosen])
    apart = np.linalg.norm((starts[:, None] - starts[None]) * SPACING, axis=-1)[~np.eye(5, dtype=bool)]
    assert apart.min() >= 32.0
    blind = choose(seen, how(5, strategy="spread"), SPACING)
    assert first.tolist() not in [seen.start[each.number].tolist() for each in blind]


def test_without_a_penalty_for_being_near_they_would_crowd() -> None:
    doubt = np.full((20, 1, 4, 1), 5.0)
    doubt[8:13, 0, 1] = 90.0
    crowded = choose(windows(doubt), Choice(3, SIZE**2, spread_nm=1e-6), SPACING)
    assert {int(windows(doubt).start[each.number][0]) for each in crowded} <= set(range(8, 13))


def test_of_two_equally_doubtful_slices_the_one_of_a_class_without_labels_is_taken() -> None:
    doubt = np.zeros((2, 1, 1, 2))
    doubt[0, 0, 0, 0], doubt[1, 0, 0, 1] = 40.0, 40.0
    for labelled, taken in (([5000, 0], 1), ([0, 5000], 0)):
        chosen = choose(windows(doubt), how(1), SPACING, labelled_voxels=np.array(labelled))
        assert chosen[0].number == taken
        assert chosen[0].labelled == tuple(labelled)


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_choice_is_the_best_at_every_step(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    seen = windows(rng.random((4, 2, 3, 3)) * 80, rng.integers(0, 80, (4, 2, 3, 3)))
    boxes = [Box((2, 3, 5), (1, 7, 9))]
    known = np.array([30, 0, 500])
    for each in choose(seen, how(count), SPACING, boxes, known):
        scores = []
        for number in range(len(seen)):
            gain = sum(
                np.log(1 + 3 * (k + u) / SIZE**2) - np.log(1 + 3 * k / SIZE**2)
                for k, u in zip(known, seen.uncertain[number], strict=True)
            )
            distances = []
            for point in nine_points(seen.box(number)):
                distances.append(min(np.linalg.norm(apart(box, point)) for box in boxes))
            scores.append(gain * min(1.0, float(np.mean(distances)) / 64.0))
        assert each.score == pytest.approx(max(scores))
        assert each.score == pytest.approx(scores[each.number])
        known = known + seen.voxels[each.number]
        boxes.append(seen.box(each.number))


def nine_points(box: Box) -> list[np.ndarray]:
    z, y, x = (np.linspace(s + 0.5, s + n - 0.5, 3) for s, n in zip(box.start, box.shape, strict=True))
    return [np.array([z[0], b, c]) * SPACING for b in y for c in x]


def apart(box: Box, point: np.ndarray) -> np.ndarray:
    low, high = (np.array(box.start) + 0.5) * SPACING, (np.array(box.stop) - 0.5) * SPACING
    return np.array(point - np.clip(point, low, high))


@given(st.integers(0, 2**32), st.sampled_from(["uncertainty", "spread", "random"]))
def test_nothing_is_chosen_twice_and_all_can_be(seed: int, strategy: str) -> None:
    seen = windows(np.random.default_rng(seed).random((2, 2, 2, 2)))
    once, twice = (choose(seen, how(99, strategy=strategy, seed=seed), SPACING) for _ in range(2))
    assert once == twice
    assert sorted(each.number for each in once) == list(range(8))


def test_random_follows_its_seed_and_spread_begins_in_the_middle() -> None:
    seen = windows(np.zeros((9, 3, 3, 2)))
    drawn = {choose(seen, how(1, strategy="random", seed=seed), SPACING)[0].number for seed in range(20)}
    assert len(drawn) > 5
    middle, second = choose(seen, how(2, strategy="spread"), SPACING)
    assert seen.start[middle.number].tolist() == [4, SIZE, SIZE]
    assert np.isinf(middle.distance_nm)
    corner = seen.start[second.number]
    assert corner[0] in (0, 8)
    assert set(corner[1:].tolist()) <= {0, 2 * SIZE}


def test_gains_grow_less_the_more_is_labelled() -> None:
    doubt = np.array([[10.0, 10.0, 10.0]])
    gains = gains_of(doubt, np.array([0, 100, 10_000]), SIZE**2)[0]
    assert gains[0] > gains[1] > gains[2] > 0
    assert (distance_to(Box((0, 0, 0), (2, 2, 2)), np.array([[8.0, 4.0, 3.0]]), SPACING) == 0).all()
