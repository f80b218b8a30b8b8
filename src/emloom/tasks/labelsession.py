"""A person says what patches hold: the queue, the answers, and the table in which every answer stands at once.

The **table** holds answers only, one row per patch and annotator, in the order in which they were given; every
change of it replaces the file in one step, so whatever ends the program ends it between two answers. Its column
``judged`` names the classes that were answered: a class that is -1 and judged is *unsure*, one that is not judged
was not asked yet. The **queue** beside it (``labels.queue.csv``) holds the patches to look at; it only grows. So
whoever starts again goes on behind the last answer.

One program at a time works on a table: it holds a lock beside it, which no crash leaves behind, and it refuses to
replace a table that somebody else changed meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Vec
from emloom.geometry.box import as_vec
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels, joined, require_same_patches
from emloom.io.files import explained
from emloom.io.patchtables import read_patches, write_patches

JUDGED = "judged"
"""Column that names the classes a row answers."""

BETWEEN = ";"
WORDS = {"yes": YES, "no": NO, "unsure": UNKNOWN}
_SPOKEN = {value: word for word, value in WORDS.items()}


@dataclass(frozen=True)
class Answer:
    """What one annotator says of one patch.

    Attributes:
        labels: one per class, 1, 0 or -1.
        judged: whether each class was answered.
        texts: further columns.
    """

    labels: tuple[int, ...]
    judged: tuple[bool, ...]
    texts: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every class was answered."""
        return all(self.judged)

    def words(self) -> list[str | None]:
        """Return "yes", "no" or "unsure" for each class, None where it was not answered."""
        return [_SPOKEN[v] if known else None for v, known in zip(self.labels, self.judged, strict=True)]


Key = tuple[str, Vec]
Answers = dict[Key, Answer]


@dataclass(frozen=True)
class _Step:
    """An answer that can be taken back: the patch, its key, what it replaced, and in which row that stood."""

    index: int
    key: Key
    old: Answer | None
    place: int


