"""The server behind the labelling page: who may ask, what is answered, and that nothing comes from elsewhere."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest

from emloom.errors import InputError
from emloom.view.labelpage import LabelPage, Sights, serve

HOSTILE = "</script><img src=x onerror=alert(1)> & \"' {{ 7 * 7 }}"


class Session:
    """Answers in memory."""

    def __init__(self) -> None:
        self.annotator, self.position, self.starts = HOSTILE, 1, [(0, 1, 2), (3, 4, 5)]
        self.classes = ("debris", HOSTILE)
        self.answers: list[list[str | None]] = [[None, None], ["yes", "no"]]
        self.calls: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self.starts)

    def said(self, index: int) -> list[str | None]:
        return self.answers[index]

    def done(self) -> int:
        return sum(None not in row for row in self.answers)

    def next_open(self, after: int) -> int | None:
        return 0 if None in self.answers[0] else None

    def answer(self, index: int, name: str, word: str | None) -> None:
        if word == "perhaps":
            raise InputError("'perhaps' is no answer: say yes, no or unsure")
        self.calls.append((index, name, word))
        self.answers[index][self.classes.index(name)] = word

    def undo(self) -> int | None:
        return None


SIGHTS = Sights(
    "raw.zarr",
    (1, 8, 8),
    4,
    40,
    210,
    sections=lambda index: (0, index, 5),
    notes=lambda index: [("score", "0.9")],
    picture=lambda index, section: b"PNG %d %d" % (index, section),
)


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def page(session: Session) -> Iterator[LabelPage]:
    with serve(session, SIGHTS) as running:
        yield running


class Connection(http.client.HTTPConnection):
    """One that sends what Python's own refuses to: attackers do not use it."""

    def _encode_request(self, request: str) -> bytes:
        return request.encode()


