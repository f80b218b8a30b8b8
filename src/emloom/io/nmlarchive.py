"""Archives of tracings, `.zip`, `.nmx`, `.k.zip`: NML files, and perhaps the voxels of volume layers beside them.

Archives of strangers are safe to read. Nothing is ever unpacked to the disk. What an archive says about its sizes
counts for nothing: the bytes that really come out are counted, and reading stops where they are more than
`LARGEST` or, past the first `ALWAYS`, more than `LARGEST_RATIO` times the archive itself. Names that lead out of
a folder (``../x``, ``/x``, ``C:\\x``) are refused, for whoever unpacks what emloom writes, and so are names that
stand twice.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from emloom.errors import InputError
from emloom.geometry.elements import Attachment
from emloom.geometry.tracings import Tracing
from emloom.io.nmlwriter import nml_lines

LARGEST = 4 << 30
"""Bytes of all NML files of an archive, unpacked: some ten million nodes."""
LARGEST_RATIO = 200
"""Times its own size that an archive may unpack to; real tracings reach 40."""
ALWAYS = 64 << 20
"""Bytes that may always come out: so much fills no memory, however well it was packed."""
MOST_MEMBERS = 100_000
"""Files in one archive."""

ENDINGS = (".zip", ".nmx")
_ARCHIVED = (".nml", ".xml")
_CHUNK = 1 << 18
_LEADS_OUT = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|\\|\0")
_WRITTEN_ON = (1980, 1, 1, 0, 0, 0)  # always the same, so that equal tracings are equal files


class Budget:
    """Counts the bytes that come out of an archive, and stops where they are too many."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = min(LARGEST, max(ALWAYS, LARGEST_RATIO * path.stat().st_size))

    def chunks(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yield the bytes of a member.

        Raises:
            InputError: they are more than are left.
        """
        for chunk in unpacked(self.path, archive, member):
            self.left -= len(chunk)
            if self.left < 0:
                raise InputError(
                    f"{self.path}/{member.filename} unpacks to far more than a tracing does (at most {LARGEST} "
                    f"bytes, and {LARGEST_RATIO} times the archive): it is made to fill the memory; if you trust "
                    "it, unpack it yourself and give the .nml"
                )
            yield chunk


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever is wrong inside an archive into an `InputError`; the block should only unpack."""
    try:
        yield
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
        OSError,
        ValueError,
    ) as problem:
        raise InputError(
            f"cannot unpack {path} ({problem}): copy or export it again, without a password"
        ) from problem


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive.

    Raises:
        InputError: it is damaged.
    """
    with explained(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of a file in an archive, in pieces; what their receiver does wrong is not the archive's.

    Raises:
        InputError: it is damaged, or needs a password.
    """
    with explained(path):
        file = archive.open(member)
    with file:
        while True:
            with explained(path):
                chunk = file.read(_CHUNK)
            if not chunk:
                return
            yield chunk


def members(path: Path, archive: zipfile.ZipFile) -> tuple[list[zipfile.ZipInfo], list[zipfile.ZipInfo]]:
    """Return the NML files of an archive in the order of their names, and its other files.

    Raises:
        InputError: there is no NML file, a name leads out of the folder or stands twice, or there are too many.
    """
    infos = [info for info in archive.infolist() if not info.is_dir() and not _is_litter(info.filename)]
    if len(infos) > MOST_MEMBERS:
        raise InputError(f"{path} holds {len(infos)} files: at most {MOST_MEMBERS} are read; split it")
    seen: set[str] = set()
    for info in infos:
        # zipfile cuts a name at a zero byte; the archive's own name shows it.
        _check_name(path, info.orig_filename)
        if info.filename in seen:
            raise InputError(f"{path} holds two files called {info.filename!r}: which one counts? remove one")
        seen.add(info.filename)
    tracings = sorted((i for i in infos if i.filename.lower().endswith(_ARCHIVED)), key=lambda i: i.filename)
    if not tracings:
        raise InputError(f"{path} holds no .nml file: give an archive of tracings")
    return tracings, [info for info in infos if not info.filename.lower().endswith(_ARCHIVED)]


def attachments(path: Path, infos: list[zipfile.ZipInfo]) -> tuple[Attachment, ...]:
    """Return references to the files of an archive that are not read."""
    return tuple(Attachment(info.filename, str(path), info.file_size) for info in infos)


def _is_litter(name: str) -> bool:
    """Whether a file is one that macOS adds to every archive, about the file beside it."""
    return name.startswith("__MACOSX/") or Path(name).name.startswith("._")


def _check_name(path: str | Path, name: str) -> None:
    if _LEADS_OUT.search(name) or not name:
        raise InputError(
            f"{path} holds a file called {name!r}, which leads out of the folder it would be unpacked to: "
            "rename it, with / between folders"
        )


def write_archive(target: Path, shown: str | Path, tracings: Mapping[str, Tracing]) -> None:
    """Write tracings, and the files that lay beside them, into an archive.

    Args:
        target: file to write.
        shown: its name in messages.
        tracings: name of the NML file in the archive -> tracing.

    Raises:
        InputError: a name leads out of the folder or stands twice, or an attachment cannot be found again.
    """
    for name in tracings:
        _check_name(shown, name)
        if not name.lower().endswith(_ARCHIVED):
            raise InputError(f"{name!r} is no name for a tracing in {shown}: end it with .nml")
    beside = _all_attachments(tracings, shown)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, tracing in tracings.items():
            with archive.open(_info(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as file:
                for line in nml_lines(tracing):
                    file.write(line.encode("utf-8"))
        for attachment in beside:
            _copy(attachment, archive)


def _all_attachments(tracings: Mapping[str, Tracing], shown: str | Path) -> list[Attachment]:
    listed: dict[str, Attachment] = {}
    for tracing in tracings.values():
        for attachment in tracing.attachments:
            if attachment.name in tracings or listed.setdefault(attachment.name, attachment) != attachment:
                raise InputError(
                    f"two different files would be called {attachment.name!r} in {shown}: write two archives, or "
                    "leave the volume layers out, tracing.without_attachments()"
                )
    return list(listed.values())


def _copy(attachment: Attachment, archive: zipfile.ZipFile) -> None:
    path = Path(attachment.archive)
    if not path.is_file():
        raise InputError(
            f"{attachment.name} lay beside the tracing in {path}, which is not there any more: put it back, or "
            "leave it out, tracing.without_attachments()"
        )
    with opened(path) as source:
        found = [info for info in source.infolist() if info.filename == attachment.name]
        if len(found) != 1 or found[0].file_size != attachment.n_bytes:
            raise InputError(
                f"{path} has changed since it was read: {attachment.name} of {attachment.n_bytes} bytes is not in "
                "it; read the tracing again"
            )
        copied = _info(attachment.name, found[0].compress_type)
        with archive.open(copied, "w", force_zip64=True) as write:
            for chunk in unpacked(path, source, found[0]):
                write.write(chunk)


def _info(name: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _WRITTEN_ON)
    info.compress_type = compression
    info.external_attr = 0o644 << 16
    return info
