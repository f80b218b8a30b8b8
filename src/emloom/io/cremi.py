"""The complete CREMI file (https://cremi.org/data, file format 0.2), on top of plain HDF5.

::

    /                                          file_format = "0.2"
    volumes/raw                                uint8    [Z, Y, X]     resolution, offset (z, y, x; nm)
    volumes/labels/neuron_ids, clefts          uint64   [Z, Y, X]     resolution, offset: padded raw starts earlier
    annotations                                                       offset (z, y, x; nm)
    annotations/ids, types, locations          uint64 [n], text [n], float64 [n, 3] z, y, x nm from that offset
    annotations/presynaptic_site/partners      uint64 [m, 2]          (id of the pre site, id of the post site)
    annotations/comments/target_ids, comments  uint64 [k], text [k]

Labels have three special values. Background is not 0, and none of them fits into an id of ours (below 2^63)::

    stored                           clefts                    neuron_ids
                                     label   valid             label   valid
    0xffffffffffffffff TRANSPARENT   0       1  background      0       0  unlabelled
    0xfffffffffffffffe INVALID       0       0  ignore          0       0  ignore
    0xfffffffffffffffd OUTSIDE       0       0  outside         0       0  outside
    0                                error beside TRANSPARENT   0       1  as everybody uses it
    any other id                     id      1                  id      1

A uint64 label dataset under one of these two names therefore opens with background 0, and what is not annotated as
a second volume, the mask ``.../clefts/valid``, which exists in the path only. Both can be written: labels first,
then the mask, and the stored values are again CREMI's (INVALID in clefts, TRANSPARENT in neuron_ids, where CREMI
ignores just that). Labels of any other type or name are plain labels with background 0.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3, as_nm
from emloom.io import hdf5
from emloom.io.annotations import Annotations
from emloom.io.files import require_space, staged
from emloom.io.metadata import Found
from emloom.io.volume import Array, VolumeInfo, check_write

TRANSPARENT = 0xFFFFFFFFFFFFFFFF
INVALID = 0xFFFFFFFFFFFFFFFE
OUTSIDE = 0xFFFFFFFFFFFFFFFD
CLEFTS = "volumes/labels/clefts"
NEURON_IDS = "volumes/labels/neuron_ids"
VALID = "valid"
_NAMES = ("volumes/raw", CLEFTS, NEURON_IDS)
_FILE_FORMAT = "0.2"
_SPACE = 2**26


@dataclass(frozen=True)
class CremiLabels:
    """Clefts or neuron ids with background 0; see the module.

    Attributes:
        stored: the dataset as it is.
    """

    stored: hdf5.Hdf5Volume

    @property
    def info(self) -> VolumeInfo:
        """What the volume says about itself."""
        return self.stored.info

    def read(self, box: Box) -> Array:
        """Return the labels of `box`; what is not annotated is 0.

        Raises:
            InputError: clefts with both kinds of background: CREMI's 0 is a cleft, and would be lost.
        """
        values = self.stored.read(box)
        special = values >= OUTSIDE
        if not special.any():
            return values
        if self.stored.dataset == CLEFTS and not values.all() and (values == TRANSPARENT).any():
            raise InputError(
                f"{self.info.source} holds both 0 and 0xffffffffffffffff in {box}: CREMI's background is the "
                "latter and 0 is a cleft; store one of them where the other stands"
            )
        values[special] = 0
        return values

    def write(self, box: Box, array: Array) -> None:
        """Replace the labels of `box`; in clefts 0 is stored as CREMI's background. Everything is valid then."""
        check_write(self.info, box, array)
        if array.size and int(array.max()) >= OUTSIDE:
            raise InputError(
                f"{self.info.source}: the label {int(array.max())} is a special value of CREMI: relabel it first "
                f"(background is 0 here; what is not annotated is stated by writing {self.info.source}/{VALID})"
            )
        if self.stored.dataset == CLEFTS:
            array = np.where(array == 0, np.uint64(TRANSPARENT), array)
        self.stored.write(box, array)


