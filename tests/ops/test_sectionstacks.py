"""Whole stacks, real and grown: planted walks come back with a tenth of the sections defective.

Sections of real stacks are not registered to a fraction of a pixel, so the truth is what was planted plus what the
stack says by itself before anything was planted in it. Whether the two agree is asked of the displacement between
consecutive good sections: a stack has no other scale, as errors add up from section to section.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.doubtfulsections import doubts
from emloom.ops.preparedsections import prepare
from emloom.ops.sectionpositions import Positions, solve_positions
from emloom.ops.sectionshifts import known_links, link, pairs
from emloom.ops.shiftlinks import Links
from emloom.testing.phantom import Phantom, PhantomSpec

F64 = NDArray[np.float64]
MARGIN = 32
STACKS = {
    "isbi2012_cardona": "train_z00-19.h5",
    "vnc_sstem": "stack1_z00-14.h5",
    "snemi3d": "crop512_z00-29.h5",
    "phantom": "",
}


def stack(name: str, folder: Path) -> F64:
    if name == "phantom":
        grown = Phantom(PhantomSpec(shape=(20, 320, 320), voxel_size_nm=(24.0, 8.0, 8.0), seed=2))
        return grown.raw.read(Box((0, 0, 0), (20, 320, 320))).astype(np.float64)
    path = folder / name / STACKS[name]
    if not path.is_file():
        pytest.skip(f"{path} is absent: set EMLOOM_DATA to the folder of the real data")
    with h5py.File(path) as file:
        return np.asarray(file["volumes/raw"][:, :768, :768], np.float64)


def moved(image: F64, by: F64) -> F64:
    fy, fx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None]
    turned = np.fft.rfft2(image) * np.exp(-2j * np.pi * (fy * by[0] + fx * by[1]))
    return np.asarray(np.fft.irfft2(turned, s=image.shape))


def spoil(sections: list[F64], seed: int) -> dict[int, str]:
    """Spoil a tenth of the sections, never two in a row; return how."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, Callable[[F64], F64]] = {
        "blank": lambda s: np.full_like(s, 90.0),
        "black": lambda s: np.zeros_like(s),
        "faint": lambda s: np.round(120 + 0.01 * (s - s.mean()) + rng.normal(0, 0.5, s.shape)),
        "blurred away": lambda s: ndimage.gaussian_filter(s, 25) + rng.normal(0, 5, s.shape),
        "noise": lambda s: rng.normal(128, 40, s.shape),
        "inverted": lambda s: 255 - s,
        "elsewhere": lambda s: np.roll(s[::-1], (s.shape[0] // 3, -s.shape[1] // 3), (0, 1)),
    }
    bad = 1 + rng.choice((len(sections) - 2) // 3, max(1, round(len(sections) / 10)), replace=False) * 3
    chosen = rng.permutation(list(kinds))
    out = {int(z): str(chosen[k % len(chosen)]) for k, z in enumerate(bad)}
    for z, kind in out.items():
        sections[z] = kinds[kind](sections[z])
    return out


@dataclass(frozen=True)
class Found:
    positions: Positions
    links: Links
    why: tuple[str, ...]


def estimated(sections: list[F64]) -> Found:
    prepared = [prepare(np.clip(np.round(s), 0, 255).astype(np.uint8)) for s in sections]
    which = pairs(len(sections))
    links, correlation = known_links(which, [link(prepared[i], prepared[j]) for i, j in which])
    return Found(solve_positions(len(sections), links), links, doubts(prepared, links, correlation))


def steps(shift: F64, bad: dict[int, str], cuts: set[int]) -> F64:
    """Displacements between consecutive good sections, where the stack has not fallen apart between them."""
    good = [z for z in range(len(shift)) if z not in bad]
    joined = [not cuts & set(range(a, b)) for a, b in pairwise(good)]
    return np.diff(shift[good], axis=0)[joined]


@pytest.mark.parametrize("name", list(STACKS))
def test_a_planted_walk_comes_back_with_defective_sections(name: str, request: pytest.FixtureRequest) -> None:
    folder = Path() if name == "phantom" else request.getfixturevalue("real_data")
    raw = stack(name, folder)
    rng = np.random.default_rng(len(raw))
    walk = np.clip(np.cumsum(rng.normal(0, 5, (len(raw), 2)), axis=0), -25, 25)
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    plain = [s[inner] for s in raw]
    planted = [moved(s, by)[inner] for s, by in zip(raw, walk, strict=True)]
    seed = list(STACKS).index(name)
    bad = spoil(plain, seed)
    assert spoil(planted, seed) == bad
    before, after = estimated(plain), estimated(planted)
    cuts = set(before.positions.cuts) | set(after.positions.cuts)
    wrong = steps(after.positions.shift - before.positions.shift + walk, bad, cuts)
    absolute = steps(after.positions.shift + walk, bad, cuts)
    found = np.abs(wrong).ravel()
    own = np.quantile(np.abs(absolute), (0.5, 0.95)).round(2)
    here = np.quantile(found, (0.5, 0.95)).round(2)
    print(f"{name}: error median, 95 %: {here} px; with the stack's own shifts {own} px;")
    print(f"  cuts {sorted(cuts)}; bad {bad}; doubts {[(z, why) for z, why in enumerate(after.why) if why]}")
    assert np.median(found) < 0.3
    # Sections of ISBI that are two apart hardly resemble each other: where one is gone, its neighbours lie loose.
    assert np.quantile(found, 0.95) < 1.0 or (name == "isbi2012_cardona" and np.quantile(found, 0.85) < 1.0)
    assert len(wrong) >= len(raw) - len(bad) - 1 - len(cuts)
    # What has no tissue, or is like nothing around it, is named; a good section never is dead or a stranger.
    for z, kind in bad.items():
        if kind != "elsewhere":
            assert after.why[z], (z, kind)
    for z, why in enumerate(after.why):
        assert z in bad or not set(why.split("; ")) & {
            "no tissue to be seen: constant, or masked",
            "like none of its neighbours",
        }, (z, why)


def test_doubtful_sections_are_named_in_words() -> None:
    raw = stack("phantom", Path())[:8, :256, :256]
    sections = list(raw)
    sections[1] = np.full_like(raw[1], 80)
    sections[3] = np.random.default_rng(0).normal(128, 30, raw[3].shape)
    sections[6] = ndimage.gaussian_filter(raw[6], 3)
    why = estimated(sections).why
    assert why[1] == "no tissue to be seen: constant, or masked"
    assert "like none of its neighbours" in why[3]
    assert why[6].startswith("blurred: detail")
    assert not why[0] + why[2] + why[4]
    assert estimated([raw[0]]).why == ("",)


def test_doubts_name_bad_input() -> None:
    one = [prepare(np.zeros((64, 64)))]
    link_out = Links.of([(0, 1, (0.0, 0.0), 1.0)])
    with pytest.raises(InputError, match="0 correlations"):
        doubts(one, link_out, np.zeros(0))
    with pytest.raises(InputError, match="1 sections"):
        doubts(one, link_out, np.ones(1))
