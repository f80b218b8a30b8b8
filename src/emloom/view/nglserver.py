"""What the server of neuroglancer is taught: to move its page, to hand out files of results, to refuse strangers.

The server of the package is bound to 127.0.0.1, and every address holds the secret token of a page. Added here::

    /v/TOKEN/at?at=...        moves the page to a spot, then leads there
    /v/TOKEN/files/0/mesh/17  files of the folders that are shown, read-only, nothing above them

Only requests that call this machine by a name of its own are answered: a page of another host that had its name
point at 127.0.0.1 gets nothing, whatever it knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.view.spot import LOOPBACK, Spot

_OURS = (LOOPBACK, "localhost", "::1")


def refuse_strangers() -> None:
    """Answer nothing that was asked for under another host's name."""
    routing, web = import_module("tornado.routing"), import_module("tornado.web")

    class OtherHosts(routing.Matcher):  # type: ignore[name-defined, misc]
        def match(self, request: Any) -> dict[str, Any] | None:
            return None if request.host_name.strip("[]") in _OURS else {}

    class NoIcon(web.RequestHandler):  # type: ignore[name-defined, misc]
        def get(self) -> None:
            # Every browser asks for one; that there is none is no error of the page.
            self.set_status(204)

    rule = routing.Rule(OtherHosts(), web.ErrorHandler, {"status_code": 404})
    _app().wildcard_router.rules.insert(0, rule)
    _app().add_handlers(re.escape(LOOPBACK), [("/favicon.ico", NoIcon)])


def answer_links(token: str, go: Callable[[Spot], None]) -> None:
    """Let addresses that end in ``/at?...`` move the page of a token."""
    web = import_module("tornado.web")

    class Spots(web.RequestHandler):  # type: ignore[name-defined, misc]
        def get(self) -> None:
            self.set_header("Cache-Control", "no-store")
            try:
                go(Spot.of_query(self.request.query))
            except InputError as problem:
                self.set_status(400)
                self.set_header("Content-Type", "text/plain; charset=utf-8")
                self.set_header("X-Content-Type-Options", "nosniff")
                self.finish(f"{problem}\n")
            else:
                self.redirect(f"/v/{token}/")

    # Under no other host: names that others point at this machine are not answered.
    _app().add_handlers(re.escape(LOOPBACK), [(f"/v/{re.escape(token)}/at", Spots)])


def hand_out(token: str, folders: Sequence[Path]) -> list[str]:
    """Let the page of a token read the files of some folders; return the address of each."""
    web = import_module("tornado.web")

    class Files(web.StaticFileHandler):  # type: ignore[name-defined, misc]
        def set_extra_headers(self, path: str) -> None:
            self.set_header("Cache-Control", "no-store")
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("X-Content-Type-Options", "nosniff")

    app, server = _app(), import_module("neuroglancer.server").global_server
    made = []
    for number, folder in enumerate(folders):
        place = f"/v/{token}/files/{number}"
        rule = (f"/v/{re.escape(token)}/files/{number}/(.*)", Files, {"path": str(folder.resolve())})
        app.add_handlers(re.escape(LOOPBACK), [rule])
        made.append(f"{server.server_url}{place}")
    return made


def _app() -> Any:
    return import_module("neuroglancer.server").global_server.app
