"""What repairs gain against what they cost in labels: a panel for each kind of repair, a curve for each repair."""

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
    Page,
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

_BODY_MM, _LEFT_MM, _AXIS_MM, _GAP_MM, _COLUMNS = 40.0, 14.0, 9.0, 6.0, 3
_TICKS_MM = 9.0
"""For the numbers of a panel that has a scale of its own, within its place."""
_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
_MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}
_SPREAD = 0.11
_FILLED = "Filled: the gain or loss is shown, all repairs corrected for. Bars: 95 % interval."


def repair_curves(
    table: pd.DataFrame,
    *,
    axis: str,
    words: Mapping[str, str],
    counts: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw gains by images, a panel a kind of repair, with 0 as no gain; panels that count the same share a scale.

    What loses more than the best gains would flatten all others: it is written below instead of drawn.

    Args:
        table: `family` (names the panel), `remedy`, `n_images`, `value`, `low`, `high`, and `shown`: whether a change
            is beyond chance, 1 or 0.
        axis: what is gained, in words.
        words: remedy to the words of the key.
        counts: family to what its images are counted for, on a scale of its own; others count images labelled.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(
        table,
        "gains",
        text=("family", "remedy"),
        numeric=("n_images", "value", "low", "high", "shown"),
        key=("family", "remedy", "n_images"),
    )
    mainly = rows[~rows["family"].isin(list(counts or {}))]
    floor = -max(float((mainly if len(mainly) else rows)["high"].max()), 0.01)
    lost = rows[rows["value"] < floor]
    rows = rows[rows["value"] >= floor]
    if len(lost):
        losses = zip(lost["remedy"].tolist(), lost["n_images"].tolist(), lost["value"].tolist(), strict=True)
        said = [f"{words.get(name, name)}, {n:g} images ({number(value, 2)})" for name, n, value in losses]
        note = " ".join(filter(None, (f"Off the scale, far below 0: {'; '.join(said)}.", note)))
    note = " ".join(filter(None, (_FILLED, note)))
    families = list(table["family"].unique())
    columns = min(_COLUMNS, len(families))
    width = (width_mm - 2 * MARGIN_MM - _LEFT_MM - 2.0 - (columns - 1) * _GAP_MM) / columns
    rooms = {family: width - (_TICKS_MM if family in (counts or {}) else 0.0) for family in families}
    keys = {
        family: [
            (name, wrapped(words.get(name, name), rooms[family] - 5.0))
            for name in table.loc[table["family"] == family, "remedy"].unique()
        ]
        for family in families
    }
    bands = [families[at : at + columns] for at in range(0, len(families), columns)]
    heads = {family: wrapped(family, rooms[family], bold=True, max_lines=2) for family in families}
    head_mm = max(len(lines) for lines in heads.values()) * LINE_MM + 0.8
    deep = [max(sum(len(lines) * LINE_MM + 0.8 for _, lines in keys[f]) for f in band) for band in bands]
    heights = [head_mm + _BODY_MM + _AXIS_MM + key + 4.0 for key in deep]
    apart = rows["family"].isin(list(counts or {}))
    limits = {family: _limits(rows[apart if family in (counts or {}) else ~apart], floor) for family in families}
    named = ", ".join(words.get(name, name) for name in rows["remedy"].unique())
    with style():
        page = new_page(
            width_mm,
            sum(heights),
            title=title,
            note=note,
            description=f"{axis} by images labelled, for {named}.",
        )
        y = page.top
        for band, height in zip(bands, heights, strict=True):
            for column, family in enumerate(band):
                room = rooms[family]
                x = MARGIN_MM + _LEFT_MM + column * (width + _GAP_MM) + (width - room if column else 0.0)
                head = heads[family]
                page.lines(x, y + head_mm - 0.8 - (len(head) - 0.5) * LINE_MM, head, fontweight="bold")
                mine = rows[rows["family"] == family]
                _panel(
                    page,
                    (x, y + head_mm, room),
                    mine,
                    [name for name, _ in keys[family]],
                    limits[family],
                    column == 0 or family in (counts or {}),
                )
                below = y + head_mm + _BODY_MM + _AXIS_MM - LINE_MM / 2
                page.text(x + room / 2, below - 1.0, (counts or {}).get(family, "Images labelled"), ha="center")
                _key(page, x, below + LINE_MM + 0.6, keys[family])
            page.figure.text(
                (MARGIN_MM + LINE_MM / 2) / page.width,
                1.0 - (y + head_mm + _BODY_MM / 2) / page.height,
                axis,
                rotation=90,
                ha="center",
                va="center",
                color=MUTED,
            )
            y += height
        return page.figure


def _limits(rows: pd.DataFrame, floor: float) -> tuple[float, float]:
    """Return the ends of an axis that shows all intervals, 0, and nothing far below."""
    values = rows[["low", "high"]].to_numpy().ravel()
    known = np.maximum(np.append(values[np.isfinite(values)], 0.0), floor)
    pad = 0.05 * (known.max() - known.min()) or 0.01
    return float(known.min() - pad), float(known.max() + pad)


def _panel(
    page: Page,
    place: tuple[float, float, float],
    rows: pd.DataFrame,
    names: list[str],
    limits: tuple[float, float],
    first: bool,
) -> None:
    x, y, width = place
    axes = page.axes(x, y, width, _BODY_MM)
    axes.axhline(0, color=INK, linewidth=0.6)
    places = {n: number for number, n in enumerate(sorted(rows["n_images"].unique()))}
    for k, name in enumerate(names):
        colour, marker = _COLOURS[k % len(_COLOURS)], list(_MARKERS)[k % len(_MARKERS)]
        mine = rows[rows["remedy"] == name].sort_values("n_images")
        if not len(mine):
            continue
        at = np.array([places[n] for n in mine["n_images"]]) + _SPREAD * (k - (len(names) - 1) / 2)
        reach = np.maximum(np.nan_to_num(np.stack([mine["value"] - mine["low"], mine["high"] - mine["value"]])), 0)
        axes.errorbar(at, mine["value"], yerr=reach, fmt="-", color=colour, linewidth=0.9, elinewidth=0.8)
        shown = mine["shown"].to_numpy() > 0
        for filled in (True, False):
            axes.plot(
                at[shown == filled],
                mine["value"].to_numpy()[shown == filled],
                marker,
                color=colour,
                markerfacecolor=colour if filled else "white",
                markersize=3.6,
                markeredgewidth=0.8,
            )
    axes.set_xticks(list(places.values()))
    axes.set_xticklabels([f"{n:g}" for n in places])
    axes.set_xlim(-0.5, max(len(places), 1) - 0.5)
    axes.set_ylim(*limits)
    ticks_along(axes, _BODY_MM, upwards=True)
    axes.tick_params(labelleft=first)


def _key(page: Page, x: float, y: float, entries: list[tuple[str, list[str]]]) -> None:
    for k, (_, lines) in enumerate(entries):
        colour = _COLOURS[k % len(_COLOURS)]
        page.text(x + 1.0, y, list(_MARKERS.values())[k % len(_MARKERS)], color=colour)
        page.lines(x + 4.5, y, lines, color=INK)
        y += len(lines) * LINE_MM + 0.8
