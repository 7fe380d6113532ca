"""The audit's own figures: what is drawn, what is written instead, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from medvlm_probe.errors import InputError
from medvlm_probe.plots.audit_outliers import outlier_histogram
from medvlm_probe.plots.audit_repair import repair_curves
from medvlm_probe.plots.style import figure_bytes


def test_outlier_scores_of_both_sides_add_up_to_all_images() -> None:
    rng = np.random.default_rng(0)
    figure = outlier_histogram(rng.normal(size=300), rng.normal(1, 1, 200), threshold=1.6, share=0.05, words="Distance")
    (axes,) = figure.axes
    drawn = [patch.get_data().values for patch in axes.patches if not patch.get_fill()]
    assert [float(np.sum(values)) for values in drawn] == pytest.approx([100, 100])
    assert axes.lines[0].get_xdata() == [1.6, 1.6]
    assert figure_bytes(figure, "svg") == figure_bytes(figure, "svg")
    unmarked = outlier_histogram(np.ones(3), np.ones(3), threshold=np.inf, share=0.05, words="Distance")
    assert not unmarked.axes[0].lines
    with pytest.raises(InputError, match="no outlier scores"):
        outlier_histogram(np.ones(0), np.ones(3), threshold=0.0, share=0.05, words="Distance")


def test_a_remedy_that_ruins_everything_is_written_not_drawn() -> None:
    table = pd.DataFrame(
        {
            "family": ["curves", "curves", "none", "none"],
            "remedy": ["platt", "platt", "label shift", "alignment"],
            "n_images": [16, 64, 0, 0],
            "value": [0.01, 0.04, -0.9, 0.02],
            "low": [-0.01, 0.03, -1.0, 0.01],
            "high": [0.02, 0.05, -0.8, 0.03],
            "shown": [0, 1, 1, 1],
        }
    )
    words = {"platt": "A curve", "label shift": "Frequencies"}
    figure = repair_curves(table, axis="Gain", words=words)
    assert "Frequencies, 0 images (−0.90)" in figure.get_label()
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] > -0.1
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["16", "64"]
    filled = [line for line in first.lines if line.get_marker() == "o" and line.get_markerfacecolor() != "white"]
    assert [line.get_ydata().tolist() for line in filled] == [[0.04]]
    other = repair_curves(table, axis="Gain", words=words, counts={"none": "Images read again"})
    assert other.axes[0].get_ylim() != other.axes[1].get_ylim()
    FigureCanvasAgg(other).draw()
    left, right = other.axes
    numbers = [tick.get_window_extent().x0 for tick in right.get_yticklabels()]
    assert min(numbers) > left.get_window_extent().x1, "numbers of its own scale lie beside the other panel"
    with pytest.raises(InputError):
        repair_curves(table.iloc[:0], axis="Gain", words={})
