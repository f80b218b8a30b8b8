"""Perfect predictions decode to the true synapses, the same in any cells; bad input is named."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from emloom.cli.main import app, main
from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import ArrayVolume, Volume, VolumeInfo
from emloom.tasks import synapsestages
from emloom.tasks.resume import result_status, retry
from emloom.tasks.synapsedecode import Found, decode
from emloom.tasks.synapsedecoders import (
    CleanSpec,
    CleftsDecoder,
    Decoder,
    EvidenceSpec,
    PolarityDecoder,
    ProximityDecoder,
    ScoreSpec,
    SitesDecoder,
    SynapsesJob,
    VectorsDecoder,
)
from emloom.tasks.synapses import find_synapses, read_result
from emloom.tasks.synapsescene import Scene
from tests.tasks.contacts import RADIUS_NM, SHAPE, World, make_world, partners, same_rows

NO_SHRINKING = (Phase.explicit, Phase.generate)  # a decoding takes long, and any failure shows the cell
cells_ = st.tuples(*(st.integers(n // 5, n) for n in SHAPE))
DECODERS: dict[str, Decoder] = {
    "sites": SitesDecoder(),
    "touching": SitesDecoder(contact_nm=0.0, pre=EvidenceSpec(min_size_vox=5), assign="nearest"),
    "vectors": VectorsDecoder(),
    "location": VectorsDecoder(lookup="location", score=ScoreSpec(location="peak")),
    "proximity": ProximityDecoder(evidence=EvidenceSpec(threshold=0.9, min_size_vox=5), max_gap_nm=150),
    "polarity": PolarityDecoder(sides=EvidenceSpec(min_size_vox=5)),
}


@cache
def world(seed: int = 1) -> World:
    return make_world(seed)


@cache
def heads(kind: str, seed: int = 1) -> dict[str, Volume]:
    return world(seed).heads(kind)


def scene(decoder: Decoder, neurons: NDArray[np.uint64] | None = None, **more: Any) -> Scene:
    ids = world().neurons if neurons is None else neurons
    return Scene.of(decoder, heads(decoder.kind), ArrayVolume(ids, world().grid, "labels", source="seg"), **more)


def in_balls(found: SynapseTable, true: SynapseTable) -> bool:
    """Whether every site found lies within a ball's radius of a true site of the same segments."""
    for side in ("pre", "post"):
        a, b = (getattr(each, f"{side}_nm") for each in (found, true))
        same = (found.pre_segments[:, None] == true.pre_segments) & (
            found.post_segments[:, None] == true.post_segments
        )
        away = np.where(same, np.linalg.norm(a[:, None] - b[None], axis=2), np.inf)
        if (away.min(axis=1) > RADIUS_NM).any() or (away.min(axis=0) > RADIUS_NM).any():
            return False
    return True


# ---- round trip -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_perfect_predictions_decode_to_the_true_table(name: str, seed: int) -> None:
    true = world(seed)
    decoder = DECODERS[name]
    segmentation = ArrayVolume(true.neurons, true.grid, "labels")
    found = decode(Scene.of(decoder, heads(decoder.kind, seed), segmentation)).table
    assert partners(found) == partners(true.table)
    assert len(np.unique(true.table.polyads)) < len(true.table)  # there are polyads
    assert in_balls(found, true.table)
    assert (found.scores > 0.9).all()
    at = [true.neurons[tuple(true.grid.containing(p))] for p in (*found.pre_nm, *found.post_nm)]
    assert at == [*found.pre_segments, *found.post_segments]
    assert found.ids.tolist() == list(range(1, len(found) + 1))


@given(st.sampled_from(sorted(DECODERS)), cells_)
@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
def test_any_cells_give_the_same_table_bit_for_bit(name: str, cell: Vec) -> None:
    found, expected = decode(scene(DECODERS[name]), cell=cell), whole(name)
    assert same_rows(found.table, expected.table)
    assert found.notes == expected.notes


@cache
def whole(name: str) -> Found:
    return decode(scene(DECODERS[name]))


SMALL = (8, 30, 34)


