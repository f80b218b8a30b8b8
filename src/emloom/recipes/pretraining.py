"""Does it help to learn from raw first? The same labelled training with and without pretraining: EPFL hippocampus.

Every *arm* is one training on few labels, from weights that were drawn, or from a backbone that first learned from
raw alone:

==============  ========  ==============================================================================
scheme          of        what the backbone learned before
==============  ========  ==============================================================================
``none``        both      nothing
``longer``      both      nothing, but it learns from labels for as many steps as both trainings of others
``centre``      voxel     the grey value of the middle of a window whose 3 x 3 x 3 middle is hidden
``vae``         voxel     a window of 16^3 voxels through numbers that are drawn, Kingma & Welling 2014
``masked_vae``  voxel     the same, of a window whose middle is hidden
``blocks``      unet      blocks that are hidden, half of a crop, He et al. 2022
==============  ========  ==============================================================================

What is compared is the same but for the weights at the start: split, labels, crops, their order, steps, learning
rate. The head is always drawn. Pretraining sees the raw of the training region only, never that of validation or
test boxes nor what is nearer to them than the gap (split of `emloom.recipes.labelled_fractions`); labels are known
in `percent` of its squares. Its computing is extra: `multiply_adds` says how much, and ``longer`` spends as many
steps on labels.

`studies/pretraining.py` runs all of it, and sums up.

The raw is from EPFL's hippocampus set (cite Lucchi et al. 2013, doi:10.1109/CVPR.2013.253). Its images come
without an explicit licence: publish nothing that shows them. It has 20 sections: no window of 32 voxels fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from emloom.errors import InputError
from emloom.metrics.replicates import Replicated, replicated
from emloom.nn.cost import multiply_adds as counted
from emloom.nn.level_autoencoders import UNetAutoencoderSpec
from emloom.nn.model import build
from emloom.nn.networks import NetworkSpec
from emloom.nn.objectives.reconstruction import (
    Corruption,
    DivergenceSpec,
    HiddenBlocks,
    HiddenCentre,
    ReconstructionObjective,
)
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.nn.strategies import Balanced, Uniform
from emloom.nn.train import OptimizerSpec, TrainingSpec, crop_shape
from emloom.nn.transfer import StartSpec
from emloom.nn.voxel_autoencoder import VoxelAutoencoderSpec
from emloom.nn.voxelcost import cost_of
from emloom.nn.voxelnets import VoxelNetSpec
from emloom.recipes import labelled_fractions
from emloom.tasks.data import BoxSpec, RawStackSpec, StackSpec
from emloom.tasks.reconstructionjob import ReconstructionJob
from emloom.tasks.semantic import SemanticJob

Net = Literal["voxel", "unet"]
Scheme = Literal["none", "longer", "centre", "vae", "masked_vae", "blocks"]
SCHEMES: dict[Net, tuple[Scheme, ...]] = {
    "voxel": ("none", "longer", "centre", "vae", "masked_vae"),
    "unet": ("none", "longer", "blocks"),
}
"""What each net can be compared with."""

_BACKBONES: dict[Net, str] = {"voxel": "backbone", "unet": r"net\.(left|lift|right)"}
_VOXEL = VoxelNetSpec(backbone="dilated_16@16")
_CLASSES = ("background", "membrane", "mitochondrion")
_CORRUPTIONS: dict[Scheme, Corruption] = {
    "centre": HiddenCentre(pad_vox=1),
    "masked_vae": HiddenCentre(centre_vox=4, dropout=0.0, counts="all"),
    "blocks": HiddenBlocks(fraction=0.5, block_vox=(1, 8, 8)),
}
_VOXEL_NM = (5.0, 5.0, 5.0)
# A window is one sample, so few voxels are validated, here and there: 12 squares of 49.
_FEW = tuple(BoxSpec(start=(z, y, x), shape=(1, 7, 7)) for z in (3, 10, 16) for y in (48, 176) for x in (720, 912))


@dataclass(frozen=True)
class Where:
    """What arms share.

    Attributes:
        folder: where labels are prepared, and jobs find the weights of others, below ``jobs``.
        data: the folder of the data sets; None: `EMLOOM_DATA`.
        percent: share of the training region whose labels are known, one of `labelled_fractions.PERCENTS`.
        labels: path of a volume of classes on the grid of the raw, 1 for the first of `classes`, 2 for the second,
            0 for unknown; None: background, membranes and mitochondria, which are prepared.
        classes: names of the classes.
    """

    folder: Path
    data: str | None = None
    percent: int = 5
    labels: str | None = None
    classes: tuple[str, ...] = _CLASSES


@dataclass(frozen=True)
class Arm:
    """One way to come to a classifier.

    Attributes:
        name: of its folder below ``jobs``; that of the pretraining ends in ``_raw``.
        pretraining: run first, until ``train``; None: there is none.
        training: run then.
    """

    name: str
    pretraining: ReconstructionJob | None
    training: SemanticJob


def quick(net: Net, scheme: Scheme, seed: int, where: Where, steps: int = 600) -> Arm:
    """Return an arm for processors, trained in some minutes on one core.

    Args:
        net: `voxel` is dilated_16@16, 106,176 parameters; `unet` the U-Net of 109,000 of `labelled_fractions`.
        scheme: one of `SCHEMES` of the net.
        seed: of labels, weights and crops.
        where: what arms share.
        steps: of each training.

    Raises:
        InputError: the net cannot be pretrained so, or the data are not found.
    """
    size = _Size(
        autoencoder=VoxelAutoencoderSpec(encoder=_VOXEL, patch_vox=16, n_latent=128, maps=(64, 32, 16, 8)),
        unet=UNetAutoencoderSpec.of(width=4),
        crop=(1, 128, 128),
        windows=64,
    )
    return _arm(net, scheme, seed, where, size, steps)


def full(net: Net, scheme: Scheme, seed: int, where: Where, steps: int = 20_000) -> Arm:
    """Return an arm for a GPU; the voxel net is the same, the original's decoder is around it; see `quick`."""
    size = _Size(
        autoencoder=VoxelAutoencoderSpec(encoder=_VOXEL, patch_vox=16, maps=(256, 128, 32, 16)),
        unet=UNetAutoencoderSpec.of(width=16),
        crop=(1, 192, 192),
        windows=256,
        crops=16,
    )
    return _arm(net, scheme, seed, where, size, steps)


