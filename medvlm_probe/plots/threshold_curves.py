"""Macro recall, precision and F1 over the threshold, a panel for each setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    LINE_MM,
    MARGIN_MM,
    ORANGE,
    PALE,
    RULE,
    Page,
    checked_table,
    new_page,
    plain,
    style,
    text_width,
    ticks_along,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = {"recall": (BLUE, "-", "o"), "precision": (ORANGE, (0, (5, 1.5)), "s"), "f1": ("#000000", (0, (1.2, 1)), "D")}
"""Colour, line and mark of each curve over the threshold."""

_METRIC_WORDS = {"recall": "Recall", "precision": "Precision", "f1": "F1"}
_TICKS_MM = 6.0
_PANEL_GAP_MM = 5.0
_CURVE_MM = 42.0
_STRIP_MM = 7.0


def threshold_curves(
    table: pd.DataFrame,
    chosen: pd.DataFrame | None = None,
    *,
    x_words: str = "One threshold for all labels",
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw macro recall, precision and F1 over the threshold, a panel for each setting, beside what was chosen.

    Args:
        table: `setting`, `metric` (recall, precision, f1), `threshold`, `value`; undefined values break the line.
        chosen: `setting`, `metric`, `value` at the thresholds that were chosen elsewhere, drawn in a strip to the right
            of the curves, or on them where a column `threshold` has a finite one.
        x_words: what the thresholds are of.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table, missing columns, or another metric.
    """
    rows = checked_table(table, "curves", text=("setting", "metric"), numeric=("threshold", "value"))
    marks = None
    if chosen is not None:
        marks = checked_table(
            chosen,
            "chosen points",
            text=("setting", "metric"),
            numeric=("value",),
            optional_numeric=("threshold",),
            key=("setting", "metric"),
        )
    unknown = sorted(set(rows["metric"]) - set(METRICS))
    if unknown:
        raise InputError(f"Curves of {', '.join(unknown)}: expected {', '.join(METRICS)}.")
    with style():
        return _draw_curves(rows, marks, x_words, title, note, width_mm)


def _draw_curves(
    rows: pd.DataFrame,
    marks: pd.DataFrame | None,
    x_words: str,
    title: str | None,
    note: str | None,
    width_mm: float,
) -> Figure:
    settings = [str(name) for name in rows["setting"].unique()]
    metrics = [metric for metric in METRICS if bool((rows["metric"] == metric).any())]
    most = 3 if width_mm > 120.0 else 1
    bands = math.ceil(len(settings) / most)
    columns = math.ceil(len(settings) / bands)
    strip = _STRIP_MM if marks is not None and bool(_loose(marks).any()) else 0.0
    left = MARGIN_MM + 8.0
    panel = (width_mm - MARGIN_MM - 2.0 - left - (columns - 1) * _PANEL_GAP_MM) / columns - strip
    heads = [wrapped(setting, panel + strip, bold=True, max_lines=2) for setting in settings]
    head_mm = max(len(head) for head in heads) * LINE_MM + 1.0
    band_mm = head_mm + _CURVE_MM + _TICKS_MM + 1.0
    aids = []
    if strip:
        aids.append("Marks on the right: at the thresholds chosen for each label on other images.")
    elif marks is not None:
        aids.append("Marks: at the thresholds chosen on other images.")
    aids.append("Curves show what each threshold would give here; none may be chosen from them.")
    page = new_page(
        width_mm,
        LINE_MM + 1.5 + bands * band_mm + LINE_MM,
        title=title,
        note=" ".join([*aids, *([note] if note else [])]),
        description=f"Macro {', '.join(metrics)} over the threshold for {', '.join(settings)}.",
    )
    _key(page, left, metrics)
    start = page.top + LINE_MM + 1.5
    for index, setting in enumerate(settings):
        band, column = divmod(index, columns)
        x = left + column * (panel + strip + _PANEL_GAP_MM)
        y = start + band * band_mm
        page.lines(x, y + LINE_MM / 2, heads[index], fontweight="bold")
        axes = page.axes(x, y + head_mm, panel, _CURVE_MM)
        mine = rows[rows["setting"] == setting]
        own = marks[marks["setting"] == setting] if marks is not None else None
        _draw_curve_panel(axes, mine, own, metrics, panel, first=column == 0)
        if strip and own is not None:
            _draw_strip(page.axes(x + panel + 1.0, y + head_mm, strip - 1.0, _CURVE_MM), own)
    middle = start + bands * band_mm + LINE_MM / 2 - 0.5
    page.text(left + (width_mm - 2.0 - MARGIN_MM - left) / 2, middle, plain(x_words), ha="center")
    return page.figure


def _key(page: Page, x: float, metrics: Sequence[str]) -> None:
    y = page.top + LINE_MM / 2
    for metric in metrics:
        colour, line, _ = METRICS[metric]
        axes = page.axes(x, y - 1.2, 7.0, 2.4)
        axes.axis("off")
        axes.plot([0, 1], [0.5, 0.5], color=colour, linestyle=line, linewidth=1.4)
        page.text(x + 8.0, y, _METRIC_WORDS[metric])
        x += 12.0 + text_width(_METRIC_WORDS[metric])


def _loose(marks: pd.DataFrame) -> pd.Series:
    """Say which chosen points have no threshold of their own."""
    return marks["threshold"].isna() if "threshold" in marks else marks["value"].notna()


def _draw_curve_panel(
    axes: Axes, mine: pd.DataFrame, own: pd.DataFrame | None, metrics: Sequence[str], panel: float, *, first: bool
) -> None:
    low, high = float(mine["threshold"].min()), float(mine["threshold"].max())
    margin = 0.02 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(0, 1.02)
    ticks_along(axes, panel)
    axes.set_yticks(np.linspace(0, 1, 5), ["0", "0.25", "0.50", "0.75", "1"] if first else [""] * 5)
    for height in (0.25, 0.5, 0.75, 1.0):
        axes.axhline(height, color=RULE, linewidth=0.4, zorder=0)
    for metric in metrics:
        curve = mine[mine["metric"] == metric].sort_values("threshold")
        colour, line, marker = METRICS[metric]
        axes.plot(curve["threshold"], curve["value"], color=colour, linestyle=line, linewidth=1.4, zorder=2)
        if own is None or "threshold" not in own:
            continue
        for record in own[(own["metric"] == metric) & ~_loose(own)].to_dict("records"):
            at = record["threshold"], record["value"]
            axes.plot(*([v] for v in at), marker=marker, markersize=5, color=colour, markeredgecolor="white", zorder=3)


def _draw_strip(axes: Axes, own: pd.DataFrame) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(PALE)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for record in own[_loose(own)].to_dict("records"):
        if record["metric"] in METRICS and math.isfinite(record["value"]):
            colour, _, marker = METRICS[str(record["metric"])]
            at = 0.2 + 0.3 * list(METRICS).index(str(record["metric"]))
            axes.plot([at], [record["value"]], marker=marker, markersize=4.5, color=colour, clip_on=False)
