"""A damaged chunk is refused when it is read or changed in part, and replaced when it is written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo

WHOLE = Box.whole((20, 20, 20))
INNER, EDGE = Box((8, 8, 8), (8, 8, 8)), Box((16, 16, 16), (4, 4, 4))


def damage(path: Path) -> int:
    """Cut every chunk file short; return how many."""
    files = [
        f for f in path.rglob("*") if f.is_file() and "json" not in f.name and f.name not in ("info", ".zarray")
    ]
    chunks = [f for f in files if not f.name.startswith(".z")]
    for file in chunks:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return len(chunks)


@pytest.mark.fault(
    "containers",
    "chunk files of zarr, N5 or precomputed are cut in half, then read, changed in part, and written whole",
    "error: cannot read or write ...; copy it again or write it anew. Written whole, they are whole again",
)
@pytest.mark.parametrize("name", ["a.zarr", "a.n5", "a.precomputed"])
def test_damaged_chunks_are_replaced_whole_only(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    info = VolumeInfo((20, 20, 20), np.dtype(np.uint64), Grid((8.0, 8.0, 8.0)), kind="labels", chunks=(8, 8, 8))
    ids = np.random.default_rng(0).integers(0, 2**40, (20, 20, 20)).astype(np.uint64)
    create_volume(path, info).write(WHOLE, ids)
    assert damage(path) == 27
    volume = open_volume(path, writable=True)
    for box in (INNER, EDGE):
        with pytest.raises(InputError, match="write it anew"):
            volume.read(box)
        part = Box(box.start, (4, 4, 3))
        with pytest.raises(InputError, match="write it anew"):
            volume.write(part, ids[part.slices()])
        volume.write(box, ids[box.slices()])
        np.testing.assert_array_equal(volume.read(box), ids[box.slices()])
    open_volume(path, writable=True).write(WHOLE, ids)
    np.testing.assert_array_equal(open_volume(path).read(WHOLE), ids)