class LabelSession:
    """The answers of one annotator about a queue of patches; see the module.

    Args:
        path: the table of answers; `.csv` or `.json`; need not exist.
        queue: patches to look at, each once; its labels are not looked at, its columns are kept with the answers.
        annotator: who answers.

    Raises:
        InputError: there is no patch, the annotator has no name, or the table is about other patches or classes.
    """

    def __init__(self, path: str | Path, queue: PatchLabels, annotator: str) -> None:
        self.path, self.queue, self.annotator = Path(path), queue, annotator
        if not len(queue):
            raise InputError(f"{queue.source} holds no patch: there is nothing to look at")
        if not annotator.strip():
            raise InputError("the annotator has no name: give one, so that answers of several people stay apart")
        wrong = [name for name in queue.classes if BETWEEN in name]
        if wrong:
            raise InputError(f"class {wrong[0]!r} holds a {BETWEEN!r}, which parts classes: rename it")
        self.starts = [as_vec(start) for start in queue.starts.tolist()]
        self._answers: Answers = {}
        self._undo: list[_Step] = []
        self._stamp: tuple[int, int] | None = None
        if self.path.exists():
            table = read_patches(self.path)
            require_same_patches(table, queue)
            if table.classes != queue.classes:
                raise InputError(
                    f"{self.path} answers {', '.join(table.classes)}, but {', '.join(queue.classes)} is asked: "
                    "ask for the same classes in the same order, or write to another table"
                )
            self._answers = _answers_of(table)
            self._stamp = _stamp_of(self.path)
        self.position = self._resumed()

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def classes(self) -> tuple[str, ...]:
        """What is asked of every patch."""
        return self.queue.classes

    def said(self, index: int) -> list[str | None]:
        """Return "yes", "no" or "unsure" for each class of a patch of the queue, None where not answered."""
        found = self._answers.get((self.annotator, self.starts[self._checked(index)]))
        return [None] * len(self.classes) if found is None else found.words()

    def done(self) -> int:
        """Return how many patches of the queue are answered, in every class."""
        return sum(self._is_complete(index) for index in range(len(self)))

    def next_open(self, after: int) -> int | None:
        """Return the first patch behind one that is not answered, from the start of the queue behind its end."""
        n = len(self)
        return next((k % n for k in range(after + 1, after + 1 + n) if not self._is_complete(k % n)), None)

    def answer(self, index: int, name: str, word: str | None) -> None:
        """Answer a class of a patch, and write the table; a second answer replaces the first.

        Args:
            index: of the patch in the queue.
            name: of the class.
            word: "yes", "no", "unsure"; None takes an answer back.

        Raises:
            InputError: there is no such patch, class or word, or the table cannot be written.
        """
        if name not in self.classes:
            raise InputError(
                f"{name!r} is not asked{did_you_mean(name, self.classes)}: {', '.join(self.classes)} is"
            )
        if word is not None and word not in WORDS:
            raise InputError(f"{word!r} is no answer: say yes, no or unsure")
        key = (self.annotator, self.starts[self._checked(index)])
        old = self._answers.get(key) or self._blank(index)
        at = self.classes.index(name)
        labels, judged = list(old.labels), list(old.judged)
        labels[at], judged[at] = WORDS[word] if word else UNKNOWN, word is not None
        step = _Step(
            index, key, self._answers.get(key), list(self._answers).index(key) if key in self._answers else -1
        )
        changed = {k: v for k, v in self._answers.items() if k != key}
        if any(judged):
            changed[key] = replace(old, labels=tuple(labels), judged=tuple(judged))
        self._write(changed)
        self._undo.append(step)
        self.position = index

    def undo(self) -> int | None:
        """Take back the last answer of this session; return its patch, None where there is none left."""
        if not self._undo:
            return None
        step = self._undo[-1]
        rows = [(key, answer) for key, answer in self._answers.items() if key != step.key]
        if step.old is not None:
            rows.insert(step.place, (step.key, step.old))
        self._write(dict(rows))
        self._undo.pop()
        self.position = step.index
        return step.index

    def labels(self) -> PatchLabels:
        """Return all answers as a table, those of other annotators included, in the order they were given."""
        return self._table(self._answers)

    def _table(self, answers: Answers) -> PatchLabels:
        names = dict.fromkeys(name for answer in answers.values() for name in answer.texts)
        columns = [JUDGED, *(name for name in names if name != JUDGED)]
        annotators = tuple(dict.fromkeys(who for who, _ in answers)) or (self.annotator,)
        rows = list(answers.items())
        return PatchLabels(
            self.queue.grid,
            self.queue.shape,
            np.array([start for (_, start), _ in rows], np.int64).reshape(-1, 3),
            self.classes,
            np.array([answer.labels for _, answer in rows], np.int8).reshape(-1, len(self.classes)),
            annotators,
            np.array([annotators.index(who) for (who, _), _ in rows], np.int64),
            {name: np.array([self._text(answer, name) for _, answer in rows], np.str_) for name in columns},
            str(self.path),
        )

    def _text(self, answer: Answer, name: str) -> str:
        if name != JUDGED:
            return answer.texts.get(name, "")
        return BETWEEN.join(c for c, known in zip(self.classes, answer.judged, strict=True) if known)

    def _write(self, answers: Answers) -> None:
        """Replace the table, then what is remembered: where the disk refuses, nothing has happened."""
        if (_stamp_of(self.path) if self.path.exists() else None) != self._stamp:
            raise InputError(
                f"{self.path} was changed by somebody else since it was read: nothing was written; stop, look at "
                "it, and start again"
            )
        write_patches(self.path, self._table(answers), overwrite=True)
        self._stamp, self._answers = _stamp_of(self.path), answers

    def _blank(self, index: int) -> Answer:
        texts = {name: str(values[index]) for name, values in self.queue.columns.items() if name != JUDGED}
        n = len(self.classes)
        return Answer((UNKNOWN,) * n, (False,) * n, texts)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise InputError(f"patch {index} is not in the queue: it has {len(self)}, counted from 0")
        return index

    def _is_complete(self, index: int) -> bool:
        found = self._answers.get((self.annotator, self.starts[index]))
        return found is not None and found.complete

    def _resumed(self) -> int:
        """Return where to go on: at the first open patch behind the last answer."""
        places = {start: index for index, start in enumerate(self.starts)}
        own = [places[start] for who, start in self._answers if who == self.annotator and start in places]
        last = own[-1] if own else -1
        if last >= 0 and not self._is_complete(last):
            return last
        found = self.next_open(last)
        return max(last, 0) if found is None else found