@dataclass(frozen=True)
class CremiMask:
    """Which voxels of CREMI labels are annotated: 1, else 0; see the module.

    Attributes:
        stored: the dataset of labels as it is.
        info: what the mask says about itself.
    """

    stored: hdf5.Hdf5Volume
    info: VolumeInfo

    def read(self, box: Box) -> Array:
        """Return 1 where `box` is annotated, 0 where it is unlabelled, to be ignored or outside."""
        return (~self._ignored(self.stored.read(box))).view(np.uint8)

    def write(self, box: Box, array: Array) -> None:
        """State what is annotated (not 0) and what is not.

        Raises:
            InputError: a voxel that is not annotated holds an id: CREMI can store one or the other.
        """
        check_write(self.info, box, array)
        values = self.stored.read(box)
        ignored, ignore = self._ignored(values), array == 0
        background, unknown = (TRANSPARENT, INVALID) if self._clefts else (0, TRANSPARENT)
        lost = ignore & ~ignored & (values != background)
        if lost.any():
            raise InputError(
                f"{self.info.source}: {np.count_nonzero(lost)} voxels of {box} that are not valid hold ids, and "
                "CREMI stores one or the other: set their labels to 0 first"
            )
        values[ignore & ~ignored] = unknown
        values[ignored & ~ignore] = background
        self.stored.write(box, values)

    @property
    def _clefts(self) -> bool:
        return self.stored.dataset == CLEFTS

    def _ignored(self, values: Array) -> NDArray[np.bool_]:
        ignored: NDArray[np.bool_] = values >= OUTSIDE
        return ignored & (values != TRANSPARENT) if self._clefts else ignored


def find(container: Path, inner: str) -> list[Found]:
    """Return what `hdf5.find` returns; the mask of CREMI labels where it is named.

    Raises:
        InputError: nothing there, the file is damaged, or it has no CREMI labels to name a mask of.
    """
    labels = _labels_of(inner)
    if labels is None:
        return [_noted(container, hit) for hit in hdf5.find(container, inner)]
    (hit,) = hdf5.find(container, labels)
    if not _is_cremi(container, hit):
        raise InputError(
            f"{hit.path} has no mask: only uint64 labels have CREMI's special values, and it stores {hit.dtype}"
        )
    return [_mask_of(hit)]


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> hdf5.Hdf5Volume | CremiLabels | CremiMask:
    """Return the volume of a dataset, or mask, that `find` found."""
    labels = hit.path.removesuffix(f"/{VALID}")
    if labels != hit.path and _labels_of("/".join(Path(hit.path).parts[-4:])):
        stored = hdf5.open_found(replace(hit, path=labels), info, writable)
        actual = info.with_(dtype=np.dtype(np.uint64), kind="labels", source=labels)
        return CremiMask(replace(stored, info=actual), info)
    stored = hdf5.open_found(hit, info, writable)
    return CremiLabels(stored) if _is_cremi(stored.file, hit) else stored


def create(
    path: Path, inner: str, info: VolumeInfo, *, overwrite: bool = False
) -> hdf5.Hdf5Volume | CremiLabels | CremiMask:
    """Create an empty (all zero) dataset; see `hdf5.create`. A mask ``.../valid`` needs its labels to exist.

    Raises:
        InputError: what `hdf5.create` raises, or a mask that does not fit its labels.
    """
    if _labels_of(inner) is not None:
        return _created_mask(path, inner, info)
    labels = inner in (CLEFTS, NEURON_IDS) and info.kind == "labels" and info.dtype == np.uint64
    fill = TRANSPARENT if labels and inner == CLEFTS else 0
    volume = hdf5.create(path, inner, info, overwrite=overwrite, fill=fill)
    if inner in _NAMES:
        with hdf5.opened(path, "r+") as h5:
            h5.attrs.setdefault("file_format", _FILE_FORMAT)
    return CremiLabels(volume) if labels else volume


def _created_mask(path: Path, inner: str, info: VolumeInfo) -> CremiMask:
    if not path.is_file():
        raise InputError(f"{path}/{inner}: a mask is stored in its labels: write {_labels_of(inner)} first")
    (hit,) = find(path, inner)
    wanted = (hit.shape, hit.dtype, hit.voxel_size_nm, hit.offset_nm or (0.0, 0.0, 0.0))
    given = (info.array_shape, info.dtype, info.grid.voxel_size_nm, info.grid.offset_nm)
    if wanted != given or info.kind not in (None, "mask"):
        raise InputError(
            f"{path}/{inner}: a mask of {given[:2]} at {given[2:]} nm does not fit labels of {wanted[0]} at "
            f"{wanted[2:]} nm: a mask is uint8, of the shape and place of its labels"
        )
    actual = info.with_(chunks=hit.chunks, kind="mask", source=f"{path}/{inner}")
    mask = open_found(hit, actual, True)
    assert isinstance(mask, CremiMask)
    return mask


def _labels_of(inner: str) -> str | None:
    """Return the name of the labels whose mask an inner path names, None where it names something else."""
    name = PurePosixPath(inner)
    return str(name.parent) if name.name == VALID and str(name.parent) in (CLEFTS, NEURON_IDS) else None


def _is_cremi(container: Path, hit: Found) -> bool:
    name = hit.path.removeprefix(f"{container}/")
    return name in (CLEFTS, NEURON_IDS) and hit.dtype == np.uint64 and hit.kind == "labels"


