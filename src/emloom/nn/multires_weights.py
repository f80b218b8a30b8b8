"""Weights of two-dimensional nets, such as the originals of genEM3, for a `MultiResolutionAutoencoder`.

The originals name their layers in several ways, but register them in the order in which they are used, as the nets
here do. So weights are told by their order, and checked by the last part of their names and by their shapes:

======================  ==========================  ==================================================
convolution             ``[out, in, k, k]``         ``[out, in, 1, k, k]``
transposed convolution  ``[in, out, k, k]``         ``[in, out, 1, k, k]``
linear layer            ``[out, in]``               ``[out, in, 1, 1, 1]``, transposed in the decoder
norm, bias              ``[out]``                   the same
======================  ==========================  ==================================================

The originals look at patches with axes x, y. Their kernels are turned, and so are the places within the windows
that the latent sees: the net then says of a patch ``[y, x]`` what the original says of it as ``[x, y]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.multires_autoencoder import (
    MultiResolutionAutoencoder,
    MultiResolutionDecoder,
    MultiResolutionEncoder,
    MultiResolutionSpec,
)

Part = MultiResolutionAutoencoder | MultiResolutionEncoder | MultiResolutionDecoder


def load_planar(
    part: Part, weights: Mapping[str, Tensor | NDArray[Any]], *, axes: Literal["xy", "yx"] = "xy"
) -> None:
    """Put the weights of a two-dimensional net into a net, or its encoder or decoder, of the same shape.

    Single numbers (epochs, batches seen) are left out.

    Args:
        part: the net or part, changed in place, unless anything does not fit.
        weights: by name, as in a state dict, whose order counts: all of the part, and nothing else.
        axes: of the patches that the two-dimensional net saw.

    Raises:
        InputError: weights are missing or left over, or one has another kind or shape than the one in its place.
    """
    wanted = {name: tensor for name, tensor in part.state_dict().items() if tensor.ndim}
    given = {name: torch.as_tensor(array) for name, array in weights.items()}
    given = {name: tensor for name, tensor in given.items() if tensor.ndim}
    found: dict[str, Tensor] = {}
    for here, there in zip_longest(wanted.items(), given.items()):
        if here is None or there is None:
            raise InputError(_count(wanted, given, here[0] if here else there[0]))
        found[here[0]] = _fitted(part, here, there, axes)
    part.load_state_dict(found, strict=False)


def _fitted(part: Part, here: tuple[str, Tensor], there: tuple[str, Tensor], axes: str) -> Tensor:
    """Return a weight in the shape and order of axes it has here."""
    layer, kind = here[0].rsplit(".", 1)
    module, tensor = part.get_submodule(layer), there[1]
    if isinstance(module, nn.ConvTranspose3d) and tensor.ndim == 2:
        tensor = tensor.T
    if tensor.ndim == 4 and axes == "xy":
        tensor = tensor.transpose(2, 3)
    if tensor.ndim == 2:
        tensor = tensor[:, :, None, None]
    if tensor.ndim == 4:
        tensor = tensor[:, :, None]
    if there[0].rsplit(".", 1)[-1] != kind or tensor.shape != here[1].shape:
        raise InputError(
            f"{there[0]} of shape {tuple(there[1].shape)} comes where {here[0]} of shape {tuple(here[1].shape)} "
            "is wanted: give the weights in the order of the net they are from, and a spec of its shape"
        )
    if axes == "xy" and layer.split(".")[-2] == "latent":
        unfolds = isinstance(part.get_submodule(layer.rsplit(".", 1)[0] + ".0"), nn.ConvTranspose3d)
        if tensor.ndim > 1 or unfolds:
            tensor = tensor.index_select(1 if tensor.ndim > 1 else 0, _turned(part.spec).to(tensor.device))
    return tensor


def _turned(spec: MultiResolutionSpec) -> Tensor:
    """Return, of every number the latent sees with axes y, x, which it is with axes x, y."""
    places, start = [], 0
    for window in spec.windows:
        numbers = torch.arange(start, start + window.numbers)
        places.append(numbers.reshape(window.maps, window.size, window.size).transpose(1, 2).flatten())
        start += window.numbers
    return torch.cat(places)


def _count(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], first: str) -> str:
    much = "more" if len(given) > len(wanted) else "fewer"
    return (
        f"{len(given)} weights are {much} than the {len(wanted)} of the net, {first} has no partner: give those "
        "of the same part, and a spec of its shape"
    )
