"""Contacts of fragments: the same sums as the region graph, for any blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.geometry import Box, blocks
from emloom.ops.contacts import (
    Contacts,
    contact_sums,
    contacts_of,
    ids_beside,
    merge_sums,
    nearest_contacts,
    nearest_of,
)
from emloom.ops.doubts import tile_counts, tile_worst
from emloom.ops.regions import region_graph

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, 1), (0, 0, -5)]
SHAPE = (5, 9, 11)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 14, SHAPE).astype(np.uint64), rng.integers(0, 256, (4, *SHAPE)).astype(np.uint8)


def at(affinities: np.ndarray, contacts: Contacts) -> np.ndarray:
    found: np.ndarray = affinities[(contacts.channel, *contacts.p.T)]
    return found


@given(st.integers(0, 10_000), st.tuples(*[st.integers(2, 9)] * 3))
@settings(max_examples=20)
def test_sums_of_blocks_are_those_of_the_whole_and_of_the_region_graph(
    seed: int, cell: tuple[int, int, int]
) -> None:
    fragments, affinities = drawn(seed)
    graph = region_graph(fragments, affinities, OFFSETS)
    whole = contacts_of(fragments, OFFSETS)
    sums = contact_sums(whole, {"total": at(affinities, whole)})
    np.testing.assert_array_equal(sums["u"], graph.u)
    np.testing.assert_array_equal(sums["v"], graph.v)
    np.testing.assert_array_equal(sums["n"], graph.contacts)
    np.testing.assert_array_equal(sums["total"], graph.total)
    parts = []
    targets = np.stack([sums[f"sum_{a}"] // sums["n"] for a in "zyx"], axis=1)
    near = []
    for block in blocks(Box.whole(SHAPE), cell):
        read = block.write.grow((1, 1, 1)).intersect(Box.whole(SHAPE))
        owned = block.write.shift([-v for v in read.start])
        mine = contacts_of(fragments[read.slices()], OFFSETS, owned, read.start)
        parts.append(contact_sums(mine, {"total": at(affinities, mine)}))
        near.append(nearest_contacts(mine, sums["u"], sums["v"], targets))
    added = merge_sums(parts)
    for name, column in sums.items():
        np.testing.assert_array_equal(added[name], column, err_msg=name)
    nearest, alone = nearest_of(near), nearest_contacts(whole, sums["u"], sums["v"], targets)
    for name, column in alone.items():
        np.testing.assert_array_equal(nearest[name], column, err_msg=name)


def test_the_nearest_contact_is_one_between_the_two_fragments() -> None:
    fragments, _ = drawn(5)
    whole = contacts_of(fragments, OFFSETS)
    sums = contact_sums(whole, {})
    targets = np.stack([sums[f"sum_{a}"] // sums["n"] for a in "zyx"], axis=1)
    found = nearest_contacts(whole, sums["u"], sums["v"], targets)
    for k in range(len(found["row"])):
        p = np.array([found[a][k] for a in "zyx"])
        q = p + np.array(OFFSETS[found["channel"][k]])
        ends = [int(fragments[tuple(p)]), int(fragments[tuple(q)])]
        ends = ends[::-1] if found["swapped"][k] else ends
        assert ends == [int(sums["u"][found["row"][k]]), int(sums["v"][found["row"][k]])]
        mine = (whole.u == ends[0]) & (whole.v == ends[1])
        distances = ((whole.p[mine] - targets[found["row"][k]]) ** 2).sum(axis=1)
        assert found["distance"][k] == distances.min()


def test_tiles_hold_the_largest_doubt_and_count_what_is_marked() -> None:
    fragments, _ = drawn(1)
    contacts = contacts_of(fragments, OFFSETS)
    doubts = (contacts.p.sum(axis=1) % 7).astype(np.uint8)
    tile, shape = (2, 4, 4), (3, 3, 3)
    worst = tile_worst(contacts, doubts, tile, (0, 0, 0), shape)
    counts = tile_counts(fragments == 3, tile)
    for place in np.ndindex(shape):
        inside = (contacts.p // np.array(tile) == np.array(place)).all(axis=1)
        assert worst[place] == doubts[inside].max(initial=0)
        box = tuple(slice(p * t, (p + 1) * t) for p, t in zip(place, tile, strict=True))
        assert counts[place] == (fragments[box] == 3).sum()


@given(st.integers(0, 2**32 - 1))
def test_ids_beside_a_mask_are_those_of_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, 3))
    ids, mask = rng.integers(0, 4, shape).astype(np.uint64), rng.random(shape) < 0.2
    owned = Box.of([int(rng.integers(0, n)) for n in shape], shape)
    found = set()
    for p in np.argwhere(np.ones(owned.shape, bool)) + owned.start:
        steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        near = [tuple(q) for q in p + steps if (q >= 0).all() and (q < shape).all()]
        if ids[tuple(p)] and any(mask[q] for q in near):
            found.add(int(ids[tuple(p)]))
    assert ids_beside(ids, mask, owned).tolist() == sorted(found)
