"""The monitor's figure against its table, and nothing cut or hidden."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medvlm_probe.errors import InputError
from medvlm_probe.plots.monitor import monitor_paths
from medvlm_probe.plots.style import figure_bytes


def paths(n: int, *, tests: tuple[str, ...] = ("outliers", "calibration"), slope: float = 0.02) -> pd.DataFrame:
    rows = [
        (test, k, 1 + k // 40, slope * k - (test == "calibration") * k * 0.03) for test in tests for k in range(1, n)
    ]
    return pd.DataFrame(rows, columns=["test", "patient", "batch", "log10_capital"])


@pytest.mark.parametrize("width", [180.0, 88.0])
def test_no_text_is_cut_or_hidden(width: float, texts_of: Callable[[Figure], list[tuple[str, np.ndarray]]]) -> None:
    for table in (paths(3_000), paths(2), paths(150, tests=("outliers",))):
        figure = monitor_paths(table, log10_alarm=1.6, title="A title", note="Phantoms: not medicine.", width_mm=width)
        boxes = []
        for text, corners in texts_of(figure):
            low, high = corners.min(axis=0), corners.max(axis=0)
            assert (low >= -0.5).all(), text
            assert (high <= np.array(figure.bbox.size) + 0.5).all(), text
            boxes.append((text, low, high))
        for (text, low, high), (other, other_low, other_high) in itertools.combinations(boxes, 2):
            shared = np.minimum(high, other_high) - np.maximum(low, other_low)
            assert not (shared > 1).all(), (text, other)


def test_the_lines_are_the_table() -> None:
    table = paths(120)
    figure = monitor_paths(table, log10_alarm=1.6)
    for axes, (_, rows) in zip(figure.axes, table.groupby("test", sort=False), strict=True):
        x, y = axes.lines[0].get_data()
        np.testing.assert_allclose(x, [0, *rows["patient"]])
        np.testing.assert_allclose(y, [0, *rows["log10_capital"]])
        assert axes.lines[1].get_ydata()[0] == 1.6
    assert "alarm: outliers" in figure.get_label()
    assert figure_bytes(figure, "svg") == figure_bytes(monitor_paths(table, log10_alarm=1.6), "svg")
    with pytest.raises(InputError, match="no rows"):
        monitor_paths(table.iloc[:0], log10_alarm=1.6)
