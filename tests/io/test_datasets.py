"""Public sets: found where they are, downloaded whole or not at all, resumed, verified."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io import download
from emloom.io.datasets import cache_folder, dataset, fetch, locate, path_of
from emloom.io.registry import REGISTRY, DataSet, RemoteFile
from tests.io.servers import Behaviour, serving

BODY = np.random.default_rng(0).bytes(3_000_001)
PART, HALF = 16 * 2**16, 8 * 2**16
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMLOOM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(download, "PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[Behaviour]:
    with serving(Behaviour(BODY)) as behaviour:
        yield behaviour


def entry_of(url: str, checksum: str | None = SHA256, size: int | None = None, name: str = "file.bin") -> DataSet:
    return DataSet(
        name="tiny",
        title="a test",
        labels="none",
        voxel_size_nm=None,
        licence="none",
        citation="none",
        homepage="https://example.org/tiny",
        files=(RemoteFile(name, url, checksum, size),),
        source="this test",
    )


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# ---- downloads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [SHA256, "md5:" + hashlib.md5(BODY).hexdigest()])
@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_download_is_whole_and_leaves_nothing_else(server: Behaviour, checksum: str, size: int | None) -> None:
    seen: list[tuple[int, int]] = []
    found = fetch(entry_of(server.url, checksum, size), lambda done, total: seen.append((done, total)))
    assert (found.folder / "file.bin").read_bytes() == BODY
    assert found.folder == cache_folder() / "tiny"
    assert left_in(found.folder) == ["file.bin"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert found.notes == ()


def test_a_second_call_downloads_nothing(server: Behaviour) -> None:
    entry = entry_of(server.url)
    fetch(entry)
    fetch(entry)
    assert server.requests == ["/file.bin -"]


@pytest.mark.fault(
    "network",
    "a downloaded file is damaged on the disk",
    "the checksum tells; it is downloaded again",
)
def test_a_damaged_file_is_replaced(server: Behaviour) -> None:
    entry = entry_of(server.url)
    path = fetch(entry).folder / "file.bin"
    path.write_bytes(b"damaged")
    fetch(entry)
    assert path.read_bytes() == BODY


@pytest.mark.fault(
    "network",
    "the connection breaks twice during a download",
    "it goes on from the byte where it broke",
)
def test_a_broken_connection_is_resumed_at_once(server: Behaviour) -> None:
    server.breaks = [PART, HALF]
    assert (fetch(entry_of(server.url)).folder / "file.bin").read_bytes() == BODY
    assert server.requests == ["/file.bin -", f"/file.bin bytes={PART}-", f"/file.bin bytes={PART + HALF}-"]


def test_a_download_goes_on_another_day(server: Behaviour) -> None:
    entry = entry_of(server.url)
    server.breaks = [PART] + [0] * download.ATTEMPTS
    with pytest.raises(InputError, match=rf"broke after {PART} bytes.*the same command goes on"):
        fetch(entry)
    folder = cache_folder() / "tiny"
    assert (folder / ".file.bin.part").stat().st_size == PART
    assert not (folder / "file.bin").exists()
    assert locate(entry) == ("incomplete", folder)
    server.requests.clear()
    fetch(entry)
    assert server.requests == [f"/file.bin bytes={PART}-"]
    assert (folder / "file.bin").read_bytes() == BODY
    assert left_in(folder) == ["file.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_without_ranges_sends_all_again(server: Behaviour, ranges: bool) -> None:
    server.breaks, server.ranges = [PART], ranges
    assert (fetch(entry_of(server.url)).folder / "file.bin").read_bytes() == BODY
    assert len(server.requests) == 2


def test_two_versions_are_never_glued_together(server: Behaviour) -> None:
    entry = entry_of(server.url, None)
    server.breaks = [PART] + [0] * download.ATTEMPTS
    with pytest.raises(InputError):
        fetch(entry)
    server.body, server.version = BODY[::-1], '"two"'
    assert (fetch(entry).folder / "file.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("version", [None, 'W/"weak"'])
def test_without_a_version_and_a_checksum_a_part_starts_anew(server: Behaviour, version: str | None) -> None:
    server.version, server.breaks = version, [PART]
    assert (fetch(entry_of(server.url, None)).folder / "file.bin").read_bytes() == BODY
    assert server.requests == ["/file.bin -"] * 2


def test_a_part_longer_than_the_file_starts_anew(server: Behaviour) -> None:
    folder = cache_folder() / "tiny"
    folder.mkdir(parents=True)
    (folder / ".file.bin.part").write_bytes(BODY + b"more")
    assert (fetch(entry_of(server.url)).folder / "file.bin").read_bytes() == BODY


@pytest.mark.fault(
    "network",
    "a download has another checksum than published",
    "error: names both; the download is removed",
)
def test_a_wrong_checksum_removes_the_download_and_names_both(server: Behaviour) -> None:
    wrong = "0" * 64
    with pytest.raises(InputError) as caught:
        fetch(entry_of(server.url, f"sha256:{wrong}"))
    assert wrong in str(caught.value)
    assert SHA256.removeprefix("sha256:") in str(caught.value)
    assert left_in(cache_folder() / "tiny") == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there_says_where_to_look(server: Behaviour, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(InputError, match=f"answered {status}.*https://example.org/tiny"):
        fetch(entry_of(server.url))
    assert len(server.requests) == 1
    assert left_in(cache_folder() / "tiny") == []


def test_a_busy_server_is_asked_again(server: Behaviour) -> None:
    server.statuses = [500, 503, 429]
    assert (fetch(entry_of(server.url)).folder / "file.bin").read_bytes() == BODY


def test_a_server_that_stays_broken_is_an_error(server: Behaviour) -> None:
    server.statuses = [500] * 20
    with pytest.raises(InputError, match="answered 500"):
        fetch(entry_of(server.url))
    assert len(server.requests) == download.ATTEMPTS


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1])
def test_another_length_than_published_is_refused_before_the_download(server: Behaviour, size: int) -> None:
    with pytest.raises(InputError, match=f"has {len(BODY)} bytes, but {size} are published"):
        fetch(entry_of(server.url, None, size))
    assert left_in(cache_folder() / "tiny") == []


@pytest.mark.parametrize(
    ("size", "rule"), [(len(BODY) - 1, "are published; the download was removed"), (len(BODY) + 1, "broke after")]
)
def test_a_server_that_hides_the_length_is_measured(server: Behaviour, size: int, rule: str) -> None:
    server.says_length = False
    with pytest.raises(InputError, match=rule):
        fetch(entry_of(server.url, None, size))
    assert not (cache_folder() / "tiny" / "file.bin").exists()


@pytest.mark.fault(
    "network",
    "the server answers with a web page instead of the file",
    "error: is a web page; nothing is kept",
)
def test_a_web_page_is_not_a_file(server: Behaviour) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="web page"):
        fetch(entry_of(server.url, None))
    assert left_in(cache_folder() / "tiny") == []


@pytest.mark.fault(
    "network",
    "no server is there",
    "error: broke after 0 bytes / cannot ask for",
)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/none", "nonsense"])
def test_no_server_is_an_error(url: str) -> None:
    with pytest.raises(InputError, match=r"broke after 0 bytes|cannot ask for"):
        fetch(entry_of(url))


@pytest.mark.fault(
    "network",
    "there is too little room for a download",
    "error: the disk is full, before a byte is asked for",
)
def test_a_full_disk_is_an_error_before_a_byte_is_written(
    server: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="the disk is full"):
        fetch(entry_of(server.url))


def test_a_cache_that_is_no_folder_is_an_error(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="a parent of it is a file"):
        fetch(entry_of(server.url))


def test_a_cache_without_file_locks_is_an_error(server: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(InputError, match="set EMLOOM_CACHE to a folder on a local disk"):
        fetch(entry_of(server.url))


def test_a_download_without_checksum_is_pinned(server: Behaviour) -> None:
    entry = entry_of(server.url, None)
    found = fetch(entry)
    assert re.search(f"no published checksum; the sha256 of this download is {SHA256[7:]}: pin it", found.notes[0])
    pin = json.loads((found.folder / "file.bin.pin.json").read_text())
    assert pin == {"url": server.url, "size_bytes": len(BODY), "checksum": SHA256}
    assert fetch(entry).notes == ()
    assert len(server.requests) == 1
    (found.folder / "file.bin").unlink()
    server.body = BODY[::-1]
    with pytest.raises(InputError, match="is not the published file"):
        fetch(entry)


@pytest.mark.fault(
    "network",
    "three processes fetch one set at once",
    "one downloads, the others wait and find it done",
)
def test_two_processes_take_turns(server: Behaviour) -> None:
    code = (
        "import sys\nfrom emloom.io.datasets import fetch\nfrom emloom.io.registry import DataSet, RemoteFile\n"
        "file = RemoteFile('file.bin', sys.argv[1], sys.argv[2])\n"
        "fetch(DataSet('tiny', '', '', None, '', '', '', (file,), ''))\n"
    )
    server.breaks = [PART, HALF]
    runs = [subprocess.Popen([sys.executable, "-c", code, server.url, SHA256]) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert (cache_folder() / "tiny" / "file.bin").read_bytes() == BODY
    assert len(server.requests) == 3, "one download in three pieces; the others find it done"


@pytest.mark.fault(
    "network",
    "a download is killed",
    "the next run goes on from what is there, and leaves nothing else",
)
def test_a_killed_process_loses_nothing_and_leaves_nothing(server: Behaviour) -> None:
    code = (
        "import os, signal, sys\nfrom emloom.io.datasets import fetch\n"
        "from emloom.io.registry import DataSet, RemoteFile\n"
        "kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= 2**20 else None\n"
        "fetch(DataSet('tiny', '', '', None, '', '', '', (RemoteFile('file.bin', *sys.argv[1:]),), ''), kill)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, server.url, SHA256], check=False).returncode == -9
    held = (cache_folder() / "tiny" / ".file.bin.part").stat().st_size
    assert 0 < held < len(BODY)
    found = fetch(entry_of(server.url))
    assert server.requests[-1] == f"/file.bin bytes={held}-"
    assert (found.folder / "file.bin").read_bytes() == BODY
    assert left_in(found.folder) == ["file.bin"]


# ---- archives -------------------------------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), f"inside {name}")
    return out.getvalue()


def test_an_archive_is_unpacked_beside_itself_once(server: Behaviour) -> None:
    server.body = zipped("raw/0.png", "raw/1.png")
    entry = entry_of(server.url, None, name="file.zip")
    found = fetch(entry)
    assert (found.folder / "file" / "raw" / "1.png").read_text() == "inside raw/1.png"
    (found.folder / "file" / "raw" / "1.png").write_text("mine now")
    fetch(entry)
    assert (found.folder / "file" / "raw" / "1.png").read_text() == "mine now"


@pytest.mark.fault(
    "network",
    "a downloaded archive holds ../escape.txt, /etc/escape.txt or C:/escape.txt",
    "error: outside its folder; nothing is unpacked",
)
@pytest.mark.parametrize("name", ["../escape.txt", "/etc/escape.txt", "raw/../../escape.txt", "C:/escape.txt"])
def test_an_archive_that_leaves_its_folder_is_refused(server: Behaviour, name: str, tmp_path: Path) -> None:
    server.body = zipped("raw/0.png", name)
    with pytest.raises(InputError, match="outside its folder"):
        fetch(entry_of(server.url, None, name="file.zip"))
    assert not (cache_folder() / "tiny" / "file").exists()
    assert not list(tmp_path.rglob("escape.txt"))


def test_an_archive_that_is_none_is_refused(server: Behaviour) -> None:
    with pytest.raises(InputError, match="cannot be unpacked"):
        fetch(entry_of(server.url, name="file.zip"))


# ---- where sets are -------------------------------------------------------------------------------------------


def test_emloom_data_comes_first(tmp_path: Path) -> None:
    entry = entry_of("http://127.0.0.1:9/never-asked")
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    assert locate(entry)[0] == "absent", "an empty folder holds nothing"
    (tmp_path / "data" / "tiny" / "raw.h5").write_bytes(b"")
    assert fetch(entry).folder == path_of(entry) == tmp_path / "data" / "tiny"


def test_what_is_absent_names_the_command() -> None:
    with pytest.raises(InputError, match=r"cremi_a is absent .* run `emloom data fetch cremi_a`"):
        path_of(dataset("cremi_a"))
    with pytest.raises(InputError, match=r"nucmm is absent .* download it from https://huggingface"):
        path_of(dataset("nucmm"))
    with pytest.raises(InputError, match="cannot be downloaded by emloom"):
        fetch(dataset("nucmm"))


def test_a_set_without_a_link_is_found_once_a_person_put_it_there() -> None:
    folder = cache_folder() / "nucmm"
    folder.mkdir(parents=True)
    (folder / "image.h5").write_bytes(b"")
    assert path_of(dataset("nucmm")) == fetch(dataset("nucmm")).folder == folder


def test_a_wrong_name_is_helped() -> None:
    with pytest.raises(InputError, match="did you mean 'snemi3d'"):
        dataset("snemi")


# ---- the table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=lambda entry: entry.name)
def test_every_entry_is_complete_and_well_formed(entry: DataSet) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", entry.name)
    for text in (entry.title, entry.labels, entry.licence, entry.citation, entry.source):
        assert text
    assert entry.homepage.startswith("https://")
    assert entry.voxel_size_nm is None or all(v > 0 for v in entry.voxel_size_nm)
    names = [file.name for file in entry.files]
    assert len(set(names)) == len(names)
    for file in entry.files:
        assert re.fullmatch(r"https?://\S+", file.url)
        assert file.checksum is None or re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum)
        assert re.fullmatch(r"[\w.+-]+", file.name)


def test_no_two_files_share_a_checksum() -> None:
    sums = [file.checksum for entry in REGISTRY.values() for file in entry.files if file.checksum]
    assert len(set(sums)) == len(sums)


def test_the_page_about_sets_shows_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-sets.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(REGISTRY)
    for row, entry in zip(rows, REGISTRY.values(), strict=True):
        voxel = "not known" if entry.voxel_size_nm is None else ", ".join(f"{v:g}" for v in entry.voxel_size_nm)
        for text in (f"`{entry.name}`", entry.title, entry.labels, f"| {voxel} |", entry.licence, entry.citation):
            assert text in row


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("snemi3d", "crop512_z00-29.h5"),
        ("isbi2012_cardona", "train_z00-19.h5"),
        ("epfl_hippocampus", "train_z000-019.h5"),
        ("vnc_sstem", "stack1_z00-14.h5"),
    ],
)
def test_voxel_sizes_agree_with_real_files(real_data: Path, name: str, file: str) -> None:
    path = real_data / name / file
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with h5py.File(path) as opened:
        assert tuple(opened["volumes/raw"].attrs["resolution"]) == dataset(name).voxel_size_nm
