"""The enclosure rule: measured as an obvious loop measures it, repaired for good, and alike in blocks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, blocks
from emloom.ops.decide import UNDECIDED
from emloom.ops.enclosure import (
    Enclosure,
    EnclosureRule,
    enclosure_faces,
    halo_of,
    repair,
    resolve,
    violation_rate,
)

NAMES = ("cytoplasm", "wall", "inside", "synapse")
CYTOPLASM, WALL, INSIDE, SYNAPSE = range(4)
SPACING = (30.0, 4.0, 6.0)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Enclosure]:
    """Blobs of classes with specks and undecided voxels, the shares of the classes, and a rule."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    coarse = rng.choice([CYTOPLASM, WALL, INSIDE, SYNAPSE, UNDECIDED], size=(3, 3, 3), p=draw(weights()))
    labels = np.kron(coarse, np.ones((3, 3, 3), np.uint8))[: shape[0], : shape[1], : shape[2]].astype(np.uint8)
    noisy = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.4]))
    labels[noisy] = rng.integers(0, 4, shape, np.uint8)[noisy]
    shares = rng.integers(0, draw(st.sampled_from([2, 256])), (4, *shape)).astype(np.uint8)
    allowed = draw(st.sampled_from([(), ("synapse",)]))
    specks = draw(st.sampled_from([0.0, 6.0, 30.0, 61.0]))
    rule = EnclosureRule(
        inside="inside", wall="wall", allowed=allowed, specks_nm=specks, in_plane=draw(st.booleans())
    )
    spacing = draw(st.sampled_from([SPACING, (6.0, 6.0, 4.0)]))
    return labels, shares, resolve([rule], NAMES, spacing)[0]


def weights() -> st.SearchStrategy[list[float]]:
    return st.sampled_from([[0.3, 0.2, 0.3, 0.1, 0.1], [0.5, 0, 0.5, 0, 0], [0.1, 0.1, 0.7, 0.05, 0.05]])


def slow_faces(labels: NDArray[np.uint8], rule: Enclosure) -> NDArray[np.int64]:
    """Count faces voxel by voxel."""
    counts = np.zeros((2, 3), np.int64)
    fine = {rule.inside, rule.wall, *rule.allowed}
    for axis in rule.axes:
        for at in np.ndindex(*labels.shape):
            beyond = tuple(v + (a == axis) for a, v in enumerate(at))
            if beyond[axis] == labels.shape[axis]:
                continue
            pair = {int(labels[at]), int(labels[beyond])}
            if rule.inside in pair and len(pair) == 2 and UNDECIDED not in pair:
                counts[0, axis] += 1
                counts[1, axis] += not pair <= fine
    return counts


@given(scenes())
def test_faces_are_those_of_a_loop(scene: tuple[NDArray[np.uint8], NDArray[np.uint8], Enclosure]) -> None:
    labels, _, rule = scene
    faces = enclosure_faces(labels, rule)
    assert np.array_equal(faces, slow_faces(labels, rule))
    z, y, x = rule.spacing_nm
    areas = (y * x, z * x, z * y)
    surface, violating = (sum(n * a for n, a in zip(row, areas, strict=True)) for row in faces.tolist())
    rate = violation_rate(faces, rule.spacing_nm)
    assert np.isnan(rate) if not surface else rate == pytest.approx(violating / surface)


@given(scenes(), st.tuples(*[st.integers(1, 5)] * 3))
def test_faces_of_blocks_add_up(
    scene: tuple[NDArray[np.uint8], NDArray[np.uint8], Enclosure], cell: tuple[int, int, int]
) -> None:
    labels, shares, rule = scene
    known = shares[0] > 0
    whole = Box.whole(labels.shape)
    total = np.zeros((2, 3), np.int64)
    for block in blocks(whole, cell, 1):
        seen = block.read.intersect(whole)
        own = Box(tuple(a - b for a, b in zip(block.write.start, seen.start, strict=True)), block.write.shape)
        total += enclosure_faces(labels[seen.slices()], rule, own, known[seen.slices()])
    assert np.array_equal(total, enclosure_faces(labels, rule, known_ZYX=known))


