"""Confidence histograms draw the shares that the table holds."""

from __future__ import annotations

import pandas as pd
import pytest

from medvlm_probe.errors import InputError
from medvlm_probe.plots.reliability import confidence_histograms
from medvlm_probe.plots.style import figure_bytes


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_right_answers_stand_above_the_line_and_wrong_ones_below(least: float) -> None:
    bins = pd.DataFrame({"low": [0.2, 0.7, 0.9], "high": [0.3, 0.8, 1.0], "n_right": [2, 6, 12], "n_wrong": [1, 0, 3]})
    bins = bins[bins["low"] >= least]
    none_wrong = bins.assign(n_wrong=0, method="always right")
    figure = confidence_histograms(pd.concat([bins.assign(method="one"), none_wrong]), note="not medicine")
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    right = list(bins["n_right"] / bins["n_right"].sum())
    assert heights[0] == pytest.approx(right + list(-bins["n_wrong"] / bins["n_wrong"].sum()))
    assert heights[1] == pytest.approx(right + [0.0] * len(bins))
    assert figure.axes[0].get_xlim() == (least, 1)
    said = " ".join(text.get_text() for text in figure.texts)
    for words in ("one", f"{bins['n_right'].sum()} right, {bins['n_wrong'].sum()} wrong", "not medicine"):
        assert words in said
    assert figure_bytes(figure, "svg").startswith(b"<?xml")


def test_a_table_without_counts_is_refused() -> None:
    with pytest.raises(InputError, match="n_wrong"):
        confidence_histograms(pd.DataFrame({"method": ["one"], "low": [0.5], "high": [1.0], "n_right": [3]}))
