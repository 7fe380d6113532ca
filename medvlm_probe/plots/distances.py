"""Distances between embeddings as figures: their distributions label by label, and their contrasts as a forest plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from medvlm_probe.plots.distance_rows import KINDS, Kind, Row, check_bins, common_limits, full_height, is_cut, label_row
from medvlm_probe.plots.intervals import IntervalAxis, interval_figure
from medvlm_probe.plots.style import (
    DOUBLE_COLUMN_MM,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    RULE,
    Page,
    bare,
    checked_table,
    decimals_for,
    new_page,
    one_of,
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


_SPACES = {
    "l2": "Euclidean distance between L2-normalised embeddings of two images",
    "raw": "Euclidean distance between raw embeddings of two images",
}
_GAP_MM = 3.0
_VALUES_HEAD = "mean [95 % interval]"
_WARNING = "#A33F00"


def distance_distributions(
    histogram: pd.DataFrame,
    estimates: pd.DataFrame,
    *,
    space: Literal["l2", "raw"] = "l2",
    labels_words: Mapping[str, str] | None = None,
    too_few: int = 10,
    group_words: str = "groups",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw, label by label, how far apart two positive, two negative, and a positive and a negative image lie.

    Each row holds three curves of area 1 over a common axis, and under them the mean of each with its interval, marked
    and in numbers. Means whose interval is unreliable have open marks and dashed whiskers. The figure is 180 mm wide
    and about 18 to 27 mm high for each label.

    Args:
        histogram: `label`, `kind` (`intra_positive`, `intra_negative`, `inter`), `left`, `right` (the bin's edges, in
            the unit of the distance), `density` (per unit of distance). A label or kind without rows has no curve.
        estimates: `label`, `kind`, `value`, `low`, `high`, and where they are known `n` (images: the positives for
            `intra_positive`, the negatives for `intra_negative`), `n_groups`, `reliable` (bool). One row for each label
            and kind; labels are drawn in the order of this table. NaN where undefined.
        space: which vectors were compared, for the axis.
        labels_words: label to the words that people read; the rest are turned into words.
        too_few: labels with fewer positives than this are marked "too few positives".
        group_words: what `n_groups` counts, in the plural (`"patients"`).
        title: a line above the figure.
        note: small print below it.

    Raises:
        InputError: an empty table, missing columns, a repeated label and kind, or a bin without width.
        UnknownNameError: an unknown kind or space.
    """
    one_of("space", space, tuple(_SPACES))
    bins = checked_table(histogram, "histograms", text=("label", "kind"), numeric=("left", "right", "density"))
    marks = checked_table(
        estimates,
        "estimates",
        text=("label", "kind"),
        numeric=("value", "low", "high"),
        optional_numeric=("n", "n_groups"),
        flag="reliable",
        key=("label", "kind"),
    )
    for kind in (*bins["kind"].unique(), *marks["kind"].unique()):
        one_of("kind of distance", kind, tuple(KINDS))
    check_bins(bins)
    rows = [
        label_row(
            bins[bins["label"] == label],
            marks[marks["label"] == label],
            shown(label, labels_words),
            too_few=too_few,
            group_words=group_words,
        )
        for label in marks["label"].unique()
    ]
    limits = common_limits(rows)
    with style():
        return _draw(rows, limits, axis_label=_SPACES[space], title=title, note=note)


