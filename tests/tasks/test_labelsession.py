"""Answers: each is on the disk at once, can be taken back, and survives whatever ends the program."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.patches import PatchLabels, joined
from emloom.io.patchtables import read_patches, write_patches
from emloom.tasks import labelsession
from emloom.tasks.labelsession import JUDGED, LabelSession, extended_queue, locked, queue_path
from tests.tasks.labelling import CLASSES, table

STARTS = [(0, 0, 0), (1, 4, 9), (2, 30, 30), (3, 1, 1)]
WORDS = ("yes", "no", "unsure", None)
VALUES = {"yes": 1, "no": 0, "unsure": -1, None: -1}


def same(a: PatchLabels, b: PatchLabels) -> bool:
    return (
        a.starts.tolist() == b.starts.tolist()
        and a.labels.tolist() == b.labels.tolist()
        and [a.annotators[k] for k in a.annotator] == [b.annotators[k] for k in b.annotator]
        and {k: v.tolist() for k, v in a.columns.items()} == {k: v.tolist() for k, v in b.columns.items()}
    )


STEPS = st.lists(
    st.one_of(
        st.just("undo"),
        st.just("restart"),
        st.tuples(st.integers(0, 3), st.sampled_from(CLASSES), st.sampled_from(WORDS)),
    ),
    max_size=14,
)


@settings(max_examples=40)
@given(STEPS)
def test_the_table_is_what_was_answered(steps: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        other = table([STARTS[0], STARTS[2]], [[1, 0], [0, -1]], "bob", tissue=["soma", "axon"])
        write_patches(path, other)
        session = LabelSession(path, table(STARTS, score=["1", "2", "3", "4"]), "ada")
        history: list[dict[tuple[int, str], str]] = [{}]
        tables, touched = [session.labels()], False
        for step in steps:
            if step == "restart":
                session = LabelSession(path, session.queue, "ada")
                history, tables = history[-1:], tables[-1:]
            elif step == "undo":
                undone = session.undo()
                assert (undone is None) == (len(history) == 1)
                if undone is not None:
                    history.pop()
                    tables.pop()
                    assert same(session.labels(), tables[-1])
            else:
                index, name, word = step  # type: ignore[misc]
                session.answer(index, name, word)
                now = {key: value for key, value in history[-1].items() if key != (index, name)}
                history.append(now | ({(index, name): word} if word else {}))
                tables.append(session.labels())
            on_disk = read_patches(path)
            touched = touched or isinstance(step, tuple)
            assert same(on_disk, session.labels() if touched else other)
            bob = on_disk.by("bob")
            assert bob.labels.tolist() == other.labels.tolist()
            assert bob.columns["tissue"].tolist() == ["soma", "axon"]
            for index in range(len(STARTS)):
                said = [history[-1].get((index, name)) for name in CLASSES]
                assert session.said(index) == said
            complete = [None not in session.said(k) for k in range(4)]
            assert session.done() == sum(complete)
            opened = [k % 4 for k in range(2, 6) if not complete[k % 4]]
            assert session.next_open(1) == (opened[0] if opened else None)


def test_a_row_says_who_what_and_what_was_asked(tmp_path: Path) -> None:
    session = LabelSession(tmp_path / "a.csv", table(STARTS, score=["0.9", "", "", ""]), "ada")
    session.answer(0, "myelin", "unsure")
    session.answer(0, "debris", "yes")
    session.answer(2, "debris", "no")
    found = read_patches(tmp_path / "a.csv")
    assert found.starts.tolist() == [[0, 0, 0], [2, 30, 30]]
    assert found.labels.tolist() == [[1, -1], [0, -1]]
    assert found.columns[JUDGED].tolist() == ["debris;myelin", "debris"]
    assert found.columns["score"].tolist() == ["0.9", ""]
    assert found.annotators == ("ada",)


def test_starting_again_goes_on_behind_the_last_answer(tmp_path: Path) -> None:
    path, queue = tmp_path / "a.csv", table(STARTS, classes=("debris",))
    session = LabelSession(path, queue, "ada")
    assert session.position == 0
    session.answer(2, "debris", "no")
    assert LabelSession(path, queue, "ada").position == 3
    session.answer(3, "debris", "unsure")
    assert LabelSession(path, queue, "ada").position == 0
    assert LabelSession(path, queue, "bob").position == 0
    for index in (0, 1):
        session.answer(index, "debris", "yes")
    again = LabelSession(path, queue, "ada")
    assert (again.position, again.done()) == (1, 4)


def test_a_half_answered_patch_is_where_to_go_on(tmp_path: Path) -> None:
    session = LabelSession(tmp_path / "a.csv", table(STARTS), "ada")
    session.answer(1, "debris", "no")
    assert LabelSession(tmp_path / "a.csv", session.queue, "ada").position == 1


def test_labels_made_elsewhere_count_as_answers(tmp_path: Path) -> None:
    write_patches(tmp_path / "a.csv", table(STARTS[:2], [[1, -1], [0, 1]], "ada"))
    session = LabelSession(tmp_path / "a.csv", table(STARTS), "ada")
    assert session.said(0) == ["yes", None]
    assert session.done() == 1


@pytest.mark.fault(
    "disk",
    "the disk is full while somebody labels patches",
    "error: the disk is full; the answers before stay, the patch is still open",
)
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = LabelSession(tmp_path / "a.csv", table(STARTS), "ada")
    session.answer(0, "debris", "no")

    def full(*_: object, **__: object) -> None:
        raise InputError("cannot write: the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(labelsession, "write_patches", full)
        with pytest.raises(InputError, match="disk is full"):
            session.answer(1, "debris", "yes")
        with pytest.raises(InputError, match="disk is full"):
            session.undo()
    assert session.said(1) == [None, None]
    assert session.said(0) == ["no", None]
    assert same(read_patches(tmp_path / "a.csv"), session.labels())
    assert session.undo() == 0
    assert session.undo() is None


@pytest.mark.fault(
    "processes",
    "somebody else changes the table between two answers",
    "error: changed by somebody else; their answers stay",
)
def test_a_table_that_somebody_changed_is_not_replaced(tmp_path: Path) -> None:
    session = LabelSession(tmp_path / "a.csv", table(STARTS), "ada")
    session.answer(0, "debris", "no")
    other = LabelSession(tmp_path / "a.csv", table(STARTS), "bob")
    other.answer(0, "debris", "yes")
    with pytest.raises(InputError, match="changed by somebody else"):
        session.answer(1, "debris", "no")
    assert read_patches(tmp_path / "a.csv").annotators == ("ada", "bob")


@pytest.mark.fault(
    "processes",
    "two programs label into one table",
    "error: another program ...",
)
def test_one_program_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "a.csv"),
        pytest.raises(InputError, match="another program"),
        locked(tmp_path / "a.csv"),
    ):
        pass
    with locked(tmp_path / "a.csv"):
        pass


KILLED = """
import sys
from emloom.tasks.labelsession import LabelSession, locked
from tests.tasks.labelling import table
starts = [(0, k, 0) for k in range(400)]
with locked(sys.argv[1]):
    session = LabelSession(sys.argv[1], table(starts, classes=("debris",)), "ada")
    for index in range(session.position, 400):
        session.answer(index, "debris", "yes" if index % 3 else "no")
        print(index, flush=True)
