"""One file over HTTP, resumed where a connection broke.

Bytes arrive in a hidden ``.part`` beside the final file, with a note of what the server said about the version::

    .raw.h5.part  .raw.h5.part.json      received so far; which version that is
    raw.h5                               whole and verified, or not there

The next attempt, also of another day, asks for the rest (``Range``) of that same version (``If-Range``). A server
that cannot do so, or holds another version by now, sends everything and the part starts anew. A file is never
glued together from two versions: without a version mark and without a checksum there is no resuming.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from requests import exceptions as broken

from emloom.errors import InputError
from emloom.io.files import explained, require_space

Progress = Callable[[int, int], None]
"""Called with bytes received and bytes in all (0 where the server does not say)."""

ATTEMPTS = 4
"""Times in a row a server may answer without a single new byte before we give up."""
PAUSE_S = 1.0
_TIMEOUT_S = (15.0, 60.0)  # to connect, between two pieces
_PIECE_BYTES = 2**16  # the most a broken connection costs
_PARTIAL, _NOT_SATISFIABLE, _FIRST_ERROR, _FIRST_SERVER_ERROR = 206, 416, 400, 500
_BUSY = (408, 429)
_LOST = (broken.ChunkedEncodingError, broken.ConnectionError, broken.Timeout, broken.ContentDecodingError)


class _InterruptedError(Exception):
    """The answer ended early or the server was busy; another attempt may go on from there."""


@dataclass(frozen=True)
class ResumingDownload:
    """A downloader in the sense of pooch: call it with (url, output file, pooch).

    Attributes:
        part: where received bytes are kept until the file is whole.
        size_bytes: exact size of the file, where known.
        checksum: `sha256:...` or `md5:...`, where known.
        advice: what a person can do if the server does not deliver (where to download by hand).
        progress: told about received bytes.
    """

    part: Path
    size_bytes: int | None = None
    checksum: str | None = None
    advice: str = "download it by hand"
    progress: Progress | None = None

    def __call__(self, url: str, output_file: str | Path, pooch: object = None) -> None:
        """Download `url` to `output_file`.

        Raises:
            InputError: no such file, no answer, a broken connection (the part is kept), a size or a checksum
                that is not the published one (the part is removed), a full disk.
        """
        with explained(self.part, "download to"):
            self._receive(url)
            self._verify(url)
            _sync(self.part)
            os.replace(self.part, output_file)
            self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def _receive(self, url: str) -> None:
        """Ask until the part is whole; give up when nothing new comes."""
        best, stalled = self._held(), 0
        while True:
            try:
                self._request(url)
                return
            except broken.SSLError as problem:
                raise InputError(
                    f"{url}: the server's certificate is not valid ({problem}): {self.advice}"
                ) from None
            except (_InterruptedError, *_LOST) as problem:
                held = self._held()
                stalled = 0 if held > best else stalled + 1
                best = max(best, held)
                if stalled >= ATTEMPTS:
                    raise InputError(
                        f"the connection for {url} broke after {held} bytes ({problem}): the same command goes on "
                        f"from there, what was received is kept in {self.part}; or {self.advice}"
                    ) from None
                time.sleep(PAUSE_S * stalled)
            except broken.RequestException as problem:
                raise InputError(f"cannot ask for {url} ({problem}): {self.advice}") from None

    def _request(self, url: str) -> None:
        start, headers = self._resume_from(url)
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code == _NOT_SATISFIABLE and start:
                self._forget()
                raise _InterruptedError("the part no longer fits the file and starts anew")
            self._refuse_errors(url, answer)
            if answer.status_code == _PARTIAL and _range_start(answer) != start:
                self._forget()
                raise _InterruptedError("the server sent another range than asked for")
            resumed = answer.status_code == _PARTIAL
            total = _total(answer, start if resumed else 0)
            self._refuse_other_size(url, total)
            require_space(self.part.parent, max(0, total - start))
            if not resumed:
                self._remember(url, answer)
            self._write(answer, total, resumed)
        whole = self.size_bytes or total
        if whole and self._held() < whole:
            raise _InterruptedError(f"{self._held()} of {whole} bytes came")

    def _refuse_errors(self, url: str, answer: requests.Response) -> None:
        status = f"{answer.status_code} {answer.reason}"
        if answer.status_code >= _FIRST_SERVER_ERROR or answer.status_code in _BUSY:
            raise _InterruptedError(f"the server answered {status}")
        if answer.status_code >= _FIRST_ERROR:
            raise InputError(f"{url}: the server answered {status}, the file is not there: {self.advice}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise InputError(f"{url}: the server answered with a web page instead of a file: {self.advice}")

    def _refuse_other_size(self, url: str, total: int) -> None:
        if self.size_bytes is not None and total and total != self.size_bytes:
            self._forget()
            raise InputError(
                f"{url} has {total} bytes, but {self.size_bytes} are published: the file has changed, "
                f"{self.advice}"
            )

    def _write(self, answer: requests.Response, total: int, resumed: bool) -> None:
        with self.part.open("ab" if resumed else "wb") as out:
            for piece in answer.iter_content(_PIECE_BYTES):
                out.write(piece)
                if self.progress:
                    self.progress(out.tell(), total)

    def _verify(self, url: str) -> None:
        held = self._held()
        if self.size_bytes is not None and held != self.size_bytes:
            self._forget()
            raise InputError(
                f"{url} has {held} bytes, but {self.size_bytes} are published; the download was removed: "
                f"{self.advice}"
            )
        if self.checksum is None:
            return
        algorithm, _, published = self.checksum.partition(":")
        found = file_hash(self.part, algorithm)
        if found != published:
            self._forget()
            raise InputError(
                f"{url} is not the published file: its {algorithm} is {found}, published is {published}; the "
                f"download was removed: try again, and if it stays so, {self.advice}"
            )

    def _resume_from(self, url: str) -> tuple[int, dict[str, str]]:
        headers = {"Accept-Encoding": "identity"}  # byte counts must be those of the file
        held, mark = self._held(), self._version(url)
        if not held or (mark is None and self.checksum is None):
            return 0, headers
        headers["Range"] = f"bytes={held}-"
        if mark:
            headers["If-Range"] = mark
        return held, headers

    def _remember(self, url: str, answer: requests.Response) -> None:
        tag = answer.headers.get("ETag", "")
        mark = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        self._note.write_text(json.dumps({"url": url, "version": mark}))

    def _version(self, url: str) -> str | None:
        try:
            note = json.loads(self._note.read_text())
            mark = note["version"] if note["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark if isinstance(mark, str) else None

    def _held(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def file_hash(path: str | Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _range_start(answer: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _total(answer: requests.Response, start: int) -> int:
    """Return the size of the whole file as the server states it, 0 where it does not."""
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else 0


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
