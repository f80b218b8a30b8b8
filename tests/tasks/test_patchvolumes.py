"""Labels of patches from volumes of labels, against counting voxel by voxel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.io.volume import Array, ArrayVolume, VolumeInfo
from emloom.tasks import patchvolumes
from emloom.tasks.patchvolumes import patches_of_volume
from tests.geometry.strategies import vectors

GRID = Grid((35, 32, 32), (70, 0, 64))


@dataclass
class Counted:
    """A volume that counts the voxels that are read."""

    inner: ArrayVolume
    read_vox: int = field(default=0)

    @property
    def info(self) -> VolumeInfo:
        return self.inner.info

    def read(self, box: Box) -> Array:
        self.read_vox += box.size
        return self.inner.read(box)

    def write(self, box: Box, array: Array) -> None:
        raise AssertionError


@given(
    st.integers(0, 10**6),
    st.builds(Lattice, vectors(1, 4), vectors(1, 4), vectors(-5, 5)),
    st.sampled_from([np.uint8, np.uint64, np.int32]),
    st.sampled_from([0.01, 0.3, 1.0]),
    st.sampled_from([1, 200, 1 << 23]),
)
def test_labels_follow_the_part_of_a_patch(
    seed: int, lattice: Lattice, dtype: type, least: float, cell_voxels: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.where(rng.random((6, 9, 8)) < 0.6, 0, rng.integers(1, 4, (6, 9, 8))).astype(dtype)
    volume = Counted(ArrayVolume(ids, GRID, kind="labels"))
    assume(not lattice.inside(volume.info.box).is_empty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patchvolumes, "_CELL_VOXELS", cell_voxels)
        found = patches_of_volume(volume, lattice, {"any": (), "two": (2, 3, 2**40)}, least=least)
    for box, (any_, two) in zip(found.boxes(), found.labels.tolist(), strict=True):
        inside = ids[box.slices()]
        for label, part in ((any_, (inside != 0).mean()), (two, np.isin(inside, [2, 3]).mean())):
            assert label == (1 if part >= least else 0 if part == 0 else -1)
    assert np.array_equal(found.starts, lattice.starts(lattice.inside(Box.whole((6, 9, 8)))))


def test_ids_beyond_floats_are_told_apart() -> None:
    ids = np.full((1, 4, 4), 2**53 + 1, np.uint64)
    found = patches_of_volume(
        ArrayVolume(ids, GRID), Lattice((1, 4, 4), (1, 4, 4)), {"a": (2**53,), "b": (2**53 + 1,)}
    )
    assert found.labels.tolist() == [[0, 1]]


def test_each_voxel_is_read_about_once() -> None:
    volume = Counted(ArrayVolume(np.zeros((4, 320, 320), np.uint8), GRID))
    found = patches_of_volume(volume, Lattice((1, 140, 140), (1, 20, 20)), {"fold": ()})
    assert len(found) == 4 * 10 * 10
    assert volume.read_vox == volume.info.box.size


def test_what_holds_no_labels_is_refused() -> None:
    ids = ArrayVolume(np.zeros((2, 8, 8), np.uint8), GRID)
    lattice = Lattice((1, 4, 4), (1, 4, 4))
    for volume, how, words in (
        (ArrayVolume(np.zeros((2, 8, 8), np.float32), GRID), {"classes": {"a": ()}}, "from ids"),
        (ArrayVolume(np.zeros((1, 2, 8, 8), np.uint8), GRID), {"classes": {"a": ()}}, "from ids"),
        (ids, {"classes": {}}, "name one or more"),
        (ids, {"classes": {"a": ()}, "least": 0.0}, "above 0"),
        (ids, {"classes": {"a": ()}, "box": Box((0, 0, 0), (1, 3, 8))}, "no patch of"),
    ):
        with pytest.raises(InputError, match=words):
            patches_of_volume(volume, lattice, **how)
