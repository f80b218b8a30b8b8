"""Errors point to the way out."""

from __future__ import annotations

import pytest

from emloom.errors import InputError, did_you_mean


@pytest.mark.parametrize(
    ("word", "hint"),
    [("sigm_nm", "; did you mean 'sigma_nm'?"), ("steps", "; did you mean 'steps'?"), ("qqq", ""), ("", "")],
)
def test_the_nearest_word_or_nothing(word: str, hint: str) -> None:
    assert did_you_mean(word, ["steps", "sigma_nm"]) == hint


def test_any_iterable_of_words_will_do() -> None:
    assert did_you_mean("bix", (w for w in ("box", "path"))) == "; did you mean 'box'?"
    assert did_you_mean("box", ()) == ""


def test_an_input_error_is_a_value_error_whose_text_is_the_message() -> None:
    # Validators of a Spec may raise it: pydantic collects ValueErrors.
    with pytest.raises(ValueError, match=r"^voxel size is missing$"):
        raise InputError("voxel size is missing")
