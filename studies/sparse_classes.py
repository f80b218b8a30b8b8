"""How best to learn a few classes from nine painted slices: all ways that the package has, in one table.

    python studies/sparse_classes.py quick -o sparse_classes
    python studies/sparse_classes.py quick -o sparse_vnc --data-set vnc
    python studies/sparse_classes.py full -o sparse_classes_full --processes 8 --accelerator auto

Runs `emloom.recipes.sparse_epfl` (or `sparse_vnc`) with every network, loss and pretraining, three seeds each,
every run in a folder of its own below ``jobs/``, so that a study that was stopped goes on where it was. For the
arms that `--crf` names (of `epfl`), a fully connected CRF is tuned in the validation region and applied to the
test block, too; that is scored as well. Then, from whatever is done::

    runs.csv      every score of every run
    summary.md    per arm: mean over seeds, with a 95 % interval (Student's t)
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, cast

from emloom.metrics.replicates import Replicated, replicated
from emloom.recipes import sparse_epfl, sparse_vnc
from emloom.recipes.painting import Loss
from emloom.tasks.classspec import ClassesSpec, ClassSpec
from emloom.tasks.data import BoxSpec

SEEDS = (0, 1, 2)
SCORES = {
    "f1_macro": "macro F1",
    "average_precision": "AP",
    "kappa": "kappa",
    "accuracy": "accuracy",
    "f1_macro_near": "F1 near interfaces",
    "ece": "ECE",
}
"""Columns of the table, by key of a score."""

log = logging.getLogger("sparse_classes")


class Arm(NamedTuple):
    """One way to learn."""

    words: str
    net: str | None = None
    """None: a random forest."""
    loss: Loss = "ce"
    features: str = "multiscale"
    pretrained: sparse_epfl.Pretext | None = None


ARMS = {
    "forest_intensity": Arm("forest, intensity alone", features="intensity"),
    "forest_original_8": Arm("forest, 8 features of neighbours", features="original_8"),
    "forest": Arm("forest, many scales"),
    "4_conv": Arm("4_conv@32", "4_conv"),
    "unet": Arm("3D U-Net", "unet"),
    "4_conv_centre": Arm("4_conv@32, pretrained on centres", "4_conv", pretrained="centre"),
    "4_conv_odd": Arm("4_conv@32, odd window", "4_conv_odd"),
    "4_conv_ln": Arm("4_conv_ln@32", "4_conv_ln"),
    "dilated": Arm("dilated@32", "dilated"),
    "res_valid": Arm("res_valid", "res_valid"),
    "4_conv_focal": Arm("4_conv@32, focal", "4_conv", "focal"),
    "4_conv_dice": Arm("4_conv@32, CE + Dice", "4_conv", "ce_dice"),
    "unet_dice": Arm("3D U-Net, CE + Dice", "unet", "ce_dice"),
    "dilated_16": Arm("dilated_16@16", "dilated_16"),
    "dilated_16_vae": Arm("dilated_16@16, pretrained as masked VAE", "dilated_16", pretrained="masked_vae"),
    "unet_masked": Arm("3D U-Net, pretrained on hidden blocks", "unet", pretrained="masked_blocks"),
    "4_conv_resnet": Arm("4_conv_resnet@32, padded", "4_conv_resnet"),
}
"""By name of their folders; what is most worth knowing comes first, for a study that is stopped."""


RECIPES: dict[str, Any] = {"epfl": sparse_epfl, "vnc": sparse_vnc}
"""Modules of recipes by data set; they have the same functions."""


def arms_of(data_set: str) -> list[str]:
    """Return the arms that a data set has a recipe for."""
    if data_set == "epfl":
        return list(ARMS)
    nets = RECIPES[data_set].NETWORKS
    return [name for name, arm in ARMS.items() if arm.pretrained is None and (arm.net is None or arm.net in nets)]


class Run(NamedTuple):
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}_{self.seed}"


@dataclass(frozen=True)
class Study:
    """How a study is done.

    Attributes:
        data_set: one of `RECIPES`.
        variant: `quick` or `full`.
        folder: of the study.
        data: the folder of the data sets.
        accelerator: `cpu`, or `auto` for a GPU.
        threads: of each job.
        steps: of every training; None: those of the variant.
    """

    data_set: str
    variant: str
    folder: Path
    data: str | None
    accelerator: str
    threads: int
    steps: int | None

    @property
    def recipe(self) -> Any:
        """The module of its recipes."""
        return RECIPES[self.data_set]

    def path(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / "jobs" / run.name

    def job(self, run: Run) -> Any:
        """Return the job of a run."""
        arm, where, recipe = ARMS[run.arm], str(self.folder), self.recipe
        if arm.net is None:
            return recipe.forest(recipe.features(arm.features), run.seed, where, self.data)
        make: Callable[..., Any] = recipe.quick if self.variant == "quick" else recipe.full
        steps = {} if self.steps is None else {"steps": self.steps}
        job = make(arm.net, arm.loss, run.seed, where, self.data, **steps)
        return job if arm.pretrained is None else recipe.after(job, self.pretext(run) / recipe.CHECKPOINT)

    def pretext(self, run: Run) -> Path:
        """Return the folder of the pretraining of a run."""
        return self.folder / "pretraining" / run.name


def work(study: Study, run: Run) -> str:
    """Do one run, or what is left of it."""
    import torch

    from emloom.nn.hardware import Hardware
    from emloom.tasks.anyjob import Where, carry_out

    torch.set_num_threads(study.threads)
    where = Where(Hardware(accelerator=study.accelerator))
    arm = ARMS[run.arm]
    started = time.perf_counter()
    if arm.pretrained is not None:
        assert arm.net is not None
        how = {"steps": study.steps or (300 if study.variant == "quick" else 3000)}
        how["crops"] = 4 if study.variant == "quick" else 16
        first = sparse_epfl.pretraining(
            arm.pretrained, cast(sparse_epfl.Net, arm.net), run.seed, study.data, **how
        )
        carry_out(first, study.pretext(run), where, only_train=True)
    carry_out(study.job(run), study.path(run), where)
    return f"{run.name} in {time.perf_counter() - started:.0f} s"


def refined(study: Study, run: Run) -> None:
    """Tune a CRF in the validation region of a finished run, and score the refined test block."""
    from emloom.tasks.classscoring import evaluate_classes
    from emloom.tasks.predict import PredictJob, predict_volume
    from emloom.tasks.refine import RefineJob, refine
    from emloom.tasks.refinesearch import SearchJob, search

    path, recipe = study.path(run), sparse_epfl
    stack = recipe.stack(str(study.folder), study.data)
    folder, box = path / "crf", recipe.TUNED_ON
    if (path / "evaluate_crf" / "scores.json").exists():
        return
    shown = BoxSpec(start=box.start, shape=box.shape)
    model, validation = str(path / recipe.CHECKPOINT), folder / "validation.zarr"
    predict_volume(PredictJob(raw=stack.raw, model=model, output=str(validation), box=shown), discard=True)
    truth = recipe.write_truth(study.folder / "labels", folder / "truth.zarr", box)
    found = search(
        SearchJob(
            predicted=str(validation / "classes"),
            raw=stack.raw,
            truth=truth,
            output=str(folder / "search"),
            compatibility=recipe.PENALTIES,
            trials=12,
        )
    )
    before, after = path / "predict" / "s0_test_0.zarr" / "classes", folder / "test.zarr"
    refine(RefineJob(predicted=str(before), raw=stack.raw, output=str(after), crf=found.crf), discard=True)
    how = study.job(run).scoring
    evaluate_classes(
        ClassSpec(
            predicted=str(after / "classes"),
            truth=str(path / "evaluate" / "s0_test_0.zarr" / "truth"),
            output=str(path / "evaluate_crf"),
            metrics=how.metrics,
            classes=ClassesSpec(names=recipe.CLASSES, ignore=(255,)),
            near=how.near,
            bootstrap=how.bootstrap,
        )
    )


def collect(study: Study, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per finished run: its scores, and F1 of every class."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        for suffix in ("", "_crf"):
            path = study.path(run) / f"evaluate{suffix}" / "scores.json"
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                of_classes = {each["name"]: each["f1"] for each in found["classes"]}
                scores = {key: found["rows"][0][key] for key in SCORES}
                interval = found["intervals"]["f1_macro"]
                ends = {"f1_low": interval["low"], "f1_high": interval["high"]}
                rows.append({"arm": run.arm + suffix, "seed": run.seed, **scores, **ends, **of_classes})
    return rows


def write_tables(folder: Path, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """Write the tables of what is done."""
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "summary.md").write_text(markdown(rows, classes), encoding="utf-8")


def markdown(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> str:
    """Return two tables for people: scores, and F1 of every class."""
    arms = [name for arm in ARMS for name in (arm, f"{arm}_crf") if any(row["arm"] == name for row in rows)]
    tables = []
    for columns in (SCORES, {name: name.replace("_", " ") for name in classes}):
        lines = ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
        for arm in arms:
            of_arm = [row for row in rows if row["arm"] == arm]
            cells = [_cell(replicated([_number(row[key]) for row in of_arm])) for key in columns]
            lines.append(f"| {_words(arm)} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def _words(arm: str) -> str:
    name = arm.removesuffix("_crf")
    return ARMS[name].words + (" + CRF" if arm != name else "")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _cell(mean: Replicated) -> str:
    if mean.n < 2:
        return f"{mean.value:.3f} (1 seed)"
    return f"{mean.value:.3f} ± {mean.high - mean.value:.3f}"


def main() -> None:
    """Run what is not done, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("variant", choices=("quick", "full"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--data", help="folder of the data sets; default: EMLOOM_DATA")
    parser.add_argument("--data-set", choices=list(RECIPES), default="epfl")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), help="default: all that the data set has")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--crf", nargs="*", choices=list(ARMS), default=[], help="arms to refine as well")
    parser.add_argument("--accelerator", choices=("cpu", "auto"), default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--steps", type=int, help="of every training; default: those of the variant")
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    parser.add_argument("--tables", action="store_true", help="only write tables of what is done")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder: Path = asked.output.absolute()
    study = Study(asked.data_set, asked.variant, folder, asked.data, asked.accelerator, asked.threads, asked.steps)
    runs = [Run(arm, seed) for arm in asked.arms or arms_of(asked.data_set) for seed in asked.seeds]
    if not asked.tables:
        carry_out(study, runs, asked.processes, asked.minutes)
        for run in runs:
            if run.arm in asked.crf and (study.path(run) / "report.html").exists():
                refined(study, run)
    rows = collect(study, runs)
    if not rows:
        raise SystemExit("no run is finished, so there is no table")
    write_tables(folder, rows, study.recipe.CLASSES)


def carry_out(study: Study, runs: Sequence[Run], processes: int, minutes: float | None) -> None:
    """Do runs side by side; a run that fails is named, and the others go on."""
    study.recipe.stack(str(study.folder), study.data)  # prepared before runs that are side by side would
    end = None if minutes is None else time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(work, study, run): run for run in runs}
        for done, each in enumerate(as_completed(pending), start=1):
            if each.cancelled():
                continue
            if each.exception() is not None:
                log.error("%s failed: %s", pending[each].name, each.exception())
            else:
                log.info("%s, %d of %d", each.result(), done, len(runs))
            if end is not None and time.monotonic() > end:
                for other in pending:
                    other.cancel()


if __name__ == "__main__":
    main()
