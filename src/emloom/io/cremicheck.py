"""Everything that is wrong with a CREMI file before somebody scores it: a list, not the first problem.

What cremi_python (https://github.com/cremi/cremi_python), the challenge's reference implementation, reads and
silently misunderstands::

    clefts with 0 as background     scored as a cleft everywhere: CREMI's background is 0xffffffffffffffff
    a volume of another size        compared voxel by voxel with a truth it does not fit
    partners of unknown sites       a lookup that fails after the upload
    a site outside                  likewise; sites are looked up in voxel floor(position / voxel size + 1/2)

Nothing here raises for what a file holds; only a file that cannot be read at all is an `InputError`. Volumes are
read slab by slab.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.grid import Vec3, as_nm
from emloom.io import hdf5
from emloom.io.annotations import POST, PRE
from emloom.io.cremi import CLEFTS, NEURON_IDS, OUTSIDE, TRANSPARENT

PARTNERS = "annotations/presynaptic_site/partners"
_FILE_FORMAT = "0.2"
_SLAB_VOXELS = 1 << 24
_SUSPICIOUS = 0.5


class Remark(NamedTuple):
    """One thing that was looked at: how bad, what, what was found, what to do about it."""

    level: Literal["ok", "warning", "error"]
    what: str
    text: str
    fix: str | None = None


@dataclass(frozen=True)
class Expected:
    """What the volumes of a submission must be.

    Attributes:
        shape: voxels (z, y, x); None: any, but all alike.
        voxel_size_nm: (z, y, x) in nm.
        offset_nm: world position (z, y, x) in nm of the first voxel's corner; None: any.
    """

    shape: Vec | None = None
    voxel_size_nm: Vec3 = (40.0, 4.0, 4.0)
    offset_nm: Vec3 | None = None


def check(path: str | Path, expected: Expected | None = None) -> list[Remark]:
    """Return all remarks about a CREMI file; see the module.

    Args:
        path: the HDF5 file.
        expected: what its volumes must be.

    Raises:
        InputError: the file does not exist or is no HDF5.
    """
    file, wanted = Path(path), expected or Expected()
    if not file.is_file():
        raise InputError(f"{path} does not exist: give the HDF5 file of a submission")
    with hdf5.opened(file, "r") as h5:
        return [*_file(h5), *_volumes(h5, wanted), *_annotations(h5, wanted)]


def _file(h5: h5py.File) -> Iterator[Remark]:
    stated = h5.attrs.get("file_format")
    stated = stated.decode("utf-8", "replace") if isinstance(stated, bytes) else stated
    if stated != _FILE_FORMAT:
        fix = f'set the attribute file_format of the file to "{_FILE_FORMAT}"'
        yield Remark("error", "file_format", f"is {stated!r}, not {_FILE_FORMAT!r}", fix)
    if not any(name in h5 for name in (CLEFTS, NEURON_IDS, PARTNERS)):
        yield Remark("error", "file", f"holds none of {CLEFTS}, {NEURON_IDS} and {PARTNERS}: nothing to score")


# ---- volumes ----------------------------------------------------------------------------------------------------


def _volumes(h5: h5py.File, expected: Expected) -> Iterator[Remark]:
    shapes = {}
    for name in (CLEFTS, NEURON_IDS):
        if name not in h5:
            continue
        node = h5[name]
        if not isinstance(node, h5py.Dataset) or node.ndim != 3 or 0 in node.shape:
            what = f"an array of shape {node.shape}" if isinstance(node, h5py.Dataset) else "a group"
            yield Remark("error", name, f"is {what}", "store an array of z, y, x with at least one voxel")
            continue
        shapes[name] = node.shape
        remarks = [*_metadata(node, name, expected), *_values(node, name)]
        yield from remarks
        if not any(r.level == "error" for r in remarks):
            yield Remark("ok", name, f"{' x '.join(map(str, node.shape))} {node.dtype}")
    if len(set(shapes.values())) > 1:
        yield Remark("error", "volumes", f"differ in shape: {shapes}", "crop them to the same box")


def _metadata(node: h5py.Dataset, name: str, expected: Expected) -> Iterator[Remark]:
    if node.dtype != np.uint64:
        yield Remark("error", name, f"stores {node.dtype}", "store uint64, as the format demands")
    if expected.shape is not None and node.shape != tuple(expected.shape):
        yield Remark(
            "error",
            name,
            f"is {node.shape}, not {tuple(expected.shape)}",
            "crop the prediction to the box of the labels, which begins at their offset in a padded file",
        )
    yield from _resolution(node, name, expected)
    offset, problem = _offset(node)
    if problem is not None:
        yield Remark("error", name, problem, "store three finite numbers, z, y, x in nm")
    elif expected.offset_nm is not None and not np.allclose(offset, expected.offset_nm, rtol=0, atol=1e-3):
        text = f"lies at {offset} nm, not at {tuple(expected.offset_nm)} nm"
        yield Remark("error", name, text, "set its attribute offset, or crop at the right place")


def _resolution(node: h5py.Dataset, name: str, expected: Expected) -> Iterator[Remark]:
    fix = f"set its attribute resolution to {expected.voxel_size_nm} (z, y, x; nm)"
    if "resolution" not in node.attrs:
        yield Remark("error", name, "has no attribute resolution", fix)
        return
    try:
        stated = as_nm(np.ravel(node.attrs["resolution"]).tolist(), "resolution")
    except InputError as problem:
        yield Remark("error", name, str(problem), fix)
        return
    if not np.allclose(stated, expected.voxel_size_nm, rtol=1e-6, atol=0):
        yield Remark("error", name, f"has voxels of {stated} nm, not {tuple(expected.voxel_size_nm)} nm", fix)


def _offset(node: Any) -> tuple[Vec3, str | None]:
    """Return the offset of a dataset or group, and what is wrong with it; without the attribute it is 0."""
    try:
        return as_nm(np.ravel(node.attrs.get("offset", (0.0, 0.0, 0.0))).tolist(), "offset"), None
    except InputError as problem:
        return (0.0, 0.0, 0.0), str(problem)


def _values(node: h5py.Dataset, name: str) -> Iterator[Remark]:
    if node.dtype.kind not in "iu":
        return
    counts: Counter[str] = Counter()
    low, high = None, None
    step = max(1, _SLAB_VOXELS // max(1, node.shape[1] * node.shape[2]))
    for z in range(0, node.shape[0], step):
        slab = node[z : z + step]
        counts["zero"] += int(np.count_nonzero(slab == 0))
        if node.dtype == np.uint64:
            transparent = int(np.count_nonzero(slab == TRANSPARENT))
            counts["transparent"] += transparent
            counts["special"] += int(np.count_nonzero(slab >= OUTSIDE)) - transparent
        low = int(slab.min()) if low is None else min(low, int(slab.min()))
        high = int(slab.max()) if high is None else max(high, int(slab.max()))
    describe = _clefts if name == CLEFTS else _neurons
    yield from describe(counts, node.size, low == high)


def _clefts(counts: Counter[str], n: int, uniform: bool) -> Iterator[Remark]:
    clefts = n - counts["transparent"]
    if counts["zero"] and not counts["transparent"]:
        yield Remark(
            "error",
            CLEFTS,
            f"has {counts['zero']} voxels of 0 and none of 0xffffffffffffffff: all of it is scored as a cleft",
            "store 0xffffffffffffffff as background",
        )
    elif counts["zero"]:
        text = f"has {counts['zero']} voxels of 0 beside the background 0xffffffffffffffff: they count as clefts"
        yield Remark("warning", CLEFTS, text, "store 0xffffffffffffffff where 0 means background")
    if clefts / n > _SUSPICIOUS:
        yield Remark("warning", CLEFTS, f"{clefts / n:.0%} of its voxels are clefts", "look at it once more")
    if clefts == 0:
        yield Remark("warning", CLEFTS, "has no cleft at all: its distances are not defined")
    if counts["special"]:
        text = f"has {counts['special']} voxels of the special values INVALID or OUTSIDE: they count as clefts"
        yield Remark("warning", CLEFTS, text, "decide: cleft or background")


def _neurons(counts: Counter[str], n: int, uniform: bool) -> Iterator[Remark]:
    special = counts["special"] + counts["transparent"]
    if special:
        text = f"has {special} voxels of CREMI's special values: in a result they are segments like any other"
        yield Remark("warning", NEURON_IDS, text, "store 0, or an id")
    if uniform:
        yield Remark("warning", NEURON_IDS, "is one segment throughout")


# ---- annotations ------------------------------------------------------------------------------------------------


class _Sites(NamedTuple):
    ids: NDArray[Any]
    types: tuple[str, ...] | None
    locations: NDArray[np.float64] | None


def _annotations(h5: h5py.File, expected: Expected) -> Iterator[Remark]:
    if "annotations" not in h5:
        return
    group = h5["annotations"]
    if not isinstance(group, h5py.Group):
        yield Remark("error", "annotations", "is no group", "store a group with ids, types, locations, partners")
        return
    remarks: list[Remark] = []
    offset, problem = _offset(group)
    if problem is not None:
        remarks.append(Remark("error", "annotations", problem, "store three finite numbers, z, y, x in nm"))
    ids = _table(group, "ids", (), np.uint64, remarks)
    sites = _Sites(
        np.zeros(0, np.uint64) if ids is None else ids,
        _types(group, remarks),
        _table(group, "locations", (3,), np.float64, remarks),
    )
    remarks += [*_lengths(sites), *_words(sites), *_places(h5, sites, offset, expected)]
    partners = _table(group, "presynaptic_site/partners", (2,), np.uint64, remarks)
    if partners is not None:
        remarks += _pairs(sites, partners)
    yield from remarks
    if not any(r.level == "error" for r in remarks):
        text = f"{len(sites.ids)} sites, {0 if partners is None else len(partners)} pairs"
        yield Remark("ok", "annotations", text)


def _table(
    group: h5py.Group, name: str, columns: tuple[int, ...], dtype: Any, remarks: list[Remark]
) -> NDArray[Any] | None:
    """Return a table of numbers, None with a remark where it is missing or something else."""
    what = f"annotations/{name}"
    node = group.get(name)
    if not isinstance(node, h5py.Dataset):
        remarks.append(Remark("error", what, "is missing", f"store {np.dtype(dtype)} of shape {('n', *columns)}"))
        return None
    if node.size == 0:
        return np.zeros((0, *columns), dtype)
    if node.shape[1:] != columns or node.dtype.kind not in "iuf":
        text = f"is {node.dtype} of shape {node.shape}"
        remarks.append(Remark("error", what, text, f"store {np.dtype(dtype)} of shape {('n', *columns)}"))
        return None
    if node.dtype != dtype:
        remarks.append(Remark("error", what, f"stores {node.dtype}", f"store {np.dtype(dtype)}"))
    return np.asarray(node[()])


def _types(group: h5py.Group, remarks: list[Remark]) -> tuple[str, ...] | None:
    node = group.get("types")
    if isinstance(node, h5py.Dataset) and node.size == 0:
        return ()
    if not isinstance(node, h5py.Dataset) or h5py.check_string_dtype(node.dtype) is None:
        what = "is missing" if node is None else "holds no text"
        remarks.append(Remark("error", "annotations/types", what, f"store {PRE} or {POST} for every id"))
        return None
    return tuple(str(word) for word in np.ravel(node.asstr()[()]))


def _lengths(sites: _Sites) -> Iterator[Remark]:
    n = len(sites.ids)
    for name, column in (("types", sites.types), ("locations", sites.locations)):
        if column is not None and len(column) != n:
            text = f"has {len(column)} rows for {n} ids"
            yield Remark("error", f"annotations/{name}", text, "store one row per id, in the order of ids")
    twice = [i for i, times in Counter(sites.ids.tolist()).items() if times > 1]
    if twice:
        text = f"{len(twice)} ids stand twice, the first is {twice[0]}"
        yield Remark("error", "annotations/ids", text, "give every site an id of its own")


def _words(sites: _Sites) -> Iterator[Remark]:
    strange = sorted(set(sites.types or ()) - {PRE, POST})
    if strange:
        yield Remark("error", "annotations/types", f"holds {strange[0]!r}", f"use {PRE} and {POST}")


def _places(h5: h5py.File, sites: _Sites, offset: Vec3, expected: Expected) -> Iterator[Remark]:
    if sites.locations is None:
        return
    what = "annotations/locations"
    finite = np.isfinite(sites.locations).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        text = f"{np.count_nonzero(~finite)} are not finite, the first in row {row}"
        yield Remark("error", what, text, "store z, y, x in nm")
    shape, grid = _region(h5, expected)
    if shape is None:
        return
    world = sites.locations[finite] + np.array(offset) - np.array(grid.offset_nm)
    at = np.floor(world / np.array(grid.voxel_size_nm) + 0.5)
    outside = ((at < 0) | (at >= np.array(shape))).any(axis=1)
    if outside.any():
        row = int(np.flatnonzero(finite)[np.flatnonzero(outside)[0]])
        text = (
            f"{np.count_nonzero(outside)} lie outside the volume of {tuple(shape)} voxels at {grid.offset_nm} nm, "
            f"the first in row {row} at {tuple(sites.locations[row].tolist())} nm from {offset} nm"
        )
        yield Remark("error", what, text, "leave those sites out, or mend the offset of annotations or volumes")


def _region(h5: h5py.File, expected: Expected) -> tuple[Vec | None, Grid]:
    """Return the shape (None where nothing says it) and the grid of the volume that sites must lie in."""
    node = next((h5[n] for n in (NEURON_IDS, CLEFTS) if isinstance(h5.get(n), h5py.Dataset)), None)
    stated = _offset(node)[0] if node is not None else (0.0, 0.0, 0.0)
    offset = stated if expected.offset_nm is None else expected.offset_nm
    shape = expected.shape
    if shape is None and node is not None and node.ndim == 3:
        shape = (node.shape[0], node.shape[1], node.shape[2])
    return shape, Grid(expected.voxel_size_nm, offset)


def _pairs(sites: _Sites, partners: NDArray[Any]) -> Iterator[Remark]:
    known = set(sites.ids.tolist())
    pairs = [(pre, post) for pre, post in partners.tolist()]
    strangers = sorted({i for pair in pairs for i in pair} - known)
    if strangers:
        text = f"name {len(strangers)} sites that do not exist, the first is {strangers[0]}"
        yield Remark("error", PARTNERS, text, "add the sites, or leave the pairs out")
    if sites.types is not None and len(sites.types) == len(sites.ids):
        kind = dict(zip(sites.ids.tolist(), sites.types, strict=True))
        wrong = [p for p in pairs if {*p} <= known and (kind[p[0]], kind[p[1]]) != (PRE, POST)]
        if wrong:
            text = f"{len(wrong)} are not a pre and a post site, the first is {wrong[0]}"
            yield Remark("error", PARTNERS, text, "store (pre id, post id)")
    twice = sum(times - 1 for times in Counter(pairs).values())
    if twice:
        yield Remark("warning", PARTNERS, f"{twice} stand twice: all but one of each count as false positives")
    if not pairs:
        yield Remark("warning", PARTNERS, "has no pair at all: recall is 0")
