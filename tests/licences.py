"""The licences of what emloom needs at run time, from the packages' own metadata: `make licences`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
EXTRAS = ("view", "openvino", "forest", "networkx")

_HEAD = """# Licences

emloom is under the MIT licence. What it needs at run time is under the licences below, as the packages themselves
say. The suite fails where a package is under the GPL or AGPL, and where this page is out of date. `make licences`
writes it anew.

Four of them are under the LGPL or the MPL: they are used as they come, as packages of their own, and not changed.

The table holds what Python 3.11 on Linux needs; a package that only another system needs is not in it. Packages of
extras are marked with the extra's name.

"""


@dataclass(frozen=True)
class Package:
    """An installed package: its name, its licence, and the extra that asks for it ("" for all)."""

    name: str
    licence: str
    extra: str


def packages() -> list[Package]:
    """Return every installed package that emloom needs at run time, directly or not, by name."""
    wanted: dict[str, str] = {}
    for extra in ("", *EXTRAS):
        _follow("emloom", {extra}, extra, wanted)
    del wanted["emloom"]
    return [Package(name, licence_of(name), extra) for name, extra in sorted(wanted.items())]


def _follow(name: str, extras: set[str], reason: str, wanted: dict[str, str]) -> None:
    wanted.setdefault(canonicalize_name(name), reason)
    for text in metadata.requires(name) or ():
        need = Requirement(text)
        asked = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        key = canonicalize_name(need.name)
        if asked and key not in wanted and _installed(need.name):
            _follow(need.name, set(need.extras), reason, wanted)


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def licence_of(name: str) -> str:
    """Return what a package says its licence is, in a few words."""
    said = metadata.metadata(name)
    if said.get("License-Expression"):
        return str(said["License-Expression"])
    classes = [text.rpartition(" :: ")[2] for text in said.get_all("Classifier") or () if "License ::" in text]
    named = [text for text in classes if text != "OSI Approved"]
    first = next((line.strip() for line in (said.get("License") or "").splitlines() if line.strip()), "")
    return "; ".join(named) or re.sub(r"\s+", " ", first)[:80] or "not stated"


def page() -> str:
    """Return the text of docs/licences.md."""
    rows = [f"| {each.name} | {each.licence} | {each.extra} |" for each in packages()]
    return _HEAD + "\n".join(["| package | licence | extra |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
