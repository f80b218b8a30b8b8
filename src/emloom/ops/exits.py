"""Paths from block to block: from the exit of one to the top in another.

A block of `emloom.ops.ascent` labels a voxel by the end of its path or, where the path leaves the block, by its
exit: the id of the first voxel outside, which lies on a face of the next block. What that block says there is the
next exit, and so on::

      block A        block B        block C          A asks B for voxel b: "c", C for c: "t", C for t: "t"
    [ · · ▸ ▸ ] b  [ ▸ ▸ ▸ ▸ ] c  [ ▸ ▸ t ◂ ]        the end: a voxel that stands for itself

So blocks write the labels on their faces, and afterwards, in any order, every block resolves its exits by reading
faces only. Nothing is merged or renumbered.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.ops.places import Ids, named_inside, voxels_of

Fetch = Callable[[Ids], Ids]
"""From ids of voxels, uint64 [N] in increasing order, to their labels in the blocks that own them, uint64 [N]."""

_WAY_OUT = "they stem from different runs, make the fragments of all blocks anew"


def labels_on_faces(faces: Ids, write: Box, total_shape: Vec, ids: Ids) -> Ids:
    """Return a block's labels of voxels, from its faces.

    Args:
        faces: the labels on the block's six faces, uint64 [N] in one piece (`ascent.Paths.on_faces`): the first
            and the last layer along z, then y, then x, each in scan order. Voxels on edges stand in it more than
            once, for simplicity's sake; N is 2 (ZY + ZX + YX). A block of 256^3 voxels has 3 MB of faces, which
            compress well: they hold few distinct labels.
        write: the block's write box in the whole volume.
        total_shape: shape of the whole volume.
        ids: of voxels in the write box, uint64 [N]. Away from the faces nobody asks for other voxels than tops:
            there every voxel stands for itself.

    Returns:
        uint64 [N].

    Raises:
        InputError: a voxel lies outside the write box, or the faces are not of such a box.
    """
    if ids.size == 0:
        return ids
    local = voxels_of(ids, total_shape) - np.array(write.start)
    outside = ((local < 0) | (local >= write.shape)).any(axis=1)
    if outside.any():
        raise InputError(f"voxel of id {int(ids[outside][0])} lies outside {write}: ask the block that owns it")
    labels, start = ids.copy(), 0
    for axis in range(3):
        across = [n for k, n in enumerate(write.shape) if k != axis]
        within = np.ravel_multi_index(np.delete(local, axis, axis=1).T, across)
        for side in (0, write.shape[axis] - 1):
            layer = faces[start : start + prod(across)]
            if layer.size != prod(across):
                raise InputError(
                    f"{faces.size} labels are too few for the faces of {write}: they are of another box"
                )
            on_it = local[:, axis] == side
            labels[on_it] = layer[within[on_it]]
            start += layer.size
    if start != faces.size:
        raise InputError(f"{faces.size} labels are too many for the faces of {write}: they are of another box")
    return labels


def resolve(faces: Ids, write: Box, total_shape: Vec, fetch: Fetch) -> tuple[Ids, Ids]:
    """Find the tops that a block's exits lead to.

    Needs one round of `fetch` per block that the longest path crosses, and no voxel is asked for twice.

    Args:
        faces: the labels on the block's faces, as for `labels_on_faces`. (An exit also labels the voxel just
            before it, which lies on a face: so these are all exits.)
        write: the block's write box in the whole volume.
        total_shape: shape of the whole volume.
        fetch: gives labels of voxels in other blocks: find each voxel's block (`places.voxels_of`) and ask its
            faces (`labels_on_faces`).

    Returns:
        The exits, uint64 [E] in increasing order, and where the paths from them end, uint64 [E]; both for
        `ascent.Paths.follow`.

    Raises:
        InputError: `faces` are not of `write`, or faces contradict each other.
    """
    labels = np.unique(faces)
    labels = labels[labels != 0]
    exits = labels[~named_inside(labels, write, total_shape)]

    def ask(ids: Ids) -> Ids:
        own = named_inside(ids, write, total_shape)
        answers = np.empty_like(ids)
        answers[own] = labels_on_faces(faces, write, total_shape, ids[own])
        answers[~own] = _fetched(fetch, ids[~own])
        return answers

    return exits, _ends(exits, ask)


def _fetched(fetch: Fetch, ids: Ids) -> Ids:
    if ids.size == 0:
        return ids
    labels = np.asarray(fetch(ids))
    if labels.shape != ids.shape or labels.dtype != np.uint64:
        raise InputError(
            f"{ids.size} voxels were answered by {labels.dtype} {labels.shape}: give one uint64 for each"
        )
    if not labels.all():
        voxel = int(ids[labels == 0][0])
        raise InputError(
            f"faces contradict each other: a path leads to background, the voxel of id {voxel}: {_WAY_OUT}"
        )
    return labels


def _ends(starts: Ids, ask: Fetch) -> Ids:
    """Return the voxel that stands for itself at the end of each path."""
    ids, answers, new = starts[:0], starts[:0], starts
    while new.size:
        found = ask(new)
        ids, answers = np.concatenate([ids, new]), np.concatenate([answers, found])
        new = np.setdiff1d(found, ids)
    order = np.argsort(ids)
    ids, answers = ids[order], answers[order]
    onward = np.searchsorted(ids, answers)
    # Twice as far each time: after k times every path shorter than 2^k steps has arrived.
    for _ in range(ids.size.bit_length()):
        onward = onward[onward]
    circling = answers[onward] != ids[onward]
    if circling.any():
        voxel = int(ids[circling][0])
        raise InputError(
            f"faces contradict each other: the path from the voxel of id {voxel} is a circle: {_WAY_OUT}"
        )
    return ids[onward[np.searchsorted(ids, starts)]]
