"""The one design: what can be read in both themes, by anybody, and words that explain themselves."""

from __future__ import annotations

import itertools
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.view import figures
from emloom.view.crumbs import crumbs_of
from emloom.view.design import COLOURS, colours_css, page_script, part, policy
from emloom.view.figures import Figure
from emloom.view.report import Link, Report, Score, Section, Table, Verdict, page_below, summed_up
from emloom.view.words import WORDS, used

TEXT, GROUNDS = ("ink", "soft", "accent"), ("ground", "surface", "accent-soft")
TONES = ("good", "warning", "bad")


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def blocks() -> dict[str, dict[str, str]]:
    """Return the variables of every block of the style sheet, by its selector."""
    found = re.findall(r"([^{}]+)\{([^{}]*)\}", colours_css())
    return {
        selector.strip(): dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", body))
        for selector, body in found
        if "--" in body
    }


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_the_style_sheet_says_what_the_table_says() -> None:
    found = blocks()
    light = [":root", ":root:root:root"]
    dark = [":root:not([data-theme='light'])", ":root[data-theme='dark']"]
    assert sorted(found) == sorted(light + dark)
    for which, selectors in enumerate((light, dark)):
        for selector in selectors:
            assert found[selector] == {name: values[which] for name, values in COLOURS.items()}


@pytest.mark.parametrize("selector", [":root", ":root[data-theme='dark']"])
def test_text_can_be_read_on_every_ground(selector: str) -> None:
    colours = blocks()[selector]
    pairs = [*itertools.product(TEXT, GROUNDS), *((tone, ground) for tone in TONES for ground in GROUNDS[:2])]
    pairs += [(text, f"{tone}-soft") for tone in TONES for text in ("ink", "soft", tone)]
    pairs += [("on", tone) for tone in TONES]
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (selector, text, ground)
    # Words in pictures are text; lines are graphics, of which the standard asks 3.
    assert contrast(figures.INK, colours["card"]) >= 4.5
    for line in (figures.BLUE, figures.VERMILION, figures.GREEN):
        assert contrast(line, colours["card"]) >= 3, line


def test_every_colour_that_is_used_is_one_of_the_design() -> None:
    for name in ("report.css", "labelpage.css"):
        named = set(re.findall(r"var\(--([a-z-]+)\)", part(name))) - {"measure"}
        assert named <= set(COLOURS), name
        assert "#" not in re.sub(r"#[a-z-]+(?=[^;{}]*\{)", "", part(name)), "colours are in one place"


