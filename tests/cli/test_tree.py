"""Every command, whoever adds it: it explains itself with examples that parse, and answers in JSON, too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from emloom.cli.main import app
from emloom.cli.manual import MARKER, PAGES, Command, commands, renewed, split_help
from emloom.errors import InputError
from tests.cli.test_cli import emloom

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = commands(app)
NO_JSON = {
    "schema": "what it prints is a JSON schema, or a job file, whoever asks",
    "view": "it serves until it is stopped, and what it prints is an address for a person",
    "artifacts annotate": "it serves until it is stopped, and what it prints is an address for a person",
}
"""Commands without --json, each with the reason."""


def parse(line: str) -> None:
    """Parse a line as the shell would hand it over, without running anything."""
    words = shlex.split(line)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *words = words[: words.index(">")] if ">" in words else words
    assert program == "emloom", line
    command = typer.main.get_command(app)
    context, name = None, "emloom"
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, words, parent=context)
        words = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, words)
    command.make_context(name, words, parent=context).close()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
class TestEveryCommand:
    def test_it_explains_itself(self, capsys: pytest.CaptureFixture[str], command: Command) -> None:
        code, text, _ = emloom(capsys, *command.name.split(), "-h")
        assert code == 0
        assert "Example" in text
        assert command.text

    def test_its_examples_parse(self, command: Command) -> None:
        first = command.name.split()[0]
        assert any(re.match(rf"(\w+=\S+ )?emloom {first}\b", line) for line in command.examples)
        for line in command.examples:
            parse(line)

    def test_its_options_are_explained(self, command: Command) -> None:
        silent = [
            p.name
            for p in command.params
            if p.param_type_name == "option" and not p.help and p.name not in ("seed", "help")
        ]
        assert not silent

    def test_it_prints_json_or_says_why_not(self, command: Command) -> None:
        assert ("--json" in command.options) != (command.name in NO_JSON)


def test_commands_without_json_exist() -> None:
    assert set(NO_JSON) <= {command.name for command in COMMANDS}


def test_an_example_that_cannot_be_typed_is_found() -> None:
    with pytest.raises(Exception, match="--tresh"):
        parse("emloom segment pred.zarr/affinities --tresh 0.6 -o seg.zarr")


def test_help_is_split_into_text_and_examples() -> None:
    text = """Do a thing
    well.

    More of it.

    Examples: emloom do a | emloom do b --expression 'x | y' | A=1 emloom do
    c
    """
    assert split_help(text) == (
        "Do a thing well.\n\nMore of it.",
        ("emloom do a", "emloom do b --expression 'x | y'", "A=1 emloom do c"),
    )


@pytest.mark.parametrize("name", list(PAGES))
def test_the_manual_is_what_the_code_says(name: str) -> None:
    page = DOCS / name
    assert page.read_text(encoding="utf-8") == renewed(page), "write it anew: make docs-pages"


def test_a_page_without_marker_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    page.write_text("# The command line\n")
    with pytest.raises(InputError, match=re.escape(MARKER)):
        renewed(page)
