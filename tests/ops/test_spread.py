"""Choosing few of many places: against slow and obvious versions, and whatever the order of places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.ops.spread import apart, best_first, dealt, near_any

PLACES = st.lists(st.tuples(*[st.integers(-20, 20)] * 3), max_size=60).map(
    lambda rows: np.array(rows, np.int64).reshape(-1, 3)
)
DISTANCE = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


def near(a: np.ndarray, b: np.ndarray, distance: tuple[int, int, int]) -> bool:
    return bool((np.abs(a - b) < np.array(distance)).all())


@given(PLACES, DISTANCE, st.data())
def test_places_are_kept_greedily(places: np.ndarray, distance: tuple[int, int, int], data: st.DataObject) -> None:
    few = st.lists(st.integers(-3, 3), min_size=len(places), max_size=len(places))
    priority = np.array(data.draw(few), float)
    kept: list[int] = []
    for row in sorted(range(len(places)), key=lambda k: (-priority[k], *places[k])):
        if not any(near(places[row], places[other], distance) for other in kept):
            kept.append(row)
    found = apart(places, priority, distance)
    assert places[found].tolist() == places[kept].tolist()
    # Every place is near to one that is kept and at least as good.
    for row in range(len(places)):
        assert any(near(places[row], places[k], distance) and priority[k] >= priority[row] for k in found)


@given(PLACES, DISTANCE, st.randoms(use_true_random=False))
def test_the_order_of_places_does_not_matter(places: np.ndarray, distance: tuple[int, int, int], random) -> None:  # type: ignore[no-untyped-def]
    priority = (places * [3, 5, 7]).sum(axis=1) % 4
    order = list(range(len(places)))
    random.shuffle(order)
    one, other = apart(places, priority, distance), apart(places[order], priority[order], distance)
    assert places[one].tolist() == places[order][other].tolist()


@given(PLACES, PLACES, DISTANCE)
def test_near_is_what_it_says(places: np.ndarray, others: np.ndarray, distance: tuple[int, int, int]) -> None:
    expected = [any(near(a, b, distance) for b in others) for a in places]
    assert near_any(places, others, distance).tolist() == expected


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 50), st.one_of(st.none(), st.integers(1, 5)))
def test_groups_give_one_each_in_turn(groups: list[int], count: int, most: int | None) -> None:
    taken: list[int] = []
    left = {g: [k for k, other in enumerate(groups) if other == g] for g in groups}
    order = sorted(left, key=lambda g: left[g][0])
    for turn in range(len(groups)):
        if most is not None and turn == most:
            break
        best = sorted(left[g][turn] for g in order if turn < len(left[g]))
        taken += best
    assert dealt(groups, count, most).tolist() == sorted(taken[:count])


def test_groups_may_have_several_columns() -> None:
    groups = [[0, 1], [0, 1], [0, 2], [0, 1], [1, 1]]
    assert dealt(groups, 3).tolist() == [0, 2, 4]
    assert dealt(groups, 9, 1).tolist() == [0, 2, 4]


def test_a_hundred_candidates_are_not_one_blob() -> None:
    y, x = np.mgrid[:100, :100]
    score = 10 * np.exp(-((y - 20) ** 2 + (x - 20) ** 2) / 50) + np.exp(-((y - 80) ** 2 + (x - 80) ** 2) / 50)
    places = np.stack([np.zeros(10000, int), y.ravel(), x.ravel()], axis=1)
    assert (np.abs(places[best_first(places, score.ravel())[:100]] - [0, 20, 20]) < 10).all()
    kept = places[apart(places, score.ravel(), (1, 10, 10))]
    assert kept[0].tolist() == [0, 20, 20]
    assert [0, 80, 80] in kept[:12].tolist()


def test_a_distance_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        apart(np.zeros((1, 3), np.int64), [1], (0, 1, 1))
