"""The laws of planting: the same bytes each time, nothing else is touched, labels say what can be seen."""

from __future__ import annotations

from functools import cache

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.nn.plantdraws import DRAWS
from emloom.nn.planting import PlantSpec, carry_out, draw, plant
from emloom.ops.artifacts import KINDS, apply, paint
from emloom.ops.tears import Course, Crack
from emloom.ops.visibility import AROUND_NM, noise_of, noticed
from emloom.testing.phantom import Phantom, PhantomSpec

VOXEL_NM = (30.0, 8.0, 8.0)

shapes = st.tuples(st.integers(1, 4), st.integers(6, 70), st.integers(6, 70))
voxels_nm = st.tuples(st.just(30.0), *[st.floats(2.0, 64.0)] * 2)
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**40)


def random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@cache
def stack() -> np.ndarray:
    """Three sections of synthetic neuropil."""
    spec = PhantomSpec(shape=(3, 128, 128), voxel_size_nm=VOXEL_NM)
    raw = Phantom(spec).raw.read(Box.whole((3, 128, 128)))
    return raw.astype(np.float32) / 127.5 - 1


def tissue(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Something with structure and noise, of any shape."""
    z, y, x = np.indices(shape)
    wave = np.sin(0.3 * y + z) * np.cos(0.2 * x - 0.1 * y)
    return (0.5 * wave + random(seed).normal(0.0, 0.1, shape)).astype(np.float32).clip(-1, 1)


def only(kind: str, **fields: object) -> PlantSpec:
    return PlantSpec.from_dict({"probability": 1, "neighbours": 0, "kinds": [kind], "noise": 0, **fields})


@settings(max_examples=100)
@given(shape=shapes, voxel_nm=voxels_nm, kind=kinds, seed=seeds, data=st.data())
def test_one_section_changes_within_bounds_and_the_same_way_each_time(shape, voxel_nm, kind, seed, data):
    middle = data.draw(st.integers(0, shape[0] - 1))
    before = tissue(shape)
    after, again = before.copy(), before.copy()
    (planted,) = plant(only(kind), after, middle, voxel_nm, random(seed))
    (other,) = plant(only(kind), again, middle, voxel_nm, random(seed))
    assert after.tobytes() == again.tobytes()
    assert (planted.kind, planted.section, planted.artifact) == (kind, middle, other.artifact)
    np.testing.assert_array_equal(planted.mask, other.mask)
    assert planted.mask.shape == planted.moved.shape == shape[1:]
    assert planted.mask.dtype == planted.moved.dtype == bool
    assert not (planted.mask & planted.moved).any()
    beside = np.arange(shape[0]) != middle
    assert after[beside].tobytes() == before[beside].tobytes()
    assert np.isfinite(after).all()
    assert np.abs(after).max() < 2 + 6 * noise_of(before[middle])


@settings(max_examples=100)
@given(shape=shapes, voxel_nm=voxels_nm, kind=kinds, seed=seeds)
def test_every_noticed_change_is_accounted_for(shape, voxel_nm, kind, seed):
    """Damage covers what stands out from sound tissue; damage and moved together what stands out from before."""
    before, spacing = tissue(shape)[0], voxel_nm[1:]
    ((_, artifact),) = draw(only(kind), (1, *shape[1:]), 0, voxel_nm, random(seed)).artifacts
    image, cover, sound = paint(artifact, before, spacing)
    assert np.isfinite(image).all()
    assert 0 <= cover.min() <= cover.max() <= 1
    section = before.copy()
    seen = apply(artifact, section, spacing)
    sigma = noise_of(before)
    image = np.where(image == before, before, image.clip(-2, 2))
    assert seen.damage[noticed(sound, image, spacing, sigma)].all()
    if kind not in ("fold", "crack"):
        np.testing.assert_array_equal(sound, before)
        assert not seen.moved.any()
    untouched = (image == before) & (cover == 0)
    np.testing.assert_array_equal(section[untouched], before[untouched])
    assert (seen.damage | seen.moved)[noticed(before, sound, spacing, sigma)].all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_seen_most_of_the_time(kind):
    shares = []
    for seed in range(40):
        sections = stack().copy()
        (planted,) = plant(only(kind), sections, 1, VOXEL_NM, random(seed))
        shares.append(planted.mask.mean())
    assert np.median(shares) > 0.005
    assert np.mean(np.array(shares) > 0) >= 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_damage_lies_where_something_changed(kind):
    """A mask reaches no further than voxels are taken together for it."""
    before, spacing = stack()[1], VOXEL_NM[1:]
    reach = [2 * round(AROUND_NM / s) + 1 for s in spacing]
    for seed in range(10):
        ((_, artifact),) = draw(only(kind), (3, 128, 128), 1, VOXEL_NM, random(seed)).artifacts
        image, _, sound = paint(artifact, before, spacing)
        damage = apply(artifact, before.copy(), spacing).damage
        assert not (damage & ~ndimage.maximum_filter(image != sound, reach)).any(), seed


def test_neighbours_alone_leave_the_middle_untouched_bit_for_bit():
    spec = PlantSpec(probability=0, neighbours=1, noise=0)
    for seed in range(20):
        sections = stack().copy()
        planted = plant(spec, sections, 1, VOXEL_NM, random(seed))
        assert [p.section for p in planted] == [0, 2]
        assert sections[1].tobytes() == stack()[1].tobytes()


def test_with_nothing_to_do_nothing_is_done():
    sections = stack().copy()
    assert plant(PlantSpec(probability=0, neighbours=0, noise=0), sections, 0, VOXEL_NM, random(0)) == ()
    assert sections.tobytes() == stack().tobytes()


def test_artifacts_come_as_often_as_asked_for_and_kinds_by_their_share():
    spec = PlantSpec(probability=0.4, neighbours=0.1, kinds=("fold", "hole", "hole"))
    n = 3000
    drawn = [draw(spec, (3, 64, 64), 1, VOXEL_NM, random(seed)).artifacts for seed in range(n)]
    middle = [a.kind for artifacts in drawn for section, a in artifacts if section == 1]
    beside = sum(section != 1 for artifacts in drawn for section, _ in artifacts)
    assert len(middle) / n == pytest.approx(0.4, abs=4 * (0.24 / n) ** 0.5)
    assert beside / (2 * n) == pytest.approx(0.1, abs=4 * (0.09 / (2 * n)) ** 0.5)
    share = middle.count("hole") / len(middle)
    assert share == pytest.approx(2 / 3, abs=4 * (2 / 9 / len(middle)) ** 0.5)


def test_noise_is_shared_by_planted_and_clean_sections():
    spec = PlantSpec(probability=1, neighbours=0, kinds=("missing",), noise=0.2)
    planting = draw(spec, (3, 128, 128), 1, VOXEL_NM, random(1))
    quiet, noisy = np.zeros((3, 128, 128), np.float32), np.zeros((3, 128, 128), np.float32)
    carry_out(type(planting)(planting.artifacts, 0.0, planting.seed), quiet, VOXEL_NM)
    carry_out(planting, noisy, VOXEL_NM)
    for section in noisy - quiet:
        assert section.std() == pytest.approx(planting.noise, rel=0.05)


def test_grain_of_what_is_painted_is_that_of_the_section():
    """Nobody can tell an artifact by the lack of noise: that of a hole and of a blur is the tissue's."""
    sigma = 0.15
    flat = random(0).normal(0.0, sigma, (1, 256, 256)).astype(np.float32)
    for kind, fields in (("hole", {}), ("blur", {"blur_nm": (100, 100)}), ("low_contrast", {})):
        measured = []
        for seed in range(12):
            section = flat.copy()
            ((_, artifact),) = draw(only(kind, **fields), (1, 256, 256), 0, (30, 8, 8), random(seed)).artifacts
            cover = paint(artifact, section[0], (8, 8)).cover
            plant(only(kind, **fields), section, 0, (30, 8, 8), random(seed))
            inside = np.asarray(cover > 0.7)
            if inside.sum() > 400:
                rows = section[0][:, 1:] - section[0][:, :-1]
                measured.append(rows[inside[:, 1:] & inside[:, :-1]].std() / 2**0.5)
        assert np.median(measured) == pytest.approx(sigma, rel=0.35)


def test_moved_tissue_keeps_its_noise():
    """Between voxels noise is averaged away; nobody can tell a fold or crack by flanks that are too smooth."""
    sigma = 0.15
    flat = random(0).normal(0.0, sigma, (1, 256, 256)).astype(np.float32)
    for kind in ("fold", "crack"):
        measured = []
        for seed in range(12):
            section = flat.copy()
            ((_, artifact),) = draw(only(kind), (1, 256, 256), 0, (30, 8, 8), random(seed)).artifacts
            image, _, sound = paint(artifact, section[0], (8, 8))
            flank = (sound != section[0]) & (image == sound)
            apply(artifact, section[0], (8, 8))
            if flank.sum() > 400:
                measured.append(section[0][flank].std())
        assert len(measured) >= 4
        assert np.median(measured) == pytest.approx(sigma, rel=0.1)


def test_what_a_program_filled_in_is_constant_branches_and_all():
    course = Course((1024.0, 1024.0), 0.4, 10.0, 50.0, 900.0, 3000.0)
    branches = ((300.0, 0.8, 0.5), (-200.0, -0.9, 0.4))
    for texture in (0.0, 0.1):
        crack = Crack(course, 200.0, 300.0, 0.5, -1.0, texture, 0.0, branches, 7)
        section = tissue((1, 256, 256))[0].clip(-0.8, 0.8)
        gap = paint(crack, section, (8, 8)).image < -0.9
        apply(crack, section, (8, 8))
        black = np.abs(section + 1) < 1e-5
        if texture == 0:
            assert (gap & black).sum() > 0.8 * gap.sum()
        else:
            assert black.sum() < 20


def test_the_same_artifact_looks_alike_at_any_voxel_size():
    """Lengths are nm: the mask of a fold has the same extent, whether voxels are fine or coarse."""
    for kind in ("fold", "crack", "debris", "hole", "missing"):
        extents = []
        for size in (8.0, 16.0):
            n = int(2048 / size)
            y, x = np.indices((n, n)) * size
            section = (0.3 * np.sin(y / 70) * np.cos(x / 90)).astype(np.float32)
            # The draw is made once, for the coarser voxels: widths have a least number of voxels.
            ((_, artifact),) = draw(only(kind), (1, 128, 128), 0, (30, 16, 16), random(5)).artifacts
            extents.append(float(apply(artifact, section, (size, size)).damage.mean()))
        assert extents[1] == pytest.approx(extents[0], rel=0.25, abs=0.004), kind


def test_what_cannot_be_planted_on_is_refused():
    good = np.zeros((3, 8, 8), np.float32)
    for bad in (good.astype(float), good[0], good[:, :, ::2]):
        with pytest.raises(InputError, match="contiguous, writeable float32"):
            plant(PlantSpec(), bad, 0, VOXEL_NM, random(0))
    for middle in (-1, 3):
        with pytest.raises(InputError, match="give 0 to 2"):
            plant(PlantSpec(), good, middle, VOXEL_NM, random(0))
    with pytest.raises(InputError, match="have no size"):
        plant(PlantSpec(), good, 0, (30, 0, 8), random(0))
    with pytest.raises(InputError, match="smaller value first"):
        PlantSpec.from_dict({"size_nm": [10, 5]})
    with pytest.raises(InputError, match="name at least one"):
        PlantSpec.from_dict({"kinds": []})


def test_every_kind_can_be_drawn_and_specs_round_trip():
    assert set(DRAWS) == set(KINDS)
    spec = PlantSpec(kinds=("fold", "fold", "stain"), size_nm=(100, 900))
    assert PlantSpec.from_yaml(spec.to_yaml()) == spec
    assert PlantSpec(kinds=("fold",)).margin_nm == 0
    assert PlantSpec().margin_nm == PlantSpec().shift_nm[1]


@pytest.mark.real_data
def test_every_kind_is_seen_on_real_tissue(real_data):
    with h5py.File(real_data / "snemi3d/crop512_z00-29.h5") as file:
        clean = file["volumes/raw"][10:13, :160, :160].astype(np.float32) / 127.5 - 1
    for kind in KINDS:
        seen = []
        for seed in range(20):
            sections = clean.copy()
            (planted,) = plant(only(kind), sections, 1, (30, 6, 6), random(seed))
            seen.append(planted.mask.any())
            assert np.isfinite(sections).all()
        assert np.mean(seen) >= 0.75, kind
