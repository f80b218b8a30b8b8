"""webKnossos datasets: layers, magnifications, and where in the world they are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import wkw
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.datasource import mag_factor, mag_name
from emloom.io.open import create_volume, inspect, open_volume, staged_volume, unplaced_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.info import info

PROPERTIES = "datasource-properties.json"
INFO = VolumeInfo((20, 30, 40), np.dtype("uint8"), Grid((28, 11.24, 11.24), (280, 33 * 11.24, 56.2)), kind="raw")
TYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]


def values_for(info: VolumeInfo, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, info.array_shape).astype(info.dtype)


def written(path: Path, info: VolumeInfo = INFO, seed: int = 0) -> np.ndarray:
    values = values_for(info, seed)
    create_volume(path, info).write(info.box, values)
    return values


def change(root: Path, **layer: Any) -> None:
    """Change the first layer of a dataset; names ending in `_of_dataset` change the dataset, None removes."""
    data = json.loads((root / PROPERTIES).read_text())
    for name, value in layer.items():
        place = data if name.endswith("_of_dataset") else data["dataLayers"][0]
        key = name.removesuffix("_of_dataset")
        place.pop(key, None)
        if value is not None:
            place[key] = value
    (root / PROPERTIES).write_text(json.dumps(data))


# ---- what others wrote


@pytest.mark.real_data
def test_l4_sample_lies_where_its_hdf5_twin_says(real_data: Path) -> None:
    root = real_data / "webknossos/l4_sample_dev"
    hits = inspect(root)
    names = [[Path(p).relative_to(root).as_posix() for p in (hit.path, *hit.levels)] for hit in hits]
    mags = ("1", "2-2-1", "4-4-2")
    assert names == [[f"{layer}/{mag}" for mag in mags] for layer in ("color", "segmentation")]
    assert not any(hit.problems or hit.missing for hit in hits)
    x_nm, z_nm = 11.239999771118164, 28.0
    for layer, name, kind in (("color", "raw", "raw"), ("segmentation", "labels/segmentation", "labels")):
        volume = open_volume(root / layer / "2-2-1")
        assert (volume.info.shape, volume.info.kind) == ((150, 128, 129), kind)
        assert volume.info.grid.voxel_size_nm == (z_nm, 2 * x_nm, 2 * x_nm)
        assert volume.info.grid.offset_nm == pytest.approx((1719 * z_nm, 4224 * x_nm, 2678 * x_nm))
        with h5py.File(real_data / "webknossos/l4_mag2-2-1.h5") as h5:
            expected = h5[f"volumes/{name}"][:]
        np.testing.assert_array_equal(volume.read(Box((0, 0, 0), (150, 128, 128))), expected)
    # The layer starts at voxel 2679 along x, in the middle of a voxel of this magnification, and so it ends: half
    # of the last voxel belongs to the layer, and the image has it.
    assert open_volume(root / "color/2-2-1").read(Box((0, 0, 128), (150, 128, 1))).all()


@pytest.mark.real_data
def test_l4_magnifications_lie_on_each_other(real_data: Path) -> None:
    root = real_data / "webknossos/l4_sample_dev"
    fine, coarse = open_volume(root / "color/2-2-1"), open_volume(root / "color/4-4-2")
    assert coarse.info.shape == (76, 64, 65)
    # Fine voxel (z, y, x) = (1719, 2112, 1339) starts the layer; coarse voxel (859, 1056, 669) holds it.
    values = fine.read(Box((1, 0, 1), (148, 128, 128))).astype(float)
    mean = values.reshape(74, 2, 64, 2, 64, 2).mean((1, 3, 5))
    same_place = np.corrcoef(mean.ravel(), coarse.read(Box((1, 0, 1), mean.shape)).ravel())[0, 1]
    one_off = np.corrcoef(mean.ravel(), coarse.read(Box((1, 0, 0), mean.shape)).ravel())[0, 1]
    assert same_place > 0.95 > one_off + 0.05


@pytest.mark.real_data
def test_l4_finest_magnification_has_lost_its_cubes_and_says_so(real_data: Path) -> None:
    (finest,) = inspect(real_data / "webknossos/l4_sample_dev/color")
    coarser = [hit for level in finest.levels for hit in inspect(level)]
    assert (Path(finest.path).name, finest.shape) == ("color", (150, 256, 256))
    assert finest.notes == ("none of its cube files is here: it reads as zeros",)
    assert [hit.notes for hit in coarser] == [(), ()]
    volume = open_volume(real_data / "webknossos/l4_sample_dev/segmentation")
    assert volume.info.source.endswith("segmentation")
    assert volume.read(Box((0, 0, 0), (4, 40, 40))).any()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["simple_zarr_dataset", "simple_zarr3_dataset"])
def test_zarr_layers_are_turned(real_data: Path, name: str) -> None:
    """Both hold (576 x + 24 y + z) mod 256 in three channels, stored as c, x, y, z."""
    volume = open_volume(real_data / "webknossos" / name)
    assert (volume.info.channels, volume.info.shape, volume.info.kind) == (3, (24, 24, 24), None)
    assert volume.info.grid == Grid((1, 1, 1))
    z, y, x = np.indices((24, 24, 24))
    expected = np.broadcast_to((576 * x + 24 * y + z) % 256, (3, 24, 24, 24))
    np.testing.assert_array_equal(volume.read(volume.info.box), expected)
    box = Box((3, 5, 7), (4, 6, 8))
    got = volume.read(box)
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected[:, *box.slices()])


@pytest.mark.real_data
def test_wkw_with_three_channels(real_data: Path) -> None:
    volume = open_volume(real_data / "webknossos/simple_wkw_dataset")
    assert (volume.info.channels, volume.info.shape, volume.info.chunks) == (3, (24, 24, 24), (32, 32, 32))
    assert not volume.read(volume.info.box).any()  # it holds zeros


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["simple_n5_dataset", "simple_ng_dataset"])
def test_other_formats_of_layers_are_listed_with_the_way_out(real_data: Path, name: str) -> None:
    (hit,) = inspect(real_data / "webknossos" / name)
    assert hit.shape == (24, 24, 24)
    (report,) = info(real_data / "webknossos" / name)
    assert "object" not in report.to_text()  # its element type is not known, so none is shown
    with pytest.raises(InputError, match=rf"not read as part of a dataset: open .*{name}/color/1 itself"):
        open_volume(real_data / "webknossos" / name)
    with pytest.raises(InputError):
        unplaced_volume(hit)


@pytest.mark.parametrize("name", ["", "/color"])
def test_a_magnification_that_does_not_open_is_listed_apart(dataset: Path, name: str) -> None:
    change(dataset, wkwResolutions=[{"resolution": 1}, {"resolution": [2, 2, 2]}])
    hit, lost = inspect(f"{dataset}{name}")
    assert (hit.levels, hit.problems) == ((), ())
    assert "color/2 does not exist: copy it again" in lost.problems[0]
    assert open_volume(dataset / "color").info.shape == hit.shape


# ---- what we write


@settings(deadline=None, max_examples=25)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_what_is_written_is_read_by_us_and_by_wkw(data: st.DataObject, seed: int) -> None:
    size = data.draw(st.tuples(*[st.floats(0.01, 1e4)] * 3))
    start = data.draw(st.tuples(*[st.integers(0, 90)] * 3))
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3))
    channels = data.draw(st.sampled_from([None, 1, 3]))
    kind = data.draw(st.sampled_from([None, "raw", "labels", "mask", "affinities", "probabilities"]))
    offsets = ((-1, 0, 0), (0, -3, 0), (0, 0, 7)) if (kind, channels) == ("affinities", 3) else None
    kind = kind if offsets or kind != "affinities" else None
    grid = Grid(size, tuple(a * s for a, s in zip(start, size, strict=True)))
    dtype = np.dtype(data.draw(st.sampled_from(TYPES)))
    info = VolumeInfo(shape, dtype, grid, channels, (32, 32, 32), kind, offsets)
    factor = data.draw(st.sampled_from([(1, 1, 1), (1, 2, 2), (4, 4, 4)]))
    inner = data.draw(st.sampled_from(["", "/x", f"/x/{mag_name(factor)}"]))
    with tempfile.TemporaryDirectory() as folder:
        volume = create_volume(f"{folder}/out.wkw{inner}", info)
        values = values_for(info, seed)
        volume.write(info.box, values)
        again = open_volume(f"{folder}/out.wkw{inner}")
        assert again.info == volume.info
        assert again.info.with_(chunks=info.chunks, source="array") == info
        np.testing.assert_array_equal(again.read(info.box), values)

        # Judges: the wkw library, and the JSON file without our attribute in it.
        (hit,) = inspect(f"{folder}/out.wkw")
        with wkw.Dataset.open(hit.path) as judge:
            theirs = judge.read(start[::-1], shape[::-1]).transpose(0, 3, 2, 1)
        np.testing.assert_array_equal(theirs, values.reshape(theirs.shape))
        layer = json.loads(Path(f"{folder}/out.wkw/{PROPERTIES}").read_text())["dataLayers"][0]
        resolutions = [{k: v for k, v in m.items() if k != "emloom"} for m in layer["wkwResolutions"]]
        change(Path(f"{folder}/out.wkw"), wkwResolutions=resolutions)
        (plain,) = inspect(f"{folder}/out.wkw")
        assert not plain.problems
        assert plain.voxel_size_nm == pytest.approx(size)
        assert plain.offset_nm == pytest.approx(grid.offset_nm)
        assert plain.neighborhood is None


def test_the_properties_are_those_webknossos_documents(tmp_path: Path) -> None:
    written(tmp_path / "out.wkw/seg", INFO.with_(dtype=np.dtype("uint32"), kind="labels"))
    data = json.loads((tmp_path / "out.wkw" / PROPERTIES).read_text())
    assert (data["id"], data["version"]) == ({"name": "out", "team": ""}, 1)
    assert data["scale"] == {"factor": [11.24, 11.24, 28.0], "unit": "nanometer"}
    (layer,) = data["dataLayers"]
    assert layer["boundingBox"] == {"topLeft": [5, 33, 10], "width": 40, "height": 30, "depth": 20}
    assert (layer["name"], layer["category"], layer["elementClass"]) == ("seg", "segmentation", "uint32")
    assert (layer["dataFormat"], layer["numChannels"]) == ("wkw", 1)
    (mag,) = layer["wkwResolutions"]
    assert (mag["resolution"], mag["cubeLength"]) == ([1, 1, 1], 64)


@pytest.mark.parametrize(
    ("dtype", "channels", "name"),
    [("uint8", 3, "uint24"), ("uint8", None, "uint8"), ("float32", None, "float"), ("float64", None, "double")],
)
def test_element_classes_have_the_names_webknossos_uses(
    tmp_path: Path, dtype: str, channels: int | None, name: str
) -> None:
    info = INFO.with_(dtype=np.dtype(dtype), channels=channels)
    create_volume(tmp_path / "out.wkw", info)
    data = json.loads((tmp_path / "out.wkw" / PROPERTIES).read_text())
    assert data["dataLayers"][0]["elementClass"] == name


def test_layers_and_magnifications_are_added(tmp_path: Path) -> None:
    root = tmp_path / "out.wkw"
    raw = written(root)
    labels = written(root / "seg", INFO.with_(dtype=np.dtype("uint64"), kind="labels"), 1)
    coarse_grid = Grid((28, 22.48, 22.48), (280, 32 * 11.24, 4 * 11.24))
    coarse = INFO.with_(shape=(20, 16, 21), grid=coarse_grid)
    third = written(root / "color/2-2-1", coarse, 2)
    color, seg = inspect(root)
    assert [str(Path(path).relative_to(root)) for path in (color.path, *color.levels)] == [
        "color/1",
        "color/2-2-1",
    ]
    assert (Path(seg.path), seg.levels) == (root / "seg/1", ())
    assert color.problems == seg.problems == ()
    for name, expected in (("color", raw), ("seg", labels), ("color/2-2-1", third)):
        volume = open_volume(root / name)
        np.testing.assert_array_equal(volume.read(volume.info.box), expected)
    assert open_volume(root / "color/2-2-1").info.grid.offset_nm == pytest.approx(coarse_grid.offset_nm)


def test_overwriting_replaces_one_magnification(tmp_path: Path) -> None:
    root = tmp_path / "out.wkw"
    written(root / "a")
    labels = written(root / "b", seed=1)
    with pytest.raises(InputError, match="already exists"):
        create_volume(root / "a", INFO)
    with pytest.raises(InputError, match="already exists"):
        create_volume(root, INFO)
    other = INFO.with_(shape=(3, 4, 5), dtype=np.dtype("uint16"))
    assert not create_volume(root / "a", other, overwrite=True).read(other.box).any()
    assert open_volume(root / "a").info.dtype == "uint16"
    np.testing.assert_array_equal(open_volume(root / "b").read(INFO.box), labels)


def test_staged_layers_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    root = tmp_path / "out.wkw"
    for name, seed in (("", 0), ("seg", 1)):
        before = (root / PROPERTIES).read_text() if root.exists() else None
        with pytest.raises(InputError, match="leaves"), staged_volume(root / name, INFO) as volume:
            volume.write(Box((1, 0, 0), INFO.shape), values_for(INFO, seed))
        assert (root / PROPERTIES).read_text() == before if before else not root.exists()
        with staged_volume(root / name, INFO) as volume:
            volume.write(INFO.box, values_for(INFO, seed))
            again = open_volume(volume.info.source)
            np.testing.assert_array_equal(again.read(INFO.box), values_for(INFO, seed))
        assert [p.name for p in tmp_path.iterdir()] == ["out.wkw"]
        layer = open_volume(root / (name or "color"))
        np.testing.assert_array_equal(layer.read(INFO.box), values_for(INFO, seed))
    with pytest.raises(InputError, match="already exists"), staged_volume(root / "seg", INFO):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": Grid((28, 11.24, 11.24), (0, 5, 0))}, "places layers at whole voxels: crop or shift"),
        ({"grid": Grid((28, 11.24, 11.24), (-28, 0, 0))}, r"is voxel \(-1, 0, 0\) .* and wkw has voxels 0 to"),
        ({"grid": Grid((1, 1, 1), (2**32 - 10, 0, 0))}, "and wkw has voxels 0 to 4294967295"),
        ({"dtype": np.dtype(bool)}, "wkw does not store bool: convert to one of uint8"),
        ({"dtype": np.dtype("float16")}, "wkw does not store float16"),
        ({"dtype": np.dtype("float64"), "channels": 40}, "320 bytes per voxel, and wkw stores at most 255"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_volume(tmp_path / "out.wkw/x", INFO.with_(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("a/b/c", "'b/c' is no magnification: write 1, 2 or 2-2-1"),
        ("a/0", "'0' is no magnification"),
        ("a/2-2", "'2-2' is no magnification"),
        (".a", "'.a' is no name of a layer"),
        ("a b", "'a b' is no name of a layer"),
    ],
)
def test_names_of_layers_and_magnifications(tmp_path: Path, inner: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_volume(tmp_path / "out.wkw" / inner, INFO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inner", "changes", "message"),
    [
        ("b", {"grid": Grid((30, 11.24, 11.24))}, "the dataset has .*28.0.* a dataset has one: name the magnif"),
        (
            "color/2",
            {"grid": Grid((56, 22.48, 22.48)), "shape": (9, 9, 9)},
            "all magnifications of a layer fill",
        ),
        ("color/2", {"grid": Grid((56, 22.48, 22.48)), "dtype": np.dtype("uint16")}, "holds uint8, color, wkw"),
    ],
)
def test_what_does_not_fit_a_dataset_is_refused(
    tmp_path: Path, inner: str, changes: dict[str, Any], message: str
) -> None:
    written(tmp_path / "out.wkw")
    before = (tmp_path / "out.wkw" / PROPERTIES).read_text()
    for make in (create_volume, lambda path, info: staged_volume(path, info).__enter__()):
        with pytest.raises(InputError, match=message):
            make(tmp_path / "out.wkw" / inner, INFO.with_(**changes))
    assert (tmp_path / "out.wkw" / PROPERTIES).read_text() == before
    assert [p.name for p in (tmp_path / "out.wkw").iterdir() if p.is_dir()] == ["color"]


def test_a_folder_that_is_no_dataset_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.wkw").mkdir()
    (tmp_path / "out.wkw/thesis.doc").write_text("mine")
    with pytest.raises(InputError, match="exists and is no webKnossos dataset"):
        create_volume(tmp_path / "out.wkw/color", INFO, overwrite=True)
    assert [p.name for p in (tmp_path / "out.wkw").iterdir()] == ["thesis.doc"]


# ---- bad input


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset as webKnossos writes it: without our attribute."""
    written(tmp_path / "out.wkw/color")
    (tmp_path / "out.wkw").rename(tmp_path / "mouse")
    change(tmp_path / "mouse", wkwResolutions=[{"resolution": 1, "cubeLength": 64}])
    return tmp_path / "mouse"


