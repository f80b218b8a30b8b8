"""The page about metrics of synapses explains every field, and its example is a valid Spec."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from emloom.metrics.cleftobjects import ObjectScores
from emloom.metrics.clefts import CleftScores, TolerantScores
from emloom.metrics.connections import ConnectionScores
from emloom.metrics.partners import PartnerOptions, PartnerScores
from emloom.metrics.polyads import PolyadScores
from emloom.metrics.synapsebook import METRICS
from emloom.tasks import submission, synapsereport, synapsescoring, synapsespec

PAGE = (Path(__file__).parents[2] / "docs" / "metrics-synapses.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Clefts", CleftScores),
        ("Clefts", TolerantScores),
        ("Clefts as objects", ObjectScores),
        ("Partners", PartnerScores),
        ("Polyads", PolyadScores),
        ("Connectomes", ConnectionScores),
    ],
)
def test_every_score_is_explained(title: str, kind: type) -> None:
    table = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
    named = {word for cell in table for word in re.findall(r"`(\w+)`", cell)}
    missing = {field.name for field in fields(kind)} - named
    assert not missing, f"{kind.__name__}: {missing} in no table under {title}"


def test_every_option_of_partners_is_explained() -> None:
    text = section("Partners")
    assert all(f.name in text for f in fields(PartnerOptions) if f.name != "limit_nm")


def test_the_example_of_a_submission_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as printed, with a writer that only looks at the Spec."""
    code = section("Submitting to CREMI").partition("```python\n")[2].partition("```")[0]
    seen: list[submission.SubmitSpec] = []
    monkeypatch.setattr(submission, "submit", seen.append)
    exec(code.partition("print(")[0], {})
    assert seen[0].shape == (125, 1250, 1250)


def test_the_example_of_scoring_is_valid_and_names_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    text = section("All of it from Python")
    seen: list[synapsespec.SynapseSpec] = []
    monkeypatch.setattr(synapsescoring, "evaluate_synapses", seen.append)
    monkeypatch.setattr(synapsereport, "write_synapse_report", lambda *_: None)
    exec(text.partition("```python\n")[2].partition("print(")[0], {})
    assert seen[0].metrics == tuple(METRICS)
    for metric in METRICS.values():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{metric.name}` |")]
        assert re.findall(r"`(\w+)`", row)[1:] == [value.key for value in metric.values]
