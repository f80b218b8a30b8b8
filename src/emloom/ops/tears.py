"""Artifacts along a line: folds, cracks and the scratches of a knife, on one section.

A line has a course: where it passes, its direction, a bend, and how it wanders. Every voxel has a place along it
and beside it, both in nm, and what happens depends on these alone::

      .--.    d           crack   tissue | gap | tissue       source of d: d - h e^(-(|d| - h) / reach)
    --'   '--/--> t               pulled apart, at the gap's edges by half of its width h
            /             fold    tissue | doubled | tissue   source of d: d + s e^(-(|d| - b) / reach)
                                  pulled together: a strip 2 s wide lies on itself

    doubled tissue lets through what its layers let through one after the other: grey values (0 to 1) multiply

Grey values are about [-1, 1], black to white. Functions return a new section; they draw nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numba import njit

from emloom.ops.textures import F32, F64, Painted, Spacing, lattice, noise_at, places, profile


@dataclass(frozen=True)
class Course:
    """A line across a section.

    Attributes:
        point_nm: place (y, x) it passes at t = 0.
        angle: of its direction, from y to x, radians.
        bend_nm: how far it has left its tangent one micrometre on.
        wander_nm: how far it strays.
        cell_nm: distance at which it strays anew.
        length_nm: of the line, half to each side of the point; beyond it nothing happens.
    """

    point_nm: tuple[float, float]
    angle: float
    bend_nm: float
    wander_nm: float
    cell_nm: float
    length_nm: float


@dataclass(frozen=True)
class Crack:
    """Tissue torn apart along a line, with what lies beneath in the gap.

    Attributes:
        course: the line.
        width_nm: of the gap where it is widest.
        reach_nm: how far from the gap tissue is displaced.
        ragged: strength of the unevenness of the two edges, as a share of the width.
        fill: grey value of the gap.
        texture: strength of the gap's texture; 0: a constant without noise, as programs fill in.
        rim: added to the tissue at the edges: shadow below 0, glow above.
        branches: lines of smaller cracks that start at this one, each (t at which it starts in nm, its angle to
            the line, its share of width and length).
        seed: of its textures.
    """

    kind: ClassVar[Literal["crack"]] = "crack"
    course: Course
    width_nm: float
    reach_nm: float
    ragged: float
    fill: float
    texture: float
    rim: float
    branches: tuple[tuple[float, float, float], ...]
    seed: int


@dataclass(frozen=True)
class Fold:
    """Tissue pulled together along a line: a dark band in which it lies on itself.

    Attributes:
        course: the line.
        width_nm: of the band.
        hidden_nm: tissue that is missing from the picture on each side.
        reach_nm: how far from the band tissue is displaced.
        density: exponent of the layers' transmission; 1 is tissue that scatters as its picture says.
        edge: added at the band's borders, which catch (below 0) or throw back (above) more electrons.
        seed: of its textures.
    """

    kind: ClassVar[Literal["fold"]] = "fold"
    course: Course
    width_nm: float
    hidden_nm: float
    reach_nm: float
    density: float
    edge: float
    seed: int


@dataclass(frozen=True)
class Scratch:
    """Fine parallel lines that a notch in the knife leaves.

    Attributes:
        course: of the bundle.
        lines: each (distance from the course, width, both in nm; grey value added).
        broken: share of its length over which a line fades.
        seed: of its textures.
    """

    kind: ClassVar[Literal["scratch"]] = "scratch"
    course: Course
    lines: tuple[tuple[float, float, float], ...]
    broken: float
    seed: int


def crack(section_YX: F32, what: Crack, spacing_nm: Spacing) -> Painted:
    """Return the section torn; branches first, so that the main gap crosses them."""
    place = places(what.seed, 1)[0]
    courses = [(_branch(what.course, branch, place), branch[2]) for branch in what.branches]
    image = tissue = section_YX
    cover = np.zeros_like(section_YX)
    for number, (course, share) in enumerate([*courses, (what.course, 1.0)]):
        how = (spacing_nm, what.seed + len(courses) - number)
        torn = _tear(image, what, course, share, how)
        # A gap also moves what is torn already; the undamaged tissue is moved by itself.
        tissue = torn.tissue if tissue is image else _tear(tissue, what, course, share, how).tissue
        image, cover = torn.image, np.maximum(cover, torn.cover)
    if what.texture == 0:  # filled in by a program, as an alignment does: a constant without noise
        cover = np.where(np.abs(image - np.float32(what.fill)) < 1e-5, np.float32(0), cover)
    return Painted(image, cover, tissue)


def _branch(main: Course, branch: tuple[float, float, float], place: F64) -> Course:
    """Return the course of a branch: its own middle lies where it starts, and only what follows is torn."""
    start, angle, share = branch
    beside = _beside(main, np.array([start]), place)[0]
    c, s = np.cos(main.angle), np.sin(main.angle)
    return Course(
        (float(main.point_nm[0] + start * c - beside * s), float(main.point_nm[1] + start * s + beside * c)),
        main.angle + angle,
        main.bend_nm,
        main.wander_nm * share,
        main.cell_nm,
        main.length_nm * share,
    )


def _tear(section: F32, what: Crack, course: Course, share: float, how: tuple[Spacing, int]) -> Painted:
    spacing, seed = how
    at = places(seed, 5)
    t, beside = _along(section.shape, course, spacing, at[0])
    # A branch begins within the gap it leaves.
    start = -np.inf if course is what.course else -0.25 * what.width_nm
    half = 0.5 * what.width_nm * share * _taper(t, course, start)
    cells = min(max(1.5 * what.width_nm, 8 * min(spacing)), 1500.0), 6 * min(spacing)
    sides = [np.where(half > 0, half + what.ragged * _uneven(t, half, cells, at[i]), 0.0) for i in (1, 2)]
    numbers = np.array([what.reach_nm * share, what.fill, what.texture, what.rim, max(what.width_nm, 60.0)])
    frame = np.array([*course.point_nm, course.angle, *spacing])
    return Painted(*_open(section, frame, (t, beside, half, sides[0], sides[1]), numbers, (at[4], lattice())))


def fold(section_YX: F32, what: Fold, spacing_nm: Spacing) -> Painted:
    """Return the section folded."""
    at = places(what.seed, 2)
    t, beside = _along(section_YX.shape, what.course, spacing_nm, at[0])
    swell = _taper(t, what.course) * (1 + 0.35 * profile(t, 4 * what.width_nm, 2, at[1], lattice()))
    numbers = np.array([what.reach_nm, what.density, what.edge])
    frame = np.array([*what.course.point_nm, what.course.angle, *spacing_nm])
    rows = (t, beside, 0.5 * what.width_nm * swell, what.hidden_nm * swell)
    return Painted(*_close(section_YX, frame, rows, numbers))


def scratch(section_YX: F32, what: Scratch, spacing_nm: Spacing) -> Painted:
    """Return the section scratched."""
    at = places(what.seed, 2 + len(what.lines))
    t, beside = _along(section_YX.shape, what.course, spacing_nm, at[0])
    taper = _taper(t, what.course)
    strengths = np.empty((len(what.lines), t.size))
    for i in range(len(what.lines)):
        fade = np.clip(1.5 + 3 * (profile(t, 900.0, 3, at[1 + i], lattice()) - 2 * what.broken + 0.5), 0.0, 1.5)
        strengths[i] = taper * np.minimum(fade, 1.0)
    frame = np.array([*what.course.point_nm, what.course.angle, *spacing_nm])
    image = _score(section_YX, frame, (t, beside), (np.array(what.lines, float), strengths), (at[-1], lattice()))
    return Painted(image, np.zeros_like(section_YX), section_YX)


def _along(shape: tuple[int, ...], course: Course, spacing: Spacing, place: F64) -> tuple[F64, F64]:
    """Return places along a line, half a voxel apart, and where the line is beside its tangent there."""
    size = np.array(shape) * spacing
    corners = np.array([[y, x] for y in (0.0, size[0]) for x in (0.0, size[1])]) - course.point_nm
    t = corners @ (np.cos(course.angle), np.sin(course.angle))
    step = 0.5 * min(spacing)
    along = np.arange(t.min() - 2 * step, t.max() + 4 * step, step)
    return along, _beside(course, along, place)


def _beside(course: Course, t: F64, place: F64) -> F64:
    """Return where a line is beside its tangent; 0 at t = 0."""
    origin, wander = (profile(at, course.cell_nm, 4, place, lattice()) for at in (np.zeros(1), t))
    out: F64 = course.wander_nm * (wander - origin) + course.bend_nm * np.square(t / 1000.0)
    return out


def _uneven(t: F64, half: F64, cells_nm: tuple[float, float], place: F64) -> F64:
    """Return by how much an edge wanders along a line and, in places, jags, nm; never to below -half."""
    coarse, fine = (profile(t, cell, 3, place, lattice()) for cell in cells_nm)
    jags = np.minimum(0.6 * half, 0.5 * cells_nm[1]) * fine * np.clip(2 * coarse, 0.1, 1.0)
    out: F64 = np.maximum(half * coarse + jags, -half)
    return out


def _taper(t: F64, course: Course, start: float = -np.inf) -> F64:
    """Return 1 along a line, running out over its last quarter at each end; 0 beyond, and before `start`."""
    left = 0.5 * course.length_nm - np.abs(t)
    out: F64 = np.sqrt(np.clip(left / (0.25 * course.length_nm), 0.0, 1.0))
    return np.where(t >= start, out, 0.0)


# ---- kernels --------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _mirror(i, n):  # type: ignore[no-untyped-def]
    """Return the voxel that stands at i where the section is mirrored at its outer faces."""
    if 0 <= i < n:
        return i
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


@njit(cache=True, nogil=True)
def cubic(section, y, x):  # type: ignore[no-untyped-def]
    """Return the grey value between voxels (Catmull and Rom 1974), and the share of noise's variance it keeps."""
    iy, ix = int(np.floor(y)), int(np.floor(x))
    u, v = y - iy, x - ix
    a, b, c, d = _weight(0, v), _weight(1, v), _weight(2, v), _weight(3, v)
    inside = 1 <= ix < section.shape[1] - 2
    total = 0.0
    for k in range(4):
        row = section[_mirror(iy - 1 + k, section.shape[0])]
        if inside:
            line = a * row[ix - 1] + b * row[ix] + c * row[ix + 1] + d * row[ix + 2]
        else:
            line = 0.0
            for m in range(4):
                line += _weight(m, v) * row[_mirror(ix - 1 + m, section.shape[1])]
        total += _weight(k, u) * line
    kept = a * a + b * b + c * c + d * d
    return total, kept * (_weight(0, u) ** 2 + _weight(1, u) ** 2 + _weight(2, u) ** 2 + _weight(3, u) ** 2)


