"""Hashes tell arrays and files apart, and outputs survive JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.geometry import Box
from emloom.geometry.tiling import Block, blocks
from emloom.run.stage import Output, Stage, array_hash, file_hash

DTYPES = st.sampled_from([np.bool_, np.uint8, np.uint32, np.uint64, np.int16, np.float32, np.float64])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0)))


def slow_hash(array: np.ndarray) -> str:
    return xxhash.xxh64_hexdigest(f"{array.dtype.str}{array.shape}".encode() + array.tobytes(order="C"))


@given(ARRAYS)
def test_the_hash_of_an_array_is_of_dtype_shape_and_values(array: np.ndarray) -> None:
    assert array_hash(array) == slow_hash(array)
    assert array_hash(np.asfortranarray(array)) == array_hash(array)


def test_equal_bytes_of_other_arrays_hash_differently() -> None:
    array = np.arange(8, dtype=np.uint16)
    others = [array.reshape(2, 4), array.view(np.int16), array.view(np.uint8), array + 1, array[::-1]]
    assert len({array_hash(a) for a in [array, *others]}) == len(others) + 1


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 3))
def test_the_hash_of_a_file_is_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, n: int) -> None:
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(data + bytes(n << 20))
    assert file_hash(path) == xxhash.xxh64_hexdigest(data + bytes(n << 20))


def test_outputs_survive_json(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"abc")
    array = np.zeros((2, 3, 4), np.uint8)
    for output in (Output.voxels("a.zarr", Box((1, 2, 3), (2, 3, 4)), array), Output.file(tmp_path, "part")):
        assert Output.from_dict(json.loads(json.dumps(output.to_dict()))) == output


def nothing(block: Block) -> list[Output]:
    return []


@pytest.mark.parametrize("word", ["", "a/b", "..", ".hidden", "two words"])
def test_names_become_folders_so_they_are_plain(word: str) -> None:
    with pytest.raises(ValueError, match="plain word"):
        Stage(word, "k", [], nothing)
    with pytest.raises(ValueError, match="plain word"):
        Stage("s", word, [], nothing)


def test_two_blocks_never_share_a_marker() -> None:
    twice = blocks(Box.whole((4, 4, 4)), 4) * 2
    with pytest.raises(ValueError, match="same index"):
        Stage("s", "k", twice, nothing)
