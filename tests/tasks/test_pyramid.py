"""`emloom pyramid`: every level is the level before, downsampled; whatever the cells, the format or a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, inspect, open_volume
from emloom.io.tensors import StoreVolume
from emloom.io.volume import VolumeInfo
from emloom.io.zarrlevels import ZarrImage
from emloom.ops.downsample import coarse_shape, downsample_majority, downsample_mean
from emloom.tasks import pyramid as task
from emloom.tasks.convert import ConvertSpec, convert
from emloom.tasks.pyramid import PyramidSpec, default_factors, pyramid

GRID = Grid((40, 4.6, 4), (120, -2.3, 1000))
LAYOUTS: list[dict[str, Any]] = [{}, {"zarr_format": 2}, {"shards": (16, 16, 32)}, {"encoding": "blosc"}]


def image(
    path: Path, shape: tuple[int, ...] = (30, 41, 52), kind: str | None = "raw", **options: Any
) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 5, shape, dtype=np.uint16)
    neighborhood = ((-1, 0, 0), (0, -1, 0)) if kind == "affinities" else None
    channels = shape[0] if len(shape) == 4 else None
    grid = options.pop("grid", GRID)
    info = VolumeInfo(shape[-3:], values.dtype, grid, channels, (8, 8, 16), kind, neighborhood)  # type: ignore[arg-type]
    create_volume(path, info, **options).write(info.box, values)
    return values


def read(path: Path | str) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cells, so that working cell by cell is what is tested."""
    monkeypatch.setattr(task, "FINE_BYTES", 2**15)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["3", "2", "shards", "blosc"])
