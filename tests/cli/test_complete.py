"""Tab: what the shell is offered, asked as the shells ask."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from emloom.cli.complete import recipe_names, recipes
from tests.cli.test_cli import emloom


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("emloom segm", ["segment"]),
        ("emloom data fetch cremi_", ["cremi_a", "cremi_b", "cremi_c"]),
        ("emloom run emloom.recipes.fib25:", ["emloom.recipes.fib25:full", "emloom.recipes.fib25:quick"]),
        ("emloom segment a --linkage qu", ["quantile"]),
        ("emloom import a b --kind aff", ["affinities"]),
        ("emloom connectome export g --to neu", ["neuprint", "neuroglancer"]),
        ("emloom predict raw.zarr --device c", ["cpu", "cuda"]),
        ("emloom segment --thr", ["--threshold"]),
    ],
)
def test_bash_zsh_and_fish_are_answered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, offered: list[str]
) -> None:
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setenv("_EMLOOM_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        code, said, _ = emloom(capsys)
        assert code == 0
        for word in offered:
            assert word in said.replace("\\", ""), (shell, said)  # zsh has : escaped
        assert "Usage" not in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_ask_emloom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv("_EMLOOM_COMPLETE", f"source_{shell}")
    code, script, _ = emloom(capsys)
    assert code == 0
    assert f"_EMLOOM_COMPLETE=complete_{shell}" in script


def test_recipes_that_are_offered_exist() -> None:
    names = recipe_names()
    assert {"emloom.recipes.fib25:quick", "emloom.recipes.phantom:demo"} <= set(names)
    for name in names:
        module, _, function = name.partition(":")
        assert callable(getattr(import_module(module), function))


def test_job_files_are_offered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    for name in ("job.yaml", "notes.txt", ".hidden.yaml", "jobs/other.yml"):
        (tmp_path / name).write_text("")
    assert recipes("jo") == ["job.yaml"]
    assert recipes("jobs/") == ["jobs/other.yml"]
    assert recipes("nowhere/") == []
