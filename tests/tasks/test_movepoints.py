"""Moving points: to the bit where voxels move by whole voxels, all else about them kept, none lost unsaid."""

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.planar import IDENTITY, Affine, Field, Pieces, Shift
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.stackmap import Frame, StackMap
from emloom.geometry.tracings import Marks, Tracing, differences
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import read_annotations, write_annotations
from emloom.io.stackmaps import write_stackmap
from emloom.io.tracings import read_tracings, write_tracing
from emloom.tasks.movepoints import MovePointsJob, move_points, moved_points

GRID = Grid((40.0, 4.0, 4.6), (80.0, -12.0, 46.0))
SOURCE = Frame((6, 40, 50), GRID)
TARGET = Frame((7, 60, 64), Grid(GRID.voxel_size_nm, (40.0, -40.0, 0.0)))
HOMES = (0, 1, None, 3, 2, 4, None)
PARTS = np.ones((40, 50), np.uint8)
PARTS[:, 22:24], PARTS[:, 24:] = 0, 2
BENT = Field(np.random.default_rng(0).normal(0, 0.5, (2, 6, 7)).astype(np.float32), (8.0, 8.0))
TURN = Affine(((1.0, 0.05, 8.0), (-0.05, 1.0, 9.0)))
MIXED = StackMap.of(
    SOURCE, TARGET,
    [Shift(5, 6), TURN, IDENTITY, Pieces(PARTS, (Shift(6.0, 7.0), TURN)), BENT, Shift(2.5, 3), IDENTITY], HOMES,
)  # fmt: skip

sizes = st.floats(0.5, 100).map(lambda v: float(f"{v:.4g}"))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.tuples(sizes, sizes, sizes), unit=st.booleans())
def test_half_voxels_that_move_by_whole_ones_come_back_to_the_bit(data, size, unit):
    whole = st.tuples(*[st.integers(-5000, 5000)] * 3)
    offsets = [tuple(k * s for k, s in zip(data.draw(whole), size, strict=True)) for _ in range(2)]
    source, target = (Frame((5, 99, 99), Grid(size, offset)) for offset in offsets)
    steps = st.tuples(st.integers(-300, 300), st.integers(-300, 300))
    shifts = data.draw(st.lists(steps, min_size=5, max_size=5))
    homes = data.draw(st.permutations(range(5)))
    there = StackMap.of(source, target, [Shift(y, x) for y, x in shifts], homes)
    half = st.integers(-4000, 4000).map(lambda k: k / 2)
    vox = np.array(data.draw(st.lists(st.tuples(st.integers(0, 9).map(lambda k: k / 2), half, half), max_size=20)))
    vox = vox.reshape(-1, 3)
    guest = np.array([homes.index(int(z)) for z in vox[:, 0]], int)
    expected = np.column_stack([vox[:, 0] % 1 + guest, vox[:, 1:] + np.array(shifts)[guest]])
    if unit:
        free = Grid(size, (0.0, 0.0, 0.0))
        there = StackMap.of(Frame(source.shape, free), Frame(target.shape, free), there.layers[0].maps, homes)
        moved = moved_points(there, vox, size)
        assert np.array_equal(moved, expected)
        assert np.array_equal(moved_points(there.inverse(), moved, size), vox)
        return
    points = np.array([source.grid.to_world(v) for v in vox.tolist()]).reshape(-1, 3)
    moved = moved_points(there, points)
    assert np.array_equal(moved, np.array([target.grid.to_world(v) for v in expected.tolist()]).reshape(-1, 3))
    assert np.array_equal(moved_points(there.inverse(), moved), points)
    both = there.then(there.inverse())
    assert np.array_equal(moved_points(both, points), points), "composition equals sequence"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_points_are_those_of_the_map(seed):
    points = np.random.default_rng(seed).uniform([80, -12, 46], [320, 148, 276], (30, 3))
    moved = moved_points(MIXED, points)
    assert np.array_equal(moved, MIXED.moved(points), equal_nan=True)
    micrometres = moved_points(MIXED, points / 1000, (1000.0, 1000.0, 1000.0))
    assert np.array_equal(np.isnan(moved), np.isnan(micrometres))
    assert np.nanmax(np.abs(micrometres * 1000 - moved), initial=0) < 1e-9


# ---- tables ---------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_stackmap(tmp_path / "fixed" / "map", MIXED)
    return tmp_path


