"""A sample plan in words: what a person sees in the sample, sections counted from the first of its output."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import hypot

from emloom.geometry import Box
from emloom.nn.draw import Frame
from emloom.nn.plan import Artifact, Blur, Defect, Hidden, LowContrast, Missing, Motion, SamplePlan, Tone, Warp

_AXES = "zyx"


def describe(plan: SamplePlan, frame: Frame) -> list[str]:
    """Return one phrase per effect on the output of a sample, at least ``["as it lies in the volume"]``.

    Sections of the context around the output are left out. Lengths are in nm.

    Args:
        plan: the plan.
        frame: the frame it was drawn for.
    """
    words = [*_geometry(plan), *_misaligned(plan, frame), *_folds(plan, frame), *_tone(plan.tone, frame)]
    words += _defects(plan, frame)
    if plan.noise is not None:
        words.append(f"noise of {plan.noise.sigma:.2g}")
    return words or ["as it lies in the volume"]


def sections_hit(plan: SamplePlan, frame: Frame) -> list[int]:
    """Return the sections of the output to which something of their own happens, in order."""
    hit = {d.section for d in plan.defects if not isinstance(d, Hidden) and _is_seen(d, frame)}
    hit |= {fold.section for fold in plan.folds}
    hit |= {z for z, _ in _steps(plan)}
    return sorted(_shown(z, frame) for z in hit if _is_shown(z, frame))


def _shown(section: int, frame: Frame) -> int:
    return section - frame.reach[0]


def _is_shown(section: int, frame: Frame) -> bool:
    return 0 <= _shown(section, frame) < frame.output[0]


def _is_seen(defect: Defect, frame: Frame) -> bool:
    """Whether a defect touches the output, not only the context around it."""
    if isinstance(defect, Hidden):
        where = Box(defect.start, defect.shape)
    else:
        y0, y1, x0, x1 = defect.area
        where = Box.of((defect.section, y0, x0), (defect.section + 1, y1, x1))
    return where.meets(Box(frame.reach, frame.output))


def _geometry(plan: SamplePlan) -> Iterator[str]:
    if any(plan.flips):
        yield "flipped along " + ", ".join(axis for axis, flip in zip(_AXES, plan.flips, strict=True) if flip)
    if plan.order != (0, 1, 2):
        yield "axes z, y, x run along " + ", ".join(_AXES[axis] for axis in plan.order) + " of the volume"
    if plan.warp is not None:
        yield from _warp(plan.warp)


def _warp(warp: Warp) -> Iterator[str]:
    if warp.rotation_deg:
        yield f"turned by {warp.rotation_deg:.0f}°"
    if warp.scale != 1:
        yield f"scaled by {warp.scale:.2f}"
    if warp.shear_deg:
        yield f"sheared by {warp.shear_deg:.0f}°"
    if warp.spacing_vox is not None:
        sigma = ", ".join(f"{s:.1f}" for s in warp.sigma_vox)
        yield f"elastic, sigma ({sigma}) voxels"


def _steps(plan: SamplePlan) -> list[tuple[int, tuple[int, int]]]:
    """Return (section, its displacement against the section before), where there is one; voxels."""
    if plan.moves is None:
        return []
    raw = plan.moves.raw
    steps = [(z, (b[0] - a[0], b[1] - a[1])) for z, (a, b) in enumerate(pairwise(raw), start=1)]
    return [(z, step) for z, step in steps if step != (0, 0)]


def _misaligned(plan: SamplePlan, frame: Frame) -> Iterator[str]:
    # Between two sections of the output, not between its first and the one before.
    steps = [(_shown(z, frame), step) for z, step in _steps(plan) if _is_shown(z, frame) and _shown(z, frame)]
    if not steps:
        return
    _, dy, dx = frame.spacing_nm
    listed = [f"z {z} by ({y * dy:.0f}, {x * dx:.0f}) nm" for z, (y, x) in steps]
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    yield "moved against the section before: " + ", ".join(listed[:4]) + more


def _folds(plan: SamplePlan, frame: Frame) -> Iterator[str]:
    size = frame.spacing_nm[2]
    for fold in plan.folds:
        if _is_shown(fold.section, frame):
            what = "raw and labels" if fold.moves_labels else "raw only"
            hidden, band = 2 * fold.strength_vox * size, fold.width_vox * size
            yield f"z {_shown(fold.section, frame)} folded: {hidden:.0f} nm hidden ({what}), band of {band:.0f} nm"


def _tone(tone: Tone | None, frame: Frame) -> Iterator[str]:
    if tone is None:
        return
    shown = slice(frame.reach[0], frame.reach[0] + frame.output[0])
    parts = {"contrast": tone.contrast, "brightness": tone.brightness, "gamma": tone.gamma}
    words = []
    for name, values in parts.items():
        low, high = min(values[shown]), max(values[shown])
        sign = "+" if name == "brightness" else ""
        words.append(f"{name} {low:{sign}.2f}" + ("" if low == high else f" to {high:{sign}.2f}"))
    yield ", ".join(words)


def _defects(plan: SamplePlan, frame: Frame) -> list[str]:
    _, height, width = frame.shape
    words: dict[tuple[int, str], bool] = {}
    boxes = 0
    for defect in (d for d in plan.defects if _is_seen(d, frame)):
        if isinstance(defect, Hidden):
            boxes += 1
        else:
            # Several quadrants of one section are one effect.
            part = not isinstance(defect, Artifact) and defect.area != (0, height, 0, width)
            words[_shown(defect.section, frame), _name(defect, frame)] = part
    out = [f"z {z} {name}" + (" in part" if part else "") for (z, name), part in sorted(words.items())]
    return [*out, *([f"{boxes} hidden box{'es' if boxes > 1 else ''}"] if boxes else [])]


def _name(defect: Defect, frame: Frame) -> str:
    _, dy, dx = frame.spacing_nm
    match defect:
        case Blur():
            return f"blurred, sigma {defect.sigma_vox[1] * dx:.0f} nm"
        case Motion():
            y, x = defect.step_vox
            return f"blurred along {hypot(y * dy, x * dx):.0f} nm"
        case LowContrast():
            return f"at {defect.scale:.0%} of its contrast"
        case Artifact():
            return f"with artifact {defect.number}"
        case Missing():
            return "missing"
        case _:
            return defect.kind
