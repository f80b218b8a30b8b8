"""The labelling page in a browser: keys and clicks do what they say, and every answer is on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry.patches import PatchLabels
from emloom.io.patchtables import read_patches
from emloom.io.volume import Volume
from emloom.tasks.annotating import sights_of
from emloom.tasks.labelsession import LabelSession
from emloom.view.labelpage import serve
from tests.browser import chromium_or_skip
from tests.driving import DrivenPage, driven
from tests.tasks.labelling import noise, table

STARTS = [(0, 0, 0), (3, 16, 20), (5, 32, 40), (2, 10, 10)]
HOSTILE = "</script><img src=x onerror=document.body.dataset.hit=1>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenPage]:
    with driven(chromium_or_skip(), tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@contextmanager
def labelling(
    browser: DrivenPage, path: Path, queue: PatchLabels, raw: Volume | None = None
) -> Iterator[LabelSession]:
    volume = noise() if raw is None else raw
    session = LabelSession(path, queue, "ada")
    browser.complaints.clear()
    browser.requests.clear()
    with serve(session, sights_of(session, volume, 4)) as page:
        browser.open(page.url)
        yield session
        assert browser.complaints == []
        assert all(asked.startswith((page.url, "data:")) for asked in browser.requests)
        browser.call("Page.navigate", url="about:blank")


def at_patch(browser: DrivenPage, number: int) -> None:
    browser.wait(f"document.querySelector('#where').textContent.startsWith('Patch {number} ')")


def shown(browser: DrivenPage) -> np.ndarray:
    """Return the picture as the page draws it, one grey value per voxel and where it is drawn, [Y, X, 2]."""
    found = browser.value(
        """(() => {
          const view = document.querySelector('#view'), zoom = Math.round(view.width / 16);
          const copy = document.createElement('canvas'), grey = [];
          [copy.width, copy.height] = [view.width, view.height];
          const context = copy.getContext('2d', {willReadFrequently: true});
          context.drawImage(view, 0, 0);
          const all = context.getImageData(0, 0, view.width, view.height).data;
          for (let y = 0; y < 16; y++) for (let x = 0; x < 16; x++) {
            const at = 4 * ((y * zoom + (zoom >> 1)) * view.width + x * zoom + (zoom >> 1));
            grey.push([all[at], all[at + 3]]);
          }
          return grey;
        })()"""
    )
    return np.array(found).reshape(16, 16, 2)


def test_one_class_is_answered_by_single_keys(browser: DrivenPage, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with labelling(browser, path, table(STARTS, classes=("debris",))) as session:
        for number, key in enumerate("ynu", 1):
            at_patch(browser, number)
            browser.press(key)
        at_patch(browser, 4)
        found = read_patches(path)
        assert found.starts.tolist() == [list(start) for start in STARTS[:3]]
        assert found.of("debris").tolist() == [1, 0, -1]
        assert "3 of 4 answered" in browser.text("#count")
        browser.press("Backspace")
        at_patch(browser, 3)
        assert session.said(2) == [None]
        browser.press("z", ctrl=True)
        at_patch(browser, 2)
        browser.press("u")
        at_patch(browser, 3)
        browser.press("Y")
        at_patch(browser, 4)
        browser.press("n")
        browser.wait("document.querySelector('#status').textContent.includes('All 4 patches are answered')")
    assert [session.said(k)[0] for k in range(4)] == ["yes", "unsure", "yes", "no"]
    assert read_patches(path).of("debris").tolist() == [1, -1, 1, 0]


def test_keys_typed_faster_than_the_disk_are_all_kept(browser: DrivenPage, tmp_path: Path) -> None:
    queue = table([(0, k, 0) for k in range(12)], classes=("debris",))
    with labelling(browser, tmp_path / "labels.csv", queue) as session:
        script = "".join(
            f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}));"
            for key in "ynyyunnyuuyn"
        )
        # Targets of keys are elements.
        browser.value(script.replace("document.dispatchEvent", "document.body.dispatchEvent"))
        browser.wait("document.querySelector('#count').textContent.startsWith('12 of 12')")
        words = {"y": "yes", "n": "no", "u": "unsure"}
        assert [session.said(k)[0] for k in range(12)] == [words[key] for key in "ynyyunnyuuyn"]


def test_classes_are_answered_in_turn(browser: DrivenPage, tmp_path: Path) -> None:
    with labelling(browser, tmp_path / "labels.csv", table(STARTS)) as session:
        assert browser.text("fieldset.marked legend") == "1  debris"
        browser.press("n")
        browser.wait("document.querySelector('fieldset.marked legend').textContent === '2  myelin'")
        browser.press("y")
        at_patch(browser, 2)
        browser.press("2")
        browser.press("u")
        browser.wait("document.querySelector('fieldset.marked legend').textContent === '1  debris'")
        browser.click("fieldset:nth-of-type(1) button.no")
        at_patch(browser, 3)
        browser.press("ArrowDown")
        browser.press("ArrowUp")
        browser.press("y")
        browser.wait("document.querySelector('#status').textContent.includes('debris: yes')")
    assert [session.said(k) for k in range(3)] == [["no", "yes"], ["no", "unsure"], ["yes", None]]


def test_moving_answers_nothing(browser: DrivenPage, tmp_path: Path) -> None:
    with labelling(browser, tmp_path / "labels.csv", table(STARTS)) as session:
        for key, number in ((" ", 2), ("ArrowRight", 3), ("ArrowLeft", 2), (" ", 3), (" ", 4), (" ", 4)):
            browser.press(key)
            at_patch(browser, number)
        browser.press("g")
        at_patch(browser, 1)
        browser.click("#ahead")
        at_patch(browser, 2)
        browser.press(" ")  # the button that was clicked is not pressed again
        at_patch(browser, 3)
        browser.reload()
        at_patch(browser, 3)
    assert session.done() == 0
    assert not (tmp_path / "labels.csv").exists()


def test_the_picture_is_the_volume(browser: DrivenPage, tmp_path: Path) -> None:
    raw = noise()
    with labelling(browser, tmp_path / "labels.csv", table(STARTS), raw):
        browser.press(" ")
        at_patch(browser, 2)
        browser.press("f")
        browser.wait("document.querySelector('#outline').getAttribute('aria-pressed') === 'false'")
        patches = np.concatenate([raw.read(box).ravel() for box in table(STARTS).boxes()])
        low, high = np.percentile(patches, [0.3, 99.7])
        for key, section in ((None, 3), (".", 4), (".", 5), (",", 4), (",", 3), (",", 2)):
            if key:
                browser.press(key)
            browser.wait(f"document.querySelector('#section').textContent.startsWith('section {section}')")
            truth = raw.array[section, 12:28, 16:32].astype(float)
            expected = np.clip((truth - low) / (high - low) * 255, 0, 255)
            browser.wait("document.querySelector('#view').width >= 16")
            assert np.abs(shown(browser)[..., 0] - expected).max() <= 4, section
        browser.press("r")
        browser.wait("document.querySelector('#section').textContent === 'section 3'")


def test_beyond_the_volume_nothing_is_invented(browser: DrivenPage, tmp_path: Path) -> None:
    with labelling(browser, tmp_path / "labels.csv", table(STARTS)):
        browser.press("f")
        browser.wait("document.querySelector('#outline').getAttribute('aria-pressed') === 'false'")
        alpha = shown(browser)[..., 1]
        assert (alpha[:4] == 0).all()
        assert (alpha[:, :4] == 0).all()
        assert (alpha[4:, 4:] == 255).all()
        browser.press(",")
        browser.wait("document.querySelector('#status').textContent.includes('Section -1 is not shown')")


def test_contrast_can_be_changed(browser: DrivenPage, tmp_path: Path) -> None:
    with labelling(browser, tmp_path / "labels.csv", table(STARTS)):
        browser.press(" ")
        at_patch(browser, 2)
        before = shown(browser)[4:12, 4:12, 0]
        browser.press("]")
        browser.wait("document.querySelector('#blackvalue').textContent === '50'")
        after = shown(browser)[4:12, 4:12, 0]
        assert after.std() > before.std()
        for _ in range(3):
            browser.press("[")
        browser.wait("document.querySelector('#blackvalue').textContent === '26'")
        assert shown(browser)[4:12, 4:12, 0].std() < before.std()
        browser.press("r")
        browser.wait("document.querySelector('#blackvalue').textContent === '42'")
        assert (shown(browser)[4:12, 4:12, 0] == before).all()


def test_hostile_words_are_words(browser: DrivenPage, tmp_path: Path) -> None:
    queue = table(STARTS, classes=(HOSTILE,), tissue=[HOSTILE, "", "", ""])
    with labelling(browser, tmp_path / "labels.csv", queue):
        assert browser.value("document.querySelectorAll('img').length") == 0
        browser.press("y")
        at_patch(browser, 2)
        browser.press("ArrowLeft")
        at_patch(browser, 1)
        assert HOSTILE in browser.text("legend")
        assert HOSTILE in browser.text("#notes")
        assert browser.value("document.body.dataset.hit") is None


def test_what_goes_wrong_is_said_and_the_patch_stays(browser: DrivenPage, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with labelling(browser, path, table(STARTS, classes=("debris",))) as session:
        path.write_text("somebody else's")
        browser.press("y")
        browser.wait("document.querySelector('#status.alarm')")
        assert "changed by somebody else" in browser.text("#status")
        at_patch(browser, 1)
        assert session.said(0) == [None]
        path.unlink()
        browser.press("n")
        at_patch(browser, 2)
        assert session.said(0) == ["no"]
        # The browser itself notes that an answer was refused; nothing else is written to its console.
        assert len(browser.complaints) == 1
        assert "400" in browser.complaints.pop()
    assert path.exists()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [(1200, 800), (420, 900)])
def test_it_is_accessible_light_and_dark(
    browser: DrivenPage, tmp_path: Path, dark: bool, size: tuple[int, int]
) -> None:
    browser.dark(dark)
    browser.size(*size)
    try:
        with labelling(browser, tmp_path / "labels.csv", table(STARTS)):
            picture = browser.picture()
            assert (picture[:4, -4:].mean() < 60) == dark
            assert browser.value("document.documentElement.scrollWidth <= innerWidth")
            nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
            roles = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if "role" in n]
            for role, name in roles:
                if role in ("button", "slider", "progressbar", "image", "group"):
                    assert name or role == "group", role
            assert ("image", "Section 0 around patch 1. debris: not answered, myelin: not answered") in roles
            assert {"main", "banner", "status", "heading", "button", "slider"} <= {role for role, _ in roles}
            assert min(contrasts(browser)) >= 4.5
    finally:
        browser.dark(False)
        browser.size(1200, 800)


def contrasts(browser: DrivenPage) -> list[float]:
    """Return the contrast (WCAG 2) of every text that can be read with what it stands on."""
    found = browser.value(
        """(() => {
          const parts = (c) => c.match(/[0-9.]+/g).map(Number);
          const bright = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => {
            v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const ground = (e) => { for (; e; e = e.parentElement) {
            const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
            return [255, 255, 255]; };
          return [...document.querySelectorAll('body *')].filter((e) => !e.disabled && !e.closest(':disabled')
            && e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
            .map((e) => { const a = bright(parts(getComputedStyle(e).color)), b = bright(ground(e));
              return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
        })()"""
    )
    assert len(found) > 20
    return list(map(float, found))


@pytest.mark.real_data
def test_real_sections_are_labelled(browser: DrivenPage, tmp_path: Path, real_data: Path) -> None:
    from emloom.tasks.annotating import AnnotateSpec, open_raw, session_of

    spec = AnnotateSpec.from_dict(
        {
            "raw": str(real_data / "isbi2012_cardona" / "train_z00-19.h5" / "volumes/raw"),
            "labels": str(tmp_path / "labels.csv"),
            "annotator": "ada",
            "patches": {"kind": "random", "count": 6},
            "classes": ["artifact"],
        }
    )
    raw = open_raw(spec.raw)
    session = session_of(spec, raw)
    browser.complaints.clear()
    with serve(session, sights_of(session, raw)) as page:
        browser.open(page.url)
        for number in range(1, 7):
            at_patch(browser, number)
            assert browser.value("document.querySelector('#view').width % 210") == 0
            browser.press("n")
        browser.wait("document.querySelector('#count').textContent.startsWith('6 of 6')")
        assert browser.picture()[100:600, 200:600].std() > 20
        browser.call("Page.navigate", url="about:blank")
    assert browser.complaints == []
    assert read_patches(tmp_path / "labels.csv").of("artifact").tolist() == [0] * 6


def test_the_theme_is_chosen_and_the_keys_are_shown(browser: DrivenPage, tmp_path: Path) -> None:
    with labelling(browser, tmp_path / "labels.csv", table(STARTS)):
        browser.dark(False)
        ground = "getComputedStyle(document.body).backgroundColor"
        light = browser.value(ground)
        browser.press("t")
        browser.wait("document.documentElement.dataset.theme === 'dark'")
        dark = browser.value(ground)
        assert dark != light
        browser.reload()
        assert browser.value(ground) == dark
        browser.click("#theme")
        assert browser.value(ground) == light
        browser.press("?")
        browser.wait("document.querySelector('#keys').open")
        browser.press("?")
        browser.wait("!document.querySelector('#keys').open")
        browser.value("localStorage.clear()")
