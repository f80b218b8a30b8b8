"""Patches marked by one node each: a tracing of places where somebody saw something.

The patch of a node is the one whose centre voxel it is: ``start = node - shape // 2``. What was seen stands in
the name of the tree or of its group, and a pattern makes a label of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from emloom.errors import InputError
from emloom.geometry.box import Vec, as_vec
from emloom.geometry.grid import Grid
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.tracings import Tracing
from emloom.io.evaluationboxes import annotator_of


def patches_of_nodes(
    tracing: Tracing,
    shape: Vec,
    *,
    classes: Mapping[str, str] | None = None,
    unmatched: int = UNKNOWN,
) -> PatchLabels:
    """Return the patch around the node of every tree.

    Args:
        tracing: trees of one node each.
        shape: voxels (z, y, x) of a patch.
        classes: name of a class -> pattern (of Python's `re`, anywhere, letters of either case) of the names that
            mean
            yes: of the tree, or of the group it is in. None: every tree is an artifact.
        unmatched: the label of a class whose pattern is in neither name: -1 unknown, or 0 no.

    Returns:
        one row per tree, with the columns "name" and "group".

    Raises:
        InputError: a tree has not one node, two trees mark one patch, or a pattern is none.
    """
    shape = as_vec(shape)
    if unmatched not in (UNKNOWN, NO):
        raise InputError(f"a name without a match cannot mean {unmatched}: -1 is unknown, 0 is no")
    s = tracing.skeletons
    counts = np.bincount(s.skeletons, minlength=len(s.ids))
    wrong = np.flatnonzero(counts != 1)
    if wrong.size:
        raise InputError(
            f"{tracing.source}: tree {s.ids[wrong[0]]} {s.names[wrong[0]]!r} has {counts[wrong[0]]} nodes: mark "
            "each patch by a tree of one node, at its centre"
        )
    grid = Grid(tracing.voxel_size_nm)
    order = np.argsort(s.skeletons, kind="stable")
    starts = voxels_containing(grid, s.positions_nm[order]) - np.array(shape) // 2
    named = {group.id: group.name for group in tracing.groups}
    groups = ["" if group is None else named.get(group, "") for group in tracing.tree_groups]
    patterns = {name: _compiled(text, name) for name, text in (classes or {"artifact": ""}).items()}
    labels = [
        [YES if any(map(pattern.search, words)) else unmatched for pattern in patterns.values()]
        for words in zip(s.names, groups, strict=True)
    ]
    return PatchLabels(
        grid,
        shape,
        starts,
        tuple(patterns),
        np.array(labels, np.int8).reshape(-1, len(patterns)),
        (annotator_of(tracing),),
        columns={"name": np.array(s.names, np.str_), "group": np.array(groups, np.str_)},
        source=tracing.source,
    )


def _compiled(text: str, name: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as problem:
        raise InputError(f"the pattern {text!r} of class {name!r} is none ({problem}): mend it") from problem
