"""Pictures of skeletons: every end is where it should be, one scale everywhere, nothing turned round."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection
from mpl_toolkits.mplot3d import proj3d

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletongraph import branch_nodes, end_nodes
from emloom.view.skeletons import VIEWS, Style, draw, picture_bytes, skeleton_canvas, skeleton_plot, tree_colours
from tests.ops.neurites import any_skeletons, neurites

VOXEL = (40.0, 4.0, 4.0)
PLANES = {"xy": (2, 1), "xz": (2, 0), "yz": (0, 1)}


def lines_of(ax: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(line) for c in ax.collections if isinstance(c, LineCollection) for line in c.get_segments()]


@given(st.integers(0, 10**6), st.sampled_from(["xy", "xz", "yz"]))
@settings(max_examples=12)
def test_a_projection_draws_every_link_where_it_is(seed: int, view: Any) -> None:
    skeletons = any_skeletons(seed) if seed % 2 else neurites(seed, most=20)
    ax = skeleton_canvas(skeletons, Style(view=view, unit="nm")).axes[0]
    across, down = PLANES[view]
    drawn = sorted(
        tuple(sorted([(*a,), (*b,)]))
        for line in lines_of(ax)
        for a, b in zip(line[:-1].tolist(), line[1:].tolist(), strict=True)
    )
    at = skeletons.positions_nm[:, [across, down]].tolist()
    assert drawn == sorted(tuple(sorted([(*at[a],), (*at[b],)])) for a, b in skeletons.links.tolist())
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < right
    assert bottom > top  # as in an image, down is more
    assert (skeletons.positions_nm[:, across] >= left).all()
    assert (skeletons.positions_nm[:, down] <= bottom).all()


def test_all_panels_have_one_scale_also_in_voxels() -> None:
    skeletons = neurites(5)
    for style, said in ((Style(), "µm"), (Style(unit="vx", voxel_size_nm=VOXEL), "voxels")):
        canvas = skeleton_canvas(skeletons, style)
        canvas.draw_without_rendering()
        per_nm = []
        for ax, (across, down) in zip(canvas.axes, (PLANES["xy"], PLANES["yz"], PLANES["xz"]), strict=True):
            assert ax.get_xlabel() == f"{'zyx'[across]} ({said})"
            assert ax.get_ylabel() == f"{'zyx'[down]} ({said})"
            unit = np.array(VOXEL) if style.unit == "vx" else np.full(3, 1000.0)
            box = ax.get_window_extent()
            (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
            per_nm += [box.width / ((right - left) * unit[across]), box.height / ((bottom - top) * unit[down])]
        np.testing.assert_allclose(per_nm, per_nm[0], rtol=0.12)  # margins of labels differ a little
        np.testing.assert_allclose(per_nm[0::2], per_nm[1::2], rtol=1e-6)


def test_in_space_nothing_is_turned_round() -> None:
    ends = {"x": [0, 0, 9], "y": [0, 9, 0], "z": [9, 0, 0]}
    three = Skeletons.from_trees([(k, [[0, 0, 0], end], [(0, 1)]) for k, end in enumerate(ends.values(), 1)])
    ax: Any = skeleton_canvas(three, Style(view="3d", unit="nm")).axes[0]
    ax.get_figure().draw_without_rendering()
    at = {name: np.array(proj3d.proj_transform(*end[::-1], ax.get_proj())) for name, end in ends.items()}
    origin = np.array(proj3d.proj_transform(0, 0, 0, ax.get_proj()))
    x, y, z = (at[name] - origin for name in "xyz")
    assert x[0] > 0
    assert y[1] < 0
    assert abs(x[0]) > abs(x[1])
    assert abs(y[1]) > abs(y[0])
    assert z[2] > max(x[2], y[2])  # away from the eye


def test_ends_and_branches_are_marked() -> None:
    skeletons = neurites(8)
    ax = skeleton_canvas(skeletons, Style(view="xy", unit="nm", marks=True)).axes[0]
    marked = [np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
    shown = [tuple(p) for p in np.concatenate(marked).tolist()]
    wanted = np.concatenate([end_nodes(skeletons), branch_nodes(skeletons)])
    assert sorted(shown) == sorted(tuple(p) for p in skeletons.positions_nm[wanted][:, [2, 1]].tolist())
    assert len(skeleton_canvas(skeletons, Style(view="xy")).axes[0].collections) == 1


def test_colours_are_those_asked_for() -> None:
    s = neurites(2, trees=3)
    given_ = np.array([[1, 0, 0, 1], [np.nan, 0, 0, 1], [0, 2, 0, 1]])
    chosen = tree_colours(s, Style(colours=given_))
    assert chosen[[0, 2]].tolist() == [[1, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(chosen[1], tree_colours(s, Style())[1])
    assert len(np.unique(tree_colours(s, Style()), axis=0)) == 3
    many = Skeletons.from_trees([(k, [[0, k, 0]], []) for k in range(40)])
    assert len(np.unique(tree_colours(many, Style()), axis=0)) > 30


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_every_format_is_written_and_equal_pictures_are_equal_bytes(view: Any, ending: str) -> None:
    odd = Skeletons.from_trees(
        [(0, [[5, 5, 5]], []), (7, [[0, 0, 0], [0, 9, 9], [0, 9, 0]], [(0, 1), (1, 2), (2, 0)])],
        names=["_$x^", "a very long name of a neurite that goes on and on"],
    )
    data = picture_bytes(f"a{ending}", odd, Style(view=view, marks=True))
    assert data.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending])
    assert data == picture_bytes(f"b{ending.upper()}", odd, Style(view=view, marks=True))
    if ending == ".png":
        image = iio.imread(io.BytesIO(data))
        assert (image[..., 3] > 128).sum() > 500


def test_the_words_say_what_there_is() -> None:
    tee = Skeletons.from_trees(
        [(1, [[0, 0, 0], [0, 0, 1000], [0, 0, 2000], [0, 500, 1000]], [(0, 1), (1, 2), (1, 3)])]
    )
    figure = skeleton_plot(tee, Style(view="xz"), caption="c")
    assert figure.alt == "1 skeletons with 4 nodes, 3 ends and 1 branches, 2.5 µm of path; projection xz."
    assert "projections xy, yz and xz" in skeleton_plot(tee).alt
    assert "in space" in skeleton_plot(tee, Style(view="3d")).alt
    assert figure.caption == "c"


one = Skeletons.from_trees([(1, [[0, 0, 0]], [])])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Style(view="zx"), "view 'zx' is unknown: use one of all, xy, xz, yz, 3d"),  # type: ignore[arg-type]
        (lambda: skeleton_plot(Skeletons.from_trees([], source="a.nml")), "a.nml has no node: there is nothing"),
        (lambda: picture_bytes("a.gif", one), "a.gif ends with '.gif': a picture is one of .png, .svg, .pdf"),
        (lambda: skeleton_plot(one, Style(unit="vx")), "the voxel size .* is missing"),
        (lambda: draw(None, one, Style()), "view 'all' is no single projection: use xy, xz or yz"),  # type: ignore[arg-type]
        (
            lambda: skeleton_plot(one, Style(colours=np.zeros((2, 3)))),
            r"colours have shape \(2, 3\): give \[1, 3\]",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()
