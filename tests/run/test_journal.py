"""A stage is skipped exactly if it was finished with the same key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.run.journal import Journal, key_of

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain, plain)
def test_keys_are_equal_exactly_for_equal_values(a: object, b: object) -> None:
    assert key_of(a) == key_of(a)
    if repr(a) != repr(b) and a != b:
        assert key_of(a) != key_of(b)


def test_a_failed_stage_leaves_no_marker(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(RuntimeError, match="broken"), journal.record("train", "k"):
        raise RuntimeError("broken")
    assert journal.marker("train") is None
    assert not journal.is_done("train", "k")


def test_a_finished_stage_is_done_for_its_key_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.record("train", "k"):
        pass
    assert Journal(tmp_path).is_done("train", "k")
    with pytest.raises(InputError, match="another job"):
        journal.is_done("train", "other")
    journal.forget("train")
    assert not journal.is_done("train", "other")


@pytest.mark.fault(
    "processes",
    "the marker of a step is cut off",
    "error: the marker train.json is damaged: delete it to run train again",
)
def test_a_damaged_marker_is_named(tmp_path: Path) -> None:
    (tmp_path / "markers").mkdir()
    (tmp_path / "markers" / "train.json").write_text('{"stage": "train"')
    with pytest.raises(InputError, match=r"train\.json is damaged"):
        Journal(tmp_path).is_done("train", "k")
