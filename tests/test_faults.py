"""The page of faults is the tests: every mark is a row, every row is a test."""

from __future__ import annotations

import re

import pytest

from tests.faulttable import AREAS, PAGE, ROOT, faults, page

LISTED = faults()


def test_the_page_is_made_of_the_tests() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/faults.md is out of date: run `make faults`"


def test_every_area_has_its_faults() -> None:
    assert len(LISTED) >= 80
    assert {fault.area for fault in LISTED} == set(AREAS)
    said = [(fault.what, fault.test) for fault in LISTED]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("fault", LISTED, ids=lambda fault: fault.test)
def test_a_row_names_a_test_that_is_collected(fault) -> None:
    path, _, name = fault.test.partition("::")
    assert re.fullmatch(r"tests/(\w+/)*test_\w+\.py", path)
    assert name.startswith("test_")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert len(re.findall(rf"^(?:async )?def {name}\(", text, re.M)) == 1
    assert fault.what
    assert fault.happens
