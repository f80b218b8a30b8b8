"""A forest from labelled voxels. scikit-learn grows the trees; they are kept as plain arrays, never as a pickle.

It is needed for this alone: what was grown predicts without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.nn.forestspec import ForestSpec
from emloom.ops.forest import Trees, class_shares, float32_below, joined

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

INSTALL = "pip install 'emloom[forest]'"


def require_sklearn() -> None:
    """Raise `InputError` where scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise InputError(f"scikit-learn grows the forest, and it is not installed: {INSTALL}")


def fit_forest(spec: ForestSpec, rows_NF: F32, classes_N: U8, n_classes: int, threads: int) -> tuple[Trees, F32]:
    """Return a forest, and how much each feature lowered the impurity (float32 [F], together 1).

    Classes weigh alike, however many voxels of each were drawn. The same voxels and seed give the same forest,
    whatever the threads.

    Args:
        spec: how it is grown.
        rows_NF: features.
        classes_N: 0 to n_classes - 1, each at least once.
        n_classes: how many there are.
        threads: compute.

    Raises:
        InputError: scikit-learn is not installed.
    """
    require_sklearn()
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        spec.trees,
        min_samples_leaf=spec.leaf,
        max_depth=spec.depth,
        class_weight="balanced",
        random_state=spec.seed,
        n_jobs=threads,
    )
    model.fit(rows_NF, classes_N)
    assert model.classes_.tolist() == list(range(n_classes))
    return trees_of(model), model.feature_importances_.astype(np.float32)


def trees_of(model: Any) -> Trees:
    """Return the trees of a fitted classifier of scikit-learn that is a forest."""
    return joined([_tree(each.tree_) for each in model.estimators_])


def _tree(tree: Any) -> Trees:
    leaf = tree.children_left < 0
    children = np.stack([tree.children_left, tree.children_right], axis=1)
    children[leaf] = np.arange(leaf.sum())[:, None]
    values = tree.value[leaf, 0]
    return Trees(
        np.zeros(1, np.int32),
        np.where(leaf, -1, tree.feature).astype(np.int32),
        float32_below(tree.threshold),
        children.astype(np.int32),
        (values / values.sum(axis=1, keepdims=True)).astype(np.float32),
    )


def losses_by_group(
    trees: Trees, rows_NF: F32, classes_N: U8, groups: Mapping[str, Sequence[int]], seed: int
) -> tuple[float, dict[str, float]]:
    """Return the mean recall of the classes, and how much of it is lost where a group of features is shuffled.

    On voxels that the forest has not seen this says what the group is worth to it (Breiman 2001). The features of
    a group are shuffled together: of two that say the same, each alone would seem worth nothing.

    Args:
        trees: the forest.
        rows_NF: features.
        classes_N: true classes; recall is of those that occur.
        groups: numbers of features, by name.
        seed: of the shuffling.
    """
    columns = np.ascontiguousarray(rows_NF.T)
    whole = _mean_recall(trees, columns, classes_N)
    lost = {}
    for name, members in groups.items():
        kept = columns[list(members)]
        columns[list(members)] = kept[:, np.random.default_rng(seed).permutation(len(classes_N))]
        lost[name] = whole - _mean_recall(trees, columns, classes_N)
        columns[list(members)] = kept
    return whole, lost


def _mean_recall(trees: Trees, columns_FN: F32, truth_N: U8) -> float:
    called = class_shares(columns_FN, trees).argmax(axis=0)
    return float(np.mean([(called[truth_N == label] == label).mean() for label in np.unique(truth_N)]))
