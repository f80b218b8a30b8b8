"""Backends: one answer within the stated tolerance, and the fastest of those that keep to it."""

from __future__ import annotations

import ctypes
import gc
import logging
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn import engine as engine_module
from emloom.nn.backends import BF16_MEAN_STEPS, BF16_STEPS, Backend, Stored, TorchBackend, dense, folded
from emloom.nn.coding import GreyValue
from emloom.nn.contest import Contest, difference
from emloom.nn.engine import Engine
from emloom.nn.heads import MultiHead
from emloom.nn.layers import Conv
from emloom.nn.openvino_backend import OpenVinoBackend
from emloom.nn.predict import Predictor
from tests.nn.test_averaging import answer, average_of, net, raw_volume
from tests.nn.test_predict import SPECS, net_of, normalise, wake

CPU = torch.device("cpu")
OpenVINO = Engine(backend="openvino")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def grouped() -> nn.Module:
    return wake(MultiHead(SPECS["same"].model_copy(update={"norm": "group", "residual": True}), {"a": 2}))


NETS = {**{name: (lambda name=name: net_of(name)) for name in [*SPECS, "chain"]}, "group norm": grouped}


def tile_of(module: nn.Module, times: Vec = (2, 1, 1)) -> np.ndarray:
    parts = zip(dense(module).lattice, dense(module).context, times, strict=True)
    shape = [n * k + 2 * c for n, c, k in parts]
    return np.random.default_rng(4).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("name", list(NETS))
def test_openvino_answers_as_torch_does(name):
    module = NETS[name]()
    raw = tile_of(module)
    expected = Predictor(module, normalise)(raw)
    found = Predictor(module, normalise, OpenVINO)(raw)
    assert found.keys() == expected.keys()
    for head, values in expected.items():
        assert found[head].shape == values.shape
        assert values.std() > 10
    assert difference(found, expected)[0] <= 1


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_is_close_to_float32(backend):
    """A random net amplifies rounding more than a trained one: see docs/prediction.md for those."""
    module = net_of("same")
    raw = tile_of(module, (3, 4, 5))
    expected = Predictor(module, normalise)(raw)
    found = Predictor(module, normalise, Engine(backend=backend, precision="bf16"))(raw)
    worst, mean = difference(found, expected)
    assert worst <= 16
    assert mean <= 1.5


def test_every_shape_of_tile_is_compiled_and_few_are_kept():
    module = net_of("stem")
    torch_, openvino = Predictor(module, normalise), Predictor(module, normalise, OpenVINO)
    for times in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 1)):
        raw = tile_of(module, times)
        assert difference(openvino(raw), torch_(raw))[0] <= 1
    with pytest.raises(InputError, match="does not fit the network"):
        openvino(raw[1:])


def test_an_answer_stays_what_it_was_when_the_next_tile_is_answered():
    """OpenVINO's outputs are views of memory that it uses again."""
    module = net_of("same")
    predictor = Predictor(module, normalise, OpenVINO)
    raw = tile_of(module)
    first = predictor(raw)
    kept = {name: values.copy() for name, values in first.items()}
    predictor(255 - raw)
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_weights_that_diverged_are_refused():
    module = net_of("same")
    module.heads["lsds"].bias.data[0] = torch.nan
    with pytest.raises(InputError, match="'lsds' with NaN: its weights diverged"):
        Predictor(module, normalise, OpenVINO)(tile_of(module))


def test_averages_over_orientations_agree_between_backends():
    module, raw = net("stem"), raw_volume((6, 8, 10))
    expected = answer(Predictor(module, normalise), raw, average_of(16))
    assert difference(answer(Predictor(module, normalise, OpenVINO), raw, average_of(16)), expected)[0] <= 1


def test_folding_keeps_the_answers_and_the_original():
    module = net_of("same").train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flat = folded(module)
    assert not flat.training
    assert module.training
    assert all(part.gain is None for part in flat.modules() if isinstance(part, Conv))
    assert any(part.gain is not None for part in module.modules() if isinstance(part, Conv))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    x = torch.from_numpy(normalise(tile_of(module)))[None, None]
    assert difference(TorchBackend(flat, CPU, "32")(x), TorchBackend(module, CPU, "32")(x))[0] <= 1


# ---- the contest ----------------------------------------------------------------------------------------------


class Clock:
    """A clock that backends advance."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A backend that takes a known time and is off by a known number of steps."""

    def __init__(self, clock: Clock, name: str, seconds: float, off: int = 0) -> None:
        self.clock, self.name, self.seconds, self.off, self.calls = clock, name, seconds, off, 0

    def __call__(self, x: torch.Tensor) -> dict[str, Stored]:
        self.calls += 1
        self.clock.now += self.seconds
        if self.off < 0:
            raise InputError("this one cannot")
        return {"a": np.full((1, 4, 4, 4), 100 + self.off, np.uint8)}


def contest(*runners: tuple[str, float, int]) -> tuple[Contest, list[Fake]]:
    clock = Clock()
    fakes = [Fake(clock, *runner) for runner in runners]
    candidates: list[Backend] = [*fakes]
    return Contest(candidates, clock), fakes


