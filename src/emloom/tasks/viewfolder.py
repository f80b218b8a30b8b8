"""What a folder of results holds that can be seen: named layers, from the lowest to the highest.

A folder is known by what lies in it, not by its name. Of a pipeline all parts are shown in one frame, that of the
stack that was segmented; what was brought back to the frame of the raw lies in ``restored/`` and is shown by
itself, with the raw::

    emloom view OUT/                      raw (repaired or aligned), qc, affinities, segmentation, synapses ...
    emloom view raw.zarr OUT/restored     the raw as it was, and what was brought back to it

A part that is not there is left out; nothing is an error but a folder that holds nothing to see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from emloom.io.synapsetable import SYNAPSES

Role = Literal["raw", "labels", "hidden labels", "prediction", "confidence", "defects", "mask", "invented"]


@dataclass(frozen=True)
class Part:
    """A volume of a result.

    Attributes:
        name: of its layer.
        path: of the volume.
        role: how it is drawn.
    """

    name: str
    path: str
    role: Role


@dataclass(frozen=True)
class Holding:
    """What can be seen of a folder.

    Attributes:
        parts: volumes, lowest layer first.
        synapses: folder or table; None where there is none.
        neurons: folder of `emloom export-neurons`; None where there is none.
    """

    parts: tuple[Part, ...] = ()
    synapses: Path | None = None
    neurons: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.parts or self.synapses or self.neurons)


def holding_of(path: str | Path) -> Holding:
    """Return what a folder of results holds; nothing where it is none, a volume say."""
    folder = Path(path)
    if "://" in str(path) or not folder.is_dir() or not _is_result(folder):
        return Holding()
    parts: dict[str, Part] = {}
    for part in _parts(folder):
        parts.setdefault(part.name, part)
    homes = (folder, folder / "connectome", folder / "synapses")
    return Holding(
        tuple(parts.values()),
        next((home for home in homes if (home / SYNAPSES).is_file()), None),
        next((home for home in (folder, *_below(folder)) if is_neurons(home)), None),
    )


def is_neurons(folder: Path) -> bool:
    """Whether a folder was made by `emloom export-neurons`, with meshes or skeletons for a page."""
    return (
        any((folder / part / "info").is_file() for part in ("mesh", "skeletons"))
        and not (folder / "mesh" / "info" / "info").exists()
    )


_MARKS = ("qc.json", "align.json", "repair.json", SYNAPSES, "job.yaml", "neurons.parquet", "edges.parquet")


def _is_result(folder: Path) -> bool:
    named = any((folder / mark).is_file() for mark in _MARKS)
    known = ("segment.zarr", "predict.zarr", "segmentation.zarr", "raw.zarr", "qc", "align", "repair")
    inside = any((folder / name).exists() for name in known)
    return named or is_neurons(folder) or (inside and not (folder / "zarr.json").exists())


def _below(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.suffix)


def _parts(folder: Path) -> Iterator[Part]:
    raw = _raw_of(folder)
    if raw is not None:
        yield Part("raw", raw, "raw")
    places: tuple[tuple[str, str, Role], ...] = (
        ("prediction", "prediction.zarr", "prediction"),
        ("affinities", "predict.zarr", "prediction"),
        ("synapse prediction", "predict-synapses.zarr", "prediction"),
        ("synapse prediction", "synapses/prediction.zarr", "prediction"),
        ("labels", "labels.zarr", "labels"),
        ("segmentation", "segment.zarr/segmentation", "labels"),
        ("segmentation", "segmentation.zarr", "labels"),
        ("clefts", "clefts.zarr", "hidden labels"),
        ("qc", "align-qc/mask.zarr", "defects"),  # of a pipeline that aligned: moved as its sections were
        ("qc", "qc/map.zarr/code", "defects"),
        ("qc", "map.zarr/code", "defects"),
        ("mask", "mask.zarr", "mask"),
        ("outside", "outside.zarr", "mask"),
        ("outside", "align/outside.zarr", "mask"),
        ("invented", "invented.zarr", "invented"),
        ("invented", "repair/invented.zarr", "invented"),
    )
    for name, place, role in places:
        if (folder / place).is_dir():
            yield Part(name, str(folder / place), role)
    for volume in (*sorted(folder.glob("*confidence*.zarr")), *sorted((folder / "confidence").glob("*.zarr"))):
        yield Part(
            volume.stem if "confidence" in volume.stem else f"confidence {volume.stem}", str(volume), "confidence"
        )
    said = _said(folder)
    if (
        not (folder / "segment.zarr").is_dir()
        and (labels := _existing(said.get("segmentation"), folder)) is not None
    ):
        inside = Path(labels) / "segmentation"
        yield Part("segmentation", str(inside if inside.is_dir() else labels), "labels")


def _raw_of(folder: Path) -> str | None:
    """Return the stack that a result is of: the one it made, else the one that its record names."""
    for place in ("repair/raw.zarr", "align/raw.zarr", "raw.zarr"):
        if (folder / place).is_dir():
            return str(folder / place)
    return _existing(_said(folder).get("raw"), folder)


def _said(folder: Path) -> dict[str, Any]:
    """Return the job that a folder's record holds, empty where it has none that can be read."""
    try:
        if (folder / "provenance.json").is_file():
            found = json.loads((folder / "provenance.json").read_text(encoding="utf-8")).get("spec", {})
        elif (folder / "job.yaml").is_file():
            found = yaml.safe_load((folder / "job.yaml").read_text(encoding="utf-8"))
        else:
            return {}
    except (ValueError, OSError, yaml.YAMLError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _existing(path: Any, folder: Path) -> str | None:
    """Return a path of a record where it still exists: as it stands, or from the folder it was written into."""
    if not isinstance(path, str) or not path:
        return None
    if "://" in path:
        return path
    tried = (Path(path), folder / path, folder.parent / path)
    return next((str(each) for each in tried if each.exists() or _is_inside_file(each)), None)


def _is_inside_file(path: Path) -> bool:
    """Whether a path leads into a file that holds several volumes, ``a.h5/volumes/raw``."""
    return any(parent.is_file() for parent in list(path.parents)[:3])
