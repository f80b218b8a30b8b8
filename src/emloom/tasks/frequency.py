"""`emloom frequency`: which spatial frequencies of a reference its outputs keep, at any size.

Outputs are whatever was made of the reference on its grid: denoised, compressed and decompressed, resampled,
styled, or reconstructed by a network. `emloom.metrics.frequency` defines every number;
`emloom.tasks.frequencyblocks` does the work on voxels, once per output and block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.io.files import explained
from emloom.io.open import open_volume
from emloom.metrics.bootstrap import Interval
from emloom.metrics.fourier import RingCorrelation, ring_correlation
from emloom.metrics.frequency import ALL, BandFidelity, fidelity, psnr_db, root_mean_square_error
from emloom.metrics.noise import SignalTarget, signal_targets
from emloom.metrics.spectra import Spectra
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.frequencyblocks import Compared, CountPair, CountReference
from emloom.tasks.frequencyspec import FrequencySpec, LimitSpec
from emloom.tasks.scorefiles import write_scores
from emloom.tasks.scorestages import OnBlock, Stages

FORMAT = 1
STATISTICS = ("share_x", "share_y", "ratio", "median_ratio", "coherence", "error")


@dataclass(frozen=True)
class LimitOutcome:
    """Whether one limit was kept at one level.

    Attributes:
        limit: what was asked for.
        level: 1 is the finest.
        wavelength_nm: of the level.
        value: what was found; NaN, where it is not defined, keeps no limit.
        kept: whether it was kept.
    """

    limit: LimitSpec
    level: int
    wavelength_nm: float
    value: float
    kept: bool


@dataclass(frozen=True)
class Kept:
    """What one output keeps.

    Attributes:
        name: of the output.
        compared: the pair.
        table: sums of every tile and band.
        bands: per level, and per level and orientation, finest first.
        targets: what an ideal denoiser's ratio is; empty where the reference's noise is not known.
        unknown: why there are no targets; else empty.
        rings: correlation of Fourier rings or shells; None where none was asked for.
        verdicts: limits that were asked for.
    """

    name: str
    compared: Compared
    table: Spectra
    bands: tuple[BandFidelity, ...]
    targets: tuple[SignalTarget, ...]
    unknown: str
    rings: RingCorrelation | None
    verdicts: tuple[LimitOutcome, ...]

    @property
    def levels(self) -> list[BandFidelity]:
        """The rows of whole levels, finest first."""
        return [band for band in self.bands if band.orientation == ALL]

    @property
    def rmse(self) -> float:
        """Root mean square difference over all whole tiles, in grey levels."""
        return root_mean_square_error(self.table)

    @property
    def psnr_db(self) -> float:
        """Peak signal-to-noise ratio over all whole tiles; the peak is the range of the type, NaN of floats."""
        return psnr_db(self.rmse, self.compared.volumes()[1].info.dtype)

    @property
    def left_out(self) -> float:
        """Part of the output's voxels that lie in no whole tile."""
        whole, all_of_it = (np.prod(box.shape, dtype=float) for box in (self.compared.box, self.compared.within))
        return float(1 - whole / all_of_it)


@dataclass(frozen=True)
class FrequencyReport:
    """What was found.

    Attributes:
        outputs: in the order they were given.
        rows: one per output, level and orientation, as in `scores.csv`.
    """

    outputs: tuple[Kept, ...]
    rows: list[dict[str, Any]]

    @property
    def passed(self) -> bool:
        """Whether every output kept every limit."""
        return all(verdict.kept for kept in self.outputs for verdict in kept.verdicts)


def measure_frequencies(
    spec: FrequencySpec, executor: Executor | None = None, on_block: OnBlock | None = None
) -> FrequencyReport:
    """Compare outputs with a reference; write `scores.json`, `scores.csv` and `provenance.json`.

    Args:
        spec: what to do; nothing outside of ``spec.output`` is written.
        executor: where voxels are read; default in this process.
        on_block: called with (blocks done, blocks in all) of each pass.

    Raises:
        InputError: grids differ, a volume has channels or is smaller than a tile, a wavelet or a limit makes no
            sense, or a tile holds NaN.
    """
    started = time.perf_counter()
    names = _names(spec)
    pairs = [_compared(spec, path) for path in spec.outputs]
    for pair in pairs:
        pair.cells()  # an error, before anything is counted, where no tile fits
        for limit in spec.gate:
            _limited(limit, pair)
    stages = Stages(Path(spec.output).absolute(), executor or Serial(), on_block)
    with explained(stages.folder):
        stages.folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: fingerprint(path) for name, path in zip(names, spec.outputs, strict=True)}
    inputs["reference"] = fingerprint(spec.reference)
    outputs = [
        _kept(spec, stages, pair, number, name, inputs)
        for number, (pair, name) in enumerate(zip(pairs, names, strict=True))
    ]
    rows = [_row(kept.name, band) for kept in outputs for band in kept.bands]
    report = FrequencyReport(tuple(outputs), rows)
    write_scores(stages.folder, rows, **_said(report))
    write_provenance(
        stages.folder / "provenance.json", spec.to_dict(), inputs, {"frequency": time.perf_counter() - started}
    )
    return report


