"""Values are fit to compute with, or refused with the way out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.checks import MAX_ID, require_finite, require_ids, require_labels
from emloom.io.volume import ArrayVolume

GRID = Grid((40, 4, 4))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_volumes_can_hold_labels(dtype: str) -> None:
    assert require_labels(ArrayVolume(np.zeros((2, 2, 2), dtype), GRID)).dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "advice"), [("int64", "--kind labels"), ("float32", "not exact"), ("bool", "store them as uint8")]
)
def test_other_volumes_cannot(dtype: str, advice: str) -> None:
    with pytest.raises(InputError, match=f"stores {dtype}.*{advice}"):
        require_labels(ArrayVolume(np.zeros((2, 2, 2), dtype), GRID))
    with pytest.raises(InputError, match="has 3 channels"):
        require_labels(ArrayVolume(np.zeros((3, 2, 2, 2), np.uint64), GRID))


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["int8", "int32", "int64", "uint16", "uint64"]).flatmap(lambda d: arrays(d, (2, 2, 2))))
def test_ids_keep_their_values_or_are_refused(array: np.ndarray) -> None:
    fine = int(array.min()) >= 0 and int(array.max()) <= MAX_ID
    if fine:
        ids = require_ids(array, "labels")
        assert ids.dtype.kind == "u"
        assert ids.dtype.itemsize == array.dtype.itemsize
        assert (ids == array).all()
    else:
        with pytest.raises(InputError, match=r"holds the label"):
            require_ids(array, "labels")


def test_floating_labels_are_refused() -> None:
    with pytest.raises(InputError, match="not exact"):
        require_ids(np.zeros((1, 1, 1)), "labels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 4, 5, 6)])
def test_the_first_bad_voxel_is_named(value: float, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, np.float32)
    box = Box((10, 20, 30), (4, 5, 6))
    require_finite(array, box, "raw")
    array[..., 1, 2, 3] = value
    with pytest.raises(InputError, match=r"raw holds .* at voxel \(11, 22, 33\)"):
        require_finite(array, box, "raw")