@njit(cache=True, nogil=True, inline="always")
def _weight(k, u):  # type: ignore[no-untyped-def]
    if k == 0:
        return ((-0.5 * u + 1.0) * u - 0.5) * u
    if k == 1:
        return (1.5 * u - 2.5) * u * u + 1.0
    if k == 2:
        return ((-1.5 * u + 2.0) * u + 0.5) * u
    return (0.5 * u - 0.5) * u * u


@njit(cache=True, nogil=True, inline="always")
def _lookup(row, at):  # type: ignore[no-untyped-def]
    i = min(max(int(at), 0), row.size - 2)
    return row[i] + (at - i) * (row[i + 1] - row[i])


@njit(cache=True, nogil=True)
def _open(section, frame, rows, numbers, texture):  # type: ignore[no-untyped-def]
    y0, x0, angle, sy, sx = frame
    t, beside, half, left, right = rows
    reach, fill, grain, rim, cell = numbers
    c, s = np.cos(angle), np.sin(angle)
    pixel, step = min(sy, sx), t[1] - t[0]
    out, tissue, covers = section.copy(), section.copy(), np.zeros_like(section)
    for y in range(section.shape[0]):
        for x in range(section.shape[1]):
            py, px = y * sy - y0, x * sx - x0
            at = (py * c + px * s - t[0]) / step
            d = px * c - py * s - _lookup(beside, at)
            a, b, h = _lookup(left, at), _lookup(right, at), _lookup(half, at)
            edge, sign = (b, 1.0) if d > 0.5 * (b - a) else (a, -1.0)
            if h <= 0.0 or sign * d - h > 5.0 * reach:
                continue
            # Tissue moves smoothly; only the edges are ragged, where crumbs are missing or left.
            move = sign * h * np.exp(-max(sign * d - h, 0.0) / reach)
            value, kept = cubic(section, y + move * s / sy, x - move * c / sx)
            tissue[y, x] = value
            beyond = sign * d - edge
            if rim != 0.0:
                value += rim * np.exp(-abs(beyond) / (2.5 * pixel)) * min(1.0, edge / pixel)
            cover = min(max(0.5 - beyond / pixel, 0.0), 1.0) * min(1.0, (a + b) / pixel)
            if cover > 0.0:
                gap = fill + grain * noise_at(y * sy / cell, x * sx / cell, 3, texture[0], texture[1])
                value += cover * (gap - value)
            out[y, x], covers[y, x] = value, (1.0 - cover) * (1.0 - kept) + cover
    return out, covers, tissue


