"""A stage made of almost nothing, for tests: every block paints its cell of a zarr volume and writes a file.

It can be told to misbehave at chosen blocks, also in processes that import this module by its name.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, Vec
from emloom.geometry.tiling import Block, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.run.journal import key_of
from emloom.run.stage import Output, Stage, file_hash

CELL = (4, 4, 4)
Mischief = Literal["raise", "input", "disk full", "too large", "die", "once", "sleep"]


def painted(box: Box, seed: int) -> NDArray[np.uint32]:
    """Return what the voxels of a box shall be, from their positions alone."""
    z, y, x = np.ogrid[*(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]
    return ((z * 1_000_003 + y * 10_007 + x * 101 + seed) % 65_521).astype(np.uint32)


@dataclass(frozen=True)
class Paint:
    """Paints a block; `mischief` says what happens at some of them, `log` counts the calls."""

    folder: Path
    seed: int = 0
    mischief: dict[Vec, Mischief] = field(default_factory=dict)
    pause_s: float = 0.0

    def __call__(self, block: Block) -> Sequence[Output]:
        name = "_".join(map(str, block.index))
        with (self.folder / "calls").open("a") as calls:  # O_APPEND: whole lines, also from several processes
            calls.write(f"{name} {os.getpid()}\n")
        MISCHIEF[self.mischief.get(block.index, "none")](self.folder / f"mischief-{name}")
        array = painted(block.write, self.seed)
        open_volume(self.folder / "painted.zarr", writable=True).write(block.write, array)
        time.sleep(self.pause_s)
        path = self.folder / "parts" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(f"{int(array.sum())}\n")
        temporary.replace(path)
        return [Output.voxels("painted.zarr", block.write, array), Output.file(self.folder, f"parts/{name}.txt")]


def _raise(problem: Callable[[], Exception], _: Path) -> None:
    raise problem()


def _grow(path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        path.write_bytes(bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def _once(path: Path) -> None:
    if not path.exists():
        path.write_text("")
        raise RuntimeError("the disk hiccuped")


MISCHIEF: dict[str, Callable[[Path], None]] = {
    "none": lambda _: None,
    "raise": partial(_raise, lambda: RuntimeError("poisoned")),
    "input": partial(_raise, lambda: __import__("emloom.errors").errors.InputError("raw.zarr is empty: fill it")),
    "disk full": partial(_raise, lambda: OSError(errno.ENOSPC, "No space left on device")),
    "too large": _grow,
    "die": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "once": _once,
    "sleep": lambda _: time.sleep(600),
}


def paint_stage(
    folder: Path,
    shape: Vec = (8, 12, 12),
    *,
    seed: int = 0,
    mischief: dict[Vec, Mischief] | None = None,
    pause_s: float = 0.0,
) -> Stage[Block]:
    """Return the stage over a volume of `shape`, and make the volume where it is not there yet."""
    if not (folder / "painted.zarr").exists():
        info = VolumeInfo(shape, np.dtype(np.uint32), Grid((8, 8, 8)), chunks=CELL)
        create_volume(folder / "painted.zarr", info)
    work = Paint(folder, seed, mischief or {}, pause_s)
    return Stage("paint", key_of("paint", shape, seed), blocks(Box.whole(shape), CELL), work)


def outcome(folder: Path) -> dict[str, str]:
    """Return the hash of every output of a run: not its memory, calls, mischief, nor what kills cut short."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.relative_to(folder).parts[0] != "run"]
    return {
        str(p.relative_to(folder)): file_hash(p)
        for p in files
        if p.name != "calls" and not p.name.startswith("mischief") and not _is_leftover(p)
    }


def _is_leftover(path: Path) -> bool:
    # What a kill cuts short keeps its temporary name: of emloom, of TensorStore, and of the parts above.
    hidden = any(".partial-" in part for part in path.parts)
    return hidden or "__lock" in path.name or (path.parent.name == "parts" and path.suffix != ".txt")


def calls(folder: Path) -> list[str]:
    """Return the names of the blocks that were begun, in order."""
    path = folder / "calls"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []
