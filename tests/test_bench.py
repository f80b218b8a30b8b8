"""`make bench`: what benchmarks print is collected, and one that fails is not hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import Run, main, page, run

QUICK = '''"""Sums: emloom against nobody.

More words.
"""
print("| how | s |")
print("|---|---|")
print("RATIO sums 2.5")
print("RATIO others 0.7")
'''
FAILS = '"""Fails: to show it."""\nprint("RATIO hidden 99")\nraise SystemExit("the peer is not installed")\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "benchmarks"
    found.mkdir()
    (found / "sums.py").write_text(QUICK)
    (found / "fails.py").write_text(FAILS)
    return found


def test_everything_is_shown_as_it_comes(folder: Path) -> None:
    said: list[str] = []
    done = run(folder / "sums.py", said.append)
    assert "".join(said[1:]) == done.output
    assert done.about == "Sums: emloom against nobody."
    assert done.ratios == [("sums", "2.5"), ("others", "0.7")]
    assert done.status == 0


def test_the_page_holds_ratios_tables_and_failures(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "page.md"
    assert main(folder, target) == 1
    text = target.read_text()
    assert "| [sums](#sums) | 2.5 | Sums: emloom against nobody. |" in text
    assert "| [others](#sums) | 0.7 |" in text
    assert "More words." in text
    assert "**1 failed**: fails." in text
    assert "| [fails](#fails) | failed |" in text
    assert "the peer is not installed" in text
    assert "hidden" not in text  # a ratio printed before the failure is no result
    shown = capfd.readouterr().out
    assert "RATIO sums 2.5" in shown
    assert "failed: fails (exit status 1)" in shown


def test_output_cannot_end_its_block() -> None:
    text = page([Run("odd", "Odd.", "```\n# no heading\n", 0, 1.0, 0.5)], "2026-01-01", ["a machine"])
    assert text.count("```") == 2
    assert "| [odd](#odd) | none |" in text
