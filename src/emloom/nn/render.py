"""Apply: carry out a sample plan. Pure, read-only on its sources, and the same bytes every time.

The frame of a sample is its output box and what raw and targets need around it, ``reach`` voxels on each side.
Frame and volume are related in two steps::

    voxel of the frame  --coordinate map (emloom.ops.deformation)-->  position in the oriented source frame
                        --order and flips, exact-->                   position in the volume

so an array read from the volume is first turned (a view), then gathered. The box that is read is the bounding box
of the map. The raw is mirrored where that leaves the volume; labels are unknown there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.geometry.box import add, sub
from emloom.nn.draw import Frame
from emloom.nn.library import Library, turned
from emloom.nn.plan import Artifact, Blur, Defect, Hidden, LowContrast, Missing, Motion, SamplePlan
from emloom.ops import section_effects as effects
from emloom.ops.deformation import CoordinateMap, Elastic, coordinate_map, inverse, linear_map, positions
from emloom.ops.resample import TABLE_SIZE, LabelPart, Moves, RawPart, part_to_read

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_MEAN_STEP = (1, 4, 4)  # the sample's mean is taken over every fourth row and column


@dataclass(frozen=True)
class Geometry:
    """The geometry of one plan: where every voxel of its frame comes from.

    Attributes:
        frame: extents.
        origin: voxel of the volume at which the source frame starts.
        order: axis of the volume along each axis of the frame.
        flips: axes of the frame that run backwards in the volume.
        mapping: frame -> oriented source frame.
        raw: moves of sections as the raw sees them.
        labels: moves of sections as the labels see them.
    """

    frame: Frame
    origin: Vec
    order: Vec
    flips: tuple[bool, bool, bool]
    mapping: CoordinateMap
    raw: Moves
    labels: Moves

    @classmethod
    def of(cls, plan: SamplePlan, frame: Frame) -> Geometry:
        """Return the geometry of a plan."""
        mapping = _mapping(plan, frame)
        raw, labels = _moves(plan, frame.shape[0])
        return cls(frame, sub(plan.start, frame.reach), plan.order, plan.flips, mapping, raw, labels)

    def to_read(self, part: Box, moves: Moves) -> tuple[Box, Vec]:
        """Return the voxels of the volume that a part of the frame needs, and where they start once turned."""
        turned = part_to_read(self.mapping, part, moves)
        start, shape = [0, 0, 0], [0, 0, 0]
        for axis, (along, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            a, n = turned.start[axis], turned.shape[axis]
            start[along] = self.frame.shape[axis] - a - n if flip else a
            shape[along] = n
        return Box(add((start[0], start[1], start[2]), self.origin), (shape[0], shape[1], shape[2])), turned.start

    def turned(self, array_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Return an array of the volume as the frame sees it (a view)."""
        z, y, x = (slice(None, None, -1) if flip else slice(None) for flip in self.flips)
        return array_ZYX.transpose(self.order)[z, y, x]

    def to_volume(self, points_N3: NDArray[Any]) -> F64:
        """Return where points of the output (voxels, z y x; a voxel's centre is whole) come from in the volume."""
        p = np.asarray(points_N3, float) + self.frame.reach
        turned = positions(self.mapping, p, self.labels.shift, self.labels.folds)
        out = np.empty_like(turned)
        for axis, (along, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            out[:, along] = self.frame.shape[axis] - 1 - turned[:, axis] if flip else turned[:, axis]
        return out + self.origin

    def to_output(self, points_N3: NDArray[Any]) -> F64:
        """Return where points of the volume (voxels) are found in the output; NaN where nowhere in the frame.

        Points move as labels do. The inverse of `to_volume`, to 1e-4 voxels.
        """
        f = np.asarray(points_N3, float) - self.origin
        turned = np.empty_like(f)
        for axis, (along, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            turned[:, axis] = self.frame.shape[axis] - 1 - f[:, along] if flip else f[:, along]
        p = inverse(self.mapping, turned, self.labels.shift, self.labels.folds)
        outside = ((p < -0.5) | (p > np.array(self.frame.shape) - 0.5)).any(axis=1)
        p[outside] = np.nan
        return p - self.frame.reach


def _mapping(plan: SamplePlan, frame: Frame) -> CoordinateMap:
    warp = plan.warp
    if warp is None:
        return coordinate_map(frame.shape)
    linear = linear_map(warp.rotation_deg, warp.scale, warp.shear_deg, frame.spacing_nm[1:])
    elastic = None
    if warp.spacing_vox is not None:
        normals = np.array(warp.normals).reshape(-1, *warp.control)
        elastic = Elastic(warp.spacing_vox, warp.sigma_vox, normals)
    return coordinate_map(frame.shape, linear, elastic)


def _moves(plan: SamplePlan, sections: int) -> tuple[Moves, Moves]:
    raw, labels = Moves.none(sections), Moves.none(sections)
    if plan.moves is not None:
        # An image that moves by t shows at p what lay at p - t.
        raw.shift[:] = -np.array(plan.moves.raw)
        labels.shift[:] = -np.array(plan.moves.labels)
    for fold in plan.folds:
        bent = (*fold.normal, fold.c, fold.strength_vox)
        raw.folds[fold.section] = bent
        if fold.moves_labels:
            labels.folds[fold.section] = bent
    return raw, labels


def raw_part(plan: SamplePlan, geometry: Geometry, part: Box, read: Any, span: tuple[float, float]) -> RawPart:
    """Return what the gather needs to fill a part of the frame with raw.

    Args:
        plan: the plan.
        geometry: its geometry.
        part: box of the frame.
        read: box of the volume -> array, mirrored outside.
        span: raw values that become -1 and +1.
    """
    box, origin = geometry.to_read(part, geometry.raw)
    source = geometry.turned(read(box))
    sections = geometry.frame.shape[0]
    toned = np.zeros(sections, np.uint8)
    tables = np.zeros((sections, TABLE_SIZE + 1), np.float32)
    if plan.tone is not None:
        low, high = span
        mean = (float(source[tuple(slice(None, None, s) for s in _MEAN_STEP)].mean()) - low) * 2 / (high - low) - 1
        c, b, g = (np.array(v) for v in (plan.tone.contrast, plan.tone.brightness, plan.tone.gamma))
        tables = effects.tone_table(c, b, g, mean, TABLE_SIZE)
        toned[:] = 1
    return RawPart(part, geometry.raw, source, origin, span, tables, toned)


def label_part(geometry: Geometry, part: Box, read: Any) -> LabelPart:
    """Return what the gather needs to fill a part of the frame with labels; `read`: box -> (labels, known)."""
    box, origin = geometry.to_read(part, geometry.labels)
    labels, known = read(box)
    turned = geometry.turned(known) if known.size else np.zeros((0, 0, 0), np.uint8)
    return LabelPart(part, geometry.labels, geometry.turned(labels), turned, origin)


def spoils(plan: SamplePlan) -> bool:
    """Whether `finish_raw` changes anything."""
    return bool(plan.defects or plan.folds or plan.noise)


def finish_raw(plan: SamplePlan, raw_ZYX: F32, part: Box, library: Library | None = None) -> None:
    """Apply in place what happens to grey values after the gather: folds' shadows, defects, noise.

    Args:
        plan: the plan.
        raw_ZYX: the gathered raw of `part`.
        part: its box in the frame.
        library: the artifacts the plan refers to.
    """
    mean = float(raw_ZYX[:, ::4, ::4].mean()) if raw_ZYX.size else 0.0

    def befall(*kinds: str) -> None:
        for defect in plan.defects:
            if defect.kind in kinds:
                _apply(defect, raw_ZYX, part, mean, library)

    befall("blur", "motion")
    for fold in plan.folds:
        z = fold.section - part.start[0]
        if 0 <= z < part.shape[0]:
            effects.shade_line(raw_ZYX[z], part.start[1:], fold.normal, fold.c, fold.width_vox)
    befall("low_contrast", "artifact", "hidden")
    if plan.noise is not None:
        effects.add_noise(raw_ZYX, plan.noise.sigma, plan.noise.seed)
    befall("missing")


def _apply(defect: Defect, raw_ZYX: F32, part: Box, mean: float, library: Library | None) -> None:
    if isinstance(defect, Hidden):
        inside = Box(defect.start, defect.shape).intersect(part)
        raw_ZYX[inside.slices(part.start)] = defect.value
        return
    y0, y1, x0, x1 = defect.area
    where = Box.of((defect.section, y0, x0), (defect.section + 1, y1, x1)).intersect(part)
    if where.is_empty:
        return
    section = raw_ZYX[where.slices(part.start)][0]
    match defect:
        case Blur():
            effects.blur(section, defect.sigma_vox)
        case Motion():
            effects.motion_blur(section, defect.step_vox)
        case LowContrast():
            effects.lower_contrast(section, defect.scale)
        case Missing():
            section[:] = mean if defect.value is None else defect.value
        case Artifact():
            _blend(defect, section, where, library)


def _blend(artifact: Artifact, section_YX: F32, where: Box, library: Library | None) -> None:
    if library is None:
        raise ValueError("the plan blends in an artifact, and no library was given")  # a caller's mistake
    image, mask = (
        turned(a[artifact.number], artifact.flips, artifact.transposed) for a in (library.images, library.masks)
    )
    y = artifact.source[0] + where.start[1] - artifact.area[0]
    x = artifact.source[1] + where.start[2] - artifact.area[2]
    at = (slice(y, y + where.shape[1]), slice(x, x + where.shape[2]))
    mean = float(image.mean())
    grey = (image[at] - mean) * np.float32(artifact.contrast) + np.float32(mean + artifact.brightness)
    effects.blend(section_YX, np.clip(grey, -1.0, 1.0), mask[at])
