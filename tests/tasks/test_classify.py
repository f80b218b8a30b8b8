"""Probabilities become labels the same way at once and in any blocks, and bad input is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray
from typer.testing import CliRunner

from emloom.cli.main import app, main
from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.model import ModelSpec, build, save
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.nn.unet import UNetSpec
from emloom.ops.decide import UNDECIDED, decide
from emloom.ops.enclosure import EnclosureRule, enclosure_faces, resolve
from emloom.run.blockjournal import name_of
from emloom.run.runner import BlocksFailedError
from emloom.tasks import classify as classify_module
from emloom.tasks import classifyreport
from emloom.tasks.classcounts import TILE_VOX
from emloom.tasks.classify import ClassifyJob, classify, classify_array
from emloom.tasks.classnames import class_names, class_values, write_names
from emloom.tasks.resume import retry
from emloom.view.figures import Figure

SHAPE = (11, 30, 26)
GRID = Grid((40.0, 4.0, 4.0), (80.0, 0.0, 8.0))
NAMES = ("cytoplasm", "wall", "inside", "vesicle")
RULE = EnclosureRule(inside="inside", wall="wall", specks_nm=9.0)


def shares(seed: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.dirichlet(np.full(4, 0.4), (4, 6, 6))
    fine = coarse.repeat(3, 0).repeat(5, 1).repeat(5, 2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    mixed = 0.7 * fine + 0.3 * rng.dirichlet(np.full(4, 0.3), SHAPE)
    found: NDArray[np.uint8] = np.rint(255 * mixed).astype(np.uint8).transpose(3, 0, 1, 2).copy()
    found[:, 2:4, 5:9, 5:9] = 0  # not predicted
    return found


@pytest.fixture
def path(tmp_path: Path) -> str:
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), GRID, 4, kind="probabilities")
    create_volume(tmp_path / "pred.zarr" / "classes", info).write(info.box, shares())
    (tmp_path / "pred.zarr" / "classes.yaml").write_text(yaml.safe_dump({"names": list(NAMES)}))
    return str(tmp_path / "pred.zarr" / "classes")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longest and is not looked at."""
    blank = Figure(b"", "left out")
    for name in ("figure", "repair"):
        monkeypatch.setattr(classifyreport.Shown, name, lambda *_, **__: blank)


def everything(name: Path) -> list[NDArray[np.uint8]]:
    volumes = [open_volume(name / part) for part in ("labels", "confidence")]
    assert [volume.info.grid for volume in volumes] == [GRID, GRID]
    assert volumes[0].info.kind == "labels"
    return [volume.read(volume.info.box) for volume in volumes]


