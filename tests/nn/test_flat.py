"""Convolutions of sections as those of images: the answers, gradients and weights of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from emloom.nn.flat import Conv, Lift, as_images, as_volumes

Vec = tuple[int, int, int]
FORMATS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
KERNELS = [
    ((1, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((1, 5, 3), (1, 1, 1), (1, 2, 4)),
    ((1, 3, 3), (1, 2, 2), (1, 1, 1)),
    ((1, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ((3, 3, 3), (1, 1, 1), (1, 2, 2)),
]


def same(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Answers and all gradients agree, and weights have the same names and shapes."""
    theirs.load_state_dict(ours.state_dict())
    inputs = [x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
    a, b = ours(inputs[0]), theirs(inputs[1])
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    slope = torch.randn_like(b)
    for answer in (a, b):
        answer.backward(slope)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-10, atol=1e-10)
    for (_, own), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-10)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


@FORMATS
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(("kernel", "stride", "spread"), KERNELS)
def test_a_convolution_is_torchs(
    kernel: Vec, stride: Vec, spread: Vec, mode: str, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    padding = tuple(size // 2 * step for size, step in zip(kernel, spread, strict=True))
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": spread,
        "padding_mode": mode,
        "dtype": torch.double,
    }
    x = torch.randn(2, 3, 4, 12, 14, dtype=torch.double).to(memory_format=layout)
    same(Conv(3, 5, kernel, **options), nn.Conv3d(3, 5, kernel, **options), x)


@FORMATS
@pytest.mark.parametrize("factor", [(1, 2, 2), (1, 1, 3), (2, 2, 2)])
def test_a_lift_is_torchs(factor: Vec, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.double).to(memory_format=layout)
    same(Lift(3, 5, factor).double(), nn.ConvTranspose3d(3, 5, factor, stride=factor).double(), x)


def test_sections_become_images_and_volumes_again_without_a_copy() -> None:
    x = torch.arange(2 * 3 * 4 * 5 * 6.0).reshape(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    images = as_images(x)
    assert images.data_ptr() == x.data_ptr()
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[4 + 2], x[1, :, 2])
    assert torch.equal(as_volumes(images, 4), x)
