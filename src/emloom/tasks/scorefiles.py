"""`scores.json` and `scores.csv`: the files of every evaluation, whatever was scored."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.metrics.book import Metric
from emloom.metrics.classbook import ClassMetric
from emloom.metrics.synapsebook import SynapseMetric


def write_scores(folder: Path, rows: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write rows as `scores.json` (with anything else worth keeping) and `scores.csv`.

    What is not defined is null in JSON, which has no NaN, and nan in the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = _plain({"rows": list(rows), **more})
    write_text_atomic(folder / "scores.json", json.dumps(words, indent=2, allow_nan=False))
    write_rows(folder / "scores.csv", rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as a table of comma-separated values; the first one's keys are the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the `scores.json` of a folder; what is not defined is None.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    path = folder / "scores.json"
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"cannot read the scores {path}: {problem}") from None
    return rows


def definitions(metrics: Iterable[Metric | ClassMetric | SynapseMetric]) -> dict[str, Any]:
    """Return what metrics mean, by name, for `scores.json`."""
    return {
        metric.name: {"definition": metric.text, "values": [asdict(value) for value in metric.values]}
        for metric in metrics
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
