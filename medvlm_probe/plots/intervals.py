"""Values with their intervals, one row a label and one panel a site: what forest plots and cross-site plots share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    PALE,
    RULE,
    checked_table,
    decimals_for,
    new_page,
    shown,
    style,
    text_width,
    ticks_along,
    value_words,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE_MM = 120.0
_NARROWEST_MM = 22.0
_PANEL_GAP_MM = 4.0
_TICKS_MM = 6.0
_OVERHANG_MM = 2.0
_NUMBERS_GAP_MM = 4.0
_BAND_GAP_MM = 3.0
_FEW = "#8C8C8C"


@dataclass(frozen=True)
class IntervalAxis:
    """What the x axis shows: its null value, its words, and what lies to the left and to the right of the null."""

    null: float
    label: str
    below: str
    above: str


@dataclass(frozen=True)
class _Mark:
    """One label's value at one site."""

    value: float
    low: float
    high: float
    reliable: bool
    n_positive: int | None

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class _Chart:
    """All that is drawn, before it has a place: marks by site and label, and both in their order."""

    marks: dict[tuple[str, str], _Mark]
    sites: list[str]
    labels: list[str]
    names: list[list[str]]
    axis: IntervalAxis
    limits: tuple[float, float]
    too_few: int


def interval_figure(
    table: pd.DataFrame,
    axis: IntervalAxis,
    *,
    labels_words: Mapping[str, str] | None,
    sort: bool,
    too_few: int,
    title: str | None,
    note: str | None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a value and its interval for each label, with numbers beside them, or one panel for each site.

    Args:
        table: `label`, `value`, `low`, `high`, and where they are known `site`, `reliable`, `n_positive`.
        axis: the x axis in words.
        labels_words: label to the words that people read.
        sort: order labels by the first site's value, the largest on top; else as given.
        too_few: labels with fewer positives than this are drawn in grey, and say so.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: an empty table, missing columns, or a repeated label (and site).
    """
    rows = checked_table(
        table,
        "estimates",
        text=("label",),
        numeric=("value", "low", "high"),
        optional_text=("site",),
        optional_numeric=("n_positive",),
        flag="reliable",
        key=("site", "label") if "site" in table.columns else ("label",),
    )
    marks = {(record.get("site", ""), record["label"]): _mark(record) for record in rows.to_dict("records")}
    sites = list(rows["site"].unique()) if "site" in rows.columns else [""]
    labels = list(rows["label"].unique())
    if sort:
        labels.sort(key=lambda label: _falling(marks.get((sites[0], label))))
    name_mm = 46.0 if width_mm > _WIDE_MM else 30.0
    chart = _Chart(
        marks=marks,
        sites=sites,
        labels=labels,
        names=[wrapped(shown(label, labels_words), name_mm, max_lines=2) for label in labels],
        axis=axis,
        limits=_limits(list(marks.values()), axis.null),
        too_few=too_few,
    )
    with style():
        return _draw(chart, title=title, note=note, width_mm=width_mm)


def _mark(record: Mapping[Any, Any]) -> _Mark:
    n_positive = float(record.get("n_positive", math.nan))
    return _Mark(
        value=record["value"],
        low=record["low"],
        high=record["high"],
        reliable=bool(record["reliable"]),
        n_positive=int(n_positive) if math.isfinite(n_positive) else None,
    )


def _falling(mark: _Mark | None) -> float:
    return -mark.value if mark is not None and math.isfinite(mark.value) else math.inf


def _limits(marks: Sequence[_Mark], null: float) -> tuple[float, float]:
    """Return x limits that hold every value and every reliable interval; an unreliable one may end in an arrow."""
    trusted = [mark for mark in marks if mark.reliable and mark.has_interval] or [m for m in marks if m.has_interval]
    ends = [null, *(end for mark in trusted for end in (mark.low, mark.high)), *(mark.value for mark in marks)]
    finite = [end for end in ends if math.isfinite(end)]
    low, high = min(finite), max(finite)
    margin = 0.05 * (high - low) if high > low else 0.5
    return low - margin, high + margin


def _draw(chart: _Chart, *, title: str | None, note: str | None, width_mm: float) -> Figure:
    layout = _Layout.of(chart, width_mm)
    caption = wrapped(chart.axis.label, width_mm - 2 * MARGIN_MM)
    directions = _directions(chart.axis, layout.span_mm)
    bands_mm = layout.bands * layout.band_mm + (layout.bands - 1) * _BAND_GAP_MM
    page = new_page(
        width_mm,
        bands_mm + (len(directions) + len(caption)) * LINE_MM + 1.0,
        title=title,
        note=" ".join([*_reading_aids(chart), *([note] if note else [])]) or None,
        description=_description(chart),
    )
    for index, site in enumerate(chart.sites):
        band, column = divmod(index, layout.columns)
        band_top = page.top + band * (layout.band_mm + _BAND_GAP_MM)
        rows_top = band_top + layout.head_mm + 1.0
        left = layout.left + column * (layout.panel_mm + _PANEL_GAP_MM)
        page.lines(left, band_top + LINE_MM / 2, layout.heads[index], fontweight="bold")
        if column == 0:
            for name, centre in zip(chart.names, layout.centres, strict=True):
                page.lines(MARGIN_MM, rows_top + centre - (len(name) - 1) * LINE_MM / 2, name)
        _draw_panel(page.axes(left, rows_top, layout.panel_mm, layout.rows_mm), chart, site, layout)
    if layout.numbers:
        left = layout.left + layout.span_mm + _NUMBERS_GAP_MM
        rows_top = page.top + layout.head_mm + 1.0
        centres = [-1.0 - LINE_MM / 2, *layout.centres]
        for (value, count), centre in zip(layout.numbers, centres, strict=True):
            colour = MUTED if centre < 0 else INK
            page.text(left, rows_top + centre, value, color=colour)
            page.text(left + layout.values_mm + 3.0, rows_top + centre, count, color=colour)
    foot = page.top + bands_mm
    for slot, (below, above) in enumerate(directions):
        page.text(layout.left, foot + (slot + 0.5) * LINE_MM, below, color=MUTED)
        page.text(layout.left + layout.span_mm, foot + (slot + 0.5) * LINE_MM, above, color=MUTED, ha="right")
    caption_top = foot + (len(directions) + 0.5) * LINE_MM + 0.5
    for slot, line in enumerate(caption):
        half = text_width(line) / 2
        centre = min(max(layout.left + layout.span_mm / 2, MARGIN_MM + half), width_mm - MARGIN_MM - half)
        page.text(centre, caption_top + slot * LINE_MM, line, ha="center")
    return page.figure


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in millimetres; `centres` are the rows' middles below the top of their panel."""

    left: float
    panel_mm: float
    columns: int
    bands: int
    heads: list[list[str]]
    head_mm: float
    centres: list[float]
    rows_mm: float
    numbers: list[tuple[str, str]]
    values_mm: float

    @property
    def span_mm(self) -> float:
        return self.columns * self.panel_mm + (self.columns - 1) * _PANEL_GAP_MM

    @property
    def band_mm(self) -> float:
        return self.head_mm + 1.0 + self.rows_mm + _TICKS_MM

    @classmethod
    def of(cls, chart: _Chart, width_mm: float) -> _Layout:
        """Return the layout: as many panels side by side as there is room for, in bands of equal length."""
        alone = len(chart.sites) == 1
        numbers = _numbers(chart) if alone and width_mm > _WIDE_MM else []
        values_mm = max((text_width(value) for value, _ in numbers), default=0.0)
        counts_mm = max((text_width(count) for _, count in numbers), default=0.0)
        numbers_mm = values_mm + (3.0 + counts_mm if counts_mm else 0.0) + _NUMBERS_GAP_MM if numbers else _OVERHANG_MM
        names_mm = max(text_width(line) for name in chart.names for line in name) + 2.0
        inner = width_mm - 2 * MARGIN_MM - names_mm - numbers_mm
        most = max(int((inner + _PANEL_GAP_MM) // (_NARROWEST_MM + _PANEL_GAP_MM)), 1)
        bands = math.ceil(len(chart.sites) / most)
        columns = math.ceil(len(chart.sites) / bands)
        panel_mm = (inner - (columns - 1) * _PANEL_GAP_MM) / columns
        heads = [
            [] if alone and not site else wrapped(site or "unknown", panel_mm, bold=True, max_lines=3)
            for site in chart.sites
        ]
        head_mm = max([len(head) for head in heads] + [1 if numbers else 0]) * LINE_MM
        heights = [len(name) * LINE_MM + 1.0 for name in chart.names]
        ends = np.cumsum(heights)
        centres = [float(end - height / 2) for end, height in zip(ends, heights, strict=True)]
        left = MARGIN_MM + names_mm
        return cls(left, panel_mm, columns, bands, heads, head_mm, centres, float(ends[-1]), numbers, values_mm)


def _numbers(chart: _Chart) -> list[tuple[str, str]]:
    """Return what stands beside a single panel, a value and a count for each row, the heads first."""
    marks = [chart.marks[chart.sites[0], label] for label in chart.labels]
    decimals = decimals_for([(mark.low, mark.high) for mark in marks], chart.limits[1] - chart.limits[0])
    counted = any(mark.n_positive is not None for mark in marks)
    lines = [("value [95 % interval]", "positives" if counted else "")]
    for mark in marks:
        count = "" if mark.n_positive is None else f"{mark.n_positive:,}"
        few = ", too few" if _is_few(mark, chart.too_few) else ""
        lines.append((value_words(mark.value, mark.low, mark.high, decimals), count + few))
    return lines


def _directions(axis: IntervalAxis, span_mm: float) -> list[tuple[str, str]]:
    """Return the words left and right of the null, on one line where they fit."""
    below, above = f"← {axis.below}", f"{axis.above} →"
    if text_width(below) + text_width(above) + 4.0 <= span_mm:
        return [(below, above)]
    return [(below, ""), ("", above)]


def _reading_aids(chart: _Chart) -> list[str]:
    marks = list(chart.marks.values())
    aids = []
    if any(_is_few(mark, chart.too_few) for mark in marks):
        aids.append(f"Grey: fewer than {chart.too_few} positives.")
    if any(not mark.reliable and math.isfinite(mark.value) for mark in marks):
        aids.append("Open marks and dashed whiskers: interval unreliable.")
    return aids


def _description(chart: _Chart) -> str:
    sites = f" at {len(chart.sites)} sites" if len(chart.sites) > 1 else ""
    return f"{chart.axis.label} with 95 % intervals, for {len(chart.labels)} labels{sites}."


def _draw_panel(axes: Axes, chart: _Chart, site: str, layout: _Layout) -> None:
    low, high = chart.limits
    axes.set_xlim(low, high)
    axes.set_ylim(layout.rows_mm, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ticks_along(axes, layout.panel_mm)
    axes.axvspan(low, chart.axis.null, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(chart.axis.null, color=INK, linewidth=0.7, zorder=1)
    for y, label in zip(layout.centres, chart.labels, strict=True):
        axes.axhline(y, color=RULE, linewidth=0.4, zorder=0.5)
        mark = chart.marks.get((site, label))
        if mark is None or not math.isfinite(mark.value):
            few = mark is not None and _is_few(mark, chart.too_few)
            axes.text(
                (low + high) / 2,
                y,
                "too few" if few else "not known",
                color=MUTED,
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
            continue
        _draw_mark(axes, mark, y, chart)


def _draw_mark(axes: Axes, mark: _Mark, y: float, chart: _Chart) -> None:
    colour = _FEW if _is_few(mark, chart.too_few) else BLUE
    low, high = chart.limits
    if mark.has_interval:
        axes.plot(
            [max(mark.low, low), min(mark.high, high)],
            [y, y],
            color=colour,
            linewidth=1.2,
            linestyle="-" if mark.reliable else (0, (2.0, 1.5)),
            solid_capstyle="butt",
            zorder=2,
        )
        for end, arrow in ((mark.low, "<"), (mark.high, ">")):
            if not low <= end <= high:
                at = min(max(end, low), high)
                axes.plot([at], [y], marker=arrow, markersize=3.5, color=colour, clip_on=False, zorder=3)
    axes.plot(
        [mark.value],
        [y],
        marker="o",
        markersize=4.2,
        markeredgewidth=1.0,
        color=colour,
        markerfacecolor=colour if mark.reliable else "white",
        zorder=4,
    )


def _is_few(mark: _Mark, too_few: int) -> bool:
    return mark.n_positive is not None and mark.n_positive < too_few