@given(scenes())
@settings(max_examples=300)
def test_nothing_violates_a_repaired_volume_and_repairing_again_changes_nothing(
    scene: tuple[NDArray[np.uint8], NDArray[np.uint8], Enclosure],
) -> None:
    labels, shares, rule = scene
    repaired = repair(labels, shares, [rule])
    assert enclosure_faces(repaired, rule)[1].sum() == 0
    assert np.array_equal(repair(repaired, shares, [rule]), repaired)
    assert np.array_equal(repaired == UNDECIDED, labels == UNDECIDED)
    untouched = (labels == rule.wall) | np.isin(labels, rule.allowed)
    assert np.array_equal(repaired[untouched], labels[untouched])


@given(scenes())
def test_only_violating_voxels_and_specks_change(
    scene: tuple[NDArray[np.uint8], NDArray[np.uint8], Enclosure],
) -> None:
    labels, shares, rule = scene
    changed = repair(labels, shares, [rule]) != labels
    near = np.zeros_like(changed)
    for at in np.argwhere(changed).tolist():
        near[tuple(at)] = any(
            set(map(int, (labels[one], labels[other]))) - {UNDECIDED} >= {rule.inside}
            and bool(rule.foreign(labels)[one] | rule.foreign(labels)[other])
            for one, other in faces_within(labels.shape, at, rule)
        )
    assert np.array_equal(near, changed)


def faces_within(shape: tuple[int, ...], at: list[int], rule: Enclosure) -> list[tuple[tuple, tuple]]:  # type: ignore[type-arg]
    """Return the faces of all voxels that lie within the longest speck of a voxel."""
    reach = [range(max(0, v - n), min(s, v + n + 1)) for v, n, s in zip(at, rule.specks_vox, shape, strict=True)]
    reach = reach if rule.has_specks else [range(v, v + 1) for v in at]
    found = []
    for one in product(*reach):
        for axis in rule.axes:
            for step in (-1, 1):
                other = tuple(v + step * (a == axis) for a, v in enumerate(one))
                if 0 <= other[axis] < shape[axis]:
                    found.append((one, other))
    return found


@given(scenes(), st.tuples(*[st.integers(1, 5)] * 3))
@settings(max_examples=200)
def test_blocks_are_repaired_as_the_whole(
    scene: tuple[NDArray[np.uint8], NDArray[np.uint8], Enclosure], cell: tuple[int, int, int]
) -> None:
    labels, shares, rule = scene
    whole = Box.whole(labels.shape)
    out = np.empty_like(labels)
    for block in blocks(whole, cell, halo_of([rule])):
        seen = block.read.intersect(whole)
        part = repair(labels[seen.slices()], shares[:, *seen.slices()], [rule])
        own = Box(tuple(a - b for a, b in zip(block.write.start, seen.start, strict=True)), block.write.shape)
        out[block.write.slices()] = part[own.slices()]
    assert np.array_equal(out, repair(labels, shares, [rule]))


def rule_of(**more: object) -> Enclosure:
    rule = EnclosureRule.from_dict({"inside": "inside", "wall": "wall", **more})
    return resolve([rule], NAMES, (4.0, 4.0, 4.0))[0]


def test_the_side_that_looks_more_like_wall_gives_way() -> None:
    labels = np.array([[[CYTOPLASM, INSIDE, INSIDE, INSIDE, CYTOPLASM]]], np.uint8)
    shares = np.zeros((4, 1, 1, 5), np.uint8)
    shares[WALL, 0, 0] = [90, 80, 0, 30, 30]
    repaired = repair(labels, shares, [rule_of()])
    assert repaired.ravel().tolist() == [WALL, INSIDE, INSIDE, WALL, CYTOPLASM]  # of equals the inside


