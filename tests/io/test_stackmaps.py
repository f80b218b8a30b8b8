"""Stack maps on disk: what is read is what was written; lazily, atomically, and whole without any other folder."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.planar import IDENTITY, Affine, Field, Pieces, PlanarMap, Shift, chain
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.stackmaps import FORMAT, FolderMaps, read_map_provenance, read_stackmap, write_stackmap

FRAME = Frame((4, 12, 10), Grid((40.0, 4.0, 4.6), (80.0, 0.0, 9.2)))
FIELD = Field(np.random.default_rng(0).normal(0, 0.3, (2, 4, 5)).astype(np.float32), (4.0, 3.0), (-1.0, 0.5))
PARTS = np.zeros((12, 10), np.uint8)
PARTS[:5], PARTS[7:] = 1, 2
PIECES = Pieces(PARTS, (Shift(1.0, 2.0), Affine(((1.01, 0.0, -1.0), (0.02, 1.0, 0.3)))))
TORN = chain(PIECES, Shift(0.5, 0.25), FIELD)
SOME: tuple[PlanarMap, ...] = (
    IDENTITY, Shift(3, -2), Shift(0.1, 1e-17), PIECES.maps[1], FIELD, PIECES, TORN, FIELD.inverse(),
    TORN.inverse(),
)  # fmt: skip

maps = st.lists(st.sampled_from(SOME), min_size=4, max_size=4)
homes = st.permutations(range(4)).flatmap(
    lambda order: st.tuples(*(st.sampled_from((home, home, None)) for home in order))
)


def same(one: StackMap, other: StackMap) -> bool:
    """Whether two stack maps are equal, layer by layer and section by section."""
    pairs = list(zip(one.layers, other.layers, strict=True))
    return all(
        (a.source, a.target, a.homes, a.turned) == (b.source, b.target, b.homes, b.turned)
        and all(a.maps[z] == b.maps[z] for z, home in enumerate(a.homes) if home is not None)
        for a, b in pairs
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maps=maps, homes=homes, more=maps)
def test_what_is_written_is_read(tmp_path: Path, maps, homes, more) -> None:
    one = StackMap.of(FRAME, FRAME, maps, homes)
    both = one.then(StackMap.of(FRAME, FRAME, more).inverse())
    write_stackmap(tmp_path / "map", both, {"why": ["a", 1]})
    assert same(read_stackmap(tmp_path / "map"), both)
    assert read_map_provenance(tmp_path) == {"why": ["a", 1]}
    assert same(read_stackmap(tmp_path).inverse().inverse(), both)


def test_no_array_is_read_before_its_section_is_asked_for(tmp_path, monkeypatch) -> None:
    write_stackmap(tmp_path, StackMap.of(FRAME, FRAME, [IDENTITY, FIELD, PIECES, FIELD]))
    asked = []
    load = np.load
    monkeypatch.setattr(
        np, "load", lambda file, **how: asked.append(Path(file.name).parent.name) or load(file, **how)
    )
    read = read_stackmap(tmp_path)
    assert (read.map(0), asked) == (IDENTITY, [])
    assert (read.map(2), read.map(2)) == (PIECES, PIECES)
    assert asked == ["parts"]
    there = pickle.loads(pickle.dumps(read))
    assert len(pickle.dumps(read)) < 5000
    assert same(there, read)


def test_threads_read_what_one_reads(tmp_path) -> None:
    shape = (40, 12, 10)
    frame = Frame(shape, FRAME.grid)
    every = [Field(FIELD.displacement + np.float32(z), (4.0, 3.0)) for z in range(shape[0])]
    write_stackmap(tmp_path, StackMap.of(frame, frame, every))
    read = read_stackmap(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        asked = np.random.default_rng(1).integers(0, 40, 400).tolist()
        assert all(found == every[z] for z, found in zip(asked, pool.map(read.map, asked), strict=True))


def test_a_composition_is_whole_without_the_folders_it_was_read_from(tmp_path) -> None:
    write_stackmap(tmp_path / "a", StackMap.of(FRAME, FRAME, [FIELD] * 4))
    write_stackmap(tmp_path / "b", StackMap.of(FRAME, FRAME, [PIECES, TORN, IDENTITY, FIELD]))
    both = read_stackmap(tmp_path / "a").then(read_stackmap(tmp_path / "b"))
    write_stackmap(tmp_path / "c", both)
    for name in "ab":
        for path in sorted((tmp_path / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    there = StackMap.of(FRAME, FRAME, [FIELD] * 4).then(StackMap.of(FRAME, FRAME, [PIECES, TORN, IDENTITY, FIELD]))
    assert same(read_stackmap(tmp_path / "c"), there)
    assert len(list((tmp_path / "c" / "fields").iterdir())) == 1, "equal arrays share a file"


def test_a_failed_write_leaves_what_was_there(tmp_path) -> None:
    write_stackmap(tmp_path / "map", StackMap.identity(FRAME))
    broken = StackMap.of(FRAME, FRAME, [FIELD, FIELD, FIELD, None])  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        write_stackmap(tmp_path / "map", broken)
    assert same(read_stackmap(tmp_path / "map"), StackMap.identity(FRAME))
    assert [path.name for path in tmp_path.iterdir()] == ["map"]
    with pytest.raises(InputError, match="already exists"):
        write_stackmap(tmp_path / "map", StackMap.identity(FRAME), overwrite=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("...")
    with pytest.raises(InputError, match=r"holds no map\.json"):
        write_stackmap(tmp_path / "mine", StackMap.identity(FRAME))


def damaged(path: Path, **changes: object) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))


def test_errors_name_the_path_and_the_way_out(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_stackmap(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither"):
        read_stackmap(tmp_path)
    path = write_stackmap(tmp_path, StackMap.of(FRAME, FRAME, [FIELD, PIECES, IDENTITY, IDENTITY]))
    good = path.read_text()
    damaged(path, version=2)
    with pytest.raises(InputError, match="update emloom"):
        read_stackmap(tmp_path)
    for change in ({"format": "else"}, {"layers": [{}]}, {"layers": []}, {"version": "a"}, {"layers": 3}):
        damaged(path, **{"version": 1, **change})
        with pytest.raises(InputError, match=r"again|leads nowhere|name a folder"):
            read_stackmap(tmp_path)
        path.write_text(good)
    path.write_text(good[: len(good) // 2])
    with pytest.raises(InputError, match="is damaged"):
        read_stackmap(tmp_path)
    path.write_text(good.replace('"maps": [\n', '"maps": [\n null,'))
    with pytest.raises(InputError, match="is damaged"):
        read_stackmap(tmp_path)
    path.write_text(good)
    (field,), (parts,) = (tmp_path / "fields").iterdir(), (tmp_path / "parts").iterdir()
    for file, z in ((field, 0), (parts, 1)):
        file.write_bytes(file.read_bytes()[:-50])
        with pytest.raises(InputError, match=f"{file.name} is damaged"):
            read_stackmap(tmp_path).map(z)
        file.unlink()
        with pytest.raises(InputError, match=f"{file.name} is missing"):
            read_stackmap(tmp_path).map(z)
    path.write_text(good.replace("fields/", "../fields/"))
    with pytest.raises(InputError, match="none of its own"):
        read_stackmap(tmp_path).map(0)
    assert FORMAT in good


def test_sections_without_a_home_have_no_map(tmp_path) -> None:
    write_stackmap(tmp_path, StackMap.of(FRAME, FRAME, [FIELD] * 4, [0, None, 1, None]))
    read = read_stackmap(tmp_path)
    assert isinstance(read.layers[0].maps, FolderMaps)
    with pytest.raises(InputError, match="no map of section 1"):
        read.layers[0].maps[1]
    assert [read.home(z) for z in range(4)] == [0, None, 1, None]
