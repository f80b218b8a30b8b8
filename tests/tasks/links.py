"""What a report says about viewers, and the viewers that it starts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest

from emloom.cli.main import main
from emloom.tasks.view import named_volumes
from emloom.view.neuroglancer import Viewer, serve


class Links(HTMLParser):
    """Addresses and command lines of a report, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.commands: list[str] = []
        self._within: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") or ""
        if tag == "a" and href.startswith("http"):
            self.addresses.append(href)
        if tag == "div" and ("class", "opening") in attrs:
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._within:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within and data.startswith("emloom "):
            self.commands.append(data)


@contextmanager
def started(command: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Viewer]:
    """Start what a command line of the report starts, on any free port; it goes on until the block ends."""
    asked: dict[str, Any] = {}

    def show(paths: Sequence[str], port: int, say: Any, **more: Any) -> None:
        assert set(more) == {"spot", "token", "synapses"}
        asked.update(paths=paths, port=port, **more)

    monkeypatch.setattr("emloom.tasks.view.show", show)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert asked["port"] == 9009
    volumes = named_volumes(asked["paths"], {layer for layer, _ in asked["spot"].segments})
    with serve(volumes, port=0, token=asked["token"], spot=asked["spot"]) as viewer:
        yield viewer


def here(viewer: Viewer, link: str) -> str:
    """Return a link of the report for the port that the test found free."""
    assert urlsplit(link).netloc == "127.0.0.1:9009"
    return link.replace(":9009", f":{urlsplit(viewer.url).port}", 1)
