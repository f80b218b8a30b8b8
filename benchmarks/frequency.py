"""Wavelet power and coherence of a 256 x 1024 x 1024 uint8 pair: emloom against PyWavelets.

    python benchmarks/frequency.py

Reference: the 20 sections of `epfl_hippocampus` (5 nm), else noise, mirrored to 1024 x 1024 and repeated; output:
the same, blurred and with new noise. Every section is cut into tiles of 256 x 256; energies of both, their
products and absolute values are summed per tile for 8 levels and 3 orientations. emloom works through slabs of 4
sections on two threads, and on one; PyWavelets in a plain loop over tiles, `pywt.wavedec2` and numpy's sums, on
one. The sums have to agree to 1e-9 of each, and those of emloom are integers. The runs alternate: PyWavelets once
over all sections, in four parts, emloom between them (medians). The ratio is of wall times, two threads to the
loop; where other work holds the second core, that of one thread is about the same.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import pywt
from numpy.typing import NDArray
from scipy import ndimage

from emloom.metrics.frequency import ALL, fidelity
from emloom.metrics.spectra import Spectra, concatenate, spectra
from emloom.ops.wavelets import of_sections

Bytes = NDArray[np.uint8]

SHAPE = (256, 1024, 1024)
TILE, LEVELS, SLAB, PARTS = 256, 8, 4, 4
NM = (5.0, 5.0, 5.0)


def reference() -> tuple[Bytes, str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "epfl_hippocampus" / "train_z000-019.h5"
    if not path.is_file():
        return np.random.default_rng(0).integers(0, 256, (20, *SHAPE[1:]), np.uint8), "noise (no real data found)"
    with h5py.File(path) as file:
        raw: Bytes = file["volumes/raw"][:]
    grow = [(0, 0), *((0, want - have) for want, have in zip(SHAPE[1:], raw.shape[1:], strict=True))]
    return np.pad(raw, grow, mode="symmetric"), "epfl_hippocampus, mirrored and repeated"


def degraded(x: Bytes) -> Bytes:
    noise = np.random.default_rng(1).normal(0, 5, x.shape)
    return np.clip(ndimage.gaussian_filter(x.astype(np.float32), (0, 1, 1)) + noise, 0, 255).astype(np.uint8)


def emloom(x: Bytes, y: Bytes, threads: int) -> Spectra:
    decomposition = of_sections(LEVELS)

    def slab(start: int) -> Spectra:
        stop = start + SLAB
        return spectra(x[start:stop], y[start:stop], decomposition, NM, (start, 0, 0))

    with ThreadPoolExecutor(threads) as pool:
        return concatenate(list(pool.map(slab, range(0, len(x), SLAB))))


def pywavelets(x: Bytes, y: Bytes) -> NDArray[np.float64]:
    """Return the sums of every tile, [tiles, levels, orientations y x yx, 5], finest level first."""
    out = []
    for z in range(len(x)):
        for row in range(0, x.shape[1], TILE):
            for column in range(0, x.shape[2], TILE):
                where = np.s_[z, row : row + TILE, column : column + TILE]
                of_x = pywt.wavedec2(x[where], "db1", level=LEVELS, mode="periodization")
                of_y = pywt.wavedec2(y[where], "db1", level=LEVELS, mode="periodization")
                out.append(
                    [
                        [
                            ((u * u).sum(), (v * v).sum(), (u * v).sum(), np.abs(u).sum(), np.abs(v).sum())
                            for u, v in zip(level_x, level_y, strict=True)
                        ]
                        for level_x, level_y in zip(of_x[:0:-1], of_y[:0:-1], strict=True)
                    ]
                )
    return np.array(out)


def disagreement(ours: Spectra, theirs: NDArray[np.float64]) -> float:
    """Return the largest difference, relative to the energies (or absolute values) of the tile."""
    bands = [ours.columns(level, name)[0] for level in range(1, LEVELS + 1) for name in ("y", "x", "yx")]
    halvings = np.array([ours.bands[i].halvings for i in bands])[:, None]
    scale = np.concatenate([np.repeat(2.0**halvings, 3, 1), np.repeat(2.0 ** (halvings / 2), 2, 1)], 1)
    mine = ours.sums[:, bands] / scale
    other = theirs.reshape(mine.shape)
    size = np.maximum(np.abs(other), 1)
    size[..., 2] = np.maximum(np.sqrt(other[..., 0] * other[..., 1]), 1)
    return float((np.abs(mine - other) / size).max())


def main() -> None:
    source, name = reference()
    order = np.arange(SHAPE[0]) % len(source)
    x, y = source[order], degraded(source)[order]
    emloom(x[:SLAB], y[:SLAB], 1)  # compiles
    tracemalloc.start()
    table = emloom(x, y, 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    seconds: dict[str, list[float]] = {"emloom, 2 threads": [], "emloom, 1 thread": [], "PyWavelets": []}
    theirs = []
    for part in np.array_split(np.arange(SHAPE[0]), PARTS):
        for threads, key in ((2, "emloom, 2 threads"), (1, "emloom, 1 thread")):
            start = time.perf_counter()
            emloom(x, y, threads)
            seconds[key].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs.append(pywavelets(x[part[0] : part[-1] + 1], y[part[0] : part[-1] + 1]))
        seconds["PyWavelets"].append(time.perf_counter() - start)
    different = disagreement(table, np.concatenate(theirs))
    if different > 1e-9 or not table.exact:
        raise SystemExit(f"sums differ by {different:.1e} of their size: 1e-9 is allowed")
    start = time.perf_counter()
    rows = [row for row in fidelity(table, np.random.default_rng(0)) if row.orientation == ALL]
    intervals = time.perf_counter() - start
    print(f"{SHAPE} uint8, {name}; {len(table.tiles)} tiles, load {os.getloadavg()[0]:.1f}")
    print(
        f"largest difference {different:.1e}; memory beyond the two volumes {peak / 1e6:.1f} MB (the table, twice)"
    )
    times = {key: sum(v) if key == "PyWavelets" else median(v) for key, v in seconds.items()}
    for key, took in times.items():
        ratio = times["PyWavelets"] / took
        print(f"{key:<20}{took:8.2f} s   {1e3 * took / SHAPE[0]:7.2f} ms/section   {ratio:6.1f}x")
    print(f"all values and intervals, 2000 resamples of {len(table.tiles)} tiles: {intervals:.2f} s")
    for row in rows:
        print(
            f"level {row.level} {row.wavelength_nm:6.0f} nm   p {row.share_x.value:.3f}   "
            f"R {row.ratio.value:.3f}   rho {row.coherence.value:.3f}"
        )
    print(f"RATIO frequency {times['PyWavelets'] / times['emloom, 2 threads']:.1f}")


if __name__ == "__main__":
    main()
