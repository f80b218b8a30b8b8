"""A spot says the same as words of a command line and as an address; what is no spot is an error."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.view.spot import PORT, Spot, address, check_token, new_token

IDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4).map(tuple)
SPOTS = st.builds(
    Spot,
    at=st.none() | st.tuples(*[st.integers(-(10**6), 10**9)] * 3),
    segments=st.lists(st.tuples(st.text(max_size=6), IDS), max_size=4).map(tuple),
)


@given(SPOTS)
def test_words_and_addresses_lead_back_to_the_spot(spot: Spot) -> None:
    words = spot.words()
    options = list(zip(words[::2], words[1::2], strict=True))
    at = [value for name, value in options if name == "--at"]
    assert Spot.of(at[0] if at else None, [value for name, value in options if name == "--segment"]) == spot
    link = urlsplit(address(PORT, "t" * 16, spot))
    assert Spot.of_query(link.query) == spot
    assert (link.hostname, link.port, link.path, link.fragment) == (
        "127.0.0.1",
        PORT,
        "/v/tttttttttttttttt/at",
        "",
    )
    assert link.geturl().isascii()
    assert not set(" <>\"'") & set(link.geturl())


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("at=1,2", "z,y,x"),
        ("at=1,2,x", "z,y,x"),
        ("at=1.5,2,3", "z,y,x"),
        ("segment=", "ids are whole numbers"),
        ("segment=a=", "ids are whole numbers"),
        ("segment=-4", "ids are whole numbers"),
        (f"segment={2**64}", "ids are whole numbers"),
        ("layer=a", "`at` and `segment`"),
    ],
)
def test_what_is_no_spot_is_refused(query: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Spot.of_query(query)


@pytest.mark.parametrize("token", ["", "short", "a/../../../etc/passwd", "x" * 129, "dotted.token.of.some.length"])
def test_a_token_must_be_a_secret_that_fits_an_address(token: str) -> None:
    with pytest.raises(InputError, match="is no secret"):
        check_token(token)
    assert check_token(new_token()) != new_token()
