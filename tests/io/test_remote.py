"""Remote addresses, through a web server in a thread: the same volumes, and no failure taken for zeros.

s3:// and gs:// take the same path with another key-value store: test_buckets.py.
"""

from __future__ import annotations

import functools
import http.server
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io import places
from emloom.io.open import create_volume, inspect, open_volume
from emloom.io.places import Remote, place_of
from emloom.io.volume import VolumeInfo
from emloom.tasks.convert import ConvertSpec, convert
from emloom.tasks.crop import CropSpec, crop
from emloom.tasks.export import ExportSpec, export
from emloom.tasks.info import info
from emloom.tasks.stats import StatsSpec, stats
from tests.io.servers import Prompt

INFO = VolumeInfo((20, 24, 30), np.dtype("uint16"), Grid((40, 4, 4), (80, 4, 0)), None, (8, 8, 16), "raw")
VALUES = np.random.default_rng(0).integers(1, 60000, INFO.shape, dtype=np.uint16)
BREAK = 0


@dataclass
class Server:
    """A web server; `faults` maps a part of a path to the status it answers, or to BREAK: half an answer."""

    folder: Path
    url: str = ""
    faults: dict[str, int] = field(default_factory=dict)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, server_state: Server, **kwargs: Any) -> None:
        self.state = server_state
        super().__init__(*args, directory=str(server_state.folder), **kwargs)

    def do_GET(self) -> None:
        status = next((s for part, s in self.state.faults.items() if part in self.path), None)
        if status is None and "Range" in self.headers:
            self.send_part()
        elif status is None:
            super().do_GET()
        elif status == BREAK:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        else:
            self.send_error(status)

    def send_part(self) -> None:
        """Answer `bytes=a-b`, or `bytes=-n` for the last n, as shards are read."""
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            return self.send_error(404)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        whole = file.read_bytes()
        start, stop = (int(first), int(last or len(whole)) + 1) if first else (len(whole) - int(last), len(whole))
        part = whole[start:stop]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give up at once: what is tested is what happens then."""
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"})
    places.context.cache_clear()
    yield
    places.context.cache_clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    state = Server(tmp_path)
    httpd = Prompt(("127.0.0.1", 0), functools.partial(_Handler, server_state=state))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


FORMATS: dict[str, dict[str, Any]] = {
    "out.zarr": {},
    "out.zarr/a/raw": {},
    "v2/out.zarr": {"zarr_format": 2},
    "out.n5/raw": {},
    "out.precomputed": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_remote_volume_is_the_local_volume(server: Server, name: str) -> None:
    create_volume(server.folder / name, INFO, **FORMATS[name]).write(INFO.box, VALUES)
    volume = open_volume(f"{server.url}/{name}")
    assert volume.info.source == f"{server.url}/{name}"
    local = open_volume(server.folder / name).info
    assert volume.info.with_(source=local.source) == local
    box = Box((3, 5, 7), (11, 12, 13))
    np.testing.assert_array_equal(volume.read(box), VALUES[box.slices()])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(box), VALUES[box.slices()])


@pytest.mark.parametrize("name", ["out.zarr/0", "out.n5", "out.precomputed/4_4_40"])
def test_levels_and_folders_of_any_name(server: Server, name: str) -> None:
    container = server.folder / name.split("/")[0]
    create_volume(container, INFO).write(INFO.box, VALUES)
    container.rename(server.folder / "data")
    volume = open_volume(f"{server.url}/data/{'/'.join(name.split('/')[1:])}")
    np.testing.assert_array_equal(volume.read(INFO.box), VALUES)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_consolidated_metadata_name_is_listed(server: Server, zarr_format: int) -> None:
    group = zarr.create_group(server.folder / "x.zarr", zarr_format=zarr_format)
    for name in ("a", "b/c"):
        group.create_array(name, data=VALUES[:2, :3, :4])
    create_volume(server.folder / "x.zarr/images/em", INFO, zarr_format=zarr_format)
    with pytest.raises(InputError, match="remote addresses are not listed"):
        inspect(f"{server.url}/x.zarr")
    if zarr_format == 2:
        zarr.consolidate_metadata(server.folder / "x.zarr")
    else:
        with pytest.warns(UserWarning, match="Consolidated"):
            zarr.consolidate_metadata(server.folder / "x.zarr")
    found = {hit.path for hit in inspect(f"{server.url}/x.zarr")}
    assert found == {f"{server.url}/x.zarr/{name}" for name in ("a", "b/c", "images/em")}


#: Volume -> (part of the address of one chunk, the voxels in it), so that every other chunk must still be read.
LAST = Box.of((16, 16, 16), INFO.shape)
CHUNKS = {
    "out.zarr": ("out.zarr/0/c/2/2/1", LAST),
    "out.zarr/a/raw": ("raw/0/c/2/2/1", LAST),
    "sharded.zarr": ("sharded.zarr/0/c/1/1/0", Box.of((16, 16, 0), INFO.shape)),
    "v2/out.zarr": ("out.zarr/0/2/2/1", LAST),
    "out.n5": ("out.n5/1/2/2", LAST),
    "out.n5/raw": ("raw/1/2/2", LAST),
    "out.precomputed": ("4_4_40/16-30_17-25_18-22", LAST),
}
LAYOUTS = FORMATS | {"out.n5": {}, "sharded.zarr": {"shards": (16, 16, 32)}}


@pytest.mark.fault(
    "network",
    "a chunk behind http is missing",
    "error: with its address, and #sparse as the way out",
)
@pytest.mark.parametrize("name", CHUNKS)
def test_a_missing_chunk_is_an_error_with_its_address_and_the_way_out(server: Server, name: str) -> None:
    create_volume(server.folder / name, INFO, **LAYOUTS[name]).write(INFO.box, VALUES)
    chunk, lost = CHUNKS[name]
    server.faults = {chunk: 404}
    address = f"{server.url}/{name}"
    volume = open_volume(address)  # the metadata are whole
    told = f"cannot read {address}: chunk .*{chunk}.* is missing; .*a broken copy, or .* zero: .*{address}#sparse"
    with pytest.raises(InputError, match=told) as caught:
        volume.read(INFO.box)
    assert "[" not in str(caught.value)  # no page of the server, no internals
    whole = Box.of((0, 0, 0), (8, 8, 16))
    np.testing.assert_array_equal(volume.read(whole), VALUES[whole.slices()])
    expected = VALUES.copy()
    expected[lost.slices()] = 0
    for sparse in (open_volume(address, sparse=True), open_volume(f"{address}#sparse")):
        assert sparse.info == volume.info.with_(source=f"{address}#sparse")
        np.testing.assert_array_equal(sparse.read(INFO.box), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(sparse)).read(INFO.box), expected)
    assert [hit.path for hit in inspect(f"{address}#sparse")] == [f"{address}#sparse"]


@pytest.mark.fault(
    "network",
    "a server answers 403, 500, 503, or breaks off",
    "error: check the address; the server's page is not part of the message",
)
@pytest.mark.parametrize("name", ["out.zarr", "out.n5", "out.precomputed"])
@pytest.mark.parametrize("end", ["", "#sparse"])
def test_a_chunk_that_fails_is_an_error_in_sparse_volumes_too(server: Server, name: str, end: str) -> None:
    create_volume(server.folder / name, INFO, **LAYOUTS[name]).write(INFO.box, VALUES)
    for status in (403, 500, 503, BREAK):
        server.faults = {CHUNKS[name][0]: status}
        volume = open_volume(f"{server.url}/{name}{end}")
        with pytest.raises(
            InputError, match=f"cannot read {server.url}/{name}{end}: .*check the address"
        ) as caught:
            volume.read(INFO.box)
        assert "<" not in str(caught.value)  # the server's page is not part of the message


@pytest.mark.parametrize("reopened", [False, True], ids=["created", "reopened"])
@pytest.mark.parametrize("kind", ["raw", "labels"])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_volume_with_empty_regions_is_whole_without_saying_that_it_is_sparse(
    server: Server, name: str, kind: Any, reopened: bool
) -> None:
    """Every chunk that was written is stored: one that is missing from afar was lost or never written."""
    about = INFO.with_(kind=kind, dtype=np.dtype("uint32"))
    values = np.zeros(about.shape, about.dtype)
    values[:5, :5, :5] = VALUES[:5, :5, :5]
    volume = create_volume(server.folder / name, about, **LAYOUTS[name])
    if reopened:
        volume = open_volume(server.folder / name, writable=True)
    volume.write(about.box, values)
    np.testing.assert_array_equal(open_volume(f"{server.url}/{name}").read(about.box), values)
    # What becomes empty stays stored, also when only a part of the chunk is written.
    part = Box.of((0, 0, 0), (5, 5, 5))
    volume.write(part, np.zeros(part.shape, about.dtype))
    assert not open_volume(f"{server.url}/{name}").read(about.box).any()


@pytest.mark.parametrize("name", CHUNKS)
def test_what_was_never_written_is_missing_from_afar(server: Server, name: str) -> None:
    volume = create_volume(server.folder / name, INFO, **LAYOUTS[name])
    first = Box.of((0, 0, 0), (16, 16, 30))  # whole chunks, and whole shards
    volume.write(first, np.zeros(first.shape, INFO.dtype))
    far = open_volume(f"{server.url}/{name}")
    assert not far.read(first).any()
    with pytest.raises(InputError, match="is missing"):
        far.read(INFO.box)


@pytest.mark.parametrize("name", CHUNKS)
def test_a_missing_chunk_of_a_local_volume_is_zero(tmp_path: Path, name: str) -> None:
    create_volume(tmp_path / name, INFO, **LAYOUTS[name])
    for sparse in (False, True):
        assert not open_volume(tmp_path / name, sparse=sparse).read(INFO.box).any()


def test_a_lost_chunk_stops_every_command_and_sparse_lets_it_pass(server: Server, tmp_path: Path) -> None:
    create_volume(server.folder / "far/in.n5", INFO).write(INFO.box, VALUES)
    server.faults = {"in.n5/1/2/2": 404}
    address = f"{server.url}/far/in.n5"
    copy, part, out = tmp_path / "copy.zarr", tmp_path / "part.zarr", tmp_path / "out.n5"
    whole: dict[str, Any] = {"start": (0, 0, 0), "stop": INFO.shape}
    jobs: list[Callable[[str], Any]] = [
        lambda source: convert(ConvertSpec(source=source, target=str(copy))),
        lambda source: crop(CropSpec(source=source, target=str(part), **whole)),
        lambda source: export(ExportSpec(source=source, target=str(out))),
        lambda source: stats(StatsSpec(source=source)),
        info,
    ]
    for job in jobs:
        with pytest.raises(InputError, match=r"in\.n5/1/2/2.* is missing"):
            job(address)
    assert [place.name for place in tmp_path.iterdir()] == ["far"]  # nothing was left behind
    for job in jobs:
        job(f"{address}#sparse")
    for made in (copy, part, out):
        assert (open_volume(made).read(INFO.box) == 0).sum() == LAST.size


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("out.zarr", "out.zarr/0/zarr.json"),
        ("out.zarr", "out.zarr/zarr.json"),
        ("out.n5", "json"),
        ("o.precomputed", "info"),
    ],
)
def test_missing_or_failing_metadata_are_an_error_with_the_address(
    server: Server, name: str, metadata: str
) -> None:
    create_volume(server.folder / name, INFO)
    server.faults = {metadata: 404}
    with pytest.raises(InputError, match=f"{server.url}/{name}.* (no |exist)"):
        open_volume(f"{server.url}/{name}")
    server.faults = {metadata: 500}
    with pytest.raises(InputError, match=f"cannot read {server.url}/{name}.*500"):
        open_volume(f"{server.url}/{name}")


def test_an_address_where_nothing_is(server: Server) -> None:
    (server.folder / "raw.tif").write_bytes(b"")
    for name in ("nothing", "raw.tif", "cremi.h5/volumes/raw"):
        with pytest.raises(InputError, match=f"{server.url}/{name} holds no volume"):
            open_volume(f"{server.url}/{name}")


@pytest.mark.fault(
    "network",
    "nobody answers at the address of a volume",
    "error: cannot read http://...: check the address",
)
def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(InputError, match=r"cannot read http://127\.0\.0\.1:1/x\.zarr.*check the address"):
        open_volume("http://127.0.0.1:1/x.zarr")


def test_volumes_on_web_servers_are_only_read(server: Server) -> None:
    create_volume(server.folder / "out.zarr", INFO)
    with pytest.raises(InputError, match="only read"):
        open_volume(f"{server.url}/out.zarr", writable=True)
    for address in (f"{server.url}/new.zarr", "https://host/new.n5", "http://host/new.precomputed"):
        with pytest.raises(InputError, match="an address that is only read: write to a local disk, or to s3://"):
            create_volume(address, INFO)
    with pytest.raises(InputError, match="open read-only"):
        open_volume(f"{server.url}/out.zarr").write(Box((0, 0, 0), (1, 1, 1)), VALUES[:1, :1, :1])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://host/x.zarr#unfinished", "#unfinished is for s3 and gs"),
        ("ftp://host/x.zarr", "unknown scheme 'ftp'"),
        ("precomputed://gs://bucket/x", "unknown scheme 'precomputed'"),
        ("http:///x.zarr", "not the address"),
        ("https://host/a/../x.zarr", "not the address"),
        ("https://host/x.zarr?token=1", "not the address"),
        ("https://host/x.zarr#dense", "only #sparse or #unfinished may follow"),
        ("https://host/x.zarr#sparse/raw", "only #sparse or #unfinished may follow"),
    ],
)
def test_bad_addresses(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_volume(address)


def test_addresses_are_places() -> None:
    place = place_of("s3://bucket//a/out.zarr/raw/")
    assert place == Remote("s3", "bucket", ("a", "out.zarr", "raw"))
    assert str(place) == "s3://bucket/a/out.zarr/raw"
    assert (place.name, place.parent.suffix, str(place.parents[-1])) == ("raw", ".zarr", "s3://bucket")
    assert place.parent / "raw" == place
    sparse = place_of(f"{place}#sparse")
    assert (sparse.parent / "raw", str(sparse)) == (Remote("s3", "bucket", place.keys, True), f"{place}#sparse")
    assert (sparse.name, places.kvstore(sparse)) == ("raw", places.kvstore(place))
    assert places.inner_name(place.parent, place) == "raw"
    assert places.kvstore(place) == {"driver": "s3", "bucket": "bucket", "path": "a/out.zarr/raw/"}
    assert places.kvstore(place_of("gs://b/x")) == {"driver": "gcs", "bucket": "b", "path": "x/"}
    assert places.kvstore(place_of("https://h/x#sparse")) == places.kvstore(place_of("https://h/x"))
    assert places.kvstore(place_of("https://h/x")) == {"driver": "http", "base_url": "https://h/x/"}
