"""Who lies next to whom: labels among nearest neighbours, and which classes another site's positives are near."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.plots.intervals import IntervalAxis, interval_figure
from medvlm_probe.plots.style import (
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    PALE,
    RULE,
    SINGLE_COLUMN_MM,
    TEXT_PT,
    Page,
    bare,
    checked_table,
    new_page,
    shown,
    style,
    text_width,
    wrapped,
)
from medvlm_probe.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_COLOUR_MAP = "PuOr_r"
_KEY_MM = 32.0
_KEY_GAP_MM = 4.0
_KEY_HEIGHT_MM = 55.0
_LARGEST_CELL_MM = 17.0
_ROOMY_CELL_MM = 14.0
_SLANT = math.radians(45.0)
_MUTED_SIDE = 0.42


@dataclass(frozen=True)
class _Matrix:
    """The table as arrays (rows, columns); NaN where there are too few images."""

    labels: list[str]
    neighbours: list[str]
    share: FloatArray
    expected: FloatArray
    enrichment: FloatArray
    p_adjusted: FloatArray


def crowding_heat_map(
    table: pd.DataFrame,
    *,
    n_neighbors: int,
    labels_words: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    alpha: float = 0.05,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw how often a label occurs among the nearest neighbours of another label's images, relative to chance.

    A cell that differs from chance (`p_adjusted` below `alpha`) is filled and holds its enrichment as a number; one
    that does not is a small square; one without a value is hatched. Colour is log2 enrichment, orange above 1, purple
    below. Where there are few labels, a cell also holds the observed share and the expected one.

    Args:
        table: `label` (rows), `neighbour` (columns), `share` and `expected` in [0, 1], `enrichment` (their ratio, at
            least 0), `p_adjusted`. One row for each pair; NaN, or no row, where there are too few images.
        n_neighbors: how many nearest neighbours were looked at.
        labels_words: label to the words that people read.
        order: all labels in the order to draw them, for instance by a clustering. Default: as in the table.
        alpha: level of significance.
        title: a line above the figure.
        note: small print below it.

    Raises:
        InputError: an empty table, missing columns, a repeated pair, a negative enrichment, or an order that leaves out
            a label.
    """
    rows = checked_table(
        table,
        "crowding",
        text=("label", "neighbour"),
        numeric=("share", "expected", "enrichment", "p_adjusted"),
        key=("label", "neighbour"),
    )
    matrix = _pivot(rows, order)
    if bool((matrix.enrichment < 0).any()):
        raise InputError("An enrichment is a ratio of shares and cannot be negative; the table of crowding holds one.")
    with style():
        return _draw(matrix, n_neighbors, labels_words, alpha, title, note)


def _pivot(rows: pd.DataFrame, order: Sequence[str] | None) -> _Matrix:
    labels, neighbours = list(rows["label"].unique()), list(rows["neighbour"].unique())
    if order is None:
        known = dict.fromkeys([*labels, *neighbours])
    else:
        left_out = [label for label in dict.fromkeys([*labels, *neighbours]) if label not in order]
        if left_out:
            raise InputError(f"The order of labels leaves out {', '.join(left_out)}; it must name every label.")
        known = dict.fromkeys(order)
    labels = [label for label in known if label in set(labels)]
    neighbours = [label for label in known if label in set(neighbours)]
    indexed = rows.set_index(["label", "neighbour"])

    def grid(column: str) -> FloatArray:
        values = indexed[column].unstack("neighbour").reindex(index=labels, columns=neighbours)
        return values.to_numpy(dtype=float)

    return _Matrix(labels, neighbours, grid("share"), grid("expected"), grid("enrichment"), grid("p_adjusted"))


