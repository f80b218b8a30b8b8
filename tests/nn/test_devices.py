"""What torch sees of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emloom.nn.devices import devices, driver_version

LOADED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\nGCC version:  gcc 12.3.0\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"


@pytest.mark.parametrize(("text", "version"), [(LOADED, "535.183.01"), (OPEN, "570.86.15"), ("nonsense", None)])
def test_the_driver_states_its_version(text: str, version: str | None, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == version


def test_no_driver(tmp_path: Path) -> None:
    assert driver_version(tmp_path / "none") is None


def test_devices_agree_with_torch() -> None:
    found = devices()
    assert found.torch == torch.__version__
    assert found.threads == torch.get_num_threads()
    assert len(found.gpus) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_a_gpu_that_answers_no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> tuple[int, int]:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Fake 1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 2**33})())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = devices()
    assert [(gpu.name, gpu.memory, gpu.free) for gpu in found.gpus] == [("Fake 1", 2**33, None)]
    assert found.bf16
