"""The same model by several sources of labels: one row a label, one panel a metric, one mark a source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    INK,
    LINE_MM,
    MARGIN_MM,
    ORANGE,
    RULE,
    Page,
    checked_table,
    new_page,
    plain,
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

_PANEL_GAP_MM = 7.0
_TICKS_MM = 6.0
_OVERHANG_MM = 2.0
_STEP_MM = 2.3
_NAME_MM = 40.0
_LEGEND_GAP_MM = 6.0
# Apart in shape and in grey: the reference black, the others from dark to light.
_MARKS = (("o", INK), ("s", BLUE), ("D", ORANGE), ("^", "#5B2A66"), ("v", GREEN), ("P", "#9A9A9A"))
Marks = dict[str, tuple[str, str]]
"""Source to marker and colour, the reference first."""
MOST_SOURCES = len(_MARKS) - 1


@dataclass(frozen=True)
class _Axis:
    """A panel's words, the value that means nothing (a line is drawn there), and limits that it always shows."""

    words: str
    null: float | None
    limits: tuple[float, float]


_AXES = {
    "kappa": _Axis("Kappa with {reference}", 0.0, (0.0, 1.0)),
    "recall": _Axis("Recall", None, (0.0, 1.0)),
    "auroc": _Axis("AUROC", 0.5, (0.45, 1.0)),
    "ratio": _Axis("Distance ratio", 1.0, (0.98, 1.05)),
}


