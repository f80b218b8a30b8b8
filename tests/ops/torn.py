"""Torn sections for tests: tissue, and a section pulled apart by known maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry.planar import Affine, Pieces
from emloom.ops.warp import Window, moved_section

F64 = NDArray[np.float64]
STACKS = {
    "vnc_sstem": "vnc_sstem/stack1_z00-14.h5",
    "isbi2012_cardona": "isbi2012_cardona/train_z00-19.h5",
    "snemi3d": "snemi3d/crop512_z00-29.h5",
}


def stack(real_data: Path, name: str, first: int, last: int) -> NDArray[np.uint8]:
    """Return sections of a real stack; the test is skipped where it is absent."""
    path = real_data / STACKS[name]
    if not path.is_file():
        pytest.skip(f"no real stack at {path}")
    with h5py.File(path) as file:
        sections: NDArray[np.uint8] = file["volumes/raw"][first:last]
    return sections


def tissue(seed: int, shape: tuple[int, int]) -> F64:
    """Return cells with dark membranes, mean 130, spread 30."""
    rng = np.random.default_rng(seed)
    fine, coarse = (ndimage.gaussian_filter(rng.normal(size=shape), s) for s in (1.5, 6.0))
    walls = np.exp(-np.square(coarse / coarse.std() / 0.35))
    return 150 - 70 * walls + 10 * fine / fine.std()


def centres(shape: tuple[int, ...]) -> F64:
    """Return the places of all pixels' middles, [N, 2]."""
    return np.indices(shape).reshape(2, -1).T + 0.5


def sampled(image: NDArray[Any], places: F64) -> F64:
    """Return the image at places, bilinear, by scipy."""
    out: F64 = ndimage.map_coordinates(image.astype(np.float64), places.T - 0.5, order=1, mode="nearest")
    return out


def pulled(image: NDArray[Any], affine: Affine) -> F64:
    """Return the image as it looks in the frame from which an affine map leads to its own."""
    return sampled(image, affine(centres(image.shape))).reshape(image.shape)


def torn(
    image: NDArray[Any], maps: Sequence[Affine], angle: float, at: float = 0.5, fill: float = 0.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a section torn along a line, and the true parts.

    Args:
        image: the section.
        maps: where the two parts belong: from the torn section to the image.
        angle: of the line through (y, x) = (half, `at`) of the image.
        at: see `angle`.
        fill: grey value of the gap.
    """
    shape = image.shape
    out, parts = np.full(shape, fill), np.zeros(shape, np.uint8)
    for number, move in enumerate(maps, 1):
        there = move(centres(shape))
        beside = (there[:, 1] - shape[1] * at) * np.cos(angle) - (there[:, 0] - shape[0] / 2) * np.sin(angle)
        inside = ((there >= 0) & (there < shape)).all(1) & ((beside < -2) if number == 1 else (beside > 2))
        mine = inside.reshape(shape) & (parts == 0)
        out[mine] = sampled(image, there).reshape(shape)[mine]
        parts[mine] = number
    return np.rint(out).clip(0, 255).astype(np.uint8), parts


def laid(image: NDArray[Any], pieces: Pieces) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return a section with its parts moved, 0 where there is none, and the part that every pixel shows."""
    window = Window((0, 0), (image.shape[0], image.shape[1]))
    shown: NDArray[np.uint8] = moved_section(pieces.parts, (0, 0), pieces, window, "nearest")
    return moved_section(image, (0, 0), pieces, window, "linear"), shown
