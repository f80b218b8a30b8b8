"""`emloom artifacts disagree` and `adopt`: where two say different things, a third has the last word.

`disagree` lists the patches that one calls yes and another no (or is unsure of, if asked) as a tracing whose trees
are called ``A: debris, B: clean, your opinion:``, one for each patch and class. Somebody writes an answer behind
the colon, in webKnossos or any editor, and `adopt` reads it: the answers become rows of a further annotator, and
in the consensus theirs is the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.box import as_vec
from emloom.geometry.grid import Vec3
from emloom.geometry.patches import NO, UNKNOWN, YES, Labels, PatchLabels, Texts, joined
from emloom.geometry.patchtracings import Answers, answer_in, names_of, question, starts_of, tracing_of
from emloom.geometry.skeletons import Rows
from emloom.io.files import refuse_existing
from emloom.io.nml import read_nml_tracing, write_nml
from emloom.io.patchtables import read_patches, write_patches
from emloom.metrics.agreement import Agreement, agreement, common_rows
from emloom.spec import Spec
from emloom.tasks.annotating import open_raw
from emloom.tasks.labelsession import BETWEEN, JUDGED
from emloom.tasks.patchsheets import Listing, in_words, write_listing
from emloom.tasks.scoredmaps import SCORE, labels_of_map, open_map
from emloom.view.patchview import MARGIN

Asked = list[tuple[int, str]]

_TABLES = (".csv", ".json")
_FOLDERS = {YES: "yes", NO: "no", UNKNOWN: "unknown"}


class DisagreeSpec(Spec):
    """List where two disagree."""

    first: str
    """Table of labels."""
    second: str | None = None
    """Table of labels, or a map of a model; none: another annotator of the first table."""
    output: str
    """Folder to be made."""
    names: tuple[str, str] | None = None
    """Annotators to compare, of the first and of the second; none: the only one of each, or their consensus."""
    raw: str | None = None
    """The volume, for pictures; needed for a map."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability from which a model says yes."""
    unsure: bool = False
    """Whether one who is unsure disagrees with one who is not."""
    margin_vox: int = Field(default=MARGIN, ge=0, le=512)
    """Voxels of tissue shown around a patch; they belong to the pictures alone."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, where the volume does not state it."""


class AdoptSpec(Spec):
    """Take answers from a tracing into a table of labels."""

    tracing: str
    """NML with answers in the names of trees; may come in a zip."""
    labels: tuple[str, ...] = Field(min_length=1)
    """Tables of labels that the answers join; the first says what patches and classes there are."""
    output: str
    """Table to be made."""
    annotator: str = Field(min_length=1)
    """Who answered."""
    consensus: bool = False
    """Write every patch once, with the annotator's word as the last, instead of every row."""


@dataclass(frozen=True)
class Disagreement:
    """What was found.

    Attributes:
        patches: patches about which the two disagree, one row for each of the two.
        agreements: of every class that both answer.
    """

    patches: PatchLabels
    agreements: dict[str, Agreement]


@dataclass(frozen=True)
class Adopted:
    """What was taken over.

    Attributes:
        labels: as written.
        answers: patches that were answered.
        open: trees that hold no answer.
    """

    labels: PatchLabels
    answers: int
    open: int


def disagree(spec: DisagreeSpec) -> Disagreement:
    """List where two disagree, and write table, tracing and, with a volume, sheets.

    Raises:
        InputError: there is nobody to compare, they judged nothing in common, they never disagree, or the folder
            exists.
    """
    refuse_existing(spec.output)
    one, other = _two(spec)
    rows = common_rows(one.starts, other.starts)
    one, other = one.taken(rows[0]), other.taken(rows[1])
    classes = tuple(name for name in one.classes if name in other.classes)
    if not len(one) or not classes:
        raise InputError(f"{one.source} and {other.source} have no patch and class in common: nothing to compare")
    who = (one.annotators[0], other.annotators[0])
    agreements = {name: agreement(one.of(name), other.of(name), names=who) for name in classes}
    differ = np.stack([_differ(one.of(name), other.of(name), spec.unsure) for name in classes], axis=1)
    any_row = np.flatnonzero(differ.any(axis=1))
    if not any_row.size:
        raise InputError(
            f"{who[0]} and {who[1]} disagree about none of {len(one)} patches: nobody needs to be asked"
        )
    one, other = one.taken(any_row), other.taken(any_row)
    asked = [(row, classes[at]) for row, at in np.argwhere(differ[any_row]).tolist()]
    listing = _listing(spec, one, other, asked, agreements)
    both = joined([one, other], source="disagreements")
    raw = None if spec.raw is None else open_raw(spec.raw, spec.voxel_size_nm)
    write_listing(spec.output, listing, raw, spec.margin_vox, both)
    return Disagreement(both, agreements)


