"""Clefts of two volumes of any size, scored block by block: the same numbers, bit for bit, as at once.

::

    truth, result, mask ─► clefts/count/z_y_x.json: voxels that count, of each kind, and their bounding box
                        ─► clefts/distance/z_y_x.json: exact sums of distances (`metrics.clefttally`) ─► scores

The barrier in between says whether there is anything to be near to, and how far one ever has to look: the bounding
box of all clefts. Blocks without a cleft are read once and never again. Background is 0, as in every volume that
emloom opens; CREMI's clefts bring along what their truth ignores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, Vec, blocks
from emloom.io.checks import require_labels
from emloom.io.cremi import VALID, CremiLabels
from emloom.io.files import write_text_atomic
from emloom.io.open import open_volume
from emloom.io.volume import Volume, borrow
from emloom.metrics.clefts import CleftScores, cleft_masks, scores_of
from emloom.metrics.clefttally import (
    BLOCK_VOX,
    Bools,
    CleftOptions,
    CleftTally,
    Side,
    bounding_box,
    tally_block,
)
from emloom.run.blockjournal import ROOT, name_of
from emloom.run.executor import Executor
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.tasks.lattice import common_box

FORMAT = 1
CELL: Vec = BLOCK_VOX
"""Voxels asked at once."""

OnBlock = Callable[[int, int], None]
_STAGES = ("cleft-count", "cleft-distance")
_EMPTY = Box((0, 0, 0), (0, 0, 0))


@dataclass(frozen=True)
class CleftPaths:
    """Which clefts are compared.

    Attributes:
        truth: path of the true clefts.
        found: path of the clefts found; its box lies in that of the truth, and nothing beyond it counts.
        mask: path of a volume that is not 0 where voxels count.
    """

    truth: str
    found: str
    mask: str | None = None

    @property
    def paths(self) -> dict[str, str]:
        """The inputs by name."""
        named = {"true clefts": self.truth, "found clefts": self.found, "cleft mask": self.mask}
        return {name: path for name, path in named.items() if path is not None}

    def check(self) -> None:
        """Raise `InputError` where volumes hold no labels, or do not lie on one grid."""
        OpenClefts.of(self)

    def cells(self) -> list[Block]:
        """Return the blocks of the result."""
        return blocks(open_volume(self.found).info.box, CELL)


@dataclass(frozen=True)
class OpenClefts:
    """Two volumes of clefts, and what says where they count, with the box of the result in each.

    Attributes:
        truth: true clefts.
        found: clefts found.
        known: masks, not 0 where voxels count.
    """

    truth: tuple[Volume, Box]
    found: Volume
    known: tuple[tuple[Volume, Box], ...]

    @classmethod
    def of(cls, paths: CleftPaths) -> OpenClefts:
        """Open the volumes; raises `InputError` as `CleftPaths.check`."""
        truth, found = open_volume(paths.truth), open_volume(paths.found)
        for volume in (truth, found):
            require_labels(volume)
        known = [] if paths.mask is None else [open_volume(paths.mask, kind="mask")]
        if isinstance(truth, CremiLabels):
            known.append(open_volume(f"{truth.info.source}/{VALID}"))
        return cls(
            (truth, common_box(found, truth)), found, tuple((mask, common_box(found, mask)) for mask in known)
        )

    def read(self, box: Box) -> tuple[Bools, Bools, Bools]:
        """Return where the truth and the result are a cleft that counts, and where anything counts."""
        truth = _part(self.truth, box)
        known = np.ones(box.shape, np.uint8)
        for mask in self.known:
            known &= _part(mask, box) != 0
        return cleft_masks(truth, borrow(self.found, box), known, zero_is_background=True)

    def ids(self, box: Box) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the ids of the truth and of the result, whether they count or not."""
        return _part(self.truth, box).astype(np.uint64), borrow(self.found, box).astype(np.uint64)

    def clefts(self, box: Box) -> tuple[Bools, Bools]:
        """Return where the truth and the result are a cleft that counts."""
        truth, found, _ = self.read(box)
        return truth, found


