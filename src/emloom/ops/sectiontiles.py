"""How the tiles of a section differ from the same places in the sections next to it.

Defects are in one section, tissue goes on: what matters is a difference from *both* neighbours, so each statistic
is the smaller of two. All are 0 or a little below where nothing is wrong, and grow with the defect:

=============  ==============================================================================================
blurred        logarithm of sharpness lost, against the less sharp neighbour
low_contrast   logarithm of the standard deviation lost, against the fainter neighbour
unlike         how much more the neighbours resemble each other than the more similar one resembles it
dark, bright   standard deviations of tissue below the darker, above the brighter neighbour
=============  ==============================================================================================

How large they get in clean tissue differs from stack to stack (sections of 50 nm have less in common than those of
5 nm), so limits come from the stack: the median and spread of the statistic over all its tiles. These are read
from histograms, which add up over blocks exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.ops.outliers import MAD

F64 = NDArray[np.float64]
Counts = NDArray[np.int64]

STATISTICS = ("blurred", "low_contrast", "unlike", "dark", "bright")
BIN = 0.01
_REACH = 500  # bins on either side of 0; beyond is counted in the last


def tile_differences(tiles: Mapping[str, F64], median: F64, spread: F64) -> dict[str, F64]:
    """Return the statistics of every tile, float64 [Z, Y, X]; NaN where one is not defined.

    Every one needs both neighbours, so the first and last section given have none.

    Args:
        tiles: [Z, Y, X] each: `void` (part), `mean`, `fine` and `coarse` structure, variance of cells (`own`) and
            their covariances with the section after (`next`) and the one after that (`next_but_one`).
        median: [Z], grey level of every section: tiles are compared beside what all of a section does.
        spread: [Z], standard deviation of its tissue.
    """
    clean = np.where(tiles["void"] > 0, np.nan, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpness = np.log(tiles["fine"] * clean / tiles["coarse"])
        contrast = np.log(tiles["own"]) / 2
    unit = np.where(spread > 0, spread, np.nan)[:, None, None]
    level = (tiles["mean"] * clean - median[:, None, None]) / unit
    out = {
        "blurred": _beside(sharpness, np.minimum) - sharpness,
        "low_contrast": _beside(contrast, np.minimum) - contrast,
        "unlike": _unlike(tiles),
        "dark": _beside(level, np.minimum) - level,
        "bright": level - _beside(level, np.maximum),
    }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in out.items()}


def _unlike(tiles: Mapping[str, F64]) -> F64:
    own = tiles["own"]
    near, across = (
        _moved(_correlation(tiles[name], own, lag), 1) for lag, name in ((1, "next"), (2, "next_but_one"))
    )
    out: F64 = across - np.maximum(near, _moved(near, -1))
    return out


def _correlation(covariance: F64, own: F64, lag: int) -> F64:
    size = np.sqrt(own * _moved(own, -lag))
    out: F64 = np.divide(covariance, size, out=np.full(own.shape, np.nan), where=size > 0)
    return out


def _moved(values: F64, by: int) -> F64:
    """Return values moved along z; NaN moves in."""
    out = np.full(values.shape, np.nan)
    if abs(by) < len(values):
        out[max(0, by) : len(values) + min(0, by)] = values[max(0, -by) : len(values) - max(0, by)]
    return out


def _beside(values: F64, choose: Any) -> F64:
    """Return the smaller, or larger, of the values before and after; NaN where one is not known."""
    out: F64 = choose(_moved(values, 1), _moved(values, -1))
    return out


def histogram(values: F64) -> Counts:
    """Return how many values lie in each bin of 0.01 around 0, int64; NaN is left out."""
    known = values[np.isfinite(values)]
    bins = np.clip(np.floor(known / BIN + 0.5), -_REACH, _REACH).astype(np.int64) + _REACH
    return np.bincount(bins, minlength=2 * _REACH + 1).astype(np.int64)


def usual_of(counts: Counts) -> tuple[float, float]:
    """Return the median of what a `histogram` counted, and its robust standard deviation; NaN of nothing."""
    total = int(counts.sum())
    if total == 0:
        return float("nan"), float("nan")
    at = np.arange(counts.size) - _REACH
    median = int(at[np.searchsorted(np.cumsum(counts), (total + 1) // 2)])
    away = np.abs(at - median)
    order = np.argsort(away, kind="stable")
    distance = int(away[order][np.searchsorted(np.cumsum(counts[order]), (total + 1) // 2)])
    return median * BIN, MAD * distance * BIN
