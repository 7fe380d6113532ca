"""Reliability diagrams: how often answers of a confidence come true, with what perfect calibration would show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
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
    with style():
        return _draw(rows, methods, words or {}, title, " ".join([reading, *([note] if note else [])]), width_mm)


def _draw(
    rows: pd.DataFrame, methods: list[str], words: Mapping[str, str], title: str | None, note: str, width_mm: float
) -> Figure:
    per_row = min(len(methods), _PANELS_A_ROW if width_mm > 120 else 2)
    side = (width_mm - 2 * MARGIN_MM - per_row * (_LEFT_MM + _RIGHT_MM)) / per_row
    names = {method: wrapped(method, side, bold=True, max_lines=2) for method in methods}
    below = {method: wrapped(plain(words.get(method, "")), side, max_lines=2) for method in methods}
    lines = max(len(names[m]) + (len(below[m]) if words.get(m) else 0) for m in methods)
    head = LINE_MM * lines + 1.5
    panel = head + side + 2 + _COUNTS_MM + _TICKS_MM + _AXIS_WORDS_MM
    n_rows = math.ceil(len(methods) / per_row)
    description = f"Reliability diagrams of {len(methods)} methods: {', '.join(methods)}."
    body = n_rows * panel + (n_rows - 1) * _GAP_MM
    page = new_page(width_mm, body, title=title, note=note, description=description)
    for index, method in enumerate(methods):
        left = MARGIN_MM + _LEFT_MM + (index % per_row) * (side + _LEFT_MM + _RIGHT_MM)
        top = page.top + (index // per_row) * (panel + _GAP_MM)
        page.lines(left, top + LINE_MM / 2, names[method], fontweight="bold", color=INK)
        if words.get(method):
            page.lines(left, top + LINE_MM * (len(names[method]) + 0.5), below[method], color=MUTED)
        _panel(page, rows[rows["method"] == method], left, top + head, side, first=index % per_row == 0)
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
    page.text(left + side / 2, top + side + 2 + _COUNTS_MM + _TICKS_MM, "Confidence", ha="center", color=INK)


def _limits(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1])
