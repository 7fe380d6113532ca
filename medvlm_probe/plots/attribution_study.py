"""What the attribution of a site's distance says about known causes: verdicts and named causes beside injected ones."""

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
    PALE,
    RULE,
    VERMILLION,
    bare,
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

_ROW_MM, _CELL_MM, _NAMES_MM, _GAP_MM, _GROUP_MM = 4.6, 4.4, 50.0, 3.0, 1.6
_FARTHEST = -0.25


def named_causes(
    counts: pd.DataFrame,
    shares: pd.DataFrame,
    columns: Mapping[str, Sequence[str]],
    *,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a row for each injected cause: how many runs were answered how, and the share of the distance explained.

    Args:
        counts: `group`, `injected`, `block` (a key of `columns`), `answer`, `runs`, `of`, and `right` (a flag: this
            answer is the injected cause, or cannot be told from it). Missing answers count 0. The order of rows stays.
        shares: `injected`, `value`, `low`, `high` of the share explained; missing or NaN leaves the place empty.
        columns: what stands above a block of columns, to its answers in order.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: an empty table, missing columns or an answer that has no column.
    """
    rows = checked_table(
        counts,
        "named causes",
        text=("group", "injected", "block", "answer"),
        numeric=("runs", "of"),
        flag="right",
        key=("injected", "block", "answer"),
    )
    explained = checked_table(
        shares, "shares explained", text=("injected",), numeric=("value", "low", "high"), key=("injected",)
    )
    for block, answer in rows[["block", "answer"]].drop_duplicates().itertuples(index=False):
        if answer not in columns.get(block, ()):
            raise InputError(
                f"The table of named causes has '{answer}' in '{block}', which is no column of the figure."
            )
    with style():
        return _draw(rows, explained, columns, title, note, width_mm)


def _draw(
    rows: pd.DataFrame,
    explained: pd.DataFrame,
    columns: Mapping[str, Sequence[str]],
    title: str | None,
    note: str | None,
    width_mm: float,
) -> Figure:
    places = _places(rows)
    heads = max(text_width(answer) for answers in columns.values() for answer in answers) + 2.0
    body = max(places.values()) + _ROW_MM
    aids = (
        "Numbers: runs. Framed: the injected cause, or one that cannot be told from it. Points: the share that "
        "the chosen transform explains, mean over the runs with a distance, and from their 10 to their 90 % quantile."
    )
    page = new_page(
        width_mm,
        LINE_MM + heads + body + 6.0 + LINE_MM,
        title=title,
        note=" ".join([aids, *([plain(note)] if note else [])]),
        description=f"What was named as the cause for {', '.join(places)}.",
    )
    top = page.top + LINE_MM + heads
    for injected, place in places.items():
        words = wrapped(injected, _NAMES_MM - 2.0, max_lines=1)[0]
        page.text(MARGIN_MM, top + place + _ROW_MM / 2, words)
    x = MARGIN_MM + _NAMES_MM
    for block, answers in columns.items():
        page.text(x, page.top + LINE_MM / 2, block, fontweight="bold")
        for k, answer in enumerate(answers):
            page.figure.text(
                (x + (k + 0.5) * _CELL_MM) / page.width,
                1.0 - (top - 1.0) / page.height,
                answer,
                rotation=90,
                ha="center",
                va="bottom",
            )
        axes = page.axes(x, top, len(answers) * _CELL_MM, body)
        axes.set_xlim(0, len(answers))
        axes.set_ylim(body, 0)
        bare(axes)
        _draw_cells(axes, rows[rows["block"] == block], answers, places)
        x += len(answers) * _CELL_MM + _GAP_MM
    _draw_shares(page.axes(x + 2.0, top, width_mm - MARGIN_MM - 3.0 - x, body), explained, places)
    ticks_along(page.figure.axes[-1], width_mm - MARGIN_MM - 3.0 - x)
    middle = x + 2.0 + (width_mm - MARGIN_MM - 3.0 - x) / 2
    page.text(middle, top + body + 6.0 + LINE_MM / 2, "Share explained", ha="center", color=MUTED)
    return page.figure


def _places(rows: pd.DataFrame) -> dict[str, float]:
    """Return how far below the top each injected cause stands, in millimetres; groups stand a little apart."""
    found: dict[str, float] = {}
    y, before = 0.0, None
    for group, injected in rows[["group", "injected"]].drop_duplicates().itertuples(index=False):
        y += _GROUP_MM if before not in (None, group) else 0.0
        found[str(injected)], before = y, group
        y += _ROW_MM
    return found


def _draw_cells(axes: Axes, rows: pd.DataFrame, answers: Sequence[str], places: Mapping[str, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    shades = LinearSegmentedColormap.from_list("named", [PALE, BLUE])
    for y in places.values():
        frame = Rectangle((0, y), len(answers), _ROW_MM, facecolor="none", edgecolor=RULE, linewidth=0.5, clip_on=False)
        axes.add_patch(frame)
    for record in rows.to_dict("records"):
        x, y = answers.index(record["answer"]), places[record["injected"]]
        share = record["runs"] / record["of"]
        if record["runs"]:
            axes.add_patch(Rectangle((x, y), 1, _ROW_MM, facecolor=shades(share), linewidth=0))
            axes.text(
                x + 0.5,
                y + _ROW_MM / 2,
                f"{record['runs']:g}",
                ha="center",
                va="center_baseline",
                color="white" if share > 0.45 else INK,
            )
        if record["right"]:
            axes.add_patch(
                Rectangle(
                    (x, y), 1, _ROW_MM, facecolor="none", edgecolor=VERMILLION, linewidth=0.9, zorder=3, clip_on=False
                )
            )


def _draw_shares(axes: Axes, explained: pd.DataFrame, places: Mapping[str, float]) -> None:
    axes.set_xlim(_FARTHEST, 1.02)
    axes.set_ylim(max(places.values()) + _ROW_MM, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=INK, linewidth=0.5, zorder=1)
    for record in explained.to_dict("records"):
        y = places[record["injected"]] + _ROW_MM / 2
        if not math.isfinite(record["value"]):
            continue
        ends = [min(max(record[end], _FARTHEST), 1.02) for end in ("low", "high")]
        axes.plot(ends, [y, y], color=BLUE, linewidth=1.2, solid_capstyle="butt", zorder=2)
        if record["value"] >= _FARTHEST:
            axes.plot([record["value"]], [y], color=BLUE, marker="o", markersize=3.6, zorder=3)
        else:
            axes.plot([_FARTHEST + 0.02], [y], color=BLUE, marker="<", markersize=4.0, zorder=3)
