"""`emloom stats PATH`: what the values of a volume are, section by section, and how large its labels are.

Read cell by cell in bounded memory. Integers of 8 and 16 bits are counted value by value, so everything about them
is exact and the same for any cells; labels are counted id by id. Wider integers and floating point are, in a
second pass, sorted into up to 1024 equal bins between their extremes; their percentiles are exact to a bin. Of
integers all else is exact and the same for any cells, whatever their size, and so are the bins; floating point is
measured in float64, exact to rounding. NaN and infinities are counted and left out.

The *contrast* of a section is the standard deviation of its voxels; its *zeros* are the fraction of voxels that
are exactly 0, which microscopes and aligners leave where nothing was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.io.tables import Column, write_csv, write_table
from emloom.io.volume import Kind, Volume, VolumeInfo
from emloom.ops.exact import count_bins, exact_sums
from emloom.ops.histogram import count_values, percentile, values_of
from emloom.spec import Spec
from emloom.tasks.info import MAX_IDS, bounded_cell

Progress = Callable[[int, int], None]

PERCENTS = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
N_BINS = 1024


class StatsSpec(Spec):
    """Measure the values of a volume."""

    source: str
    """What to read."""
    output: str | None = None
    """Table to be written: `.parquet` or `.csv`; of labels one row per id, else one row per section."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm; needed where the source does not state it."""
    kind: Kind | None = None
    """What the values mean, where the source does not say; labels are counted, all others measured."""


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        info: of the volume.
        summary: plain numbers and lists, ready for JSON.
        table: columns; for labels `id`, `voxels`, `volume_um3`, for all others `z`, `mean`, `contrast`, `zeros`.
    """

    info: VolumeInfo
    summary: dict[str, Any]
    table: dict[str, Column]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, the sections included (but not the table of labels)."""
        plain = {"path": self.info.source, "shape": list(self.info.shape), "dtype": self.info.dtype.name}
        return {**plain, "kind": self.info.kind, **self.summary}

    def to_text(self) -> str:
        """Return a short paragraph for a person."""
        words = [f"{_plain(name):<15}{_short(value)}" for name, value in self.summary.items() if _is_short(value)]
        return "\n  ".join([self.info.source, *words])


def stats(spec: StatsSpec, progress: Progress | None = None) -> Report:
    """Measure a volume, and write its table where `spec.output` says.

    Args:
        spec: what to read.
        progress: called with (cells done, cells in all).

    Raises:
        InputError: the volume does not open or is damaged; more than 20 million ids; the table is neither
            ``.parquet`` nor ``.csv``, or exists.
    """
    write = None if spec.output is None else _writer(spec.output)
    volume = open_volume(spec.source, voxel_size_nm=spec.voxel_size_nm, kind=spec.kind)
    info, tell = volume.info, progress or (lambda done, total: None)
    if info.kind == "labels" and info.dtype.kind in "iu":
        report = _measure_labels(volume, tell)
    elif info.dtype.kind == "b" or (info.dtype.kind in "iu" and info.dtype.itemsize <= 2):
        report = _measure_exactly(volume, tell)
    elif info.dtype.kind in "iu":
        report = _measure_wide(volume, tell)
    else:
        report = _measure_roughly(volume, tell)
    if write is not None and spec.output is not None:
        write(spec.output, report.table, overwrite=False)
    return report


def _writer(path: str) -> Callable[..., None]:
    writers: dict[str, Callable[..., None]] = {".parquet": write_table, ".csv": write_csv}
    if Path(path).suffix not in writers:
        raise InputError(f"{path} is no table: name it .parquet or .csv")
    return writers[Path(path).suffix]


def _parts(volume: Volume, tell: Progress, passes: int = 1, done: int = 0) -> Iterator[tuple[Box, NDArray[Any]]]:
    step = volume.info.chunks or (1, *volume.info.shape[1:])
    boxes = [box for _, box in cells(volume.info.box, bounded_cell(volume, step))]
    for number, box in enumerate(boxes, start=1):
        yield box, volume.read(box)
        tell(done * len(boxes) + number, passes * len(boxes))


