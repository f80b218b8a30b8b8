"""wkw folders: cube files, their order of axes, and what a crash or a damaged file does to them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import wkw
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.open import inspect, open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.io.wkw import HEADER, Header, WkwVolume, box_of_cubes, cube_len_for, read_header, write_header

TYPES = ["uint8", "uint16", "uint32", "uint64", "float32", "float64", "int8", "int16", "int32", "int64"]


def empty(
    folder: Path, shape: Vec, start: Vec = (0, 0, 0), dtype: str = "uint8", channels: int | None = None
) -> WkwVolume:
    info = VolumeInfo(shape, np.dtype(dtype), Grid((40, 4, 4)), channels, (32, 32, 32), source=str(folder))
    header = Header(info.dtype, channels or 1, 32, block_len=16)
    write_header(folder, header)
    return WkwVolume(info, folder, start, header, writable=True)


def values_for(info: VolumeInfo, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, info.array_shape).astype(info.dtype)


@st.composite
def boxes_in(draw: st.DrawFn, shape: Vec) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in shape]
    return Box.of(start, [draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)])


@settings(deadline=None, max_examples=30)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_what_is_written_is_read_by_us_and_by_wkw(data: st.DataObject, seed: int) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 70)] * 3))
    start = data.draw(st.tuples(*[st.integers(0, 90)] * 3))
    channels = data.draw(st.sampled_from([None, 1, 3]))
    with tempfile.TemporaryDirectory() as folder:
        volume = empty(Path(folder) / "1", shape, start, data.draw(st.sampled_from(TYPES)), channels)
        assert not volume.read(volume.info.box).any()
        values = values_for(volume.info, seed)
        volume.write(volume.info.box, values)
        box = data.draw(boxes_in(shape))
        part = values_for(volume.info.with_(shape=box.shape), seed + 1)
        volume.write(box, part)
        values[..., *box.slices()] = part

        probe = data.draw(boxes_in(shape))
        got = volume.read(probe)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, values[..., *probe.slices()])
        with wkw.Dataset.open(f"{folder}/1") as judge:
            theirs = judge.read(start[::-1], shape[::-1])
        for c, theirs_xyz in enumerate(theirs):
            np.testing.assert_array_equal(theirs_xyz.T, values if channels is None else values[c])


@settings(deadline=None, max_examples=20)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_what_wkw_writes_is_read(data: st.DataObject, seed: int) -> None:
    channels = data.draw(st.sampled_from([1, 3]))
    kind = data.draw(st.sampled_from(TYPES))
    block_type = data.draw(st.sampled_from([1, 2, 3]))
    header = wkw.Header(np.dtype(kind).type, channels, block_len=8, file_len=4, block_type=block_type)
    values_cxyz = np.random.default_rng(seed).integers(0, 99, (channels, 64, 32, 96)).astype(kind)
    with tempfile.TemporaryDirectory() as folder:
        with wkw.Dataset.create(f"{folder}/1", header) as theirs:
            theirs.write((32, 64, 0), values_cxyz)
        ours = read_header(Path(folder) / "1")
        assert (ours.dtype, ours.channels, ours.cube_len, ours.block_type) == (kind, channels, 32, block_type)
        assert ours.to_bytes() == (Path(folder) / "1" / HEADER).read_bytes()
        assert box_of_cubes(Path(folder) / "1", ours) == Box((0, 64, 32), (96, 32, 64))
        volume = open_volume(f"{folder}/1", voxel_size_nm=(40, 4, 4))
        probe = data.draw(boxes_in(volume.info.shape))
        expected = values_cxyz.transpose(0, 3, 2, 1)[:, *probe.slices()]
        np.testing.assert_array_equal(volume.read(probe), expected if channels > 1 else expected[0])


def test_a_folder_without_a_dataset_says_what_it_does_not_know(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (40, 30, 20), (64, 0, 32))
    volume.write(volume.info.box, values_for(volume.info, 0))
    (hit,) = inspect(tmp_path / "1")
    assert (hit.shape, hit.voxel_size_nm, hit.offset_nm) == ((64, 32, 32), None, None)
    assert "first voxel is (64, 0, 32)" in hit.notes[0]
    with pytest.raises(InputError, match=r"voxel size is missing in .*/1: pass --voxel-size"):
        open_volume(tmp_path / "1")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / HEADER).write_bytes((tmp_path / "1" / HEADER).read_bytes())
    with pytest.raises(InputError, match="has no cube file, and no dataset says how large it is"):
        open_volume(tmp_path / "2", voxel_size_nm=(40, 4, 4))
    with pytest.raises(InputError, match="is a wkw folder and holds no 'z9'"):
        open_volume(tmp_path / "1/z9")


def test_refusals(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (10, 10, 10))
    with pytest.raises(InputError, match="leaves"):
        volume.read(Box((0, 0, 0), (11, 1, 1)))
    with pytest.raises(InputError, match="convert explicitly"):
        volume.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint16))
    with pytest.raises(InputError, match="read-only"):
        WkwVolume(volume.info, volume.folder, volume.start, volume.header).write(
            Box((0, 0, 0), (1, 1, 1)), np.ones((1, 1, 1), np.uint8)
        )
    assert volume.read(Box((3, 3, 3), (0, 2, 2))).shape == (0, 2, 2)
    volume.write(Box((3, 3, 3), (0, 2, 2)), np.zeros((0, 2, 2), np.uint8))


def test_all_zero_cubes_get_no_file_and_existing_ones_are_cleared(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (64, 32, 32))
    volume.write(volume.info.box, np.concatenate([np.zeros((32, 32, 32)), np.ones((32, 32, 32))]).astype("u1"))
    assert sorted(p.name for p in (tmp_path / "1").iterdir()) == ["header.wkw", "z1"]
    volume.write(volume.info.box, np.zeros((64, 32, 32), np.uint8))
    assert not volume.read(volume.info.box).any()


@pytest.mark.fault(
    "containers",
    "headers of wkw have another magic word, version, block type or voxel type",
    "error: does not start with 'WKW' / is wkw version 2: only version 1 is known",
)
@pytest.mark.parametrize(
    ("at", "byte", "message"),
    [
        (0, ord("X"), "does not start with 'WKW'"),
        (3, 2, "is wkw version 2: only version 1 is known"),
        (5, 9, "block type 9 and voxel type 1, which do not exist"),
        (6, 77, "block type 2 and voxel type 77, which do not exist"),
        (7, 0, "says 0 bytes per voxel of uint8"),
    ],
)
def test_damaged_headers_are_errors(tmp_path: Path, at: int, byte: int, message: str) -> None:
    volume = empty(tmp_path / "1", (10, 10, 10))
    volume.write(volume.info.box, values_for(volume.info, 0))
    for path in (tmp_path / "1" / HEADER, tmp_path / "1/z0/y0/x0.wkw"):
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        with pytest.raises(InputError, match=message):
            open_volume(tmp_path / "1", voxel_size_nm=(40, 4, 4)).read(volume.info.box)
        path.write_bytes(whole)
    (tmp_path / "1" / HEADER).write_bytes(b"WKW\x01")
    with pytest.raises(InputError, match=r"header\.wkw is cut off \(4 of 16 bytes\)"):
        open_volume(tmp_path / "1", voxel_size_nm=(40, 4, 4))


@pytest.mark.fault(
    "containers",
    "wkw cubes are cut short, where the library would read zeros",
    "error: x0.wkw is cut off (it has 12 bytes): copy it again",
)
@pytest.mark.parametrize("block_type", [1, 2, 3])
@pytest.mark.parametrize("keep", [0.0, 0.0002, 0.003, 0.5, 0.9999])
def test_cut_off_cubes_are_errors_where_the_library_reads_zeros(
    tmp_path: Path, block_type: int, keep: float
) -> None:
    values = np.random.default_rng(0).integers(1, 99, (64, 64, 64), np.uint8)
    header = wkw.Header(np.uint8, block_len=16, file_len=4, block_type=block_type)
    with wkw.Dataset.create(str(tmp_path / "1"), header) as theirs:
        theirs.write((0, 0, 0), values)
    volume = open_volume(tmp_path / "1", voxel_size_nm=(40, 4, 4))
    np.testing.assert_array_equal(volume.read(volume.info.box), values.T)
    cube = tmp_path / "1/z0/y0/x0.wkw"
    cube.write_bytes(cube.read_bytes()[: int(cube.stat().st_size * keep)])
    with pytest.raises(InputError, match=r"x0\.wkw is cut off.*copy it again"):
        volume.read(volume.info.box)


def test_a_cube_of_another_kind_is_an_error(tmp_path: Path) -> None:
    small, large = empty(tmp_path / "a", (8, 8, 8)), empty(tmp_path / "b", (8, 8, 8), dtype="uint16")
    for volume in (small, large):
        volume.write(volume.info.box, values_for(volume.info, 0))
    (tmp_path / "b/z0/y0/x0.wkw").replace(tmp_path / "a/z0/y0/x0.wkw")
    with pytest.raises(InputError, match=r"uint16.*header\.wkw says.*uint8.*copy the folder again"):
        small.read(small.info.box)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_cubes_that_may_not_be_read_are_an_error_not_zeros(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (8, 8, 8))
    volume.write(volume.info.box, values_for(volume.info, 0))
    (tmp_path / "1/z0/y0/x0.wkw").chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        volume.read(volume.info.box)


@pytest.mark.fault(
    "disk",
    "the disk is full while a wkw cube is replaced",
    "error: the disk is full; the old cube stays, and nothing else",
)
def test_a_failed_write_leaves_the_old_cube_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = empty(tmp_path / "1", (8, 8, 8))
    values = values_for(volume.info, 0)
    volume.write(volume.info.box, values)

    def full(*_: object) -> None:
        raise wkw.wkw.WKWException("No space left on device (os error 28)")

    monkeypatch.setattr(wkw.Dataset, "write", full)
    with pytest.raises(InputError, match=r"cannot write .*/1: the disk is full"):
        volume.write(volume.info.box, values + 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(volume.read(volume.info.box), values)
    assert sorted(p.name for p in (tmp_path / "1").iterdir()) == ["header.wkw", "z0"]


def _write_columns(volume: Volume, columns: range) -> None:
    for x in columns:
        box = Box((0, 0, x), (48, 48, 1))
        volume.write(box, np.full(box.shape, x + 1, np.uint8))


def test_processes_that_share_cubes_lose_nothing(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (48, 48, 40), (5, 7, 9))
    context = multiprocessing.get_context("spawn")
    shares = (range(0, 40, 2), range(1, 40, 2))
    workers = [context.Process(target=_write_columns, args=(volume, share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    expected = np.broadcast_to(np.arange(1, 41, dtype=np.uint8), (48, 48, 40))
    np.testing.assert_array_equal(volume.read(volume.info.box), expected)


def _write_forever(volume: Volume) -> None:
    for value in range(1, 10**9):
        volume.write(volume.info.box, np.full(volume.info.shape, value % 250 + 1, np.uint8))


@pytest.mark.fault(
    "processes",
    "a process that writes wkw cubes is killed (`kill -9`)",
    "every cube is wholly old or wholly new",
)
def test_a_killed_writer_leaves_every_cube_old_or_new(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (70, 70, 70), (3, 3, 3))
    context = multiprocessing.get_context("spawn")
    for pause in (0.0, 0.003, 0.011):
        worker = context.Process(target=_write_forever, args=(volume,))
        worker.start()
        deadline = time.monotonic() + 60
        while not volume.read(volume.info.box).all():
            assert time.monotonic() < deadline
        time.sleep(pause)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        values = volume.read(volume.info.box)
        for cube in np.ndindex(3, 3, 3):
            low = [max(0, 32 * i - 3) for i in cube]
            high = [min(70, 32 * i + 29) for i in cube]
            inside = values[Box.of(low, high).slices()]
            assert inside.min() == inside.max() > 0
        volume.write(volume.info.box, np.full(volume.info.shape, 7, np.uint8))  # the lock died with its owner


def test_volumes_are_cheap_to_pickle(tmp_path: Path) -> None:
    volume = empty(tmp_path / "1", (8, 8, 8))
    volume.read(volume.info.box)
    again = pickle.loads(pickle.dumps(volume))
    assert again == volume
    assert len(pickle.dumps(volume)) < 2000


def test_cubes_hold_a_chunk_and_are_no_larger_than_the_volume() -> None:
    info = VolumeInfo((2000, 3000, 3000), np.dtype("uint8"), Grid((40, 4, 4)))
    assert cube_len_for(info) == 256
    assert cube_len_for(info.with_(chunks=(20, 100, 65))) == 128
    assert cube_len_for(info.with_(chunks=(1, 9000, 1))) == 1024
    assert cube_len_for(info.with_(shape=(3, 40, 33))) == 64
    assert cube_len_for(info.with_(shape=(3, 4, 5))) == 32
