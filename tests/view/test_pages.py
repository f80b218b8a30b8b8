"""Every kind of page: held to one law, and driven in a browser as a person would, in both themes and any width."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emloom.view.words import WORDS
from tests.browser import chromium_or_skip
from tests.driving import DrivenPage, driven
from tests.pages import KINDS, TRAINED
from tests.view.test_report import Page, parse

LARGEST = 4_000_000  # bytes, of a page that is mailed
SLOW = {"qc", "frequency", "baselines", "patches", "classes", "refine", "classify", "scored synapses", *TRAINED}
WIDE, NARROW = 1280, 400


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenPage]:
    """One browser for all pages."""
    with driven(chromium_or_skip(), tmp_path_factory.mktemp("browser") / "profile") as page:
        page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        yield page


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in {**KINDS, **TRAINED}],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One page of every kind."""
    kind: str = request.param
    return {**KINDS, **TRAINED}[kind](tmp_path_factory.mktemp(kind.replace(" ", "_")))


@pytest.fixture(scope="module")
def loaded(browser: DrivenPage, made: Path) -> Iterator[DrivenPage]:
    """The page in the browser, loaded once."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    browser.size(WIDE, 900)
    browser.open(made.as_uri())
    yield browser
    browser.value("localStorage.clear()")


@pytest.fixture
def opened(loaded: DrivenPage) -> Iterator[DrivenPage]:
    """The page as it was loaded, wide and light; it may complain of nothing, and ask nobody for anything."""
    loaded.dark(False)
    loaded.size(WIDE, 900)
    loaded.value(
        "document.querySelectorAll('dialog').forEach((dialog) => dialog.close()); scrollTo(0, 0);"
        "document.querySelectorAll('details').forEach((fold) => { fold.open = false; })"
    )
    yield loaded
    assert loaded.complaints == []
    assert {address.partition(":")[0] for address in loaded.requests} <= {"file", "data"}


def headings(page: Page) -> list[int]:
    return [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]


def inside(html: str, tag: str) -> list[str]:
    """Return the text of every element of a kind, without what is inside of it."""
    found = re.findall(rf"<{tag}[ >].*?</{tag}>", html, re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", each)).strip() for each in found]


def test_every_page_keeps_the_law(made: Path) -> None:
    html = made.read_text(encoding="utf-8")
    page = parse(html)
    assert len(html) < LARGEST
    assert [attrs["lang"] for attrs in page.all("html")] == ["en"]
    levels = headings(page)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        href = link["href"] or ""
        assert href[1:] in ids if href.startswith("#") else True, href
        if not re.match(r"#|https?:", href):
            assert (made.parent / href).exists(), href
    assert re.search(r'<p class="done">[A-Z0-9].*\.</p>', html), "what was done, in a sentence"
    assert re.search(r'<p class="verdict \w+"><strong>\w+</strong> .*\.</p>', html), "what came of it"
    times = [attrs["datetime"] for attrs in page.all("time")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", time or "") for time in times)


def test_every_picture_and_table_says_what_it_is(made: Path) -> None:
    html = made.read_text(encoding="utf-8")
    page = parse(html)
    alts = [image["alt"] or "" for image in page.all("img")]
    for alt in alts:
        assert len(alt) > 12, alt
        assert not re.match(r"(image|picture|figure|plot)s? of\b", alt, re.IGNORECASE), alt
    assert len(set(alts)) == len(alts), "two pictures are not the same"
    assert all("width" in image and "height" in image for image in page.all("img"))
    tables = len(page.all("table"))
    captions = inside(html, "caption")
    assert len(captions) == tables
    assert all(captions)
    assert {attrs.get("scope") for attrs in page.all("th")} <= {"col", "row"}


def looks(page: DrivenPage) -> str:
    return str(page.value("getComputedStyle(document.body).backgroundColor"))


def overflow(page: DrivenPage) -> int:
    root = "document.documentElement"
    return int(page.value(f"{root}.scrollWidth - {root}.clientWidth"))


def test_it_is_drawn_whole_in_both_themes_and_widths(opened: DrivenPage) -> None:
    for width in (WIDE, NARROW):
        opened.size(width, 900)
        for dark in (False, True):
            opened.dark(dark)
            opened.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            seen = opened.picture()
            assert seen.std() > 10, "there is something on it"
            assert (seen.mean() < 128) == dark
        assert overflow(opened) <= 0, width
    assert opened.value("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_its_theme_is_chosen_and_remembered(opened: DrivenPage) -> None:
    light = looks(opened)
    opened.click("#theme")
    dark = looks(opened)
    assert dark != light
    assert opened.value("document.documentElement.dataset.theme") == "dark"
    opened.reload()
    assert looks(opened) == dark
    # On paper it is light all the same.
    opened.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert opened.value("getComputedStyle(document.body).getPropertyValue('--ground')") == "#fbfbfa"
    assert opened.value("getComputedStyle(document.querySelector('.contents')).display") == "none"
    opened.call("Emulation.setEmulatedMedia", media="", features=[])
    opened.press("t")
    opened.press("t")
    assert opened.value("document.documentElement.dataset.theme ?? 'auto'") == "auto"
    assert looks(opened) == light


def test_its_tables_sort(opened: DrivenPage) -> None:
    tables = opened.value(
        "[...document.querySelectorAll('main table')].map((t) => [t.tBodies[0].rows.length, "
        "t.querySelectorAll('.sort').length, t.tHead.rows[0].cells.length])"
    )
    assert all(buttons == (columns if rows > 1 else 0) for rows, buttons, columns in tables)
    order = "[...document.querySelectorAll('main table')].map((t) => t.tBodies[0].innerText)"
    written = opened.value(order)
    columns = """[...document.querySelectorAll('main table')].flatMap((t) =>
     [...t.tHead.rows[0].cells].map((h, k) => {
      if (h.querySelector('.sort') === null || !h.classList.contains('number')) return null;
      const values = () => [...t.tBodies[0].rows].map((row) => row.cells[k].dataset.value)
        .filter((text) => text !== '' && text !== 'nan').map(Number);
      const seen = ['ascending', 'descending', 'none'].map((wanted) => {
        h.querySelector('.sort').click();
        return [h.getAttribute('aria-sort') === wanted, values()];
      });
      return seen;
    })).filter((seen) => seen !== null)"""
    for up, down, back in opened.value(columns):
        assert up[0]
        assert down[0]
        assert back[0]
        assert up[1] == sorted(back[1])
        assert down[1] == sorted(back[1], reverse=True)
    assert opened.value(order) == written


def test_its_words_are_explained_where_they_stand(opened: DrivenPage) -> None:
    listed = opened.value("[...document.querySelectorAll('#words dt')].map((word) => word.textContent)")
    explained = dict(opened.value("[...document.querySelectorAll('abbr')].map((a) => [a.title, a.textContent])"))
    meanings = {meaning: word for word, meaning in WORDS.items()}
    assert {meanings[title] for title in explained} == set(listed)
    for title, text in explained.items():
        assert text.lower().removesuffix("s") == meanings[title].lower().removesuffix("s")


def test_its_keys_do_what_the_help_says(opened: DrivenPage) -> None:
    opened.reload()
    opened.press("Tab")
    assert opened.value("document.activeElement.className") == "skip"
    assert opened.value("document.activeElement.getBoundingClientRect().left >= 0"), (
        "it is seen when it is reached"
    )
    opened.press("?")
    assert opened.value("document.querySelector('#keys').open")
    opened.press("Escape")
    assert not opened.value("document.querySelector('#keys').open")
    parts = opened.value("[...document.querySelectorAll('#contents a')].map((link) => link.hash.slice(1))")
    opened.press("j")
    assert opened.value("document.activeElement.id") == parts[min(1, len(parts) - 1)]
    for _ in parts:
        opened.press("j")
    assert opened.value("document.activeElement.id") == parts[-1]
    opened.press("k")
    assert opened.value("document.activeElement.id") == parts[max(0, len(parts) - 2)]


def test_its_pictures_are_enlarged(opened: DrivenPage) -> None:
    n = opened.value("document.images.length")
    opened.press("f")
    assert opened.value("document.querySelector('#gallery').open") == (n > 0)
    if n == 0:
        return
    opened.press("Home")
    assert opened.text("#which") == f"1 of {n}"
    opened.press("ArrowRight")
    assert opened.text("#which") == f"{min(2, n)} of {n}"
    opened.press("End")
    assert opened.text("#which") == f"{n} of {n}"
    same = "document.querySelector('#stage img').alt === [...document.querySelectorAll('figure img')].at(-1).alt"
    assert opened.value(same)
    opened.press("z")
    opened.wait("document.querySelector('#stage img').complete")
    size = "(({ naturalWidth: w }) => w)(document.querySelector('#stage img'))"
    assert opened.value("document.querySelector('#stage img').clientWidth") == opened.value(size)
    opened.press("Escape")
    assert not opened.value("document.querySelector('#gallery').open")
    opened.wait("document.activeElement.className === 'enlarge'")


def test_its_folds_open_and_its_commands_are_copied(opened: DrivenPage) -> None:
    if opened.value("document.querySelector('summary') !== null"):
        opened.click("summary")
        assert opened.value("document.querySelector('details').open")
    commands = opened.value("[...document.querySelectorAll('.command code')].map((code) => code.textContent)")
    assert opened.value("document.querySelectorAll('.copy').length") == len(commands)
    if commands:
        assert all(line.startswith("emloom ") for line in commands)
        opened.click(".copy")
        opened.wait("document.querySelector('.copy').textContent === 'Copied'")
        assert opened.value("navigator.clipboard.readText()") == commands[0]


def test_it_is_printed(opened: DrivenPage) -> None:
    folded = "document.querySelector('details:not([open])') !== null"
    opened.value(f"addEventListener('beforeprint', () => {{ window.unfolded = !({folded}); }})")
    printed = base64.b64decode(opened.call("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF-")
    assert np.frombuffer(printed, np.uint8).size > 10_000
    assert opened.value("window.unfolded"), "paper shows what is folded"
    assert opened.value("document.querySelectorAll('details[open]').length") == 0, "and the screen as it was"
