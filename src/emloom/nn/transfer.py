"""Weights to start from: an encoder that was trained for something else, frozen or free to learn on.

Weights are taken by name: those of the checkpoint whose name and shape fit; with `only`, those that are named, and
all of them. So a backbone that learned from raw alone is taken over whole, and the head stays new: ``"backbone"``
of a centre-voxel net, ``"unet"`` of a U-Net.

A first convolution may be given more input channels than it had (neighbouring sections beside the middle one): its
weights then are those of the middle channel, and 0 for the others, so that at first the answer is what it was.

*Frozen* weights do not learn. A norm without anything to learn stays in ``eval`` while the rest is in training, so
that its running statistics stay, too: in the original, they went on drifting while the weights stood still.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.model import ModelSpec
from emloom.spec import Spec

log = logging.getLogger(__name__)

_MOVED = {"net.encoder.": "encoder.", "net.backbone.": "backbone."}  # out of autoencoders


class StartSpec(Spec):
    """Where a training starts."""

    model: str | None = None
    """Checkpoint whose weights are taken over; default: weights are drawn."""
    prefixes: Mapping[str, str] = Field(default_factory=_MOVED.copy)
    """Beginnings of names in the checkpoint, and what they are called here; others stay as they are."""
    only: tuple[str, ...] = ()
    """Regular expressions; weights whose names here match one from the beginning on are taken, all of them and no
    others. Default: whatever fits."""
    frozen: tuple[str, ...] = ()
    """Regular expressions; weights whose names match one from the beginning on do not learn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, pattern in [("only", p) for p in self.only] + [("frozen", p) for p in self.frozen]:
            try:
                re.compile(pattern)
            except re.error as problem:
                raise ValueError(f"{name} {pattern!r} is no regular expression ({problem})") from None
        return self


def start_from(spec: StartSpec, network: nn.Module, model: ModelSpec | None = None) -> tuple[str, ...]:
    """Take weights over, and freeze; return the names of the weights that were taken.

    Args:
        spec: which.
        network: changed in place.
        model: what the network is of; where the weights learned from other grey values, or at another voxel size,
            that is logged as a warning. None: nothing is said.

    Raises:
        InputError: the checkpoint is damaged, none of its weights fits, one that `only` asks for does not, or a
            pattern matches no weight.
    """
    taken: tuple[str, ...] = ()
    if spec.model is not None:
        taken = _take_over(spec.model, spec, network)
        if model is not None:
            _warn_of_change(spec.model, model)
    for pattern in spec.frozen:
        matched = [weights for name, weights in network.named_parameters() if re.match(pattern, name)]
        if not matched:
            some = ", ".join(name for name, _ in list(network.named_parameters())[:4])
            raise InputError(f"frozen {pattern!r} matches no weight: names are {some}, ...")
        for weights in matched:
            weights.requires_grad_(False)
    return taken


def to_training(network: nn.Module) -> None:
    """Put a network in ``train``, and of its parts those that hold weights of which none learns in ``eval``."""
    network.train()
    for part in network.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(weights.requires_grad for weights in own):
            part.eval()


def _take_over(path: str, spec: StartSpec, network: nn.Module) -> tuple[str, ...]:
    state, _, _ = load_checkpoint(Path(path))
    own = network.state_dict()
    wanted = _wanted(spec.only, own)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        here = _renamed(name, spec.prefixes)
        if here in wanted:
            fitting = _fitted(tensor, own[here])
            if fitting is not None:
                found[here] = fitting
    if not any(name.endswith("weight") for name in found):
        raise InputError(
            f"none of the weights of {path} fits the network: its names are {', '.join(list(state)[:3])}, ... and "
            f"here {', '.join(list(own)[:3])}, ...; check `prefixes`, or name another model"
        )
    missing = [name for name in wanted if name not in found] if spec.only else []
    if missing:
        there = {_renamed(name, spec.prefixes): tuple(tensor.shape) for name, tensor in state.items()}
        raise InputError(
            f"{len(missing)} of the {len(wanted)} weights that `only` asks for are not in {path} or have another "
            f"shape there: {missing[0]} is {tuple(own[missing[0]].shape)} here and "
            f"{there.get(missing[0], 'missing')} there; train both with the same backbone, or ask for less"
        )
    network.load_state_dict(own | found)
    return tuple(sorted(found))


def _warn_of_change(path: str, here: ModelSpec) -> None:
    there = ModelSpec.from_yaml(load_checkpoint(Path(path))[1], f"the spec inside {path}")
    for name in ("preprocessing", "voxel_size_nm"):
        theirs, ours = getattr(there, name), getattr(here, name)
        if theirs != ours:
            log.warning(
                "the weights of %s learned with %s %s, and here it is %s: they may mean little here",
                *(path, name.replace("_", " "), theirs, ours),
            )


def _wanted(only: tuple[str, ...], own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of the weights that are to be taken."""
    for pattern in only:
        if not any(re.match(pattern, name) for name in own):
            raise InputError(f"only {pattern!r} matches no weight: names are {', '.join(list(own)[:4])}, ...")
    return tuple(name for name in own if not only or any(re.match(pattern, name) for pattern in only))


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _fitted(theirs: Tensor, ours: Tensor) -> Tensor | None:
    if theirs.shape == ours.shape:
        return theirs
    channels: Any = ours.shape[1] if ours.dim() > 1 else 0
    one_channel = theirs.dim() == ours.dim() > 1 and theirs.shape[1] == 1 and channels > 1
    if one_channel and (theirs.shape[0], *theirs.shape[2:]) == (ours.shape[0], *ours.shape[2:]):
        spread = torch.zeros_like(ours)
        spread[:, channels // 2] = theirs[:, 0]
        return spread
    return None