def _noted(container: Path, hit: Found) -> Found:
    if not _is_cremi(container, hit):
        return hit
    note = f"CREMI's special values read as 0; which voxels are annotated is the mask {hit.path}/{VALID}"
    return replace(hit, notes=(*hit.notes, note))


def _mask_of(hit: Found) -> Found:
    missing = tuple(what for what in hit.missing if what != "kind")
    return replace(hit, path=f"{hit.path}/{VALID}", dtype=np.dtype(np.uint8), kind="mask", missing=missing)


# ---- annotations ----------------------------------------------------------------------------------------------


def read_annotations(path: str | Path) -> Annotations:
    """Return the synaptic sites, partners and comments of a CREMI file, at absolute world positions.

    Raises:
        InputError: the file is missing or damaged, has no annotations, or they contradict each other.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path} does not exist: it should be a CREMI file (HDF5)")
    with hdf5.opened(file, "r") as h5:
        group = h5.get("annotations")
        if not isinstance(group, h5py.Group):
            raise InputError(f"{path} holds no annotations: a CREMI file keeps them in the group 'annotations'")
        offset = as_nm(group.attrs.get("offset", (0.0, 0.0, 0.0)), f"{path}: the offset of its annotations")
        ids = _numbers(group, "ids", np.uint64, ())
        relative = _numbers(group, "locations", np.float64, (3,))
        return Annotations(
            ids=ids,
            types=_texts(group, "types"),
            locations_nm=relative + np.array(offset),
            partners=_numbers(group, "presynaptic_site/partners", np.uint64, (2,)),
            comment_ids=_numbers(group, "comments/target_ids", np.uint64, ()),
            comments=_texts(group, "comments/comments"),
            source=str(path),
        )


def write_annotations(
    path: str | Path, annotations: Annotations, *, offset_nm: Vec3 = (0.0, 0.0, 0.0), overwrite: bool = False
) -> None:
    """Put annotations into a CREMI file, new or existing, whole or not at all (the file is replaced by a copy).

    Args:
        path: the HDF5 file.
        annotations: sites at absolute world positions.
        offset_nm: what the stored locations count from (z, y, x); 0 keeps every position to the bit.
        overwrite: replace annotations that are there.

    Raises:
        InputError: the file has annotations already, is damaged, or the disk refuses.
    """
    file, offset = Path(path), as_nm(offset_nm, "offset")
    exists = file.is_file()
    with staged(file, overwrite=exists) as temporary:
        if exists:
            shutil.copyfile(file, temporary)
            require_space(temporary, _SPACE)
        with hdf5.opened(temporary, "r+" if exists else "w") as h5:
            if "annotations" in h5 and not overwrite:
                raise InputError(f"{path} has annotations already: ask to overwrite them, or choose another file")
            _put(h5, annotations, offset)


def _put(h5: h5py.File, annotations: Annotations, offset: Vec3) -> None:
    if "annotations" in h5:
        del h5["annotations"]
    h5.attrs.setdefault("file_format", _FILE_FORMAT)
    group = h5.create_group("annotations")
    group.attrs["offset"] = np.array(offset)
    group["ids"] = annotations.ids
    group["locations"] = annotations.locations_nm - np.array(offset)
    group.create_dataset("types", data=list(annotations.types), dtype=h5py.string_dtype())
    group["presynaptic_site/partners"] = annotations.partners
    group["comments/target_ids"] = annotations.comment_ids
    group.create_dataset("comments/comments", data=list(annotations.comments), dtype=h5py.string_dtype())


def _numbers(group: h5py.Group, name: str, dtype: Any, columns: tuple[int, ...]) -> NDArray[Any]:
    """Return a table of numbers, empty where there is none."""
    if name not in group:
        return np.zeros((0, *columns), dtype)
    values = np.asarray(group[name][()])
    if values.size == 0:
        return np.zeros((0, *columns), dtype)
    if values.shape[1:] != columns or values.dtype.kind not in "iuf":
        raise InputError(
            f"{group.file.filename}: annotations/{name} is {values.dtype} of shape {values.shape}: it should be "
            f"numbers of shape {('n', *columns)}"
        )
    if dtype is np.uint64 and (values.dtype.kind == "f" or (values < 0).any()):
        raise InputError(f"{group.file.filename}: annotations/{name} holds {values.dtype} values that are no ids")
    return values.astype(dtype)


def _texts(group: h5py.Group, name: str) -> tuple[str, ...]:
    if name not in group or group[name].size == 0:
        return ()
    if h5py.check_string_dtype(group[name].dtype) is None:
        raise InputError(f"{group.file.filename}: annotations/{name} is {group[name].dtype}: it should be text")
    return tuple(group[name].asstr()[()].tolist())
