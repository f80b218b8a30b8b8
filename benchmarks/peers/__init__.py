"""Run another library on the same arrays, from an environment of its own, in turn with ours.

    with Peer("gunpowder_affinities.py", {"labels": labels}, step=2) as peer:
        seconds = peer.seconds()          # CPU seconds of one round; call it as often as you like
        theirs = peer.results()           # what the last round returned, by name

A peer script lies in this folder, imports the peer's library only, and defines ``prepare(inputs, options)``, which
gets arrays by name and returns a function without arguments: one round, which returns arrays by name. Making
inputs into what the library wants belongs into ``prepare`` and is not timed. `worker.py` calls both.

The environment is ``.venv-peers-gunpowder``, or ``.venv-peers-webknossos`` with ``home="webknossos"`` (``make
peers``), or the Python that EMLOOM_PEERS_GUNPOWDER or EMLOOM_PEERS_WEBKNOSSOS names; with ``home=""`` the judges'
own, ``.venv-peers`` or EMLOOM_PEERS. It runs on one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "BLOSC", "VECLIB")
}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send C's stdout, where waterz reports, to nowhere."""
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def python(home: str) -> Path:
    """Return the Python that has the peers, or end the benchmark with the way out."""
    default = HERE.parents[1] / (f".venv-peers-{home}" if home else ".venv-peers") / "bin" / "python"
    found = Path(os.environ.get(f"EMLOOM_PEERS_{home.upper()}" if home else "EMLOOM_PEERS", default))
    if not found.is_file():
        raise SystemExit(f"no Python with {home or 'the judges'} at {found}: run `make peers`")
    return found


class Peer:
    """A peer script that has its inputs and waits for the next round."""

    def __init__(
        self, script: str, inputs: dict[str, NDArray[Any]], *, home: str = "gunpowder", **options: Any
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="emloom-peer-")
        path = Path(self._folder.name)
        (path / "options.json").write_text(json.dumps(options))
        (path / "inputs").mkdir()
        (path / "results").mkdir()
        for name, array in inputs.items():
            np.save(path / "inputs" / f"{name}.npy", array)
        # -P: the folder of the script is no place to import from.
        command = [python(home), "-P", HERE / "worker.py", HERE / script, path]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
        )
        self._answer()

    def seconds(self) -> float:
        """Run one round; return its CPU seconds."""
        return float(self._ask("round")["seconds"])

    def results(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the last round."""
        self._ask("save")
        folder = Path(self._folder.name) / "results"
        return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}

    def _ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with status {self._process.wait()}: its message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._folder.cleanup()