def noisy(which: int, seed: int) -> Scene:
    """Return noise, which joins, splits and overlaps everything, with rules that look across cells."""
    rng = np.random.default_rng(seed)
    channels = {"sites": 2, "post": 1, "polarity": 3, "clefts": 1}
    arrays = {name: np.where(rng.random((n, *SMALL)) < 0.03, 255, 0) for name, n in channels.items()}
    arrays["vectors"] = rng.integers(100, 156, (3, *SMALL))
    evidence = EvidenceSpec(smoothing_nm=(20.0, 12.0, 12.0), threshold=0.06, connectivity=26, min_sections=2)
    areas = EvidenceSpec(section_area_vox=(1, 40), connectivity=18, threshold=0.3, split_by_segment=False)
    decoders: list[Decoder] = [
        SitesDecoder(pre=evidence, post=areas, assign="one_to_one", max_distance_nm=60, contact_nm=10),
        VectorsDecoder(post=evidence, search_nm=30, score=ScoreSpec(measure="sum", location="peak")),
        PolarityDecoder(sides=EvidenceSpec(min_size_vox=1), union_threshold=0.9),
        CleftsDecoder(cleft=areas, min_overlap_vox=5, reach_nm=30),
    ]
    grid = world().grid
    volumes = {name: ArrayVolume(each.astype(np.uint8), grid, source=name) for name, each in arrays.items()}
    neurons = world().neurons[: SMALL[0], : SMALL[1], : SMALL[2]].copy()
    return Scene.of(decoders[which], volumes, ArrayVolume(neurons, grid))


@pytest.mark.parametrize("which", range(4))
@given(st.integers(0, 10**6), st.tuples(*(st.integers(2, n) for n in SMALL)))
@settings(max_examples=4, deadline=None, phases=NO_SHRINKING)
def test_any_cells_give_the_same_table_of_noise(which: int, seed: int, cell: Vec) -> None:
    made, clean = noisy(which, seed), CleanSpec(duplicates_nm=30)
    expected, found = decode(made, clean), decode(made, clean, cell)
    assert len(expected.table)
    assert same_rows(found.table, expected.table)
    assert found.notes == expected.notes


@pytest.mark.parametrize("name", DECODERS)
def test_a_synapse_on_faces_of_cells_is_found_once(name: str) -> None:
    true = world()
    for voxel in (true.voxels("pre")[0], true.voxels("post")[1]):
        # Two cells along each axis that meet in the middle of the site's ball.
        cell = tuple(int(v) if v > 0 else 1 for v in voxel)
        found = decode(scene(DECODERS[name]), cell=(cell[0], cell[1], cell[2])).table
        assert partners(found) == partners(true.table)


@pytest.mark.parametrize("name", DECODERS)
def test_renamed_segments_rename_the_table_and_change_nothing_else(name: str) -> None:
    rng = np.random.default_rng(7)
    names = np.concatenate([[0], rng.permutation(np.arange(1, 10**6))[: int(world().neurons.max())]])
    names = names.astype(np.uint64) * np.uint64(2**40)
    found = decode(scene(DECODERS[name], names[world().neurons])).table
    before = whole(name).table
    assert same_rows(found, before.with_segments(names[before.pre_segments], names[before.post_segments]))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", DECODERS)
def test_mirrored_data_mirror_the_table_and_swap_no_sides(name: str, axis: int) -> None:
    decoder = DECODERS[name]
    turned = {}
    for head, volume in heads(decoder.kind).items():
        array = np.flip(volume.read(volume.info.box), axis + 1).copy()
        if head == "vectors":
            array[axis] = 255 - array[axis]  # what pointed up points down
        turned[head] = ArrayVolume(array, world().grid, source=head)
    neurons = ArrayVolume(np.flip(world().neurons, axis).copy(), world().grid, "labels")
    found = decode(Scene.of(decoder, turned, neurons)).table
    assert partners(found) == partners(world().table)
    low = world().grid.offset_nm[axis]
    high = low + SHAPE[axis] * world().grid.voxel_size_nm[axis]
    back = {side: getattr(found, side).copy() for side in ("pre_nm", "post_nm")}
    for points in back.values():
        points[:, axis] = low + high - points[:, axis]
    assert in_balls(replace(found, **back), world().table)


# ---- clefts ---------------------------------------------------------------------------------------------------


def side_volume(kind: str) -> Volume:
    (volume,) = heads(kind).values()
    return volume


def as_sets(table: SynapseTable) -> list[tuple[int, tuple[int, ...]]]:
    return sorted((pre, tuple(sorted(set(posts)))) for pre, posts in partners(table))


