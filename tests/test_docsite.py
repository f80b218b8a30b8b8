"""The documentation as a site: snippets run, laws name their tests, the reference is whole, pages meet."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import emloom
from emloom.cli.main import app
from emloom.spec import Spec
from emloom.tasks.anyjob import KINDS as JOBS
from emloom.tasks.pipelinespec import PipelineJob
from tests.docsnippets import Snippet, carry_out, fits, snippets
from tools import morepages, reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUNNING = [page for page in PAGES if snippets(page, slow=True)]


# ---- snippets ---------------------------------------------------------------------------------------------------


def inside(snippet: Snippet, folder: Path) -> str:
    """Run a fast snippet in this process, which has imported what it needs."""
    printed = ""
    with contextlib.chdir(folder):
        for line in snippet.text.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            if program == "emloom":
                done = CliRunner().invoke(app, words, catch_exceptions=False)
                assert not done.exit_code, f"line {snippet.line}: {done.output}"
                printed += done.stdout
            else:
                assert program == "python", f"line {snippet.line}: mark it slow, it needs a shell"
                with contextlib.redirect_stdout(io.StringIO()) as held:
                    runpy.run_path(words[0])
                printed += held.getvalue()
    return printed.replace(f"{folder.resolve()}/", "")


def test_tutorials_run() -> None:
    assert {f"tutorial-{name}.md" for name in ("neurons", "synapses", "slices", "artifacts", "frequency")} <= {
        page.name for page in RUNNING
    }


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_fast_snippets_run_and_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    for _ in carry_out(snippets(page, slow=False), tmp_path, inside):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_all_snippets_run_in_a_shell(page: Path, tmp_path: Path) -> None:
    for _ in carry_out(snippets(page, slow=True), tmp_path):
        pass


def test_a_snippet_that_shows_something_else_is_noticed(tmp_path: Path) -> None:
    assert fits("a ... c\n...\nlast", "a b c\nmany\nlines\nlast\n")
    assert not fits("a\nb", "a\nc\n")
    wrong = [Snippet("run", "sh", "emloom --version\n", 1), Snippet("shows", "text", "emloom 0.0.0\n", 5)]
    with pytest.raises(AssertionError, match="line 5 shows"):
        list(carry_out(wrong, tmp_path, inside))


@pytest.mark.parametrize("page", [*DOCS.glob("tutorial-*.md"), DOCS / "quickstart.md"], ids=lambda page: page.stem)
def test_jobs_on_pages_of_the_beginning_are_valid(page: Path) -> None:
    kinds = {**JOBS, "pipeline": PipelineJob}
    for text in re.findall(r"^```yaml[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        kind = yaml.safe_load(text).get("kind")
        if kind is not None:
            kinds[kind].from_yaml(text, page.name)


# ---- guarantees -------------------------------------------------------------------------------------------------


def test_every_law_names_tests_that_exist() -> None:
    page = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    laws = re.split(r"^## \d+\. ", page, flags=re.M)[1:]
    assert len(laws) == 10
    for law in laws:
        proofs = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", law)
        assert proofs, f"no test proves {law.splitlines()[0]!r}"
        for path, name in proofs:
            text = (ROOT / path).read_text(encoding="utf-8")
            found = re.search(rf"^((?:@.*\n|[ )\]].*\n)*)def {name}\(", text, re.M)
            assert found, f"{path} has no {name}"
            assert "@pytest.mark.slow" not in found[1], f"{name} proves a law, but does not run with every change"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_this_repository_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:tests|benchmarks|studies|tools)/[\w./-]+\.(?:py|md))", page.read_text(encoding="utf-8")
    )
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


# ---- the reference ----------------------------------------------------------------------------------------------

INTERNAL = {
    "emloom.io.metadata",  # what files say
    "emloom.nn.model",
    "emloom.nn.plan",  # one training sample, dumped
    "emloom.nn.patchdetector",
    "emloom.nn.latent_classifier",
    "emloom.tasks.preview",
    "emloom.tasks.pipelinemasks",  # stages of a pipeline, which nobody asks for by themselves
}
"""Modules whose Specs nobody writes into a file."""


def specs() -> set[type[Spec]]:
    for found in pkgutil.walk_packages(emloom.__path__, "emloom."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    pending, every = [Spec], set()
    while pending:
        for each in pending.pop().__subclasses__():
            pending.append(each)
            if each.__module__.startswith("emloom."):
                every.add(each)
    return every


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


def test_every_spec_has_its_place() -> None:
    bases = {each for each in specs() if each.__subclasses__()}
    missing = {f"{s.__module__}.{s.__name__}" for s in specs() - bases if s not in reference.places()}
    unexpected = {m for m in missing if m.rpartition(".")[0] not in INTERNAL and "._" not in m}
    assert not unexpected, f"name them in tools/reference.py (COMMANDS): {sorted(unexpected)}"


def test_every_kind_has_a_page(pages: dict[str, str]) -> None:
    assert {f"reference/kind-{name}.md" for name in JOBS} <= set(pages)


def test_every_key_is_listed_with_its_type(pages: dict[str, str]) -> None:
    for spec, page in reference.places().items():
        text = pages[f"reference/{page}.md"]
        part = re.split(r"^## ", text.split(f"{{#{spec.__name__.lower()}}}", 1)[1], flags=re.M)[0]
        for name in spec.model_fields:
            row = re.search(rf"^\| `{name}` \| (.*)$", part, re.M)
            assert row, f"{spec.__name__}.{name} is not on {page}"
            assert row[1].split(" | ")[0].strip()


def test_links_and_anchors_of_the_reference_meet(pages: dict[str, str]) -> None:
    anchors = {path: re.findall(r"\{#([\w-]+)\}", text) for path, text in pages.items()}
    for path, found in anchors.items():
        assert len(found) == len(set(found)), f"two Specs of one name on {path}"
    for text in pages.values():
        for page, anchor in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", text):
            assert anchor in anchors[f"reference/{page}"]


def test_types_and_defaults_are_said_in_words() -> None:
    assert reference.words(tuple[float, float, float]) == "3 × number"
    assert reference.words(tuple[int, ...] | None) == "list of (integer) or null"
    part = reference.section(PipelineJob)
    assert "| `raw` | text | **required** | The stack. |" in part
    assert "| key | type | default | what it is |" in part
    assert "| `voxel_size_nm` | 3 × number or null, nm | `null` |" in part


def test_pages_from_elsewhere_link_to_pages_that_exist() -> None:
    made = morepages.pages()
    fragments = [path for path in (ROOT / "changes").glob("*.md") if path.name != "README.md"]
    assert made["more/changes.md"].count("\n* ") >= len(fragments)
    for text in made.values():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (DOCS / "more" / target).resolve().exists() or (DOCS / Path(target).name).exists(), target


# ---- the site ---------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation() -> None:
    def files(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [path for part in parts for path in files(part)]  # type: ignore[attr-defined]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = files(nav)
    assert sorted(listed) == sorted({*listed}), "a page stands twice"
    assert {page.name for page in PAGES} == set(listed)


def test_the_site_asks_no_other_host() -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: make docs")
    site = ROOT / "site"
    if not (site / "index.html").exists():
        pytest.skip("the site is not built: make docs")
    for page in site.rglob("*.html"):
        for url in re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]+)"', page.read_text()):
            assert 'rel="canonical"' in url, f"{page.relative_to(site)} loads {url}"


def test_pictures_are_small() -> None:
    large = {
        path.name: path.stat().st_size
        for path in (DOCS / "img").glob("tutorial-*.png")
        if path.stat().st_size > 150_000
    }
    assert not large
    assert os.listdir(DOCS / "img")
