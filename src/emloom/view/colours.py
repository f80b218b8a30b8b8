"""Sections as pictures: grey raw data, and labels in colour on top of it.

Colours of ids are a pure function of the id: the same neuron has the same colour in every picture. Hues step by
the golden angle through hashed ids in OKLCH (Ottosson 2020, bottosson.github.io/posts/oklab), where equal steps
look equal; a second, hashed step in lightness keeps ids apart for colour-blind readers.
"""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

RGB = NDArray[np.uint8]

_GOLDEN = 0.6180339887498949
_CANDIDATES = 256  # ids that distinct colours are chosen from


def id_colours(ids: NDArray[Any]) -> RGB:
    """Return the colour of each id, stable across pictures; 0 is black.

    Args:
        ids: unsigned integers, any shape.

    Returns:
        uint8 [..., 3], sRGB.

    Raises:
        InputError: ids are signed or floating.
    """
    if ids.dtype.kind != "u":
        raise InputError(f"labels have dtype {ids.dtype}: ids are unsigned integers, 0 is background")
    unique, inverse = np.unique(ids, return_inverse=True)
    # splitmix64's finaliser (Steele et al. 2014, doi:10.1145/2660193.2660195): neighbouring ids far apart.
    h = unique.astype(np.uint64)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    hue = np.mod((h % np.uint64(1 << 20)).astype(np.float64) * _GOLDEN, 1.0)
    lightness = np.array([0.58, 0.70, 0.82])[(h >> np.uint64(40)) % np.uint64(3)]
    colours = _oklch_to_srgb(lightness, np.full(hue.shape, 0.14), 2 * pi * hue)
    colours[unique == 0] = 0
    return colours[inverse].reshape(*ids.shape, 3)


def distinct_ids(count: int) -> NDArray[np.uint16]:
    """Return ids whose colours are far apart: for a few classes, where those of 1, 2, 3 may look alike.

    Each is the one of 1 to 256 whose colour is furthest from all before it, so fewer are a part of more.

    Raises:
        InputError: fewer than none, or more than 256, are asked for.
    """
    if not 0 <= count <= _CANDIDATES:
        raise InputError(f"{count} distinct ids: ask for 0 to {_CANDIDATES}")
    ids = np.arange(1, _CANDIDATES + 1, dtype=np.uint16)
    colours = id_colours(ids).astype(np.float64)
    chosen = [0]
    nearest = np.linalg.norm(colours - colours[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(colours - colours[chosen[-1]], axis=1))
        nearest[chosen] = -1.0
    return ids[chosen[:count]]


def grey(raw_YX: NDArray[Any]) -> RGB:
    """Return a section as uint8 grey, stretched between its 0.5 and 99.5 percentiles."""
    low, high = np.percentile(raw_YX, (0.5, 99.5))
    scaled = (np.asarray(raw_YX, np.float64) - low) * (255.0 / max(high - low, 1e-12))
    stretched: RGB = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return stretched


def overlay(
    raw_YX: NDArray[Any],
    labels_YX: NDArray[Any],
    *,
    opacity: float = 0.4,
    contours: bool = True,
    stretch: bool = True,
) -> RGB:
    """Return a section with its labels in colour.

    Args:
        raw_YX: section, any real dtype.
        labels_YX: unsigned ids of the same shape; 0 is transparent.
        opacity: of the colours, 0 to 1.
        contours: draw the pixels at a change of id in full colour.
        stretch: stretch grey values, see `grey`; without it they are shown as they are, 0 to 255.

    Returns:
        uint8 [Y, X, 3].

    Raises:
        InputError: shapes differ, or labels are not unsigned.
    """
    if raw_YX.shape != labels_YX.shape or raw_YX.ndim != 2:
        raise InputError(
            f"raw is {raw_YX.shape} and labels {labels_YX.shape}: give two sections of one shape, y, x"
        )
    colours = id_colours(labels_YX).astype(np.float64)
    weight = np.where(labels_YX == 0, 0.0, opacity)
    if contours:
        weight = np.where(_edges(labels_YX) & (labels_YX != 0), max(opacity, 0.95), weight)
    base = (grey(raw_YX) if stretch else np.clip(raw_YX, 0, 255))[..., None].astype(np.float64)
    blended: RGB = np.rint(base + weight[..., None] * (colours - base)).astype(np.uint8)
    return blended


def _edges(labels_YX: NDArray[Any]) -> NDArray[np.bool_]:
    edge = np.zeros(labels_YX.shape, np.bool_)
    down = labels_YX[1:] != labels_YX[:-1]
    right = labels_YX[:, 1:] != labels_YX[:, :-1]
    edge[1:] |= down
    edge[:, 1:] |= right
    return edge


def _oklch_to_srgb(lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]) -> RGB:
    """Return uint8 [N, 3]; matrices from bottosson.github.io/posts/oklab."""
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array([
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ])  # fmt: skip
    linear = np.clip(to_rgb @ (to_lms @ lab) ** 3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    srgb: RGB = np.rint(255 * encoded).astype(np.uint8).T
    return srgb
