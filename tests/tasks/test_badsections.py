"""Which sections are bad, and which neighbours stand in for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.tasks.badsections import Fill, find, listed_in, neighbours, plan
from emloom.tasks.repairspec import BadSpec

# Published replacements of the CREMI volumes in their aligned frames of 153 sections: bad <- good.
CREMI = {
    "A": "143<142",
    "B": "1<0 29<28 30<31 58<57 59<60 91<90",
    "C": "28<27 88<87 100<99",
    "A+": "65<64 93<92 94<95 122<121 123<124 125<126",
}


@pytest.mark.parametrize("volume", CREMI)
def test_the_published_replacements_of_cremi(volume: str) -> None:
    table = [tuple(int(v) for v in pair.split("<")) for pair in CREMI[volume].split()]
    bad = tuple(z for z, _ in table)
    fills = {f.z: f for f in plan(find(153, BadSpec(bad=bad), {}), "nearest", 3)}
    assert set(fills) == set(bad)
    for z, good in table:
        one = fills[z]
        assert one.state == "replaced"
        assert one.reason == "named"
        assert abs(good - z) == abs(one.nearest - z) == 1
        tie = z - one.before == one.after - z
        assert one.nearest == (z - 1 if tie else good)  # of two that are equally near, always the one before
        assert good in one.neighbours or tie


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_neighbours_are_the_slow_obvious_ones(whole: list[bool]) -> None:
    before, after = neighbours(np.array(whole))
    for z in range(len(whole)):
        assert before[z] == max((k for k in range(z) if whole[k]), default=-1)
        assert after[z] == min((k for k in range(z + 1, len(whole)) if whole[k]), default=-1)


@given(st.lists(st.sampled_from(["", "bad", "torn"]), min_size=2, max_size=25), st.integers(1, 5))
def test_what_is_planned_is_made_of_whole_sections_that_are_near(kinds: list[str], longest: int) -> None:
    bad, torn = (tuple(z for z, k in enumerate(kinds) if k == kind) for kind in ("bad", "torn"))
    found = find(len(kinds), BadSpec(bad=bad, cracked=torn), {})
    if not found.whole.any():
        with pytest.raises(InputError, match="bad or cracked"):
            plan(found, "flow", longest)
        return
    fills = plan(found, "flow", longest)
    assert [f.z for f in fills] == [z for z, kind in enumerate(kinds) if kind]
    for one in fills:
        assert all(kinds[z] == "" for z in one.neighbours)
        assert 0 <= one.t <= 1
        assert (one.state == "mended") == (kinds[one.z] == "torn")
        if one.state == "between":
            assert one.before < one.z < one.after <= one.before + longest + 1
            assert abs(one.nearest - one.z) == min(one.z - one.before, one.after - one.z)
        elif one.state == "replaced":
            assert min(one.before, one.after) == -1
            assert abs(one.nearest - one.z) <= longest
            assert "copy of the one" in one.note
        elif one.state == "left":
            assert "left as it is" in one.note


def test_runs_lie_evenly_between_their_ends_and_long_ones_are_left() -> None:
    found = find(12, BadSpec(bad=(2, 3, 6, 7, 8, 9)), {})
    fills = plan(found, "flow", 3)
    assert [(f.z, f.state) for f in fills[:2]] == [(2, "between"), (3, "between")]
    assert [f.t for f in fills[:2]] == [1 / 3, 2 / 3]
    assert [f.nearest for f in fills[:2]] == [1, 4]
    assert {f.state for f in fills[2:]} == {"left"}
    assert "one of 4 in a row, more than 3" in fills[2].note
    assert {f.state for f in plan(found, "flow", 4)} == {"between"}
    assert {f.state for f in plan(found, "mask", 4)} == {"left"}


def test_words_of_quality_control_of_alignment_and_of_a_person() -> None:
    defects = {
        0: ["dark", "shifted"],
        1: ["blank"],
        2: ["unlike", "crack"],
        3: ["crack"],
        4: ["blank"],
        5: ["crack"],
    }
    spec = BadSpec(bad=(6, 4), good=(1, 5))
    found = find(9, spec, defects, {7: "no overlap", 8: "", 1: "no overlap"})
    assert found.reasons == (
        "",
        "",
        "",
        "",
        "named; blank",
        "",
        "named",
        "no overlap",
        "bad in the alignment",
    )
    # A gap alone makes a section unlike its neighbours.
    assert found.cracked == (False, False, True, True, False, False, False, False, False)
    # What is said to be torn is put together, not replaced; what shows nothing cannot be.
    found = find(9, BadSpec(cracked=(1,)), {1: ["blank"], 2: ["blank", "crack"]})
    assert found.reasons[1] == ""
    assert found.cracked[1]
    assert found.reasons[2] == "blank"
    assert not found.cracked[2]
    assert find(9, BadSpec(defects=("dark",)), defects).reasons[0] == "dark"


def test_the_table_of_an_alignment(tmp_path: Path) -> None:
    path = tmp_path / "sections.csv"
    path.write_text('z,bad,reason\n0,0,\n1,1,"few, links"\n2,True,\n3,False,x\n', encoding="utf-8")
    assert listed_in(path) == {1: "few, links", 2: ""}
    path.write_text("z,bad\n0,1\n", encoding="utf-8")
    assert listed_in(path) == {0: ""}
    path.write_text("z,good\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="needs the columns z and bad"):
        listed_in(path)
    with pytest.raises(InputError, match=r"absent\.csv"):
        listed_in(tmp_path / "absent.csv")


def test_bad_input() -> None:
    with pytest.raises(InputError, match="section 9 is named bad, and there are 9"):
        find(9, BadSpec(bad=(9,)), {})
    with pytest.raises(InputError, match="section 2 is named good, and bad or cracked"):
        find(9, BadSpec(good=(2,), cracked=(2,)), {})
    with pytest.raises(InputError, match="all 1 sections"):
        plan(find(1, BadSpec(bad=(0,)), {}), "flow", 3)
    assert plan(find(1, BadSpec(bad=(0,)), {}), "mask", 3) == (Fill(0, "left", "named"),)
    assert plan(find(3, BadSpec(), {}), "flow", 3) == ()