def test_datasets_of_any_name_open(dataset: Path) -> None:
    for name in ("mouse", "mouse/color", "mouse/color/1", "mouse/color/1-1-1"):
        volume = open_volume(dataset.parent / name)
        assert volume.info.grid.matches(INFO.grid)
        np.testing.assert_array_equal(volume.read(INFO.box), values_for(INFO))
    with pytest.raises(InputError, match=r"has no layer 'colour'; did you mean 'color'\? \(it has: color\)"):
        open_volume(dataset / "colour")
    with pytest.raises(InputError, match=r"has no magnification '2-2-1' \(it has: 1\)"):
        open_volume(dataset / "color/2-2-1")
    with pytest.raises(InputError, match=r"mousse does not exist; did you mean 'mouse'"):
        open_volume(dataset.parent / "mousse")


BOX = {"topLeft": [5, 33, 10], "width": 40, "height": 30, "depth": 20}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_of_dataset": None}, "scale is missing: add the voxel size x, y, z in nm"),
        ({"scale_of_dataset": [11, 11, 0]}, r"scale \[11, 11, 0\] is not three positive numbers"),
        ({"scale_of_dataset": [11, -11, 28]}, "is not three positive numbers"),
        ({"scale_of_dataset": [11, 28]}, "is not three positive numbers"),
        ({"scale_of_dataset": [11, 11, float("nan")]}, "is not three positive numbers"),
        ({"scale_of_dataset": {"factor": [11, 11, 28], "unit": "furlong"}}, "unknown unit 'furlong'"),
        ({"scale_of_dataset": {"factor": [11, 11, 28]}}, "unknown unit None"),
        ({"dataLayers_of_dataset": "color"}, "lists no layers"),
        ({"elementClass": "uint16"}, "says elementClass uint16, the array holds 1 x uint8"),
        ({"numChannels": 3}, "says numChannels 3, the array has 1"),
        ({"boundingBox": {**BOX, "width": 0}}, "its boundingBox is .*at least 1; correct it"),
        ({"boundingBox": {**BOX, "topLeft": [-1, 0, 0]}}, "its boundingBox is .*at least 0"),
        ({"boundingBox": {"topLeft": [0, 0, 0]}}, "its boundingBox is"),
        ({"boundingBox": {**BOX, "topLeft": [0.5, 0, 0]}}, "its boundingBox is"),
        ({"boundingBox": {**BOX, "topLeft": [2**32, 0, 0]}}, "ends beyond voxel 4294967296"),
        ({"additionalAxes": [{"name": "t", "bounds": [0, 9], "index": 1}]}, r"has additional axes \['t'\]"),
        ({"dataFormat": "knossos"}, "its dataFormat is 'knossos'"),
        ({"wkwResolutions": []}, "the layer 'color' lists no magnification"),
        ({"wkwResolutions": [{"resolution": [1, 0, 1]}]}, r"magnification \[1, 0, 1\] is not three whole numbers"),
        ({"wkwResolutions": [{"resolution": 1}, {"resolution": [1, 1, 1]}]}, "magnification 1 is listed twice"),
        ({"wkwResolutions": [{"resolution": 1, "path": "../else/1"}]}, r"'\.\./else/1' leads out of the dataset"),
        ({"wkwResolutions": [{"resolution": 1, "path": "/etc"}]}, "'/etc' leads out of the dataset"),
        ({"wkwResolutions": [{"resolution": 1, "path": "s3://b/1"}]}, "'s3://b/1' leads out of the dataset"),
        ({"wkwResolutions": [{"resolution": 1, "path": "./color/7"}]}, "color/7 does not exist: copy it again"),
        ({"name": "../color"}, "layer name '../color' leads out"),
    ],
)
def test_contradicting_properties_are_errors(dataset: Path, changes: dict[str, Any], message: str) -> None:
    change(dataset, **changes)
    with pytest.raises(InputError, match=message):
        open_volume(dataset)
    try:
        listed = inspect(dataset)
    except InputError:
        return
    assert all(hit.problems for hit in listed)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_damaged_properties_are_errors(dataset: Path, text: str) -> None:
    (dataset / PROPERTIES).write_bytes(text.encode("utf-8", "surrogateescape"))
    for name in ("", "color", "color/1"):
        with pytest.raises(InputError, match=r"datasource-properties\.json .*copy it again|has no layer"):
            inspect(dataset / name)


