"""Inputs that several benchmarks share: affinities as a network would give them, with the truth behind them.

The labels are those of the phantom (`emloom.testing.phantom`). Their exact affinities are blurred, as a network
blurs boundaries, and disturbed on two scales: noise of a few voxels, that makes fragments, and faint wide clouds,
that leave holes in boundaries and doubt within objects, which agglomeration has to weigh.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Vec
from emloom.ops.affinities import affinities
from emloom.testing.phantom import Phantom, PhantomSpec

NEURITE_NM = 120.0
MEMBRANE_VOX = 3
BLUR_VOX = 1.0
NOISE = ((1.5, 0.10), (8.0, 0.07))  # (extent in voxels, standard deviation)


def phantom_labels(shape: Vec, seed: int = 0) -> NDArray[np.uint64]:
    """Return the neurites of a phantom at 8 nm."""
    volume = Phantom(PhantomSpec(shape=shape, seed=seed, neurite_nm=NEURITE_NM)).labels
    found: NDArray[np.uint64] = volume.read(volume.info.box)
    return found


def blurred_affinities(labels: NDArray[np.uint64], offsets: Sequence[Vec], seed: int = 0) -> NDArray[np.uint8]:
    """Return uint8 [C, Z, Y, X]; pairs that leave the array are 0."""
    rng = np.random.default_rng(seed)
    exact, _ = affinities(labels, offsets)
    # One field for all channels: what deceives a network about a boundary does so in every direction.
    doubt = sum(_noise(rng, labels.shape, extent, deviation) for extent, deviation in NOISE)
    out = np.empty(exact.shape, np.uint8)
    for channel, same in enumerate(exact):
        # Networks learn membranes, which are wider than the single pair across them.
        wide = ndimage.minimum_filter(same, MEMBRANE_VOX)
        values = ndimage.gaussian_filter(wide.astype(np.float32), BLUR_VOX) + doubt
        np.rint(np.clip(values, 0, 1) * 255, casting="unsafe", out=out[channel])
        out[channel][_outside(labels.shape, offsets[channel])] = 0
    return out


def _noise(rng: np.random.Generator, shape: Sequence[int], extent: float, deviation: float) -> NDArray[np.float32]:
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), extent)
    return field * np.float32(deviation / field.std())


def _outside(shape: Sequence[int], offset: Vec) -> NDArray[np.bool_]:
    """Return where p + offset lies outside."""
    out = np.zeros(shape, np.bool_)
    for axis, step in enumerate(offset):
        gone = slice(None, -step) if step < 0 else slice(shape[axis] - step, None)
        if step:
            np.moveaxis(out, axis, 0)[gone] = True
    return out
