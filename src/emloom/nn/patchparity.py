"""Proof that training and prediction say the same of a patch: a check on the user's own data and model.

The same patches go through the training loader (one by one, in batches, in another order) and through the map that
prediction makes of a volume (whole, and cut otherwise). All must agree, as probabilities, to `LARGEST`: a network
that answers by its batch, because some norm was left in training, differs by tenths; so does one that is shown
another normalisation, another order of axes or another place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.patches import PatchLabels
from emloom.io.volume import Volume
from emloom.nn.backends import evaluating
from emloom.nn.crops import TrainingVolume
from emloom.nn.model import ModelSpec
from emloom.nn.patchnet import PatchNet
from emloom.nn.patchpredict import PatchPredictor, map_shape
from emloom.nn.patchvolume import PatchVolume
from emloom.nn.plan import SamplePlan
from emloom.nn.samples import CropShape, SampleMaker

LARGEST = 1e-4
"""Largest difference of probabilities that counts as agreement."""

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Parity:
    """How far ways to answer for the same patches differ.

    Attributes:
        patches: how many were asked about.
        differences: largest difference of a probability, by what was compared with the loader, one patch at a
            time.
    """

    patches: int
    differences: dict[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """What differs most, and by how much."""
        return max(self.differences.items(), key=lambda item: item[1])

    @property
    def holds(self) -> bool:
        """Whether all agree to `LARGEST`."""
        return self.worst[1] <= LARGEST


def check_patches(model: ModelSpec, net: PatchNet, raw: Volume, *, samples: int = 32, step: int = 32) -> Parity:
    """Compare the training loader and prediction on patches of a volume.

    Args:
        model: what the checkpoint says.
        net: its network.
        raw: ``zyx`` volume.
        samples: patches to ask about, spread over the volume; always the same ones.
        step: of the map.

    Raises:
        InputError: the volume is smaller than a patch.
    """
    predictor = PatchPredictor(net, model.preprocessing, step)
    inside = predictor.lattice.inside(raw.info.box)
    if inside.is_empty:
        raise InputError(
            f"{raw.info.source} of {raw.info.shape} voxels holds no patch of {net.spec.patch} on the lattice: "
            "give a larger volume"
        )
    indices = _spread(inside, samples)
    crop = CropShape(net.input_shape(net.spec.patch), net.spec.patch)
    maker = SampleMaker(model, [TrainingVolume(raw, _nothing_known(net, raw), raw.info.box)], crop)
    starts = predictor.lattice.starts_of(indices)
    around = model.objective.surround_vox(raw.info.grid)
    inner = Box(around, crop.input).slices()
    seen = [maker.render(SamplePlan(source=0, start=(z, y, x))).raw[inner] for z, y, x in starts.tolist()]
    inputs = torch.from_numpy(np.stack(seen))[:, None]
    loader = _answers(net, inputs, 1)
    order = np.random.default_rng(0).permutation(len(inputs))
    shuffled = np.empty_like(loader)
    shuffled[order] = _answers(net, inputs[torch.from_numpy(order)], 5)
    ways = {
        "batches": _answers(net, inputs, 7),
        "another order": shuffled,
        "prediction": _mapped(predictor, raw, indices, whole=True),
        "prediction in other blocks": _mapped(predictor, raw, indices, whole=False),
    }
    return Parity(len(inputs), {name: float(np.abs(found - loader).max()) for name, found in ways.items()})


def _spread(inside: Box, samples: int) -> NDArray[np.int64]:
    """Return indices of the lattice, int64 [N, 3], spread over a box."""
    rng = np.random.default_rng(0)
    count = min(samples, inside.size)
    flat = np.sort(rng.choice(inside.size, count, replace=False))
    found: NDArray[np.int64] = np.stack(np.unravel_index(flat, inside.shape), axis=1).astype(np.int64)
    found += np.array(inside.start)
    return found


def _nothing_known(net: PatchNet, raw: Volume) -> PatchVolume:
    """Return labels of a volume about which nothing is known; they take no room."""
    shape = net.spec.patch
    none = PatchLabels(raw.info.grid, shape, np.zeros((0, 3), np.int64), ("artifact",), np.zeros((0, 1), np.int8))
    return PatchVolume(none, raw.info)


def _answers(net: PatchNet, inputs: Tensor, batch: int) -> F64:
    """Return probabilities ``[N, C]`` of patches, batch by batch."""
    with evaluating(net), torch.inference_mode():
        parts = [net(part)[net.head].flatten(1) for part in torch.split(inputs, batch)]
    return _probabilities(torch.cat(parts).double().numpy())


def _mapped(predictor: PatchPredictor, raw: Volume, positions: NDArray[np.int64], whole: bool) -> F64:
    """Return probabilities ``[N, C]`` of positions of the map, predicted in one block, or one patch per block."""
    boxes = [Box((z, y, x), (1, 1, 1)) for z, y, x in positions.tolist()]
    if not whole:
        return _probabilities(np.stack([predictor.map(raw, box)[:, 0, 0, 0] for box in boxes]).astype(float))
    shape = map_shape(raw.info.shape, predictor.lattice)
    rows = []
    for z in sorted({int(z) for z in positions[:, 0]}):
        section = predictor.map(raw, Box((z, 0, 0), (1, *shape[1:])))[:, 0]
        rows += [section[:, y, x] for k, y, x in positions.tolist() if k == z]
    return _probabilities(np.stack(rows).astype(float))


def _probabilities(logits: F64) -> F64:
    out: F64 = 1.0 / (1.0 + np.exp(-logits))
    return out