def test_missing_headers_are_problems_of_one_magnification(dataset: Path) -> None:
    (dataset / "color/1/header.wkw").unlink()
    with pytest.raises(InputError, match=r"color/1 has no header\.wkw"):
        open_volume(dataset / "color")


def test_without_a_bounding_box_the_cubes_are_the_volume(dataset: Path) -> None:
    change(dataset, boundingBox=None)
    (hit,) = inspect(dataset)
    assert (hit.shape, hit.offset_nm) == ((64, 64, 64), (0, 0, 0))
    assert "has no boundingBox" in hit.notes[0]
    expected = np.zeros((64, 64, 64), np.uint8)
    expected[10:30, 33:63, 5:45] = values_for(INFO)
    np.testing.assert_array_equal(open_volume(dataset).read(Box.whole((64, 64, 64))), expected)


def test_units_are_converted(dataset: Path) -> None:
    change(dataset, scale_of_dataset={"factor": [0.01124, 0.01124, 0.028], "unit": "micrometer"})
    assert open_volume(dataset).info.grid.matches(INFO.grid)


def test_our_attribute_and_the_properties_must_agree(tmp_path: Path) -> None:
    written(tmp_path / "out.wkw")
    change(tmp_path / "out.wkw", scale_of_dataset=[11.24, 11.24, 30])
    with pytest.raises(
        InputError, match=r"'emloom' attribute says voxel size .* datasource-properties\.json says"
    ):
        open_volume(tmp_path / "out.wkw")