@njit(cache=True, nogil=True)
def _close(section, frame, rows, numbers):  # type: ignore[no-untyped-def]
    y0, x0, angle, sy, sx = frame
    t, beside, half, hidden = rows
    reach, density, edge = numbers
    c, s = np.cos(angle), np.sin(angle)
    pixel, step = min(sy, sx), t[1] - t[0]
    height, width = section.shape
    out, tissue, covers = section.copy(), section.copy(), np.zeros_like(section)
    for y in range(height):
        for x in range(width):
            py, px = y * sy - y0, x * sx - x0
            at = (py * c + px * s - t[0]) / step
            d = px * c - py * s - _lookup(beside, at)
            h = _lookup(half, at)
            sign = 1.0 if d > 0 else -1.0
            beyond = sign * d - h
            if h <= 0.0 or beyond > 5.0 * reach:
                continue
            # No tissue can be pulled in from beyond the picture.
            gone = min(_lookup(hidden, at), 0.5 * min(min(y, height - 1 - y) * sy, min(x, width - 1 - x) * sx))
            move = gone * np.exp(-max(beyond, 0.0) / reach)
            value, kept = cubic(section, y - sign * move * s / sy, x + sign * move * c / sx)
            tissue[y, x] = value
            cover = min(max(0.5 - beyond / pixel, 0.0), 1.0) * min(1.0, 2.0 * h / pixel)
            if cover > 0.0:
                # The other flank lies on top, and between the two the strip that turned over.
                other, _ = cubic(section, y + sign * move * s / sy, x - sign * move * c / sx)
                turned = d * (1.0 + gone / h)
                between, _ = cubic(section, y + turned * s / sy, x - turned * c / sx)
                light = max(0.5 * value + 0.5, 0.0)
                light *= max(0.5 * other + 0.5, 0.02) ** density * max(0.5 * between + 0.5, 0.02) ** density
                value += cover * (2.0 * light - 1.0 - value)
            value += edge * np.exp(-abs(beyond) / (1.5 * pixel)) * min(1.0, h / pixel)
            out[y, x], covers[y, x] = value, (1.0 - cover) * (1.0 - kept) + cover
    return out, covers, tissue


