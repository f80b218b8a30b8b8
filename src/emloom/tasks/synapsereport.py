"""The page about synapses: the scores and what they mean, and pictures of the pairs that are wrong."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import numpy as np

from emloom.metrics.synapsebook import SynapseMetric
from emloom.tasks.sweepsection import sweep_section
from emloom.tasks.synapseplaces import picture, scene_of
from emloom.tasks.synapsescoring import SynapseEvaluation
from emloom.tasks.synapsespec import SynapseSpec
from emloom.tasks.wrongpairs import WRONG, Wrong, WrongPairs
from emloom.view.figures import Figure
from emloom.view.report import Cell, Report, Score, Section, Table, summed_up

SHOWN = 10
"""Missed pairs, and invented pairs, that are listed and drawn."""


def write_synapse_report(spec: SynapseSpec, found: SynapseEvaluation) -> Path:
    """Write `report.html` into the folder of an evaluation; return its path."""
    folder = Path(spec.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    cards = [_card(metric, found) for metric in found.metrics]
    report = Report(
        title=f"Synapses of {Path(spec.found).name} against {Path(spec.truth).name}",
        subtitle=f"{spec.found} · {spec.truth}",
        done="Detected synapses were compared with true ones, and what was invented or missed was drawn.",
        verdict=summed_up(cards),
        scores=cards,
        sections=[
            _scores(found),
            *([] if found.sweep is None else [sweep_section(found.sweep)]),
            *(_pairs(spec, found, kind) for kind in WRONG if kind in found.wrong),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _card(metric: SynapseMetric, found: SynapseEvaluation) -> Score:
    (value,) = (value for value in metric.values if value.key == metric.headline)
    note = f"{value.unit + '; ' if value.unit else ''}{value.better} is better"
    return Score(value.title, found.row[value.key], note)


def _scores(found: SynapseEvaluation) -> Section:
    rows: list[list[Cell]] = [
        [value.title, found.row[value.key], value.unit or "–", value.better, metric.name]
        for metric in found.metrics
        for value in metric.values
    ]
    keys = {value.key for metric in found.metrics for value in metric.values}
    counted: list[list[Cell]] = [
        [name.removeprefix("n_").replace("_", " "), value]
        for name, value in found.row.items()
        if name not in keys and isinstance(value, int)
    ]
    text = [f"{metric.name}: {metric.text}" for metric in found.metrics]
    text += [f"{name} is not wholly defined here: {why}." for name, why in found.undefined.items()]
    text += [f"{name}: {remark}." for name, remarks in found.notes.items() for remark in remarks]
    return Section(
        "Every score",
        "\n\n".join(text),
        tables=[
            Table(["score", "value", "unit", "better", "metric"], rows, "every score that was asked for"),
            Table(["what", "how many"], counted, "what was counted"),
        ],
    )


def _pairs(spec: SynapseSpec, found: SynapseEvaluation, kind: Wrong) -> Section:
    wrong, whose = found.wrong[kind], "true" if kind == "missed" else "found"
    title = f"{kind.capitalize()} synapses"
    if not len(wrong):
        return Section(title, f"There is none: every {whose} pair has its match.")
    # The farther from any pair of the other side, the plainer the error; where there is no other pair, as stored.
    order = np.argsort(-np.nan_to_num(wrong.nearest_nm, nan=0.0), kind="stable")[:SHOWN].tolist()
    scene = scene_of(spec.raw, found.cleft_paths)
    drawn = (
        [] if scene is None else [picture(scene, *_ends(wrong, row), _words(wrong, kind, row)) for row in order]
    )
    figures: list[Figure] = [figure for figure in drawn if figure is not None]
    text = (
        f"{len(wrong)} {whose} pairs have no match; here are the {len(order)} whose nearest pair on the other "
        f"side, whatever its neurons, is farthest away. All are in {kind}.csv. Positions are nm (z, y, x)."
    )
    if scene is None:
        text += "\n\nThere are no pictures, as neither raw nor clefts were given: give raw to see them."
    elif len(figures) < len(drawn):
        text += f"\n\n{len(drawn) - len(figures)} of them lie outside of what can be drawn."
    columns = ["row", "pre site", "post site", "pre at", "post at", "pre segment", "post segment", "nearest (nm)"]
    rows = [_row(wrong, row) for row in order]
    return Section(title, text, figures, [Table(columns, rows, "the same in numbers")])


def _ends(wrong: WrongPairs, row: int) -> tuple[np.ndarray, np.ndarray]:
    return wrong.pairs.pre_nm[row], wrong.pairs.post_nm[row]


def _words(wrong: WrongPairs, kind: Wrong, row: int) -> str:
    pre, post = wrong.sites[row].tolist()
    a, b = wrong.segments[row].tolist()
    far = wrong.nearest_nm[row]
    other = "there is no pair on the other side" if isnan(far) else f"the nearest other pair is {far:.0f} nm away"
    return f"{kind}: sites {pre} and {post}, from segment {a} to segment {b}; {other}."


def _row(wrong: WrongPairs, row: int) -> list[Cell]:
    pre, post = (", ".join(f"{v:g}" for v in points[row].tolist()) for points in wrong.pairs.stored())
    far = float(wrong.nearest_nm[row])
    return [
        int(wrong.rows[row]),
        *(str(i) for i in wrong.sites[row].tolist()),
        pre,
        post,
        *(str(i) for i in wrong.segments[row].tolist()),
        None if isnan(far) else far,
    ]
