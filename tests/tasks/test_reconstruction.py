"""Jobs on raw stacks: what they make, that it is exact, and how they go on and are refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume, read_padded
from emloom.nn.hardware import Hardware
from emloom.nn.level_autoencoders import AtrousAutoencoderSpec
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.reconstruction import HiddenBlocks, ReconstructionObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.train import Progress
from emloom.tasks.check import check_raw
from emloom.tasks.data import BoxSpec
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.reconstruction import run
from emloom.tasks.reconstructionjob import ForeignSpec, ReconstructionJob
from tests.tasks.micrographs import GRID, NET, image, job, write

HERE = Hardware("cpu", 1, 0)


class Watch:
    """Notes which steps ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def stage(self, name: str, skipped: bool) -> None:
        if not skipped:
            self.ran.append(name)

    def step(self, progress: Progress) -> None:
        """Say nothing."""

    def advance(self, name: str, done: int, total: int) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReconstructionJob, Path]:
    folder = tmp_path_factory.mktemp("reconstruction")
    far = write(folder / "far.zarr", image((2, 40, 56), seed=5), Grid((8.0, 8.0, 8.0)))
    spec = job(write(folder / "raw.zarr", image()), foreign=(ForeignSpec(name="far", raw=far),))
    run(spec, folder / "out", HERE)
    return spec, folder / "out"


def test_everything_is_made(done: tuple[ReconstructionJob, Path]) -> None:
    spec, out = done
    assert ReconstructionJob.load(out / "job.yaml") == spec
    made = open_volume(str(out / "predict" / "s0_test_0.zarr" / "reconstruction"))
    raw = open_volume(spec.data[0].raw)
    assert made.info.kind == "raw"
    assert made.info.channels is None
    assert made.info.dtype == raw.info.dtype
    assert made.info.grid.matches(raw.info.grid.crop(spec.data[0].test[0].box))
    page = (out / "report.html").read_text()
    assert "What is kept" in page
    assert "Training" in page
    assert (out / "evaluate" / "far" / "report.html").is_file()