def test_grey_images_are_raw_and_segmentations_labels_and_nothing_else_is_said(dataset: Path) -> None:
    assert open_volume(dataset).info.kind == "raw"
    change(dataset, category="segmentation")
    assert open_volume(dataset).info.kind == "labels"
    change(dataset, category=None)
    assert open_volume(dataset).info.kind is None


# ---- zarr layers


def zarr_dataset(root: Path, axes: str = "cxyz", mag: dict[str, Any] | None = None, **names: Any) -> np.ndarray:
    """Write a dataset with one zarr layer whose array starts at the origin; return its zyx inside the box."""
    values = np.random.default_rng(0).integers(0, 99, (1, 30, 63, 45)).astype(np.uint16)
    stored = values[0] if "c" not in axes else values
    turned = np.transpose(stored, ["czyx"[4 - len(axes) :].index(a) for a in axes])
    root.mkdir()
    array = zarr.create_array(root / "raw/1", shape=turned.shape, chunks=(16,) * len(axes), dtype="u2", **names)
    array[:] = turned
    layer = {
        "name": "raw",
        "category": "color",
        "dataFormat": "zarr3",
        "elementClass": "uint16",
        "numChannels": 1,
        "boundingBox": BOX,
        "mags": [{"mag": [1, 1, 1], "path": "./raw/1", **(mag or {})}],
    }
    properties = {"id": {"name": "x", "team": ""}, "scale": [11.24, 11.24, 28], "dataLayers": [layer]}
    (root / PROPERTIES).write_text(json.dumps(properties))
    return values[0, 10:30, 33:63, 5:45]


