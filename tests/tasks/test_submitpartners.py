"""Partners from tables in a submission: scored by `emloom evaluate` as the table itself is."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import CLEFTS, NEURON_IDS, TRANSPARENT, read_annotations, write_annotations
from emloom.io.cremisynapses import table_of
from emloom.io.open import create_volume
from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.io.volume import VolumeInfo
from emloom.metrics.clefts import cleft_scores
from emloom.metrics.partnerpairs import PartnerPairs
from emloom.metrics.partners import partner_scores
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.submission import SubmitSpec, submit
from tests.cli.test_cli import emloom
from tests.tasks.drawnsynapses import drawn, labels, stored

SIZE = (40.0, 4.0, 4.0)
PADDED = Grid(SIZE, (400.0, 40.0, 80.0))
SHAPE, OFFSET = (4, 16, 16), (480.0, 56.0, 96.0)  # from voxel 2, 4, 4 of the prediction
WHOLE = (8, 24, 24)
N = 1500


def found_and_true(seed: int) -> tuple[SynapseTable, PartnerPairs]:
    """Return contacts in the padded world, some beyond the labels, and true pairs in the world of the labels."""
    found = drawn(seed, n=N)
    rng = np.random.default_rng(seed)
    size = np.array(SIZE)
    true = rng.choice(N, N // 2, replace=False)
    ends = [points[true] - np.array(OFFSET) - size / 2 for points in (found.pre_nm, found.post_nm)]
    inside = np.logical_and.reduce([((e >= 0) & (e < size * (np.array(SHAPE) - 1))).all(axis=1) for e in ends])
    pre, post = (e[inside] + rng.normal(0, 1, e[inside].shape).clip(0) for e in ends)
    return found, PartnerPairs(pre, post)


def truth_file(path: Path, pairs: PartnerPairs, neurons: np.ndarray, clefts: np.ndarray) -> str:
    points = np.stack([pairs.pre_nm, pairs.post_nm], axis=1).reshape(-1, 3)
    ids = np.arange(1, len(points) + 1, dtype=np.uint64)
    write_annotations(path, Annotations(ids, (PRE, POST) * len(pairs), points, ids.reshape(-1, 2)))
    with h5py.File(path, "r+") as h5:
        stored = np.where(clefts == 0, np.uint64(TRANSPARENT), clefts.astype(np.uint64))
        for name, array in ((NEURON_IDS, neurons), (CLEFTS, stored)):
            h5[name] = array
            h5[name].attrs["resolution"] = SIZE
    return str(path)


def cleft_volume(path: Path, array: np.ndarray) -> str:
    info = VolumeInfo(array.shape, array.dtype, PADDED, kind="labels")
    create_volume(path, info).write(info.box, array)
    return str(path)


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no page: that takes longer than all else, and is not what is looked at here."""
    monkeypatch.setattr("emloom.tasks.synapsereport.write_synapse_report", lambda *_: Path("none"))
    monkeypatch.setattr("emloom.tasks.connectome.write_connectome_report", lambda *_: None)


@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_that_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    found, pairs = found_and_true(seed)
    rng = np.random.default_rng(seed)
    neurons = labels(seed, shape=SHAPE)
    clefts = [(rng.random(shape) < 0.05).astype(np.uint8) for shape in (SHAPE, WHOLE)]
    truth = truth_file(tmp_path / "truth.h5", pairs, neurons, clefts[0])
    write_synapse_table(tmp_path / SYNAPSES, found)
    volume = cleft_volume(tmp_path / "clefts.zarr", clefts[1])
    out = str(tmp_path / "sub.h5")
    place = ("--shape", "4,16,16", "--offset", "480,56,96")
    code, said, _ = emloom(
        capsys, "submit", "cremi", f"clefts={volume}", f"partners={tmp_path}", "-o", out, *place
    )
    sites = read_annotations(out)
    kept = len(sites.partners)
    assert (code, 9 < kept < N) == (0, True)
    assert f"left out: {N - kept} contacts with a site outside the box" in said
    code, _, _ = emloom(
        capsys, "evaluate", out, truth, "--metrics", "clefts,partners", "-o", str(tmp_path / "scores")
    )
    assert code == 0
    (row,) = json.loads((tmp_path / "scores" / "scores.json").read_text())["rows"]
    # The table itself, in the world of the labels, never through a file.
    moved = [points - np.array(OFFSET) - np.array(SIZE) / 2 for points in (found.pre_nm, found.post_nm)]
    direct = PartnerPairs(*moved)
    grid = Grid(SIZE)
    inside = np.logical_and.reduce(
        [
            ((v := np.floor(p / np.array(SIZE) + 0.5)) >= 0).all(axis=1) & (v < np.array(SHAPE)).all(axis=1)
            for p in moved
        ]
    )
    assert inside.sum() == kept
    want = partner_scores(pairs, PartnerPairs(direct.pre_nm[inside], direct.post_nm[inside]), neurons, grid)
    assert want.tp > 0
    assert 0 < want.fscore < 1
    names = ("fscore", "precision", "recall", "tp", "fp", "fn")
    assert [row[f"partner_{name}"] for name in names] == [pytest.approx(getattr(want, name)) for name in names]
    cut = clefts[1][2:6, 4:20, 4:20]
    score = cleft_scores(clefts[0], cut, SIZE, zero_is_background=True).cremi_score_nm
    assert row["cleft_cremi_score_nm"] == pytest.approx(score)