def test_holes_are_filled_and_strays_become_what_they_touch_most() -> None:
    labels = np.full((7, 7, 12), CYTOPLASM, np.uint8)
    labels[1:6, 1:6, 1:6] = INSIDE
    labels[3, 3, 3] = SYNAPSE  # a hole
    labels[3, 3, 9] = INSIDE  # stray
    labels[2, 3, 9] = SYNAPSE
    shares = np.zeros((4, 7, 7, 12), np.uint8)
    repaired = repair(labels, shares, [rule_of(specks_nm=4.0)])
    assert repaired[3, 3, 3] == INSIDE
    assert repaired[3, 3, 9] == CYTOPLASM
    assert repaired[1, 3, 3] == WALL  # the surface gave way
    only_wall = repair(labels, shares, [rule_of()])
    assert only_wall[3, 3, 9] == WALL
    assert (only_wall[3, 3, 3], only_wall[3, 3, 2]) == (SYNAPSE, WALL)


def test_what_reaches_the_face_of_the_volume_is_no_speck() -> None:
    labels = np.full((1, 5, 5), CYTOPLASM, np.uint8)
    labels[0, 2, 2] = INSIDE
    shares = np.zeros((4, 1, 5, 5), np.uint8)
    assert repair(labels, shares, [rule_of(specks_nm=4.0)])[0, 2, 2] == WALL
    assert repair(labels, shares, [rule_of(specks_nm=4.0, in_plane=True)])[0, 2, 2] == CYTOPLASM


def test_all_problems_of_rules_are_named_at_once() -> None:
    rules = [
        EnclosureRule(inside="insde", wall="wall"),
        EnclosureRule(inside="wall", wall="cytoplasm", allowed=("nucleus",)),
        EnclosureRule(inside="inside", wall="wall"),
    ]
    with pytest.raises(InputError) as problem:
        resolve(rules, NAMES, SPACING)
    for words in ("4 problems", "'insde'", "inside", "'nucleus'", "rule 2, allowed", "add inside to `allowed`"):
        assert words in str(problem.value)
    with pytest.raises(InputError, match="enclosed by itself"):
        EnclosureRule.from_dict({"inside": "wall", "wall": "wall"})


def test_two_rules_that_agree_are_both_kept_and_one_undone_is_seen() -> None:
    rng = np.random.default_rng(4)
    labels = np.kron(rng.integers(0, 4, (4, 4, 4)), np.ones((3, 3, 3))).astype(np.uint8)
    shares = rng.integers(0, 256, (4, *labels.shape)).astype(np.uint8)
    first = EnclosureRule(inside="inside", wall="wall", allowed=("synapse",))
    agreeing = resolve([first, EnclosureRule(inside="synapse", wall="wall", allowed=("inside",))], NAMES, SPACING)
    repaired = repair(labels, shares, agreeing)
    assert all(enclosure_faces(repaired, rule)[1].sum() == 0 for rule in agreeing)
    # The second puts synapse where the first put wall.
    undoing = resolve(
        [EnclosureRule(inside="inside", wall="wall"), EnclosureRule(inside="cytoplasm", wall="synapse")],
        NAMES,
        SPACING,
    )
    left = enclosure_faces(repair(labels, shares, undoing), undoing[0])
    assert left[1].sum() > 0


def test_a_block_sees_a_hole_that_joins_a_stray_piece_to_a_large_one() -> None:
    labels = np.full((5, 5, 30), CYTOPLASM, np.uint8)
    labels[2, 2, 8:12] = INSIDE  # short enough to be stray, were it not for the hole behind it
    labels[1:4, 1:4, 12:16] = INSIDE
    labels[1:4:2, 1:4:2, 12:16] = CYTOPLASM
    labels[2, 2, 12:16] = CYTOPLASM  # the hole
    labels[2, 2, 16] = INSIDE
    shares = np.zeros((4, *labels.shape), np.uint8)
    rule = resolve([EnclosureRule(inside="inside", wall="wall", specks_nm=4.0)], NAMES, (1.0, 1.0, 1.0))[0]
    whole = repair(labels, shares, [rule])
    assert (whole[2, 2, 8:16] == WALL).sum() >= 4
    stop = 9 + rule.halo_vox[2]
    assert stop < 30
    part = repair(labels[..., :stop], shares[..., :stop], [rule])
    assert np.array_equal(part[..., :9], whole[..., :9])
