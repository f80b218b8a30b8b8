"""Which spatial frequencies autoencoders keep: trained on one micrograph stack, tested on another.

Trained on 20 sections of fly nerve cord (ISBI 2012, 4 nm pixels), tested on rat hippocampus (EPFL, 5 nm): nothing
of the test was seen, nor anything like it. Pixels are taken as they are: a wavelength is counted in pixels, and
named in the nm of the test data. Nets see single sections.

`comparison` asks which of three architectures of equal size keeps what; `skips` how much a U-Net leans on its
skips. The `quick` variants take two cores and nets of 109,413 parameters, the others a GPU and 436,713.

ISBI 2012 is free for making and testing non-commercial segmentation software, and the images of EPFL carry no
licence: do not publish weights trained on them.
"""

from __future__ import annotations

from emloom.nn.augment import AugmentSpec
from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoderSpec,
    UNetAutoencoderSpec,
)
from emloom.nn.objectives.reconstruction import GaussianNoise, HiddenBlocks, ReconstructionObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.recipes.paths import data_file
from emloom.tasks.data import BoxSpec, RawStackSpec
from emloom.tasks.reconstructionjob import ForeignSpec, ReconstructionJob
from emloom.tasks.study import AblationSpec, ArmSpec, ReconstructionStudy

_SIZE = (1, 128, 128)
_QUICK_SIZE = (1, 96, 96)
_SHAPES: dict[str, type[LevelAutoencoderSpec]] = {
    "fcn": FCNAutoencoderSpec,
    "atrous": AtrousAutoencoderSpec,
    "unet": UNetAutoencoderSpec,
}


def reconstruct(data: str | None = None, seed: int = 0, steps: int = 20_000) -> ReconstructionJob:
    """Return the job for a GPU: a U-Net autoencoder of 436,713 parameters."""
    isbi = data_file("isbi2012_cardona/train_z00-19.h5", data)
    epfl = data_file("epfl_hippocampus/train_z000-019.h5", data)
    return ReconstructionJob(
        name="autoencoder",
        data=(
            RawStackSpec(raw=f"{isbi}/volumes/raw", validation=(BoxSpec(start=(16, 0, 0), shape=(4, 512, 512)),)),
        ),
        foreign=(ForeignSpec(name="epfl", raw=f"{epfl}/volumes/raw"),),
        network=UNetAutoencoderSpec.of(width=8),
        preprocessing=Preprocessing(low=89.25, high=165.75),  # (x / 255 - 0.5) / 0.15
        training=TrainingSpec(
            steps=steps,
            seed=seed,
            crop_shape_vox=_SIZE,
            batch_size=8,
            optimizer=OptimizerSpec(learning_rate=1e-3),
            validate_every=max(1, steps // 10),
            augment=AugmentSpec.none().model_copy(update={"flip": True, "transpose": True}),
            precision="32-true",
        ),
    )


def quick(data: str | None = None, seed: int = 0, steps: int = 2400) -> ReconstructionJob:
    """Return the variant for two cores: 109,413 parameters, some minutes."""
    job = reconstruct(data, seed, steps)
    training = job.training.model_copy(
        update={"crop_shape_vox": _QUICK_SIZE, "batch_size": 4, "validate_every": max(1, steps // 4)}
    )
    few = BoxSpec(start=(8, 0, 0), shape=(4, 768, 1024))
    return job.model_copy(
        update={
            "name": "autoencoder-quick",
            "network": UNetAutoencoderSpec.of(width=4),
            "training": training,
            "foreign": (job.foreign[0].model_copy(update={"box": few}),),
        }
    )


def comparison(data: str | None = None, seeds: int = 3, steps: int = 20_000) -> ReconstructionStudy:
    """Return the comparison of architectures for a GPU."""
    return _comparison(reconstruct(data, steps=steps), 8, seeds, longer=3)


def quick_comparison(data: str | None = None, seeds: int = 3, steps: int = 2400) -> ReconstructionStudy:
    """Return the comparison for two cores: less than an hour, most of it for the atrous net."""
    return _comparison(quick(data, steps=steps), 4, seeds, longer=3)


def skips(data: str | None = None, seeds: int = 3, steps: int = 20_000) -> ReconstructionStudy:
    """Return the study of skips for a GPU."""
    return _skips(reconstruct(data, steps=steps), 8, seeds)


def quick_skips(data: str | None = None, seeds: int = 3, steps: int = 800) -> ReconstructionStudy:
    """Return the study of skips for two cores: less than an hour."""
    return _skips(quick(data, steps=steps), 4, seeds)


def _comparison(job: ReconstructionJob, width: int, seeds: int, longer: int) -> ReconstructionStudy:
    arms = {name: ArmSpec(network=shape.of(width=width)) for name, shape in _SHAPES.items()}
    # Does the net without skips keep less, or is it only slower to learn?
    arms["fcn-long"] = ArmSpec(network=FCNAutoencoderSpec.of(width=width), steps=longer * job.training.steps)
    return ReconstructionStudy(name=f"{job.name}-comparison", job=job, arms=arms, seeds=tuple(range(seeds)))


def _skips(job: ReconstructionJob, width: int, seeds: int) -> ReconstructionStudy:
    whole = UNetAutoencoderSpec.of(width=width)
    levels = range(len(whole.factors))
    nets = {
        "all": whole,
        "none": whole.model_copy(update={"skips": tuple(False for _ in levels)}),
        **{f"only-{level}": whole.keeping(level) for level in levels},
        **{f"without-{level}": whole.dropping(level) for level in levels},
        "dropout": whole.model_copy(update={"skip_dropout": 0.5}),
    }
    arms = {name: ArmSpec(network=net) for name, net in nets.items()}
    masked = ReconstructionObjective(corruption=HiddenBlocks(fraction=0.25, block_vox=(1, 8, 8)))
    noisy = ReconstructionObjective(corruption=GaussianNoise(sigma=0.5))
    arms |= {
        f"{task}-{name}": ArmSpec(network=nets[name], objective=objective)
        for task, objective in (("masked", masked), ("denoise", noisy))
        for name in ("all", "without-0")
    }
    off = {"none": whole.model_copy(update={"skips": tuple(False for _ in levels)})}
    off |= {f"only-{level}": whole.keeping(level) for level in levels}
    off |= {f"without-{level}": whole.dropping(level) for level in levels}
    ablations = {
        f"{of}-cut-to-{name}": AblationSpec(of=of, skips=off[name].has_skip)
        for of, names in (("all", list(off)), ("dropout", ["none", "only-0", "without-0"]))
        for name in names
    }
    return ReconstructionStudy(
        name=f"{job.name}-skips", job=job, arms=arms, ablations=ablations, seeds=tuple(range(seeds))
    )
