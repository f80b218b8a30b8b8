"""Stacks of sections: one PNG, JPEG or TIFF file per section (read only), or one TIFF file (`emloom.io.tiff`).

Sections are ordered the way people number them (``s2`` before ``s10``); every section must have the size and
element type of the first. Colour images are refused: which channel is the microscope's is not ours to guess.

The section number is the one number that changes from name to name. Where it skips, a note says which are missing,
because a missing section shifts all that follow; where it stands twice, the stack does not open, because which of
the two is the section is not ours to guess::

    s01.png s02.png s04.png         note: section 3 is missing
    s1.png  s01.png s2.png          problem: section 1 stands twice

Images state no voxel size: their "dots per inch" are about paper.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io import tiff
from emloom.io.largeimages import opened_image
from emloom.io.metadata import ArrayFacts, Found, Statement, found
from emloom.io.tiff import TiffVolume, decoding
from emloom.io.volume import Array, VolumeInfo, check_box

_JPEG = (".jpg", ".jpeg")
IMAGES = (".png", *_JPEG, *tiff.SUFFIXES)
_LISTED = 10
_WAY_OUT = f"name a volume, or a folder or a pattern of {', '.join(IMAGES)} sections"


@dataclass(frozen=True)
class StackVolume:
    """Sections in one image file each, as a read-only volume.

    Attributes:
        info: what the volume says about itself.
        files: one file per section, in order.
    """

    info: VolumeInfo
    files: tuple[Path, ...]

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order; a damaged section is an `InputError`."""
        check_box(self.info, box)
        z, y, x = box.slices()
        out = np.empty(box.shape, self.info.dtype)
        for index, path in enumerate(self.files[z]):
            plane = _section(path)
            if plane.shape != self.info.shape[1:] or plane.dtype.newbyteorder("=") != self.info.dtype:
                raise InputError(f"{self.info.source}: section {z.start + index} changed while it was open")
            out[index] = plane[y, x]
        return out

    def write(self, box: Box, array: Array) -> None:
        """Raise `InputError`: sections are sources."""
        raise InputError(f"{self.info.source} is an image stack, which is read-only: write to .zarr or .h5")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that orders the numbers inside names as numbers: s2 < s10."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece)) if piece.isdecimal() else (1, piece.lower()) for piece in pieces if piece]


def find(container: Path, inner: str) -> list[Found]:
    """Return the stack in a TIFF file, a folder of sections, or a glob pattern.

    Raises:
        InputError: no images, mixed formats, colour, sections of several sizes or types, or a damaged file.
    """
    if inner:
        raise InputError(f"{container} is an image stack and holds nothing named {inner!r}")
    files = section_files(container)
    if _is_tiff(files):
        return [tiff.find_file(container, files[0])]
    return [_found_sections(container, files)]


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> StackVolume | TiffVolume:
    """Return the volume of a stack that `find` found."""
    files = section_files(Path(hit.path))
    if _is_tiff(files):
        return tiff.open_file(files[0], info, writable)
    if writable:
        raise InputError(f"{hit.path} is an image stack, which is read-only: convert it to .zarr or .h5 first")
    return StackVolume(info, tuple(files))


def create(path: Path, inner: str, info: VolumeInfo, *, overwrite: bool = False) -> TiffVolume:
    """Create an empty TIFF stack; see `tiff.create`. Sections in single files are only read."""
    if path.suffix.lower() not in tiff.SUFFIXES:
        raise InputError(f"{path}: this format is only read: write to .tif, .zarr or .h5")
    return tiff.create(path, inner, info, overwrite=overwrite)


def _is_tiff(files: Sequence[Path]) -> bool:
    return len(files) == 1 and files[0].suffix.lower() in tiff.SUFFIXES


def section_files(path: Path) -> list[Path]:
    """Return the image files of a stack in natural order: of a file itself, a folder, or a glob pattern."""
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGES and not f.name.startswith(".")]
    else:
        files = [Path(name) for name in glob(str(path)) if Path(name).is_file()]
    if not files:
        raise InputError(f"{path} holds no volume and no images{_others(path)}: {_WAY_OUT}")
    kinds = sorted({f.suffix.lower() for f in files})
    if len({"tiff" if k in tiff.SUFFIXES else "jpeg" if k in _JPEG else k for k in kinds}) > 1:
        raise InputError(
            f"{path} holds {' and '.join(kinds)} images: keep one format in a stack, or name a pattern"
        )
    return sorted(files, key=lambda f: natural_key(f.name))