def _draw(
    rows: list[Row], limits: tuple[float, float], *, axis_label: str, title: str | None, note: str | None
) -> Figure:
    decimals = decimals_for([mark[1:3] for row in rows for mark in row.estimates.values()], limits[1] - limits[0])
    layout = _Layout.of(rows, decimals)
    caption = wrapped(axis_label, DOUBLE_COLUMN_MM - 2 * MARGIN_MM)
    page = new_page(
        DOUBLE_COLUMN_MM,
        LINE_MM + 1.0 + sum(layout.heights) + 6.0 + len(caption) * LINE_MM,
        title=title,
        note=" ".join([*_reading_aids(rows), *([note] if note else [])]),
        description=f"Distributions of the {axis_label}, for {len(rows)} label{'s' if len(rows) > 1 else ''}.",
    )
    page.text(layout.words_left, page.top + LINE_MM / 2, "Distance between", color=MUTED)
    page.text(layout.values_left, page.top + LINE_MM / 2, _VALUES_HEAD, color=MUTED)
    plots_top = top = page.top + LINE_MM + 1.0
    _draw_axis(page, layout, plots_top, limits)
    for row, height in zip(rows, layout.heights, strict=True):
        if top > plots_top:
            page.rule(top)
        _draw_row(page, layout, row, top, height, limits, decimals)
        top += height
    half = text_width(axis_label) / 2
    centre = min(max(layout.plot_left + layout.plot_mm / 2, MARGIN_MM + half), DOUBLE_COLUMN_MM - MARGIN_MM - half)
    for index, line in enumerate(caption):
        page.text(centre, top + 6.0 + (index + 0.5) * LINE_MM, line, ha="center")
    return page.figure


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in millimetres; `pitch` is the distance between two marks."""

    plot_left: float
    plot_mm: float
    words_left: float
    values_left: float
    heights: list[float]
    curve_mm: float
    pitch: float
    separation: float

    @classmethod
    def of(cls, rows: list[Row], decimals: int) -> _Layout:
        """Return the layout that the rows' words and numbers leave room for: the more rows, the lower each."""
        values = [value_words(*mark[:3], decimals) for row in rows for mark in row.estimates.values()]
        headers = [text_width(line, bold=True) for row in rows for line in (*row.name, *row.warnings)]
        headers += [text_width(line) for row in rows for line in row.counts]
        words_mm = max(*(text_width(kind.words) for kind in KINDS.values()), text_width("Distance between") - 4.8) + 6.8
        values_mm = max(text_width(value) for value in [*values, _VALUES_HEAD])
        header_mm = max(headers)
        plot_mm = DOUBLE_COLUMN_MM - 2 * MARGIN_MM - header_mm - words_mm - values_mm - 2 * _GAP_MM
        plot_left = MARGIN_MM + header_mm + _GAP_MM
        words_left = plot_left + plot_mm + _GAP_MM
        curve_mm = float(np.interp(len(rows), [2, 12], [16.0, 6.0]))
        pitch = float(np.interp(len(rows), [6, 12], [LINE_MM, 3.1]))
        separation = float(np.interp(len(rows), [2, 12], [3.0, 1.0]))
        least = curve_mm + len(KINDS) * pitch
        lines = [len(row.name) + len(row.counts) + len(row.warnings) for row in rows]
        heights = [max(least, n_lines * LINE_MM + 0.8) + separation for n_lines in lines]
        return cls(plot_left, plot_mm, words_left, words_left + words_mm, heights, curve_mm, pitch, separation)


def _draw_row(
    page: Page,
    layout: _Layout,
    row: Row,
    top: float,
    height: float,
    limits: tuple[float, float],
    decimals: int,
) -> None:
    marks_mm = len(KINDS) * layout.pitch
    tall = height - layout.separation - marks_mm
    axes = page.axes(layout.plot_left, top, layout.plot_mm, height)
    bare(axes)
    axes.patch.set_visible(False)
    axes.set_xlim(limits)
    axes.set_ylim(-marks_mm - layout.separation, tall)
    _draw_curves(axes, row, min(tall, layout.curve_mm) - 0.8)
    for slot, (kind, mark) in enumerate(row.estimates.items()):
        depth = (slot + 0.5) * layout.pitch
        _draw_mark(axes, mark, KINDS[kind], -depth, limits)
        _draw_key(page, layout.words_left, top + tall + depth, kind)
        page.text(layout.values_left, top + tall + depth, value_words(*mark[:3], decimals))
    y = top + LINE_MM / 2 + 0.5
    page.lines(MARGIN_MM, y, row.name, fontweight="bold")
    y += len(row.name) * LINE_MM
    page.lines(MARGIN_MM, y, row.counts, color=MUTED)
    y += len(row.counts) * LINE_MM
    page.lines(MARGIN_MM, y, row.warnings, color=_WARNING, fontweight="bold")


def _reading_aids(rows: list[Row]) -> list[str]:
    aids = ["Curves have area 1."]
    if any(is_cut(row) for row in rows):
        aids = ["Curves have area 1; a peak higher than its row is cut."]
    if any(not reliable for row in rows for *_, reliable in row.estimates.values()):
        aids.append("Open marks and dashed whiskers: interval unreliable.")
    return aids


def _draw_curves(axes: Axes, row: Row, height_mm: float) -> None:
    scale = height_mm / (full_height(row) or 1.0)
    for name, (x, y) in row.curves.items():
        kind = KINDS[name]
        y_mm = np.minimum(y * scale, height_mm)
        if kind.fill:
            axes.fill_between(x, y_mm, 0.0, color=kind.fill, alpha=0.75, linewidth=0.0, zorder=kind.order)
        else:
            axes.plot(x, y_mm, color=kind.colour, linewidth=kind.line_width, zorder=kind.order)
    axes.axhline(0.0, color=MUTED, linewidth=0.5, zorder=5)


