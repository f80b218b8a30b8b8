"""The pages of the manual that follow from the code: every command, and the functions of `emloom.api`.

``docs/cli.md`` and ``docs/api.md`` begin with words of a person; below the marker stands what this module writes::

    make docs-pages        python -m emloom.cli.manual docs

A test holds the pages to the code.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from emloom.errors import InputError
from emloom.io.files import write_text_atomic

MARKER = "<!-- from here on written by `make docs-pages` -->"
_EXAMPLES = re.compile(r"\bExamples?:\s*")
_NEXT = re.compile(r"\s*\|\s*(?=emloom\b|[A-Z_]+=\S+ emloom\b)")


@dataclass(frozen=True)
class Command:
    """A command as the manual shows it.

    Attributes:
        name: its words, without `emloom`.
        text: what it does, without examples.
        examples: lines to type.
        params: arguments and options, as the parser knows them.
    """

    name: str
    text: str
    examples: tuple[str, ...]
    params: tuple[Any, ...]

    @property
    def options(self) -> set[str]:
        """Every spelling of every option."""
        return {word for p in self.params if _is_option(p) for word in (*p.opts, *p.secondary_opts)}

    def to_markdown(self) -> str:
        """Return its section."""
        lines = [f"## emloom {self.name}", "", self.text, ""]
        lines += ["```sh", *self.examples, "```", "", "| | |", "|---|---|"]
        lines += [f"| {_spelled(p)} | {_explained(p)} |" for p in self.params if not getattr(p, "hidden", False)]
        return "\n".join(lines)


def commands(app: typer.Typer) -> list[Command]:
    """Return every command of an app, in its order; groups are walked through."""
    return list(_walk(typer.main.get_command(app), ()))


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[Command]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from _walk(each, (*words, name))
        return
    text, examples = split_help(command.help or "")
    yield Command(" ".join(words), text, examples, tuple(command.params))


def split_help(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the help of a command in paragraphs, and its examples line by line."""
    before, *after = _EXAMPLES.split(inspect.cleandoc(text), maxsplit=1)
    examples = _NEXT.split(" ".join(after[0].split())) if after else []
    paragraphs = [" ".join(part.split()) for part in before.strip().split("\n\n")]
    return "\n\n".join(paragraphs), tuple(examples)


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _spelled(param: Any) -> str:
    if not _is_option(param):
        return f"`{param.metavar or param.name.upper()}`"
    words = ", ".join(f"`{word}`" for word in (*param.opts, *param.secondary_opts))
    return _cell(words if param.metavar is None else f"{words} `{param.metavar}`")


def _explained(param: Any) -> str:
    text = getattr(param, "help", None) or ""
    known = param.default
    shown = known not in (None, False, True, "", ()) and not callable(known) and not param.required
    if shown and "efault" not in text:
        text = f"{text} Default: `{known}`."
    return _cell(f"{text} Required." if _is_option(param) and param.required else text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def cli_text() -> str:
    """Return what stands below the marker of ``docs/cli.md``."""
    from emloom.cli.main import app

    return "\n\n".join(command.to_markdown() for command in commands(app))


def api_text() -> str:
    """Return what stands below the marker of ``docs/api.md``."""
    from emloom import api

    parts = [f"## emloom.{name}\n\n{_function(getattr(api, name), f'emloom.{name}')}" for name in api.VERBS]
    parts += [
        f"## emloom.{name}\n\n{_docstring(getattr(api, name))}" for name in ("Where", "WhereAnew", "OnDevice")
    ]
    return "\n\n".join([*parts, f"## emloom.Result\n\n{_result(api.Result)}"])


def _function(function: Callable[..., Any], name: str) -> str:
    return f"```python\n{signature_text(function, name)}\n```\n\n{_docstring(function)}"


def signature_text(function: Callable[..., Any], name: str) -> str:
    """Return a signature, one parameter per line, types as they are written."""
    lines, keywords = [], False
    signature = inspect.signature(function)
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not keywords:
            keywords = True
            lines += [] if any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()) else ["*"]
        lines.append(str(each).replace("'", "") if each.default is each.empty else _with_default(each))
    return f"{name}(\n    " + ",\n    ".join(lines) + f",\n) -> {signature.return_annotation}"


def _with_default(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}: {parameter.annotation} = {parameter.default!r}"


def _result(kind: type[Any]) -> str:
    lines = [_docstring(kind), ""]
    for name, member in vars(kind).items():
        if not name.startswith("_") and (isinstance(member, property) or hasattr(member, "attrname")):
            first = (inspect.getdoc(member) or "").partition("\n\n")[0]
            lines.append(f"* `{name}`: {' '.join(first.split())}")
    return "\n".join(lines)


def _docstring(thing: Any) -> str:
    """Return a docstring in the house's form as Markdown: what is given and made becomes lists."""
    out: list[str] = []
    for block in (inspect.getdoc(thing) or "").split("\n\n"):
        head, _, rest = block.partition("\n")
        if head in ("Args:", "Attributes:", "Raises:", "Returns:"):
            title = {"Args:": "Takes", "Attributes:": "Holds", "Raises:": "Raises", "Returns:": "Returns"}[head]
            out.append(f"**{title}**" + _items(inspect.cleandoc("\n" + rest), head == "Returns:"))
        else:
            out.append(" ".join(block.split()))
    return "\n\n".join(out)


def _items(text: str, is_prose: bool) -> str:
    if is_prose:
        return f" {' '.join(text.split())}"
    joined = re.sub(r"\n\s+", " ", text)
    return "\n\n" + "\n".join(re.sub(r"^(\w+): ", r"* `\1`: ", line) for line in joined.splitlines())


PAGES: dict[str, Callable[[], str]] = {"cli.md": cli_text, "api.md": api_text}
"""What stands below the marker of each page."""


def renewed(page: Path) -> str:
    """Return a page with its lower part written anew; raises `InputError` where it has no marker."""
    text = page.read_text(encoding="utf-8")
    head, marker, _ = text.partition(MARKER)
    if not marker:
        raise InputError(f"{page} has no line {MARKER!r}: below it the rest would be written")
    return f"{head}{MARKER}\n\n{PAGES[page.name]()}\n"


def main(folder: str) -> None:
    """Write the pages of a folder anew."""
    for name in PAGES:
        page = Path(folder) / name
        write_text_atomic(page, renewed(page))


if __name__ == "__main__":
    main(sys.argv[1])
