"""`emloom evaluate --compare`: several results in one table and one plot, scored against the same truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.io.files import explained
from emloom.io.tables import write_csv
from emloom.metrics.book import METRICS, Value
from emloom.metrics.classbook import CLASS_METRICS
from emloom.metrics.synapsebook import METRICS as SYNAPSE_METRICS
from emloom.metrics.synapsebook import SynapseValue
from emloom.run.provenance import environment
from emloom.view.curves import Trade, split_merge_plot
from emloom.view.figures import Figure
from emloom.view.report import Cell, Report, Section, Table

_VALUES: dict[str, Value | SynapseValue] = {
    value.key: value
    for entries in (METRICS, CLASS_METRICS, SYNAPSE_METRICS)
    for metric in entries.values()
    for value in metric.values
}
_OF_RULES = "enclosure_violation_"


@dataclass(frozen=True)
class Scored:
    """What `emloom evaluate` left in a folder.

    Attributes:
        name: of the folder, as short as it tells it from the others.
        row: the scores by key; None where one is not defined.
        sweep: the scores of other thresholds.
        truth: path and fingerprint of the truth.
    """

    name: str
    row: dict[str, Any]
    sweep: list[dict[str, Any]]
    truth: tuple[str, str]

    @property
    def n_voxels(self) -> int | None:
        """Voxels that were counted; None where none were."""
        return self.row.get("n_voxels")


def compare(folders: Sequence[str], output: str) -> Path:
    """Write `compare.csv` and `compare.html` about several evaluations; return the page.

    Args:
        folders: what `emloom evaluate` wrote, at least two.
        output: folder for the result; made where it is not there.

    Raises:
        InputError: fewer than two, a folder holds no scores, or they were made against different truths or voxels.
    """
    if len(folders) < 2:
        raise InputError(
            f"{len(folders)} result cannot be compared: give two folders of `emloom evaluate` or more"
        )
    results = [_load(Path(folder), name) for folder, name in zip(folders, _names(folders), strict=True)]
    first = results[0]
    for other in results[1:]:
        if other.truth[1] != first.truth[1]:
            raise InputError(
                f"{first.name} was scored against {first.truth[0]}, {other.name} against {other.truth[0]}, which "
                "is not the same or has changed since: score both against one truth"
            )
        if other.n_voxels != first.n_voxels:
            raise InputError(
                f"{first.name} counts {first.n_voxels} voxels, {other.name} {other.n_voxels}: their "
                "boxes, masks or ignored ids differ; score both with the same"
            )
    keys = [key for key in _VALUES if any(key in result.row for result in results)]
    keys += dict.fromkeys(key for result in results for key in result.row if key.startswith(_OF_RULES))
    folder = Path(output)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    columns = {"result": np.array([result.name for result in results])}
    write_csv(folder / "compare.csv", columns | {key: _column(results, key) for key in keys})
    _page(results, keys).write(folder / "compare.html")
    return folder / "compare.html"


def _names(folders: Sequence[str]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart."""
    parts = [Path(folder).absolute().parts for folder in folders]
    for depth in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{', '.join(folders)}: one folder is given twice")


def _load(folder: Path, name: str) -> Scored:
    try:
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        (row,) = scores["rows"]
        return Scored(name, row, scores.get("sweep", []), _truth(provenance["spec"], provenance["inputs"]))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"{folder} holds no scores of `emloom evaluate` ({type(problem).__name__}: {problem}): evaluate there "
            "first"
        ) from None


def _truth(spec: dict[str, Any], inputs: dict[str, str]) -> tuple[str, str]:
    """Return path and fingerprint of what was compared with: true labels, tracings, or both."""
    traced = spec.get("skeletons")
    paths = {"truth": spec.get("truth"), "skeletons": None if traced is None else traced["path"]}
    known = {name: path for name, path in paths.items() if path is not None}
    return " and ".join(known.values()), " ".join(inputs[name] for name in known)


def _column(results: Sequence[Scored], key: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if r.row.get(key) is None else r.row[key] for r in results], np.float64)


def _page(results: Sequence[Scored], keys: Sequence[str]) -> Report:
    rows: list[list[Cell]] = []
    for key in keys:
        value, column = _VALUES.get(key) or Value(key, key.replace("_", " "), "lower"), _column(results, key)
        distance = {"lower": column, "higher": -column}.get(value.better, abs(column))
        best = np.nan if np.isnan(column).all() else np.nanmin(distance)
        winners = ", ".join(r.name for r, v in zip(results, distance.tolist(), strict=True) if v == best)
        rows.append([value.title, *(r.row.get(key) for r in results), value.better, winners or "–"])
    names = [result.name for result in results]
    caption = "" if results[0].n_voxels is None else f"{results[0].n_voxels} voxels each"
    table = Table(["score", *names, "better", "best"], rows, caption)
    figures: list[Figure] = []
    trades = [_trade(result) for result in results if result.row.get("voi_split") is not None]
    if trades:
        caption = "Lines are other thresholds of the same merge tree; the legend gives VOI. Lower left is better."
        figures.append(split_merge_plot(trades, caption=caption))
    text = f"All were scored against {results[0].truth[0]}."
    return Report(
        title=" against ".join(names) if len(names) == 2 else f"{len(names)} results",
        subtitle=f"emloom {environment()['emloom']}",
        done="Results were scored against the same truth, and stand side by side.",
        sections=[Section("Comparison", text, figures, [table])],
        provenance={result.name: {"truth": result.truth[1], **result.row} for result in results},
    )


def _trade(result: Scored) -> Trade:
    sweep = [(point["voi_split"], point["voi_merge"]) for point in result.sweep]
    return Trade(result.name, result.row["voi_split"], result.row["voi_merge"], sweep)
