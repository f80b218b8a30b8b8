"""Image stacks, read only: a multi-page TIFF, or one PNG or TIFF file per section.

Sections are ordered the way people number them (``s2`` before ``s10``); every section must have the size and
element type of the first. Colour images are refused: which channel is the microscope's is not ours to guess.

The only voxel size a stack can state is ImageJ's (resolution tags, spacing and unit of its TIFF header); TIFF's
own "dots per inch" are about paper and are not believed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import pairwise
from pathlib import Path
from threading import get_ident
from typing import Any

import imageio.v3 as imageio
import numpy as np
import tifffile

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.files import explained, way_out
from emloom.io.metadata import ArrayFacts, Found, Statement, found, nm_per
from emloom.io.volume import Array, VolumeInfo, check_box

_TIFF = (".tif", ".tiff")
IMAGES = (".png", *_TIFF)


@dataclass(frozen=True)
class StackVolume:
    """Sections in one or many image files as a read-only volume.

    Attributes:
        info: what the volume says about itself.
        files: one multi-page TIFF, or one file per section in order.
    """

    info: VolumeInfo
    files: tuple[Path, ...]

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order; a damaged section is an `InputError`."""
        check_box(self.info, box)
        z, y, x = box.slices()
        if len(self.files) == 1 and self.files[0].suffix.lower() in _TIFF:
            planes = _tiff_planes(self.files[0], range(z.start, z.stop))
        else:
            planes = [_section(path) for path in self.files[z]]
        out = np.empty(box.shape, self.info.dtype)
        for index, plane in enumerate(planes):
            if plane.shape != self.info.shape[1:] or plane.dtype.newbyteorder("=") != self.info.dtype:
                raise InputError(f"{self.info.source}: section {z.start + index} changed while it was open")
            out[index] = plane[y, x]
        return out

    def write(self, box: Box, array: Array) -> None:
        """Raise `InputError`: image stacks are sources."""
        raise InputError(f"{self.info.source} is an image stack, which is read-only: write to .zarr or .h5")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that orders the numbers inside names as numbers: s2 < s10."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece)) if piece.isdigit() else (1, piece.lower()) for piece in pieces if piece]


def find(container: Path, inner: str) -> list[Found]:
    """Return the stack in a TIFF file, a folder of sections, or a glob pattern.

    Raises:
        InputError: no images, mixed formats, colour, sections of several sizes or types, or a damaged file.
    """
    if inner:
        raise InputError(f"{container} is an image stack and holds nothing named {inner!r}")
    files = section_files(container)
    if len(files) == 1 and files[0].suffix.lower() in _TIFF:
        return [_found_tiff(container, files[0])]
    return [_found_sections(container, files)]


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> StackVolume:
    """Return the volume of a stack that `find` found."""
    if writable:
        raise InputError(f"{hit.path} is an image stack, which is read-only: convert it to .zarr or .h5 first")
    return StackVolume(info, tuple(section_files(Path(hit.path))))


