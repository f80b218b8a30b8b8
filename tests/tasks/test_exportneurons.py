"""Neurons as meshes and skeletons: the same files for any blocks, and what other programs read in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.meshfiles import read_precomputed_mesh
from emloom.io.nml import read_nml_tracing
from emloom.io.open import create_volume, open_volume
from emloom.io.precomputedskeletons import read_precomputed_skeleton
from emloom.io.swc import read_swc_tracings
from emloom.io.synapsetable import read_synapse_table
from emloom.io.tables import read_table
from emloom.io.volume import VolumeInfo
from emloom.ops.meshes import Mesh
from emloom.spec import Spec
from emloom.tasks.exportneurons import ExportedNeurons, export_neurons, labels_path
from emloom.tasks.exportneuronsspec import CentreLineSpec, ExportNeuronsJob, MeshSpec
from emloom.tasks.neuronfiles import factors_for
from emloom.tasks.resume import result_status, retry
from tests.tasks.exported import SPEC, tissue

pytest.importorskip("bioimage_cpp", reason="the extra emloom[meshes] is not installed")
ALL = {
    "meshes": MeshSpec(formats=("precomputed", "ply", "obj")),
    "skeletons": CentreLineSpec(formats=("precomputed", "swc", "nml")),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tissue(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "neurons"
    job = ExportNeuronsJob(segmentation=str(data / "labels.zarr"), output=str(out), synapses=str(data), **ALL)
    report = export_neurons(job)
    assert isinstance(report, ExportedNeurons)
    assert report.neurons == report.segments > 4
    assert report.notes == ()
    return out


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and "run" not in p.relative_to(folder).parts]
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.name not in ("provenance.json", "neurons.parquet")
    }


def test_any_blocks_give_the_same_files(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    given = {"segmentation": str(data / "labels.zarr"), "output": str(out), "synapses": str(data), **ALL}
    export_neurons(ExportNeuronsJob(**given, block_vox=(20, 41, 50)))  # type: ignore[arg-type]
    assert digests(out) == digests(whole)
    assert len(digests(out)) > 20
    here, there = read_table(out / "neurons.parquet"), read_table(whole / "neurons.parquet")
    for name, column in there.columns.items():
        np.testing.assert_array_equal(here[name], column)


def test_the_files_say_what_the_labels_say(data: Path, whole: Path) -> None:
    labels = open_volume(data / "labels.zarr")
    array = np.asarray(labels.read(labels.info.box))
    table = read_table(whole / "neurons.parquet")
    ids, counts = np.unique(array, return_counts=True)
    np.testing.assert_array_equal(table["id"], ids)
    np.testing.assert_array_equal(table["voxels"], counts)
    for row, segment in enumerate(ids.tolist()):
        where = np.argwhere(array == segment)
        assert [table[f"{axis}0"][row] for axis in "zyx"] == where.min(axis=0).tolist()
        assert [table[f"{axis}1"][row] for axis in "zyx"] == (where.max(axis=0) + 1).tolist()
        mesh = Mesh(*read_precomputed_mesh(whole / "mesh", segment))
        assert mesh.is_closed
        assert len(mesh.faces) == table["triangles"][row]
        if counts[row] > 3000:
            assert mesh.volume_nm3 == pytest.approx(counts[row] * 512, rel=0.04)
        nodes, edges, _ = read_precomputed_skeleton(whole / "skeletons", segment)
        length = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1).sum()
        assert length / 1000 == pytest.approx(table["length_um"][row], rel=1e-5)
        # Every node lies in a voxel of the neuron.
        assert {segment} == set(array[tuple(np.floor(nodes / 8).astype(int).T)].tolist())


def test_swc_and_nml_carry_the_synapses(data: Path, whole: Path) -> None:
    synapses = read_synapse_table(data)
    said: dict[str, set[tuple[int, int]]] = {"pre": set(), "post": set()}
    for tracing in read_swc_tracings(whole / "swc", unit_nm=1.0):
        (segment,) = tracing.skeletons.ids.tolist()
        assert np.isfinite(tracing.radii_nm).all()
        for text in tracing.comment_texts():
            for part in text.split(";"):
                side, *ids = part.split()
                said[side] |= {(segment, int(i)) for i in ids}
    for side, segments in (("pre", synapses.pre_segments), ("post", synapses.post_segments)):
        assert said[side] == set(zip(segments.tolist(), synapses.ids.tolist(), strict=True))
    nml = read_nml_tracing(whole / "skeletons.nml")
    assert set(nml.skeletons.ids.tolist()) == set(read_table(whole / "neurons.parquet")["id"].tolist())
    assert nml.voxel_size_nm == (8, 8, 8)
    head = (whole / "swc" / f"{int(synapses.pre_segments[0])}.swc").read_text().splitlines()[0]
    assert head.startswith("#")
    assert "nm" in head


def test_ids_and_sizes_choose(data: Path, whole: Path, tmp_path: Path) -> None:
    table = read_table(whole / "neurons.parquet")
    largest = int(table["id"][int(np.argmax(table["voxels"]))])
    given = {"segmentation": str(data / "labels.zarr"), "skeletons": None}
    one = export_neurons(ExportNeuronsJob(**given, output=str(tmp_path / "one"), ids=(largest,)))  # type: ignore[arg-type]
    assert one.neurons == 1
    assert sorted(p.name for p in (tmp_path / "one/mesh").iterdir()) == sorted(
        [f"{largest}:0", f"{largest}.mesh", "info"]
    )
    assert (tmp_path / f"one/mesh/{largest}.mesh").read_bytes() == (whole / f"mesh/{largest}.mesh").read_bytes()
    most = int(np.median(table["voxels"]))
    some = export_neurons(
        ExportNeuronsJob(**given, output=str(tmp_path / "some"), min_size_vox=most)  # type: ignore[arg-type]
    )
    assert some.neurons == int((table["voxels"] >= most).sum())
    with pytest.raises(InputError, match="has no segment 999"):
        export_neurons(ExportNeuronsJob(**given, output=str(tmp_path / "none"), ids=(999,)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lower --min-size"):
        export_neurons(ExportNeuronsJob(**given, output=str(tmp_path / "none2"), min_size_vox=10**9))  # type: ignore[arg-type]


def test_coarser_meshes_and_skeletons_stay_in_place(data: Path, whole: Path, tmp_path: Path) -> None:
    job = ExportNeuronsJob(
        segmentation=str(data / "labels.zarr"),
        output=str(tmp_path / "coarse"),
        min_size_vox=5000,
        meshes=MeshSpec(factors=(2, 2, 2), smooth=0, keep=1),
        skeletons=CentreLineSpec(formats=("precomputed",), most_vox=1000),
        block_vox=(24, 40, 44),
    )
    report = export_neurons(job)
    assert report.coarser == report.neurons
    assert "made at coarser voxels" in report.to_text()
    fine = read_table(whole / "neurons.parquet")
    for segment in read_table(tmp_path / "coarse/neurons.parquet")["id"].tolist():
        mesh = Mesh(*read_precomputed_mesh(tmp_path / "coarse/mesh", segment))
        other = Mesh(*read_precomputed_mesh(whole / "mesh", segment))
        assert mesh.is_closed
        assert mesh.volume_nm3 == pytest.approx(other.volume_nm3, rel=0.1)
        np.testing.assert_allclose(mesh.vertices_nm.min(axis=0), other.vertices_nm.min(axis=0), atol=20)
        nodes, _, _ = read_precomputed_skeleton(tmp_path / "coarse/skeletons", segment)
        (row,) = np.flatnonzero(fine["id"] == segment)
        for axis, name in enumerate("zyx"):
            assert nodes[:, axis].min() >= 8 * fine[f"{name}0"][row] - 32
            assert nodes[:, axis].max() <= 8 * fine[f"{name}1"][row] + 32


def test_a_voxel_alone_at_the_far_corner_has_a_surface_where_it_is(tmp_path: Path) -> None:
    grid = Grid((40.0, 4.0, 4.5), (80.0, 10.0, 9.0))
    array = np.zeros((5, 6, 7), np.uint64)
    array[4, 5, 6] = 3
    create_volume(tmp_path / "a.zarr", VolumeInfo((5, 6, 7), array.dtype, grid, kind="labels")).write(
        VolumeInfo((5, 6, 7), array.dtype, grid).box, array
    )
    job = ExportNeuronsJob(
        segmentation=str(tmp_path / "a.zarr"),
        output=str(tmp_path / "out"),
        block_vox=(2, 2, 2),
        meshes=MeshSpec(smooth=0, keep=1),
    )
    export_neurons(job)
    vertices, _ = read_precomputed_mesh(tmp_path / "out/mesh", 3)
    middle = np.array([80 + 4.5 * 40, 10 + 5.5 * 4, 9 + 6.5 * 4.5])
    np.testing.assert_allclose((vertices.min(axis=0) + vertices.max(axis=0)) / 2, middle)
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [40, 4, 4.5])
    nodes, edges, _ = read_precomputed_skeleton(tmp_path / "out/skeletons", 3)
    np.testing.assert_allclose(nodes, [middle])
    assert len(edges) == 0


def test_damaged_files_are_made_again(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "n"
    job = ExportNeuronsJob(segmentation=str(data / "labels.zarr"), output=str(out), skeletons=None)
    export_neurons(job)
    victim = next((out / "mesh").glob("*.mesh"))
    before = victim.read_bytes()
    victim.write_bytes(b"x")
    assert not result_status(out, look=True).is_well
    retry(out, look=True)
    assert victim.read_bytes() == before
    assert result_status(out, look=True).is_well
    with pytest.raises(InputError, match="belongs to another job"):
        export_neurons(ExportNeuronsJob(segmentation=str(data / "labels.zarr"), output=str(out)))


def test_jobs_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    def job(**given: object) -> Spec:
        return ExportNeuronsJob.from_dict({"segmentation": "a.zarr", "output": "b", **given}, "job")

    with pytest.raises(InputError, match="neither meshes nor skeletons"):
        job(meshes=None, skeletons=None)
    with pytest.raises(InputError, match="synapses are attached to skeletons"):
        job(skeletons=None, synapses="s.parquet")
    with pytest.raises(InputError, match="no multiple of the factors"):
        job(meshes={"factors": [3, 1, 1]})
    (tmp_path / "seg.zarr/fragments").mkdir(parents=True)
    with pytest.raises(InputError, match="made without a threshold"):
        labels_path(str(tmp_path / "seg.zarr"))


def test_factors_bring_a_box_below_a_limit() -> None:
    assert factors_for((100, 100, 100), Grid((8, 8, 8)), 10**6) == (1, 1, 1)
    assert factors_for((100, 1000, 1000), Grid((40, 4, 4)), 10**7) == (1, 4, 4)
    assert SPEC.voxel_size_nm == (8, 8, 8)
