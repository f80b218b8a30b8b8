"""HTTP servers in threads: one that can misbehave in the ways real ones do, one that serves a folder."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Behaviour:
    """What the server holds, and how it treats those who ask."""

    body: bytes = b""
    version: str | None = '"one"'
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    """Statuses of the first answers, one each; then 200."""
    breaks: list[int] = field(default_factory=list)
    """Of the first whole answers: bytes after which the connection is closed."""
    content_type: str = "application/octet-stream"
    says_length: bool = True
    requests: list[str] = field(default_factory=list)
    """`path range` of all requests so far."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/file.bin"

    port: int = 0


def handler_of(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:  # noqa: C901 (a class, not a flow)
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.requests.append(f"{self.path} {self.headers.get('Range', '-')}")
            start = self._start()
            if behaviour.statuses:
                self._refuse(behaviour.statuses.pop(0))
            elif start >= len(behaviour.body) and start:
                self._refuse(416)
            else:
                self._send(start)

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _start(self) -> int:
            asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not asked or not behaviour.ranges:
                return 0
            known = self.headers.get("If-Range")
            return int(asked.group(1)) if known in (None, behaviour.version) else 0

        def _send(self, start: int) -> None:
            b = behaviour
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", b.content_type)
            if b.says_length:
                self.send_header("Content-Length", str(len(b.body) - start))
            if b.version:
                self.send_header("ETag", b.version)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(b.body) - 1}/{len(b.body)}")
            self.end_headers()
            end = start + b.breaks.pop(0) if b.breaks else len(b.body)
            self.wfile.write(b.body[start:end])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class Quiet(ThreadingHTTPServer):
    """Clients that hang up are part of the tests."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Behaviour]:
    """Serve until the block ends."""
    server = Quiet(("127.0.0.1", 0), handler_of(behaviour))
    behaviour.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield behaviour
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _FolderHandler(SimpleHTTPRequestHandler):
    """Files with byte ranges, for pages of any origin: what a bucket that serves neuroglancer does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self._answer(404, b"")
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, content)
            return
        low, high = asked.groups()
        start = int(low) if low else max(0, len(content) - int(high))
        stop = min(int(high) + 1, len(content)) if low and high else len(content)
        self._answer(206, content[start:stop], f"bytes {start}-{stop - 1}/{len(content)}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self._answer(204, b"")

    def _answer(self, status: int, content: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        for name in ("Origin", "Methods", "Headers"):
            self.send_header(f"Access-Control-Allow-{name}", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    """Serve the files of a folder until the block ends; yields the address."""
    server = Quiet(("127.0.0.1", 0), partial(_FolderHandler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
