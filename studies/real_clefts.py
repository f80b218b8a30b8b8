"""How well clefts are found in three real stacks: every quarter is tested by a network that never saw it.

    python studies/real_clefts.py quick -o real_clefts --page docs/study-clefts.md
    python studies/real_clefts.py full -o real_clefts_full --accelerator auto

Runs `emloom.recipes.real_clefts`, four folds of each stack, every run in a folder of its own below ``jobs/``, so
that a study that was stopped goes on where it was; ``--folds`` leaves some to another call. Then, of all that is::

    scores.json   every number, and the rule that each fold chose on its validation box
    summary.md    the tables of docs/study-clefts.md

Beside the networks stands a baseline that learns nothing: voxels whose surroundings are dark, with threshold and
least size chosen on the same validation boxes.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emloom.io.open import open_volume
from emloom.metrics.cleftobjects import ObjectTally, object_intervals
from emloom.recipes import real_clefts
from emloom.recipes.cleftfolds import Fold, Rule, assembled, choose, dark_blobs, score
from emloom.recipes.real_clefts import FOLDS, SETS, SetName, Variant

BASELINE = "dark blobs"
BEGIN, END = "<!-- tables of studies/real_clefts.py -->", "<!-- end of tables -->"
TITLES = {
    "isbi": "isbi2012_cardona, whole synapses",
    "vnc": "vnc_sstem, densities",
    "epfl": "epfl_hippocampus, PSDs",
}

log = logging.getLogger("real_clefts")


@dataclass(frozen=True)
class Study:
    """How a study is done.

    Attributes:
        variant: `quick` or `full`.
        folder: of the study.
        data: the folder of the data sets.
        accelerator: `cpu`, or `auto` for a GPU.
        steps: of every training; None: those of the variant.
        seed: of weights and crops.
        target: what networks say of a voxel.
    """

    variant: str
    folder: Path
    data: str | None
    accelerator: str
    steps: int | None
    seed: int
    target: Variant

    def path(self, name: SetName, fold: int) -> Path:
        """Return the folder of a run."""
        return self.folder / "jobs" / f"{name}_{self.target}_{fold}_{self.seed}"

    def job(self, name: SetName, fold: int) -> Any:
        """Return the job of a run."""
        make = real_clefts.quick if self.variant == "quick" else real_clefts.full
        more = {} if self.steps is None else {"steps": self.steps}
        return make(name, fold, self.seed, self.data, variant=self.target, **more)

    def done(self, name: SetName, fold: int) -> bool:
        """Whether a run is finished."""
        return (self.path(name, fold) / "report.html").exists()


def work(study: Study, name: SetName, fold: int, threads: int) -> None:
    """Do one run, or what is left of it."""
    import torch

    from emloom.nn.hardware import Hardware
    from emloom.tasks.anyjob import Where, carry_out

    torch.set_num_threads(threads)
    started = time.perf_counter()
    hardware = Hardware(accelerator=study.accelerator, workers=0 if study.accelerator == "cpu" else 1)
    carry_out(study.job(name, fold), study.path(name, fold), Where(hardware))
    log.info("%s, fold %d: %.0f s", name, fold, time.perf_counter() - started)


def scored(study: Study, name: SetName) -> list[dict[str, Any]]:
    """Return the rows of a stack: the networks, if all folds are done, and the baseline."""
    spec = real_clefts.stack(name, 0, study.data)
    raw, labels = open_volume(spec.raw), open_volume(str(spec.labels), kind="labels")
    truth, size = labels.read(labels.info.box), raw.info.grid.voxel_size_nm
    this = SETS[name]
    dark = dark_blobs(raw.read(raw.info.box), size, this.blob_nm, this.grey)
    rows = []
    complete = all(study.done(name, fold) for fold in range(FOLDS))
    for what in (*([f"network, {study.target}"] if complete else []), BASELINE):
        folds = []
        for fold in range(FOLDS):
            split = real_clefts.stack(name, fold, study.data)
            quarter, held = split.test[0].box, split.validation[0].box
            if what == BASELINE:
                seen, tested = dark[held.slices()], dark[quarter.slices()]
            else:
                seen, tested = (predicted(study.path(name, fold), part) for part in ("validation", "test"))
            folds.append(Fold(quarter, tested, choose(seen, truth[held.slices()])))
        objects, voxels = score(assembled(folds, truth.shape), truth, size)
        rules = [asdict(fold.rule) for fold in folds]
        rows.append({"set": name, "what": what, "rules": rules, **_plain(objects), "cremi": _plain(voxels)})
    return rows


def predicted(path: Path, part: str) -> Any:
    """Return the prediction of the one box of a part, uint8 [Z, Y, X]."""
    volume = open_volume(path / "predict" / f"s0_{part}_0.zarr" / "clefts")
    return np.squeeze(volume.read(volume.info.box))


def _plain(scores: Any) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(scores).items() if name != "tolerant"}
    return {name: None if isinstance(v, float) and v != v else v for name, v in kept.items()}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the tables for people."""
    head = ["", "", "right", "wrong", "missed", "precision", "recall", "F1", "CREMI (nm)", "ADGT", "ADF"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [TITLES[row["set"]], row["what"], *(str(row[k]) for k in ("tp", "fp", "fn"))]
        cells += [_interval(row, k) for k in ("precision", "recall", "f1")]
        cells += [_nm(row["cremi"][k]) for k in ("cremi_score_nm", "adgt_nm", "adf_nm")]
        lines.append("| " + " | ".join(cells) + " |")
    for what in dict.fromkeys(row["what"] for row in rows):
        if sum(row["what"] == what for row in rows) < len(SETS):
            continue
        tally = ObjectTally.pooled(ObjectTally(r["tp"], r["fp"], r["fn"]) for r in rows if r["what"] == what)
        found = object_intervals(tally)
        row = {k: v.value for k, v in found.items()}
        row |= {f"{k}_{end}": getattr(v, end) for k, v in found.items() for end in ("low", "high")}
        cells = ["all together", what, str(tally.tp), str(tally.fp), str(tally.fn)]
        cells += [_interval(row, k) for k in ("precision", "recall", "f1")]
        lines.append("| " + " | ".join([*cells, "", "", ""]) + " |")
    rules = ["", "| | | " + " | ".join(f"fold {k}" for k in range(FOLDS)) + " |", "|---" * (FOLDS + 2) + "|"]
    for row in rows:
        cells = [TITLES[row["set"]], row["what"], *(_rule(Rule(**rule)) for rule in row["rules"])]
        rules.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *rules]) + "\n"


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None or row[name] != row[name]:
        return "–"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f}" + ("" if low is None or low != low else f" ({low:.2f} to {high:.2f})")


