"""The predict verb: averages and engines by option, and what is written about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.nn.engine import Engine
from emloom.nn.heads import MultiHead
from emloom.nn.model import ModelSpec, build, save
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.unet import UNetSpec
from emloom.ops.affinities import neighborhood
from emloom.run.cluster import executor_of
from emloom.tasks.data import BoxSpec
from emloom.tasks.predict import PredictJob, predict_volume
from tests.cli.test_cli import emloom
from tests.tasks.cubes import write_stack
from tests.tasks.weaving import write_mask

CORNER = BoxSpec(start=(0, 0, 0), shape=(8, 16, 16))


def model(path: Path, offsets: tuple[tuple[int, int, int], ...] = neighborhood(1), seed: int = 0) -> str:
    """Write a checkpoint with random weights that say something."""
    torch.manual_seed(seed)
    spec = ModelSpec(
        objective=NeuronsObjective(neighborhood=offsets),
        network=UNetSpec(features=(4, 4), factors=((2, 2, 2),)),
        voxel_size_nm=(10.0, 10.0, 10.0),
    )
    network = build(spec)
    assert isinstance(network, MultiHead)
    with torch.no_grad():
        for head in network.heads.values():
            head.get_parameter("weight").normal_(std=1.0)
    save(path, spec, network.state_dict(), {})
    return str(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("predict")
    return f"{write_stack(folder / 'stack.h5')}/raw", model(folder / "model.safetensors")


def affinities(folder: Path) -> np.ndarray:
    volume = open_volume(folder / "affinities")
    assert volume.info.neighborhood == neighborhood(1)
    return volume.read(volume.info.box).astype(int)


def test_options_reach_the_network_and_the_provenance(
    capsys: pytest.CaptureFixture[str], inputs: tuple[str, str], tmp_path: Path
) -> None:
    raw, checkpoint = inputs
    found = {}
    for name, words in (
        ("plain", ()),
        ("openvino", ("--backend", "openvino")),
        ("averaged", ("--tta", "4")),
        ("both", ("--tta", "4", "--backend", "auto", "--tile", "8,16,16")),
    ):
        target = tmp_path / f"{name}.zarr"
        code, out, error = emloom(
            capsys, "predict", raw, "--model", checkpoint, "-o", str(target), "--box", "0:24,0:32,8:32", *words
        )
        assert code == 0, error
        found[name] = affinities(target)
        record = json.loads((target / "provenance.json").read_text())
        assert record["computed_by"] in out
        assert PredictJob.from_dict(record["spec"]).orientations == (4 if "--tta" in words else 1)
    assert found["plain"].std() > 5
    assert np.abs(found["openvino"] - found["plain"]).max() <= 1
    assert np.abs(found["both"] - found["averaged"]).max() <= 1
    assert np.abs(found["averaged"] - found["plain"]).max() > 5


def test_impossible_options_are_one_paragraph(
    capsys: pytest.CaptureFixture[str], inputs: tuple[str, str], tmp_path: Path
) -> None:
    raw, checkpoint = inputs
    for words, rule in (
        (("--tta", "5"), "orientations"),
        (("--backend", "onnx"), "use torch, openvino or auto"),
        (("--precision", "fp16"), "use 32, bf16 or auto"),
    ):
        target = tmp_path / "out.zarr"
        code, _, error = emloom(capsys, "predict", raw, "--model", checkpoint, "-o", str(target), *words)
        assert code == 2
        assert rule in error
        assert not target.exists()


def test_a_neighborhood_without_counterparts_names_what_is_missing(
    inputs: tuple[str, str], tmp_path: Path
) -> None:
    raw, _ = inputs
    checkpoint = model(tmp_path / "askew.safetensors", (*neighborhood(1), (0, -4, 0)))
    job = PredictJob(raw=raw, model=checkpoint, output=str(tmp_path / "out.zarr"), orientations=16)
    with pytest.raises(InputError, match=r"needs affinities of the offsets \(0, 0, -4\)"):
        predict_volume(job, Engine())
    assert not Path(job.output).exists()


def test_blocks_masks_and_interruptions_do_not_change_a_bit(inputs: tuple[str, str], tmp_path: Path) -> None:
    raw, checkpoint = inputs
    words = {"raw": raw, "model": checkpoint, "tile_shape_vox": (8, 16, 16)}
    box = BoxSpec(start=(2, 5, 3), shape=(20, 40, 40))  # off the lattice of tiles
    found = {}
    for name, place in (("whole", None), ("box", box)):
        job = PredictJob(**words, output=str(tmp_path / f"{name}.zarr"), box=place)
        predict_volume(job)
        found[name] = affinities(Path(job.output))
    assert np.array_equal(found["box"], found["whole"][:, 2:22, 5:45, 3:43])

    mask_ZYX = np.zeros((24, 48, 48), np.uint8)
    mask_ZYX[3:12, 20:40, :30] = 1
    mask = write_mask(tmp_path / "mask.zarr", mask_ZYX, open_volume(raw).info.grid)
    masked = PredictJob(**words, output=str(tmp_path / "masked.zarr"), mask=mask)
    blocks: list[int] = []

    def impatient(done: int, total: int) -> None:
        blocks.append(total)
        if len(blocks) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_volume(masked, on_block=impatient)
    assert not Path(masked.output).exists()
    predict_volume(masked)
    assert set(blocks) == {3 * 3 * 3}
    assert np.array_equal(affinities(Path(masked.output)), found["whole"] * mask_ZYX)


def test_a_model_that_was_trained_again_is_loaded_again(inputs: tuple[str, str], tmp_path: Path) -> None:
    raw, checkpoint = inputs
    found = []
    for n, file in enumerate((checkpoint, model(tmp_path / "other.safetensors", seed=1))):
        (tmp_path / "same.safetensors").write_bytes(Path(file).read_bytes())
        job = PredictJob(
            raw=raw, model=str(tmp_path / "same.safetensors"), output=str(tmp_path / f"{n}.zarr"), box=CORNER
        )
        predict_volume(job)
        found.append(affinities(Path(job.output)))
    assert np.abs(found[0] - found[1]).max() > 5


def test_two_workers_predict_what_one_does(inputs: tuple[str, str], tmp_path: Path) -> None:
    raw, checkpoint = inputs
    found = []
    with executor_of(2) as two:
        for name, executor in (("one", None), ("two", two)):
            output = str(tmp_path / f"{name}.zarr")
            job = PredictJob(raw=raw, model=checkpoint, output=output, tile_shape_vox=(8, 16, 16))
            predict_volume(job, Engine(threads=1), executor=executor)
            found.append(affinities(Path(output)))
    assert np.array_equal(*found)
