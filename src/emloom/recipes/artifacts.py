"""Artifacts where nobody labelled any: synthetic ones planted on clean tissue, tried on real ones.

Trained on serial sections of the fly nerve cord (`vnc_sstem`, CC BY-NC-SA: do not publish weights trained on
them), tested on held-out sections with planted artifacts, and on the real strips and spots that the labels of
ISBI-2012 name, of other tissue, contrast and voxel size (Cardona 2010). Figures: docs/artifacts.md.
"""

from __future__ import annotations

from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.planting import PlantSpec
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.recipes.paths import data_file
from emloom.tasks.artifactjob import ArtifactJob, ArtifactScoring, ForeignTissueSpec, TissueSpec
from emloom.tasks.data import BoxSpec


def stack(data: str | None = None) -> TissueSpec:
    """Return the clean stack and its split, three sections apart; `data` is the folder of the data sets."""
    file = data_file("vnc_sstem/stack1_z00-14.h5", data)
    return TissueSpec(
        raw=f"{file}/volumes/raw",
        validation=(BoxSpec(start=(0, 0, 700), shape=(6, 1024, 324)),),
        test=(BoxSpec(start=(9, 0, 700), shape=(6, 1024, 324)),),
        gap_nm=140.0,
    )


def strips(data: str | None = None) -> ForeignTissueSpec:
    """Return the real artifacts of ISBI-2012: a scratch, dirt and a hole."""
    file = data_file("isbi2012_cardona/train_z00-19.h5", data)
    return ForeignTissueSpec(
        name="isbi_strips", raw=f"{file}/volumes/raw", labels=f"{file}/volumes/labels/noise_ids"
    )


def _job(name: str, network: PatchNetSpec, steps: int, seed: int, data: str | None) -> ArtifactJob:
    return ArtifactJob(
        name=name,
        data=(stack(data),),
        foreign=(strips(data),),
        objective=ArtifactsObjective(presume_clean=True, yes_share=0.01, plant=PlantSpec(shift_nm=(40.0, 150.0))),
        network=network,
        training=TrainingSpec(
            steps=steps,
            batch_size=16,
            crop_shape_vox=network.patch,
            validate_every=400,
            optimizer=OptimizerSpec(learning_rate=1e-3),
            seed=seed,
            augment=AugmentSpec(
                intensity=IntensitySpec(contrast=(0.7, 1.3), brightness=(-0.2, 0.2), gamma=(0.8, 1.25)), noise=0.0
            ),
        ),
        scoring=ArtifactScoring(prevalence=0.046),
    )


def quick(seed: int = 0, data: str | None = None, steps: int = 2400) -> ArtifactJob:
    """Return the two-core variant: a light encoder of 8 maps, three sections, about fifteen minutes."""
    levels = MultiResolutionSpec(f=8, n_latent=128, batch_norm=False, in_channels=3)
    network = PatchNetSpec.light(sections=3, f=8)
    encoder = network.encoder.model_copy(update={"levels": levels})
    return _job("artifacts-quick", network.model_copy(update={"encoder": encoder}), steps, seed, data)


def flattened(seed: int = 0, data: str | None = None, steps: int = 2400) -> ArtifactJob:
    """Return `quick` with flattened skips, as the original encoder has them: what pooling costs or gives."""
    encoder = MultiResolutionSpec(f=8, n_latent=128, batch_norm=False, in_channels=3)
    network = PatchNetSpec(encoder=encoder, hidden=(24,), sections=3)
    return _job("artifacts-flattened", network, steps, seed, data)


def full(seed: int = 0, data: str | None = None, steps: int = 40_000) -> ArtifactJob:
    """Return the variant for a GPU: the light encoder of 16 maps."""
    return _job("artifacts-full", PatchNetSpec.light(sections=3), steps, seed, data)
