"""Reports: one self-contained HTML page per run, the page people open first.

A report is a value: what was done, a verdict, headline scores, sections of text, pictures and tables, commands to
go on with, and the provenance that lets somebody run the job again. `Report.render` turns it into one file that
asks for nothing outside and runs no script but its own (its Content-Security-Policy forbids both, see
`emloom.view.design`), so it can be mailed, archived and opened offline. All text is escaped. Without its script a
page is whole; the script sorts tables, enlarges pictures, copies commands, and remembers who wants it dark.
"""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.view.crumbs import Crumb, crumbs_of
from emloom.view.design import colours_css, page_script, policy
from emloom.view.figures import Figure
from emloom.view.words import explained, used

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
class Verdict:
    """What came of it, in one sentence that somebody can act on.

    Attributes:
        text: the sentence.
        tone: `good`: go on; `warning`: look first; `bad`: do not go on; `plain`: nothing here can be judged.
    """

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Command:
    """A line for a terminal, which a reader copies.

    Attributes:
        label: what it does, in a few words.
        line: the command.
    """

    label: str
    line: str


@dataclass(frozen=True)
class Link:
    """A link to another page.

    Attributes:
        text: what lies there.
        href: http(s), or a path relative to the page.

    Raises:
        InputError: the address is of another kind: a report links to pages only.
    """

    text: str
    href: str

    def __post_init__(self) -> None:
        if not self.href.startswith(("http://", "https://")) and re.match(r"[^/?#]*:|//|$", self.href):
            raise InputError(
                f"{self.href!r} is no address of a page: give http(s), or a path relative to the page"
            )


@dataclass(frozen=True)
class Table:
    """Rows under column headings.

    Attributes:
        columns: headings.
        rows: cells; columns of numbers are aligned right with tabular numerals.
        caption: what the table shows; by default the title of its section.
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

    def is_named(self) -> bool:
        """Whether the first column names the rows: words, and each another."""
        names = [row[0] for row in self.rows] if self.columns else []
        return bool(names) and all(isinstance(n, str) and n for n in names) and len(set(names)) == len(names)


@dataclass(frozen=True)
class Section:
    """A part of the page with its own heading and place in the navigation.

    Attributes:
        title: heading.
        text: plain text; blank lines separate paragraphs.
        figures: pictures, in order.
        tables: tables, after the pictures.
        commands: what to type next, last.
        links: to pages that tell more, after the text.
    """

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[Command] = ()
    links: Sequence[Link] = ()

    def texts(self) -> Iterator[str]:
        """Return all that can be read here, but for cells below the first column."""
        yield self.text
        yield from (figure.caption for figure in self.figures)
        for table in self.tables:
            yield from (table.caption, *table.columns)
            yield from (str(row[0]) for row in table.rows if table.is_named())


@dataclass(frozen=True)
class Report:
    """A page about one run.

    Attributes:
        title: the run in a few words.
        subtitle: the data. When and by which version stands below it if the provenance says so.
        scores: headline numbers, shown as cards.
        sections: the body.
        provenance: plain data (mappings, lists, scalars), shown as YAML: resolved spec, versions, fingerprints.
        done: what was done, in one sentence.
        verdict: what came of it.
    """

    title: str
    subtitle: str = ""
    scores: Sequence[Score] = ()
    sections: Sequence[Section] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    done: str = ""
    verdict: Verdict | None = None

    def render(self, crumbs: Sequence[Crumb] = ()) -> str:
        """Return the page as one HTML document.

        Args:
            crumbs: links to the pages it belongs to.
        """
        text = yaml.safe_dump(dict(self.provenance), sort_keys=False, allow_unicode=True, width=100)
        return (
            _environment()
            .get_template("report.html.j2")
            .render(
                report=self,
                crumbs=crumbs,
                provenance=text if self.provenance else "",
                written=self._written(),
                versions=self._versions(),
                words=used(self._texts()),
            )
        )

    def write(self, path: str | Path, *, overwrite: bool = True) -> None:
        """Write the page in one step: a reader finds the old page or the new one, never a part.

        Inside the folder of another run it links back to the page there.
        """
        write_text_atomic(path, self.render(crumbs_of(path)), overwrite=overwrite)

    def _texts(self) -> Iterator[str]:
        yield self.done
        yield from () if self.verdict is None else (self.verdict.text,)
        for score in self.scores:
            yield from (score.label, score.note)
        for section in self.sections:
            yield from section.texts()

    def _written(self) -> str:
        """Return when it was made, ISO 8601; empty where nothing says so."""
        found = str(self.provenance.get("written", ""))
        return found if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z$", found) else ""

    def _versions(self) -> list[str]:
        environment = self.provenance.get("environment")
        said = environment if isinstance(environment, Mapping) else {}
        names = {"emloom": "emloom", "python": "Python"}
        return [f"{word} {said[name]}" for name, word in names.items() if name in said]


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


def summed_up(scores: Sequence[Score], note: str = "") -> Verdict:
    """Return headline scores as a sentence, for pages that have nothing to hold them against.

    Args:
        scores: the headline.
        note: how to read them; by default what each says itself.
    """
    told = [
        f"{score.label} is {show(score.value)}{f' ({score.note})' if score.note and not note else ''}"
        for score in scores
        if score.value is not None
    ]
    text = ", ".join(told)
    return Verdict(
        f"{text[:1].upper()}{text[1:]}{f': {note}' if note else ''}." if told else "Nothing was scored."
    )


def page_below(*folders: str) -> str:
    """Return the address, from a page, of the page in a folder below it."""
    return "/".join([*(quote(folder) for folder in folders), "report.html"])


def _show_float(value: float) -> str:
    if not isfinite(value):
        return "not defined"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.1f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + b64encode(content).decode("ascii")


def _minute(written: str) -> str:
    """Return an ISO 8601 time in UTC to the minute, for people."""
    return f"{written[:10]} {written[11:16]} UTC"


def _size(png: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a PNG in pixels, so that a page does not jump when its pictures arrive."""
    return None if png[:8] != b"\x89PNG\r\n\x1a\n" else struct.unpack(">II", png[16:24])


def _sortable(value: Cell) -> str:
    """Return what a cell is sorted by: all digits of a number, nothing for nothing."""
    return "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)


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
    environment.filters.update(
        show=show,
        data_uri=_data_uri,
        paragraphs=_paragraphs,
        explained=explained,
        minute=_minute,
        size=_size,
        sortable=_sortable,
    )
    # Ours, and whole: a policy with their hash goes with them.
    environment.globals.update(
        colours=Markup(colours_css()),
        script=Markup(page_script()),
        policy=policy(),
    )
    return environment
