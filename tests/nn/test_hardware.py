"""Precision follows the hardware only where the user leaves it open."""

from __future__ import annotations

from pathlib import Path

import pytest

from emloom.nn import hardware
from emloom.nn.hardware import Hardware

X86 = "processor\t: 0\nflags\t\t: fpu sse avx2 {more}\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {more}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format(more="avx512f"), "32-true"),
        (X86.format(more="avx512f avx512_bf16"), "bf16-mixed"),
        (X86.format(more="amx_bf16"), "bf16-mixed"),
        (ARM.format(more="bf16 i8mm"), "bf16-mixed"),
        (ARM.format(more="bf16x"), "32-true"),
        ("", "32-true"),
    ],
)
def test_auto_asks_the_processor(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "cpuinfo")
    hardware._processor_has_bf16.cache_clear()
    assert Hardware("cpu").precision("auto") == expected
    assert Hardware("cpu").precision("32-true") == "32-true"
    hardware._processor_has_bf16.cache_clear()


def test_no_processor_description_means_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "absent")
    hardware._processor_has_bf16.cache_clear()
    assert Hardware("cpu").precision("auto") == "32-true"
    hardware._processor_has_bf16.cache_clear()
