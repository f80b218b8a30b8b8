"""Painted images: one plane of labels in a PNG, TIFF or NumPy file, read for exactly what is painted.

A value is a label, so nothing is converted: of an image with a palette (GIMP, Fiji) the numbers of the colours
count, not the colours; channels must all say the same; JPEG is refused, because it changes values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from emloom.errors import InputError
from emloom.io import tiff
from emloom.io.tiff import decoding

SUFFIXES = (".png", *tiff.SUFFIXES, ".npy")


def read_label_image(path: str | Path) -> NDArray[Any]:
    """Return the labels of a painted image, integers ``[row, column]``.

    Raises:
        InputError: the file is missing, damaged, of another format, not one plane, in colours that differ, or its
            values are no whole numbers.
    """
    path = Path(path)
    _require_image(path)
    with decoding(path):
        image = _pixels(path)
    image = _one_plane(image, path)
    if image.dtype.kind == "b":
        return image.astype(np.uint8)
    if image.dtype.kind == "f" and np.isfinite(image).all() and (image == np.round(image)).all():
        raise InputError(f"{path} stores {image.dtype}: labels are whole numbers; save it as 8- or 16-bit")
    if image.dtype.kind not in "ui":
        raise InputError(f"{path} stores {image.dtype} with fractions: labels are whole numbers; export it again")
    if image.size and int(image.min()) < 0:
        raise InputError(f"{path} holds {int(image.min())}: labels are at least 0; add to them, or export again")
    return np.ascontiguousarray(image.astype(image.dtype.newbyteorder("="), copy=False))


def pixel_size_nm(path: str | Path) -> tuple[float, float] | None:
    """Return the size of a pixel (row, column) in nm that a TIFF states; None where the file is silent."""
    path = Path(path)
    if path.suffix.lower() not in tiff.SUFFIXES or not path.is_file():
        return None
    return tiff.pixel_size_nm(path)


def _require_image(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise InputError(f"{path}: JPEG changes values, so painted labels are lost in it: export PNG or TIFF")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no painted image: give {', '.join(SUFFIXES)}")


def _pixels(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if suffix in tiff.SUFFIXES:
        return np.asarray(tifffile.imread(path))
    with Image.open(path) as image:
        return np.asarray(image)  # mode P gives the numbers of the colours


def _one_plane(image: NDArray[Any], path: Path) -> NDArray[Any]:
    squeezed = (
        image.reshape(image.shape[-2:]) if image.ndim > 2 and image.size == np.prod(image.shape[-2:]) else image
    )
    if squeezed.ndim == 2:
        return squeezed
    if squeezed.ndim != 3 or squeezed.shape[2] not in (2, 3, 4):
        raise InputError(f"{path} has shape {image.shape}: a painted plane is one image (row, column)")
    grey = 1 if squeezed.shape[2] == 2 else 3
    differing = int((squeezed[:, :, :grey] != squeezed[:, :, :1]).any(axis=2).sum())
    if differing:
        raise InputError(
            f"{path} has {squeezed.shape[2]} channels that differ in {differing:,} pixels, so it holds colours: "
            "save it as greyscale or with a palette, whose numbers are the labels"
        )
    if grey < squeezed.shape[2] and (squeezed[:, :, grey] != squeezed.flat[grey]).any():
        raise InputError(f"{path} is partly transparent: whether that is painted is unknown; save without alpha")
    return squeezed[:, :, 0]