@dataclass(frozen=True)
class CountClefts:
    """Counts the voxels of one block."""

    paths: CleftPaths
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the counts, and the bounding box of the clefts."""
        truth, found, known = OpenClefts.of(self.paths).read(block.write)
        hull = bounding_box(truth | found)
        hull = _EMPTY if hull.is_empty else hull.shift(block.write.start)
        counts = {"known": known, "truth": truth, "found": found}
        words = {name: int(np.count_nonzero(where)) for name, where in counts.items()}
        return [_written(self.folder, "count", block, words | {"hull": [hull.start, hull.shape]})]


@dataclass(frozen=True)
class MeasureClefts:
    """Adds up the distances of one block.

    Attributes:
        paths: what is compared.
        folder: where the sums go.
        hull: bounding box of all clefts of both sides.
        spacing_nm: voxel size.
        options: the limits.
    """

    paths: CleftPaths
    folder: Path
    hull: Box
    spacing_nm: tuple[float, float, float]
    options: CleftOptions

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the sums."""
        box = block.write.intersect(self.hull)
        read = OpenClefts.of(self.paths).clefts
        tally = tally_block(read, self.hull, box, self.spacing_nm, self.options)
        return [_written(self.folder, "distance", block, asdict(tally))]


def score_clefts(
    paths: CleftPaths,
    options: CleftOptions,
    folder: Path,
    executor: Executor,
    on_block: OnBlock | None = None,
) -> CleftScores:
    """Score clefts; what an interrupted run has counted already is not counted again.

    Args:
        paths: what is compared.
        options: the limits.
        folder: where blocks write, below ``clefts/``.
        executor: where blocks run.
        on_block: called with (blocks done, blocks in all), for either pass over the blocks.

    Raises:
        InputError: volumes hold no labels, or do not lie on one grid.
    """
    paths.check()
    inputs = {name: fingerprint(path) for name, path in paths.paths.items()}
    key = key_of(FORMAT, asdict(paths), asdict(options), inputs, CELL)
    forget(folder, key, _STAGES, "clefts")
    cells, spacing = paths.cells(), open_volume(paths.found).info.grid.voxel_size_nm
    run_stage(Stage(_STAGES[0], key, cells, CountClefts(paths, folder)), folder, executor, progress=on_block)
    counts = {cell.index: _read(folder, "count", cell) for cell in cells}
    n_known, n_truth, n_found = (
        sum(count[name] for count in counts.values()) for name in ("known", "truth", "found")
    )
    if not (n_truth and n_found):
        # Nothing to be near to: everything is beyond any limit.
        found, truth = (Side(n, n, n) for n in (n_found, n_truth))
        return scores_of(CleftTally(found, truth, n_truth + n_found), n_known)
    hulls = {index: Box(*(tuple(v) for v in count["hull"])) for index, count in counts.items()}
    filled = [cell for cell in cells if not hulls[cell.index].is_empty]
    hull = _EMPTY
    for cell in filled:
        hull = hull.hull(hulls[cell.index])
    work = MeasureClefts(paths, folder, hull, spacing, options)
    run_stage(Stage(_STAGES[1], key, filled, work), folder, executor, progress=on_block)
    return scores_of(sum((_tally(_read(folder, "distance", cell)) for cell in filled), CleftTally()), n_known)


def _part(placed: tuple[Volume, Box], box: Box) -> Any:
    volume, where = placed
    return borrow(volume, box.shift(where.start))


def forget(folder: Path, key: str, stages: Sequence[str], what: str) -> None:
    """Remove the counts of another comparison: they are cheap to make again, and of no use for this one.

    Args:
        folder: of the evaluation.
        key: of this comparison.
        stages: names of its stages.
        what: name of the folder of its counts.
    """
    journals = [folder / ROOT / stage for stage in stages]
    if any(journal.exists() and not (journal / key).exists() for journal in journals):
        for journal in [*journals, folder / what]:
            shutil.rmtree(journal, ignore_errors=True)


def _file(folder: Path, what: str, index: Vec) -> Path:
    return folder / "clefts" / what / f"{name_of(index)}.json"


def _written(folder: Path, what: str, block: Block, words: Mapping[str, Any]) -> Output:
    path = _file(folder, what, block.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, json.dumps(words))
    return Output.file(folder, str(path.relative_to(folder)))


def _read(folder: Path, what: str, block: Block) -> Any:
    return json.loads(_file(folder, what, block.index).read_text(encoding="utf-8"))


def _tally(words: Mapping[str, Any]) -> CleftTally:
    return CleftTally(Side(**words["found"]), Side(**words["truth"]), words["either"])