def multiply_adds(job: ReconstructionJob | SemanticJob) -> int:
    """Return the multiplications with weights of all forward passes of a training, without validation.

    Backward takes about twice as many.
    """
    model, training = job.model(_VOXEL_NM), job.training
    if isinstance(model.network, VoxelNetSpec):
        spec = model.network
        heads = sum(model.objective.heads.values())
        each = cost_of(spec.build_backbone(), 1, heads, spec.head_kernel).macs(training.crop_shape_vox)
    else:
        with torch.device("meta"):
            net = build(model)
            shown = torch.empty(2, 1, *crop_shape(net, training.crop_shape_vox).input)
        each = sum(counted(net, shown).values()) // 2
    return each * training.batch_size * training.steps


def differences(scores: Mapping[tuple[Scheme, int], float]) -> dict[Scheme, tuple[Replicated, Replicated]]:
    """Return the mean score of every scheme over seeds, and of what it gains over ``none`` with the same seed.

    Intervals are of 95 %, Student's t: they say how much trainings vary, on these data.

    Args:
        scores: by scheme and seed, of one net; schemes without a partner in ``none`` gain nothing that is known.

    Raises:
        InputError: a scheme that is compared has no seed in common with ``none``.
    """
    out: dict[Scheme, tuple[Replicated, Replicated]] = {}
    for scheme in dict.fromkeys(name for name, _ in scores):
        own = {seed: value for (name, seed), value in scores.items() if name == scheme}
        pairs = [value - scores["none", seed] for seed, value in own.items() if ("none", seed) in scores]
        if not pairs:
            raise InputError(
                f"no seed of {scheme!r} ({', '.join(map(str, own))}) was trained with 'none', too: run it, for "
                "differences are between trainings of the same seed"
            )
        out[scheme] = replicated(list(own.values())), replicated(pairs)
    return out


