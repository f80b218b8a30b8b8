"""Colours of a few ids can be told apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.view.colours import distinct_ids, id_colours


def test_colours_of_distinct_ids_are_far_apart():
    colours = id_colours(distinct_ids(6)).astype(float)
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 90


def test_fewer_ids_are_a_part_of_more():
    assert distinct_ids(0).size == 0
    for count in range(1, 9):
        assert np.array_equal(distinct_ids(count), distinct_ids(9)[:count])
    assert len(set(distinct_ids(256).tolist())) == 256


def test_too_many_are_refused():
    with pytest.raises(InputError, match="0 to 256"):
        distinct_ids(257)
