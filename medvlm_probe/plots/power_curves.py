"""Power of tests over the severity of a shift: a row of panels a kind of shift, a panel a number of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    ORANGE,
    PURPLE,
    RULE,
    SKY,
    VERMILLION,
    Page,
    checked_table,
    new_page,
    number,
    plain,
    style,
    text_width,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_Dashes = Literal["-"] | tuple[float, Sequence[float]]

LINES: Mapping[str, tuple[str, str, _Dashes, str]] = {
    "mmd": ("MMD", BLUE, "-", "o"),
    "energy": ("Energy", SKY, (0, (4, 1.5)), "s"),
    "frechet": ("Fréchet", ORANGE, "-", "^"),
    "classifier": ("Classifier", VERMILLION, (0, (4, 1.5)), "D"),
    "directions": ("Directions", GREEN, "-", "v"),
    "mmd_features": ("MMD, features", INK, (0, (1, 1.2)), "x"),
    "mmd_linear": ("MMD, linear time", PURPLE, (0, (1, 1.2)), "P"),
}
"""Name, colour, line and mark of each test; no two are told apart by colour alone."""

_LEFT_MM = 11.0
_PANEL_MM = 30.0
_HEAD_MM = 2 * LINE_MM + 1.5
_FOOT_MM = 6.5
_GAP_MM = 4.0


def power_curves(
    table: pd.DataFrame,
    words: Mapping[str, str],
    *,
    level: float = 0.05,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw the share of runs in which each test rejects over the severity of each shift.

    Args:
        table: a row a point: `shift`, `severity`, `patients_a_side`, `test` (of `LINES`), `rejected` in [0, 1].
        words: how a shift's axis is called, in the order to draw.
        level: of the tests, a dashed line.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal).

    Raises:
        InputError: an empty table, missing columns, or a point given twice.
    """
    numeric = ("severity", "patients_a_side", "rejected")
    rows = checked_table(
        table, "points", text=("shift", "test"), numeric=numeric, key=("shift", "severity", "patients_a_side", "test")
    )
    shifts = [shift for shift in words if bool((rows["shift"] == shift).any())]
    tests = [test for test in LINES if bool((rows["test"] == test).any())]
    names = [LINES[test][0] for test in tests]
    right = max(text_width(name) for name in names) + 9.7
    columns = max(rows.loc[rows["shift"] == shift, "patients_a_side"].nunique() for shift in shifts)
    panel = (width_mm - 2 * MARGIN_MM - _LEFT_MM - right - (columns - 1) * _GAP_MM) / columns
    band = _HEAD_MM + _PANEL_MM + _FOOT_MM
    reading = "Share of runs in which a test rejects, over severity; dashed: its level, where nothing moved."
    with style():
        page = new_page(
            width_mm,
            len(shifts) * band,
            title=title,
            note=" ".join(filter(None, [reading, note])),
            description=f"Power of {', '.join(names)} for {len(shifts)} kinds of shift.",
        )
        for index, shift in enumerate(shifts):
            own = rows[rows["shift"] == shift]
            top = page.top + index * band
            page.text(MARGIN_MM + _LEFT_MM, top + LINE_MM / 2, plain(words[shift]), fontweight="bold")
            sizes = sorted(own["patients_a_side"].unique())
            for column, size in enumerate(sizes):
                x = MARGIN_MM + _LEFT_MM + column * (panel + _GAP_MM)
                _panel(page, own[own["patients_a_side"] == size], tests, x, top, panel, level, first=column == 0)
            last = own[own["patients_a_side"] == sizes[-1]]
            _names(page, last, tests, MARGIN_MM + _LEFT_MM + len(sizes) * (panel + _GAP_MM) - _GAP_MM, top + _HEAD_MM)
    return page.figure


def _panel(
    page: Page,
    rows: pd.DataFrame,
    tests: Sequence[str],
    x: float,
    top: float,
    width: float,
    level: float,
    *,
    first: bool,
) -> None:
    size = number(float(rows["patients_a_side"].iloc[0]), 0)
    page.text(x, top + 1.5 * LINE_MM, f"{size} patients a side", color=MUTED)
    axes = page.axes(x, top + _HEAD_MM, width, _PANEL_MM)
    severities = np.sort(rows["severity"].unique())
    places = np.arange(len(severities))
    for height in (0.5, 1.0):
        axes.axhline(height, color=RULE, linewidth=0.4, zorder=0)
    axes.axhline(level, color=MUTED, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
    for test in tests:
        _, colour, line, mark = LINES[test]
        own = rows[rows["test"] == test].set_index("severity")["rejected"].reindex(severities)
        axes.plot(
            places, own, color=colour, linestyle=line, linewidth=1.1, marker=mark, markersize=3, zorder=2, clip_on=False
        )
    axes.set_xlim(-0.15, len(places) - 0.85)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(places, [f"{severity:g}" for severity in severities])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if first else [""] * 3)


def _names(page: Page, rows: pd.DataFrame, tests: Sequence[str], x: float, top: float) -> None:
    """Write each line's name beside its end, apart from each other, with a thin line to it."""
    from matplotlib.lines import Line2D

    ends = rows[rows["severity"] == rows["severity"].max()].set_index("test")["rejected"]
    order = sorted((test for test in tests if test in ends.index), key=lambda test: (-ends[test], tests.index(test)))
    wanted = np.array([top + _PANEL_MM * (1 - ends[test] / 1.02) for test in order])
    step = LINE_MM * 0.95
    places = wanted.copy()
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + step)
    lowest = top + _PANEL_MM
    for k in range(len(places) - 1, -1, -1):
        places[k] = min(places[k], lowest - (len(places) - 1 - k) * step)
    for test, at, end in zip(order, places, wanted, strict=True):
        name, colour, line, mark = LINES[test]
        page.figure.add_artist(
            Line2D(
                [(x + 0.5) / page.width, (x + 4.0) / page.width],
                [1 - end / page.height, 1 - at / page.height],
                color=RULE,
                linewidth=0.5,
            )
        )
        page.figure.add_artist(
            Line2D(
                [(x + 4.0) / page.width, (x + 8.0) / page.width],
                [1 - at / page.height] * 2,
                color=colour,
                linestyle=line,
                linewidth=1.1,
                marker=mark,
                markersize=3,
                markevery=[1],
            )
        )
        page.text(x + 9.7, at, name)
