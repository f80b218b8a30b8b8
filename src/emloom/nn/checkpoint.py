"""Checkpoints: one safetensors file that says what it is. Never pickle, so a stranger's model is safe to open.

The header carries three strings: the format's name, the YAML of the `Spec` that rebuilds the network (and its
preprocessing), and a JSON object of whatever else should travel (step, metrics, emloom version).

A file is written beside its target, flushed to the disk and then renamed over it: a reader, or a crash, finds the
old file or the new one, never half of one.

Training state, any nest of dicts, lists, tuples, tensors and plain scalars, is kept the same way::

    unflatten_state(*flatten_state(nested)) == nested
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emloom.errors import InputError
from emloom.spec import Spec

_CHECKPOINT = "emloom-checkpoint-1"
_TRAINING = "emloom-training-state-1"
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What JSON that somebody has changed leads to."""


def save_checkpoint(
    path: str | Path, state_dict: Mapping[str, Tensor], spec: Spec, info: Mapping[str, str] | None = None
) -> None:
    """Write weights, the spec that rebuilds their network, and what else should be remembered.

    Args:
        path: file to write, replaced atomically; its folder must exist.
        state_dict: ``module.state_dict()``.
        spec: anything whose YAML rebuilds the network.
        info: strings, e.g. step and metrics; `emloom` (the version) is added.
    """
    remembered = {"emloom": version("emloom"), **(info or {})}
    _write(path, state_dict, {"format": _CHECKPOINT, "spec": spec.to_yaml(), "info": json.dumps(remembered)})


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], str, dict[str, str]]:
    """Return (weights on the CPU, YAML of the spec, info) of a checkpoint.

    Raises:
        InputError: the file is missing, truncated, or not a checkpoint.
    """
    tensors, header = _read(path, _CHECKPOINT, "an emloom checkpoint")
    try:
        info = json.loads(header["info"])
        return tensors, header["spec"], {str(name): str(value) for name, value in info.items()}
    except _DAMAGED as problem:
        raise InputError(f"the header of {path} is damaged ({problem!r}): copy it again") from None


def save_training_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write everything needed to go on training exactly where it stopped.

    Args:
        path: file to write, replaced atomically.
        state: any nest that `flatten_state` takes: optimizer state, averaged weights, generator states, step.
    """
    tensors, structure = flatten_state(state)
    _write(path, tensors, {"format": _TRAINING, "structure": structure})


def load_training_state(path: str | Path) -> dict[str, Any]:
    """Return what `save_training_state` wrote, tensors on the CPU.

    Raises:
        InputError: the file is missing, truncated, or not a training state.
    """
    tensors, header = _read(path, _TRAINING, "a training state of emloom")
    try:
        return dict(unflatten_state(tensors, header["structure"]))
    except _DAMAGED as problem:
        raise InputError(f"the header of {path} is damaged ({problem!r}): copy it again") from None


def flatten_state(nested: Any) -> tuple[dict[str, Tensor], str]:
    """Split a nest of dicts, lists, tuples, tensors and scalars into named tensors and JSON.

    Types are kept: integer keys stay integers, tuples tuples, and floats (infinities too) keep every bit.

    Raises:
        TypeError: something else is in the nest; it would need pickle.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, json.dumps(_pack(nested, tensors, "state"))


def unflatten_state(tensors: Mapping[str, Tensor], structure: str) -> Any:
    """Join what `flatten_state` split."""
    return _unpack(json.loads(structure), tensors)


def _pack(item: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(item, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = item
        return {"tensor": name}
    if isinstance(item, Mapping):
        pairs = [[_scalar(k, where), _pack(v, tensors, f"{where}[{k!r}]")] for k, v in item.items()]
        return {"dict": pairs}
    if isinstance(item, list | tuple):
        inside = [_pack(v, tensors, f"{where}[{i}]") for i, v in enumerate(item)]
        return {"tuple" if isinstance(item, tuple) else "list": inside}
    return _scalar(item, where)


def _scalar(item: Any, where: str) -> Any:
    # type(), not isinstance: a numpy float64 is a float too, but would come back as something else.
    if item is not None and type(item) not in (bool, int, float, str):
        raise TypeError(f"{where} is a {type(item).__name__}: only tensors and plain scalars can be saved")
    return item


def _unpack(item: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(item, dict):
        return item
    ((kind, inside),) = item.items()
    if kind == "tensor":
        return tensors[inside]
    if kind == "dict":
        return {key: _unpack(value, tensors) for key, value in inside}
    values = [_unpack(value, tensors) for value in inside]
    return tuple(values) if kind == "tuple" else values


def _write(path: str | Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"the folder of {target} does not exist: create it, or choose another path")
    # safetensors refuses tensors that share memory (tied weights, views): each is written out on its own.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    handle, part = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        save_file(own, part, metadata=header)
        _flush(part)
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    _flush(target.parent)


def _flush(path: str | Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: str | Path, kind: str, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file: give the path of {what} (*.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != kind:
                raise InputError(f"{path} is not {what}, but {header.get('format', 'of unknown origin')!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as problem:
        raise InputError(f"{path} is not {what}, or is truncated: {problem}") from None
