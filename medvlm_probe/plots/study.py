"""The radiology study's figures: recall by label and setting, positives by split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    ORANGE,
    PALE,
    PURPLE,
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

TOO_FEW = 10
SERIES = ((BLUE, "o"), (ORANGE, "s"), ("#000000", "D"), (PURPLE, "^"))
"""Colour and shape of up to four things side by side: apart for colour-blind readers, and in grey by shape."""

_STEP_MM = 2.6
_TICKS_MM = 6.0


def recall_by_setting(
    table: pd.DataFrame,
    *,
    labels_words: Mapping[str, str] | None = None,
    too_few: int = TOO_FEW,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw each label's recall in every setting, with its interval and what calling as often at random would find.

    Args:
        table: `label`, `setting` (up to four, as people read them), `value`, `low`, `high`, `n_positive`, and where
            they are known `reliable` and `chance`: the recall of a rule that calls as many images without looking at
            them, which is the share of images called.
        labels_words: label to the words that people read.
        too_few: labels with fewer positives say so.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table, missing columns, a repeated label and setting, or more than four settings.
    """
    rows = checked_table(
        table,
        "recalls",
        text=("label", "setting"),
        numeric=("value", "low", "high", "n_positive"),
        optional_numeric=("chance",),
        flag="reliable",
        key=("label", "setting"),
    )
    settings = _series(rows["setting"], "settings")
    labels = list(rows["label"].unique())
    with style():
        return _draw_recalls(rows, labels, settings, labels_words, too_few, title, note, width_mm)


