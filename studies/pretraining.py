"""Does it help to learn from raw first? All arms of `emloom.recipes.pretraining`, and a table.

    python studies/pretraining.py quick -o pretraining
    python studies/pretraining.py quick -o pretraining --nets voxel --schemes none centre --percent 20
    python studies/pretraining.py quick -o pretraining --labels six.zarr --classes cytoplasm membrane ...

Every job has a folder of its own below ``jobs/``, so that a study that was stopped goes on where it was. Then,
from whatever is done::

    runs.csv      scores of every run, and what it cost: multiply-adds of both trainings, seconds of both
    summary.md    per net and scheme: mean over seeds, and the difference to `none` with the same seed
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from emloom.metrics.replicates import Replicated
from emloom.recipes.pretraining import SCHEMES, Arm, Net, Scheme, Where, differences, full, multiply_adds, quick

SCORES = ("f1_macro", "average_precision", "accuracy")

log = logging.getLogger("pretraining")


def work(arm: Arm, folder: Path, threads: int, accelerator: str) -> None:
    """Do the two trainings of an arm, or what is left of them."""
    import torch

    from emloom.nn.hardware import Hardware
    from emloom.tasks import reconstruction, semantic

    torch.set_num_threads(threads)
    hardware = Hardware(accelerator=accelerator, workers=0 if threads == 1 else threads - 1)
    if arm.pretraining is not None:
        reconstruction.run(arm.pretraining, folder / "jobs" / f"{arm.name}_raw", hardware, until="train")
    semantic.run(arm.training, folder / "jobs" / arm.name, hardware)


def row_of(net: Net, scheme: Scheme, seed: int, arm: Arm, folder: Path) -> dict[str, object] | None:
    """Return the scores and the costs of a finished arm; None where it is not finished."""
    path = folder / "jobs" / arm.name / "evaluate" / "scores.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    values = found["rows"][0] if "rows" in found else found
    return {
        "net": net,
        "scheme": scheme,
        "seed": seed,
        **{key: values[key] for key in SCORES if key in values},
        **{f"f1 {each['name']}": each["f1"] for each in found["classes"]},
        "multiply_adds_raw": 0 if arm.pretraining is None else multiply_adds(arm.pretraining),
        "multiply_adds_labels": multiply_adds(arm.training),
    }


def markdown(rows: Sequence[dict[str, object]]) -> str:
    """Return the table for people."""
    keys = [key for key in rows[0] if key == "f1_macro" or key.startswith("f1 ")]
    lines = [
        "| net | scheme | seeds | "
        + " | ".join(f"{key} | gain" for key in keys)
        + " | T multiply-adds raw + labels |",
        "|---|---|---|" + "---|---|" * len(keys) + "---|",
    ]
    for net in dict.fromkeys(str(row["net"]) for row in rows):
        own = [row for row in rows if row["net"] == net]
        means = {
            key: differences({(row["scheme"], row["seed"]): float(str(row[key])) for row in own}) for key in keys
        }  # type: ignore[misc]
        for scheme in dict.fromkeys(row["scheme"] for row in own):
            first = next(row for row in own if row["scheme"] == scheme)
            cells = [_cell(each) for key in keys for each in means[key][scheme]]  # type: ignore[index]
            cost = " + ".join(f"{int(str(first[f'multiply_adds_{of}'])) / 1e12:.2f}" for of in ("raw", "labels"))
            seeds = means[keys[0]][scheme][0].n  # type: ignore[index]
            lines.append(f"| {net} | {scheme} | {seeds} | " + " | ".join(cells) + f" | {cost} |")
    return "\n".join(lines) + "\n"


def _cell(mean: Replicated) -> str:
    half = mean.high - mean.value
    return f"{mean.value:.3f}" + (f" ± {half:.3f}" if isfinite(half) else "")


def main() -> None:
    """Run what is not done, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("variant", choices=("quick", "full"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--data", help="folder of the data sets; default: EMLOOM_DATA")
    parser.add_argument("--nets", nargs="+", choices=list(SCHEMES), default=list(SCHEMES))
    parser.add_argument("--schemes", nargs="+", default=[scheme for net in SCHEMES for scheme in SCHEMES[net]])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of each training; default: that of the variant")
    parser.add_argument("--percent", type=int, default=5, help="of the squares whose labels are known")
    parser.add_argument("--labels", help="volume of classes, 1 for the first; default: three that are prepared")
    parser.add_argument("--classes", nargs="+", help="names of the classes of --labels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--tables", action="store_true", help="only write tables of what is done")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder: Path = asked.output.absolute()
    where = Where(folder, asked.data, asked.percent)
    if asked.labels is not None:
        where = Where(folder, asked.data, asked.percent, asked.labels, tuple(asked.classes))
    recipe = quick if asked.variant == "quick" else full
    more = {} if asked.steps is None else {"steps": asked.steps}
    rows: list[dict[str, object]] = []
    for seed in asked.seeds:
        for net in asked.nets:
            for scheme in (each for each in SCHEMES[net] if each in asked.schemes):
                arm = recipe(net, scheme, seed, where, **more)
                if not asked.tables:
                    work(arm, folder, asked.threads, asked.accelerator)
                    log.info("%s done", arm.name)
                row = row_of(net, scheme, seed, arm, folder)
                rows += [] if row is None else [row]
                write(folder, rows)


def write(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write the tables of what is done."""
    if not rows:
        return
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "summary.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
