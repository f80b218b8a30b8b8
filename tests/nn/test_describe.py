"""Words about a plan are those of its output: what happens in the context around it is not said."""

from __future__ import annotations

import pytest

from emloom.nn.describe import describe, sections_hit
from emloom.nn.draw import Frame
from emloom.nn.plan import (
    Artifact,
    Blur,
    Fold,
    Hidden,
    LowContrast,
    Missing,
    Motion,
    Noise,
    SamplePlan,
    SectionMoves,
    Tone,
    Warp,
)

FRAME = Frame((4, 10, 10), (2, 5, 5), (40.0, 4.0, 4.0))
WHOLE = (0, 20, 0, 20)
STILL = ((0, 0),) * 8


def plan(**given: object) -> SamplePlan:
    return SamplePlan.model_validate({"source": 0, "start": (0, 0, 0), **given})


def fold(section: int, moves_labels: bool = False) -> Fold:
    return Fold(
        section=section, normal=(0.0, 1.0), c=9.0, strength_vox=5.0, width_vox=3.0, moves_labels=moves_labels
    )


def moves(*where: tuple[int, int]) -> SectionMoves:
    return SectionMoves(raw=where, labels=where)


@pytest.mark.parametrize(
    ("given", "words", "sections"),
    [
        ({}, ["as it lies in the volume"], []),
        ({"flips": (True, False, True)}, ["flipped along z, x"], []),
        ({"order": (0, 2, 1)}, ["axes z, y, x run along z, x, y of the volume"], []),
        ({"warp": Warp(rotation_deg=40.2, scale=0.9)}, ["turned by 40°", "scaled by 0.90"], []),
        ({"noise": Noise(sigma=0.03, seed=1)}, ["noise of 0.03"], []),
        ({"defects": (Missing(section=3, area=WHOLE, value=None),)}, ["z 1 missing"], [1]),
        ({"defects": (Missing(section=1, area=WHOLE, value=None),)}, ["as it lies in the volume"], []),
        ({"defects": (Missing(section=6, area=WHOLE, value=None),)}, ["as it lies in the volume"], []),
        ({"defects": (Missing(section=3, area=(0, 5, 0, 20), value=0.1),)}, ["as it lies in the volume"], []),
        (
            {"defects": tuple(LowContrast(section=2, area=a, scale=0.1) for a in ((0, 9, 0, 9), (9, 20, 0, 9)))},
            ["z 0 at 10% of its contrast in part"],
            [0],
        ),
        ({"defects": (Blur(section=5, area=WHOLE, sigma_vox=(2.0, 2.0)),)}, ["z 3 blurred, sigma 8 nm"], [3]),
        ({"defects": (Motion(section=4, area=WHOLE, step_vox=(3.0, 4.0)),)}, ["z 2 blurred along 20 nm"], [2]),
        (
            {"defects": (Artifact(section=4, number=7, source=(0, 0), area=(3, 9, 3, 9)),)},
            ["z 2 with artifact 7"],
            [2],
        ),
        (
            {"defects": tuple(Hidden(start=(z, 6, 6), shape=(1, 2, 2), value=0.0) for z in (0, 2, 3))},
            ["2 hidden boxes"],
            [],
        ),
        ({"folds": (fold(2), fold(7))}, ["z 0 folded: 40 nm hidden (raw only), band of 12 nm"], [0]),
        ({"folds": (fold(3, True),)}, ["z 1 folded: 40 nm hidden (raw and labels), band of 12 nm"], [1]),
        (
            {"moves": moves(*STILL[:3], (2, -3), *STILL[4:])},
            ["moved against the section before: z 1 by (8, -12) nm, z 2 by (-8, 12) nm"],
            [1, 2],
        ),
        # The first section of the output has none before it that is seen.
        ({"moves": moves(*STILL[:2], *((1, 1),) * 6)}, ["as it lies in the volume"], [0]),
        (
            {"tone": Tone(contrast=(9.0, 9.0, *(0.5,) * 4, 9.0, 9.0), brightness=(0.1,) * 8, gamma=(1.0,) * 8)},
            ["contrast 0.50, brightness +0.10, gamma 1.00"],
            [],
        ),
        (
            {"tone": Tone(contrast=(1.0,) * 8, brightness=(0.0,) * 8, gamma=(1, 1, 1, 1.5, 2, 1, 3, 1))},
            ["contrast 1.00, brightness +0.00, gamma 1.00 to 2.00"],
            [],
        ),
    ],
)
def test_a_plan_in_words(given: dict[str, object], words: list[str], sections: list[int]) -> None:
    assert describe(plan(**given), FRAME) == words
    assert sections_hit(plan(**given), FRAME) == sections


def test_long_lists_of_moves_are_cut() -> None:
    frame = Frame((9, 10, 10), (0, 0, 0), (40.0, 4.0, 4.0))
    (words,) = describe(plan(moves=moves(*((z, 0) for z in range(9)))), frame)
    assert words.endswith("z 4 by (4, 0) nm and 4 more")
