"""`emloom info PATH`: what a file or folder holds, what its values are, and what it does not say.

Works on anything `inspect` understands, also on arrays that do not open as a volume yet because something is
missing. Values are read cell by cell, so memory stays bounded whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec, cells
from emloom.geometry.box import as_vec
from emloom.io.metadata import Found
from emloom.io.open import inspect, unplaced_volume
from emloom.io.volume import Volume

CELL_BYTES = 128 * 2**20
MAX_IDS = 20_000_000


@dataclass(frozen=True)
class Values:
    """What the values of an array are.

    Attributes:
        low: smallest finite value, None where there is none.
        high: largest finite value.
        n_not_finite: number of NaN and infinities.
        n_ids: for labels, number of distinct values other than 0; None where not counted (not labels, or more
            than 20 million).
    """

    low: int | float | None
    high: int | float | None
    n_not_finite: int
    n_ids: int | None


@dataclass(frozen=True)
class InfoReport:
    """What is known about one array."""

    found: Found
    values: Values | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        f = self.found
        plain: dict[str, Any] = {"path": f.path, "format": f.format, "axes": f.axes, "shape": list(f.shape)}
        plain |= {"dtype": f.dtype.name, "chunks": _listed(f.chunks), "voxel_size_nm": _listed(f.voxel_size_nm)}
        plain |= {"offset_nm": _listed(f.offset_nm), "kind": f.kind, "levels": list(f.levels)}
        plain["neighborhood"] = None if f.neighborhood is None else [list(v) for v in f.neighborhood]
        values = self.values
        if values is not None:
            plain |= {
                "range": [values.low, values.high],
                "n_not_finite": values.n_not_finite,
                "n_ids": values.n_ids,
            }
        return plain | {"missing": list(f.missing), "problems": list(f.problems), "notes": list(f.notes)}

    def to_text(self) -> str:
        """Return a short paragraph for a person."""
        f = self.found
        lines = [
            f.path,
            _line("format", f"{f.format}, axes {','.join(f.axes)}" if f.axes.strip("?") else f.format),
            _line("shape", f"{' x '.join(map(str, f.shape))}{_type(f)}"),
            _line("chunks", _triple(f.chunks)),
            _line(
                "voxel size", "MISSING" if f.voxel_size_nm is None else f"{_triple(f.voxel_size_nm)} nm (z, y, x)"
            ),
            _line("offset", "-" if f.offset_nm is None else f"{_triple(f.offset_nm)} nm"),
            _line("kind", f.kind or "-"),
            *(_line("level", text) for text in f.levels),
            *([] if f.neighborhood is None else [_line("neighbors", " ".join(map(str, f.neighborhood)))]),
            *self._value_lines(),
            *(_line("missing", text) for text in f.missing),
            *(_line("problem", text) for text in f.problems),
            *(_line("note", text) for text in f.notes),
        ]
        return "\n".join(lines)

    def _value_lines(self) -> list[str]:
        v = self.values
        if v is None:
            return []
        lines = [_line("range", "no finite value" if v.low is None else f"{v.low} to {v.high}")]
        if v.n_not_finite:
            lines.append(_line("problem", f"{v.n_not_finite} values are NaN or infinite"))
        if v.n_ids is not None:
            lines.append(_line("ids", f"{v.n_ids} (0 is background)"))
        return lines


def info(path: str | Path, *, values: bool = True) -> list[InfoReport]:
    """Return what a path holds, one report per array.

    Args:
        path: anything `open_volume` takes, also a container of several arrays.
        values: read all voxels for their range, and for labels the number of ids.

    Raises:
        InputError: nothing there, an unknown format, or a damaged file.
    """
    return [InfoReport(hit, _values(hit) if values else None) for hit in inspect(path)]


def bounded_cell(volume: Volume, step: Vec, n_bytes: int | None = None) -> Vec:
    """Return a cell shape made of whole `step` boxes that holds at most `n_bytes` (default 128 MiB).

    One step is the least, whatever it holds.
    It grows along x first, then y, then z, because that is how sections and chunks lie on disk.
    """
    budget = CELL_BYTES if n_bytes is None else n_bytes
    item = volume.info.dtype.itemsize * (volume.info.channels or 1)
    cell = list(step)
    for axis in (2, 1, 0):
        full = -(-volume.info.shape[axis] // step[axis])
        fits = int(budget // (prod(cell) * item))
        cell[axis] = step[axis] * max(1, min(full, fits))
    return as_vec(cell)


def _values(hit: Found) -> Values | None:
    if hit.axes not in ("zyx", "czyx") or 0 in hit.shape or hit.dtype.kind not in "biuf":
        return None
    tally = _Tally(count_ids=hit.kind == "labels" and hit.dtype.kind in "iu")
    for array in _arrays(unplaced_volume(hit)):
        tally.add(array)
    n_ids = None if tally.ids is None else int(np.count_nonzero(tally.ids))
    return Values(tally.low, tally.high, tally.n_not_finite, n_ids)


def _arrays(volume: Volume) -> Iterator[NDArray[Any]]:
    step = volume.info.chunks or (1, *volume.info.shape[1:])
    whole = Box.whole(volume.info.shape)
    for _, box in cells(whole, bounded_cell(volume, step)):
        yield volume.read(box)


class _Tally:
    """Running range, count of non-finite values and set of ids."""

    def __init__(self, count_ids: bool) -> None:
        self.low: int | float | None = None
        self.high: int | float | None = None
        self.n_not_finite = 0
        self.ids: NDArray[Any] | None = np.zeros(0, np.uint64) if count_ids else None

    def add(self, array: NDArray[Any]) -> None:
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            self.n_not_finite += int(array.size - np.count_nonzero(finite))
            array = array[finite]
        if array.size == 0:
            return
        low, high = array.min().item(), array.max().item()
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        if self.ids is not None:
            merged = np.union1d(self.ids.astype(array.dtype), array)
            self.ids = merged if merged.size <= MAX_IDS else None


def _type(f: Found) -> str:
    """Return element type and size of an array; nothing where its format is not read and its type not known."""
    if f.dtype.kind == "O":
        return ""
    return f" {f.dtype.name} ({bytes_text(prod(f.shape) * f.dtype.itemsize)} uncompressed)"


def _line(word: str, text: str) -> str:
    return f"  {word:<11}{text}"


def _listed(values: tuple[Any, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _triple(values: tuple[float, ...] | None) -> str:
    return "-" if values is None else ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def bytes_text(n: float) -> str:
    """Return a number of bytes for a person: ``12.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"
