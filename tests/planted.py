"""Defects of real microscopes, planted into a stack: what quality control must find, and call by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Stack = NDArray[np.uint8]
Plant = Callable[[Stack, int, np.random.Generator], None]


def _whole(values: NDArray[Any]) -> Stack:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def missing(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Nothing was recorded."""
    stack[z] = rng.integers(256)


def dark(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Half as bright."""
    stack[z] = _whole(stack[z] * 0.5)


def bright(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Brighter by one and a half standard deviations."""
    stack[z] = _whole(stack[z] * 0.8 + 0.2 * stack[z].mean() + 1.5 * stack[z].std())


def low_contrast(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Two fifths of the contrast, the same brightness."""
    section = stack[z].astype(np.float64)
    stack[z] = _whole(section.mean() + 0.4 * (section - section.mean()))


def blurred(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Out of focus: blurred optics, the same sensor."""
    soft = ndimage.gaussian_filter(stack[z].astype(np.float64), 4.0)
    stack[z] = _whole(soft + rng.normal(0, 8, soft.shape))


def duplicate(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """The section before, bit by bit."""
    stack[z] = stack[z - 1]


def twice(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """The section before, recorded a second time."""
    stack[z] = _whole(stack[z - 1] + rng.normal(0, 6, stack[z].shape))


def shifted(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """To the side, by some 60 voxels."""
    stack[z] = np.roll(stack[z], (45, -40), axis=(0, 1))


def jump(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Everything from here on to the side."""
    stack[z:] = np.roll(stack[z:], (40, 50), axis=(1, 2))


def unlike(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Another piece of tissue."""
    stack[z] = stack[z, ::-1, ::-1].copy()


def _line(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the signed distance of every voxel from a line through the middle of a section."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[: shape[0], : shape[1]]
    bent = 6 * np.sin(np.arange(shape[1]) / 60)
    out: NDArray[np.float64] = (y - shape[0] / 2 + bent) * np.cos(angle) + (x - shape[1] / 2) * np.sin(angle)
    return out


def fold(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """A dark band of tissue upon tissue; what lies beside it is drawn in."""
    section = stack[z].astype(np.float64)
    away = _line(section.shape, rng)
    cover = np.clip(14 - np.abs(away), 0, 4) / 4
    stack[z] = _whole(section * (1 - 0.6 * cover))


def crack(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """A gap that an aligner left black."""
    stack[z][np.abs(_line(stack[z].shape, rng)) < 12] = 0


def open_crack(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """A gap through which the bare film shines, with the noise of the sensor."""
    gap = np.abs(_line(stack[z].shape, rng)) < 14
    film = np.clip(235 + rng.normal(0, 5, stack[z].shape), 0, 255)
    stack[z] = _whole(np.where(gap, film, stack[z]))


def seam(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Two acquisition tiles of different brightness."""
    section = stack[z].astype(np.float64)
    section[:, section.shape[1] // 3 :] += 22
    stack[z] = _whole(section)


def stripes(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Every line of the beam a little brighter or darker."""
    stack[z] = _whole(stack[z] + rng.normal(0, 14, (stack.shape[1], 1)))


def saturated(stack: Stack, z: int, rng: np.random.Generator) -> None:
    """Gain far too high."""
    section = stack[z].astype(np.float64)
    stack[z] = _whole(section.mean() + 3.0 * (section - section.mean()))


#: What is planted -> what it is called.
PLANTS: dict[Plant, str] = {
    missing: "blank",
    dark: "dark",
    bright: "bright",
    low_contrast: "low_contrast",
    blurred: "blurred",
    duplicate: "duplicate",
    twice: "duplicate",
    shifted: "shifted",
    jump: "jump",
    unlike: "unlike",
    fold: "fold",
    crack: "crack",
    open_crack: "crack",
    seam: "seam",
    stripes: "stripes",
    saturated: "saturated",
}
