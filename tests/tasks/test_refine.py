"""Refining block by block: equal to the whole with the exact halo, same bits for any workers and after a crash."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.crf import mean_field
from emloom.run.cluster import executor_of
from emloom.run.executor import Serial
from emloom.tasks.crfspec import CrfSpec
from emloom.tasks.refine import RefineJob, Scene, refine, spread_of
from emloom.tasks.refinesearch import SearchJob, search
from emloom.tasks.resume import result_status, retry

NAMES = ("cytoplasm", "membrane", "mitochondrion")
GRID = Grid((10.0, 5.0, 5.0), (0.0, 0.0, 0.0))
RAW = (24, 44, 40)
PART = Box((4, 8, 4), (16, 32, 32))
SPEC = {
    "kernels": [
        {"kind": "spatial", "sigma_nm": 4},
        {"kind": "bilateral", "sigma_nm": [8, 8, 8], "sigma_intensity": 30, "weight": 3},
    ],
    "compatibility": {"mitochondrion|cytoplasm": 5},
    "iterations": 2,
}


def scene(folder: Path) -> tuple[str, str, str]:
    """Write a raw, noisy probabilities of a part of it, and the true classes of that part."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal(RAW), (2, 4, 4))
    classes = np.digitize(smooth, np.quantile(smooth, [0.5, 0.8])).astype(np.uint8)
    raw = (np.array([90, 160, 220])[classes] + rng.normal(0, 12, RAW)).clip(0, 255).astype(np.uint8)
    truth = classes[PART.slices()]
    logits = 1.5 * np.eye(3)[truth] + rng.normal(0, 1, (*truth.shape, 3))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    stored = np.rint(255 * np.moveaxis(shares, -1, 0)).astype(np.uint8)
    place = GRID.crop(PART)
    made = {
        "raw.zarr": (raw, VolumeInfo(RAW, raw.dtype, GRID, kind="raw")),
        "pred.zarr/classes": (stored, VolumeInfo(PART.shape, stored.dtype, place, 3, kind="probabilities")),
        "truth.zarr": (truth, VolumeInfo(PART.shape, truth.dtype, place, kind="labels")),
    }
    for name, (array, info) in made.items():
        create_volume(folder / name, info).write(info.box, array)
    return tuple(str(folder / name) for name in made)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    return scene(tmp_path_factory.mktemp("refine"))


def job(inputs: tuple[str, str, str], output: Path, **more: object) -> RefineJob:
    words = {"predicted": inputs[1], "raw": inputs[0], "output": str(output), "crf": SPEC, "names": NAMES}
    return RefineJob.from_dict({**words, "cell_shape_vox": (8, 16, 32), **more})


def values(path: Path) -> np.ndarray:
    volume = open_volume(path / "classes")
    return volume.read(volume.info.box)


def whole(inputs: tuple[str, str, str]) -> np.ndarray:
    here = Scene.of(inputs[1], inputs[0], None)
    box = here.predicted.info.box
    field = CrfSpec.from_dict(SPEC).field(NAMES, GRID.voxel_size_nm, spread_of(here), floor=here.floor)
    found = mean_field(here.shares(box), here.grey(box), field, start=here.start)
    return np.rint(found.probabilities * 255).astype(np.uint8)


def test_with_the_exact_halo_blocks_are_the_whole(inputs, tmp_path):
    refine(job(inputs, tmp_path / "out.zarr", halo_nm="exact", cell_shape_vox=(16, 16, 32)))
    found = values(tmp_path / "out.zarr")
    assert np.array_equal(found, whole(inputs))
    info = open_volume(tmp_path / "out.zarr" / "classes").info
    assert (info.kind, info.channels, info.dtype) == ("probabilities", 3, np.uint8)
    assert info.grid.matches(GRID.crop(PART))


def test_another_halo_is_near_the_whole_and_less_is_further(inputs, tmp_path):
    far = []
    for name, halo in (("none", 0), ("usual", None)):
        refine(job(inputs, tmp_path / f"{name}.zarr", halo_nm=halo))
        far.append(np.abs(values(tmp_path / f"{name}.zarr").astype(int) - whole(inputs)).mean())
    assert far[1] < far[0]
    assert far[1] < 2


class _Dies(Serial):
    """Runs two blocks, then the machine is gone."""

    def map(self, function, items):
        for number, attempt in enumerate(super().map(function, items)):
            if number == 2:
                raise KeyboardInterrupt
            yield attempt


