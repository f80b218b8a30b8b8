"""A result grows beside its place, belongs to one job, and appears when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.run.workspace import Workspace
from emloom.spec import Spec


class Size(Spec):
    z: int = 1


class Toy(Spec):
    source: str
    output: str = "out.zarr"
    size: Size = Size()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.bin"
    path.write_bytes(b"abc")
    return path


def claim(space: Workspace, job: Toy, **more: bool) -> dict[str, str]:
    return space.claim("toy", job, {"source": job.source, "mask": None}, **more)


def test_it_grows_beside_its_place_and_appears_whole(tmp_path: Path, source: Path) -> None:
    space = Workspace(tmp_path / "deep" / "out.zarr")
    marks = claim(space, Toy(source=str(source)))
    assert list(marks) == ["source"]
    assert space.folder.name == "out.unfinished.zarr"
    assert Workspace(space.draft).output == space.output
    assert Workspace(space.draft).draft == space.draft
    assert not space.output.exists()
    (space.folder / "data").write_text("1")
    space.finish()
    assert space.finished
    assert (space.output / "data").read_text() == "1"
    assert not space.draft.exists()
    space.finish()  # again changes nothing
    assert claim(space, Toy(source=str(source))) == marks


def test_the_same_job_finds_its_folder_again_whatever_the_output_is_called(tmp_path: Path, source: Path) -> None:
    space = Workspace(tmp_path / "out.zarr")
    first = claim(space, Toy(source=str(source)))
    (space.folder / "data").write_text("1")
    assert claim(space, Toy(source=str(source), output=str(tmp_path / "out.zarr"))) == first
    assert (space.folder / "data").exists()


@pytest.mark.fault(
    "jobs",
    "another job is started on an output that exists, finished or not",
    "error: belongs to another job (size.z was 1, is 2): choose another output, or pass --overwrite",
)
@pytest.mark.parametrize("finish", [False, True])
def test_another_job_is_refused_and_nothing_is_touched(tmp_path: Path, source: Path, finish: bool) -> None:
    space = Workspace(tmp_path / "out.zarr")
    claim(space, Toy(source=str(source)))
    (space.folder / "data").write_text("1")
    if finish:
        space.finish()
    other = Toy(source=str(source), size=Size(z=2))
    with pytest.raises(InputError, match=r"size\.z was 1, is 2.*--overwrite"):
        claim(space, other)
    assert (space.folder / "data").exists()
    claim(space, other, discard=True)
    assert not (space.folder / "data").exists()
    assert space.record()["job"]["size"] == {"z": 2}
    assert not space.finished


@pytest.mark.fault(
    "jobs",
    "an input changes between two runs of a job",
    "error: was made from source in.bin as it was before; it has changed since",
)
def test_a_changed_input_is_refused(tmp_path: Path, source: Path) -> None:
    space = Workspace(tmp_path / "out.zarr")
    claim(space, Toy(source=str(source)))
    source.write_bytes(b"abcd")
    with pytest.raises(InputError, match=r"source .*in\.bin .*has changed since"):
        claim(space, Toy(source=str(source)))


@pytest.mark.fault(
    "disk",
    "`--overwrite` is asked for on a folder that emloom has not made",
    "error: was not made by emloom; nothing is deleted",
)
def test_what_emloom_has_not_made_is_never_deleted(tmp_path: Path, source: Path) -> None:
    space = Workspace(tmp_path / "out.zarr")
    space.output.mkdir()
    (space.output / "thesis.txt").write_text("years of work")
    other = Workspace(tmp_path / "other.zarr")
    other.draft.mkdir()
    (other.draft / "thesis.txt").write_text("years of work")
    for place, folder in ((space, space.output), (other, other.draft)):
        for discard in (False, True):
            with pytest.raises(InputError, match=r"already exists|not made"):
                claim(place, Toy(source=str(source)), discard=discard)
        assert (folder / "thesis.txt").exists()


def test_a_crash_before_the_record_does_no_harm(tmp_path: Path, source: Path) -> None:
    space = Workspace(tmp_path / "out.zarr")
    (space.draft / "run").mkdir(parents=True)
    (space.draft / "run" / ".job.partial-01234567.json").write_text("{")
    claim(space, Toy(source=str(source)))
    assert space.record()["kind"] == "toy"


def test_buckets_hold_no_unfinished_results() -> None:
    with pytest.raises(InputError, match="emloom export"):
        Workspace("s3://bucket/out.zarr")


def test_damage_and_absence_are_named(tmp_path: Path, source: Path) -> None:
    space = Workspace(tmp_path / "out.zarr")
    with pytest.raises(InputError, match="neither"):
        space.record()
    claim(space, Toy(source=str(source)))
    (space.folder / "run" / "job.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        space.record()
    with pytest.raises(InputError, match="does not exist"):
        claim(Workspace(tmp_path / "b.zarr"), Toy(source=str(tmp_path / "nowhere")))
