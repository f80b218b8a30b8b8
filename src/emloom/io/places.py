"""Places where volumes live: local paths and remote addresses.

::

    /data/out.zarr/raw                      a `Path`
    s3://bucket/out.zarr/raw                a `Remote`, and so are gs://, http:// and https://

Both answer to ``/``, `name`, `suffix`, `parent`, `parents` and `parts`, so code that walks a container need not
know which it holds; what touches bytes goes through the functions below, and these through TensorStore.

Remote places are only read, and never listed: http cannot, and listing a bucket lists every chunk in it. What lies
inside a remote container is what its metadata name, or what the user names.

What a missing file means depends on who asks: `read_bytes` says None; a missing chunk is an `InputError`, but zero
at an address that ends in ``#sparse``, which says that the volume is stored so. Every other failure (403, 500, a
connection that stays broken) is an `InputError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import tensorstore

from emloom.errors import InputError, did_you_mean
from emloom.io.files import explained

#: End of an address whose missing chunks are zero. As the fragment of an address it is never sent to a server.
SPARSE = "#sparse"
SCHEMES = ("s3", "gs", "http", "https")
_RETRIES = {"max_retries": 5, "initial_delay": "100ms", "max_delay": "2s"}
_DRIVERS = {"s3": "s3", "gs": "gcs"}


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote address.

    Attributes:
        scheme: one of `SCHEMES`.
        host: bucket, or host and port.
        keys: names below it.
        sparse: a missing chunk is zero, not an error.
    """

    scheme: str
    host: str
    keys: tuple[str, ...] = ()
    sparse: bool = False

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.parts[-1]

    @property
    def suffix(self) -> str:
        """Suffix of the last name, with its dot; none for a bucket or host."""
        return Path(self.keys[-1]).suffix if self.keys else ""

    @property
    def stem(self) -> str:
        """Last name without its suffix."""
        return Path(self.name).stem

    @property
    def parts(self) -> tuple[str, ...]:
        """Address of the bucket or host, then the names below it."""
        return (f"{self.scheme}://{self.host}", *self.keys)

    @property
    def parent(self) -> Remote:
        """The address one name shorter; a bucket or host is its own parent."""
        return replace(self, keys=self.keys[:-1])

    @property
    def parents(self) -> Sequence[Remote]:
        """All parents, nearest first."""
        return [replace(self, keys=self.keys[:n]) for n in reversed(range(len(self.keys)))]

    def __truediv__(self, inner: str) -> Remote:
        return replace(self, keys=(*self.keys, *(key for key in inner.split("/") if key not in ("", "."))))

    def __str__(self) -> str:
        return "/".join(self.parts) + (SPARSE if self.sparse else "")


Place = Path | Remote


def place_of(path: str | Path | Remote) -> Place:
    """Return the place a path or an address names.

    Raises:
        InputError: an address with an unknown scheme, without a bucket or host, or with a query.
    """
    if isinstance(path, Remote):
        return path
    scheme, colon, rest = str(path).partition("://")
    if not colon:
        return Path(path)
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme, SCHEMES)
        raise InputError(f"{path} has the unknown scheme {scheme!r}{hint}: use one of {', '.join(SCHEMES)}")
    rest, sparse = rest.removesuffix(SPARSE), rest.endswith(SPARSE)
    host, *keys = rest.split("/")
    names = tuple(key for key in keys if key)
    if not host or {".", ".."} & set(names) or re.search("[?#]", rest):
        rule = f"give scheme://bucket-or-host/path, without '?', '#', '.' or '..'; only {SPARSE} may follow"
        raise InputError(f"{path} is not the address of a volume: {rule}")
    return Remote(scheme, host, names, sparse)


def above(place: Place, levels: int) -> list[Place]:
    """Return the nearest parents of a place, nearest first, `levels` of them or as many as there are."""
    return [*place.parents][:levels]


def inner_name(container: Place, whole: Place) -> str:
    """Return what follows a container in a place inside it, with slashes; "" for the container itself.

    Raises:
        InputError: it leads out of the container.
    """
    parts = whole.parts[len(container.parts) :]
    if ".." in parts:
        raise InputError(
            f"{whole} leads out of {container} again ('..'): write the path to what you mean without it"
        )
    return "/".join(parts)


def stays_inside(path: str) -> bool:
    """Whether a path that a file states stays inside the folder it is relative to."""
    parts = PurePosixPath(path.replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts and "://" not in path and "\0" not in path


def kvstore(place: Place) -> dict[str, Any]:
    """Return TensorStore's specification of a place as a key-value store."""
    if isinstance(place, Path):
        # TensorStore takes no "..": it is resolved as the system would, symbolic links included.
        return {"driver": "file", "path": os.fspath(place.resolve() if ".." in place.parts else place)}
    if place.scheme in _DRIVERS:
        return {
            "driver": _DRIVERS[place.scheme],
            "bucket": place.host,
            "path": "".join(f"{key}/" for key in place.keys),
        }
    return {"driver": "http", "base_url": "".join(f"{part}/" for part in place.parts)}


@cache
def context() -> Any:
    """Return what all stores of this process share; a broken connection is given up after seconds, not minutes."""
    return tensorstore.Context({f"{kind}_request_retries": _RETRIES for kind in ("http", "s3", "gcs")})


def read_bytes(place: Place) -> bytes | None:
    """Return the content of a file, None where there is none.

    Raises:
        InputError: permission denied, or the server does not answer or answers with an error.
    """
    if isinstance(place, Path):
        if not place.is_file():
            return None
        with explained(place, "read"):
            return place.read_bytes()
    try:
        answer = tensorstore.KvStore.open(kvstore(place.parent), context=context()).result()
        got = answer.read(place.name).result()
    except (ValueError, RuntimeError, OSError) as problem:
        raise InputError(unreachable(place, problem)) from problem
    return None if got.state == "missing" else bytes(got.value)


def exists(place: Place) -> bool:
    """Whether there is a file at a place."""
    return place.is_file() if isinstance(place, Path) else read_bytes(place) is not None


def is_folder(place: Place) -> bool:
    """Whether a place may hold files; remote places have no folders, so there nothing is denied."""
    return place.is_dir() if isinstance(place, Path) else True


def children(place: Place) -> list[str] | None:
    """Return the names of the visible folders in a place, sorted; None where it cannot be listed."""
    if isinstance(place, Remote):
        return None
    with explained(place, "read"):
        return sorted(child.name for child in place.iterdir() if child.is_dir() and not child.name.startswith("."))


def unreachable(place: object, problem: Exception) -> str:
    """Return the message about a remote place that did not answer as it should."""
    return f"cannot read {place}: {short(problem)}; check the address and the network, then try again"


def short(problem: Exception) -> str:
    """Return TensorStore's message without the web page that came with it, on one line."""
    page_and_internals = r"\[(http_response_body|source locations|tensorstore_spec)=.*"
    text = re.sub(page_and_internals, "", str(problem), flags=re.DOTALL)
    return " ".join(text.split())[:300]
