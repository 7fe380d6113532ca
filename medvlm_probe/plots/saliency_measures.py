"""How well maps find regions: measures with intervals by label, beside what a map without knowledge reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    checked_table,
    new_page,
    shown,
    style,
    text_width,
    ticks_along,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (INK, "v"))
_CONTROL = (MUTED, "x")
_SLOT_MM = 2.6
_GAP_MM = 5.0
_TICKS_MM = 6.0


def localization_figure(
    table: pd.DataFrame,
    metrics: Mapping[str, str],
    *,
    settings: Mapping[str, str],
    controls: Sequence[str] = (),
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for each measure with a row for each label: every setting's value and interval, and chance.

    Args:
        table: `label`, `setting`, `metric`, `value`, `low`, `high`, `n_images`, and `uniform` and `centre`: what a flat
            map and a centred one reach on the same images. `reliable` where it is known.
        metrics: measure to the words below its axis; all run from 0 to 1, the higher the better.
        settings: settings and controls to their words, in the order of drawing.
        controls: those of them that are controls, drawn in grey.
        labels_words: label to the words that people read.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: an empty table, missing columns, or a repeated label, setting and metric.
    """
    numeric = ("value", "low", "high", "n_images", "uniform", "centre")
    key = ("label", "setting", "metric")
    rows = checked_table(table, "measures", text=key, numeric=numeric, flag="reliable", key=key)
    rows = rows[rows["metric"].isin(list(metrics))]
    drawn = [name for name in settings if bool((rows["setting"] == name).any())]
    labels = list(rows["label"].unique())
    counts = rows.groupby("label", sort=False)["n_images"].max()
    names = [wrapped(f"{shown(name, labels_words)} ({counts[name]:,.0f})", 44.0, max_lines=2) for name in labels]
    names_mm = max(text_width(line) for name in names for line in name) + 3.0
    row_mm = max(len(drawn) * _SLOT_MM, 2 * LINE_MM) + 1.6
    panel_mm = (width_mm - 2 * MARGIN_MM - names_mm - (len(metrics) - 1) * _GAP_MM) / len(metrics)
    marks = dict(zip([n for n in drawn if n not in controls], _SERIES, strict=False))
    marks |= dict.fromkeys([name for name in drawn if name in controls], _CONTROL)
    unreliable = not bool(rows["reliable"].all())
    aids = "In brackets: images with a region. Bars: chance of a map that is flat (grey) or hot in the middle (black)."
    reading = [aids, *(["Dashed: interval unreliable."] if unreliable else []), *([note] if note else [])]
    keys = _legend_places([settings[name] for name in drawn], MARGIN_MM + names_mm, width_mm - MARGIN_MM)
    legend_mm = (keys[-1][1] + 1) * (LINE_MM + 0.6) + 1.4
    description = f"{', '.join(metrics.values())} of {len(drawn)} settings for {len(labels)} labels, with chance."
    with style():
        body = legend_mm + LINE_MM + 1.0 + len(labels) * row_mm + _TICKS_MM + LINE_MM
        page = new_page(width_mm, body, title=title, note=" ".join(reading), description=description)
        for name, (left, line) in zip(drawn, keys, strict=True):
            colour, marker = marks[name]
            above = page.top + line * (LINE_MM + 0.6)
            key_axes = page.axes(left, above, 4.0, LINE_MM)
            key_axes.plot([0.5], [0.5], marker=marker, color=colour, markersize=4)
            key_axes.set_axis_off()
            page.text(left + 4.5, above + LINE_MM / 2, settings[name])
        top = page.top + legend_mm + LINE_MM + 1.0
        for place, name_lines in enumerate(names):
            middle = top + (place + 0.5) * row_mm - (len(name_lines) - 1) * LINE_MM / 2
            page.lines(MARGIN_MM, middle, name_lines)
        for column, (metric, words) in enumerate(metrics.items()):
            left = MARGIN_MM + names_mm + column * (panel_mm + _GAP_MM)
            page.text(
                left, top - LINE_MM / 2 - 1.0, wrapped(words, panel_mm, bold=True, max_lines=1)[0], fontweight="bold"
            )
            axes = page.axes(left, top, panel_mm, len(labels) * row_mm)
            _draw_panel(axes, rows[rows["metric"] == metric], labels, drawn, marks, row_mm)
            ticks_along(axes, panel_mm)
        return page.figure


def _legend_places(words: Sequence[str], start: float, end: float) -> list[tuple[float, int]]:
    """Return where each key of a legend begins and in which line; a line ends where the next key would be cut."""
    places, left, line = [], start, 0
    for text in words:
        width = 4.5 + text_width(text)
        if left + width > end and left > start:
            left, line = start, line + 1
        places.append((left, line))
        left += width + 4.0
    return places


def _draw_panel(
    axes: Axes,
    rows: pd.DataFrame,
    labels: list[str],
    drawn: list[str],
    marks: Mapping[str, tuple[str, str]],
    row_mm: float,
) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(labels) * row_mm, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    by_place = {(record["label"], record["setting"]): record for record in rows.to_dict("records")}
    for place, label in enumerate(labels):
        top = place * row_mm
        axes.axhline(top + row_mm, color=RULE, linewidth=0.4, zorder=0.5)
        first = next((by_place[label, name] for name in drawn if (label, name) in by_place), None)
        if first is None:
            axes.text(0.5, top + row_mm / 2, "no region", color=MUTED, ha="center", va="center")
            continue
        for level, colour in ((first["uniform"], RULE), (first["centre"], INK)):
            if math.isfinite(level):
                axes.plot([level, level], [top + 0.5, top + row_mm - 0.5], color=colour, linewidth=1.6, zorder=1)
        span = (len(drawn) - 1) * _SLOT_MM
        for slot, name in enumerate(drawn):
            if (label, name) in by_place:
                y = top + row_mm / 2 - span / 2 + slot * _SLOT_MM
                _draw_mark(axes, by_place[label, name], y, *marks[name])


def _draw_mark(axes: Axes, record: Mapping[Any, Any], y: float, colour: str, marker: str) -> None:
    if math.isfinite(record["low"]) and math.isfinite(record["high"]):
        line = "-" if record["reliable"] else (0, (2.0, 1.5))
        axes.plot([record["low"], record["high"]], [y, y], color=colour, linewidth=1.1, linestyle=line, zorder=2)
    axes.plot(
        [record["value"]],
        [y],
        marker=marker,
        color=colour,
        markersize=3.6,
        markeredgewidth=1.0,
        zorder=3,
        clip_on=False,
    )