def adopt(spec: AdoptSpec) -> Adopted:
    """Read answers from a tracing, and write them with the labels they join.

    An answer replaces what its annotator said before of that class of that patch. A tree without one says nothing.

    Raises:
        InputError: a tree holds an answer but is no loop around a patch, an answer cannot be understood, two trees
            answer differently about one patch, no tree holds an answer, or the output exists.
    """
    refuse_existing(spec.output)
    before = joined([read_patches(path) for path in spec.labels], source=", ".join(spec.labels))
    answers, n_open = answers_of(spec.tracing, before)
    merged = with_answers(before, answers, spec.annotator)
    labels = merged.consensus(final=spec.annotator) if spec.consensus else merged
    write_patches(spec.output, labels)
    return Adopted(labels, len(answers), n_open)


def answers_of(path: str | Path, labels: PatchLabels) -> tuple[dict[Vec, Answers], int]:
    """Return the answers that a tracing holds about patches, by first voxel, and how many trees hold none.

    Args:
        path: of the tracing.
        labels: says the grid, shape and classes of the patches.
    """
    tracing = read_nml_tracing(path, voxel_size_nm=None)
    said = [answer_in(name, labels.classes, str(path)) for name in tracing.skeletons.names]
    trees = np.flatnonzero([bool(each) for each in said])
    if not trees.size:
        raise InputError(
            f"{path} holds no answer in the names of its {len(said)} trees: write yes, no or unsure behind "
            "'your opinion:', or in place of a question mark"
        )
    answers: dict[Vec, Answers] = {}
    for tree, start in zip(
        trees.tolist(), starts_of(tracing, trees, labels.grid, labels.shape).tolist(), strict=True
    ):
        known = answers.setdefault(as_vec(start), {})
        for name, label in said[tree].items():
            if known.setdefault(name, label) != label:
                raise InputError(
                    f"{path} answers twice, and differently, about {name} of the patch at {start} (z, y, x): "
                    "keep one"
                )
    return answers, len(said) - len(trees)


def said_in(labels: PatchLabels) -> dict[Vec, Answers]:
    """Return what a table with one row per patch answers, by first voxel; classes nobody judged are left out."""
    judged = labels.columns.get(JUDGED, np.zeros(len(labels), np.str_)).tolist()
    rows = zip(labels.starts.tolist(), labels.labels.tolist(), judged, strict=True)
    return {
        as_vec(start): {
            name: label
            for name, label in zip(labels.classes, said, strict=True)
            if label != UNKNOWN or name in named.split(BETWEEN)
        }
        for start, said, named in rows
    }


def with_answers(labels: PatchLabels, answers: dict[Vec, Answers], annotator: str) -> PatchLabels:
    """Return labels with answers of an annotator; each replaces what the same one said before of that class."""
    mine = np.flatnonzero(np.array(labels.annotators)[labels.annotator] == annotator)
    starts = np.array(list(answers), np.int64).reshape(-1, 3)
    rows, partner = common_rows(starts, labels.starts[mine])
    old = labels.taken(mine[partner])
    said = {start: dict(given) for start, given in answers.items()}
    for start, before in said_in(old).items():
        said[start] = before | said[start]
    columns = {name: _placed(values, rows, len(starts)) for name, values in old.columns.items()}
    judged = [BETWEEN.join(c for c in labels.classes if c in each) for each in said.values()]
    columns[JUDGED] = np.array(judged, np.str_)
    told = [[each.get(c, UNKNOWN) for c in labels.classes] for each in said.values()]
    new = PatchLabels(
        labels.grid,
        labels.shape,
        starts,
        labels.classes,
        np.array(told, np.int8).reshape(-1, len(labels.classes)),
        (annotator,),
        columns=columns,
        source=annotator,
    )
    kept = np.delete(np.arange(len(labels)), mine[partner])
    return joined([labels.taken(kept), new], source=labels.source)


