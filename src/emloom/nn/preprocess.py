"""The one map from stored raw values to what a network sees.

It lives in the checkpoint, so that training and prediction cannot disagree: ``low`` becomes -1 and ``high``
becomes +1, linearly, without clipping.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from emloom.errors import InputError
from emloom.spec import Spec


class Preprocessing(Spec):
    """Linear map of raw intensities to [-1, 1]; the default is that of 8-bit images."""

    low: float = 0.0
    """Raw value that becomes -1."""
    high: float = 255.0
    """Raw value that becomes +1."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 values; raises `InputError` where the raw holds NaN or infinity."""
        scaled = (raw.astype(np.float32) - np.float32(self.low)) * np.float32(2.0 / (self.high - self.low))
        if raw.dtype.kind == "f" and not np.isfinite(scaled).all():
            raise InputError("the raw holds NaN or infinite values: replace them, or import the stack again")
        return scaled - np.float32(1.0)