def _nm(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _rule(rule: Rule) -> str:
    return f"{rule.level}/255, {rule.least_vox} voxels, F1 {rule.f1:.2f}"


def put_into(page: Path, tables: str) -> None:
    """Replace what stands between the two marks of a page."""
    before, first, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, last, after = rest.partition(END)
    if not (first and last):
        raise SystemExit(f"{page} has no place for tables: they go between {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Run what is not done, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("variant", choices=("quick", "full"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--data", help="folder of the data sets; default: EMLOOM_DATA")
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument(
        "--folds", nargs="*", type=int, default=list(range(FOLDS)), help="to run now; default: all"
    )
    parser.add_argument("--target", choices=("mask", "distance"), default="mask")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of every training; default: those of the variant")
    parser.add_argument("--accelerator", choices=("cpu", "auto"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    parser.add_argument("--page", type=Path, help="page whose tables are replaced: docs/study-clefts.md")
    parser.add_argument("--tables", action="store_true", help="only write tables of what is done")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder: Path = asked.output.absolute()
    study = Study(asked.variant, folder, asked.data, asked.accelerator, asked.steps, asked.seed, asked.target)
    end = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    for name in [] if asked.tables else asked.sets:
        for fold in asked.folds:
            if not study.done(name, fold) and (end is None or time.monotonic() < end):
                work(study, name, fold, asked.threads)
    if not asked.tables and len(asked.folds) < FOLDS:
        return  # another call may be at work on the others
    rows = [row for name in asked.sets for row in scored(study, name)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(markdown(rows), encoding="utf-8")
    if asked.page is not None:
        put_into(asked.page, markdown(rows))


if __name__ == "__main__":
    main()
