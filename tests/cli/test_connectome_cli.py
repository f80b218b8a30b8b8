"""`emloom connectome`: making one, asking it, writing it for others."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.tasks.connectomegraph import read_graph
from tests.cli.test_cli import emloom
from tests.tasks.drawnsynapses import drawn, labels, stored

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    stored(place / "seg.zarr", labels(3))
    (place / "syn").mkdir()
    write_synapse_table(place / "syn" / SYNAPSES, drawn(3))
    return place


@pytest.fixture(scope="module")
def graph(folder: Path) -> Path:
    from emloom.tasks.connectome import ConnectomeJob, connectome

    given = {"synapses": str(folder / "syn"), "segmentation": str(folder / "seg.zarr")}
    return connectome(ConnectomeJob(output=str(folder / "made"), **given)).folder


def test_one_command_makes_it(capsys: Capture, folder: Path, graph: Path, tmp_path: Path) -> None:
    paths, out = (str(folder / "seg.zarr"), str(folder / "syn")), str(tmp_path / "graph")
    code, said, _ = emloom(capsys, "connectome", *paths, "-o", out, "--block", "4,24,24")
    assert code == 0
    assert said.startswith(f"{out}: {len(read_graph(graph).edges)} edges of ")
    assert "contacts left out: outside" in said
    assert (tmp_path / "graph" / "report.html").exists()
    code, again, _ = emloom(capsys, "connectome", "build", *paths, "-o", out, "--block", "4,24,24")
    assert (code, again) == (0, said)
    code, said, _ = emloom(capsys, "connectome", *paths, "-o", out, "--no-autapses", "--overwrite", "--json")
    assert (code, json.loads(said)["left_out"]["autapse"] > 0) == (0, True)


def test_without_a_segmentation_options_come_first(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    code, said, _ = emloom(
        capsys, "connectome", "-o", str(tmp_path / "g"), "--minimum-weight", "2", str(folder / "syn")
    )
    assert (code, "contacts left out: weight" in said) == (0, True)


def test_questions_have_answers(capsys: Capture, graph: Path, tmp_path: Path) -> None:
    edges = read_graph(graph).edges
    table = tmp_path / "t.csv"
    code, said, _ = emloom(capsys, "connectome", "query", str(graph), "--strongest", "3", "--csv", str(table))
    assert (code, said.splitlines()[0].split()[:3]) == (0, ["pre", "post", "count"])
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [int(row["count"]) for row in rows] == sorted(edges.counts.tolist(), reverse=True)[:3]
    pre, post = rows[0]["pre"], rows[0]["post"]
    for words, head in (
        (("--partners", pre), "partner"),
        (("--inputs", post), "partner"),
        (("--between", f"{pre},{post}"), "id"),
        (("SELECT count(*) AS n FROM neurons",), "n"),
    ):
        code, said, _ = emloom(capsys, "connectome", "query", str(graph), *words)
        assert (code, said.split()[0]) == (0, head)
    other = next(int(a) for a in edges.pre if str(a) != post)
    code, said, _ = emloom(capsys, "connectome", "query", str(graph), "--path", f"{other},{post}", "--least", "1")
    assert (code, said.split()[:3]) == (0, ["pre", "post", "count"])


def test_it_is_written_for_others(capsys: Capture, graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.graphml"
    code, said, _ = emloom(capsys, "connectome", "export", str(graph), "--to", "graphml", "-o", str(out))
    assert (code, said.startswith(f"{out}: ")) == (0, True)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("a", "b", "c", "-o", "o"), "3 paths given"),
        (("query", "{}"), "nothing asked: give one of a SELECT, --strongest"),
        (("query", "{}", "SELECT 1", "--strongest", "2"), "a SELECT and --strongest asked"),
        (("query", "{}", "--path", "1;2"), "is not two neurons"),
        (("query", "{}", "--strongest", "2", "--csv", "{}"), "exists"),
        (("export", "{}", "--to", "graphmal", "-o", "x"), "graphml"),
        (("nothing.zarr", "{}", "-o", "o"), "nothing.zarr"),
    ],
)
def test_bad_input_is_one_line(
    capsys: Capture,
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    rule: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = emloom(capsys, "connectome", *(word.format(graph) for word in words))
    assert code == 2
    assert rule in err
    assert list(tmp_path.iterdir()) == []
