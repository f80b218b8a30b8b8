"""What the page of a forest job says about how it learned: its voxels, its features, its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emloom.view.featurefigures import importance_plot
from emloom.view.report import Cell, Section, Table

_SHOWN = 15


def forest_section(found: Mapping[str, Any]) -> Section:
    """Return the section of what `train/forest.json` holds."""
    best = sorted(found["features"], key=lambda row: -float(row["share"]))[:_SHOWN]
    z, y, x = found["reach_vox"]
    seconds = found["seconds"]
    text = (
        f"{found['trees']} trees with {found['nodes']:,} nodes see {len(found['features'])} features of a voxel, "
        f"up to {z} voxels away along z, {y} along y, {x} along x. Features took {seconds['features']:.1f} s, "
        f"trees {seconds['trees']:.1f} s. On the validation boxes the mean recall of the classes is "
        f"{found['validation_recall']:.3f}.\n\n"
        "A feature's share is the part of the impurity that its splits took away in training. What a family, or a "
        "scale, is worth is measured on the validation boxes: the recall that is lost where all its features are "
        "shuffled."
    )
    classes: list[list[Cell]] = [[row["name"], row["known"], row["drawn"]] for row in found["classes"]]
    figure = importance_plot(
        {row["name"]: row["share"] for row in best},
        {row["name"]: row["recall_lost"] for row in found["groups"]},
        caption=f"Left: the {len(best)} features with the largest share; all are in train/forest.json.",
    )
    features: list[list[Cell]] = [[row["name"], row["share"]] for row in best]
    groups: list[list[Cell]] = [[row["name"], row["recall_lost"]] for row in found["groups"]]
    return Section(
        "Training",
        text,
        [figure],
        [
            Table(["class", "labelled voxels", "drawn"], classes, "what the forest learned from"),
            Table(["feature", "share"], features, "the features with the largest share"),
            Table(["family or scale", "recall lost"], groups, "what is lost without it"),
        ],
    )
