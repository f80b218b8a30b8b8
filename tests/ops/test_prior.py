"""The single-section prior: against slow versions, blockwise against whole, and on the stored real predictions."""

from __future__ import annotations

import csv
from itertools import pairwise, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from emloom.errors import InputError
from emloom.metrics.curves import average_precision, roc_auc
from emloom.metrics.ranking import ranking
from emloom.ops.logits import decode_logits, encode_logits, encode_probabilities
from emloom.ops.prior import (
    CleanSpec,
    FilterSpec,
    candidates,
    clean,
    filter_logits,
    find_artifacts,
    halo_sections,
    persistent,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))
maps = hnp.arrays(np.float32, shapes, elements=st.integers(-8, 8) | st.just(np.nan))
filters = st.builds(
    FilterSpec,
    taps=st.sampled_from([(1.0,), (1.0, 2.0, 1.0), (1.0, 4.0, 6.0, 4.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 3.0)]),
    own=st.sampled_from([1.0, 2.0]),
    opposition=st.sampled_from([0.0, 0.5, 1.0]),
    sections=st.integers(1, 3),
    beside=st.sampled_from(["mean", "median", "max"]),
)
cleanings = st.builds(
    CleanSpec,
    low=st.sampled_from([-1.0, 0.0, 1.0]),
    high=st.sampled_from([1.0, 3.0]),
    min_size=st.integers(1, 4),
    persistent=st.none() | st.integers(2, 5),
    overlap=st.sampled_from([0.1, 0.5, 1.0]),
)


def slow_filter(logits: np.ndarray, spec: FilterSpec) -> np.ndarray:
    r = len(spec.taps) // 2
    padded = np.pad(logits.astype(float), ((0, 0), (r, r), (r, r)), constant_values=np.nan)
    weights = np.outer(spec.taps, spec.taps)
    smooth = np.full(logits.shape, np.nan)
    for z, y, x in np.ndindex(logits.shape):
        window = padded[z, y : y + 2 * r + 1, x : x + 2 * r + 1]
        known = ~np.isnan(window)
        if np.isnan(logits[z, y, x]):
            continue
        total = weights[known].sum()
        smooth[z, y, x] = (weights * window)[known].sum() / total if total else logits[z, y, x]
    out = np.full(logits.shape, np.nan)
    for z, y, x in np.ndindex(logits.shape):
        near = [smooth[k, y, x] for k in range(len(logits)) if 0 < abs(k - z) <= spec.sections]
        near = [v for v in near if not np.isnan(v)] or [smooth[z, y, x]]
        m = {"mean": np.mean, "median": np.median, "max": np.max}[spec.beside](near)
        out[z, y, x] = spec.own * smooth[z, y, x] - spec.opposition * m
    return out


@given(maps, filters)
def test_the_filter_is_what_it_says(logits, spec):
    np.testing.assert_allclose(filter_logits(logits, spec), slow_filter(logits, spec), rtol=1e-5, atol=1e-5)


def test_the_default_is_the_originals_sandwich_in_the_inside():
    """genEM3's 3x3x3 kernel, but for the neighbours' middle weight: smoothed there like the section itself."""
    logits = np.random.default_rng(0).normal(size=(5, 7, 7)).astype(np.float32)
    plane = np.array([[0.125, 0.25, 0.125], [0.25, 0.5, 0.25], [0.125, 0.25, 0.125]])
    kernel = np.stack([-plane / 4, plane, -plane / 4])
    assert kernel.sum() == 1
    expected = ndimage.correlate(logits.astype(float), kernel)[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(filter_logits(logits, FilterSpec())[1:-1, 1:-1, 1:-1], expected, atol=1e-5)


@given(shapes, st.integers(-8, 8), filters)
def test_an_even_map_stays_as_it_is_scaled(shape, value, spec):
    out = filter_logits(np.full(shape, value, np.float32), spec)
    np.testing.assert_allclose(out, value * (spec.own - spec.opposition), atol=1e-5)


@given(maps, filters, st.data())
def test_the_filter_of_any_block_with_its_halo_is_that_of_the_whole(logits, spec, data):
    whole = filter_logits(logits, spec)
    start, stop = [], []
    for n in logits.shape:
        a = data.draw(st.integers(0, n - 1))
        start.append(a)
        stop.append(data.draw(st.integers(a + 1, n)))
    read = [slice(max(0, a - h), b + h) for a, b, h in zip(start, stop, spec.halo, strict=True)]
    core = tuple(slice(a - r.start, b - r.start) for a, b, r in zip(start, stop, read, strict=True))
    block = filter_logits(logits[tuple(read)], spec)[core]
    inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    assert block.tobytes() == np.ascontiguousarray(whole[inside]).tobytes()


@settings(max_examples=300)
@given(maps, filters, cleanings, st.data())
def test_slabs_of_sections_agree_with_the_whole_wherever_it_is_cut(logits, filtering, cleaning, data):
    codes = encode_logits(logits)
    whole, found = find_artifacts(codes, filtering, cleaning)
    h = halo_sections(filtering, cleaning)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(codes) - 1)), max_size=4)))
    edges = [0, *[c for c in cuts if c < len(codes)], len(codes)]
    for a, b in pairwise(edges):
        low = max(0, a - h)
        core = slice(a - low, b - low)
        slab, part = find_artifacts(codes[low : b + h], filtering, cleaning, core)
        np.testing.assert_array_equal(slab, whole[a:b])
        np.testing.assert_array_equal(part, found[a:b])


