"""A viewer answers on the loopback address with the right layers, places and voxels."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.volume import ArrayVolume
from emloom.view.neuroglancer import Viewer, serve
from emloom.view.spot import Spot, address
from tests.browser import chromium_or_skip, shown

GRID = Grid((40.0, 4.0, 4.5), (80.0, 10.0, 9.0))
RAW = np.random.default_rng(0).integers(0, 256, (6, 7, 8)).astype(np.uint8)
IDS = np.random.default_rng(1).integers(0, 2**60, (6, 7, 8)).astype(np.uint64)
AFFINITIES = np.random.default_rng(2).integers(0, 256, (2, 6, 7, 8)).astype(np.uint8)
OFFSETS = ((-1, 0, 0), (0, -1, 0))


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    layers = [
        ("raw", ArrayVolume(RAW, GRID, "raw")),
        ("neurons", ArrayVolume(IDS, GRID, "labels")),
        ("affinities", ArrayVolume(AFFINITIES, GRID, "affinities", OFFSETS)),
        ("mask", ArrayVolume(RAW > 99, GRID, "mask")),
    ]
    with serve(layers) as running:
        yield running


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        data: bytes = answer.read()
        return data


def source(viewer: Viewer, name: str) -> Any:
    """Return the data source of a layer as the page sees it: {url, transform}."""
    layers = {layer["name"]: layer for layer in viewer.viewer.state.to_json()["layers"]}
    (only,) = layers[name]["source"]
    return only


def voxels(viewer: Viewer, name: str, start: tuple[int, ...], stop: tuple[int, ...]) -> Any:
    token = source(viewer, name)["url"].split("/")[-1]
    host = viewer.url.split("/v/")[0]
    span = "/".join(",".join(map(str, corner)) for corner in (start, stop))
    factor = ",".join("1" for _ in start)
    # The package's "npz" is one npy file, deflated.
    return np.load(io.BytesIO(zlib.decompress(fetch(f"{host}/neuroglancer/npz/{token}/{factor}/{span}"))))


def test_the_page_is_served_to_this_machine_only(viewer: Viewer) -> None:
    address = urlsplit(viewer.url)
    assert address.hostname == "127.0.0.1"
    token = address.path.strip("/").removeprefix("v/")
    assert len(token) >= 32
    assert b"<html" in fetch(viewer.url).lower()
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        fetch(viewer.url.replace(token, "0" * len(token)))
    refused.value.close()


def test_layers_and_dimensions(viewer: Viewer) -> None:
    state = viewer.viewer.state.to_json()
    assert {layer["name"]: layer["type"] for layer in state["layers"]} == {
        "raw": "image",
        "neurons": "segmentation",
        "affinities": "image",
        "mask": "image",
    }
    assert {name: tuple(scale) for name, scale in state["dimensions"].items()} == {
        "z": (pytest.approx(40e-9), "m"),
        "y": (pytest.approx(4e-9), "m"),
        "x": (pytest.approx(4.5e-9), "m"),
    }
    assert list(state["dimensions"]) == ["z", "y", "x"]
    assert state["displayDimensions"] == ["x", "y", "z"]
    assert state["position"] == [2 + 3, 2.5 + 3.5, 2 + 4]
    shader = next(layer["shader"] for layer in state["layers"] if layer["name"] == "affinities")
    assert "getDataValue(1)" in shader
    assert "getDataValue(2)" not in shader


def test_offsets_that_are_no_whole_voxel_stay_exact(viewer: Viewer) -> None:
    for name in ("raw", "neurons", "affinities"):
        matrix = np.array(source(viewer, name)["transform"]["matrix"], float)
        np.testing.assert_allclose(matrix[-3:, -1], [2, 2.5, 2])


def test_voxels_arrive_unchanged(viewer: Viewer) -> None:
    start, stop = (1, 2, 3), (5, 6, 8)
    where = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    np.testing.assert_array_equal(voxels(viewer, "raw", start, stop), RAW[where])
    np.testing.assert_array_equal(voxels(viewer, "neurons", start, stop), IDS[where])
    np.testing.assert_array_equal(voxels(viewer, "mask", start, stop), (RAW > 99)[where])
    both = voxels(viewer, "affinities", (0, *start), (2, *stop))
    np.testing.assert_array_equal(both, AFFINITIES[(slice(None), *where)])


def test_the_page_draws_the_voxels_where_they_are(tmp_path: Path) -> None:
    program = chromium_or_skip()
    ids = RAW.astype(np.uint64) % np.uint64(5)
    layers = [("raw", ArrayVolume(RAW, GRID, "raw")), ("neurons", ArrayVolume(ids, GRID, "labels"))]
    edges = (8, 9)  # pixels per voxel along y and x: 4 and 4.5 nm
    with serve(layers) as viewer, shown(program, viewer.viewer, tmp_path / "profile") as page:
        place = {"z": 2 + 3.5, "y": 2.5 + 3.5, "x": 2 + 4}
        size = (7 * edges[0], 8 * edges[1])
        with viewer.viewer.txn() as state:
            state.layers["neurons"].visible = False
        raw = page.draw("xy", place, size, 8)
        with viewer.viewer.txn() as state:
            state.layers["raw"].visible, state.layers["neurons"].visible = False, True
        neurons = page.draw("xy", place, size, 8)
    np.testing.assert_array_equal(raw, enlarged(RAW[3], edges)[..., None].repeat(3, -1))
    shown_ids = enlarged(ids[3], edges)
    colours = {i: np.unique(neurons[shown_ids == i], axis=0) for i in range(5)}
    assert all(len(of_id) == 1 for of_id in colours.values())  # an object has one colour ...
    assert len({tuple(of_id[0]) for of_id in colours.values()}) == 5  # ... of its own


def enlarged(section: np.ndarray, edges: tuple[int, int]) -> np.ndarray:
    return section.repeat(edges[0], 0).repeat(edges[1], 1)


def test_closing_stops_the_server() -> None:
    with serve([("raw", ArrayVolume(RAW, GRID))]) as viewer:
        assert fetch(viewer.url)
        with pytest.raises(InputError, match="already shows a viewer"):
            serve([("raw", ArrayVolume(RAW, GRID))])
    with pytest.raises(urllib.error.URLError):
        fetch(viewer.url)


def test_wrong_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing to show"):
        serve([])
    with pytest.raises(InputError, match="a name of its own"):
        serve([("a", ArrayVolume(RAW, GRID)), ("a", ArrayVolume(RAW, GRID))])

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("emloom.view.neuroglancer.import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'emloom\[view\]'"):
        serve([("a", ArrayVolume(RAW, GRID))])


def link(viewer: Viewer, spot: Spot) -> str:
    return address(urlsplit(viewer.url).port or 0, viewer.viewer.token, spot)


def selected(viewer: Viewer, name: str = "neurons") -> set[int]:
    return set(viewer.viewer.state.layers[name].layer.segments)


def test_a_link_moves_the_viewer_and_selects_ids(viewer: Viewer) -> None:
    one, two = int(IDS[0, 0, 0]), 2**64 - 1
    assert b"<html" in fetch(link(viewer, Spot((5, 0, 7), (("neurons", (one, two)),)))).lower()
    assert list(viewer.viewer.state.position) == [2 + 5.5, 2.5 + 0.5, 2 + 7.5]
    assert selected(viewer) == {one, two}
    with viewer.viewer.txn() as state:
        state.layout = "xy"
    fetch(link(viewer, Spot((0, 1, 2))))
    assert list(viewer.viewer.state.position) == [2.5, 2.5 + 1.5, 2 + 2.5]
    assert selected(viewer) == set()
    assert viewer.viewer.state.layout.type == "xy"  # as somebody left it
    fetch(link(viewer, Spot(None, (("", (one,)),))))
    assert selected(viewer) == {one}
    assert list(viewer.viewer.state.position) == [2.5, 2.5 + 1.5, 2 + 2.5]


@pytest.mark.parametrize(
    ("spot", "problem"),
    [
        (Spot((6, 0, 0)), "outside of the first volume"),
        (Spot((0, -1, 0)), "outside of the first volume"),
        (Spot(None, (("raw", (1,)),)), "labels are neurons"),
        (Spot(None, (("<b>", (1,)),)), "no layer of labels is called '<b>'"),
    ],
)
def test_a_link_to_nowhere_says_so_and_moves_nothing(viewer: Viewer, spot: Spot, problem: str) -> None:
    before = viewer.viewer.state.to_json()
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        fetch(link(viewer, spot))
    with refused.value as answer:
        assert problem in answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/plain")
    assert viewer.viewer.state.to_json() == before
    with pytest.raises(InputError, match=problem):
        serve(viewer.volumes, spot=spot)


@pytest.mark.fault(
    "pages",
    "links of the viewer are opened with another token or host",
    "404; the view does not move",
)
def test_links_need_the_token_and_the_name_of_this_machine(viewer: Viewer) -> None:
    before, good = viewer.viewer.state.to_json(), link(viewer, Spot((0, 0, 0)))
    other = urllib.request.Request(good, headers={"Host": "elsewhere.example"})
    for asked in (good.replace(viewer.viewer.token, "0" * 32), other):
        with pytest.raises(urllib.error.HTTPError, match="404") as refused, urllib.request.urlopen(asked):
            pass
        refused.value.close()
    assert viewer.viewer.state.to_json() == before


def test_an_address_stays_with_port_and_token() -> None:
    token, urls = "0123456789abcdef", []
    port = 0
    for at in ((1, 2, 3), (4, 5, 6)):
        with serve([("ids", ArrayVolume(IDS, GRID, "labels"))], port=port, token=token, spot=Spot(at)) as viewer:
            urls.append(viewer.url)
            port = urlsplit(viewer.url).port or 0
            assert next(iter(viewer.viewer.state.position)) == 2 + at[0] + 0.5
    assert urls == [f"http://127.0.0.1:{port}/v/{token}/"] * 2