def _sections(box: Box, array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (z, its voxels in this box, all channels)."""
    return ((box.start[0] + k, array[..., k, :, :]) for k in range(box.shape[0]))


def _measure_exactly(volume: Volume, tell: Progress) -> Report:
    info = volume.info
    values = values_of(info.dtype)
    counts = np.zeros(values.size, np.int64)
    # Exact integers: of 16 bits squared, 2^31 voxels of one section still fit.
    sums = np.zeros((3, info.shape[0]), np.int64)
    for box, array in _parts(volume, tell):
        for z, section in _sections(box, array):
            found = count_values(section)
            counts += found
            sums[:, z] += found @ values, found @ values**2, found[values == 0][0]
    n = prod(info.array_shape) // info.shape[0]
    variance = [int(n) * int(square) - int(total) ** 2 for total, square, _ in sums.T]
    table = {
        "z": np.arange(info.shape[0]),
        "mean": sums[0] / n,
        "contrast": np.array([sqrt(v) / n for v in variance]),
        "zeros": sums[2] / n,
    }
    present = np.flatnonzero(counts)
    total, square, zeros = (int(row.sum(dtype=object)) for row in sums)
    n *= info.shape[0]
    summary = {
        "range": [int(values[present[0]]), int(values[present[-1]])],
        "mean": total / n,
        "std": sqrt(n * square - total**2) / n,
        "zeros": zeros / n,
        "percentiles": {f"{p:g}": int(percentile(values, counts, p)) for p in PERCENTS},
        "histogram": {"values": values[present].tolist(), "counts": counts[present].tolist()},
    }
    return Report(info, {**summary, "sections": _listed(table)}, table)


def _measure_wide(volume: Volume, tell: Progress) -> Report:
    """Measure integers of 32 and 64 bits, whose sums are Python's: no float64 holds them."""
    info = volume.info
    sums = [(0, 0, 0)] * info.shape[0]
    low, high = np.iinfo(info.dtype).max, np.iinfo(info.dtype).min
    for box, array in _parts(volume, tell, passes=2):
        low, high = min(low, int(array.min())), max(high, int(array.max()))
        for z, section in _sections(box, array):
            (total, square), zeros = exact_sums(section), section.size - int(np.count_nonzero(section))
            sums[z] = (sums[z][0] + total, sums[z][1] + square, sums[z][2] + zeros)
    n = prod(info.array_shape) // info.shape[0]
    table: dict[str, Column] = {
        "z": np.arange(info.shape[0]),
        "mean": np.array([total / n for total, _, _ in sums]),
        "contrast": np.array([sqrt(n * square - total**2) / n for total, square, _ in sums]),
        "zeros": np.array([zeros / n for *_, zeros in sums]),
    }
    n *= info.shape[0]
    total, square, zeros = (sum(column) for column in zip(*sums, strict=True))
    summary: dict[str, Any] = {
        "range": [low, high],
        "mean": total / n,
        "std": sqrt(n * square - total**2) / n,
        "zeros": zeros / n,
        **_binned_whole(volume, low, high, tell),
    }
    return Report(info, {**summary, "sections": _listed(table)}, table)


def _binned_whole(volume: Volume, low: int, high: int, tell: Progress) -> dict[str, Any]:
    """Return percentiles and histogram in bins of whole numbers; a percentile is the largest value of its bin."""
    width = -(-(high - low + 1) // N_BINS)
    edges = [*range(low, high + 1, width), high + 1]
    counts = np.zeros(len(edges) - 1, np.int64)
    for _, array in _parts(volume, tell, passes=2, done=1):
        counts += count_bins(array, low, width, counts.size)
    last = np.array([edge - 1 for edge in edges[1:]], object)
    percentiles = {f"{p:g}": int(percentile(last, counts, p)) for p in PERCENTS}
    return {"percentiles": percentiles, "histogram": {"edges": edges, "counts": counts.tolist()}}


def _measure_labels(volume: Volume, tell: Progress) -> Report:
    info = volume.info
    ids, voxels = np.zeros(0, info.dtype), np.zeros(0, np.int64)
    zeros = np.zeros(info.shape[0], np.int64)
    for box, array in _parts(volume, tell):
        found, counts = fastremap.unique(array, return_counts=True)
        ids, voxels = _merged(ids, voxels, found, counts.astype(np.int64))
        if ids.size > MAX_IDS:
            raise InputError(f"{info.source} holds more than {MAX_IDS} ids: are these labels? Count a crop of it")
        for z, section in _sections(box, array):
            zeros[z] += section.size - np.count_nonzero(section)
    table: dict[str, Column] = {"id": ids[ids != 0], "voxels": voxels[ids != 0]}
    um3 = prod(info.grid.voxel_size_nm) / 1e9
    table["volume_um3"] = table["voxels"] * um3
    n = prod(info.array_shape)
    summary: dict[str, Any] = {"ids": int(table["id"].size), "zeros": int(zeros.sum()) / n}
    if table["id"].size:
        summary |= {name: _label(table, at) for name, at in _extremes(table["voxels"]).items()}
        summary["median_voxels"] = float(np.median(table["voxels"]))
    per_section = n // info.shape[0]
    sections = {"z": np.arange(info.shape[0]), "zeros": zeros / per_section}
    return Report(info, {**summary, "sections": _listed(sections)}, table)


def _merged(
    ids: Column, voxels: Column, more_ids: Column, more_voxels: Column
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    together, where = np.unique(np.concatenate([ids, more_ids]), return_inverse=True)
    total = np.zeros(together.size, np.int64)
    np.add.at(total, where, np.concatenate([voxels, more_voxels]))
    return together, total


def _extremes(voxels: Column) -> dict[str, int]:
    return {"smallest": int(np.argmin(voxels)), "largest": int(np.argmax(voxels))}


def _label(table: dict[str, Column], at: int) -> dict[str, Any]:
    return {name: column[at].item() for name, column in table.items()}


def _measure_roughly(volume: Volume, tell: Progress) -> Report:
    info = volume.info
    # Per section: count, mean, sum of squared deviations, zeros (Chan, Golub & LeVeque 1983, to join parts).
    moments = np.zeros((4, info.shape[0]))
    low, high, not_finite = np.inf, -np.inf, 0
    for box, array in _parts(volume, tell, passes=2):
        for z, section in _sections(box, array):
            finite = section[np.isfinite(section)].astype(np.float64)
            not_finite += section.size - finite.size
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
                mean = float(finite.mean())
                squares = float(np.square(finite - mean).sum())
                moments[:3, z] = _joined(moments[:3, z], np.array([finite.size, mean, squares]))
                moments[3, z] += np.count_nonzero(finite == 0)
    n = np.maximum(moments[0], 1)
    table = {"z": np.arange(info.shape[0]), "mean": moments[1], "contrast": np.sqrt(moments[2] / n)}
    table["zeros"] = moments[3] / n
    summary: dict[str, Any] = {"not_finite": not_finite, "range": None}
    if low <= high:
        whole = np.zeros(3)
        for part in moments[:3].T:
            whole = _joined(whole, part)
        summary |= {"range": [low, high], "mean": whole[1], "std": sqrt(whole[2] / whole[0])}
        summary |= {"zeros": moments[3].sum() / whole[0], **_binned(volume, low, high, tell)}
    return Report(info, {**summary, "sections": _listed(table)}, table)


def _joined(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (count, mean, sum of squared deviations) of two parts together."""
    n = a[0] + b[0]
    if n == 0:
        return a
    step = b[1] - a[1]
    return np.array([n, a[1] + step * b[0] / n, a[2] + b[2] + step**2 * a[0] * b[0] / n])


def _binned(volume: Volume, low: float, high: float, tell: Progress) -> dict[str, Any]:
    edges = np.linspace(low, high, N_BINS + 1) if high > low else np.array([low, np.nextafter(low, np.inf)])
    counts = np.zeros(edges.size - 1, np.int64)
    for _, array in _parts(volume, tell, passes=2, done=1):
        for section in array.reshape(-1, array.shape[-1] * array.shape[-2]):
            counts += np.histogram(section[np.isfinite(section)].astype(np.float64), edges)[0]
    percentiles = {f"{p:g}": float(percentile(edges[1:], counts, p)) for p in PERCENTS}
    return {"percentiles": percentiles, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def _listed(table: dict[str, Column]) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in table.items()}


def _is_short(value: Any) -> bool:
    return not isinstance(value, dict) or not any(isinstance(v, list) for v in value.values())


_PLAIN = {"zeros": "zeros (share)", "median_voxels": "median voxels", "volume_um3": "µm³"}


def _plain(name: str) -> str:
    """Return a key of the summary in words."""
    return _PLAIN.get(name, name)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{_plain(name)}: {_short(v)}" for name, v in value.items())
    if isinstance(value, list):
        return " to ".join(_short(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
