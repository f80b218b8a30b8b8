"""Planted damage: its truth undoes it, labels and raw move alike, and any box reads the same."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.planar import Chain, Pieces, Shift
from emloom.geometry.stackmap import StackMap
from emloom.io.open import open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.io.synapsetable import read_synapse_table
from emloom.io.volume import ArrayVolume
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import (
    LOST,
    AffineDamage,
    BadSections,
    CrackDamage,
    DamageSpec,
    ElasticDamage,
    ShiftDamage,
)
from emloom.testing.displacement import displacement_error
from emloom.testing.phantom import Phantom, PhantomSpec

SHAPE = (10, 96, 120)
GRID = Grid((40.0, 4.0, 4.0), (80.0, 16.0, -8.0))

specs = st.builds(
    DamageSpec,
    seed=st.integers(0, 1000),
    margin_px=st.integers(-12, 20),
    shift=st.builds(
        ShiftDamage,
        jitter_px=st.floats(0, 4),
        walk_px=st.floats(0, 2),
        trend_px=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
        whole=st.booleans(),
    ),
    affine=st.builds(AffineDamage, turn_deg=st.floats(0, 3), scale=st.floats(0, 0.02), shear=st.floats(0, 0.02)),
    elastic=st.builds(ElasticDamage, bend_px=st.floats(0, 3), cell_px=st.floats(30, 60)),
    cracks=st.builds(
        CrackDamage,
        sections=st.sampled_from([(), (3,), (2, 7)]),
        gap_px=st.floats(4, 12),
        shows=st.sampled_from(["film", "black"]),
    ),
)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(PhantomSpec.sections(SHAPE, seed=4))


def smooth() -> np.ndarray:
    """Return a picture that interpolation hardly changes, other in every section."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    grey = 127 + 60 * np.sin(y / 9.0 + z) + 50 * np.cos(x / 11.0 - z)
    return np.rint(grey).astype(np.uint8)


def everywhere(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (400, 3)) * shape


