"""Methods of a calibration sweep: every draw, the mean with its interval, beside zero-shot; and ablations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

METRIC_WORDS = {"accuracy": "Accuracy", "auroc": "Mean AUROC over labels", "ece": "ECE"}
ZERO_SHOT = "zero-shot"
DOTS = "#8FB8D6"
"""Draws: paler than the mean in colour and in grey."""

_ROW_MM = 5.6
_GAP_MM = 6.0
_AXIS_MM = 10.0
_PANEL_MM = 30.0
_ESTIMATES = ("value", "low", "high")


def methods_figure(
    estimates: pd.DataFrame,
    draws: pd.DataFrame,
    *,
    main: tuple[str, str],
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a row for each method: calibration error on the left, accuracy or AUROC on the right.

    Args:
        estimates: `method`, `scope`, `metric`, `value`, `low`, `high`; a row a method, scope and metric.
        draws: `method`, `draw`, `scope`, `metric`, `value`; draw -1 for what does not depend on it.
        main: scope and name of the right panel's metric.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table or missing columns.
    """
    means = checked_table(
        estimates, "estimates", text=("method", "scope", "metric"), numeric=_ESTIMATES,
        key=("method", "scope", "metric"),
    )  # fmt: skip
    points = checked_table(draws, "draws", text=("method", "scope", "metric"), numeric=("draw", "value"))
    names = list(means["method"].unique())
    reading = (
        "Diamonds: mean over few-shot draws with its 95 % interval over draws and patients; pale points below: each "
        "draw. Black: the same for every draw. Dashed: zero-shot."
    )
    with style():
        return _draw_methods(means, points, names, main, title, " ".join(filter(None, (reading, note))), width_mm)


def _draw_methods(
    means: pd.DataFrame,
    points: pd.DataFrame,
    names: list[str],
    main: tuple[str, str],
    title: str | None,
    note: str,
    width_mm: float,
) -> Figure:
    names_mm = min(max(text_width(plain(name)) for name in names) + 2.0, width_mm / 3)
    panel_mm = (width_mm - 2 * MARGIN_MM - names_mm - _GAP_MM - 3.0) / 2
    height = len(names) * _ROW_MM
    description = f"Calibration error and {METRIC_WORDS[main[1]]} of {len(names)} methods: {', '.join(names)}."
    page = new_page(width_mm, height + _AXIS_MM, title=title, note=note, description=description)
    for row, name in enumerate(names):
        middle = page.top + (row + 0.5) * _ROW_MM
        page.text(MARGIN_MM, middle, wrapped(plain(name), names_mm, max_lines=1)[0], color=INK)
    for column, (scope, metric) in enumerate((("pooled", "ece"), main)):
        left = MARGIN_MM + names_mm + column * (panel_mm + _GAP_MM)
        axes = page.axes(left, page.top, panel_mm, height)
        mine = means[(means["scope"] == scope) & (means["metric"] == metric)].set_index("method")
        cloud = points[(points["scope"] == scope) & (points["metric"] == metric)]
        _draw_rows(axes, mine, cloud, names)
        ticks_along(axes, panel_mm)
        better = "larger is better" if column else "smaller is better"
        words = wrapped(f"{METRIC_WORDS[metric]} ({better})", panel_mm, max_lines=1)[0]
        page.text(left + panel_mm / 2, page.top + height + _AXIS_MM - LINE_MM / 2, words, ha="center", color=INK)
    return page.figure


