"""What `emloom check` says about painted pieces: what is painted where, and what that means for scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry.tiling import cells
from emloom.nn.painted import ALL, Codes
from emloom.tasks.checktraining import Finding
from emloom.tasks.data import Stack
from emloom.tasks.sparselabels import OpenedPiece, Sparse

_RARE = 0.02  # of what is painted to learn from
_FEW_VOX = 500
_NEAR = 5  # voxels along an axis of the window in which an undefined voxel looks for two classes
_LEFT_OUT = 0.5  # of the interfaces
_READ = 128


def check_sparse(stack: Stack) -> Iterator[Finding]:
    """Report the pieces of a stack; nothing where its labels are not sparse."""
    sparse = stack.sparse
    if sparse is None:
        return
    held = {box: part for part in ("validation", "test") for box in stack.spec.boxes(part)}
    learned = []
    for piece in sparse.pieces:
        part = held.get(piece.painted.box, "training")
        yield Finding("ok", "labels", f"{piece.spec.name} ({part}): {_counts(piece, sparse)}")
        learned += [piece] if part == "training" else []
    yield _classes(learned, sparse)
    for (a, b), count in sparse.conflicts.items():
        text = f"{a} and {b} contradict each other at {count:,} voxels, which count as unknown"
        yield Finding("warning", "labels", text)
    yield _interfaces(sparse)


def _counts(piece: OpenedPiece, sparse: Sparse) -> str:
    total = int(piece.counts.sum()) + piece.undefined
    names = zip(sparse.classes.names, piece.counts.tolist(), strict=True)
    listed = ", ".join(f"{name} {count:,}" for name, count in names if count)
    text = f"{listed}; undefined {piece.undefined / total:.1%} of {total:,} voxels"
    hidden = ", ".join(piece.spec.hidden)
    return f"{text}; nobody looked for {hidden}" if hidden else text


def _classes(learned: Sequence[OpenedPiece], sparse: Sparse) -> Finding:
    """Say which classes are rare in what is learned from."""
    if not learned:
        return Finding("error", "classes", "every piece is held out, so nothing is left to learn from")
    counts = np.sum([piece.counts for piece in learned], axis=0)
    wanted = [number for number in sparse.classes.learned if number in sparse.classes.declared]
    names = sparse.classes.names
    absent = [names[k] for k in wanted if not counts[k]]
    if absent:
        text = f"no piece that is learned from has a voxel of {', '.join(absent)}: hold out fewer pieces"
        return Finding("error", "classes", text)
    total = int(counts.sum())
    shares = ", ".join(f"{names[k]} {counts[k] / total:.1%}" for k in wanted)
    rare = [f"{names[k]} ({counts[k]:,})" for k in wanted if counts[k] < max(_FEW_VOX, _RARE * total)]
    text = f"{total:,} voxels to learn from: {shares}"
    if rare:
        return Finding("warning", "classes", f"{text}; rare are {', '.join(rare)}: paint more of them first")
    return Finding("ok", "classes", text)


def _interfaces(sparse: Sparse) -> Finding:
    """Compare how much of the interfaces between classes is painted, and how much is left undefined."""
    left_out, told = 0, 0
    for piece in sparse.pieces:
        for _, box in cells(piece.painted.box, _READ):
            codes = piece.painted.codes(box)
            left_out += int(np.count_nonzero((codes == ALL) & _between(codes)))
            told += _beside_another(codes)
    share = left_out / max(1, left_out + told)
    text = f"{share:.0%} of the voxels at interfaces between classes are undefined"
    if share > _LEFT_OUT:
        return Finding(
            "warning",
            "interfaces",
            f"{text}: the hardest voxels are neither learned nor scored, so all scores will be optimistic; paint "
            "up to the interface in one plane at least, to score there",
        )
    return Finding("ok", "interfaces", text)


def _between(codes: Codes) -> NDArray[np.bool_]:
    """Return the voxels that have two classes near them: of known codes, the largest and the smallest differ."""
    window = [min(_NEAR, n) for n in codes.shape]
    largest = ndimage.maximum_filter(codes, size=window, mode="nearest")
    known = np.where(codes == ALL, np.iinfo(np.uint16).max, codes)
    smallest = ndimage.minimum_filter(known, size=window, mode="nearest")
    between: NDArray[np.bool_] = (largest != ALL) & (smallest < largest)
    return between


def _beside_another(codes: Codes) -> int:
    """Return how many known voxels have a neighbour of another known class."""
    found = np.zeros(codes.shape, bool)
    for axis in range(3):
        low, high = np.delete(codes, -1, axis), np.delete(codes, 0, axis)
        differs = (low != high) & (low != ALL) & (high != ALL)
        found |= np.insert(differs, differs.shape[axis], False, axis) | np.insert(differs, 0, False, axis)
    return int(np.count_nonzero(found))
