"""Every format keeps the promises of a Volume: same values, same meaning, honest refusals."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import Volume, VolumeInfo

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "zarr3": ("out.zarr", {}),
    "zarr3-inner": ("out.zarr/a/raw", {}),
    "zarr3-shards": ("out.zarr", {"shards": (16, 16, 32)}),
    "zarr2": ("out.zarr", {"zarr_format": 2}),
    "hdf5": ("out.h5/volumes/raw", {}),
}
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int32", "int64", "float32", "float64", "bool"]
every_format = pytest.mark.parametrize("form", FORMATS)

lengths = st.floats(0.01, 1e4, allow_nan=False)
positions = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def infos(draw: st.DrawFn) -> VolumeInfo:
    shape = draw(st.tuples(*[st.integers(1, 40)] * 3))
    channels = draw(st.sampled_from([None, 1, 3]))
    grid = Grid(draw(st.tuples(lengths, lengths, lengths)), draw(st.tuples(positions, positions, positions)))
    chunks = draw(st.sampled_from([(8, 8, 16), (16, 16, 32), (4, 16, 8)]))
    neighborhood = None
    if channels is not None and draw(st.booleans()):
        neighborhood = tuple(draw(st.tuples(*[st.integers(-9, 9)] * 3)) for _ in range(channels))
    kind = "affinities" if neighborhood else draw(st.sampled_from([None, "raw", "labels", "mask", "lsds"]))
    return VolumeInfo(shape, np.dtype(draw(st.sampled_from(DTYPES))), grid, channels, chunks, kind, neighborhood)


@st.composite
def boxes_in(draw: st.DrawFn, info: VolumeInfo) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in info.shape]
    stop = [draw(st.integers(a + 1, n)) for a, n in zip(start, info.shape, strict=True)]
    return Box.of(start, stop)


def random_values(info: VolumeInfo, seed: int) -> np.ndarray:
    raw = np.random.default_rng(seed).integers(0, 256, (*info.array_shape, info.dtype.itemsize), dtype=np.uint8)
    if info.dtype == bool:
        return raw[..., 0] > 127
    values = raw.view(info.dtype)[..., 0]
    return np.nan_to_num(values) if info.dtype.kind == "f" else values


@every_format
@settings(deadline=None, max_examples=12)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_what_is_written_is_read(form: str, data: st.DataObject, seed: int) -> None:
    name, options = FORMATS[form]
    info = data.draw(infos())
    values = random_values(info, seed)
    box = data.draw(boxes_in(info))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/{name}"
        written = create_volume(path, info, **options)
        assert isinstance(written, Volume)
        assert not written.read(info.box).any()  # a new volume is all zero
        written.write(info.box, values)
        written.write(box, values[..., *box.slices()][..., ::-1, :].copy())
        values[..., *box.slices()] = values[..., *box.slices()][..., ::-1, :].copy()

        volume = open_volume(path)
        assert volume.info == written.info
        assert volume.info.with_(chunks=info.chunks, source="array") == info
        probe = data.draw(boxes_in(info))
        got = volume.read(probe)
        assert got.flags.c_contiguous
        assert got.dtype == info.dtype
        np.testing.assert_array_equal(got, values[..., *probe.slices()])


@pytest.fixture
def info() -> VolumeInfo:
    return VolumeInfo((20, 24, 30), np.dtype("uint8"), Grid((40, 4, 4), (80, 4, 0)), None, (16, 16, 32), "raw")


@every_format
def test_refusals(form: str, info: VolumeInfo, tmp_path: Path) -> None:
    name, options = FORMATS[form]
    volume = create_volume(tmp_path / name, info, **options)
    with pytest.raises(InputError, match="leaves"):
        volume.read(Box((0, 0, 0), (21, 1, 1)))
    with pytest.raises(InputError, match="leaves"):
        volume.read(Box((-1, 0, 0), (2, 2, 2)))
    with pytest.raises(InputError, match="convert explicitly"):
        volume.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint16))
    with pytest.raises(InputError, match="needs an array of shape"):
        volume.write(Box((0, 0, 0), (1, 1, 2)), np.zeros((1, 1, 1), np.uint8))
    read_only = open_volume(tmp_path / name)
    with pytest.raises(InputError, match="read-only"):
        read_only.write(Box((0, 0, 0), (1, 1, 1)), np.ones((1, 1, 1), np.uint8))
    writable = open_volume(tmp_path / name, writable=True)
    writable.write(Box((0, 0, 0), (1, 1, 1)), np.ones((1, 1, 1), np.uint8))
    assert read_only.read(Box((0, 0, 0), (1, 1, 2))).tolist() == [[[1, 0]]]


@every_format
def test_second_run_into_an_existing_output_is_refused(form: str, info: VolumeInfo, tmp_path: Path) -> None:
    name, options = FORMATS[form]
    box = Box((0, 0, 0), (2, 2, 2))
    create_volume(tmp_path / name, info, **options).write(box, np.full((2, 2, 2), 7, np.uint8))
    with pytest.raises(InputError, match="already exists"):
        create_volume(tmp_path / name, info, **options)
    with pytest.raises(InputError, match="already exists"), staged_volume(tmp_path / name, info, **options):
        pytest.fail("the work must not start")
    assert (open_volume(tmp_path / name).read(box) == 7).all()
    replaced = create_volume(tmp_path / name, info.with_(dtype=np.dtype("uint16")), overwrite=True, **options)
    assert not replaced.read(box).any()
    assert open_volume(tmp_path / name).info.dtype == np.uint16


@every_format
def test_volumes_survive_pickling_after_use(form: str, info: VolumeInfo, tmp_path: Path) -> None:
    name, options = FORMATS[form]
    volume = create_volume(tmp_path / name, info, **options)
    volume.write(info.box, random_values(info, 1))
    clone = pickle.loads(pickle.dumps(volume))
    assert clone.info == volume.info
    np.testing.assert_array_equal(clone.read(info.box), volume.read(info.box))


def write_then_fail(volume: Volume) -> None:
    volume.write(volume.info.box, random_values(volume.info, 1))
    raise RuntimeError


@every_format
def test_staged_volume_appears_whole_or_not_at_all(form: str, info: VolumeInfo, tmp_path: Path) -> None:
    name, options = FORMATS[form]
    path = tmp_path / name
    with pytest.raises(RuntimeError), staged_volume(path, info, **options) as volume:
        write_then_fail(volume)
    assert list(tmp_path.iterdir()) == []
    with staged_volume(path, info, **options) as volume:
        volume.write(info.box, random_values(info, 1))
        assert not path.exists()
    assert [hit.path for hit in inspect(tmp_path / path.relative_to(tmp_path).parts[0])] == [str(path)]
    np.testing.assert_array_equal(open_volume(path).read(info.box), random_values(info, 1))


@pytest.mark.parametrize(("container", "second"), [("out.zarr", "b/c"), ("out.h5", "volumes/b")])
def test_a_failed_addition_leaves_the_container_as_it_was(
    container: str, second: str, info: VolumeInfo, tmp_path: Path
) -> None:
    first = create_volume(tmp_path / container / "volumes/raw", info)
    first.write(info.box, random_values(info, 2))
    with pytest.raises(RuntimeError), staged_volume(tmp_path / container / second, info):
        raise RuntimeError
    assert len(inspect(tmp_path / container)) == 1
    with staged_volume(tmp_path / container / second, info) as volume:
        volume.write(info.box, random_values(info, 3))
    assert {hit.path for hit in inspect(tmp_path / container)} == {
        f"{tmp_path}/{container}/volumes/raw",
        f"{tmp_path}/{container}/{second}",
    }
    np.testing.assert_array_equal(first.read(info.box), random_values(info, 2))
    assert [p.name for p in tmp_path.iterdir()] == [container]


def test_overwriting_never_takes_neighbours_with_it(info: VolumeInfo, tmp_path: Path) -> None:
    create_volume(tmp_path / "out.zarr", info)
    create_volume(tmp_path / "out.zarr/labels", info)
    with pytest.raises(InputError, match=r"would delete .*out\.zarr/labels"):
        create_volume(tmp_path / "out.zarr", info, overwrite=True)
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="is not a zarr volume"):
        create_volume(tmp_path / "mine.zarr", info, overwrite=True)
    assert (tmp_path / "mine.zarr" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.png", {}, "only read"),
        ("out.npz", {}, "no known format"),
        ("out.h5", {}, "name the dataset"),
        ("out.h5/a", {"zarr_format": 2}, r"for \.zarr only"),
        ("out.zarr", {"zarr_format": 4}, "does not exist"),
        ("out.zarr", {"zarr_format": 2, "shards": (16, 16, 32)}, "zarr 2 has no shards"),
        ("out.zarr", {"shards": (16, 16, 33)}, "no multiple"),
        ("https://host/out.zarr", {}, "only read"),
    ],
)
def test_impossible_outputs(
    name: str, options: dict[str, Any], message: str, info: VolumeInfo, tmp_path: Path
) -> None:
    path = name if "://" in name else tmp_path / name
    with pytest.raises(InputError, match=message):
        create_volume(path, info, **options)
    assert list(tmp_path.iterdir()) == []


def test_one_container_holds_one_zarr_format(info: VolumeInfo, tmp_path: Path) -> None:
    create_volume(tmp_path / "out.zarr/a", info, zarr_format=2)
    with pytest.raises(InputError, match="pass zarr_format=2"):
        create_volume(tmp_path / "out.zarr/b", info)
    with pytest.raises(InputError, match="is an array, not a group"):
        create_volume(tmp_path / "out.zarr/a/0/b", info, zarr_format=2)