def job(here: Path, source: str, output: str, **more: object) -> MovePointsJob:
    given = {"source": str(here / source), "by": str(here / "fixed"), "output": str(here / output)}
    return MovePointsJob.from_dict(given | more)


TEXT = (
    'id,"what, and why",x,y,z,radius\n'
    'a1,"a ""quoted"" word",46,-12,80,1.50\n'  # voxel 0, 0, 0
    "a2,,50.6,-8.0,120,007\n"
    "a3,gap,151.0,0,200,\n"  # column 22.8 of section 3
    "a4,section 5 is not shown,60,0,290,\n"
    "a5,above,60,0,400,\n"
    "a1,twice,64.4,0,240.0,1e3\n"
)  # fmt: skip


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_table_keeps_everything_but_its_positions(here):
    (here / "in.csv").write_text(TEXT)
    told = move_points(job(here, "in.csv", "out.csv"))
    assert (told.total, dict(told.lost)) == (
        6, {"in a gap of its section": 1, "its section is not shown": 1, "outside the stack": 1},
    )  # fmt: skip
    before, after = rows(here / "in.csv"), rows(here / "out.csv")
    assert after[0] == before[0]
    kept = [before[1], before[2], before[6]]
    assert [row[:2] + row[5:] for row in after[1:]] == [row[:2] + row[5:] for row in kept]
    # From voxel 0 by (0, 5, 6), from an offset of (80, -12, 46) to one of (40, -40, 0) nm.
    assert after[1][2:5] == [repr(6 * 4.6), "-20", "40"]
    lost = rows(here / "out.lost.csv")
    assert lost[0] == ["row", *before[0], "reason"]
    assert [row[:-1] for row in lost[1:]] == [["3", *before[3]], ["4", *before[4]], ["5", *before[5]]]
    back = move_points(job(here, "out.csv", "back.csv", direction="invert"))
    assert [float(cell) for cell in rows(here / "back.csv")[1][2:5]] == [46, -12, 80]
    assert not back.lost
    assert not (here / "back.lost.csv").exists()


def test_rows_that_stay_rows(here):
    (here / "in.csv").write_text(TEXT)
    move_points(job(here, "in.csv", "out.csv", lost="keep"))
    after = rows(here / "out.csv")
    assert len(after) == 7
    assert after[3][2:5] == ["", "", ""]
    assert len(rows(here / "out.lost.csv")) == 4


def test_nothing_is_replaced_unasked(here):
    (here / "in.csv").write_text(TEXT)
    move_points(job(here, "in.csv", "out.csv"))
    (here / "out.csv").unlink()
    with pytest.raises(InputError, match=r"out\.lost\.csv already exists"):
        move_points(job(here, "in.csv", "out.csv"))
    (here / "in.csv").write_text("".join(TEXT.splitlines(keepends=True)[:3]))
    move_points(job(here, "in.csv", "out.csv"), overwrite=True)
    assert not (here / "out.lost.csv").exists(), "what an earlier run lost"
    with pytest.raises(InputError, match=r"out\.csv already exists"):
        move_points(job(here, "in.csv", "out.csv"))


def test_units_of_tables(here):
    voxels = np.array([[0, 3, 4], [1, 10, 20], [2, 7, 7]])
    free = Grid(GRID.voxel_size_nm)
    shifts = [Shift(5, 6), Shift(-2, 1), Shift(0, 0)]
    write_stackmap(here / "fixed" / "map", StackMap.of(Frame((3, 40, 50), free), Frame((3, 40, 50), free), shifts))
    (here / "in.csv").write_text("z,y,x\n" + "\n".join(",".join(map(str, v)) for v in voxels.tolist()))
    move_points(job(here, "in.csv", "out.csv", unit_nm=(40.0, 4.0, 4.6)))
    assert rows(here / "out.csv")[1:] == [["0", "8", "10"], ["1", "8", "21"], ["2", "7", "7"]]


