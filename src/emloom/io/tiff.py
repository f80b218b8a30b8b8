"""TIFF stacks: one file, one page per section, with the metadata of ImageJ, OME or emloom.

Three kinds of files state a voxel size, and each defines its own terms; TIFF's "dots per inch" are about paper and
are not believed::

    ImageJ   XResolution, YResolution   pixels per `unit`; `spacing` is the distance of sections in the same unit
             xorigin, yorigin, zorigin  the pixel at the world's 0, counted from the *corner* of pixel 0:
                                        offset = -origin * voxel size
    OME      PhysicalSizeX, Y, Z        in PhysicalSizeXUnit, ...; without a unit micrometres, as OME defines
             PositionX, Y, Z            of the stage: of a corner or of a centre is not said, so it is only noted
    emloom   key ``emloom``             in ImageJ's header or in tifffile's JSON: the whole grid exactly, the kind

Written are uncompressed pages in one piece. What ImageJ can hold (8 and 16 bit, 32-bit float, below 4 GiB) is
written as ImageJ writes it, with its calibration and origin; all else (32- and 64-bit labels, larger stacks as
BigTIFF) as a plain TIFF that tifffile reads back exactly, though ImageJ may not.

The file has its final size from the start, and blocks are written in place: a process killed in mid-write leaves
that block half old, half new.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import get_ident
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.files import explained, reserve, staged, way_out
from emloom.io.metadata import OWN_KEY, ArrayFacts, Found, Statement, found, nm_per, own_attribute, read_own
from emloom.io.volume import Array, VolumeInfo, check_box, check_write

SUFFIXES = (".tif", ".tiff")
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_CLASSIC_LIMIT = 2**32 - 2**25
_AXES = "zyx"
#: No codec packs more into a byte (zstd: 128 KiB of one value into four).
_MOST_PER_BYTE = 2**17


@dataclass(frozen=True)
class TiffVolume:
    """The pages of a TIFF file as a volume.

    Attributes:
        info: what the volume says about itself.
        file: the TIFF file.
        writable: whether `write` is allowed.
    """

    info: VolumeInfo
    file: Path
    writable: bool = False

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order; a damaged page is an `InputError`."""
        check_box(self.info, box)
        out = np.empty(self.info.shape_of(box), self.info.dtype)
        # One stack of sections per channel, in the order of the pages.
        stacks = out.reshape(self.info.channels or 1, *box.shape)
        z, y, x = box.slices()
        with opened(self.file) as (tif, series):
            self._require_unchanged(series)
            if series.dataoffset is not None:
                stacks[...] = self._mapped(tif, series, "r")[:, z, y, x]
                return out
            for channel, stack in enumerate(stacks):
                for index in range(z.start, z.stop):
                    page = _page(series, channel * self.info.shape[0] + index)
                    stack[index - z.start] = page.reshape(self.info.shape[1:])[y, x]
        return out

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`."""
        check_write(self.info, box, array)
        if not self.writable:
            raise InputError(
                f"{self.info.source} is open read-only: open it with writable=True or write to a new one"
            )
        with opened(self.file) as (tif, series), explained(self.file):
            self._require_unchanged(series)
            self._mapped(tif, series, "r+")[0][box.slices()] = array

    def _mapped(self, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, mode: Any) -> Array:
        # All voxels lie uncompressed in one piece (ImageJ writes large stacks as one page and a long tail):
        # map them, so that a box costs what it covers and not whole sections.
        shape = (self.info.channels or 1, *self.info.shape)
        dtype = self.info.dtype.newbyteorder(tif.byteorder)
        return np.memmap(self.file, dtype, mode, series.dataoffset or 0, shape)

    def _require_unchanged(self, series: tifffile.TiffPageSeries) -> None:
        shape = (int(np.prod(series.shape[:-2], dtype=np.int64)), *series.shape[-2:])
        ours = (self.info.shape[0] * (self.info.channels or 1), *self.info.shape[1:])
        if shape != ours or np.dtype(series.dtype).newbyteorder("=") != self.info.dtype:
            raise InputError(f"{self.info.source} changed while it was open: open it again")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever an image decoder says about a damaged file into an `InputError`."""
    with explained(path, "read"):
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): copy it again")
        try:
            yield
        except InputError:
            raise
        except MemoryError as problem:
            raise InputError(
                f"{path} does not fit into memory ({problem}): crop it first, or use a machine with more"
            ) from problem
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
def opened(path: Path) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """Open a TIFF file and its first series; raises `InputError` where the file ends too early."""
    with decoding(path), _watched() as chain, tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        if chain.messages or _ends_early(path, series):
            raise InputError(f"{path} is truncated: it ends before its last section; copy it again")
        if series.nbytes > _MOST_PER_BYTE * path.stat().st_size:
            raise InputError(f"{path} claims {series.shape} pixels, which its bytes cannot hold: copy it again")
        yield tif, series


@contextmanager
def _watched() -> Iterator[_BrokenChain]:
    log, chain = logging.getLogger("tifffile"), _BrokenChain()
    log.addFilter(chain)
    try:
        yield chain
    finally:
        log.removeFilter(chain)


def find_file(container: Path, path: Path) -> Found:
    """Return the stack in a TIFF file.

    Raises:
        InputError: it is damaged, in colour, in several files, or holds several stacks.
    """
    _require_alike(path)
    with opened(path) as (tif, series):
        shape, dtype, axes = tuple(series.shape), np.dtype(series.dtype), str(series.axes)
        said, notes = _stated(tif)
        several, scattered = len(tif.series), bool(series.is_multifile)
    if "S" in axes:
        raise InputError(f"{path} is a colour image (axes {axes}): convert it to grey values first")
    if several > 1:
        raise InputError(f"{path} holds {several} image series: save one stack per file")
    if scattered:
        raise InputError(f"{path} is one of several files of an OME set: save the stack as one file")
    if axes.endswith("YX") and len(axes) == 2:
        shape, axes = (1, *shape), "ZYX"
    # Pages without a stated meaning (I, Q) are sections: a stack is all that a plain multi-page TIFF can be.
    letters = axes.replace("I", "Z").replace("Q", "Z").lower()
    facts = ArrayFacts(shape, dtype, droppable="tc")
    return found(str(container), "tiff", facts, replace(said, axes=letters), notes)


def _require_alike(path: Path) -> None:
    """Raise `InputError` where a page differs from the first: headers say one type for all, pages may not."""
    # Pages are looked at alone, because those of a series are taken to be like its first.
    with decoding(path), _watched(), tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        seen: set[int] = set()
        for index, page in enumerate(tif.pages):
            if page.offset in seen:
                raise InputError(f"{path}: page {index} leads back to one before it: copy the file again")
            seen.add(page.offset)
            thumbnail = isinstance(page, tifffile.TiffPage) and page.is_reduced
            if (page.shape, page.dtype) != (first.shape, first.dtype) and not thumbnail:
                raise InputError(
                    f"{path}: page {index} is {page.shape} {page.dtype}, but the first is {first.shape} "
                    f"{first.dtype}: all pages of a stack have one size and type; crop, pad or convert them first"
                )


def pixel_size_nm(path: Path) -> tuple[float, float] | None:
    """Return the size (row, column) of a pixel of a single section in nm; None where the file does not say."""
    with opened(path) as (tif, _):
        size = _stated(tif)[0].voxel_size_nm
        factor = nm_per((tif.imagej_metadata or {}).get("unit"))
        per_unit = _per_unit(tif)
    if size is not None:
        return size[1:]
    if factor is None or min(per_unit) <= 0 or per_unit == [1.0, 1.0]:
        return None
    return (factor / per_unit[0], factor / per_unit[1])


def open_file(path: Path, info: VolumeInfo, writable: bool) -> TiffVolume:
    """Return the volume of a TIFF file; writable only where emloom made it."""
    if writable:
        with opened(path) as (tif, series):
            if _own_of(tif) is None or series.dataoffset is None:
                raise InputError(
                    f"{info.source} is an image stack, which is read-only: convert it to .zarr or .h5 first"
                )
    return TiffVolume(info, path, writable)


def create(path: Path, inner: str, info: VolumeInfo, *, overwrite: bool = False) -> TiffVolume:
    """Create an empty (all zero) stack, ready to be written box by box.

    Args:
        path: the file, ``.tif`` or ``.tiff``.
        inner: "": a TIFF holds one stack.
        info: shape, dtype, grid, kind; no channels.
        overwrite: replace an existing file.

    Raises:
        InputError: TIFF cannot hold it, the path exists, or the disk refuses.
    """
    if inner:
        raise InputError(f"{path} is a TIFF file and holds nothing named {inner!r}: write to {path}")
    if info.channels is not None:
        raise InputError(f"{path}: a TIFF stack holds no {info.channels} channels here: write to .zarr or .h5")
    if info.dtype.kind not in "iuf" or info.dtype.itemsize > 8:
        raise InputError(f"{path}: a TIFF stack holds no {info.dtype}: write uint8, or to .zarr or .h5")
    with staged(path, overwrite=overwrite) as temporary:
        tifffile.imwrite(temporary, shape=info.shape, dtype=info.dtype.newbyteorder("<"), **_layout(info))
        reserve(temporary)
    return TiffVolume(info.with_(chunks=None, source=str(path)), path, writable=True)


def _layout(info: VolumeInfo) -> dict[str, Any]:
    """Return how tifffile shall write a volume: as ImageJ would where ImageJ can, else plainly."""
    own, size = own_attribute(info), info.grid.voxel_size_nm
    large = info.nbytes > _CLASSIC_LIMIT
    common = {"photometric": "minisblack", "byteorder": "<"}
    # tifffile takes sections of one row or one column for something else in ImageJ files.
    if info.dtype.name not in _IMAGEJ_DTYPES or large or min(info.shape[1:]) < 2:
        return {**common, "bigtiff": large, "metadata": {"axes": "ZYX", OWN_KEY: own}}
    origin = {f"{a}origin": -o / s for a, o, s in zip(_AXES, info.grid.offset_nm, size, strict=True)}
    metadata = {"axes": "ZYX", "spacing": size[0], "unit": "nm", **origin, OWN_KEY: json.dumps(own)}
    return {**common, "imagej": True, "resolution": (1 / size[2], 1 / size[1]), "metadata": metadata}


# ---- what a file states ---------------------------------------------------------------------------------------


def _stated(tif: tifffile.TiffFile) -> tuple[Statement, list[str]]:
    """Return what the metadata of a file amount to, and what deserves a note."""
    own = read_own(_own_of(tif))
    if tif.is_ome:
        said, notes = _ome(tif)
        return own.agree(said, f"the {OWN_KEY!r} metadata", "OME"), notes
    return own.agree(_imagej(tif), f"the {OWN_KEY!r} metadata", "ImageJ"), []


def _own_of(tif: tifffile.TiffFile) -> Any:
    """Return our own metadata as stored; None where there are none, text where they are damaged."""
    for header in (tif.imagej_metadata or {}, *(tif.shaped_metadata or ())):
        own = header.get(OWN_KEY)
        if isinstance(own, str):
            try:
                return json.loads(own)
            except (ValueError, RecursionError):
                return own
        if own is not None:
            return own
    return None


def _imagej(tif: tifffile.TiffFile) -> Statement:
    """Return voxel size and offset as ImageJ stores them; see the module."""
    header = tif.imagej_metadata
    if not header:
        return Statement()
    factor = nm_per(header.get("unit"))
    if factor is None:
        return Statement(why_missing=f"ImageJ unit {header.get('unit')!r} is missing or unknown")
    per_unit = _per_unit(tif)
    spacing = header.get("spacing")
    if spacing is not None and float(spacing) < 0:
        rule = "a distance is positive; correct it in ImageJ (Image > Properties)"
        return Statement(problems=(f"its ImageJ spacing {spacing} is negative: {rule}",))
    # One pixel per unit along both axes is what uncalibrated images carry.
    if spacing is None or float(spacing) <= 0 or min(per_unit) <= 0 or per_unit == [1.0, 1.0]:
        return Statement(why_missing="ImageJ states no spacing or resolution")
    size: Vec3 = (float(spacing) * factor, factor / per_unit[0], factor / per_unit[1])
    return Statement(voxel_size_nm=size, offset_nm=_imagej_offset(header, size))


def _per_unit(tif: tifffile.TiffFile) -> list[float]:
    tags = tif.pages.first.tags
    return [_ratio(tags[name].value) if name in tags else 0.0 for name in ("YResolution", "XResolution")]


def _imagej_offset(header: dict[str, Any], size: Vec3) -> Vec3 | None:
    names = [f"{axis}origin" for axis in _AXES]
    if not any(name in header for name in names):
        return None
    z, y, x = (-float(header.get(name, 0)) * s for name, s in zip(names, size, strict=True))
    return (z, y, x)


def _ratio(value: Any) -> float:
    top, bottom = value
    return float(top) / float(bottom) if bottom else 0.0


def _ome(tif: tifffile.TiffFile) -> tuple[Statement, list[str]]:
    """Return the voxel size that OME metadata state, and a note on positions that cannot be used."""
    try:
        root = ElementTree.fromstring(tif.ome_metadata or "")
    except ElementTree.ParseError as problem:
        return Statement(problems=(f"its OME metadata are not readable XML ({problem}): export it again",)), []
    pixels = next((node for node in root.iter() if _tag(node) == "Pixels"), None)
    if pixels is None:
        return Statement(why_missing="its OME metadata describe no pixels"), []
    placed = any("PositionX" in node.attrib for node in pixels.iter() if _tag(node) == "Plane")
    notes = ["OME states a stage position, of which it is not said what it is the position of: pass --offset"]
    return _ome_size(pixels), notes if placed else []


def _ome_size(pixels: ElementTree.Element) -> Statement:
    size: list[float] = []
    for axis in _AXES.upper():
        text, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
        factor = nm_per(unit)
        if text is None or factor is None:
            what = "is missing" if text is None else f"has the unknown unit {unit!r}"
            return Statement(why_missing=f"OME PhysicalSize{axis} {what}")
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            return Statement(problems=(f"its OME PhysicalSize{axis} {text!r} is not positive: correct it",))
        size.append(value * factor)
    return Statement(voxel_size_nm=(size[0], size[1], size[2]))


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


def _ends_early(path: Path, series: tifffile.TiffPageSeries) -> bool:
    """Whether the voxels of the last page lie beyond the end of the file."""
    page = series.pages[-1] or series.keyframe
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if series.dataoffset is not None:
        ends.append(series.dataoffset + series.nbytes)
    return max(ends, default=0) > path.stat().st_size


def _page(series: tifffile.TiffPageSeries, z: int) -> Array:
    page = series.pages[z]
    if page is None:
        raise InputError(f"section {z} of {series.name or 'the file'} is missing: export the stack again")
    return np.asarray(page.asarray())
