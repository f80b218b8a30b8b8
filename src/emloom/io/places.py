"""Places where volumes live: local paths and remote addresses.

::

    /data/out.zarr/raw                      a `Path`
    s3://bucket/out.zarr/raw                a `Remote`, and so are gs://, http:// and https://

Both answer to ``/``, `name`, `suffix`, `parent`, `parents` and `parts`, so code that walks a container need not
know which it holds; what touches bytes goes through the functions below, and these through TensorStore.

Remote places are never listed to find volumes: http cannot, and listing a bucket lists every chunk in it. What
lies inside a remote container is what its metadata name, or what the user names. Buckets (s3, gs) are also
written, see `emloom.io.remote`; http and https are only read.

What a missing file means depends on who asks: `read_bytes` says None; a missing chunk is an `InputError`, but zero
at an address that ends in ``#sparse``, which says that the volume is stored so. Every other failure (403, 500, a
connection that stays broken) is an `InputError`.

A volume in a bucket that is still being written keeps its metadata under other names, so nobody takes it for
finished; at an address that ends in ``#unfinished`` these are the metadata, and missing chunks are zero::

    s3://bucket/out.zarr/raw/zarr.json.unfinished       is  s3://bucket/out.zarr/raw#unfinished / zarr.json
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import tensorstore

from emloom.errors import InputError, did_you_mean
from emloom.io.buckets import advice, bucket_spec
from emloom.io.files import explained

#: End of an address whose missing chunks are zero. As the fragment of an address it is never sent to a server.
SPARSE = "#sparse"
#: End of the address of a volume that is still being written, or whose writer was stopped.
UNFINISHED = "#unfinished"
#: What is added to the names of its metadata until it is finished, and these names.
DRAFT = ".unfinished"
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info")
SCHEMES = ("s3", "gs", "http", "https")
#: Schemes that are also written.
BUCKETS = ("s3", "gs")
_LONGEST_NAME = 255
_RETRIES = {"max_retries": 5, "initial_delay": "100ms", "max_delay": "2s"}


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote address.

    Attributes:
        scheme: one of `SCHEMES`.
        host: bucket, or host and port.
        keys: names below it.
        sparse: a missing chunk is zero, not an error.
        unfinished: its metadata have the names they have while it is written, and a missing chunk is zero.
    """

    scheme: str
    host: str
    keys: tuple[str, ...] = ()
    sparse: bool = False
    unfinished: bool = False

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
        return "/".join(self.parts) + (UNFINISHED if self.unfinished else SPARSE if self.sparse else "")


Place = Path | Remote


def place_of(path: str | Path | Remote) -> Place:
    """Return the place a path or an address names.

    Raises:
        InputError: an address with an unknown scheme, without a bucket or host, or with a query; a path with a
            name that no disk takes.
    """
    if isinstance(path, Remote):
        return path
    scheme, colon, rest = str(path).partition("://")
    if not colon:
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(path).parts):
            raise InputError(f"{path} has a name of more than {_LONGEST_NAME} bytes in it: choose a shorter one")
        return Path(path)
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme, SCHEMES)
        raise InputError(f"{path} has the unknown scheme {scheme!r}{hint}: use one of {', '.join(SCHEMES)}")
    sparse, unfinished = rest.endswith(SPARSE), rest.endswith(UNFINISHED)
    rest = rest.removesuffix(SPARSE).removesuffix(UNFINISHED)
    if unfinished and scheme not in BUCKETS:
        raise InputError(
            f"{path}: {UNFINISHED} is for {' and '.join(BUCKETS)}, as only these are written: leave it out"
        )
    host, *keys = rest.split("/")
    names = tuple(key for key in keys if key)
    if not host or {".", ".."} & set(names) or re.search("[?#]", rest):
        endings = f"only {SPARSE} or {UNFINISHED} may follow"
        rule = f"give scheme://bucket-or-host/path, without '?', '#', '.' or '..'; {endings}"
        raise InputError(f"{path} is not the address of a volume: {rule}")
    return Remote(scheme, host, names, sparse, unfinished)


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
    if not place.unfinished:
        return _server(place)
    drafts = [{"exact": name, "strip_prefix": len(name), "base": _named(place, name + DRAFT)} for name in METADATA]
    return {"driver": "kvstack", "layers": [{"base": _server(place)}, *drafts]}


def _server(place: Remote) -> dict[str, Any]:
    if place.scheme in BUCKETS:
        return bucket_spec(place.scheme, place.host, "".join(f"{key}/" for key in place.keys))
    return {"driver": "http", "base_url": "".join(f"{part}/" for part in place.parts)}


def _named(place: Remote, name: str) -> dict[str, Any]:
    """Return the specification of the one object with a name in a place."""
    spec = _server(place)
    return {**spec, "path": spec["path"] + name}


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
    if place.unfinished and place.name in METADATA:
        draft = read_bytes(replace(place.parent / (place.name + DRAFT), unfinished=False))
        if draft is not None:
            return draft
    with reached(place):
        got = objects(replace(place.parent, unfinished=False)).read(place.name).result()
    return None if got.state == "missing" else bytes(got.value)


def objects(place: Place) -> Any:
    """Return the opened key-value store of a place."""
    return tensorstore.KvStore.open(kvstore(place), context=context()).result()


@contextmanager
def reached(place: Place, doing: str = "read") -> Iterator[None]:
    """Turn the failures of a request to a server into an `InputError` that names the place and the way out."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError, OSError) as problem:
        raise InputError(unreachable(place, problem, doing)) from problem


def exists(place: Place) -> bool:
    """Whether there is a file at a place."""
    return place.is_file() if isinstance(place, Path) else read_bytes(place) is not None


def is_folder(place: Place) -> bool:
    """Whether a place may hold files; remote places have no folders, so there nothing is denied."""
    return place.is_dir() if isinstance(place, Path) else True


def children(place: Place) -> list[str] | None:
    """Return the names of the visible folders in a place, sorted; None where it cannot be listed.

    Links to a folder above are left out: whoever follows them walks in circles.
    """
    if isinstance(place, Remote):
        return None
    with explained(place, "read"):
        folders = [child for child in place.iterdir() if child.is_dir() and not child.name.startswith(".")]
        return sorted(child.name for child in folders if not (child.is_symlink() and _leads_back(child)))


def _leads_back(link: Path) -> bool:
    return link.resolve() in {folder.resolve() for folder in link.parents}


def unreachable(place: object, problem: Exception, doing: str = "read") -> str:
    """Return the message about a remote place that did not answer as it should."""
    scheme = str(place).partition("://")[0]
    return f"cannot {doing} {place}: {short(problem)}; {advice(scheme, str(problem))}"


def short(problem: Exception) -> str:
    """Return TensorStore's message without the web page that came with it, on one line."""
    page_and_internals = r"\[(http_response_body|source locations|tensorstore_spec)=.*"
    text = re.sub(page_and_internals, "", str(problem), flags=re.DOTALL)
    return " ".join(text.split())[:300]
