"""`emloom pyramid` in every format that has levels: the same promises, and what other software reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.n5levels import N5Image
from emloom.io.open import create_volume, inspect, open_volume
from emloom.io.precomputedlevels import PrecomputedImage
from emloom.io.tensors import StoreVolume
from emloom.io.volume import VolumeInfo
from emloom.io.wkw import WkwVolume, library
from emloom.io.wkwlevels import WkwImage
from emloom.io.zarrlevels import ZarrImage
from emloom.tasks import pyramid as task
from emloom.tasks.info import info as info_of
from emloom.tasks.pyramid import PyramidSpec, pyramid

SIZE = (40, 4.5, 4)


@dataclass(frozen=True)
class Form:
    """How a format is used here.

    Attributes:
        image: the path of the image, as it is given to `pyramid`.
        array: what follows it in the path at which the volume is created.
        on_world: whether windows lie on the lattice of the world.
        volume: class whose `write` is cut, and the image class whose `announce` is.
    """

    image: str
    array: str
    on_world: bool
    volume: type[Any]
    kind: type[Any]
    names: tuple[str, ...]


FORMS = {
    "zarr": Form("out.zarr/vol", "", False, StoreVolume, ZarrImage, ("1", "2")),
    "n5": Form("out.n5/vol", "/s0", False, StoreVolume, N5Image, ("s1", "s2")),
    "precomputed": Form("o.precomputed", "", True, StoreVolume, PrecomputedImage, ("8_9_40", "16_18_40")),
    "wkw": Form("out.wkw/color", "", True, WkwVolume, WkwImage, ("2-2-1", "4-4-1")),
}
ALL = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def written(
    folder: Path,
    form: Form,
    shape: tuple[int, ...] = (20, 41, 52),
    start: Vec = (3, 5, 9),
    *,
    labels: bool = False,
    chunks: Vec = (8, 8, 16),
) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 5, shape, dtype=np.uint32 if labels else np.uint16)
    grid = Grid(SIZE, tuple(s * v for s, v in zip(SIZE, start, strict=True)))  # type: ignore[arg-type]
    channels = shape[0] if len(shape) == 4 else None
    kind: Any = "labels" if labels else "raw"
    info = VolumeInfo(shape[-3:], values.dtype, grid, channels, chunks, kind)  # type: ignore[arg-type]
    create_volume(f"{folder}/{form.image}{form.array}", info).write(info.box, values)
    return values


def slowly(values: np.ndarray, start: Vec, factors: Vec, labels: bool) -> tuple[np.ndarray, Vec]:
    """Return (coarse values, first coarse voxel) of windows on the lattice of the world, one after the other."""
    windows: dict[Vec, list[int]] = {}
    for at in np.ndindex(values.shape):
        z, y, x = ((a + s) // f for a, s, f in zip(at, start, factors, strict=True))
        windows.setdefault((z, y, x), []).append(int(values[at]))
    low, high = np.min(list(windows), 0), np.max(list(windows), 0)
    out = np.zeros(high - low + 1, values.dtype)
    for place, held in windows.items():
        at = tuple(np.subtract(place, low))
        if labels:
            ids, counts = np.unique(held, return_counts=True)
            out[at] = ids[np.argmax(counts)]
        else:
            out[at] = (2 * sum(held) + len(held)) // (2 * len(held))
    return out, tuple(int(v) for v in low)  # type: ignore[return-value]


def read(path: Path | str) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "FINE_BYTES", 2**15)


@ALL
@pytest.mark.parametrize("labels", [False, True], ids=["raw", "labels"])
def test_levels_are_those_of_the_whole_and_lie_where_they_say(tmp_path: Path, form: Form, labels: bool) -> None:
    path, first = tmp_path / form.image, (3, 5, 9)
    values = written(tmp_path, form, start=first, labels=labels)
    finest = open_volume(path).info
    levels = pyramid(PyramidSpec(image=str(path), levels=2))
    assert tuple(level.name for level in levels) == form.names
    start, fine = first if form.on_world else (0, 0, 0), finest
    for level in levels:
        assert level.factors == (1, 2, 2)
        values, start = slowly(values, start, level.factors, labels)
        np.testing.assert_array_equal(read(path / level.name), values)
        info = open_volume(path / level.name).info
        assert (info.shape, info.kind, info.dtype) == (values.shape, finest.kind, finest.dtype)
        # A world position names the same place in both: the coarse voxel holds the fine one.
        np.testing.assert_allclose(info.grid.voxel_size_nm, np.multiply(fine.grid.voxel_size_nm, (1, 2, 2)))
        corner = np.multiply(info.grid.voxel_size_nm, start) if form.on_world else finest.grid.offset_nm
        np.testing.assert_allclose(info.grid.offset_nm, corner)
        fine = info
    np.testing.assert_array_equal(open_volume(path).read(finest.box), read(path))
    assert open_volume(path).info == finest


@ALL
def test_the_image_counts_once_and_names_its_levels(tmp_path: Path, form: Form) -> None:
    path = tmp_path / form.image
    written(tmp_path, form)
    container = tmp_path / Path(form.image).parts[0]
    pyramid(PyramidSpec(image=str(path), levels=2))
    listed = tuple(f"{path}/{name}" for name in form.names)
    for place in (path, container):
        (hit,) = inspect(place)
        assert hit.levels == listed
        assert open_volume(place).info.shape == (20, 41, 52)
    (report,) = info_of(path, values=False)
    assert all(f"level      {name}" in report.to_text() for name in listed)
    assert report.to_dict()["levels"] == list(listed)
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


@ALL
def test_channels_are_averaged_each_on_its_own(tmp_path: Path, form: Form) -> None:
    values = written(tmp_path, form, (2, 6, 9, 10))
    (level,) = pyramid(PyramidSpec(image=f"{tmp_path}/{form.image}", levels=1))
    start = (3, 5, 9) if form.on_world else (0, 0, 0)
    expected = np.stack([slowly(channel, start, (1, 2, 2), False)[0] for channel in values])
    np.testing.assert_array_equal(read(f"{tmp_path}/{form.image}/{level.name}"), expected)


@ALL
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(0, 9)] * 3),
    st.sampled_from([(1, 2, 2), (2, 2, 2), (2, 1, 4), (1, 1, 2)]),
    st.integers(8, 13),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_cells_any_workers_and_any_corner(
    tmp_path_factory: pytest.TempPathFactory,
    form: Form,
    shape: Vec,
    start: Vec,
    factors: Vec,
    log_bytes: int,
    workers: int,
    labels: bool,
) -> None:
    folder = tmp_path_factory.mktemp("pyramid")
    values = written(folder, form, shape, start, chunks=(4, 4, 4), labels=labels)
    lattice = start if form.on_world else (0, 0, 0)
    task.FINE_BYTES, before = 2**log_bytes, task.FINE_BYTES
    try:
        spec = PyramidSpec(image=f"{folder}/{form.image}", levels=1, factors=factors)
        if Box(lattice, shape).coarsen(factors) == Box(lattice, shape):
            with pytest.raises(InputError, match="has only 0 coarser levels"):
                pyramid(spec)
            return
        (level,) = pyramid(spec, workers=workers)
    finally:
        task.FINE_BYTES = before
    expected, _ = slowly(values, lattice, factors, labels)
    np.testing.assert_array_equal(read(f"{folder}/{form.image}/{level.name}"), expected)


class _PowerCutError(Exception):
    pass


def _cut(*_: Any, **__: Any) -> None:
    raise _PowerCutError


@ALL
def test_interrupted_and_continued_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    shape = (40, 60, 70)  # several cube files, too
    values = written(tmp_path / "whole", form, shape)
    pyramid(PyramidSpec(image=f"{tmp_path}/whole/{form.image}", levels=2))
    path = tmp_path / form.image
    written(tmp_path, form, shape)
    good, finished, cuts = form.volume.write, [], 0

    def write(self: Any, box: Box, array: np.ndarray) -> None:
        if len(finished) % 3 == 2 and finished[-1] is not None:
            finished.append(None)
            raise _PowerCutError
        finished.append((self.info.source, box))
        good(self, box, array)

    monkeypatch.setattr(form.volume, "write", write)
    while True:
        try:
            pyramid(PyramidSpec(image=str(path), levels=2), workers=1)
            break
        except _PowerCutError:
            cuts += 1
            (hit,) = inspect(path)
            assert hit.levels == ()  # no level until all are whole
            np.testing.assert_array_equal(read(path), values)
    assert cuts > 0
    done = [entry for entry in finished if entry is not None]
    assert len(done) == len(set(done))  # what was finished was not done again
    for name in form.names:
        np.testing.assert_array_equal(read(path / name), read(f"{tmp_path}/whole/{form.image}/{name}"))
    folder = form.image.split("/")[0]
    ours, theirs = contents(tmp_path / folder), contents(tmp_path / "whole" / folder)
    assert ours == theirs


@ALL
@pytest.mark.parametrize("again", [False, True], ids=["first", "replace"])
@pytest.mark.parametrize("stop_at", ["announce", "rename"])
def test_killed_while_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form, stop_at: str, again: bool
) -> None:
    path = tmp_path / form.image
    values = written(tmp_path, form)
    if again:
        pyramid(PyramidSpec(image=str(path), levels=2, factors=(2, 2, 2)))
    spec = PyramidSpec(image=str(path), levels=2, replace=again)
    with monkeypatch.context() as broken:
        if stop_at == "announce":
            good: Callable[..., None] = form.kind.announce
            cut = lambda self, levels, method: _cut() if levels else good(self, levels, method)  # noqa: E731
            broken.setattr(form.kind, "announce", cut)
        else:
            move, last = Path.rename, form.names[1]
            broken.setattr(Path, "rename", lambda self, to: _cut() if self.name == last else move(self, to))
        with pytest.raises(_PowerCutError):
            pyramid(spec)
        np.testing.assert_array_equal(read(path), values)
        assert all(hit.levels == () for hit in inspect(path))
    pyramid(spec)
    (hit,) = inspect(path)
    assert hit.levels == tuple(f"{path}/{name}" for name in form.names)
    start = (3, 5, 9) if form.on_world else (0, 0, 0)
    np.testing.assert_array_equal(read(hit.levels[0]), slowly(values, start, (1, 2, 2), False)[0])
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


@ALL
def test_levels_are_made_anew_on_request_only(tmp_path: Path, form: Form) -> None:
    path = tmp_path / form.image
    values = written(tmp_path, form)
    pyramid(PyramidSpec(image=str(path), levels=2))
    with pytest.raises(InputError, match=r"has 3 levels already .*: pass --replace"):
        pyramid(PyramidSpec(image=str(path), levels=1))
    (level,) = pyramid(PyramidSpec(image=str(path), levels=1, factors=(2, 4, 4), replace=True))
    (hit,) = inspect(path)
    assert hit.levels == (f"{path}/{level.name}",)
    start = (3, 5, 9) if form.on_world else (0, 0, 0)
    np.testing.assert_array_equal(read(path / level.name), slowly(values, start, (2, 4, 4), False)[0])
    kept = {level.name} | {"s0", "0", "1", "4_4.5_40"}
    assert {p.name for p in path.iterdir() if p.is_dir()} <= kept


@ALL
def test_a_stranger_where_a_level_shall_be_is_not_overwritten(tmp_path: Path, form: Form) -> None:
    path = tmp_path / form.image
    written(tmp_path, form)
    (path / form.names[1]).mkdir()
    (path / form.names[1] / "notes.txt").write_text("mine")
    if form.kind is N5Image:
        (path / "attributes.json").write_text('{"downsamplingFactors": [[1, 1, 1]]}')
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{form.names[1]} is there, but no level: move or delete it first"):
        pyramid(PyramidSpec(image=str(path), levels=2))
    assert contents(tmp_path) == before


@ALL
def test_a_level_is_no_image(tmp_path: Path, form: Form) -> None:
    path = tmp_path / form.image
    written(tmp_path, form)
    pyramid(PyramidSpec(image=str(path), levels=1))
    with pytest.raises(InputError, match=r"is one (level|scale|magnification) of .*: name"):
        pyramid(PyramidSpec(image=f"{path}/{form.names[0]}", levels=1))


@pytest.mark.parametrize("name", ["out.n5", "out.n5/raw"])
def test_an_n5_array_by_itself_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    info = VolumeInfo((4, 6, 8), np.dtype("uint8"), Grid((8, 8, 8)), kind="raw")
    create_volume(tmp_path / name, info)
    with pytest.raises(InputError, match=rf"emloom export .*{name} NEW\.n5/(out|raw)/s0\), and name the group"):
        pyramid(PyramidSpec(image=f"{tmp_path}/{name}", levels=1))


@pytest.mark.parametrize("name", ["out.n5/vol", "out.n5/vol/s0"])
def test_the_words_of_n5_place_every_level_without_ours(tmp_path: Path, name: str) -> None:
    form = FORMS["n5"]
    written(tmp_path, form, (2, 9, 10, 11))
    path = tmp_path / form.image
    pyramid(PyramidSpec(image=f"{tmp_path}/{name}", levels=2))
    group = json.loads((path / "attributes.json").read_text())
    assert group["downsamplingFactors"] == [[1, 1, 1, 1], [2, 2, 1, 1], [4, 4, 1, 1]]  # x, y, z, c
    assert group["axes"] == ["x", "y", "z", "c"]
    assert (group["resolution"], group["units"]) == ([4, 4.5, 40, 1], ["nm", "nm", "nm", ""])
    stated = [open_volume(path / f"s{k}").info for k in range(3)]
    for k in (1, 2):
        attributes = json.loads((path / f"s{k}/attributes.json").read_text())
        assert attributes["downsamplingFactors"] == [2**k, 2**k, 1, 1]
        assert attributes["pixelResolution"] == {"unit": "nm", "dimensions": [4, 4.5, 40]}
        assert "resolution" not in attributes
        # Each of the three ways to tell is enough.
        for dropped in (["emloom"], ["emloom", "transform"], ["emloom", "pixelResolution", "downsamplingFactors"]):
            fewer = {key: value for key, value in attributes.items() if key not in dropped}
            (path / f"s{k}/attributes.json").write_text(json.dumps(fewer))
            assert open_volume(path / f"s{k}").info.grid.matches(stated[k].grid)


def test_a_group_of_other_things_says_nothing_about_them(tmp_path: Path) -> None:
    """What a group says about places holds for all arrays in it, so it must not be said for strangers."""
    written(tmp_path, FORMS["n5"])
    path = tmp_path / FORMS["n5"].image
    silent = {"dimensions": [3, 3, 3], "blockSize": [3, 3, 3], "dataType": "uint8", "compression": {"type": "raw"}}
    (path / "other").mkdir()
    (path / "other/attributes.json").write_text(json.dumps(silent))
    pyramid(PyramidSpec(image=str(path), levels=1))
    with pytest.raises(InputError, match="voxel size is missing"):
        open_volume(path / "other")
    assert open_volume(path / "s1").info.grid.voxel_size_nm == (40, 9, 8)


def test_precomputed_keeps_what_info_says(tmp_path: Path) -> None:
    path = tmp_path / "o.precomputed"
    written(tmp_path, FORMS["precomputed"], labels=True, start=(3, -5, 9))
    before = json.loads((path / "info").read_text())
    (path / "info").write_text(json.dumps({**before, "mesh": "mesh", "skeletons": "skeletons"}))
    pyramid(PyramidSpec(image=str(path), levels=1))
    about = json.loads((path / "info").read_text())
    fine, coarse = about.pop("scales")
    assert [fine] == before.pop("scales")
    assert about == {**before, "mesh": "mesh", "skeletons": "skeletons"}
    wanted = {"key": "8_9_40", "resolution": [8, 9, 40], "voxel_offset": [4, -3, 3], "size": [27, 21, 20]}
    same = ("chunk_sizes", "encoding", "compressed_segmentation_block_size")
    wanted |= {name: fine[name] for name in same}
    assert {name: coarse[name] for name in wanted} == wanted
    assert set(coarse) - set(wanted) == {"emloom"}


def test_a_finest_scale_that_bears_the_name_of_a_coarser_one(tmp_path: Path) -> None:
    path = tmp_path / "o.precomputed"
    written(tmp_path, FORMS["precomputed"])
    (path / "4_4.5_40").rename(path / "8_9_40")
    (path / "info").write_text((path / "info").read_text().replace("4_4.5_40", "8_9_40"))
    with pytest.raises(InputError, match=r"calls its finest scale '8_9_40'.*: name it '4_4.5_40'"):
        pyramid(PyramidSpec(image=str(path), levels=1))


def test_the_wkw_library_reads_the_magnifications(tmp_path: Path) -> None:
    values = written(tmp_path, FORMS["wkw"])
    pyramid(PyramidSpec(image=f"{tmp_path}/out.wkw/color", levels=2))
    start: Vec = (3, 5, 9)
    for name in ("2-2-1", "4-4-1"):
        values, start = slowly(values, start, (1, 2, 2), False)
        with library().Dataset.open(f"{tmp_path}/out.wkw/color/{name}") as dataset:
            theirs = dataset.read(start[::-1], values.shape[::-1])
        np.testing.assert_array_equal(theirs[0].T, values)
    (layer,) = json.loads((tmp_path / "out.wkw/datasource-properties.json").read_text())["dataLayers"]
    assert [mag["resolution"] for mag in layer["wkwResolutions"]] == [[1, 1, 1], [2, 2, 1], [4, 4, 1]]


def test_other_layers_of_a_dataset_stay_as_they_are(tmp_path: Path) -> None:
    written(tmp_path, FORMS["wkw"])
    other = Form("out.wkw/seg", "", True, WkwVolume, WkwImage, ())
    written(tmp_path, other, labels=True)
    before = json.loads((tmp_path / "out.wkw/datasource-properties.json").read_text())
    kept = contents(tmp_path / "out.wkw/color")
    pyramid(PyramidSpec(image=f"{tmp_path}/out.wkw/seg", levels=1))
    after = json.loads((tmp_path / "out.wkw/datasource-properties.json").read_text())
    assert after["dataLayers"][0] == before["dataLayers"][0]
    assert contents(tmp_path / "out.wkw/color") == kept


def test_what_wkw_cannot_have(tmp_path: Path) -> None:
    written(tmp_path, FORMS["wkw"])
    with pytest.raises(InputError, match=r"magnification 3-3-1 \(x-y-z\) is none.*powers of 2"):
        pyramid(PyramidSpec(image=f"{tmp_path}/out.wkw/color", factors=(1, 3, 3), levels=1))
    (tmp_path / "out.wkw/color/1").rename(tmp_path / "alone")
    with pytest.raises(InputError, match="a wkw folder in no dataset"):
        pyramid(PyramidSpec(image=f"{tmp_path}/alone", voxel_size_nm=(40, 4, 4), kind="raw", levels=1))


@pytest.mark.real_data
def test_magnifications_are_those_of_webknossos_itself(real_data: Path, tmp_path: Path) -> None:
    """All voxels inside the layer are equal; at its rim webKnossos counts what is outside as zeros, we do not."""
    theirs = real_data / "webknossos/l4_sample_dev/segmentation"
    shutil.copytree(theirs.parent, tmp_path / "l4", copy_function=shutil.copyfile)
    path = tmp_path / "l4/segmentation"
    (level,) = pyramid(PyramidSpec(image=str(path), levels=1, factors=(1, 2, 2), replace=True))
    assert open_volume(path / level.name).info.grid == open_volume(theirs / level.name).info.grid
    ours, expected = read(path / level.name), read(theirs / level.name)
    # The layer is x 2679 to 2935: the first and the last coarse voxel lie in it by half.
    np.testing.assert_array_equal(ours[..., 1:-1], expected[..., 1:-1])
    assert ours[..., [0, -1]].all()
    assert not expected[..., [0, -1]].any()