def _others(folder: Path) -> str:
    """Return what a folder without images holds, to choose from."""
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    more = ", ..." if len(names) > _LISTED else ""
    return f" (it holds: {', '.join(names[:_LISTED])}{more})" if names else ""


def _section(path: Path) -> Array:
    with decoding(path):
        if path.suffix.lower() in tiff.SUFFIXES:
            return np.asarray(tifffile.imread(path))
        with opened_image(path) as image:
            return np.asarray(image.read())


def _shape_of(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and element type of one section without decoding its pixels."""
    with decoding(path):
        if path.suffix.lower() in tiff.SUFFIXES:
            with tiff.opened(path) as (_, series):
                return tuple(series.shape), np.dtype(series.dtype).newbyteorder("=")
        with opened_image(path) as image:
            properties = image.properties()
        return tuple(properties.shape), np.dtype(properties.dtype)


def _found_sections(container: Path, files: Sequence[Path]) -> Found:
    first_shape, first_dtype = _shape_of(files[0])
    if len(first_shape) != 2:
        raise InputError(
            f"{files[0]} has shape {first_shape}, not one grey section (y, x): convert colour images and "
            "multi-page files first"
        )
    for path in files[1:]:
        shape, dtype = _shape_of(path)
        if (shape, dtype) != (first_shape, first_dtype):
            raise InputError(
                f"{path} is {shape} {dtype}, but the first section, {files[0].name}, is {first_shape} "
                f"{first_dtype}: all sections of a stack have one size and type; crop, pad or convert them first"
            )
    facts = ArrayFacts((len(files), *first_shape), first_dtype)
    said, notes = _numbered(files)
    return found(str(container), "sections", facts, replace(said, axes="zyx"), notes)


def _numbered(files: Sequence[Path]) -> tuple[Statement, list[str]]:
    """Return what the section numbers amount to: numbers that stand twice are a problem, skipped ones a note."""
    fields = [re.findall(r"\d+", f.stem) for f in files]
    if len(files) < 2 or not any(fields):
        return Statement(), []
    unknown = "the names do not say which number is the section's: whether sections are missing is unknown"
    if len({len(f) for f in fields}) > 1:
        return Statement(), [unknown]
    columns = [[int(f[i]) for f in fields] for i in range(len(fields[0]))]
    moving = [column for column in columns if len(set(column)) > 1]
    if len(moving) > 1:
        return Statement(), [unknown]
    numbers = moving[0] if moving else columns[-1]
    repeated = [number for number, count in Counter(numbers).items() if count > 1]
    if repeated:
        names = ", ".join(f.name for f, n in zip(files, numbers, strict=True) if n == repeated[0])
        rule = "which of them is the section is unknown: remove one, or name a pattern of those that belong"
        return Statement(problems=(f"section number {repeated[0]} stands twice ({names}): {rule}",)), []
    return Statement(), _gaps(numbers)


def _gaps(numbers: Sequence[int]) -> list[str]:
    """Return a note where the section numbers skip: a missing section silently shifts all that follow."""
    if len(numbers) < 3:
        return []
    steps = [b - a for a, b in pairwise(numbers)]
    usual = min(steps)
    if usual < 1:
        return ["the section numbers do not rise in the order of the names: look whether the order is right"]
    jumps = [f"{a} -> {a + s}" for a, s in zip(numbers, steps, strict=False) if s != usual]
    if not jumps:
        return []
    missing = sorted(set(range(numbers[0], numbers[-1], usual)) - set(numbers))
    listed = ", ".join(map(str, missing[:_LISTED])) + (", ..." if len(missing) > _LISTED else "")
    return [
        f"section numbers jump ({', '.join(jumps[:5])}): {len(missing)} missing ({listed}); a missing section "
        "shifts all that follow"
    ]
