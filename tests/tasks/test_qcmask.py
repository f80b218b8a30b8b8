"""What quality control found is obeyed: by sampling, prediction, segmentation and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Uniform
from emloom.ops.affinities import neighborhood
from emloom.tasks.classscoring import evaluate_classes
from emloom.tasks.classspec import ClassSpec
from emloom.tasks.data import BoxSpec, MarksSpec, StackSpec, open_stack
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.qc import quality_control
from emloom.tasks.qcmask import Usable, open_usable
from emloom.tasks.qcspec import QcSpec
from emloom.tasks.scorespec import EvaluateSpec
from emloom.tasks.scoring import evaluate
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob
from tests.tasks.cubes import write_stack
from tests.tasks.test_predict import affinities, model
from tests.tasks.weaving import few_values, same, voxels, write_affinities, write_mask

SHAPE = (24, 48, 48)
BAD = np.zeros(SHAPE, np.bool_)
BAD[5] = True
BAD[14, 16:32, :16] = True
CELL = {"cell_shape_vox": (12, 24, 24)}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A labelled stack with a blank section and a blank place, and the folder of its quality control."""
    folder = tmp_path_factory.mktemp("qc")
    source = open_volume(f"{write_stack(folder / 'clean.h5')}/raw")
    raw = source.read(source.info.box)
    raw[BAD] = 0
    create_volume(folder / "raw.zarr", source.info.with_(kind="raw")).write(source.info.box, raw)
    spec = QcSpec(raw=str(folder / "raw.zarr"), output=str(folder / "qc"), tile_vox=16, masked=("blank",))
    quality_control(spec)
    return folder, str(folder / "qc")


def test_the_mask_is_what_was_planted(stack: tuple[Path, str]) -> None:
    mask = open_volume(f"{stack[1]}/mask.zarr")
    np.testing.assert_array_equal(mask.read(mask.info.box) != 0, BAD)
    assert open_usable(stack[1]).info.grid == mask.info.grid


def test_training_draws_nothing_from_what_is_bad(stack: tuple[Path, str]) -> None:
    folder, qc = stack
    box = BoxSpec(start=(0, 24, 24), shape=(24, 24, 24))
    spec = StackSpec(
        raw=str(folder / "raw.zarr"), labels=f"{folder}/clean.h5/labels", marks=MarksSpec(avoid=qc),
        validation=(box,), test=(BoxSpec(start=(0, 24, 0), shape=(24, 24, 24)),),
    )  # fmt: skip
    volume = open_stack(spec).labelled
    crop = (4, 8, 8)
    sampler = CropSampler([volume], Uniform(max_avoided=0.0), crop)
    for index in range(60):
        drawn = sampler.draw(np.random.default_rng(index))
        assert not BAD[Box(drawn.start, crop).slices()].any()
    known = open_stack(spec.model_copy(update={"marks": MarksSpec(mask=qc)})).mask
    assert known is not None
    np.testing.assert_array_equal(known.read(known.info.box) != 0, ~BAD)


def test_prediction_is_nought_there_and_the_same_elsewhere(stack: tuple[Path, str], tmp_path: Path) -> None:
    folder, qc = stack
    words = {
        "raw": str(folder / "raw.zarr"),
        "model": model(tmp_path / "m.safetensors"),
        "tile_shape_vox": (8, 16, 16),
    }
    found = {}
    place = BoxSpec(start=(2, 5, 3), shape=(20, 40, 40))
    for name, more in (("plain", {}), ("masked", {"mask": qc}), ("part", {"mask": qc, "box": place})):
        job = PredictJob(**words, output=str(tmp_path / f"{name}.zarr"), **more)
        predict_volume(job)
        found[name] = affinities(Path(job.output))
    assert found["plain"][:, BAD].any()
    np.testing.assert_array_equal(found["masked"], found["plain"] * ~BAD)
    np.testing.assert_array_equal(found["part"], found["masked"][:, *place.box.slices()])
    # What was predicted of a part is segmented with the mask of the whole.
    job = SegmentJob(
        affinities=f"{tmp_path}/part.zarr/affinities", output=str(tmp_path / "s.zarr"), threshold=0.5, mask=qc,
        segmentation=CELL,
    )  # fmt: skip
    ids = voxels(segment(job) / "segmentation")
    assert ids.any()
    assert not ids[BAD[place.box.slices()]].any()


