"""What sending the most doubtful examinations to a reader brings: findings found, and wrong calls among the rest."""

from __future__ import annotations

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
    VERMILLION,
    Page,
    checked_table,
    new_page,
    plain,
    style,
    text_width,
    ticks_along,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PANELS = {"team_recall": "Findings found, with a reader (%)", "error": "Wrong calls among the rest (%)"}
_COLOURS = (BLUE, ORANGE, VERMILLION)
_LEFT_MM, _BODY_MM, _HEAD_MM, _AXIS_MM, _KEY_MM, _GAP_MM = 13.0, 46.0, 6.0, 12.0, 6.0, 8.0


def referral_curves(
    table: pd.DataFrame,
    *,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for findings found and one for wrong calls, over the share of examinations referred.

    Args:
        table: a row a plan and metric: `by` (what plans go by), `referred` (share of the examinations, in [0, 1]),
            `metric` (`team_recall` or `error`), `value`, `low`, `high`.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(table, "plans", text=("by", "metric"), numeric=("referred", "value", "low", "high"))
    kinds = list(rows["by"].unique())
    reading = (
        "Thresholds are those of the reference, so the shares differ here; bands are 95 % intervals. Dashed: as many "
        "examinations drawn at random. A reader is taken to be right."
    )
    with style():
        page = new_page(
            width_mm,
            _KEY_MM + _HEAD_MM + _BODY_MM + _AXIS_MM,
            title=title,
            note=" ".join(filter(None, [reading, note])),
            description=f"Referral of examinations by {', '.join(kinds)}.",
        )
        _key(page, kinds)
        width = (width_mm - 2 * MARGIN_MM - _GAP_MM) / len(_PANELS)
        for place, metric in enumerate(_PANELS):
            _panel(page, rows[rows["metric"] == metric], kinds, metric, MARGIN_MM + place * (width + _GAP_MM), width)
    return page.figure


def _key(page: Page, kinds: list[str]) -> None:
    x, y = MARGIN_MM + _LEFT_MM, page.top + LINE_MM / 2
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        words = f"By {plain(kind)}"
        page.text(x, y, words, color=colour, fontweight="bold")
        x += text_width(words, bold=True) + 5.0
    page.text(x, y, "dashed: at random", color=MUTED)


def _panel(page: Page, rows: pd.DataFrame, kinds: list[str], metric: str, left: float, width: float) -> None:
    top = page.top + _KEY_MM
    page.text(left + _LEFT_MM, top + LINE_MM / 2, _PANELS[metric], color=INK, fontweight="bold")
    inner = width - _LEFT_MM - 2.0
    axes = page.axes(left + _LEFT_MM, top + _HEAD_MM, inner, _BODY_MM)
    most = 100 * float(rows["referred"].max())
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        part = rows[rows["by"] == kind].sort_values("referred")
        x, value, low, high = (100 * part[name].to_numpy() for name in ("referred", "value", "low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
        axes.plot(x, value, color=colour, linewidth=1.2, marker="o", markersize=2.2)
    start = 100 * float(rows.sort_values("referred")["value"].to_numpy()[0])
    ends = np.array([0.0, most])
    chance = start + ends / 100 * (100 - start) if metric == "team_recall" else np.full(2, start)
    axes.plot(ends, chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set_xlim(0, most * 1.02)
    ticks_along(axes, inner)
    ticks_along(axes, _BODY_MM, upwards=True)
    page.text(left + _LEFT_MM + inner / 2, top + _HEAD_MM + _BODY_MM + 7.5, "Examinations referred (%)", ha="center")
