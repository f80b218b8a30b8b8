"""Servers in threads: of files, some misbehaving as real ones do, and of buckets (s3 by moto, gs by `Gcs`)."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


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


class Prompt(ThreadingHTTPServer):
    """Answers at once, however many ask at once."""

    #: Of those who ask while so many wait, the system drops the call, and they ask again after a second or more.
    request_queue_size = 128

    def server_bind(self) -> None:
        """Do not collect answers (Nagle's algorithm): they are small and the client waits for each."""
        super().server_bind()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Quiet(Prompt):
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


#: Status, content, headers.
Answer = tuple[int, bytes, dict[str, str]]
#: Generation and content of an object.
Stored = tuple[int, bytes]


@dataclass
class Gcs:
    """The part of Google's storage JSON API that TensorStore uses, with objects in memory.

    https://cloud.google.com/storage/docs/json_api/v1: objects get (alt=media, Range), insert (uploadType=media),
    list and delete, with ifGenerationMatch and ifGenerationNotMatch.
    """

    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)
    """Bucket -> name -> (generation, content)."""
    refused: str = ""
    """Part of the names of objects that answer 403."""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    clock: int = 1000

    def reply(self, method: str, target: str, body: bytes, span: str | None) -> Answer:
        """Answer one request: (status, content, headers)."""
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        found = re.fullmatch(r"(?:/upload)?/storage/v1/b/([^/]+)/o(?:/([^/]*))?", parts.path)
        assert found, f"not a request of the JSON API: {method} {target}"
        name = unquote(found[2]) if found[2] is not None else query.get("name", "")
        with self.lock:
            objects = self.buckets.get(found[1])
            if objects is None:
                return 404, b'{"error": {"code": 404, "message": "The specified bucket does not exist."}}', {}
            if self.refused and self.refused in (name or query.get("prefix", "")):
                return 403, b'{"error": {"code": 403, "message": "no permission"}}', {}
            if method == "GET" and found[2] is None:
                return self._list(objects, query)
            return self._object(method, objects, name, query, body, span)

    def _list(self, objects: dict[str, Stored], query: dict[str, str]) -> Answer:
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        start = max(start, query.get("pageToken", ""))
        names = sorted(n for n in objects if n.startswith(query.get("prefix", "")) and n >= start)
        names = [n for n in names if not end or n < end]
        # Pages of three, so that listing more than one page is tested.
        page: dict[str, object] = {"items": [self._about(n, *objects[n]) for n in names[:3]]}
        if len(names) > 3:
            page["nextPageToken"] = names[3]
        return 200, json.dumps(page).encode(), {}

    def _object(
        self,
        method: str,
        objects: dict[str, Stored],
        name: str,
        query: dict[str, str],
        body: bytes,
        span: str | None,
    ) -> Answer:
        generation, content = objects.get(name, (0, b""))
        if int(query.get("ifGenerationMatch", generation)) != generation:
            return 412, b"", {}
        if int(query.get("ifGenerationNotMatch", -1)) == generation:
            return 304, b"", {}
        if method == "POST":
            self.clock += 1
            objects[name] = (self.clock, body)
            return 200, json.dumps(self._about(name, *objects[name])).encode(), {}
        if not generation:
            return 404, b"", {}
        if method == "DELETE":
            del objects[name]
            return 204, b"", {}
        if query.get("alt") != "media":
            return 200, json.dumps(self._about(name, generation, content)).encode(), {}
        headers = {"x-goog-generation": str(generation)}
        if span is None:
            return 200, content, headers
        first, _, last = span.removeprefix("bytes=").partition("-")
        a, b = (int(first), int(last or len(content)) + 1) if first else (len(content) - int(last), len(content))
        part = content[a:b]
        return 206, part, headers | {"Content-Range": f"bytes {a}-{a + len(part) - 1}/{len(content)}"}

    @staticmethod
    def _about(name: str, generation: int, content: bytes) -> dict[str, str]:
        stamp = "2026-01-01T00:00:00.000Z"
        about = {"name": name, "generation": str(generation), "metageneration": "1", "size": str(len(content))}
        return about | {"md5Hash": hashlib.md5(content).hexdigest(), "timeCreated": stamp, "updated": stamp}


def gcs_handler(state: Gcs) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:  # the client died: Google keeps no part of an upload
                self.close_connection = True
                return
            status, content, headers = state.reply(self.command, self.path, body, self.headers.get("Range"))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 (names the base class calls)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving_gcs(*buckets: str) -> Iterator[Gcs]:
    """Serve empty buckets until the block ends."""
    state = Gcs({bucket: {} for bucket in buckets})
    server = Quiet(("127.0.0.1", 0), gcs_handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
