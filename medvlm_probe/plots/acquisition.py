"""What acquisition does: each label over the severity of each transform, and what explains a distance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    OVERLAY,
    PALE,
    RULE,
    Page,
    checked_table,
    new_page,
    one_of,
    plain,
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

METRICS = {
    "score_shift": "Change of the score, in standard deviations",
    "flagged": "Share of images flagged",
    "recall": "Recall",
    "specificity": "Specificity",
    "auroc": "AUROC",
    "recall_change": "Change of recall",
    "auroc_change": "Change of AUROC",
}
"""What the curves can show, and what their axis says."""

TOO_FEW = 10
"""Curves of recall and AUROC of labels with fewer positives are not drawn."""

_BY_POSITIVES = ("recall", "auroc", "recall_change", "auroc_change")
_CHANGES = ("score_shift", "recall_change", "auroc_change")
_OTHERS = "#BDBDBD"
_MARKS = ("o", "s", "D")
_LEFT_MM, _GAP_MM, _BAND_GAP_MM, _PANEL_MM, _BELOW_MM = 14.0, 5.0, 3.0, 27.0, 9.0
_ROW_MM, _NAMES_MM, _NUMBERS_MM, _FARTHEST = 5.2, 62.0, 34.0, -0.5


def acquisition_curves(
    table: pd.DataFrame,
    *,
    metric: str = "auroc",
    highlighted: Sequence[str] | None = None,
    labels_words: Mapping[str, str] | None = None,
    transform_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for each transform: a metric of each label over the levels, the untouched images among them.

    Recall and AUROC are drawn of labels with at least ten positives; the note counts the others.

    Args:
        table: `transform`, `level`, `unit`, `severity`, `label`, `metric`, `value`, `low`, `high`, and where it is
            known `n_positive`.
        metric: of `METRICS`; the table's other rows are not drawn.
        highlighted: up to three labels drawn in colour with their intervals; None takes those that change most.
        labels_words: label to how it is shown.
        transform_words: transform to what stands above its panel.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        UnknownNameError: another metric.
        InputError: no row of it, or of labels with enough positives, missing columns, or more than three labels to
            highlight.
    """
    one_of("metric", metric, tuple(METRICS))
    rows = checked_table(
        table,
        "acquisition curves",
        text=("transform", "unit", "label", "metric"),
        numeric=("level", "severity", "value", "low", "high"),
        optional_numeric=("n_positive",),
    )
    given = rows[rows["metric"] == metric]
    if not len(given):
        raise InputError(f"The table of acquisition curves has no rows of '{metric}', so there is nothing to draw.")
    rows = drawable(rows, metric)
    if not len(rows):
        raise InputError(f"No label has {TOO_FEW} positives, so no curve of '{metric}' can be drawn.")
    if n_few := given["label"].nunique() - rows["label"].nunique():
        words = f"Labels with fewer than {TOO_FEW} positives, not drawn: {n_few}."
        note = " ".join([words, *([note] if note else [])])
    chosen = most_changed(rows) if highlighted is None else tuple(highlighted)
    if len(chosen) > len(OVERLAY):
        raise InputError(f"{len(chosen)} labels to highlight: at most {len(OVERLAY)} can be told apart.")
    with style():
        return _draw_curves(rows, metric, chosen, labels_words, transform_words or {}, title, note, width_mm)