def label_counts(
    table: pd.DataFrame,
    *,
    labels_words: Mapping[str, str] | None = None,
    too_few: int = TOO_FEW,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw how many positives each label has in each split, on a logarithmic axis that also has a place for none.

    Args:
        table: `label`, `split` (up to four), `n_positive`.
        labels_words: label to the words that people read.
        too_few: the number below which tables say so; it is shaded.
        title, note, width_mm: as for `recall_by_setting`.

    Raises:
        InputError: an empty table, missing columns, a repeated label and split, or more than four splits.
    """
    rows = checked_table(table, "counts", text=("label", "split"), numeric=("n_positive",), key=("label", "split"))
    splits = _series(rows["split"], "splits")
    with style():
        return _draw_counts(rows, list(rows["label"].unique()), splits, labels_words, too_few, title, note, width_mm)


def _series(column: pd.Series, what: str) -> list[str]:
    names = [str(name) for name in column.unique()]
    if len(names) > len(SERIES):
        raise InputError(f"{len(names)} {what} in one figure: it takes up to {len(SERIES)}. Leave some out.")
    return names


def _key(page: Page, x: float, y: float, names: Sequence[str], limit: float) -> float:
    """Draw marks with their names from `x` on, wrapping at `limit`; returns the height used."""
    left, line = x, 0
    for name, (colour, marker) in zip(names, SERIES, strict=False):
        words = wrapped(name, limit - x - 4.0, max_lines=1)[0]
        width = 4.0 + text_width(words) + 4.0
        if left > x and left + width - 4.0 > limit:
            left, line = x, line + 1
        _sample(page, left, y + line * LINE_MM, colour, marker)
        page.text(left + 4.0, y + line * LINE_MM, words)
        left += width
    return (line + 1) * LINE_MM


def _sample(page: Page, x: float, y: float, colour: str, marker: str) -> None:
    axes = page.axes(x, y - 1.2, 3.0, 2.4)
    axes.axis("off")
    axes.plot([0.5], [0.5], marker=marker, markersize=4.2, color=colour, clip_on=False)


def _named_rows(
    page: Page, labels: Sequence[str], labels_words: Mapping[str, str] | None, room_mm: float, top: float, row_mm: float
) -> None:
    for row, label in enumerate(labels):
        lines = wrapped(shown(label, labels_words), room_mm, max_lines=2)
        page.lines(MARGIN_MM, top + (row + 0.5) * row_mm - (len(lines) - 1) * LINE_MM / 2, lines)


def _names_mm(labels: Sequence[str], labels_words: Mapping[str, str] | None, width_mm: float) -> float:
    room = 46.0 if width_mm > 120.0 else 28.0
    return max(text_width(line) for label in labels for line in wrapped(shown(label, labels_words), room, max_lines=2))


def _bands(axes: Axes, n_rows: int, row_mm: float) -> None:
    """Shade every other row, so that the eye finds the name."""
    for row in range(0, n_rows, 2):
        axes.axhspan(row * row_mm, (row + 1) * row_mm, color=PALE, alpha=0.6, linewidth=0, zorder=0)


def _draw_recalls(
    rows: pd.DataFrame,
    labels: Sequence[str],
    settings: Sequence[str],
    labels_words: Mapping[str, str] | None,
    too_few: int,
    title: str | None,
    note: str | None,
    width_mm: float,
) -> Figure:
    names_mm = _names_mm(labels, labels_words, width_mm)
    row_mm = max(len(settings) * _STEP_MM + 1.6, 2 * LINE_MM + 0.6)
    counts = [f"{int(rows.loc[rows['label'] == label, 'n_positive'].max()):,}" for label in labels]
    few = [float(count.replace(",", "")) < too_few for count in counts]
    words = [count + (", too few" if small else "") for count, small in zip(counts, few, strict=True)]
    counts_mm = max(text_width(text) for text in [*words, "positives"]) + 3.0
    left = MARGIN_MM + names_mm + 2.0
    panel = width_mm - MARGIN_MM - left - counts_mm
    aids = ["Whiskers: 95 % interval; open marks and dashed whiskers: interval unreliable."]
    if "chance" in rows:
        aids.append("Upright ticks: recall of calling as many images at random.")
    lines_of_key = _key_lines(settings, left, width_mm - MARGIN_MM)
    head = lines_of_key * LINE_MM + LINE_MM + 1.0
    page = new_page(
        width_mm,
        head + len(labels) * row_mm + _TICKS_MM + LINE_MM,
        title=title,
        note=" ".join([*aids, *([note] if note else [])]),
        description=f"Recall of {len(labels)} labels in {len(settings)} settings: {', '.join(settings)}.",
    )
    _key(page, left, page.top + LINE_MM / 2, settings, width_mm - MARGIN_MM)
    top = page.top + head
    page.text(left + panel + 3.0, top - LINE_MM / 2 - 0.5, "positives", color=MUTED)
    _named_rows(page, labels, labels_words, names_mm + 0.1, top, row_mm)
    for row, text in enumerate(words):
        page.text(left + panel + 3.0, top + (row + 0.5) * row_mm, text, color=MUTED if few[row] else INK)
    axes = page.axes(left, top, panel, len(labels) * row_mm)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(labels) * row_mm, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ticks_along(axes, panel)
    _bands(axes, len(labels), row_mm)
    for record in rows.to_dict("records"):
        place = settings.index(record["setting"])
        centre = (labels.index(record["label"]) + 0.5) * row_mm
        y = centre + (place - (len(settings) - 1) / 2) * _STEP_MM
        _draw_recall(axes, record, y, *SERIES[place])
    page.text(left + panel / 2, top + len(labels) * row_mm + _TICKS_MM + LINE_MM / 2 - 0.5, "Recall", ha="center")
    return page.figure


def _key_lines(names: Sequence[str], x: float, limit: float) -> int:
    left, lines = x, 1
    for name in names:
        width = 8.0 + text_width(wrapped(name, limit - x - 4.0, max_lines=1)[0])
        if left > x and left + width - 4.0 > limit:
            left, lines = x, lines + 1
        left += width
    return lines


def _draw_recall(axes: Axes, record: Mapping[object, object], y: float, colour: str, marker: str) -> None:
    value, low, high = (float(str(record[name])) for name in ("value", "low", "high"))
    chance = float(str(record.get("chance", math.nan)))
    if math.isfinite(chance):
        axes.plot([chance, chance], [y - 1.0, y + 1.0], color=MUTED, linewidth=1.2, zorder=1)
    if not math.isfinite(value):
        return
    reliable = bool(record["reliable"])
    if math.isfinite(low) and math.isfinite(high):
        line = "-" if reliable else (0, (2.0, 1.5))
        axes.plot([low, high], [y, y], color=colour, linewidth=1.1, linestyle=line, zorder=2)
    face = colour if reliable else "white"
    axes.plot([value], [y], marker=marker, markersize=3.8, color=colour, markerfacecolor=face, clip_on=False, zorder=3)


def _draw_counts(
    rows: pd.DataFrame,
    labels: Sequence[str],
    splits: Sequence[str],
    labels_words: Mapping[str, str] | None,
    too_few: int,
    title: str | None,
    note: str | None,
    width_mm: float,
) -> Figure:
    names_mm = _names_mm(labels, labels_words, width_mm)
    row_mm = 2 * LINE_MM + 0.4
    found = {(r["label"], r["split"]): int(r["n_positive"]) for r in rows.to_dict("records")}
    heads = [plain(split) for split in splits]
    columns = [
        max(text_width(text) for text in [heads[k], *(f"{found.get((label, split), 0):,}" for label in labels)]) + 3.0
        for k, split in enumerate(splits)
    ]
    left = MARGIN_MM + names_mm + 2.0
    panel = width_mm - MARGIN_MM - left - sum(columns)
    lines_of_key = _key_lines(heads, left, width_mm - MARGIN_MM)
    head = lines_of_key * LINE_MM + LINE_MM + 1.0
    aid = f"Shaded: fewer than {too_few} positives, from which little can be told. The axis is logarithmic."
    page = new_page(
        width_mm,
        head + len(labels) * row_mm + _TICKS_MM + LINE_MM,
        title=title,
        note=" ".join([aid, *([note] if note else [])]),
        description=f"Positives of {len(labels)} labels in the splits {', '.join(heads)}.",
    )
    _key(page, left, page.top + LINE_MM / 2, heads, width_mm - MARGIN_MM)
    top = page.top + head
    _named_rows(page, labels, labels_words, names_mm + 0.1, top, row_mm)
    right = left + panel
    for k, split in enumerate(splits):
        right += columns[k]
        page.text(right, top - LINE_MM / 2 - 0.5, heads[k], color=MUTED, ha="right")
        for row, label in enumerate(labels):
            if (label, split) in found:
                page.text(right, top + (row + 0.5) * row_mm, f"{found[label, split]:,}", ha="right")
    axes = page.axes(left, top, panel, len(labels) * row_mm)
    _count_axis(axes, max(found.values()), too_few, len(labels) * row_mm, panel)
    for row, label in enumerate(labels):
        y = (row + 0.5) * row_mm
        axes.axhline(y, color=RULE, linewidth=0.4, zorder=0.5)
        for k, split in enumerate(splits):
            if (label, split) in found:
                place = _count_place(found[label, split])
                colour, marker = SERIES[k]
                shift = (k - (len(splits) - 1) / 2) * 1.6
                axes.plot([place], [y + shift], marker=marker, markersize=4.0, color=colour, clip_on=False, zorder=3)
    middle = top + len(labels) * row_mm + _TICKS_MM + LINE_MM / 2 - 0.5
    page.text(left + panel / 2, middle, "Images with the label", ha="center")
    return page.figure


def _count_place(count: float) -> float:
    """Return where a count stands: its logarithm, and none half a decade below one."""
    return math.log10(count) if count > 0 else -0.5


def _count_axis(axes: Axes, most: int, too_few: int, height_mm: float, width_mm: float) -> None:
    highest = max(_count_place(most), 1.0)
    axes.set_xlim(-0.6, highest + 0.12)
    axes.set_ylim(height_mm, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.axvspan(-0.6, math.log10(too_few), color=PALE, linewidth=0, zorder=0)
    per_decade = width_mm / (highest + 0.72)
    decades = [10**power for power in range(0, math.floor(highest) + 1, 1 if per_decade > 9.0 else 2)]
    words = ["0", *(f"{decade:,}" for decade in decades)]
    axes.set_xticks([_count_place(count) for count in (0, *decades)], words)
    if per_decade > 12.0:
        minor = [math.log10(k * decade) for decade in decades for k in range(2, 10) if k * decade <= most]
        axes.set_xticks(minor, minor=True)
        axes.tick_params(axis="x", which="minor", length=1.5, width=0.4)
