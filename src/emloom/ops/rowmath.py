"""exp and log of rows of float32, from operations that a processor does on many numbers at once.

numba calls the C library once per number; these loops have no calls. Relative error of `exp_below` 4e-6, error of
`log_above` 4e-7 of its value, as the test shows. For use within compiled kernels.
"""

from __future__ import annotations

from math import factorial, log

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_LN2 = np.float32(log(2))
_LOG2E = np.float32(1 / log(2))
# 2^r, as far as r = 1/2, by its Taylor series
_E1, _E2, _E3, _E4, _E5, _E6 = (np.float32(log(2) ** n / factorial(n)) for n in range(1, 7))
_ONE, _HALF, _TWO = np.float32(1), np.float32(0.5), np.float32(2)
_THIRD, _FIFTH, _SEVENTH = np.float32(1 / 3), np.float32(1 / 5), np.float32(1 / 7)
_MOST = np.float32(60)  # halvings; what is less is nothing
_ALL = np.float32(127)  # of which the power's bits are 0
_BIAS, _SHIFT, _MANTISSA = np.int32(127), np.int32(23), np.int32(0x7FFFFF)
_LEAST = np.int32(1 << 23)  # the bits of the smallest normal number
_SQRT2 = np.int32(0x3504F3)  # mantissa of the root of 2
_CONTRACT = {"contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def exp_below(values: F32, bits: I32) -> None:
    """Replace every value t, 0 or more, by ``exp(-t)``; where that is below 2^-60, by 0.

    Smaller numbers change no sum, but products of them soon are denormal, which processors add a hundred times
    more slowly.

    Args:
        values: float32 [N].
        bits: scratch of the same length.
    """
    powers = bits.view(np.float32)
    for i in range(values.size):
        halvings = values[i] * _LOG2E
        halvings = halvings if halvings < _MOST else _ALL
        whole = np.int32(halvings + _HALF)
        r = np.float32(whole) - halvings
        values[i] = _ONE + r * (_E1 + r * (_E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))))
        bits[i] = (_BIAS - whole) << _SHIFT  # the bits of 2^-whole
    for i in range(values.size):
        values[i] *= powers[i]


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def log_above(values: F32, out: F32) -> None:
    """Write the natural logarithm of every value to `out`; of what is below 1e-38, log 1e-38.

    Args:
        values: float32 [N], 0 or more.
        out: float32 [N].
    """
    given, bits = values.view(np.int32), out.view(np.int32)
    for i in range(values.size):
        pattern = max(given[i], _LEAST)
        # Mantissas above the root of 2 are halved, so that the series is about values near 1.
        up = np.int32((pattern & _MANTISSA) > _SQRT2)
        bits[i] = (pattern & _MANTISSA) | ((_BIAS - up) << _SHIFT)
    for i in range(values.size):
        pattern = max(given[i], _LEAST)
        up = np.int32((pattern & _MANTISSA) > _SQRT2)
        exponent = np.float32((pattern >> _SHIFT) - _BIAS + up)
        s = (out[i] - _ONE) / (out[i] + _ONE)
        s2 = s * s
        out[i] = exponent * _LN2 + _TWO * s * (_ONE + s2 * (_THIRD + s2 * (_FIFTH + s2 * _SEVENTH)))
