"""A local web page on which a person answers yes, no or unsure for one patch after another.

A small server of Python's own library hands out one page, pictures and answers. What keeps strangers out:

* it listens on this machine only, unless told otherwise, and never on all addresses at once;
* every address holds a random token, compared in constant time; without it there is nothing to see;
* the ``Host`` of a request must be its own, so no name that is made to point at this machine reaches it;
* what changes something must say that it is JSON, and come from its own page if the browser says where from;
* the page loads nothing from elsewhere and runs no script but its own (Content-Security-Policy).

It needs no network and no further package.
"""

from __future__ import annotations

import hmac
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, ip_address
from types import TracebackType
from typing import Any, Protocol, Self

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.view.design import colours_css, part
from emloom.view.spot import LOOPBACK, check_token, new_token

# Its colours, and how they are chosen, are those of the reports.
_PARTS: dict[str, tuple[Callable[[], str], str]] = {
    "": (lambda: part("labelpage.html"), "text/html; charset=utf-8"),
    "page.css": (lambda: colours_css() + part("labelpage.css"), "text/css; charset=utf-8"),
    "page.js": (lambda: part("theme.js") + part("labelpage.js"), "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_JSON = "application/json"
_LARGEST = 1 << 16
_PATIENCE_S = 60
_POLL_S = 0.05


class Judging(Protocol):
    """What is asked, and what was answered; see `emloom.tasks.labelsession.LabelSession`."""

    annotator: str
    position: int
    starts: list[Vec]

    @property
    def classes(self) -> tuple[str, ...]:
        """What is asked of every patch."""

    def __len__(self) -> int: ...

    def said(self, index: int) -> list[str | None]:
        """Return the answers about a patch, one for each class."""

    def done(self) -> int:
        """Return how many patches are answered."""

    def next_open(self, after: int) -> int | None:
        """Return the next patch that is not answered."""

    def answer(self, index: int, name: str, word: str | None) -> None:
        """Take an answer, and keep it."""

    def undo(self) -> int | None:
        """Take the last answer back, and return its patch."""


@dataclass(frozen=True)
class Sights:
    """How patches are shown.

    Attributes:
        title: of the page.
        shape: voxels (z, y, x) of a patch.
        margin: voxels around it, in the section.
        black: which grey of a picture (0 to 255) is shown as black at first.
        white: which is shown as white.
        sections: patch -> (first, middle, last section that can be shown).
        notes: patch -> (name, text) pairs about it; told only when it is answered, so that they sway nobody.
        picture: (patch, section) -> PNG.
    """

    title: str
    shape: Vec
    margin: int
    black: int
    white: int
    sections: Callable[[int], tuple[int, int, int]]
    notes: Callable[[int], Sequence[tuple[str, str]]]
    picture: Callable[[int, int], bytes]


@dataclass
class LabelPage:
    """A running page; close it, or use it as a context manager.

    Attributes:
        url: its address, with the token.
    """

    url: str
    _server: ThreadingHTTPServer
    _thread: threading.Thread = field(repr=False)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    session: Judging,
    sights: Sights,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    token: str | None = None,
    let_others_in: bool = False,
) -> LabelPage:
    """Serve the page of a session.

    Args:
        session: what is asked; only one request at a time touches it.
        sights: how it is shown.
        host: address of this machine to listen on.
        port: to listen on; 0 picks a free one.
        token: secret part of the address; a random one by default.
        let_others_in: listen on an address that other machines reach. Nothing is encrypted.

    Raises:
        InputError: the address is no single one of this machine, others could reach it unasked, the port is taken,
            or the token is no secret.
    """
    secret = new_token() if token is None else check_token(token)
    _check_host(host, let_others_in)
    try:
        server = _Server((host, port), _Desk(session, sights, secret))
    except OSError as problem:
        raise InputError(
            f"cannot listen on {host}, port {port}: {problem.strerror}; choose another, or port 0 for any"
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="label page", daemon=True)
    thread.start()
    return LabelPage(f"http://{host}:{server.server_port}/{secret}/", server, thread)


def _check_host(host: str, let_others_in: bool) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if not isinstance(address, IPv4Address):
        raise InputError(f"host {host!r} is no IPv4 address: give one of this machine, such as {LOOPBACK}")
    if address.is_unspecified:
        raise InputError(f"host {host} means every address of this machine: name the one that others shall use")
    if not address.is_loopback and not let_others_in:
        raise InputError(
            f"other machines can reach {host}, and whoever reads the network can read the token and answer: leave "
            f"out --host, tunnel to it (ssh -L), or say --let-others-in"
        )


class _Refused(Exception):  # noqa: N818 - not an error of ours
    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Desk:
    """Answers about one session, whatever brings the questions."""

    def __init__(self, session: Judging, sights: Sights, token: str) -> None:
        self.session, self.sights, self.token = session, sights, token
        self.lock = threading.Lock()

    def got(self, parts: list[str]) -> tuple[str, bytes]:
        """Return the type and the bytes of what an address names."""
        match parts:
            case [name] if name in _PARTS:
                content, kind = _PARTS[name]
                return kind, content().encode()
            case ["state"]:
                with self.lock:
                    return _JSON, _json(self._state())
            case ["patch", number]:
                with self.lock:
                    return _JSON, _json(self._patch(self._index(number)))
            case ["picture", number, section]:
                return "image/png", self.sights.picture(self._index(number), _whole(section))
        raise _Refused(HTTPStatus.NOT_FOUND, "nothing is here")

    def posted(self, parts: list[str], said: dict[str, Any]) -> tuple[str, bytes]:
        """Do what is said, and return the type and the bytes of what came of it."""
        with self.lock:
            match parts:
                case ["answer"]:
                    index = self._index(str(said.get("index")))
                    word = said.get("word")
                    self.session.answer(index, str(said.get("class")), None if word is None else str(word))
                    return _JSON, _json(self._after(index))
                case ["undo"]:
                    undone = self.session.undo()
                    return _JSON, _json({"index": None} if undone is None else self._after(undone))
        raise _Refused(HTTPStatus.NOT_FOUND, "nothing is here")

    def _state(self) -> dict[str, Any]:
        session, sights = self.session, self.sights
        return {
            "title": sights.title,
            "classes": session.classes,
            "annotator": session.annotator,
            "total": len(session),
            "done": session.done(),
            "position": session.position,
            "shape": sights.shape,
            "margin": sights.margin,
            "black": sights.black,
            "white": sights.white,
        }

    def _patch(self, index: int) -> dict[str, Any]:
        said = self.session.said(index)
        return {
            "index": index,
            "start": self.session.starts[index],
            "said": said,
            "sections": self.sights.sections(index),
            "notes": [] if None in said else self.sights.notes(index),
        }

    def _after(self, index: int) -> dict[str, Any]:
        return {**self._patch(index), "done": self.session.done(), "next": self.session.next_open(index)}

    def _index(self, text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) >= len(self.session):
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such patch")
        return int(text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], desk: _Desk) -> None:
        self.desk = desk
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about connections that a browser drops."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "emloom", ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        self._respond(self.server.desk.got)

    def do_POST(self) -> None:
        self._respond(lambda parts: self.server.desk.posted(parts, self._said()))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep addresses, which hold the token, out of every log."""

    def _respond(self, answer: Callable[[list[str]], tuple[str, bytes]]) -> None:
        try:
            kind, body = answer(self._checked())
            status = HTTPStatus.OK
        except _Refused as problem:
            status, kind, body = problem.status, "text/plain; charset=utf-8", f"{problem}\n".encode()
            self.close_connection = True  # a body may be left unread
        except InputError as problem:
            status, kind, body = HTTPStatus.BAD_REQUEST, _JSON, _json({"error": str(problem)})
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _checked(self) -> list[str]:
        """Return the parts of the address behind the token."""
        host, port = self.server.server_address[:2]
        hosts = {f"{host!s}:{port}", f"{'localhost' if host == LOOPBACK else host!s}:{port}"}
        if self.headers.get("Host") not in hosts:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this is another machine than was asked for")
        _, given, *rest = [*self.path.partition("?")[0].split("/"), ""]
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.server.desk.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "nothing is here: open the address as it was printed")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in hosts}:
            raise _Refused(HTTPStatus.FORBIDDEN, "another page asks: only the own one may")
        return rest[:-1]

    def _said(self) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").partition(";")[0].strip() != _JSON:
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"say what is said as {_JSON}")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _LARGEST:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"say it in at most {_LARGEST} bytes")
        try:
            said = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _Refused(HTTPStatus.BAD_REQUEST, "this is no JSON") from None
        if not isinstance(said, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "this is no JSON object")
        return said


def _whole(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 9:
        raise _Refused(HTTPStatus.NOT_FOUND, "there is no such section")
    return int(text)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
