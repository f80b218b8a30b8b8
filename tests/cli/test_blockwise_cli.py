"""`emloom predict`, `segment`, `status`, `retry`: what a person sees when things go well, and when they do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emloom.recipes.phantom import demo
from emloom.tasks import segmentblocks
from emloom.tasks.segmentspec import SeededSpec, SegmentSpec
from tests.cli.test_cli import emloom
from tests.tasks.test_predict import inputs as inputs
from tests.tasks.weaving import few_values, same, voxels, write_affinities


@pytest.fixture(scope="module")
def affinities(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_affinities(tmp_path_factory.mktemp("cli") / "pred.zarr", few_values((40, 50, 40), 1))


@pytest.fixture
def words(affinities: str) -> list[str]:
    return ["segment", affinities, "--threshold", "0.6", "--fragments", "ascent", "--cell", "32,32,32"]


def spoil_a_chunk(volume: Path) -> None:
    # The last one, which reaches beyond the volume.
    chunk = max(path for path in (volume / "0" / "c").rglob("*") if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(bytes(data))


def test_damage_is_found_and_mended(capsys: pytest.CaptureFixture[str], words: list[str], tmp_path: Path) -> None:
    clean, out = tmp_path / "clean.zarr", tmp_path / "out.zarr"
    for target in (clean, out):
        code, said, plan = emloom(capsys, *words, "-o", str(target))
        assert code == 0
        assert "segmentation written" in said
        assert "cells of 32x32x32 voxels" in plan
        assert "GiB per worker" in plan
    code, said, _ = emloom(capsys, "status", str(out), "--verify")
    assert code == 0
    assert "segment, finished" in said
    assert "fragments      8 of 8 blocks done" in said
    assert "verified" in said
    spoil_a_chunk(out / "fragments")
    (out / "graph" / "merges.parquet").write_bytes(b"nothing")
    assert emloom(capsys, "status", str(out))[0] == 0  # it did not look
    code, said, _ = emloom(capsys, "status", str(out), "--verify")
    assert code == 1
    assert said.count("damaged: block") == 2
    assert "merges.parquet" in said
    code, said, _ = emloom(capsys, "retry", str(out), "--verify")
    assert code == 0
    assert "whole" in said
    assert emloom(capsys, "status", str(out), "--verify")[0] == 0
    assert same(out, clean)


def test_failed_blocks_are_listed_and_tried_again(
    capsys: pytest.CaptureFixture[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(out))

    with monkeypatch.context() as patch:
        patch.setattr(segmentblocks, "save_cell", full)
        code, _, error = emloom(capsys, *words, "-o", str(out))
    assert code == 1
    assert "8 of 8 blocks of stage 'graph' failed" in error
    assert "the disk is full" in error
    assert "emloom retry" in error
    assert not out.exists()
    code, said, _ = emloom(capsys, "status", str(out))
    assert code == 1
    assert "not finished" in said
    assert "0 of 8 blocks done, 8 failed" in said
    assert said.count("the disk is full") == 8
    assert emloom(capsys, "retry", str(tmp_path / "out.unfinished.zarr"))[0] == 0
    assert emloom(capsys, "status", str(out), "--verify")[0] == 0


def test_an_output_of_another_job_is_kept_unless_told(
    capsys: pytest.CaptureFixture[str], words: list[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "out.zarr")
    assert emloom(capsys, *words, "-o", out)[0] == 0
    before = voxels(Path(out) / "segmentation")
    code, _, error = emloom(capsys, *words, "-o", out, "--min-size", "100000")
    assert code == 2
    assert "min_segment_vox was 0, is 100000" in error
    assert np.array_equal(voxels(Path(out) / "segmentation"), before)
    assert emloom(capsys, *words, "-o", out, "--min-size", "100000", "--overwrite")[0] == 0
    assert not voxels(Path(out) / "segmentation").any()


def test_what_is_no_result_is_said_so(capsys: pytest.CaptureFixture[str], affinities: str, tmp_path: Path) -> None:
    for command in ("status", "retry"):
        code, _, error = emloom(capsys, command, str(Path(affinities).parent))
        assert code == 2
        assert "not made block by block" in error
        code, _, error = emloom(capsys, command, str(tmp_path / "nowhere.zarr"))
        assert code == 2
        assert "exists" in error


def test_settings_of_a_job_and_of_the_command(
    capsys: pytest.CaptureFixture[str], affinities: str, tmp_path: Path
) -> None:
    """A job's settings are the beginning; options change single ones, and keep what goes with them."""
    seeded = SegmentSpec(fragments=SeededSpec(seed_distance_vox=6))
    demo(str(tmp_path)).model_copy(update={"segmentation": seeded}).dump(tmp_path / "job.yaml")
    recipe = ("--job", str(tmp_path / "job.yaml"))
    for n, (options, fragments, linkage) in enumerate(
        (
            (recipe, {"kind": "seeded", "seed_distance_vox": 6}, "mean"),
            ((*recipe, "--linkage", "quantile"), {"kind": "seeded", "seed_distance_vox": 6}, "quantile"),
            ((*recipe, "--fragments", "seeded"), {"kind": "seeded", "seed_distance_vox": 6}, "mean"),
            (("--fragments", "ascent", "--linkage", "max"), {"kind": "ascent"}, "max"),
        )
    ):
        out = tmp_path / f"{n}.zarr"
        assert emloom(capsys, "segment", affinities, "--threshold", "0.6", *options, "-o", str(out))[0] == 0
        used = json.loads((out / "provenance.json").read_text())["spec"]["segmentation"]
        assert fragments.items() <= used["fragments"].items()
        assert used["linkage"]["kind"] == linkage
    code, _, error = emloom(
        capsys, "segment", affinities, "--threshold", "0.6", "--fragments", "magic", "-o", str(tmp_path / "x.zarr")
    )
    assert code == 2
    assert "'seeded'" in error


def test_places_to_run_that_do_not_exist(
    capsys: pytest.CaptureFixture[str], words: list[str], tmp_path: Path
) -> None:
    for options, rule in (
        (("--workers", "0"), "at least 1"),
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), "exclude each other"),
        (("--scheduler", str(tmp_path / "none.json")), "scheduler file"),
        (("--workers", "100000"), "too little memory; use --workers"),
    ):
        code, _, error = emloom(capsys, *words, "-o", str(tmp_path / "out.zarr"), *options)
        assert code == 2
        assert rule in error
    assert not list(tmp_path.glob("out*"))


def test_predictions_are_verified_and_mended_too(
    capsys: pytest.CaptureFixture[str], inputs: tuple[str, str], tmp_path: Path
) -> None:
    raw, checkpoint = inputs
    out = tmp_path / "pred.zarr"
    words = ("predict", raw, "--model", checkpoint, "-o", str(out), "--tile", "8,16,16")
    assert emloom(capsys, *words)[0] == 0
    before = voxels(out / "affinities")
    record = json.loads((out / "run" / "job.json").read_text())
    assert record["how"] == {"backend": "torch", "precision": "32"}
    spoil_a_chunk(out / "affinities")
    assert emloom(capsys, "status", str(out), "--verify")[0] == 1
    assert emloom(capsys, "retry", str(out), "--verify")[0] == 0
    assert np.array_equal(voxels(out / "affinities"), before)
    assert emloom(capsys, *words)[0] == 0  # already whole
    code, _, error = emloom(capsys, *words, "--backend", "openvino")
    assert code == 2
    assert "backend was" in error
