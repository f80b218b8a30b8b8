"""The page of a folder of `emloom synapses`: what was detected, how sure it is, and what a threshold would do.

Reads ``synapses.parquet`` and ``provenance.json`` of the folder; writes ``report.html`` and ``neuroglancer.json``
there. With a truth, detections are told right from wrong, what is missed is shown, and a threshold is sought.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.io.synapsetable import SYNAPSES, read_synapse_table
from emloom.tasks.sweepsection import sweep_section
from emloom.tasks.synapsegallery import Backdrop, backdrop_of, gallery, spread
from emloom.tasks.synapsejudged import Judged, judge
from emloom.tasks.synapselines import LINES, STATE, by_score, write_state
from emloom.view.figures import Figure
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict, show
from emloom.view.sweepcurves import kept_plot, score_histogram

SHOWN = 8
"""Pictures of the best, of the median and of the worst detections, and of missed synapses: of each so many."""

_THRESHOLDS = tuple(k / 10 for k in range(10))
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What the page is about."""

    table: SynapseTable
    judged: Judged | None
    backdrop: Backdrop | None
    remarks: tuple[str, ...]


def write_synapses_page(
    folder: Path, raw: str | None, segmentation: str | None, truth: str | None, counted: Section | None = None
) -> Path:
    """Write `report.html` and `neuroglancer.json` into a folder of detected synapses; return the path of the page.

    Args:
        folder: holds `synapses.parquet` and `provenance.json`.
        raw: raw volume, to be drawn; None: no pictures.
        segmentation: the neurons between which synapses were found, to be outlined.
        truth: true synapses: a CREMI file, a table, or a folder that holds one. Sites are looked up in the
            neuron ids of a CREMI file that has them, else in the segmentation; where there is neither, nothing is
            judged, and the page says so.
        counted: what was counted on the way, to be shown after the pictures.

    Raises:
        InputError: a file is missing or damaged.
    """
    place = folder.absolute()
    table = read_synapse_table(place / SYNAPSES)
    provenance = _provenance(place)
    judged, why = judge(table, truth, segmentation)
    backdrop, remarks = backdrop_of(raw, segmentation)
    scene = _Scene(table, judged, backdrop, (*why, *remarks))
    write_state(place, table)
    report = Report(
        title=f"Synapses of {Path(raw or segmentation or str(place)).name}",
        subtitle=raw or "",
        done="Synapses were detected, and each was given its neuron on both sides.",
        verdict=_verdict(scene),
        scores=_cards(scene),
        sections=[
            *_galleries(scene),
            *([] if counted is None else [counted]),
            _scores(scene),
            *_swept(scene),
            _numbers(table),
            _viewer(place, raw, segmentation),
        ],
        provenance=provenance,
    )
    report.write(place / "report.html")
    return place / "report.html"


def _provenance(folder: Path) -> Mapping[str, Any]:
    path = folder / "provenance.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a folder of emloom synapses")
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise InputError(f"{path} is damaged ({problem}): make the folder again") from problem
    if not isinstance(words, dict):
        raise InputError(f"{path} is damaged: it should hold names and values")
    return words


def _verdict(scene: _Scene) -> Verdict:
    n, judged = len(scene.table), scene.judged
    if not n:
        return Verdict("No synapse was detected: look at the probabilities, or lower the threshold.", "warning")
    contacts = f"{show(n)} contact{'s' * (n > 1)}"
    if judged is None:
        return Verdict(f"{contacts} were detected; there is no truth to judge them by.")
    scores = judged.scores
    right = f"{scores.precision:.0%} of {contacts} are right, {scores.recall:.0%} of the true ones were found"
    return Verdict(f"{right} (partner F-score {scores.fscore:.3f}).")


def _cards(scene: _Scene) -> list[Score]:
    table, judged = scene.table, scene.judged
    pairs = np.unique(np.stack([table.pre_segments, table.post_segments], axis=1), axis=0)
    cards = [
        Score("contacts", len(table), "of a pre with a post site"),
        Score("pre sites", int(np.unique(table.polyads).size), "with one or more contacts"),
        Score("pairs of neurons", len(pairs), "joined by a contact"),
    ]
    if judged is None:
        return [*cards, Score("median score", float(np.median(table.scores)) if len(table) else None, "0 to 1")]
    scores = judged.scores
    note = f"all detections; precision {scores.precision:.3f}, recall {scores.recall:.3f}"
    cards.append(Score("partner F-score", scores.fscore, note))
    if judged.sweep is not None:
        best = judged.sweep.chosen
        cards.append(Score(f"best F{judged.sweep.beta:g}", best.fbeta, f"scores of at least {best.threshold:.3g}"))
    return cards


def _galleries(scene: _Scene) -> list[Section]:
    table = scene.table
    if not len(table):
        text = "No synapse was detected.\n\n" + "\n\n".join(scene.remarks)
        return [Section("Detections", text), *_missed(scene)]
    groups = spread(by_score(table), SHOWN)
    shown = sum(map(len, groups.values()))
    text = f"{shown} of {len(table)} contacts by their score, from the highest to the lowest"
    text += ", and those around the median." if len(groups) > 1 else "."
    text += " All are in synapses.parquet."
    if scene.judged is not None:
        text += " A detection is right where it has a match in the truth."
    figures: list[Figure] = []
    for name, rows in groups.items():
        figure = _pictures(scene, table, rows, f"{name.capitalize()} detections by score.", scene.judged)
        figures += [] if figure is None else [figure]
    text = "\n\n".join([text, *scene.remarks])
    return [Section("Detections", text, figures, [_listed(table, groups, scene.judged)]), *_missed(scene)]


