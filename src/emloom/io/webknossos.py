"""webKnossos datasets: a folder of layers, each in several magnifications, described by one JSON file::

    dataset/datasource-properties.json      scale, and for every layer its box, type and magnifications
    dataset/color/1/                        magnification 1: a wkw folder or a zarr array
    dataset/color/2-2-1/                    two voxels along x and y are one, x-y-z

``dataset/color`` opens the finest magnification, ``dataset/color/2-2-1`` another one. A volume is the layer's box
in that magnification (outwards to whole voxels, see `datasource`), and its offset is the place of that box, so all
magnifications and layers of a dataset lie on each other. A wkw folder outside of any dataset opens, too: its box
is that of the cube files it has, and its voxel size is missing.

Zarr layers are mostly stored as ``[c]xyz``, from the origin of the world. Their axes are what `axisOrder`, the
array or OME-NGFF says; where nobody says it webKnossos itself reads ``[c]xyz``, and so do we.

New datasets are written as wkw, to folders named ``*.wkw`` (`out.wkw/color`, `out.wkw/segmentation/1`). What the
JSON file cannot say (kind, neighborhood, the exact grid) stands in an `emloom` attribute of the magnification,
which other software skips. One process at a time may add layers to a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Grid, Vec
from emloom.io import store
from emloom.io.datasource import (
    PROPERTIES,
    Datasource,
    Layer,
    Mag,
    fits_class,
    mag_factor,
    read,
)
from emloom.io.metadata import (
    ArrayFacts,
    Found,
    Statement,
    axis_letters,
    found,
    problem_tuple,
    read_own,
)
from emloom.io.nodes import Node, image_around, node_at
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Array, VolumeInfo, check_box, check_write
from emloom.io.wkw import HEADER, LIMIT_VOX, WkwVolume, box_of_cubes, has_cubes, read_header

_ZARR = ("zarr", "zarr3")
#: Formats of layers that are opened by themselves, not as part of the dataset.
_OTHERS = ("n5", "neuroglancerPrecomputed")


@dataclass(frozen=True)
class BoxVolume:
    """The box of a layer inside its array, which starts at the origin of the world.

    Attributes:
        info: what the volume says about itself.
        stored: the whole array.
        start: (z, y, x) of the volume's first voxel in the array.
    """

    info: VolumeInfo
    stored: StoreVolume
    start: Vec

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order."""
        check_box(self.info, box)
        return self.stored.read(box.shift(self.start))

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`."""
        check_write(self.info, box, array)
        self.stored.write(box.shift(self.start), array)


@dataclass(frozen=True)
class _Stored:
    """The values of one magnification: a box of an array, described in z, y, x."""

    box: Box
    dtype: np.dtype[Any]
    channels: int
    chunks: Vec | None
    said: Statement = field(default_factory=Statement)
    notes: tuple[str, ...] = ()
    zarr: _Zarr | None = None


@dataclass(frozen=True)
class _Zarr:
    """A zarr array: its folder, TensorStore's driver, the stored axes of z, y, x, and its shape (z, y, x)."""

    array: Path
    driver: str
    axes: Vec
    shape: Vec


def marks(folder: Path) -> bool:
    """Whether a folder is a wkw folder or a dataset, or lies in a dataset as a layer or magnification of it."""
    if (folder / HEADER).is_file():
        return True
    root = dataset_around(folder)
    if root is None or root == folder:
        return root is not None
    name = folder.relative_to(root).parts[0]
    return not any(layer.name == name and layer.data_format in _OTHERS for layer in read(root).layers)


def dataset_around(folder: Path) -> Path | None:
    """Return the dataset that a folder is, or lies in as a layer or magnification; None where there is none."""
    near = [folder, *folder.parents][:3]
    return next((f for f in near if (f / PROPERTIES).is_file()), None)


def find(container: Path, inner: str) -> list[Found]:
    """Return every layer of a dataset, or one layer, or one magnification of it.

    A layer counts once, as its finest magnification, and names the others as its levels; those that do not open
    are listed by themselves, with what is wrong.

    Raises:
        InputError: no dataset and no wkw folder there, no such layer or magnification, or unreadable metadata.
    """
    if (container / PROPERTIES).is_file():
        source = read(container)
        return [hit for name, layer, mag in _chosen(source, inner) for hit in _hits(source, name, layer, mag)]
    if not (container / HEADER).is_file():
        raise InputError(f"{container} is no webKnossos dataset: it has no {PROPERTIES}, nor is it a wkw folder")
    if inner:
        raise InputError(f"{container} is a wkw folder and holds no {inner!r}: open {container}")
    return [_found_bare(container)]


def _hits(source: Datasource, name: str, layer: Layer, mag: Mag | None) -> list[Found]:
    """Return what an inner path names; a layer's finest magnification comes with the others as its levels."""
    hit = _found(f"{source.root}/{name}", source, layer, mag)
    if mag is None or mag != layer.mags[0]:
        return [hit]
    coarser = [_found(f"{source.root}/{layer.name}/{m.name}", source, layer, m) for m in layer.mags[1:]]
    levels = tuple(h.path for h in coarser if not h.problems)
    return [replace(hit, levels=levels), *(h for h in coarser if h.problems)]


def _chosen(source: Datasource, inner: str) -> list[tuple[str, Layer, Mag | None]]:
    """Return (inner name, layer, magnification) of what an inner path names; the finest of every layer for ""."""
    if not inner:
        return [(f"{x.name}/{x.mags[0].name}" if x.mags else x.name, x, (*x.mags, None)[0]) for x in source.layers]
    name, _, rest = inner.partition("/")
    layer = next((x for x in source.layers if x.name == name), None)
    if layer is None:
        names = [x.name for x in source.layers]
        listed = f" (it has: {', '.join(names)})" if names else ""
        raise InputError(f"{source.root} has no layer {name!r}{did_you_mean(name, names)}{listed}")
    if not rest:
        return [(name, layer, layer.mags[0] if layer.mags else None)]
    factor = mag_factor(rest)
    for mag in layer.mags:
        if mag.factor == factor or mag.folder == source.root / inner:
            return [(f"{name}/{mag.name}", layer, mag)]
    names = [m.name for m in layer.mags]
    hint = f"{did_you_mean(rest, names)} (it has: {', '.join(names)})"
    raise InputError(f"{source.root}/{name} has no magnification {rest!r}{hint}")


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> WkwVolume | BoxVolume:
    """Return the volume of a magnification that `find` found."""
    path = Path(hit.path)
    root = dataset_around(path)
    if root is None:
        header = read_header(path)
        box = box_of_cubes(path, header)
        return WkwVolume(info, path, (0, 0, 0) if box is None else box.start, header, writable)
    source = read(root)
    _, layer, mag = _chosen(source, path.relative_to(root).as_posix())[0]
    if mag is None or mag.folder is None:
        raise InputError(f"{hit.path} is no longer there: somebody changed {root / PROPERTIES}")
    stored = _stored(layer, mag, mag.folder)
    if stored.zarr is None:
        return WkwVolume(info, mag.folder, stored.box.start, read_header(mag.folder), writable)
    zarr = stored.zarr
    whole = VolumeInfo(zarr.shape, info.dtype, Grid((1, 1, 1)), info.channels, stored.chunks, source=info.source)
    axes = zarr.axes if info.channels is None else (0, *zarr.axes)
    return BoxVolume(info, StoreVolume(whole, zarr.array, zarr.driver, axes, writable), stored.box.start)


def _found_bare(folder: Path) -> Found:
    header = read_header(folder)
    box = box_of_cubes(folder, header)
    problem = "has no cube file, and no dataset says how large it is" if box is None else None
    inside = Box.whole((0, 0, 0)) if box is None else box
    notes = [
        f"no {PROPERTIES} around it: shape and place are those of its cube files, and its first voxel is "
        f"{inside.start} (z, y, x) in the folder's own coordinates"
    ]
    channels = (header.channels,) if header.channels > 1 else ()
    facts = ArrayFacts((*channels, *inside.shape), header.dtype, (*channels, *header.cube))
    return found(str(folder), "wkw", facts, Statement(problems=problem_tuple(problem)), notes)


def _found(path: str, source: Datasource, layer: Layer, mag: Mag | None) -> Found:
    problems = (*source.problems, *layer.problems, *(mag.problems if mag else ()))
    form = layer.data_format if layer.data_format == "wkw" else f"webknossos-{layer.data_format}"
    if mag is None or mag.folder is None or mag.problems:
        return _closed(path, form, layer, mag, problems)
    try:
        stored = _stored(layer, mag, mag.folder)
    except InputError as problem:
        return _closed(path, form, layer, mag, (*problems, str(problem)))
    own = read_own(mag.own)
    said = own.agree(_placed(source, mag, stored.box), "the 'emloom' attribute", PROPERTIES)
    said = said.agree(stored.said, PROPERTIES, "the array")
    if mag.own is None:
        said = said.agree(_category(layer, stored), "", "")
    problems = (*problems, *said.problems, *_contradictions(layer, stored))
    channels = (stored.channels,) if stored.channels > 1 or own.axes == "czyx" else ()
    chunks = None if stored.chunks is None else (*channels, *stored.chunks)
    facts = ArrayFacts((*channels, *stored.box.shape), stored.dtype, chunks)
    return found(path, form, facts, replace(said, problems=problems), stored.notes)


def _closed(path: str, form: str, layer: Layer, mag: Mag | None, problems: tuple[str, ...]) -> Found:
    """Return what is known of a magnification whose values are out of reach."""
    shape = (0, 0, 0) if layer.box is None or mag is None else layer.box.coarsen(mag.factor).shape
    return Found(path, form, "???", shape, np.dtype(object), problems=problems)


def _placed(source: Datasource, mag: Mag, box: Box) -> Statement:
    if source.scale_nm is None:
        return Statement()
    sz, sy, sx = (s * f for s, f in zip(source.scale_nm, mag.factor, strict=True))
    z, y, x = box.start
    return Statement(voxel_size_nm=(sz, sy, sx), offset_nm=(z * sz, y * sy, x * sx))


def _category(layer: Layer, stored: _Stored) -> Statement:
    """Return the kind a layer's category says: grey images are raw, segmentations are labels, else silence."""
    if layer.category == "segmentation" and stored.channels == 1:
        return Statement(kind="labels")
    grey = stored.channels == 1 and stored.dtype in (np.dtype("uint8"), np.dtype("uint16"))
    return Statement(kind="raw") if layer.category == "color" and grey else Statement()


def _contradictions(layer: Layer, stored: _Stored) -> list[str]:
    problems = []
    if not fits_class(layer.element_class, stored.dtype, stored.channels):
        problems.append(
            f"{PROPERTIES} says elementClass {layer.element_class}, the array holds {stored.channels} x "
            f"{stored.dtype}: correct one of them"
        )
    if layer.channels not in (None, stored.channels):
        problems.append(
            f"{PROPERTIES} says numChannels {layer.channels}, the array has {stored.channels}: correct one of them"
        )
    return problems


def _stored(layer: Layer, mag: Mag, folder: Path) -> _Stored:
    """Return what the values of a magnification are.

    Raises:
        InputError: they cannot be read, or contradict the layer's box.
    """
    box = None if layer.box is None else layer.box.coarsen(mag.factor)
    if layer.data_format == "wkw":
        return _stored_wkw(folder, box)
    if layer.data_format in _ZARR:
        return _stored_zarr(folder, box, mag)
    rule = f"open {folder} itself" if layer.data_format in _OTHERS else "convert it with the tool that wrote it"
    raise InputError(f"its dataFormat is {layer.data_format!r}, which is not read as part of a dataset: {rule}")


def _stored_wkw(folder: Path, box: Box | None) -> _Stored:
    header = read_header(folder)
    notes = []
    if box is None:
        box = box_of_cubes(folder, header)
        notes.append(f"{PROPERTIES} has no boundingBox: shape and place are those of its cube files")
        if box is None:
            raise InputError("has neither a boundingBox nor a cube file: add the boundingBox")
    elif not has_cubes(folder):
        notes.append("none of its cube files is here: it reads as zeros")
    if max(box.stop) > LIMIT_VOX:
        raise InputError(f"its boundingBox {box} ends beyond voxel {LIMIT_VOX}, where wkw ends: correct it")
    return _Stored(box, header.dtype, header.channels, header.cube, notes=tuple(notes))


def _stored_zarr(folder: Path, box: Box | None, mag: Mag) -> _Stored:
    node = node_at(folder)
    hit = None if node is None else next((h for h in store.find(folder, "") if Path(h.path) == folder), None)
    if node is None or hit is None or hit.squeezed not in ((), (0,)):
        raise InputError(f"{folder} holds no zarr array of 3 or 4 axes: copy it again")
    full = (1,) * len(hit.squeezed) + hit.shape
    axes = _axes(node, mag, len(full))
    spatial, lead = axes[-3:], len(full) - 3
    order = (spatial.index("z"), spatial.index("y"), spatial.index("x"))
    z, y, x = (lead + i for i in order)
    shape, chunks = full[-3:], hit.chunks
    extent = Box.whole(tuple(shape[i] for i in order))
    box = extent if box is None else box
    if not extent.contains(box):
        raise InputError(f"its boundingBox is {box}, its array only {extent} (z, y, x): correct one of them")
    array = folder / node.levels[0] if node.levels else folder
    return _Stored(
        box,
        hit.dtype,
        full[0] if len(full) == 4 else 1,
        None if chunks is None else (chunks[order[0]], chunks[order[1]], chunks[order[2]]),
        Statement(voxel_size_nm=hit.voxel_size_nm),
        zarr=_Zarr(array, "zarr3" if node.zarr_format == 3 else "zarr", (z, y, x), extent.shape),
    )


def _axes(node: Node, mag: Mag, rank: int) -> str:
    """Return the letters of a zarr array's axes.

    Raises:
        InputError: two statements about them disagree, or they are not those of a volume, channels first.
    """
    said = Statement(axes=_ordered(mag.axis_order))
    said = said.agree(Statement(axes=axis_letters(node.metadata.get("dimension_names"))), "axisOrder", "the array")
    image, _ = image_around(node)
    if image is not None and image.image is not None:
        names = [axis.get("name") for axis in image.image.get("axes", []) if isinstance(axis, Mapping)]
        said = said.agree(Statement(axes=axis_letters(names)), "the array", "OME-NGFF")
    if said.problems:
        raise InputError("; ".join(said.problems))
    axes = said.axes or "cxyz"[-rank:]
    if len(axes) != rank or sorted(axes[-3:]) != ["x", "y", "z"] or axes[:-3] not in ("", "c"):
        raise InputError(f"has axes {','.join(axes)} and {rank} dimensions: a volume has x, y, z, after c if any")
    return axes


def _ordered(axis_order: Mapping[str, Any] | None) -> str | None:
    if not isinstance(axis_order, Mapping):
        return None
    return "".join(sorted(axis_order, key=lambda letter: str(axis_order[letter])))
