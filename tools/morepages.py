"""Pages of the documentation made from files elsewhere: what changed, how to contribute, why things are so.

A hook of mkdocs, as `tools/reference.py`. Links to pages of the documentation keep working, whatever folder they
were written in; links to other files of the repository become their text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
_ORDER = ("Added", "Changed", "Fixed", "Removed")


def linked(text: str) -> str:
    """Return text whose links fit a page in more/."""

    def one(match: re.Match[str]) -> str:
        name = Path(match[2]).name
        found = name.endswith(".md") and (ROOT / "docs" / name).exists()
        return f"[{match[1]}](../{name}{match[3] or ''})" if found else match[1]

    return _LINK.sub(one, text)


def changes() -> str:
    """Return what changed since the last release, by kind."""
    paths = sorted(path for path in (ROOT / "changes").glob("*.md") if path.name != "README.md")
    texts = [path.read_text(encoding="utf-8").strip() for path in paths]
    lines = ["# Changes", "", "Since the last release.", ""]
    for kind in _ORDER:
        mine = [text for text in texts if _kind(text) == kind]
        if mine:
            lines += [f"## {kind}", ""]
            lines += ["* " + " ".join(text.removeprefix(f"**{kind}**:").split()) for text in mine] + [""]
    return "\n".join(lines)


def _kind(text: str) -> str:
    return next((kind for kind in _ORDER if text.startswith(f"**{kind}**")), "Changed")


def decisions() -> str:
    """Return all design records on one page."""
    texts = [path.read_text(encoding="utf-8").strip() for path in sorted((ROOT / "design").glob("[0-9]*.md"))]
    head = "# Decisions\n\nHalf a page each: what was decided, why, and what would change it.\n"
    return "\n\n".join([head, *(re.sub(r"^#", "##", text, flags=re.M) for text in texts)]) + "\n"


def pages() -> dict[str, str]:
    """Return the Markdown of every page, by its path below docs/."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    made = {"changes": changes(), "contributing": contributing, "decisions": decisions()}
    return {f"more/{name}.md": linked(text) for name, text in made.items()}


def on_config(config: Any) -> Any:
    """Add the section More to the navigation."""
    names = {"What changed": "changes", "Contributing": "contributing", "Decisions": "decisions"}
    config.nav.append({"More": [{title: f"more/{name}.md"} for title, name in names.items()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to what mkdocs builds."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