def _draw(
    matrix: _Matrix,
    n_neighbors: int,
    labels_words: Mapping[str, str] | None,
    alpha: float,
    title: str | None,
    note: str | None,
) -> Figure:
    row_names = [wrapped(shown(label, labels_words), 42.0, max_lines=2) for label in matrix.labels]
    names_mm = max(text_width(line) for name in row_names for line in name) + 2.0
    n_columns = len(matrix.neighbours)
    cell = min(_LARGEST_CELL_MM, (DOUBLE_COLUMN_MM - 2 * MARGIN_MM - names_mm - _KEY_MM - _KEY_GAP_MM) / n_columns)
    roomy = cell > _ROOMY_CELL_MM
    # A slanted name may reach as far to the right as the key below it does.
    longest_name = (_KEY_MM + _KEY_GAP_MM) / math.cos(_SLANT)
    column_names = [
        wrapped(shown(label, labels_words), longest_name, max_lines=2 if roomy else 1) for label in matrix.neighbours
    ]
    longest = max(text_width(line) for name in column_names for line in name)
    rise = (longest + max(map(len, column_names)) * LINE_MM) * math.sin(_SLANT) + 1.5
    grid_mm = (n_columns * cell, len(matrix.labels) * cell)
    width = max(2 * MARGIN_MM + names_mm + grid_mm[0] + _KEY_GAP_MM + _KEY_MM, SINGLE_COLUMN_MM)
    sentence = (
        f"Rows: images with this label. Columns: how often their {n_neighbors} nearest neighbours have that label, "
        "relative to chance (1)."
    )
    if roomy:
        sentence += " Below it the observed share (and the expected one)."
    caption = wrapped(sentence, width - 2 * MARGIN_MM)
    page = new_page(
        width,
        len(caption) * LINE_MM + 2.0 + rise + max(grid_mm[1], _KEY_HEIGHT_MM) + 1.0,
        title=title,
        note=note,
        description="Heat map of labels among the nearest neighbours of other labels' images.",
    )
    page.lines(MARGIN_MM, page.top + LINE_MM / 2, caption, color=MUTED)
    left, top = MARGIN_MM + names_mm, page.top + len(caption) * LINE_MM + 2.0 + rise
    axes = page.axes(left, top, *grid_mm)
    bare(axes)
    axes.set_xlim(0, n_columns)
    axes.set_ylim(len(matrix.labels), 0)
    limit = _limit(matrix.enrichment)
    _draw_cells(axes, matrix, alpha, limit, roomy=roomy)
    for slot, name in enumerate(row_names):
        page.lines(MARGIN_MM, top + (slot + 0.5) * cell - (len(name) - 1) * LINE_MM / 2, name)
    for slot, name in enumerate(column_names):
        _write_slanted(page, left + (slot + 0.5) * cell, top - 1.2, name)
    _draw_key(page, left + grid_mm[0] + _KEY_GAP_MM, top, limit, alpha)
    return page.figure


def _limit(enrichment: FloatArray) -> float:
    """Return where the colours end, in log2: from 2 fold to 16 fold, by the largest finite value."""
    positive = enrichment[np.isfinite(enrichment) & (enrichment > 0)]
    largest = float(np.abs(np.log2(positive)).max()) if positive.size else 1.0
    return float(min(max(math.ceil(largest), 1), 4))


def _colours() -> Colormap:
    import matplotlib as mpl

    return mpl.colormaps[_COLOUR_MAP]


def _cell_colour(enrichment: float, limit: float) -> tuple[float, float, float]:
    log = -limit if enrichment <= 0 else min(max(math.log2(enrichment), -limit), limit)
    red, green, blue, _ = _colours()(0.5 + 0.45 * log / limit)
    return red, green, blue


def _draw_cells(axes: Axes, matrix: _Matrix, alpha: float, limit: float, *, roomy: bool) -> None:
    from matplotlib.patches import Rectangle

    for (row, column), cell in np.ndenumerate(matrix.enrichment):
        enrichment = float(cell)
        if not math.isfinite(enrichment):
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor=PALE, edgecolor="#BDBDBD", hatch="////", linewidth=0)
            )
        elif matrix.p_adjusted[row, column] < alpha:
            colour = _cell_colour(enrichment, limit)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, linewidth=0))
            _write_cell(axes, matrix, row, column, colour, roomy=roomy)
        else:
            corner = 0.5 - _MUTED_SIDE / 2
            axes.add_patch(
                Rectangle(
                    (column + corner, row + corner),
                    _MUTED_SIDE,
                    _MUTED_SIDE,
                    facecolor=_cell_colour(enrichment, limit),
                    edgecolor=RULE,
                    linewidth=0.4,
                )
            )
        axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="white", linewidth=0.8, zorder=2))
        if matrix.labels[row] == matrix.neighbours[column]:
            axes.add_patch(
                Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=0.8, zorder=3)
            )


