"""Volumes in buckets, against real servers on this machine: moto's S3, and the JSON API of Google's storage.

What is in a bucket is looked up by boto3, which knows nothing of emloom or TensorStore.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import requests
from moto.server import ThreadedMotoServer

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io import places
from emloom.io.buckets import bucket_spec
from emloom.io.open import create_volume, inspect, open_volume, staged_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.tasks.convert import ConvertSpec, convert
from emloom.tasks.crop import CropSpec, crop
from emloom.tasks.export import ExportSpec, export
from emloom.testing.contracts import ALL_DTYPES, Layout, VolumeContract
from tests.io.servers import Gcs, serving_gcs

INFO = VolumeInfo((20, 24, 30), np.dtype("uint16"), Grid((40, 4, 4), (80, 4, 0)), None, (8, 8, 16), "raw")
VALUES = np.random.default_rng(0).integers(1, 60000, INFO.shape, dtype=np.uint16)
HALF = Box((0, 0, 0), (8, 24, 30))
LAYOUTS: dict[str, dict[str, Any]] = {
    "out.zarr": {},
    "out.zarr/a/raw": {},
    "sharded.zarr": {"shards": (16, 16, 32)},
    "v2.zarr": {"zarr_format": 2},
    "v2.zarr/raw": {"zarr_format": 2},
    "out.n5": {},
    "out.n5/a/raw": {},
    "out.precomputed": {},
}


class S3:
    """moto in a thread, with a bucket named `bucket`, and another way to look at it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        self.client.create_bucket(Bucket="bucket")

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def put(self, name: str, content: bytes = b"x") -> None:
        self.client.put_object(Bucket="bucket", Key=name, Body=content)

    def get(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket="bucket", Key=name)["Body"].read()
        return content

    def empty(self) -> None:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
            if named := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
                self.client.delete_objects(Bucket="bucket", Delete={"Objects": named, "Quiet": True})


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Nothing of the person who runs this: no accounts, no profiles, no questions to a cloud's metadata server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "GOOGLE_", "TENSORSTORE_")):
                patch.delenv(name)
        nothing = tmp_path_factory.mktemp("aws") / "nothing"
        nothing.touch()
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
        patch.setenv("AWS_CONFIG_FILE", str(nothing))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "someone")
        patch.setattr(places, "_RETRIES", {"max_retries": 2, "initial_delay": "1ms", "max_delay": "1ms"})
        places.context.cache_clear()
        yield patch
    places.context.cache_clear()


@pytest.fixture(scope="module")
def s3_server(environment: pytest.MonkeyPatch) -> Iterator[S3]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    environment.setenv("AWS_ENDPOINT_URL_S3", url)
    yield S3(url)
    server.stop()


@pytest.fixture
def s3(s3_server: S3) -> S3:
    s3_server.empty()
    return s3_server


@pytest.fixture(scope="module")
def gcs_server(environment: pytest.MonkeyPatch) -> Iterator[Gcs]:
    with serving_gcs("bucket") as server:
        environment.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        yield server


@pytest.fixture
def gcs(gcs_server: Gcs) -> Gcs:
    gcs_server.buckets["bucket"].clear()
    gcs_server.refused = ""
    return gcs_server


# ---- the contract ---------------------------------------------------------------------------------------------


class BucketContract(VolumeContract):
    """The same promises as on a disk; what was never written is zero where the address says so."""

    name = "out.zarr"
    scheme = "s3"
    max_shape = (12, 18, 20)
    # The first is that of the examples: a request per chunk and read, so few of them.
    layouts = (Layout((16, 16, 32)), Layout((4, 16, 8)), Layout((8, 8, 16)))
    crash_layout = Layout((32, 32, 32))

    def suffix_path(self, folder: Path) -> str:
        return f"{self.scheme}://bucket/contract{folder}/{self.name}"

    def open(self, path: str | Path, *, writable: bool = False) -> Volume:
        return open_volume(path, writable=writable, sparse=True)


@pytest.mark.usefixtures("s3_server")
class TestS3Zarr3(BucketContract):
    name = "out.zarr/a/raw"


@pytest.mark.usefixtures("s3_server")
class TestS3Zarr3Sharded(BucketContract):
    layouts = (Layout((8, 8, 16), {"shards": (16, 16, 32)}), Layout((4, 8, 8), {"shards": (8, 16, 16)}))
    crash_layout = Layout((16, 32, 32), {"shards": (32, 32, 32)})


