"""Models among the outputs of `emloom frequency`: what they make of the reference is what is compared.

A model of kind reconstruction is carried out on the whole reference, into
`<folder>/reconstructions/<name>.zarr`, once: the same command finds it there again.
"""

from __future__ import annotations

from pathlib import Path

from emloom.errors import InputError
from emloom.nn.engine import Engine
from emloom.nn.model import load
from emloom.nn.reconstruct import RECONSTRUCTION
from emloom.run.executor import Executor, Serial
from emloom.tasks.frequencyspec import FrequencySpec
from emloom.tasks.predict import OnBlock, PredictJob, predict_volume

SUFFIX = ".safetensors"
"""Of checkpoints: an output that ends so is a model, not a volume."""


def reconstruct_models(
    spec: FrequencySpec,
    engine: Engine | None = None,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    any_voxel_size: bool = False,
) -> FrequencySpec:
    """Return the comparison with every model replaced by what it makes of the reference.

    Args:
        spec: what was asked for.
        engine: what computes.
        executor: where blocks run.
        on_block: called with (blocks done, blocks in all) of each model.
        any_voxel_size: do it although a model was made for another voxel size.

    Raises:
        InputError: a model is damaged, is no reconstruction, or was made for another voxel size.
    """
    names = list(spec.names) or [_name(path) for path in spec.outputs]
    if len(names) != len(spec.outputs) or len(set(names)) != len(names):
        return spec.model_copy(update={"names": tuple(names)})  # measuring says what is wrong, before it reads
    models = [path for path in spec.outputs if path.endswith(SUFFIX)]
    for path in models:
        kind = load(Path(path))[0].objective.kind
        if kind != RECONSTRUCTION:
            raise InputError(
                f"{path} is a model of {kind}, whose answers are no image: name one of kind "
                f"{RECONSTRUCTION!r}, or a volume"
            )
    outputs = []
    for path, name in zip(spec.outputs, names, strict=True):
        if path not in models:
            outputs.append(path)
            continue
        made = Path(spec.output) / "reconstructions" / f"{name}.zarr"
        job = PredictJob(raw=spec.reference, model=path, output=str(made), any_voxel_size=any_voxel_size)
        predict_volume(job, engine, on_block, executor or Serial())
        outputs.append(str(made / RECONSTRUCTION))
    return spec.model_copy(update={"outputs": tuple(outputs), "names": tuple(names)})


def _name(path: str) -> str:
    """Return what an output is called: a volume by its last part, a model by its run's folder."""
    parts = Path(path).parts
    if not path.endswith(SUFFIX):
        return parts[-1]
    folders = [part for part in parts[:-1] if part not in ("train", "/", ".", "..")]
    return folders[-1] if parts[-1] == "model.safetensors" and folders else Path(path).stem