@settings(max_examples=25, deadline=None)
@given(specs)
def test_the_truth_undoes_the_damage_of_points(spec: DamageSpec) -> None:
    damaged = Damaged(ArrayVolume(smooth(), GRID), spec)
    frame = damaged.truth.target
    u = GRID.offset_nm + everywhere(frame.shape) * GRID.voxel_size_nm
    seen = damaged.truth.inverse().moved(u)
    shown = np.isfinite(seen).all(1)
    section = ((u[:, 0] - GRID.offset_nm[0]) // GRID.voxel_size_nm[0]).astype(int)
    whole = ~np.isin(section, spec.cracks.sections)
    assert shown[whole].all()
    assert np.allclose(damaged.truth.moved(seen[shown]), u[shown], atol=4e-6)


@settings(max_examples=15, deadline=None)
@given(specs)
def test_damaged_pictures_show_what_the_truth_says(spec: DamageSpec) -> None:
    """Against the picture's formula, at places the truth names; not from within the damage's own sampling."""
    damaged = Damaged(ArrayVolume(smooth(), GRID), spec)
    seen = damaged.raw.read(damaged.raw.info.box)
    at = np.argwhere(np.ones(seen.shape, bool))[::37]
    frame = damaged.frame
    there = damaged.truth.moved((at + 0.5) * frame.grid.voxel_size_nm + frame.grid.offset_nm)
    z, y, x = ((there - GRID.offset_nm) / GRID.voxel_size_nm - 0.5).T
    deep = np.isfinite(z) & (y > 3) & (y < SHAPE[1] - 4) & (x > 3) & (x < SHAPE[2] - 4)
    formula = 127 + 60 * np.sin(y / 9.0 + z) + 50 * np.cos(x / 11.0 - z)
    assert np.abs(formula - seen[tuple(at.T)])[deep].max(initial=0) <= 1.5
    off = np.isfinite(z) & ((y < -0.5) | (y >= SHAPE[1] - 0.5) | (x < -0.5) | (x >= SHAPE[2] - 0.5))
    assert not seen[tuple(at.T)][off].any()


@settings(max_examples=15, deadline=None)
@given(specs)
def test_labels_and_raw_move_alike(spec: DamageSpec) -> None:
    """Two tissues, black and white: the label follows the grey value, but within a pixel of a border."""
    picture = smooth()
    two = np.where(picture > 127, 200, 50).astype(np.uint8)
    labels = ArrayVolume((two > 127).astype(np.uint64) + 1, GRID, "labels")
    damaged = Damaged(ArrayVolume(two, GRID), spec, labels)
    assert damaged.labels is not None
    raw, found = (v.read(v.info.box) for v in (damaged.raw, damaged.labels))
    tissue = found > 0
    clear = tissue & (np.abs(raw.astype(int) - 125) > 40)
    assert clear.sum() > 0.8 * tissue.sum()
    wrong = ((raw > 125) != (found == 2)) & clear
    assert wrong.sum() <= 0.001 * clear.sum()


def test_whole_shifts_copy_raw_and_labels_to_the_bit(phantom: Phantom) -> None:
    spec = DamageSpec(seed=3, margin_px=10, shift=ShiftDamage(jitter_px=3, walk_px=1, whole=True))
    damaged = Damaged(phantom, spec)
    for before, after in ((phantom.raw, damaged.raw), (phantom.labels, damaged.labels)):
        assert after is not None
        whole, seen = before.read(before.info.box), after.read(after.info.box)
        for z in range(SHAPE[0]):
            move = damaged.truth.map(z)
            assert isinstance(move, Shift)
            assert move.is_whole
            y, x = int(-move.y), int(-move.x)
            assert np.array_equal(seen[z, y : y + SHAPE[1], x : x + SHAPE[2]], whole[z])
            assert np.count_nonzero(seen[z]) == np.count_nonzero(whole[z])


FULL = DamageSpec(
    seed=7,
    margin_px=-6,
    shift=ShiftDamage(jitter_px=2, walk_px=1),
    affine=AffineDamage(turn_deg=1, scale=0.01, shear=0.01),
    elastic=ElasticDamage(bend_px=1.5, cell_px=40),
    cracks=CrackDamage(sections=(4,), gap_px=8),
    bad=BadSections(sections=(1, 2, 3, 6, 7, 8, 9)),
)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_box_reads_the_same(phantom: Phantom, data: st.DataObject) -> None:
    damaged = Damaged(phantom, FULL)
    bounds = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in damaged.frame.shape]
    box = Box.of(*zip(*bounds, strict=True))
    assert damaged.labels is not None
    for volume in (damaged.raw, damaged.labels):
        assert np.array_equal(volume.read(box), once(phantom, volume is damaged.raw)[box.slices()])


_ONCE: dict[bool, np.ndarray] = {}


def once(phantom: Phantom, raw: bool) -> np.ndarray:
    if raw not in _ONCE:
        damaged = Damaged(phantom, FULL)
        volume = damaged.raw if raw else damaged.labels
        assert volume is not None
        _ONCE[raw] = volume.read(volume.info.box)
    return _ONCE[raw]


def test_the_same_seed_the_same_damage_also_in_another_process(phantom: Phantom) -> None:
    again = pickle.loads(pickle.dumps(Damaged(phantom, FULL)))
    assert np.array_equal(again.raw.read(again.raw.info.box), once(phantom, True))
    other = Damaged(phantom, FULL.model_copy(update={"seed": 8}))
    assert not np.array_equal(other.raw.read(other.raw.info.box), once(phantom, True))


def test_bad_sections_fail_as_their_kind_says(phantom: Phantom) -> None:
    spec = DamageSpec(bad=FULL.bad)
    damaged, whole = Damaged(phantom, spec), phantom.raw.read(phantom.raw.info.box).astype(float)
    seen = damaged.raw.read(damaged.raw.info.box).astype(float)
    kinds = damaged.bad
    assert list(kinds.values()) == ["blank", "black", "constant", "faint", "blurred", "noisy", "folded"]
    alike = {kinds[z]: np.corrcoef(seen[z].ravel(), whole[z].ravel())[0, 1] for z in kinds if seen[z].std() > 0}
    level = {kinds[z]: (seen[z].mean(), seen[z].std()) for z in kinds}
    assert level["black"] == (0.0, 0.0)
    assert level["constant"][1] == 0.0
    assert level["constant"][0] > 100
    assert abs(alike["blank"]) < 0.1
    assert 5 < level["blank"][1] < 30
    assert alike["faint"] > 0.95
    assert level["faint"][1] < 0.2 * whole[6].std()
    assert 0.1 < alike["blurred"] < 0.8
    assert 0.1 < alike["noisy"] < 0.8
    assert 0.1 < alike["folded"] < 0.9
    assert all(np.array_equal(seen[z], whole[z]) for z in damaged.good)
    assert set(LOST) < set(kinds.values())


