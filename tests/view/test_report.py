"""A report is one file: parsable, self-contained, accessible, and safe against hostile text."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import yaml

from emloom.errors import InputError
from emloom.view.figures import Opening, Tile, panel
from emloom.view.report import Report, Score, Section, Table, show

HOSTILE = (
    "</style></pre><script src=http://evil.example/x.js>alert('1')</script><img src=x onerror=\"y\"> & {{ 7*7 }}"
)
VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


@dataclass
class Page(HTMLParser):
    """Open and close tags of a page, checked for balance, with the attributes of every element."""

    stack: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.stack == []
    return page


def report(word: str = "harmless") -> Report:
    figure = panel([Tile("t", np.full((8, 8), 9, np.uint8), (4, 4))], alt=f"alt {word}", caption=f"caption {word}")
    table = Table(
        [f"column {word}", "bits"], [[f"cell {word}", 0.5], [None, 12345]], f"caption {word}", highlight=1
    )
    return Report(
        title=f"title {word}",
        subtitle=f"subtitle {word}",
        scores=[Score(f"label {word}", 1.25, f"note {word}", "good"), Score("n", 1_234_567)],
        sections=[Section(f"section {word}", f"first {word}\n\nsecond", [figure], [table]), Section("empty")],
        provenance={"spec": {"word": word, "shape": [1, 2]}, "version": "0.1.0"},
    )


@pytest.mark.fault(
    "pages",
    "a report is opened",
    "it fetches nothing, and its policy forbids it",
)
def test_nothing_is_fetched_from_anywhere() -> None:
    html = report().render()
    page = parse(html)
    assert not re.search(r"https?://|@import|url\(", html)
    for _, attrs in page.elements:
        for name in ("src", "href"):
            assert (attrs.get(name) or "#").startswith(("data:", "#"))
    assert page.all("script") == [{}], "the own one, without an address"
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none'")


def test_every_picture_decodes_and_has_words() -> None:
    images = parse(report().render()).all("img")
    assert len(images) == 1
    for image in images:
        assert image["alt"] == "alt harmless"
        picture = iio.imread(io.BytesIO(b64decode((image["src"] or "").split(",")[1])))
        assert picture.shape[1] > 100


def test_navigation_reaches_every_section() -> None:
    page = parse(report().render())
    targets = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    links = {(a["href"] or "").removeprefix("#") for a in page.all("a")}
    assert links <= targets
    assert {"scores", "section-1", "section-2", "provenance"} <= links
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


@pytest.mark.fault(
    "pages",
    "names and notes of a report hold scripts",
    "they are shown as text; a report has no script",
)
def test_hostile_text_stays_text() -> None:
    page = parse(report(HOSTILE).render())
    assert page.all("script") == [{}]
    assert len(page.all("img")) == 1
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    for place in ("title", "subtitle", "label", "note", "section", "first", "caption", "column", "cell"):
        assert f"{place} {HOSTILE}" in page.text
    assert page.all("img")[0]["alt"] == f"alt {HOSTILE}"


def test_provenance_can_be_read_back() -> None:
    html = report().render()
    page = parse(html)
    block = page.text[page.text.index("spec:\n") :].partition("←")[0]
    assert yaml.safe_load(block) == report().provenance
    assert page.all("details")[0].get("open", "closed") == "closed"


def test_an_empty_report_is_a_page() -> None:
    page = parse(Report("nothing yet").render())
    assert page.all("details") == []
    assert [attrs["class"] for attrs in page.all("dl")] == ["words"], "that of the keys"
    assert "nothing yet" in page.text


def test_numbers_are_aligned_and_the_chosen_row_is_marked() -> None:
    page = parse(report().render())
    numeric = [attrs.get("class") == "number" for attrs in page.all("th")]
    assert numeric == [False, True]
    assert [attrs.get("class") for attrs in page.all("tr")] == [None, None, "highlight"]


def test_tones_are_named_as_well_as_coloured() -> None:
    page = parse(report().render())
    assert "good" in page.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (1234567, "1\u202f234\u202f567"),
        (0.12345, "0.123"),
        (-2.0, "-2.000"),
        (0.0, "0.000"),
        (0.00001234, "1.23e-05"),
        (54321.67, "54\u202f321.7"),
        (3e9, "3.00e+09"),
        (float("nan"), "not defined"),
        ("as it is", "as it is"),
    ],
)
def test_cells_read_well(value: str | int | float | None, text: str) -> None:
    assert show(value) == text


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(InputError, match="row 1 of table 't' has 1 cells"):
        Table(["a", "b"], [[1, 2], [3]], "t")


def test_writing_is_the_rendered_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report().write(path)
    assert path.read_text(encoding="utf-8") == report().render()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError):
        report().write(path, overwrite=False)


def test_a_picture_may_tell_how_to_open_what_it_shows() -> None:
    image = panel([Tile("t", np.zeros((8, 8), np.uint8), (1.0, 1.0))])
    opening = Opening(f"http://127.0.0.1:9009/v/x/at?at=1,2,3&q={HOSTILE}", f"emloom view {HOSTILE}")
    page = parse(Report("r", sections=[Section("s", figures=[replace(image, opening=opening), image])]).render())
    (link,) = [attrs for attrs in page.all("a") if (attrs.get("href") or "").startswith("http")]
    assert link["href"] == opening.address
    assert "noopener" in (link["rel"] or "")
    assert opening.command in page.text
    assert page.all("script") == [{}]
    for address in ("javascript:alert(1)", "data:text/html,x", "//elsewhere.example/"):
        with pytest.raises(InputError, match="starts with http"):
            Opening(address, "")
