"""Pictures about classes: whole PNGs that say what they show, and the shares they claim."""

from __future__ import annotations

import io
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.metrics.calibration import calibration
from emloom.metrics.curves import average_precision, curve, roc_auc
from emloom.metrics.ranking import ranking
from emloom.view.classfigures import (
    RankCurve,
    confusion_plot,
    ranking_plot,
    reliability_plot,
)

COUNTS = np.array([[90, 10, 0], [30, 70, 0], [0, 0, 0]])


def ranked(seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random(20_000) < 0.2).astype(np.uint8)
    return ranking(np.clip(rng.normal(0.3 + 0.3 * truth, 0.15), 0, 1), truth)


def pixels(figure):
    picture = iio.imread(io.BytesIO(figure.png))
    assert picture.shape[2] == 4
    assert picture[0, 0, 3] == 0, "the ground is transparent"
    return picture


def test_a_confusion_matrix_says_which_part_of_each_class_is_right() -> None:
    figure = confusion_plot(COUNTS, ("cytosol", "mito", "vesicle"))
    assert "cytosol 90.0%; mito 70.0%; vesicle does not occur" in figure.alt
    assert pixels(figure).any()
    assert figure == confusion_plot(7 * COUNTS, ("cytosol", "mito", "vesicle")), "shares, not counts, are drawn"
    assert figure.png != confusion_plot(COUNTS.T, ("cytosol", "mito", "vesicle")).png


@pytest.mark.parametrize("n", [1, 2, 16, 40])
def test_a_confusion_matrix_of_any_size_is_drawn(n) -> None:
    assert pixels(confusion_plot(np.eye(n, dtype=np.int64), [f"class {i}" for i in range(n)])).any()


def test_curves_say_their_areas_and_are_thinned_but_for_their_ends() -> None:
    each = ranked()
    drawn = curve(each)
    assert len(drawn.recall) > 10_000
    point = RankCurve("mito", drawn.recall, drawn.precision, average_precision(each), (0.5, 0.5))
    rate = RankCurve("mito", drawn.false_positive_rate, drawn.recall, roc_auc(each))
    figure = ranking_plot([point], [rate], prevalence=0.2)
    assert f"AP {average_precision(each):.3f}" in figure.alt
    assert f"AUC {roc_auc(each):.3f}" in figure.alt
    assert pixels(figure).any()
    assert figure.png != ranking_plot([replace(point, mark=None)], [rate], prevalence=0.2).png
    assert pixels(ranking_plot([point] * 12, [])).any()


def test_a_reliability_plot_names_its_widest_gap() -> None:
    result = calibration(ranked())
    widest = max(result.bins, key=lambda row: abs(row.accuracy - row.confidence))
    figure = reliability_plot(result.bins, "probability", "frequency")
    assert f"{widest.confidence:.3f}, where the frequency is {widest.accuracy:.3f}" in figure.alt
    assert "20000 voxels" in figure.alt
    assert pixels(figure).any()


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(InputError, match="no curve"):
        ranking_plot([], [])
    with pytest.raises(InputError, match="no bin"):
        reliability_plot([], "p", "f")
    with pytest.raises(InputError, match="has 2 names"):
        confusion_plot(COUNTS, ("a", "b"))
