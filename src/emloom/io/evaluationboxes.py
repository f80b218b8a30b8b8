"""Evaluation boxes of genEM3: a lattice of patches as a tracing, in which people write down what they see.

Every patch is a tree of six nodes, every section a group; who judges edits the last character of their names::

    patch{row:02d}.{column:02d}:X        X: as its section.   1: yes, 0: no, whatever the section says
    plane{section:03d}:X                 X: nobody knows.     1 or 0: all patches of the section, but for those
    above

    2-------4     node 1 is the centre voxel, start + shape // 2, and the only one with four edges
    |\\     /|     2 to 5 are the corners, start and start + shape
    |  1    6     6 lies one voxel before 5, so that the outline does not close into a cycle of one tree
    |/     \\|
    3-------5     edges 1-2 1-3 1-4 1-5 2-3 2-4 3-5 4-6

Rows count along y, columns along x, both from 0; sections along z. (genEM3 calls the row ``xi`` and the column
``yi``.)

Law: labels that are written are read back. What is read has one class, and the column "explicit": whether a patch
was labelled itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry.box import Box, Vec, as_vec
from emloom.geometry.columns import Columns
from emloom.geometry.elements import Element, Group, NamedBox
from emloom.geometry.grid import Grid
from emloom.geometry.patches import NO, UNKNOWN, YES, Labels, PatchLabels
from emloom.geometry.skeletons import Rows, Skeletons, voxels_containing
from emloom.geometry.tracings import Tracing
from emloom.io.nml import read_nml_tracing, write_nml

_PATCH = re.compile(r"patch(\d+)\.(\d+):\s*(.*?)\s*")
_PLANE = re.compile(r"plane(\d+):\s*(.*?)\s*")
_INHERITS = "X"
_SAYS = {"1": YES, "0": NO, _INHERITS: UNKNOWN}
_SUFFIX = {YES: "1", NO: "0", UNKNOWN: _INHERITS}
_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (2, 4), (3, 5))
_NODES = 6


def is_evaluation_box(tracing: Tracing) -> bool:
    """Return whether a tracing is of this form: it has groups called ``plane...:``, one at least."""
    return any(_PLANE.fullmatch(group.name) for group in tracing.groups)


def read_evaluation_box(path: str | Path, *, name: str = "artifact") -> PatchLabels:
    """Read an evaluation box from an NML file.

    Args:
        path: `.nml`, or an archive of one.
        name: what its labels are about.

    Raises:
        InputError: as `read_nml_tracing`, or as `labels_of_box`.
    """
    return labels_of_box(read_nml_tracing(path), name=name)


def labels_of_box(tracing: Tracing, *, name: str = "artifact") -> PatchLabels:
    """Return the labels of an evaluation box, in the order of its trees.

    Args:
        tracing: trees and groups as in the module.
        name: what its labels are about.

    Raises:
        InputError: a tree is no patch of six nodes, its section has no group, a name ends in something else than
            0, 1 or X, or patches differ in shape.
    """
    source = tracing.source
    words = [_said(name_, _PATCH, f"{source}: tree", "patch00.00:X") for name_ in tracing.skeletons.names]
    planes = {
        group.id: _said(group.name, _PLANE, f"{source}: group", "plane000:X")
        for group in tracing.groups
        if group.name.startswith("plane")
    }
    starts, shape = _outlines(tracing)
    labels = np.zeros((len(words), 1), np.int8)
    for row, (own, group) in enumerate(zip(words, tracing.tree_groups, strict=True)):
        if group not in planes:
            raise InputError(
                f"{source}: tree {tracing.skeletons.names[row]!r} is in no group of a section, such as "
                "plane000:X: move it back into its section"
            )
        labels[row] = planes[group] if own == UNKNOWN else own
    explicit = np.where(np.array(words, np.int8) == UNKNOWN, "no", "yes")
    return PatchLabels(
        Grid(tracing.voxel_size_nm),
        shape,
        starts,
        (name,),
        labels,
        (annotator_of(tracing),),
        columns={"explicit": explicit},
        source=source,
    )


def write_evaluation_box(
    path: str | Path, labels: PatchLabels, *, data_set: str = "", overwrite: bool = False
) -> None:
    """Write patches as an evaluation box, ready to be judged in webKnossos; see `box_of_labels`.

    Raises:
        InputError: the file exists, or as `box_of_labels`.
    """
    write_nml(path, box_of_labels(labels, data_set=data_set), overwrite=overwrite)


def box_of_labels(labels: PatchLabels, *, data_set: str = "") -> Tracing:
    """Return patches as an evaluation box; of several classes the first is written.

    A section of which all is known and something is no becomes ``:0`` with its yes written at their trees; another
    one ``:X``, with what is known written at its trees. One label of all becomes that of the section.

    Args:
        labels: patches of one section each, every patch once.
        data_set: what webKnossos calls it: it opens the tracing over this data set.

    Raises:
        InputError: there is no patch, patches are thicker than a section, a patch stands twice, or the grid has an
            offset, which NML does not know.
    """
    _require_box(labels)
    z, y, x = (np.unique(labels.starts[:, axis], return_inverse=True) for axis in range(3))
    order = np.lexsort([z[1], x[1], y[1]])
    said = labels.of(labels.classes[0])
    of_plane, of_tree = _suffixes(said, z[1].reshape(-1), len(z[0]))
    corners = _nodes(labels)[order]
    n = len(order)
    skeletons = Skeletons(
        np.arange(1, n + 1).astype(np.uint64),
        np.repeat(np.arange(n), _NODES).astype(np.int64),
        np.arange(1, _NODES * n + 1).astype(np.uint64),
        corners.reshape(-1, 3) * np.array(labels.grid.voxel_size_nm),
        (np.array(_EDGES)[None] + _NODES * np.arange(n)[:, None, None]).reshape(-1, 2).astype(np.int64),
        tuple(f"patch{y[1].flat[k]:02d}.{x[1].flat[k]:02d}:{_SUFFIX[of_tree[k]]}" for k in order.tolist()),
        labels.source,
    )
    tracing = Tracing(
        skeletons,
        labels.grid.voxel_size_nm,
        Columns(_NODES * n).replaced("radius", ["100.0"] * _NODES * n),
        Columns(n).replaced("groupId", [int(k) for k in z[1].reshape(-1)[order]]),
        Columns(len(_EDGES) * n),
        groups=tuple(Group(k, f"plane{k:03d}:{_SUFFIX[word]}") for k, word in enumerate(of_plane)),
    )
    low, high = labels.starts.min(axis=0), labels.starts.max(axis=0) + np.array(labels.shape)
    at = dict(zip("zyx", map(str, labels.centres[order[0]].tolist()), strict=True))
    return (
        tracing.with_boxes([NamedBox(Box.of(low.tolist(), high.tolist()), "patches", id=0)])
        .with_parameter(Element.of("experiment", {"name": data_set}))
        .with_parameter(Element.of("editPosition", {axis: at[axis] for axis in "xyz"}))
    )


def annotator_of(tracing: Tracing) -> str:
    """Return who made a tracing, as its file says; empty where it does not."""
    for element in tracing.others.document:
        if element.tag == "meta" and element.get("name") == "username":
            return element.get("content") or ""
    return ""


def _said(name: str, pattern: re.Pattern[str], what: str, example: str) -> int:
    found = pattern.fullmatch(name)
    if found is None:
        raise InputError(f"{what} {name!r} is not called like {example}: rename or remove it")
    word = found.groups()[-1]
    if word.upper() not in _SAYS:
        raise InputError(f"{what} {name!r} ends in {word!r}: give 1 for yes, 0 for no, X for as its section")
    return _SAYS[word.upper()]


def _outlines(tracing: Tracing) -> tuple[Rows, Vec]:
    """Return the first voxels of patches, and their common shape."""
    s = tracing.skeletons
    counts = np.bincount(s.skeletons, minlength=len(s.ids))
    wrong = np.flatnonzero(counts != _NODES)
    if wrong.size or not counts.size:
        called = s.names[wrong[0]] if counts.size else "(none)"
        raise InputError(
            f"{tracing.source}: tree {called!r} has {counts[wrong[0]] if counts.size else 0} nodes: a patch of an "
            "evaluation box has six"
        )
    order = np.argsort(s.skeletons, kind="stable")
    nodes = voxels_containing(Grid(tracing.voxel_size_nm), s.positions_nm[order]).reshape(-1, _NODES, 3)
    low, high = nodes.min(axis=1), nodes.max(axis=1)
    extents = np.unique(high - low, axis=0)
    if len(extents) > 1 or extents[0, 0] or not extents[0, 1:].all():
        raise InputError(
            f"{tracing.source} has patches of {extents.tolist()} voxels (z, y, x) between corners: all have one "
            "shape, and lie in one section"
        )
    shape = as_vec((1, *extents[0, 1:].tolist()))
    centre = _centres(tracing)
    moved = np.flatnonzero((low + np.array(shape) // 2 != centre).any(axis=1))
    if moved.size:
        raise InputError(
            f"{tracing.source}: tree {s.names[moved[0]]!r} has its node of most edges at "
            f"{centre[moved[0]].tolist()}, beside the middle of its corners, "
            f"{(low[moved[0]] + np.array(shape) // 2).tolist()} (z, y, x): a node was moved; put it back"
        )
    return low, shape


def _centres(tracing: Tracing) -> Rows:
    """Return the voxel of the node with most edges of each tree."""
    s = tracing.skeletons
    degree = np.bincount(s.links.reshape(-1), minlength=len(s.node_ids))
    order = np.lexsort([-degree, s.skeletons])
    first = np.unique(s.skeletons[order], return_index=True)[1]
    return voxels_containing(Grid(tracing.voxel_size_nm), s.positions_nm[order[first]])


def _require_box(labels: PatchLabels) -> None:
    if not len(labels) or labels.shape[0] != 1:
        raise InputError(
            f"{labels.source} has {len(labels)} patches of {labels.shape} voxels (z, y, x): an evaluation box has "
            "some, each in one section"
        )
    if any(labels.grid.offset_nm):
        raise InputError(
            f"{labels.source} has an offset of {labels.grid.offset_nm} nm: NML counts voxels from the data set's "
            "first; give the patches in those"
        )
    if len(np.unique(labels.starts, axis=0)) < len(labels):
        raise InputError(f"{labels.source} has a patch twice: choose one annotator, or take the consensus")


def _suffixes(said: Labels, plane: Rows, n: int) -> tuple[list[int], list[int]]:
    of_plane, of_tree = [UNKNOWN] * n, said.copy()
    for k in range(n):
        here = plane == k
        words = set(said[here].tolist())
        if len(words) == 1:
            of_plane[k] = words.pop()
            of_tree[here] = UNKNOWN
        elif UNKNOWN not in words:
            of_plane[k] = NO
            of_tree[here & (said == NO)] = UNKNOWN
    return of_plane, of_tree.tolist()


def _nodes(labels: PatchLabels) -> Rows:
    """Return the nodes of each patch, int64 [N, 6, 3], voxels (z, y, x)."""
    _, h, w = labels.shape
    moves = np.array([(0, h // 2, w // 2), (0, 0, 0), (0, h, 0), (0, 0, w), (0, h, w), (0, h - 1, w)])
    nodes: Rows = labels.starts[:, None] + moves[None]
    return nodes
