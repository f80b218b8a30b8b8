"""A result in one folder for other programs, which read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.annotationlayers import read_annotation_lines
from emloom.io.open import open_volume
from emloom.io.synapsetable import read_synapse_table
from emloom.io.tables import read_table
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.publish import Published, PublishJob, publish
from tests.tasks.exported import judged, tissue

pytest.importorskip("bioimage_cpp", reason="the extra emloom[meshes] is not installed")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a pipeline leaves it: a raw elsewhere, a segmentation, a connectome."""
    top = tmp_path_factory.mktemp("top")
    data = tissue(top / "data")
    out = top / "OUT"
    out.mkdir()
    (data / "labels.zarr").rename(out / "segmentation.zarr")
    (out / "job.yaml").write_text(f"kind: pipeline\nname: t\nraw: {data / 'raw.zarr'}\n")
    connectome(
        ConnectomeJob(
            segmentation=str(out / "segmentation.zarr"), synapses=str(data), output=str(out / "connectome")
        )
    )
    return out


@pytest.fixture(scope="module")
def published(result: Path) -> Published:
    job = PublishJob(source=str(result), output=str(result.parent / "public"), address="https://example.org/p/")
    return publish(job)


def test_a_result_is_published_whole(result: Path, published: Published) -> None:
    folder = published.folder
    assert {p.name for p in folder.iterdir()} == {
        "raw.precomputed", "segmentation.precomputed", "synapses", "swc", "neurons.parquet", "connectome.graphml",
        "neuprint", "cremi.h5", "neuroglancer.json", "provenance.json",
    }  # fmt: skip
    assert published.missing == ()
    for name, source in (("raw", "data/raw.zarr"), ("segmentation", "OUT/segmentation.zarr")):
        ours, theirs = open_volume(folder / f"{name}.precomputed"), open_volume(result.parent / source)
        np.testing.assert_array_equal(ours.read(ours.info.box), theirs.read(theirs.info.box))
    info = json.loads((folder / "segmentation.precomputed/info").read_text())
    assert {info[part] for part in ("mesh", "skeletons", "segment_properties")} == {
        "mesh",
        "skeletons",
        "segment_properties",
    }
    ids, lines = read_annotation_lines(folder / "synapses")
    table = read_synapse_table(result / "connectome")
    assert sorted(ids.tolist()) == sorted(table.ids.tolist())
    np.testing.assert_allclose(lines["points"][0, 0], table.pre_nm[0][::-1] / 8, rtol=1e-6)
    state = json.loads((folder / "neuroglancer.json").read_text())
    assert [layer["source"] for layer in state["layers"]] == [
        f"precomputed://https://example.org/p/{name}"
        for name in ("raw.precomputed", "segmentation.precomputed", "synapses")
    ]


def test_cloud_volume_reads_meshes_and_skeletons(published: Published) -> None:
    table = read_table(published.folder / "neurons.parquet")
    rows = np.argsort(-table["voxels"])[:2].tolist()
    said = judged(published.folder / "segmentation.precomputed", *(int(table["id"][row]) for row in rows))
    for row in rows:
        of = said[str(table["id"][row])]
        assert of["inside_nm3"] == pytest.approx(table["voxels"][row] * 512, rel=0.03)
        for corner, name in zip(of["low"], "xyz", strict=True):
            assert corner == pytest.approx(8 * table[f"{name}0"][row], abs=10)
        for corner, name in zip(of["high"], "xyz", strict=True):
            assert corner == pytest.approx(8 * table[f"{name}1"][row], abs=10)
        assert of["length_nm"] == pytest.approx(table["length_um"][row] * 1000, rel=1e-4)
        assert len(of["radii"]) == table["nodes"][row]


def test_a_dataset_for_webknossos_holds_both_layers(result: Path) -> None:
    job = PublishJob(source=str(result), output=str(result.parent / "wk"), to="webknossos")
    report = publish(job)
    assert list(report.parts) == ["dataset.wkw/color", "dataset.wkw/segmentation"]
    raw = open_volume(report.folder / "dataset.wkw/color")
    labels = open_volume(report.folder / "dataset.wkw/segmentation")
    assert (raw.info.kind, labels.info.kind) == ("raw", "labels")
    theirs = open_volume(result / "segmentation.zarr")
    np.testing.assert_array_equal(labels.read(labels.info.box), theirs.read(theirs.info.box))
    said = json.loads((report.folder / "dataset.wkw/datasource-properties.json").read_text())
    assert [layer["category"] for layer in said["dataLayers"]] == ["color", "segmentation"]


def test_what_is_missing_is_said_and_nothing_is_replaced(result: Path, published: Published) -> None:
    job = PublishJob(raw=str(result.parent / "data/raw.zarr"), output=str(result.parent / "raw-only"))
    assert publish(job).missing == ("segmentation", "synapses")
    with pytest.raises(InputError, match="exists: choose another output"):
        publish(PublishJob(source=str(result), output=str(published.folder)))
    (result.parent / "empty").mkdir()
    with pytest.raises(InputError, match="holds no result to publish"):
        publish(PublishJob(source=str(result.parent / "empty"), output=str(result.parent / "no")))
    with pytest.raises(InputError, match="nothing to publish"):
        PublishJob.from_dict({"output": "x"}, "publish")