def sources_figure(
    table: pd.DataFrame,
    *,
    reference: str,
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw each label's agreement and conclusions by source; what moves between the marks hangs on the labels.

    Args:
        table: `label`, `metric` (`kappa`, `recall`, `auroc`, `ratio`), `source`, `value`, `low`, `high`, and where
            known `reliable`; at most `MOST_SOURCES` sources are told apart, the reference first.
        reference: the source that the others are compared with.
        labels_words: label to the words that people read.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: an empty table, missing columns, a metric or source twice for a label.
    """
    rows = checked_table(
        table,
        "conclusions by source",
        text=("label", "metric", "source"),
        numeric=("value", "low", "high"),
        flag="reliable",
        key=("label", "metric", "source"),
    )
    drawn = list(rows["source"].unique())
    sources = sorted(drawn, key=lambda name: name != reference)[:MOST_SOURCES]
    marks = dict(zip(sources, _MARKS if reference in sources else _MARKS[1:], strict=False))
    rows = rows[rows["source"].isin(marks)]
    metrics = [metric for metric in _AXES if bool((rows["metric"] == metric).any())]
    labels = list(rows["label"].unique())
    names = [wrapped(shown(label, labels_words), _NAME_MM, max_lines=2) for label in labels]
    heights = [max(len(name) * LINE_MM, len(sources) * _STEP_MM) + 1.8 for name in names]
    ends = np.cumsum(heights)
    centres = [float(end - height / 2) for end, height in zip(ends, heights, strict=True)]
    unreliable = bool((~rows["reliable"] & rows["value"].notna()).any())
    aids = ["Open marks: interval unreliable."] if unreliable else []
    with style():
        legend = _legend_lines(sources, reference, width_mm)
        panel_mm = _panel_mm(names, metrics, width_mm)
        captions = [wrapped(_AXES[m].words.format(reference=plain(reference)), panel_mm) for m in metrics]
        head_mm = len(legend) * LINE_MM + 1.5
        foot_mm = _TICKS_MM + max(len(lines) for lines in captions) * LINE_MM
        page = new_page(
            width_mm,
            head_mm + float(ends[-1]) + foot_mm,
            title=title,
            note=" ".join([*aids, *([note] if note else [])]) or None,
            description=f"{', '.join(metrics)} of {len(labels)} labels by {len(sources)} sources of labels.",
        )
        _draw_legend(page, legend, marks)
        top = page.top + head_mm
        for name, centre in zip(names, centres, strict=True):
            page.lines(MARGIN_MM, top + centre - (len(name) - 1) * LINE_MM / 2, name)
        left = MARGIN_MM + _names_mm(names)
        for metric, caption in zip(metrics, captions, strict=True):
            part = rows[rows["metric"] == metric]
            axes = page.axes(left, top, panel_mm, float(ends[-1]))
            _draw_panel(axes, part, metric, labels, marks, centres, ends, panel_mm)
            for slot, line in enumerate(caption):
                y = top + float(ends[-1]) + _TICKS_MM + (slot + 0.3) * LINE_MM
                page.text(left + panel_mm / 2, y, line, ha="center")
            left += panel_mm + _PANEL_GAP_MM
    return page.figure


def _names_mm(names: list[list[str]]) -> float:
    return max(text_width(line) for name in names for line in name) + 2.5


def _panel_mm(names: list[list[str]], metrics: list[str], width_mm: float) -> float:
    inner = width_mm - 2 * MARGIN_MM - _names_mm(names) - _OVERHANG_MM
    return (inner - (len(metrics) - 1) * _PANEL_GAP_MM) / len(metrics)


def _legend_lines(sources: list[str], reference: str, width_mm: float) -> list[list[tuple[str, str, float]]]:
    """Return the legend's lines: (source, its words, where it begins)."""
    lines: list[list[tuple[str, str, float]]] = [[]]
    x = MARGIN_MM
    for source in sources:
        words = wrapped(source + (" (reference)" if source == reference else ""), width_mm / 3, max_lines=1)[0]
        wide = 4.0 + text_width(words)
        if lines[-1] and x + wide > width_mm - MARGIN_MM:
            lines.append([])
            x = MARGIN_MM
        lines[-1].append((source, words, x))
        x += wide + _LEGEND_GAP_MM
    return lines


def _draw_legend(page: Page, lines: list[list[tuple[str, str, float]]], marks: Marks) -> None:
    from matplotlib.lines import Line2D

    for slot, line in enumerate(lines):
        y = page.top + (slot + 0.5) * LINE_MM
        for source, words, x in line:
            marker, colour = marks[source]
            mark = Line2D(
                [(x + 1.2) / page.width],
                [1.0 - y / page.height],
                marker=marker,
                color=colour,
                markersize=4.0,
                linestyle="none",
                transform=page.figure.transFigure,
            )
            page.figure.add_artist(mark)
            page.text(x + 3.4, y, words)


def _draw_panel(
    axes: Axes,
    part: pd.DataFrame,
    metric: str,
    labels: list[str],
    marks: Marks,
    centres: list[float],
    ends: np.ndarray[tuple[int], np.dtype[np.float64]],
    panel_mm: float,
) -> None:
    axis = _AXES[metric]
    low, high = _limits(part, axis)
    axes.set_xlim(low, high)
    axes.set_ylim(float(ends[-1]), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ticks_along(axes, panel_mm)
    if axis.null is not None:
        axes.axvline(axis.null, color=INK, linewidth=0.7, zorder=1)
    for end in ends[:-1]:
        axes.axhline(float(end), color=RULE, linewidth=0.4, zorder=0.5)
    records = {(record["label"], record["source"]): record for record in part.to_dict("records")}
    for label, centre in zip(labels, centres, strict=True):
        for index, (source, (marker, colour)) in enumerate(marks.items()):
            record = records.get((label, source))
            if record is None or not math.isfinite(record["value"]):
                continue
            y = centre + (index - (len(marks) - 1) / 2) * _STEP_MM
            if math.isfinite(record["low"]) and math.isfinite(record["high"]):
                ends_x = [max(record["low"], low), min(record["high"], high)]
                axes.plot(ends_x, [y, y], color=colour, linewidth=0.9, solid_capstyle="butt", zorder=2)
            axes.plot(
                [record["value"]],
                [y],
                marker=marker,
                markersize=3.6,
                markeredgewidth=0.9,
                color=colour,
                markerfacecolor=colour if record["reliable"] else "white",
                clip_on=False,
                zorder=3,
            )


def _limits(part: pd.DataFrame, axis: _Axis) -> tuple[float, float]:
    """Return limits that hold the axis's own, every value and every reliable interval."""
    trusted = part[part["reliable"]]
    ends = [*axis.limits, *part["value"], *trusted["low"], *trusted["high"]]
    finite = [end for end in ends if math.isfinite(end)]
    low, high = min(finite), max(finite)
    margin = 0.02 * (high - low)
    return low - margin, high + margin
