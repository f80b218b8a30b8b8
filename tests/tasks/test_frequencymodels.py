"""Models among the outputs of `emloom frequency`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.nn.model import ModelSpec, build, save
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.tasks.frequency import measure_frequencies
from emloom.tasks.frequencymodels import reconstruct_models
from emloom.tasks.frequencyspec import FrequencySpec, WaveletSpec
from tests.cli.test_cli import emloom
from tests.nn.tissue import tiny_model
from tests.tasks.micrographs import GRID, NET, image, write


@pytest.fixture
def model(tmp_path: Path) -> str:
    spec = ModelSpec(objective=ReconstructionObjective(), network=NET, voxel_size_nm=GRID.voxel_size_nm)
    torch.manual_seed(0)
    path = tmp_path / "runs" / "mine" / "train" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save(path, spec, build(spec).state_dict(), {})
    return str(path)


def spec_of(tmp_path: Path, raw: str, *outputs: str, **more: object) -> FrequencySpec:
    given = {"reference": raw, "outputs": outputs, "output": f"{tmp_path}/out", "resamples": 20, **more}
    return FrequencySpec.from_dict({"wavelet": WaveletSpec(levels=3).to_dict(), **given})


def test_a_model_is_judged_by_what_it_makes_of_the_reference(model: str, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.zarr", image())
    blurred = write(tmp_path / "half.zarr", image() // 2)
    spec = reconstruct_models(spec_of(tmp_path, raw, model, blurred))
    assert spec.names == ("mine", "half.zarr")
    assert spec.outputs == (f"{tmp_path}/out/reconstructions/mine.zarr/reconstruction", blurred)
    found = measure_frequencies(spec)
    made = open_volume(spec.outputs[0])
    error = np.sqrt(np.mean((made.read(made.info.box)[:, :48, :64].astype(float) - image()) ** 2))
    assert found.outputs[0].rmse == pytest.approx(float(error), rel=1e-12)
    assert [kept.name for kept in found.outputs] == ["mine", "half.zarr"]
    before = (tmp_path / "out" / "reconstructions" / "mine.zarr" / "provenance.json").stat().st_mtime_ns
    assert reconstruct_models(spec_of(tmp_path, raw, model, blurred)) == spec  # found again, not made again
    assert (tmp_path / "out" / "reconstructions" / "mine.zarr" / "provenance.json").stat().st_mtime_ns == before


def test_models_of_one_name_are_told_to_be_named(model: str, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.zarr", image())
    spec = reconstruct_models(spec_of(tmp_path, raw, model, model))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="two outputs are called 'mine'"):
        measure_frequencies(spec)


def test_models_that_are_no_reconstruction_are_refused(tmp_path: Path) -> None:
    spec = tiny_model()
    save(tmp_path / "neurons.safetensors", spec, build(spec).state_dict(), {})
    raw = write(tmp_path / "raw.zarr", image())
    with pytest.raises(InputError, match="a model of neurons, whose answers are no image"):
        reconstruct_models(spec_of(tmp_path, raw, f"{tmp_path}/neurons.safetensors"))
    assert not (tmp_path / "out").exists()


def test_the_command_takes_models_and_minds_voxel_sizes(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write(tmp_path / "raw.zarr", image(), type(GRID)((5.0, 5.0, 5.0)))
    words = ("frequency", raw, model, "--levels", "3", "--names", "ours", "-o", f"{tmp_path}/out")
    code, _, error = emloom(capsys, *words)
    assert code == 2
    assert "voxel size" in error
    code, said, error = emloom(capsys, *words, "--any-voxel-size")
    assert code == 0, error
    assert said.startswith("ours: ratio and coherence by wavelength")
