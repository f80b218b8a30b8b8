"""The round trip of `emloom.testing.roundtrip`: what was found and invented, and what segments lose on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.io.stackmaps import read_stackmap
from emloom.ops.labels import split_disconnected
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob, ShiftModel
from emloom.tasks.repairspec import BEYOND
from emloom.testing.damagespec import DamageSpec
from emloom.testing.displacement import displacement_error
from emloom.testing.roundtrip import LOST, TORN, RoundTrip, trained, whole

WITHIN = 0.02
"""Share of the score that may be lost."""


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> RoundTrip:
    return RoundTrip(tmp_path_factory.mktemp("roundtrip"))


def test_sections_are_found_where_they_were(trip: RoundTrip, tmp_path: Path) -> None:
    """Tissue that runs obliquely looks like drift: found as well where nothing moved, and not what was planted."""
    still = RoundTrip(tmp_path, damage=DamageSpec(margin_px=trip.damage.margin_px, bad=trip.damage.bad))
    maps = []
    for number, stack in enumerate((trip, still)):
        # By parts of pixels: whole ones, of both, would round what is compared.
        output = str(tmp_path / f"aligned-{number}")
        align(AlignJob(raw=stack.path("damaged/raw.zarr"), output=output, model=ShiftModel(subpixel=True)))
        maps.append(read_stackmap(output))
    truth = trip.damaged.truth.then(still.damaged.truth.inverse()).then(maps[1])
    found = displacement_error(maps[0], truth, trip.damaged.good)
    assert found.median("neighbours") < 0.6
    assert found.p95("neighbours") < 1.5


def test_one_map_leads_from_the_repaired_stack_to_the_raw(trip: RoundTrip) -> None:
    whole_way = read_stackmap(trip.fixed)
    assert whole_way.source == trip.damaged.frame
    assert all(whole_way.home(z) == z for z in range(trip.labels.shape[0]))


def test_segments_of_a_perfect_network_come_back(trip: RoundTrip) -> None:
    # What a perfect network and a perfect agglomeration make of what was seen: pieces that touch.
    back = trip.back("oracle", split_disconnected(whole(f"{trip.fixed}/labels.zarr")), trip.fixed)
    blind = split_disconnected(np.where(trip.seen, trip.labels, 0))
    assert trip.score(back, only_seen=True) > 1 - WITHIN
    assert trip.score(back) > 1 - WITHIN
    assert trip.score(blind) < 0.8


def test_what_is_invented_is_said(trip: RoundTrip) -> None:
    codes = whole(f"{trip.fixed}/invented.zarr")
    share = ((codes > 0) & (codes != BEYOND)).mean((1, 2))
    assert all(share[z] > 0.5 for z in LOST)
    assert all(0.01 < share[z] < 0.5 for z in TORN)
    assert np.median(np.delete(share, [*LOST, *TORN])) < 0.02
    outside = whole(f"{trip.path('aligned')}/outside.zarr")
    assert ((codes == BEYOND) <= (outside != 0)).all()
    back = trip.back("codes", np.where(codes == BEYOND, 0, codes), trip.fixed)
    assert (back[list(LOST)] > 0).mean() > 0.9


@pytest.mark.slow
def test_a_repaired_stack_is_segmented_as_well_as_an_undamaged_one(trip: RoundTrip, tmp_path: Path) -> None:
    model = trained(tmp_path, steps=300)
    for only_seen in (True, False):
        undamaged, restored, naive = trip.network_scores(model, tmp_path, only_seen)
        assert undamaged > 0.9
        assert naive < 0.92 * undamaged
        assert restored > (1 - WITHIN) * undamaged
