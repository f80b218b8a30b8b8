"""CREMI submissions: what is written, what h5py sees, and what the validator finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import CLEFTS, INVALID, NEURON_IDS, TRANSPARENT, read_annotations, write_annotations
from emloom.io.open import open_volume, staged_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.clefts import cleft_scores
from emloom.metrics.partnerpairs import PartnerPairs
from emloom.metrics.partners import partner_scores
from emloom.tasks.submission import SubmitSpec, submit, validate_submission

CREMI = (40.0, 4.0, 4.0)
PADDED = Grid(CREMI, (400.0, 40.0, 40.0))
SHAPE = (3, 10, 12)
OFFSET = (480.0, 80.0, 60.0)  # voxel (2, 10, 5) of the prediction


def stored(path: Path, array: np.ndarray, kind: str = "labels", grid: Grid = PADDED) -> str:
    info = VolumeInfo(array.shape, array.dtype, grid, kind=kind)  # type: ignore[arg-type]
    with staged_volume(path, info) as volume:
        volume.write(info.box, array)
    return str(path)


def sites(world: tuple[float, ...] = OFFSET) -> Annotations:
    return Annotations(
        ids=np.array([5, 2**40, 9], np.uint64),
        types=(PRE, POST, POST),
        locations_nm=np.array([[0, 4.5, 8], [80, 36, 44], [40, 0, 0]]) + np.array(world),
        partners=np.array([[5, 9], [5, 2**40]], np.uint64),
        comment_ids=np.array([9], np.uint64),
        comments=("unsure",),
    )


@pytest.fixture
def prediction(tmp_path: Path) -> dict[str, Any]:
    """Predictions on a padded volume, in three formats, and the arrays behind them."""
    rng = np.random.default_rng(0)
    clefts = (rng.random((6, 25, 20)) < 0.1).astype(np.uint8)
    ids = rng.integers(0, 9, (6, 25, 20)).astype(np.uint32)
    write_annotations(tmp_path / "sites.h5", sites())
    return {
        "clefts": stored(tmp_path / "clefts.zarr", clefts, "mask"),
        "neuron_ids": stored(tmp_path / "ids.n5" / "seg", ids),
        "annotations": str(tmp_path / "sites.h5"),
        "arrays": (clefts, ids),
    }


def spec(tmp_path: Path, prediction: dict[str, Any], **changes: Any) -> SubmitSpec:
    given = {k: v for k, v in prediction.items() if k != "arrays"}
    fields = {"target": str(tmp_path / "out.h5"), "shape": SHAPE, "offset_nm": OFFSET, **given, **changes}
    return SubmitSpec(**fields)


@pytest.mark.parametrize(("offsets", "place"), [("zero", (0, 0, 0)), ("kept", OFFSET)])
def test_what_is_written(
    tmp_path: Path, prediction: dict[str, Any], offsets: str, place: tuple[float, ...]
) -> None:
    told: list[tuple[int, int]] = []
    report = submit(spec(tmp_path, prediction, offsets=offsets), lambda *at: told.append(at))
    assert report.validation.ok
    assert {f.level for f in report.validation.findings} == {"ok"}
    assert "3 x 10 x 12 voxels" in report.to_text()
    assert told[-1][0] == told[-1][1] == len(told)
    clefts, ids = (a[2:5, 10:20, 5:17] for a in prediction["arrays"])
    with h5py.File(tmp_path / "out.h5") as h5:
        assert h5.attrs["file_format"] == "0.2"
        for name in (CLEFTS, NEURON_IDS):
            assert h5[name].dtype == np.uint64
            assert h5[name].attrs["resolution"].tolist() == list(CREMI)
            assert h5[name].attrs["offset"].tolist() == list(place)
        np.testing.assert_array_equal(h5[CLEFTS][:], np.where(clefts == 0, np.uint64(TRANSPARENT), np.uint64(1)))
        np.testing.assert_array_equal(h5[NEURON_IDS][:], ids)
        group = h5["annotations"]
        assert group.attrs["offset"].tolist() == list(place)
        assert group["ids"][:].tolist() == [5, 2**40, 9]
        assert group["ids"].dtype == np.uint64
        assert [t.decode() for t in group["types"][:]] == [PRE, POST, POST]
        np.testing.assert_allclose(group["locations"][:], [[0, 4.5, 8], [80, 36, 44], [40, 0, 0]], atol=1e-9)
        assert group["presynaptic_site/partners"][:].tolist() == [[5, 9], [5, 2**40]]
        assert group["comments/target_ids"][:].tolist() == [9]
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_submission_of_the_truth_is_perfect(tmp_path: Path, prediction: dict[str, Any]) -> None:
    """Written, read back through emloom's own reader and scored against where it came from."""
    submit(spec(tmp_path, prediction, offsets="kept"))
    clefts, ids = (a[2:5, 10:20, 5:17] for a in prediction["arrays"])
    volume = open_volume(tmp_path / "out.h5" / CLEFTS)
    scores = cleft_scores(clefts, volume.read(Box.whole(SHAPE)), CREMI, zero_is_background=True)
    assert (scores.cremi_score_nm, scores.f1) == (0, 1)
    with h5py.File(tmp_path / "out.h5") as h5:
        raw = np.where(clefts == 0, np.uint64(TRANSPARENT), np.uint64(7))
        assert cleft_scores(raw, h5[CLEFTS][:], CREMI).cremi_score_nm == 0
    pairs = [
        PartnerPairs.from_sites(a.ids, a.locations_nm, a.partners)
        for a in (sites(), read_annotations(tmp_path / "out.h5"))
    ]
    assert partner_scores(*pairs, ids, Grid(CREMI, OFFSET)).fscore == 1


