"""Open, inspect and create volumes of any format.

A path names a container and, where it holds several arrays, the one inside it::

    raw.tif      sections/      "sections/s*.png"      out.zarr      out.zarr/raw      cremi.h5/volumes/raw
    out.n5/raw   seg.precomputed/8_8_40                s3://bucket/out.zarr/raw        https://host/seg.precomputed
    webknossos_dataset/color       webknossos_dataset/color/2-2-1       out.wkw/segmentation

A new format is one file with `find`, `open_found` (and `create`), and one row in `FORMATS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Grid
from emloom.geometry.box import as_vec
from emloom.io import cremi, n5, newlayer, npy, precomputed, stack, store, webknossos
from emloom.io.files import refuse_existing, staged
from emloom.io.metadata import Found, Statement, said_by_caller
from emloom.io.nodes import ensure_groups, is_store
from emloom.io.places import Remote, inner_name, place_of
from emloom.io.remote import explain_absence, finished, require_bucket, staged_remote
from emloom.io.volume import Kind, Volume, VolumeInfo


@dataclass(frozen=True)
class Format:
    """How one format is found, opened and created.

    Attributes:
        find: (container, inner name or "") -> the arrays there.
        open_found: (what was found, complete info, writable) -> volume.
        create: (container, inner name, info, **options) -> empty volume; None for formats that are only read.
        is_folder: whether a container is a folder (else a file).
        marks: whether a folder of any name is a node of this format; None for formats known by suffix alone.
        remote: whether a container may be a remote address.
        ensure: (container, inner name, zarr format) -> None; makes what lies above a volume in a bucket.
        staged_addition: (container, inner name, info) -> context of the path at which a volume to be added to an
            existing container is built, for formats whose container lists what it holds.
        options: what `create` takes besides, of `zarr_format`, `shards` and `encoding`.
    """

    find: Callable[[Any, str], list[Found]]
    open_found: Callable[[Found, VolumeInfo, bool], Volume]
    create: Callable[..., Volume] | None
    is_folder: bool
    marks: Callable[[Any], bool] | None = None
    remote: bool = False
    ensure: Callable[[Any, str, int], None] = lambda *_: None
    staged_addition: Callable[[Path, str, VolumeInfo], AbstractContextManager[Path]] | None = None
    options: tuple[str, ...] = ()


_ZARR = Format(
    store.find,
    store.open_found,
    store.create,
    is_folder=True,
    marks=is_store,
    remote=True,
    ensure=ensure_groups,
    options=("zarr_format", "shards", "encoding"),
)
_N5 = Format(
    n5.find,
    n5.open_found,
    n5.create,
    is_folder=True,
    marks=n5.is_n5,
    remote=True,
    ensure=lambda container, inner, _: n5.ensure_container(container, inner),
)
_PRECOMPUTED = Format(
    precomputed.find,
    precomputed.open_found,
    precomputed.create,
    is_folder=True,
    marks=precomputed.is_precomputed,
    remote=True,
)
_HDF5 = Format(cremi.find, cremi.open_found, cremi.create, is_folder=False)
_STACK = Format(stack.find, stack.open_found, stack.create, is_folder=False)
_NPY = Format(npy.find, npy.open_found, npy.create, is_folder=False)
_WKW = Format(
    webknossos.find,
    webknossos.open_found,
    newlayer.create,
    is_folder=True,
    marks=webknossos.marks,
    staged_addition=newlayer.staged_addition,
)

FORMATS: dict[str, Format] = {
    ".zarr": _ZARR,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".hdf": _HDF5,
    ".tif": _STACK,
    ".tiff": _STACK,
    ".png": _STACK,
    ".jpg": _STACK,
    ".jpeg": _STACK,
    ".npy": _NPY,
    ".n5": _N5,
    ".precomputed": _PRECOMPUTED,
    ".wkw": _WKW,
}
#: Formats whose folders are recognised whatever their name, asked in this order: layers of a webKnossos dataset
#: may be zarr arrays, and the dataset knows more about them.
_MARKED = [(form, form.marks) for form in dict.fromkeys((_WKW, *FORMATS.values())) if form.marks is not None]
#: `Found.format` -> format.
FORMATS_BY_NAME = {"zarr2": _ZARR, "zarr3": _ZARR, "hdf5": _HDF5, "tiff": _STACK, "sections": _STACK, "npy": _NPY}
FORMATS_BY_NAME |= {"n5": _N5, "precomputed": _PRECOMPUTED}
FORMATS_BY_NAME |= {"wkw": _WKW, "webknossos-zarr": _WKW, "webknossos-zarr3": _WKW}


def open_volume(
    path: str | Path,
    *,
    voxel_size_nm: Sequence[float] | None = None,
    offset_nm: Sequence[float] | None = None,
    kind: Kind | None = None,
    neighborhood: Sequence[Sequence[int]] | None = None,
    writable: bool = False,
    sparse: bool = False,
) -> Volume:
    """Open an array as a volume.

    What the file states need not be given; what it does not state can be; what is given must agree with it.

    Args:
        path: container, or container and inner name; see the module.
        voxel_size_nm: (z, y, x) in nm, required where the file does not state it.
        offset_nm: world position (z, y, x) in nm of the corner of voxel (0, 0, 0); 0 where nobody states it.
        kind: what the values mean.
        neighborhood: for affinities, one ZYX voxel offset per channel.
        writable: allow `write`.
        sparse: take a chunk that is missing at a remote address as zero, because the volume is stored so; without
            it, reading one is an `InputError`. An address ending in ``#sparse`` says the same. In a local volume a
            missing chunk is always zero.

    Raises:
        InputError: nothing or several arrays there, voxel size missing, contradictory metadata, damaged file.
    """
    if sparse and isinstance(place := place_of(path), Remote):
        path = str(replace(place, sparse=True))
    form, container, inner = locate(path)
    if writable:
        require_bucket(container)
    hit = _the_one(_find(form, container, inner), path)
    if hit.problems:
        raise InputError(f"{hit.path}: {'; '.join(hit.problems)}")
    given = said_by_caller(voxel_size_nm, offset_nm, kind, neighborhood)
    return form.open_found(hit, _complete(hit, given), writable)


def inspect(path: str | Path) -> list[Found]:
    """Return what a path holds, tolerantly: arrays that cannot be opened are listed with their problems.

    Raises:
        InputError: nothing there, an unknown format, or a file so damaged that nothing can be said about it.
    """
    return _find(*locate(path))


def _find(form: Format, container: Any, inner: str) -> list[Found]:
    try:
        return form.find(container, inner)
    except InputError:
        explain_absence(container / inner)
        raise


def create_volume(
    path: str | Path,
    info: VolumeInfo,
    *,
    overwrite: bool = False,
    zarr_format: int = 3,
    shards: Sequence[int] | None = None,
    encoding: str | None = None,
) -> Volume:
    """Create an empty (all zero) writable volume.

    Args:
        path: ``out.zarr``, ``out.zarr/name``, ``out.h5/volumes/raw`` or ``out.wkw/layer``; the suffix chooses
            the format. zarr, N5 and precomputed also at addresses in buckets, ``s3://bucket/out.zarr``.
        info: shape, dtype, grid, channels, chunks (default 64x64x64), kind, neighborhood.
        overwrite: replace what is there.
        zarr_format: 3 (OME-NGFF 0.5) or 2 (OME-NGFF 0.4); for ``.zarr``.
        shards: voxels (z, y, x) per shard file, a multiple of the chunk; for zarr 3. The returned
            `info.chunks` is then the shard: what two writers must not share.
        encoding: how chunks are compressed, where the format has a choice: ``zstd`` (default) or ``blosc`` for
            ``.zarr``.

    Raises:
        InputError: the path exists, the format cannot be written or has no such option, or the disk refuses.
    """
    form, container, inner = locate(path, creating=True)
    if form.create is None:
        raise InputError(f"{path}: this format is only read: write to .zarr or .h5")
    if 0 in info.array_shape:
        raise InputError(f"{path}: shape {info.array_shape} is empty: a volume has at least one voxel")
    options = {
        "zarr_format": zarr_format,
        "shards": None if shards is None else as_vec(shards),
        "encoding": encoding,
    }
    for name, value in options.items():
        if name not in form.options and value not in (None, 3):
            takers = ", ".join(suffix for suffix, other in FORMATS.items() if name in other.options)
            raise InputError(f"{path}: {name} {value} is for {takers} only: leave it out")
    options = {name: value for name, value in options.items() if name in form.options}
    return form.create(container, inner, info, overwrite=overwrite, **options)


@contextmanager
def staged_volume(
    path: str | Path,
    info: VolumeInfo,
    *,
    zarr_format: int = 3,
    shards: Sequence[int] | None = None,
    encoding: str | None = None,
) -> Iterator[Volume]:
    """Create a volume that appears at `path` only when the block ends well; otherwise nothing is left of it.

    For work done in one go; work that shall resume after a crash creates its volume with `create_volume`. A
    dataset is added to an existing HDF5 file by way of a copy, so a crash cannot damage the other datasets.

    In a bucket, where nothing can be renamed, the volume is unfinished until then: it has its final key, but only
    addresses that end in ``#unfinished`` open it (see `emloom.io.remote`).

    Yields:
        The volume under its temporary name, which is `volume.info.source`.

    Raises:
        InputError: the path exists, the format cannot be written, or the disk refuses.
    """
    form, container, inner = locate(path, creating=True)
    layout: dict[str, Any] = {"zarr_format": zarr_format, "shards": shards, "encoding": encoding}
    if isinstance(container, Remote):
        with staged_remote(
            container / inner,
            lambda draft: create_volume(str(draft), info, **layout),
            lambda: form.ensure(finished(container), inner, zarr_format) if inner else None,
        ) as volume:
            yield volume
        return
    if form.staged_addition is not None and container.exists():
        refuse_existing(path)
        with form.staged_addition(container, inner, info) as apart:
            yield create_volume(apart, info)
        return
    top = Path(path)
    if form.is_folder:
        refuse_existing(path)
        while top != container and not top.parent.exists():
            top = top.parent
    else:
        top = container
        if container.exists():
            _refuse_dataset(form, container, inner)
    adds = top.exists()
    with staged(top, overwrite=adds) as temporary:
        if adds:
            shutil.copyfile(top, temporary)
        whole = temporary / Path(path).relative_to(top)
        yield create_volume(whole, info, **layout)


def _refuse_dataset(form: Format, container: Path, inner: str) -> None:
    names = [hit.path for hit in form.find(container, "")]
    if f"{container}/{inner}" in names:
        raise InputError(f"{container}/{inner} already exists: choose another name")


def unplaced_volume(hit: Found) -> Volume:
    """Return a read-only volume of something found, for looking at its values; its grid means nothing.

    Raises:
        InputError: its axes are not those of a volume.
    """
    if hit.axes not in ("zyx", "czyx"):
        raise InputError(f"{hit.path}: {'; '.join(hit.problems)}")
    bare = replace(hit, voxel_size_nm=(1.0, 1.0, 1.0), offset_nm=None, kind=None, neighborhood=None)
    return FORMATS_BY_NAME[hit.format].open_found(hit, _complete(bare, Statement()), False)


def locate(path: str | Path, *, creating: bool = False) -> tuple[Format, Any, str]:
    """Return (format, container, inner name) of a path.

    The container is the first part of the path with a known suffix, or an existing folder that a format marks as
    its own, or a folder of images, whatever its name.

    Raises:
        InputError: the container does not exist, or its format is unknown.
    """
    whole = place_of(path)
    if isinstance(whole, Remote):
        if creating:
            require_bucket(whole)
        return _locate_remote(whole, creating)
    for container in [*reversed(whole.parents), whole]:
        form = FORMATS.get(container.suffix.lower())
        if form is not None and not (container.is_file() if form.is_folder else container.is_dir()):
            return _located(form, container, whole, creating)
    if not creating:
        for folder, (form, marks) in product([whole, *whole.parents], _MARKED):
            if marks(folder):
                root = _root_of(folder, marks)
                return form, root, inner_name(root, whole)
        if whole.is_dir() or _is_pattern(whole):
            return _STACK, whole, ""
    if not creating and not whole.exists():
        raise InputError(f"{path} does not exist{did_you_mean(whole.name, _siblings(whole))}")
    known = ", ".join(FORMATS)
    raise InputError(f"{path} has no known format: known suffixes are {known} (and folders of images)")


def _located(form: Format, container: Path, whole: Path, creating: bool) -> tuple[Format, Path, str]:
    if not creating and not container.exists() and not _is_pattern(whole):
        near = did_you_mean(container.name, _siblings(container))
        raise InputError(f"{container} does not exist{near}")
    return form, container, inner_name(container, whole)


def _locate_remote(whole: Remote, creating: bool) -> tuple[Format, Remote, str]:
    """Return what `locate` does, of an address: nothing can be listed there, so metadata files are asked for."""
    places = [*reversed(whole.parents), whole]
    for container in places:
        form = FORMATS.get(container.suffix.lower())
        if form is not None and form.remote:
            return form, container, inner_name(container, whole)
    if creating:
        known = ", ".join(suffix for suffix, form in FORMATS.items() if form.remote)
        raise InputError(f"{whole} is not a volume that can be written to a bucket: end its name in {known}")
    for folder, (form, marks) in product(reversed(places), _MARKED):
        if form.remote and marks(folder):
            root = _root_of(folder, marks)
            return form, root, inner_name(root, whole)
    raise InputError(
        f"{whole} holds no volume: neither it nor an address above has the metadata of zarr, N5 or "
        "precomputed, and other formats are not read from afar; check it, or copy the data to a local disk"
    )


def _root_of(folder: Any, marks: Callable[[Any], bool]) -> Any:
    """Return the topmost folder of a format around one of its nodes."""
    while folder.parent != folder and marks(folder.parent):
        folder = folder.parent
    return folder


def _is_pattern(path: Path) -> bool:
    return any(c in path.name for c in "*?[")


def _siblings(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def _the_one(hits: list[Found], path: str | Path) -> Found:
    exact = [hit for hit in hits if place_of(hit.path) == place_of(path)]
    if len(exact or hits) == 1:
        return (exact or hits)[0]
    listed = ", ".join(hit.path for hit in hits)
    raise InputError(f"{path} holds {len(hits)} arrays: name one of {listed}")


def _complete(hit: Found, given: Statement) -> VolumeInfo:
    """Return the info of a volume from what was found and what was given."""
    stated = Statement(None, hit.voxel_size_nm, hit.offset_nm, hit.kind, hit.neighborhood)
    said = stated.agree(given, hit.path, "the caller")
    if said.problems:
        raise InputError("; ".join(said.problems))
    if said.voxel_size_nm is None:
        why = next((m.removeprefix("voxel size") for m in hit.missing if m.startswith("voxel size")), "")
        raise InputError(f"voxel size is missing in {hit.path}{why}: pass --voxel-size 40,4,4 (nm, z,y,x)")
    z, y, x = hit.shape[-3:]
    return VolumeInfo(
        shape=(z, y, x),
        dtype=hit.dtype,
        grid=Grid(said.voxel_size_nm, said.offset_nm or (0.0, 0.0, 0.0)),
        channels=hit.shape[0] if hit.axes == "czyx" else None,
        chunks=hit.chunks,
        kind=said.kind,
        neighborhood=said.neighborhood,
        source=hit.path,
    )