def test_parquet_keeps_types_and_metadata(here):
    table = pa.table(
        {
            "id": pa.array([2**64 - 1, 5, 7], pa.uint64()),
            "z": pa.array([90, 290, 130], pa.int32()),
            "y": [0.0, 1.0, 2.0],
            "word": ["a", "b", "c"],
            "x": pa.array([60.0, 60.0, 60.0], pa.float32()),
        }
    ).replace_schema_metadata({"why": "because"})
    pq.write_table(table, here / "in.parquet")
    told = move_points(job(here, "in.parquet", "out.parquet"))
    found = pq.read_table(here / "out.parquet")
    assert found.column_names == table.column_names
    assert found.schema.metadata == {b"why": b"because"}
    assert found["id"].to_pylist() == [2**64 - 1, 7]
    assert found["word"].to_pylist() == ["a", "c"]
    expected = MIXED.moved([[90, 0, 60], [130, 2, 60]])
    assert np.array_equal(np.stack([found[a].to_numpy() for a in "zyx"], 1), expected)
    assert rows(here / "out.lost.csv")[1] == ["2", "5", "290", "1.0", "b", "60.0", "its section is not shown"]
    assert told.lost_path == str(here / "out.lost.csv")
    move_points(job(here, "in.parquet", "kept.parquet", lost="keep"))
    assert np.isnan(pq.read_table(here / "kept.parquet")["x"].to_numpy()).tolist() == [False, True, False]


# ---- tracings and sites ---------------------------------------------------------------------------------------


def tracing() -> Tracing:
    """Two trees; the second node of the first, and all of the second, have no place."""
    positions = GRID.offset_nm + np.array([[0, 3, 4], [3, 5, 22.5], [1, 8, 8], [5, 1, 1]]) * GRID.voxel_size_nm
    whole = Skeletons(
        np.array([7, 9], np.uint64), np.array([0, 0, 0, 1]), np.array([1, 2, 3, 4], np.uint64), positions,
        np.array([[0, 1], [1, 2], [0, 2]]), ("axon", "lost"),
    )  # fmt: skip
    made = Tracing.of(whole, GRID.voxel_size_nm)
    nodes = made.nodes.replaced("radius", ["1.5", "2", "2.50", "3"])
    return Tracing(
        whole, GRID.voxel_size_nm, nodes, made.trees, made.edges,
        Marks.of([2, 1], content=["a spine", "torn"]), Marks.of([0], time=["1"]), made.groups, made.parameters,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["axons.nml", "axons.zip"])
def test_a_tracing_keeps_its_attributes(here, name):
    write_tracing(here / name, tracing())
    told = move_points(job(here, name, f"out-{name}"))
    (found,) = read_tracings(here / f"out-{name}").values()
    bare = found.skeletons
    assert (bare.names, bare.node_ids.tolist(), bare.edges.tolist()) == (("axon",), [1, 3], [[0, 1]])
    expected = MIXED.moved(tracing().skeletons.positions_nm[[0, 2]])
    assert np.abs(bare.positions_nm - expected).max() < 1e-6
    assert found.nodes["radius"].tolist() == ["1.5", "2.50"]
    assert found.comments.columns["content"].tolist() == ["a spine"]
    assert found.comments.rows.tolist() == [1]
    assert found.branchpoints.rows.tolist() == [0]
    assert told.total == 4
    lost = rows(here / f"out-{Path(name).stem}.lost.csv")
    assert [row[1:3] for row in lost[1:]] == [["7", "2"], ["9", "4"]]


def test_an_identity_changes_nothing_of_a_tracing(here):
    write_stackmap(here / "fixed" / "map", StackMap.identity(SOURCE))
    write_tracing(here / "in.nml", tracing())
    move_points(job(here, "in.nml", "out.nml"))
    (one,), (other,) = (read_tracings(here / name).values() for name in ("in.nml", "out.nml"))
    assert not differences(one, other)


@pytest.mark.parametrize("name", ["wkskel/01_ref.nml", "wkskel/CC_err.nml"])
def test_real_tracings_come_back_to_the_bit(here, real_data, name):
    source = real_data / "skeletons" / name
    (before,) = read_tracings(source).values()
    grid = Grid(before.voxel_size_nm)
    shape = np.ceil(before.skeletons.positions_nm.max(0) / grid.voxel_size_nm).astype(int) + 1
    frame = Frame(tuple(shape.tolist()), grid)
    shifts = [Shift(z % 7 - 3, 17 - z % 5) for z in range(frame.shape[0])]
    write_stackmap(here / "fixed" / "map", StackMap.of(frame, frame, shifts))
    move_points(job(here, str(source), "there.nml"))
    told = move_points(job(here, "there.nml", "back.nml", direction="invert"))
    (there,), (after,) = (read_tracings(here / file).values() for file in ("there.nml", "back.nml"))
    assert (told.total, dict(told.lost)) == (len(before.skeletons.node_ids), {})
    assert differences(before, there) == ("positions",)
    assert not differences(before, after)


