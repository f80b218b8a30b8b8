"""Real stacks, bent by known maps and with a tenth of their sections black, go back to where the clean ones go.

The clean stack's own estimate is the measure: neighbours are not registered to parts of a pixel, neurites run
aslant. Distances are medians and 95th percentiles, in the common frame and relative to the next section.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.ops.bentstack import SCHEDULE, apart, planted_stack, real_stack, straightened

SIDE, SECTIONS, BAD = 512, 11, [2]


def compared(folder: Path, name: str, most: float, affine: bool, schedule: slice) -> list[float]:
    stack = real_stack(folder, name, SECTIONS, SIDE)
    bent, maps = planted_stack(stack, most, affine, BAD)
    found, clean = (straightened(s, schedule=SCHEDULE[schedule]) for s in (bent, stack))
    np.testing.assert_array_equal(np.flatnonzero(~found.affines.linked), BAD)
    good = [z for z in range(SECTIONS) if z not in BAD]
    absolute, relative = apart(*([one[z] for z in good] for one in (found.maps(), clean.maps(), maps)), side=SIDE)
    figures = [float(np.nanpercentile(d, p)) for d in (absolute, relative) for p in (50, 95)]
    print(
        f"{name}: median {figures[0]:.2f}, p95 {figures[1]:.2f} px; to the next {figures[2]:.2f}, {figures[3]:.2f}"
    )
    return figures


@pytest.mark.slow
@pytest.mark.real_data
def test_affine_maps_of_a_real_stack(real_data: Path) -> None:
    absolute, far, relative, far_relative = compared(real_data, "snemi3d", 0.0, True, slice(2))
    assert absolute < 0.3
    assert relative < 0.3
    assert far_relative < 1.5
    assert far < 2.5
