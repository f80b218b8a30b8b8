"""Slices that are cut from a volume of classes lie where they were cut, along every axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.recipes.painting import LOSSES, Slice, learned, write_pieces
from emloom.tasks.sparselabels import open_sparse

GRID = Grid((40.0, 5.0, 5.0), (80.0, 0.0, 15.0))


def test_pieces_come_back_as_the_classes_they_were_cut_from(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).integers(0, 4, (6, 20, 24)).astype(np.uint8)
    volume = ArrayVolume(classes, GRID, "labels")
    raw = ArrayVolume(classes, GRID, "raw").info
    slices = (
        Slice("z", 4, Box((4, 3, 2), (1, 9, 11))),
        Slice("y", 17, Box((0, 17, 5), (6, 1, 13))),
        Slice("x", 20, Box((1, 2, 20), (4, 12, 1))),
    )
    held = {"held": Box((2, 1, 0), (2, 8, 10))}
    path = write_pieces(volume, slices, held, tmp_path)
    objective = learned(("a", "b", "c"), "focal")
    assert [(each.name, each.ids) for each in objective.classes] == [("a", (1,)), ("b", (2,)), ("c", (3,))]
    assert objective.class_loss == LOSSES["focal"] != LOSSES["ce"]
    sparse = open_sparse(str(path), raw, objective.classes)
    boxes = [*(each.box for each in slices), *held.values()]
    assert [piece.painted.box for piece in sparse.pieces] == boxes
    assert [piece.spec.name for piece in sparse.pieces] == ["z004", "y017", "x020", "held"]
    assert sparse.conflicts == {}
    expected = np.zeros_like(classes)
    for box in boxes:
        expected[box.slices()] = classes[box.slices()]
    known = sparse.volume.known.read(raw.box) != 0
    np.testing.assert_array_equal(known, expected > 0)
    for piece, box in zip(sparse.pieces, boxes, strict=True):
        tally = np.bincount(classes[box.slices()].ravel(), minlength=4)
        assert piece.counts.tolist() == tally[1:].tolist()
        assert piece.undefined == tally[0]
