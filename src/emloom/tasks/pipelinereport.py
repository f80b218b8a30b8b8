"""The page of a whole pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emloom.tasks.pipelinestages import Layout
from emloom.view.report import Report


def write_pipeline_report(layout: Layout, provenance: Mapping[str, Any]) -> Path:
    path = layout.path("report")
    Report(title=layout.job.name, provenance=provenance).write(path)
    return path
