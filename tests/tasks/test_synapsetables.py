"""Synapses of tables and of CREMI files are scored alike: half a voxel between them changes nothing."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import NEURON_IDS, write_annotations
from emloom.io.open import create_volume
from emloom.io.synapsetable import SYNAPSES, read_synapse_table, to_columns, write_synapse_table
from emloom.io.tables import write_table
from emloom.io.volume import VolumeInfo
from emloom.metrics.partnerpairs import site_voxels
from emloom.tasks.partnersource import of_table, read_synapses
from emloom.tasks.synapsereport import write_synapse_report
from emloom.tasks.synapsescoring import evaluate_synapses
from emloom.tasks.synapsespec import PartnersSpec, SynapseSpec

SHAPE = (6, 40, 40)
METRICS = ("partners", "polyads", "connections")


def table_of(grid: Grid, pre, post, polyads, scores=None) -> SynapseTable:
    """Return a table with sites at continuous voxel positions, whole numbers being corners of voxels."""
    size, offset = np.array(grid.voxel_size_nm), np.array(grid.offset_nm)
    n = len(polyads)
    return SynapseTable(
        np.arange(1, n + 1, dtype=np.uint64),
        np.asarray(polyads, np.uint64),
        np.asarray(pre, float).reshape(-1, 3) * size + offset,
        np.asarray(post, float).reshape(-1, 3) * size + offset,
        np.zeros(n, np.uint64),
        np.zeros(n, np.uint64),
        np.zeros(n, np.int64),
        np.ones(n, np.float32) if scores is None else np.asarray(scores, np.float32),
    )


def random_table(grid: Grid, seed: int, n: int, places: str = "centres") -> SynapseTable:
    """Return sites at centres of voxels, at corners, or anywhere, with polyads of some two contacts."""
    rng = np.random.default_rng(seed)
    polyads = np.sort(rng.integers(1, max(2, n // 2 + 1), n))
    shift = {"centres": 0.5, "corners": 0.0, "anywhere": rng.uniform(0.01, 0.99)}[places]
    heads = rng.integers(0, np.array(SHAPE), (n + 2, 3)) + shift
    return table_of(grid, heads[polyads], rng.integers(0, np.array(SHAPE), (n, 3)) + shift, polyads, rng.random(n))


def as_cremi(path: Path, table: SynapseTable, grid: Grid, neurons=None) -> str:
    """Write a table as CREMI does: half a voxel earlier, and a pre site for each polyad."""
    half = np.array(grid.voxel_size_nm) / 2
    heads, first = np.unique(table.polyads, return_index=True)
    post_ids = table.ids + np.uint64(10**6)
    ids = np.concatenate([heads, post_ids])
    words = Annotations(
        ids,
        (PRE,) * len(heads) + (POST,) * len(table),
        np.concatenate([table.pre_nm[first], table.post_nm]) - half,
        np.stack([table.polyads, post_ids], axis=1),
        source=str(path),
    )
    write_annotations(path, words)
    if neurons is not None:
        with h5py.File(path, "r+") as h5:
            h5[NEURON_IDS] = neurons
            h5[NEURON_IDS].attrs["resolution"] = grid.voxel_size_nm
            h5[NEURON_IDS].attrs["offset"] = grid.offset_nm
    return str(path)


def neurons_of(seed: int) -> np.ndarray:
    """Return neurons as blocks of 2 x 10 x 10 voxels."""
    ids = np.random.default_rng(seed).integers(1, 9, (3, 4, 4)).astype(np.uint64)
    return np.kron(ids, np.ones((2, 10, 10), np.uint64))


@given(
    seed=st.integers(0, 10**6),
    n=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    grid=st.sampled_from([Grid((40.0, 4.0, 4.0), (400.0, 40.0, 40.0)), Grid((47.5, 4.6, 4.6), (95.0, 4.6, 0.0))]),
    places=st.sampled_from(["centres", "corners", "anywhere"]),
)
@settings(max_examples=12, phases=[Phase.generate], deadline=None)
def test_a_table_and_a_cremi_file_score_alike_on_either_side(tmp_path_factory, seed, n, grid, places) -> None:
    tmp_path = tmp_path_factory.mktemp("forms")
    neurons = neurons_of(seed)
    truth, found = (random_table(grid, seed + k, m, places) for k, m in enumerate(n))
    forms: dict[str, dict[str, str]] = {}
    for name, table in (("truth", truth), ("found", found)):
        (tmp_path / name).mkdir()
        for ending in (".parquet", ".csv"):
            write_synapse_table(tmp_path / f"{name}{ending}", table)
        write_synapse_table(tmp_path / name / SYNAPSES, table)
        forms[name] = {
            "cremi": as_cremi(tmp_path / f"{name}.h5", table, grid, neurons if name == "truth" else None),
            "parquet": str(tmp_path / f"{name}.parquet"),
            "csv": str(tmp_path / f"{name}.csv"),
            "folder": str(tmp_path / name),
        }
    spec = SynapseSpec(
        truth=forms["truth"]["cremi"],
        found=forms["found"]["cremi"],
        output=str(tmp_path / "out"),
        metrics=METRICS,
        segmentation=f"{forms['truth']['cremi']}/{NEURON_IDS}",
    )
    expected = evaluate_synapses(spec).row
    for a, b in (("parquet", "parquet"), ("cremi", "csv"), ("folder", "cremi"), ("csv", "folder")):
        changes = {"truth": forms["truth"][a], "found": forms["found"][b]}
        row = evaluate_synapses(spec.model_copy(update=changes)).row
        for key, value in expected.items():
            if key not in ("truth", "found"):
                assert row[key] == pytest.approx(value, nan_ok=True, abs=1e-6), (a, b, key)


@given(st.integers(0, 10**6), st.sampled_from([(40.0, 4.0, 4.0), (47.5, 4.6, 4.6), (1 / 3, 0.1, 0.7)]))
def test_a_site_of_a_table_lies_in_the_voxel_that_contains_it(seed, size) -> None:
    grid = Grid(size, (size[0] * 3, 0.0, size[2] * 7))
    for places in ("centres", "corners", "anywhere"):
        table = random_table(grid, seed, 10, places)
        voxels, inside = site_voxels(of_table(table, size).pairs, SHAPE, grid)
        assert inside.all()
        assert [tuple(v) for v in voxels[:, 0].tolist()] == [grid.containing(p) for p in table.pre_nm.tolist()]
        assert [tuple(v) for v in voxels[:, 1].tolist()] == [grid.containing(p) for p in table.post_nm.tolist()]


def test_the_same_site_in_either_form_is_nowhere_else(tmp_path: Path) -> None:
    grid = Grid((40.0, 4.0, 4.0), (400.0, 40.0, 40.0))
    table = random_table(grid, 1, 9)
    write_synapse_table(tmp_path / "t.parquet", table)
    a = read_synapses(str(tmp_path / "t.parquet"), grid.voxel_size_nm)
    b = read_synapses(as_cremi(tmp_path / "t.h5", table, grid), grid.voxel_size_nm)
    np.testing.assert_array_equal(a.pairs.pre_nm, b.pairs.pre_nm)
    np.testing.assert_array_equal(a.pairs.post_nm, b.pairs.post_nm)
    np.testing.assert_array_equal(a.polyads, b.polyads)
    np.testing.assert_array_equal(a.pairs.stored()[0], table.pre_nm)
    assert b.scores is None
    np.testing.assert_array_equal(a.scores, table.scores)


def scored(tmp_path: Path, **changes) -> SynapseSpec:
    """Return a spec of three true and five found contacts, whose scores tell the true ones from the rest."""
    grid = Grid((40.0, 4.0, 4.0))
    neurons = np.ones(SHAPE, np.uint64)
    neurons[:, 20:] = 2
    info = VolumeInfo(SHAPE, neurons.dtype, grid, kind="labels")
    create_volume(tmp_path / "neurons.zarr", info).write(info.box, neurons)
    raw = VolumeInfo(SHAPE, np.dtype(np.uint8), grid, kind="raw")
    noise = np.random.default_rng(0).integers(80, 170, SHAPE).astype(np.uint8)
    create_volume(tmp_path / "raw.zarr", raw).write(raw.box, noise)
    pre, post = [(1.5, 10.5, x + 0.5) for x in (5, 20, 35)], [(1.5, 25.5, x + 0.5) for x in (5, 20, 35)]
    truth = table_of(grid, pre, post, [1, 2, 3])
    more = [(4.5, 30.5, 5.5), (4.5, 30.5, 30.5)], [(4.5, 5.5, 5.5), (4.5, 5.5, 30.5)]
    found = table_of(grid, pre + more[0], post + more[1], [1, 2, 3, 4, 5], [0.9, 0.8, 0.4, 0.5, 0.2])
    write_synapse_table(tmp_path / "truth.parquet", truth)
    write_synapse_table(tmp_path / "found.parquet", found)
    given = {"segmentation": str(tmp_path / "neurons.zarr"), "raw": str(tmp_path / "raw.zarr")}
    return SynapseSpec(
        truth=str(tmp_path / "truth.parquet"),
        found=str(tmp_path / "found.parquet"),
        output=str(tmp_path / "out"),
        **{**given, **changes},
    )


def test_scores_are_swept_and_shown(tmp_path: Path) -> None:
    spec = scored(tmp_path, metrics=METRICS)
    result = evaluate_synapses(spec)
    assert result.sweep is not None
    assert [(p.tp, p.fp) for p in result.sweep.points] == [(3, 2), (3, 1), (2, 1), (2, 0), (1, 0)]
    assert result.sweep.chosen.threshold == pytest.approx(0.4)
    assert (result.row["connection_edge_weight_f1"], result.row["connection_f1"]) == (6 / 8, 2 / 3)
    lines = (tmp_path / "out" / "sweep.csv").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("threshold,n_found,tp,fp,fn,precision,recall,fbeta")
    page = write_synapse_report(spec, result).read_text()
    assert "Threshold of the score" in page
    strict = spec.model_copy(update={"partners": PartnersSpec(beta=0.25)})
    again = evaluate_synapses(strict)
    assert again.sweep is not None
    assert again.sweep.chosen.threshold == pytest.approx(0.8)
    # Positions are listed as the table stores them.
    lines = (tmp_path / "out" / "invented.csv").read_text().splitlines()
    assert lines[1].split(",")[1:5] == ["4", "180.0", "122.0", "22.0"]


def test_of_a_connectome_only_what_makes_an_edge_counts(tmp_path: Path) -> None:
    spec = scored(tmp_path, metrics=METRICS)
    found = read_synapse_table(spec.found)
    (tmp_path / "graph").mkdir()
    why = np.array(["", "", "", "autapse", "duplicate"])
    write_table(tmp_path / "graph" / SYNAPSES, {**to_columns(found), "left_out": why}, {"units": "nm"})
    row = evaluate_synapses(spec.model_copy(update={"found": str(tmp_path / "graph")})).row
    assert (row["partner_fp"], row["connection_edge_weight_f1"], row["polyad_exact"]) == (0, 1, 1)
    assert evaluate_synapses(spec).row["partner_fp"] == 2


def test_one_score_for_all_is_no_sweep(tmp_path: Path) -> None:
    spec = scored(tmp_path)
    evaluate_synapses(spec)
    result = evaluate_synapses(spec.model_copy(update={"found": spec.truth}))
    assert result.sweep is None
    assert result.row["partner_fscore"] == 1
    assert not (tmp_path / "out" / "sweep.csv").exists()


def test_bad_tables_are_named(tmp_path: Path) -> None:
    spec = scored(tmp_path)

    def refused(words: str, **changes) -> None:
        with pytest.raises(InputError, match=words):
            evaluate_synapses(spec.model_copy(update=changes))
        assert not (tmp_path / "out").exists()

    refused(r"is a table of synapses and holds no volumes/labels/neuron_ids: .* --neurons", segmentation=None)
    refused(r"is a table of synapses and holds no volumes/labels/clefts", metrics=("clefts",))
    refused("does not exist", found=str(tmp_path / "none.parquet"))
    (tmp_path / "empty").mkdir()
    refused(r"empty holds no synapses: .* synapses\.parquet", found=str(tmp_path / "empty"))
    grid = Grid((40.0, 4.0, 4.0))
    write_synapse_table(tmp_path / "far.csv", table_of(grid, [(1, 1, 1)], [(1, 1, 90.5)], [1]))
    # The message names the position as the table has it.
    refused(r"the post site of pair 0 lies at \(40\.0, 4\.0, 362\.0\) nm", found=str(tmp_path / "far.csv"))
    loose = spec.model_copy(
        update={
            "found": str(tmp_path / "far.csv"),
            "partners": PartnersSpec(outside="unmatched"),
            "metrics": METRICS,
        }
    )
    row = evaluate_synapses(loose).row
    assert (row["partner_fp"], row["polyad_fp"], row["n_connections_found"]) == (1, 1, 0)