@pytest.mark.parametrize("axes", ["cxyz", "xyz", "czyx", "yzx"])
def test_zarr_layers_are_read_and_written_in_any_order_of_axes(tmp_path: Path, axes: str) -> None:
    order = {letter: i for i, letter in enumerate(axes)}
    expected = zarr_dataset(tmp_path / "d", axes, {"axisOrder": order})
    volume = open_volume(tmp_path / "d/raw", writable=True)
    assert (volume.info.channels, volume.info.shape, volume.info.kind) == (None, (20, 30, 40), "raw")
    assert volume.info.grid.matches(INFO.grid)
    np.testing.assert_array_equal(volume.read(volume.info.box), expected)
    box = Box((2, 3, 4), (5, 6, 7))
    volume.write(box, expected[box.slices()] + 1)
    expected[box.slices()] += 1
    np.testing.assert_array_equal(open_volume(tmp_path / "d").read(volume.info.box), expected)
    theirs = zarr.open_array(tmp_path / "d/raw/1", mode="r")[:]
    np.testing.assert_array_equal(
        np.transpose(theirs, [axes.index(a) for a in "czyx" if a in axes])[..., 10:30, 33:63, 5:45].reshape(
            expected.shape
        ),
        expected,
    )
    with pytest.raises(InputError, match="read-only"):
        open_volume(tmp_path / "d").write(box, expected[box.slices()])
    with pytest.raises(InputError, match="leaves"):
        volume.read(Box((0, 0, 0), (21, 1, 1)))