def test_a_crash_leaves_no_trace(inputs, tmp_path):
    assert refine(job(inputs, tmp_path / "one.zarr"), threads=2).is_file()
    with pytest.raises(KeyboardInterrupt):
        refine(job(inputs, tmp_path / "two.zarr"), _Dies())
    assert not (tmp_path / "two.zarr").exists()
    retry(tmp_path / "two.zarr")
    assert np.array_equal(values(tmp_path / "one.zarr"), values(tmp_path / "two.zarr"))
    assert result_status(tmp_path / "two.zarr", look=True).is_well


@pytest.mark.slow
def test_two_workers_refine_what_one_does(inputs, tmp_path):
    refine(job(inputs, tmp_path / "one.zarr"))
    with executor_of(2) as two:
        refine(job(inputs, tmp_path / "two.zarr"), two, threads=2)
    assert np.array_equal(values(tmp_path / "one.zarr"), values(tmp_path / "two.zarr"))


def test_the_page_tells_what_changed(inputs, tmp_path):
    page = refine(job(inputs, tmp_path / "out.zarr"))
    told = [json.loads(path.read_text()) for path in (tmp_path / "out.zarr" / "told").glob("*.json")]
    changes = np.sum([one["changes"] for one in told], axis=0)
    volume = open_volume(inputs[1])
    before = volume.read(volume.info.box).argmax(0)
    after = values(tmp_path / "out.zarr").argmax(0)
    assert np.array_equal(changes.sum(1), np.bincount(before.ravel(), minlength=3))
    assert np.array_equal(changes.sum(0), np.bincount(after.ravel(), minlength=3))
    assert changes.sum() - np.trace(changes) == (before != after).sum() > 0
    text = page.read_text()
    assert all(word in text for word in (*NAMES, "fell", "changed"))


def test_it_helps_where_grey_levels_tell_classes_apart(inputs, tmp_path):
    refine(job(inputs, tmp_path / "out.zarr", crf={**SPEC, "iterations": 8}, cell_shape_vox=(16, 32, 32)))
    truth, before = open_volume(inputs[2]), open_volume(inputs[1])
    true = truth.read(truth.info.box)
    plain = (before.read(before.info.box).argmax(0) == true).mean()
    assert (values(tmp_path / "out.zarr").argmax(0) == true).mean() > plain + 0.03


def test_masked_voxels_stay_as_they_were(inputs, tmp_path):
    mask = (np.random.default_rng(2).random(PART.shape) < 0.7).astype(np.uint8)
    info = VolumeInfo(PART.shape, mask.dtype, GRID.crop(PART), kind="mask")
    create_volume(tmp_path / "mask.zarr", info).write(info.box, mask)
    refine(job(inputs, tmp_path / "out.zarr", mask=str(tmp_path / "mask.zarr")))
    volume = open_volume(inputs[1])
    before, after = volume.read(volume.info.box), values(tmp_path / "out.zarr")
    assert np.array_equal(before[:, mask == 0], after[:, mask == 0])
    assert not np.array_equal(before, after)


def test_names_travel_with_what_was_refined(inputs, tmp_path):
    refine(job(inputs, tmp_path / "out.zarr"))
    again = job((inputs[0], str(tmp_path / "out.zarr" / "classes"), ""), tmp_path / "again.zarr", names=())
    refine(again)
    with pytest.raises(InputError, match="--names"):
        refine(job(inputs, tmp_path / "no.zarr", names=()))
    with pytest.raises(InputError, match="3 classes, and 2 names"):
        refine(job(inputs, tmp_path / "no.zarr", names=("a", "b")))


def test_pairs_of_unknown_classes_are_all_named(inputs, tmp_path):
    crf = {**SPEC, "compatibility": {"mitochondrian|membrane": 3, "cytoplasm|synapse": 1, "vesicle|axon": 2}}
    with pytest.raises(InputError, match=r"(?s)mitochondrian.*did you mean.*synapse.*vesicle.*axon"):
        refine(job(inputs, tmp_path / "no.zarr", crf=crf))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("pairs", "words"),
    [({"a|b": 1, "b|a": 2}, "twice"), ({"a|a": 1}, "itself"), ({"a": 1}, "no pair"), ({"a|b": -1}, "greater")],
)
def test_pairs_are_pairs_of_two(pairs, words):
    with pytest.raises(InputError, match=words):
        CrfSpec.from_dict({"kernels": SPEC["kernels"], "compatibility": pairs})


def test_penalties_are_symmetric_and_the_rest_is_as_said():
    spec = CrfSpec.from_dict({"kernels": SPEC["kernels"], "compatibility": {"c|a": 7}, "other_pairs": 2})
    assert spec.penalties(["a", "b", "c"]) == ((0, 2, 7), (2, 0, 2), (7, 2, 0))
    assert CrfSpec.from_yaml(spec.to_yaml()) == spec


