"""Patches as tracings: a closed loop around each, named by what is said of it, to be corrected in a viewer.

A tree is one patch. Its four nodes are the corners of the patch's faces in y and x (half-open: the last two lie
one voxel behind the last voxel), in the patch's middle section; four edges close the loop. The loop is made from
the patch and nothing else: what was shown around it while somebody judged it leaves no trace::

    starts_of(tracing_of(patches, names), patches.grid, patches.shape) == patches.starts

What is said stands in the name of a tree, in one of two ways, and is read from there (`answer_in`)::

    patch 7, debris: yes, myelin: ?                          what is known of every class
    A: debris, B: clean, your opinion: clean                 what two say, and what a third answers
    A: myelin, B: no myelin, your opinion on myelin: yes     of another class than the first
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.geometry.box import Vec
from emloom.geometry.columns import Columns
from emloom.geometry.elements import Group
from emloom.geometry.grid import Grid
from emloom.geometry.patches import NO, UNKNOWN, YES, Labels, PatchLabels
from emloom.geometry.skeletons import Rows, Skeletons
from emloom.geometry.tracings import Marks, Tracing

_COLOURS = {YES: (0.90, 0.25, 0.15), NO: (0.10, 0.65, 0.40), UNKNOWN: (0.95, 0.70, 0.15)}
_SHOWN = {YES: "yes", NO: "no", UNKNOWN: "?"}
_OPINION = re.compile(r"your opinion(?: on (?P<name>[^:]+))?:(?P<word>[^:]*)$", re.IGNORECASE)
_YES = {"yes", "y", "1", "true"}
_NO = {"no", "n", "0", "false"}
_UNSURE = {"unsure", "unknown", "u"}
_NOTHING = {"", "?", "x"}
_LOOP = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
_CLEAN = "clean"

Answers = dict[str, int]


def names_of(patches: PatchLabels) -> list[str]:
    """Return ``patch 1, debris: yes, myelin: ?`` for every row, numbered from 1.

    Raises:
        InputError: a class is called so that its answer could not be found in a name.
    """
    wrong = [name for name in patches.classes if set(name) & set(",:")]
    if wrong:
        raise InputError(f"{patches.source} has a class {wrong[0]!r}: rename it, without comma and colon")
    return [
        f"patch {number}, " + ", ".join(f"{c}: {_SHOWN[v]}" for c, v in zip(patches.classes, said, strict=True))
        for number, said in enumerate(patches.labels.tolist(), 1)
    ]


def said(label: int, name: str, first: bool) -> str:
    """Return what a label says in words: ``debris`` or ``clean`` of the first class, ``no myelin`` of others."""
    if label == YES:
        return name
    if label == NO:
        return _CLEAN if first else f"no {name}"
    return "unsure"


def question(name: str, first: bool, opinions: Sequence[tuple[str, int]]) -> str:
    """Return ``A: debris, B: clean, your opinion:``, of (who, label) pairs about one class."""
    told = ", ".join(f"{who}: {said(label, name, first)}" for who, label in opinions)
    return f"{told}, your opinion{'' if first else f' on {name}'}:"


def tracing_of(
    patches: PatchLabels,
    names: Sequence[str],
    *,
    rows: Sequence[int] | None = None,
    groups: Sequence[str] = (),
    comments: Sequence[str] = (),
) -> Tracing:
    """Return loops around patches, coloured by what is said of the first class.

    Args:
        patches: what is outlined.
        names: of the trees.
        rows: the patch of each tree, as a row of `patches`; None: one tree per row. A patch may have several.
        groups: folder of each tree, empty for none; folders stand in the order of their first trees.
        comments: on the first node of each tree, by which viewers jump from tree to tree; empty for none.
    """
    at = np.arange(len(patches)) if rows is None else np.asarray(rows, np.int64)
    n = len(at)
    starts = patches.starts[at] + np.array([patches.shape[0] // 2, 0, 0])
    corners = np.repeat(starts[:, None], 4, axis=1)
    corners[:, :, 1:] += _LOOP * np.array(patches.shape[1:])
    edges = 4 * np.arange(n)[:, None, None] + np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    skeletons = Skeletons(
        np.arange(1, n + 1).astype(np.uint64),
        np.repeat(np.arange(n), 4),
        np.arange(1, 4 * n + 1).astype(np.uint64),
        corners.reshape(-1, 3) * np.array(patches.grid.voxel_size_nm) + np.array(patches.grid.offset_nm),
        edges.reshape(-1, 2),
        tuple(names),
        patches.source,
    )
    tracing = Tracing.of(skeletons, patches.grid.voxel_size_nm)
    tracing = replace(tracing, trees=_coloured(tracing.trees, patches.labels[at]))
    if any(groups):
        tracing = _grouped(tracing, groups)
    if any(comments):
        marked = [4 * k for k, text in enumerate(comments) if text]
        tracing = replace(tracing, comments=Marks.of(marked, content=[text for text in comments if text]))
    return tracing


def starts_of(tracing: Tracing, trees: Rows, grid: Grid, shape: Vec) -> Rows:
    """Return the first voxel of the patch that each tree goes around, int64 [N, 3].

    Args:
        tracing: loops, as of `tracing_of`.
        trees: which, as rows of `Skeletons.ids`.
        grid: of the volume that the patches are of.
        shape: voxels (z, y, x) of a patch.

    Raises:
        InputError: a tree is no loop around a patch of this shape.
    """
    skeletons, starts = tracing.skeletons, []
    voxels = (skeletons.positions_nm - np.array(grid.offset_nm)) / np.array(grid.voxel_size_nm)
    places = np.floor(voxels + 0.5).astype(np.int64)
    for tree in np.asarray(trees, np.int64).tolist():
        own = places[skeletons.skeletons == tree]
        low = own.min(axis=0) if len(own) else np.zeros(3, np.int64)
        extent = own.max(axis=0) - low if len(own) else np.zeros(3, np.int64)
        if extent.tolist() != [0, *shape[1:]]:
            raise InputError(
                f"{skeletons.source}: tree {skeletons.ids[tree]}, {skeletons.names[tree]!r}, spans "
                f"{extent.tolist()} voxels (z, y, x), but a patch {[0, *shape[1:]]}, in one section: move its "
                "nodes back, or remove the tree"
            )
        starts.append(low - np.array([shape[0] // 2, 0, 0]))
    return np.array(starts, np.int64).reshape(-1, 3)


def answer_in(name: str, classes: Sequence[str], source: str = "tracing") -> Answers:
    """Return what the name of a tree says: class -> 1, 0 or -1; classes of which it says nothing are left out.

    Args:
        name: of the tree; see the module.
        classes: that can be answered, what is looked for first.
        source: shown in messages.

    Raises:
        InputError: it names another class, or an answer cannot be understood.
    """
    opinion = _OPINION.search(name)
    if opinion is None:
        return _listed_in(name, classes, source)
    about = (opinion["name"] or classes[0]).strip()
    if about not in classes:
        raise InputError(
            f"{source}: tree {name!r} is about {about!r}{did_you_mean(about, classes)}: answers are about "
            f"{', '.join(classes)}"
        )
    return _answer(about, opinion["word"], name, source, classes)


def _listed_in(name: str, classes: Sequence[str], source: str) -> Answers:
    found: Answers = {}
    for part in name.split(","):
        about, colon, word = part.rpartition(":")
        if colon and about.strip() in classes:
            found |= _answer(about.strip(), word, name, source, classes)
    return found


def _answer(about: str, text: str, name: str, source: str, classes: Sequence[str]) -> Answers:
    word = text.strip().lower()
    if word in _NOTHING:
        return {}
    clean = {_CLEAN} if about == classes[0] else set()
    for label, words in (
        (YES, _YES | {about.lower()}),
        (NO, _NO | clean | {f"no {about.lower()}"}),
        (UNKNOWN, _UNSURE),
    ):
        if word in words:
            return {about: label}
    raise InputError(f"{source}: tree {name!r} answers {word!r}: say yes, no or unsure, or leave it empty")


def _coloured(trees: Columns, labels_NC: Labels) -> Columns:
    colours: NDArray[np.float64] = np.array([_COLOURS[v] for v in labels_NC[:, 0].tolist()]).reshape(-1, 3)
    for channel, name in enumerate(("color.r", "color.g", "color.b")):
        trees = trees.replaced(name, colours[:, channel])
    return trees.replaced("color.a", np.ones(len(labels_NC)))


def _grouped(tracing: Tracing, groups: Sequence[str]) -> Tracing:
    named = list(dict.fromkeys(name for name in groups if name))
    ids = [str(named.index(name) + 1) if name else None for name in groups]
    folders = tuple(Group(number, name) for number, name in enumerate(named, 1))
    return replace(tracing, groups=folders, trees=tracing.trees.replaced("groupId", ids))