@pytest.mark.parametrize("kind", ["raw", "labels"])
def test_levels_are_the_level_before_downsampled(tmp_path: Path, layout: dict[str, Any], kind: str) -> None:
    path = tmp_path / "out.zarr" / "vol"
    values = image(path, kind=kind, **layout)
    seen: list[tuple[int, int]] = []
    levels = pyramid(PyramidSpec(image=str(path), levels=3), lambda *step: seen.append(step))
    assert [level.name for level in levels] == ["1", "2", "3"]
    assert [level.factors for level in levels] == [(1, 2, 2), (1, 2, 2), (1, 2, 2)]
    kernel = downsample_majority if kind == "labels" else downsample_mean
    group = zarr.open_group(path, mode="r")
    for level in levels:
        values = kernel(values, level.factors)
        info = open_volume(path / level.name).info
        assert (info.kind, info.grid, info.shape) == (kind, level.grid, values.shape)
        assert info.grid.offset_nm == GRID.offset_nm  # the corners coincide, exactly
        np.testing.assert_array_equal(read(path / level.name), values)
        np.testing.assert_array_equal(group[level.name][:], values)  # zarr-python agrees
    assert [hit.path for hit in inspect(tmp_path / "out.zarr")] == [str(path)]
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]
    assert len(seen) > 6
    assert not list(path.glob(".*partial*"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_metadata_are_those_of_ome_ngff(tmp_path: Path, zarr_format: int) -> None:
    path = tmp_path / "out.zarr"
    image(path, zarr_format=zarr_format)
    pyramid(PyramidSpec(image=str(path), levels=2))
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    (described,) = attributes.get("ome", attributes)["multiscales"]
    assert described["type"] == "mean"
    assert attributes.get("ome", described)["version"] == {2: "0.4", 3: "0.5"}[zarr_format]
    assert [axis["unit"] for axis in described["axes"]] == ["nanometer"] * 3
    for number, dataset in enumerate(described["datasets"]):
        scale, shift = dataset["coordinateTransformations"]
        assert dataset["path"] == str(number)
        assert scale["scale"] == [40, 4.6 * 2**number, 4 * 2**number]
        # The centre of the first voxel moves with the voxel size, its corner stays.
        corner = np.subtract(shift["translation"], np.divide(scale["scale"], 2))
        np.testing.assert_allclose(corner, GRID.offset_nm, atol=1e-9)


def test_ome_alone_places_the_levels(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    image(path)
    pyramid(PyramidSpec(image=str(path), levels=1))
    stated = open_volume(path / "1").info
    meta = json.loads((path / "1" / "zarr.json").read_text())
    del meta["attributes"]["emloom"]
    (path / "1" / "zarr.json").write_text(json.dumps(meta))
    assert open_volume(path / "1").info.grid.matches(stated.grid)


@settings(deadline=None, max_examples=15)
@given(
    st.tuples(*[st.integers(1, 30)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3).filter(lambda f: max(f) > 1),
    st.tuples(*[st.integers(3, 12)] * 3),
    st.integers(8, 14),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_cells_and_any_workers_give_the_pyramid_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    factors: tuple[int, int, int],
    chunk: tuple[int, int, int],
    log_bytes: int,
    workers: int,
    labels: bool,
) -> None:
    assume(coarse_shape(shape, factors) != shape)
    path = tmp_path_factory.mktemp("pyramid") / "out.zarr"
    values = np.random.default_rng(1).integers(0, 4, shape, dtype=np.uint8)
    info = VolumeInfo(shape, values.dtype, GRID, chunks=chunk, kind="labels" if labels else "raw")
    create_volume(path, info).write(info.box, values)
    task.FINE_BYTES, before = 2**log_bytes, task.FINE_BYTES
    try:
        levels = pyramid(PyramidSpec(image=str(path), levels=1, factors=factors), workers=workers)
    finally:
        task.FINE_BYTES = before
    kernel = downsample_majority if labels else downsample_mean
    np.testing.assert_array_equal(read(path / levels[0].name), kernel(values, factors))


@pytest.mark.parametrize(
    ("shape", "size", "factors"),
    [
        ((100, 100, 100), (8, 8, 8), (2, 2, 2)),
        ((100, 100, 100), (40, 4, 4), (1, 2, 2)),
        ((100, 100, 100), (8, 4, 4), (1, 2, 2)),  # gives cubes
        ((100, 100, 100), (5, 4, 4), (2, 2, 2)),
        ((100, 100, 100), (4, 16, 16), (2, 1, 1)),
        ((1, 100, 100), (8, 8, 8), (1, 2, 2)),
        ((1, 100, 100), (1, 8, 8), (1, 2, 2)),  # the single section is not in the way
        ((1, 1, 1), (8, 8, 8), (1, 1, 1)),
    ],
)
def test_default_factors_make_voxels_cubic(shape: Any, size: Any, factors: Any) -> None:
    assert default_factors(shape, size) == factors


def test_by_default_the_last_level_is_small(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    image(path, (3, 260, 20), grid=Grid((8, 8, 8)))
    levels = pyramid(PyramidSpec(image=str(path)))
    assert [level.shape for level in levels] == [(2, 130, 10), (1, 65, 5)]
    small = tmp_path / "small.zarr"
    image(small)
    assert pyramid(PyramidSpec(image=str(small))) == []
    assert not (small / "1").exists()


def test_coarse_affinities_are_no_affinities(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    values = image(path, (2, 10, 12, 14), "affinities")
    pyramid(PyramidSpec(image=str(path), levels=1))
    info = open_volume(path / "1").info
    assert (info.channels, info.kind, info.neighborhood) == (2, None, None)
    np.testing.assert_array_equal(read(path / "1"), downsample_mean(values, (1, 2, 2)))


def test_levels_are_made_anew_on_request_only(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    values = image(path)
    pyramid(PyramidSpec(image=str(path), levels=3))
    with pytest.raises(InputError, match=r"has 4 levels already \(0, 1, 2, 3\): pass --replace"):
        pyramid(PyramidSpec(image=str(path), levels=1))
    pyramid(PyramidSpec(image=str(path), levels=1, factors=(3, 3, 3), replace=True))
    assert sorted(p.name for p in path.iterdir()) == ["0", "1", "zarr.json"]
    np.testing.assert_array_equal(read(path / "1"), downsample_mean(values, 3))


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_images_of_other_tools_get_levels_and_keep_what_they_say(tmp_path: Path, zarr_format: int) -> None:
    path = tmp_path / "x.zarr"
    values = np.random.default_rng(0).integers(0, 9, (9, 10, 11), dtype=np.uint8)
    group = zarr.create_group(path, zarr_format=zarr_format)
    group.create_array("s0", data=values, chunks=(4, 4, 4))
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [0.008] * 3}]
    described = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}], "mine": 7}
    if zarr_format == 3:
        group.attrs.update({"ome": {"version": "0.5", "multiscales": [described], "omero": {"a": 1}}, "b": 2})
    else:
        group.attrs.update({"multiscales": [{"version": "0.4", **described}], "omero": {"a": 1}, "b": 2})
    zarr.consolidate_metadata(path, zarr_format=zarr_format)
    levels = pyramid(PyramidSpec(image=str(path), levels=1, kind="labels"))
    assert [level.name for level in levels] == ["s1"]
    assert open_volume(path).info.grid.matches(Grid((8, 8, 8)))  # the world position did not change
    assert open_volume(path / "s1").info.grid.matches(Grid((16, 16, 16)))
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(
        group["s1"][:], downsample_majority(values, 2)
    )  # also not hidden by a stale list
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    assert (ome["multiscales"][0]["mine"], ome["omero"], attributes["b"]) == (7, {"a": 1}, 2)


def test_what_has_no_levels_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["raw"] = np.zeros((4, 4, 4), np.uint8)
    zarr.create_array(tmp_path / "bare.zarr", data=np.zeros((4, 4, 4), np.uint8))
    image(tmp_path / "out.zarr")
    image(tmp_path / "unknown.zarr", kind=None)
    for name, more, message in [
        (
            "a.h5/raw",
            {"voxel_size_nm": (8, 8, 8)},
            "can have no coarser levels: these are made in zarr, N5, precomputed and wkw",
        ),
        ("bare.zarr", {"voxel_size_nm": (8, 8, 8)}, "bare array"),
        ("out.zarr/0", {}, "one level of the image"),
        ("out.zarr", {"factors": (1, 1, 1)}, "make no level coarser"),
        ("out.zarr", {"levels": 20}, "has only [0-9]+ coarser levels"),
        ("unknown.zarr", {}, "pass --kind raw"),
        ("missing.zarr", {}, "does not exist"),
    ]:
        given = {"kind": "raw"} if name != "unknown.zarr" and "out" not in name else {}
        with pytest.raises(InputError, match=message):
            pyramid(PyramidSpec.from_dict({"image": f"{tmp_path}/{name}", "levels": 1, **given, **more}))


def test_a_stranger_where_a_level_shall_be_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    image(path)
    zarr.create_array(path / "1", data=np.full((2, 2, 2), 7, np.uint8))
    with pytest.raises(InputError, match=r"out\.zarr/1 is there, but no level"):
        pyramid(PyramidSpec(image=str(path), levels=1))
    assert (zarr.open_array(path / "1", mode="r")[:] == 7).all()


class _PowerCutError(Exception):
    pass


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_interrupted_and_continued_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zarr_format: int
) -> None:
    values = image(tmp_path / "whole.zarr", zarr_format=zarr_format)
    pyramid(PyramidSpec(image=f"{tmp_path}/whole.zarr", levels=2))
    path = tmp_path / "cut.zarr"
    image(path, zarr_format=zarr_format)
    good, written = StoreVolume.write, []

    def write(self: StoreVolume, box: Box, array: np.ndarray) -> None:
        if len(written) % 4 == 3:
            written.append(None)
            raise _PowerCutError
        written.append((self.array.name, box))
        good(self, box, array)

    monkeypatch.setattr(StoreVolume, "write", write)
    cuts = 0
    while True:
        try:
            pyramid(PyramidSpec(image=str(path), levels=2), workers=1)
            break
        except _PowerCutError:
            cuts += 1
            assert [hit.path for hit in inspect(path)] == [str(path)]  # no level until all are whole
            np.testing.assert_array_equal(read(path), values)
    assert cuts > 2
    finished = [entry for entry in written if entry is not None]
    assert len(finished) == len(set(finished))  # what was finished was not done again
    for level in ("1", "2"):
        np.testing.assert_array_equal(read(path / level), read(tmp_path / "whole.zarr" / level))


@pytest.mark.parametrize("stop_at", ["announce", "rename"])
def test_killed_while_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str) -> None:
    path = tmp_path / "out.zarr"
    values = image(path)

    def cut(*_: Any, **__: Any) -> None:
        raise _PowerCutError

    with monkeypatch.context() as broken:
        if stop_at == "announce":
            broken.setattr(ZarrImage, "announce", cut)
        else:
            good = Path.rename
            broken.setattr(Path, "rename", lambda self, to: cut() if self.name == "2" else good(self, to))
        with pytest.raises(_PowerCutError):
            pyramid(PyramidSpec(image=str(path), levels=2))
    np.testing.assert_array_equal(read(path), values)
    pyramid(PyramidSpec(image=str(path), levels=2))
    np.testing.assert_array_equal(read(path / "1"), downsample_mean(values, (1, 2, 2)))
    assert sorted(p.name for p in path.iterdir()) == ["0", "1", "2", "zarr.json"]


