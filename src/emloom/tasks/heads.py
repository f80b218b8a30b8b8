"""What a model's heads become on disk: which are stored, in which type, and what the volumes say about
themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import ArrayVolume, Kind, VolumeInfo
from emloom.nn.averaging import Averaging
from emloom.nn.channels import Affinities, Channels, Descriptors
from emloom.nn.coding import Codings, GreyValue, Shares, coding_of
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.objectives.semantic import CLASSES
from emloom.nn.orientations import orientations
from emloom.nn.reconstruct import RECONSTRUCTION


def codings(spec: ModelSpec, raw: VolumeInfo) -> Codings:
    """Return how answers about a raw volume are stored: reconstructions in its type, classes as shares, all
    else as probabilities."""
    if CLASSES in spec.objective.heads:
        return {CLASSES: Shares()}
    if RECONSTRUCTION not in spec.objective.heads:
        return {}
    return {RECONSTRUCTION: GreyValue(spec.preprocessing.low, spec.preprocessing.high, np.dtype(raw.dtype))}


def averaging(spec: ModelSpec, which: int) -> Averaging | None:
    """Return the average over a named set of orientations for the heads of a model; None for a single one.

    Raises:
        InputError: the model's answers are not averaged.
    """
    if which == 1:
        return None
    objective = spec.objective
    if isinstance(objective, CleftsObjective | PartnersObjective):
        return Averaging(orientations(which), objective.channels)
    if not isinstance(objective, NeuronsObjective):
        raise InputError(
            f"{which} orientations: answers of the objective {objective.kind!r} are not averaged, use 1"
        )
    known: dict[str, Channels] = {"affinities": Affinities(objective.neighborhood), "lsds": Descriptors()}
    return Averaging(orientations(which), known)


def stored_heads(spec: ModelSpec, keep_lsds: bool) -> tuple[str, ...]:
    """Return the heads of a model that are stored; descriptors only where they are wanted."""
    return tuple(name for name in spec.objective.heads if keep_lsds or name != "lsds")


def output_info(spec: ModelSpec, head: str, raw: VolumeInfo, box: Box) -> VolumeInfo:
    """Return what a predicted volume says about itself; a reconstruction is a raw volume like its own raw."""
    grid = raw.grid.crop(box)
    dtype = coding_of(codings(spec, raw), head).dtype
    if head == RECONSTRUCTION:
        return VolumeInfo(box.shape, dtype, grid, kind="raw")
    kind: Kind = "lsds" if head == "lsds" else "probabilities"
    more: dict[str, Any] = {}
    if head == "affinities" and isinstance(spec.objective, NeuronsObjective):
        kind, more = "affinities", {"neighborhood": spec.objective.neighborhood}
    return VolumeInfo(box.shape, dtype, grid, spec.objective.heads[head], kind=kind, **more)


def blank(info: VolumeInfo) -> ArrayVolume:
    """Return zeros in memory."""
    return ArrayVolume(np.zeros(info.array_shape, info.dtype), info.grid, info.kind, info.neighborhood)
