"""Opening painted pieces: each lies where it was painted, and everything that is wrong is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Tracing
from emloom.io.nml import write_nml
from emloom.io.volume import VolumeInfo
from emloom.nn.objectives.semantic import SemanticClass
from emloom.ops.classsets import SETS
from emloom.tasks.sparselabels import Sparse, open_sparse
from emloom.tasks.sparsespec import SparseLabels

SHAPE = (12, 16, 20)
GRID = Grid((40.0, 8.0, 4.0), (400.0, -80.0, 4.0))
RAW = VolumeInfo(SHAPE, np.dtype(np.uint8), GRID, source="raw.h5")
LEARNED = tuple(SemanticClass(name=name, ids=(value,)) for name, value in (("cyto", 1), ("mem", 2), ("syn", 5)))
OWN = {"cyto": 1, "mem": 2, "syn": 5}
RNG = np.random.default_rng(0)


def image(folder: Path, name: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Write and return a painted image of all classes, and of undefined pixels."""
    values = RNG.choice(np.array([0, 1, 2, 5], np.uint8), shape)
    Image.fromarray(values).save(folder / name)
    return values


def opened(folder: Path, *pieces: dict[str, Any], **more: Any) -> Sparse:
    """Open pieces of a file of labels."""
    labels = SparseLabels.from_dict({"classes": OWN, "pieces": list(pieces), **more})
    path = folder / "labels.yaml"
    labels.dump(path)
    return open_sparse(str(path), RAW, LEARNED)


def plane(name: str = "p", **more: Any) -> dict[str, Any]:
    return {"kind": "plane", "name": name, "image": f"{name}.png", "axis": "z", "at": 3, **more}


def ids(found: Sparse) -> NDArray[Any]:
    return found.volume.read(RAW.box)


def known(found: Sparse) -> NDArray[Any]:
    return found.volume.known.read(RAW.box) != 0


# ---- where pieces lie ---------------------------------------------------------------------------------------


def test_planes_lie_along_their_axes(tmp_path: Path) -> None:
    xy, xz, yz = (
        image(tmp_path, "xy.png", (4, 5)),
        image(tmp_path, "xz.png", (3, 6)),
        image(tmp_path, "yz.png", (7, 2)),
    )
    found = opened(
        tmp_path,
        plane("xy", at=3, start=[2, 11]),
        plane("xz", axis="y", at=9, start=[5, 1]),
        plane("yz", axis="x", at=18, start=[4, 8], transpose=True),
    )
    expected = np.zeros(SHAPE, np.uint8)
    expected[3, 2:6, 11:16] = xy
    expected[5:8, 9, 1:7] = xz
    expected[4:6, 8:15, 18] = yz.T
    assert (ids(found) == expected).all()
    assert (known(found) == (expected != 0)).all()
    assert found.pieces[0].counts.tolist() == [int((xy == v).sum()) for v in (1, 2, 5)]
    assert found.pieces[0].undefined == (xy == 0).sum()


@pytest.mark.parametrize("suffix", ["tif", "npy", "palette"])
def test_an_image_is_what_is_painted_in_it_whatever_the_file(tmp_path: Path, suffix: str) -> None:
    values = RNG.choice(np.array([0, 1, 2, 5], np.uint8), (4, 5))
    name = "p.png" if suffix == "palette" else f"p.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(tmp_path / name, values.astype(np.uint16))
    elif suffix == "npy":
        np.save(tmp_path / name, values.astype(np.int64))
    else:
        indexed = Image.frombytes("P", (5, 4), values.tobytes())
        indexed.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
        indexed.save(tmp_path / name)
    found = opened(tmp_path, plane(image=name))
    assert (ids(found)[3, :4, :5] == values).all()


def test_an_oblique_plane_paints_the_nearest_voxels(tmp_path: Path) -> None:
    """Against a loop over the pixels; a voxel with pixels of two classes is unknown."""
    values = image(tmp_path, "p.png", (30, 25))
    origin, row, column = (410.0, -70.0, 10.0), (11.0, 1.5, 0.0), (0.0, 2.0, 2.5)
    found = opened(
        tmp_path,
        {
            "kind": "oblique", "name": "p", "image": "p.png",
            "origin_nm": origin, "row_nm": row, "column_nm": column,
        },
    )  # fmt: skip
    said: dict[tuple[int, int, int], set[int]] = {}
    for r, c in np.ndindex(values.shape):
        if values[r, c]:
            at = GRID.containing([o + r * a + c * b for o, a, b in zip(origin, row, column, strict=True)])
            said.setdefault(at, set()).add(int(values[r, c]))
    expected = np.zeros(SHAPE, np.uint8)
    for at, several in said.items():
        expected[at] = next(iter(several)) if len(several) == 1 else 0
    assert (ids(found) == expected).all()
    assert found.pieces[0].undefined == sum(len(each) > 1 for each in said.values()) > 0


