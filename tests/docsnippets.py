"""Snippets of the documentation that run: marked by a comment above the fence, taken in the order of the page.

::

    <!-- file: job.yaml -->   the block becomes a file
    <!-- run -->              `sh` goes to bash, `python` to Python, in the folder of the page; takes seconds
    <!-- run slow -->         the same, only among the slow tests; so is whatever comes after it on the page
    <!-- shows -->            what the last run printed; `...` stands for any text, any lines

The folder is empty at first, and `emloom` is the one under test.

    python -m tests.docsnippets docs/tutorial-frequency.md FOLDER     # prints what every snippet prints
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MARKED = re.compile(r"^<!-- (run slow|run|shows|file: \S+) -->\n+```(\w+)[^\n]*\n(.*?)^```", re.S | re.M)


@dataclass(frozen=True)
class Snippet:
    """A marked block of a page.

    Attributes:
        mark: `run`, `run slow`, `shows` or `file: NAME`.
        language: of the fence.
        text: what stands between the fences.
        line: where it begins on the page.
    """

    mark: str
    language: str
    text: str
    line: int


def snippets(page: Path, slow: bool) -> list[Snippet]:
    """Return the marked blocks of a page: all of them, or those before the first slow one."""
    text = page.read_text(encoding="utf-8")
    found = [Snippet(m[1], m[2], m[3], text.count("\n", 0, m.start()) + 1) for m in _MARKED.finditer(text)]
    first = next((n for n, each in enumerate(found) if each.mark == "run slow"), len(found))
    return found if slow else found[:first]


def carry_out(
    found: list[Snippet], folder: Path, how: Callable[[Snippet, Path], str] | None = None
) -> Iterator[tuple[Snippet, str]]:
    """Carry out blocks in a folder; yield each run and what it printed.

    Args:
        found: the blocks.
        folder: where, empty at first.
        how: runs one block there and returns what it prints; default: in a shell.

    Raises:
        AssertionError: a run fails, or prints something else than is shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    printed = ""
    for snippet in found:
        if snippet.mark.startswith("file: "):
            (folder / snippet.mark.removeprefix("file: ")).write_text(snippet.text, encoding="utf-8")
        elif snippet.mark == "shows":
            assert fits(snippet.text, printed), f"line {snippet.line} shows\n{snippet.text}\nbut it is\n{printed}"
        else:
            printed = (how or in_a_shell)(snippet, folder)
            yield snippet, printed


def in_a_shell(snippet: Snippet, folder: Path) -> str:
    """Run a block as a reader would, and return what it prints."""
    bin_ = folder / ".bin"
    bin_.mkdir(exist_ok=True)
    for name, words in {"emloom": " -m emloom", "python": ""}.items():
        (bin_ / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
        (bin_ / name).chmod(0o755)
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[snippet.language]
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, snippet.text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, f"line {snippet.line} ends with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout.replace(f"{folder.resolve()}/", "")


def fits(shown: str, printed: str) -> bool:
    """Whether a text is what was printed; `...` stands for anything, and runs of blanks for each other."""
    parts = [re.escape(part) for part in " ".join(shown.split()).split("...")]
    return re.fullmatch(".*".join(parts), " ".join(printed.split()), re.S) is not None


if __name__ == "__main__":
    for each, text in carry_out(
        [s for s in snippets(Path(sys.argv[1]), slow=True) if s.mark != "shows"], Path(sys.argv[2])
    ):
        sys.stdout.write(f"---- line {each.line}\n{each.text}\n>>>>\n{text}\n")
        sys.stdout.flush()
