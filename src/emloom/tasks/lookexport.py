"""The list of places as a tracing for webKnossos and a state for neuroglancer, and answers read back.

In the tracing every place is a tree of two nodes, one on either side, with the question as a comment on the first.
Somebody writes ``merge``, ``split`` or ``ok`` behind its colon, or as a comment of its own on either node.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.decisions import Decision, answer_of
from emloom.geometry.elements import Group
from emloom.geometry.grid import Vec3
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Tracing
from emloom.io.files import write_text_atomic
from emloom.io.nml import read_nml_tracings, write_nml
from emloom.tasks.lookhere import NAME, Place

_QUESTIONS = {
    "merge?": "split this segment here?",
    "split?": "one segment?",
    "orphan": "where does it go on?",
    "bad data": "what is behind it?",
}


def write_look_files(folder: Path, places: Sequence[Place], grid: Grid) -> None:
    """Write the list as `look_here.nml` and as `look_here.json`, a state of neuroglancer."""
    if places:
        write_nml(folder / f"{NAME}.nml", tracing_of(places, grid), overwrite=True)
    text = json.dumps(state_of(places, grid.voxel_size_nm, grid), indent=1)
    write_text_atomic(folder / f"{NAME}.json", text)


def tracing_of(places: Sequence[Place], grid: Grid) -> Tracing:
    """Return a tree for every place: two nodes, the question as a comment, trees in a folder per kind."""
    n = len(places)
    nodes = np.array([grid.centre(v) for p in places for v in (p.at, p.to)]).reshape(-1, 3)
    skeletons = Skeletons(
        np.arange(1, n + 1).astype(np.uint64),
        np.repeat(np.arange(n), 2),
        np.arange(1, 2 * n + 1).astype(np.uint64),
        nodes,
        2 * np.arange(n)[:, None] + np.array([[0, 1]]),
        tuple(f"{p.rank} {p.kind} {_ids(p)}".strip() for p in places),
        NAME,
    )
    kinds = list(dict.fromkeys(p.kind for p in places))
    tracing = Tracing.of(skeletons, grid.voxel_size_nm)
    groups = tuple(Group(number, kind) for number, kind in enumerate(kinds, 1))
    trees = tracing.trees.replaced("groupId", [str(kinds.index(p.kind) + 1) for p in places])
    asked = [f"{p.kind} {_QUESTIONS[p.kind]} {p.reason.replace(':', ' ')}; merge, split or ok:" for p in places]
    return replace(tracing, trees=trees, groups=groups, comments=Marks.of(2 * np.arange(n), content=asked))


def _ids(place: Place) -> str:
    return " ".join(str(s) for s in dict.fromkeys(place.segments) if s)


def decisions_in(path: str | Path) -> list[Decision]:
    """Return the decisions that a tracing holds in the comments of its trees.

    Raises:
        InputError: as `read_nml_tracings`; a comment holds an unknown word behind its colon, comments of a tree
            disagree, or a tree with a decision has not two nodes.
    """
    found = []
    for name, tracing in read_nml_tracings(path).items():
        skeletons = tracing.skeletons
        said: dict[int, list[str]] = {}
        for row, text in zip(tracing.comments.rows.tolist(), tracing.comment_texts(), strict=True):
            said.setdefault(int(skeletons.skeletons[row]), []).append(text)
        for tree, texts in sorted(said.items()):
            row_name = f"{name}, tree {skeletons.ids[tree]} {skeletons.names[tree]!r}"
            verb = answer_of(texts, row_name)
            if verb is None:
                continue
            ends = skeletons.positions_nm[skeletons.skeletons == tree]
            if len(ends) != 2:
                raise InputError(
                    f"{row_name} decides {verb}, but has {len(ends)} nodes: it takes two, one on either side"
                )
            a, b = (_point(end) for end in ends)
            found.append(Decision(verb, a, b, row_name))
    return found


def _point(end: Any) -> Vec3:
    z, y, x = (float(v) for v in end)
    return z, y, x


def state_of(places: Sequence[Place], voxel_size_nm: Vec3, grid: Grid) -> dict[str, Any]:
    """Return a state of neuroglancer with a layer of annotations: a line from side to side of every place."""
    dimensions = {axis: [size * 1e-9, "m"] for axis, size in zip("xyz", voxel_size_nm[::-1], strict=True)}

    def point(voxel: Sequence[int]) -> list[float]:
        world = grid.centre((voxel[0], voxel[1], voxel[2]))
        return [w / s for w, s in zip(world, voxel_size_nm, strict=True)][::-1]

    lines = [
        {
            "type": "line" if p.at != p.to else "point",
            "id": str(p.rank),
            **({"pointA": point(p.at), "pointB": point(p.to)} if p.at != p.to else {"point": point(p.at)}),
            "description": f"{p.rank}. {p.kind} {_ids(p)}: {p.reason}",
        }
        for p in places
    ]
    layer = {
        "type": "annotation",
        "name": "look here first",
        "source": {"url": "local://annotations", "transform": {"outputDimensions": dimensions}},
        "annotations": lines,
        "tab": "annotations",
    }
    state: dict[str, Any] = {"dimensions": dimensions, "layers": [layer], "layout": "4panel"}
    if places:
        state["position"] = point(places[0].at)
    return state
