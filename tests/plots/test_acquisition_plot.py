"""Acquisition figures: what they draw against their tables, at one and two columns, and nothing cut or hidden."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from medvlm_probe.cohort.acquisition import ACQUISITIONS
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.plots.acquisition import acquisition_curves, drawable, most_changed, shares_explained
from medvlm_probe.plots.style import OVERLAY, figure_bytes

WORDS = {name: entry.words for name, entry in ACQUISITIONS.items()}


def curves(transforms: tuple[str, ...] = tuple(ACQUISITIONS), metric: str = "auroc") -> pd.DataFrame:
    """Label k starts at .95 - .03 k and loses .01 k a level."""
    rows = []
    for name in transforms:
        entry = ACQUISITIONS[name]
        for level in (entry.neutral, *entry.levels):
            severity = 0 if level == entry.neutral else entry.severity(level)
            for k, label in enumerate(CHEXPERT_LABELS):
                value = 0.95 - 0.03 * k - 0.01 * k * abs(severity)
                rows.append((name, level, entry.unit, severity, label, metric, value, value - 0.03, value + 0.02))
    columns = ["transform", "level", "unit", "severity", "label", "metric", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def shares(n: int) -> pd.DataFrame:
    values = np.linspace(0.6, -1.5, n)
    words = [step.words for entry in ACQUISITIONS.values() for step in [entry.step(entry.levels[-1])]]
    rows = [(words[k % len(words)], value, value - 0.1, value + 0.1) for k, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["words", "value", "low", "high"])


def _figures() -> dict[str, Figure]:
    return {
        "all": acquisition_curves(curves(), transform_words=WORDS, title="A title", note="Phantoms: not medicine."),
        "narrow": acquisition_curves(curves(("gamma", "noise", "jpeg")), width_mm=88.0),
        "shares": shares_explained(shares(12), shares(3), chance=0.06, title="A title", note="A note."),
        "no chance": shares_explained(shares(1), shares(3), chance=-0.1),
    }


def test_no_text_is_cut_or_hidden(texts_of: Callable[[Figure], list[tuple[str, np.ndarray]]]) -> None:
    for name, figure in _figures().items():
        width, height = figure.bbox.size
        boxes = []
        for text, corners in texts_of(figure):
            low, high = corners.min(axis=0), corners.max(axis=0)
            assert (low >= -0.5).all(), (name, text)
            assert high[0] <= width + 0.5, (name, text)
            assert high[1] <= height + 0.5, (name, text)
            boxes.append((text, low, high))
        for (one, low, high), (other, others_low, others_high) in itertools.combinations(boxes, 2):
            apart = (high <= others_low + 0.5).any() or (others_high <= low + 0.5).any()
            assert apart, (name, one, other)


def test_curves_show_the_table() -> None:
    table = curves(("gamma", "resolution"))
    figure = acquisition_curves(table, highlighted=("pneumothorax", "edema"))
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 2
    for axes, name in zip(panels, ("gamma", "resolution"), strict=True):
        for colour, label in zip(OVERLAY, ("pneumothorax", "edema"), strict=False):
            mine = table[(table["transform"] == name) & (table["label"] == label)].sort_values("severity")
            (line,) = [
                line
                for line in axes.lines
                if to_hex(line.get_color()) == colour.lower() and line.get_marker() != "None"
            ]
            assert line.get_ydata() == pytest.approx(mine["value"].to_numpy())
            assert np.round(line.get_xdata()).tolist() == mine["severity"].tolist()
        pale = [line for line in axes.lines if to_hex(line.get_color()) == "#bdbdbd"]
        assert len(pale) == len(CHEXPERT_LABELS) - 2
    ticks = [tick.get_text() for tick in panels[1].get_xticklabels()]
    assert ticks == ["–", "160", "128", "96", "64", "32"]


def test_the_labels_that_change_most_are_in_colour() -> None:
    assert most_changed(curves(("blur",))) == tuple(CHEXPERT_LABELS[:-4:-1])


def test_labels_with_few_positives_are_counted_and_not_drawn() -> None:
    table = curves(("blur",), metric="recall_change")
    table["n_positive"] = table["label"].map({label: 9 + k for k, label in enumerate(CHEXPERT_LABELS)})
    figure = acquisition_curves(table, metric="recall_change")
    assert "not drawn: 1." in str(figure.get_label())
    (panel,) = [axes for axes in figure.axes if axes.axison]
    assert len(drawable(table, "recall_change")["label"].unique()) == len(CHEXPERT_LABELS) - 1
    assert sum(to_hex(line.get_color()) == "#bdbdbd" for line in panel.lines) == len(CHEXPERT_LABELS) - 1 - 3
    with pytest.raises(InputError, match="No label has 10 positives"):
        acquisition_curves(table.assign(n_positive=3), metric="recall_change")
    assert len(drawable(table.assign(metric="score_shift", n_positive=3), "score_shift")) == len(table)


def test_shares_that_lead_far_away_are_arrows() -> None:
    figure = shares_explained(shares(4), shares(3), chance=0.05)
    lower = figure.axes[1]
    markers = [line.get_marker() for line in lower.lines if line.get_marker() not in ("None", None)]
    assert markers == ["o", "o", "<", "<"]


def test_the_same_table_gives_the_same_bytes() -> None:
    first, second = (acquisition_curves(curves(("blur",))) for _ in range(2))
    assert figure_bytes(first, "svg") == figure_bytes(second, "svg")


def test_what_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="metric"):
        acquisition_curves(curves(("blur",)), metric="auc")
    with pytest.raises(InputError, match="no rows of 'recall'"):
        acquisition_curves(curves(("blur",)), metric="recall")
    with pytest.raises(InputError, match="at most 3"):
        acquisition_curves(curves(("blur",)), highlighted=CHEXPERT_LABELS[:4])