def test_a_crack_parts_the_tissue_and_loses_none(phantom: Phantom) -> None:
    spec = DamageSpec(margin_px=24, cracks=CrackDamage(sections=(4,), gap_px=8, turn_deg=0.3))
    damaged = Damaged(phantom, spec)
    assert damaged.labels is not None
    seen, whole = (v.read(Box((4, 0, 0), (1, *v.info.shape[1:]))) for v in (damaged.labels, phantom.labels))
    ids, before = np.unique(whole, return_counts=True)
    after = np.array([np.count_nonzero(seen == i) for i in ids])
    # Nearest neighbours along the tear and a turn of a third of a degree move pixels by less than one.
    assert abs(after.sum() - before.sum()) < 0.005 * before.sum()
    assert (np.abs(after - before) <= 6 + 0.03 * before).all()
    torn = damaged.truth.map(4)
    assert isinstance(torn, Chain)
    assert isinstance(torn.maps[0], Pieces)
    gap = torn.maps[0].parts == 0
    assert set(np.unique(torn.maps[0].parts)) == {0, 1, 2}
    # The line crosses most rows or most columns; it may run askew.
    length = max(np.count_nonzero(gap.any(axis)) for axis in (0, 1))
    assert 0.7 * 8 < np.count_nonzero(gap) / length < 1.5 * 8
    assert not damaged.labels.read(Box((4, 0, 0), (1, *gap.shape)))[0][gap].any()


def test_a_tenth_of_the_sections_fails_none_next_to_another() -> None:
    raw = ArrayVolume(np.zeros((100, 8, 8), np.uint8), GRID)
    for seed in range(5):
        damaged = Damaged(raw, DamageSpec.serial(100, seed))
        bad = list(damaged.bad)
        assert len(bad) == 10
        assert min(np.diff(bad)) > 1
        assert not {0, 99, *damaged.cracked} & set(bad)
        assert len(damaged.good) == 100 - 12


@settings(max_examples=20, deadline=None)
@given(specs, st.floats(-30, 30), st.floats(-30, 30))
def test_the_truth_and_what_differs_by_a_common_shift_have_no_error(spec: DamageSpec, y: float, x: float) -> None:
    truth = Damaged(ArrayVolume(smooth(), GRID), spec).truth
    moved = truth.then(StackMap.of(truth.target, truth.target, [Shift(y, x)] * SHAPE[0]))
    assert displacement_error(truth, truth, gauge="none").p95() < 1e-5
    for gauge in ("shift", "affine"):
        assert displacement_error(moved, truth, gauge=gauge).p95() < 1e-5  # type: ignore[arg-type]
    assert displacement_error(moved, truth, gauge="none").median() == pytest.approx(np.hypot(y, x), abs=1e-5)


def test_a_section_found_one_pixel_off_is_one_pixel_off() -> None:
    truth = Damaged(ArrayVolume(smooth(), GRID), DamageSpec(shift=ShiftDamage(jitter_px=2))).truth
    frame = truth.target
    off = truth.then(StackMap.of(frame, frame, [Shift(0.0, float(z == 5)) for z in range(SHAPE[0])]))
    found = displacement_error(off, truth)
    assert {z: round(e, 6) for z, e in found.per_section().items()} == {z: float(z == 5) for z in range(SHAPE[0])}
    assert np.nanmax(found.neighbours_px, axis=1) == pytest.approx([0, 0, 0, 0, 1, 1, 0, 0, 0])
    assert displacement_error(off, truth, [z for z in range(SHAPE[0]) if z != 5]).p95() < 1e-6


def test_drift_is_an_error_but_hardly_one_between_neighbours() -> None:
    spec = DamageSpec(shift=ShiftDamage(trend_px=(0.0, 0.5)), margin_px=10)
    truth = Damaged(ArrayVolume(smooth(), GRID), spec).truth
    found = displacement_error(StackMap.identity(truth.source), truth)
    assert found.median() == pytest.approx(1.25)
    assert found.median("neighbours") == pytest.approx(0.5)


