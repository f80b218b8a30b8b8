"""Convolutions that look at single sections, computed as those of images.

A kernel of one voxel along z sees every section by itself, so ``[N, C, Z, Y, X]`` is as good as N x Z images. On a
processor nets of levels then answer in a third to two thirds of the time, and learn in a third to a half of it
(the atrous net gains most). The modules are those of torch otherwise: the same weights, names and answers, up to
rounding; kernels that look along z are left to torch.

With channels last in memory (``torch.channels_last_3d``, data and weights), nothing is copied on the way.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Conv(nn.Conv3d):
    """`torch.nn.Conv3d`, in which convolutions of sections are those of images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``[N, C, Z, Y, X]``."""
        padding = self.padding
        if isinstance(padding, str) or padding[0] or self.kernel_size[0] > 1 or self.stride[0] > 1:
            return super().forward(x)
        images, margins = as_images(x), padding[1:]
        if self.padding_mode != "zeros":
            sides = [side for margin in reversed(margins) for side in (margin, margin)]
            images, margins = functional.pad(images, sides, mode=self.padding_mode), (0, 0)
        out = functional.conv2d(
            images, self.weight[:, :, 0], self.bias, self.stride[1:], margins, self.dilation[1:], self.groups
        )
        return as_volumes(out, x.shape[2])


class Lift(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` without padding, whose kernel is as large as its stride."""

    def __init__(self, n_in: int, n_out: int, factor: tuple[int, int, int]) -> None:
        super().__init__(n_in, n_out, factor, stride=factor)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return ``[N, C, Z, Y, X]``, as many times larger as the kernel."""
        if self.kernel_size[0] > 1:
            return super().forward(x)
        out = functional.conv_transpose2d(as_images(x), self.weight[:, :, 0], self.bias, self.stride[1:])
        return as_volumes(out, x.shape[2])


def as_images(x: Tensor) -> Tensor:
    """Return ``[N, C, Z, Y, X]`` as images ``[N * Z, C, Y, X]``."""
    return x.transpose(1, 2).flatten(0, 1)


def as_volumes(images: Tensor, sections: int) -> Tensor:
    """Return images ``[N * Z, C, Y, X]`` as ``[N, C, Z, Y, X]``."""
    return images.reshape(-1, sections, *images.shape[1:]).transpose(1, 2)
