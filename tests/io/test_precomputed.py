"""Neuroglancer precomputed: bytes as the specification says, x first, placed by whole voxels."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import Kind, VolumeInfo

GRID = Grid((40.5, 4.6, 4), (81, -9.2, 1000))
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32"]


def values_of(info: VolumeInfo, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 120, info.array_shape).astype(info.dtype)


def about(path: Path) -> dict[str, Any]:
    return json.loads((path / "info").read_text())


def decoded(folder: Path) -> np.ndarray:
    """The raw chunks of the first scale as the specification lays them out: [x, y, z, channel], x fastest."""
    info, scale = about(folder), about(folder)["scales"][0]
    assert scale["encoding"] == "raw"
    out = np.zeros([*scale["size"], info["num_channels"]], np.dtype(info["data_type"]).newbyteorder("<"))
    for path in (folder / scale["key"]).iterdir():
        faces = re.findall(r"(-?\d+)-(-?\d+)(?:_|$)", path.name)
        low = [int(a) - o for (a, _), o in zip(faces, scale["voxel_offset"], strict=True)]
        high = [int(b) - o for (_, b), o in zip(faces, scale["voxel_offset"], strict=True)]
        shape = [b - a for a, b in zip(low, high, strict=True)]
        chunk = np.frombuffer(path.read_bytes(), out.dtype).reshape([*shape, info["num_channels"]], order="F")
        out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = chunk
    return out


def labels_decoded(data: bytes, shape_xyz: tuple[int, int, int]) -> np.ndarray:
    """One channel of compressed_segmentation (uint64, blocks of 8), decoded from its specification."""
    words = np.frombuffer(data, "<u4")
    words = words[words[0] :]
    out = np.zeros(shape_xyz, np.uint64)
    counts = [-(-n // 8) for n in shape_xyz]
    for block in range(int(np.prod(counts))):
        at = np.unravel_index(block, counts, order="F")
        table, bits = int(words[2 * block]) & 0xFFFFFF, int(words[2 * block]) >> 24
        start = int(words[2 * block + 1])
        for voxel in range(512):
            x, y, z = (
                int(8 * b + v) for b, v in zip(at, np.unravel_index(voxel, (8, 8, 8), order="F"), strict=True)
            )
            if x >= shape_xyz[0] or y >= shape_xyz[1] or z >= shape_xyz[2]:
                continue
            word, shift = divmod(voxel * bits, 32)
            index = (int(words[start + word]) >> shift) & ((1 << bits) - 1) if bits else 0
            out[x, y, z] = int(words[table + 2 * index]) | int(words[table + 2 * index + 1]) << 32
    return out


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_what_is_written_is_read_and_is_precomputed(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    channels = data.draw(st.sampled_from([None, 1, 3]))
    chunks = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    size = data.draw(st.tuples(*[st.floats(0.01, 1e4)] * 3))
    start = data.draw(st.tuples(*[st.integers(-1000, 100000)] * 3))
    kind: Kind | None = data.draw(st.sampled_from([None, "raw", "mask", "lsds"]))
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    grid = Grid(size, Grid(size).to_world(start))
    info = VolumeInfo(shape, dtype, grid, channels, chunks, kind)
    values = values_of(info)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.precomputed"
        written = create_volume(path, info)
        assert not written.read(info.box).any()
        written.write(info.box, values)
        xyzc = decoded(path)
        np.testing.assert_array_equal(xyzc[..., 0] if channels is None else xyzc, values.T)
        assert about(path)["scales"][0]["voxel_offset"] == list(reversed(start))
        volume = open_volume(path)
        assert volume.info == written.info == info.with_(source=str(path))
        low = [data.draw(st.integers(0, n - 1)) for n in shape]
        box = Box.of(low, [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)])
        got = volume.read(box)
        assert got.flags.c_contiguous
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, values[..., *box.slices()])


def test_labels_are_a_compressed_segmentation(tmp_path: Path) -> None:
    info = VolumeInfo((9, 10, 11), np.dtype("uint64"), GRID, None, (16, 16, 16), "labels")
    values = np.random.default_rng(0).integers(0, 5, info.shape, dtype=np.uint64) * (2**33 + 7)
    create_volume(tmp_path / "seg.precomputed", info).write(info.box, values)
    assert about(tmp_path / "seg.precomputed")["type"] == "segmentation"
    (path,) = [p for p in (tmp_path / "seg.precomputed").rglob("*") if p.is_file() and p.name != "info"]
    np.testing.assert_array_equal(labels_decoded(path.read_bytes(), (11, 10, 9)), values.T)
    volume = open_volume(tmp_path / "seg.precomputed")
    assert volume.info.kind == "labels"
    np.testing.assert_array_equal(volume.read(info.box), values)


def foreign(folder: Path, values: np.ndarray, **scale: Any) -> Path:
    """A precomputed volume as other tools write it: TensorStore, without our attribute."""
    kind = "segmentation" if values.dtype == np.uint64 else "image"
    spec: dict[str, Any] = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(folder)},
    }
    spec["multiscale_metadata"] = {"type": kind, "data_type": values.dtype.name, "num_channels": 1}
    size = list(reversed(values.shape))
    spec["scale_metadata"] = {"size": size, "resolution": [4, 5, 40], "chunk_size": [8, 8, 8], "encoding": "raw"}
    spec["scale_metadata"] |= {"voxel_offset": [3, -2, 5], **scale}
    store = tensorstore.open(spec, create=True).result()
    store[..., 0].T.write(values).result()
    return folder


VALUES = np.random.default_rng(0).integers(1, 200, (10, 12, 14), dtype=np.uint8)
SHARDS = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 1,
    "hash": "murmurhash3_x86_128",
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}


@pytest.mark.parametrize("name", ["em.precomputed", "em"])
def test_a_foreign_image_says_where_it_is_but_not_what(tmp_path: Path, name: str) -> None:
    path = foreign(tmp_path / name, VALUES)
    volume = open_volume(path)
    assert volume.info.grid == Grid((40, 5, 4), (200, -10, 12))
    assert volume.info.kind is None
    np.testing.assert_array_equal(volume.read(volume.info.box), VALUES)


@pytest.mark.parametrize("more", [{"sharding": SHARDS}, {"encoding": "png"}], ids=["sharded", "png"])
def test_other_ways_of_storing_are_read(tmp_path: Path, more: dict[str, Any]) -> None:
    volume = open_volume(foreign(tmp_path / "em", VALUES, **more))
    box = Box((1, 2, 3), (8, 9, 10))
    np.testing.assert_array_equal(volume.read(box), VALUES[box.slices()])


def test_sharded_labels_are_read_and_not_written(tmp_path: Path) -> None:
    labels = VALUES.astype(np.uint64)
    more = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
    path = foreign(tmp_path / "seg", labels, sharding=SHARDS, **more)
    assert open_volume(path).info.kind == "labels"
    np.testing.assert_array_equal(open_volume(path).read(Box.whole((10, 12, 14))), labels)
    with pytest.raises(InputError, match="sharded precomputed volumes are only read"):
        open_volume(path, writable=True)


def test_jpeg_is_read_and_noted(tmp_path: Path) -> None:
    flat = np.full((8, 8, 8), 100, np.uint8)
    path = foreign(tmp_path / "em", flat, encoding="jpeg")
    np.testing.assert_allclose(open_volume(path).read(Box.whole((8, 8, 8))), flat, atol=3)
    assert "jpeg" in inspect(path)[0].notes[0]


def pack(folder: Path, suffix: str = ".gz") -> list[Path]:
    chunks = [path for path in folder.rglob("*") if path.is_file() and path.name != "info"]
    for path in chunks:
        path.with_name(path.name + suffix).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return chunks


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_chunks_packed_by_cloud_volume_are_read(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = foreign(Path(folder) / "em", VALUES)
        pack(path)
        low = [data.draw(st.integers(0, n - 1)) for n in VALUES.shape]
        box = Box.of(low, [data.draw(st.integers(a + 1, n)) for a, n in zip(low, VALUES.shape, strict=True)])
        np.testing.assert_array_equal(open_volume(path).read(box), VALUES[box.slices()])


def test_packed_chunks_are_not_written_twice_nor_taken_for_zero(tmp_path: Path) -> None:
    path = foreign(tmp_path / "em", VALUES)
    chunks = pack(path)
    box = Box.whole((10, 12, 14))
    with pytest.raises(InputError, match="packed chunks"):
        open_volume(path, writable=True).write(box, VALUES)
    chunks[0].with_name(chunks[0].name + ".gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="is damaged"):
        open_volume(path).read(box)
    chunks[0].with_name(chunks[0].name + ".gz").rename(chunks[0].with_name(chunks[0].name + ".br"))
    with pytest.raises(InputError, match="packed in a way"):
        open_volume(path).read(box)


def test_volumes_survive_pickling_after_use(tmp_path: Path) -> None:
    volume = open_volume(foreign(tmp_path / "em", VALUES))
    volume.read(volume.info.box)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(volume.info.box), VALUES)


def test_scales_open_by_key(tmp_path: Path) -> None:
    path = foreign(tmp_path / "em", VALUES[:4, :4, :4], key="coarse", resolution=[8, 10, 40])
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(path)}}
    scale = {
        "size": [14, 12, 10],
        "resolution": [4, 5, 40],
        "chunk_size": [8, 8, 8],
        "encoding": "raw",
        "key": "fine",
    }
    tensorstore.open({**spec, "scale_metadata": scale}, create=True).result()
    assert open_volume(path).info.grid.voxel_size_nm == (40, 5, 4)  # the finest, wherever it is listed
    coarse = open_volume(path / "coarse")
    assert coarse.info.grid == Grid((40, 10, 8), (200, -20, 24))
    np.testing.assert_array_equal(coarse.read(coarse.info.box), VALUES[:4, :4, :4])
    with pytest.raises(InputError, match="no scale 'coarsest'; did you mean 'coarse'"):
        open_volume(path / "coarsest")


@pytest.mark.fault(
    "containers",
    "an info file has an unknown encoding, no scale, a size of 0, half a voxel as offset",
    "error: names the value and what emloom reads",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i["scales"][0].update(encoding="compresso"), r"encoding 'compresso'.*emloom reads raw"),
        (lambda i: i["scales"][0].update(encoding="Raw"), r"did you mean 'raw'"),
        (lambda i: i.update(data_type="complex64"), r"data_type 'complex64'.*emloom reads uint8"),
        (lambda i: i.update(type="picture"), r"type 'picture'"),
        (lambda i: i.update(scales=[]), r"no scale"),
        (lambda i: i["scales"][0].update(resolution=[4, 5, 0]), r"not positive"),
        (lambda i: i["scales"][0].update(resolution=[4, -5, 40]), r"not positive"),
        (lambda i: i["scales"][0].update(resolution=[4, 5]), r"malformed"),
        (lambda i: i["scales"][0].pop("size"), r"size"),
        (lambda i: i["scales"][0].update(voxel_offset=[0.5, 0, 0]), r"whole number"),
        (lambda i: i.update(emloom={"version": 9}), r"'emloom' attribute is not valid"),
        (lambda i: i["emloom"].update(voxel_size_nm=[4.0, 5.0, 40.0]), r"correct one of them"),
        (lambda i: i["emloom"].update(axes="czyx"), None),
    ],
)
def test_contradictions_in_the_info(tmp_path: Path, change: Any, message: str | None) -> None:
    create_volume(tmp_path / "em.precomputed", VolumeInfo((4, 5, 6), np.dtype("uint8"), Grid((40, 5, 4))))
    info = about(tmp_path / "em.precomputed")
    change(info)
    (tmp_path / "em.precomputed/info").write_text(json.dumps(info))
    if message is None:
        assert open_volume(tmp_path / "em.precomputed").info.channels == 1
        return
    with pytest.raises(InputError, match=message):
        open_volume(tmp_path / "em.precomputed")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (VolumeInfo((4, 5, 6), np.dtype("bool"), GRID), "stores no bool: store it as uint8"),
        (VolumeInfo((4, 5, 6), np.dtype("int64"), GRID), "stores no int64: store ids as uint64"),
        (VolumeInfo((4, 5, 6), np.dtype("float64"), GRID), "stores no float64: store it as float32"),
        (
            VolumeInfo((4, 5, 6), np.dtype("uint8"), Grid((40, 4, 4), (10, 0, 0))),
            r"\(10.0, 0.0, 0.0\) nm is .0.25",
        ),
    ],
)
def test_what_precomputed_cannot_say_is_refused(tmp_path: Path, info: VolumeInfo, message: str) -> None:
    with pytest.raises(InputError, match=message), staged_volume(tmp_path / "em.precomputed", info):
        pytest.fail("the work must not start")
    assert list(tmp_path.iterdir()) == []


def test_existing_volumes_are_kept(tmp_path: Path) -> None:
    info = VolumeInfo((4, 5, 6), np.dtype("uint8"), GRID)
    create_volume(tmp_path / "em.precomputed", info).write(info.box, values_of(info))
    with pytest.raises(InputError, match="already exists"):
        create_volume(tmp_path / "em.precomputed", info)
    with pytest.raises(InputError, match="one volume"):
        create_volume(tmp_path / "em.precomputed/raw", info)
    assert not create_volume(tmp_path / "em.precomputed", info, overwrite=True).read(info.box).any()
    (tmp_path / "mine.precomputed").mkdir()
    with pytest.raises(InputError, match="is not a precomputed volume"):
        create_volume(tmp_path / "mine.precomputed", info, overwrite=True)


@pytest.mark.fault(
    "containers",
    "chunks of a precomputed volume lose their last byte; its info is cut off",
    "error: cannot read or write ...; copy it again or write it anew",
)
def test_truncated_chunks_are_an_error(tmp_path: Path) -> None:
    path = foreign(tmp_path / "em", VALUES)
    for chunk in path.rglob("*_*-*"):
        chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cannot read or write .*em"):
        open_volume(path).read(Box.whole((10, 12, 14)))
    (path / "info").write_text("{")
    with pytest.raises(InputError):
        open_volume(path)


@pytest.mark.real_data
def test_webknossos_precomputed(real_data: Path) -> None:
    (hit,) = inspect(real_data / "webknossos/simple_ng_dataset/color")
    assert (hit.axes, hit.shape, hit.voxel_size_nm) == ("czyx", (3, 24, 24, 24), (1, 1, 1))
    assert open_volume(f"{hit.path}/1").read(Box.whole((24, 24, 24))).any()
