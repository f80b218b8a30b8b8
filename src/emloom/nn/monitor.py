"""TensorBoard: scalars every step, image panels at every validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor


class Monitor:
    """Writes TensorBoard events; steps after `first_step` of an earlier, interrupted run are dropped."""

    def __init__(self, folder: Path, first_step: int, active: bool = True) -> None:
        self._folder = folder
        self._first_step = first_step
        self._active = active
        self._writer: Any = None

    def __enter__(self) -> Self:
        if self._active:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, needed by training only

            self._writer = SummaryWriter(str(self._folder), purge_step=self._first_step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write named values of a step."""
        if self._writer is not None:
            for name, value in values.items():
                if name != "step":
                    self._writer.add_scalar(name, value, step)

    def images(self, step: int, panel: Mapping[str, Tensor]) -> None:
        """Write the middle section of every ``[C, Z, Y, X]`` picture, 0 to 1; three channels become colours."""
        if self._writer is None:
            return
        for name, tensor in panel.items():
            section = tensor[:, tensor.shape[1] // 2].float().cpu()
            picture = section[:3] if section.shape[0] >= 3 else section[:1]
            self._writer.add_image(name, picture, step)
