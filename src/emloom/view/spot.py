"""Where a viewer looks: a voxel, and the ids it selects; as words of a command line and as an address.

A report holds both: the command line starts `emloom view` at a place, and the address moves a viewer that runs::

    --at 12,340,88 --segment truth=5 --segment segmentation=9,12
    http://127.0.0.1:9009/v/TOKEN/at?at=12%2C340%2C88&segment=truth%3D5&segment=segmentation%3D9%2C12

The token is the secret of an address. A report draws its own, so its links reach the viewer of its own volumes and
none that shows others, and no page that does not know the report can move it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, urlencode

from emloom.errors import InputError
from emloom.geometry import Vec

LOOPBACK = "127.0.0.1"
PORT = 9009
"""Where the links of reports look for a viewer."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_MOST = 2**64 - 1


@dataclass(frozen=True)
class Spot:
    """A place, and what is selected there.

    Attributes:
        at: voxel (z, y, x) of the first volume; None leaves the view where it is.
        segments: (layer, ids) pairs; the layer "" stands for every layer of labels.
    """

    at: Vec | None = None
    segments: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, at: str | None = None, segments: Sequence[str] = ()) -> Self:
        """Return a spot of its words: ``Z,Y,X``, and ``ID,ID`` or ``LAYER=ID,ID``.

        Raises:
            InputError: these are no whole numbers, or no ids.
        """
        place = None if at is None else _voxel(at)
        return cls(place, tuple(_selected(text) for text in segments))

    @classmethod
    def of_query(cls, query: str) -> Self:
        """Return the spot of an address, see `query`.

        Raises:
            InputError: it says something else.
        """
        said = parse_qs(query, keep_blank_values=True)
        if other := said.keys() - {"at", "segment"}:
            raise InputError(f"the address asks for {', '.join(sorted(other))}: it may say `at` and `segment`")
        return cls.of(said["at"][-1] if "at" in said else None, said.get("segment", ()))

    def words(self) -> list[str]:
        """Return the options of `emloom view` that lead here."""
        return [word for name, value in self._pairs() for word in (f"--{name}", value)]

    def query(self) -> str:
        """Return the query of an address that leads here."""
        return urlencode(self._pairs())

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = [] if self.at is None else [("at", _listed(self.at))]
        for layer, ids in self.segments:
            pairs.append(("segment", f"{layer}={_listed(ids)}" if layer else _listed(ids)))
        return pairs


START = Spot()
"""Where a viewer looks if nobody says: the middle, with nothing selected."""


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_hex(16)


def check_token(token: str) -> str:
    """Return a token.

    Raises:
        InputError: it is too short to be a secret, or no part of an address.
    """
    if not _TOKEN.fullmatch(token):
        raise InputError(f"token {token!r} is no secret: give 16 to 128 letters, digits, - and _, or leave it out")
    return token


def address(port: int, token: str, spot: Spot) -> str:
    """Return the address that moves the viewer of a port and token to a spot, and opens its page."""
    return f"http://{LOOPBACK}:{port}/v/{token}/at?{spot.query()}"


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _voxel(text: str) -> Vec:
    numbers = text.split(",")
    if len(numbers) != 3 or not all(re.fullmatch(r"\s*-?[0-9]+\s*", number) for number in numbers):
        raise InputError(f"place {text!r} is not understood: write the voxel as z,y,x, whole numbers")
    z, y, x = map(int, numbers)
    return z, y, x


def _selected(text: str) -> tuple[str, tuple[int, ...]]:
    layer, _, ids = text.rpartition("=")
    if not all(re.fullmatch(r"[0-9]{1,20}", number) and int(number) <= _MOST for number in ids.split(",")):
        raise InputError(
            f"segment {text!r} is not understood: write ids, like 5 or 5,8, or LAYER=5,8 for one layer; "
            f"ids are whole numbers from 0 to {_MOST}"
        )
    return layer, tuple(int(number) for number in ids.split(","))
