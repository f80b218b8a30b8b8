"""What a process makes once, it keeps; but not everything for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emloom.run import perworker
from emloom.run.perworker import once


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