@pytest.mark.parametrize("sides", ["sites", "proximity", "polarity"])
def test_clefts_with_sides_decode_to_the_true_partners(sides: str) -> None:
    """Around a perfect cleft, post evidence lies in the true post segments only, pre evidence in the pre one."""
    decoder = CleftsDecoder(assign="threshold", sides="given", post_threshold=0.02, min_overlap_vox=5)
    found = decode(scene(decoder, sides=side_volume(sides)))
    if sides != "proximity":  # which reaches into the segments around
        assert as_sets(found.table) == as_sets(world().table)
    one = decode(scene(decoder.model_copy(update={"assign": "max"}), sides=side_volume(sides))).table
    assert len(one) == len(np.unique(world().table.polyads)) == len(np.unique(one.polyads))
    true = set(zip(world().table.pre_segments.tolist(), world().table.post_segments.tolist(), strict=True))
    assert set(zip(one.pre_segments.tolist(), one.post_segments.tolist(), strict=True)) <= true


def slab(n_post: int = 30) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return two neurons that meet at a plane, and a cleft at it that reaches further into the second."""
    neurons = np.full((8, 20, 40), 5, np.uint64)
    neurons[:, :, 20:] = 3
    clefts = np.zeros((1, 8, 20, 40), np.uint8)
    clefts[0, 2:6, 5:15, 18:25] = n_post
    return neurons, clefts


def test_without_sides_the_orientation_is_the_larger_overlap() -> None:
    neurons, clefts = slab(200)
    grid = Grid((40.0, 4.0, 4.0))
    decoder = CleftsDecoder(reach_nm=0.0)
    found = decode(Scene.of(decoder, {"clefts": ArrayVolume(clefts, grid)}, ArrayVolume(neurons, grid)))
    assert partners(found.table) == [(3, (5,))]
    assert found.table.sizes_vox.tolist() == [4 * 10 * 7]
    assert found.table.scores[0] == pytest.approx(200 / 255)
    lonely = np.full_like(neurons, 3)
    alone = decode(Scene.of(decoder, {"clefts": ArrayVolume(clefts, grid)}, ArrayVolume(lonely, grid)))
    assert len(alone.table) == 0
    assert alone.notes["clefts with fewer than two segments"] == 1


def test_a_signed_distance_is_cut_at_its_border() -> None:
    neurons, _ = slab()
    grid = Grid((40.0, 4.0, 4.0))
    inside = np.full((1, 8, 20, 40), 127, np.uint8)  # a hair outside everywhere
    inside[0, 2:6, 5:15, 18:25] = 128  # and a hair inside
    decoder = CleftsDecoder(reach_nm=0.0)
    found = decode(Scene.of(decoder, {"clefts": ArrayVolume(inside, grid)}, ArrayVolume(neurons, grid)))
    assert found.table.sizes_vox.tolist() == [280]


# ---- rules ----------------------------------------------------------------------------------------------------


def test_scores_are_shares_of_the_evidence() -> None:
    weak = {name: ArrayVolume(v.read(v.info.box) // 2, v.info.grid) for name, v in heads("sites").items()}
    for measure, expected in (("mean", 127 / 255), ("max", 127 / 255)):
        decoder = SitesDecoder(
            pre=EvidenceSpec(threshold=0.4), post=EvidenceSpec(threshold=0.4), score=ScoreSpec(measure=measure)
        )
        found = decode(Scene.of(decoder, weak, ArrayVolume(world().neurons, world().grid))).table
        assert found.scores == pytest.approx(np.full(len(found), expected))
    summed = decode(scene(SitesDecoder(score=ScoreSpec(measure="sum", sum_full_vox=10**6)))).table
    assert (summed.scores <= summed.sizes_vox / 10**6 + 1e-9).all()
    assert (summed.scores > 0).all()


def test_autapses_are_sought_only_where_they_are_kept() -> None:
    one = np.ones(SHAPE, np.uint64)
    removed, kept = (decode(scene(SitesDecoder(), one), CleanSpec(autapses=which)) for which in ("remove", "keep"))
    assert len(removed.table) == 0
    assert len(kept.table) == len(world().table)
    assert (kept.table.pre_segments == 1).all()
    pointing = decode(scene(VectorsDecoder(), one))
    assert len(pointing.table) == 0
    assert pointing.notes["post sites that point at no segment"] == len(world().table)


def test_sites_in_the_mask_are_left_out_and_counted() -> None:
    usable = np.ones(SHAPE, np.uint8)
    at = tuple(world().voxels("post")[0])
    usable[at[0], at[1] - 6 : at[1] + 7, at[2] - 6 : at[2] + 7] = 0
    usable[at[0] - 1, at[1] - 6 : at[1] + 7, at[2] - 6 : at[2] + 7] = 0
    usable[at[0] + 1, at[1] - 6 : at[1] + 7, at[2] - 6 : at[2] + 7] = 0
    mask = ArrayVolume(usable, world().grid, "mask")
    for name in ("sites", "vectors"):
        found = decode(scene(DECODERS[name], mask=mask), cell=(9, 33, 40))
        assert found.notes["sites in the mask"] >= 1
        assert len(found.table) < len(world().table)
        masked = [usable[tuple(world().grid.containing(p))] == 0 for p in found.table.post_nm]
        assert not any(masked)


def test_vectors_that_leave_the_volume_are_counted() -> None:
    out = heads("vectors") | {"vectors": ArrayVolume(np.full((3, *SHAPE), 255, np.uint8), world().grid)}
    far = VectorsDecoder(scale_nm=9000.0)
    found = decode(Scene.of(far, out, ArrayVolume(world().neurons, world().grid)))
    assert len(found.table) == 0
    assert found.notes["post sites that point out of the volume"] == len(world().table)


def test_a_union_in_two_parts_is_one_where_it_grows_across_the_gap() -> None:
    grid, shape = Grid((40.0, 4.0, 4.0)), (5, 30, 60)
    neurons = np.ones(shape, np.uint64)
    neurons[:, :, 30:] = 2
    sides = np.zeros((3, *shape), np.uint8)
    sides[0, 1:4, 8:20, 15:25] = sides[1, 1:4, 8:20, 35:45] = 255  # 10 voxels of nothing between
    sides[2] = sides[:2].max(axis=0)
    for spread_nm, n in ((0.0, 0), (16.0, 0), (19.9, 0), (20.0, 1), (32.0, 1)):
        decoder = PolarityDecoder(sides=EvidenceSpec(min_size_vox=5), spread_nm=spread_nm)
        found = decode(Scene.of(decoder, {"polarity": ArrayVolume(sides, grid)}, ArrayVolume(neurons, grid)))
        assert partners(found.table) == [(1, (2,))] * n, spread_nm
        assert found.notes.get("post sites without a partner", 0) == 1 - n


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_membrane_in_any_plane_is_bridged(axis: int) -> None:
    grid, shape = Grid((8.0, 8.0, 8.0)), (30, 30, 30)
    neurons = np.ones(shape, np.uint64)
    neurons[15:] = 2
    sides = np.zeros((3, *shape), np.uint8)
    sides[0, 7:13, 8:20, 8:20] = sides[1, 17:23, 8:20, 8:20] = 255  # 4 voxels of nothing between
    sides[2] = sides[:2].max(axis=0)
    sides, neurons = np.moveaxis(sides, 1, axis + 1), np.moveaxis(neurons, 0, axis)
    for spread_nm, n in ((8.0, 0), (16.0, 1)):
        decoder = PolarityDecoder(sides=EvidenceSpec(min_size_vox=5), spread_nm=spread_nm)
        volumes = {"polarity": ArrayVolume(np.ascontiguousarray(sides), grid)}
        for cell in ((64, 64, 64), (7, 11, 13)):
            found = decode(Scene.of(decoder, volumes, ArrayVolume(np.ascontiguousarray(neurons), grid)), cell=cell)
            assert partners(found.table) == [(1, (2,))] * n, (spread_nm, cell)


# ---- nothing, and what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DECODERS, "clefts"])
def test_no_evidence_gives_an_empty_table(name: str) -> None:
    decoder = DECODERS.get(name, CleftsDecoder())
    rest = 127 if decoder.kind == "proximity" else 0
    blank = {
        head: ArrayVolume(np.full_like(v.read(v.info.box), rest), world().grid)
        for head, v in heads(decoder.kind).items()
    }
    found = decode(Scene.of(decoder, blank, ArrayVolume(world().neurons, world().grid)), cell=(20, 60, 60))
    assert len(found.table) == 0
    assert found.notes == {}


def test_background_of_cremi_is_refused_as_a_segment() -> None:
    neurons = world().neurons.copy()
    neurons[tuple(world().voxels("pre")[0])] = np.uint64(2**64 - 1)
    with pytest.raises(InputError, match="CREMI marks background so: make it 0"):
        decode(scene(SitesDecoder(), neurons))


def elsewhere(size_nm: float = 8.0, z_nm: float = 400.0, shape: Vec = SHAPE, dtype: Any = np.uint64) -> Volume:
    return ArrayVolume(np.ones(shape, dtype), Grid((20.0, size_nm, 8.0), (z_nm, -80.0, 16.0)), source="seg")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (elsewhere(size_nm=4.0), "voxel grid"),
        (elsewhere(z_nm=410.0), "voxel grid"),
        (elsewhere(shape=(9, 9, 9)), "crop it first"),
        (elsewhere(dtype=np.int64), "int64"),
        (elsewhere(dtype=np.float32), "float"),
    ],
)
def test_a_segmentation_elsewhere_is_refused(segmentation: Volume, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scene.of(SitesDecoder(), heads("sites"), segmentation)


def test_a_missing_head_is_named_with_those_that_are_there() -> None:
    with pytest.raises(InputError, match=r"no head 'post'.*decoder 'vectors'.*it has: sites"):
        Scene.of(VectorsDecoder(), heads("sites"), ArrayVolume(world().neurons, world().grid))
    floats = {"sites": ArrayVolume(np.zeros((2, *SHAPE), np.float32), world().grid, source="pred")}
    with pytest.raises(InputError, match="pred stores float32: predictions are uint8"):
        Scene.of(SitesDecoder(), floats, ArrayVolume(world().neurons, world().grid))
    with pytest.raises(InputError, match="3 channels, the head 'sites' has 2"):
        Scene.of(SitesDecoder(), {"sites": side_volume("polarity")}, ArrayVolume(world().neurons, world().grid))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"decoder": {"kind": "sites", "pre": {"threshold": 0}}}, "greater than 0"),
        ({"decoder": {"kind": "sites", "pre": {"threshold": 1.5}}}, "less than or equal to 1"),
        ({"decoder": {"kind": "site"}}, "did you mean 'sites'"),
        ({"decoder": {"kind": "clefts", "assign": "max"}}, "give a volume that holds it as `sides`"),
        ({"decoder": {"kind": "vectors", "post": {"min_size_vox": 9, "max_size_vox": 5}}}, "none are"),
        ({"decoder": {"kind": "vectors", "post": {"section_area_vox": [9, 5]}}}, "the least first"),
        ({"prediction": None}, "either a model, with a raw volume, or a prediction"),
        ({"model": "m"}, "either a model, with a raw volume, or a prediction"),
        ({"prediction": None, "model": "m"}, "a model predicts a raw volume"),
    ],
)
def test_a_bad_job_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SynapsesJob.from_dict({"prediction": "p", "segmentation": "s", "output": "o"} | words)


# ---- on disk --------------------------------------------------------------------------------------------------


def put(path: Path, volume: Volume) -> None:
    info = volume.info
    kind = info.kind or ("probabilities" if info.dtype == np.uint8 else "labels")
    stored = VolumeInfo(info.shape, info.dtype, info.grid, info.channels, kind=kind)
    create_volume(path, stored).write(info.box, volume.read(info.box))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("synapses")
    put(made / "seg.zarr", ArrayVolume(world().neurons, world().grid, "labels"))
    for kind in ("sites", "vectors"):
        for name, volume in heads(kind).items():
            put(made / f"{kind}.zarr" / name, volume)
    return made


def job_in(folder: Path, output: Path, kind: str = "sites", **more: Any) -> SynapsesJob:
    words = {"prediction": str(folder / f"{kind}.zarr"), "segmentation": str(folder / "seg.zarr")}
    return SynapsesJob.from_dict(words | {"output": str(output), "cell_shape_vox": (16, 60, 50)} | more)


@pytest.mark.parametrize("kind", ["sites", "vectors"])
def test_a_job_writes_the_table_that_memory_gives(kind: str, folder: Path, tmp_path: Path) -> None:
    made = find_synapses(job_in(folder, tmp_path / "syn", kind))
    table, notes = read_result(made)
    assert same_rows(table, whole(kind).table)
    assert notes == whole(kind).notes
    record = json.loads((made / "provenance.json").read_text())
    assert record["spec"]["segmentation"] == str(folder / "seg.zarr")
    assert record["segmentation_fingerprint"] == record["inputs"]["segmentation"]
    assert record["spec"]["decoder"]["kind"] == record["decoder"] == kind
    assert f"{len(table)}" in (made / "report.html").read_text()
    layers = {"post": (table.post_nm, table.ids), "pre": (table.pre_nm, table.polyads)}
    assert (made / "sites.zarr" / "pre").exists() == (kind == "sites")
    for layer in layers if kind == "sites" else ["post"]:
        points, labels = layers[layer]
        sites = open_volume(made / "sites.zarr" / layer)
        ids = sites.read(sites.info.box)
        assert [ids[sites.info.grid.containing(p)] for p in points] == labels.tolist()
        assert set(np.unique(ids).tolist()) == {0, *labels.tolist()}
        counts = np.bincount(ids.ravel().astype(int))
        assert layer == "pre" or counts[labels.astype(int)].tolist() == table.sizes_vox.tolist()
    status = result_status(made, look=True)
    assert status.is_well
    assert status.finished


def test_a_segmentation_and_a_mask_may_cover_more(folder: Path, tmp_path: Path) -> None:
    grid = world().grid
    around = Grid(grid.voxel_size_nm, grid.to_world((-2, -3, -4)))
    padded = np.pad(world().neurons, [(2, 1), (3, 2), (4, 0)], constant_values=99)
    put(tmp_path / "seg.zarr", ArrayVolume(padded, around, "labels"))
    put(tmp_path / "mask.zarr", ArrayVolume(np.ones(padded.shape, np.uint8), around, "mask"))
    larger = {"segmentation": str(tmp_path / "seg.zarr"), "mask": str(tmp_path / "mask.zarr")}
    made = find_synapses(job_in(folder, tmp_path / "syn", **larger))
    assert same_rows(read_result(made)[0], whole("sites").table)


def test_a_killed_job_goes_on_to_the_same_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, done = job_in(folder, tmp_path / "syn"), []
    measure = synapsestages._STEPS["measure"]

    def stop(*given: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(given)
        return measure(*given)

    with monkeypatch.context() as patch:
        patch.setitem(synapsestages._STEPS, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            find_synapses(job)
    assert not (tmp_path / "syn").exists()
    seen: list[tuple[str, int]] = []
    find_synapses(job, on_block=lambda name, n, _: seen.append((name, n)))
    assert ("measure", 3) in seen  # those before were not made again
    assert ("find", 0) not in seen
    assert same_rows(read_result(tmp_path / "syn")[0], whole("sites").table)


def test_a_damaged_cell_is_made_again(folder: Path, tmp_path: Path) -> None:
    made = find_synapses(job_in(folder, tmp_path / "syn"))
    broken = next((made / "cells" / "votes-post").iterdir())
    broken.write_bytes(b"")
    assert not result_status(made, look=True).is_well
    retry(made, look=True)
    assert result_status(made, look=True).is_well
    with pytest.raises(InputError, match="belongs to another job"):
        find_synapses(job_in(folder, tmp_path / "syn", clean={"min_score": 0.5}))


def test_the_command_says_what_was_found(folder: Path, tmp_path: Path) -> None:
    words = ["synapses", "--prediction", str(folder / "sites.zarr"), "--segmentation", str(folder / "seg.zarr")]
    out = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "syn"), "--cell", "16,64,64"])
    assert out.exit_code == 0, out.output
    assert f"{len(world().table)} synapses by decoder 'sites'" in out.output
    none = [*words, "-o", str(tmp_path / "none"), "--min-score", "1", "--settings", str(tmp_path / "s.yaml")]
    (tmp_path / "s.yaml").write_text(
        "decoder: {kind: sites, pre: {min_size_vox: 100000}}\nclean: {duplicates_nm: 50}\n"
    )
    out = CliRunner().invoke(app, none)
    assert out.exit_code == 0, out.output
    assert "No synapse was found" in out.output
    assert len(read_result(tmp_path / "none")[0]) == 0


def test_a_prediction_of_something_else_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"no head 'post'.*it has: sites"):
        find_synapses(job_in(folder, tmp_path / "a", decoder={"kind": "vectors"}))
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="no head of synapses"):
        find_synapses(job_in(tmp_path, tmp_path / "b", prediction=str(tmp_path / "empty.zarr")))
    argv = ["emloom", "synapses", "--prediction", str(tmp_path / "empty.zarr"), "--segmentation", "s", "-o", "o"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "no head of synapses" in capsys.readouterr().err