def test_a_damaged_stack_is_stored_with_its_spec(phantom: Phantom, tmp_path: Path) -> None:
    damaged = Damaged(phantom, FULL)
    write_damaged(damaged, tmp_path / "out")
    stored = open_volume(tmp_path / "out" / "raw.zarr")
    assert np.array_equal(stored.read(stored.info.box), once(phantom, True))
    assert stored.info.grid.matches(damaged.frame.grid)
    assert DamageSpec.load(tmp_path / "out" / "damage.yaml") == FULL
    assert (tmp_path / "out" / "sections.csv").read_text().splitlines()[2] == "1,blank,0"
    again = read_stackmap(tmp_path / "out" / "truth")
    assert all(again.map(z) == damaged.truth.map(z) for z in range(SHAPE[0]))


def test_bad_input_is_named() -> None:
    raw = ArrayVolume(np.zeros((4, 20, 20), np.uint8), GRID)
    with pytest.raises(InputError, match="section 4 cannot be damaged"):
        Damaged(raw, DamageSpec(cracks=CrackDamage(sections=(4,))))
    with pytest.raises(InputError, match="leaves nothing"):
        Damaged(raw, DamageSpec(margin_px=-10))
    with pytest.raises(InputError, match="only zyx raw of uint8"):
        Damaged(ArrayVolume(np.zeros((4, 20, 20), np.float32), GRID), DamageSpec())
    with pytest.raises(InputError, match="not on the grid"):
        Damaged(raw, DamageSpec(), ArrayVolume(np.zeros((4, 20, 20), np.uint64), Grid((40.0, 4.0, 4.0))))
    with pytest.raises(InputError, match="folds sections"):
        DamageSpec.from_dict({"elastic": {"bend_px": 9.0, "cell_px": 50.0}})
    with pytest.raises(InputError, match="read-only"):
        Damaged(raw, DamageSpec()).raw.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint8))
    frame = Damaged(raw, DamageSpec(margin_px=2)).truth
    with pytest.raises(InputError, match="maps of the same stack"):
        displacement_error(StackMap.identity(frame.target), frame)


SYNAPTIC = PhantomSpec(shape=(14, 200, 200), voxel_size_nm=(40, 4, 4), seed=4, neurite_nm=130, synapses=40)


@settings(max_examples=3, deadline=None)
@given(specs)
def test_synapses_move_with_their_neurites(spec: DamageSpec) -> None:
    whole = Phantom(SYNAPTIC)
    damaged = Damaged(whole, spec)
    table, before = damaged.synapses(), whole.synapses()
    labels, clefts = (volume.read(volume.info.box) for volume in (damaged.labels, damaged.clefts))
    grid = damaged.frame.grid
    for points, segments in ((table.pre_nm, table.pre_segments), (table.post_nm, table.post_segments)):
        assert [labels[grid.containing(point)] for point in points] == segments.tolist()
    assert set(np.unique(clefts).tolist()) <= {0, *before.polyads.tolist()}
    row = {int(i): k for k, i in enumerate(before.ids)}
    kept = [row[int(i)] for i in table.ids]
    assert np.allclose(damaged.truth.moved(table.post_nm), before.post_nm[kept], atol=1e-3)
    if spec.margin_px >= 0 and not spec.cracks.sections:
        assert len(table) >= 0.6 * len(before) > 0


def test_synapses_of_an_unharmed_phantom_stay(tmp_path: Path) -> None:
    whole = Phantom(SYNAPTIC)
    damaged = Damaged(whole, DamageSpec())
    write_damaged(damaged, tmp_path / "d")
    before, table = whole.synapses(), read_synapse_table(tmp_path / "d")
    assert len(table) == len(before) > 2
    for name in ("ids", "polyads", "pre_nm", "post_nm", "pre_segments", "post_segments", "sizes_vox"):
        np.testing.assert_array_equal(getattr(table, name), getattr(before, name))
    stored = open_volume(tmp_path / "d" / "clefts.zarr")
    np.testing.assert_array_equal(stored.read(stored.info.box), whole.clefts.read(whole.clefts.info.box))


def test_synapses_nobody_knows_are_asked_for(phantom: Phantom) -> None:
    for whole in (phantom, ArrayVolume(smooth(), GRID)):
        damaged = Damaged(whole, DamageSpec())
        assert damaged.clefts is None
        with pytest.raises(InputError, match="not known"):
            damaged.synapses()