def queue_path(table: str | Path) -> Path:
    """Return where the queue of a table lies: beside it."""
    path = Path(table)
    return path.with_name(f"{path.stem}.queue{path.suffix}")


def extended_queue(table: str | Path, more: PatchLabels | None) -> PatchLabels:
    """Return the queue beside a table, with further patches behind it, and write it where it grew.

    Args:
        table: path of the table of answers.
        more: patches to look at; None: those of the queue, or, without one, all patches of the table.

    Raises:
        InputError: there is neither queue nor table, or the patches are of another grid, shape or class.
    """
    path = queue_path(table)
    parts = [read_patches(path)] if path.exists() else []
    if more is None and not parts:
        if not Path(table).exists():
            raise InputError(
                f"there is no {table} yet, so say what to look at: a random sample, a lattice, or candidates"
            )
        more = read_patches(table)
    if more is not None:
        parts.append(_bare(more))
    for part in parts[1:]:
        require_same_patches(parts[0], part)
        if part.classes != parts[0].classes:
            raise InputError(
                f"{path} asks {', '.join(parts[0].classes)}, {part.source} {', '.join(part.classes)}: ask for the "
                "same classes in the same order, or write to another table"
            )
    queue = joined(parts, source=str(path))
    queue = queue.taken(np.sort(np.unique(queue.starts, axis=0, return_index=True)[1]))
    if not path.exists() or len(queue) > len(parts[0]):
        write_patches(path, queue, overwrite=True)
    return queue


@contextmanager
def locked(table: str | Path) -> Iterator[None]:
    """Hold the lock of a table; the system gives it back, also after kill -9.

    Raises:
        InputError: another program holds it.
    """
    path = Path(table)
    lock = path.with_name(f".{path.name}.lock")
    with explained(lock):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{table} is being annotated by another program: stop that one, or give every annotator a table "
                "of their own and join them later"
            ) from None
        yield
    finally:
        os.close(handle)


def _bare(patches: PatchLabels) -> PatchLabels:
    """Return patches, each once, without what anybody said of them."""
    first = np.sort(np.unique(patches.starts, axis=0, return_index=True)[1])
    kept = patches.taken(first)
    columns = {name: values for name, values in kept.columns.items() if name != JUDGED}
    nobody, unknown = np.zeros(len(kept), np.int64), np.full_like(kept.labels, UNKNOWN)
    return replace(kept, labels=unknown, annotators=("",), annotator=nobody, columns=columns)


def _answers_of(table: PatchLabels) -> Answers:
    judged = table.columns.get(JUDGED)
    others = {name: values for name, values in table.columns.items() if name != JUDGED}
    answers: Answers = {}
    for row, (start, labels) in enumerate(zip(table.starts.tolist(), table.labels.tolist(), strict=True)):
        named = [] if judged is None else str(judged[row]).split(BETWEEN)
        known = tuple(v != UNKNOWN or c in named for c, v in zip(table.classes, labels, strict=True))
        texts = {name: str(values[row]) for name, values in others.items()}
        answers[table.annotators[table.annotator[row]], as_vec(start)] = Answer(tuple(labels), known, texts)
    return answers


def _stamp_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
