"""Confidence: planted errors come first, whatever the cells, and the list finds its way out and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.nml import read_nml_tracing, write_nml
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table
from emloom.io.volume import VolumeInfo
from emloom.ops.contacts import contacts_of, rows_of_pairs
from emloom.tasks import confidencespec
from emloom.tasks.choicetruth import judged_choices
from emloom.tasks.confidence import confidence
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.lookhere import Place, read_places
from emloom.tasks.resume import result_status, retry
from tests.tasks.orphaned import write_orphan
from tests.tasks.planted_choices import OFFSETS, SHAPE, Planted, planted, write_planted

FILES = (
    "look_here.parquet",
    "look_here.csv",
    "look_here.nml",
    "look_here.json",
    "choices.parquet",
    "segments.parquet",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    folder = tmp_path_factory.mktemp("trust")
    write_planted(folder, planted())
    return folder, planted()


@pytest.fixture(scope="module")
def looked(made: tuple[Path, Planted]) -> Path:
    return confidence(job(made[0], "confidence", raw=str(made[0] / "raw.zarr")))


def job(folder: Path, name: str, **more: object) -> ConfidenceJob:
    words = {"segmentation": str(folder / "seg.zarr"), "output": str(folder / name), **more}
    return ConfidenceJob.from_dict(words, "confidence")


def found_at(places: list[Place], what: Planted) -> list[str]:
    """Return which planted error each place shows."""
    names = []
    for place in places:
        ends = {int(what.labels[place.at]), int(what.labels[place.to])}
        z = what.split[1]
        if tuple(sorted(ends)) in what.merged:
            names.append(f"merge {sorted(ends)}")
        elif ends == {what.split[0]} and {place.at[0], place.to[0]} == {z - 1, z}:
            names.append("split")
        else:
            names.append("")
    return names


def test_planted_errors_come_first_and_are_told_apart(made: tuple[Path, Planted], looked: Path) -> None:
    folder, what = made
    places = read_places(looked)
    names = found_at(places, what)
    planted_names = {"split", *(f"merge {sorted(pair)}" for pair in what.merged)}
    assert len(places) > 20
    assert set(names[:3]) == planted_names
    assert not any(names[3:])
    for place, name in zip(places[:3], names, strict=False):
        assert place.kind == ("split?" if name == "split" else "merge?")
    # Not because they are large: by size they stand elsewhere.
    choices = read_table(looked / "choices.parquet")
    judged = judged_choices(looked, folder / "seg.zarr", str(folder / "truth.zarr"))
    assert judged.wrong.sum() == 3
    size = np.minimum(choices["size_a"], choices["size_b"])
    ranks = np.argsort(np.argsort(-size, kind="stable"))
    assert sorted(ranks[judged.wrong]) != [0, 1, 2]
    assert choices["doubt"][judged.wrong].min() > choices["doubt"][~judged.wrong & (size >= 500)].max()


def test_sides_of_a_place_touch_and_lie_in_its_fragments(made: tuple[Path, Planted], looked: Path) -> None:
    fragments = open_volume(made[0] / "seg.zarr" / "fragments")
    segments = open_volume(made[0] / "seg.zarr" / "segmentation")
    ids, whole = fragments.read(fragments.info.box), segments.read(segments.info.box)
    for place in read_places(looked):
        assert np.abs(np.array(place.at) - np.array(place.to)).sum() == 1
        assert (int(ids[place.at]), int(ids[place.to])) == place.fragments
        assert (int(whole[place.at]), int(whole[place.to])) == place.segments


def test_tiles_are_unsure_where_errors_were_planted(made: tuple[Path, Planted], looked: Path) -> None:
    volume = open_volume(looked / "confidence.zarr")
    assert volume.info.shape == (3, 4, 4)
    assert volume.info.grid.voxel_size_nm == (128.0, 128.0, 128.0)
    sure = volume.read(volume.info.box)
    for place in read_places(looked)[:3]:
        assert sure[tuple(v // 16 for v in place.at)] <= 255 - place.doubt
    assert (sure > 200).any()


def test_the_same_for_any_cells_and_after_a_crash(
    made: tuple[Path, Planted], looked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made[0]
    monkeypatch.setattr(confidencespec, "CELL_VOX", 16)
    small = job(folder, "cells", raw=str(folder / "raw.zarr"))

    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "places" and done == 5:
            raise StopError

    with pytest.raises(StopError):
        confidence(small, on_block=stop)
    assert not (folder / "cells").exists()
    other = confidence(small)
    assert result_status(other, look=True).is_well
    for name in FILES:
        assert (other / name).read_bytes() == (looked / name).read_bytes(), name
    one, two = (open_volume(f / "confidence.zarr") for f in (looked, other))
    np.testing.assert_array_equal(one.read(one.info.box), two.read(two.info.box))
    (other / "look_here.csv").write_text("damaged", encoding="utf-8")
    assert not result_status(other, look=True).is_well
    retry(other, look=True)
    assert (other / "look_here.csv").read_bytes() == (looked / "look_here.csv").read_bytes()


def test_another_prediction_that_disagrees_raises_the_doubt(made: tuple[Path, Planted], looked: Path) -> None:
    folder, what = made
    places = read_places(looked)
    sure = next(p for p in places if p.doubt == 0 and p.kind == "merge?")
    other = what.affinities.copy()
    edges = read_table(looked / "doubts.parquet")
    row = np.flatnonzero((edges["u"] == sure.fragments[0]) & (edges["v"] == sure.fragments[1]))[0]
    fragments = open_volume(folder / "seg.zarr" / "fragments")
    contacts = contacts_of(fragments.read(fragments.info.box), OFFSETS)
    mine = edges["choice"][rows_of_pairs(edges["u"], edges["v"], contacts)] == edges["choice"][row]
    other[(contacts.channel[mine], *contacts.p[mine].T)] = 0
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), what.phantom.labels.info.grid, 3, None, "affinities", OFFSETS)
    create_volume(folder / "other.zarr" / "affinities", info).write(info.box, other)
    again = read_places(confidence(job(folder, "second", second=str(folder / "other.zarr" / "affinities"))))
    there = [p for p in again if p.fragments == sure.fragments]
    assert there
    assert there[0].doubt > 128
    assert there[0].rank < sure.rank
    assert "another prediction has -" in there[0].reason


def test_bad_data_are_listed_and_bring_choices_in_them_into_doubt(
    made: tuple[Path, Planted], looked: Path
) -> None:
    folder, what = made
    bad = np.zeros(SHAPE, np.uint8)
    bad[36:40, 8:24, 8:24] = 1
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), what.phantom.labels.info.grid, kind="mask")
    create_volume(folder / "bad.zarr", info).write(info.box, bad)
    marked = confidence(job(folder, "masked", masks=[str(folder / "bad.zarr")]))
    (place,) = [p for p in read_places(marked) if p.kind == "bad data"]
    assert 32 <= place.at[0] < 48
    assert "1,024 voxels of bad or invented data" in place.reason
    before, after = (read_table(f / "choices.parquet") for f in (looked, marked))
    touched = after["bad"] > 0
    assert touched.any()
    assert (after["doubt"] >= before["doubt"]).all()
    blind = after["bad"] == after["contacts"]
    assert blind.any()
    assert (after["doubt"][blind] >= 127).all()  # nothing is known of them
    some = touched & ~blind
    assert (after["doubt"][some] > before["doubt"][some]).any()
    np.testing.assert_array_equal(after["doubt"][~touched], before["doubt"][~touched])


def test_an_orphan_is_a_segment_inside_and_points_to_where_it_goes_on(tmp_path: Path) -> None:
    segmentation, orphan = write_orphan(tmp_path)
    words = {"segmentation": segmentation, "output": str(tmp_path / "c"), "least_vox": 100}
    made = confidence(ConfidenceJob.from_dict(words, "confidence"))
    (place,) = [p for p in read_places(made) if p.kind == "orphan"]
    assert orphan in place.segments
    assert f"segment {orphan} (" in place.reason
    table = read_table(made / "segments.parquet")
    assert table["segment"][table["orphan"]].tolist() == [orphan]
    assert not any(p.kind == "split?" and p.fragments == place.fragments for p in read_places(made))


@pytest.mark.parametrize(
    ("volume", "summary", "value", "kinds"),
    [
        ("outside.zarr", "align.json", 1, set()),
        ("invented.zarr", "repair.json", 5, set()),
        ("invented.zarr", "repair.json", 4, {"orphan", "bad data"}),
        ("mask.zarr", "qc.json", 1, set()),
        ("mask.zarr", "qc.json", 2, {"orphan", "bad data"}),
    ],
)
def test_where_sections_end_is_a_face_and_no_bad_data(
    tmp_path: Path, volume: str, summary: str, value: int, kinds: set[str]
) -> None:
    segmentation, orphan = write_orphan(tmp_path)
    ids = open_volume(f"{segmentation}/segmentation")
    inside = ids.read(ids.info.box) == orphan
    z, y, x = np.argwhere(inside)[0]
    assert not inside[z - 1, y, x]
    marks = np.zeros(ids.info.shape, np.uint8)
    marks[z - 1, y, x] = value
    info = ids.info.with_(dtype=np.dtype(np.uint8), kind="mask")
    create_volume(tmp_path / "marks" / volume, info).write(info.box, marks)
    (tmp_path / "marks" / summary).write_text("{}")
    words = {"segmentation": segmentation, "least_vox": 100, "masks": [str(tmp_path / "marks")]}
    made = confidence(ConfidenceJob.from_dict({**words, "output": str(tmp_path / "c")}, "confidence"))
    assert {p.kind for p in read_places(made)} - {"merge?", "split?"} == kinds
    table = read_table(made / "segments.parquet")
    assert (orphan in table["segment"][table["orphan"]]) == bool(kinds)


def test_the_tracing_holds_a_question_for_every_place(made: tuple[Path, Planted], looked: Path) -> None:
    places = read_places(looked)
    tracing = read_nml_tracing(looked / "look_here.nml")
    grid = made[1].phantom.labels.info.grid
    assert len(tracing.skeletons.ids) == len(places)
    for k, place in enumerate(places):
        ends = tracing.skeletons.positions_nm[tracing.skeletons.skeletons == k]
        assert [grid.containing(end.tolist()) for end in ends] == [place.at, place.to]
    assert all(text.endswith("merge, split or ok:") for text in tracing.comment_texts())
    state = json.loads((looked / "look_here.json").read_text(encoding="utf-8"))
    (layer,) = state["layers"]
    assert len(layer["annotations"]) == len(places)
    assert layer["annotations"][0]["pointA"] == [v + 0.5 for v in places[0].at[::-1]]


def test_the_page_shows_the_first_places_with_links(looked: Path) -> None:
    text = (looked / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png") >= 13
    assert "emloom view" in text
    assert "Should this segment be split here?" in text


def test_bad_input_says_the_way_out(made: tuple[Path, Planted], tmp_path: Path) -> None:
    folder = made[0]
    with pytest.raises(InputError, match="not finished, or not there"):
        confidence(ConfidenceJob(segmentation=str(tmp_path / "none.zarr"), output=str(tmp_path / "c")))
    with pytest.raises(InputError, match="give uint8 affinities"):
        confidence(job(folder, "wrong", prediction=str(folder / "raw.zarr")))
    shutil.copytree(folder / "seg.zarr", tmp_path / "seg.zarr")
    record = json.loads((tmp_path / "seg.zarr" / "run" / "job.json").read_text(encoding="utf-8"))
    record["job"]["threshold"] = None
    (tmp_path / "seg.zarr" / "run" / "job.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InputError, match="made without a threshold"):
        confidence(job(tmp_path, "c"))
    with pytest.raises(InputError, match=r"holds no look_here\.parquet"):
        read_places(tmp_path)


def test_an_answered_tracing_is_a_table_of_decisions(looked: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from emloom.geometry.tracings import Marks
    from emloom.tasks.lookexport import decisions_in

    tracing = read_nml_tracing(looked / "look_here.nml")
    texts = list(tracing.comment_texts())
    texts[0], texts[1], texts[2] = f"{texts[0]} split", "  Merge ", f"{texts[2]}OK"
    edited = replace(tracing, comments=Marks.of(tracing.comments.rows, content=texts))
    write_nml(tmp_path / "edited.nml", edited)
    found = decisions_in(tmp_path / "edited.nml")
    assert [d.verb for d in found] == ["split", "merge", "ok"]
    texts[3] = f"{texts[3]} spilt"
    write_nml(tmp_path / "typo.nml", replace(tracing, comments=Marks.of(tracing.comments.rows, content=texts)))
    with pytest.raises(InputError, match=r"tree 4 .*'spilt' is unknown; did you mean 'split'"):
        decisions_in(tmp_path / "typo.nml")
