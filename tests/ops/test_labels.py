"""Arrays of ids: laws of shrinking, splitting, renumbering, relabelling; the report."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.labels import apply_lut, grow_boundary, label_report, relabel_dense, split_disconnected

IDS = [0, 1, 2, 2**40, 2**63 - 1]
shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
labels_arrays = hnp.arrays(np.uint64, shapes, elements=st.sampled_from(IDS))
light = settings(deadline=None, max_examples=60)


def eroded_by_definition(labels, mask, in_plane):
    out = labels.copy()
    for axis in (1, 2) if in_plane else (0, 1, 2):
        for step in (-1, 1):
            for p in np.ndindex(labels.shape):
                q = list(p)
                q[axis] += step
                if 0 <= q[axis] < labels.shape[axis] and labels[tuple(q)] != labels[p]:
                    out[p] = out[p] if not (mask[p] and mask[tuple(q)]) else 0
    return out


@light
@given(labels_arrays, st.booleans(), st.integers(0, 2**32))
def test_grow_boundary_equals_the_definition(labels, in_plane, seed):
    mask = np.random.default_rng(seed).random(labels.shape) < 0.8
    out = grow_boundary(labels, in_plane=in_plane, mask_ZYX=mask)
    np.testing.assert_array_equal(out, eroded_by_definition(labels, mask, in_plane))
    np.testing.assert_array_equal(out[~mask], labels[~mask])


@light
@given(labels_arrays, st.integers(0, 2), st.integers(0, 2))
def test_grow_boundary_adds_up(labels, m, n):
    np.testing.assert_array_equal(grow_boundary(grow_boundary(labels, m), n), grow_boundary(labels, m + n))


def test_grow_boundary_is_erosion_with_a_known_border():
    labels = (
        np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8).repeat(5, 0).repeat(5, 1).repeat(5, 2)
    )
    expected = np.zeros_like(labels)
    for value in (1, 2):
        expected[ndimage.binary_erosion(labels == value, iterations=2, border_value=1)] = value
    out = grow_boundary(labels, 2)
    assert out.dtype == labels.dtype
    np.testing.assert_array_equal(out, expected)


@light
@given(labels_arrays, st.sampled_from([6, 18, 26]))
def test_split_disconnected_refines_into_connected_pieces(labels, connectivity):
    pieces = split_disconnected(labels, connectivity)
    np.testing.assert_array_equal(pieces == 0, labels == 0)
    reach = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    total = 0
    for value in np.unique(labels[labels > 0]):
        mine, n = ndimage.label(labels == value, reach)
        total += n
        # One to one: as many pairs (piece, reference piece) as there are pieces.
        assert len(np.unique(np.stack([mine[mine > 0], pieces[mine > 0]]), axis=1).T) == n
    assert set(np.unique(pieces)) - {0} == set(range(1, total + 1))
    np.testing.assert_array_equal(split_disconnected(pieces, connectivity), pieces)


@light
@given(labels_arrays)
def test_relabel_dense_is_undone_by_its_table(labels):
    dense, table = relabel_dense(labels)
    np.testing.assert_array_equal(table[dense], labels)
    assert table[0] == 0
    assert np.all(np.diff(table.astype(object)) > 0)
    assert len(table) == len(set(labels.reshape(-1).tolist()) | {0})


@light
@given(labels_arrays, st.dictionaries(st.sampled_from([*IDS, 7, 2**62]), st.integers(0, 2**63 - 1), max_size=6))
def test_apply_lut_maps_keys_and_leaves_the_rest(labels, lut):
    keys = np.array(sorted(lut), np.uint64)
    values = np.array([lut[int(k)] for k in keys], np.uint64)
    out = apply_lut(labels, keys, values)
    expected = [lut.get(v, v) for v in labels.reshape(-1).tolist()]
    assert out.dtype == np.uint64
    assert out.reshape(-1).tolist() == expected
    given = np.full(labels.shape, 7, np.uint64)
    assert apply_lut(labels, keys, values, out=given) is given
    np.testing.assert_array_equal(given, out)
    apply_lut(labels, keys, values, out=labels)  # in place
    np.testing.assert_array_equal(labels, out)


def test_report_finds_what_is_wrong():
    labels = np.zeros((6, 8, 8), np.uint32)
    labels[0, :4] = 5
    labels[1] = labels[0]
    labels[3, :, :3], labels[3, :, 5:] = 9, 9
    labels[4, 0, 0] = 11
    report = label_report(labels, tiny_below_vox=2)
    assert report.ids == 3
    assert report.disconnected_ids == (9,)
    assert report.tiny_ids == (11,)
    assert report.background_fraction == pytest.approx(1 - (64 + 48 + 1) / labels.size)
    assert report.empty_sections == (2, 5)
    assert report.repeated_sections == (1,)


def test_report_of_nothing():
    assert label_report(np.zeros((0, 3, 3), np.uint8)).ids == 0
    empty = label_report(np.zeros((2, 3, 3), np.uint8))
    assert (empty.background_fraction, empty.empty_sections, empty.repeated_sections) == (1.0, (0, 1), ())


@pytest.mark.parametrize("bad", [np.ones((2, 2, 2), np.int64), np.ones((2, 2, 2)), np.ones((2, 2), np.uint8)])
@pytest.mark.parametrize("verb", [grow_boundary, split_disconnected, relabel_dense, label_report])
def test_rejects_arrays_that_are_not_labels(verb, bad):
    with pytest.raises(InputError):
        verb(bad)


def test_rejects_bad_options():
    labels = np.ones((2, 2, 2), np.uint8)
    with pytest.raises(InputError, match="steps"):
        grow_boundary(labels, -1)
    with pytest.raises(InputError, match="connectivity"):
        split_disconnected(labels, 8)
    with pytest.raises(InputError, match="strictly increasing"):
        apply_lut(labels, np.array([2, 1], np.uint64), np.array([1, 2], np.uint64))
    with pytest.raises(InputError, match="one value per key"):
        apply_lut(labels, np.array([1, 2], np.uint64), np.array([1], np.uint64))
    with pytest.raises(InputError, match="contiguous uint64"):
        apply_lut(labels, np.zeros(0, np.uint64), np.zeros(0, np.uint64), out=np.zeros(3, np.uint64))
    with pytest.raises(InputError, match=r"below 2\*\*63"):
        apply_lut(np.full((1, 1, 1), 2**63, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint64))