def test_axes_nobody_names_are_those_webknossos_reads(tmp_path: Path) -> None:
    expected = zarr_dataset(tmp_path / "d", "cxyz")
    np.testing.assert_array_equal(open_volume(tmp_path / "d").read(INFO.box), expected)


def test_the_names_of_the_array_count(tmp_path: Path) -> None:
    expected = zarr_dataset(tmp_path / "d", "zyx", dimension_names=("z", "y", "x"))
    np.testing.assert_array_equal(open_volume(tmp_path / "d").read(INFO.box), expected)


@pytest.mark.parametrize(
    ("mag", "names", "message"),
    [
        ({"axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}}, "czyx", "axisOrder says axes cxyz, the array says czyx"),
        ({"axisOrder": {"x": 0, "y": 1, "z": 2}}, None, "has axes x,y,z and 4 dimensions"),
        ({"axisOrder": {"x": 0, "y": 1, "z": 2, "c": 3}}, None, "has axes x,y,z,c and 4 dimensions"),
    ],
)
def test_contradicting_axes_are_errors(
    tmp_path: Path, mag: dict[str, Any], names: str | None, message: str
) -> None:
    zarr_dataset(tmp_path / "d", "cxyz", mag, **({} if names is None else {"dimension_names": tuple(names)}))
    with pytest.raises(InputError, match=message):
        open_volume(tmp_path / "d")


def test_a_box_larger_than_the_zarr_array_is_an_error(tmp_path: Path) -> None:
    zarr_dataset(tmp_path / "d")
    change(tmp_path / "d", boundingBox={**BOX, "width": 41})
    with pytest.raises(InputError, match=r"its array only box .*: correct one of them"):
        open_volume(tmp_path / "d")
    (tmp_path / "d/raw/1/zarr.json").unlink()
    with pytest.raises(InputError, match="holds no zarr array"):
        open_volume(tmp_path / "d/raw")


# ---- magnifications


@given(st.tuples(*[st.integers(1, 99)] * 3))
def test_names_of_magnifications_are_read_back(factor: tuple[int, int, int]) -> None:
    assert mag_factor(mag_name(factor)) == factor
    assert mag_factor("-".join(map(str, factor[::-1]))) == factor


@given(
    st.tuples(*[st.integers(0, 99)] * 3), st.tuples(*[st.integers(1, 99)] * 3), st.tuples(*[st.integers(1, 9)] * 3)
)
def test_a_magnification_covers_the_layer_and_no_more(
    start: tuple[int, int, int], shape: tuple[int, int, int], factor: tuple[int, int, int]
) -> None:
    box = Box(start, shape)
    coarse = box.coarsen(factor)
    for a, b, low, high, f in zip(box.start, box.stop, coarse.start, coarse.stop, factor, strict=True):
        assert low * f <= a < (low + 1) * f
        assert (high - 1) * f < b <= high * f