def test_points_are_voxels_or_world_positions_with_names_or_values(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("z,y,x,class\n1,2,3,mem\n4,5,6,5\n7,7,7,0\n")
    at = GRID.centre((9, 10, 11))
    (tmp_path / "w.csv").write_text(f"class,x,y,z\ncyto,{at[2]},{at[1]},{at[0]}\n")
    found = opened(
        tmp_path,
        {"kind": "points", "name": "v", "table": "v.csv", "units": "voxels"},
        {"kind": "points", "name": "w", "table": "w.csv", "units": "nm"},
    )
    assert {tuple(v): int(ids(found)[tuple(v)]) for v in np.argwhere(known(found)).tolist()} == {
        (1, 2, 3): 2,
        (4, 5, 6): 5,
        (9, 10, 11): 1,
    }


def test_scribbles_paint_a_tube_around_their_lines(tmp_path: Path) -> None:
    """Against the distance of every voxel's centre from the segment."""
    a, b = np.array([2, 3, 4]), np.array([8, 12, 15])
    (tmp_path / "s.csv").write_text(
        "z,y,x,class,line\n"
        + "".join(f"{z},{y},{x},mem,1\n" for z, y, x in (a, b))
        + "11,15,19,syn,2\n0,0,19,cyto,3\n"
    )
    found = opened(
        tmp_path,
        {"kind": "scribbles", "name": "s", "lines": "s.csv", "units": "voxels", "radius_nm": 41.0},
    )
    size = np.array(GRID.voxel_size_nm)
    centres = np.stack(np.indices(SHAPE), axis=-1) * size
    along = (b - a) * size
    share = np.clip(((centres - a * size) @ along) / (along @ along), 0, 1)
    distance = np.linalg.norm(centres - a * size - share[..., None] * along, axis=-1)
    assert ((ids(found) == 2) == (distance <= 41.0)).all()
    assert ((ids(found) == 5) == (np.linalg.norm(centres - np.array([11, 15, 19]) * size, axis=-1) <= 41.0)).all()


def test_trees_are_scribbles_named_after_their_class(tmp_path: Path) -> None:
    nodes = np.array([GRID.centre(v) for v in ((1, 2, 3), (1, 2, 9), (5, 5, 5), (8, 0, 0))])
    skeletons = Skeletons(
        np.array([1, 2, 4], np.uint64),
        np.array([0, 0, 1, 2]),
        np.array([1, 2, 3, 4], np.uint64),
        nodes,
        np.array([[0, 1]]),
        ("mem", "syn", "cyto"),
    )
    write_nml(tmp_path / "s.nml", Tracing.of(skeletons, GRID.voxel_size_nm))
    found = opened(tmp_path, {"kind": "scribbles", "name": "s", "lines": "s.nml"})
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 2, 3:10], expected[5, 5, 5], expected[8, 0, 0] = 2, 5, 1
    assert (ids(found) == expected).all()


def test_blocks_lie_at_their_own_offset_or_where_they_are_put(tmp_path: Path) -> None:
    values = RNG.choice(np.array([0, 1, 2, 5], np.uint16), (3, 4, 5))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for name in ("own", "put"):
            file[name] = values
        file["own"].attrs["resolution"] = GRID.voxel_size_nm
        file["own"].attrs["offset"] = GRID.to_world((2, 3, 4))
    found = opened(
        tmp_path,
        {"kind": "block", "name": "own", "labels": "b.h5/own"},
        {"kind": "block", "name": "put", "labels": "b.h5/put", "start": [9, 12, 15]},
    )
    expected = np.zeros(SHAPE, np.uint16)
    expected[2:5, 3:7, 4:9] = expected[9:12, 12:16, 15:20] = values
    assert (ids(found) == expected).all()
    assert found.pieces[1].painted.box == Box((9, 12, 15), (3, 4, 5))


# ---- what values say --------------------------------------------------------------------------------------------


def test_a_class_that_nobody_looked_for_may_hide_in_others(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, 2, 0]], np.uint8)).save(tmp_path / "p.png")
    Image.fromarray(np.array([[1, 2, 0]], np.uint8)).save(tmp_path / "q.png")
    Image.fromarray(np.array([[5]], np.uint8)).save(tmp_path / "r.png")
    found = opened(tmp_path, plane(lacks=["syn"]), plane("q", at=5, lacks={"syn": ["mem"]}), plane("r", at=7))
    assert ids(found)[3, 0, :3].tolist() == [SETS + 0b101, SETS + 0b110, 0]
    assert ids(found)[5, 0, :3].tolist() == [1, SETS + 0b110, 0]
    assert known(found)[3, 0, :3].tolist() == [True, True, False]


