"""Batch norm in another microscope's images: new statistics for old weights, from unlabelled data.

A network with batch norm divides by means and variances of the images it was trained on. Where contrast or tissue
differ, so do they, and probabilities move. Weights stay; means and variances are measured again, over all batches
alike (Li et al. 2016, arXiv:1603.04779).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emloom.errors import InputError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def measure_again(net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every batch norm by those of some data; return how many there are.

    Args:
        net: left in ``eval``.
        batches: inputs of the network.

    Raises:
        InputError: there is no batch norm, or no batch.
    """
    norms = [part for part in net.modules() if isinstance(part, _NORMS)]
    if not norms:
        raise InputError("the network has no batch norm, so there is nothing to measure again: use it as it is")
    momenta = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches, instead of one that forgets
        norm.train()
    seen = 0
    with torch.no_grad():
        for batch in batches:
            net(batch)
            seen += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
    if not seen:
        raise InputError("no batch was given, and statistics of nothing are none: give at least one")
    return len(norms)
