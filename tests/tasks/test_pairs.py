"""Every writable format to every other and back to memory: not a voxel, a nanometre or an id is lost."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Kind, VolumeInfo
from emloom.tasks.convert import ConvertSpec, convert

PLACES: dict[str, dict[Kind, str]] = {
    "zarr3": {"raw": "out.zarr", "labels": "out.zarr"},
    "zarr2": {"raw": "out.zarr", "labels": "out.zarr"},
    "n5": {"raw": "out.n5/raw", "labels": "out.n5"},
    "precomputed": {"raw": "out.precomputed", "labels": "out.precomputed"},
    "wkw": {"raw": "out.wkw/color", "labels": "out.wkw/segmentation"},
    "hdf5": {"raw": "out.h5/volumes/raw", "labels": "out.h5/segments"},
    "cremi": {"raw": "out.h5/volumes/raw", "labels": "out.h5/volumes/labels/neuron_ids"},
    "tiff": {"raw": "out.tif", "labels": "out.tif"},
    "npy": {"raw": "out.npy", "labels": "out.npy"},
}
GRID = Grid((29.5, 6.25, 4.0), (29.5 * 3, 6.25 * 700, 4.0 * 11))
VALUES: dict[Kind, np.ndarray] = {
    "raw": np.random.default_rng(0).integers(0, 256, (11, 40, 35)).astype(np.uint8),
    "labels": np.random.default_rng(1).choice(np.array([0, 1, 7, 2**40, 2**63 - 1], np.uint64), (11, 40, 35)),
}


def options(form: str) -> dict[str, int]:
    return {"zarr_format": 2} if form == "zarr2" else {}


@pytest.mark.parametrize("kind", ["raw", "labels"])
@pytest.mark.parametrize(("first", "second"), list(product(PLACES, PLACES)))
def test_conversion_is_exact(first: str, second: str, kind: Kind, tmp_path: Path) -> None:
    values = VALUES[kind]
    source, target = tmp_path / "a" / PLACES[first][kind], tmp_path / "b" / PLACES[second][kind]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    info = VolumeInfo(values.shape, values.dtype, GRID, kind=kind, chunks=(8, 16, 32))
    written = create_volume(source, info, **options(first))
    written.write(info.box, values)
    convert(ConvertSpec(source=str(source), target=str(target), chunk_vox=(16, 16, 16), **options(second)))
    copy = open_volume(target)
    assert (copy.info.grid, copy.info.kind, copy.info.dtype) == (GRID, kind, values.dtype)
    np.testing.assert_array_equal(copy.read(copy.info.box), values)
