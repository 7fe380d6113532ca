"""The capital of a monitor's tests against the patients seen, with the line at which they give the alarm."""

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
    PALE,
    VERMILLION,
    Page,
    checked_table,
    new_page,
    number,
    plain,
    style,
    ticks_along,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WORDS = {"outliers": "Images unlike the reference", "calibration": "Probability less label"}
_LEFT_MM = 13.0
_RIGHT_MM = 3.0
_PANEL_MM = 40.0
_HEAD_MM = LINE_MM * 2 + 1.5
_FOOT_MM = 11.0
_LEAST_SPAN = 1.0


def monitor_paths(
    table: pd.DataFrame,
    *,
    log10_alarm: float,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for each test: its capital after each patient on a logarithmic scale, batches shaded in turn.

    Args:
        table: a row a patient in the order of arrival: `test`, `patient` (1, 2, ... within the test), `batch` (1, 2,
            ...), `log10_capital`.
        log10_alarm: where the alarm is given.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(table, "patients", text=("test",), numeric=("patient", "batch", "log10_capital"))
    tests = list(rows["test"].unique())
    reading = (
        "Capital of bets that patients are not exchangeable, starting from 1; without a change the chance that any "
        "test ever crosses its dashed line is at most the rate that was chosen. Shaded: every other batch."
    )
    body = len(tests) * (_HEAD_MM + _PANEL_MM + _FOOT_MM)
    alarms = [test for test in tests if rows.loc[rows["test"] == test, "log10_capital"].max() >= log10_alarm]
    description = f"Capital of {len(tests)} sequential tests; alarm: {', '.join(alarms) or 'none'}."
    with style():
        page = new_page(
            width_mm, body, title=title, note=" ".join(filter(None, [reading, note])), description=description
        )
        for index, test in enumerate(tests):
            top = page.top + index * (_HEAD_MM + _PANEL_MM + _FOOT_MM)
            _panel(page, rows[rows["test"] == test], test, top, width_mm, log10_alarm)
    return page.figure


def _panel(page: Page, rows: pd.DataFrame, test: str, top: float, width_mm: float, line: float) -> None:
    patients, capital = rows["patient"].to_numpy(), rows["log10_capital"].to_numpy()
    above = np.flatnonzero(capital >= line)
    state = f"Alarm after {number(float(patients[above[0]]), 0)} patients" if len(above) else "No alarm"
    page.lines(MARGIN_MM + _LEFT_MM, top + LINE_MM / 2, [plain(WORDS.get(test, test))], fontweight="bold", color=INK)
    page.lines(
        MARGIN_MM + _LEFT_MM,
        top + LINE_MM * 1.5,
        [f"{state}, {number(float(patients.max()), 0)} seen"],
        color=VERMILLION if len(above) else MUTED,
    )
    width = width_mm - 2 * MARGIN_MM - _LEFT_MM - _RIGHT_MM
    axes = page.axes(MARGIN_MM + _LEFT_MM, top + _HEAD_MM, width, _PANEL_MM)
    for batch, part in rows.groupby("batch"):
        if int(float(str(batch))) % 2 == 0:
            axes.axvspan(part["patient"].min() - 1, part["patient"].max(), color=PALE, linewidth=0, zorder=0)
    axes.plot(np.r_[0, patients], np.r_[0, capital], color=BLUE, linewidth=1.1, zorder=3)
    axes.axhline(line, color=VERMILLION, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
    if len(above):
        axes.plot(patients[above[0]], capital[above[0]], "o", color=VERMILLION, markersize=4, zorder=4)
    low, high = min(0.0, float(capital.min())), max(line, float(capital.max()))
    margin = 0.08 * max(high - low, _LEAST_SPAN)
    axes.set_xlim(0, float(patients.max()))
    axes.set_ylim(low - margin, high + margin)
    ticks_along(axes, width)
    ticks_along(axes, _PANEL_MM, upwards=True)
    axes.set_ylabel("log₁₀ of capital", color=INK, labelpad=2)
    page.text(MARGIN_MM + _LEFT_MM + width / 2, top + _HEAD_MM + _PANEL_MM + 7.5, "Patients", ha="center", color=INK)
