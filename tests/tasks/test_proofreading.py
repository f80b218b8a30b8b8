"""Decisions in files become corrected segmentations: by ids, points, or answers in a tracing; and are undone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.decisions import Decision
from emloom.geometry.tracings import Marks
from emloom.io.decisions import read_decisions, write_decisions
from emloom.io.nml import write_nml
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_csv
from emloom.tasks.lookexport import tracing_of
from emloom.tasks.lookhere import Place
from emloom.tasks.proofreading import ProofreadJob, proofread
from emloom.tasks.resume import result_status
from tests.tasks.planted_choices import planted, write_planted

Pair = tuple[tuple[int, int, int], tuple[int, int, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("proofread")
    write_planted(made, planted())
    return made


def voxels(path: Path) -> NDArray[np.uint64]:
    volume = open_volume(path)
    found: NDArray[np.uint64] = volume.read(volume.info.box)
    return found


def touching(folder: Path, one: int, other: int) -> Pair:
    """Return two segmented voxels that touch along z, the first in one true neurite, the second in another."""
    labels, fragments = planted().labels, voxels(folder / "seg.zarr" / "fragments")
    there = (labels[:-1] == one) & (labels[1:] == other) & (fragments[:-1] > 0) & (fragments[1:] > 0)
    there &= fragments[:-1] != fragments[1:]
    z, y, x = np.argwhere(there)[0].tolist()
    return (z, y, x), (z + 1, y, x)


def across_the_wall(folder: Path) -> Pair:
    """Return two voxels of the neurite that was split, on either side of the wall."""
    neurite, z = planted().split
    labels, whole = planted().labels, voxels(folder / "seg.zarr" / "segmentation")
    there = (labels[z - 1] == neurite) & (labels[z] == neurite) & (whole[z - 1] != whole[z]) & (whole[z - 1] > 0)
    y, x = np.argwhere(there & (whole[z] > 0))[0].tolist()
    return (z - 1, y, x), (z, y, x)


def point(voxel: tuple[int, int, int]) -> tuple[float, float, float]:
    return planted().phantom.labels.info.grid.centre(voxel)


def applied(
    folder: Path, name: str, decisions: list[Decision], segmentation: str = "seg.zarr", **more: bool
) -> Path:
    table = folder / f"{name}.csv"
    write_decisions(table, decisions, overwrite=True)
    words = {"segmentation": str(folder / segmentation), "decisions": str(table), "output": str(folder / name)}
    return proofread(ProofreadJob.from_dict({**words, **more}, "proofread"))


def test_the_planted_errors_are_mended_and_the_reversed_table_gives_the_original(folder: Path) -> None:
    labels, original = planted().labels, voxels(folder / "seg.zarr" / "segmentation")
    first, second = planted().merged
    splits = [Decision("split", *(point(v) for v in touching(folder, *pair))) for pair in (first, second)]
    wall = across_the_wall(folder)
    table = [
        *splits,
        Decision("merge", point(wall[0]), point(wall[1])),
        Decision("ok", point(wall[0]), point(wall[1])),
    ]
    with pytest.raises(InputError, match=r"says merge of fragments .* says ok"):
        applied(folder, "both", table)
    made = applied(folder, "mended", table[:3])
    assert result_status(made, look=True).is_well
    mended = voxels(made / "segmentation.zarr")
    assert mended[wall[0]] == mended[wall[1]]
    for one, other in (first, second):
        ids, counts = np.unique(mended[labels == one], return_counts=True)
        others, more = np.unique(mended[labels == other], return_counts=True)
        assert ids[counts.argmax()] != others[more.argmax()]
        assert counts.max() > 0.95 * counts.sum()
        assert more.max() > 0.95 * more.sum()
    touched = np.isin(original, np.unique(original[mended != original]))
    untouched = ~touched & ~np.isin(mended, np.unique(mended[touched]))
    assert untouched.any()
    np.testing.assert_array_equal(mended[untouched], original[untouched])

    verbs = {"merge": "split", "split": "merge"}
    turned = [replace(d, verb=verbs[d.verb]) for d in table[2::-1]]
    back = applied(folder, "back", turned, "mended")  # type: ignore[arg-type]
    np.testing.assert_array_equal(voxels(back / "segmentation.zarr"), original)
    record = read_table(back / "decisions.parquet")
    assert record["batch"].tolist() == [1, 1, 1, 2, 2, 2]
    assert record["decision"].tolist() == ["split", "split", "merge", "merge", "split", "split"][:3] + [
        d.verb for d in turned
    ]
    assert len(read_table(back / "lut.parquet")) > 0


def test_rows_in_any_order_and_ids_for_points_give_the_same(folder: Path) -> None:
    fragments, whole = (voxels(folder / "seg.zarr" / name) for name in ("fragments", "segmentation"))
    segments = [int(s) for s in np.unique(whole[whole > 0])[:4]]
    chain = [Decision("merge", a, b) for a, b in pairwise(segments)]
    one = applied(folder, "forward", chain, render=False)
    assert not (one / "segmentation.zarr").exists()
    turned = [Decision("merge", d.b, d.a) for d in chain[::-1]]
    two = applied(folder, "backward", turned, render=False)
    spots = {s: tuple(np.argwhere((whole == s) & (fragments == s))[0].tolist()) for s in segments}
    pointed = [Decision("merge", point(spots[d.a]), point(spots[d.b])) for d in chain]  # type: ignore[index, arg-type]
    three = applied(folder, "pointed", pointed, render=False)
    tables = [read_table(made / "lut.parquet") for made in (one, two, three)]
    for table in tables[1:]:
        np.testing.assert_array_equal(table["fragment"], tables[0]["fragment"])
        np.testing.assert_array_equal(table["segment"], tables[0]["segment"])
    merged = dict(zip(tables[0]["fragment"].tolist(), tables[0]["segment"].tolist(), strict=True))
    assert {merged.get(s, s) for s in segments} == {segments[0]}


def test_an_answered_tracing_is_applied(folder: Path) -> None:
    at, to = across_the_wall(folder)
    place = Place(1, "split?", 1.0, at, to, (0, 0), (0, 0), 1, 1, "because")
    tracing = tracing_of([place], planted().phantom.labels.info.grid)
    answered = replace(tracing, comments=Marks.of([1], content=["merge"]))
    write_nml(folder / "answers.nml", answered, overwrite=True)
    words = {"segmentation": str(folder / "seg.zarr"), "decisions": str(folder / "answers.nml")}
    made = proofread(ProofreadJob(**words, output=str(folder / "traced")))
    mended = voxels(made / "segmentation.zarr")
    assert mended[at] == mended[to]
    write_nml(folder / "open.nml", tracing, overwrite=True)
    with pytest.raises(InputError, match="decides nothing"):
        proofread(ProofreadJob(**{**words, "decisions": str(folder / "open.nml")}, output=str(folder / "none")))


def test_mistakes_name_their_row(folder: Path) -> None:
    fragments, whole = (voxels(folder / "seg.zarr" / name) for name in ("fragments", "segmentation"))
    empty = np.argwhere(fragments == 0)
    inside = (8, 8, 8)
    a, b = (int(s) for s in np.unique(whole[whole > 0])[:2])
    ids = [int(f) for f in np.unique(fragments[(whole == a) & (fragments > 0)])[:3]]
    cases = [
        ([Decision("merge", a, 3)], r"row 1: b is 3, which is no fragment"),
        ([Decision("split", a, b)], rf"row 1: fragments {a} and {b} are split, but lie in two segments"),
        ([Decision("merge", a, b), Decision("merge", point((-1, 8, 8)), b)], "row 2: point a .* outside"),
        ([Decision("split", point(inside), point(inside))], "row 1: .*(never cut|background)"),
        (
            [Decision("split", ids[0], ids[1]), Decision("merge", ids[1], ids[0])],
            "row 1 says split .* row 2 says merge",
        ),
        (
            [Decision("split", ids[0], ids[2]), Decision("merge", *ids[:2]), Decision("merge", *ids[1:])],
            "row 1 splits .* row 2; .*row 3.* hold together",
        ),
    ]
    if len(empty):
        background = tuple(int(v) for v in empty[0])
        cases.append(([Decision("merge", point(background), b)], "row 1: point a .* is background"))  # type: ignore[arg-type]
    for decisions, words in cases:
        with pytest.raises(InputError, match=words):
            applied(folder, "wrong", decisions)
        assert not (folder / "wrong").exists()


def test_tables_are_read_as_written_and_mistakes_in_them_are_named(tmp_path: Path) -> None:
    decisions = [
        Decision("merge", 5, (1.5, 2.0, 3.25)),
        Decision("split", (0.0, 1.0, 2.0), 9),
        Decision("ok", 1, 2),
    ]
    for name in ("t.csv", "t.parquet"):
        write_decisions(tmp_path / name, decisions)
        found = read_decisions(tmp_path / name)
        assert [replace(d, row="") for d in found] == decisions
        assert found[1].row.endswith(f"{name}, row 2")
    for text, words in [
        ("a,b\n1,2\n", "has no column 'decision'"),
        ("decision,a,b\njoin,1,2\n", "row 1: the decision 'join' is unknown"),
        ("decision,a,b\nmerge,1,\n", "row 1 has no side b"),
        ("decision,a,b\n,1,\nmerge,1.5,2\n", "row 2: a is '1.5'"),
        ("decision,at_z_nm,at_y_nm,at_x_nm,b\nmerge,1,2,far,3\n", "row 1: .*far.* is no point"),
    ]:
        (tmp_path / "wrong.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=words):
            read_decisions(tmp_path / "wrong.csv")
    write_csv(tmp_path / "look.csv", {"rank": np.array([1]), "decision": np.array([""])})
    assert read_decisions(tmp_path / "look.csv") == []
