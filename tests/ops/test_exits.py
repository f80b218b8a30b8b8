from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.exits import labels_on_faces, resolve

TOTAL = (1, 1, 40)


def faces(labels):
    """The six faces of an array, written plainly."""
    p = labels
    layers = (p[:1], p[-1:], p[:, :1], p[:, -1:], p[:, :, :1], p[:, :, -1:])
    return np.concatenate([layer.ravel() for layer in layers])


def ids(*numbers):
    return np.array(numbers, np.uint64)


def chain(next_of, write):
    """Resolve a block of a row whose other voxels answer by a table; return the labels and what was asked."""
    asked = []

    def fetch(voxels):
        asked.append(voxels.tolist())
        return ids(*(next_of[v] for v in voxels.tolist()))

    labels = ids(*(next_of[1 + x] for x in range(write.start[2], write.stop[2])))
    exits, tops = resolve(faces(labels.reshape(write.shape)), write, TOTAL, fetch)
    found = dict(zip(exits.tolist(), tops.tolist(), strict=True))
    return [found.get(label, label) for label in labels.tolist()], asked


@given(st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.integers(0, 4)] * 3), st.integers(0, 2**32))
def test_faces_answer_for_the_faces_and_every_voxel_inside_stands_for_itself(shape, start, seed):
    write, total = Box(start, shape), (9, 9, 9)
    labels = np.random.default_rng(seed).integers(1, 2**62, shape).astype(np.uint64)
    voxels = np.argwhere(np.ones(shape, bool))
    names = (1 + np.ravel_multi_index((voxels + start).T, total)).astype(np.uint64)
    on_face = ((voxels == 0) | (voxels == np.array(shape) - 1)).any(axis=1)
    got = labels_on_faces(faces(labels), write, total, names)
    assert np.array_equal(got, np.where(on_face, labels.ravel(), names))


def test_a_path_is_followed_to_its_end():
    """3 -> 11 -> 21 -> 38, a top inside its block; 4 is a top here."""
    next_of = {1: 4, 2: 4, 3: 11, 4: 4, 5: 0, 11: 21, 21: 38, 38: 38}
    assert chain(next_of, Box((0, 0, 0), (1, 1, 5))) == ([4, 4, 38, 4, 0], [[11], [21], [38]])


def test_a_path_that_comes_back_is_followed_at_home():
    next_of = {1: 1, 2: 2, 3: 20, 20: 2}
    assert chain(next_of, Box((0, 0, 0), (1, 1, 3))) == ([1, 2, 2], [[20]])


def test_no_voxel_is_asked_for_twice():
    next_of = {1: 10, 2: 10, 3: 20, 10: 20, 20: 30, 30: 30}
    assert chain(next_of, Box((0, 0, 0), (1, 1, 3))) == ([30, 30, 30], [[10, 20], [30]])


@pytest.mark.parametrize("length", range(2, 10))
def test_a_circle_is_named(length):
    next_of = {1: 10, **{10 + k: 10 + (k + 1) % length for k in range(length)}}
    with pytest.raises(InputError, match=r"the path from the voxel of id 10 is a circle: .* anew"):
        chain(next_of, Box((0, 0, 0), (1, 1, 1)))


def test_a_path_into_background_is_named():
    with pytest.raises(InputError, match="leads to background, the voxel of id 10"):
        chain({1: 10, 10: 0}, Box((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize("answer", [np.array([7]), np.array([7, 7], np.uint64)])
def test_other_answers_than_one_label_each_are_named(answer):
    with pytest.raises(InputError, match="1 voxels were answered by"):
        resolve(faces(ids(10).reshape(1, 1, 1)), Box((0, 0, 0), (1, 1, 1)), TOTAL, lambda _: answer)


def test_questions_to_the_wrong_block_are_named():
    write, said = Box((0, 0, 4), (1, 1, 4)), faces(ids(5, 5, 5, 9).reshape(1, 1, 4))
    assert labels_on_faces(said, write, TOTAL, ids(5, 8)).tolist() == [5, 9]
    assert labels_on_faces(said, write, TOTAL, ids()).tolist() == []
    with pytest.raises(InputError, match="id 9 lies outside"):
        labels_on_faces(said, write, TOTAL, ids(5, 9))
    with pytest.raises(InputError, match="too few"):
        labels_on_faces(said[:-1], write, TOTAL, ids(5))
    with pytest.raises(InputError, match="too many"):
        labels_on_faces(np.append(said, said), write, TOTAL, ids(5))