@pytest.mark.usefixtures("s3_server")
class TestS3Zarr2(BucketContract):
    layouts = tuple(Layout(chunks, {"zarr_format": 2}) for chunks in [(16, 16, 32), (8, 8, 16)])
    crash_layout = Layout((32, 32, 32), {"zarr_format": 2})


@pytest.mark.usefixtures("s3_server")
class TestS3N5(BucketContract):
    name = "out.n5/raw"
    dtypes = tuple(dtype for dtype in ALL_DTYPES if dtype != "bool")


@pytest.mark.usefixtures("s3_server")
class TestS3Precomputed(BucketContract):
    name = "out.precomputed"
    dtypes = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
    whole_voxel_offsets = True


@pytest.mark.usefixtures("gcs_server")
class TestGcsZarr3(BucketContract):
    scheme = "gs"


@pytest.mark.usefixtures("gcs_server")
class TestGcsPrecomputed(BucketContract):
    scheme = "gs"
    name = "out.precomputed"
    dtypes = ("uint8", "uint32", "float32")
    whole_voxel_offsets = True


# ---- made, finished, removed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_bucket_holds_the_same_objects_as_a_folder(s3: S3, tmp_path: Path, name: str) -> None:
    create_volume(tmp_path / name, INFO, **LAYOUTS[name]).write(INFO.box, VALUES)
    create_volume(f"s3://bucket/far/{name}", INFO, **LAYOUTS[name]).write(INFO.box, VALUES)
    with staged_volume(f"s3://bucket/staged/{name}", INFO, **LAYOUTS[name]) as volume:
        volume.write(INFO.box, VALUES)
    local = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for folder in ("far/", "staged/"):
        assert {key.removeprefix(folder): s3.get(key) for key in s3.names(folder)} == local
        np.testing.assert_array_equal(open_volume(f"s3://bucket/{folder}{name}").read(INFO.box), VALUES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_unfinished_volume_is_none_until_the_block_ends(s3: S3, name: str) -> None:
    address = f"s3://bucket/{name}"
    with staged_volume(address, INFO, **LAYOUTS[name]) as volume:
        volume.write(HALF, VALUES[:8])
        assert not {key.rpartition("/")[2] for key in s3.names()} & set(places.METADATA)
        message = rf"{address} is unfinished: .* {address}#unfinished.*remove it: aws s3 rm --recursive {address}/"
        for look in (open_volume, inspect):
            with pytest.raises(InputError, match=message):
                look(address)
        with pytest.raises(InputError, match="is unfinished"):
            create_volume(address, INFO, **LAYOUTS[name])
        half = open_volume(f"{address}#unfinished")
        np.testing.assert_array_equal(half.read(HALF), VALUES[:8])
        assert not half.read(Box((8, 0, 0), (12, 24, 30))).any()
    assert not [key for key in s3.names() if key.endswith(places.DRAFT)]
    assert open_volume(address).info == half.info.with_(source=address)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_block_that_fails_leaves_nothing_and_touches_nothing_else(s3: S3, name: str) -> None:
    for other in (f"{name}2/c/0", f"{name}.txt", "else"):
        s3.put(other)
    before = s3.names()

    def fail() -> None:
        with staged_volume(f"s3://bucket/{name}", INFO) as volume:
            volume.write(INFO.box, VALUES)
            raise RuntimeError("as planned")

    with pytest.raises(RuntimeError, match="as planned"):
        fail()
    assert s3.names() == before


@pytest.mark.parametrize("name", LAYOUTS)
def test_overwriting_removes_that_volume_only(s3: S3, name: str) -> None:
    create_volume(f"s3://bucket/{name}", INFO, **LAYOUTS[name]).write(INFO.box, VALUES)
    s3.put(f"{name}2/c/0")
    small = INFO.with_(shape=(3, 4, 5))
    with pytest.raises(InputError, match="already exists"):
        create_volume(f"s3://bucket/{name}", small, **LAYOUTS[name])
    with (
        pytest.raises(InputError, match="already exists"),
        staged_volume(f"s3://bucket/{name}", small, **LAYOUTS[name]),
    ):
        pass
    np.testing.assert_array_equal(open_volume(f"s3://bucket/{name}").read(INFO.box), VALUES)
    made = create_volume(f"s3://bucket/{name}", small, overwrite=True, **LAYOUTS[name])
    assert not made.read(small.box).any()
    below = [key.rpartition("/")[2] for key in s3.names(f"{name}/")]
    assert set(below) <= set(places.METADATA)
    assert f"{name}2/c/0" in s3.names()


@pytest.mark.parametrize("name", ["out.zarr", "out.n5", "out.precomputed"])
def test_what_is_no_volume_is_not_overwritten(s3: S3, name: str) -> None:
    s3.put(f"{name}/notes.txt")
    with pytest.raises(InputError, match="already exists"):
        create_volume(f"s3://bucket/{name}", INFO)
    with pytest.raises(InputError, match=r"is not (a|an) .*is not overwritten"):
        create_volume(f"s3://bucket/{name}", INFO, overwrite=True)
    assert s3.names() == [f"{name}/notes.txt"]


def test_overwriting_a_volume_that_holds_others_is_refused(s3: S3) -> None:
    create_volume("s3://bucket/out.zarr", INFO)
    create_volume("s3://bucket/out.zarr/labels/a", INFO)
    with pytest.raises(InputError, match=r"would delete s3://bucket/out\.zarr/labels/a inside"):
        create_volume("s3://bucket/out.zarr", INFO, overwrite=True)
    open_volume("s3://bucket/out.zarr/labels/a")


def test_a_removal_that_stops_halfway_leaves_what_says_that_it_is_unfinished(gcs: Gcs) -> None:
    address = "gs://bucket/out.zarr"
    create_volume(address, INFO).write(INFO.box, VALUES)
    gcs.refused = "out.zarr/0/c/1/1/1"
    with pytest.raises(InputError, match=rf"cannot remove {address}: .*permission denied"):
        create_volume(address, INFO, overwrite=True)
    with pytest.raises(InputError, match=rf"is unfinished.*gcloud storage rm --recursive {address}/"):
        open_volume(address)
    gcs.refused = ""
    create_volume(address, INFO, overwrite=True)
    assert sorted(gcs.buckets["bucket"]) == ["out.zarr/0/zarr.json", "out.zarr/zarr.json"]


def test_what_a_stopped_removal_left_may_be_overwritten_whatever_went_first(gcs: Gcs) -> None:
    address = "gs://bucket/out.zarr"
    create_volume(address, INFO).write(INFO.box, VALUES)
    gcs.refused = "out.zarr/0/c/1/1/1"
    with pytest.raises(InputError, match="cannot remove"):
        create_volume(address, INFO, overwrite=True)
    gcs.refused = ""
    gcs.buckets["bucket"].pop("out.zarr/0/zarr.json", None)  # deletions run at once, in any order
    create_volume(address, INFO, overwrite=True)
    assert sorted(gcs.buckets["bucket"]) == ["out.zarr/0/zarr.json", "out.zarr/zarr.json"]


def test_metadata_that_cannot_be_written_are_taken_back(gcs: Gcs) -> None:
    gcs.refused = "out.zarr/zarr.json"
    for make in (create_volume, lambda path, info: staged_volume(path, info).__enter__()):
        with pytest.raises(InputError, match=r"gs://bucket/out\.zarr.*permission denied"):
            make("gs://bucket/out.zarr", INFO)
        assert not gcs.buckets["bucket"]


def test_of_many_who_make_one_volume_one_succeeds(gcs: Gcs) -> None:
    ends: list[str] = []

    def make() -> None:
        try:
            with staged_volume("gs://bucket/out.zarr/raw", INFO) as volume:
                volume.write(INFO.box, VALUES)
            ends.append("made")
        except InputError as problem:
            ends.append(str(problem))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("made") == 1
    assert all("exists" in end or "is unfinished" in end for end in ends if end != "made")
    np.testing.assert_array_equal(open_volume("gs://bucket/out.zarr/raw").read(INFO.box), VALUES)
    assert not [name for name in gcs.buckets["bucket"] if name.endswith(places.DRAFT)]


def _write_half_and_die(address: str, options: dict[str, Any]) -> None:
    with staged_volume(address, INFO, **options) as volume:
        volume.write(HALF, VALUES[:8])
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.fault(
    "network",
    "a process that writes into a bucket is killed",
    "error: is unfinished, for whoever opens it; overwriting it works",
)
@pytest.mark.parametrize("name", ["out.zarr/a/raw", "out.n5/a/raw", "out.precomputed"])
def test_a_killed_process_leaves_what_says_that_it_is_unfinished(s3: S3, name: str) -> None:
    address = f"s3://bucket/{name}"
    worker = multiprocessing.get_context("spawn").Process(target=_write_half_and_die, args=(address, {}))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert s3.names()
    with pytest.raises(InputError, match="is unfinished"):
        open_volume(address)
    with pytest.raises(InputError, match="is unfinished"), staged_volume(address, INFO):
        pass
    np.testing.assert_array_equal(open_volume(f"{address}#unfinished").read(HALF), VALUES[:8])
    assert not create_volume(address, INFO, overwrite=True).read(INFO.box).any()
    assert not open_volume(f"{address}#sparse").read(INFO.box).any()


# ---- tasks ----------------------------------------------------------------------------------------------------


def test_copies_go_from_disk_to_bucket_to_bucket_and_back(s3: S3, gcs: Gcs, tmp_path: Path) -> None:
    create_volume(tmp_path / "in.zarr", INFO).write(INFO.box, VALUES)
    convert(ConvertSpec(source=str(tmp_path / "in.zarr"), target="s3://bucket/a.zarr/raw", chunk_vox=(8, 8, 16)))
    crop(CropSpec(source="s3://bucket/a.zarr/raw", target="gs://bucket/b.n5/x", start=(0, 0, 0), stop=(9, 9, 9)))
    report = export(ExportSpec(source="gs://bucket/b.n5/x", target="gs://bucket/c", to="precomputed"))
    assert report.target == "gs://bucket/c.precomputed"
    convert(ConvertSpec(source=report.target, target=str(tmp_path / "back.n5")))
    back = open_volume(tmp_path / "back.n5")
    assert back.info.grid == INFO.grid
    np.testing.assert_array_equal(back.read(back.info.box), VALUES[:9, :9, :9])
    with pytest.raises(InputError, match="already exists"):
        export(ExportSpec(source=report.target, target="s3://bucket/a.zarr/raw"))


def test_a_copy_that_fails_leaves_nothing_in_the_bucket(s3: S3) -> None:
    create_volume("s3://bucket/in.n5", INFO).write(INFO.box, VALUES)
    s3.client.delete_object(Bucket="bucket", Key="in.n5/1/2/2")
    before = s3.names()
    for target in ("s3://bucket/out.zarr/raw", "s3://bucket/out.n5/a", "s3://bucket/out.precomputed"):
        with pytest.raises(InputError, match=r"in\.n5/1/2/2.* is missing"):
            convert(ConvertSpec(source="s3://bucket/in.n5", target=target, chunk_vox=(8, 8, 16)))
    assert s3.names() == before


# ---- failures -------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "network",
    "a chunk of a volume in a bucket was lost",
    "error: chunk .../c/1/1/1 is missing; ... or, if it is stored sparsely, say so with #sparse",
)
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_lost_chunk_is_an_error_that_names_it(s3: S3, gcs: Gcs, scheme: str) -> None:
    volume = create_volume(f"{scheme}://bucket/out.zarr", INFO)
    volume.write(INFO.box, VALUES)
    s3.client.delete_object(Bucket="bucket", Key="out.zarr/0/c/1/1/1")
    gcs.buckets["bucket"].pop("out.zarr/0/c/1/1/1", None)
    with pytest.raises(InputError, match=r"chunk .*out\.zarr/0/c/1/1/1.* is missing; .*#sparse"):
        open_volume(f"{scheme}://bucket/out.zarr").read(INFO.box)
    assert (open_volume(f"{scheme}://bucket/out.zarr", sparse=True).read(INFO.box) == 0).any()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_does_not_exist(s3: S3, gcs: Gcs, scheme: str) -> None:
    create_volume(f"{scheme}://bucket/out.zarr", INFO)
    told = rf"{scheme}://nowhere/out\.zarr.*no such bucket: check its name and"
    with pytest.raises(InputError, match=f"cannot (write|list) {told}"):
        create_volume(f"{scheme}://nowhere/out.zarr", INFO)
    # To those who read, TensorStore tells a missing bucket of Google's as an empty one.
    with pytest.raises(InputError, match=told if scheme == "s3" else "holds no zarr array"):
        open_volume(f"{scheme}://nowhere/out.zarr")


