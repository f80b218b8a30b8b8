"""Volumes in buckets: made, finished, replaced and removed.

An object store has no rename and no folders; an object is written in one step. So a volume is written under its
final key, and what makes it a volume, its metadata, comes last. Until then they lie beside their place, where no
tool looks for them but emloom (see `emloom.io.places`)::

    out.zarr/raw/0/zarr.json.unfinished, out.zarr/raw/zarr.json.unfinished      claims the key: must be new
    out.zarr/raw/0/c/...                                                        chunks
    out.zarr/raw/0/zarr.json, out.zarr/raw/zarr.json                            finished: innermost first
    (the .unfinished ones are deleted)

Two writers cannot claim one key: metadata are written on the condition that nobody has written them (S3
``If-None-Match``, GCS ``ifGenerationMatch``). A process that is killed leaves no volume, but an address that says
it is unfinished. Removing goes the other way round: first it is a volume no more, then its chunks go.

For local paths the functions here do what `emloom.io.files` does, so formats need not ask where they write.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorstore

from emloom.errors import InputError
from emloom.io import files
from emloom.io.buckets import removal
from emloom.io.places import BUCKETS, DRAFT, METADATA, Place, Remote, exists, objects, reached, unreachable
from emloom.io.volume import Volume

_REMOVAL_ATTEMPTS = 5
_REMOVAL_PAUSE_S = 0.2
#: A range of names that nobody uses: listing it is answered at once, and tells whether there is a bucket.
_NOBODY = tensorstore.KvStore.KeyRange("~emloom~a", "~emloom~b")


def require_bucket(place: Place) -> None:
    """Raise `InputError` where a place is an address that is only read."""
    if isinstance(place, Remote) and place.scheme not in BUCKETS:
        raise InputError(
            f"{place} is an address that is only read: write to a local disk, or to s3:// or gs:// "
            "if it is a bucket"
        )


def draft_of(place: Place) -> Place:
    """Return the place whose metadata may be those of an unfinished volume; a local path is returned as it is."""
    return replace(place, unfinished=True, sparse=False) if isinstance(place, Remote) else place


def finished(place: Place) -> Place:
    """Return the place a draft will have in the end; a local path is returned as it is."""
    return replace(place, unfinished=False) if isinstance(place, Remote) else place


def as_created(place: Place) -> Place:
    """Return the place of a volume that was just created, where a chunk that is missing was not written yet."""
    return replace(place, sparse=True) if isinstance(place, Remote) and not place.unfinished else place


def is_taken(place: Place) -> bool:
    """Whether anything is at a place, finished, unfinished or other."""
    if isinstance(place, Path):
        return os.path.lexists(place)
    # Metadata first: the objects of a large volume take long to list.
    return any(exists(draft_of(place) / name) for name in METADATA) or bool(_keys(place))


def names_below(place: Remote) -> list[str]:
    """Return the names of all objects below a place in a bucket."""
    return [key.decode("utf-8", "replace") for key in _keys(place)]


def _keys(place: Remote) -> list[bytes]:
    with reached(finished(place), "list"):
        keys: list[bytes] = objects(finished(place)).list().result()
    return keys


def refuse_taken(place: Place) -> None:
    """Raise `InputError` where something already is at a place."""
    if isinstance(place, Path):
        files.refuse_existing(place)
    elif is_taken(place):
        explain_absence(finished(place))
        raise InputError(
            f"{finished(place)} already exists and is never overwritten by accident: choose another name, remove "
            f"it ({_removal(place)}), or ask to overwrite it"
        )


def explain_absence(place: Place) -> None:
    """Raise an `InputError` that says why there is no volume at a place, where the bucket knows the reason."""
    if not isinstance(place, Remote) or place.scheme not in BUCKETS or place.unfinished:
        return
    if any(exists(place / (name + DRAFT)) for name in METADATA) and not _is_finished(place):
        raise InputError(
            f"{place} is unfinished: whoever wrote it was stopped, or is still writing; look at it with "
            f"{draft_of(place)}, or, if nobody writes any more, remove it: {_removal(place)}"
        )
    try:
        objects(place).list(_NOBODY).result()
    except (ValueError, RuntimeError, OSError) as problem:
        # Who may read a bucket may still not be permitted to list it; that explains nothing.
        if "PERMISSION_DENIED" not in str(problem):
            raise InputError(unreachable(place, problem)) from problem


def _is_finished(place: Remote) -> bool:
    drafts = [name for name in METADATA if exists(place / (name + DRAFT))]
    return all(exists(place / name) for name in drafts)


def _removal(place: Remote) -> str:
    return removal(place.scheme, "/".join(place.parts))


@contextmanager
def new_folder(target: Place, *, overwrite: bool = False) -> Iterator[Path]:
    """Make the metadata of a new volume, which appear at `target` when the block ends well.

    On a disk the block works in a temporary folder beside the target, which is then renamed; for a bucket in one
    on the local disk, whose files are then uploaded: at an address that is unfinished as drafts, else for good.

    Args:
        target: where the volume shall be.
        overwrite: replace what is there.

    Yields:
        An existing folder for metadata files (and nothing else: they are small).

    Raises:
        InputError: something is there, or appears meanwhile; the place is not writable, or the server refuses.
    """
    if isinstance(target, Path):
        with files.staged(target, overwrite=overwrite) as temporary:
            temporary.mkdir(parents=True)
            yield temporary
        return
    require_bucket(target)
    if not overwrite:
        refuse_taken(target)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield folder
        if overwrite:
            remove(target)
        _upload(folder, target)
    if not target.unfinished:
        publish(target)


def _upload(folder: Path, target: Remote) -> None:
    """Upload metadata as drafts, innermost first; where that fails, those before it are taken back."""
    found = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (-len(p.parts), p.name))
    place = finished(target)
    done: list[str] = []
    with reached(place, "write"):
        store = objects(place)
        try:
            for file in found:
                key = file.relative_to(folder).as_posix() + DRAFT
                if not write_new(store, key, file.read_bytes()):
                    raise InputError(f"{place} already exists: somebody else began to write it just now")
                done.append(key)
        except BaseException:
            for earlier in done:
                store.write(earlier, None).result()
            raise


def write_new(store: Any, key: str, value: bytes) -> bool:
    """Write an object, unless there is one; return whether it was written."""
    there = store.read(key).result()
    if there.state != "missing":
        return False
    # The generation of a missing object is the condition that it is still missing.
    stamp = store.write(key, value, if_equal=there.stamp.generation).result()
    return bool(stamp.generation)


def make_folder(place: Place) -> None:
    """Make a folder and those above it; buckets have none."""
    if isinstance(place, Path):
        with files.explained(place):
            place.mkdir(parents=True, exist_ok=True)


def write_metadata(place: Place, text: str) -> None:
    """Write a small text file in one step; at an address, only where there is none yet."""
    if isinstance(place, Path):
        files.write_text_atomic(place, text)
        return
    require_bucket(place)
    with reached(place, "write"):
        write_new(objects(finished(place.parent)), place.name, text.encode("utf-8"))


def publish(target: Place) -> None:
    """Give the metadata of an unfinished volume their final names: what makes it a volume comes last."""
    assert isinstance(target, Remote), "local volumes are renamed"
    place = finished(target)
    drafts = []
    with reached(place, "write"):
        # The array of an image in zarr, then whatever lies at the place itself.
        for folder in (place / "0", place):
            store = objects(folder)
            for name in METADATA:
                text = store.read(name + DRAFT).result()
                if text.state == "missing":
                    continue
                if not write_new(store, name, text.value) and store.read(name).result().value != text.value:
                    raise InputError(f"{place} already exists: somebody else wrote to it meanwhile")
                drafts.append((store, name + DRAFT))
        for store, key in drafts:
            store.write(key, None).result()


def remove(place: Remote) -> None:
    """Delete everything below a place in a bucket, and nothing else.

    A process killed on the way leaves an unfinished volume, which can be removed again.

    Raises:
        InputError: the server refuses.
    """
    with reached(finished(place), "remove"):
        store = objects(finished(place))
        marks = []
        for name in METADATA:
            text = store.read(name).result()
            if text.state != "missing":
                store.write(name + DRAFT, text.value).result()
                store.write(name, None).result()
            marks.append(name + DRAFT)
        start = ""
        for mark in sorted(marks):
            store.delete_range(tensorstore.KvStore.KeyRange(start, mark)).result()
            start = mark + "\0"
        store.delete_range(tensorstore.KvStore.KeyRange(start, "")).result()
        for mark in marks:
            store.write(mark, None).result()


@contextmanager
def staged_remote(
    target: Remote, create: Callable[[Remote], Volume], finish: Callable[[], None]
) -> Iterator[Volume]:
    """Write a volume under its final key, unfinished until the block ends well; otherwise it is removed.

    Args:
        target: where the volume shall be.
        create: makes the empty volume at the address it is given, and fails where something is there.
        finish: called before the volume appears.
    """
    draft = replace(target, sparse=False, unfinished=True)
    volume = create(draft)
    try:
        yield volume
        finish()
        publish(draft)
    except BaseException as problem:
        try:
            _remove_for_good(draft)
        except InputError as left:
            raise InputError(f"{problem}; what was written so far is still there: {left}") from problem
        raise


def _remove_for_good(place: Remote) -> None:
    # After Ctrl-C, writes in flight on other threads may still add chunks to what is being removed.
    for _ in range(_REMOVAL_ATTEMPTS):
        remove(place)
        if not names_below(place):
            return
        time.sleep(_REMOVAL_PAUSE_S)
