"""N5: blocks as the specification says, metadata as each tool says them, nothing believed that is not said."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import Kind, VolumeInfo

GRID = Grid((40, 4.6, 4), (120, -2.3, 1000.25))
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]


def values_of(info: VolumeInfo, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 120, info.array_shape).astype(info.dtype)


def attributes(path: Path) -> dict[str, Any]:
    return json.loads((path / "attributes.json").read_text())


def decoded(folder: Path) -> np.ndarray:
    """The array as the N5 specification lays it out, decoded without TensorStore: dimensions x first."""
    about = attributes(folder)
    assert about["compression"]["type"] == "gzip"
    dtype = np.dtype(about["dataType"]).newbyteorder(">")
    out = np.zeros(about["dimensions"], dtype, order="F")
    counts = [range(-(-n // b)) for n, b in zip(about["dimensions"], about["blockSize"], strict=True)]
    for index in product(*counts):
        path = folder.joinpath(*map(str, index))
        if not path.exists():
            continue
        data = path.read_bytes()
        mode, rank = struct.unpack(">HH", data[:4])
        sizes = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
        assert mode == 0
        block = np.frombuffer(gzip.decompress(data[4 + 4 * rank :]), dtype).reshape(sizes, order="F")
        low = [i * b for i, b in zip(index, about["blockSize"], strict=True)]
        inside = tuple(slice(a, a + n) for a, n in zip(low, block.shape, strict=True))
        view = out[inside]
        view[...] = block[tuple(slice(n) for n in view.shape)]
    return out


def foreign(folder: Path, array_xyz: np.ndarray, **more: Any) -> Path:
    """An N5 array of one block as another tool would write it, without TensorStore."""
    folder.mkdir(parents=True)
    about = {"dimensions": list(array_xyz.shape), "blockSize": list(array_xyz.shape)}
    about |= {"dataType": array_xyz.dtype.name, "compression": {"type": "gzip"}, **more}
    (folder / "attributes.json").write_text(json.dumps(about))
    block = folder.joinpath(*["0"] * array_xyz.ndim)
    block.parent.mkdir(parents=True)
    header = struct.pack(f">HH{array_xyz.ndim}I", 0, array_xyz.ndim, *array_xyz.shape)
    big = array_xyz.astype(array_xyz.dtype.newbyteorder(">"))
    block.write_bytes(header + gzip.compress(big.tobytes(order="F")))
    return folder


XYZ = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(5, 4, 3)
NM = ["nm"] * 3
MEASURED = {"resolution": [4, 5, 40], "units": NM}


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_what_is_written_is_read_and_is_n5(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    channels = data.draw(st.sampled_from([None, 1, 3]))
    chunks = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    size = data.draw(st.tuples(*[st.floats(0.01, 1e4)] * 3))
    offset = data.draw(st.tuples(*[st.floats(-1e6, 1e6)] * 3))
    kind: Kind | None = data.draw(st.sampled_from([None, "raw", "labels", "mask"]))
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    info = VolumeInfo(shape, dtype, Grid(size, offset), channels, chunks, kind)
    values = values_of(info)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / data.draw(st.sampled_from(["out.n5", "out.n5/volumes/raw"]))
        written = create_volume(path, info)
        assert not written.read(info.box).any()
        written.write(info.box, values)
        np.testing.assert_array_equal(decoded(path), values.T)
        volume = open_volume(path)
        assert volume.info == written.info == info.with_(source=str(path))
        start = [data.draw(st.integers(0, n - 1)) for n in shape]
        box = Box.of(start, [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)])
        got = volume.read(box)
        assert got.flags.c_contiguous
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, values[..., *box.slices()])


@pytest.mark.parametrize("without", ["emloom", "emloom transform", "emloom resolution pixelResolution"])
@pytest.mark.parametrize("channels", [None, 2])
def test_other_tools_words_alone_say_what_our_attribute_says(
    tmp_path: Path, channels: int | None, without: str
) -> None:
    info = VolumeInfo((5, 6, 7), np.dtype("uint8"), GRID, channels, (4, 4, 4))
    create_volume(tmp_path / "out.n5/raw", info)
    about = attributes(tmp_path / "out.n5/raw")
    for name in without.split():
        del about[name]
    (tmp_path / "out.n5/raw/attributes.json").write_text(json.dumps(about))
    assert open_volume(tmp_path / "out.n5/raw").info.grid.matches(GRID)


def test_a_folder_of_any_name_is_known_by_its_attributes(tmp_path: Path) -> None:
    foreign(tmp_path / "data" / "a" / "raw", XYZ, **MEASURED)
    (tmp_path / "data" / "attributes.json").write_text('{"n5": "2.0.0"}')
    assert inspect(tmp_path / "data")[0].path == str(tmp_path / "data/a/raw")
    np.testing.assert_array_equal(open_volume(tmp_path / "data/a/raw").read(Box.whole((3, 4, 5))), XYZ.T)


@pytest.mark.parametrize(
    ("more", "size", "offset"),
    [
        (MEASURED, (40, 5, 4), None),
        ({"resolution": [4, 5, 40], "units": ["nm", "nm", "um"], "offset": [8, 0, 1]}, (40e3, 5, 4), (1e3, 0, 8)),
        ({"resolution": [4e-9, 5e-9, 4e-8], "units": ["m"] * 3}, (40, 5, 4), None),
        ({"pixelResolution": {"unit": "um", "dimensions": [0.097, 0.097, 0.18]}}, (180, 97, 97), None),
        (
            {"pixelResolution": {"unit": "nm", "dimensions": [4, 5, 40]}, "downsamplingFactors": [2, 2, 1]},
            (40, 10, 8),
            None,
        ),
        (
            {
                "transform": {
                    "axes": list("zyx"),
                    "scale": [40, 5, 4],
                    "translate": [20, 0, 6],
                    "units": ["nm"] * 3,
                }
            },
            (40, 5, 4),
            (0, -2.5, 4),
        ),
        (
            {"transform": {"axes": list("xyz"), "scale": [4, 5, 40], "translate": [2, 0, 0], "units": NM}},
            (40, 5, 4),
            (-20, -2.5, 0),
        ),
    ],
)
def test_each_tool_is_understood_in_its_own_order(
    tmp_path: Path, more: dict[str, Any], size: tuple[float, ...], offset: tuple[float, ...] | None
) -> None:
    hit = inspect(foreign(tmp_path / "x.n5/raw", XYZ, **more))[0]
    assert hit.problems == ()
    assert hit.voxel_size_nm == pytest.approx(size)
    assert hit.offset_nm == (None if offset is None else pytest.approx(offset))
    assert hit.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, "voxel size is missing"),
        ({"resolution": [4, 5, 40]}, "resolution has no units"),
        ({"resolution": [4, 5, 40], "units": ["nm", "nm", "parsnip"]}, "are unknown"),
        ({"pixelResolution": [4, 5, 40]}, "pixelResolution has the unit None"),
        ({"pixelResolution": {"unit": "pixel", "dimensions": [1, 1, 1]}}, "unit 'pixel'"),
        ({"transform": {"axes": list("zyx"), "scale": [1, 1, 1], "translate": [0, 0, 0]}}, "missing or unknown"),
        ({**MEASURED, "downsamplingFactors": [2, 2, 2]}, "tools differ"),
    ],
)
def test_numbers_that_say_too_little_are_missing(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    path = foreign(tmp_path / "x.n5/raw", XYZ, **more)
    with pytest.raises(InputError, match=f"voxel size is missing in .*{why}.*pass --voxel-size|{why}"):
        open_volume(path)
    assert open_volume(path, voxel_size_nm=(40, 5, 4)).info.grid.voxel_size_nm == (40, 5, 4)


@pytest.mark.fault(
    "units",
    "attributes of N5 contradict each other in the words of different tools",
    "error: names both values: correct one of them",
)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({**MEASURED, "pixelResolution": {"unit": "nm", "dimensions": [40, 5, 4]}}, "correct one of them"),
        (
            {**MEASURED, "transform": {"axes": ["z", "y", "x"], "scale": [4, 5, 40], "units": ["nm"] * 3}},
            "correct",
        ),
        ({**MEASURED, "axes": ["z", "y", "x"]}, "has the axes z,y,x, fastest first"),
        ({"resolution": [4, 5, 0], "units": ["nm"] * 3}, "not positive"),
        ({"resolution": [4, 5, -40], "units": ["nm"] * 3}, "not positive"),
        ({"pixelResolution": {"unit": "nm", "dimensions": [4, 5]}}, "malformed"),
        ({"pixelResolution": {"unit": "nm", "dimensions": "fine"}}, "malformed"),
        ({"transform": {"scale": [1, 1, 1]}}, "malformed"),
        ({"isLabelMultiset": True}, "label multisets"),
        ({"emloom": {"version": 9}}, "'emloom' attribute is not valid"),
    ],
)
def test_contradictory_metadata_are_an_error(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    path = foreign(tmp_path / "x.n5/raw", XYZ, **more)
    with pytest.raises(InputError, match=message):
        open_volume(path)
    assert any(message in problem for problem in inspect(path)[0].problems)


@pytest.mark.parametrize(
    "more", [{"axes": ["x", "y"]}, {"resolution": [4, 5]}, {"resolution": "fine"}, {"units": "um"}]
)
def test_lists_of_another_length_are_an_error(tmp_path: Path, more: dict[str, Any]) -> None:
    path = foreign(tmp_path / "x.n5/raw", XYZ, **{**MEASURED, **more})
    with pytest.raises(InputError, match=f"x.n5/raw.*{next(iter(more))}"):
        open_volume(path)


def test_our_attribute_and_the_others_must_agree(tmp_path: Path) -> None:
    create_volume(tmp_path / "out.n5", VolumeInfo((3, 4, 5), np.dtype("uint8"), GRID))
    path = tmp_path / "out.n5/attributes.json"
    path.write_text(path.read_text().replace('"unit": "nm"', '"unit": "um"'))
    with pytest.raises(InputError, match=r"correct one of them"):
        open_volume(tmp_path / "out.n5")


CHANNELS = np.random.default_rng(0).integers(0, 99, (2, 5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("array", "axes", "as_czyx"),
    [
        (CHANNELS, ["c", "x", "y", "z"], CHANNELS.transpose(0, 3, 2, 1)),
        (CHANNELS.transpose(1, 2, 3, 0), ["x", "y", "z", "c"], CHANNELS.transpose(0, 3, 2, 1)),
        (CHANNELS[:1].transpose(1, 2, 3, 0)[..., None], ["x", "y", "z", "c", "t"], CHANNELS[0].T),
    ],
)
def test_channels_are_where_the_axes_say(
    tmp_path: Path, array: np.ndarray, axes: list[str], as_czyx: np.ndarray
) -> None:
    path = foreign(tmp_path / "x.n5/raw", array, axes=axes)
    volume = open_volume(path, voxel_size_nm=(1, 1, 1))
    np.testing.assert_array_equal(volume.read(volume.info.box), as_czyx)


def test_channels_that_nobody_placed_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.n5/raw", CHANNELS)
    with pytest.raises(InputError, match=r"has 4 dimensions without 'axes'.*add axes"):
        open_volume(path, voxel_size_nm=(1, 1, 1))


def test_n5_viewer_levels_are_one_volume(tmp_path: Path) -> None:
    for level, factor in enumerate((1, 2, 4)):
        foreign(tmp_path / f"x.n5/c0/s{level}", XYZ + factor)
    group = {
        "scales": [[1, 1, 1], [2, 2, 1], [4, 4, 1]],
        "pixelResolution": {"unit": "um", "dimensions": [1, 2, 3]},
    }
    (tmp_path / "x.n5/c0/attributes.json").write_text(json.dumps(group))
    (hit,) = inspect(tmp_path / "x.n5")
    assert hit.path == str(tmp_path / "x.n5/c0")
    assert open_volume(hit.path).info.grid.voxel_size_nm == (3000, 2000, 1000)
    coarse = open_volume(tmp_path / "x.n5/c0/s2")
    assert coarse.info.grid.voxel_size_nm == (3000, 8000, 4000)
    np.testing.assert_array_equal(coarse.read(coarse.info.box), XYZ.T + 4)


def test_cosem_levels_share_their_corner(tmp_path: Path) -> None:
    levels = []
    for level, factor in enumerate((1, 2)):
        transform = {"axes": list("zyx"), "scale": [4 * factor] * 3, "translate": [2 * (factor - 1)] * 3}
        transform["units"] = ["nm"] * 3
        foreign(tmp_path / f"x.n5/em/s{level}", XYZ, transform=transform)
        levels.append({"path": f"s{level}", "transform": transform})
    (tmp_path / "x.n5/em/attributes.json").write_text(json.dumps({"multiscales": [{"datasets": levels}]}))
    fine, coarse = open_volume(tmp_path / "x.n5/em"), open_volume(tmp_path / "x.n5/em/s1")
    assert fine.info.grid == Grid((4, 4, 4), (-2, -2, -2))
    assert coarse.info.grid == Grid((8, 8, 8), (-2, -2, -2))


def test_a_level_contradicting_its_group_is_an_error(tmp_path: Path) -> None:
    mine = {"axes": list("zyx"), "scale": [4, 4, 4], "translate": [0, 0, 0], "units": ["nm"] * 3}
    foreign(tmp_path / "x.n5/em/s0", XYZ, transform=mine)
    group = {"multiscales": [{"datasets": [{"path": "s0", "transform": {**mine, "scale": [5, 4, 4]}}]}]}
    (tmp_path / "x.n5/em/attributes.json").write_text(json.dumps(group))
    with pytest.raises(InputError, match="correct one of them"):
        open_volume(tmp_path / "x.n5/em")


def test_containers_hold_several_arrays_and_name_them(tmp_path: Path) -> None:
    info = VolumeInfo((3, 4, 5), np.dtype("uint8"), GRID)
    for name in ("a", "b/c"):
        with staged_volume(tmp_path / f"x.n5/{name}", info) as volume:
            volume.write(info.box, values_of(info))
    assert attributes(tmp_path / "x.n5")["n5"]
    with pytest.raises(InputError, match=r"holds 2 arrays: name one of .*x\.n5/a, .*x\.n5/b/c"):
        open_volume(tmp_path / "x.n5")
    with pytest.raises(InputError, match="did you mean 'b/c'"):
        open_volume(tmp_path / "x.n5/b/d")
    with pytest.raises(InputError, match="is an array, not a group"):
        create_volume(tmp_path / "x.n5/a/b", info)
    with pytest.raises(InputError, match="already exists"):
        create_volume(tmp_path / "x.n5/a", info)
    with pytest.raises(InputError, match="is not an N5 array"):
        create_volume(tmp_path / "x.n5/b", info, overwrite=True)
    assert open_volume(tmp_path / "x.n5/a").read(info.box).any()
    assert not create_volume(tmp_path / "x.n5/a", info, overwrite=True).read(info.box).any()


def test_a_failed_volume_leaves_nothing(tmp_path: Path) -> None:
    info = VolumeInfo((3, 4, 5), np.dtype("uint8"), GRID)
    with pytest.raises(RuntimeError), staged_volume(tmp_path / "x.n5/raw", info):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["bool", "float16"])
def test_types_n5_lacks_are_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InputError, match="N5 stores no"):
        create_volume(tmp_path / "x.n5", VolumeInfo((3, 4, 5), np.dtype(dtype), GRID))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(
    "containers",
    "block files of N5 are cut short",
    "error: cannot read or write ...; copy it again or write it anew",
)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_blocks_are_an_error(tmp_path: Path, keep: float) -> None:
    path = foreign(tmp_path / "x.n5/raw", XYZ, **MEASURED)
    block = path / "0/0/0"
    block.write_bytes(block.read_bytes()[: int(block.stat().st_size * keep)])
    with pytest.raises(InputError, match=r"cannot read or write .*x\.n5/raw"):
        open_volume(path).read(Box.whole((3, 4, 5)))


@pytest.mark.fault(
    "containers",
    "attributes.json of N5 is empty, cut off, a list or gone",
    "error: is empty / is not valid JSON / holds no N5 array",
)
def test_damaged_attributes_are_an_error(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.n5/raw", XYZ, **MEASURED)
    for content, message in (("", "is empty"), ('{"dim', "not valid JSON"), ("[]", "mapping")):
        (path / "attributes.json").write_text(content)
        with pytest.raises(InputError, match=message):
            open_volume(path)
    (path / "attributes.json").unlink()
    with pytest.raises(InputError, match="holds no N5 array"):
        open_volume(path)


@pytest.mark.real_data
def test_webknossos_n5_and_precomputed_hold_the_same_picture(real_data: Path) -> None:
    n5 = open_volume(real_data / "webknossos/simple_n5_dataset/color/1")
    precomputed = open_volume(real_data / "webknossos/simple_ng_dataset/color")
    assert n5.info.grid == precomputed.info.grid == Grid((1, 1, 1), (0, 0, 0))
    assert n5.info.array_shape == precomputed.info.array_shape == (3, 24, 24, 24)
    np.testing.assert_array_equal(n5.read(n5.info.box), precomputed.read(precomputed.info.box))
