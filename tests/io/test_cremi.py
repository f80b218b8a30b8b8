"""The complete CREMI file: special values, masks, annotations."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.checks import require_ids
from emloom.io.cremi import CLEFTS, INVALID, NEURON_IDS, OUTSIDE, TRANSPARENT, read_annotations, write_annotations
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.convert import ConvertSpec, convert

GRID = Grid((40, 4, 4), (400, 40, 40))
SPECIAL = [TRANSPARENT, INVALID, OUTSIDE]
STORED = np.array([TRANSPARENT, INVALID, OUTSIDE, 1, 2**63 - 1, 7], np.uint64).reshape(1, 2, 3)
LABELS = np.array([0, 0, 0, 1, 2**63 - 1, 7], np.uint64).reshape(1, 2, 3)


def cremi_file(path: Path, **volumes: np.ndarray) -> Path:
    """What CREMI hands out: plain h5py, no attribute of ours."""
    with h5py.File(path, "w") as h5:
        h5.attrs["file_format"] = "0.2"
        for name, values in volumes.items():
            data = h5.create_dataset(f"volumes/labels/{name}", data=values, compression="gzip")
            data.attrs["resolution"] = GRID.voxel_size_nm
            data.attrs["offset"] = GRID.offset_nm
    return path


@pytest.mark.parametrize(("name", "valid"), [("clefts", [1, 0, 0, 1, 1, 1]), ("neuron_ids", [0, 0, 0, 1, 1, 1])])
def test_the_special_values_read_as_background_and_a_mask(tmp_path: Path, name: str, valid: list[int]) -> None:
    path = cremi_file(tmp_path / "a.h5", **{name: STORED}) / "volumes/labels" / name
    labels = open_volume(path)
    assert (labels.info.kind, labels.info.dtype, labels.info.grid) == ("labels", np.uint64, GRID)
    np.testing.assert_array_equal(labels.read(labels.info.box), LABELS)
    require_ids(labels.read(labels.info.box), "labels")
    mask = open_volume(path / "valid")
    assert (mask.info.kind, mask.info.dtype, mask.info.grid) == ("mask", np.uint8, GRID)
    assert mask.read(mask.info.box).ravel().tolist() == valid
    (hit,) = inspect(path)
    assert f"the mask {path}/valid" in hit.notes[0]
    assert [Path(h.path).name for h in inspect(tmp_path / "a.h5")] == [name]


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(["clefts", "neuron_ids"]),
    stored=arrays(np.uint64, (2, 3, 4), elements=st.sampled_from([*SPECIAL[:2], 1, 2, 2**63 - 1])),
)
def test_labels_and_mask_written_anew_are_the_stored_values(name: str, stored: np.ndarray) -> None:
    """inverse(forward(x)) == x, as h5py sees it; neuron ids have one value for what CREMI ignores."""
    if name == "neuron_ids":
        stored[stored == INVALID] = TRANSPARENT
    with tempfile.TemporaryDirectory() as folder:
        source = cremi_file(Path(folder, "a.h5"), **{name: stored}) / "volumes/labels" / name
        target = Path(folder, "b.h5/volumes/labels", name)
        for inner in ("", "valid"):
            convert(ConvertSpec(source=str(source / inner), target=str(target / inner)))
        with h5py.File(Path(folder, "b.h5")) as h5:
            np.testing.assert_array_equal(h5[f"volumes/labels/{name}"][:], stored)
            assert h5.attrs["file_format"] == "0.2"


def test_clefts_are_written_with_the_background_of_cremi(tmp_path: Path) -> None:
    info = VolumeInfo((2, 3, 4), np.dtype("uint64"), GRID, kind="labels")
    with staged_volume(tmp_path / "out.h5" / CLEFTS, info) as volume:
        assert not volume.read(info.box).any()
        volume.write(Box((0, 0, 0), (1, 1, 2)), np.array([[[0, 5]]], np.uint64))
    with h5py.File(tmp_path / "out.h5") as h5:
        assert h5[CLEFTS][0, 0, :2].tolist() == [TRANSPARENT, 5]
        assert (h5[CLEFTS][:] == TRANSPARENT).sum() == 23
    again = open_volume(tmp_path / "out.h5" / CLEFTS)
    assert again.read(Box((0, 0, 0), (1, 1, 2))).tolist() == [[[0, 5]]]
    assert open_volume(tmp_path / "out.h5" / CLEFTS / "valid").read(info.box).all()


def test_neuron_ids_keep_0_and_say_unlabelled_in_the_mask(tmp_path: Path) -> None:
    path = cremi_file(tmp_path / "a.h5", neuron_ids=np.array([[[0, TRANSPARENT, 3]]], np.uint64)) / NEURON_IDS
    box = Box.whole((1, 1, 3))
    assert open_volume(path).read(box).tolist() == [[[0, 0, 3]]]
    assert open_volume(path / "valid").read(box).tolist() == [[[1, 0, 1]]]
    open_volume(path / "valid", writable=True).write(box, np.array([[[0, 1, 1]]], np.uint8))
    with h5py.File(tmp_path / "a.h5") as h5:
        assert h5[NEURON_IDS][:].tolist() == [[[TRANSPARENT, 0, 3]]]


@pytest.mark.fault(
    "values",
    "CREMI clefts hold both kinds of background",
    "error: holds both 0 and 0xffffffffffffffff: store one of them where the other stands",
)
def test_clefts_with_two_backgrounds_are_refused(tmp_path: Path) -> None:
    path = cremi_file(tmp_path / "a.h5", clefts=np.array([[[0, TRANSPARENT, 3]]], np.uint64)) / CLEFTS
    with pytest.raises(InputError, match="holds both 0 and 0xffffffffffffffff"):
        open_volume(path).read(Box.whole((1, 1, 3)))


def test_what_cremi_cannot_hold_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = cremi_file(tmp_path / "a.h5", clefts=STORED) / CLEFTS
    labels, mask = open_volume(path, writable=True), open_volume(path / "valid", writable=True)
    with pytest.raises(InputError, match="is a special value of CREMI"):
        labels.write(labels.info.box, STORED)
    with pytest.raises(InputError, match=r"3 voxels of .* not valid hold ids"):
        mask.write(mask.info.box, np.zeros((1, 2, 3), np.uint8))
    for volume in (open_volume(path), open_volume(path / "valid")):
        with pytest.raises(InputError, match="read-only"):
            volume.write(Box.whole((1, 1, 1)), np.zeros((1, 1, 1), volume.info.dtype))
    with h5py.File(tmp_path / "a.h5") as h5:
        np.testing.assert_array_equal(h5[CLEFTS][:], STORED)


def test_other_labels_are_plain(tmp_path: Path) -> None:
    path = cremi_file(tmp_path / "a.h5", clefts=LABELS.astype(np.uint32), glia=STORED)
    assert open_volume(path / CLEFTS).read(Box((0, 0, 0), (1, 1, 1))) == 0
    with pytest.raises(InputError, match=r"clefts has no mask: only uint64"):
        open_volume(path / CLEFTS / "valid")
    glia = open_volume(path / "volumes/labels/glia")
    np.testing.assert_array_equal(glia.read(glia.info.box), STORED)


def test_a_mask_needs_its_labels(tmp_path: Path) -> None:
    info = VolumeInfo((1, 2, 3), np.dtype("uint8"), GRID, kind="mask")
    with pytest.raises(InputError, match="write volumes/labels/clefts first"):
        create_volume(tmp_path / "new.h5" / CLEFTS / "valid", info)
    path = cremi_file(tmp_path / "a.h5", clefts=STORED) / CLEFTS / "valid"
    for wrong in (info.with_(shape=(1, 2, 4)), info.with_(grid=Grid((40, 4, 4))), info.with_(kind="raw")):
        with pytest.raises(InputError, match="does not fit"):
            create_volume(path, wrong)


# ---- annotations ----------------------------------------------------------------------------------------------


def sites(**changes: Any) -> Annotations:
    values: dict[str, Any] = {
        "ids": np.array([10, 2**40, 3], np.uint64),
        "types": (PRE, POST, POST),
        "locations_nm": np.array([[40.5, 4, 8], [80, 0.1, 3], [0, 0, 0]]),
        "partners": np.array([[10, 3], [10, 2**40]], np.uint64),
        "comment_ids": np.array([3], np.uint64),
        "comments": ("größer als gedacht",),
    }
    return Annotations(**{**values, **changes})


def same(a: Annotations, b: Annotations) -> None:
    for name in ("ids", "partners", "comment_ids"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == np.uint64
    assert (a.types, a.comments) == (b.types, b.comments)
    np.testing.assert_allclose(a.locations_nm, b.locations_nm, rtol=0, atol=1e-9)


@pytest.mark.parametrize("offset", [(0, 0, 0), (1520.0, 3644.0, 3644.0)])
def test_annotations_keep_their_place_in_the_world(tmp_path: Path, offset: tuple[float, float, float]) -> None:
    write_annotations(tmp_path / "a.h5", sites(), offset_nm=offset)
    same(read_annotations(tmp_path / "a.h5"), sites())
    with h5py.File(tmp_path / "a.h5") as h5:
        assert h5["annotations"].attrs["offset"].tolist() == list(offset)
        assert h5["annotations/locations"][0].tolist() == [40.5 - offset[0], 4 - offset[1], 8 - offset[2]]
        assert h5["annotations/types"].asstr()[0] == PRE
        assert h5["annotations/presynaptic_site/partners"][:].tolist() == [[10, 3], [10, 2**40]]
        assert h5["annotations/comments/target_ids"][:].tolist() == [3]


def test_annotations_join_a_file_without_touching_its_volumes(tmp_path: Path) -> None:
    path = cremi_file(tmp_path / "a.h5", clefts=STORED)
    write_annotations(path, sites())
    with pytest.raises(InputError, match="has annotations already"):
        write_annotations(path, sites(comments=("other",)))
    same(read_annotations(path), sites())
    write_annotations(path, sites(comments=("other",)), overwrite=True)
    assert read_annotations(path).comments == ("other",)
    with h5py.File(path) as h5:
        np.testing.assert_array_equal(h5[CLEFTS][:], STORED)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_text_of_fixed_length_and_absent_parts_read_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["annotations/ids"] = np.arange(2, dtype=np.int64)
        h5["annotations/types"] = np.array([PRE, POST], "S20")
        h5["annotations/locations"] = np.zeros((2, 3), np.float32)
    got = read_annotations(tmp_path / "a.h5")
    assert (got.types, got.partners.shape, got.comments) == ((PRE, POST), (0, 2), ())
    assert got.location(1).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="no site 2"):
        got.location(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array([10, 10, 3], np.uint64)}, "site 10 stands twice"),
        ({"types": (PRE, POST)}, "3 ids, 2 types"),
        ({"locations_nm": np.full((3, 3), np.nan)}, "not finite"),
        ({"locations_nm": np.zeros((3, 2))}, r"locations \[n, 3\]"),
        ({"partners": np.array([[10, 4]], np.uint64)}, "partners name the site 4, which does not exist"),
        ({"partners": np.array([[3, 10]], np.uint64)}, r"\(3, 10\) are \(postsynaptic_site, presynaptic_site\)"),
        ({"comment_ids": np.array([99], np.uint64)}, "comments name the site 99"),
        ({"comments": ()}, "1 ids of comments and 0 comments"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sites(**changes)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("locations", np.zeros((2, 2)), "should be numbers of shape"),
        ("ids", np.array([-1, 2]), "no ids"),
        ("ids", np.array([0.5, 2]), "no ids"),
        ("types", np.zeros(2), "should be text"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, name: str, values: np.ndarray, message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        good = {"ids": np.arange(2), "types": np.array([PRE, POST], "S20"), "locations": np.zeros((2, 3))}
        for key, value in {**good, name: values}.items():
            h5[f"annotations/{key}"] = value
    with pytest.raises(InputError, match=rf"a\.h5: annotations/{name}.*{message}"):
        read_annotations(tmp_path / "a.h5")


def test_files_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_annotations(tmp_path / "a.h5")
    with pytest.raises(InputError, match="holds no annotations"):
        read_annotations(cremi_file(tmp_path / "a.h5", clefts=STORED))


@pytest.mark.real_data
def test_the_example_of_cremi_python(real_data: Path) -> None:
    path = real_data / "metric_refs/cremi_python/example.h5"
    volume = open_volume(path)
    assert (volume.info.kind, volume.info.grid.voxel_size_nm) == ("labels", (40, 4, 4))
    with h5py.File(path) as h5:
        stored = h5[NEURON_IDS][:]
    special = stored >= OUTSIDE
    np.testing.assert_array_equal(volume.read(volume.info.box), np.where(special, 0, stored))
    mask = open_volume(path / NEURON_IDS / "valid")
    np.testing.assert_array_equal(mask.read(mask.info.box) == 0, special)
