"""Files that claim to be checkpoints: refused by what is wrong, and nothing in them is run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from emloom.errors import InputError
from emloom.nn.checkpoint import load_checkpoint, load_training_state

MODEL = {"format": "emloom-checkpoint-1", "spec": "a: 1", "info": "{}"}
STATE = {"format": "emloom-training-state-1", "structure": '{"dict": [["a", {"tensor": "a"}]]}'}
DEEP = "[" * 100_000 + "]" * 100_000


def tensor(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


def written(folder: Path, header: Any, data: bytes = b"", claimed: int | None = None) -> Path:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(head) if claimed is None else claimed) + head + data)
    return path


@pytest.mark.fault(
    "models",
    "a safetensors file claims a header of 2^63 bytes, tensors that overlap, leave gaps, are negative, huge, or "
    "of an unknown type",
    "error: is not an emloom checkpoint, or is truncated: ...; nothing is allocated",
)
@pytest.mark.parametrize("words", [MODEL, STATE], ids=["model", "state"])
@pytest.mark.parametrize(
    ("tensors", "size", "claimed"),
    [
        ({}, 0, 2**63),
        ({}, 0, 10**9),
        ({"a": tensor(), "b": tensor(data_offsets=[4, 12])}, 12, None),
        ({"a": tensor(data_offsets=[4, 12])}, 12, None),
        ({"a": tensor()}, 20, None),
        ({"a": tensor(shape=[-2])}, 8, None),
        ({"a": tensor(shape=[3])}, 8, None),
        ({"a": tensor(shape=[2**62, 2**62])}, 8, None),
        ({"a": tensor(dtype="F99")}, 8, None),
        ({"a": tensor(dtype="F4")}, 8, None),
    ],
)
def test_headers_that_lie(
    tmp_path: Path, words: dict[str, str], tensors: dict[str, Any], size: int, claimed: int | None
) -> None:
    path = written(tmp_path, {"__metadata__": words, **tensors}, bytes(size), claimed)
    for load in (load_checkpoint, load_training_state):
        with pytest.raises(InputError, match=r"m\.safetensors is not"):
            load(path)


@pytest.mark.fault(
    "models",
    "the header of a checkpoint lacks its spec, or its JSON is cut off, of another shape, or nested 100 000 deep",
    "error: the header of model.safetensors is damaged: copy it again",
)
@pytest.mark.parametrize(
    "words",
    [
        {"format": "emloom-checkpoint-1"},
        MODEL | {"info": "["},
        MODEL | {"info": "[1]"},
        MODEL | {"info": DEEP},
        {"format": "emloom-training-state-1"},
        *(
            STATE | {"structure": text}
            for text in ("[", '{"tensor": "zz"}', '{"dict": 3}', '{"a": 1, "b": 2}', "{}", "5", DEEP)
        ),
    ],
)
def test_words_that_are_damaged(tmp_path: Path, words: dict[str, str]) -> None:
    path = written(tmp_path, {"__metadata__": words})
    load = load_checkpoint if words["format"] == MODEL["format"] else load_training_state
    with pytest.raises(InputError, match=r"the header of .*m\.safetensors is damaged .*copy it again"):
        load(path)


@pytest.mark.parametrize("header", [[], b"\xff", ("{" + '"a":' + DEEP + "}").encode(), {"a": tensor()}])
def test_headers_that_are_none(tmp_path: Path, header: Any) -> None:
    with pytest.raises(InputError, match="is not an emloom checkpoint"):
        load_checkpoint(written(tmp_path, header, bytes(8)))
