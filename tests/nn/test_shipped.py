"""Models that come with emloom open, say what they are, and are found by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.nn.model import load
from emloom.nn.shipped import CARD, WEIGHTS, card, model_path, shipped
from emloom.tasks.predict import PredictJob

MODELS = sorted(shipped())


def test_there_are_some() -> None:
    assert "fib25-lean" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_opens_and_has_a_card_that_names_licence_and_data(name: str) -> None:
    spec, _ = load(shipped()[name] / WEIGHTS)[:2]
    text = card(name)
    assert text.startswith("# ")
    assert "x".join(f"{v:g}" for v in spec.voxel_size_nm) in text.replace(" ", "")
    rows = dict(re.findall(r"^\| ([a-z ]+) \| (.+) \|$", text, re.M))
    assert rows["licence"].startswith("MIT")
    if "synthetic" not in rows["learned from"]:
        # Weights may go out where the data's licence allows it: it is named, and whose data they are.
        assert "doi:" in rows["learned from"]
        assert re.search(r"\b(CC BY|ODC-By)\b(?!-)", rows["learned from"])
        assert "name the source" in rows["licence"]
    for word in ("How good it is", "what not"):
        assert word in text
    assert (shipped()[name] / WEIGHTS).stat().st_size < 10e6


@pytest.mark.parametrize("name", MODELS)
def test_nothing_of_a_computer_is_in_the_file(name: str) -> None:
    head = (shipped()[name] / WEIGHTS).read_bytes()[:20_000]
    assert not any(word in head for word in (b"/home", b"/root", b"/tmp", b"/work", b"/Users"))


def test_a_name_stands_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(shipped()["fib25-lean"] / WEIGHTS)
    assert model_path("fib25-lean") == path
    assert PredictJob(raw="raw.zarr", model="fib25-lean", output="out.zarr").model == path
    assert model_path("mine.safetensors") == "mine.safetensors"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fib25-lean").write_text("a file of that name comes first")
    assert model_path("fib25-lean") == "fib25-lean"


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"did you mean 'fib25-lean'.*these do: fib25-lean"):
        card("fib25")


def test_the_command_lists_them_and_prints_cards() -> None:
    said = CliRunner().invoke(app, ["models"])
    assert said.exit_code == 0
    assert "fib25-lean" in said.output
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    assert [row["name"] for row in rows] == MODELS
    text = (shipped()["fib25-lean"] / CARD).read_text()
    assert CliRunner().invoke(app, ["models", "fib25-lean"]).output.strip() == text.strip()
