"""What a repair invented is left out by sampling, prediction and evaluation, as what quality control found is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Uniform
from emloom.tasks.data import BoxSpec, MarksSpec, StackSpec, open_stack
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.qcmask import Usable, is_qc, is_repair, open_avoid, open_usable, source_of
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import RepairJob
from emloom.tasks.scorespec import EvaluateSpec
from emloom.tasks.scoring import evaluate
from tests.tasks.cubes import write_stack
from tests.tasks.test_predict import affinities, model
from tests.tasks.weaving import write_mask

SHAPE = (24, 48, 48)
BAD = (0, 5, 6, 14)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A labelled stack with blank sections, and the folder of its repair."""
    folder = tmp_path_factory.mktemp("repaired")
    source = open_volume(f"{write_stack(folder / 'clean.h5')}/raw")
    raw = source.read(source.info.box)
    raw[list(BAD)] = 0
    create_volume(folder / "raw.zarr", source.info.with_(kind="raw")).write(source.info.box, raw)
    job = RepairJob(
        raw=f"{folder}/raw.zarr", output=f"{folder}/fixed", labels=f"{folder}/clean.h5/labels",
        sections={"bad": BAD, "look": False},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emloom.tasks.repair.write_repair_report", lambda folder: folder)
        return folder, str(repair(job))


def invented(stack: tuple[Path, str]) -> NDArray[np.bool_]:
    volume = open_volume(f"{stack[1]}/invented.zarr")
    return volume.read(volume.info.box) != 0


def test_a_folder_of_repair_is_a_mask(stack: tuple[Path, str]) -> None:
    bad = invented(stack)
    assert [z for z in range(SHAPE[0]) if bad[z].any()] == list(BAD)
    assert bad[list(BAD)].all()
    usable, avoid = open_usable(stack[1]), open_avoid(stack[1])
    assert isinstance(usable, Usable)
    np.testing.assert_array_equal(usable.read(usable.info.box), ~bad)
    np.testing.assert_array_equal(avoid.read(avoid.info.box) != 0, bad)
    assert is_repair(stack[1])
    assert not is_qc(stack[1])
    assert source_of(stack[1]) == f"{stack[1]}/invented.zarr"
    with pytest.raises(InputError, match="write to a mask of your own"):
        usable.write(usable.info.box, np.ones(SHAPE, np.uint8))


def test_training_draws_nothing_from_what_is_invented(stack: tuple[Path, str]) -> None:
    _, fixed = stack
    words = {
        "raw": f"{fixed}/raw.zarr",
        "labels": f"{fixed}/labels.zarr",
        "validation": (BoxSpec(start=(0, 24, 24), shape=(24, 24, 24)),),
        "test": (BoxSpec(start=(0, 24, 0), shape=(24, 24, 24)),),
    }
    spec = StackSpec(**words, marks=MarksSpec(avoid=fixed))
    bad, crop = invented(stack), (4, 8, 8)
    sampler = CropSampler([open_stack(spec).labelled], Uniform(max_avoided=0.0), crop)
    for index in range(60):
        drawn = sampler.draw(np.random.default_rng(index))
        assert not bad[Box(drawn.start, crop).slices()].any()
    known = open_stack(StackSpec(**words, marks=MarksSpec(mask=fixed))).mask
    assert known is not None
    np.testing.assert_array_equal(known.read(known.info.box) != 0, ~bad)


def test_what_is_invented_is_not_scored(stack: tuple[Path, str], tmp_path: Path) -> None:
    folder, fixed = stack
    truth, bad = open_volume(f"{folder}/clean.h5/labels"), invented(stack)
    ids = truth.read(truth.info.box)
    ids[bad] = 9
    info = VolumeInfo(SHAPE, ids.dtype, truth.info.grid, kind="labels")
    create_volume(tmp_path / "found.zarr", info).write(info.box, ids)
    usable = write_mask(tmp_path / "u.zarr", (~bad).astype(np.uint8), truth.info.grid)
    rows = []
    for name, mask in (("fixed", fixed), ("plain", usable), ("all", None)):
        spec = EvaluateSpec(
            segmentation=f"{tmp_path}/found.zarr", truth=f"{folder}/clean.h5/labels",
            output=str(tmp_path / name), mask=mask,
        )  # fmt: skip
        rows.append(evaluate(spec).row)
    assert rows[0] == rows[1]
    assert rows[0]["n_voxels"] == np.count_nonzero(~bad)
    assert rows[0]["voi_sum"] == pytest.approx(0)
    assert rows[2]["voi_sum"] > 0.01


def test_prediction_is_nought_where_it_is_invented(stack: tuple[Path, str], tmp_path: Path) -> None:
    _, fixed = stack
    words = {
        "raw": f"{fixed}/raw.zarr",
        "model": model(tmp_path / "m.safetensors"),
        "tile_shape_vox": (8, 16, 16),
    }
    found = {}
    for name, more in (("plain", {}), ("masked", {"mask": fixed})):
        job = PredictJob(**words, output=str(tmp_path / f"{name}.zarr"), **more)
        predict_volume(job)
        found[name] = affinities(Path(job.output))
    bad = invented(stack)
    assert found["plain"][:, bad].any()
    np.testing.assert_array_equal(found["masked"], found["plain"] * ~bad)


def test_a_repair_that_is_not_finished_is_refused(stack: tuple[Path, str], tmp_path: Path) -> None:
    bad = open_volume(f"{stack[1]}/invented.zarr")
    create_volume(tmp_path / "fixed" / "invented.zarr", bad.info).write(bad.info.box, bad.read(bad.info.box))
    for opened in (open_usable, open_avoid):
        with pytest.raises(InputError, match="not finished: run the same `emloom repair` again"):
            opened(str(tmp_path / "fixed"))