def test_classes_that_are_not_learned_are_unknown_and_ids_are_those_of_the_job(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, 2, 3, 4]], np.uint8)).save(tmp_path / "p.png")
    labels = SparseLabels.from_dict(
        {"classes": {"a": 1, "b": [2, 3], "c": 4}, "pieces": [plane(image=str(tmp_path / "p.png"))]}
    )
    job = (SemanticClass(name="x", ids=(9, 2, 3)), SemanticClass(name="y", ids=(1,)))
    found = open_sparse(labels, RAW, job)
    assert ids(found)[3, 0, :4].tolist() == [1, 9, 9, 0]
    assert known(found)[3, 0, :4].tolist() == [True, True, True, False]


def test_pieces_that_contradict_each_other_are_refused_or_unknown(tmp_path: Path) -> None:
    a, b = np.full((16, 20), 1, np.uint8), np.full((12, 20), 1, np.uint8)
    a[7, 2:6], b[3, 4:9] = 2, 5
    Image.fromarray(a).save(tmp_path / "a.png")
    Image.fromarray(b).save(tmp_path / "b.png")
    both = [plane("a", at=3), plane("b", axis="y", at=7)]
    with pytest.raises(InputError, match=r"a and b contradict each other at 7 voxels: .*overlaps: unknown"):
        opened(tmp_path, *both)
    found = opened(tmp_path, *both, overlaps="unknown")
    assert found.conflicts == {("a", "b"): 7}
    assert np.flatnonzero(~known(found)[3, 7]).tolist() == list(range(2, 9))


# ---- what is wrong ---------------------------------------------------------------------------------------------


def problem(folder: Path, *pieces: dict[str, Any], **more: Any) -> str:
    with pytest.raises(InputError) as raised:
        opened(folder, *pieces, **more)
    return str(raised.value)


def written(folder: Path, values: Any, dtype: Any = np.uint8) -> Path:
    array = np.array(values, dtype)
    if array.dtype.kind == "f" or (array.ndim > 2 and array.shape[2] not in (2, 3, 4)):
        np.save(folder / "p.npy", array)
        return folder / "p.npy"
    Image.fromarray(array).save(folder / "p.png")
    return folder / "p.png"


SOFT = np.array([1] * 30 + [3, 4, 6, 7] + [2] * 30 + [5]).reshape(13, 5)
COLOURED = np.zeros((2, 2, 3))
COLOURED[0, 1] = (1, 2, 0)
SEEN_THROUGH = np.dstack([np.ones((2, 2, 3)), np.array([[255, 255], [255, 9]])])
BAD_IMAGES: list[tuple[Any, Any, str]] = [
    (
        [[1, 2, 7, 7, 5]],
        np.uint8,
        r"7 \(2\) \(voxels\) are of no class \(classes: 1 cyto, 2 mem, 5 syn; undef",
    ),
    (SOFT, np.uint8, "soft brush"),
    (np.ones((16, 21)), np.uint8, r"16 x 21 pixels \(y, x\), which makes it box \[3:4, 0:16, 0:21\]"),
    (np.ones((20, 16)), np.uint8, "transposed it would fit"),
    (COLOURED, np.uint8, "3 channels that differ in 1 pixels"),
    (SEEN_THROUGH, np.uint8, "partly transparent"),
    (np.ones((2, 3)), np.float32, "stores float32: labels are whole numbers"),
    (np.full((2, 3), 1.5), np.float64, "stores float64 with fractions"),
    (np.ones((2, 3, 5)), np.uint8, r"shape \(2, 3, 5\): a painted plane is one image"),
    (np.zeros((2, 3)), np.uint8, "nothing is painted: all 6 voxels are undefined"),
]


@pytest.mark.parametrize(("values", "dtype", "said"), BAD_IMAGES, ids=[said[:16] for _, _, said in BAD_IMAGES])
def test_what_is_wrong_with_an_image_is_said(tmp_path: Path, values: Any, dtype: Any, said: str) -> None:
    path = written(tmp_path, values, dtype)
    with pytest.raises(InputError, match=said):
        opened(tmp_path, plane(image=path.name))


def test_files_that_are_missing_or_change_values_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.uint8)).save(tmp_path / "p.jpg")
    (tmp_path / "p.txt").write_text("1")
    assert "gone.png does not exist" in problem(tmp_path, plane(image="gone.png"))
    assert "JPEG changes values" in problem(tmp_path, plane(image="p.jpg"))
    assert "no painted image" in problem(tmp_path, plane(image="p.txt"))


