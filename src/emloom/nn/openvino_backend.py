"""OpenVINO: the network compiled for the processor, once per shape of tile.

An optional dependency, imported when first used: ``pip install 'emloom[openvino]'``. Networks are exported with
`torch.export` (standardised filters folded into constants before), converted and compiled in memory; nothing is
written. OpenVINO reports its use to its makers over the network by default, at import already: emloom does not let
the part that does so be loaded.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections import OrderedDict
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.backends import Precision, Stored, dense, folded
from emloom.nn.coding import PROBABILITIES, Codings, coding_of

_KEPT = 2  # compiled shapes: a tile, and a tile transposed

INSTALL = "pip install 'emloom[openvino]'"


def available() -> bool:
    """Whether OpenVINO is installed (it is not imported)."""
    return find_spec("openvino") is not None


class OpenVinoBackend:
    """A network compiled for this processor; threads may share it, and take turns.

    Args:
        module: a network with the properties of `DenseNet`; later changes of its weights are not seen.
        precision: `32`, or `bf16`.
        threads: to compute with.
        codings: what is stored of the heads.

    Raises:
        InputError: OpenVINO is not installed.
    """

    def __init__(
        self, module: nn.Module, precision: Precision, threads: int, codings: Codings = PROBABILITIES
    ) -> None:
        self.name = f"openvino {precision}"
        self._openvino = _import()
        self._codings = codings
        self._network = _Tuple(folded(module))
        self._names = tuple(dense(module).channels)
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # several processes on one machine would be pinned to the same cores
        }
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._turn = threading.Lock()

    def __call__(self, x: Tensor) -> dict[str, Stored]:
        """Return stored values by head."""
        with self._turn:
            compiled = self._of_shape(x)
            # The outputs are views of OpenVINO's own memory, valid until the next call: hence one turn each.
            answers = compiled(x.numpy(), share_outputs=True)
            out = {}
            for index, name in enumerate(self._names):
                out[name] = coding_of(self._codings, name)(torch.from_numpy(answers[index])[0], name)
            return out

    def _of_shape(self, x: Tensor) -> Any:
        shape = tuple(x.shape)
        if shape not in self._compiled:
            while len(self._compiled) >= _KEPT:
                self._compiled.popitem(last=False)
            for idle in self._compiled.values():
                idle.release_memory()
            self._compiled[shape] = self._compile(x)
        self._compiled.move_to_end(shape)
        return self._compiled[shape]

    def _compile(self, x: Tensor) -> Any:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecations between torch and OpenVINO, nothing a user can mend
            try:
                program = torch.export.export(self._network, (x,))
                model = self._openvino.convert_model(program)
            except RuntimeError as problem:
                raise InputError(f"OpenVINO cannot run this network ({problem}): use --backend torch") from problem
        return _core().compile_model(model, "CPU", self._settings)


class _Tuple(nn.Module):
    """A network that answers with a tuple, in the order of its channels: what an exported program can do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        net = dense(self.module)
        logits = net.interior(x)
        return tuple(logits[name] for name in net.channels)


@cache
def _core() -> Any:
    """Return the one core of this process.

    When the last core and its networks are gone, OpenVINO unloads its code for processors, which then leaves the
    thread with a signal stack that is too small where signals come in quick succession (seen with 2026.4): a
    training whose loaders end at once was killed by it. So the core stays.
    """
    return _import().Core()


def _import() -> Any:
    # None makes `import openvino_telemetry` fail, and OpenVINO fall back to a stub that sends nothing.
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    try:
        import openvino
    except ImportError as problem:
        raise InputError(f"OpenVINO is not installed ({problem}): {INSTALL}, or use --backend torch") from None
    return openvino