def drawable(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of a metric whose labels have enough positives for it."""
    rows = table[table["metric"] == metric]
    if metric in _BY_POSITIVES and "n_positive" in rows:
        rows = rows[rows["n_positive"] >= TOO_FEW]
    return rows


def most_changed(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the three labels whose metric strays farthest from that of the untouched images, averaged over levels."""
    untouched = rows[rows["severity"] == 0].drop_duplicates("label").set_index("label")["value"]
    moved = rows[rows["severity"] != 0]
    strayed = (moved["value"] - moved["label"].map(untouched)).abs().groupby(moved["label"]).mean().dropna()
    return tuple(str(label) for label in strayed.sort_values(ascending=False, kind="stable").index[: len(OVERLAY)])


def _draw_curves(
    rows: pd.DataFrame,
    metric: str,
    chosen: tuple[str, ...],
    labels_words: Mapping[str, str] | None,
    transform_words: Mapping[str, str],
    title: str | None,
    note: str | None,
    width_mm: float,
) -> Figure:
    transforms = [str(name) for name in rows["transform"].unique()]
    most = 4 if width_mm > 120.0 else 2
    columns = min(most, len(transforms))
    bands = math.ceil(len(transforms) / columns)
    left = MARGIN_MM + _LEFT_MM
    panel = (width_mm - MARGIN_MM - 1.0 - left - (columns - 1) * _GAP_MM) / columns
    heads = [wrapped(_begun(transform_words.get(name, name)), panel, bold=True, max_lines=2) for name in transforms]
    head_mm = max(len(head) for head in heads) * LINE_MM + 0.8
    band_mm = head_mm + _PANEL_MM + _BELOW_MM
    words = [shown(label, labels_words) for label in chosen]
    n_others = rows["label"].nunique() - len(chosen)
    keys = [*words, *([f"{n_others} other labels" if n_others > 1 else "The other label"] if n_others else [])]
    key_rows = _key_rows(keys, width_mm - left - MARGIN_MM)
    key_mm = len(key_rows) * LINE_MM + 1.5
    aids = "Bars: 95 % intervals. The tick – is the untouched images."
    page = new_page(
        width_mm,
        key_mm + bands * band_mm + (bands - 1) * _BAND_GAP_MM,
        title=title,
        note=" ".join([aids, *([plain(note)] if note else [])]),
        description=f"{METRICS[metric]} of {', '.join(words)} over the levels of {', '.join(transforms)}.",
    )
    _draw_key(page, left, key_rows, len(chosen))
    low, high = _limits(rows, metric, chosen)
    for index, (name, head) in enumerate(zip(transforms, heads, strict=True)):
        band, column = divmod(index, columns)
        x = left + column * (panel + _GAP_MM)
        y = page.top + key_mm + band * (band_mm + _BAND_GAP_MM)
        page.lines(x, y + head_mm - 0.8 - (len(head) - 0.5) * LINE_MM, head, fontweight="bold")
        axes = page.axes(x, y + head_mm, panel, _PANEL_MM)
        axes.set_ylim(low, high)
        ticks_along(axes, _PANEL_MM, upwards=True)
        axes.tick_params(labelleft=column == 0)
        mine = rows[rows["transform"] == name]
        _draw_panel(axes, mine, metric, chosen, panel)
        unit = wrapped(str(mine["unit"].iloc[0]), panel, max_lines=1)[0]
        page.text(
            x + panel / 2, y + head_mm + _PANEL_MM + _BELOW_MM - LINE_MM / 2 - 0.6, unit, ha="center", color=MUTED
        )
    page.figure.text(
        (MARGIN_MM + LINE_MM / 2) / page.width,
        1.0 - (page.top + key_mm + (bands * band_mm) / 2) / page.height,
        METRICS[metric],
        rotation=90,
        ha="center",
        va="center",
    )
    return page.figure


def _key_rows(keys: Sequence[str], room: float) -> list[list[tuple[float, str]]]:
    """Return the key's lines: each entry with its place from the left, in millimetres."""
    lines: list[list[tuple[float, str]]] = [[]]
    x = 0.0
    for key in keys:
        wide = 12.0 + text_width(key)
        if x + wide > room and lines[-1]:
            lines.append([])
            x = 0.0
        lines[-1].append((x, wrapped(key, room - 9.0, max_lines=1)[0]))
        x += wide
    return lines


def _draw_key(page: Page, left: float, lines: Sequence[Sequence[tuple[float, str]]], n_chosen: int) -> None:
    number = 0
    for row, line in enumerate(lines):
        y = page.top + (row + 0.5) * LINE_MM
        for x, words in line:
            axes = page.axes(left + x, y - 1.2, 7.0, 2.4)
            axes.axis("off")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            if number < n_chosen:
                axes.plot([0, 1], [0.5, 0.5], color=OVERLAY[number], linewidth=1.3)
                axes.plot([0.5], [0.5], color=OVERLAY[number], marker=_MARKS[number], markersize=3.6)
            else:
                axes.plot([0, 1], [0.5, 0.5], color=_OTHERS, linewidth=0.8)
            page.text(left + x + 8.0, y, words)
            number += 1


def _limits(rows: pd.DataFrame, metric: str, chosen: Sequence[str]) -> tuple[float, float]:
    """Return one scale for all panels, around every curve and the intervals of those in colour."""
    bright = rows[rows["label"].isin(chosen)]
    values = [*rows["value"], *bright["low"], *bright["high"]]
    known = [float(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if metric in _CHANGES:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _draw_panel(axes: Axes, mine: pd.DataFrame, metric: str, chosen: Sequence[str], panel_mm: float) -> None:
    places = mine.drop_duplicates("severity").sort_values("severity")
    first, last = float(places["severity"].min()), float(places["severity"].max())
    axes.set_xlim(first - 0.4, last + 0.4)
    axes.set_xticks(places["severity"].tolist(), _ticks(places, panel_mm / (last - first + 0.8)))
    axes.axvline(0, color=RULE, linewidth=0.5, zorder=0)
    if metric in _CHANGES:
        axes.axhline(0, color=INK, linewidth=0.5, zorder=1)
    for label in mine["label"].unique():
        if label not in chosen:
            curve = mine[mine["label"] == label].sort_values("severity")
            axes.plot(curve["severity"], curve["value"], color=_OTHERS, linewidth=0.7, zorder=2)
    for number, label in enumerate(chosen):
        curve = mine[mine["label"] == label].sort_values("severity")
        aside = (number - (len(chosen) - 1) / 2) * 0.12
        x = curve["severity"] + aside
        axes.vlines(x, curve["low"], curve["high"], color=OVERLAY[number], linewidth=0.7, zorder=3)
        axes.plot(
            x, curve["value"], color=OVERLAY[number], linewidth=1.2, marker=_MARKS[number], markersize=3.0, zorder=4
        )


def _begun(words: str) -> str:
    """Return words as a heading: the first letter is a capital."""
    return shown(words, None)


def _ticks(places: pd.DataFrame, step_mm: float) -> list[str]:
    """Return the levels as tick labels, a dash for the untouched images; every second one where they would touch."""
    words = [
        "–" if severity == 0 else f"{level:g}".replace("-", "\u2212")
        for severity, level in zip(places["severity"], places["level"], strict=True)
    ]
    widths = [text_width(word) for word in words]
    if all((one + other) / 2 + 1.5 <= step_mm for one, other in pairwise(widths)):
        return words
    return [word if (len(words) - place) % 2 or word == "–" else "" for place, word in enumerate(words)]


def shares_explained(
    transforms: pd.DataFrame,
    parts: pd.DataFrame,
    *,
    chance: float,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw how much of a site's distance each transform explains, above what the cross-fitted choices explain.

    Args:
        transforms: `words`, `value`, `low`, `high`, a row a transform, in the order to draw them.
        parts: the same of the transform chosen on other patients, of another mix of patients, of both.
        chance: the share that the search finds by chance, shaded.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or more.

    Raises:
        InputError: an empty table or missing columns.
    """
    upper, lower = (
        checked_table(table, what, text=("words",), numeric=("value", "low", "high"))
        for table, what in ((parts, "parts"), (transforms, "transforms"))
    )
    with style():
        return _draw_shares(upper, lower, chance, title, note, width_mm)


def _draw_shares(
    upper: pd.DataFrame, lower: pd.DataFrame, chance: float, title: str | None, note: str | None, width_mm: float
) -> Figure:
    heads = (
        "Chosen on half of the patients, measured on the other",
        "Each transform at its closest level, all patients",
    )
    body = (len(upper) + len(lower) + 2) * _ROW_MM + 2.0 + 2 * LINE_MM + 4.0
    aids = ["Bars: 95 % intervals. An arrow: the share lies farther left, so the transform leads away from the site."]
    if chance > 0:
        aids.append("Grey: what the same search finds by chance, with half of the reference as the site.")
    page = new_page(
        width_mm,
        body,
        title=title,
        note=" ".join([*aids, *([plain(note)] if note else [])]),
        description=f"Share of the squared MMD explained by {', '.join([*upper['words'], *lower['words']])}.",
    )
    left, room = MARGIN_MM + _NAMES_MM, width_mm - 2 * MARGIN_MM - _NAMES_MM - _NUMBERS_MM
    y = page.top
    for head, rows in zip(heads, (upper, lower), strict=True):
        page.text(MARGIN_MM, y + _ROW_MM / 2, head, fontweight="bold")
        y += _ROW_MM
        height = len(rows) * _ROW_MM
        axes = page.axes(left, y, room, height)
        axes.set_xlim(_FARTHEST, 1.05)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.axvspan(0, max(chance, 0), color=PALE, linewidth=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.5, zorder=1)
        for place, record in enumerate(rows.to_dict("records")):
            _draw_row(axes, place, float(record["value"]), float(record["low"]), float(record["high"]))
            middle = y + (place + 0.5) * _ROW_MM
            page.text(MARGIN_MM, middle, wrapped(_begun(str(record["words"])), _NAMES_MM - 2.0, max_lines=1)[0])
            numbers = value_words(record["value"], record["low"], record["high"], 2)
            page.text(width_mm - MARGIN_MM, middle, numbers, ha="right")
        y += height
        if rows is upper:
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            y += 2.0
        else:
            ticks_along(axes, room)
    page.text(left + room / 2, y + LINE_MM + 3.5, "Share of the squared MMD explained", ha="center")
    return page.figure


def _draw_row(axes: Axes, place: int, value: float, low: float, high: float) -> None:
    ends = [max(low, _FARTHEST), min(high, 1.05)]
    if ends[1] > ends[0]:
        axes.plot(ends, [place, place], color=BLUE, linewidth=1.2, solid_capstyle="butt", zorder=2)
    if value >= _FARTHEST:
        axes.plot([value], [place], color=BLUE, marker="o", markersize=3.6, zorder=3)
    elif math.isfinite(value):
        axes.plot([_FARTHEST + 0.015], [place], color=BLUE, marker="<", markersize=4.0, zorder=3)
