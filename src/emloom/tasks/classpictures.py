"""Pictures of mistaken classes: three sections through a piece, its two classes in colour, the piece in a ring.

::

    raw          truth           prediction
    grey         + true class    + true class       sky blue
                 + other class   + other class      vermilion
                 + ring          + ring             yellow, around the piece, on voxels that are not of it

The ring leaves the piece itself visible: sky blue under truth, vermilion under prediction. Class 0 has no colour,
as background has none in any picture; neither have voxels that do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.tasks.classplaces import Largest, Piece, largest_pieces
from emloom.tasks.classscoring import ClassEvaluation
from emloom.tasks.classspec import ClassSpec
from emloom.tasks.classtable import Judged, classes_in
from emloom.tasks.lattice import common_box
from emloom.tasks.openings import Openings
from emloom.view.colours import RGB, grey
from emloom.view.figures import Figure, Tile
from emloom.view.marked import section_of
from emloom.view.mosaic import mosaic
from emloom.view.report import Cell, Section, Table

TRUE_RGB, CALLED_RGB, RING_RGB = (86, 180, 233), (213, 94, 0), (240, 228, 66)  # Okabe and Ito 2008
_OPACITY = 0.45
_SMALLEST, _LARGEST = 63, 191  # voxels of the finest axis that a picture shows to either side
_MARGIN = 1.25  # of the piece


@dataclass(frozen=True)
class Scene:
    """What pictures are made of.

    Attributes:
        judged: truth and prediction, and how they are read.
        raw: the ground; None for plain grey.
    """

    judged: Judged
    raw: Volume | None

    @property
    def predicted(self) -> Volume:
        """The lattice of the pictures."""
        return open_volume(self.judged.predicted)


def error_section(spec: ClassSpec, found: ClassEvaluation) -> Section:
    """Return the largest errors of an evaluation, drawn and in numbers."""
    title, judged = "Largest errors", found.judged
    cells = judged.cells()
    largest = largest_pieces(judged, cells, found.most_confused)
    if not largest.pieces:
        return Section(title, "There is none: every voxel that counts was given its class.")
    scene = Scene(judged, None if spec.raw is None else open_volume(spec.raw, kind="raw"))
    paths = {"raw": spec.raw, "truth": spec.truth, "prediction": spec.predicted}
    openings, labelled = Openings.of(paths, scene.predicted), _labelled(judged)
    figures = []
    for piece in largest.pieces:
        classes = tuple(sorted({piece.truth, piece.called} - {0}))
        opening = openings.opening(piece.at, tuple((layer, classes) for layer in labelled))
        figures.append(replace(picture(scene, piece, found.names), opening=opening))
    columns = ["truth", "called", "voxels", "at (z, y, x)", "at, nm", "box"]
    rows = [_row(scene, piece, found.names) for piece in largest.pieces]
    return Section(title, _words(scene, largest), figures, [Table(columns, rows, "the same in numbers")])


def _labelled(judged: Judged) -> list[str]:
    """Return the layers in which a viewer can select classes."""
    layers = {"truth": judged.truth} | ({} if judged.channels else {"prediction": judged.predicted})
    infos = {name: open_volume(path).info for name, path in layers.items()}
    return [name for name, info in infos.items() if info.kind in (None, "labels") and info.dtype.kind in "bu"]


def _words(scene: Scene, largest: Largest) -> str:
    cell = " × ".join(str(min(pair)) for pair in zip(scene.judged.cell, scene.predicted.info.shape, strict=True))
    text = (
        "The largest connected pieces of one true class that were called one other class, largest first. Voxels "
        f"are joined through their faces, within blocks of {cell} voxels: a piece that the faces of blocks cut "
        "counts in parts.\n\n"
        "The true class is blue and the one it was called vermilion, in truth and prediction alike; class 0 and "
        "voxels that do not count have no colour. The yellow ring is around the piece. Positions are voxels "
        "(z, y, x) of the prediction, and nm of their centres."
    )
    if largest.left:
        text += (
            f"\n\nOf {largest.confused} blocks with errors, the {largest.searched} with the most voxels of one "
            f"confusion were searched: elsewhere, a piece may have up to {largest.left} voxels."
        )
    if 1 in scene.predicted.info.shape:
        text += "\n\nSections that would be a line of voxels are not drawn: the prediction is one voxel thick."
    return text + (
        "\n\nThe command below a picture opens its place in neuroglancer, on this machine only, with both classes "
        "selected where they are stored as ids. While one of them runs, the links of all pictures work: they move "
        "that viewer and leave its layout and contrast as they are."
    )


def _row(scene: Scene, piece: Piece, names: tuple[str, ...]) -> list[Cell]:
    box = ", ".join(f"{a}:{b}" for a, b in zip(piece.box.start, piece.box.stop, strict=True))
    at = ", ".join(map(str, piece.at))
    return [names[piece.truth], names[piece.called], piece.voxels, at, _nm(scene, piece), box]


def _nm(scene: Scene, piece: Piece) -> str:
    return ", ".join(f"{v:.10g}" for v in scene.predicted.info.grid.centre(piece.at))


def picture(scene: Scene, piece: Piece, names: tuple[str, ...]) -> Figure:
    """Return sections through a piece: raw where there is, truth, prediction; one row for each plane."""
    z, y, x = piece.at
    caption = (
        f"{names[piece.truth]} called {names[piece.called]}: {piece.voxels} connected voxels. Sections through "
        f"z = {z}, y = {y}, x = {x}, at {_nm(scene, piece)} nm."
    )
    return mosaic(list(tiles(scene, piece)), columns=2 + (scene.raw is not None), alt=caption, caption=caption)


def tiles(scene: Scene, piece: Piece) -> Iterator[Tile]:
    """Yield the images of a picture; pixels are square, with the size of the finest voxel side."""
    shape, size = scene.predicted.info.shape, scene.predicted.info.grid.voxel_size_nm
    for axis, plane in enumerate(("xy", "xz", "yz")):
        rows, columns = (k for k in range(3) if k != axis)
        # Of a single section, only that section is a picture.
        if axis == 0 or 1 not in (shape[rows], shape[columns]):
            times = (round(size[rows] / min(size)), round(size[columns] / min(size)))
            spacing = (size[rows] / times[0], size[columns] / times[1])
            yield from (
                Tile(f"{name}, {plane}", image, spacing) for name, image in _images(scene, piece, axis, times)
            )


def window_of(scene: Scene, piece: Piece) -> Box:
    """Return the voxels that sections through a piece show: as far along every axis, the piece in the middle."""
    info = scene.predicted.info
    size = info.grid.voxel_size_nm
    ends = zip(piece.at, piece.box.start, piece.box.stop, size, strict=True)
    reach = max(max(at - low, high - at) * nm for at, low, high, nm in ends)
    half_nm = min(max(_MARGIN * reach, _SMALLEST * min(size)), _LARGEST * min(size))
    half = [max(1, round(half_nm / nm)) for nm in size]
    low, high = ([a + sign * h for a, h in zip(piece.at, half, strict=True)] for sign in (-1, 1))
    return Box.of(low, [h + 1 for h in high]).intersect(info.box)


def _images(scene: Scene, piece: Piece, axis: int, times: tuple[int, int]) -> Iterator[tuple[str, RGB]]:
    """Read the section of a window across an axis, and draw it: a section costs no cube."""
    box, index = section_of(window_of(scene, piece), axis, piece.at), (slice(None),) * axis + (0,)

    def drawn(voxels: NDArray[Any]) -> NDArray[Any]:
        return voxels[index].repeat(times[0], 0).repeat(times[1], 1)

    truth, known, called = classes_in(scene.judged, box)
    inside = np.zeros(box.shape, np.bool_)
    shared = box.intersect(piece.box)
    inside[shared.slices(box.start)] = piece.inside[shared.slices(piece.box.start)]
    ring = _around(drawn(inside))
    if scene.raw is None:
        ground = np.full(ring.shape, 128, np.uint8)
    else:
        ground = grey(drawn(scene.raw.read(box.shift(common_box(scene.predicted, scene.raw).start))))
        yield "raw", ground
    for name, classes in (("truth", truth), ("prediction", called)):
        image = np.repeat(ground[..., None], 3, axis=2)
        for label, colour in ((piece.truth, TRUE_RGB), (piece.called, CALLED_RGB)):
            if label != 0:
                here = drawn(known & (classes == label))
                image[here] = np.rint(image[here] * (1 - _OPACITY) + np.array(colour) * _OPACITY).astype(np.uint8)
        image[ring] = RING_RGB
        yield name, image


def _around(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels outside of a shape that touch it, corners included."""
    padded = np.pad(inside, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    grown: NDArray[np.bool_] = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown & ~inside
