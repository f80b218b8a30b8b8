"""Lines for neuroglancer: byte for byte what its own package writes, and states that it reads."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotationlayers import read_annotation_lines, state_of, write_annotation_layer, write_state
from tests.browser import chromium_or_skip, shown
from tests.tasks.drawnsynapses import GRID, between, drawn

neuroglancer = pytest.importorskip("neuroglancer")
SIZE = GRID.voxel_size_nm


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_neuroglancer(folder: Path, table: SynapseTable) -> None:
    """Write the same lines with the package's own writer."""
    from neuroglancer.write_annotations import AnnotationWriter

    writer = AnnotationWriter(
        neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="m", scales=[s * 1e-9 for s in SIZE[::-1]]),
        "line",
        relationships=["pre_segment", "post_segment"],
        properties=[
            neuroglancer.AnnotationPropertySpec(id="score", type="float32"),
            # The package aligns uint32 to 3 bytes; the format says 4, which it does for int32: the same bytes.
            neuroglancer.AnnotationPropertySpec(id="size_vox", type="int32"),
        ],
    )
    ends = [(points / np.array(SIZE))[:, ::-1] for points in (table.pre_nm, table.post_nm)]
    for row, number in enumerate(table.ids.tolist()):
        segments = (int(table.pre_segments[row]), int(table.post_segments[row]))
        writer.add_line(
            ends[0][row],
            ends[1][row],
            id=number,
            score=float(table.scores[row]),
            size_vox=int(table.sizes_vox[row]),
            pre_segment=[segments[0]] if segments[0] else [],
            post_segment=[segments[1]] if segments[1] else [],
        )
    writer.write(folder)


def test_the_bytes_are_those_of_neuroglancers_writer(tmp_path: Path) -> None:
    table = drawn(5)
    write_annotation_layer(tmp_path / "ours", table, SIZE)
    by_neuroglancer(tmp_path / "theirs", table)
    ours, theirs = contents(tmp_path / "ours"), contents(tmp_path / "theirs")
    info, other = (json.loads(files.pop("info")) for files in (ours, theirs))
    assert ours == theirs
    for key in ("@type", "dimensions", "annotation_type", "relationships", "by_id"):
        assert info[key] == other[key], key
    assert [p["id"] for p in info["properties"]] == [p["id"] for p in other["properties"]]
    # Their writer takes only first points for the lower bound and second ones for the upper.
    ends = read_annotation_lines(tmp_path / "ours")[1]["points"].reshape(-1, 3)
    assert info["lower_bound"] == ends.min(axis=0).tolist()
    assert info["upper_bound"] == ends.max(axis=0).tolist()


def test_lines_come_back(tmp_path: Path) -> None:
    table = drawn(6)
    write_annotation_layer(tmp_path / "a", table)
    ids, lines = read_annotation_lines(tmp_path / "a")
    assert np.array_equal(ids, table.ids)
    np.testing.assert_allclose(lines["points"][:, 0, ::-1], table.pre_nm, rtol=1e-6)
    np.testing.assert_allclose(lines["points"][:, 1, ::-1], table.post_nm, rtol=1e-6)
    assert np.array_equal(lines["score"], table.scores)


def test_no_contact_is_a_layer_without_lines(tmp_path: Path) -> None:
    write_annotation_layer(tmp_path / "a", SynapseTable.empty(), SIZE)
    assert len(read_annotation_lines(tmp_path / "a")[0]) == 0
    assert json.loads((tmp_path / "a" / "info").read_text())["spatial"][0]["limit"] >= 1
    assert state_of(SynapseTable.empty(), SIZE)["layers"][0]["annotations"] == []


def test_neuroglancer_reads_the_state(tmp_path: Path) -> None:
    table = drawn(7)
    write_state(tmp_path / "s.json", table, SIZE, "precomputed://https://example.org/seg")
    state = neuroglancer.ViewerState(json.loads((tmp_path / "s.json").read_text()))
    assert [layer.name for layer in state.layers] == ["segmentation", "synapses"]
    layer = state.layers["synapses"].layer
    assert len(layer.annotations) == len(table)
    for row, line in enumerate(layer.annotations):
        assert line.type == "line"
        np.testing.assert_allclose(line.point_a[::-1] * np.array(SIZE), table.pre_nm[row])
        np.testing.assert_allclose(line.point_b[::-1] * np.array(SIZE), table.post_nm[row])
        pair = (int(table.pre_segments[row]), int(table.post_segments[row]))
        assert [list(segments) for segments in line.segments] == [[i] if i else [] for i in pair]
    linked = layer.linked_segmentation_layer.to_json()
    assert linked == {"pre_segment": "segmentation", "post_segment": "segmentation"}
    assert state.dimensions.names == ("x", "y", "z")
    assert np.allclose(state.dimensions.scales, [4e-9, 4e-9, 40e-9])


def test_a_state_without_labels_has_one_layer() -> None:
    state = neuroglancer.ViewerState(state_of(drawn(8), (1.0, 1.0, 1.0)))
    assert [layer.name for layer in state.layers] == ["synapses"]


def test_a_layer_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_annotation_layer(tmp_path / "a", drawn(1), SIZE)
    with pytest.raises(InputError, match="exists"):
        write_annotation_layer(tmp_path / "a", drawn(1), SIZE)


class _Open(http.server.SimpleHTTPRequestHandler):
    """Files for pages of other addresses, without a word."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def offered(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Open, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_neuroglancer_draws_the_lines(tmp_path: Path) -> None:
    """Its own page: as precomputed annotations, and as a state with the lines in it."""
    program = chromium_or_skip()
    ends = np.array([[[10, 20, 20], [10, 20, 80]], [[10, 50, 30], [10, 90, 30]]]) + 0.5
    table = between([(7, 1), (8, 2)])
    points = ends * np.array(SIZE)
    table = replace(table, pre_nm=points[:, 0], post_nm=points[:, 1])
    write_annotation_layer(tmp_path / "a", table, SIZE)
    neuroglancer.set_server_bind_address("127.0.0.1")
    with offered(tmp_path) as address:
        for name in ("precomputed", "local"):
            viewer = neuroglancer.Viewer()
            if name == "local":
                viewer.set_state(state_of(table, SIZE))
            else:
                with viewer.txn() as state:
                    space = neuroglancer.CoordinateSpace(
                        names=["x", "y", "z"], units="m", scales=[s * 1e-9 for s in SIZE[::-1]]
                    )
                    state.dimensions = space
                    state.layers["synapses"] = neuroglancer.AnnotationLayer(source=f"precomputed://{address}/a")
            with shown(program, viewer, tmp_path / name) as page:
                picture = page.draw("xy", {"x": 55, "y": 55, "z": 10.5}, (440, 440), 4.0)
            lit = picture.max(axis=2) > 60
            # Voxel v is drawn at 4 (v - 55) + 220: lines at y = 20.5 from x = 20.5 to 80.5, and at x = 30.5.
            assert lit[80:85, 90:315].any(axis=0).all()  # a dark rim is around its ends
            assert lit[210:355, 120:125].any(axis=1).all()
            lit[74:91, 74:331] = lit[194:371, 114:131] = False
            assert not lit.any()