def test_a_halo_one_section_smaller_would_not_do():
    """The stated halo is needed, not only enough."""
    sections, cleaning = 1, CleanSpec(persistent=4, high=0.0)
    logits = np.full((4, 1, 1), 5.0, np.float32)
    assert not clean(logits, cleaning).any()
    assert clean(logits[sections:], cleaning, slice(-1, None)).all()
    assert cleaning.halo_sections == 3


def slow_persistent(labels: np.ndarray, sections: int, overlap: float) -> np.ndarray:
    graph = nx.DiGraph()
    nodes = [(z, int(i)) for z, section in enumerate(labels) for i in np.unique(section) if i]
    graph.add_nodes_from(nodes)
    for (z, i), (w, j) in product(nodes, nodes):
        if w == z + 1:
            one, other = labels[z] == i, labels[w] == j
            if (one & other).sum() >= overlap * min(one.sum(), other.sum()) and (one & other).any():
                graph.add_edge((z, i), (w, j))
    out = np.zeros(labels.shape, bool)
    for node in nodes:
        before = graph.subgraph(nx.ancestors(graph, node) | {node})
        after = graph.subgraph(nx.descendants(graph, node) | {node})
        length = nx.dag_longest_path_length(before) + nx.dag_longest_path_length(after) + 1
        out[node[0]] |= (labels[node[0]] == node[1]) & (length >= sections)
    return out


@given(hnp.arrays(np.float32, shapes, elements=st.sampled_from([-1, 1])), st.integers(2, 5), st.floats(0.1, 1))
def test_chains_are_the_longest_paths_through_overlapping_candidates(logits, sections, overlap):
    labels = candidates(logits, CleanSpec(high=0))
    np.testing.assert_array_equal(
        persistent(labels, sections, overlap), slow_persistent(labels, sections, overlap)
    )


@given(maps, cleanings)
def test_candidates_are_components_that_are_sure_somewhere_and_large_enough(logits, spec):
    labels = candidates(logits, spec)
    for section, ids in zip(logits, labels, strict=True):
        pieces, n = ndimage.label(section >= spec.low, np.ones((3, 3)))
        kept = np.zeros(section.shape, bool)
        for i in range(1, n + 1):
            piece = pieces == i
            if piece.sum() >= spec.min_size and (section[piece] >= spec.high).any():
                kept |= piece
                assert len(np.unique(ids[piece])) == 1
        np.testing.assert_array_equal(ids > 0, kept)
        assert np.unique(ids[ids > 0]).tolist() == list(range(1, ids.max() + 1))


def test_an_unknown_position_between_two_is_no_candidate():
    # Where booleans are connected by corners, cc3d 4 labels it.
    logits = np.ones((1, 5, 3), np.float32)
    logits[0, 1:3, 2] = np.nan
    assert np.array_equal(candidates(logits, CleanSpec(low=0, high=1)) > 0, ~np.isnan(logits))


def test_biology_goes_and_an_artifact_stays():
    logits = np.full((9, 12, 12), -6.0, np.float32)
    logits[:, 2:5, 2:5] = 4.0  # a vessel
    logits[4, 7:11, 7:11] = 4.0  # dirt
    logits[6, 0, 11] = 4.0  # a speck
    logits[2, 6, 6] = np.nan
    found = clean(logits, CleanSpec(min_size=2))
    assert found.sum() == 16
    assert found[4, 7:11, 7:11].all()
    _, filtered = find_artifacts(encode_logits(logits), FilterSpec(), CleanSpec(min_size=2))
    assert filtered[4, 8:10, 8:10].all()
    assert not filtered[np.arange(9) != 4].any()


def test_what_makes_no_sense_is_refused():
    for wrong in ([1, 2], [], [1, -2, 1], [0, 0, 0]):
        with pytest.raises(InputError, match="odd number of weights"):
            FilterSpec.from_dict({"taps": wrong})
    with pytest.raises(InputError, match="below low"):
        CleanSpec.from_dict({"low": 1, "high": 0})
    with pytest.raises(InputError, match="infinite"):
        filter_logits(np.array([[[np.inf]]]), FilterSpec())
    with pytest.raises(InputError, match=r"give logits \[Z, Y, X\]"):
        filter_logits(np.zeros((3, 3), np.float32), FilterSpec())


@pytest.mark.real_data
def test_on_real_predictions_logits_are_what_to_filter(real_data):
    """The box `center` of genEM3's test set, 5 x 5 x 57 patches; one box, so an indication."""
    p, truth = np.full((57, 5, 5), np.nan), np.zeros((57, 5, 5), np.uint8)
    with open(real_data / "artifacts/genEM3_annotations/patch_test_data.csv", newline="") as file:
        for row in csv.DictReader(file):
            place = (int(row["z"]) - 3555, int(row["yi"]), int(row["xi"]))
            p[place], truth[place] = float(row["prob"]), row["class"] == "True"
    assert truth.sum() == 52
    assert not np.isnan(p).any()
    codes = encode_probabilities(p)
    # Clusters, not sections: no positive patch has a positive one in the next section.
    assert not persistent(candidates(truth.astype(np.float32), CleanSpec(low=1, high=1)), 2, 0.01).any()

    def score(values: np.ndarray) -> tuple[float, float]:
        ranked = ranking(values.astype(float), truth)
        return average_precision(ranked), roc_auc(ranked)

    raw = score(p)
    assert score(decode_logits(codes))[0] == pytest.approx(raw[0], abs=0.005)
    for spec in (FilterSpec(), FilterSpec(own=1, opposition=0), FilterSpec(own=1, sections=3, beside="median")):
        by_logit = score(filter_logits(decode_logits(codes), spec))
        by_probability = score(filter_logits(p, spec))
        assert by_logit[0] > max(raw[0], by_probability[0])
        assert by_logit[1] > max(raw[1], by_probability[1])
