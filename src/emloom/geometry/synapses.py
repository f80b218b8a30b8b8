"""Synapses as a value: one row for each contact of a pre site with a post site.

A *polyad* is one pre site with several post sites (a T-bar of a fly); its rows share the polyad's id. ::

    id  polyad  pre_nm  post_nm  pre_segment  post_segment  size_vox  score
    1   1       a       b        7            9             120       0.93
    2   1       a       c        7            12            88        0.90     the same pre site, another partner
    3   2       d       e        9            7             140       0.71

Positions are world nm, z, y, x, and a site lies in the voxel that contains it (`Grid.containing`): the centre of
voxel v is at ``offset + (v + 1/2) * voxel size``. CREMI counts from half a voxel earlier (a site at
``offset + v * voxel size`` lies in voxel v); whoever reads or writes its files converts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

LARGEST_ID = 2**63 - 1
Ids = NDArray[np.uint64]
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SynapseTable:
    """Contacts of pre and post sites; see the module.

    Attributes:
        ids: uint64 [n], each once, from 1 on.
        polyads: uint64 [n], rows of the same pre site share it; from 1 on.
        pre_nm: float64 [n, 3], world positions (z, y, x) of pre sites.
        post_nm: float64 [n, 3], of post sites.
        pre_segments: uint64 [n], the segment each pre site lies in, 0 where in none.
        post_segments: uint64 [n], of the post sites.
        sizes_vox: int64 [n], voxels of the cleft, or of the post site where no cleft was found.
        scores: float32 [n], 0 to 1; 1 for what a person annotated.
        source: name shown in messages.

    Raises:
        InputError: lengths disagree, an id stands twice, is 0 or above 2**63 - 1, a position is not finite, a size
            is negative, a score is not within 0 and 1, or rows of a polyad differ in pre position or pre segment.
    """

    ids: Ids
    polyads: Ids
    pre_nm: F64
    post_nm: F64
    pre_segments: Ids
    post_segments: Ids
    sizes_vox: NDArray[np.int64]
    scores: NDArray[np.float32]
    source: str = "synapses"

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name, shape, dtype in _COLUMNS:
            given = np.asarray(getattr(self, name))
            if given.shape != (n, *shape):
                raise InputError(f"{self.source}: {name} have shape {given.shape} beside {n} ids: give a row each")
            if np.dtype(dtype).kind == "u" and (given.dtype.kind not in "iu" or (given.size and given.min() < 0)):
                raise InputError(f"{self.source}: {name} are {given.dtype}: ids are whole numbers from 0 on")
            object.__setattr__(self, name, np.ascontiguousarray(given, dtype))
        self._check_ids()
        self._check_values()
        self._check_polyads()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, source: str = "synapses") -> SynapseTable:
        """Return a table without rows."""
        columns: dict[str, Any] = {name: np.zeros((0, *shape), dtype) for name, shape, dtype in _COLUMNS}
        return cls(**columns, source=source)

    def rows(self, keep: NDArray[Any]) -> SynapseTable:
        """Return some rows, by a mask or by numbers; ids stay."""
        columns: dict[str, Any] = {name: getattr(self, name)[keep] for name, _, _ in _COLUMNS}
        return replace(self, **columns)

    def with_segments(self, pre: Ids, post: Ids) -> SynapseTable:
        """Return the same contacts between other segments; raises `InputError` as the class."""
        return replace(self, pre_segments=pre, post_segments=post)

    def _check_ids(self) -> None:
        for name in ("ids", "polyads"):
            values = getattr(self, name)
            bad = values[(values == 0) | (values > LARGEST_ID)]
            if bad.size:
                raise InputError(f"{self.source}: {int(bad[0])} in {name} is no id: ids go from 1 to 2**63 - 1")
        present, times = np.unique(self.ids, return_counts=True)
        if (times > 1).any():
            raise InputError(
                f"{self.source}: the id {int(present[times > 1][0])} stands twice: an id names one contact"
            )

    def _check_values(self) -> None:
        for name in ("pre_nm", "post_nm"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, name)).all(axis=1))
            if bad.size:
                raise InputError(
                    f"{self.source}: {name} of synapse {int(self.ids[bad[0]])} is not finite: give z, y, x in nm"
                )
        if (self.sizes_vox < 0).any():
            raise InputError(f"{self.source}: a size is {int(self.sizes_vox.min())} voxels: sizes are 0 or more")
        wrong = ~((self.scores >= 0) & (self.scores <= 1))
        if wrong.any():
            raise InputError(f"{self.source}: the score {self.scores[wrong][0]} is not within 0 and 1")

    def _check_polyads(self) -> None:
        _, first, where = np.unique(self.polyads, return_index=True, return_inverse=True)
        head = first[where]
        same = (self.pre_nm == self.pre_nm[head]).all(axis=1) & (self.pre_segments == self.pre_segments[head])
        if not same.all():
            raise InputError(
                f"{self.source}: rows of polyad {int(self.polyads[~same][0])} differ in their pre site: a polyad "
                "is one pre site with its post sites"
            )


def joined(tables: Sequence[SynapseTable], source: str = "synapses") -> SynapseTable:
    """Return the rows of several tables; of more than one, contacts and polyads are numbered anew, 1, 2, ..."""
    if len(tables) == 1:
        return replace(tables[0], source=source)
    if not any(len(table) for table in tables):
        return SynapseTable.empty(source)
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name, _, _ in _COLUMNS}
    which = np.concatenate([np.full(len(table), k, np.uint64) for k, table in enumerate(tables)])
    _, polyads = np.unique(np.stack([which, columns["polyads"]], axis=1), axis=0, return_inverse=True)
    columns["ids"] = np.arange(1, len(which) + 1, dtype=np.uint64)
    columns["polyads"] = (polyads.reshape(-1) + 1).astype(np.uint64)
    return SynapseTable(**columns, source=source)


_COLUMNS: tuple[tuple[str, tuple[int, ...], type], ...] = (
    ("ids", (), np.uint64),
    ("polyads", (), np.uint64),
    ("pre_nm", (3,), np.float64),
    ("post_nm", (3,), np.float64),
    ("pre_segments", (), np.uint64),
    ("post_segments", (), np.uint64),
    ("sizes_vox", (), np.int64),
    ("scores", (), np.float32),
)
assert [name for name, _, _ in _COLUMNS] == [f.name for f in fields(SynapseTable)][:-1]
