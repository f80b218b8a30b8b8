"""What has been done: one marker per stage, written last, keyed by what went in.

A stage may be skipped exactly if its marker exists and its key — a hash of its parameters, of the fingerprints
of its inputs and of the keys of the stages before it — is the one we would write now. A marker with another key
means that the folder holds another job: that is an error, never a silent reuse or overwrite.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.io.files import write_text_atomic


@dataclass(frozen=True)
class Marker:
    """The record of a finished stage."""

    stage: str
    key: str
    seconds: float


class Journal:
    """Markers of the stages of one output folder.

    Args:
        folder: the output folder; markers live in its `markers/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "markers"

    def marker(self, stage: str) -> Marker | None:
        """Return the marker of a stage, or None.

        Raises:
            InputError: the marker is damaged.
        """
        path = self._folder / f"{stage}.json"
        try:
            return Marker(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as problem:
            raise InputError(f"the marker {path} is damaged ({problem}): delete it to run {stage} again") from None

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the stage was finished with this very key.

        Raises:
            InputError: it was finished with other parameters or inputs.
        """
        marker = self.marker(stage)
        if marker is None:
            return False
        if marker.key != key:
            raise InputError(
                f"{self._folder.parent} holds stage {stage!r} of another job (its parameters or inputs changed): "
                "choose another output folder, or pass --overwrite to run this stage and all after it again"
            )
        return True

    @contextmanager
    def record(self, stage: str, key: str) -> Iterator[None]:
        """Time a stage and write its marker if, and only if, the body succeeds."""
        start = time.perf_counter()
        yield
        marker = {"stage": stage, "key": key, "seconds": round(time.perf_counter() - start, 3)}
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self._folder / f"{stage}.json", json.dumps(marker))

    def forget(self, stage: str) -> None:
        """Remove the marker of a stage, so that it runs again."""
        (self._folder / f"{stage}.json").unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """Return a short hash of plain JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
