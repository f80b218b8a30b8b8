"""Quality control on real stacks: clean ones are left alone, what is planted or torn is found."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.geometry import Grid
from emloom.io.open import open_volume
from emloom.tasks.qc import quality_control
from emloom.tasks.qcspec import CODES, QcSpec
from tests.planted import PLANTS, Plant, bright, dark, saturated
from tests.tasks.test_qc import flags_of, looked_at

STACKS = {
    "isbi2012_cardona": "train_z00-19.h5",
    "vnc_sstem": "stack1_z00-14.h5",
    "snemi3d": "crop512_z00-29.h5",
    "epfl_hippocampus": "train_z000-019.h5",
    "fib25": "trvol2_250.h5",
}
TONE = (dark, bright)  # sections of ISBI vary in tone by a third of a standard deviation


@pytest.mark.real_data
@pytest.mark.parametrize("name", STACKS)
def test_clean_stacks_raise_no_flag(name: str, real_data: Path, tmp_path: Path) -> None:
    raw = f"{real_data}/{name}/{STACKS[name]}/volumes/raw"
    found = quality_control(QcSpec(raw=raw, output=str(tmp_path / "qc")))
    assert not found.flags
    assert not found.notes
    assert not found.tiles


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["isbi2012_cardona", "snemi3d"])
@pytest.mark.parametrize("plant", [p for p in PLANTS if p not in (*TONE, saturated)], ids=lambda p: p.__name__)
def test_planted_defects_are_found_in_real_tissue(
    plant: Plant, name: str, real_data: Path, tmp_path: Path
) -> None:
    with h5py.File(f"{real_data}/{name}/{STACKS[name]}") as file:
        data = file["volumes/raw"]
        array, size = data[:15], tuple(float(v) for v in data.attrs["resolution"])
    plant(array, 7, np.random.default_rng(1))
    found = flags_of(looked_at(tmp_path, array, Grid((size[0], size[1], size[2]))))
    assert set(found) == {7}
    assert PLANTS[plant] in found[7]


@pytest.mark.real_data
def test_a_torn_section_is_cracked_along_its_tear_and_myelin_is_no_crack(real_data: Path, tmp_path: Path) -> None:
    torn = f"{real_data}/artifacts/cremi_crack/im015_warp0.png"
    spec = QcSpec(raw=torn, output=str(tmp_path / "qc"), voxel_size_nm=(40.0, 4.0, 4.0))
    found = quality_control(spec)
    assert flags_of(found) == {0: ["crack"]}
    code, grey = (v.read(v.info.box)[0] for v in (open_volume(tmp_path / "qc" / "mask.zarr"),
                                                  open_volume(torn, voxel_size_nm=(40.0, 4.0, 4.0))))  # fmt: skip
    black = grey[:1600] == 0
    assert (code[:1600][black] != 0).mean() > 0.98
    assert (code[:1600][black] == CODES["crack"]).mean() > 0.95
    assert (code[~(grey == 0)] != 0).mean() < 0.08, "no more than the tiles along the tear"
    whole = f"{real_data}/artifacts/genEM3_msem_uint16/overview_2.tif"
    clean = quality_control(QcSpec(raw=whole, output=str(tmp_path / "b"), voxel_size_nm=(30.0, 12.0, 12.0)))
    assert not clean.flags
    assert not clean.tiles
