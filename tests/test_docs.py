"""What the documentation shows can be typed: commands parse, job files validate, messages are the real ones."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.nn import augment
from emloom.nn.augment import AugmentSpec
from emloom.spec import Spec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.semantic import SemanticJob
from emloom.tasks.sparsespec import SparseLabels

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def fenced(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in fenced(page, "(?:sh|bash|console)"):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.removeprefix("$ ").partition(" #")[0].strip()
                # Options of the root act at once: `--install-completion` writes to the home folder.
                if re.match(r"(\.venv/bin/)?emloom [^-]", words):
                    yield page.name, words


def test_the_documentation_shows_commands() -> None:
    assert len(list(commands())) > 5


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_every_command_parses(page: str, line: str) -> None:
    group = typer.main.get_command(app)
    _, verb, *words = shlex.split(line)
    if ">" in words:
        words = words[: words.index(">")]
    # Parses and checks the arguments, as the shell would hand them over, without running anything.
    with group.make_context("emloom", [verb, *words]) as outer:
        name, command, rest = group.resolve_command(outer, [verb, *words])  # type: ignore[attr-defined]
        while hasattr(command, "resolve_command"):  # a group, such as `emloom artifacts`
            outer = command.make_context(name, rest, parent=outer)
            name, command, rest = command.resolve_command(outer, rest)
        command.make_context(name, rest, parent=outer).close()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    shown = {t for page in PAGES for t in re.findall(r"\bmake ([a-z-]+)", "\n".join(fenced(page, "sh")))}
    assert shown
    assert shown <= targets


def job_example() -> str:
    return next(text for text in fenced(ROOT / "docs" / "job-files.md", "yaml") if "kind: neurons" in text)


def test_the_job_file_is_valid_and_round_trips() -> None:
    job = NeuronsJob.from_yaml(job_example())
    assert NeuronsJob.from_yaml(job.to_yaml()) == job


def test_the_message_about_mistakes_is_the_real_one() -> None:
    broken = job_example().replace("labels:", "lables:").replace("steps: 1000", "steps: 0")
    with pytest.raises(InputError) as caught:
        NeuronsJob.from_yaml(broken, "job.yaml")
    page = (ROOT / "docs" / "job-files.md").read_text(encoding="utf-8")
    for line in f"error: {caught.value}".splitlines():
        assert line.partition(" (valid:")[0].strip() in page


# ---- augmentation -----------------------------------------------------------------------------------------------

AUGMENTATION = ROOT / "docs" / "augmentation.md"


def test_the_examples_of_augmentation_are_valid() -> None:
    blocks = [yaml.safe_load(text) for text in fenced(AUGMENTATION, "yaml")]
    assert len(blocks) == 2
    for block in blocks:
        given = block.get("training", block)["augment"]
        # Nothing is lost: what the page says stands in the resolved value.
        resolved = AugmentSpec.from_dict(given, "page").to_dict()
        for name, part in given.items():
            for key, value in part.items():
                assert resolved[name][key] == value or isinstance(value, dict)


def test_every_parameter_of_augmentation_is_explained() -> None:
    page = AUGMENTATION.read_text(encoding="utf-8")
    specs = [s for s in vars(augment).values() if isinstance(s, type) and issubclass(s, Spec) and s is not Spec]
    assert AugmentSpec in specs
    for spec in specs:
        for name in spec.model_fields:
            assert re.search(rf"\b{name}\b", page), f"{spec.__name__}.{name} is not on the page"


# ---- sparse labels ----------------------------------------------------------------------------------------------


def test_the_guide_to_sparse_labels_shows_valid_files() -> None:
    labels, job = fenced(ROOT / "docs" / "sparse-labels.md", "yaml")
    pieces = SparseLabels.from_yaml(labels)
    assert {piece.kind for piece in pieces.pieces} == {"plane", "points", "scribbles", "block"}
    made = SemanticJob.from_yaml(job)
    assert pieces.classes == {each.name: each.ids[0] for each in made.objective.classes}
    groups = {piece.group for piece in pieces.pieces}
    assert {*made.data[0].pieces.validation, *made.data[0].pieces.test} <= groups
    sampling = made.training.sampling.to_dict()
    page = (ROOT / "docs" / "sparse-labels.md").read_text(encoding="utf-8")
    said = yaml.safe_load(next(re.finditer(r"`(\{kind: balanced.*?\})`", page))[1])
    assert said == {name: sampling[name] for name in said}