def _write_cell(
    axes: Axes, matrix: _Matrix, row: int, column: int, colour: tuple[float, float, float], *, roomy: bool
) -> None:
    enrichment = float(matrix.enrichment[row, column])
    words = f"{enrichment:.0f}" if enrichment >= 9.95 else f"{enrichment:.1f}"
    if roomy:
        words = f"{words} ×"
    ink = "white" if _luminance(colour) < 0.25 else INK
    axes.text(column + 0.5, row + (0.3 if roomy else 0.5), words, ha="center", va="center", color=ink, zorder=4)
    if roomy:
        share, expected = matrix.share[row, column], matrix.expected[row, column]
        axes.text(column + 0.5, row + 0.56, _percent(share), ha="center", va="center", color=ink, zorder=4)
        axes.text(column + 0.5, row + 0.8, f"({_percent(expected)})", ha="center", va="center", color=ink, zorder=4)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _luminance(colour: tuple[float, float, float]) -> float:
    """Return relative luminance in [0, 1] (WCAG 2.1)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _write_slanted(page: Page, x: float, bottom: float, name: Sequence[str]) -> None:
    """Write a column's name upwards to the right, its lines side by side about a line that starts at the column."""
    cap_mm = 0.36 * TEXT_PT * 25.4 / 72.0
    start = cap_mm + (len(name) - 1) * LINE_MM / 2
    for index, line in enumerate(name):
        aside = (len(name) - 1) * LINE_MM / 2 - index * LINE_MM - cap_mm
        page.figure.text(
            (x + start * math.cos(_SLANT) - aside * math.sin(_SLANT)) / page.width,
            1.0 - (bottom - start * math.sin(_SLANT) - aside * math.cos(_SLANT)) / page.height,
            line,
            rotation=math.degrees(_SLANT),
            rotation_mode="anchor",
            ha="left",
            va="baseline",
        )


def _draw_key(page: Page, left: float, top: float, limit: float, alpha: float) -> None:
    from matplotlib.patches import Rectangle

    page.lines(left, top + LINE_MM / 2, ["Observed /", "expected share"], color=INK)
    bar_mm = 26.0
    axes = page.axes(left, top + 2 * LINE_MM + 1.5, 4.0, bar_mm)
    steps = np.linspace(-limit, limit, 129)
    for low, high in itertools.pairwise(steps):
        axes.axhspan(low, high, color=_cell_colour(2.0 ** ((low + high) / 2), limit), linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(-limit, limit)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    ticks = np.arange(-limit, limit + 1)
    axes.set_yticks(ticks, [_fold(tick) for tick in ticks])
    for spine in axes.spines.values():
        spine.set_visible(False)
    y = top + 2 * LINE_MM + 1.5 + bar_mm + 5.0
    for words, kind in (
        (f"adjusted p < {alpha:g}", "full"),
        ("not significant", "small"),
        ("too few images", "hatched"),
    ):
        sample = page.axes(left, y - 2.0, 4.0, 4.0)
        bare(sample)
        sample.set_xlim(0, 1)
        sample.set_ylim(0, 1)
        if kind == "hatched":
            sample.add_patch(Rectangle((0, 0), 1, 1, facecolor=PALE, edgecolor="#BDBDBD", hatch="//////", linewidth=0))
        else:
            side = 1.0 if kind == "full" else _MUTED_SIDE
            corner = (1 - side) / 2
            sample.add_patch(Rectangle((corner, corner), side, side, facecolor=_cell_colour(2.0, limit), linewidth=0))
        page.text(left + 5.5, y, words)
        y += 5.2


def _fold(log2: float) -> str:
    return f"{2.0**log2:g} ×" if log2 >= 0 else f"1/{2.0**-log2:g} ×"


def cross_site(
    table: pd.DataFrame,
    *,
    reference: str,
    labels_words: Mapping[str, str] | None = None,
    sort: bool = True,
    too_few: int = 10,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw whether another site's positives lie nearer to the reference site's positives or to its negatives.

    Args:
        table: `label`, `site`, `value`, `low`, `high`, and where they are known `reliable` (bool), `n_positive` (images
            at that site). `value` is the mean distance to the reference's positives minus the one to its negatives:
            below 0 means nearer to the positives, as it should be. One row a label and site; NaN where undefined.
        reference: the reference site's name.
        labels_words: label to the words that people read.
        sort: order labels by the first site's value, the largest (the worst) on top; else as given.
        too_few: labels with fewer positives than this are drawn in grey, and say so.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table, missing columns, or a repeated label and site.
    """
    checked_table(table, "cross-site differences", text=("label", "site"), numeric=("value", "low", "high"))
    axis = IntervalAxis(
        null=0.0,
        label=f"Distance to positives of {reference} minus distance to its negatives",
        below="nearer to reference positives",
        above="nearer to reference negatives",
    )
    return interval_figure(
        table,
        axis,
        labels_words=labels_words,
        sort=sort,
        too_few=too_few,
        title=title,
        note=note,
        width_mm=width_mm,
    )
