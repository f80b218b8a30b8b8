"""Reports: one self-contained HTML page per run, the page people open first.

A report is a value: headline scores, sections of text, pictures and tables, and the provenance that lets somebody
run the job again. `Report.render` turns it into one file without a script or an outside request (its
Content-Security-Policy forbids both), so it can be mailed, archived and opened offline. All text is escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.view.figures import Figure

Cell = str | int | float | bool | None
Tone = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True)
class Score:
    """A headline number.

    Attributes:
        label: what it is, in a few words.
        value: the number; floats are shown with three decimals, strings as they are.
        note: unit, or what to compare it with.
        tone: `good`, `warning` and `bad` are coloured (and named, for people who do not see the colour).
    """

    label: str
    value: Cell
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Rows under column headings.

    Attributes:
        columns: headings.
        rows: cells; columns of numbers are aligned right with tabular numerals.
        caption: what the table shows.
        highlight: index of the row to mark, say the chosen threshold.

    Raises:
        InputError: a row has another number of cells than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    highlight: int | None = None

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InputError(
                    f"row {index} of table {self.caption!r} has {len(row)} cells: give one for each of the "
                    f"{len(self.columns)} columns"
                )

    def is_number(self, column: int) -> bool:
        """Whether every filled cell of a column is a number."""
        filled = [row[column] for row in self.rows if row[column] is not None]
        return bool(filled) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in filled)


@dataclass(frozen=True)
class Section:
    """A part of the page with its own heading and place in the navigation.

    Attributes:
        title: heading.
        text: plain text; blank lines separate paragraphs.
        figures: pictures, in order.
        tables: tables, after the pictures.
    """

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Report:
    """A page about one run.

    Attributes:
        title: what was done.
        subtitle: to which data, when, by which version.
        scores: headline numbers, shown as cards.
        sections: the body.
        provenance: plain data (mappings, lists, scalars), shown as YAML: resolved spec, versions, fingerprints.
    """

    title: str
    subtitle: str = ""
    scores: Sequence[Score] = ()
    sections: Sequence[Section] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def render(self) -> str:
        """Return the page as one HTML document."""
        text = yaml.safe_dump(dict(self.provenance), sort_keys=False, allow_unicode=True, width=100)
        return (
            _environment()
            .get_template("report.html.j2")
            .render(report=self, provenance=text if self.provenance else "")
        )

    def write(self, path: str | Path, *, overwrite: bool = True) -> None:
        """Write the page in one step: a reader finds the old page or the new one, never a part."""
        write_text_atomic(path, self.render(), overwrite=overwrite)


def show(value: Cell) -> str:
    """Return a cell for people: three decimals, thin spaces between thousands, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        # The narrow no-break space groups digits in any language.
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if isinstance(value, float):
        return _show_float(value)
    return value


def _show_float(value: float) -> str:
    if not isfinite(value):
        return "not defined"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.1f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + b64encode(content).decode("ascii")


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("emloom.view", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, data_uri=_data_uri, paragraphs=_paragraphs)
    return environment
