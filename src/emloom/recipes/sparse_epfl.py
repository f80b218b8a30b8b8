"""Six classes from nine painted slices: EPFL's hippocampus, by every way to learn that the package has.

What a biologist has is nine slices, three in each orientation, of which an eighth of the pixels is marked
"undefined". They are cut here from the 20 sections in which everything is painted, so that a dense block of the
same tissue, which no training ever sees, says how good the result is::

    x  0              576   640          1024
       ┌───────────────┬─────┬────────────┐ y 0
       │               │     │ validation │
       │  nine slices  │ gap ├────────────┤ 256     gap: 64 voxels, 320 nm, everywhere
       │               │     ├────────────┤ 320
       │               │     │    test    │
       └───────────────┴─────┴────────────┘ 768

At 5 nm neighbouring sections show nearly the same tissue, so the split is within the plane, through all sections.

**Classes** are made from the masks of the set by priority, synapse before vesicle, mitochondrial membrane,
mitochondrion, membrane; what is nothing of these is cytoplasm. Pixels at the border of two classes are undefined,
as people leave them. A synapse is a postsynaptic density.

The raw is from EPFL's hippocampus set (cite Lucchi et al. 2013, doi:10.1109/CVPR.2013.253); the masks are those of
GraphLabEMproj (MIT). The images come without an explicit licence: publish nothing that shows them, and no weights.
Figures: docs/study-sparse.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.forestspec import AnyFeatures, ForestSpec, MultiScaleSpec, Original8Spec
from emloom.nn.forestspec import IntensitySpec as IntensityFeatureSpec
from emloom.nn.networks import NetworkSpec
from emloom.nn.objectives.reconstruction import Corruption, HiddenBlocks, HiddenCentre, ReconstructionObjective
from emloom.nn.objectives.semantic import SemanticObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.strategies import Balanced
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.transfer import StartSpec
from emloom.nn.unet import UNetSpec
from emloom.nn.voxel_autoencoder import VoxelAutoencoderSpec
from emloom.nn.voxelnets import VoxelNetSpec
from emloom.recipes.painting import LABELS, Loss, Slice, learned, write_box, write_pieces
from emloom.recipes.paths import data_file
from emloom.tasks.classspec import BootstrapSpec, NearSpec
from emloom.tasks.combinemasks import combine_masks
from emloom.tasks.combinespec import CombineJob, MaskSpec, RestSpec
from emloom.tasks.data import BoxSpec, HeldPieces, RawStackSpec, StackSpec
from emloom.tasks.forestjob import ForestJob
from emloom.tasks.reconstructionjob import ReconstructionJob
from emloom.tasks.semantic import SemanticJob, SemanticScoring

CLASSES = ("cytoplasm", "membrane", "mitochondrion", "mitochondrial_membrane", "synapse", "vesicle")
"""In the order of the channels; painted as 1 to 6, undefined as 0."""

Net = Literal["4_conv", "4_conv_odd", "4_conv_ln", "dilated", "dilated_16", "res_valid", "4_conv_resnet", "unet"]
Pretext = Literal["centre", "masked_vae", "masked_blocks"]

CHECKPOINT = "train/model.safetensors"
"""Where a job keeps what it learned, in its folder."""

_MASKS = {
    "synapse": "PSD",
    "vesicle": "vesicles",
    "mitochondrial_membrane": "mitochondrial_boundaries",
    "mitochondrion": "mitochondrion",
    "membrane": "membranes",
}  # in order of priority
_VALIDATION = {
    "validation_3": Box((3, 0, 640), (1, 128, 384)),
    "validation_16": Box((16, 128, 640), (1, 128, 384)),
}
_TEST = {"test": Box((9, 320, 640), (2, 448, 384))}
TUNED_ON = Box((3, 0, 640), (2, 128, 384))
"""Where parameters of a CRF may be chosen: around a validation slice, as thick as the test block."""
PENALTIES = {
    "mitochondrion|cytoplasm": 5.0,
    "mitochondrion|membrane": 5.0,
    "mitochondrion|vesicle": 5.0,
    "mitochondrion|synapse": 5.0,
}
"""What neighbours pay: the inside of a mitochondrion touches its own membrane only; other pairs pay 1."""
_GAP_NM = 240.0  # and half a window of 16 voxels: 320 nm
_AUGMENT = AugmentSpec(intensity=IntensitySpec(contrast=(0.9, 1.1), brightness=(-0.05, 0.05), gamma=(0.9, 1.1)))
_PRETEXTS: dict[Pretext, Corruption] = {
    "centre": HiddenCentre(pad_vox=1),
    "masked_vae": HiddenCentre(centre_vox=8, counts="all", dropout=0.0),
    "masked_blocks": HiddenBlocks(fraction=0.6, block_vox=(8, 8, 8)),
}
_SIGMAS_NM = (3.5, 5.0, 8.0, 17.5)  # what reaches further sees more than the 20 sections
_GREY = Preprocessing(low=78.0, high=197.0)  # the first and the last percentile

NETWORKS: dict[Net, NetworkSpec] = {
    "4_conv": VoxelNetSpec(backbone="4_conv@32"),
    "4_conv_odd": VoxelNetSpec(backbone="4_conv@32", odd=True),
    "4_conv_ln": VoxelNetSpec(backbone="4_conv_ln@32"),
    "dilated": VoxelNetSpec(backbone="dilated@32"),
    "dilated_16": VoxelNetSpec(backbone="dilated_16@16"),
    "res_valid": VoxelNetSpec(backbone="res_valid"),
    "4_conv_resnet": VoxelNetSpec(backbone="4_conv_resnet@32"),
    "unet": UNetSpec.lean(),
}
"""What can learn, by name; `4_conv_resnet` pads, so that it trains on single patches and is slow to ask."""


SLICES = (
    Slice("z", 3, Box((3, 512, 288), (1, 256, 256))),
    Slice("z", 10, Box((10, 320, 288), (1, 256, 256))),
    Slice("z", 16, Box((16, 0, 288), (1, 256, 256))),
    Slice("y", 30, Box((0, 30, 288), (20, 1, 256))),
    Slice("y", 430, Box((0, 430, 288), (20, 1, 256))),
    Slice("y", 690, Box((0, 690, 288), (20, 1, 256))),
    Slice("x", 30, Box((0, 512, 30), (20, 256, 1))),
    Slice("x", 400, Box((0, 0, 400), (20, 256, 1))),
    Slice("x", 540, Box((0, 384, 540), (20, 256, 1))),
)
"""Where somebody painted; three through sections, three along y and three along x."""


def quick(
    net: Net = "4_conv",
    loss: Loss = "ce",
    seed: int = 0,
    folder: str = "sparse_epfl",
    data: str | None = None,
    steps: int = 300,
) -> SemanticJob:
    """Return the variant for processors: four crops of 16 x 16 voxels a step, two minutes on a core.

    Args:
        net: one of `NETWORKS`.
        loss: one of `painting.LOSSES`.
        seed: of weights and crops.
        folder: where the slices are prepared, and found again.
        data: the folder of the data sets.
        steps: weight updates.
    """
    return _job("quick", net, loss, stack(folder, data), _training(net, steps, (4, 16), seed))


def full(
    net: Net = "4_conv",
    loss: Loss = "ce",
    seed: int = 0,
    folder: str = "sparse_epfl",
    data: str | None = None,
    steps: int = 3000,
) -> SemanticJob:
    """Return the variant for a GPU: 16 crops of 32 x 32 voxels a step; see `quick`."""
    return _job("full", net, loss, stack(folder, data), _training(net, steps, (16, 32), seed))


def objective(loss: Loss = "ce") -> SemanticObjective:
    """Return what is learned: the six classes."""
    return learned(CLASSES, loss)


def scoring() -> SemanticScoring:
    """Return what is scored; near an interface is within four voxels of another class."""
    return SemanticScoring(
        metrics=("confusion", "f1", "kappa", "ap", "band", "calibration"),
        near=NearSpec(distance_nm=20.0),
        bootstrap=BootstrapSpec(block_vox=(4, 112, 96), resamples=500),
    )


def stack(folder: str, data: str | None = None) -> StackSpec:
    """Return the raw, its nine slices and what is held out; they are prepared where they are not yet.

    Raises:
        InputError: the data are not found.
    """
    file = data_file("epfl_hippocampus/train_z000-019.h5", data)
    where = Path(folder).absolute() / "labels"
    labels = where / LABELS
    if not labels.exists():
        prepare(file, where)
    held = HeldPieces(validation=tuple(_VALIDATION), test=tuple(_TEST))
    return StackSpec(raw=f"{file}/volumes/raw", labels=str(labels), pieces=held, gap_nm=_GAP_NM)


def prepare(file: Path, where: Path) -> None:
    """Write the classes, the nine slices as images, the held-out blocks, and `labels.yaml`, which names them."""
    classes = where / "classes.zarr"
    if not classes.exists():
        combine_masks(combining(file, classes))
    write_pieces(open_volume(classes / "classes"), SLICES, _VALIDATION | _TEST, where)


def write_truth(labels: Path, target: Path, box: Box) -> str:
    """Write the classes of a box as `scoring` reads them, 0 to 5 and 255; return the path of the volume.

    Args:
        labels: folder that `prepare` filled.
        target: volume to be made.
        box: voxels of the raw.
    """
    volume = open_volume(labels / "classes.zarr" / "classes")
    write_box(target, volume.info, box, objective().of_labels(volume.read(box)))
    return str(target)


def combining(file: Path, output: Path) -> CombineJob:
    """Return how the masks of the set become six classes, with an undefined pixel on either side of a border."""
    number = {name: i for i, name in enumerate(CLASSES, start=1)}
    masks = [
        MaskSpec(name=name, mask=f"{file}/volumes/labels/{mask}", id=number[name]) for name, mask in _MASKS.items()
    ]
    return CombineJob(classes=tuple(masks), rest=RestSpec(name="cytoplasm", id=1), output=str(output))


def forest(
    features: AnyFeatures | None = None, seed: int = 0, folder: str = "sparse_epfl", data: str | None = None
) -> ForestJob:
    """Return a random forest that learns from the same slices.

    Args:
        features: what it looks at; default: many scales, in three dimensions.
        seed: of the trees.
        folder: where the slices are prepared, and found again.
        data: the folder of the data sets.
    """
    grown = ForestSpec(features=features or MultiScaleSpec(sigmas_nm=_SIGMAS_NM), seed=seed)
    return ForestJob(
        name=f"sparse forest {grown.features.kind} seed {seed}",
        data=(stack(folder, data),),
        objective=objective(),
        forest=grown,
        preprocessing=_GREY,
        scoring=scoring(),
    )


def features(kind: str) -> AnyFeatures:
    """Return features of a forest by kind: `multiscale`, `original_8` or `intensity`."""
    known: dict[str, AnyFeatures] = {
        "multiscale": MultiScaleSpec(sigmas_nm=_SIGMAS_NM),
        "original_8": Original8Spec(),
        "intensity": IntensityFeatureSpec(),
    }
    return known[kind]


def pretraining(
    pretext: Pretext,
    net: Net = "4_conv",
    seed: int = 0,
    data: str | None = None,
    steps: int = 300,
    crops: int = 4,
) -> ReconstructionJob:
    """Return the job that lets a network learn from the raw alone, of the training region only.

    Args:
        pretext: what it is asked: the grey value of hidden `centre` voxels, to give back windows whose centre is
            hidden (`masked_vae`, for `dilated_16`: the block is too thin for larger windows), or crops of which
            blocks are (`masked_blocks`).
        net: the network of `NETWORKS` that shall learn afterwards.
        seed: of weights and crops.
        data: the folder of the data sets.
        steps: weight updates.
        crops: of one, as of `quick` and `full`; of `centre` eight times as many windows.
    """
    file = data_file("epfl_hippocampus/train_z000-019.h5", data)
    asked, network, shape = _PRETEXTS[pretext], NETWORKS[net], (1, 1, 1)
    if pretext == "masked_vae":
        assert isinstance(network, VoxelNetSpec)
        encoder = VoxelAutoencoderSpec(encoder=network, patch_vox=16, maps=(256, 128, 32, 16))
        network, shape = encoder, (16, 16, 16)
    elif pretext == "masked_blocks":
        shape = (16, 64, 64)
    return ReconstructionJob(
        name=f"sparse pretraining {pretext} {net} seed {seed}",
        data=(
            RawStackSpec(
                raw=f"{file}/volumes/raw",
                region=BoxSpec(start=(0, 0, 0), shape=(20, 768, 560)),
                validation=(BoxSpec(start=(0, 0, 640), shape=(20, 64, 64)),),
                test=(BoxSpec(start=(0, 320, 640), shape=(20, 64, 64)),),
                gap_nm=_GAP_NM,
            ),
        ),
        objective=ReconstructionObjective(corruption=asked),
        network=network,
        preprocessing=_GREY,
        training=TrainingSpec(
            steps=steps,
            crop_shape_vox=shape,
            batch_size=8 * crops if shape == (1, 1, 1) else max(1, crops // 4),
            optimizer=OptimizerSpec(learning_rate=1e-3),
            validate_every=max(1, steps // 2),
            seed=seed,
            augment=_AUGMENT,
            precision="32-true",
        ),
    )


def after(job: SemanticJob, checkpoint: Path) -> SemanticJob:
    """Return the job that starts from the backbone of a pretrained checkpoint."""
    backbone = "unet" if isinstance(job.network, UNetSpec) else "backbone"
    start = StartSpec(model=str(checkpoint), only=(backbone,))
    return job.model_copy(update={"training": job.training.model_copy(update={"start": start})})


def _job(variant: str, net: Net, loss: Loss, stack: StackSpec, training: TrainingSpec) -> SemanticJob:
    return SemanticJob(
        name=f"sparse {variant} {net} {loss} seed {training.seed}",
        data=(stack,),
        objective=objective(loss),
        network=NETWORKS[net],
        preprocessing=_GREY,
        training=training,
        scoring=scoring(),
    )


def _training(net: Net, steps: int, crops: tuple[int, int], seed: int) -> TrainingSpec:
    """Return how a net is trained: on crops of planes; the one that pads on patches, the U-Net on blocks."""
    number, side = crops
    batch, shape = number, (1, side, side)
    if net == "4_conv_resnet":
        batch, shape = 8 * number, (1, 1, 1)
    elif net == "unet":
        batch, shape = number // 4, (16, 64, 64)
    return TrainingSpec(
        steps=steps,
        crop_shape_vox=shape,
        batch_size=batch,
        optimizer=OptimizerSpec(learning_rate=2e-3),
        validate_every=max(1, steps // 3),
        seed=seed,
        sampling=Balanced(min_known=0.0, place="centre"),
        augment=_AUGMENT,
        precision="32-true",
    )
