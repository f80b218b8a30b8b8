"""`emloom artifacts`: find folds, cracks, debris and the like; a group of commands, each in a file of its own."""

from __future__ import annotations

import typer

from emloom.cli import (
    artifacts_annotate,
    artifacts_baselines,
    artifacts_evaluate,
    artifacts_labels,
    artifacts_predict,
    artifacts_recalibrate,
)


def register(app: typer.Typer) -> None:
    """Add the group of this file."""
    group = typer.Typer(
        name="artifacts",
        help="Folds, cracks, debris and other artifacts: labels of patches, and detectors of them.",
        no_args_is_help=True,
    )
    artifacts_labels.register(group)
    artifacts_annotate.register(group)
    artifacts_evaluate.register(group)
    artifacts_baselines.register(group)
    artifacts_predict.register(group)
    artifacts_recalibrate.register(group)
    app.add_typer(group)
