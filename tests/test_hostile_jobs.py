"""Job files that are made to harm, or merely absurd, are bad input."""

from __future__ import annotations

import pytest

from emloom.errors import InputError
from emloom.tasks.job import NeuronsJob

BOMB = "\n".join(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10 if n else ['lol'] * 10)}]" for n in range(12))


@pytest.mark.fault(
    "jobs",
    "a job file is a billion laughs: aliases of aliases of aliases",
    "error: names the keys, shortened; nothing is spelled out",
)
@pytest.mark.parametrize("key", ["name", "data", "objective", "training"])
def test_aliases_are_not_spelled_out(key: str) -> None:
    with pytest.raises(InputError, match="unknown key") as refused:
        NeuronsJob.from_yaml(f"{BOMB}\n{key}: *a11\n")
    assert len(str(refused.value)) < 20_000


@pytest.mark.fault(
    "jobs", "a job file is nested 5000 deep, or holds itself", "error: is nested too deeply / names the key"
)
@pytest.mark.parametrize("text", ["a: " + "[" * 5000 + "]" * 5000, "name: &a [*a]", "a: &a {b: *a}"])
def test_depth_has_an_end(text: str) -> None:
    with pytest.raises(InputError, match=r"nested too deeply|has \d+ problems"):
        NeuronsJob.from_yaml(text)


@pytest.mark.fault(
    "jobs",
    "a job file has tags that run code (!!python/object), or that PyYAML trips over (!!int '', !!bool maybe)",
    "error: job is not valid YAML; only plain data are built",
)
@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!int ''",
        "!!float ''",
        "!!bool maybe",
        "!!timestamp never",
        "!!omap [1]",
        "2020-13-45",
        "'a\0b'",
    ],
)
def test_tags_build_plain_data_or_nothing(value: str) -> None:
    with pytest.raises(InputError, match="job is not valid YAML"):
        NeuronsJob.from_yaml(f"name: {value}")


@pytest.mark.fault(
    "jobs", "a number of a job has 100 000 digits", "error: names the key, and how long the number is"
)
def test_numbers_without_end() -> None:
    with pytest.raises(InputError, match=r"name: .*a number of thousands of digits"):
        NeuronsJob.from_yaml("name: 0x" + "f" * 100_000)


@pytest.mark.fault(
    "jobs", "keys of a job are numbers, lists, dates or nothing", "error: names the key; keys are names"
)
@pytest.mark.parametrize(
    "text", ["1: 2", "null: 2", "? [1, 2]\n: 3", "2020-01-01: 2", "<<: [1]", "- a", "", "a\n---\nb"]
)
def test_keys_are_names(text: str) -> None:
    with pytest.raises(InputError, match="job "):
        NeuronsJob.from_yaml(text)