def _names(spec: FrequencySpec) -> list[str]:
    names = list(spec.names) or [Path(path).name for path in spec.outputs]
    if len(names) != len(spec.outputs):
        raise InputError(f"{len(names)} names for {len(spec.outputs)} outputs: name each, or none")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two outputs are called {twice[0]!r}: give names that tell them apart")
    if "reference" in names:
        raise InputError("an output is called 'reference': give it another name")
    return names


def _compared(spec: FrequencySpec, path: str) -> Compared:
    size = open_volume(path, kind="raw").info.grid.voxel_size_nm
    compared = Compared(spec.reference, path, spec.wavelet.decomposition(size), spec.rings)
    compared.volumes()
    return compared


def _kept(
    spec: FrequencySpec, stages: Stages, pair: Compared, number: int, name: str, inputs: dict[str, str]
) -> Kept:
    cells = pair.cells()
    key = key_of(FORMAT, asdict(pair), inputs[name], inputs["reference"])
    work = CountPair(pair, f"pair-{number}", stages.folder)
    stages.run(work.name, key, cells, work)
    around = CountReference(pair, f"reference-{number}", stages.folder)
    stages.run(around.name, key, cells, around)
    table = work.read()
    seen = table.coarsened(spec.together) if spec.together != (1, 1, 1) else table
    bands = fidelity(seen, np.random.default_rng(spec.seed), resamples=spec.resamples)
    targets, unknown = _targets(table, around)
    sums = work.read_rings()
    rings = None if sums is None else ring_correlation([sums])
    verdicts = tuple(v for limit in spec.gate for v in _verdicts(limit, pair, bands))
    return Kept(name, pair, table, bands, targets, unknown, rings, verdicts)


def _targets(table: Spectra, around: CountReference) -> tuple[tuple[SignalTarget, ...], str]:
    sigma = around.read_noise()
    if isnan(sigma):
        return (), "noise is measured in whole numbers of up to 16 bits only"
    return signal_targets(table, sigma, around.read()), ""


def _limited(limit: LimitSpec, pair: Compared) -> set[int]:
    """Return the levels that a limit is about; raises `InputError` where there is none."""
    size = pair.volumes()[1].info.grid.voxel_size_nm
    levels = range(1, pair.decomposition.n_levels + 1)
    known = {level: pair.decomposition.wavelength_nm(level, size) for level in levels}
    within = {level for level, nm in known.items() if limit.holds(nm)}
    if not within:
        raise InputError(
            f"no level has a wavelength of {limit.from_nm:g} nm to {limit.to_nm or 'any'} nm: they have "
            f"{', '.join(f'{nm:g}' for nm in known.values())} nm"
        )
    return within


def _verdicts(limit: LimitSpec, pair: Compared, bands: Sequence[BandFidelity]) -> list[LimitOutcome]:
    found, limited = [], _limited(limit, pair)
    for band in bands:
        if band.orientation == ALL and band.level in limited:
            value: float = getattr(band, limit.statistic).value
            found.append(LimitOutcome(limit, band.level, band.wavelength_nm, value, limit.keeps(value)))
    return found


def _row(name: str, band: BandFidelity) -> dict[str, Any]:
    row: dict[str, Any] = {
        "output": name,
        "level": band.level,
        "orientation": band.orientation,
        "wavelength_nm": band.wavelength_nm,
    }
    for statistic in STATISTICS:
        interval: Interval = getattr(band, statistic)
        row |= {statistic: interval.value, f"{statistic}_low": interval.low, f"{statistic}_high": interval.high}
    return row


def _said(report: FrequencyReport) -> dict[str, Any]:
    """Return what `scores.json` says beside the rows."""
    return {
        "outputs": {
            kept.name: {
                "n_tiles": int(kept.table.n_tiles.sum()),
                "tile_vox": kept.compared.decomposition.tile_vox,
                "left_out": kept.left_out,
                "rmse": kept.rmse,
                "psnr_db": kept.psnr_db,
                "exact": kept.table.exact,
                "undefined": _undefined(kept),
                "targets": [asdict(target) for target in kept.targets],
                "no_targets": kept.unknown,
                "rings": None if kept.rings is None else _rings(kept.rings),
                "gate": [{**asdict(v), "limit": v.limit.to_dict()} for v in kept.verdicts],
            }
            for kept in report.outputs
        },
        "passed": report.passed,
    }


def _undefined(kept: Kept) -> dict[str, str]:
    """Return why values are not defined, or what to beware of, by level and statistic."""
    return {
        f"level {band.level}, {statistic}": getattr(band, statistic).reason
        for band in kept.levels
        for statistic in STATISTICS
        if getattr(band, statistic).reason
    }


def _rings(rings: RingCorrelation) -> dict[str, Any]:
    return {
        "frequency_per_nm": rings.frequency_per_nm.tolist(),
        "correlation": rings.correlation.tolist(),
        "half_bit": rings.half_bit.tolist(),
        "resolution_nm": rings.resolution_nm,
        "resolution_half_bit_nm": rings.resolution_half_bit_nm,
        "reason": rings.reason,
    }
