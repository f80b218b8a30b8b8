"""Logits as bytes: probabilities near 0 and 1 keep their order, and nothing wraps.

::

    code     0            1      ...  128  ...    255
    logit    not known  -15.875  ...   0   ...  +15.875        logit = (code - 128) / 8
    p                    1.3e-7  ...  0.5  ...  1 - 1.3e-7

    decode(encode(x)) == clip(x, -15.875, 15.875) to half a step, 1/16; encode(decode(code)) == code

The scale is that of the first detector's maps (genEM3), whose encoding was not clipped: there p above 1 - 1e-7
became 0. Code 0 is also what chunks hold that were never written, so that they read as not known, not as clean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from emloom.errors import InputError

UNKNOWN = 0
STEPS_PER_LOGIT = 8
LARGEST = 127 / STEPS_PER_LOGIT
_ZERO = 128

Codes = NDArray[np.uint8]


def encode_logits(logits: NDArray[Any]) -> Codes:
    """Return logits as bytes, uint8 of the same shape: rounded to 1/8, clipped to 15.875; NaN becomes 0.

    Args:
        logits: floats of any shape, infinities included.

    Raises:
        InputError: they are not floats.
    """
    if logits.dtype.kind != "f":
        raise InputError(f"logits of type {logits.dtype} are not logits: give floats, before any encoding")
    clipped = np.clip(logits.astype(np.float64), -LARGEST, LARGEST)
    return np.asarray(np.where(np.isnan(clipped), UNKNOWN, np.rint(clipped * STEPS_PER_LOGIT) + _ZERO), np.uint8)


def encode_probabilities(probabilities: NDArray[Any]) -> Codes:
    """Return probabilities as bytes of their logits, uint8 of the same shape; NaN becomes 0, not known.

    Args:
        probabilities: floats within 0 and 1, any shape.

    Raises:
        InputError: they are not floats, or one is below 0 or above 1.
    """
    if probabilities.dtype.kind != "f":
        raise InputError(f"probabilities of type {probabilities.dtype}: give floats within 0 and 1")
    outside = (probabilities < 0) | (probabilities > 1)
    if outside.any():
        raise InputError(
            f"{probabilities[outside].flat[0]} is no probability: give values within 0 and 1; logits have "
            "`encode_logits`"
        )
    return encode_logits(special.logit(probabilities.astype(np.float64)))


def decode_logits(codes: Codes) -> NDArray[np.float32]:
    """Return the logits that bytes stand for, float32 of the same shape; NaN where they are not known.

    Raises:
        InputError: the codes are not uint8.
    """
    if codes.dtype != np.uint8:
        raise InputError(f"codes of type {codes.dtype}: logits are stored as uint8, so this is another volume")
    return np.asarray(_LOGITS[codes])


def decode_probabilities(codes: Codes) -> NDArray[np.float32]:
    """Return the probabilities that bytes stand for, float32; arguments and errors as of `decode_logits`."""
    return np.asarray(special.expit(decode_logits(codes)))


def _table() -> NDArray[np.float32]:
    out = ((np.arange(256) - _ZERO) / STEPS_PER_LOGIT).astype(np.float32)
    out[UNKNOWN] = np.nan
    out.flags.writeable = False
    return out


_LOGITS = _table()
