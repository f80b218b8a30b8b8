"""Any bytes give a value or an `InputError`; and the fuzzer that looks for more finds what is planted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from tests.fuzzing import TARGETS, Target, changed, fuzz, outcome

FINDINGS: dict[str, tuple[bytes, ...]] = {
    # What a fuzzer found, and emloom mended since.
    "job": (b"name: !!int ''\n", b"name: !!bool maybe\n", b"a: " + b"[" * 5000),
    "swc": (b"1_0 1 0 0 0 1 -1\n",),
    "zarr": (b"[" * 100_000,),
    "npy": (b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1',\n",),
    "info": (b'{"a": ' + b"9" * 5000 + b"}",),
}


@pytest.mark.fault(
    "tables",
    "parsers of NML, SWC, CSV, YAML, precomputed, zarr, NumPy and safetensors get bytes that a fuzzer made up",
    "a value, or an error of one paragraph, in bounded time",
)
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_give_a_value_or_an_error(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target, folder = TARGETS[name], tmp_path_factory.mktemp(name)

    @settings(max_examples=40, database=None)
    @given(st.integers(0, 2**32 - 1))
    def draw(seed: int) -> None:
        data = changed(target.seeds[seed % len(target.seeds)], target.seeds, target.words, random.Random(seed))
        assert outcome(target, data, folder) in ("value", "refused")

    assert outcome(target, target.seeds[0], folder) in ("value", "refused")
    for data in FINDINGS.get(name, ()):
        assert outcome(target, data, folder) == "refused"
    draw()


def test_the_fuzzer_finds_what_is_planted() -> None:
    def parse(path: Path) -> int:
        data = path.read_bytes()
        if b"<" not in data:
            raise InputError("no bracket")
        return 1 // (len(data) - 3)

    told: list[str] = []
    found = fuzz(Target("a", parse, (b"abcdef",), (b"<",)), 2.0, 1, told.append)
    assert [len(data) for data in found] == [3]
    assert "ZeroDivisionError" in told[0]
