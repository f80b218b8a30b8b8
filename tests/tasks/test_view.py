"""`emloom view` of whole results: named layers, a first look at something, meshes, nothing for strangers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.exportneurons import export_neurons
from emloom.tasks.exportneuronsspec import ExportNeuronsJob
from emloom.tasks.view import composed, gather, said
from emloom.tasks.viewfolder import holding_of
from emloom.tasks.viewscene import contrast, first_look, look_of
from emloom.view.neuroglancer import Viewer, serve
from emloom.view.spot import START, Spot
from tests.browser import chromium_or_skip
from tests.driving import driven
from tests.tasks.exported import tissue

pytest.importorskip("bioimage_cpp", reason="the extra emloom[meshes] is not installed")
pytest.importorskip("neuroglancer", reason="the extra emloom[view] is not installed")


def write(path: Path, array: np.ndarray, kind: str, edge_nm: float) -> None:
    grid = Grid((edge_nm,) * 3)
    channels = array.shape[0] if array.ndim == 4 else None
    info = VolumeInfo(array.shape[-3:], array.dtype, grid, channels, kind=kind)  # type: ignore[arg-type]
    create_volume(path, info).write(info.box, array)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a pipeline leaves it."""
    top = tmp_path_factory.mktemp("top")
    data = tissue(top / "data")
    out = top / "OUT"
    (out / "qc").mkdir(parents=True)
    (data / "labels.zarr").rename(out / "segmentation.zarr")
    (out / "job.yaml").write_text(f"kind: pipeline\nname: t\nraw: {data / 'raw.zarr'}\n")
    write(out / "qc/map.zarr/code", np.full((6, 10, 11), 4, np.uint8), "labels", 64.0)
    (out / "qc/qc.json").write_text("{}")
    (out / "confidence").mkdir()
    write(out / "confidence/doubt.zarr", np.full((12, 20, 22), 200, np.uint8), "probabilities", 32.0)
    segmentation = str(out / "segmentation.zarr")
    connectome(ConnectomeJob(segmentation=segmentation, synapses=str(data), output=str(out / "connectome")))
    export_neurons(ExportNeuronsJob(segmentation=segmentation, output=str(out / "neurons3d")))
    return out


@pytest.fixture(scope="module")
def viewer(result: Path) -> Iterator[Viewer]:
    found = gather([str(result)])
    scene, spot = composed(found, START, None)
    with serve(found.volumes, scene=scene, spot=spot) as running:
        yield running


def test_a_folder_says_what_it_holds(result: Path, tmp_path: Path) -> None:
    holding = holding_of(result)
    assert [(part.name, part.role) for part in holding.parts] == [
        ("raw", "raw"),
        ("segmentation", "labels"),
        ("qc", "defects"),
        ("confidence doubt", "confidence"),
    ]
    assert holding.parts[0].path == str(result.parent / "data/raw.zarr")
    assert holding.synapses == result / "connectome"
    assert holding.neurons == result / "neurons3d"
    assert not holding_of(tmp_path)
    assert not holding_of(result / "segmentation.zarr")  # a volume, not a folder of results
    assert not holding_of("s3://bucket/out")
    # A part of a result is one, too.
    assert [part.name for part in holding_of(result / "connectome").parts] == ["segmentation"]
    assert holding_of(result / "connectome").synapses == result / "connectome"
    assert [part.name for part in holding_of(result / "qc").parts] == ["qc"]


def test_a_moved_record_and_a_damaged_one_are_no_error(result: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("raw: gone.zarr\n")
    assert holding_of(tmp_path).parts == ()
    (tmp_path / "provenance.json").write_text("{broken")
    assert holding_of(tmp_path).parts == ()
    (tmp_path / "provenance.json").write_text(json.dumps({"spec": {"raw": str(result.parent / "data/raw.zarr")}}))
    assert [part.name for part in holding_of(tmp_path).parts] == ["raw"]


def test_layers_have_names_looks_and_a_place(result: Path, viewer: Viewer) -> None:
    state = viewer.viewer.state.to_json()
    layers = {layer["name"]: layer for layer in state["layers"]}
    assert list(layers) == ["raw", "segmentation", "qc", "confidence doubt", "synapses"]
    assert "invlerp grey(range=[" in layers["raw"]["shader"]
    assert "invlerp value" in layers["confidence doubt"]["shader"]
    assert len(set(layers["qc"]["segmentColors"].values())) == 16
    assert len(layers["segmentation"]["segments"]) == 5
    assert [each.rsplit("/", 1)[-1] for each in files(viewer)] == ["mesh", "skeletons", "segment_properties"]
    # The synapse of the highest score lies in the middle of the page.
    table = composed(gather([str(result)]), START, None)[0].lines[0]
    middles = (table.start_nm + table.end_nm) / 2
    away = np.abs(middles - np.array(state["position"]) * 8).max(axis=1)
    assert away.min() <= 8
    # 88 voxels fill a panel of a few hundred pixels.
    assert 0.1 < state["crossSectionScale"] < 0.5


def files(viewer: Viewer) -> list[str]:
    """Return the addresses of meshes, skeletons and properties of the segmentation."""
    layer = next(each for each in viewer.viewer.state.to_json()["layers"] if each["name"] == "segmentation")
    listed = [each if isinstance(each, str) else str(each["url"]) for each in layer["source"]]
    return [each.removeprefix("precomputed://") for each in listed if each.startswith("precomputed://")]


def test_files_are_handed_out_to_the_page_alone(result: Path, viewer: Viewer) -> None:
    address = files(viewer)[0]
    name = next((result / "neurons3d/mesh").glob("*.mesh")).name
    with urllib.request.urlopen(f"{address}/{name}", timeout=20) as answer:
        assert answer.read() == (result / "neurons3d/mesh" / name).read_bytes()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    token = viewer.viewer.token
    stranger = {"Host": "elsewhere.example"}
    refused = [
        urllib.request.Request(f"{address}/{name}".replace(token, "0" * len(token))),
        urllib.request.Request(f"{address}/{name}", headers=stranger),
        urllib.request.Request(viewer.url, headers=stranger),
        urllib.request.Request(viewer.url.replace(token, "0" * len(token))),
        urllib.request.Request(f"{address}/../../OUT/job.yaml"),
        urllib.request.Request(f"{address}/..%2f..%2fjob.yaml"),
        urllib.request.Request(f"{address}/none"),
    ]
    for asked in refused:
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]") as problem, urllib.request.urlopen(asked):
            pass
        problem.value.close()