def ask(
    page: LabelPage, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Ask for a path below the token, or for another address where it begins with a slash."""
    url = urlsplit(page.url)
    whole = path if path.startswith("/") else url.path + path
    connection = Connection(url.hostname or "", url.port, timeout=30)
    try:
        connection.putrequest(method, whole, skip_host=True)
        sent = {"Host": url.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            sent.setdefault("Content-Length", str(len(body)))
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers
    finally:
        connection.close()


def post(page: LabelPage, path: str, said: object, **headers: str) -> tuple[int, Any]:
    headers = {"Content_Type": "application/json", **headers}
    status, body, _ = ask(page, path, method="POST", body=json.dumps(said).encode(), **headers)
    return status, json.loads(body) if body.startswith(b"{") else body


def test_the_page_and_its_parts_are_handed_out(page: LabelPage) -> None:
    for name, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        status, body, headers = ask(page, name)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert len(body) > 1000
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_nothing_comes_from_elsewhere() -> None:
    for name in ("labelpage.html", "labelpage.css", "labelpage.js", "theme.js"):
        text = files("emloom.view").joinpath("templates", name).read_text(encoding="utf-8")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|innerHTML|insertAdjacentHTML|eval\(", text)
        assert not re.search(r"<script(?! src=\"page.js\")|<style|\son[a-z]+=|style=", text)


def test_answers_arrive(page: LabelPage, session: Session) -> None:
    _, body, _ = ask(page, "state")
    state = json.loads(body)
    assert (state["total"], state["done"], state["position"], state["annotator"]) == (2, 1, 1, HOSTILE)
    status, found = post(page, "answer", {"index": 0, "class": "debris", "word": "no"})
    assert (status, found["said"], found["next"], found["done"]) == (200, ["no", None], 0, 1)
    assert session.calls == [(0, "debris", "no")]
    assert post(page, "undo", {}) == (200, {"index": None})
    assert ask(page, "picture/1/-3")[1] == b"PNG 1 -3"
    status, found = post(page, "answer", {"index": 0, "class": "debris", "word": "perhaps"})
    assert (status, found) == (400, {"error": "'perhaps' is no answer: say yes, no or unsure"})


def test_what_is_known_of_a_patch_is_told_after_the_answer(page: LabelPage) -> None:
    assert json.loads(ask(page, "patch/0")[1])["notes"] == []
    assert json.loads(ask(page, "patch/1")[1])["notes"] == [["score", "0.9"]]


@pytest.mark.fault(
    "pages",
    "the page of patches is asked for without its token, or with most of it",
    "404; the token is compared in constant time",
)
def test_without_the_token_there_is_nothing(page: LabelPage) -> None:
    token = urlsplit(page.url).path.strip("/")
    assert len(token) >= 32
    for path in (
        "/",
        "/state",
        "/page.js",
        f"/{token[:-1]}/",
        f"/{token}x/state",
        f"/x{token}/",
        "//",
        "/%00/",
        "/ü/",
    ):
        assert ask(page, path)[0] == 404, path
    assert ask(page, f"/{token}/state")[0] == 200


@pytest.mark.fault(
    "pages",
    "another name is made to point at this machine (DNS rebinding)",
    "421",
)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "[::1]:80", "localhost.evil.example", ""],
)
def test_no_other_name_reaches_it(page: LabelPage, host: str) -> None:
    assert ask(page, "state", Host=host)[0] == 421


def test_localhost_is_this_machine(page: LabelPage) -> None:
    port = urlsplit(page.url).port
    assert ask(page, "state", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


@pytest.mark.fault(
    "pages",
    "another web page sends an answer",
    "403; nothing is answered",
)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_no_other_page_may_answer(page: LabelPage, session: Session, origin: str) -> None:
    said = {"index": 0, "class": "debris", "word": "no"}
    assert post(page, "answer", said, Origin=origin)[0] == 403
    assert ask(page, "state", Origin=origin)[0] == 403
    assert session.calls == []


@pytest.mark.fault(
    "pages",
    "a form on another page sends an answer",
    "415; nothing is answered",
)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(page: LabelPage, session: Session, kind: str) -> None:
    assert post(page, "answer", {"index": 0, "class": "debris", "word": "no"}, Content_Type=kind)[0] == 415
    assert session.calls == []


@pytest.mark.fault(
    "pages",
    "answers are no JSON, nested 60 000 deep, too long, or of no patch",
    "400, 404 or 413; the page goes on",
)
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("answer", b"{", 400),
        ("answer", b"[1]", 400),
        ("answer", b"[" * 60_000, 400),
        ("answer", b"\xff\xfe", 400),
        ("answer", b'{"index": 7}', 404),
        ("answer", b'{"index": -1}', 404),
        ("answer", b'{"index": true}', 404),
        ("answer", b"{}", 404),
        ("nothing", b"{}", 404),
        ("answer", b" " * 70_000, 413),
    ],
)
def test_nonsense_is_refused(page: LabelPage, session: Session, path: str, body: bytes, status: int) -> None:
    found = ask(page, path, method="POST", body=body, Content_Type="application/json")
    assert found[0] == status
    assert session.calls == []
    assert ask(page, "state")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "page.css/", "..%2f..%2fetc%2fpasswd", "labelpage.html", "patch/2", "patch/-1",
     "patch/¹", "patch/" + "1" * 4000, "picture/0/x", "picture/0", "picture/9/0", "state/1", "report.css"],
)  # fmt: skip
def test_nothing_else_is_handed_out(page: LabelPage, path: str) -> None:
    assert ask(page, path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_refused(page: LabelPage, method: str) -> None:
    assert ask(page, "state", method=method)[0] == 501


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("192.0.2.1", "other machines can reach"),
        ("0.0.0.0", "every address"),
        ("::1", "no IPv4 address"),
        ("example.org", "no IPv4 address"),
        ("", "no IPv4 address"),
    ],
)
def test_strangers_are_not_let_in_by_accident(host: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        serve(Session(), SIGHTS, host=host)


@pytest.mark.fault(
    "pages",
    "the page is to be served on all addresses at once",
    "error: name the one",
)
def test_every_address_at_once_is_never_served() -> None:
    with pytest.raises(InputError, match="name the one"):
        serve(Session(), SIGHTS, host="0.0.0.0", let_others_in=True)
    with pytest.raises(InputError, match="cannot listen"):
        serve(Session(), SIGHTS, host="192.0.2.1", let_others_in=True)  # of no machine: RFC 5737


@pytest.mark.fault(
    "pages",
    "the port of the page of patches is in use",
    "error: cannot listen on port ...: choose another, or 0 for any",
)
def test_a_port_is_not_shared(page: LabelPage) -> None:
    with pytest.raises(InputError, match="cannot listen"):
        serve(Session(), SIGHTS, port=urlsplit(page.url).port or 0)
    with pytest.raises(InputError, match="no secret"):
        serve(Session(), SIGHTS, token="short")


@pytest.mark.fault(
    "pages",
    "requests with a token arrive",
    "no address, and so no token, is logged",
)
def test_addresses_stay_out_of_the_log(page: LabelPage, capfd: pytest.CaptureFixture[str]) -> None:
    ask(page, "state")
    ask(page, "/nothing")
    assert capfd.readouterr() == ("", "")