def _draw_rows(axes: Axes, means: pd.DataFrame, cloud: pd.DataFrame, names: list[str]) -> None:
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color=RULE, linewidth=0.4, zorder=0)
    if ZERO_SHOT in means.index:
        axes.axvline(float(means["value"][ZERO_SHOT]), color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    for row, name in enumerate(names):
        if name not in means.index:
            continue
        values = cloud.loc[(cloud["method"] == name) & (cloud["draw"] >= 0), "value"].to_numpy()
        # Draws lie below the mean in a fixed pattern, so that equal values stay apart.
        lift = 0.1 + 0.09 * (np.arange(len(values)) % 4)
        axes.scatter(values, row + lift, s=5.0, color=DOTS, linewidths=0, zorder=2)
        found = means.loc[name]
        colour = BLUE if len(values) else INK
        axes.plot([found["low"], found["high"]], [row - 0.16, row - 0.16], color=colour, linewidth=1.4, zorder=3)
        axes.plot(found["value"], row - 0.16, "D", color=colour, markersize=3.6, markeredgecolor="white",
                  markeredgewidth=0.5, zorder=4)  # fmt: skip
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    values = np.concatenate([means[["low", "high"]].to_numpy().ravel(), cloud["value"].to_numpy()])
    _limits(axes, values[np.isfinite(values)], upwards=False)


def ablation_figure(
    table: pd.DataFrame,
    *,
    what: str,
    main: tuple[str, str],
    published: pd.DataFrame | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a column for each method: calibration error above, accuracy or AUROC below, by shots or context vectors.

    Args:
        table: `method`, `scope`, `metric`, `value`, `low`, `high`, and a column of the values varied, named `what`.
        what: `shots` or `context`.
        main: scope and name of the lower panels' metric.
        published: `method`, `metric`, `value` and a column named `what`: values read off a published figure.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(
        table, "estimates", text=("method", "scope", "metric"), numeric=(what, *_ESTIMATES),
        key=("method", "scope", "metric", what),
    )  # fmt: skip
    names = [name for name in rows["method"].unique() if name != ZERO_SHOT]
    reading = "Points: mean over draws with its 95 % interval over draws and patients. Orange, dashed: zero-shot."
    theirs = None
    if published is not None and len(published):
        theirs = checked_table(published, "published values", text=("method", "metric"), numeric=(what, "value"))
        reading += " Crosses: published values of one seed, read off the figure."
    with style():
        return _draw_ablation(rows, theirs, names, what, main, title, " ".join(filter(None, (reading, note))), width_mm)


def _draw_ablation(
    rows: pd.DataFrame,
    published: pd.DataFrame | None,
    names: Sequence[str],
    what: str,
    main: tuple[str, str],
    title: str | None,
    note: str,
    width_mm: float,
) -> Figure:
    left_mm, gap = 17.0, 2.5
    per_band = min(len(names), 6)
    side = (width_mm - 2 * MARGIN_MM - left_mm - (per_band - 1) * gap) / per_band
    heads = {name: wrapped(plain(name), side, bold=True, max_lines=3) for name in names}
    head_mm = max(len(lines) for lines in heads.values()) * LINE_MM + 1.0
    band_mm = head_mm + 2 * _PANEL_MM + 3.0 + _AXIS_MM
    bands = -(-len(names) // per_band)
    words = {"shots": "images of each class", "context": "context vectors"}[what]
    description = f"Calibration error and {METRIC_WORDS[main[1]]} by {words} of {', '.join(names)}."
    page = new_page(width_mm, bands * band_mm, title=title, note=note, description=description)
    metrics = (("pooled", "ece"), main)
    theirs = rows.iloc[:0] if published is None else published
    places = {value: place for place, value in enumerate(sorted({*rows[what], *theirs[what]}))}
    for index, name in enumerate(names):
        band, column = divmod(index, per_band)
        x, y = MARGIN_MM + left_mm + column * (side + gap), page.top + band * band_mm
        page.lines(x, y + LINE_MM / 2, heads[name], fontweight="bold", color=INK)
        for line, (scope, metric) in enumerate(metrics):
            of_metric = rows[(rows["scope"] == scope) & (rows["metric"] == metric)]
            top = y + head_mm + line * (_PANEL_MM + 3.0)
            axes = page.axes(x, top, side, _PANEL_MM)
            _draw_line(axes, of_metric, theirs[theirs["metric"] == metric], name, places, what, side)
            ticks_along(axes, _PANEL_MM, upwards=True)
            axes.tick_params(labelleft=column == 0, labelbottom=line == 1)
            if column == 0:
                _name_axis(page, top, {"ece": "ECE", "auroc": "Mean AUROC"}.get(metric, METRIC_WORDS[metric]))
        page.text(x + side / 2, y + band_mm - LINE_MM, _capital(what), ha="center", color=INK)
    return page.figure


def _draw_line(
    axes: Axes,
    table: pd.DataFrame,
    published: pd.DataFrame,
    name: str,
    places: Mapping[float, int],
    what: str,
    side_mm: float,
) -> None:
    mine = table[table["method"] == name].sort_values(what)
    base = table[table["method"] == ZERO_SHOT].sort_values(what)
    theirs = published[published["method"] == name].sort_values(what)
    at = [places[value] for value in mine[what]]
    if len(base):
        axes.axhline(float(base["value"].iloc[0]), color=ORANGE, linewidth=1.0, linestyle=(0, (3, 2)), zorder=1)
    reach = np.stack([mine["value"] - mine["low"], mine["high"] - mine["value"]])
    axes.errorbar(at, mine["value"], yerr=np.maximum(reach, 0), fmt="o-", color=BLUE, markersize=3.2, linewidth=1.0,
                  elinewidth=1.1, zorder=2)  # fmt: skip
    axes.plot([places[value] for value in theirs[what]], theirs["value"], "x:", color=INK, markersize=3.8,
              linewidth=0.8, zorder=3)  # fmt: skip
    axes.set_xticks(list(places.values()))
    axes.set_xticklabels(_every_nth([f"{value:g}" for value in places], side_mm))
    axes.set_xlim(-0.4, len(places) - 0.6)
    values = np.concatenate([table[["low", "high"]].to_numpy().ravel(), published["value"].to_numpy()])
    _limits(axes, values[np.isfinite(values)], upwards=True)


def _every_nth(words: Sequence[str], length_mm: float) -> list[str]:
    """Return tick labels with so many blanks between them that they stay apart."""
    pitch = length_mm / len(words)
    step = max(1, math.ceil((max(map(text_width, words)) + 1.0) / pitch))
    return [word if (len(words) - 1 - place) % step == 0 else "" for place, word in enumerate(words)]


def _name_axis(page: Page, top: float, words: str) -> None:
    page.figure.text(
        (MARGIN_MM + LINE_MM / 2) / page.width,
        1.0 - (top + _PANEL_MM / 2) / page.height,
        words,
        rotation=90,
        ha="center",
        va="center",
        color=INK,
    )


def _limits(axes: Axes, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], *, upwards: bool) -> None:
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or 0.01
    (axes.set_ylim if upwards else axes.set_xlim)(low - room, high + room)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
