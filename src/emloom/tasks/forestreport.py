"""What the page of a forest job says about how it learned: its voxels, its features, its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emloom.view.featurefigures import importance_plot
from emloom.view.report import Cell, Section, Table

_SHOWN = 15


def forest_section(found: Mapping[str, Any]) -> Section:
    """Return the section of what `train/forest.json` holds."""
    ranked = sorted(found["features"], key=lambda row: -row["impurity"])
    best = ranked[:_SHOWN]
    z, y, x = found["reach_vox"]
    seconds = found["seconds"]
    text = (
        f"{found['trees']} trees with {found['nodes']:,} nodes see {len(ranked)} features of a voxel, up to {z} "
        f"voxels away along z, {y} along y, {x} along x. Features took {seconds['features']:.1f} s, trees "
        f"{seconds['trees']:.1f} s. On the validation boxes the mean recall of the classes is "
        f"{found['validation_recall']:.3f}.\n\n"
        "A feature's share is the part of the impurity that its splits took away in training. What is lost "
        "without it is measured on the validation boxes, on as many voxels of each class: little where another "
        "feature says the same."
    )
    classes: list[list[Cell]] = [[row["name"], row["known"], row["drawn"]] for row in found["classes"]]
    features: list[list[Cell]] = [[row["name"], row["family"], row["impurity"], row["lost"]] for row in ranked]
    figure = importance_plot(
        [row["name"] for row in best],
        [row["impurity"] for row in best],
        [row["lost"] for row in best],
        caption=f"The {len(best)} features with the largest share.",
    )
    return Section(
        "Training",
        text,
        [figure],
        [
            Table(["class", "labelled voxels", "drawn"], classes, "what the forest learned from"),
            Table(["feature", "family", "share", "recall lost"], features, "every feature"),
        ],
    )
