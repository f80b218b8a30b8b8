"""Sources as the kernels see them: memory and strides, whatever the view."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.ops.sweeps import flat_memory

WHOLE = np.arange(7 * 8 * 9, dtype=np.uint16).reshape(7, 8, 9)


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    view = WHOLE[tuple(slice(draw(st.integers(0, 3)), draw(st.integers(3, 9))) for _ in range(3))]
    flips = tuple(slice(None, None, draw(st.sampled_from([-2, -1, 1, 2]))) for _ in range(3))
    return view.transpose(draw(st.permutations(range(3))))[flips]


@given(views())
@settings(deadline=None, max_examples=200)
def test_every_voxel_of_a_view_is_found_in_its_memory(view: np.ndarray) -> None:
    memory, (sz, sy, sx, first) = flat_memory(view)
    assert memory.ndim == 1
    assert not memory.flags.writeable
    for z, y, x in product(*map(range, view.shape)):
        assert memory[first + z * sz + y * sy + x * sx] == view[z, y, x]
    if view.size:
        assert np.shares_memory(memory, WHOLE)  # nothing was copied
        found = first + np.array([sz, sy, sx]) @ (np.array(view.shape) - 1)
        assert max(first, found) < memory.size


def test_fields_of_records_are_copied() -> None:
    records = np.zeros((3, 4, 5), np.dtype([("id", "<u4"), ("flag", "u1")]))
    records["id"] = np.arange(60).reshape(3, 4, 5)
    memory, (sz, sy, sx, first) = flat_memory(records["id"])
    assert memory[first + 2 * sz + 3 * sy + 4 * sx] == 59
