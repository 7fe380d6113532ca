"""Which shift was injected and which was named: a confusion matrix, a row a severity, a block of rows a setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
    Page,
    bare,
    checked_table,
    new_page,
    plain,
    style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = ("none", "prevalence", "covariate", "both")

_ROW_MM = 4.4
_HEAD_MM = 3 * LINE_MM
_BLOCK_MM = 2 * LINE_MM + 2.6
_CELL_MM = 9.5
_GAP_MM = 5.0


def identification_figure(
    table: pd.DataFrame, *, title: str | None = None, note: str | None = None, width_mm: float = DOUBLE_COLUMN_MM
) -> Figure:
    """Draw what share of runs got each name.

    Args:
        table: a row an injected shift: `block` (a heading of up to two lines, split by a line break), `side` (0 left, 1
            right), `injected` (of `NAMED`), `severity` (may be empty), `runs`, and runs by name (`NAMED`). Rows of a
            block follow each other.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal).

    Raises:
        InputError: an empty table, or missing columns.
    """
    rows = checked_table(
        table,
        "injected shifts",
        text=("block", "injected", "severity"),
        numeric=("side", "runs", *NAMED),
        key=("block", "injected", "severity"),
    )
    sides = [rows[rows["side"] == side] for side in sorted(rows["side"].unique())]
    body = _HEAD_MM + max(len(own) * _ROW_MM + own["block"].nunique() * _BLOCK_MM for own in sides)
    reading = "Cells: runs in a hundred that got the name; outlined: the right one. Empty: none."
    with style():
        page = new_page(
            width_mm,
            body,
            title=title,
            note=" ".join(filter(None, [reading, note])),
            description="Confusion matrix of injected shifts and the names they were given.",
        )
        width = (width_mm - 2 * MARGIN_MM - (len(sides) - 1) * _GAP_MM) / len(sides)
        for index, own in enumerate(sides):
            left = MARGIN_MM + index * (width + _GAP_MM)
            _side(page, own, left, left + width - len(NAMED) * _CELL_MM)
    return page.figure


def _side(page: Page, rows: pd.DataFrame, left: float, cells: float) -> None:
    page.text(cells + 2 * _CELL_MM, page.top + LINE_MM / 2, "Named", ha="center", color=MUTED)
    for slot, name in enumerate(NAMED):
        # Names alternate between two lines: they are wider than their cells.
        y = page.top + (1.5 + slot % 2) * LINE_MM
        page.text(cells + (slot + 0.5) * _CELL_MM, y, name, ha="center")
    y = page.top + _HEAD_MM
    for block in rows["block"].unique():
        own = rows[rows["block"] == block]
        page.lines(left, y + LINE_MM / 2 + 2.0, [plain(line) for line in block.split("\n")], fontweight="bold")
        y += _BLOCK_MM
        axes = page.axes(cells, y, len(NAMED) * _CELL_MM, len(own) * _ROW_MM)
        bare(axes)
        axes.set_xlim(0, len(NAMED))
        axes.set_ylim(len(own), 0)
        _cells(page, axes, own.to_dict("records"), left, y)
        y += len(own) * _ROW_MM


def _cells(page: Page, axes: Axes, records: Sequence[dict[Any, Any]], left: float, top: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    shades = LinearSegmentedColormap.from_list("named", [PALE, BLUE])
    for row, record in enumerate(records):
        words = ": ".join(filter(None, [str(record["injected"]), str(record["severity"])]))
        page.text(left, top + (row + 0.5) * _ROW_MM, plain(words))
        axes.add_patch(Rectangle((0, row), len(NAMED), 1, facecolor="none", edgecolor=RULE, linewidth=0.3))
        for column, name in enumerate(NAMED):
            share = float(record[name]) / float(record["runs"])
            if share > 0:
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=shades(share), linewidth=0))
                colour = "white" if share > 0.45 else INK
                place = (column + 0.5, row + 0.5)
                axes.text(*place, f"{100 * share:.0f}", ha="center", va="center_baseline", color=colour)
            if name == record["injected"]:
                outline = Rectangle(
                    (column, row), 1, 1, facecolor="none", edgecolor=VERMILLION, linewidth=0.9, zorder=3, clip_on=False
                )
                axes.add_patch(outline)
