"""What a process makes once, it keeps; but not everything for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from emloom.run import perworker
from emloom.run.cluster import executor_of
from emloom.run.perworker import once, worker_number


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    perworker.forget_all()
    yield
    perworker.forget_all()


def test_a_thing_is_made_once() -> None:
    made: list[str] = []
    for key in "aabab":
        assert once(key, lambda key=key: made.append(key) or key.upper()) == key.upper()  # type: ignore[misc]
    assert made == ["a", "b"]


def test_the_one_asked_for_longest_ago_goes_first() -> None:
    made: list[str] = []
    for key in "abacab":  # c drives out b, not a
        once(key, lambda key=key: made.append(key))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]


def test_what_cannot_be_made_is_not_kept() -> None:
    with pytest.raises(OSError, match="no file"):
        once("a", lambda: (_ for _ in ()).throw(OSError("no file")))
    assert once("a", lambda: 1) == 1


def test_workers_of_a_local_cluster_are_numbered() -> None:
    assert worker_number() == 0
    with executor_of(2) as two:
        found = {attempt.result for attempt in two.map(number_in_a_worker, range(24))}
    assert found == {0, 1}
    assert worker_number() == 0  # distributed is imported now


def number_in_a_worker(_: int) -> int:
    time.sleep(0.02)  # so that both get some
    return worker_number()
