"""A probability cut at a threshold, as a mask that is computed where it is read; nothing is stored.

A probability is stored as a byte, 255 times itself (`emloom predict`), or in 16 bits likewise, or as a float. A
voxel is inside where its probability is at least the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import Array, Volume, VolumeInfo

_ROUNDING = 1e-6  # of 255 times a threshold that is no binary fraction


@dataclass(frozen=True)
class Thresholded:
    """A volume of one probability as a mask of 0 and 1.

    Attributes:
        volume: uint8, uint16 or floats, one channel or none.
        threshold: 0 to 1; from here on a voxel is inside.

    Raises:
        InputError: the volume is no single probability, or the threshold not above 0 and up to 1.
    """

    volume: Volume
    threshold: float

    def __post_init__(self) -> None:
        info = self.volume.info
        if not 0 < self.threshold <= 1:
            raise InputError(f"the threshold {self.threshold} is not above 0 and at most 1, as probabilities are")
        if info.kind in ("labels", "affinities", "lsds", "logits"):
            raise InputError(f"{info.source} holds {info.kind}: a threshold cuts probabilities; leave it out")
        if info.channels not in (None, 1) or (info.dtype.kind != "f" and info.dtype not in (np.uint8, np.uint16)):
            raise InputError(
                f"{info.source} is {info.dtype} of {info.channels or 'no'} channels: a threshold cuts one "
                "probability, of bytes, 16 bits or floats"
            )

    @property
    def info(self) -> VolumeInfo:
        """What the mask says about itself."""
        return self.volume.info.with_(channels=None, dtype=np.dtype(np.uint8), kind="mask")

    def read(self, box: Box) -> Array:
        """Return the mask in a box, uint8 [Z, Y, X]; raises `InputError` where the box leaves the volume."""
        values = self.volume.read(box).reshape(box.shape)
        top = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
        return (values >= self.threshold * top - (_ROUNDING if top > 1 else 0)).astype(np.uint8)

    def write(self, box: Box, array: Array) -> None:
        """Refuse: the mask follows from the probability."""
        raise InputError(f"{self.volume.info.source} is read through a threshold: write the probability itself")
