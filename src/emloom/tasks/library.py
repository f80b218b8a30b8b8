"""Opening a library of real artifacts: read into memory, checked, in the network's grey values.

A library that does not fit the data is an error when the job is validated, not in a worker hours later.
"""

from __future__ import annotations

import numpy as np

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.io.checks import require_finite
from emloom.io.open import open_volume
from emloom.io.volume import Array, Volume
from emloom.nn.augment import LibrarySpec
from emloom.nn.library import F32, Library
from emloom.nn.preprocess import Preprocessing

_LARGEST_BYTES = 1 << 30
_TOLERANCE = 0.01  # of a voxel size


def open_library(spec: LibrarySpec, preprocessing: Preprocessing, voxel_size_nm: Vec3) -> Library:
    """Open a library of artifacts.

    Args:
        spec: where images and masks lie.
        preprocessing: that of the model: the artifacts' grey values are those of the data.
        voxel_size_nm: that of the data; its y and x must be the library's.

    Raises:
        InputError: a file is missing or damaged; images and masks differ in shape or voxel size; the voxel size is
            not that of the data; a mask is empty, negative or not finite; grey values leave the range of the
            preprocessing; or the library is larger than 1 GiB in memory.
    """
    images = open_volume(spec.images, voxel_size_nm=spec.voxel_size_nm, kind="raw")
    masks = open_volume(spec.masks, voxel_size_nm=spec.voxel_size_nm)
    _check_shapes(images, masks)
    for volume in (images, masks):
        _check_voxel_size(volume, voxel_size_nm)
    return Library(_grey(images, _read(images), preprocessing), _covers(masks, _read(masks)))


def _check_shapes(images: Volume, masks: Volume) -> None:
    for volume in (images, masks):
        if volume.info.channels is not None:
            raise InputError(f"{volume.info.source} has {volume.info.channels} channels: store artifacts as zyx")
    if images.info.shape != masks.info.shape:
        raise InputError(
            f"{masks.info.source} has shape {masks.info.shape} but {images.info.source} has {images.info.shape} "
            "(z, y, x): an artifact library needs one mask per image, of its size"
        )
    if 0 in images.info.shape:
        raise InputError(f"{images.info.source} is empty (shape {images.info.shape}): name a library of artifacts")
    n_bytes = 2 * 4 * int(np.prod(images.info.shape, dtype=np.int64))
    if n_bytes > _LARGEST_BYTES:
        raise InputError(
            f"the artifacts of {images.info.source}, {images.info.shape} voxels, would take {n_bytes / 2**30:.1f} "
            f"GiB in every loader process, more than {_LARGEST_BYTES / 2**30:g}: crop them, or keep fewer"
        )


def _check_voxel_size(volume: Volume, voxel_size_nm: Vec3) -> None:
    own = volume.info.grid.voxel_size_nm
    if any(abs(a - b) > _TOLERANCE * b for a, b in zip(own[1:], voxel_size_nm[1:], strict=True)):
        raise InputError(
            f"the artifacts of {volume.info.source} have voxel size {own} nm (z, y, x) and the data have "
            f"{tuple(voxel_size_nm)} nm: within sections they must be equal to 1 %; resample the artifacts"
        )


def _read(volume: Volume) -> Array:
    array = volume.read(volume.info.box)
    require_finite(array, volume.info.box, volume.info.source)
    return array


def _grey(images: Volume, array: Array, preprocessing: Preprocessing) -> F32:
    low, high = float(array.min()), float(array.max())
    first, last = preprocessing.low, preprocessing.high
    outside = low < first or high > last
    # Grey values from 0 to 1 beside data from 0 to 255 would all be black.
    elsewhere = array.dtype.kind == "f" and high <= 1.0 and last - first > 10.0
    if outside or elsewhere:
        raise InputError(
            f"the artifacts of {images.info.source} hold values from {low:g} to {high:g}, and the job's "
            f"preprocessing expects {first:g} to {last:g}: store artifacts in the grey values of the data"
        )
    return preprocessing(array)


def _covers(masks: Volume, array: Array) -> F32:
    source = masks.info.source
    cover = array.astype(np.float32)
    if cover.min() < 0:
        raise InputError(f"{source} holds {cover.min():g}: a mask is 0 where nothing of the artifact is seen")
    empty = np.flatnonzero(~cover.any(axis=(1, 2)))
    if empty.size:
        listed = ", ".join(str(z) for z in empty[:6]) + (", ..." if empty.size > 6 else "")
        raise InputError(
            f"{empty.size} of {len(cover)} masks of {source} are 0 everywhere (z {listed}): such an artifact is "
            "never seen; remove it from images and masks, or paint its mask"
        )
    scaled: F32 = cover / cover.max()
    return scaled