def _draw_mark(
    axes: Axes, mark: tuple[float, float, float, bool], kind: Kind, y: float, limits: tuple[float, float]
) -> None:
    value, low, high, reliable = mark
    if not np.isfinite(value):
        return
    if np.isfinite(low) and np.isfinite(high):
        axes.plot(
            [max(low, limits[0]), min(high, limits[1])],
            [y, y],
            color=kind.colour,
            linewidth=1.1,
            linestyle="-" if reliable else (0, (2.0, 1.5)),
            solid_capstyle="butt",
            zorder=6,
        )
        for end, beyond, arrow in ((low, low < limits[0], "<"), (high, high > limits[1], ">")):
            axes.plot(
                [min(max(end, limits[0]), limits[1])],
                [y],
                marker=arrow if beyond else "|",
                markersize=3.5,
                color=kind.colour,
                clip_on=False,
                zorder=6,
            )
    axes.plot(
        [value],
        [y],
        marker=kind.marker,
        markersize=3.6,
        markeredgewidth=0.9,
        color=kind.colour,
        markerfacecolor=kind.colour if reliable else "white",
        zorder=7,
    )


def _draw_key(page: Page, left: float, y: float, name: str) -> None:
    """Write a kind's words beside a sample of its curve and its mark: the legend stands in every row."""
    kind = KINDS[name]
    sample = page.axes(left, y - 1.2, 3.8, 2.4)
    sample.set_xlim(0, 1)
    sample.set_ylim(0, 1)
    sample.axis("off")
    if kind.fill:
        sample.fill_between([0, 1], [0.85, 0.85], [0.15, 0.15], color=kind.fill, alpha=0.75, linewidth=0)
    else:
        sample.plot([0, 1], [0.5, 0.5], color=kind.colour, linewidth=kind.line_width)
    sample.plot([0.5], [0.5], marker=kind.marker, markersize=3.2, color=kind.colour, clip_on=False)
    page.text(left + 4.8, y, kind.words)


def _draw_axis(page: Page, layout: _Layout, top: float, limits: tuple[float, float]) -> None:
    """Draw the common axis below all rows, with hairlines through them at its ticks."""
    axes = page.axes(layout.plot_left, top, layout.plot_mm, sum(layout.heights))
    axes.set_xlim(limits)
    axes.set_zorder(-1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ticks_along(axes, layout.plot_mm)
    axes.grid(axis="x", color=RULE, linewidth=0.4)
    axes.set_axisbelow(True)


def distance_forest(
    estimates: pd.DataFrame,
    *,
    quantity: Literal["difference", "ratio"] = "difference",
    labels_words: Mapping[str, str] | None = None,
    sort: bool = True,
    too_few: int = 10,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw one contrast per label, distance between classes against distance within, as a forest plot.

    Filled marks have a reliable interval, open ones with dashed whiskers have not. With a column `site`, each site has
    a panel, all on one axis and in one order of labels.

    Args:
        estimates: `label`, `value`, `low`, `high`, and where they are known `site`, `reliable` (bool), `n_positive`
            (images). One row for each label (and site); NaN where undefined.
        quantity: `"difference"`, distance between classes minus distance within (null 0, in the unit of the distance),
            or `"ratio"`, the one over the other (null 1).
        labels_words: label to the words that people read.
        sort: order labels by value, the largest on top (of the first site, where there are several); else as given.
        too_few: labels with fewer positives than this say so.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table, missing columns, or a repeated label (and site).
        UnknownNameError: an unknown quantity.
    """
    one_of("quantity", quantity, tuple(_CONTRASTS))
    return interval_figure(
        estimates,
        _CONTRASTS[quantity],
        labels_words=labels_words,
        sort=sort,
        too_few=too_few,
        title=title,
        note=note,
        width_mm=width_mm,
    )


_CONTRASTS = {
    "difference": IntervalAxis(
        null=0.0,
        label="Distance between classes minus distance within",
        below="classes mixed",
        above="classes apart",
    ),
    "ratio": IntervalAxis(
        null=1.0,
        label="Distance between classes / distance within",
        below="classes mixed",
        above="classes apart",
    ),
}