@pytest.mark.parametrize(
    ("runners", "winner"),
    [
        ([("torch 32", 3.0, 0), ("openvino 32", 1.0, 1)], "openvino 32"),
        ([("torch 32", 1.0, 0), ("openvino 32", 3.0, 0)], "torch 32"),
        ([("torch 32", 3.0, 0), ("openvino 32", 1.0, 2)], "torch 32"),
        ([("torch 32", 3.0, 0), ("openvino 32", 2.0, 0), ("openvino bf16", 1.0, BF16_STEPS + 1)], "openvino 32"),
        (
            [("torch 32", 3.0, 0), ("openvino bf16", 1.0, 1)],
            "torch 32",
        ),  # off by 1 everywhere: too much on average
        ([("torch 32", 3.0, 0), ("openvino 32", 1.0, -1), ("torch bf16", 2.0, 0)], "torch bf16"),
    ],
)
def test_the_fastest_that_is_close_enough_wins(runners, winner, caplog):
    assert BF16_MEAN_STEPS < 1
    backend, fakes = contest(*runners)
    with caplog.at_level(logging.INFO):
        backend(torch.zeros(1))
    assert backend.name.startswith(f"{winner} (on the first tile: torch 32 {runners[0][1]:.2f} s")
    assert f"prediction with {winner}" in caplog.text
    calls = {fake.name: fake.calls for fake in fakes}
    backend(torch.zeros(1))
    backend(torch.zeros(1))
    assert {fake.name: fake.calls - calls[fake.name] for fake in fakes if fake.calls > calls[fake.name]} == {
        winner: 2
    }


def test_a_single_candidate_is_not_timed():
    backend, (fake,) = contest(("torch 32", 1.0, 0))
    assert backend.name == "torch 32"
    backend(torch.zeros(1))
    assert fake.calls == 1


# ---- engines --------------------------------------------------------------------------------------------------


def test_auto_answers_as_the_reference_and_says_why():
    module = net_of("stem")
    predictor = Predictor(module, normalise, Engine(backend="auto"))
    raw = tile_of(module)
    assert difference(predictor(raw), Predictor(module, normalise)(raw))[0] <= 1
    assert "torch 32" in predictor.backend.name
    assert "openvino 32" in predictor.backend.name
    assert " s" in predictor.backend.name


def test_bf16_takes_part_only_where_it_is_native_and_allowed(monkeypatch):
    for native, expected in ((True, ["32", "32", "bf16", "bf16"]), (False, ["32", "32"])):
        monkeypatch.setattr(engine_module, "native_bf16", lambda device, native=native: native)
        both = Engine(backend="auto", precision="auto")._candidates(CPU)
        assert [precision for _, precision in both] == expected
    assert Engine(backend="auto")._candidates(CPU) == [("torch", "32"), ("openvino", "32")]
    assert Engine(backend="auto")._candidates(torch.device("cuda")) == [("torch", "32")]


def test_without_openvino_auto_is_torch_and_says_how_to_get_it(monkeypatch, caplog):
    monkeypatch.setattr(engine_module.openvino_backend, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        predictor = Predictor(net_of("same"), normalise, Engine(backend="auto"))
    assert predictor.backend.name == "torch 32"
    assert "pip install 'emloom[openvino]'" in caplog.text


def test_openvino_asked_for_and_missing_is_an_error_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        InputError, match=r"not installed .* pip install 'emloom\[openvino\]', or use --backend torch"
    ):
        Predictor(net_of("same"), normalise, OpenVINO)


@pytest.mark.parametrize(
    ("device", "backend", "precision", "message"),
    [
        ("cpu", "opnvino", "32", "backend 'opnvino' is unknown; did you mean 'openvino'"),
        ("cpu", "torch", "16", "precision '16' is unknown"),
        ("meta", "openvino", "32", "OpenVINO computes on the processor, not on meta"),
    ],
)
def test_impossible_engines_are_refused(device, backend, precision, message):
    with pytest.raises(InputError, match=message):
        Predictor(net_of("same"), normalise, Engine.of(device, backend, precision))


def test_no_more_threads_than_granted():
    torch.set_num_threads(2)
    module = net_of("same")
    Predictor(module, normalise, Engine(threads=1))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    Predictor(module, normalise, Engine(threads=64))
    assert torch.get_num_threads() == 2
    compiled = OpenVinoBackend(module, "32", 1)._of_shape(torch.from_numpy(normalise(tile_of(module)))[None, None])
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_openvino_is_imported_late_and_its_telemetry_never():
    code = """
import socket, sys
def refuse(*_): raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from emloom.nn.engine import Engine
from emloom.nn.heads import MultiHead
from emloom.nn.predict import Predictor
from emloom.nn.unet import UNetSpec
assert "openvino" not in sys.modules
net = MultiHead(UNetSpec(features=(2,), factors=()), {"a": 1})
Predictor(net, lambda raw: raw.astype(np.float32), Engine(backend="openvino"))(np.zeros((9, 9, 9), np.uint8))
assert "openvino" in sys.modules
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's signal stack")
def test_openvino_leaves_the_signal_stack_alone():
    """Its core, unloaded, left one too small for the ends of several loader processes at once: a crash."""

    class Stack(ctypes.Structure):
        _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    def stack() -> tuple[int, int]:
        found = Stack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
        return found.flags, found.size

    before = stack()
    for _ in range(2):
        module = net_of("stem")
        Predictor(module, normalise, OpenVINO)(tile_of(module))
        gc.collect()
    assert stack() == before


def test_each_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Engine("cuda").for_worker(n).device for n in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert Engine("cuda:1").for_worker(0).device == "cuda:1"
    assert Engine("cpu").for_worker(1) == Engine("cpu")


def test_backends_do_not_compete_on_answers_that_are_not_bytes():
    codings = {"affinities": GreyValue(0.0, 4000.0, np.dtype(np.uint16))}
    with pytest.raises(InputError, match="stored as uint16: name a backend"):
        Engine(backend="auto").start(net_of("same"), codings)