def _placed(values: Texts, rows: Rows, n: int) -> Texts:
    """Return [n] texts, those given in their rows, empty elsewhere."""
    texts = np.full(n, "", object)
    texts[rows] = values
    placed: Texts = np.array(texts.tolist(), np.str_).reshape(-1)
    return placed


def _two(spec: DisagreeSpec) -> tuple[PatchLabels, PatchLabels]:
    first = read_patches(spec.first)
    if spec.second is None:
        return _pair_in(first, spec.names)
    wanted = spec.names or ("", "")
    one = _one_voice(first, wanted[0], Path(spec.first).stem)
    if Path(spec.second).suffix.lower() in _TABLES:
        other = _one_voice(read_patches(spec.second), wanted[1], Path(spec.second).stem)
    else:
        other = _model(spec, one)
    if one.annotators == other.annotators:
        raise InputError(f"both are called {one.annotators[0]!r}: compare two annotators, or rename one")
    return one, other


def _model(spec: DisagreeSpec, patches: PatchLabels) -> PatchLabels:
    if spec.raw is None or spec.second is None:
        raise InputError(f"{spec.second} is a map: name the volume that it is of, --raw")
    raw = open_raw(spec.raw, spec.voxel_size_nm)
    return labels_of_map(open_map(spec.second, raw.info, patches.shape), patches, spec.threshold)


def _pair_in(table: PatchLabels, names: Sequence[str] | None) -> tuple[PatchLabels, PatchLabels]:
    names = names or table.annotators
    if len(names) != 2:
        raise InputError(
            f"{table.source} has {len(names)} annotators, {', '.join(map(repr, names))}: name two to compare, or "
            "give a second table"
        )
    return table.by(names[0]), table.by(names[1])


def _one_voice(table: PatchLabels, name: str, called: str) -> PatchLabels:
    """Return what one annotator of a table says, or its only one, or all together, called like the file."""
    if name:
        return table.by(name)
    if len(table.annotators) == 1:
        only = table.annotators[0] or called
    else:
        table, only = table.consensus(), called
    return PatchLabels(
        table.grid, table.shape, table.starts, table.classes, table.labels, (only,), columns=table.columns,
        source=table.source,
    )  # fmt: skip


def _differ(one: Labels, other: Labels, unsure: bool) -> NDArray[np.bool_]:
    opposite: NDArray[np.bool_] = ((one == YES) & (other == NO)) | ((one == NO) & (other == YES))
    return opposite | ((one == UNKNOWN) != (other == UNKNOWN)) if unsure else opposite


def _listing(
    spec: DisagreeSpec, one: PatchLabels, other: PatchLabels, asked: Asked, found: dict[str, Agreement]
) -> Listing:
    """Return what is asked, of patches that both have in the same rows: (row, class) pairs."""
    who = (one.annotators[0], other.annotators[0])
    names, told = [], [""] * len(one)
    for row, name in asked:
        opinions = [(w, int(each.of(name)[row])) for w, each in zip(who, (one, other), strict=True)]
        names.append(question(name, name == one.classes[0], opinions))
        told[row] += ("; " if told[row] else "") + names[-1].rpartition(", your")[0]
    scores = in_words(other.columns.get(SCORE, np.zeros(len(other), np.str_)))
    words = [", ".join(part for part in pair if part) for pair in zip(told, scores, strict=True)]
    lines = [
        f"{name}: {a.n_disagreements} of {a.n} patches, kappa {a.kappa:.2f}" for name, a in found.items() if a.n
    ]
    text = f"{who[0]} and {who[1]} disagree. " + "; ".join(lines) + "."
    rows = [row for row, _ in asked]
    return Listing(one, names, words, "Disagreements", text, {"spec": spec.to_dict()}, rows)


def outline(labels: str | Path, output: str | Path, annotator: str | None = None) -> int:
    """Write a loop around every labelled patch, named and coloured by its labels; return how many there are.

    Args:
        labels: table of labels.
        output: `.nml`, or an archive of it.
        annotator: whose labels; None: what all who know agree about.

    Raises:
        InputError: there is no such table or annotator, or the output exists.
    """
    table = read_patches(labels)
    said = table.consensus() if annotator is None else table.by(annotator)
    folders = [f"{said.classes[0]}: {_FOLDERS[label]}" for label in said.labels[:, 0].tolist()]
    write_nml(output, tracing_of(said, names_of(said), groups=folders))
    return len(said)
