"""Five classes from nine painted planes of serial sections: the fly's nerve cord, where a pixel is 4.6 nm wide.

Sections are 47.5 nm thick, ten times as much: along y or x there is nothing to paint, and of the pixels of a
membrane only two fifths are membrane in the next section, where a sixth of all pixels are. So planes of 256 x 256
pixels are painted in sections 0 to 8, one in each, and networks look at single sections (`planar`); only the U-Net
looks across. Scored are sections that nothing trains on, on the other side of the stack::

    x  0              512   576          1024
       ┌───────────────┬─────┬─────────────┐ y 0       sections 0 to 8    painted
       │  validation   │     │             │           section  9         gap
       ├───────────────┤ gap │ nine planes │ 384       section  10        validation
       │      gap      │     │             │           section  11        gap
       ├───────────────┤     │             │ 640       sections 12 to 14  test
       │     test      │     │             │
       └───────────────┴─────┴─────────────┘ 1024

**Classes** are the values of the set. Membranes are drawn in four directions (0, 32, 64, 96), and where more than
two cells meet, as a *junction* (128): all of these are membrane, for a junction is nothing else, though its blobs
are drawn generously. Glia and extracellular space are one value (159). The pixels on either side of a border are
undefined, as people leave them. Synapses are rare: four in the test block.

The set is CC BY-NC-SA 3.0 (cite Gerhard et al. 2013, doi:10.6084/m9.figshare.856713): what is made of it is not
for commerce, and no weights that learned from it may be published.
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
from emloom.nn.objectives.semantic import SemanticObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.strategies import Balanced
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.nn.voxelnets import VoxelNetSpec
from emloom.recipes.painting import LABELS, Loss, Slice, learned, write_pieces
from emloom.recipes.paths import data_file
from emloom.tasks.classspec import BootstrapSpec, NearSpec
from emloom.tasks.combinemasks import combine_masks
from emloom.tasks.combinespec import CombineJob, MaskSpec
from emloom.tasks.data import BoxSpec, HeldPieces, StackSpec
from emloom.tasks.forestjob import ForestJob
from emloom.tasks.semantic import SemanticJob, SemanticScoring

VALUES = {
    "intracellular": (255,),
    "membrane": (0, 32, 64, 96, 128),
    "glia_or_extracellular": (159,),
    "mitochondrion": (191,),
    "synapse": (223,),
}
"""Values of the set that are a class."""

CLASSES = tuple(VALUES)
"""In the order of the channels; painted as 1 to 5, undefined as 0."""

Net = Literal["4_conv", "4_conv_ln", "dilated", "unet"]

_FILE = "vnc_sstem/stack1_z00-14.h5"
_TRAINING = BoxSpec(start=(0, 0, 576), shape=(9, 1024, 448))
_VALIDATION = {"validation": Box((10, 0, 0), (1, 384, 512))}
_TEST = {"test": Box((12, 640, 0), (3, 384, 512))}
_GAP_NM = 47.5  # a section
_AUGMENT = AugmentSpec(
    intensity=IntensitySpec(contrast=(0.9, 1.1), brightness=(-0.05, 0.05), gamma=(0.9, 1.1), section_jitter=0.05)
)
_GREY = Preprocessing(low=13.0, high=216.0)  # the first and the last percentile

NETWORKS: dict[Net, NetworkSpec] = {
    "4_conv": VoxelNetSpec(backbone="4_conv@32", planar=True),
    "4_conv_ln": VoxelNetSpec(backbone="4_conv_ln@32", planar=True),
    "dilated": VoxelNetSpec(backbone="dilated@32", planar=True),
    "unet": UNetSpec.lean(isotropic=False),
}
"""What can learn, by name; the U-Net alone sees other sections."""


def _plane(z: int, y: int, x: int) -> Slice:
    return Slice("z", z, Box((z, y, x), (1, 256, 256)))


SLICES = (
    _plane(0, 0, 768),
    _plane(1, 256, 768),
    _plane(2, 512, 768),
    _plane(3, 768, 768),
    _plane(4, 0, 576),
    _plane(5, 256, 576),
    _plane(6, 512, 576),
    _plane(7, 0, 704),
    _plane(8, 768, 576),
)
"""Where somebody painted."""


def quick(
    net: Net = "4_conv",
    loss: Loss = "ce",
    seed: int = 0,
    folder: str = "sparse_vnc",
    data: str | None = None,
    steps: int = 300,
) -> SemanticJob:
    """Return the variant for processors: four crops of 32 x 32 pixels a step, a minute or two on a core.

    Args:
        net: one of `NETWORKS`.
        loss: one of `painting.LOSSES`.
        seed: of weights and crops.
        folder: where the planes are prepared, and found again.
        data: the folder of the data sets.
        steps: weight updates.
    """
    return _job("quick", net, loss, stack(folder, data), _training(net, steps, (4, 32), seed))


def full(
    net: Net = "4_conv",
    loss: Loss = "ce",
    seed: int = 0,
    folder: str = "sparse_vnc",
    data: str | None = None,
    steps: int = 3000,
) -> SemanticJob:
    """Return the variant for a GPU: 16 crops of 64 x 64 pixels a step; see `quick`."""
    return _job("full", net, loss, stack(folder, data), _training(net, steps, (16, 64), seed))


def objective(loss: Loss = "ce") -> SemanticObjective:
    """Return what is learned: the five classes."""
    return learned(CLASSES, loss)


def scoring() -> SemanticScoring:
    """Return what is scored; near an interface is within four pixels of another class.

    Resampled are columns through all sections of the test block, for neighbouring sections show the same cells.
    """
    return SemanticScoring(
        metrics=("confusion", "f1", "kappa", "ap", "band", "calibration"),
        near=NearSpec(distance_nm=20.0),
        bootstrap=BootstrapSpec(block_vox=(3, 96, 128), resamples=500),
    )


def stack(folder: str, data: str | None = None) -> StackSpec:
    """Return the raw, its nine planes and what is held out; they are prepared where they are not yet.

    Raises:
        InputError: the data are not found.
    """
    file = data_file(_FILE, data)
    where = Path(folder).absolute() / "labels"
    labels = where / LABELS
    if not labels.exists():
        prepare(file, where)
    held = HeldPieces(validation=tuple(_VALIDATION), test=tuple(_TEST))
    return StackSpec(raw=f"{file}/volumes/raw", labels=str(labels), pieces=held, region=_TRAINING, gap_nm=_GAP_NM)


def prepare(file: Path, where: Path) -> None:
    """Write the classes, the nine planes as images, the held-out blocks, and `labels.yaml`, which names them."""
    classes = where / "classes.zarr"
    if not classes.exists():
        combine_masks(combining(file, classes))
    write_pieces(open_volume(classes / "classes"), SLICES, _VALIDATION | _TEST, where)


def combining(file: Path, output: Path) -> CombineJob:
    """Return how the values of the set become classes, with an undefined pixel on either side of a border."""
    source = f"{file}/volumes/labels/classes"
    masks = tuple(MaskSpec(name=name, mask=source, values=values) for name, values in VALUES.items())
    return CombineJob(classes=masks, output=str(output))


def forest(
    features: AnyFeatures | None = None, seed: int = 0, folder: str = "sparse_vnc", data: str | None = None
) -> ForestJob:
    """Return a random forest that learns from the same planes.

    Args:
        features: what it looks at; default: many scales, within sections.
        seed: of the trees.
        folder: where the planes are prepared, and found again.
        data: the folder of the data sets.
    """
    grown = ForestSpec(features=features or MultiScaleSpec(dimensions=2), seed=seed)
    return ForestJob(
        name=f"sparse vnc forest {grown.features.kind} seed {seed}",
        data=(stack(folder, data),),
        objective=objective(),
        forest=grown,
        preprocessing=_GREY,
        scoring=scoring(),
    )


def features(kind: str) -> AnyFeatures:
    """Return features of a forest by kind: `multiscale` (within sections), `original_8` or `intensity`."""
    known: dict[str, AnyFeatures] = {
        "multiscale": MultiScaleSpec(dimensions=2),
        "original_8": Original8Spec(),
        "intensity": IntensityFeatureSpec(),
    }
    return known[kind]


def _job(variant: str, net: Net, loss: Loss, stack: StackSpec, training: TrainingSpec) -> SemanticJob:
    return SemanticJob(
        name=f"sparse vnc {variant} {net} {loss} seed {training.seed}",
        data=(stack,),
        objective=objective(loss),
        network=NETWORKS[net],
        preprocessing=_GREY,
        training=training,
        scoring=scoring(),
    )


def _training(net: Net, steps: int, crops: tuple[int, int], seed: int) -> TrainingSpec:
    """Return how a net is trained, on crops of single sections; the U-Net on blocks of eight."""
    number, side = crops
    batch, shape = number, (1, side, side)
    if net == "unet":
        batch, shape = number // 4, (8, 2 * side, 2 * side)
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