"""


@pytest.mark.fault(
    "processes",
    "the program in which somebody labels patches is killed",
    "every answer that was told to be kept is there",
)
def test_kill_minus_nine_loses_no_answer(tmp_path: Path) -> None:
    path, last, root = tmp_path / "a.csv", -1, Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(path)]
    for wanted in (20, 50):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as run:
            assert run.stdout is not None
            told = next(int(line) for line in run.stdout if int(line) >= wanted)
            run.send_signal(signal.SIGKILL)
            last = max([told, *(int(line) for line in run.stdout.read().split())])
        found = read_patches(path)
        # What was told to be kept is there, and at most the one answer more that was not told yet.
        assert len(found) in (last + 1, last + 2)
        assert found.of("debris").tolist() == [int(k % 3 > 0) for k in range(len(found))]
    with locked(path):
        assert LabelSession(path, table([(0, k, 0) for k in range(400)], classes=("debris",)), "ada").position > 50


def test_the_queue_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    first = extended_queue(path, table(STARTS[:2], [[1, 1], [0, 0]], "x", score=["a", "b"]))
    assert (first.labels == -1).all()
    assert first.columns["score"].tolist() == ["a", "b"]
    more = extended_queue(path, table(STARTS[1:]))
    assert more.starts.tolist() == [list(start) for start in STARTS]
    before = queue_path(path).stat().st_mtime_ns
    assert extended_queue(path, None).starts.tolist() == more.starts.tolist()
    assert queue_path(path).stat().st_mtime_ns == before
    assert queue_path(path).name == "labels.queue.csv"


def test_without_a_queue_the_table_is_looked_at(tmp_path: Path) -> None:
    both = joined([table(STARTS[:2], [[1, 1], [0, 0]], "a"), table(STARTS[:3], [[1, 1]] * 3, "b")])
    write_patches(tmp_path / "labels.csv", both)
    assert extended_queue(tmp_path / "labels.csv", None).starts.tolist() == [list(s) for s in STARTS[:3]]
    with pytest.raises(InputError, match="say what to look at"):
        extended_queue(tmp_path / "other.csv", None)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    session = LabelSession(path, table(STARTS), "ada")
    session.answer(0, "debris", "yes")
    for wrong, rule in (
        (lambda: session.answer(9, "debris", "yes"), "not in the queue"),
        (lambda: session.answer(-1, "debris", "yes"), "not in the queue"),
        (lambda: session.answer(0, "mylin", "yes"), "did you mean"),
        (lambda: session.answer(0, "debris", "perhaps"), "no answer"),
        (lambda: LabelSession(path, table(STARTS), " "), "no name"),
        (lambda: LabelSession(path, table([]), "ada"), "nothing to look at"),
        (lambda: LabelSession(path, table(STARTS, classes=("fold",)), "ada"), "ask for the same classes"),
        (lambda: LabelSession(path, table(STARTS, classes=("a;b",)), "ada"), "rename it"),
        (lambda: extended_queue(path, table(STARTS, classes=("fold",))), None),
        (lambda: extended_queue(path, table(STARTS)), "ask for the same classes"),
    ):
        if rule is None:
            wrong()
        else:
            with pytest.raises(InputError, match=rule):
                wrong()
    assert np.array(session.labels().labels).tolist() == [[1, -1]]
