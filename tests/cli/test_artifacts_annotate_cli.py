"""The commands with which people judge patches, from a model to a table of labels, as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from emloom.cli.main import main
from emloom.io.patchtables import read_patches, write_patches
from tests.tasks.labelling import table, write_map, write_noise
from tests.tasks.test_disagreeing import renamed

STARTS = [(k, 4 * k, 40 - 8 * k) for k in range(5)]


def emloom(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code, before = 0, sys.argv
    sys.argv = ["emloom", *map(str, words)]
    try:
        main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        sys.argv = before
    out = capsys.readouterr()
    return code, out.out, out.err


@contextmanager
def annotating(*words: object) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run `emloom artifacts annotate`; yields the process, what it said first, and the address of its page."""
    command = [sys.executable, "-m", "emloom", "artifacts", "annotate", *map(str, words)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # Where the tests run in the background, interrupts are ignored, and children would inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heed) as run:
        try:
            assert run.stdout is not None
            first = run.stdout.readline()
            yield run, first, run.stdout.readline().strip()
        finally:
            run.kill()


def said(address: str, **answer: object) -> dict[str, object]:
    request = Request(
        f"{address}answer", json.dumps(answer).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urlopen(request, timeout=60) as reply:
        found: dict[str, object] = json.load(reply)
    return found


def test_a_page_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    raw, labels = write_noise(tmp_path / "raw.zarr"), tmp_path / "labels.csv"
    asked = ("--random", 6, "--patch", "1,8,8", "--classes", "debris, myelin", "--margin", 4)
    with annotating(raw, labels, "--annotator", "ada", *asked) as (run, first, address):
        assert first == f"0 of 6 patches are answered; answers go to {labels}\n"
        for index in (0, 1):
            for name in ("debris", "myelin"):
                said(address, index=index, **{"class": name}, word="no")
        with annotating(raw, labels, "--annotator", "bob") as (second, text, _):
            assert text == ""
            assert second.wait(60) == 2
        run.send_signal(signal.SIGKILL)
        run.wait(60)
    assert read_patches(labels).labels.tolist() == [[0, 0], [0, 0]]
    with annotating(raw, labels, "--annotator", "ada") as (run, first, address):
        assert first.startswith("2 of 6 patches")
        with urlopen(f"{address}state", timeout=60) as reply:
            assert json.load(reply)["position"] == 2
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0
        assert run.stdout is not None
        assert run.stdout.read().endswith("2 of 6 patches are answered\n")
    with annotating(raw, labels, "--annotator", "bob", "--lattice", "1,16,16", "--patch", "1,8,8") as (
        _,
        first,
        _a,
    ):
        assert first.startswith(f"0 of {6 + 6 * 3 * 3} patches")


def test_the_unsure_patches_of_a_map_are_looked_at(tmp_path: Path) -> None:
    raw, labels = write_noise(tmp_path / "raw.zarr"), tmp_path / "labels.csv"
    logits = np.random.default_rng(3).normal(0, 3, (6, 10, 12))
    found = write_map(tmp_path / "map.zarr", logits)
    write_patches(labels, table([], annotator="ada"))
    for _ in range(2):
        words = ("--annotator", "ada", "--candidates", found, "--patch", "1,8,8")
        with annotating(raw, labels, *words) as (_run, first, _address):
            assert first.startswith("0 of ")
        queue = read_patches(tmp_path / "labels.queue.csv")
        assert first.startswith(f"0 of {len(queue)} ")
    unsure = np.abs(np.array(queue.columns["score"], float) - 0.5)
    assert (np.diff(unsure) >= -1e-6).all()
    assert queue.classes == ("debris", "myelin")


def test_from_a_map_to_a_final_word(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    raw = write_noise(tmp_path / "raw.zarr")
    found = write_map(tmp_path / "map.zarr", np.random.default_rng(3).normal(0, 3, (6, 10, 12)))
    write_patches(tmp_path / "ada.csv", table(STARTS, [[1, 1], [1, 0], [0, 1], [-1, 0], [0, 0]], "ada"))
    write_patches(tmp_path / "bob.csv", table(STARTS, [[1, 1], [0, 0], [0, 1], [1, 0], [0, 0]], "bob"))
    picked = tmp_path / "picked"
    code, text, error = emloom(
        capsys, "artifacts", "select", found, raw, "--labels", tmp_path / "ada.csv", "-n", 4, "-o", picked
    )
    assert (code, error) == (0, "")
    assert f"{picked}: 4 patches" in text
    asked = tmp_path / "asked"
    code, text, _ = emloom(
        capsys, "artifacts", "disagree", tmp_path / "ada.csv", tmp_path / "bob.csv", "-o", asked
    )
    assert code == 0
    assert "debris: ada and bob differ about 1 of 4 patches" in text
    renamed(asked / "candidates.nml", lambda k, name: f"{name} clean")
    code, text, _ = emloom(
        capsys, "artifacts", "adopt", asked / "candidates.nml", tmp_path / "ada.csv", tmp_path / "bob.csv",
        "--annotator", "eve", "--consensus", "-o", tmp_path / "final.csv",
    )  # fmt: skip
    assert (code, text) == (0, f"{tmp_path}/final.csv: 1 patches answered by eve; 0 trees hold no answer\n")
    assert read_patches(tmp_path / "final.csv").labels.tolist() == [[1, 1], [0, 0], [0, 1], [1, 0], [0, 0]]
    code, text, _ = emloom(capsys, "artifacts", "outline", tmp_path / "final.csv", "-o", tmp_path / "final.nml")
    assert (code, text) == (0, f"{tmp_path}/final.nml: 5 patches\n")


def test_hard_negatives_of_a_model_are_mined_and_adopted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from emloom.nn.model import ModelSpec, build, save
    from emloom.nn.multires_autoencoder import MultiResolutionSpec
    from emloom.nn.objectives.artifacts import ArtifactsObjective, PatchClass
    from emloom.nn.patchnet import PatchNetSpec
    from emloom.nn.preprocess import Preprocessing

    encoder = MultiResolutionSpec(f=2, n_latent=8, convolutions=(1, 1, 1, 1, 0), batch_norm=False, skip=False)
    classes = (PatchClass(name="debris", ids=(1,)), PatchClass(name="myelin", ids=(2,)))
    spec = ModelSpec(
        objective=ArtifactsObjective(classes=classes),
        network=PatchNetSpec(encoder=encoder, hidden=()),
        preprocessing=Preprocessing(),
        voxel_size_nm=(35, 32, 32),
    )
    save(tmp_path / "model.safetensors", spec, build(spec).state_dict(), {})
    raw, out, labels = (
        write_noise(tmp_path / "raw.zarr", (3, 160, 200)),
        tmp_path / "round1",
        tmp_path / "labels.csv",
    )
    words = ("artifacts", "mine", raw, "--threshold", 0.0001, "--block", "1,64,64", "--per-block", 1)
    code, text, error = emloom(
        capsys, *words, "--model", tmp_path / "model.safetensors", "--classes", "debris,myelin", "-o", out
    )
    assert (code, error.count("error")) == (0, 0)
    candidates = read_patches(out / "candidates.csv")
    assert candidates.shape == spec.network.patch  # type: ignore[union-attr]
    assert f"{out}: {len(candidates)} candidates" in text
    assert (tmp_path / "round1.map.zarr" / "debris").exists()
    two = replace(candidates.taken(np.arange(2)), labels=np.array([[0, -1], [1, 0]], np.int8), annotators=("ada",))
    write_patches(out / "answers.csv", two)
    code, text, _ = emloom(capsys, "artifacts", "mine", raw, "--labels", labels, "-o", out, "--adopt")
    assert code == 0
    assert "1 negatives, 1 positives and 0 unsure" in text
    assert read_patches(labels).of("debris").tolist() == [0, 1]


ADA = ("annotate", "{raw}", "{tmp}/l.csv", "--annotator", "ada")
SMALL = ("--patch", "1,8,8")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (ADA, "say what to look at"),
        ((*ADA[:4], "", "--random", 3), "annotator"),
        ((*ADA, "--random", 3, "--lattice", "1,8,8"), "give one"),
        ((*ADA, "--random", 3), "does not fit"),
        (("annotate", "{raw}", "{tmp}/l.txt", "--annotator", "a", "--random", 3, *SMALL), ".csv nor .json"),
        ((*ADA, "--random", 3, *SMALL, "--host", "192.0.2.1"), "other machines can reach"),
        ((*ADA, "--candidates", "x.csv", *SMALL), "leave out --patch"),
        (("select", "{raw}", "{raw}", "-o", "{tmp}/o", "--patch", "1,8,8"), "holds logits or probabilities"),
        (("select", "{raw}", "{raw}", "-o", "{tmp}/o", "--how", "best"), "how"),
        (("mine", "{raw}", "-o", "{tmp}/o"), "--model, or --map"),
        (("mine", "{raw}", "-o", "{tmp}/o", "--model", "m", "--map", "m"), "--model, or --map"),
        (("mine", "{raw}", "-o", "{tmp}/o", "--adopt"), "give --labels"),
        (("disagree", "{tmp}/a.csv", "-o", "{tmp}/o", "--between", "a"), "name two"),
        (("outline", "{tmp}/a.csv", "-o", "{tmp}/o.nml"), "not a file"),
    ],
)
def test_bad_words_are_explained_and_nothing_is_left(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[object, ...], rule: str
) -> None:
    raw = write_noise(tmp_path / "raw.zarr")
    filled = (str(word).format(raw=raw, tmp=tmp_path) for word in words)
    code, _, error = emloom(capsys, "artifacts", *filled)
    assert code == 2
    assert rule in error
    left = {p.name for p in tmp_path.iterdir() if not p.name.endswith((".lock", ".queue.csv"))}
    assert left == {"raw.zarr"}
