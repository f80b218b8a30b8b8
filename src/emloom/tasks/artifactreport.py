"""The report of a job that finds artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.tasks.scorefiles import read_rows
from emloom.view.colours import grey
from emloom.view.figures import Figure, Tile, panel
from emloom.view.patchmaps import heated, outlined
from emloom.view.report import Cell, Command, Link, Report, Score, Section, Table, Verdict, page_below

_COLUMNS = {
    "scene": "scene",
    "n_positive": "with",
    "n_negative": "without",
    "called_share": "called",
    "average_precision": "AP",
    "roc_auc": "ROC AUC",
    "precision": "precision",
    "recall": "recall",
    "false_positives_per_section": "FP a section",
    "false_positives_per_mm2": "FP a mm²",
    "object_f1": "object F1",
    "section_f1": "section F1",
}


@dataclass(frozen=True)
class Shown:
    """A section of a scene as the report shows it.

    Attributes:
        name: of the scene.
        section: number of the section (z) in its volume.
        raw: [Y, X].
        spacing_nm: voxel size (y, x).
        corners: int64 [N, 2], first voxel (y, x) of each patch in the picture.
        probabilities: float64 [N].
        true_corners: int64 [M, 2], of patches that hold an artifact.
        patch: voxels (y, x) of a patch.
    """

    name: str
    section: int
    raw: NDArray[Any]
    spacing_nm: tuple[float, float]
    corners: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    true_corners: NDArray[np.int64]
    patch: tuple[int, int]


def write_artifact_report(
    name: str, looked_for: str, folder: Path, shown: Sequence[Shown], provenance: dict[str, Any]
) -> Path:
    """Write `report.html` of a job; return its path.

    Args:
        name: of the job.
        looked_for: the first class.
        folder: of the job, with `evaluate/scores.json`.
        shown: one section of every scene.
        provenance: of the job.
    """
    rows = read_rows(folder / "evaluate")
    report = Report(
        title=name,
        subtitle=f"{looked_for} · {folder}",
        done=f"A network was trained to find {looked_for}, and judged on scenes that it had not seen.",
        verdict=_verdict(rows[0]),
        scores=_cards(rows[0]),
        sections=[_scores(rows), _pictures(shown), _next_steps(folder)],
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _cards(together: dict[str, Any]) -> list[Score]:
    return [
        Score("average precision", together["average_precision"], f"chance {together['prevalence']:.3f}"),
        Score("precision", together["precision"], f"at recall {together['recall']:.2f}, threshold of validation"),
        Score("false positives a section", together["false_positives_per_section"], "patches"),
        Score("F1 of objects", together["object_f1"], "both sides clustered"),
    ]


def _verdict(together: dict[str, Any]) -> Verdict:
    found, chance = together["average_precision"], together["prevalence"]
    if found is None or not isfinite(found):
        return Verdict("The scenes hold only clean, or only unknown patches: nothing can be judged.", "warning")
    text = f"Average precision is {found:.3f}, where chance gives {chance:.3f}"
    if found > chance:
        return Verdict(f"{text}.")
    return Verdict(f"{text}: do not use this model.", "bad")


def _pictures(shown: Sequence[Shown]) -> Section:
    text = (
        "One section of every scene, the one in which most is to be found or was found. The redder, the "
        "likelier an "
        "artifact, mean of the patches over a voxel; outlined: patches that do hold one."
    )
    return Section("What it looks like", text, [_picture(each) for each in shown])


def _picture(each: Shown) -> Figure:
    image = grey(each.raw)
    truth = outlined(image, each.true_corners, each.patch)
    tiles = [
        Tile("raw", image, each.spacing_nm),
        Tile("emloom, and truth", heated(truth, each.corners, each.probabilities, each.patch), each.spacing_nm),
    ]
    largest = each.probabilities.max(initial=0.0)
    words = f"{each.name}, z = {each.section}; largest probability {largest:.3f}"
    return panel(tiles, alt=f"{words}: raw, and the map of artifacts over it.", caption=words)


def _scores(rows: Sequence[dict[str, Any]]) -> Section:
    columns = [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
    cells: list[list[Cell]] = [[row.get(key) for key in columns] for row in rows]
    text = (
        "Patches, at the threshold that was chosen on the validation boxes. Where a scene holds only clean or "
        "only "
        "unknown patches, it says how many are called. Every scene with both has a page of its own, with "
        "intervals."
    )
    return Section(
        "Every scene", text, tables=[Table([_COLUMNS[key] for key in columns], cells, "held-out scenes")]
    )


def _next_steps(folder: Path) -> Section:
    line = f"emloom artifacts predict raw.zarr --model {folder}/train/model.safetensors -o map.zarr"
    return Section(
        "Go on",
        "Threshold and calibration are in evaluate/operating.json.",
        links=[Link("Intervals, curves, calibration", page_below("evaluate", "all"))],
        commands=[Command("Map a volume", line)],
    )
