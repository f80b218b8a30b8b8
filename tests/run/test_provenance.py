"""A fingerprint changes when its input does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.run.provenance import environment, fingerprint, write_provenance


def test_content_size_and_time_change_the_fingerprint_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"x" * 100)
    os.utime(file, ns=(1, 1))
    first = fingerprint(file)
    assert fingerprint(file) == first
    seen = {first}
    file.write_bytes(b"y" + b"x" * 99)
    os.utime(file, ns=(1, 1))
    seen.add(fingerprint(file))
    file.write_bytes(b"y" + b"x" * 100)
    os.utime(file, ns=(1, 1))
    seen.add(fingerprint(file))
    os.utime(file, ns=(2, 2))
    seen.add(fingerprint(file))
    assert len(seen) == 4


def test_any_file_changes_the_fingerprint_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "v.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "c" / "0").write_bytes(b"1")
    first = fingerprint(folder)
    (folder / "c" / "1").write_bytes(b"1")
    assert fingerprint(folder) != first


def test_paths_inside_a_container_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    file.write_bytes(b"x")
    assert fingerprint(file / "raw") != fingerprint(file / "labels")


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match="does not exist"):
        fingerprint("no-such-folder/raw.zarr")


def test_provenance_holds_what_is_needed_to_run_again(tmp_path: Path) -> None:
    record = write_provenance(tmp_path / "p.json", {"steps": 3}, {"raw": "abc"}, {"train": 1.234})
    assert json.loads((tmp_path / "p.json").read_text()) == record
    assert record["spec"] == {"steps": 3}
    assert record["environment"]["packages"]["numpy"] != "absent"
    assert environment()["emloom"]
