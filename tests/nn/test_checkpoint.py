"""Checkpoints and training state: what goes in comes out, and nothing half-written is ever read."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.nn import checkpoint
from emloom.nn.checkpoint import (
    flatten_state,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
    unflatten_state,
)
from emloom.nn.unet import UNet, UNetSpec

SPEC = UNetSpec(features=(2, 3), factors=((1, 2, 2),))


def same(a: object, b: object) -> bool:
    """Equality that looks at types, tensor bits, and NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def test_a_checkpoint_brings_back_weights_spec_and_info(tmp_path):
    net = UNet(SPEC)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, net.state_dict(), SPEC, {"step": "7", "note": "µ\n: {}"})
    state, text, info = load_checkpoint(path)
    assert UNetSpec.from_yaml(text) == SPEC
    assert (info["step"], info["note"]) == ("7", "µ\n: {}")
    assert info["emloom"]
    assert same(sorted(net.state_dict().items()), sorted(state.items()))
    UNet(UNetSpec.from_yaml(text)).load_state_dict(state)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_tensors_that_share_memory_are_kept_apart(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "m", {"a": base, "b": base, "t": base.T, "scalar": torch.tensor(3)}, SPEC)
    state, _, _ = load_checkpoint(tmp_path / "m")
    assert torch.equal(state["t"], base.T)
    assert torch.equal(state["a"], state["b"])
    assert state["scalar"].item() == 3


@pytest.mark.fault(
    "models",
    "a checkpoint is cut short",
    "error: is not an emloom checkpoint, or is truncated",
)
@pytest.mark.parametrize("keep", [0, 4, 60, -1, -100])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, UNet(SPEC).state_dict(), SPEC)
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_checkpoint(path)


@pytest.mark.fault(
    "models",
    "a pickle that runs code when opened, a torch file, text, or nothing is given as a checkpoint",
    "error: is not an emloom checkpoint; no pickle is ever opened",
)
def test_foreign_and_missing_files_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps(Bomb()))
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch.pt")
    (tmp_path / "text").write_text("not a model at all, but long enough to hold a length")
    save_training_state(tmp_path / "state", {"step": 1})
    for name in ("evil.pt", "torch.pt", "text", "state", "missing", "."):
        with pytest.raises(InputError, match="emloom checkpoint"):
            load_checkpoint(tmp_path / name)
    save_checkpoint(tmp_path / "model", {}, SPEC)
    with pytest.raises(InputError, match="training state"):
        load_training_state(tmp_path / "model")
    with pytest.raises(InputError, match="folder"):
        save_checkpoint(tmp_path / "nowhere" / "model", {}, SPEC)


@pytest.mark.fault(
    "disk",
    "the disk is full while a checkpoint is saved",
    "the old checkpoint stays, and nothing else",
)
@pytest.mark.parametrize("failing", ["save_file", "_flush"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, failing):
    path = tmp_path / "model"
    save_checkpoint(path, {"a": torch.zeros(3)}, SPEC, {"step": "1"})
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, failing, full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"a": torch.ones(3)}, SPEC, {"step": "2"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


TENSORS = st.sampled_from(
    [
        torch.zeros(0),
        torch.tensor(1.5),
        torch.tensor([1, 2], dtype=torch.int64),
        torch.ones(2, 3, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.arange(5, dtype=torch.uint8),
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
KEYS = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none())
NESTED = st.recursive(
    st.one_of(SCALARS, TENSORS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(NESTED)
def test_flatten_and_back_is_the_identity(nested):
    tensors, structure = flatten_state(nested)
    assert same(unflatten_state(tensors, structure), nested)


@pytest.mark.parametrize("alien", [np.float64(1), np.zeros(2), object(), {1, 2}, b"x", Path(".")])
def test_what_would_need_pickle_is_refused_with_its_place(alien):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\]"):
        flatten_state({"a": [0, alien]})


def test_training_goes_on_exactly_where_it_stopped(tmp_path):
    def start() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 2)
        return net, torch.optim.AdamW(net.parameters(), lr=0.1, betas=(0.9, 0.95))

    def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    net, optimizer = start()
    for _ in range(3):
        step(net, optimizer)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "step": 3}
    save_training_state(tmp_path / "state", state)
    for _ in range(2):
        step(net, optimizer)

    again, other = start()
    loaded = load_training_state(tmp_path / "state")
    again.load_state_dict(loaded["net"])
    other.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["rng"])
    assert loaded["step"] == 3
    for _ in range(2):
        step(again, other)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
