"""Links of a report: the command starts a viewer at the error, and links move that viewer and its page."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.errorplaces import Place, places_of
from emloom.tasks.scorereport import write_score_report
from emloom.tasks.scoring import EvaluateSpec, Evaluation, evaluate
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec
from emloom.testing.phantom import PhantomSpec, write_phantom
from emloom.view.neuroglancer import Viewer
from tests.browser import chromium_or_skip, shown
from tests.tasks.links import Links, here, started

PART = Box((4, 8, 10), (20, 48, 48))
SIZE_NM = (16.0, 16.0, 16.0)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluateSpec, Evaluation, str]:
    """The report on a container of fragments over a part of a phantom, and its page."""
    folder = tmp_path_factory.mktemp("scored 'part'")
    spec = PhantomSpec(shape=(28, 64, 64), voxel_size_nm=SIZE_NM, seed=3)
    _, labels = write_phantom(spec, folder, block=(28, 64, 64))
    truth = labels.read(PART)
    noise = np.random.default_rng(0).normal(0, 60, (3, *PART.shape))
    same = np.stack([truth == np.roll(truth, 1, axis) for axis in range(3)])
    affinities = np.clip(np.where(same, 190, 80) + noise, 0, 255).astype(np.uint8)
    grid = Grid(SIZE_NM, tuple(float(a * s) for a, s in zip(PART.start, SIZE_NM, strict=True)))
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    info = VolumeInfo(PART.shape, np.dtype(np.uint8), grid, 3, (20, 24, 24), "affinities", offsets)
    create_volume(folder / "pred.zarr", info).write(info.box, affinities)
    segment(
        SegmentJob(
            affinities=str(folder / "pred.zarr"),
            output=str(folder / "seg.zarr"),
            threshold=0.6,
            min_segment_vox=5,
            segmentation=SegmentSpec(fragments=AscentSpec(), thresholds=(0.3,), cell_shape_vox=(20, 24, 24)),
        )
    )
    job = EvaluateSpec(
        segmentation=str(folder / "seg.zarr"),
        truth=str(folder / "labels.zarr"),
        raw=str(folder / "raw.zarr"),
        output=str(folder / "scores"),
        metrics=("voi",),
        thresholds=3,
    )
    found = evaluate(job)
    return job, found, write_score_report(job, found).read_text(encoding="utf-8")


def check(state: Any, place: Place) -> None:
    """Whether a viewer looks at an error, and selects the object and its pieces alone."""
    expected = [p + o + 0.5 for p, o in zip(place.at, PART.start, strict=True)]
    np.testing.assert_allclose(list(state.position), expected, atol=1e-3)
    whole, parts = ("truth", "segmentation") if place.kind == "split" else ("segmentation", "truth")
    assert set(state.layers[whole].layer.segments) == {place.error.id}
    assert set(state.layers[parts].layer.segments) == set(place.pieces) - {0}


def test_every_error_has_its_own_command_and_link(scored, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, found, page = scored
    places, links = places_of(found.voxels, found.subject, Path(spec.output)), Links(page)
    assert {place.kind for place in places} == {"split", "merge"}
    assert len(links.addresses) == len(links.commands) == len(places)
    for command, place in zip((links.commands[0], links.commands[-1]), (places[0], places[-1]), strict=True):
        with started(command, monkeypatch) as viewer:
            assert [layer.name for layer in viewer.viewer.state.layers] == ["raw", "truth", "segmentation"]
            check(viewer.viewer.state, place)
            for link, other in zip(links.addresses, places, strict=True):
                with urllib.request.urlopen(here(viewer, link), timeout=20) as answer:
                    assert b"<html" in answer.read().lower()
                check(viewer.viewer.state, other)


def test_the_page_shows_the_error_of_the_link(scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = chromium_or_skip()
    spec, found, page = scored
    places, links = places_of(found.voxels, found.subject, Path(spec.output)), Links(page)
    with started(links.commands[0], monkeypatch) as viewer:
        link = here(viewer, links.addresses[-1])
        with shown(program, viewer.viewer, tmp_path / "profile", link) as browser:
            state, picture = browser.seen()
            check(state, places[-1])  # as the page itself says
            assert picture.std() > 10  # and something is drawn
            with urllib.request.urlopen(here(viewer, links.addresses[0]), timeout=20):
                pass
            state, _ = browser.seen()
            check(state, places[0])  # an open page follows
            drawn = {
                name: section(browser, viewer, name, list(state.position)) for name in ("truth", "segmentation")
            }
    at = places[0].at
    truth = open_volume(spec.truth).read(PART)[at[0]]
    segments = open_volume(f"{spec.segmentation}/segmentation").read(Box((0, 0, 0), PART.shape))[at[0]]
    for name, ids, chosen in (
        ("truth", truth, [places[0].error.id]),
        ("segmentation", segments, places[0].pieces),
    ):
        expected = np.isin(ids, np.array([i for i in chosen if i], np.uint64))
        assert expected.any()
        np.testing.assert_array_equal(window(drawn[name], at, expected.shape), expected)


HALF = 48  # voxels that a drawn section shows on each side of its middle


def section(browser: Any, viewer: Viewer, name: str, position: list[float]) -> np.ndarray:
    """Return where a layer alone is coloured, one pixel per voxel, the position in the middle."""
    with viewer.viewer.txn() as state:
        for layer in state.layers:
            layer.visible = layer.name == name
    place = dict(zip("zyx", position, strict=True))
    scale = 3
    size = ((2 * HALF + 1) * scale, (2 * HALF + 1) * scale)
    coloured: np.ndarray = browser.draw("xy", place, size, scale).any(axis=-1)
    return coloured[1::scale, 1::scale]


def window(picture: np.ndarray, at: tuple[int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Return the part of a picture around a voxel that is the section of the segmentation."""
    y, x = HALF - at[1], HALF - at[2]
    return picture[y : y + shape[0], x : x + shape[1]]
