"""The part of a page about thresholds of scores: a figure, and a table of a few of them."""

from __future__ import annotations

import numpy as np

from emloom.metrics.partnersweep import Sweep
from emloom.view.report import Cell, Section, Table
from emloom.view.sweepcurves import sweep_plot

ROWS = 12
"""Thresholds in the table, besides the best."""


def sweep_section(sweep: Sweep) -> Section:
    """Return precision, recall and F-beta over thresholds, the best one marked."""
    name = f"F{sweep.beta:g}"
    best, everything = sweep.chosen, sweep.points[0]
    text = (
        f"A found pair counts where its score is at least a threshold. {name} is highest, {best.fbeta:.3f}, at "
        f"{best.threshold:.3g} (precision {best.precision:.3f}, recall {best.recall:.3f}); the scores above are "
        f"those of everything that was found, {name} {everything.fbeta:.3f}. Every point is a matching of its own."
        f"\n\nThe best threshold flatters the data it was chosen on: choose it on validation data."
    )
    if sweep.n_scores > len(sweep.points):
        text += f"\n\nOf {sweep.n_scores} different scores {len(sweep.points)} are shown, evenly thinned."
    shown = sorted({*np.linspace(0, len(sweep.points) - 1, ROWS).round().astype(int).tolist(), sweep.best})
    rows: list[list[Cell]] = [
        [p.threshold, p.n_found, p.tp, p.fp, p.fn, p.precision, p.recall, p.fbeta]
        for p in (sweep.points[k] for k in shown)
    ]
    columns = ["threshold", "kept", "right", "wrong", "missed", "precision", "recall", name]
    caption = f"{len(shown)} of {len(sweep.points)} thresholds; the best is marked"
    table = Table(columns, rows, caption, highlight=shown.index(sweep.best))
    return Section("Threshold of the score", text, [sweep_plot(sweep.points, sweep.best, sweep.beta)], [table])
