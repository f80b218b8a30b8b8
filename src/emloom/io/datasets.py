"""Finding and fetching public sets: ``EMLOOM_DATA`` first, then the cache, then the network.

::

    EMLOOM_DATA/snemi3d/           a folder per set, laid out as its owner likes; used whenever it is not empty
    <cache>/snemi3d/snemi.zip      what `fetch` downloads (EMLOOM_CACHE, or the user's cache folder)
    <cache>/snemi3d/snemi/         archives are unpacked beside themselves

Two processes that fetch the same set take turns; the second finds it done. A file without a published checksum
is pinned: its sha256 is written beside it and a later download must match.
"""

from __future__ import annotations

import fcntl
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pooch

from emloom.errors import InputError, did_you_mean
from emloom.io.download import Progress, ResumingDownload, file_hash
from emloom.io.files import explained, require_space, staged, write_text_atomic
from emloom.io.registry import REGISTRY, DataSet, RemoteFile

State = Literal["EMLOOM_DATA", "cache", "incomplete", "absent"]


@dataclass(frozen=True)
class Fetched:
    """Where a set is, and what its reader should know.

    Attributes:
        folder: the folder of the set.
        state: `EMLOOM_DATA` where nothing had to be done, else `cache`.
        notes: sentences to be shown, such as hashes to pin.
    """

    folder: Path
    state: State
    notes: tuple[str, ...] = ()


def dataset(name: str) -> DataSet:
    """Return the set of that name.

    Raises:
        InputError: there is none.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise InputError(
            f"there is no data set {name!r}{did_you_mean(name, REGISTRY)} (valid: {', '.join(sorted(REGISTRY))})"
        ) from None


def data_folder() -> Path | None:
    """Return the folder in ``EMLOOM_DATA``, None where it is not set."""
    text = os.environ.get("EMLOOM_DATA")
    return Path(text) if text else None


def cache_folder() -> Path:
    """Return the folder of downloads: ``EMLOOM_CACHE``, else the user's cache folder."""
    text = os.environ.get("EMLOOM_CACHE")
    return Path(text) if text else Path(pooch.os_cache("emloom"))


def locate(entry: DataSet) -> tuple[State, Path]:
    """Return whether a set is on this computer, and its folder (of what is absent: where it would go)."""
    own = data_folder()
    if own is not None and _has_files(own / entry.name):
        return "EMLOOM_DATA", own / entry.name
    folder = cache_folder() / entry.name
    have = [(folder / file.name).is_file() for file in entry.files]
    begun = any(have) or any((folder / _part(file)).exists() for file in entry.files)
    if not entry.files:
        return ("cache" if _has_files(folder) else "absent"), folder
    return ("cache" if all(have) else "incomplete" if begun else "absent"), folder


def path_of(entry: DataSet) -> Path:
    """Return the folder of a set that is on this computer.

    Raises:
        InputError: it is not, or not all of it.
    """
    state, folder = locate(entry)
    if state in ("EMLOOM_DATA", "cache"):
        return folder
    raise InputError(
        f"data set {entry.name} is {state} (looked in EMLOOM_DATA and {cache_folder()}): {_way(entry, folder)}"
    )


def fetch(entry: DataSet, progress: Progress | None = None) -> Fetched:
    """Make sure that a set is on this computer, downloading what is missing.

    Files that are there are verified again, where a checksum is known, and replaced if they are damaged.

    Args:
        entry: the set.
        progress: called with bytes received and bytes in all, file by file.

    Raises:
        InputError: the server does not deliver, or not the published file; a full disk; no direct link is known;
            an archive whose members would leave its folder.
    """
    state, folder = locate(entry)
    if state == "EMLOOM_DATA":
        return Fetched(folder, state)
    if not entry.files:
        if state == "cache":
            return Fetched(folder, state)
        raise InputError(f"data set {entry.name} cannot be downloaded by emloom: {_way(entry, folder)}")
    with explained(folder, "download to"):
        folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    with _one_at_a_time(folder / ".lock"):
        _sweep(folder)
        for file in entry.files:
            notes += _fetch_file(entry, file, folder, progress)
            notes += _unpack(folder / file.name)
    return Fetched(folder, "cache", tuple(notes))


def _fetch_file(entry: DataSet, file: RemoteFile, folder: Path, progress: Progress | None) -> list[str]:
    target = folder / file.name
    pinned = _read_pin(target) if file.checksum is None else None
    checksum = file.checksum or pinned
    advice = f"see {entry.homepage} and put the file into {folder}"
    download = ResumingDownload(folder / _part(file), file.size_bytes, checksum, advice, progress)
    store = pooch.create(folder, base_url="", registry={file.name: checksum}, urls={file.name: file.url})
    with _quiet(), explained(folder, "download to"):
        store.fetch(file.name, downloader=download)
    if file.checksum is not None or pinned is not None:
        return []
    found = file_hash(target)
    pin = {"url": file.url, "size_bytes": target.stat().st_size, "checksum": f"sha256:{found}"}
    write_text_atomic(_pin(target), json.dumps(pin, indent=2) + "\n")
    return [f"{file.name}: no published checksum; the sha256 of this download is {found}: pin it ({_pin(target)})"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pooch's own log lines off the terminal: the command line says the same in its words."""
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Let one process at a time work on a set; where a file system has no locks, say so instead of risking it."""
    with explained(lock.parent, "download to"):
        handle = lock.open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as problem:
            raise InputError(
                f"{lock.parent} is on a file system without file locks ({problem.strerror}): set "
                "EMLOOM_CACHE to a folder on a local disk"
            ) from problem
        yield


def _sweep(folder: Path) -> None:
    """Remove the empty file that pooch makes for a download, where an earlier process was killed over it."""
    for path in folder.glob("tmp????????"):
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()


def _unpack(archive: Path) -> list[str]:
    """Unpack a zip file into a folder beside it, all or nothing; the archive stays, so it can be verified."""
    if archive.suffix != ".zip" or archive.with_suffix("").is_dir():
        return []
    target = archive.with_suffix("")
    try:
        with zipfile.ZipFile(archive) as members:
            _refuse_escapes(archive, members)
            require_space(archive, sum(member.file_size for member in members.infolist()))
            with staged(target) as temporary:
                temporary.mkdir()
                members.extractall(temporary)
    except (zipfile.BadZipFile, NotImplementedError) as problem:
        raise InputError(f"{archive} cannot be unpacked ({problem}): remove it and fetch it again") from problem
    return [f"{archive.name}: unpacked to {target}"]


def _refuse_escapes(archive: Path, members: zipfile.ZipFile) -> None:
    for member in members.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename.split("/")[0]:
            raise InputError(
                f"{archive} holds {member.filename!r}, which would be unpacked outside its folder: "
                "do not use this file"
            )


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def _part(file: RemoteFile) -> str:
    return f".{file.name}.part"


def _pin(target: Path) -> Path:
    return target.with_name(f"{target.name}.pin.json")


def _read_pin(target: Path) -> str | None:
    try:
        checksum = json.loads(_pin(target).read_text())["checksum"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return checksum if isinstance(checksum, str) else None


def _way(entry: DataSet, folder: Path) -> str:
    if entry.files:
        return f"run `emloom data fetch {entry.name}`"
    return f"download it from {entry.homepage} and put the files into {folder}"