def test_parts_are_enough(tmp_path: Path, prediction: dict[str, Any]) -> None:
    alone = {"clefts": None, "neuron_ids": None, "annotations": None}
    whole = {"shape": None, "offset_nm": None}
    submit(spec(tmp_path, prediction, **{**alone, **whole, "clefts": prediction["clefts"]}))
    assert open_volume(tmp_path / "out.h5" / CLEFTS).info.shape == (6, 25, 20)
    change = {**alone, "annotations": prediction["annotations"], "overwrite": True}
    report = submit(spec(tmp_path, prediction, **change))
    assert [f.what for f in report.validation.findings] == ["annotations"]
    with h5py.File(tmp_path / "out.h5") as h5:
        assert list(h5) == ["annotations"]


def test_clefts_of_a_cremi_file_keep_their_ids(tmp_path: Path, prediction: dict[str, Any]) -> None:
    source = tmp_path / "in.h5" / CLEFTS
    labels = prediction["arrays"][0].astype(np.uint64) * np.uint64(2**40)
    submit(spec(tmp_path, prediction, clefts=stored(source, labels)))
    with h5py.File(tmp_path / "out.h5") as h5:
        assert np.unique(h5[CLEFTS][:]).tolist() == [2**40, TRANSPARENT]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (30, 10, 12)}, r"covers box.*predict all of it"),
        ({"offset_nm": (490.0, 80.0, 60.0)}, "lies between voxels"),
        ({"offset_nm": (400.0, 40.0, 20.0)}, "predict all of it"),
        ({"offset_nm": (4000.0, 40.0, 40.0), "shape": None}, "ends before"),
        ({"voxel_size_nm": (40.0, 4.0, 8.0)}, "resample the prediction"),
        ({"shape": (2, 10, 12)}, r"1 lie outside the volume of \(2, 10, 12\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(
    tmp_path: Path, prediction: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        submit(spec(tmp_path, prediction, **changes))
    assert not (tmp_path / "out.h5").exists()
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_labels_only_and_no_accidental_overwriting(tmp_path: Path, prediction: dict[str, Any]) -> None:
    raw = stored(tmp_path / "p.zarr", np.zeros((6, 25, 20), np.float32), "probabilities")
    with pytest.raises(InputError, match="labels are unsigned ids"):
        submit(spec(tmp_path, prediction, clefts=raw))
    submit(spec(tmp_path, prediction))
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(InputError, match="already exists"):
        submit(spec(tmp_path, prediction))
    with pytest.raises(InputError, match="lie outside"):
        submit(spec(tmp_path, prediction, shape=(2, 10, 12), overwrite=True))
    assert (tmp_path / "out.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "a.h5"}, "needs one of clefts, neuron_ids and annotations"),
        ({"target": "a.h5", "annotations": "b.h5"}, "annotations alone need the shape"),
        ({"target": "a.zarr", "clefts": "c.zarr"}, "is no HDF5 file"),
        ({"target": "a.h5", "clefts": "c.zarr", "shape": [0, 1, 1]}, "shape.0"),
    ],
)
def test_the_spec_says_what_is_missing(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SubmitSpec.from_dict(fields)


# ---- the validator ----------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path, prediction: dict[str, Any]) -> Path:
    submit(spec(tmp_path, prediction))
    return tmp_path / "out.h5"


def replace_data(h5: h5py.File, name: str, values: Any, **options: Any) -> None:
    attributes = dict(h5[name].attrs)
    del h5[name]
    node = h5.create_dataset(name, data=values, **options)
    for key, value in attributes.items():
        node.attrs[key] = value


def put(name: str, values: Any) -> Callable[[h5py.File], None]:
    return lambda h5: replace_data(h5, name, values)


def change(name: str, what: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    return lambda h5: replace_data(h5, name, what(h5[name][:]))


def remove(name: str, attribute: str | None = None) -> Callable[[h5py.File], None]:
    return lambda h5: h5.__delitem__(name) if attribute is None else h5[name].attrs.__delitem__(attribute)


def state(name: str, attribute: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda h5: h5[name].attrs.__setitem__(attribute, value)


PARTNERS = "annotations/presynaptic_site/partners"
LOCATIONS = "annotations/locations"


@pytest.mark.parametrize(
    ("damage", "level", "what", "text"),
    [
        (state("/", "file_format", "0.1"), "error", "file_format", "is '0.1'"),
        (remove("/", "file_format"), "error", "file_format", "is None"),
        (change(CLEFTS, lambda a: a.astype(np.uint32)), "error", CLEFTS, "stores uint32"),
        (change(NEURON_IDS, lambda a: a.astype(np.float32)), "error", NEURON_IDS, "stores float32"),
        (change(CLEFTS, lambda a: np.where(a == TRANSPARENT, 0, a)), "error", CLEFTS, "all of it is scored"),
        (change(CLEFTS, lambda a: np.where(a == 1, 0, a)), "warning", CLEFTS, "they count as clefts"),
        (
            change(CLEFTS, lambda a: np.where(a == 1, np.uint64(TRANSPARENT), np.uint64(1))),
            "warning",
            CLEFTS,
            "of its voxels are clefts",
        ),
        (change(CLEFTS, lambda a: np.full_like(a, TRANSPARENT)), "warning", CLEFTS, "no cleft at all"),
        (change(CLEFTS, lambda a: np.where(a == 1, INVALID, a)), "warning", CLEFTS, "INVALID or OUTSIDE"),
        (change(NEURON_IDS, lambda a: np.where(a == 1, TRANSPARENT, a)), "warning", NEURON_IDS, "special values"),
        (change(NEURON_IDS, np.ones_like), "warning", NEURON_IDS, "is one segment throughout"),
        (remove(CLEFTS, "resolution"), "error", CLEFTS, "has no attribute resolution"),
        (state(CLEFTS, "resolution", [40.0, 4.0]), "error", CLEFTS, "has 2 values"),
        (state(CLEFTS, "resolution", "forty"), "error", CLEFTS, "is not three numbers"),
        (state(CLEFTS, "resolution", [4.0, 4.0, 40.0]), "error", CLEFTS, "has voxels of (4.0, 4.0, 40.0) nm"),
        (state(NEURON_IDS, "offset", [np.nan, 0, 0]), "error", NEURON_IDS, "is not finite"),
        (state(NEURON_IDS, "offset", [40.0, 0, 0]), "error", NEURON_IDS, "lies at (40.0, 0.0, 0.0) nm"),
        (change(CLEFTS, lambda a: a[1:]), "error", CLEFTS, "is (2, 10, 12), not (3, 10, 12)"),
        (change(CLEFTS, lambda a: a[1:]), "error", "volumes", "differ in shape"),
        (change(CLEFTS, lambda a: a[0]), "error", CLEFTS, "is an array of shape (10, 12)"),
        (change(CLEFTS, lambda a: a[:0]), "error", CLEFTS, "is an array of shape (0, 10, 12)"),
        (remove("annotations/ids"), "error", "annotations/ids", "is missing"),
        (put("annotations/ids", np.array([5, 5, 9], np.uint64)), "error", "annotations/ids", "stand twice"),
        (put("annotations/ids", np.array([5, 2**40, 9])), "error", "annotations/ids", "stores int64"),
        (remove("annotations/types"), "error", "annotations/types", "is missing"),
        (put("annotations/types", np.zeros(3)), "error", "annotations/types", "holds no text"),
        (put("annotations/types", [PRE, POST]), "error", "annotations/types", "has 2 rows for 3 ids"),
        (put("annotations/types", [PRE, POST, "t-bar"]), "error", "annotations/types", "holds 't-bar'"),
        (remove(LOCATIONS), "error", LOCATIONS, "is missing"),
        (put(LOCATIONS, np.zeros((3, 2))), "error", LOCATIONS, "of shape (3, 2)"),
        (put(LOCATIONS, np.full((3, 3), np.nan)), "error", LOCATIONS, "3 are not finite"),
        (put(LOCATIONS, np.diag([100.0, -2.5, 0])), "error", LOCATIONS, "2 lie outside"),
        (state("annotations", "offset", [0.0, 0.0, 40.0]), "error", LOCATIONS, "2 lie outside"),
        (state("annotations", "offset", "nowhere"), "error", "annotations", "is not three numbers"),
        (put(PARTNERS, np.array([[5, 8]], np.uint64)), "error", PARTNERS, "the first is 8"),
        (put(PARTNERS, np.array([[9, 5]], np.uint64)), "error", PARTNERS, "not a pre and a post site"),
        (put(PARTNERS, np.array([[5, 9], [5, 9]], np.uint64)), "warning", PARTNERS, "1 stand twice"),
        (put(PARTNERS, np.zeros((0, 2), np.uint64)), "warning", PARTNERS, "has no pair at all"),
        (remove(PARTNERS), "error", PARTNERS, "is missing"),
    ],
)
def test_every_problem_is_listed(
    good: Path, damage: Callable[[h5py.File], None], level: str, what: str, text: str
) -> None:
    with h5py.File(good, "r+") as h5:
        damage(h5)
    report = validate_submission(good, SHAPE, offset_nm=(0, 0, 0))
    assert any(f.level == level and f.what == what and text in f.text for f in report.findings), report.to_text()
    assert report.ok == (level != "error")


def test_all_problems_at_once(good: Path) -> None:
    with h5py.File(good, "r+") as h5:
        for damage in (
            state("/", "file_format", b"0.1"),
            change(CLEFTS, lambda a: np.where(a == TRANSPARENT, 0, a)),
            remove(NEURON_IDS, "resolution"),
            put(PARTNERS, np.array([[1, 2]], np.uint64)),
        ):
            damage(h5)
    report = validate_submission(good, (3, 10, 13))
    errors = [f.what for f in report.findings if f.level == "error"]
    assert errors == ["file_format", CLEFTS, CLEFTS, NEURON_IDS, NEURON_IDS, PARTNERS]
    assert report.folder == str(good)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        validate_submission(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        validate_submission(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as h5:
        h5.create_group(CLEFTS)
        h5["annotations"] = 3
    texts = [f.text for f in validate_submission(tmp_path / "c.h5").findings]
    assert any("is a group" in t for t in texts)
    assert any("is no group" in t for t in texts)
    with h5py.File(tmp_path / "d.h5", "w"):
        pass
    assert "nothing to score" in validate_submission(tmp_path / "d.h5").to_text()


def test_what_cremi_python_writes_is_fine(tmp_path: Path) -> None:
    """No offset where it is 0, no comments where there are none."""
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.attrs["file_format"] = "0.2"
        data = np.full((2, 5, 5), TRANSPARENT, np.uint64)
        data[0, 1, 1] = 3
        h5.create_dataset(CLEFTS, data=data, compression="gzip").attrs["resolution"] = CREMI
        h5["annotations/ids"] = np.arange(2, dtype=np.uint64)
        h5.create_dataset("annotations/types", data=[PRE, POST], dtype=h5py.string_dtype())
        h5["annotations/locations"] = np.array([[0.0, 0, 0], [59.9, 17.9, 17.9]])
        h5["annotations/presynaptic_site/partners"] = np.array([[0, 1]], np.uint64)
    report = validate_submission(tmp_path / "a.h5", (2, 5, 5))
    assert [f.level for f in report.findings] == ["ok", "ok"]


@pytest.mark.real_data
def test_the_example_of_cremi_python(real_data: Path) -> None:
    path = real_data / "metric_refs/cremi_python/example.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there: see the README of the real data")
    findings = validate_submission(path, (1, 164, 251)).findings
    assert [f.what for f in findings if f.level == "error"] == []
    assert [f.what for f in validate_submission(path, (125, 1250, 1250)).findings if f.level == "error"] == [
        NEURON_IDS
    ]
