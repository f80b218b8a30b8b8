"""`emloom doctor` and `emloom data` from the shell's side."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from emloom.io import registry
from emloom.tasks import doctor as examination
from emloom.tasks.findings import Finding, Report
from tests.cli.test_cli import emloom
from tests.io.servers import Behaviour, serving


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMLOOM_DATA", str(tmp_path / "data"))


def test_every_command_explains_itself_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["doctor"], ["data", "list"], ["data", "fetch"], ["data", "path"]):
        code, text, _ = emloom(capsys, *words, "--help")
        assert code == 0
        assert "Examples:" in text


def test_doctor_prints_findings_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, text, _ = emloom(capsys, "doctor", str(tmp_path))
    assert code == 0
    assert "disk space" in text
    code, text, _ = emloom(capsys, "doctor", str(tmp_path), "--json")
    assert code == 0
    assert json.loads(text)["folder"] == str(tmp_path)


@pytest.mark.parametrize(("level", "status"), [("ok", 0), ("warning", 0), ("error", 1)])
def test_only_errors_fail(
    level: str, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report("/x", (Finding(level, "a thing", "found"),))  # type: ignore[arg-type]
    monkeypatch.setattr(examination, "doctor", lambda folder: report)
    assert emloom(capsys, "doctor")[0] == status


def test_doctor_of_no_folder_is_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, text = emloom(capsys, "doctor", str(tmp_path / "none"))
    assert code == 2
    assert "not a folder" in text


def test_data_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data" / "fib25").mkdir(parents=True)
    (tmp_path / "data" / "fib25" / "mine.h5").touch()
    code, text, _ = emloom(capsys, "data", "list")
    assert code == 0
    rows = {line.split()[0]: line for line in text.splitlines()[1:] if line}
    assert "EMLOOM_DATA" in rows["fib25"]
    assert "absent" in rows["cremi_a"]
    code, text, _ = emloom(capsys, "data", "list", "--json")
    entries = {row["name"]: row for row in json.loads(text)}
    assert set(entries) == set(registry.REGISTRY)
    assert entries["fib25"]["folder"] == str(tmp_path / "data" / "fib25")


def test_data_path_of_what_is_absent_is_the_fetch_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, text = emloom(capsys, "data", "path", "cremi_a")
    assert (code, out) == (2, "")
    assert "emloom data fetch cremi_a" in text
    code, _, text = emloom(capsys, "data", "path", "cremi")
    assert code == 2
    assert "did you mean 'cremi_" in text


def test_data_fetch_shows_the_terms_then_the_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = bytes(100_000)
    checksum = "sha256:" + hashlib.sha256(body).hexdigest()
    entry = registry.REGISTRY["cremi_a"]
    with serving(Behaviour(body)) as server:
        file = registry.RemoteFile("a.hdf", server.url, checksum)
        monkeypatch.setitem(registry.REGISTRY, "cremi_a", replace(entry, files=(file,)))
        code, text, _ = emloom(capsys, "data", "fetch", "cremi_a")
    assert code == 0
    assert text.index(f"licence: {entry.licence}") < text.index("cremi_a: ")
    assert (tmp_path / "cache" / "cremi_a" / "a.hdf").read_bytes() == body
    code, text, _ = emloom(capsys, "data", "path", "cremi_a")
    assert (code, text.strip()) == (0, str(tmp_path / "cache" / "cremi_a"))
