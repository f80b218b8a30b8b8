"""`emloom label-slices`: planes of a raw volume as images to paint, with the `labels.yaml` that places them.

::

    OUT/z_0200_raw.png     the image, to paint on
    OUT/z_0200.png         what is painted: a palette image of the same size, all 0, which is undefined
    OUT/labels.yaml        where every image lies, and which number stands for which class
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.grid import Vec3
from emloom.io.files import staged, write_bytes_atomic, write_text_atomic
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.spec import Spec
from emloom.tasks.data import BoxSpec
from emloom.tasks.sparsespec import PlanePiece, SparseLabels
from emloom.view.colours import grey

_MOST_CLASSES = 255
_LARGEST = 1 << 28  # pixels of one image


class PlaneAt(Spec):
    """A plane of voxels."""

    axis: Literal["z", "y", "x"]
    at: Annotated[int, Field(ge=0)]
    """Voxel along the axis."""


class LabelSlicesSpec(Spec):
    """Which planes are to be painted, with which classes."""

    raw: str
    """Path of the raw volume."""
    output: str
    """Folder to be made."""
    planes: tuple[PlaneAt, ...] = Field(min_length=1)
    """The planes."""
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=_MOST_CLASSES)
    """Names; the first is painted as 1."""
    box: BoxSpec | None = None
    """Part of the volume that planes are cut to; default: all of it."""
    group: str | None = None
    """Group of the pieces, to hold them out together, such as the planes through one cube."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the file does not state it."""


def label_slices(spec: LabelSlicesSpec) -> SparseLabels:
    """Write images to paint and their `labels.yaml`; return what stands in it.

    Raises:
        InputError: a plane lies outside, a plane or a class stands twice, or the folder exists.
    """
    if len(set(spec.classes)) < len(spec.classes) or len(set(spec.planes)) < len(spec.planes):
        raise InputError("a plane or a class is named twice: name each once")
    raw = open_volume(spec.raw, voxel_size_nm=spec.voxel_size_nm, kind="raw")
    boxes = [_cut(plane, spec, raw) for plane in spec.planes]
    pieces = [_piece(plane, box, spec.group) for plane, box in zip(spec.planes, boxes, strict=True)]
    size = raw.info.grid.voxel_size_nm
    names = {name: value for value, name in enumerate(spec.classes, start=1)}
    labels = SparseLabels(classes=dict(names), pieces=tuple(pieces), voxel_size_nm=size)
    with staged(spec.output) as folder:
        folder.mkdir(exist_ok=True)
        for piece, box in zip(pieces, boxes, strict=True):
            image = raw.read(box).squeeze(axis="zyx".index(piece.axis))
            shown = image if image.dtype == np.uint8 else grey(image)
            write_bytes_atomic(folder / f"{piece.name}_raw.png", _png(Image.fromarray(shown)))
            write_bytes_atomic(folder / piece.image, _blank(image.shape, len(names)))
        write_text_atomic(folder / "labels.yaml", labels.to_yaml())
    return labels


def _cut(plane: PlaneAt, spec: LabelSlicesSpec, raw: Volume) -> Box:
    whole = raw.info.box if spec.box is None else spec.box.box
    normal = "zyx".index(plane.axis)
    start, shape = list(whole.start), list(whole.shape)
    start[normal], shape[normal] = plane.at, 1
    box = Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
    if whole.is_empty or not raw.info.box.contains(whole) or not whole.contains(box):
        where = raw.info.box if spec.box is None else spec.box.box
        raise InputError(
            f"the plane {plane.axis} = {plane.at} leaves {where}, or that leaves {spec.raw}, {raw.info.box} (z, "
            "y, x): choose a plane inside"
        )
    if box.size > _LARGEST:
        raise InputError(f"the plane {plane.axis} = {plane.at} has {box.size:,} pixels: cut it with a box")
    return box


def _piece(plane: PlaneAt, box: Box, group: str | None) -> PlanePiece:
    rows, columns = (axis for axis in range(3) if "zyx"[axis] != plane.axis)
    start: Vec = box.start
    name = f"{plane.axis}_{plane.at:04d}"
    return PlanePiece(
        kind="plane",
        name=name,
        group=group,
        image=f"{name}.png",
        axis=plane.axis,
        at=plane.at,
        start=(start[rows], start[columns]),
    )


def _blank(shape: Sequence[int], n_classes: int) -> bytes:
    """Return an image of zeros whose palette shows 0 black and every class in a colour of its own."""
    image = Image.frombytes("P", (shape[1], shape[0]), bytes(shape[0] * shape[1]))
    colours = [hsv_to_rgb(k / n_classes, 0.8, 0.95) for k in range(n_classes)]
    table: NDArray[np.uint8] = np.round(np.array([(0.0, 0.0, 0.0), *colours]) * 255).astype(np.uint8)
    image.putpalette(table.tobytes())
    return _png(image)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def wanted_planes(words: Sequence[str]) -> tuple[PlaneAt, ...]:
    """Return the planes of words such as `z=200` or `y=510,520`.

    Raises:
        InputError: a word is not understood.
    """
    found = []
    for word in words:
        axis, _, numbers = word.partition("=")
        places = numbers.split(",")
        if axis not in ("z", "y", "x") or not all(place.strip().isdecimal() for place in places):
            raise InputError(f"plane {word!r} is not understood: write z=200, or y=510,520")
        found += [PlaneAt.from_dict({"axis": axis, "at": int(place)}, "plane") for place in places]
    return tuple(found)


def next_steps(spec: LabelSlicesSpec, labels: SparseLabels) -> str:
    """Return what a person does now."""
    assert labels.classes is not None
    numbers = ", ".join(f"{value} {name}" for name, value in labels.classes.items())
    return (
        f"{spec.output}: {len(labels.pieces)} planes to paint. Open NAME_raw.png with NAME.png on top, paint with "
        f"a hard brush in the numbers {numbers}, leave 0 where you do not know, and save NAME.png. Then: "
        f"labels: {Path(spec.output) / 'labels.yaml'}"
    )
