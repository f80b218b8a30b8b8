"""Where a page stands among others: a run inside a run links back to the page of the one that made it.

A folder of a run holds `job.yaml` and the markers of its steps. The page of an evaluation inside a training, and
of a training inside a pipeline, lies some folders below such a one, and so below `report.html` there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

_LEVELS = 5  # folders upwards that are looked at
_LARGEST = 1 << 20  # bytes of a job file
_NAMES = {"pipeline": "Pipeline"}


@dataclass(frozen=True)
class Crumb:
    """A link to a page above.

    Attributes:
        text: what lies there.
        href: where, relative to the page that links.
    """

    text: str
    href: str


def crumbs_of(path: str | Path) -> list[Crumb]:
    """Return links to the pages of the runs that a page lies inside of, the outermost first."""
    here = Path(path).absolute().parent
    found = []
    for folder in list(here.parents)[:_LEVELS]:
        kind = _kind_of(folder)
        if kind is not None:
            up = Path(os.path.relpath(folder, here)).as_posix()
            found.append(
                Crumb(
                    f"{_NAMES.get(kind, kind.replace('_', ' ').capitalize())}: {folder.name}", f"{up}/report.html"
                )
            )
    return found[::-1]


def _kind_of(folder: Path) -> str | None:
    """Return what kind of run a folder holds; None if it holds none, or is no longer readable."""
    job = folder / "job.yaml"
    # A job file alone is an order, not a run: there is no page beside it.
    if not job.is_file() or not (folder / "markers").is_dir() or job.stat().st_size > _LARGEST:
        return None
    try:
        said = yaml.safe_load(job.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    kind = said.get("kind") if isinstance(said, dict) else None
    return kind if isinstance(kind, str) else None