@pytest.fixture
def strict(s3: S3) -> Iterator[S3]:
    """The server checks who asks: it knows nobody."""
    create_volume("s3://bucket/out.zarr", INFO).write(INFO.box, VALUES)
    requests.post(f"{s3.url}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    yield s3
    requests.post(f"{s3.url}/moto-api/reset-auth", data=b"inf", timeout=10).raise_for_status()


@pytest.mark.fault(
    "network",
    "credentials are unknown, or their profile does not exist",
    "error: permission denied, or credentials are missing: set AWS_PROFILE ...",
)
@pytest.mark.parametrize("who", ["unknown", "profile"])
def test_credentials_that_are_wrong(strict: S3, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    if who == "profile":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_PROFILE", "missing")
    told = r"s3://bucket/\w+\.zarr.*permission denied, or credentials are missing: set AWS_PROFILE"
    with pytest.raises(InputError, match="cannot read " + told):
        open_volume("s3://bucket/out.zarr")
    with pytest.raises(InputError, match=told):
        create_volume("s3://bucket/new.zarr", INFO)


def test_credentials_that_are_missing(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    create_volume("s3://bucket/out.zarr", INFO)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match=r"cannot read s3://bucket/out\.zarr/.*credentials are missing: set AWS"):
        open_volume("s3://bucket/out.zarr")


@pytest.mark.fault(
    "network",
    "a bucket denies one chunk",
    "error: cannot write gs://bucket/out.zarr: permission denied",
)
def test_permission_may_be_denied_in_the_middle(gcs: Gcs) -> None:
    volume = create_volume("gs://bucket/out.zarr", INFO)
    gcs.refused = "out.zarr/0/c/1/1/1"
    with pytest.raises(InputError, match=r"cannot write gs://bucket/out\.zarr.*permission denied.*gcloud auth"):
        volume.write(INFO.box, VALUES)
    with pytest.raises(InputError, match=r"cannot read gs://bucket/out\.zarr.*permission denied"):
        open_volume("gs://bucket/out.zarr", sparse=True).read(INFO.box)


def test_public_buckets_are_read_without_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    create_volume("s3://bucket/out.zarr", INFO).write(INFO.box, VALUES)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "1")
    with pytest.raises(InputError, match="permission denied"):
        open_volume("s3://bucket/out.zarr")
    for name in s3.names():
        s3.client.put_object_acl(Bucket="bucket", Key=name, ACL="public-read")
    open_volume("s3://bucket/out.zarr/0", voxel_size_nm=INFO.grid.voxel_size_nm)


def test_only_some_formats_are_written_to_buckets(s3: S3) -> None:
    for name in ("x.h5/raw", "x.tif", "x", "x.wkw/color"):
        with pytest.raises(InputError, match=r"not a volume that can be written to a bucket: .*\.zarr, \.n5"):
            create_volume(f"s3://bucket/{name}", INFO)
    assert not s3.names()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"AWS_REGION": "eu-west-1"}, {}),  # Amazon's buckets are asked for their region
        ({"AWS_ENDPOINT_URL": "http://a:9/"}, {"endpoint": "http://a:9", "aws_region": "us-east-1"}),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b", "AWS_DEFAULT_REGION": "x"},
            {"endpoint": "http://b", "aws_region": "x"},
        ),
        ({"AWS_NO_SIGN_REQUEST": "YES", "AWS_PROFILE": "p"}, {"aws_credentials": {"type": "anonymous"}}),
        ({"AWS_NO_SIGN_REQUEST": "0"}, {}),
        ({"AWS_PROFILE": "p"}, {"aws_credentials": {"type": "profile", "profile": "p"}}),
        ({"AWS_PROFILE": "p", "AWS_ACCESS_KEY_ID": "k"}, {}),
    ],
)
def test_the_environment_says_which_server(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: dict[str, Any]
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert bucket_spec("s3", "b", "x/") == {"driver": "s3", "bucket": "b", "path": "x/", **expected}
    assert bucket_spec("gs", "b", "x/") == {"driver": "gcs", "bucket": "b", "path": "x/"}