def test_swc_files_and_folders(here):
    whole = tracing()
    tree = replace(whole.skeletons, edges=np.array([[0, 1], [1, 2]]))
    whole = replace(whole, skeletons=tree, edges=whole.edges.take([0, 1]))
    write_tracing(here / "trees", whole, unit_nm=1000, radius_nm=10)
    move_points(job(here, "trees", "moved", unit_nm=1000))
    assert [path.name for path in (here / "moved").iterdir()] == ["7.swc"]
    assert len(rows(here / "moved.lost.csv")) == 3
    found = read_tracings(here / "moved", unit_nm=1000)
    positions = np.concatenate([one.skeletons.positions_nm for one in found.values()])
    expected = MIXED.moved(whole.skeletons.positions_nm[[0, 2]])
    assert np.abs(positions[np.argsort(positions[:, 0])] - expected[np.argsort(expected[:, 0])]).max() < 1e-6


def test_cremi_sites_keep_partners_and_comments(here):
    at = GRID.offset_nm + np.array([[0, 3, 4], [0, 3, 6], [5, 1, 1], [1, 8, 8]]) * GRID.voxel_size_nm
    ids = np.array([10, 11, 12, 13], np.uint64)
    pairs = np.array([[10, 11], [10, 12]], np.uint64)
    sites = Annotations(ids, (PRE, POST, POST, POST), at, pairs, np.array([11, 12], np.uint64), ("one", "two"))
    write_annotations(here / "in.h5", sites)
    told = move_points(job(here, "in.h5", "out.h5"))
    found = read_annotations(here / "out.h5")
    assert found.ids.tolist() == [10, 11, 13]
    assert found.types == (PRE, POST, POST)
    assert found.partners.tolist() == [[10, 11]]
    assert (found.comment_ids.tolist(), found.comments) == ([11], ("one",))
    assert np.abs(found.locations_nm - MIXED.moved(at[[0, 1, 3]])).max() < 1e-9
    assert rows(here / "out.lost.csv")[1][:2] == ["12", POST]
    assert "1 lost: its section is not shown" in told.to_text()
    with h5py.File(here / "out.h5") as file:
        assert list(file) == ["annotations"]


# ---- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "more", "problem"),
    [
        ("in.csv", "z,y,x\n1,2\n", {}, "row 1 has 2 cells"),
        ("in.csv", "z,y\n1,2\n", {}, "0 columns 'x'"),
        ("in.csv", "z,y,x,x\n1,2,3,4\n", {}, "2 columns 'x'"),
        ("in.csv", "z,y,x\n1,2,nan\n", {}, "'nan'"),
        ("in.csv", "z,y,x\n1,2,here\n", {}, "'here'"),
        ("in.csv", "", {}, "is empty"),
        ("in.csv", "\xff\xfe", {}, "no CSV table|columns 'z'"),
        ("in.csv", "z,y,x\n-9e9,0,0\n", {}, "none of 1 points"),
        ("in.csv", "z,y,x\n1,2,3\n", {"by": "nowhere"}, "does not exist"),
        ("in.swc", "1 1 0 0 0 1 -1\n", {}, "does not say its unit"),
        ("in.nml", "<things></things>", {"unit_nm": 4.0}, "states its own scale"),
    ],
)
def test_bad_input_is_named(here, name, text, more, problem):
    (here / name).write_text(text)
    with pytest.raises(InputError, match=problem):
        move_points(job(here, name, f"out.{name[-3:]}").model_copy(update=more))
    assert not list(here.glob("out*"))


@pytest.mark.parametrize(
    ("source", "output", "more", "problem"),
    [
        ("in.csv", "out.nml", {}, "moved, not converted"),
        ("in.zarr", "out.zarr", {}, "holds no points"),
        ("in.nml", "out.nml", {"lost": "keep"}, "only tables can keep"),
        ("in.csv", "out.csv", {"unit_nm": 0.0}, "positive length"),
    ],
)
def test_jobs_that_make_no_sense(here, source, output, more, problem):
    with pytest.raises(InputError, match=problem):
        job(here, source, output, **more)


def test_missing_files(here):
    for name, other in (("in.csv", "out.csv"), ("folder", "out"), ("in.parquet", "out.parquet")):
        with pytest.raises(InputError, match="does not exist"):
            move_points(job(here, name, other))
    (here / "in.csv").write_text(TEXT)
    with pytest.raises(InputError, match="two formats"):
        move_points(job(here, "in.csv", "out.parquet"))
