"""Mending torn sections: planted tears in real stacks and synthetic tissue, the real crack, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.planar import IDENTITY, Affine, Pieces
from emloom.ops.feather import feathered
from emloom.ops.mend import Mended, mend
from emloom.ops.tornparts import Parts, parts_of
from emloom.testing.phantom import Phantom, PhantomSpec
from tests.ops.torn import laid, stack, tissue, torn


def maps_of(side: int) -> tuple[Affine, Affine]:
    """Return maps of the magnitudes of real cracks (5 % shrink, 0.03 shear), shifts scaled to the side."""
    k = side / 1741
    return (
        Affine(((0.992, 0.026, -46.7 * k), (0.015, 0.952, 86.3 * k))),
        Affine(((0.991, 0.025, 17.9 * k), (0.020, 0.946, -41.0 * k))),
    )


def errors(
    mended: Mended, truth: NDArray[np.uint8], where: list[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Return how far each true part's places lie from where they belong; nearly all of them lie in a part."""
    out = []
    for places, there in zip(places_of(truth), where, strict=True):
        away = np.linalg.norm(mended.pieces(places) - there, axis=1)
        assert np.isnan(away).mean() < 0.05
        out.append(away[~np.isnan(away)])
    return out


def places_of(truth: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Return places well inside of both parts."""
    return [np.argwhere(ndimage.minimum_filter(truth, 9) * (truth == k) == k)[::211] + 0.5 for k in (1, 2)]


CASES = [("vnc_sstem", 3), ("isbi2012_cardona", 16), ("snemi3d", 7), ("snemi3d", 11)]


@pytest.mark.parametrize(("name", "z"), CASES)
def test_a_torn_real_section_goes_where_it_would_have_been(real_data: Path, name: str, z: int) -> None:
    before, here, after = stack(real_data, name, z - 1, z + 2)
    maps = maps_of(here.shape[0])
    image, truth = torn(here, maps, 0.42, at=0.45)
    mended = mend(image, [before, after])
    assert mended.parts.count == 2, mended.notes
    assert mended.ok, mended.notes
    belong = [move(places) for move, places in zip(maps, places_of(truth), strict=True)]
    absolute = errors(mended, truth, belong)
    # The stack itself is aligned to a few pixels only: the truth is what its untorn section says of that tissue.
    regions, _ = laid(truth, Pieces(truth, maps))
    own = mend(here, [before, after], parts=Parts(regions, regions == 0, np.zeros_like(regions, np.bool_), ()))
    relative = errors(mended, truth, [one.map(there) for one, there in zip(own.fits, belong, strict=True)])
    for far, near in zip(absolute, relative, strict=True):
        print(
            f"{name} {z}: median and 95th percentile, px: relative {np.percentile(near, (50, 95)).round(2)}",
            end="",
        )
        print(f", absolute {np.percentile(far, (50, 95)).round(2)}")
        assert np.median(near) < 0.3
        assert np.percentile(near, 95) < 1.0
        assert np.percentile(far, 95) < 12
    assert_gap(mended, np.ones(here.shape, np.bool_))


def assert_gap(mended: Mended, expected: NDArray[np.bool_]) -> None:
    """The gap is where no part came to lie, as the map itself says."""
    places = np.argwhere(np.ones(expected.shape, np.bool_))[::97]
    nothing = np.isnan(mended.pieces.inverse()(places + 0.5)).any(1)
    at = tuple(places.T)
    np.testing.assert_array_equal(mended.gap[at], nothing & expected[at])
    assert (mended.section[mended.gap] == 0).all()


def slices(seed: int, shape: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return five sections that have much in common."""
    rng = np.random.default_rng(seed)
    shared = tissue(seed, shape)
    return [
        (0.8 * shared + 0.2 * tissue(seed + 1 + k, shape) + rng.normal(size=shape) * 5)
        .clip(1, 254)
        .astype(np.uint8)
        for k in range(5)
    ]


def test_a_torn_section_of_the_phantom_goes_where_it_was() -> None:
    grown = Phantom(PhantomSpec(shape=(3, 384, 384), voxel_size_nm=(30.0, 8.0, 8.0), seed=3))
    sections = grown.raw.read(Box((0, 0, 0), (3, 384, 384)))
    maps = maps_of(384)
    image, truth = torn(sections[1], maps, 0.35)
    mended = mend(image, [sections[0], sections[2]])
    assert mended.ok, mended.notes
    for far in errors(mended, truth, [m(p) for m, p in zip(maps, places_of(truth), strict=True)]):
        print(f"phantom: median and 95th percentile, px: {np.percentile(far, (50, 95)).round(2)}")
        assert np.median(far) < 0.3
        assert np.percentile(far, 95) < 1.0


@pytest.mark.parametrize("fill", [0, 255, 118])
def test_a_planted_tear_is_mended_to_a_fraction_of_a_pixel(fill: int) -> None:
    sections = slices(fill, (400, 420))
    maps = maps_of(420)
    image, truth = torn(sections[2], maps, -0.3, fill=fill)
    mended = mend(image, [sections[1], sections[3], sections[0], sections[4]])
    assert mended.ok, mended.notes
    for far in errors(mended, truth, [m(p) for m, p in zip(maps, places_of(truth), strict=True)]):
        assert np.median(far) < 0.3
        assert np.percentile(far, 95) < 1.0
    assert all(one.disagreement_px < 1 and one.residual_px < 1 and one.score > 0.5 for one in mended.fits)
    assert_gap(mended, np.ones(image.shape, np.bool_))


def test_a_neighbour_that_does_not_fit_is_not_used_and_one_that_is_displaced_is_outvoted() -> None:
    sections = slices(5, (320, 320))
    maps = maps_of(320)
    image, truth = torn(sections[2], maps, 0.2)
    foreign = tissue(99, (320, 320)).astype(np.uint8)
    displaced = np.roll(sections[0], 40, axis=1)
    mended = mend(image, [sections[1], sections[3], foreign, displaced])
    assert mended.ok, mended.notes
    for one in mended.fits:
        assert [m.ok for m in one.matches[:3]] == [True, True, False]
        assert "fits 2 of 4" in one.how
    for far in errors(mended, truth, [m(p) for m, p in zip(maps, places_of(truth), strict=True)]):
        assert np.percentile(far, 95) < 1.0


def test_what_fits_nowhere_stays_and_is_said_to() -> None:
    image, _ = torn(tissue(1, (240, 240)), maps_of(240), 0.3)
    foreign = tissue(50, (240, 240)).astype(np.uint8)
    mended = mend(image, [foreign])
    assert not mended.ok
    assert mended.pieces.maps == (IDENTITY, IDENTITY)
    np.testing.assert_array_equal(mended.section, np.where(mended.parts.parts > 0, image, 0))
    assert all("stays where it is" in note for note in mended.notes[-3:-1])


def test_without_neighbours_parts_are_found_and_stay() -> None:
    image, _ = torn(tissue(2, (240, 240)), maps_of(240), 0.3)
    mended = mend(image, [])
    assert not mended.ok
    assert mended.parts.count == 2
    assert mended.pieces.maps == (IDENTITY, IDENTITY)
    np.testing.assert_array_equal(mended.gap, mended.parts.gap)
    assert "no neighbour" in mended.notes[1]


def test_shapes_must_agree() -> None:
    image = tissue(3, (100, 100)).astype(np.uint8)
    with pytest.raises(InputError, match="align them first"):
        mend(image, [image[:50]])
    small = np.ones((5, 5), np.uint8)
    with pytest.raises(InputError, match="the same shape"):
        mend(image, [], parts=Parts(small, small == 0, small == 0, ()))


def test_the_torn_section_of_cremi_is_mended_and_filled(real_data: Path) -> None:
    path = real_data / "artifacts" / "cremi_crack" / "im015_warp0.png"
    if not path.is_file():
        pytest.skip(f"no torn section at {path}")
    image = np.ascontiguousarray(imageio.imread(path)[::2, ::2])
    found = parts_of(image)
    # Its neighbours are not at hand: stand-ins close the crack by plausible maps; other tissue fills what is left.
    maps = (
        Affine(((1.004, -0.010, 10.0), (-0.012, 1.030, -40.0))),
        Affine(((0.990, 0.012, -7.0), (0.008, 1.040, 14.0))),
    )
    closed, shown = laid(image, Pieces(found.parts, maps))
    whole = np.where(shown == 0, np.roll(image, 400, axis=1)[::-1], closed)
    whole = np.where(whole == 0, np.roll(whole, 130, axis=0), whole)
    neighbours = []
    for seed, gain in ((1, 0.8), (2, 1.15)):
        noise = np.random.default_rng(seed).normal(size=image.shape) * 8
        neighbours.append((ndimage.gaussian_filter(whole * gain, 0.8) + noise).clip(1, 255).astype(np.uint8))
    mended = mend(image, neighbours, parts=found)
    assert mended.ok, mended.notes
    for number, (fit, true) in enumerate(zip(mended.fits, maps, strict=True), 1):
        places = np.argwhere(found.parts == number)[::997] + 0.5
        assert np.linalg.norm(fit.map(places) - true(places), axis=1).max() < 0.3
    assert 0.02 < mended.gap.mean() < 0.2
    filled = feathered(mended.section, neighbours[0], mended.gap, 6)
    assert (filled == 0).mean() < 0.005, "nothing is left black"
    far = ndimage.distance_transform_edt(~mended.gap) > 7
    np.testing.assert_array_equal(filled[far], mended.section[far])
