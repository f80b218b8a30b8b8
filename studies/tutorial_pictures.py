"""The pictures of the tutorials, from what their own snippets wrote; phantoms only.

    for page in neurons slices artifacts frequency
        python -m tests.docsnippets docs/tutorial-PAGE.md RUNS/PAGE
    python studies/tutorial_pictures.py RUNS [PICTURES]      # default docs/img

A page whose folder is not in RUNS is left out.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from PIL import Image

from emloom.io.files import write_bytes_atomic
from emloom.io.open import open_volume

mpl.use("Agg")
Picture = NDArray[Any]
INK, PAPER = "#222222", "white"


def section(path: Path, z: int) -> Picture:
    """Return one section of a volume."""
    volume = open_volume(str(path))
    return volume.read(volume.info.box)[..., z, :, :]


def named(segments: Picture, truth: Picture) -> Picture:
    """Return segments under the true id that each finds most of; what is left over keeps other numbers."""
    pairs, counts = np.unique(np.stack([segments.ravel(), truth.ravel()]), axis=1, return_counts=True)
    names: dict[int, int] = {0: 0}
    for segment, true in pairs.T[np.argsort(-counts)].tolist():
        if segment not in names and true not in names.values():
            names[segment] = true
    spare = int(truth.max()) + 1
    for number, segment in enumerate(np.unique(segments).tolist()):
        names.setdefault(segment, spare + number)
    keys = np.array(sorted(names), np.uint64)
    return np.array([names[key] for key in keys.tolist()])[np.searchsorted(keys, segments)]


def coloured(ids: Picture) -> Picture:
    """Return ids as colours, 0 black, the same id always the same."""
    palette = (255 * np.array([mpl.colormaps["tab20"](n)[:3] for n in range(20)])).astype(np.uint8)
    rgb = palette[(ids.astype(np.int64) * 7) % 20]
    rgb[ids == 0] = 0
    return rgb


def show(axes: Any, picture: Picture, title: str) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_axis_off()


def saved(figure: Any, target: Path) -> None:
    """Write a figure with few colours, which keeps it small."""
    held = BytesIO()
    figure.savefig(held, dpi=110, facecolor=PAPER, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    small = BytesIO()
    Image.open(held).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    write_bytes_atomic(target, small.getvalue())
    print(f"{target}: {len(small.getvalue()) // 1024} kB")


def neurons(run: Path) -> Any:
    z = 24
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
    show(axes[0], section(run / "unseen" / "raw.zarr", z), "raw, never seen")
    near = section(run / "pred.zarr" / "affinities", z)[:3].mean(0)
    show(axes[1], near, "predicted: mean near affinity")
    found, true = (open_volume(str(run / path)) for path in ("seg.zarr/segmentation", "unseen/labels.zarr"))
    truth = true.read(true.info.box)
    show(axes[2], coloured(named(found.read(found.info.box), truth)[z]), "segments")
    show(axes[3], coloured(truth[z]), "truth")
    return figure


def slices(run: Path) -> Any:
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
    raw, painted = Image.open(run / "train" / "z_0020_raw.png"), Image.open(run / "train" / "z_0020.png")
    greys = np.array([0, 230, 110], np.uint8)
    show(axes[0], np.asarray(raw), "a slice to paint")
    show(axes[1], greys[np.asarray(painted)], "painted; black: nobody knows")
    show(axes[2], greys[1 + section(run / "classes.zarr" / "labels", 20)], "found, whole section")
    show(axes[3], greys[1 + section(run / "truth.zarr", 20)], "truth")
    return figure


def artifacts(run: Path) -> Any:
    figure, axes = plt.subplots(2, 3, figsize=(7, 4.9))
    for column, (z, what) in enumerate({5: "sound", 6: "torn", 12: "lost"}.items()):
        show(axes[0][column], section(run / "stack" / "raw.zarr", z), f"section {z}, {what}")
        show(axes[1][column], section(run / "fixed" / "raw.zarr", z), "repaired")
    return figure


def frequency(run: Path) -> Any:
    figure = plt.figure(figsize=(9, 4.6))
    grid = figure.add_gridspec(2, 4, height_ratios=(1, 1.25), hspace=0.35)
    paths = {"raw": "tissue/raw.zarr", "weak": "weak.zarr", "strong": "strong.zarr", "invented": "invented.zarr"}
    for column, (name, path) in enumerate(paths.items()):
        show(figure.add_subplot(grid[0, column]), section(run / path, 8)[:96, :96], name)
    with (run / "fidelity" / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["orientation"] == "all"]
    for place, statistic in enumerate(("ratio", "coherence")):
        axes = figure.add_subplot(grid[1, 2 * place : 2 * place + 2])
        for name in ("weak", "strong", "invented"):
            mine = [row for row in rows if row["output"].startswith(name)]
            axes.plot(
                [float(r["wavelength_nm"]) for r in mine], [float(r[statistic]) for r in mine], "o-", label=name
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks([16, 32, 64, 128, 256], ["16", "32", "64", "128", "256"])
        axes.set_ylim(-0.05, 1.25)
        axes.set_xlabel("wavelength, nm", fontsize=9)
        axes.set_title(statistic, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="lower right" if place == 0 else "center right")
    return figure


PAGES: Mapping[str, Callable[[Path], Any]] = {
    "neurons": neurons,
    "slices": slices,
    "artifacts": artifacts,
    "frequency": frequency,
}


def main(runs: Path, pictures: Path) -> None:
    """Draw what can be drawn."""
    for name, draw in PAGES.items():
        if (runs / name).is_dir():
            saved(draw(runs / name), pictures / f"tutorial-{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/img"))
