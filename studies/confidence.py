"""Do the doubts of `emloom confidence` find real errors? A small network, held-out boxes, and the truth.

    python studies/confidence.py -o FOLDER [--sets fib25 snemi3d] [--seed 0] [--page docs/confidence.md]

A lean network is trained for a few hundred steps on the training boxes of a real set; the threshold is the one
with the lowest sum of the variations of information on the validation boxes; the test boxes are segmented at it,
looked at, and only then compared with the truth. What is done stays done; the folder is that of one seed.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from emloom.io.open import open_volume
from emloom.io.tables import read_table
from emloom.metrics.curves import roc_auc
from emloom.metrics.overlap import overlap_scores
from emloom.metrics.ranking import ranking
from emloom.ops.contacts import contacts_of, rows_of_pairs
from emloom.ops.doubts import tile_counts, tile_worst
from emloom.tasks.choicetruth import judged_choices
from emloom.tasks.confidence import confidence
from emloom.tasks.confidenceblocks import VOLUME, Doubted
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.evaluate import truth_in
from emloom.tasks.lookhere import read_places
from emloom.tasks.segment import load_segmented
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob

STEPS = {"fib25": 300, "snemi3d": 400}
TITLES = {"fib25": "FIB-25", "snemi3d": "SNEMI3D"}
ORIENTATIONS = {"fib25": 4, "snemi3d": 4}
THRESHOLDS = tuple(round(0.3 + 0.05 * k, 2) for k in range(11))
LOOKS = (10, 20, 50)
LEAST = 500
BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"

log = logging.getLogger("study")


@dataclass(frozen=True)
class Study:
    """Where one seed of one set is done."""

    name: str
    folder: Path
    data: str | None
    seed: int

    @property
    def job(self) -> Any:
        """The training job."""
        recipe = import_module(f"emloom.recipes.{self.name}")
        return recipe.quick(seed=self.seed, data=self.data, steps=STEPS[self.name])

    @property
    def stack(self) -> Any:
        """The stack and its split."""
        return self.job.data[0]

    def boxes(self, part: str) -> list[tuple[str, Any]]:
        """Return (name, box) of the boxes of a part."""
        return [(f"{part}{k}", box) for k, box in enumerate(getattr(self.stack, part))]

    def train(self) -> Path:
        """Train, or find what was trained; return the checkpoint."""
        import torch

        from emloom.nn.hardware import Hardware
        from emloom.tasks.anyjob import Where, carry_out

        torch.set_num_threads(1)
        carry_out(self.job, self.folder, Where(Hardware(accelerator="cpu", workers=0)), only_train=True)
        return self.folder / "train" / "model.safetensors"

    def predict(self, model: Path, name: str, box: Any, orientations: int) -> str:
        """Predict a box, or find what was predicted; return the path of the affinities."""
        from emloom.nn.engine import Engine
        from emloom.nn.hardware import Hardware
        from emloom.tasks.predict import PredictJob, predict_volume

        output = self.folder / f"{name}_tta{orientations}.zarr"
        engine = Engine.of(Hardware("cpu").torch_device, "torch", "32")
        job = PredictJob(
            raw=self.stack.raw, model=str(model), output=str(output), box=box, orientations=orientations
        )
        predict_volume(job, engine)
        return str(output / "affinities")

    def cut(self, affinities: str, name: str, threshold: float) -> Path:
        """Segment at a threshold; return the container."""
        output = self.folder / f"seg_{name}_{threshold:g}.zarr"
        spec = self.job.segmentation
        segment(SegmentJob(affinities=affinities, output=str(output), threshold=threshold, segmentation=spec))
        return output

    def threshold(self, model: Path) -> float:
        """Return the threshold that the validation boxes choose."""
        labels = open_volume(self.stack.labels, kind="labels")
        sums = np.zeros(len(THRESHOLDS))
        for name, box in self.boxes("validation"):
            made = load_segmented(self.cut(self.predict(model, name, box, 1), name, 0.5))
            table = truth_in(labels, None, box.box, 0, False).tables(made.fragments).plain
            sums += [overlap_scores(table.relabelled(*made.tree.table(t))).voi_sum for t in THRESHOLDS]
        return THRESHOLDS[int(np.argmin(sums))]


def scored(study: Study) -> list[dict[str, Any]]:
    """Return a row per test box and kind of evidence."""
    model = study.train()
    threshold = study.threshold(model)
    log.info("%s: threshold %g", study.name, threshold)
    rows = []
    for name, box in study.boxes("test"):
        first = study.predict(model, name, box, 1)
        second = study.predict(model, name, box, ORIENTATIONS[study.name])
        made = study.cut(first, name, threshold)
        for what, other in (("margin alone", None), (f"and {ORIENTATIONS[study.name]} orientations", second)):
            output = study.folder / f"confidence_{name}_{'one' if other is None else 'two'}"
            job = ConfidenceJob(
                segmentation=str(made), output=str(output), second=other, raw=study.stack.raw,
                least_vox=LEAST, places=10_000,
            )  # fmt: skip
            confidence(job, discard=True)
            row = {"set": study.name, "box": name, "what": what, "threshold": threshold, "seed": study.seed}
            rows.append(row | scores_of(job, study.stack.labels))
    return rows


def scores_of(job: ConfidenceJob, truth: str) -> dict[str, Any]:
    """Return how well the doubts of a box tell where it is wrong."""
    judged = judged_choices(job.output, job.segmentation, truth)
    choices = read_table(Path(job.output) / "choices.parquet")
    size = np.minimum(choices["size_a"], choices["size_b"])
    row: dict[str, Any] = {}
    for kind, chosen in (
        ("all", choices["merged"] >= 0),
        ("merges", choices["merged"]),
        ("gaps", ~choices["merged"]),
    ):
        for side, least in (("every", 0), ("large", LEAST)):
            rows = np.flatnonzero(judged.known & chosen & (size >= least))
            wrong = judged.wrong[rows]
            row[f"n_{kind}_{side}"], row[f"wrong_{kind}_{side}"] = len(rows), int(wrong.sum())
            row[f"auc_{kind}_{side}"] = _auc(choices["doubt"][rows], wrong)
            row[f"expected_{kind}_{side}"] = float(choices["doubt"][rows].sum() / 255)
    row["auc_tiles"], row["tiles"], row["tiles_wrong"] = _tiles(job, judged.wrong & (size >= LEAST))
    return row | _looks(job, judged, size)


def _auc(values: Any, wrong: Any) -> float:
    if not wrong.any() or wrong.all():
        return float("nan")
    return roc_auc(ranking(values.astype(np.float64), wrong.astype(np.uint8)))


def _tiles(job: ConfidenceJob, wrong: Any) -> tuple[float, int, int]:
    """Return the AUC of tiles for whether a wrong choice shows in them, their number, and how many do."""
    site = Doubted(job, Path(job.output))
    volume = site.fragments()
    affinities = site.affinities()[0].info.neighborhood
    assert affinities is not None
    fragments = volume.read(volume.info.box)
    contacts = contacts_of(fragments, affinities)
    edges = read_table(Path(job.output) / "doubts.parquet")
    row = rows_of_pairs(edges["u"], edges["v"], contacts)
    marks = np.where(row >= 0, 255 * wrong[edges["choice"][np.maximum(row, 0)]], 0).astype(np.uint8)
    first, shape = site.tiles_of(volume.info.box)
    true = tile_worst(contacts, marks, site.tile, first, shape) > 0
    seen = tile_counts(fragments, site.tile) > 0
    sure = open_volume(Path(job.output) / VOLUME)
    doubt = 255 - sure.read(sure.info.box).astype(np.int64)
    return _auc(doubt[seen], true[seen]), int(seen.sum()), int(true[seen].sum())


def _looks(job: ConfidenceJob, judged: Any, size: Any) -> dict[str, Any]:
    """Return how many wrong choices the first looks find: by the list, by size, and by chance."""
    edges = read_table(Path(job.output) / "doubts.parquet")
    of_pair = {(int(u), int(v)): int(c) for u, v, c in zip(edges["u"], edges["v"], edges["choice"], strict=True)}
    listed = [of_pair.get(p.fragments, -1) for p in read_places(job.output)]
    large = np.flatnonzero(size >= LEAST)
    by_size = large[np.argsort(-size[large], kind="stable")]
    total = int(judged.wrong[large].sum())
    out: dict[str, Any] = {"look_total": total, "look_choices": len(large)}
    for n in LOOKS:
        out[f"list_{n}"] = sum(bool(judged.wrong[c]) for c in listed[:n] if c >= 0)
        out[f"size_{n}"] = int(judged.wrong[by_size[:n]].sum())
        out[f"chance_{n}"] = total * min(n, len(large)) / max(1, len(large))
    return out


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the tables for people."""
    head = [
        "set and box",
        "evidence",
        "choices",
        "wrong",
        "wrong as judged",
        "AUC",
        "AUC merges",
        "AUC gaps",
        "AUC tiles",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in rows:
        cells = [f"{TITLES[r['set']]}, {r['box']}", r["what"], r["n_all_large"], r["wrong_all_large"]]
        cells += [f"{r['expected_all_large']:.0f}"]
        cells += [_three(r[k]) for k in ("auc_all_large", "auc_merges_large", "auc_gaps_large", "auc_tiles")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    head = ["set and box", "evidence", "wrong in all"]
    head += [f"{n} looks: {how}" for n in LOOKS for how in ("list", "size", "chance")]
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in rows:
        cells = [f"{TITLES[r['set']]}, {r['box']}", r["what"], f"{r['look_total']} of {r['look_choices']}"]
        for n in LOOKS:
            cells += [f"**{r[f'list_{n}']}**", r[f"size_{n}"], f"{r[f'chance_{n}']:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    said = {(r["set"], r["seed"], r["threshold"]): None for r in rows}
    told = "; ".join(f"{TITLES[s]}: {STEPS[s]} steps, seed {seed}, threshold {t:g}" for s, seed, t in said)
    return "\n".join([*lines, "", f"{told}. Choices whose smaller side has {LEAST} voxels or more.", ""])


def _three(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


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
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study, of one seed")
    parser.add_argument("--data", help="folder of the data sets; default: EMLOOM_DATA")
    parser.add_argument("--sets", nargs="*", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="page whose tables are replaced: docs/confidence.md")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder: Path = asked.output.absolute()
    rows = []
    for name in asked.sets:
        rows += scored(Study(name, folder / name, asked.data, asked.seed))
        log.info("\n%s", markdown(rows))
    (folder / "scores.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(markdown(rows), encoding="utf-8")
    if asked.page is not None:
        put_into(asked.page, markdown(rows))


if __name__ == "__main__":
    main()