@given(
    stn.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(2, 5), *[st.integers(1, 4)] * 3),
        elements=st.integers(0, 255),
    )
)
def test_the_highest_share_wins_by_its_margin(found: NDArray[np.uint8]) -> None:
    labels, confidence = decide(found)
    ordered = np.sort(found.astype(int), axis=0)
    some = ordered[-1] > 0
    assert np.array_equal(labels[some], found.argmax(axis=0)[some])
    assert (labels[~some] == UNDECIDED).all()
    unit = 1 if found.dtype == np.uint8 else 257
    assert np.array_equal(confidence, (ordered[-1] - ordered[-2] + unit // 2) // unit)


def test_shares_of_every_type_mean_the_same() -> None:
    bytes_ = shares()
    for other in (bytes_.astype(np.uint16) * np.uint16(257), bytes_.astype(np.float32) / np.float32(255)):
        for one, same in zip(decide(bytes_), decide(other), strict=True):
            assert np.array_equal(one, same)


@pytest.mark.parametrize("block", [(4, 9, 13), (2, 30, 26), (64, 256, 256)])
@pytest.mark.usefixtures("no_pictures")
def test_blocks_give_what_the_whole_gives(path: str, block: tuple[int, int, int], tmp_path: Path) -> None:
    rules = resolve([RULE], NAMES, GRID.voxel_size_nm)
    expected = classify_array(shares(), rules, 0.1)
    job = ClassifyJob(
        probabilities=path, output=str(tmp_path / "out.zarr"), rules=(RULE,), min_confidence=0.1, block_vox=block
    )
    report = classify(job)
    labels, confidence = everything(tmp_path / "out.zarr")
    assert np.array_equal(labels, expected.labels)
    assert np.array_equal(confidence, expected.confidence)
    assert report.read_text().count("is enclosed by wall") == 1
    (row,) = csv.DictReader((tmp_path / "out.zarr" / "rules.csv").read_text().splitlines())
    before, after = (enclosure_faces(each, rules[0]) for each in (expected.likeliest, expected.labels))
    assert [int(row[f"violating_faces_{when}"]) for when in ("before", "after")] == [before[1].sum(), 0]
    assert int(row["surface_faces_before"]) == before[0].sum()
    assert after[1].sum() == 0
    assert before[1].sum() > 100
    rows = list(csv.DictReader((tmp_path / "out.zarr" / "classes.csv").read_text().splitlines()))
    assert [int(each["voxels"]) for each in rows] == [(labels == v).sum() for v in (0, 1, 2, 3, UNDECIDED)]
    mean = confidence[labels == 2].mean() / 255
    assert float(rows[2]["mean_confidence"]) == pytest.approx(mean)
    assert float(rows[2]["um3"]) == pytest.approx((labels == 2).sum() * 640 / 1e9)


def test_undecided_is_where_the_margin_is_small_and_no_rule_chose(path: str) -> None:
    rules = resolve([RULE], NAMES, GRID.voxel_size_nm)
    likeliest, margin = decide(shares())
    found = classify_array(shares(), rules, 0.2)
    chosen = (found.labels != likeliest) & (found.labels != UNDECIDED)
    assert chosen.any()
    assert (found.confidence[chosen] == 0).all()
    assert np.array_equal(found.labels == UNDECIDED, (likeliest == UNDECIDED) | ((margin < 51) & ~chosen))
    assert enclosure_faces(found.labels, rules[0])[1].sum() == 0


@pytest.mark.usefixtures("no_pictures")
def test_the_command_goes_on_and_makes_damaged_blocks_again(path: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"rules": [RULE.to_dict()]}))
    out = tmp_path / "out.zarr"
    args = ["classify", path, "-o", str(out), "--rules", str(rules), "--block", "6,30,26"]
    assert CliRunner().invoke(app, args).exit_code == 0
    before = everything(out)
    assert CliRunner().invoke(app, args).exit_code == 0
    again = CliRunner().invoke(app, [*args, "--min-confidence", "0.5"])
    assert isinstance(again.exception, InputError)
    assert "min_confidence" in str(again.exception)
    open_volume(out / "labels", writable=True).write(
        open_volume(out / "labels").info.box, np.zeros(SHAPE, np.uint8)
    )
    retry(out, look=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, everything(out), strict=True))
    assert (out / "counts" / f"{name_of((0, 0, 0))}.parquet").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_crash_in_the_middle_changes_nothing(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [
        ClassifyJob(
            probabilities=path,
            output=str(tmp_path / name),
            rules=(RULE,),
            block_vox=(4, 16, 26),
            min_confidence=0.1,
        )
        for name in ("whole.zarr", "crashed.zarr")
    ]
    classify(jobs[0])
    count = classify_module.count_block

    def failing(file: Path, *rest: Any) -> None:
        if "_1_" in file.name:  # after its voxels were written
            raise OSError("no more")
        count(file, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(classify_module, "count_block", failing)
        with pytest.raises(BlocksFailedError):
            classify(jobs[1])
    assert not (tmp_path / "crashed.zarr").exists()
    ran: list[Path] = []
    monkeypatch.setattr(classify_module, "count_block", lambda file, *rest: (ran.append(file), count(file, *rest)))
    classify(jobs[1])
    assert len(ran) == 3  # of six blocks, those that had failed
    one, two = (everything(tmp_path / name) for name in ("whole.zarr", "crashed.zarr"))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    tables = [(tmp_path / name / "classes.csv").read_text() for name in ("whole.zarr", "crashed.zarr")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_two_workers_write_the_same(path: str, tmp_path: Path) -> None:
    base = ["classify", path, "--block", "6,16,26", "-o"]
    for workers in ("1", "2"):
        assert (
            CliRunner().invoke(app, [*base, str(tmp_path / f"{workers}.zarr"), "--workers", workers]).exit_code
            == 0
        )
    one, two = (everything(tmp_path / f"{workers}.zarr") for workers in "12")
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_page_shows_sections_repairs_and_places(path: str, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 999, (20, 40, 30)).astype(np.uint16)
    info = VolumeInfo((20, 40, 30), raw.dtype, Grid((40.0, 4.0, 4.0)), kind="raw")
    create_volume(tmp_path / "raw.zarr" / "raw", info).write(info.box, raw)
    job = ClassifyJob(
        probabilities=path, output=str(tmp_path / "o.zarr"), rules=(RULE,), raw=str(tmp_path / "raw.zarr" / "raw")
    )
    text = classify(job).read_text()
    assert text.count("<img") == 1 + 3 + 2 + 1  # colours, planes, repairs, the only place
    assert "of its surface touched another class, and nothing does now" in text


@pytest.mark.usefixtures("no_pictures")
def test_the_least_confident_place_is_found(tmp_path: Path) -> None:
    shape = (32, 128, 192)
    found = np.zeros((2, *shape), np.uint8)
    found[0] = 255
    found[0, 16:, :64, 64:128], found[1, 16:, :64, 64:128] = 130, 125
    info = VolumeInfo(shape, np.dtype(np.uint8), Grid((4.0, 4.0, 4.0)), 2, kind="probabilities")
    create_volume(tmp_path / "pred.zarr" / "classes", info).write(info.box, found)
    job = ClassifyJob(
        probabilities=str(tmp_path / "pred.zarr" / "classes"),
        output=str(tmp_path / "o.zarr"),
        block_vox=(16, 64, 192),
    )
    text = classify(job).read_text()
    z, y, x = (s + t // 2 for s, t in zip((16, 0, 64), TILE_VOX, strict=True))
    assert "0.020" in text  # 5 / 255
    first = text[text.index("middle voxels of the least confident") :]
    cells = [int(part.split(">")[1]) for part in first.split("</td")[:4] for part in [part[part.rindex("<td") :]]]
    assert cells == [1, z, y, x]


@pytest.mark.parametrize(
    ("channels", "dtype", "kind", "words"),
    [
        (1, np.uint8, "probabilities", "1 channel:"),
        (None, np.uint8, None, "no channels"),
        (3, np.uint8, "lsds", "holds lsds"),
        (3, np.int32, None, "stores int32"),
        (4, np.uint8, "probabilities", "4 classes, and 3 names"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    channels: int | None, dtype: type, kind: str | None, words: str, tmp_path: Path
) -> None:
    info = VolumeInfo((2, 3, 4), np.dtype(dtype), GRID, channels, kind=kind)  # type: ignore[arg-type]
    create_volume(tmp_path / "p.zarr" / "classes", info)
    job = ClassifyJob(
        probabilities=str(tmp_path / "p.zarr" / "classes"), output=str(tmp_path / "o.zarr"), names=("a", "b", "c")
    )
    with pytest.raises(InputError, match=words):
        classify(job)
    assert not list(tmp_path.glob("o*"))


def test_floats_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    info = VolumeInfo((2, 3, 4), np.dtype(np.float32), GRID, 2, kind="probabilities")
    volume = create_volume(tmp_path / "p.zarr" / "classes", info)
    values = np.full((2, 2, 3, 4), 0.5, np.float32)
    values[1, 1, 2, 3] = np.nan
    volume.write(info.box, values)
    job = ClassifyJob(probabilities=str(tmp_path / "p.zarr" / "classes"), output=str(tmp_path / "o.zarr"))
    with pytest.raises(InputError, match="no probabilities"):
        classify(job)


def test_rules_about_unknown_classes_are_refused_together(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{inside: insde, wall: wall}, {inside: vesicle, wall: wal, allowed: [x]}]")
    args = ["emloom", "classify", path, "-o", str(tmp_path / "o.zarr"), "--rules", str(rules)]
    monkeypatch.setattr("sys.argv", args)
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "3 problems" in said
    assert all(word in said for word in ("'insde'", "did you mean 'inside'", "'wal'", "'x'"))


def test_names_and_values_are_those_of_the_model(tmp_path: Path) -> None:
    classes = (SemanticClass(name="outside", ids=(3,)), SemanticClass(name="wall", ids=(7, 9)))
    spec = ModelSpec(
        objective=SemanticObjective(classes=classes), network=UNetSpec.lean(), voxel_size_nm=(40.0, 4.0, 4.0)
    )
    save(tmp_path / "model.safetensors", spec, build(spec).state_dict(), {})
    (tmp_path / "pred.zarr").mkdir()
    said = {"spec": {"model": str(tmp_path / "model.safetensors")}}
    (tmp_path / "pred.zarr" / "provenance.json").write_text(json.dumps(said))
    path = str(tmp_path / "pred.zarr" / "classes")
    assert class_names(path, 2) == ("outside", "wall")
    assert class_values(path, ("outside", "wall")) == (3, 7)
    assert class_values(path, ("outside", "other")) == (1, 2)
    assert class_names(path, 2, ["a", "b"]) == ("a", "b")
    (tmp_path / "refined.zarr").mkdir()
    (tmp_path / "refined.zarr" / "provenance.json").write_text(json.dumps({"spec": {"predicted": path}}))
    refined = str(tmp_path / "refined.zarr" / "classes")
    assert class_values(refined, class_names(refined, 2)) == (3, 7)
    (tmp_path / "model.safetensors").unlink()
    assert class_names(path, 2) == ("0", "1")
    write_names(tmp_path / "pred.zarr", ["x", "y"])
    assert class_names(path, 2) == ("x", "y")
    combined = {"classes": [{"name": "p", "ids": [1]}, {"name": "q", "ids": [2]}]}
    (tmp_path / "pred.zarr" / "classes.yaml").write_text(yaml.safe_dump(combined))
    assert class_names(path, 2) == ("p", "q")
    (tmp_path / "pred.zarr" / "classes.yaml").write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        class_names(path, 2)
