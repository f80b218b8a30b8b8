"""The example of the page about files and edits runs as it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Tracing
from emloom.io.nml import write_nmls
from emloom.io.tracings import read_tracings

PAGE = Path(__file__).parents[2] / "docs" / "skeletons.md"


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Files and edits\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```", section, re.S | re.M)
    skeletons = Skeletons.from_trees(
        [(1, [[0, 0, 0], [0, 0, 9]], [[0, 1]]), (2, [[3, 3, 3]], [])], names=("b", "test 1")
    )
    tracing = replace(
        Tracing.of(skeletons, (3, 3, 3)),
        skeletons=replace(skeletons, node_ids=skeletons.node_ids + skeletons.skeletons.astype("uint64") * 10),
        comments=Marks.of([1, 2], content=["ax end", "axon"]),
    )
    write_nmls(tmp_path / "two.zip", {"1.nml": tracing, "2.nml": tracing})
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "[ 2 13]"
    both = read_tracings("both.nml")["both.nml"]
    assert both.skeletons.names == ("b", "b")
    assert both.comment_texts() == ("axon end", "axon end")
    assert sorted(path.name for path in Path("swc").iterdir()) == ["1.swc", "3.swc"]
