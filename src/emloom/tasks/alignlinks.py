"""How the sections of a stack lie on each other, block by block: the first stage of `emloom align`.

::

    links      raw -> links/z_y_x.parquet            per pair of sections: displacement, its error
                      links/z_y_x.sections.parquet   per section: how much is usable, contrast, detail

A block is a run of sections, each compared with some that follow, and with the reference where that is near. Every
section is read and prepared once in its block, and once more where the block before reaches into it. As many
sections are held at a time as lags reach over: what is prepared of them, 4 MB at most, and the pictures of large
ones, whose links are made precise at full resolution.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Vec, blocks
from emloom.io.tables import read_table, write_table
from emloom.ops.fullresolution import refine
from emloom.ops.preparedsections import Prepared, prepare
from emloom.ops.sectionshifts import Link, link
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.alignsource import Source
from emloom.tasks.alignspec import FARTHEST

STAGE = "links"
DEPTH = FARTHEST
"""Sections of a block: none is compared with one beyond the next block."""
LINKS: dict[str, Any] = {
    "first": np.int64,
    "second": np.int64,
    **dict.fromkeys(("dy", "dx", "error", "correlation", "sigmas", "overlap"), np.float64),
    "known": np.int64,
}
_PRECISE = 2  # pixels of the raw per fine pixel up to which links are precise without a second look
Table = dict[str, NDArray[Any]]


class Measured(NamedTuple):
    """What is known of a section by itself; see `emloom.ops.preparedsections.Prepared`."""

    usable: float
    contrast: float
    detail: float


SECTIONS: dict[str, Any] = {"z": np.int64, **dict.fromkeys(Measured._fields, np.float64)}


@dataclass(frozen=True)
class LinkBlock:
    """Compares the sections of one block; a small value that travels to workers.

    Attributes:
        source: the stack.
        folder: of the result.
        lags: how many sections further on those are that a section is compared with.
        reference: a section that others are compared with, too.
        reach: how far from it these are at most; 0: none is.
    """

    source: Source
    folder: Path
    lags: tuple[int, ...]
    reference: int
    reach: int

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the tables of a block."""
        start, stop = block.write.start[0], block.write.stop[0]
        n = self.source.frame.shape[0]
        origin = self._reference(start, stop)
        recent: deque[_Held] = deque(maxlen=max(self.lags))
        links, sections = [], []
        for z, section, usable in self.source.sections(start, min(stop + max(self.lags), n)):
            here = _Held.of(z, section, usable)
            links += [_row(o.z, z, o.link(here)) for o in recent if z - o.z in self.lags and o.z < stop]
            recent.append(here)
            if z >= stop:
                continue
            said = here.prepared
            sections.append(dict(zip(SECTIONS, (z, said.usable, said.contrast, said.detail), strict=True)))
            if origin is not None and self._is_far(z):
                links.append(_row(self.reference, z, origin.link(here)))
        tables = {"": _columns(links, LINKS), ".sections": _columns(sections, SECTIONS)}
        return [self._write(block.index, part, table) for part, table in tables.items()]

    def _is_far(self, z: int) -> bool:
        """Whether a section is to be compared with the reference, and is not anyway."""
        return 0 < abs(z - self.reference) <= self.reach and abs(z - self.reference) not in self.lags

    def _reference(self, start: int, stop: int) -> _Held | None:
        if not any(self._is_far(z) for z in range(start, stop)):
            return None
        return _Held.of(*next(self.source.sections(self.reference, self.reference + 1)))

    def _write(self, index: Vec, part: str, table: Table) -> Output:
        place = f"{STAGE}/{name_of(index)}{part}.parquet"
        write_table(self.folder / place, table)
        return Output.file(self.folder, place)


@dataclass(frozen=True, eq=False)
class _Held:
    """A section while others are compared with it; its picture only where more precision is in it."""

    z: int
    prepared: Prepared
    picture: NDArray[Any] | None

    @classmethod
    def of(cls, z: int, section: NDArray[Any], usable: NDArray[np.bool_] | None) -> _Held:
        prepared = prepare(section, usable)
        return cls(z, prepared, section if prepared.factors[0] > _PRECISE else None)

    def link(self, other: _Held) -> Link:
        """Return how another section lies on this one."""
        found = link(self.prepared, other.prepared)
        a, b = self.picture, other.picture
        if a is None or b is None:
            return found
        return refine(
            found,
            self.prepared.shape,
            lambda y0, y1, x0, x1: a[y0:y1, x0:x1],
            lambda y0, y1, x0, x1: b[y0:y1, x0:x1],
        )


def link_blocks(source: Source) -> list[Block]:
    """Return the blocks of the stage."""
    _, rows, columns = source.frame.shape
    return blocks(source.frame.box, (DEPTH, rows, columns))


def read_links(folder: Path, cells: Iterable[Block]) -> tuple[Table, list[Measured]]:
    """Return what the stage wrote: links in order of their sections (columns `LINKS`), and sections in order."""
    names = [name_of(block.index) for block in cells]
    links, sections = (
        _joined([read_table(folder / STAGE / f"{name}{end}.parquet").columns for name in names])
        for end in ("", ".sections")
    )
    order = np.lexsort((links["second"], links["first"]))
    rows = zip(*(sections[name].tolist() for name in Measured._fields), strict=True)
    return {key: column[order] for key, column in links.items()}, [Measured(*row) for row in rows]


def links_of(table: Table) -> tuple[list[tuple[int, int]], list[Link]]:
    """Return the pairs of sections in a table, and how they lie on each other."""
    rows = list(zip(*(table[name].tolist() for name in LINKS), strict=True))
    found = [
        Link((dy, dx), error, correlation, sigmas, overlap, bool(known))
        for _, _, dy, dx, error, correlation, sigmas, overlap, known in rows
    ]
    return [(first, second) for first, second, *_ in rows], found


def _joined(parts: list[Mapping[str, NDArray[Any]]]) -> Table:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _row(first: int, second: int, found: Link) -> dict[str, float]:
    shift = (*found.shift, found.error, found.correlation, found.sigmas, found.overlap)
    return dict(zip(LINKS, (first, second, *shift, int(found.is_known)), strict=True))


def _columns(rows: list[dict[str, Any]], types: dict[str, Any]) -> Table:
    return {name: np.array([row[name] for row in rows], dtype) for name, dtype in types.items()}