def _pictures(
    scene: _Scene, table: SynapseTable, rows: list[int], caption: str, judged: Judged | None
) -> Figure | None:
    if scene.backdrop is None:
        return None
    titles = [_title(table, row, judged) for row in rows]
    return gallery(scene.backdrop, table, rows, titles, caption)


def _title(table: SynapseTable, row: int, judged: Judged | None) -> str:
    words = f"{table.ids[row]}: {table.scores[row]:.3f}"
    return words if judged is None else f"{words}, {'right' if judged.right[row] else 'wrong'}"


def _listed(table: SynapseTable, groups: Mapping[str, list[int]], judged: Judged | None) -> Table:
    columns = ["group", "id", "pre site", "score", "from", "to", "voxels", "pre at (nm)", "post at (nm)"]
    rows: list[list[Cell]] = []
    for name, numbers in groups.items():
        for row in numbers:
            cells: list[Cell] = [name, *(str(c[row]) for c in (table.ids, table.polyads))]
            cells += [float(table.scores[row]), str(table.pre_segments[row]), str(table.post_segments[row])]
            cells += [int(table.sizes_vox[row]), _where(table.pre_nm[row]), _where(table.post_nm[row])]
            rows.append(cells + ([] if judged is None else ["right" if judged.right[row] else "wrong"]))
    return Table(columns + ([] if judged is None else ["judged"]), rows, "the same in numbers; places are z, y, x")


def _missed(scene: _Scene) -> list[Section]:
    judged = scene.judged
    if judged is None:
        return []
    missed = judged.missed
    if not len(missed):
        return [Section("Missed synapses", "There is none: every true contact has its match.")]
    rows = list(range(min(SHOWN, len(missed))))
    figure = _pictures(scene, missed, rows, "True contacts without a match.", None)
    text = f"{len(missed)} of {judged.n_true} true contacts have no match; here are {len(rows)} of them, by id."
    return [Section("Missed synapses", text, [] if figure is None else [figure])]


def _scores(scene: _Scene) -> Section:
    table = scene.table
    if not len(table):
        return Section("How sure they are", "There is no score, as nothing was detected.")
    right = None if scene.judged is None else scene.judged.right
    counts: list[list[Cell]] = []
    for threshold in _THRESHOLDS:
        kept = table.rows(table.scores >= threshold)
        pairs = np.unique(np.stack([kept.pre_segments, kept.post_segments], axis=1), axis=0)
        counts.append([threshold, len(kept), int(np.unique(kept.polyads).size), len(pairs)])
    figures = [score_histogram(table.scores, right), kept_plot(table.scores)]
    columns = ["threshold", "contacts", "pre sites", "pairs of neurons"]
    text = "How sure detections are, and how many a threshold would keep: those with at least that score."
    return Section("How sure they are", text, figures, [Table(columns, counts, "what thresholds keep")])


def _swept(scene: _Scene) -> list[Section]:
    return [] if scene.judged is None or scene.judged.sweep is None else [sweep_section(scene.judged.sweep)]


def _numbers(table: SynapseTable) -> Section:
    if not len(table):
        return Section("Numbers", "There is nothing to measure.")
    apart = np.linalg.norm(table.pre_nm - table.post_nm, axis=1)
    posts = np.unique(table.polyads, return_counts=True)[1]
    measured = {
        "score": table.scores,
        "size (voxels)": table.sizes_vox,
        "from pre to post site (nm)": apart,
        "post sites of a pre site": posts,
    }
    rows: list[list[Cell]] = [[name, *map(float, np.quantile(v, _QUANTILES))] for name, v in measured.items()]
    columns = ["what", "least", "5 %", "25 %", "median", "75 %", "95 %", "most"]
    unknown = int(np.count_nonzero((table.pre_segments == 0) | (table.post_segments == 0)))
    autapses = int(np.count_nonzero((table.pre_segments == table.post_segments) & (table.pre_segments != 0)))
    text = f"{unknown} contacts have a site in no neuron, and {autapses} join a neuron with itself."
    return Section("Numbers", text, tables=[Table(columns, rows, "quantiles")])


def _viewer(folder: Path, raw: str | None, segmentation: str | None) -> Section:
    paths = [f"{name}={path}" for name, path in (("raw", raw), ("neurons", segmentation)) if path is not None]
    words = shlex.join(["emloom", "view", *paths, "--synapses", str(folder)])
    text = f"Contacts as lines from pre (blue) to post site (yellow), at most {LINES} of the highest scores."
    if paths:
        text += f"\n\nOver the volumes, on this machine: {words}"
    text += f"\n\n{STATE} holds the lines alone, as a state that any neuroglancer page can load."
    return Section("In neuroglancer", text)


def _where(point: NDArray[np.float64]) -> str:
    return ", ".join(f"{v:g}" for v in point.tolist())
