"""Jobs that learn from raw what jobs with labels go on with: what they may see, and what is taken along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import open_volume
from emloom.nn.hardware import Hardware
from emloom.nn.model import load
from emloom.nn.objectives.reconstruction import HiddenBlocks, HiddenCentre, ReconstructionObjective
from emloom.nn.unet import UNetSpec
from emloom.nn.voxel_autoencoder import VoxelAutoencoderSpec
from emloom.nn.voxelnets import VoxelNetSpec
from emloom.tasks.check import check_raw
from emloom.tasks.data import BoxSpec, RawStackSpec
from emloom.tasks.reconstruction import run
from emloom.tasks.reconstructionjob import ReconstructionJob, open_raw_stack
from tests.tasks.micrographs import image, job, write

HERE = Hardware("cpu", 1, 0)
PLANE = ((1, 3, 3), (1, 3, 3))
VALID = UNetSpec(features=(2, 3), factors=((1, 2, 2),), kernels=(PLANE, PLANE), padding="valid")
VOXELS = VoxelNetSpec(backbone="3_layer@8")
MASKED = ReconstructionObjective(corruption=HiddenBlocks(fraction=0.5, block_vox=(1, 4, 4)))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("raw") / "raw.zarr", image((4, 64, 160)))


def split(raw: str, gap_nm: float, transductive: bool = False) -> RawStackSpec:
    return RawStackSpec(
        raw=raw,
        region=BoxSpec(start=(0, 0, 0), shape=(4, 64, 160)),
        validation=(BoxSpec(start=(0, 0, 0), shape=(1, 32, 16)),),
        test=(BoxSpec(start=(0, 0, 112), shape=(2, 64, 48)),),
        gap_nm=gap_nm,
        transductive=transductive,
    )


def learning(stack: RawStackSpec) -> ReconstructionJob:
    tiny = job(stack.raw)
    return tiny.model_copy(
        update={
            "data": (stack,),
            "network": VALID,
            "objective": MASKED,
            "training": tiny.training.model_copy(update={"crop_shape_vox": (1, 16, 16), "steps": 2}),
        }
    )


def test_windows_that_would_see_test_boxes_are_refused(raw: str, tmp_path: Path) -> None:
    # The net sees 8 voxels of 4 nm around its crops: a gap of 16 nm keeps crops off the test, not their inputs.
    with pytest.raises(InputError, match=r"would see test boxes: set gap_nm to 32, or say `transductive: true`"):
        run(learning(split(raw, 16)), tmp_path / "near", HERE, until="train")
    assert not (tmp_path / "near" / "train").exists()
    run(learning(split(raw, 32)), tmp_path / "far", HERE, until="train")
    assert load(tmp_path / "far" / "train" / "model.safetensors")[0].network == VALID


def test_who_says_so_may_see_them_and_the_report_says_so(raw: str, tmp_path: Path) -> None:
    stack = split(raw, 16, transductive=True)
    volume = open_raw_stack(stack).unlabelled
    assert volume.allows(Box((0, 0, 112), (1, 16, 16)))
    assert not volume.allows(Box((0, 0, 0), (1, 16, 16)))  # validation is still held out
    assert not open_raw_stack(split(raw, 16)).unlabelled.allows(Box((0, 0, 112), (1, 16, 16)))
    page = run(learning(stack), tmp_path, HERE)
    assert "Transductive: training may have seen the raw of the test boxes" in page.read_text()
    made = open_volume(str(tmp_path / "predict" / "s0_test_0.zarr" / "reconstruction"))
    assert (made.info.kind, made.info.dtype, made.info.shape) == ("raw", np.uint8, (2, 64, 48))
    # What is stored is what the network says there, in grey values.
    spec, net, _ = load(tmp_path / "train" / "model.safetensors")
    seen = open_volume(raw).read(Box((0, 16, 120), (1, 32, 32)))
    with torch.no_grad():
        said = net.eval()(torch.from_numpy(spec.preprocessing(seen))[None, None])["reconstruction"][0, 0].numpy()
    low, high = spec.preprocessing.low, spec.preprocessing.high
    grey = np.clip((said + 1) / 2 * (high - low) + low, 0, 255)
    margin = (32 - said.shape[1]) // 2
    at = Box((0, 16 + margin, 8 + margin), (1, said.shape[1], said.shape[2]))
    assert np.abs(made.read(at) - grey).max() <= 0.51


def test_hidden_centres_are_one_answer_per_window(raw: str) -> None:
    with pytest.raises(ValueError, match=r"set crop_shape_vox to \(1, 1, 1\)"):
        job(
            raw,
            network=VOXELS,
            objective=ReconstructionObjective(corruption=HiddenCentre(pad_vox=1)),
        )


@pytest.mark.parametrize(
    ("network", "crop", "corruption"),
    [
        (VOXELS, (1, 1, 1), HiddenCentre(pad_vox=1)),
        (VoxelNetSpec(backbone="4_conv_resnet@16"), (1, 1, 1), HiddenCentre(pad_vox=2)),
        (VoxelAutoencoderSpec(encoder=VOXELS, patch_vox=8, n_latent=4, maps=(4, 4, 4)), (8, 8, 8), None),
        (
            UNetSpec(features=(2, 3), factors=((2, 2, 2),)),
            (8, 8, 8),
            HiddenBlocks(fraction=0.5, block_vox=(2, 2, 2)),
        ),
    ],
    ids=["voxel net", "padded voxel net", "autoencoder", "unet"],
)
def test_the_check_proves_parity_whatever_is_hidden(
    network: Any, crop: tuple[int, int, int], corruption: Any, tmp_path: Path
) -> None:
    raw = write(tmp_path / "raw.zarr", image((24, 32, 40)), Grid((5.0, 5.0, 5.0)))
    stack = RawStackSpec(
        raw=raw,
        validation=(BoxSpec(start=(0, 0, 0), shape=(8, 8, 8)),),
        test=(BoxSpec(start=(0, 24, 32), shape=(8, 8, 8)),),
        gap_nm=5,
    )
    tiny = job(raw)
    training = tiny.training.model_copy(update={"crop_shape_vox": crop})
    objective = ReconstructionObjective(corruption=corruption)
    spec = tiny.model_copy(
        update={"data": (stack,), "network": network, "training": training, "objective": objective}
    )
    found = {each.what: each for each in check_raw(spec)}
    assert found["parity"].level == "ok", found["parity"].text
    voxel = isinstance(network, VoxelNetSpec)
    assert found["unseen"].level == ("error" if voxel else "ok"), found["unseen"].text
    assert ("would see test boxes" in found["unseen"].text) == voxel