@dataclass(frozen=True)
class _Size:
    autoencoder: VoxelAutoencoderSpec
    unet: UNetAutoencoderSpec
    crop: tuple[int, int, int]
    windows: int
    crops: int = 1


def _arm(net: Net, scheme: Scheme, seed: int, where: Where, size: _Size, steps: int) -> Arm:
    if scheme not in SCHEMES[net]:
        raise InputError(
            f"{net!r} is not pretrained by {scheme!r}: choose one of {', '.join(SCHEMES[net])}, or another net"
        )
    name = f"{net}_{scheme}_{seed}"
    stack = _stack(net, seed, where)
    jobs = where.folder.absolute() / "jobs"
    start = None
    pretraining = _pretraining(net, scheme, stack, size, _training(net, seed, size, steps))
    if pretraining is not None:
        model = jobs / f"{name}_raw" / "train" / "model.safetensors"
        start = StartSpec(model=str(model), only=(_BACKBONES[net],))
    training = _training(net, seed, size, steps * (2 if scheme == "longer" else 1))
    sampling = (
        Balanced(classes=tuple(range(1, len(where.classes) + 1)), min_known=1.0)
        if net == "voxel"
        else labelled_fractions.around_known()
    )
    job = SemanticJob(
        name=name,
        data=(stack,),
        objective=SemanticObjective(
            classes=tuple(SemanticClass(name=each, ids=(n,)) for n, each in enumerate(where.classes, start=1))
        ),
        network=_network(net, size),
        preprocessing=labelled_fractions.GREY,
        training=training.model_copy(update={"sampling": sampling, "start": start}),
        scoring=labelled_fractions.SCORING,
    )
    return Arm(name, pretraining, job)


def _network(net: Net, size: _Size) -> NetworkSpec:
    return _VOXEL if net == "voxel" else size.unet


def _stack(net: Net, seed: int, where: Where) -> StackSpec:
    stack = labelled_fractions.stack(where.percent, seed, str(where.folder), where.data)
    more: dict[str, object] = {} if where.labels is None else {"labels": where.labels}
    if net == "voxel":
        more["validation"] = _FEW
    return stack.model_copy(update=more)


def _training(net: Net, seed: int, size: _Size, steps: int) -> TrainingSpec:
    voxel = net == "voxel"
    return TrainingSpec(
        steps=steps,
        crop_shape_vox=(1, 1, 1) if voxel else size.crop,
        batch_size=size.windows if voxel else size.crops,
        optimizer=OptimizerSpec(learning_rate=1e-3 if voxel else 3e-3),
        validate_every=max(1, steps // 4),
        seed=seed,
        sampling=Uniform(),
        augment=labelled_fractions.AUGMENT,
        precision="32-true",
    )


def _pretraining(
    net: Net, scheme: Scheme, stack: StackSpec, size: _Size, training: TrainingSpec
) -> ReconstructionJob | None:
    """Return what learns from the raw of a labelled stack: the same region, boxes and gap."""
    if scheme in ("none", "longer"):
        return None
    network, validation = _network(net, size), stack.validation
    if scheme in ("vae", "masked_vae"):
        network, side = size.autoencoder, size.autoencoder.patch_vox
        training = training.model_copy(update={"crop_shape_vox": (side, side, side)})
        validation = (BoxSpec(start=(0, 0, 640), shape=(side, 4 * side, 4 * side)),)
    return ReconstructionJob(
        name=f"{net} {scheme} {training.seed}",
        data=(
            RawStackSpec(
                raw=stack.raw,
                region=stack.region,
                validation=validation,
                test=stack.test,
                gap_nm=stack.gap_nm,
            ),
        ),
        objective=ReconstructionObjective(
            corruption=_CORRUPTIONS.get(scheme),
            divergence=DivergenceSpec(weight=0.01, warmup_steps=training.steps // 4),
        ),
        network=network,
        preprocessing=labelled_fractions.GREY,
        training=training,
    )
