"""Artifacts of a spot: debris and holes, stain precipitate, and charging, on one section.

::

    debris    lumps with a ragged border, lit from one side, that throw a halo     paint over tissue
    hole      the same, round and bright, with a remainder of the tissue
    stain     light is lost: a cloud, and grains or needles of precipitate         (1 + n) e^-density - 1
    charging  glow around a place, and streaks along scan lines that start there   n + glow + streak(line) decay

Grey values are about [-1, 1], black to white. Functions return a new section; they draw nothing, but for the
places of a stain's grains, which are a pure function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numba import njit

from emloom.ops.textures import F32, F64, Painted, Spacing, lattice, noise_at, noise_image, places, profile


@dataclass(frozen=True)
class Lumps:
    """Something that lies on the section, or a hole in it.

    Attributes:
        kind: what it is called.
        lumps: each (y, x, radius, radius, angle): middle, half axes in nm, direction of the first one in radians.
        ragged: strength of the border's unevenness, as a share of the radius.
        soft: width of the border, as a share of the radius.
        fill: grey value.
        texture: strength of the texture within.
        relief: strength of light and shadow on it.
        opacity: 1 hides the tissue.
        halo: added outside of it, at the border: a shadow below 0, a glow above.
        halo_nm: distance over which that fades.
        seed: of its textures.
    """

    kind: Literal["debris", "hole"]
    lumps: tuple[tuple[float, float, float, float, float], ...]
    ragged: float
    soft: float
    fill: float
    texture: float
    relief: float
    opacity: float
    halo: float
    halo_nm: float
    seed: int


@dataclass(frozen=True)
class Stain:
    """Precipitate of heavy metal, which lets fewer electrons through.

    Attributes:
        point_nm: its middle (y, x).
        radius_nm: within which most of it lies.
        cloud: density of the smooth part at its thickest; 1 lets 37 % through.
        grains: how many grains there are.
        grain_nm: median diameter of a grain.
        needle: length of a grain by its width, 1 is round.
        density: of a grain.
        seed: of its textures and grains.
    """

    kind: ClassVar[Literal["stain"]] = "stain"
    point_nm: tuple[float, float]
    radius_nm: float
    cloud: float
    grains: int
    grain_nm: float
    needle: float
    density: float
    seed: int


@dataclass(frozen=True)
class Charging:
    """Charge that the section could not lead away.

    Attributes:
        point_nm: where (y, x).
        radius_nm: of the glow.
        glow: grey value added in the middle.
        streak: standard deviation of what is added to scan lines.
        line_nm: height of a streak.
        tail_nm: distance along the line over which a streak fades.
        along_y: whether scan lines run along y instead of x.
        backwards: whether streaks run towards smaller coordinates.
        seed: of its textures.
    """

    kind: ClassVar[Literal["charging"]] = "charging"
    point_nm: tuple[float, float]
    radius_nm: float
    glow: float
    streak: float
    line_nm: float
    tail_nm: float
    along_y: bool
    backwards: bool
    seed: int


def lumps(section_YX: F32, what: Lumps, spacing_nm: Spacing) -> Painted:
    """Return the section with something on it."""
    at = places(what.seed, 2 * len(what.lumps))
    image, cover = section_YX.copy(), np.zeros_like(section_YX)
    look = np.array([what.ragged, what.soft, what.fill, what.texture, what.relief, what.opacity])
    halo = np.array([what.halo, what.halo_nm])
    for i, lump in enumerate(what.lumps):
        _lump(image, cover, (np.array(lump), np.array(spacing_nm)), look, halo, (at[2 * i : 2 * i + 2], lattice()))
    return Painted(image, cover, section_YX)


def stain(section_YX: F32, what: Stain, spacing_nm: Spacing) -> Painted:
    """Return the section stained."""
    shape = section_YX.shape
    density = np.zeros_like(section_YX)
    if what.cloud > 0:
        y, x = (
            (np.arange(n) * s - p) / what.radius_nm
            for n, s, p in zip(shape, spacing_nm, what.point_nm, strict=True)
        )
        away = np.square(y)[:, None] + np.square(x)
        cell = 0.8 * what.radius_nm
        uneven = noise_image(shape, spacing_nm, (cell, cell), 4, places(what.seed, 1)[0])
        density += what.cloud * np.clip(1.2 - away + 1.2 * uneven, 0.0, 1.0).astype(np.float32) ** 2
    if what.grains > 0:
        _drop(density, _grains(what), np.array(spacing_nm))
    light = np.exp(-density)
    image = np.where(density > 0, (1 + section_YX) * light - 1, section_YX).astype(np.float32)
    return Painted(image, 1 - light * light, section_YX)


def _grains(what: Stain) -> F64:
    """Return the grains of a stain, [N, 6]: y, x, half length, half width, angle, density."""
    rng = np.random.Generator(np.random.Philox(what.seed))
    n = what.grains
    # Grains lie where others lie: a few middles, each with its own spread.
    clumps = rng.normal(0.0, 0.45, (1 + n // 12, 2))
    spread = rng.uniform(0.05, 0.35, (n, 1))
    at = clumps[rng.integers(len(clumps), size=n)] + rng.normal(size=(n, 2)) * spread
    width = 0.5 * what.grain_nm * np.exp(rng.normal(0.0, 0.4, n)) / np.sqrt(what.needle)
    stretch = 1 + (what.needle - 1) * rng.uniform(0.3, 1.7, n)
    angle = rng.uniform(0, np.pi, n)
    dense = what.density * rng.uniform(0.4, 1.3, n)
    place = np.asarray(what.point_nm) + at * what.radius_nm
    return np.column_stack([place, width * stretch, width, angle, dense])


def charging(section_YX: F32, what: Charging, spacing_nm: Spacing) -> Painted:
    """Return the section charged."""
    y, x = (np.arange(n) * s - p for n, s, p in zip(section_YX.shape, spacing_nm, what.point_nm, strict=True))
    across, along = (x, y) if what.along_y else (y, x)
    if what.backwards:
        along = -along
    at = places(what.seed, 2)
    line = profile(across, what.line_nm, 3, at[0], lattice()) * np.exp(-0.5 * np.square(across / what.radius_nm))
    start = 0.3 * what.radius_nm * profile(across, what.line_nm, 2, at[1], lattice())
    since = along[None, :] - start[:, None]
    tail = np.clip(since / (0.1 * what.radius_nm) + 0.5, 0.0, 1.0) * np.exp(-np.maximum(since, 0.0) / what.tail_nm)
    added = 2.5 * what.streak * line[:, None] * tail
    if what.along_y:
        added = added.T
    away = np.hypot(y[:, None], x[None, :]) / what.radius_nm
    added = (added + what.glow * np.exp(-away) * np.exp(-0.25 * away * away)).astype(np.float32)
    added[np.abs(added) < 1e-3] = 0
    # The detector saturates: light that is there already leaves less room.
    image = np.where(added == 0, section_YX, np.clip(section_YX + added, -1.0, 1.0))
    image = np.where(np.abs(section_YX) > 1, section_YX, image).astype(np.float32)
    return Painted(image, np.zeros_like(section_YX), section_YX)


# ---- kernels --------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _lump(image, cover, frame, look, halo, textures):  # type: ignore[no-untyped-def]
    (cy, cx, ry, rx, angle), (sy, sx) = frame
    ragged, soft, fill, texture, relief, opacity = look
    at, table = textures
    radius = np.sqrt(ry * rx)
    reach = max(ry, rx) * (1.2 + ragged) + 4.0 * halo[1] * (halo[0] != 0.0)
    c, s = np.cos(angle), np.sin(angle)
    border = max(soft, 0.7 * min(sy, sx) / radius)
    for y in range(max(0, int((cy - reach) / sy)), min(image.shape[0], int((cy + reach) / sy) + 2)):
        for x in range(max(0, int((cx - reach) / sx)), min(image.shape[1], int((cx + reach) / sx) + 2)):
            py, px = y * sy - cy, x * sx - cx
            u, v = (py * c + px * s) / ry, (px * c - py * s) / rx
            near = np.hypot(u, v)
            inside = 1.0 - near
            if 1.0 - 1.2 * ragged - border < near < 1.2 + ragged:  # where the unevenness decides
                inside += ragged * noise_at(py / (0.9 * radius), px / (0.9 * radius), 5, at[0], table)
            alpha = min(max(inside / border + 0.5, 0.0), 1.0)
            value = image[y, x]
            if halo[0] != 0.0 and alpha < 1.0:
                value += (1.0 - alpha) * halo[0] * np.exp(min(inside, 0.0) * radius / halo[1])
            if alpha > 0.0:
                qy, qx = py / (0.45 * radius), px / (0.45 * radius)
                rough = noise_at(qy, qx, 3, at[1], table)
                paint = fill + texture * rough
                if relief != 0.0:
                    paint += relief * (noise_at(qy + 0.15, qx + 0.1, 3, at[1], table) - rough) * 3.0
                    paint += relief * 0.5 * (u * 0.7 + v * 0.3)
                value += alpha * opacity * (paint - value)
                cover[y, x] = max(cover[y, x], alpha * opacity)
            image[y, x] = value


@njit(cache=True, nogil=True)
def _drop(density, grains, spacing):  # type: ignore[no-untyped-def]
    sy, sx = spacing
    pixel = min(sy, sx)
    for i in range(grains.shape[0]):
        cy, cx, length, width, angle, dense = grains[i]
        # A grain thinner than a voxel takes its share of it.
        share = min(1.0, 2.0 * width / pixel)
        width, length = max(width, 0.5 * pixel), max(length, 0.5 * pixel)
        c, s = np.cos(angle), np.sin(angle)
        reach = length + 2.0 * pixel
        for y in range(max(0, int((cy - reach) / sy)), min(density.shape[0], int((cy + reach) / sy) + 2)):
            for x in range(max(0, int((cx - reach) / sx)), min(density.shape[1], int((cx + reach) / sx) + 2)):
                py, px = y * sy - cy, x * sx - cx
                u, v = py * c + px * s, px * c - py * s
                out = (1.0 - np.hypot(u / length, v / width)) * width / pixel
                density[y, x] += share * dense * min(max(out + 0.5, 0.0), 1.0)
