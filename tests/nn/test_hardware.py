"""Precision follows the hardware only where the user leaves it open."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from emloom.errors import InputError
from emloom.nn import hardware
from emloom.nn.hardware import Hardware

X86 = "processor\t: 0\nflags\t\t: fpu sse avx2 {more}\n\nprocessor\t: 1\nflags\t\t: fpu\n"
WIDE = nn.Conv3d(17, 4, 3)
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
    hardware._flags.cache_clear()
    assert Hardware("cpu").precision("auto", WIDE) == expected
    assert Hardware("cpu").precision("32-true", WIDE) == "32-true"
    hardware._flags.cache_clear()


def test_no_processor_description_means_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "absent")
    hardware._flags.cache_clear()
    assert Hardware("cpu").precision("auto", WIDE) == "32-true"
    hardware._flags.cache_clear()


@pytest.mark.parametrize(
    ("network", "narrow"),
    [
        (nn.Conv3d(1, 4, (1, 3, 3)), True),
        (nn.Sequential(nn.Conv3d(1, 32, 3), nn.Conv3d(16, 16, 3)), True),
        (nn.Conv3d(16, 17, 3), False),
        (nn.Conv3d(17, 4, 3), False),
        (nn.Conv3d(4, 4, 1), False),
    ],
)
def test_narrow_convolutions_train_in_float32_on_amx(
    network: nn.Module, narrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Regression: torch 2.13 writes beyond its memory there, and the process is killed by glibc some steps later.
    (tmp_path / "cpuinfo").write_text(X86.format(more="avx512_bf16 amx_bf16"))
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    hardware._flags.cache_clear()
    assert Hardware("cpu").precision("auto", network) == ("32-true" if narrow else "bf16-mixed")
    if narrow:
        with pytest.raises(InputError, match="at most 16 maps"):
            Hardware("cpu").precision("bf16-mixed", network)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert Hardware("cpu").precision("bf16-mixed", network) == "bf16-mixed"
    assert Hardware("cpu").precision("auto", network) == "bf16-mixed"
    hardware._flags.cache_clear()
