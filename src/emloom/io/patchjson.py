"""The data-source files of genEM3: labelled boxes of an image, as JSON; read, written, and made into patches.

::

    {"datasource_0": {"id": "0", "input_path": ".../color/1", "input_bbox": [x, y, z, dx, dy, dz], "input_mean":
    148.0,
                      "input_std": 36.0, "target_class": 1.0, "target_binary": 1}, ...}          long form
    {"shared_properties": {...}, "datasource_0": {only what differs}, ...}                       short form

``target_class`` is one number, or a list of one per class: 1.0 yes, 0.0 no. What is absent is absent here too,
although genEM3 writes the text ``NaN`` in its place, which passes for a value.

A box that is larger than a patch holds a lattice of them, the first in its corner; a box that was shown with a
margin around its patch, and saved with it, is cut by `margin_vox` first (genEM3 once trained on boxes that were
not).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry.box import Box, Vec, as_vec
from emloom.geometry.grid import Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels
from emloom.geometry.skeletons import Rows
from emloom.io.files import write_text_atomic
from emloom.io.patchtables import parsed_json, read_text

PREFIX = "datasource_"
SHARED = "shared_properties"
_KEYS = (
    "id",
    "input_path",
    "input_bbox",
    "input_mean",
    "input_std",
    "target_path",
    "target_bbox",
    "target_class",
    "target_binary",
)


@dataclass(frozen=True)
class PatchSource:
    """One labelled box.

    Attributes:
        id: its name, each once in a file.
        image: path of the image the box is of.
        box: its voxels, z, y, x.
        mean: of the image, for normalisation; None where it is not stated.
        std: likewise, its standard deviation.
        target: one number per class; empty where none is stated.
        target_path: path of an image of targets, voxel by voxel.
        target_box: its voxels.
        by_class: whether the target is `target`, and not that image; None where it is not stated.
    """

    id: str
    image: str
    box: Box
    mean: float | None = None
    std: float | None = None
    target: tuple[float, ...] = ()
    target_path: str | None = None
    target_box: Box | None = None
    by_class: bool | None = None


def read_sources(path: str | Path) -> tuple[PatchSource, ...]:
    """Read a data-source file, long or short, in its order.

    Raises:
        InputError: there is no such file, it is no such file, an id stands twice, or a value is none of its kind.
    """
    path = Path(path)
    tree = parsed_json(read_text(path), str(path))
    shared = tree.pop(SHARED, {})
    if not isinstance(shared, dict) or not all(
        key.startswith(PREFIX) and isinstance(value, dict) for key, value in tree.items()
    ):
        raise InputError(
            f'{path} is no data-source file: it holds objects "{PREFIX}0", ..., and perhaps "{SHARED}"'
        )
    sources = tuple(
        _source({"id": key.removeprefix(PREFIX), **shared, **value}, f"{path}, {key}")
        for key, value in tree.items()
    )
    ids = [source.id for source in sources]
    if len(set(ids)) < len(ids):
        raise InputError(
            f"{path} has the id {next(i for i in ids if ids.count(i) > 1)!r} twice: number the sources anew"
        )
    return sources


def is_source_file(path: str | Path) -> bool:
    """Return whether a JSON file is of this form, by its keys."""
    return any(key.startswith(PREFIX) for key in parsed_json(read_text(Path(path)), str(path)))


def write_sources(
    path: str | Path, sources: Sequence[PatchSource], *, short: bool = True, overwrite: bool = False
) -> None:
    """Write a data-source file in one step; the short form says what all sources share only once.

    Raises:
        InputError: the file exists, an id stands twice, or the disk refuses.
    """
    if len({source.id for source in sources}) < len(sources):
        raise InputError(f"{path}: two sources have one id: number them anew")
    trees = {PREFIX + source.id: _tree(source) for source in sources}
    shared: dict[str, Any] = {}
    if short and len(trees) > 1:
        first = next(iter(trees.values()))
        shared = {k: v for k, v in first.items() if all(k in t and t[k] == v for t in trees.values())}
        trees = {name: {k: v for k, v in tree.items() if k not in shared} for name, tree in trees.items()}
    whole = {SHARED: shared, **trees} if shared else trees
    write_text_atomic(path, json.dumps(whole, indent=1) + "\n", overwrite=overwrite)


def patches_of_sources(
    sources: Sequence[PatchSource],
    lattice: Lattice,
    *,
    voxel_size_nm: Sequence[float],
    classes: Sequence[str] = ("debris", "myelin"),
    margin_vox: Vec = (0, 0, 0),
    source: str = "data sources",
) -> PatchLabels:
    """Return the patches of all boxes, in the order of sources and of places.

    Args:
        sources: all of one image.
        lattice: shape of a patch, and stride within a larger box; the origin is the corner of each box.
        voxel_size_nm: size of a voxel (z, y, x) of the image in nm.
        classes: names of the classes, in the order of targets; those no source has a target of are left out.
        margin_vox: what was shown around each box and is cut off, voxels (z, y, x) per side.
        source: path shown in messages.

    Returns:
        one row per patch, its source's id in the column "source"; a patch of several sources that say the same
        once.

    Raises:
        InputError: there is no source, they are of several images, have more targets than classes or another
            target than 0 or 1, are smaller than a patch, or two say different things of one patch.
    """
    _require_one_image(sources, source)
    width = max(len(s.target) for s in sources)
    if not 0 < width <= len(classes):
        raise InputError(
            f"{source} has {width} targets per source, but {len(classes)} classes: name each, in their order"
        )
    starts, said, by = [], [], []
    for number, one in enumerate(sources):
        places = _places(one, lattice, margin_vox)
        starts.append(places)
        said.append(np.tile(np.array(_labels(one, width), np.int8), (len(places), 1)))
        by.append(np.full(len(places), number))
    rows = np.column_stack([np.concatenate(starts), np.concatenate(said)])
    _, first = np.unique(rows, axis=0, return_index=True)
    kept = np.sort(first)
    at, whose = rows[kept, :3], np.concatenate(by)[kept]
    _require_no_contradiction(at, whose, sources, source)
    return PatchLabels(
        Grid((voxel_size_nm[0], voxel_size_nm[1], voxel_size_nm[2])),
        lattice.shape,
        at.astype(np.int64),
        tuple(classes[:width]),
        rows[kept, 3:].astype(np.int8),
        columns={"source": np.array([sources[k].id for k in whose.tolist()], np.str_)},
        source=source,
    )


def sources_of_patches(
    labels: PatchLabels, image: str, *, mean: float | None = None, std: float | None = None
) -> tuple[PatchSource, ...]:
    """Return one source per patch, numbered from 0, with what it takes for genEM3 to read them.

    Args:
        labels: each patch once; `PatchLabels.consensus` makes it so.
        image: path of the image the patches are of.
        mean: of the image.
        std: its standard deviation.

    Raises:
        InputError: a label is unknown, which the format cannot say, or a patch stands twice.
    """
    unknown = np.flatnonzero((labels.labels == UNKNOWN).any(axis=1))
    if unknown.size:
        raise InputError(
            f"{labels.source}: the patch at {labels.starts[unknown[0]].tolist()} (z, y, x) is unsure in some "
            f"class, and {len(unknown)} are in all: a data source says yes or no; leave those patches or classes "
            "out"
        )
    if len(np.unique(labels.starts, axis=0)) < len(labels):
        raise InputError(f"{labels.source} has a patch twice: choose one annotator, or take the consensus")
    return tuple(
        PatchSource(str(k), image, box, mean, std, tuple(map(float, said)), by_class=True)
        for k, (box, said) in enumerate(zip(labels.boxes(), labels.labels.tolist(), strict=True))
    )


def renumbered(sources: Sequence[PatchSource]) -> tuple[PatchSource, ...]:
    """Return the sources with ids 0, 1, ... in their order, so that several files become one."""
    return tuple(
        PatchSource(str(k), *[getattr(s, name) for name in list(vars(s))[1:]]) for k, s in enumerate(sources)
    )


def _source(tree: dict[str, Any], called: str) -> PatchSource:
    strange = [key for key in tree if key not in _KEYS]
    if strange:
        raise InputError(f"{called} has {', '.join(strange)}: a data source has {', '.join(_KEYS)}")
    value = {key: None if _absent(tree.get(key)) else tree[key] for key in _KEYS}
    for key in ("input_path", "input_bbox"):
        if value[key] is None:
            raise InputError(f"{called} has no {key}: a patch is of an image, and somewhere in it")
    binary = value["target_binary"]
    if binary not in (None, 0, 1):
        raise InputError(f"{called} has target_binary={binary!r}: give 1 for a class, 0 for an image of targets")
    return PatchSource(
        str(value["id"]),
        str(value["input_path"]),
        _box(value["input_bbox"], called),
        _number(value["input_mean"], called),
        _number(value["input_std"], called),
        _target(value["target_class"], called),
        None if value["target_path"] is None else str(value["target_path"]),
        None if value["target_bbox"] is None else _box(value["target_bbox"], called),
        None if binary is None else bool(binary),
    )


def _absent(value: Any) -> bool:
    return value is None or value == "NaN" or (isinstance(value, float) and isnan(value))


def _number(value: Any, called: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{called} has {value!r} for a mean or standard deviation: give a number")
    return float(value)


def _target(value: Any, called: str) -> tuple[float, ...]:
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in listed):
        raise InputError(f"{called} has target_class={value!r}: give a number, or a list of one per class")
    return tuple(map(float, listed))


def _box(value: Any, called: str) -> Box:
    if not isinstance(value, list) or len(value) != 6:
        raise InputError(f"{called} has the box {value!r}: give [x, y, z, dx, dy, dz] in voxels")
    try:
        return Box(as_vec(value[2::-1]), as_vec(value[:2:-1]))
    except InputError as problem:
        raise InputError(f"{called}: {problem}") from None


def _tree(source: PatchSource) -> dict[str, Any]:
    target: Any = (
        None if not source.target else source.target[0] if len(source.target) == 1 else list(source.target)
    )
    values = (
        source.id,
        source.image,
        _listed(source.box),
        source.mean,
        source.std,
        source.target_path,
        None if source.target_box is None else _listed(source.target_box),
        target,
        None if source.by_class is None else int(source.by_class),
    )
    return {key: value for key, value in zip(_KEYS, values, strict=True) if value is not None}


def _listed(box: Box) -> list[int]:
    return [*box.start[::-1], *box.shape[::-1]]


def _require_one_image(sources: Sequence[PatchSource], source: str) -> None:
    images = list(dict.fromkeys(one.image for one in sources))
    if len(images) != 1:
        raise InputError(
            f"{source} is of {len(images)} images, {', '.join(images[:3]) or '(none)'}: patches of one table are "
            "of one volume; convert the sources of each image by themselves"
        )


def _places(one: PatchSource, lattice: Lattice, margin_vox: Vec) -> Rows:
    if any(n < 2 * m for n, m in zip(one.box.shape, margin_vox, strict=True)):
        raise InputError(f"source {one.id} has the {one.box}, which is smaller than twice the margin {margin_vox}")
    box = one.box.grow([-m for m in margin_vox])
    own = Lattice(lattice.shape, lattice.stride, box.start)
    inside = own.inside(box)
    if inside.is_empty:
        raise InputError(
            f"source {one.id} has the {box} (z, y, x), which does not hold a patch of {lattice.shape} voxels: "
            "state the shape of its patches"
        )
    return own.starts(inside)


def _labels(one: PatchSource, width: int) -> list[int]:
    if one.by_class is False:
        raise InputError(
            f"source {one.id} has an image of targets, {one.target_path}, no class: take its labels from that "
            "volume"
        )
    if not set(one.target) <= {0.0, 1.0}:
        raise InputError(f"source {one.id} has the target {list(one.target)}: a label is 1.0 (yes) or 0.0 (no)")
    return [*(YES if v else NO for v in one.target), *[UNKNOWN] * (width - len(one.target))]


def _require_no_contradiction(at: Rows, whose: Rows, sources: Sequence[PatchSource], source: str) -> None:
    order = np.lexsort(at.T[::-1])
    same = np.flatnonzero((at[order][1:] == at[order][:-1]).all(axis=1))
    if same.size:
        one, other = (sources[whose[row]].id for row in sorted(order[same[0] : same[0] + 2].tolist()))
        raise InputError(
            f"{source}: sources {one} and {other} say different things of the patch at "
            f"{at[order[same[0]]].tolist()} (z, y, x): remove one"
        )