def test_a_browser_shows_layers_and_meshes_without_complaint(result: Path, viewer: Viewer, tmp_path: Path) -> None:
    program = chromium_or_skip()
    with driven(program, tmp_path / "profile") as page:
        page.call("Page.navigate", url=viewer.url)
        page.wait("document.querySelectorAll('.neuroglancer-layer-item').length >= 5")
        meshes = [p.name for p in (result / "neurons3d/mesh").glob("*.mesh")]
        page.wait("performance.getEntriesByType('resource').length > 5")
        # A worker fetches meshes: what it asked for is in the state of the server, what it drew in the picture.
        names = page.value(
            "[...document.querySelectorAll('.neuroglancer-layer-item-label')].map(e => e.textContent)"
        )
        assert names == ["raw", "segmentation", "qc", "confidence doubt", "synapses"]
        picture = settled(page)
        complaints = [text for text in page.complaints if "GPU stall" not in text and "GL Driver" not in text]
        assert complaints == []
        hosts = {url.split("/")[2] for url in page.requests if url.startswith("http")}
        assert hosts == {viewer.url.split("/")[2]}  # nothing from elsewhere: it works offline
    assert len(meshes) == 5
    height, width = picture.shape[:2]
    # Panels: xy, xz, 3d, yz; sections are neither black nor of one colour, and in space there are colours.
    for rows in (slice(height // 8, height // 2), slice(height // 2, height)):
        for columns in (slice(0, width // 2), slice(width // 2, width)):
            panel = picture[rows, columns].astype(int)
            assert panel.std() > 15
            assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 50
    space = picture[height // 2 :, : width // 2].astype(int)
    assert ((space.max(axis=2) - space.min(axis=2)) > 80).mean() > 0.1  # coloured surfaces fill a part of it


def settled(page: object) -> np.ndarray:
    """Return the picture once it no longer changes."""
    before = page.picture()  # type: ignore[attr-defined]
    for _ in range(60):
        page.value("new Promise(done => setTimeout(done, 500))")  # type: ignore[attr-defined]
        now = page.picture()  # type: ignore[attr-defined]
        if now.shape == before.shape and np.array_equal(now, before) and now.std() > 15:
            return np.asarray(now)
        before = now
    return np.asarray(before)


def test_a_person_is_told_what_is_shown(result: Path) -> None:
    found = gather([str(result)])
    scene, _ = composed(found, START, None)
    lines = list(said(found, scene))
    assert lines[0] == f"  raw: {result.parent / 'data/raw.zarr'}"
    assert any("lines from pre to post" in line for line in lines)
    assert any("neurons3d, of the segments that are selected" in line for line in lines)
    alone = gather([f"x={result / 'segmentation.zarr'}"])
    assert any("emloom export-neurons" in line for line in said(alone, composed(alone, START, None)[0]))
    # Names that are given come first, and a raw that was named is not shown twice.
    both = gather([f"mine={result.parent / 'data/raw.zarr'}", f"one={result}"])
    assert [name for name, _ in both.volumes] == ["mine", "one segmentation", "one qc", "one confidence doubt"]
    neurons = gather(
        [f"raw={result.parent / 'data/raw.zarr'}", f"n={result / 'segmentation.zarr'}", str(result / "neurons3d")]
    )
    assert [name for name, _ in neurons.volumes] == ["raw", "n"]
    assert list(composed(neurons, START, None)[0].neurons) == ["n"]
    with pytest.raises(InputError, match="two layers are called"):
        gather([f"qc={result.parent / 'data/raw.zarr'}", str(result)])
    scene, spot = composed(both, Spot((1, 2, 3)), None)
    assert spot.at == (1, 2, 3)


def test_every_head_of_a_prediction_is_a_layer(tmp_path: Path) -> None:
    (tmp_path / "synapses.parquet").touch()
    for name in ("pre", "post"):
        write(tmp_path / "prediction.zarr" / name, np.full((4, 5, 6), 99, np.uint8), "probabilities", 8.0)
    assert [name for name, _ in gather([str(tmp_path)]).volumes] == ["prediction post", "prediction pre"]


def test_the_first_look_avoids_what_is_blank() -> None:
    array = np.zeros((20, 200, 200), np.uint8)
    array[:, 140:, 140:] = np.random.default_rng(0).integers(50, 200, (20, 60, 60))
    volume = ArrayVolume(array, Grid((8.0, 8.0, 8.0)), "raw")
    z, y, x = first_look([("raw", volume)], None, None)
    assert array[z, y - 10 : y + 10, x - 10 : x + 10].any()
    blank = ArrayVolume(np.zeros((3, 4, 5), np.uint8), volume.info.grid)
    assert first_look([("raw", blank)], None, None) == (1, 2, 2)
    low, high = contrast(volume, (z, y, x))
    # Blank voxels take no contrast from the others.
    assert 45 < low < 60
    assert 190 < high < 205
    assert contrast(blank, None) == (0, 255)
    mask = ArrayVolume(array > 0, volume.info.grid, "mask")
    assert "emitRGBA" in (look_of(mask, None, None).shader or "")
    affinities = ArrayVolume(array[None].repeat(3, 0), volume.info.grid, "affinities", ((-1, 0, 0),) * 3)
    assert look_of(affinities, "prediction", None).visible is False
    assert look_of(affinities, None, None).opacity == pytest.approx(0.45)
