"""Centre lines: as long as the neurite, near to every voxel, with the synapses where they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from emloom.geometry import Grid
from emloom.geometry.tracings import Tracing
from emloom.ops.bioimage import centre_lines
from emloom.ops.centrelines import POST, PRE, Sites, centre_line
from emloom.testing.phantom import Phantom, PhantomSpec

pytest.importorskip("bioimage_cpp", reason="the extra emloom[meshes] is not installed")
GRID = Grid((16.0, 8.0, 8.0), (1000.0, 2000.0, 3000.0))
REACH = (1.5, 150.0)


def tube(*ends: tuple[tuple[float, float, float], tuple[float, float, float]], radius_nm: float) -> np.ndarray:
    """Return the voxels within a radius of some lines; (z, y, x) in nm from the corner."""
    shape = (40, 80, 80)
    places = (np.argwhere(np.ones(shape, bool)) + 0.5) * GRID.voxel_size_nm
    inside = np.zeros(len(places), bool)
    for a, b in np.array(ends):
        along = np.clip((places - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        inside |= np.linalg.norm(places - (a + along[:, None] * (b - a)), axis=1) <= radius_nm
    return inside.reshape(shape)


def line_of(mask: np.ndarray, **more: Sites) -> Tracing:
    return centre_line(mask, GRID, 7, REACH, 8.0, **more)


def test_a_straight_tube_has_a_straight_line() -> None:
    mask = tube(((100, 100, 80), (540, 540, 560)), radius_nm=60)
    tracing = line_of(mask)
    true = float(np.linalg.norm([440, 440, 480]))
    # It may reach into the round ends, which are a radius long.
    assert true * 0.9 <= tracing.skeletons.lengths_nm.sum() <= true * 1.1 + 2 * 60
    assert tracing.skeletons.ids.tolist() == [7]
    degree = np.bincount(tracing.skeletons.links.ravel())
    assert degree.max() == 2
    assert sorted(set(tracing.nodes["type"])) == ["0", "6"]
    middle = np.linalg.norm(tracing.skeletons.positions_nm - [1320, 2320, 3320], axis=1).argmin()
    assert tracing.radii_nm[middle] == pytest.approx(60, abs=16)
    # Nodes lie on the axis, in world nm.
    relative = tracing.skeletons.positions_nm - [1100, 2100, 3080]
    axis = np.array([440, 440, 480]) / true
    away = np.linalg.norm(relative - np.outer(relative @ axis, axis), axis=1)
    assert np.median(away) < 16


def test_a_fork_has_three_ends() -> None:
    mask = tube(((320, 80, 80), (320, 320, 320)), ((320, 320, 320), (320, 560, 320)), radius_nm=30)
    mask |= tube(((320, 320, 320), (320, 320, 560)), radius_nm=30)
    tracing = line_of(mask)
    degree = np.bincount(tracing.skeletons.links.ravel())
    assert (degree == 1).sum() == 3
    assert (degree == 3).sum() == 1
    assert tracing.nodes["type"][int(np.argmax(degree))] == "5"
    assert tracing.skeletons.lengths_nm.sum() == pytest.approx(339 + 240 + 240, rel=0.15)


def test_pieces_are_trees_of_one_skeleton_and_a_voxel_is_a_node() -> None:
    mask = tube(((100, 100, 100), (100, 100, 500)), radius_nm=30) | tube(
        ((500, 500, 100), (500, 500, 500)), radius_nm=30
    )
    tracing = line_of(mask)
    n, links = len(tracing.skeletons.node_ids), len(tracing.skeletons.links)
    assert n - links == 2
    alone = np.zeros((3, 3, 3), bool)
    alone[1, 1, 1] = True
    one = line_of(alone)
    np.testing.assert_array_equal(one.skeletons.positions_nm, [[1024, 2012, 3012]])
    assert len(line_of(np.zeros((3, 3, 3), bool)).skeletons.node_ids) == 0


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(PhantomSpec(shape=(48, 80, 80), seed=3, neurite_nm=110.0))


def test_every_voxel_of_a_neuron_is_near_its_line(phantom: Phantom) -> None:
    labels = np.asarray(phantom.labels.read(phantom.labels.info.box))
    ids, sizes = np.unique(labels, return_counts=True)
    for segment in ids[np.argsort(sizes)[-8:-4]].tolist():
        mask = np.pad(labels == segment, 1)
        nodes, _, radii = centre_lines(mask, (8.0, 8.0, 8.0), *REACH)
        voxels = np.argwhere(mask) * 8.0
        # Some node's ball holds the voxel: of all nodes, the least overshoot.
        overshoot = np.full(len(voxels), np.inf)
        for node, radius in zip(nodes, radii, strict=True):
            away = np.linalg.norm(voxels - node, axis=1) - (REACH[0] * radius + REACH[1])
            np.minimum(overshoot, away, out=overshoot)
        assert overshoot.max() <= 0


def test_lines_of_neurons_are_as_long_as_their_true_skeletons(phantom: Phantom) -> None:
    labels = np.asarray(phantom.labels.read(phantom.labels.info.box))
    sizes = np.bincount(labels.ravel().astype(np.int64))
    found = true = 0.0
    for segment, nodes, edges in phantom.skeletons():
        if sizes[segment] < 8_000:
            continue
        tracing = centre_line(labels == segment, Grid((8.0, 8.0, 8.0)), segment, REACH, 4.0)
        found += float(tracing.skeletons.lengths_nm.sum())
        true += float(np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1).sum())
    assert true > 8_000
    assert found / true == pytest.approx(1, abs=0.25)


def test_synapses_sit_on_the_nearest_nodes() -> None:
    mask = tube(((320, 320, 80), (320, 320, 560)), radius_nm=40)
    places = np.array([[1320, 2360, 3150], [1320, 2360, 3476], [1320, 2360, 3477]], float)
    sites = Sites(np.array([5, 9, 4], np.uint64), np.array([PRE, POST, POST]), places)
    tracing = line_of(mask, sites=sites)
    said = dict(zip(tracing.comment_texts(), tracing.comments.rows.tolist(), strict=True))
    assert set(said) == {"pre 5", "post 4 9"}
    assert tracing.nodes["type"][said["pre 5"]] == "7"
    assert tracing.nodes["type"][said["post 4 9"]] == "8"
    nearest = KDTree(tracing.skeletons.positions_nm).query(places)[1]
    assert nearest.tolist() == [said["pre 5"], said["post 4 9"], said["post 4 9"]]
