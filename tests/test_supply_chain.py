"""What emloom needs is locked with sums, its licences are listed, and the lists are those of what is there."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.licences import EXTRAS, PAGE, ROOT, packages, page

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCKED = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK, re.M)}
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))


def test_nothing_is_under_the_gpl_or_agpl() -> None:
    found = {each.name: each.licence for each in packages()}
    assert len(found) > 60
    free = re.compile(r"(?<!L)(?<!Lesser )(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
    assert not {name: licence for name, licence in found.items() if free.search(licence)}
    assert "not stated" not in found.values()
    assert not {"kimimaro", "igneous-pipeline", "navis", "webknossos"} & set(found)


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="the page is about Python 3.11 on Linux"
)
def test_the_page_of_licences_is_that_of_what_is_installed() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/licences.md is out of date: run `make licences`"


def test_the_lock_holds_all_that_is_needed_at_the_pinned_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for extra in EXTRAS for text in project["optional-dependencies"][extra]]
    needed = {canonicalize_name(Requirement(text).name) for text in [*project["dependencies"], *extras]}
    assert needed <= set(LOCKED)
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    assert {n: v for n, v in LOCKED.items() if n in pins and pins[n] != v} == {}, "run `make lock`"


def test_every_line_of_the_lock_has_sums_and_names_no_machine() -> None:
    blocks = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.M)[1:]
    assert len(blocks) == len(re.findall(r"^[\w.-]+==", LOCK, re.M)) >= len(LOCKED)
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK
    assert " @ " not in LOCK
