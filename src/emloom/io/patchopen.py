"""One way to open labels of patches: tables, data sources, evaluation boxes, and places marked in a tracing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emloom.errors import InputError
from emloom.geometry.box import Vec
from emloom.geometry.grid import Vec3
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.evaluationboxes import is_evaluation_box, labels_of_box
from emloom.io.nml import read_nml_tracing
from emloom.io.patchjson import is_source_file, patches_of_sources, read_sources
from emloom.io.patchscores import is_genem3_table, read_genem3_labels
from emloom.io.patchtables import read_patches
from emloom.io.patchtracings import patches_of_nodes

_TRACINGS = (".nml", ".zip", ".nmx")


@dataclass(frozen=True)
class PatchReading:
    """What a file of labels may not say about itself.

    Attributes:
        voxel_size_nm: (z, y, x) in nm.
        shape: voxels (z, y, x) of a patch.
        stride: voxels (z, y, x) between the patches of a larger box of a data source; None: patches side by side.
        classes: names of the classes, the one that is looked for first.
        patterns: of the classes of places marked by one node; see `patches_of_nodes`.
        margin_vox: voxels (z, y, x) shown around every box of a data source, to be cut off.
    """

    voxel_size_nm: Vec3 | None = None
    shape: Vec | None = None
    stride: Vec | None = None
    classes: tuple[str, ...] | None = None
    patterns: Mapping[str, str] | None = None
    margin_vox: Vec = (0, 0, 0)


def open_patches(path: str | Path, how: PatchReading | None = None) -> PatchLabels:
    """Read labels of patches by the ending of their file, and by what is in it.

    Args:
        path: ``.csv`` or ``.json`` (tables, genEM3's tables and data sources), or a tracing (evaluation boxes, and
            places marked by one node each).
        how: what the file may not say.

    Raises:
        InputError: the ending is another one, the file does not say what must be given, or as the readers.
    """
    how, path = how or PatchReading(), Path(path)
    ending = path.suffix.lower()
    if ending in _TRACINGS:
        return _of_tracing(path, how)
    if ending == ".json" and is_source_file(path):
        return _of_sources(path, how)
    if ending == ".csv" and is_genem3_table(path):
        name = how.classes[0] if how.classes else "debris"
        size, shape = _voxel_size(path, how), _shape(path, how)
        return read_genem3_labels(path, voxel_size_nm=size, shape=shape, name=name)
    if ending in (".json", ".csv"):
        return read_patches(path, voxel_size_nm=how.voxel_size_nm, shape=how.shape, classes=how.classes)
    raise InputError(f"{path} holds no labels of patches: give .csv, .json or .nml")


def _of_tracing(path: Path, how: PatchReading) -> PatchLabels:
    tracing = read_nml_tracing(path, voxel_size_nm=how.voxel_size_nm)
    if is_evaluation_box(tracing):
        return labels_of_box(tracing, name=how.classes[0] if how.classes else "artifact")
    patterns = how.patterns or (dict.fromkeys(how.classes, "") if how.classes else None)
    return patches_of_nodes(tracing, _shape(path, how), classes=patterns)


def _of_sources(path: Path, how: PatchReading) -> PatchLabels:
    shape = _shape(path, how)
    return patches_of_sources(
        read_sources(path),
        Lattice(shape, how.stride or shape),
        voxel_size_nm=_voxel_size(path, how),
        classes=how.classes or ("debris", "myelin"),
        margin_vox=how.margin_vox,
        source=str(path),
    )


def _shape(path: Path, how: PatchReading) -> Vec:
    if how.shape is None:
        raise InputError(f"{path} does not say how large a patch is: give its voxels z,y,x, say --patch 1,140,140")
    return how.shape


def _voxel_size(path: Path, how: PatchReading) -> Vec3:
    if how.voxel_size_nm is None:
        raise InputError(f"{path} states no voxel size: give it in nm, z,y,x, say --voxel-size 35,32,32")
    return how.voxel_size_nm
