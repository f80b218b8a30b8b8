"""A worked example of `emloom frequency`: a denoiser and two rates of a codec on real FIB-SEM.

    python benchmarks/fidelity.py [folder]

20 sections of 768 x 1024 voxels of 5 nm (EPFL hippocampus), each denoised by non-local means (scikit-image, noise
from its wavelets) and compressed by JPEG 2000 (Pillow) to about an eighth and a thirty-second. The report is
written into the folder (default `build/fidelity`). Prints ratio, coherence, and the part of the power that was
removed which the next section shares: noise of different sections is independent, so what correlates there was
structure. The figures of `docs/metrics-frequency.md` are those of this script.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.restoration import denoise_nl_means, estimate_sigma

from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.spectra import spectra
from emloom.ops.wavelets import of_sections
from emloom.tasks.frequency import measure_frequencies
from emloom.tasks.frequencyreport import write_frequency_report
from emloom.tasks.frequencyspec import FrequencySpec

GRID = Grid((5.0, 5.0, 5.0))
Section = NDArray[np.uint8]


def sections() -> NDArray[np.uint8]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "epfl_hippocampus" / "train_z000-019.h5"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: this example needs the real data")
    with h5py.File(path) as file:
        raw: NDArray[np.uint8] = file["volumes/raw"][:]
    return raw


def denoised(section: Section) -> Section:
    values = section.astype(np.float32)
    sigma = float(estimate_sigma(values))
    clean = denoise_nl_means(values, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, fast_mode=True)
    rounded: Section = np.clip(np.rint(clean), 0, 255).astype(np.uint8)
    return rounded


def compressed(section: Section, rate: int) -> Section:
    buffer = io.BytesIO()
    image = Image.fromarray(section)
    image.save(buffer, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())))


def stored(folder: Path, name: str, values: NDArray[np.uint8]) -> str:
    path = folder / f"{name}.zarr"
    if not path.exists():
        info = VolumeInfo(values.shape, values.dtype, GRID, kind="raw", chunks=(16, 128, 128))
        create_volume(path, info).write(info.box, values)
    return str(path)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/fidelity")
    folder.mkdir(parents=True, exist_ok=True)
    raw = sections()
    made: dict[str, Callable[[Section], Section]] = {
        "non-local means": denoised,
        "JPEG 2000, 8:1": lambda section: compressed(section, 8),
        "JPEG 2000, 32:1": lambda section: compressed(section, 32),
    }
    outputs = {name: np.stack([work(section) for section in raw]) for name, work in made.items()}
    paths = [stored(folder, name.replace(" ", "-").replace(":", "-"), values) for name, values in outputs.items()]
    spec = FrequencySpec(
        reference=stored(folder, "raw", raw),
        outputs=tuple(paths),
        names=tuple(outputs),
        output=str(folder / "report"),
        together=(20, 1, 1),
    )
    found = measure_frequencies(spec)
    page = write_frequency_report(spec, found)
    first = found.outputs[0]
    print(f"{'':18}" + "".join(f"{band.wavelength_nm:>9g}" for band in first.levels[:5]) + "  nm")
    print(f"{'all but noise':18}" + "".join(f"{target.by_noise:9.3f}" for target in first.targets[:5]))
    print(f"{'as neighbours':18}" + "".join(f"{target.by_neighbours:9.3f}" for target in first.targets[:5]))
    for kept in found.outputs:
        for what in ("ratio", "coherence"):
            values = [getattr(band, what).value for band in kept.levels[:5]]
            print(f"{kept.name:18}" + "".join(f"{value:9.3f}" for value in values) + f"  {what}")
        removed = raw.astype(np.int16) - outputs[kept.name]
        table = spectra(removed[:-1], raw[1:].astype(np.int16), of_sections(8), GRID.voxel_size_nm)
        shared = []
        for level in range(1, 6):
            x, y, cross, _ = table.totals(table.columns(level))
            shared.append(cross / np.sqrt(x * y))
        print(
            f"{kept.name:18}" + "".join(f"{value:9.3f}" for value in shared) + "  of what was removed, with z + 1"
        )
    print(f"report: {page}")


if __name__ == "__main__":
    main()