def section_files(path: Path) -> list[Path]:
    """Return the image files of a stack in natural order: of a file itself, a folder, or a glob pattern."""
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGES and not f.name.startswith(".")]
    else:
        files = [Path(name) for name in glob(str(path)) if Path(name).is_file()]
    if not files:
        raise InputError(f"{path} holds no {', '.join(IMAGES)} images: name a folder or a pattern of sections")
    kinds = sorted({f.suffix.lower() for f in files})
    if len({"tiff" if k in _TIFF else k for k in kinds}) > 1:
        raise InputError(
            f"{path} holds {' and '.join(kinds)} images: keep one format in a stack, or name a pattern"
        )
    return sorted(files, key=lambda f: natural_key(f.name))


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn whatever an image decoder says about a damaged file into an `InputError`."""
    with explained(path, "read"):
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): copy it again")
        try:
            yield
        except InputError:
            raise
        # Decoders raise anything on damaged bytes: struct.error, zlib.error, SyntaxError, TiffFileError, ...
        except Exception as problem:
            if isinstance(problem, OSError | ValueError) and way_out(problem) is not None:
                raise
            text = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
            raise InputError(f"{path} is not a readable image ({text}): copy it again") from problem


class _BrokenChain(logging.Filter):
    """Collects what tifffile only logs: the chain of pages breaks off, and the rest passes for the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._thread = get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep, and hide, the complaints of this thread about a broken chain of pages."""
        text = record.getMessage()
        mine = record.thread == self._thread and record.levelno >= logging.ERROR and "TiffPages" in text
        if mine:
            self.messages.append(text)
        return not mine


@contextmanager
def _tiff(path: Path) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """Open a TIFF file and its first series; raises `InputError` where the file ends too early."""
    log, chain = logging.getLogger("tifffile"), _BrokenChain()
    with _decoding(path):
        log.addFilter(chain)
        try:
            with tifffile.TiffFile(path) as tif:
                series = tif.series[0]
                if chain.messages or _ends_early(path, series):
                    raise InputError(f"{path} is truncated: it ends before its last section; copy it again")
                yield tif, series
        finally:
            log.removeFilter(chain)


def _found_tiff(container: Path, path: Path) -> Found:
    with _tiff(path) as (tif, series):
        shape, dtype, axes = tuple(series.shape), np.dtype(series.dtype), str(series.axes)
        said = _imagej(tif)
        several = len(tif.series)
    if "S" in axes:
        raise InputError(f"{path} is a colour image (axes {axes}): convert it to grey values first")
    if several > 1:
        raise InputError(f"{path} holds {several} image series of different shape: save one stack per file")
    if axes.endswith("YX") and len(axes) == 2:
        shape, axes = (1, *shape), "ZYX"
    # Pages without a stated meaning (I, Q) are sections: a stack is all that a plain multi-page TIFF can be.
    letters = axes.replace("I", "Z").replace("Q", "Z").lower()
    facts = ArrayFacts(shape, dtype, droppable="tc")
    said = Statement(axes=letters, voxel_size_nm=said.voxel_size_nm, why_missing=said.why_missing)
    return found(str(container), "tiff", facts, said)


def _ends_early(path: Path, series: tifffile.TiffPageSeries) -> bool:
    """Whether the voxels of the last page lie beyond the end of the file."""
    page = series.pages[-1] or series.keyframe
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if series.dataoffset is not None:
        ends.append(series.dataoffset + series.nbytes)
    return max(ends, default=0) > path.stat().st_size


def _imagej(tif: tifffile.TiffFile) -> Statement:
    """Return the voxel size that ImageJ stored: pixels per unit in the tags, spacing and unit in its header."""
    header = tif.imagej_metadata
    if not header:
        return Statement()
    factor = nm_per(header.get("unit"))
    if factor is None:
        return Statement(why_missing=f"ImageJ unit {header.get('unit')!r} is missing or unknown")
    tags = tif.pages.first.tags
    per_unit = [_ratio(tags[name].value) if name in tags else 0.0 for name in ("YResolution", "XResolution")]
    spacing = header.get("spacing")
    # One pixel per unit along both axes is what uncalibrated images carry.
    if spacing is None or float(spacing) <= 0 or min(per_unit) <= 0 or per_unit == [1.0, 1.0]:
        return Statement(why_missing="ImageJ states no spacing or resolution")
    size: Vec3 = (float(spacing) * factor, factor / per_unit[0], factor / per_unit[1])
    return Statement(voxel_size_nm=size)


def _ratio(value: Any) -> float:
    top, bottom = value
    return float(top) / float(bottom) if bottom else 0.0


def _tiff_planes(path: Path, sections: range) -> list[Array]:
    with _tiff(path) as (tif, series):
        if series.dataoffset is not None:
            # All voxels lie uncompressed in one piece (ImageJ writes large stacks as one page and a long tail):
            # map them, so that a box costs what it covers and not whole sections.
            shape = (_n_sections(series), *series.shape[-2:])
            dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
            whole = np.memmap(path, dtype, "r", series.dataoffset, shape)
            return [whole[z] for z in sections]
        return [np.asarray(_page(series, z)).reshape(series.shape[-2:]) for z in sections]


def _page(series: tifffile.TiffPageSeries, z: int) -> Array:
    page = series.pages[z]
    if page is None:
        raise InputError(f"section {z} of {series.name or 'the file'} is missing: export the stack again")
    return np.asarray(page.asarray())


def _n_sections(series: Any) -> int:
    return int(np.prod(series.shape[:-2], dtype=np.int64))


def _section(path: Path) -> Array:
    with _decoding(path):
        if path.suffix.lower() in _TIFF:
            return np.asarray(tifffile.imread(path))
        return np.asarray(imageio.imread(path))


def _shape_of(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and element type of one section without decoding its pixels."""
    with _decoding(path):
        if path.suffix.lower() in _TIFF:
            with _tiff(path) as (_, series):
                return tuple(series.shape), np.dtype(series.dtype).newbyteorder("=")
        properties = imageio.improps(path)
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
    return found(str(container), "sections", facts, Statement(axes="zyx"), _gaps(files))


def _gaps(files: Sequence[Path]) -> list[str]:
    """Return a note where the section numbers skip: a missing section silently shifts all that follow."""
    numbers = [re.findall(r"\d+", f.stem) for f in files]
    if len(files) < 3 or not all(numbers) or len({len(n) for n in numbers}) > 1:
        return []
    moving = [i for i in range(len(numbers[0])) if len({n[i] for n in numbers}) > 1]
    if len(moving) != 1:
        return []
    values = [int(n[moving[0]]) for n in numbers]
    steps = [b - a for a, b in pairwise(values)]
    usual = min(steps)
    jumps = [f"{a} -> {a + s}" for a, s in zip(values, steps, strict=False) if s != usual]
    if not jumps:
        return []
    return [f"section numbers jump ({', '.join(jumps[:5])}): a missing section shifts all that follow"]