def test_another_voxel_size_is_refused(tmp_path: Path) -> None:
    image(tmp_path, "p.png", (4, 4))
    text = problem(tmp_path, plane(), voxel_size_nm=[40, 4, 4])
    assert "painted at a voxel size of (40.0, 4.0, 4.0) nm, and raw.h5 has (40.0, 8.0, 4.0) nm" in text
    assert opened(tmp_path, plane(), voxel_size_nm=[40, 8, 4]).pieces
    square: dict[str, Any] = {"imagej": True, "resolution": (125, 125), "metadata": {"unit": "um"}}
    tifffile.imwrite(tmp_path / "p.tif", np.ones((16, 4), np.uint8), **square)
    assert "states pixels of (8.0, 8.0) nm, and those of raw.h5 in this plane are (8.0, 4.0) nm" in problem(
        tmp_path, plane(image="p.tif")
    )
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["b"] = np.ones((2, 2, 2), np.uint8)
        file["b"].attrs["resolution"] = (8.0, 8.0, 4.0)
        file["c"] = np.ones((2, 2, 2), np.uint8)
        file["c"].attrs["resolution"] = GRID.voxel_size_nm
        file["c"].attrs["offset"] = (405.0, -80.0, 4.0)
    assert "resample it to the grid of the raw" in problem(
        tmp_path, {"kind": "block", "name": "b", "labels": "b.h5/b"}
    )
    assert "between voxels" in problem(tmp_path, {"kind": "block", "name": "c", "labels": "b.h5/c"})


BAD_POINTS = [
    ("z,y,x,class\n1,2,nan,mem\n", "1 of 1 points have no finite z, y, x; the first is row 2"),
    ("z,y,x,class\n1,2,3,mem\n1,,3,mem\n", r"1 of 2 points .* the first is row 3 \(1, nothing, 3\)"),
    ("z,y,x,class\n1,2,20,mem\n", "1 of 1 points lie outside raw.h5"),
    ("z,y,x,class\n1,2,3,memb\n", "memb; did you mean 'mem'"),
    ("z,y,x,class\n1,2,3,8\n", r"8 \(1\)"),
    ("z,y,x,klass\n1,2,3,mem\n", "no column 'class'; did you mean 'klass'"),
    ("z,y,x,class\n", "has no rows"),
    ("z,y,x,class\n1,2,3\n", "row 2 has 3 cells, and the header 4"),
    ("", "no column 'z'"),
]


@pytest.mark.parametrize(("text", "said"), BAD_POINTS, ids=[said[:20] for _, said in BAD_POINTS])
def test_what_is_wrong_with_points_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        opened(tmp_path, {"kind": "points", "name": "v", "table": "v.csv", "units": "voxels"})


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, 9]], np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[1, 0]], np.uint8)).save(tmp_path / "b.png")
    text = problem(
        tmp_path,
        plane("a"),
        plane("b", at=40),
        plane("b", at=5),
        plane("c", image="gone.png", lacks=["synn"]),
        voxel_size_nm=[1, 1, 1],
    )
    assert text.startswith(f"{tmp_path}/labels.yaml has 6 problems:")
    for said in (
        "2 pieces are called 'b'",
        "a: the values 9 (1)",
        "b: ",
        "c: lacks: 'synn' is no class; did you mean 'syn'? (classes: cyto, mem, syn)",
        "c: ",
        "gone.png does not exist",
        "painted at a voxel size",
    ):
        assert said in text


def test_a_class_without_a_voxel_is_refused_unless_nobody_looked_for_it(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, 2]], np.uint8)).save(tmp_path / "p.png")
    assert "class 'syn' has no voxel in any piece" in problem(tmp_path, plane())
    assert opened(tmp_path, plane(lacks=["syn"])).pieces
    text = problem(tmp_path, plane(lacks=["mem", "syn"]))
    assert "'mem' is painted at 1 voxels, and lacks says that nobody looked for it" in text


def test_undefined_is_no_class_and_a_name_has_one_meaning(tmp_path: Path) -> None:
    image(tmp_path, "p.png", (4, 4))
    assert "value 2 is undefined and 'mem'" in problem(tmp_path, plane(undefined=[0, 2]))
    text = problem(tmp_path, plane(), classes={"cyto": 1, "mem": 7, "syn": 5})
    assert "'mem' is 7 here and 2 in the objective" in text
    text = problem(tmp_path, plane(), classes={"a": [1, 2], "b": 5})
    assert "the values of 'a' are of several classes of the objective" in text
    assert "value 1 stands for 'a' and 'b'" in problem(tmp_path, plane(), classes={"a": 1, "b": 1})