@njit(cache=True, nogil=True)
def _score(section, frame, rows, marks, texture):  # type: ignore[no-untyped-def]
    y0, x0, angle, sy, sx = frame
    t, beside = rows
    lines, strengths = marks
    c, s = np.cos(angle), np.sin(angle)
    pixel, step = min(sy, sx), t[1] - t[0]
    out = section.copy()
    for y in range(section.shape[0]):
        for x in range(section.shape[1]):
            py, px = y * sy - y0, x * sx - x0
            at = (py * c + px * s - t[0]) / step
            d = px * c - py * s - _lookup(beside, at)
            for i in range(lines.shape[0]):
                # A line thinner than a voxel takes its share of it; a broad one fades towards its borders.
                half, side = 0.5 * max(lines[i, 1], pixel), abs(d - lines[i, 0])
                cover = min(max((half - side) / max(pixel, 0.6 * half) + 0.5, 0.0), 1.0)
                if cover > 0.0:
                    thin = min(1.0, lines[i, 1] / pixel)
                    rough = 1.0 + 0.8 * noise_at(
                        t[0] / 60.0 + at * step / 60.0, d / 25.0, 3, texture[0], texture[1]
                    )
                    out[y, x] += cover * thin * rough * lines[i, 2] * _lookup(strengths[i], at)
    return out
