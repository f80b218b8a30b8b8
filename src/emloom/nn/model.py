"""A model: what was learned, by which network, from which intensities, at which voxel size.

`ModelSpec` travels inside every checkpoint; `build` makes the untrained module, `save` and `load` are inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.nn.autoencoders import AnyAutoencoderSpec, autoencoder
from emloom.nn.checkpoint import load_checkpoint, save_checkpoint
from emloom.nn.forest import Forest
from emloom.nn.forestspec import ForestSpec
from emloom.nn.heads import AutoContext, MultiHead
from emloom.nn.level_autoencoders import LevelAutoencoder, LevelSpec
from emloom.nn.networks import AnyBackboneSpec, LearnerSpec
from emloom.nn.objectives.artifacts import ARTIFACTS, ArtifactsObjective
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.nn.objectives.semantic import CLASSES, SemanticObjective
from emloom.nn.patchnet import PatchNet, PatchNetSpec
from emloom.nn.preprocess import Preprocessing
from emloom.nn.reconstruct import Reconstructor
from emloom.nn.resunet import ResUNetSpec
from emloom.nn.unet import UNetSpec
from emloom.nn.voxelnets import VoxelNet, VoxelNetSpec
from emloom.spec import Spec

Network = MultiHead | AutoContext | Reconstructor | PatchNet | VoxelNet | Forest


def _neurons_unless_named(data: Any) -> Any:
    return {"kind": "neurons", **data} if isinstance(data, dict) else data


ObjectiveSpec = Annotated[
    Annotated[
        NeuronsObjective
        | ReconstructionObjective
        | SemanticObjective
        | ArtifactsObjective
        | CleftsObjective
        | PartnersObjective,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_neurons_unless_named),
]
"""What a model learned, told apart by `kind`."""


_LEARNERS = {
    "neurons": (AnyBackboneSpec, "a backbone: unet or resunet"),
    "reconstruction": (
        AnyAutoencoderSpec | AnyBackboneSpec | VoxelNetSpec,
        "an autoencoder, e.g. unet_autoencoder, a backbone, unet or res_unet, or a centre-voxel net, voxel_net",
    ),
    "semantic": (
        AnyBackboneSpec | LevelSpec | VoxelNetSpec | ForestSpec,
        "a backbone, unet or res_unet, a centre-voxel network, voxel_net, or a net of levels: fcn_, atrous_ or "
        "unet_autoencoder",
    ),
    "artifacts": (PatchNetSpec, "a classifier of patches: patch_net"),
    "clefts": (AnyBackboneSpec, "a backbone: unet or res_unet"),
    "partners": (AnyBackboneSpec, "a backbone: unet or res_unet"),
}  # which networks an objective can learn with, by its kind, and the same in words


class ModelSpec(Spec):
    """Everything but the weights."""

    objective: ObjectiveSpec = NeuronsObjective()
    network: LearnerSpec = UNetSpec()
    preprocessing: Preprocessing = Preprocessing()
    voxel_size_nm: Vec3
    """Voxel size (z, y, x) the model was made for; prediction refuses any other."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        learners, needed = _LEARNERS[self.objective.kind]
        if not isinstance(self.network, learners):
            raise ValueError(
                f"the objective {self.objective.kind!r} cannot learn with the network {self.network.kind!r}: "
                f"give it {needed}"
            )
        if self.objective.kind == "reconstruction":
            _require_one_level(self.network)
        return self


def _require_one_level(network: Spec) -> None:
    if isinstance(network, ResUNetSpec) and network.supervision:
        raise ValueError(
            "the objective 'reconstruction' compares at full resolution only, and the network answers at "
            f"{network.supervision} coarser levels, too: set its supervision to 0"
        )


def build(spec: ModelSpec) -> Network:
    """Return the untrained network of a model."""
    objective, network = spec.objective, spec.network
    if isinstance(objective, SemanticObjective):
        return _classifier(spec, objective)
    if isinstance(network, PatchNetSpec):
        return PatchNet(network, ARTIFACTS, objective.heads[ARTIFACTS])
    if isinstance(network, AnyAutoencoderSpec):
        return Reconstructor(autoencoder(network))
    if isinstance(network, VoxelNetSpec):
        return VoxelNet(network, objective.heads)
    assert isinstance(network, AnyBackboneSpec)  # of a valid spec
    if not isinstance(objective, NeuronsObjective):
        return MultiHead(network, objective.heads)
    heads = objective.heads
    if objective.variant in ("mtlsd", "affinities"):
        return MultiHead(network, heads)
    with_raw = objective.variant == "acrlsd"
    first = MultiHead(network, {"lsds": heads["lsds"]})
    second = MultiHead(network, {"affinities": heads["affinities"]}, in_channels=heads["lsds"] + with_raw)
    return AutoContext(first, second, include_raw=with_raw)


def _classifier(spec: ModelSpec, objective: SemanticObjective) -> Network:
    network, count = spec.network, objective.heads[CLASSES]
    if isinstance(network, AnyBackboneSpec):
        return MultiHead(network, objective.heads)
    if isinstance(network, VoxelNetSpec):
        return VoxelNet(network, objective.heads)
    if isinstance(network, ForestSpec):
        return Forest(network, CLASSES, count, spec.voxel_size_nm)
    assert isinstance(network, LevelSpec)  # of a valid spec
    return Reconstructor(LevelAutoencoder(network, count), CLASSES, count)


def save(path: Path, spec: ModelSpec, state: Mapping[str, Tensor], info: Mapping[str, str]) -> None:
    """Write weights and spec into one safetensors file, atomically.

    The prefix that parallel wrappers put before every name, ``module.``, is left out.
    """
    wrapped = all(name.startswith("module.") for name in state)
    bare = {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in state.items()}
    save_checkpoint(path, bare, spec, dict(info))


def load(path: Path) -> tuple[ModelSpec, Network, dict[str, str]]:
    """Return (spec, network with its weights, info) of a checkpoint.

    Raises:
        InputError: the file is no emloom checkpoint, is damaged, or its weights do not fit its own spec.
    """
    state, text, info = load_checkpoint(path)
    spec = ModelSpec.from_yaml(text, f"the spec inside {path}")
    network = build(spec)
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        raise InputError(f"the weights of {path} do not fit the network it describes: {problem}") from None
    return spec, network, info
