"""The figures of a calibration sweep show what the tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medvlm_probe.errors import InputError
from medvlm_probe.plots.calibration_sweep import ablation_figure, methods_figure
from medvlm_probe.plots.style import figure_bytes

METHODS = ("zero-shot", "temperature@shots", "ls", "ls+smac+as", "ls(alpha=0.1)+smac(alpha=0.1)+3.0*as")
MAIN = ("macro", "auroc")


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    means, draws = [], []
    for scope, metric in (("pooled", "ece"), MAIN):
        for method in METHODS:
            values = rng.uniform(0.05, 0.3, 1 if method == "zero-shot" else 6)
            value = values.mean()
            means.append((method, scope, metric, value, value - 0.04, value + 0.05))
            numbers = [-1] if method == "zero-shot" else range(6)
            draws += [(method, n, scope, metric, v) for n, v in zip(numbers, values, strict=True)]
    return (
        pd.DataFrame(means, columns=["method", "scope", "metric", "value", "low", "high"]),
        pd.DataFrame(draws, columns=["method", "draw", "scope", "metric", "value"]),
    )


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("width", [180.0, 88.0])
def test_every_draw_mean_and_interval_is_drawn(width: float) -> None:
    means, draws = tables()
    figure = methods_figure(means, draws, main=MAIN, title="north", note="small print", width_mm=width)
    assert len(figure.axes) == 2
    for axes, (scope, metric) in zip(figure.axes, (("pooled", "ece"), MAIN), strict=True):
        cloud = draws[(draws["scope"] == scope) & (draws["metric"] == metric) & (draws["draw"] >= 0)]
        drawn = np.concatenate([points.get_offsets()[:, 0] for points in axes.collections])
        assert sorted(drawn) == pytest.approx(sorted(cloud["value"]))
        table = means[(means["scope"] == scope) & (means["metric"] == metric)].set_index("method")
        spans = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() > 1.2]
        assert [list(span) for span in spans] == table[["low", "high"]].to_numpy().tolist()
        low, high = axes.get_xlim()
        assert low <= table["low"].min()
        assert high >= table["high"].max()
    for words in ("zero-shot", "ls+smac+as", "north", "small print", "ECE (smaller"):
        assert words in texts(figure)
    assert figure_bytes(figure, "svg").startswith(b"<?xml")


def test_an_ablation_has_a_panel_a_method_and_metric() -> None:
    means, _ = tables()
    table = pd.concat([means.assign(shots=shots) for shots in (4, 8, 32)], ignore_index=True)
    figure = ablation_figure(table, what="shots", main=MAIN)
    assert len(figure.axes) == 2 * (len(METHODS) - 1)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["4", "8", "32"]
    line = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert list(line.get_ydata()) == pytest.approx([means["value"].iloc[1]] * 3)
    assert "ls+smac+as" in texts(figure)
    with pytest.raises(InputError, match="more than one row"):
        ablation_figure(pd.concat([table, table]), what="shots", main=MAIN)


def test_published_values_are_crosses_of_their_own_method() -> None:
    means, _ = tables()
    table = pd.concat([means.assign(shots=shots) for shots in (4, 8)], ignore_index=True)
    rows = [("ls", metric, shots, value) for metric, shots, value in (("ece", 4, 0.5), ("ece", 6, 0.6))]
    published = pd.DataFrame(rows, columns=["method", "metric", "shots", "value"])
    figure = ablation_figure(table, what="shots", main=MAIN, published=published)
    crosses = [line for line in figure.axes[2].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in crosses] == [[0.5, 0.6]]
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["4", "6", "8"]
    assert "read off the figure" in texts(figure)
    assert "read off" not in texts(ablation_figure(table, what="shots", main=MAIN))
