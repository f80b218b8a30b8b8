"""Boxes and grids for property tests: small enough to enumerate voxel by voxel."""

from __future__ import annotations

from itertools import product

from hypothesis import strategies as st

from emloom.geometry import Box, Grid, Vec


def vectors(low: int, high: int) -> st.SearchStrategy[Vec]:
    return st.tuples(*[st.integers(low, high)] * 3)


def boxes(max_extent: int = 6, span: int = 8) -> st.SearchStrategy[Box]:
    """Boxes on both sides of the origin, empty ones included."""
    return st.builds(Box, vectors(-span, span), vectors(0, max_extent))


def grids() -> st.SearchStrategy[Grid]:
    """Voxel sizes and offsets as they occur: fractions of a nm to micrometres, offsets up to a millimetre."""
    sizes = st.floats(0.1, 5e3).map(lambda v: round(v, 3))
    offsets = st.floats(-1e6, 1e6).map(lambda v: round(v, 3))
    return st.builds(Grid, st.tuples(*[sizes] * 3), st.tuples(*[offsets] * 3))


def voxels(box: Box) -> set[Vec]:
    """The set a box stands for, the slow and obvious way."""
    return set(product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True))))


@st.composite
def boxes_in(draw: st.DrawFn, shape: Vec) -> Box:
    """Boxes whose faces lie in [0, shape], empty ones included."""
    faces = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    return Box.of([low for low, _ in faces], [high for _, high in faces])
