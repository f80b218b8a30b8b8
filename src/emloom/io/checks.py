"""What values must be before anyone computes with them: labels are unsigned ids, raw is finite.

An id is an unsigned integer below 2^63, so that it survives every tool that counts with signed integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import Array, Volume, VolumeInfo

MAX_ID = 2**63 - 1


def require_labels(volume: Volume | VolumeInfo) -> VolumeInfo:
    """Return the info of a volume that can hold labels: one channel, unsigned integers.

    Raises:
        InputError: it has channels, or its element type is signed, floating or boolean.
    """
    info = volume if isinstance(volume, VolumeInfo) else volume.info
    if info.channels is not None:
        raise InputError(f"{info.source} has {info.channels} channels: labels have none; store one channel as zyx")
    if info.dtype.kind != "u":
        raise InputError(f"{info.source} stores {info.dtype}: {_label_advice(info.dtype)}")
    return info


def _label_advice(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "i":
        return "labels are unsigned ids; convert them with `emloom import --kind labels`, which checks every value"
    if dtype.kind == "f":
        return "labels are unsigned ids, and large ids are not exact as floating point; export them as uint64"
    return "labels are unsigned ids; store them as uint8 with 0 as background"


def require_ids(array: Array, source: str) -> NDArray[np.unsignedinteger[Any]]:
    """Return integer labels as unsigned ids of the same width.

    Raises:
        InputError: a value is negative or above 2^63 - 1, or the array is not of integers.
    """
    if array.dtype.kind not in "iu":
        raise InputError(f"{source} stores {array.dtype}: {_label_advice(array.dtype)}")
    if array.size and array.dtype.kind == "i" and int(array.min()) < 0:
        raise InputError(f"{source} holds the label {int(array.min())}: ids are not negative; 0 is background")
    if array.size and int(array.max()) > MAX_ID:
        raise InputError(
            f"{source} holds the label {int(array.max())}, above 2^63 - 1: many tools cannot hold it; relabel "
            "it first (CREMI marks background in cleft volumes this way: make it 0)"
        )
    return array.astype(np.dtype(f"u{array.dtype.itemsize}"), copy=False)


def require_finite(array: Array, box: Box, source: str) -> None:
    """Raise `InputError` where a floating array, read from `box` of `source`, holds NaN or infinity."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))
    z, y, x = (int(a + b) for a, b in zip(bad[0][-3:], box.start, strict=True))
    value = array[tuple(bad[0])]
    raise InputError(
        f"{source} holds {value} at voxel {(z, y, x)} and {len(bad)} such values in {box}: replace them (for "
        "unknown raw, 0 and a mask) before importing"
    )
