"""The command line: a thin shell; bad input is one paragraph and exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.cli.jobs import load_job
from emloom.cli.main import main
from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from tests.tasks.cubes import job, write_stack


def emloom(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command in this process; return (exit status, stdout, stderr)."""
    code = 0
    before, sys.argv = sys.argv, ["emloom", *words]
    try:
        main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        sys.argv = before
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stack(tmp_path_factory.mktemp("cli") / "stack.h5")


def test_every_command_explains_itself_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = emloom(capsys, "--help")
    assert code == 0
    commands = ["info", "import", "phantom", "schema", "check", "run", "train", "predict"]
    commands += ["segment", "demo", "evaluate", "view", "pyramid", "crop", "stats", "export"]
    commands += ["augment-preview", "augment-effects"]
    for name in commands:
        assert f"  {name}" in text
        code, text_of, _ = emloom(capsys, name, "--help")
        assert code == 0
        assert "Examples:" in text_of


def test_the_schema_describes_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = emloom(capsys, "schema")
    assert code == 0
    schema = json.loads(text)
    kinds = schema["discriminator"]["mapping"]
    others = {"forest", "reconstruction", "artifacts", "reconstruction_study", "pipeline"}
    assert set(kinds) == {"neurons", "clefts", "partners", "semantic"} | others
    for kind, wanted in (
        ("neurons", {"name", "data", "training"}),
        ("reconstruction_study", {"name", "job", "arms"}),
    ):
        assert wanted <= set(schema["$defs"][kinds[kind].rsplit("/", 1)[1]]["required"])


def test_a_job_file_round_trips_through_the_command_line(stack: Path, tmp_path: Path) -> None:
    made = job(stack)
    made.dump(tmp_path / "job.yaml")
    assert load_job(str(tmp_path / "job.yaml"), []) == made


@pytest.mark.parametrize(
    ("reference", "settings", "rule"),
    [
        ("no-such.yaml", [], "cannot read"),
        ("nonsense", [], "neither an existing job file nor a recipe"),
        ("emloom.recipes.fib52:quick", [], "not found"),
        ("emloom.recipes.fib25:quikc", [], "did you mean 'quick'"),
        ("emloom.recipes.fib25:quick", ["sed=1"], "did you mean 'seed'"),
        ("emloom.recipes.fib25:quick", ["seed"], "name=value"),
        ("emloom.recipes.fib25:quick", ["data=/nowhere"], "EMLOOM_DATA"),
    ],
)
def test_a_wrong_job_reference_says_what_is_valid(reference: str, settings: list[str], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        load_job(reference, settings)


@pytest.mark.fault(
    "jobs",
    "keys and values of a job file are misspelled",
    "error: did you mean 'steps'; exit status 2, and no output folder",
)
def test_all_problems_of_a_job_file_are_reported_at_once(
    capsys: pytest.CaptureFixture[str], stack: Path, tmp_path: Path
) -> None:
    text = (
        job(stack).to_yaml().replace("steps: 40", "stepz: 40").replace("variant: affinities", "variant: afinities")
    )
    (tmp_path / "job.yaml").write_text(text.replace("choose_by: voi_sum", "choose_by: voi"))
    code, _, error = emloom(capsys, "run", str(tmp_path / "job.yaml"), "-o", str(tmp_path / "out"))
    assert code == 2
    for words in ("training.stepz", "did you mean 'steps'", "objective.variant", "evaluation.choose_by"):
        assert words in error
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_paragraph_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.h5"
    empty.write_bytes(b"")
    code, _, error = emloom(capsys, "info", str(empty))
    assert code == 2
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_info_names_the_missing_voxel_size_and_import_wants_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "bare.h5"
    with h5py.File(source, "w") as file:
        file["raw"] = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    code, text, _ = emloom(capsys, "info", str(source), "--json")
    assert code == 0
    assert "voxel size" in json.dumps(json.loads(text)[0]["missing"])
    target = tmp_path / "out.zarr"
    code, _, error = emloom(capsys, "import", f"{source}/raw", str(target))
    assert code == 2
    assert "--voxel-size" in error
    assert not target.exists()
    assert emloom(capsys, "import", f"{source}/raw", str(target), "--voxel-size", "40,4,4")[0] == 0
    volume = open_volume(target)
    assert volume.info.grid.voxel_size_nm == (40.0, 4.0, 4.0)
    code, _, error = emloom(capsys, "import", f"{source}/raw", str(target), "--voxel-size", "40,4,4")
    assert code == 2
    assert "exists" in error


def test_evaluate_scores_a_crop_against_the_whole_truth(
    capsys: pytest.CaptureFixture[str], stack: Path, tmp_path: Path
) -> None:
    truth = open_volume(f"{stack}/labels")
    info = VolumeInfo((24, 24, 24), np.dtype(np.uint64), Grid((10, 10, 10), (0, 240, 0)), kind="labels")
    from emloom.geometry import Box

    box = Box((0, 24, 0), (24, 24, 24))
    create_volume(tmp_path / "seg.zarr", info).write(info.box, truth.read(box).astype(np.uint64))
    code, text, _ = emloom(
        capsys, "evaluate", str(tmp_path / "seg.zarr"), f"{stack}/labels", "-o", str(tmp_path / "scores"), "--json"
    )
    assert code == 0
    assert json.loads(text)["rows"][0]["voi_sum"] == 0.0
    assert (tmp_path / "scores" / "scores.csv").exists()


@pytest.mark.fault(
    "jobs",
    "arguments of commands make no sense",
    "error: one paragraph with the rule; exit status 2",
)
@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("predict", "{raw}", "--model", "{raw}", "-o", "p.zarr"), "not"),
        (("segment", "{raw}", "--threshold", "0.5", "-o", "s.zarr"), "affinities"),
        (("segment", "{raw}", "--threshold", "1.5", "-o", "s.zarr"), "threshold"),
        (("evaluate", "{raw}", "{labels}", "--border", "-1", "-o", "x"), "border"),
        (("import", "{raw}", "x.zarr", "--voxel-size", "4,4"), "three numbers"),
        (("view", "a={raw}", "a={labels}"), "two layers"),
        (("view", "{raw}", "--at", "1,2"), "z,y,x"),
        (("view", "{raw}", "--at", "-1,0,0"), "outside of the first volume"),
        (("view", "raw={raw}", "--segment", "5"), "no layer is known to hold labels"),
        (("view", "raw={raw}", "ids={labels}", "--segment", "id=5"), "labels are none"),
        (("view", "{raw}", "--token", "short"), "is no secret"),
    ],
)
def test_bad_arguments_are_explained(
    capsys: pytest.CaptureFixture[str], stack: Path, tmp_path: Path, words: tuple[str, ...], rule: str
) -> None:
    filled = [w.format(raw=f"{stack}/raw", labels=f"{stack}/labels") for w in words]
    filled = [str(tmp_path / w) if w.endswith(".zarr") or w == "x" else w for w in filled]
    code, _, error = emloom(capsys, *filled)
    assert code == 2
    assert rule in error
    assert list(tmp_path.iterdir()) == []


def test_python_dash_m_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emloom", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("emloom ")
