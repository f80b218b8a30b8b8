"""Scratch gives back what was kept, or nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from emloom.io import files
from emloom.io.scratch import Scratch

DTYPES = st.sampled_from([np.uint8, np.uint64, np.int16, np.float32])
ARRAY = (np.arange(4 * 5 * 6, dtype=np.uint8) % 13).reshape(4, 5, 6)


@pytest.fixture
def kept(tmp_path: Path) -> Scratch:
    scratch = Scratch(tmp_path / "points" / "0_0_0.zst", "a stage and a box")
    scratch.keep(ARRAY)
    return scratch


def recalled(scratch: Scratch) -> Any:
    return scratch.recall(ARRAY.shape, ARRAY.dtype)


@settings(deadline=None, max_examples=50)
@given(st.data(), DTYPES, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7), st.booleans(), st.text())
def test_round_trip(tmp_path_factory, data, dtype, shape, turned, owner):
    array = data.draw(arrays(dtype, shape))
    array = array.T if turned else array
    scratch = Scratch(tmp_path_factory.mktemp("scratch") / "a.zst", owner)
    scratch.keep(array)
    found = scratch.recall(array.shape, dtype)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()  # bits: nan is nan


def test_the_last_one_kept_counts(kept):
    kept.keep(ARRAY + 1)
    assert np.array_equal(recalled(kept), ARRAY + 1)
    assert os.listdir(kept.path.parent) == [kept.path.name]


def test_no_damaged_byte_is_believed(kept):
    whole = kept.path.read_bytes()
    for i in range(len(whole)):
        kept.path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert recalled(kept) is None, i
    kept.path.write_bytes(whole)
    assert np.array_equal(recalled(kept), ARRAY)


def test_no_part_and_no_more_than_the_whole_is_believed(kept):
    whole = kept.path.read_bytes()
    for part in (*(whole[:i] for i in range(len(whole))), whole + b"\0", whole + whole):
        kept.path.write_bytes(part)
        assert recalled(kept) is None, len(part)


def test_what_belongs_to_others_is_not_believed(kept):
    assert Scratch(kept.path, "another stage").recall(ARRAY.shape, ARRAY.dtype) is None
    assert kept.recall((4, 6, 5), np.uint8) is None
    assert kept.recall((120,), np.uint8) is None
    assert kept.recall((4, 5, 3), np.uint16) is None
    assert kept.recall(ARRAY.shape, np.int8) is None


def test_what_is_gone_is_none(kept):
    kept.drop()
    assert recalled(kept) is None
    kept.drop()
    kept.path.mkdir()
    assert recalled(kept) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
def test_a_disk_that_refuses_is_no_error(kept, code, monkeypatch, caplog):
    def refused(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    caplog.set_level("INFO")
    monkeypatch.setattr(files, "_flush", refused)
    other = Scratch(kept.path.with_name("1_0_0.zst"), "a stage and another box")
    other.keep(ARRAY)
    assert recalled(other) is None
    assert "will be computed again" in caplog.text
    assert os.listdir(kept.path.parent) == [kept.path.name]  # no leftover


def test_a_file_where_its_folder_should_be_is_no_error(kept):
    Scratch(kept.path / "0_0_0.zst", "x").keep(ARRAY)
    Scratch(kept.path / "0_0_0.zst", "x").drop()
    assert np.array_equal(recalled(kept), ARRAY)