def test_leftovers_of_another_job_are_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.zarr"
    values = image(path)

    def cut(*_: Any) -> None:
        raise _PowerCutError

    with monkeypatch.context() as broken:
        broken.setattr(task, "_cell", cut)
        with pytest.raises(_PowerCutError):
            pyramid(PyramidSpec(image=str(path), levels=2))
    pyramid(PyramidSpec(image=str(path), levels=1, factors=(2, 2, 2)))
    np.testing.assert_array_equal(read(path / "1"), downsample_mean(values, 2))
    assert sorted(p.name for p in path.iterdir()) == ["0", "1", "zarr.json"]


@pytest.mark.fault(
    "processes",
    "`emloom pyramid` is killed while it adds levels to an image",
    "the image is as it was; the next run adds them",
)
def test_kill_9_leaves_the_image_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    values = image(path, (64, 96, 96), grid=Grid((8, 8, 8)))
    script = (
        "import sys, time\n"
        "from emloom.tasks import pyramid as task\n"
        "task.FINE_BYTES = 2**15\n"
        "def slow(done, total):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(0.05)\n"
        "task.pyramid(task.PyramidSpec(image=sys.argv[1], levels=2), slow)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert [hit.path for hit in inspect(path)] == [str(path)]
    np.testing.assert_array_equal(read(path), values)
    pyramid(PyramidSpec(image=str(path), levels=2))
    np.testing.assert_array_equal(read(path / "2"), downsample_mean(downsample_mean(values, 2), 2))


@pytest.mark.real_data
def test_fib25(real_data: Path, tmp_path: Path) -> None:
    source = f"{real_data}/fib25/trvol2_250.h5/volumes/labels/neuron_ids"
    convert(ConvertSpec(source=source, target=f"{tmp_path}/labels.zarr"))
    levels = pyramid(PyramidSpec(image=f"{tmp_path}/labels.zarr"))
    assert [level.shape for level in levels] == [(125, 125, 125)]
    coarse = read(tmp_path / "labels.zarr/1")
    np.testing.assert_array_equal(coarse, downsample_majority(read(source), 2))
