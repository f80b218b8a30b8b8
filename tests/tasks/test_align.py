"""Aligning a stack: what was planted is found, block by block, whatever interrupts it, and bad input is told."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.io.volume import VolumeInfo
from emloom.run.cluster import executor_of
from emloom.run.executor import Serial
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.qcmask import open_usable
from emloom.tasks.resume import result_status, retry
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import AffineDamage, BadSections, DamageSpec, ElasticDamage, ShiftDamage
from emloom.testing.displacement import displacement_error
from emloom.testing.phantom import Phantom, PhantomSpec
from tests.marks import first_fast

DEPTH, SIDE, MARGIN = 20, 288, 24
TISSUE = PhantomSpec(shape=(DEPTH, SIDE, SIDE), voxel_size_nm=(24.0, 8.0, 8.0), seed=2, noise=6.0)
BAD = BadSections(fraction=0.1, kinds=("blank", "black"))
MOVED = ShiftDamage(jitter_px=3.0, walk_px=1.5)
PLANTED = {
    "shift": DamageSpec(seed=4, margin_px=MARGIN, bad=BAD, shift=MOVED),
    "affine": DamageSpec(
        seed=4, margin_px=MARGIN, bad=BAD, shift=MOVED, affine=AffineDamage(turn_deg=0.7, scale=0.01)
    ),
    "elastic": DamageSpec(
        seed=4, margin_px=MARGIN, bad=BAD, shift=MOVED, elastic=ElasticDamage(bend_px=3.0, cell_px=90.0)
    ),
}
MODELS = {
    "shift": {"kind": "shift", "subpixel": True},
    "affine": {"kind": "affine"},
    "elastic": {"kind": "elastic", "spacing_nm": 320, "rounds": 4},
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Damaged]:
    """Damaged stacks, and one with the same bad sections whose sections lie where they lay."""
    folder = tmp_path_factory.mktemp("planted")
    phantom = Phantom(TISSUE)
    stacks = {name: Damaged(phantom, spec) for name, spec in PLANTED.items()}
    stacks["still"] = Damaged(phantom, DamageSpec(seed=4, margin_px=MARGIN, bad=BAD))
    for name, damaged in stacks.items():
        write_damaged(damaged, folder / name)
    stacks["folder"] = folder  # type: ignore[assignment]
    return stacks


def job(raw: str | Path, output: Path, **more: object) -> AlignJob:
    return AlignJob.from_dict({"raw": str(raw), "output": str(output), "cell_shape_vox": (16, 128, 128), **more})


def table(folder: Path) -> dict[str, list[str]]:
    with (folder / "sections.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return {name: [row[name] for row in rows] for name in rows[0]}


def values(path: Path) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


@pytest.mark.parametrize("model", first_fast(["shift", "affine"]))
def test_what_was_planted_is_found(planted: dict, tmp_path: Path, model: str) -> None:
    damaged, still = planted[model], planted["still"]
    for name in (model, "still"):
        align(job(planted["folder"] / name / "raw.zarr", tmp_path / name, model=MODELS[model]))
    found, own = read_stackmap(tmp_path / model), read_stackmap(tmp_path / "still")
    # What tissue does from section to section is found as well, in both: the difference is what was planted.
    truth = damaged.truth.then(still.truth.inverse()).then(own)
    good = [z for z in range(DEPTH) if z not in damaged.bad]
    error = displacement_error(found, truth, good, gauge="shift" if model == "shift" else "affine")
    assert error.median("neighbours") <= 0.3
    # Small pictures say little of how much a section was stretched.
    assert error.p95("neighbours") <= (1.0 if model == "shift" else 1.5)
    bad = [z for z, flag in enumerate(table(tmp_path / model)["bad"]) if flag == "1"]
    assert bad == sorted(damaged.bad)


def test_where_sections_do_not_reach_they_are_mirrored_and_that_is_said(planted: dict, tmp_path: Path) -> None:
    raw = planted["folder"] / "shift" / "raw.zarr"
    align(job(raw, tmp_path / "mirrored"))
    align(job(raw, tmp_path / "black", outside=0))
    mirrored, black = values(tmp_path / "mirrored" / "raw.zarr"), values(tmp_path / "black" / "raw.zarr")
    beyond = values(tmp_path / "mirrored" / "outside.zarr")
    np.testing.assert_array_equal(beyond, values(tmp_path / "black" / "outside.zarr"))
    stackmap = read_stackmap(tmp_path / "mirrored")
    depth, (height, width) = len(beyond), values(raw).shape[1:]
    for z in range(depth):
        dy, dx = (round(float(v)) for v in stackmap.map(z)(np.zeros((1, 2)))[0])
        reached = np.zeros(beyond.shape[1:], bool)
        reached[dy : dy + height, dx : dx + width] = True
        np.testing.assert_array_equal(beyond[z] == 0, reached)
        edges = [(dy, beyond.shape[1] - dy - height), (dx, beyond.shape[2] - dx - width)]
        home = values(raw)[stackmap.home(z)]
        np.testing.assert_array_equal(mirrored[z], np.pad(home, edges, mode="symmetric"))
        np.testing.assert_array_equal(black[z], np.pad(home, edges))
    usable = open_usable(str(tmp_path / "mirrored"))
    np.testing.assert_array_equal(usable.read(usable.info.box), beyond == 0)


def test_what_was_bent_is_straightened(planted: dict, tmp_path: Path) -> None:
    damaged, left = planted["elastic"], {}
    good = [z for z in range(DEPTH) if z not in damaged.bad]
    for model in ("shift", "elastic"):
        align(job(planted["folder"] / "elastic" / "raw.zarr", tmp_path / model, model=MODELS[model]))
        found = displacement_error(read_stackmap(tmp_path / model), damaged.truth, good)
        left[model] = found.median("neighbours")
    assert left["elastic"] < 0.4 * left["shift"]
    assert max(float(bend) for bend in table(tmp_path / "elastic")["bend_px"]) > 2


def test_a_bad_section_moves_no_other(planted: dict, tmp_path: Path) -> None:
    whole, without = tmp_path / "whole", tmp_path / "without"
    raw = planted["folder"] / "shift" / "raw.zarr"
    align(job(raw, whole))
    array = values(raw)
    worse = sorted(planted["shift"].bad)[0]
    array[worse] = np.roll(array[worse + 1], (40, -60), (0, 1))[::-1]  # like another, turned over, elsewhere
    info = open_volume(raw).info
    create_volume(tmp_path / "worse.zarr", info).write(info.box, array)
    align(job(tmp_path / "worse.zarr", without))
    one, other = (np.array([table(f)["shift_y"], table(f)["shift_x"]], float) for f in (whole, without))
    good = [z for z in range(DEPTH) if z not in planted["shift"].bad]
    assert np.abs(one - other)[:, good].max() <= 1


def test_blocks_and_workers_change_no_bit(planted: dict, tmp_path: Path) -> None:
    part = values(planted["folder"] / "elastic" / "raw.zarr")[:, 60:220, 60:220]
    raw = stored(tmp_path / "raw.zarr", part, (24.0, 8.0, 8.0))  # sections of two blocks
    model = {"kind": "elastic", "rounds": 2}
    align(job(raw, tmp_path / "one", model=model))
    with executor_of(2, None, None) as executor:
        align(job(raw, tmp_path / "two", model=model, cell_shape_vox=(5, 64, 100)), executor)
    assert np.array_equal(values(tmp_path / "one" / "raw.zarr"), values(tmp_path / "two" / "raw.zarr"))
    assert table(tmp_path / "one") == table(tmp_path / "two")


def test_it_goes_on_where_it_was_interrupted(planted: dict, tmp_path: Path) -> None:
    raw = planted["folder"] / "shift" / "raw.zarr"
    asked = job(raw, tmp_path / "cut")
    steps: list[tuple[str, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        steps.append((stage, done))
        if stage == "render" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(asked, on_block=stop)
    assert not (tmp_path / "cut").exists()
    again: list[tuple[str, int]] = []
    align(asked, on_block=lambda stage, done, total: again.append((stage, done)))
    # What was done is not done again: the first word of a stage says how much of it is there.
    assert ("render", 1) not in again
    align(job(raw, tmp_path / "at_once"))
    assert np.array_equal(values(tmp_path / "cut" / "raw.zarr"), values(tmp_path / "at_once" / "raw.zarr"))
    found = result_status(tmp_path / "cut", look=True, executor=Serial())
    assert found.is_well
    assert found.finished
    retry(tmp_path / "cut")


def test_whole_shifts_lose_nothing(planted: dict, tmp_path: Path) -> None:
    folder = planted["folder"] / "shift"
    align(job(folder / "raw.zarr", tmp_path / "aligned"))
    for direction, source, output in (
        ("apply", folder / "labels.zarr", tmp_path / "there.zarr"),
        ("invert", tmp_path / "there.zarr" / "labels", tmp_path / "back.zarr"),
    ):
        words = {"source": str(source), "by": str(tmp_path / "aligned"), "output": str(output)}
        move_volume(MoveJob.from_dict(words | {"direction": direction, "what": "labels"}))
    assert np.array_equal(values(tmp_path / "back.zarr" / "labels"), values(folder / "labels.zarr"))


def test_a_table_is_carried_out_to_the_pixel(planted: dict, tmp_path: Path) -> None:
    raw = planted["folder"] / "shift" / "raw.zarr"
    steps = np.random.default_rng(0).uniform(-9, 9, (DEPTH, 2)).round(2)
    steps[0] = 0
    path = tmp_path / "translations.csv"
    np.savetxt(path, steps[:, ::-1], delimiter=",", fmt="%.2f", header="dx,dy", comments="")
    align(job(raw, tmp_path / "aligned", model={"kind": "table", "path": str(path)}, outside="symmetric"))
    array, made = values(raw), values(tmp_path / "aligned" / "raw.zarr")
    s = np.cumsum(steps, axis=0)
    p = s[DEPTH // 2] - s
    r = np.trunc(p + np.copysign(0.5, p)).astype(int)
    ww = np.ceil([p.max(0), -p.min(0)]).astype(int)
    padded = np.pad(array, ((0, 0), (100, 100), (100, 100)), mode="symmetric")
    rows, columns = array.shape[1] + ww[:, 0].sum(), array.shape[2] + ww[:, 1].sum()
    assert made.shape == (DEPTH, rows, columns)
    for z in range(DEPTH):
        y, x = 100 + r[z] - ww[0]
        assert np.array_equal(made[z], padded[z, y : y + rows, x : x + columns])


def test_slow_drift_stays_where_that_is_asked_for(planted: dict, tmp_path: Path) -> None:
    raw = planted["folder"] / "shift" / "raw.zarr"
    array = values(raw)
    info = open_volume(raw).info
    slow = np.stack([np.roll(section, 2 * z, 1) for z, section in enumerate(array)])
    create_volume(tmp_path / "slow.zarr", info).write(info.box, slow)
    for name, links in (("follow", {}), ("hold", {"drift_sections": 8})):
        align(job(tmp_path / "slow.zarr", tmp_path / name, links=links))
    follow, hold = (np.array(table(tmp_path / name)["shift_x"], float) for name in ("follow", "hold"))
    assert abs(follow[-1] - follow[0]) > 20
    assert abs(hold[-1] - hold[0]) < 12


def test_sections_that_qc_avoids_are_not_looked_at(planted: dict, tmp_path: Path) -> None:
    raw = planted["folder"] / "shift" / "raw.zarr"
    info = open_volume(raw).info
    avoid = np.zeros(info.shape, np.uint8)
    avoid[7] = 5
    create_volume(tmp_path / "avoid.zarr", info.with_(kind="mask")).write(info.box, avoid)
    align(job(raw, tmp_path / "aligned", qc=str(tmp_path / "avoid.zarr")))
    found = table(tmp_path / "aligned")
    assert found["bad"][7] == "1"
    assert found["links"][7] == "0"
    moved = np.array(found["shift_y"], float)
    assert min(moved[6], moved[8]) - 1 <= moved[7] <= max(moved[6], moved[8]) + 1


def test_the_canvas_may_be_kept(planted: dict, tmp_path: Path) -> None:
    raw = planted["folder"] / "shift" / "raw.zarr"
    align(job(raw, tmp_path / "kept", canvas="keep"))
    assert open_volume(tmp_path / "kept" / "raw.zarr").info.grid == open_volume(raw).info.grid
    assert open_volume(tmp_path / "kept" / "raw.zarr").info.shape == open_volume(raw).info.shape
    summary = json.loads((tmp_path / "kept" / "align.json").read_text())
    assert summary["model"] == "shift"
    assert summary["n_bad"] == 2


# ---- bad input ------------------------------------------------------------------------------------------------


def stored(path: Path, array: np.ndarray, voxel: tuple[float, float, float] = (40.0, 4.0, 4.0)) -> Path:
    info = VolumeInfo(array.shape, array.dtype, Grid(voxel), kind="raw", chunks=(1, 64, 64))
    create_volume(path, info).write(info.box, array)
    return path


NOISE = np.random.default_rng(0).integers(0, 255, (4, 96, 96), np.uint8)


@pytest.mark.parametrize(
    ("array", "voxel", "more", "says"),
    [
        (NOISE[:1], (40, 4, 4), {}, "nothing to align it with"),
        (NOISE, (40, 4, 8), {}, "square pixels"),
        (NOISE, (40, 4, 4), {}, "no two sections of .* resemble each other"),
        (np.full((4, 96, 96), 9, np.uint8), (40, 4, 4), {}, "no two sections of .* resemble each other"),
        (NOISE, (40, 4, 4), {"outside": 300}, "no value 300"),
        (NOISE, (40, 4, 4), {"links": {"reference": 4}}, "reference section 4 does not exist"),
        (NOISE, (40, 4, 4), {"links": {"lags": [2]}}, "must hold 1"),
        (NOISE, (40, 4, 4), {"links": {"lags": [1, 17]}}, "tissue has changed"),
        (NOISE, (40, 4, 4), {"model": {"kind": "rigid"}}, "'shift', 'affine', 'elastic', 'table'"),
    ],
)
def test_what_cannot_be_aligned_is_told(
    tmp_path: Path, array: np.ndarray, voxel: tuple[float, float, float], more: dict, says: str
) -> None:
    raw = stored(tmp_path / "raw.zarr", array, voxel)
    with pytest.raises(InputError, match=says):
        align(job(raw, tmp_path / "aligned", **more))
    assert not (tmp_path / "aligned").exists()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("0,0\n1,1\n", "2 rows and the stack 4 sections"),
        ("0,0\n1,1\n1,1\n500,1\n", "500"),
        ("0,0\n1,1\n1,x\n1,1\n", "x"),
        ("1,0\n1,1\n1,1\n1,1\n", "first row is 1, 0"),
    ],
)
def test_a_table_that_does_not_fit_is_told(tmp_path: Path, rows: str, says: str) -> None:
    raw = stored(tmp_path / "raw.zarr", NOISE)
    (tmp_path / "table.csv").write_text(rows)
    with pytest.raises(InputError, match=says):
        align(job(raw, tmp_path / "aligned", model={"kind": "table", "path": str(tmp_path / "table.csv")}))


def test_a_stack_that_falls_apart_is_told_and_left_so(planted: dict, tmp_path: Path) -> None:
    first = values(planted["folder"] / "still" / "raw.zarr")[:6]
    second = Phantom(PhantomSpec.sections((6, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), seed=77)).raw
    raw = stored(tmp_path / "raw.zarr", np.concatenate([first, second.read(second.info.box)]))
    align(job(raw, tmp_path / "aligned"))
    summary = json.loads((tmp_path / "aligned" / "align.json").read_text())
    assert any("falls apart between sections 5 and 6" in note for note in summary["notes"])
