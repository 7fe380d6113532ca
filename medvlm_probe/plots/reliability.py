"""Reliability diagrams, and histograms of confidence: how often answers come true, and how sure wrong ones are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    ORANGE,
    PALE,
    checked_table,
    new_page,
    plain,
    style,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from medvlm_probe.plots.style import Page

_PANELS_A_ROW = 3
_GAP_MM = 3.0
_LEFT_MM = 13.0
_RIGHT_MM = 3.0
_COUNTS_MM = 11.0
_TICKS_MM = 6.0
_AXIS_WORDS_MM = 6.0
_HISTOGRAM_HEIGHT = 0.8
"""Of a confidence histogram, as a share of its width."""
_COLUMNS = ("low", "high", "n", "confidence", "frequency", "frequency_low", "frequency_high", "band_low", "band_high")


def reliability_diagrams(
    table: pd.DataFrame,
    *,
    words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for each method: the share that came true in each bin of confidence, and how many answers it holds.

    Args:
        table: `method` and, a row a bin, `low`, `high`, `n`, `confidence`, `frequency` with `frequency_low` and
            `frequency_high`, and the band of a perfectly calibrated model, `band_low` and `band_high`.
        words: method to a line below its name.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(table, "bins", text=("method",), numeric=_COLUMNS)
    methods = list(rows["method"].unique())
    reading = (
        "Points: share that came true, with 95 % interval; dashed: perfect calibration; grey: where the share lies for "
        "a perfectly calibrated model of this size. Bars: answers in each bin."
    )
    note = " ".join(filter(None, [reading, note]))
    description = f"Reliability diagrams of {len(methods)} methods: {', '.join(methods)}."
    with style():
        return _draw(rows, words or {}, title, note, description, width_mm, _panel, lambda side: side + 2 + _COUNTS_MM)


def confidence_histograms(
    table: pd.DataFrame,
    *,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for each method: which confidences its right answers have, and below the line its wrong ones.

    Each side is drawn as shares of its own number, which stands below the method's name: wrong answers are few.

    Args:
        table: `method` and, a row a bin, `low`, `high`, `n_right`, `n_wrong`.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(table, "bins", text=("method",), numeric=("low", "high", "n_right", "n_wrong"))
    methods = list(rows["method"].unique())
    counts = rows.groupby("method")[["n_right", "n_wrong"]].sum()
    words = {str(name): f"{own.n_right:,.0f} right, {own.n_wrong:,.0f} wrong" for name, own in counts.iterrows()}
    reading = (
        "Above the line: the share of all right answers that has each confidence; below it, orange and hatched: of all "
        "wrong ones."
    )
    note = " ".join(filter(None, [reading, note]))
    description = f"Confidence of right and wrong answers of {len(methods)} methods: {', '.join(methods)}."
    with style():
        return _draw(rows, words, title, note, description, width_mm, _histogram, lambda side: side * _HISTOGRAM_HEIGHT)


def _draw(
    rows: pd.DataFrame,
    words: Mapping[str, str],
    title: str | None,
    note: str,
    description: str,
    width_mm: float,
    draw_panel: Callable[..., None],
    height_of: Callable[[float], float],
) -> Figure:
    """Draw a panel for each method, as high as `height_of` says for its width in mm."""
    methods = list(rows["method"].unique())
    per_row = min(len(methods), _PANELS_A_ROW if width_mm > 120 else 2)
    side = (width_mm - 2 * MARGIN_MM - per_row * (_LEFT_MM + _RIGHT_MM)) / per_row
    names = {method: wrapped(method, side, bold=True, max_lines=2) for method in methods}
    below = {method: wrapped(plain(words.get(method, "")), side, max_lines=2) for method in methods}
    lines = max(len(names[m]) + (len(below[m]) if words.get(m) else 0) for m in methods)
    head = LINE_MM * lines + 1.5
    panel = head + height_of(side) + _TICKS_MM + _AXIS_WORDS_MM
    n_rows = math.ceil(len(methods) / per_row)
    body = n_rows * panel + (n_rows - 1) * _GAP_MM
    page = new_page(width_mm, body, title=title, note=note, description=description)
    for index, method in enumerate(methods):
        left = MARGIN_MM + _LEFT_MM + (index % per_row) * (side + _LEFT_MM + _RIGHT_MM)
        top = page.top + (index // per_row) * (panel + _GAP_MM)
        page.lines(left, top + LINE_MM / 2, names[method], fontweight="bold", color=INK)
        if words.get(method):
            page.lines(left, top + LINE_MM * (len(names[method]) + 0.5), below[method], color=MUTED)
        draw_panel(page, rows[rows["method"] == method], left, top + head, side, first=index % per_row == 0)
        page.text(left + side / 2, top + head + height_of(side) + _TICKS_MM, "Confidence", ha="center", color=INK)
    return page.figure


def _panel(page: Page, rows: pd.DataFrame, left: float, top: float, side: float, *, first: bool) -> None:
    axes = page.axes(left, top, side, side)
    kept = rows[rows["n"] > 0]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    axes.bar(
        (kept["low"] + kept["high"]) / 2,
        kept["band_high"] - kept["band_low"],
        width=kept["high"] - kept["low"],
        bottom=kept["band_low"],
        color=PALE,
        edgecolor="none",
        zorder=0,
    )
    errors = np.stack([kept["frequency"] - kept["frequency_low"], kept["frequency_high"] - kept["frequency"]])
    axes.errorbar(
        kept["confidence"],
        kept["frequency"],
        yerr=np.maximum(errors, 0),
        fmt="o",
        color=BLUE,
        markersize=3.2,
        elinewidth=1.1,
        zorder=2,
    )
    _limits(axes)
    axes.set_xticklabels([])
    axes.set_yticks([0, 0.5, 1])
    counts = page.axes(left, top + side + 2, side, _COUNTS_MM)
    counts.bar(
        (rows["low"] + rows["high"]) / 2, rows["n"], width=(rows["high"] - rows["low"]) * 0.9, color=BLUE, alpha=0.55
    )
    counts.set_xlim(0, 1)
    counts.set_xticks([0, 0.5, 1])
    most = float(rows["n"].max())
    counts.set_yticks([0, most])
    counts.set_yticklabels(["0", f"{most:,.0f}"])
    counts.set_ylim(0, most * 1.05 or 1)
    if first:
        axes.set_ylabel("Came true", color=INK, labelpad=2)


def _histogram(page: Page, rows: pd.DataFrame, left: float, top: float, side: float, *, first: bool) -> None:
    axes = page.axes(left, top, side, side * _HISTOGRAM_HEIGHT)
    middle, width = (rows["low"] + rows["high"]) / 2, (rows["high"] - rows["low"]) * 0.9
    right, wrong = (rows[name] / max(rows[name].sum(), 1) for name in ("n_right", "n_wrong"))
    axes.bar(middle, right, width=width, color=BLUE)
    axes.bar(middle, -wrong, width=width, color=ORANGE, hatch="////", edgecolor="white", linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylim(-1.02, 1.02)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticklabels(["100", "50", "0", "50", "100"])
    kept = rows[(rows["n_right"] > 0) | (rows["n_wrong"] > 0)]
    least = 0.5 if len(kept) == 0 or kept["low"].min() >= 0.5 else 0.0
    axes.set_xlim(least, 1)
    axes.set_xticks([least, (least + 1) / 2, 1])
    if first:
        axes.set_ylabel("% of wrong | of right", color=INK, labelpad=2)


def _limits(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1])
