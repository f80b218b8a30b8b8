"""Whatever makes a large volume asks the disk first: what cannot fit is refused, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.stackmap import IDENTITY, Frame, StackMap
from emloom.io import room
from emloom.io.open import create_volume
from emloom.io.stackmaps import write_stackmap
from emloom.io.volume import VolumeInfo
from emloom.tasks.align import AlignJob, align
from emloom.tasks.classify import ClassifyJob, classify
from emloom.tasks.convert import ConvertSpec, convert
from emloom.tasks.crfspec import CrfSpec, SpatialKernelSpec
from emloom.tasks.crop import CropSpec, crop
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.pyramid import PyramidSpec, pyramid
from emloom.tasks.refine import RefineJob, refine
from emloom.tasks.repair import RepairJob, repair
from emloom.tasks.repairspec import BadSpec

GRID = Grid((40.0, 8.0, 8.0))
SHAPE = (6, 64, 72)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a raw, probabilities of two classes and a map that moves nothing."""
    rng = np.random.default_rng(0)
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), GRID, kind="raw", chunks=SHAPE)
    raw = create_volume(tmp_path / "raw.zarr/raw", info)
    raw.write(info.box, np.broadcast_to(rng.integers(0, 256, SHAPE[1:]).astype(np.uint8), SHAPE))
    classes = info.with_(kind="probabilities", channels=2)
    first = rng.integers(0, 256, SHAPE).astype(np.uint8)
    create_volume(tmp_path / "pred.zarr/classes", classes).write(info.box, np.stack([first, 255 - first]))
    frame = Frame(SHAPE, GRID)
    write_stackmap(tmp_path / "map", StackMap.of(frame, frame, [IDENTITY] * SHAPE[0]), {"made_by": "a test"})
    return tmp_path


WORK: dict[str, Callable[[str, str, str], object]] = {
    "align": lambda raw, _, out: align(AlignJob(raw=raw, output=out)),
    "repair": lambda raw, _, out: repair(RepairJob(raw=raw, output=out, sections=BadSpec(bad=(2,), look=False))),
    "convert": lambda raw, _, out: convert(ConvertSpec(source=raw, target=out)),
    "crop": lambda raw, _, out: crop(CropSpec(source=raw, target=out, start=(0, 0, 0), stop=(2, 8, 8))),
    "move": lambda raw, _, out: move_volume(
        MoveJob(source=raw, by=str(Path(raw).parents[1] / "map"), output=out, direction="apply", what="volume")
    ),
    "classify": lambda _, pred, out: classify(ClassifyJob(probabilities=pred, output=out)),
    "refine": lambda raw, pred, out: refine(
        RefineJob(
            predicted=pred,
            names=("a", "b"),
            raw=raw,
            output=out,
            crf=CrfSpec(kernels=(SpatialKernelSpec(sigma_nm=16.0),)),
        )
    ),
    "pyramid": lambda raw, _, out: pyramid(PyramidSpec(image=raw, levels=1)),
}


@pytest.mark.parametrize("what", WORK)
@pytest.mark.fault(
    "disk",
    "the disk has less free than a result ever took: align, repair, import, crop, move, classify, refine, pyramid",
    "error: needs at least ..., usually ..., and its disk has 0 bytes free: free some space, choose another disk, "
    "or take a part; before anything is written",
)
def test_what_cannot_fit_is_refused_before_anything_is_made(
    what: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(made.rglob("*"))
    raw, pred, out = str(made / "raw.zarr/raw"), str(made / "pred.zarr/classes"), str(made / "out.zarr")
    with monkeypatch.context() as full:
        full.setattr(room, "free_bytes", lambda _: 0)
        with pytest.raises(InputError, match=r"needs at least \d+ bytes.* has 0 bytes free: free some space"):
            WORK[what](raw, pred, out)
    assert sorted(made.rglob("*")) == before
    WORK[what](raw, pred, out)  # where there is room
