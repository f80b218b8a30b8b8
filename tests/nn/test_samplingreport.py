"""The account of what was drawn agrees with a recount, and adds up."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from emloom.geometry import Box
from emloom.nn.sampling import CropSampler, Draw
from emloom.nn.samplingreport import SamplingReport, look, survey
from emloom.nn.strategies import Balanced, Rejection, SamplingSpec, Uniform
from tests.nn.lots import rng_of, volume_of

CROP = (3, 4, 5)


def sampler_of(spec: SamplingSpec) -> CropSampler:
    labels = np.random.default_rng(0).integers(0, 3, (20, 24, 28)).astype(np.uint8)
    labels[:, :, 14:] = 0
    mask = np.ones(labels.shape, np.uint8)
    mask[:, :3] = 0
    small = volume_of(np.ones((6, 6, 6), np.uint8), weight=0.5)
    return CropSampler([volume_of(labels, mask=mask), small], spec, CROP)


def rng(index: int) -> np.random.Generator:
    return rng_of(3, 0, index)


def drawn(sampler: CropSampler) -> Callable[[int], Draw]:
    return lambda index: sampler.draw(rng(index))


@pytest.mark.parametrize("spec", [Balanced(), Rejection(least_vox=30, tolerate=0.1)], ids=lambda s: s.kind)
def test_parts_add_up_to_the_whole(spec: SamplingSpec) -> None:
    sampler = sampler_of(spec)
    whole = survey(sampler, drawn(sampler), range(60), look_every=3)
    parts = survey(sampler, drawn(sampler), range(20), look_every=3) + survey(
        sampler, drawn(sampler), range(20, 60), look_every=3
    )
    assert parts.to_dict() == whole.to_dict()
    assert parts.line() == whole.line()
    assert whole.to_dict() != survey(sampler, drawn(sampler), range(60)).to_dict()


def test_figures_are_those_of_a_recount() -> None:
    sampler = sampler_of(Balanced())
    draws = [sampler.draw(rng(i)) for i in range(80)]
    row = survey(sampler, drawn(sampler), range(80), look_every=1).to_dict()
    assert json.loads(json.dumps(row)) == row
    assert row["draws"] == row["looked_at"] == 80
    assert [v["draws"] for v in row["volumes"]] == [sum(d.source == s for d in draws) for s in (0, 1)]
    assert row["mean_tries"] == np.mean([d.tries for d in draws])
    for reason, share in row["reasons"].items():
        assert share == np.mean([d.reason == reason for d in draws])
    values = []
    for draw in draws:
        volume, box = sampler.volumes[draw.source], Box(draw.start, CROP)
        known = np.ones(CROP, bool) if volume.mask is None else volume.mask.read(box) != 0
        values.append(volume.labels.read(box)[known])
    every = np.concatenate(values)
    assert row["class_shares"] == {str(c): np.mean(every == c) for c in (0, 1, 2)}
    assert row["foreground_share"] == np.mean(every != 0)


def test_coverage_is_what_crops_touched_of_what_they_can_touch() -> None:
    held = Box((0, 0, 20), (40, 40, 20))
    volume = volume_of(np.zeros((40, 40, 40), np.uint8), held_out=(held,))
    sampler = CropSampler([volume], Uniform(), (8, 8, 8))
    report = SamplingReport(sampler)
    assert report.coverage(0) == 0
    touched = np.zeros((40, 40, 40), bool)
    for start in [(0, 0, 0), (32, 30, 12), (5, 5, 5)]:
        report.add(Draw(0, start, 1, "uniform"))
        touched[Box(start, (8, 8, 8)).slices()] = True
    cells = touched.reshape(40, 40, 40)[:39, :39, :39].reshape(13, 3, 13, 3, 13, 3).any(axis=(1, 3, 5))
    cells = np.pad(cells, (0, 1))  # the last cell of each axis is one voxel thick: region 40, cells of 3
    cells[13, :13, :13] = touched[39, :39, :39].reshape(13, 3, 13, 3).any(axis=(1, 3))
    assert not touched[:, 39].any()
    reachable = 14 * 14 * 7  # x 0:20 touches the cells 0..6
    assert report.coverage(0) == pytest.approx(cells.sum() / reachable)
    for start in np.ndindex(5, 5, 3):
        report.add(Draw(0, tuple(min(8 * i, n) for i, n in zip(start, (32, 32, 12), strict=True)), 1, "uniform"))  # type: ignore[arg-type]
    assert report.coverage(0) == 1


def test_the_line_says_what_happened() -> None:
    sampler = sampler_of(Rejection(least_vox=30, tolerate=0.1))
    empty = SamplingReport(sampler)
    assert empty.line() == "0 crops (none); by volume 0/0"
    assert empty.to_dict()["mean_tries"] is None
    line = survey(sampler, drawn(sampler), range(30), look_every=5).line()
    assert line.startswith("30 crops (suitable ")
    assert "tries each; covering" in line
    assert "% foreground" in line


def test_reports_of_different_jobs_do_not_add_up() -> None:
    a, b = (
        SamplingReport(sampler_of(Uniform())),
        SamplingReport(CropSampler([volume_of(np.ones(CROP))], Uniform(), CROP)),
    )
    with pytest.raises(ValueError, match="do not add up"):
        _ = a + b


def test_looking_counts_known_voxels_only() -> None:
    labels = np.full((4, 4, 4), 2, np.uint8)
    mask = np.ones_like(labels)
    mask[0] = 0
    sampler = CropSampler([volume_of(labels, mask=mask)], Balanced(classes=(2,)), (4, 4, 4))
    seen = look(sampler, sampler.draw(rng(0)))
    assert (seen.known, seen.foreground, seen.classes) == (48, 48, {2: 48})
