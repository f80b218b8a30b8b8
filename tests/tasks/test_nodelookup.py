"""The segment under every node: chunk by chunk as at once, each chunk read once, nothing outside unnoticed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.skeletons import Skeletons
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Array, ArrayVolume, VolumeInfo
from emloom.metrics.runlength import RunLengthRule, RunLengthScores, run_length_scores
from emloom.metrics.runlengtherrors import run_lengths
from emloom.ops.labels import apply_lut
from emloom.tasks.nodelookup import node_segments
from emloom.testing.phantom import Phantom, PhantomSpec

GRID = Grid((32.0, 11.24, 11.24), (-64.0, 1000.3, 7.1))


@dataclass
class Chunked:
    """A volume in memory that has chunks, and remembers what was read."""

    array: Array
    chunks: Vec
    boxes: list[Box] = field(default_factory=list)

    @property
    def info(self) -> VolumeInfo:
        return ArrayVolume(self.array, GRID, "labels").info.with_(chunks=self.chunks)

    def read(self, box: Box) -> Array:
        self.boxes.append(box)
        return ArrayVolume(self.array, GRID).read(box)

    def write(self, box: Box, array: Array) -> None:
        raise NotImplementedError


def nodes_in(voxels: np.ndarray[Any, Any], rng: np.random.Generator) -> Skeletons:
    """Return a node somewhere in each voxel, or on its corner."""
    inside = voxels + rng.random(voxels.shape) * 0.999 * (rng.random((len(voxels), 1)) < 0.7)
    positions = np.array([GRID.to_world(v) for v in inside.tolist()]).reshape(-1, 3)
    return Skeletons.from_trees([(1, positions, [])])


@given(st.integers(0, 10**6), st.sampled_from([np.uint8, np.uint32, np.uint64]))
@settings(deadline=None, max_examples=40)
def test_chunk_by_chunk_is_all_at_once(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 20, 3).tolist())
    chunks = tuple(rng.integers(1, 9, 3).tolist())
    labels = rng.integers(0, 200, shape).astype(dtype)
    voxels = rng.integers(0, shape, (int(rng.integers(0, 60)), 3))
    skeletons = nodes_in(voxels, rng)
    expected = labels[tuple(voxels.T)]
    volume = Chunked(labels, chunks)
    found = node_segments(volume, skeletons)
    np.testing.assert_array_equal(found.segments, expected)
    assert found.segments.dtype == np.uint64
    np.testing.assert_array_equal(node_segments(ArrayVolume(labels, GRID), skeletons).segments, expected)
    # Each chunk that holds a node is read once, and no read leaves its chunk.
    lattice = Counter(tuple(a // c for a, c in zip(box.start, chunks, strict=True)) for box in volume.boxes)
    assert lattice == Counter({tuple(v) for v in (voxels // np.array(chunks)).tolist()})
    for box in volume.boxes:
        assert Box.of(box.start, [b - 1 for b in box.stop]).coarsen(1).start == box.start
        assert all(a // c == (b - 1) // c for a, b, c in zip(box.start, box.stop, chunks, strict=True))


def test_nodes_outside_are_an_error_or_omitted() -> None:
    labels = ArrayVolume(np.full((4, 5, 6), 9, np.uint32), GRID, "labels", source="seg")
    corners = [GRID.to_world(v) for v in [(0, 0, 0), (0, 0, 5.9), (0, 0, 6), (0, 4.9, -0.1), (3, 4, 5)]]
    skeletons = Skeletons.from_trees([(77, np.array(corners), [(0, 1), (1, 2), (2, 3)])])
    with pytest.raises(
        InputError, match=r"node 3 of skeleton 77 at \[.*\] nm .* is voxel \[0, 0, 6\] of seg"
    ) as caught:
        node_segments(labels, skeletons)
    assert "2 of 5 nodes lie outside" in str(caught.value)
    found = node_segments(labels, skeletons, outside="omit")
    assert found.segments.tolist() == [9, 9, 0, 0, 9]
    assert (found.outside.tolist(), found.n_outside) == ([False, False, True, True, False], 2)
    scores = run_length_scores(skeletons, found.segments)
    assert (scores.edges, scores.n_omitted_nodes) == ((1, 0, 0, 2), 2)
    inside = skeletons.restricted(~found.outside)
    assert run_length_scores(inside, node_segments(labels, inside).segments).nerl == 1
    with pytest.raises(InputError, match="outside='skip' is unknown"):
        node_segments(labels, skeletons, outside="skip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels are unsigned"):
        node_segments(ArrayVolume(np.zeros((4, 5, 6), np.float32), GRID), skeletons)


def test_a_phantom_scored_against_itself_and_its_errors(tmp_path: Path) -> None:
    phantom = Phantom(PhantomSpec(shape=(48, 96, 96), seed=3))
    skeletons = Skeletons.from_trees(phantom.skeletons(), source="phantom")
    labels = phantom.labels.read(phantom.labels.info.box)
    stored = create_volume(tmp_path / "labels.zarr", phantom.labels.info.with_(chunks=(16, 32, 32)))
    stored.write(stored.info.box, labels)
    lookup = node_segments(open_volume(tmp_path / "labels.zarr", kind="labels"), skeletons)
    np.testing.assert_array_equal(lookup.segments, node_segments(phantom.labels, skeletons).segments)
    # Skeletons run inside their neurites, so the truth is perfect.
    np.testing.assert_array_equal(lookup.segments, skeletons.ids[skeletons.skeletons])
    perfect = run_length_scores(skeletons, lookup.segments)
    assert perfect.nerl == 1
    assert perfect.n_skeletons > 2
    # Gluing the two longest neurites together zeroes just these.
    order = np.argsort(skeletons.lengths_nm)[::-1]
    a, b = skeletons.ids[order[:2]].tolist()
    glued = ArrayVolume(
        apply_lut(labels, np.array([b], np.uint64), np.array([a], np.uint64)), phantom.labels.info.grid, "labels"
    )
    result = run_lengths(skeletons, node_segments(glued, skeletons).segments)
    assert [(m.segment, set(m.skeletons)) for m in result.merges] == [(a, {a, b})]
    assert {row.skeleton for row in result.worst_skeletons()} == {a, b}
    lost = sum(float(length) ** 2 for length in skeletons.lengths_nm[order[:2]])
    assert result.scores.erl_truth_nm - result.scores.erl_nm == pytest.approx(lost / result.scores.path_nm)
    # Fragments of half a neurite, at the middle section: as many splits as there are pieces too many.
    halves = labels * np.uint64(2) + (np.arange(48) >= 24).astype(np.uint64)[:, None, None]
    found = node_segments(ArrayVolume(halves, phantom.labels.info.grid, "labels"), skeletons).segments
    split = run_length_scores(skeletons, found)
    assert split.n_splits == len(np.unique(found)) - split.n_skeletons > 0
    assert (split.edges[2:], split.n_merges) == ((0, 0), 0)
    assert split.edges[1] >= split.n_splits


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics-skeletons.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    names: dict[str, Any] = {}
    exec(compile(code, "metrics-skeletons.md", "exec"), names)
    assert capsys.readouterr().out == "1.0 [] []\n"
    assert names["points"][0].scores.n_merges == 1
    # Every score, and every option, stands on the page.
    for name in [*RunLengthRule.model_fields, *(f.name for f in fields(RunLengthScores))]:
        assert name in page or name in ("n_nodes", "n_skeletons", "path_nm", "reason"), name