def test_only_the_own_script_may_run() -> None:
    page = Report("r").render()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script == page_script()
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy()
    assert "unsafe-inline" not in policy().replace("style-src 'unsafe-inline'", "")
    for name in ("theme.js", "report.js"):
        assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|fetch\(|https?:|</script", part(name))


# ---- words ----------------------------------------------------------------------------------------------------


def test_the_longest_word_counts() -> None:
    assert list(used(["VOI split and VOI merge"])) == ["VOI merge", "VOI split"]
    assert list(used(["VOI split, and VOI"])) == ["VOI", "VOI split"]


def test_capitals_and_plurals() -> None:
    assert used(["Average precision", "post sites", "voi", "F1", "precision-recall"]) == {
        key: WORDS[key] for key in ("average precision", "F1", "post site")
    }


def test_names_of_files_hold_no_words() -> None:
    assert not used(["recall.csv", "my_precision", "a/VOI", "pre_site"])


def test_explanations_are_phrases_in_the_order_of_the_alphabet() -> None:
    assert list(WORDS) == sorted(WORDS, key=str.lower)
    for word, meaning in WORDS.items():
        assert len(meaning) > 20, word
        assert not meaning.endswith("."), word


def test_the_words_of_a_page_are_listed_on_it() -> None:
    table = Table(["what", "IoU"], [["PSNR", 1.0], ["rest", 2.0]])
    page = Report("r", scores=[Score("VOI", 1.0)], sections=[Section("s", "recall", tables=[table])]).render()
    listed = re.findall(r"<dt>([^<]*)</dt>", page.partition('id="words"')[2])
    assert listed[:4] == ["IoU", "PSNR", "recall", "VOI"]
    assert 'href="#words"' in page
    assert 'id="words"' not in Report("r", sections=[Section("s", "nothing of note")]).render()


# ---- the head -------------------------------------------------------------------------------------------------


def test_the_head_says_what_was_done_and_what_came_of_it() -> None:
    provenance = {"written": "2026-01-02T03:04:05Z", "environment": {"emloom": "1.2", "python": "3.11", "cpus": 2}}
    page = Report(
        "r", "data", provenance=provenance, done="It <was> done.", verdict=Verdict("Fine.", "good")
    ).render()
    head = page.partition("<header")[2].partition("</header>")[0]
    for words in (
        '<p class="done">It &lt;was&gt; done.</p>',
        '<p class="verdict good"><strong>good</strong> Fine.</p>',
        '<time datetime="2026-01-02T03:04:05Z">2026-01-02 03:04 UTC</time> · emloom 1.2 · Python 3.11',
    ):
        assert words in head
    bare = Report("r", provenance={"written": "yesterday"}).render()
    assert "<time" not in bare
    assert 'class="verdict' not in bare


def test_scores_are_summed_up() -> None:
    scores = [Score("average precision", 0.5, "chance 0.1; on test"), Score("VOI", None), Score("PSNR", 30.0)]
    assert summed_up(scores).text == "Average precision: 0.500 (chance 0.1, on test); PSNR: 30.000."
    assert summed_up(scores, "1 is perfect").text == "Average precision: 0.500; PSNR: 30.000. 1 is perfect."
    assert summed_up([]).text == "Nothing was scored."


def run_folder(folder: Path, kind: str) -> None:
    (folder / "markers").mkdir(parents=True)
    (folder / "job.yaml").write_text(f"kind: {kind}\nname: x\n")


def test_a_page_inside_of_runs_links_to_theirs(tmp_path: Path) -> None:
    run_folder(tmp_path / "whole", "pipeline")
    run_folder(tmp_path / "whole" / "neurons" / "train", "neurons")
    page = tmp_path / "whole" / "neurons" / "train" / "evaluate" / "box 1" / "report.html"
    page.parent.mkdir(parents=True)
    assert [(crumb.text, crumb.href) for crumb in crumbs_of(page)] == [
        ("Pipeline: whole", "../../../../report.html"),
        ("Neurons: train", "../../report.html"),
    ]
    Report("r").write(page)
    assert '<a href="../../../../report.html">↑ Pipeline: whole</a>' in page.read_text()
    # The page of a run does not link to itself.
    assert [c.href for c in crumbs_of(tmp_path / "whole" / "report.html")] == []


@pytest.mark.parametrize("said", ["kind: [", "- a", "kind: 3", "", "\udcff"])
def test_what_is_no_run_has_no_page(tmp_path: Path, said: str) -> None:
    (tmp_path / "job.yaml").write_bytes(said.encode("utf-8", "surrogateescape"))
    assert crumbs_of(tmp_path / "out" / "report.html") == []  # an order, not a run
    (tmp_path / "markers").mkdir()
    assert crumbs_of(tmp_path / "out" / "report.html") == []


# ---- what a page refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alt", ["", "  ", "Image", "a picture", "Plot.", "the images of the figure"])
def test_a_picture_needs_words_of_its_own(alt: str) -> None:
    with pytest.raises(InputError, match="tells nobody what a picture shows"):
        Figure(b"", alt)


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "data:text/html,x", "//elsewhere.example", "", "file:///x"]
)
def test_links_lead_to_pages(href: str) -> None:
    with pytest.raises(InputError, match="no address of a page"):
        Link("x", href)


def test_links_below_are_relative_and_quoted() -> None:
    assert page_below("evaluate", "box 1:#?") == "evaluate/box%201%3A%23%3F/report.html"
    assert Link("x", page_below("a:b")).href == "a%3Ab/report.html"
    page = Report("r", sections=[Section("s", links=[Link("more", "https://x.example/?a=1&b")])]).render()
    assert '<a href="https://x.example/?a=1&amp;b">more</a>' in page


def test_the_page_about_reports_shows_one_that_renders_and_all_keys() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(block, "docs/reports.md", "exec"), {})
    helped = part("report.html.j2").partition('id="keys"')[2]
    keys = {key.strip() for key in re.findall(r"<kbd>([^<]*)</kbd>", helped)}
    assert keys
    assert keys <= set(re.findall(r"`([^`]+)`", text))
