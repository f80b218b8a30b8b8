"""HDF5 in CREMI layout: datasets such as ``volumes/raw`` with attributes `resolution` and `offset` (z, y, x; nm).

https://cremi.org/data. In that layout ``volumes/raw`` is raw, ``volumes/labels/neuron_ids`` and ``clefts`` are
labels; every other dataset states its kind itself (our `emloom` attribute) or not at all. What else a CREMI file
holds (its special label values, its annotations) is the business of `emloom.io.cremi`.

The file is opened for every call and closed after it: a volume is a path, so it survives pickling and
forking, and no crash between two calls can leave an open file behind. HDF5 allows one writing process
at a time; blockwise work by several processes belongs in zarr.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.io.files import explained, final_path, require_space, staged, way_out
from emloom.io.metadata import OWN_KEY, ArrayFacts, Found, Statement, found, own_attribute, read_own, read_plain
from emloom.io.volume import Array, VolumeInfo, check_box, check_write

DEFAULT_CHUNKS: Vec = (64, 64, 64)
_SPACE_FOR_METADATA = 2**20
_CREMI: dict[str, Statement] = {
    "volumes/raw": Statement(kind="raw"),
    "volumes/labels/neuron_ids": Statement(kind="labels"),
    "volumes/labels/clefts": Statement(kind="labels"),
}
#: HDF5 refuses to open one file for reading and writing at once, also in two threads of one process.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Hdf5Volume:
    """A dataset of an HDF5 file as a volume.

    Attributes:
        info: what the volume says about itself.
        file: the HDF5 file.
        dataset: name inside it.
        writable: whether `write` is allowed.
    """

    info: VolumeInfo
    file: Path
    dataset: str
    writable: bool = False

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, C-contiguous, native byte order; damaged data are an `InputError`."""
        check_box(self.info, box)
        with opened(self.file, "r") as h5:
            return np.ascontiguousarray(h5[self.dataset][..., *box.slices()], dtype=self.info.dtype)

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`."""
        check_write(self.info, box, array)
        if not self.writable:
            raise InputError(
                f"{self.info.source} is open read-only: open it with writable=True or write to a new one"
            )
        # HDF5 crashes the process when the disk fills up while it closes a file, so it must not come to that.
        require_space(self.file, array.nbytes + _SPACE_FOR_METADATA)
        with opened(self.file, "r+") as h5:
            h5[self.dataset][..., *box.slices()] = array


@contextmanager
def opened(path: Path, mode: str) -> Iterator[h5py.File]:
    """Open the file for the block; what HDF5 cannot read or write becomes an `InputError`."""
    with _ONE_AT_A_TIME, explained(path, "read" if mode == "r" else "write"):
        try:
            with h5py.File(path, mode) as h5:
                yield h5
        except (OSError, RuntimeError) as problem:
            if way_out(problem) is not None:
                raise
            raise InputError(_explain(path, problem)) from problem


def _explain(path: Path, problem: Exception) -> str:
    shown = final_path(path)
    if path.is_file() and path.stat().st_size == 0:
        return f"{shown} is empty (0 bytes): copy it again"
    text = str(problem)
    if "unable to lock" in text or "already open" in text:
        return f"{shown} is in use by another process: HDF5 has one writer at a time; wait, or use zarr"
    return f"{shown} is not a readable HDF5 file ({' '.join(text.split())[:200]}): copy it again"


def find(container: Path, inner: str) -> list[Found]:
    """Return every dataset of 3 or more dimensions in a file, or the one (or the group) at an inner path.

    Raises:
        InputError: nothing there, or the file is damaged.
    """
    with opened(container, "r") as h5:
        names = _datasets(h5)
        chosen = [n for n in names if not inner or n == inner or n.startswith(f"{inner}/")]
        if inner and not chosen and isinstance(h5.get(inner), h5py.Dataset):
            chosen = [inner]
        if not chosen:
            what = repr(inner) if inner else "dataset of 3 or more dimensions"
            valid = f" (it holds: {', '.join(names)})" if names and inner else ""
            raise InputError(f"{container} holds no {what}{did_you_mean(inner, names)}{valid}")
        return [_found(container, name, h5[name]) for name in chosen]


def _datasets(h5: h5py.File) -> list[str]:
    names: list[str] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim >= 3:
            names.append(name)

    h5.visititems(visit)
    return sorted(names)


def _found(container: Path, name: str, dataset: h5py.Dataset) -> Found:
    attributes = dict(dataset.attrs)
    said = read_own(_own(attributes.get(OWN_KEY)))
    said = said.agree(read_plain(attributes), f"the {OWN_KEY!r} attribute", "the CREMI attributes")
    if OWN_KEY not in attributes:
        said = said.agree(_CREMI.get(name, Statement()), "", "")
    chunks = None if dataset.chunks is None else tuple(dataset.chunks)
    said = replace(said, problems=(*said.problems, *_escapes(container, dataset)))
    facts = ArrayFacts(tuple(dataset.shape), dataset.dtype, chunks)
    return found(f"{container}/{name}", "hdf5", facts, said)


def _escapes(container: Path, dataset: h5py.Dataset) -> Iterator[str]:
    """Yield a problem for every file outside the folder that a dataset takes values from, linked or mapped."""
    elsewhere = [name for name, _, _ in dataset.external or ()]
    if dataset.is_virtual:
        elsewhere += [source.file_name for source in dataset.virtual_sources() if source.file_name != "."]
    home = container.resolve().parent
    for name in {*elsewhere, str(Path(dataset.file.filename).resolve())}:
        if not (home / name).resolve().is_relative_to(home):
            yield f"takes its values from {name}, outside its folder {home}: copy that file there and link anew"


def _own(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> Hdf5Volume:
    """Return the volume of a dataset that `find` found."""
    for parent in Path(hit.path).parents:
        if parent.is_file():
            return Hdf5Volume(info, parent, hit.path.removeprefix(f"{parent}/"), writable)
    raise InputError(f"{hit.path} is no longer there: somebody moved it")


def create(path: Path, inner: str, info: VolumeInfo, *, overwrite: bool = False, fill: int = 0) -> Hdf5Volume:
    """Create an empty (all `fill`) dataset, ready to be written box by box.

    Args:
        path: the file; made where it does not exist.
        inner: name of the dataset, e.g. ``volumes/raw``.
        info: shape, dtype, grid, kind; `info.chunks` defaults to 64x64x64 and is clipped to the shape.
        overwrite: replace an existing dataset (the space of the old one is not given back).
        fill: value of voxels that were never written.

    Raises:
        InputError: no inner name, it exists already, or the disk refuses.
    """
    if not inner:
        raise InputError(f"{path} is an HDF5 file: name the dataset, e.g. {path}/volumes/raw")
    if path.exists():
        with opened(path, "r+") as h5:
            return _create_in(h5, path, inner, info, overwrite, fill)
    with staged(path) as temporary, opened(temporary, "w") as h5:
        return _create_in(h5, path, inner, info, overwrite, fill)


def _create_in(h5: h5py.File, path: Path, inner: str, info: VolumeInfo, overwrite: bool, fill: int) -> Hdf5Volume:
    if inner in h5:
        if not overwrite:
            raise InputError(f"{path}/{inner} already exists: choose another name or ask to overwrite it")
        del h5[inner]
    wanted = as_vec(info.chunks or DEFAULT_CHUNKS)
    z, y, x = (min(c, n) for c, n in zip(wanted, info.shape, strict=True))
    channels = () if info.channels is None else (info.channels,)
    layout = {"chunks": (*channels, z, y, x), "compression": "gzip", "compression_opts": 1}
    dataset = h5.create_dataset(inner, info.array_shape, info.dtype, fillvalue=fill, **layout)
    for key, value in _attributes(info).items():
        dataset.attrs[key] = value
    return Hdf5Volume(info.with_(chunks=(z, y, x), source=f"{path}/{inner}"), path, inner, writable=True)


def _attributes(info: VolumeInfo) -> Mapping[str, Any]:
    return {
        "resolution": np.array(info.grid.voxel_size_nm),
        "offset": np.array(info.grid.offset_nm),
        OWN_KEY: json.dumps(own_attribute(info)),
    }
