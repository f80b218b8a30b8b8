"""The folder of a blockwise result: found again after a crash, and seen by others only when it is whole.

Until every block is done, the result grows beside its final place::

    seg.unfinished.zarr/    volumes, tables, and run/: job.yaml, inputs.json, markers   ──rename──►   seg.zarr/

The folder remembers which job it belongs to and what its inputs looked like. The same job goes on where it
stopped; another job, or a changed input, is refused before anything is touched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emloom import __version__
from emloom.errors import InputError
from emloom.io.files import explained, refuse_existing, write_text_atomic
from emloom.run.alone import work_alone
from emloom.run.provenance import fingerprint
from emloom.spec import Spec

RECORD = Path("run", "job.json")
"""Where a result says whose it is; what has it can be gone on with by `emloom retry`."""
_DRAFT = ".unfinished"


class Workspace:
    """One result of one job.

    Args:
        output: where the result shall be, e.g. ``seg.zarr``; the name of the draft means the same.

    Raises:
        InputError: that is in a bucket.
    """

    def __init__(self, output: str | Path) -> None:
        if "://" in str(output):
            raise InputError(
                f"{output} is in a bucket, where nothing can be renamed: results grow on a disk that all workers "
                "see; copy them afterwards with `emloom export`"
            )
        given = Path(output)
        self.output = given.with_name(given.stem.removesuffix(_DRAFT) + given.suffix)
        self.draft = given.with_name(self.output.stem + _DRAFT + given.suffix)

    @property
    def finished(self) -> bool:
        """Whether the result is whole."""
        return self.output.exists()

    @property
    def folder(self) -> Path:
        """Where the result is now: at its final place, or beside it."""
        return self.output if self.finished else self.draft

    def claim(
        self,
        kind: str,
        job: Spec,
        paths: Mapping[str, str | None],
        discard: bool = False,
        how: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Take the folder for a job, or find it again.

        Args:
            kind: of job, e.g. "segment"; `emloom retry` finds the task by it.
            job: what is computed.
            paths: the job's inputs by name, e.g. {"affinities": "pred.zarr/affinities"}; None where there is none.
            discard: delete what another job left here instead of refusing.
            how: what else decides the bits, e.g. {"backend": "torch"}.

        Returns:
            The fingerprint of every input, by name.

        Raises:
            InputError: an input is missing; the folder holds the result of another job, or of inputs that have
                changed since, or something that emloom has not made; another process is at work in it.
        """
        inputs = {name: fingerprint(path) for name, path in paths.items() if path is not None}
        record = {"kind": kind, "emloom": __version__, "how": dict(how or {}), "job": job.to_dict()}
        record["inputs"] = inputs
        if (self.draft / RECORD).parent.is_dir():
            work_alone(self.draft / RECORD.parent)
        try:
            if os.path.lexists(self.output):
                self._require_same(self.output, record)
            elif os.path.lexists(self.draft):
                self._require_same(self.draft, record)
        except InputError:
            if not discard:
                raise
            self.discard()
        if not self.folder.exists():
            with explained(self.output):
                (self.draft / RECORD).parent.mkdir(parents=True, exist_ok=True)
            work_alone(self.draft / RECORD.parent)
            write_text_atomic(self.draft / RECORD, json.dumps(record, indent=2))
        return inputs

    def reassign(self, kind: str, job: Spec, paths: Mapping[str, str | None]) -> None:
        """Say that an unfinished result belongs to another job of the same inputs, whose task knows what to keep.

        Inputs that have changed stay as they were recorded: `claim` refuses them then, as ever.
        """
        record = _read(self.draft)
        kept = {name: record["inputs"][name] for name, path in paths.items() if path and name in record["inputs"]}
        record |= {"kind": kind, "job": job.to_dict(), "inputs": kept}
        write_text_atomic(self.draft / RECORD, json.dumps(record, indent=2))

    def record(self) -> dict[str, Any]:
        """Return kind, job and fingerprints of the inputs, as they were claimed.

        Raises:
            InputError: nothing was ever made here, or the record is damaged.
        """
        if not self.folder.exists():
            raise InputError(f"neither {self.output} nor {self.draft} exists: check the path")
        return _read(self.folder)

    def finish(self) -> None:
        """Give the result its final name: from now on it is whole."""
        if not self.finished:
            with explained(self.output):
                self.draft.rename(self.output)

    def discard(self) -> None:
        """Delete the result, whole or not; raises `InputError` where emloom has not made it."""
        for folder in (self.output, self.draft):
            if os.path.lexists(folder):
                _read(folder)
                with explained(folder, "delete"):
                    shutil.rmtree(folder)

    def _require_same(self, folder: Path, record: Mapping[str, Any]) -> None:
        if not (folder / RECORD).is_file():
            if folder == self.draft and _is_bare(folder):
                shutil.rmtree(folder)  # a crash before the record was written: nothing was computed yet
                return
            refuse_existing(folder)
        before = _read(folder)
        way_out = "choose another output, or pass --overwrite to replace it"
        differing = _differences(_decisive(before), _decisive(record))
        if differing:
            raise InputError(f"{folder} belongs to another job ({'; '.join(differing[:3])}): {way_out}")
        for name, mark in record["inputs"].items():
            if before["inputs"].get(name) != mark:
                path = record["job"].get(name, name)
                raise InputError(
                    f"{folder} was made from {name} {path} as it was before; it has changed since: {way_out}"
                )


def _is_bare(folder: Path) -> bool:
    """Whether a folder holds no file but, at most, the beginning of a record."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    return all(path.parent == folder / RECORD.parent and path.name.startswith(".") for path in files)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{folder} holds no {RECORD}: it was not made block by block by emloom")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: record[name] for name in ("kind", "emloom", "how", "job", "inputs")}
    except (ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{path} is damaged ({problem!r}): delete {folder} and run the job again") from None


def _decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    job = {name: value for name, value in record["job"].items() if name != "output"}
    return {"kind": record["kind"], "emloom": record["emloom"], **record["how"], **job}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """Return "key was a, is b" of every value that differs."""
    out = []
    for key in sorted({*before, *now}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += _differences(a, b, f"{path}{key}.")
        elif a != b:
            out.append(f"{path}{key} was {_short(a)}, is {_short(b)}")
    return out


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
