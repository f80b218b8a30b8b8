"""What a detector says, on its own lattice, is found at the tiles of quality control, however it is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume
from emloom.io.volume import Kind, VolumeInfo
from emloom.ops.logits import encode_probabilities
from emloom.tasks.qcartifacts import probabilities_at
from emloom.tasks.qcspec import ArtifactsSpec

MAP = Grid((40.0, 128.0, 128.0), (0.0, 0.0, 0.0))
TILES = Grid((40.0, 256.0, 256.0), (0.0, 0.0, 0.0))


def stored(folder: Path, array: NDArray[np.generic], kind: Kind) -> ArtifactsSpec:
    info = VolumeInfo(array.shape, array.dtype, MAP, kind=kind)  # type: ignore[arg-type]
    create_volume(folder / "map.zarr", info).write(info.box, array)
    return ArtifactsSpec(path=str(folder / "map.zarr"))


@pytest.mark.parametrize("kind", ["logits", "mask", "probabilities", "floats"])
def test_tiles_ask_the_patch_at_their_centre(kind: str, tmp_path: Path) -> None:
    said = np.random.default_rng(0).random((3, 6, 8))
    if kind == "logits":
        spec, tolerance = stored(tmp_path, encode_probabilities(said), "logits"), 0.02
    elif kind == "mask":
        said = np.round(said)
        spec, tolerance = stored(tmp_path, said.astype(np.uint8), "mask"), 0.0
    elif kind == "probabilities":
        spec, tolerance = stored(tmp_path, np.round(said * 255).astype(np.uint8), "probabilities"), 0.002
    else:
        spec, tolerance = stored(tmp_path, said.astype(np.float32), "probabilities"), 1e-6
    found = probabilities_at(spec, TILES, Box((1, 0, 1), (2, 4, 4)))
    # A tile is two patches wide; its centre is the corner of the third of each four.
    expected = np.zeros((2, 4, 4))
    expected[:, :3, :3] = said[1:3, 1::2, 3::2]
    assert np.abs(found - expected).max() <= tolerance


def test_what_is_not_known_is_not_called(tmp_path: Path) -> None:
    codes = np.zeros((1, 2, 2), np.uint8)
    found = probabilities_at(stored(tmp_path, codes, "logits"), MAP, Box((0, 0, 0), (1, 2, 2)))
    assert not found.any()


def test_several_channels_are_refused(tmp_path: Path) -> None:
    info = VolumeInfo((1, 2, 2), np.dtype(np.uint8), MAP, channels=2, kind="probabilities")
    create_volume(tmp_path / "map.zarr", info)
    with pytest.raises(InputError, match="one channel"):
        probabilities_at(ArtifactsSpec(path=str(tmp_path / "map.zarr")), MAP, Box((0, 0, 0), (1, 2, 2)))