def test_an_intensity_sigma_that_sees_no_edges_is_refused():
    """Grey levels in 0 .. 1, a sigma of 1: every pair weighs 0.6 or more, a Gaussian under another name."""
    unit = {"kernels": [{"kind": "bilateral", "sigma_nm": 5, "sigma_intensity": 1.0}]}
    with pytest.raises(InputError, match=r"6.67 times the spread.*plain Gaussian"):
        CrfSpec.from_dict(unit).field(NAMES, (5, 5, 5), spread=0.15)
    assert CrfSpec.from_dict(unit).field(NAMES, (5, 5, 5), spread=40.0).kernels[0].sigma_intensity == 1
    auto = {"kernels": [{"kind": "bilateral", "sigma_nm": [10, 5, 5]}]}
    kernel = CrfSpec.from_dict(auto).field(NAMES, (10, 5, 5), spread=0.15).kernels[0]
    assert (kernel.sigma_intensity, kernel.sigma_vox) == (0.15, (1, 1, 1))
    with pytest.raises(InputError, match="one grey level"):
        CrfSpec.from_dict(auto).field(NAMES, (5, 5, 5), spread=0.0)


def test_what_is_no_probability_is_refused(inputs, tmp_path):
    with pytest.raises(InputError, match="probabilities of two"):
        refine(job((inputs[0], inputs[2], ""), tmp_path / "no.zarr"))


def test_a_search_finds_what_helps_and_draws_the_same_again(inputs, tmp_path):
    words = {
        "predicted": inputs[1],
        "raw": inputs[0],
        "truth": inputs[2],
        "names": NAMES,
        "compatibility": {"mitochondrion|cytoplasm": 2},
        "trials": 4,
    }
    few = search(SearchJob.from_dict({**words, "output": str(tmp_path / "few")}))
    more = search(SearchJob.from_dict({**words, "output": str(tmp_path / "more"), "trials": 6}))
    np.testing.assert_equal(more.rows[:5], few.rows)
    assert few.helps
    assert few.rows[few.best]["objective"] == max(row["objective"] for row in few.rows)
    assert CrfSpec.load(tmp_path / "few" / "crf.yaml") == few.crf
    assert (tmp_path / "few" / "trials.csv").read_text().count("\n") == 6
    # A measure of violations moves the choice.
    judged = search(
        SearchJob.from_dict({**words, "output": str(tmp_path / "judged")}),
        violation=lambda classes, truth: float((classes == 2).mean()),
        violation_weight=100.0,
    )
    assert judged.rows[0]["objective"] < judged.rows[0]["macro_f1"]


def test_a_class_that_the_truth_lacks_is_in_no_mean(inputs, tmp_path):
    """Else a trial in which all voxels called so vanish would gain, its mean being over one class less."""
    volume = open_volume(inputs[2])
    truth = volume.read(volume.info.box)
    truth[truth == 2] = 255
    create_volume(tmp_path / "two.zarr", volume.info.with_(chunks=None)).write(volume.info.box, truth)
    words = {"predicted": inputs[1], "raw": inputs[0], "truth": str(tmp_path / "two.zarr"), "names": NAMES}
    found = search(SearchJob.from_dict({**words, "trials": 2, "output": str(tmp_path / "out")}))
    for row in found.rows:
        assert row["macro_f1"] == pytest.approx((row["f1_cytoplasm"] + row["f1_membrane"]) / 2)


def test_a_search_refuses_a_test_box(inputs, tmp_path):
    container = tmp_path / "job" / "predict" / "s0_test_0.zarr"
    container.mkdir(parents=True)
    (tmp_path / "job" / "job.yaml").write_text("kind: semantic\n")
    given = {"predicted": str(container / "classes"), "raw": inputs[0], "truth": inputs[2], "output": "x"}
    with pytest.raises(InputError, match="test box"):
        search(SearchJob.from_dict(given))


def test_from_the_command_line(inputs, tmp_path):
    crf = tmp_path / "crf.yaml"
    CrfSpec.from_dict(SPEC).dump(crf)
    words = ["refine", inputs[1], "--raw", inputs[0], "--crf", str(crf), "-o", str(tmp_path / "out.zarr")]
    done = CliRunner().invoke(app, [*words, "--names", ",".join(NAMES), "--cell", "16,32,32", "--halo", "20"])
    assert done.exit_code == 0, done.output
    assert np.array_equal(values(tmp_path / "out.zarr"), whole(inputs))  # one cell
    words = ["refine-search", inputs[1], "--raw", inputs[0], "--truth", inputs[2], "-o", str(tmp_path / "search")]
    done = CliRunner().invoke(app, [*words, "--names", ",".join(NAMES), "--trials", "2"])
    assert done.exit_code == 0, done.output
    assert "macro F1" in done.output
