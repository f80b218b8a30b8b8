"""Artifacts of an area: missing, blurred, displaced and faint sections or parts of them.

An area is a whole section, what lies on one side of a straight line (as a tile's seam cuts), or a spot with an
uneven border. Grey values are about [-1, 1]. Functions return a new section; they draw nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage

from emloom.ops.textures import F32, F64, Painted, Spacing, noise_image, places


@dataclass(frozen=True)
class Area:
    """Part of a section.

    Attributes:
        form: the whole section, one side of a line, or a spot.
        point_nm: place (y, x) on the line, or the middle of the spot.
        angle: of the line's normal, from y to x, radians: the side it points to is the area.
        radius_nm: of the spot.
        soft_nm: width over which the border fades; a seam has 0.
        ragged: strength of the spot's unevenness, as a share of its radius.
    """

    form: Literal["whole", "side", "spot"] = "whole"
    point_nm: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    radius_nm: float = 0.0
    soft_nm: float = 0.0
    ragged: float = 0.0


@dataclass(frozen=True)
class Missing:
    """Tissue that was lost or not imaged: a constant, or what lies beneath.

    Attributes:
        area: where.
        fill: grey value.
        texture: strength of the uneven support film beneath; 0: the constant of a picture that does not exist.
        seed: of its textures.
    """

    kind: ClassVar[Literal["missing"]] = "missing"
    area: Area
    fill: float
    texture: float
    seed: int


@dataclass(frozen=True)
class Blur:
    """Out of focus.

    Attributes:
        area: where.
        sigma_nm: standard deviation (y, x) of the Gaussian; unequal ones are astigmatism.
        seed: of its textures.
    """

    kind: ClassVar[Literal["blur"]] = "blur"
    area: Area
    sigma_nm: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Shift:
    """Displaced by whole voxels; what comes in from outside is mirrored.

    Attributes:
        area: where.
        by_nm: displacement (y, x), rounded to voxels.
        seed: of its textures.
    """

    kind: ClassVar[Literal["shift"]] = "shift"
    area: Area
    by_nm: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Faint:
    """Weakly stained or exposed: contrast is lost, and the mean may move.

    Attributes:
        area: where.
        scale: factor of the contrast around the mean.
        brightness: added.
        seed: of its textures.
    """

    kind: ClassVar[Literal["low_contrast"]] = "low_contrast"
    area: Area
    scale: float
    brightness: float
    seed: int


def missing(section_YX: F32, what: Missing, spacing_nm: Spacing) -> Painted:
    """Return the section without tissue in the area."""
    cover = area_of(what.area, section_YX.shape, spacing_nm, what.seed)
    fill = np.full_like(section_YX, what.fill)
    if what.texture > 0:
        place = places(what.seed, 2)[1]
        fill += np.float32(what.texture) * noise_image(section_YX.shape, spacing_nm, (700.0, 700.0), 5, place)
    # A picture that does not exist has no noise either.
    return Painted(
        _blend(section_YX, fill, cover), cover if what.texture > 0 else np.zeros_like(cover), section_YX
    )


def blur(section_YX: F32, what: Blur, spacing_nm: Spacing) -> Painted:
    """Return the section out of focus in the area."""
    cover = area_of(what.area, section_YX.shape, spacing_nm, what.seed)
    sigma = [nm / size for nm, size in zip(what.sigma_nm, spacing_nm, strict=True)]
    soft = ndimage.gaussian_filter(section_YX, sigma, mode="reflect", truncate=3.0)
    kept = 1 / max(1.0, 4 * np.pi * sigma[0] * sigma[1])  # share of white noise's variance that the filter keeps
    return Painted(_blend(section_YX, soft, cover), cover * np.float32(1 - kept), section_YX)


def shift(section_YX: F32, what: Shift, spacing_nm: Spacing) -> Painted:
    """Return the section displaced in the area; all of that counts as damage."""
    cover = area_of(what.area, section_YX.shape, spacing_nm, what.seed)
    y, x = (_mirrored(n, round(nm / s)) for n, nm, s in zip(section_YX.shape, what.by_nm, spacing_nm, strict=True))
    return Painted(_blend(section_YX, section_YX[np.ix_(y, x)], cover), np.zeros_like(cover), section_YX)


def faint(section_YX: F32, what: Faint, spacing_nm: Spacing) -> Painted:
    """Return the section with less contrast in the area."""
    cover = area_of(what.area, section_YX.shape, spacing_nm, what.seed)
    mean = section_YX.mean()
    pale = mean + np.float32(what.brightness) + (section_YX - mean) * np.float32(what.scale)
    return Painted(_blend(section_YX, pale, cover), cover * np.float32(1 - what.scale**2), section_YX)


def _blend(section: F32, other: F32, cover: F32) -> F32:
    """Return the other where cover is 1, and the very section where it is 0."""
    out: F32 = np.where(cover > 0, section * (1 - cover) + other * cover, section).astype(np.float32, copy=False)
    return out


def _mirrored(extent: int, by: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return which voxel stands where after a displacement, mirrored at the section's outer faces."""
    at = (np.arange(extent) - by) % (2 * extent)
    return np.where(at < extent, at, 2 * extent - 1 - at)


def area_of(area: Area, shape: Sequence[int], spacing_nm: Spacing, seed: int) -> F32:
    """Return how much of every voxel lies in an area, float32 ``[Y, X]`` of 0 to 1.

    Args:
        area: what.
        shape: of the section.
        spacing_nm: voxel size (y, x).
        seed: of the unevenness of a spot.
    """
    if area.form == "whole":
        return np.ones(shape, np.float32)
    y, x = from_point(area.point_nm, shape, spacing_nm)
    if area.form == "side":
        inside = y * np.cos(area.angle) + x * np.sin(area.angle)
    else:
        inside = area.radius_nm - np.hypot(y, x)
        if area.ragged > 0:
            cell = (0.7 * area.radius_nm, 0.7 * area.radius_nm)
            inside += area.ragged * area.radius_nm * noise_image(shape, spacing_nm, cell, 4, places(seed, 1)[0])
    soft = max(area.soft_nm, min(spacing_nm))
    return np.asarray(np.clip(inside / soft + 0.5, 0.0, 1.0), np.float32)


def from_point(point_nm: tuple[float, float], shape: Sequence[int], spacing_nm: Spacing) -> tuple[F64, F64]:
    """Return the distances from a point along y ``[Y, 1]`` and x ``[1, X]``, nm."""
    y, x = (np.arange(n, dtype=float) * s - p for n, s, p in zip(shape, spacing_nm, point_nm, strict=True))
    return y[:, None], x[None, :]
