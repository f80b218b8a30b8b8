"""Was it noise or structure that autoencoders left out? What is missing of a section, compared with the next one.

    python studies/what_was_removed.py FOLDER

reads a finished `ReconstructionStudy` on isotropic data, whose neighbouring sections show the same structure under
noise of their own. Per arm and wavelength, over seeds: the coherence of what was removed (raw less reconstruction)
with the next raw section. Noise gives 0; what the next section shows, too, was structure.

Writes ``removed.csv`` into the folder and prints it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from math import sqrt
from pathlib import Path

import numpy as np

from emloom.io.open import open_volume
from emloom.metrics.replicates import replicated
from emloom.metrics.spectra import spectra
from emloom.tasks.reconstructionjob import TestItem
from emloom.tasks.scorefiles import write_rows
from emloom.tasks.study import ReconstructionStudy


def removed(item: TestItem, reconstruction: Path, study: ReconstructionStudy) -> dict[float, float]:
    """Return the coherence of what was removed with the next section, by wavelength in nm, finest first."""
    made = open_volume(str(reconstruction))
    raw = open_volume(item.raw, voxel_size_nm=item.voxel_size_nm)
    box = raw.info.box if item.box is None else item.box.box
    shown = raw.read(box).astype(np.int16)
    missing = shown - made.read(made.info.box)
    size = raw.info.grid.voxel_size_nm
    table = spectra(missing[:-1], shown[1:], study.job.wavelet.decomposition(size), size)
    out = {}
    for level in range(1, table.decomposition.n_levels + 1):
        x, y, cross, _ = table.totals(table.columns(level))
        out[table.decomposition.wavelength_nm(level, size)] = cross / sqrt(x * y) if x and y else float("nan")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a study that was run")
    folder = parser.parse_args().folder.absolute()
    study = ReconstructionStudy.load(folder / "study.yaml")
    found: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run in study.runs(folder):
        for item in study.job.tests:
            made = folder / "runs" / f"{run.arm}-{run.seed}" / "predict" / f"{item.name}.zarr" / "reconstruction"
            for nm, value in removed(item, made, study).items():
                found[item.name, run.arm, nm].append(value)
    rows = []
    for (test, arm, nm), values in found.items():
        mean = replicated(values)
        rows.append(
            {"test": test, "arm": arm, "nm": nm, "coherence": mean.value, "low": mean.low, "high": mean.high}
        )
        print(f"{test} {arm:24} {nm:6g} nm {mean.value:7.3f} ({mean.low:.3f} to {mean.high:.3f})")
    write_rows(folder / "removed.csv", rows)


if __name__ == "__main__":
    main()
