"""Which shape of network segments best, and how many labels it needs: all jobs of a recipe, a table and a plot.

    python studies/labelled_fractions.py quick -o labelled_fractions
    python studies/labelled_fractions.py full -o labelled_fractions_full --processes 1

Runs the 36 jobs of `emloom.recipes.labelled_fractions` (three nets, four shares of the labels, three seeds), each
in a folder of its own below ``jobs/``, so that a study that was stopped goes on where it was. Then, from whatever
is done::

    runs.csv      every score of every run
    summary.csv   per net, share and class: mean over seeds, with a 95 % interval (Student's t)
    summary.md    the same for people
    iou.png       IoU against the share of the labels
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from emloom.metrics.replicates import Replicated, replicated
from emloom.recipes.labelled_fractions import NETS, PERCENTS, Net, full, quick, squares

SEEDS = (0, 1, 2)
SCORES = ("iou", "f1", "average_precision")
WORDS = {"fcn": "FCN", "atrous": "atrous", "unet": "U-Net"}
LOOKS = {"fcn": ("#D55E00", "s"), "atrous": ("#009E73", "^"), "unet": ("#0072B2", "o")}  # Okabe and Ito 2008

_COLUMNS = ("value", "low", "high", "n")

log = logging.getLogger("labelled_fractions")


class Run(NamedTuple):
    """One job of the study."""

    net: Net
    percent: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.net}_{self.percent:03d}_{self.seed}"


RUNS = [Run(net, percent, seed) for seed, percent, net in product(SEEDS, reversed(PERCENTS), NETS)]
RUNS.sort(key=lambda run: run.net == "atrous")  # the slow ones last: whatever stops a study, most of it is done


def work(variant: str, run: Run, folder: Path, data: str | None, threads: int) -> str:
    """Do one job, or what is left of it."""
    import torch

    from emloom.nn.hardware import Hardware
    from emloom.tasks.semantic import run as run_job

    torch.set_num_threads(threads)
    recipe = quick if variant == "quick" else full
    job = recipe(run.net, run.percent, run.seed, str(folder), data)
    accelerator = "cpu" if variant == "quick" else "auto"
    run_job(job, folder / "jobs" / run.name, Hardware(accelerator=accelerator, workers=0 if threads == 1 else 1))
    return run.name


def prepare(folder: Path, data: str | None) -> None:
    """Write labels and masks before jobs that run side by side would."""
    for percent, seed in product(PERCENTS, SEEDS):
        quick("unet", percent, seed, str(folder), data)


def collect(folder: Path) -> list[dict[str, object]]:
    """Return one row per finished run and class."""
    rows: list[dict[str, object]] = []
    for run in RUNS:
        path = folder / "jobs" / run.name / "evaluate" / "scores.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        for each in found["classes"]:
            rows.append({**run._asdict(), "class": each["name"], **{key: each[key] for key in SCORES}})
    return rows


def summarise(rows: Iterable[dict[str, object]]) -> dict[tuple[str, int, str], dict[str, Replicated]]:
    """Return the means over seeds by net, percent and class."""
    groups: dict[tuple[str, int, str], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        groups[str(row["net"]), int(str(row["percent"])), str(row["class"])].append(row)
    return {
        group: {key: replicated([float(str(row[key])) for row in members]) for key in SCORES}
        for group, members in groups.items()
    }


def write_tables(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write the tables and the plot of what is done."""
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    means = summarise(rows)
    with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["net", "percent", "class", "score", *_COLUMNS])
        for group, scores in means.items():
            lines.writerows(
                [*group, key, *(getattr(mean, name) for name in _COLUMNS)] for key, mean in scores.items()
            )
    (folder / "summary.md").write_text(markdown(means), encoding="utf-8")
    draw(folder / "iou.png", rows, means)


def markdown(means: dict[tuple[str, int, str], dict[str, Replicated]]) -> str:
    """Return the table of IoU and F1 for people."""
    classes = list(dict.fromkeys(name for _, _, name in means))
    lines = [
        "| labels | net | " + " | ".join(f"{name} IoU | {name} F1" for name in classes) + " |",
        "|---|---|" + "---|" * 2 * len(classes),
    ]
    for percent, net in product(PERCENTS, NETS):
        cells = [
            _cell(means[net, percent, name][key])
            for name in classes
            if (net, percent, name) in means
            for key in ("iou", "f1")
        ]
        if cells:
            lines.append(f"| {percent} % | {WORDS[net]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(mean: Replicated) -> str:
    if mean.n < 2:
        return f"{mean.value:.3f} (1 seed)"
    return f"{mean.value:.3f} ± {mean.high - mean.value:.3f}"


def draw(
    path: Path, rows: Sequence[dict[str, object]], means: dict[tuple[str, int, str], dict[str, Replicated]]
) -> None:
    """Draw IoU against the share of the labels, one panel per class: every seed, and means with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = list(dict.fromkeys(name for _, _, name in means))
    figure = Figure(figsize=(3.4 * len(classes), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, name in zip(figure.subplots(1, len(classes), sharey=True, squeeze=False)[0], classes, strict=True):
        for shift, net in zip((0.94, 1.0, 1.06), NETS, strict=True):
            known = [(p, means[net, p, name]["iou"]) for p in PERCENTS if (net, p, name) in means]
            colour, marker = LOOKS[net]
            if not known:
                continue
            seeds = [(row["percent"], row["iou"]) for row in rows if (row["net"], row["class"]) == (net, name)]
            x, y = zip(*((float(str(p)) * shift, float(str(iou))) for p, iou in seeds), strict=True)
            ax.plot(x, y, ".", color=colour, alpha=0.5, markersize=4)
            ax.errorbar(
                [p * shift for p, _ in known],
                [mean.value for _, mean in known],
                [0.0 if mean.n < 2 else mean.high - mean.value for _, mean in known],
                color=colour,
                marker=marker,
                capsize=3,
                label=WORDS[net],
            )
        ax.set_xscale("log")
        ax.set_xticks(PERCENTS, [f"{p} %" for p in PERCENTS])
        ax.minorticks_off()
        ax.set_ylim(0, 1)
        ax.set_title(name)
        ax.set_xlabel("labels")
        ax.grid(alpha=0.3)
    figure.axes[0].set_ylabel("IoU")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def seen_places() -> dict[int, float]:
    """Return, by percent, the share of places in the plane that are known in at least one section (seed 0)."""
    return {percent: float(squares((20, 768, 576), percent / 100, 0).any(axis=0).mean()) for percent in PERCENTS}


def main() -> None:
    """Run what is not done, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("variant", choices=("quick", "full"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--data", help="folder of the data sets; default: EMLOOM_DATA")
    parser.add_argument("--processes", type=int, default=2, help="jobs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--tables", action="store_true", help="only write tables of what is done")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder: Path = asked.output.absolute()
    if not asked.tables:
        prepare(folder, asked.data)
        with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
            pending = [pool.submit(work, asked.variant, run, folder, asked.data, asked.threads) for run in RUNS]
            for done, each in enumerate(as_completed(pending), start=1):
                log.info("%s done, %d of %d", each.result(), done, len(RUNS))
                write_tables(folder, collect(folder))
    write_tables(folder, collect(folder))
    log.info("places seen, by percent of the labels: %s", seen_places())


if __name__ == "__main__":
    main()