def test_polyads_share_their_pre_site(tmp_path: Path) -> None:
    write_synapse_table(tmp_path / SYNAPSES, drawn(4))
    submit(
        SubmitSpec(
            target=str(tmp_path / "s.h5"), annotations=str(tmp_path), shape=WHOLE, offset_nm=PADDED.offset_nm
        )
    )
    sites = read_annotations(tmp_path / "s.h5")
    back = table_of(sites, SIZE)
    assert sites.types.count(PRE) == len(np.unique(back.polyads)) < len(back)
    world = back.pre_nm + np.array(PADDED.offset_nm)
    assert all(any(np.allclose(p, q) for q in drawn(4).pre_nm) for p in world)


def test_of_a_connectome_the_contacts_that_make_edges(tmp_path: Path) -> None:
    write_synapse_table(tmp_path / SYNAPSES, drawn(5))
    job = ConnectomeJob(
        synapses=str(tmp_path),
        segmentation=stored(tmp_path / "seg.zarr", labels(5)),
        output=str(tmp_path / "graph"),
        autapses=False,
        minimum_score=0.3,
    )
    report = connectome(job)
    spec = SubmitSpec(
        target=str(tmp_path / "s.h5"), annotations=job.output, shape=WHOLE, offset_nm=PADDED.offset_nm
    )
    submitted = submit(spec)
    assert len(read_annotations(spec.target).partners) == report.used
    assert submitted.left_out == f"left out: {60 - report.used} contacts that make no edge of the connectome"


def test_no_contact_is_a_submission_of_none(tmp_path: Path) -> None:
    write_synapse_table(tmp_path / SYNAPSES, SynapseTable.empty())
    spec = SubmitSpec(target=str(tmp_path / "s.h5"), annotations=str(tmp_path), shape=SHAPE, offset_nm=OFFSET)
    assert submit(spec).left_out == ""
    assert len(read_annotations(spec.target).partners) == 0


def test_contacts_that_all_lie_elsewhere_are_an_error(tmp_path: Path) -> None:
    write_synapse_table(tmp_path / SYNAPSES, drawn(6))
    spec = SubmitSpec(target=str(tmp_path / "s.h5"), annotations=str(tmp_path), shape=SHAPE, offset_nm=(0, 0, 0))
    with pytest.raises(InputError, match="none of 60 contacts lies in"):
        submit(spec)
    assert not (tmp_path / "s.h5").exists()


def test_probabilities_are_clefts_from_a_threshold_on(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (1, *WHOLE)).astype(np.uint8)
    info = VolumeInfo(WHOLE, np.dtype(np.uint8), PADDED, channels=1, kind="probabilities")
    path, target = str(tmp_path / "p.zarr"), str(tmp_path / "s.h5")
    create_volume(path, info).write(info.box, array)
    with pytest.raises(InputError, match="channel"):
        submit(SubmitSpec(target=target, clefts=path))
    submit(SubmitSpec(target=target, clefts=path, cleft_threshold=0.8, shape=SHAPE, offset_nm=OFFSET))
    with h5py.File(target) as h5:
        cut = array[0, 2:6, 4:20, 4:20]
        assert np.array_equal(
            h5[CLEFTS][()] != TRANSPARENT, cut >= 204
        )  # 0.8 * 255, though 0.8 is no binary fraction
    flat = str(tmp_path / "flat.zarr")
    create_volume(flat, info.with_(channels=None)).write(info.box, array[0])
    with pytest.raises(InputError, match="holds probabilities, and a submission labels or a mask"):
        submit(SubmitSpec(target=target, clefts=flat, overwrite=True))
    submit(SubmitSpec(target=target, clefts=flat, cleft_threshold=0.8, overwrite=True))
    volume = cleft_volume(tmp_path / "c.zarr", array[0])
    with pytest.raises(InputError, match="holds labels: a threshold cuts probabilities"):
        submit(SubmitSpec(target=target, clefts=volume, cleft_threshold=0.8, overwrite=True))


def test_a_threshold_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no clefts"):
        SubmitSpec.from_dict({"target": "a.h5", "neuron_ids": "n.zarr", "cleft_threshold": 0.5})


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("cremi", "partners=syn", "annotations=syn", "-o", "s.h5"), "annotations is given twice"),
        (("cremi", "partner=syn", "-o", "s.h5"), "partners"),
        (("cremi", "partners=syn"), "nothing says where the submission goes"),
        (("cremi", "a.h5", "--check", "-o", "s.h5"), "looks at one submission"),
        (("cremi", "nothing.h5", "--check"), "nothing.h5"),
    ],
)
def test_commands_that_make_no_sense(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    rule: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = emloom(capsys, "submit", *words)
    assert code == 2
    assert rule in err
    assert list(tmp_path.iterdir()) == []