@pytest.mark.parametrize("kind", ["ascent", "seeded"])
def test_segmentation_is_that_with_a_mask_of_ones_and_noughts(
    kind: str, stack: tuple[Path, str], tmp_path: Path
) -> None:
    affs = write_affinities(tmp_path / "a.zarr", few_values(SHAPE, 3))
    grid = open_volume(affs).info.grid
    noughts = write_mask(tmp_path / "m.zarr", (~BAD).astype(np.uint8), grid)
    qc = moved(stack[1], tmp_path / "qc", grid)
    out = {}
    for name, mask in (("plain", noughts), ("qc", qc)):
        job = SegmentJob(
            affinities=affs, output=str(tmp_path / f"{name}.zarr"), threshold=0.4, mask=mask,
            segmentation={**CELL, "fragments": {"kind": kind}},
        )  # fmt: skip
        out[name] = segment(job)
    assert same(out["plain"], out["qc"])
    ids = voxels(out["qc"] / "segmentation")
    assert ids.any()
    assert not ids[BAD].any()


def moved(qc: str, target: Path, grid: Grid) -> str:
    """Return a folder of quality control that found the same in a stack on another grid."""
    bad = open_volume(f"{qc}/mask.zarr")
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), grid, kind="mask")
    create_volume(target / "mask.zarr", info).write(info.box, bad.read(bad.info.box))
    (target / "qc.json").write_text("{}")
    return str(target)


def test_what_is_bad_is_not_scored(stack: tuple[Path, str], tmp_path: Path) -> None:
    folder, qc = stack
    truth = open_volume(f"{folder}/clean.h5/labels")
    ids = truth.read(truth.info.box)
    ids[BAD] = 9
    classes = (ids % 3).astype(np.uint8)
    for name, values in (("found", ids), ("truth", classes), ("classes", classes)):
        info = VolumeInfo(SHAPE, values.dtype, truth.info.grid, kind="labels")
        create_volume(tmp_path / f"{name}.zarr", info).write(info.box, values)
    usable = write_mask(tmp_path / "u.zarr", (~BAD).astype(np.uint8), truth.info.grid)
    rows, shares = [], []
    for name, mask in (("qc", qc), ("plain", usable), ("all", None)):
        spec = EvaluateSpec(
            segmentation=f"{tmp_path}/found.zarr", truth=f"{folder}/clean.h5/labels",
            output=str(tmp_path / name), mask=mask,
        )  # fmt: skip
        rows.append(evaluate(spec).row)
        spec = ClassSpec(
            predicted=f"{tmp_path}/classes.zarr", truth=f"{tmp_path}/truth.zarr",
            output=str(tmp_path / f"c{name}"), mask=mask, classes={"n": 3}, bootstrap={"resamples": 0},
        )  # fmt: skip
        shares.append(evaluate_classes(spec).row)
    assert rows[0] == rows[1]
    assert rows[0]["n_voxels"] == np.count_nonzero(~BAD)
    assert rows[0]["voi_sum"] == pytest.approx(0)
    assert rows[2]["voi_sum"] > 0.01
    assert shares[0] == shares[1] != shares[2]


def test_a_view_says_where_it_is_and_takes_no_writing(stack: tuple[Path, str]) -> None:
    usable = open_usable(stack[1])
    assert isinstance(usable, Usable)
    part = usable.within(Box((4, 10, 20), (6, 20, 20))).within(Box((1, 2, 3), (2, 5, 5)))
    assert part.info.grid.offset_nm == usable.info.grid.to_world((5, 12, 23))
    np.testing.assert_array_equal(part.read(part.info.box), ~BAD[5:7, 12:17, 23:28])
    with pytest.raises(InputError, match="seen through quality control"):
        part.write(part.info.box, np.ones((2, 5, 5), np.uint8))
    with pytest.raises(InputError, match="leaves"):
        part.read(Box((0, 0, 0), (3, 5, 5)))


def test_a_mask_of_another_stack_is_refused(stack: tuple[Path, str], tmp_path: Path) -> None:
    affs = write_affinities(tmp_path / "a.zarr", few_values((24, 48, 50), 3), neighborhood(1))
    job = SegmentJob(affinities=affs, output=str(tmp_path / "s.zarr"), threshold=0.5, mask=stack[1])
    with pytest.raises(InputError, match="grid"):
        segment(job)