def test_scores_are_those_of_the_voxels(done: tuple[ReconstructionJob, Path]) -> None:
    spec, out = done
    rows = list(csv.DictReader((out / "evaluate" / "scores.csv").read_text().splitlines()))
    assert [row["test"] for row in rows] == ["s0_test_0", "far"]
    box = spec.data[0].test[0].box
    raw = open_volume(spec.data[0].raw).read(box).astype(float)
    path = out / "predict" / "s0_test_0.zarr" / "reconstruction"
    made = open_volume(str(path))
    error = np.sqrt(np.mean((made.read(made.info.box) - raw) ** 2))
    assert float(rows[0]["rmse"]) == pytest.approx(error, rel=1e-12)
    assert float(rows[0]["psnr_db"]) == pytest.approx(20 * np.log10(255 / error), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_tiles_give_what_one_large_tile_gives_in_the_type_of_the_raw(dtype: Any, tmp_path: Path) -> None:
    # Law: blockwise == whole, of grey values; whatever the tile, to one step of rounding.
    values = image((2, 72, 88), dtype=dtype)
    low, high = (0.0, 255.0) if dtype == np.uint8 else (0.0, 4080.0)
    spec = ModelSpec(
        objective=ReconstructionObjective(),
        network=NET,
        preprocessing=Preprocessing(low=low, high=high),
        voxel_size_nm=GRID.voxel_size_nm,
    )
    torch.manual_seed(0)
    network = build(spec).eval()
    save(tmp_path / "m.safetensors", spec, network.state_dict(), {})
    raw = write(tmp_path / "raw.zarr", values)
    for name, tile in (("a", (1, 16, 24)), ("b", (2, 72, 88)), ("c", None)):
        box = None if name != "b" else BoxSpec(start=(0, 8, 16), shape=(2, 50, 60))
        predict_volume(
            PredictJob(
                raw=raw,
                model=str(tmp_path / "m.safetensors"),
                output=f"{tmp_path}/{name}.zarr",
                tile_shape_vox=tile,
                box=box,
            )
        )
    volume = ArrayVolume(values, GRID)
    context = network.context
    # One tile that holds the volume, lies on the lattice and sees its context, mirrored at the faces.
    around = volume.info.box.grow(context)
    with torch.no_grad():
        seen = torch.from_numpy(spec.preprocessing(read_padded(volume, around)))[None, None]
        answer = network(seen)["reconstruction"][0, 0].numpy().astype(float)
    inner = answer[:, context[1] : -context[1], context[2] : -context[2]]
    whole = (inner + 1) * (high - low) / 2 + low
    if np.dtype(dtype).kind != "f":
        span = np.iinfo(dtype)
        whole = np.clip(whole, span.min, span.max)
    for name, part in (("a", np.s_[:]), ("b", np.s_[:, 8:58, 16:76]), ("c", np.s_[:])):
        made = open_volume(f"{tmp_path}/{name}.zarr/reconstruction")
        assert made.info.dtype == np.dtype(dtype)
        found = made.read(made.info.box).astype(float)
        step = 0.51 if np.dtype(dtype).kind != "f" else 1e-2
        np.testing.assert_allclose(found, whole[part], rtol=0, atol=step)


def test_patch_nets_reconstruct_patch_by_patch_on_the_lattice_of_the_volume(tmp_path: Path) -> None:
    spec = ModelSpec(
        objective=ReconstructionObjective(),
        network=MultiResolutionSpec(f=1, n_latent=4, batch_norm=False),
        voxel_size_nm=GRID.voxel_size_nm,
    )
    torch.manual_seed(0)
    network = build(spec).eval()
    save(tmp_path / "m.safetensors", spec, network.state_dict(), {})
    values = image((2, 280, 416))[:, :, :410]
    raw = write(tmp_path / "raw.zarr", values)
    model = str(tmp_path / "m.safetensors")
    predict_volume(PredictJob(raw=raw, model=model, output=f"{tmp_path}/whole.zarr"))
    box = BoxSpec(start=(0, 100, 200), shape=(1, 90, 150))
    predict_volume(PredictJob(raw=raw, model=model, output=f"{tmp_path}/part.zarr", box=box))
    whole = open_volume(f"{tmp_path}/whole.zarr/reconstruction")
    part = open_volume(f"{tmp_path}/part.zarr/reconstruction")
    all_of_it = whole.read(whole.info.box)
    np.testing.assert_array_equal(part.read(part.info.box), all_of_it[0:1, 100:190, 200:350])
    with torch.no_grad():
        x = torch.from_numpy(spec.preprocessing(values[1:2, 140:280, 140:280]))[None, None]
        answer = (network(x)["reconstruction"][0, 0].numpy().astype(float) + 1) * 127.5
    np.testing.assert_allclose(all_of_it[1:2, 140:280, 140:280], np.clip(answer, 0, 255), rtol=0, atol=0.51)


def test_what_is_done_is_not_done_again(done: tuple[ReconstructionJob, Path]) -> None:
    spec, out = done
    watch = Watch()
    run(spec, out, HERE, watch)
    assert not watch.ran


def test_steps_whose_parameters_changed_are_refused_or_done_again(tmp_path: Path) -> None:
    first = job(write(tmp_path / "raw.zarr", image()))
    run(first, tmp_path / "out", HERE)
    changed = first.model_copy(update={"wavelet": first.wavelet.model_copy(update={"levels": 2})})
    with pytest.raises(InputError, match="another job"):
        run(changed, tmp_path / "out", HERE)
    assert ReconstructionJob.load(tmp_path / "out" / "job.yaml") == first
    watch = Watch()
    run(changed, tmp_path / "out", HERE, watch, overwrite=True)
    assert watch.ran == ["evaluate", "report"]
    rows = json.loads((tmp_path / "out" / "evaluate" / "scores.json").read_text())["rows"]
    assert "ratio_2" in rows[0]
    assert "ratio_3" not in rows[0]


def test_weights_of_another_job_are_used_as_they_are(done: tuple[ReconstructionJob, Path], tmp_path: Path) -> None:
    spec, out = done
    weights = str(out / "train" / "model.safetensors")
    cut = spec.model_copy(update={"network": NET.keeping(1), "weights": weights})
    run(cut, tmp_path / "cut", HERE)
    a, b = load(Path(weights)), load(tmp_path / "cut" / "train" / "model.safetensors")
    assert b[0].network == NET.keeping(1)
    assert all(
        torch.equal(x, y) for x, y in zip(a[1].state_dict().values(), b[1].state_dict().values(), strict=True)
    )
    rows = [json.loads((f / "evaluate" / "scores.json").read_text())["rows"][0] for f in (out, tmp_path / "cut")]
    assert rows[0]["rmse"] != rows[1]["rmse"]
    other = spec.model_copy(update={"network": AtrousAutoencoderSpec.of(width=3, levels=3), "weights": weights})
    with pytest.raises(InputError, match="do not fit the network"):
        run(other, tmp_path / "other", HERE)


def test_another_voxel_size_is_refused_unless_asked_for(
    done: tuple[ReconstructionJob, Path], tmp_path: Path
) -> None:
    spec, out = done
    asked = PredictJob(
        raw=spec.foreign[0].raw, model=str(out / "train" / "model.safetensors"), output=f"{tmp_path}/p.zarr"
    )
    with pytest.raises(InputError, match="voxel size"):
        predict_volume(asked)
    predict_volume(asked.model_copy(update={"any_voxel_size": True}))
    made = open_volume(f"{tmp_path}/p.zarr/reconstruction")
    assert made.info.grid.voxel_size_nm == (8.0, 8.0, 8.0)


def test_orientations_of_a_reconstruction_are_refused(
    done: tuple[ReconstructionJob, Path], tmp_path: Path
) -> None:
    spec, out = done
    asked = PredictJob(
        raw=spec.data[0].raw,
        model=str(out / "train" / "model.safetensors"),
        output=f"{tmp_path}/p.zarr",
        orientations=8,
    )
    with pytest.raises(InputError, match="not averaged"):
        predict_volume(asked)


def test_the_check_proves_parity_and_counts_crops(done: tuple[ReconstructionJob, Path]) -> None:
    findings = {finding.what: finding for finding in check_raw(done[0])}
    assert findings["parity"].level == "ok", findings["parity"].text
    assert "in reconstruction" in findings["parity"].text
    assert findings["split"].level == "ok"
    assert "labels" not in findings
    assert {"room", "sampling", "cost", "voxel size"} <= set(findings)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data": ()}, "at least 1"),
        ({"foreign": ({"name": "a/b", "raw": "x"},)}, "choose another"),
        ({"foreign": ({"name": "s0_test_0", "raw": "x"},)}, "two tests are called"),
        ({"foreign": ({"name": "again", "raw": "raw"},)}, "is trained on"),
        ({"network": {"kind": "patch_net"}}, "unet_autoencoder"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        ReconstructionJob.from_dict(job("raw").to_dict() | changes)


def test_a_job_without_a_test_is_refused() -> None:
    made = job("raw").to_dict()
    made["data"][0]["test"] = []
    with pytest.raises(InputError, match="nothing to test on"):
        ReconstructionJob.from_dict(made)


def test_the_job_of_the_page_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M)
    made = ReconstructionJob.from_yaml(text, "docs/autoencoders.md")
    assert made.foreign[0].name == "elsewhere"
    assert isinstance(made.objective.corruption, HiddenBlocks)
