"""The estimate of what a net of levels holds, against the storages that are alive while it runs."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emloom.errors import InputError
from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoder,
    UNetAutoencoderSpec,
)


class Alive(TorchDispatchMode):
    """Bytes of all storages that torch makes and has not let go of."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return out


def measured(net: nn.Module, shape: tuple[int, ...]) -> float:
    alive = Alive(list(net.parameters()))
    with torch.inference_mode():
        x = torch.zeros(1, net.spec.in_channels, *shape)
        alive.note(x)
        with alive:
            net(x)
    return alive.peak / 4


OPTIONS = [
    (FCNAutoencoderSpec, {}),
    (FCNAutoencoderSpec, {"pooling": "average", "padding": "reflect"}),
    (AtrousAutoencoderSpec, {}),
    (AtrousAutoencoderSpec, {"padding": "reflect"}),
    (UNetAutoencoderSpec, {}),
    (UNetAutoencoderSpec, {"skips": (False, True, False), "pooling": "stride"}),
    (UNetAutoencoderSpec, {"merge": "concatenate", "pooling": "blurpool", "in_channels": 3}),
    (UNetAutoencoderSpec, {"skips": (False, False, False), "merge": "concatenate"}),
]


@pytest.mark.parametrize(("shape", "options"), OPTIONS)
@pytest.mark.parametrize("flat_levels", [None, 2, 0])
def test_the_estimate_is_what_torch_holds(shape, options, flat_levels):
    net = LevelAutoencoder(shape.of(3, levels=4, flat_levels=flat_levels, **options)).eval()
    size = net.rule.at_least((1 if flat_levels is None else 8, 48, 32))
    assert net.peak_floats(size) == pytest.approx(measured(net, size), rel=0.01)


@settings(deadline=None, max_examples=20)
@given(
    features=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    kernels=st.lists(
        st.lists(st.sampled_from([(1, 3, 3), (1, 1, 1), (3, 3, 5)]), min_size=1, max_size=3),
        min_size=3,
        max_size=3,
    ),
    factors=st.lists(st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 3, 1)]), min_size=2, max_size=2),
    choice=st.sampled_from(
        [(FCNAutoencoderSpec, "max"), (UNetAutoencoderSpec, "average"), (AtrousAutoencoderSpec, None)]
    ),
    padding=st.sampled_from(["zeros", "reflect"]),
)
def test_whatever_the_levels_it_is_never_below_and_hardly_above(features, kernels, factors, choice, padding):
    shape, pooling = choice
    fields = {"features": features, "kernels": kernels, "factors": factors, "padding": padding}
    net = LevelAutoencoder(shape.from_dict(fields | ({"pooling": pooling} if pooling else {}))).eval()
    size = net.rule.at_least((6, 24, 24))
    slack = 1.15 if (1, 1, 1) in factors else 1.02  # what torch keeps of a pooling that does nothing varies
    assert measured(net, size) <= net.peak_floats(size) <= slack * measured(net, size)


def test_a_tile_that_does_not_fit_has_no_peak():
    with pytest.raises(InputError, match="does not fit"):
        LevelAutoencoder(FCNAutoencoderSpec.of(1, levels=3)).peak_floats((1, 9, 8))
