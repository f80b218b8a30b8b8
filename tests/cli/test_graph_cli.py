"""`emloom graph query`: one question at a time, as a table, and as CSV for other programs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from emloom.tasks.graph import GraphQuery
from tests.cli.test_cli import emloom
from tests.tasks.graphs import whole, write_graph


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_graph(tmp_path_factory.mktemp("cli") / "seg.zarr", *whole(), (8, 16, 16)))


def test_every_question_has_an_answer(capsys: pytest.CaptureFixture[str], container: str, tmp_path: Path) -> None:
    code, out, _ = emloom(capsys, "graph", "query", container, "--largest", "3", "--threshold", "0.5")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == f"{container}: segments at threshold 0.5, voxels of 40,8,8 nm (z,y,x)"
    assert lines[1].split()[:5] == ["segment", "voxels", "fragments", "volume_um3", "z_nm"]
    with GraphQuery(container) as graph:
        largest, everything = graph.largest(3, 0.5), graph.largest(10**6)
        contacts = graph.neighbours(int(largest["segment"][0]), 0.5)
    assert [line.split()[0] for line in lines[2:]] == [str(name) for name in largest["segment"]]
    table = tmp_path / "n.csv"
    words = ("--neighbours", str(largest["segment"][0]), "--threshold", "0.5", "--csv", str(table))
    code, out, _ = emloom(capsys, "graph", "query", container, *words)
    assert (code, out.splitlines()[-1]) == (0, f"{table}: {len(contacts['n'])} rows")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["neighbour"]) for row in rows] == contacts["neighbour"].tolist()
    assert [float(row["mean"]) for row in rows] == contacts["mean"].tolist()
    code, out, _ = emloom(capsys, "graph", "query", container, "--largest", "1000000")
    assert (code, len(everything["segment"]) > 60) == (0, True)
    assert out.splitlines()[-1] == f"... {len(everything['segment']) - 50} more rows: --csv FILE writes them all"
    code, out, _ = emloom(capsys, "graph", "query", container, "--box", "0:4,0:9,0:9")
    assert (code, out.splitlines()[1].split()) == (0, ["u", "v", "n", "total", "peak", "contacts", "mean"])
    code, out, _ = emloom(capsys, "graph", "query", container, "--box", "90:94,0:9,0:9")
    assert (code, out.splitlines()[-1]) == (0, "no rows")


def test_sql_and_its_csv(capsys: pytest.CaptureFixture[str], container: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    text = "SELECT 'a, b' AS words, NULL AS missing, 1234.5 AS number"
    code, out, _ = emloom(capsys, "graph", "query", container, "--sql", text, "--csv", str(table))
    assert (code, out.splitlines()[2].split()) == (0, ["a,", "b", "-", "1234.5"])
    assert table.read_text() == 'words,missing,number\n"a, b",,1234.5\n'


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ((), "nothing asked: give one of --largest, --neighbours, --box, --sql"),
        (("--largest", "3", "--sql", "SELECT 1"), "--largest and --sql asked"),
        (("--box", "0:4,0:9,0:9", "--threshold", "0.5"), "leave out --threshold"),
        (("--box", "1:2"), "z0:z1,y0:y1,x0:x1"),
        (("--sql", "DROP VIEW edges"), "only ever read"),
        (("--neighbours", "999999999"), "no segment 999999999"),
        (("--largest", "3", "--threshold", "0.1"), "outside [0.3, 1]"),
        (("--largest", "3", "--csv", "."), "already exists"),
    ],
)
def test_bad_questions_are_refused(
    capsys: pytest.CaptureFixture[str], container: str, words: tuple[str, ...], rule: str
) -> None:
    code, _, err = emloom(capsys, "graph", "query", container, *words)
    assert (code, rule in err) == (2, True)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = emloom(capsys, "graph", "query", "--help")
    assert (code, "Examples:" in text) == (0, True)
    assert "query" in emloom(capsys, "graph", "--help")[1]
