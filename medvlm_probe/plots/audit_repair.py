"""What remedies gain against what they cost in labels: one curve a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
    SKY,
    VERMILLION,
    checked_table,
    new_page,
    number,
    style,
    ticks_along,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_BODY_MM, _LEFT_MM, _AXIS_MM, _KEY_MM = 52.0, 17.0, 12.0, 52.0
_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
_MARKERS = "osD^vP"
_SPREAD = 0.09


def repair_curves(
    table: pd.DataFrame,
    *,
    axis: str,
    words: Mapping[str, str],
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw gains by images labelled, side by side at equal steps, with 0 as no gain.

    What loses more than the best gains would flatten all others: it is written below instead of drawn.

    Args:
        table: `remedy`, `n_images`, `value`, `low`, `high`.
        axis: what is gained, in words.
        words: remedy to the words of the key.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(
        table, "gains", text=("remedy",), numeric=("n_images", "value", "low", "high"), key=("remedy", "n_images")
    )
    floor = -max(float(rows["high"].max()), 0.01)
    lost = rows[rows["value"] < floor]
    rows = rows[rows["value"] >= floor]
    if len(lost):
        losses = zip(lost["remedy"].tolist(), lost["value"].tolist(), strict=True)
        said = [f"{words.get(name, name)} ({number(value, 2)})" for name, value in losses]
        note = " ".join(filter(None, (f"Off the scale, far below 0: {', '.join(said)}.", note)))
    remedies = list(rows["remedy"].unique())
    places = {n: place for place, n in enumerate(sorted(rows["n_images"].unique()))}
    with style():
        page = new_page(
            width_mm,
            _BODY_MM + _AXIS_MM,
            title=title,
            note=note,
            description=f"{axis} by images labelled, for {', '.join(words.get(name, name) for name in remedies)}.",
        )
        width = width_mm - 2 * MARGIN_MM - _LEFT_MM - _KEY_MM - 3.0
        axes = page.axes(MARGIN_MM + _LEFT_MM, page.top, width, _BODY_MM)
        axes.axhline(0, color=INK, linewidth=0.6)
        y = page.top + LINE_MM / 2
        for k, name in enumerate(remedies):
            colour, marker = _COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)]
            mine = rows[rows["remedy"] == name].sort_values("n_images")
            x = np.array([places[n] for n in mine["n_images"]]) + _SPREAD * (k - (len(remedies) - 1) / 2)
            reach = np.stack([mine["value"] - mine["low"], mine["high"] - mine["value"]])
            axes.errorbar(
                x,
                mine["value"],
                yerr=np.maximum(np.nan_to_num(reach), 0),
                fmt=f"{marker}-",
                color=colour,
                markersize=3.4,
                linewidth=1.0,
                elinewidth=0.9,
            )
            lines = wrapped(words.get(name, name), _KEY_MM - 6.0)
            left = MARGIN_MM + _LEFT_MM + width + 6.0
            page.text(left - 4.0, y, {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}[marker], color=colour)
            page.lines(left, y, lines, color=INK)
            y += len(lines) * LINE_MM + 1.2
        axes.set_xticks(list(places.values()))
        axes.set_xticklabels([f"{n:g}" for n in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
        values = rows[["low", "high"]].to_numpy().ravel()
        known = np.maximum(np.append(values[np.isfinite(values)], 0.0), floor)
        pad = 0.05 * (known.max() - known.min()) or 0.01
        axes.set_ylim(known.min() - pad, known.max() + pad)
        ticks_along(axes, _BODY_MM, upwards=True)
        bottom = page.top + _BODY_MM + _AXIS_MM - LINE_MM
        page.text(MARGIN_MM + _LEFT_MM + width / 2, bottom, "Images labelled at the new site", ha="center")
        page.figure.text(
            (MARGIN_MM + LINE_MM / 2) / page.width,
            1.0 - (page.top + _BODY_MM / 2) / page.height,
            axis,
            rotation=90,
            ha="center",
            va="center",
            color=MUTED,
        )
        return page.figure
