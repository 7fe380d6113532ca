"""The study of CalibPrompt: its statements with their intervals, and cosines between texts beside calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvlm_probe.plots.intervals import IntervalAxis, interval_figure
from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    INK,
    LINE_MM,
    MARGIN_MM,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
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

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h")

_LEFT_MM = 15.0
_BELOW_MM = 10.0
_GAP_MM = 11.0
_HEIGHT_MM = 45.0


def claims_figure(
    table: pd.DataFrame, *, title: str | None = None, note: str | None = None, width_mm: float = DOUBLE_COLUMN_MM
) -> Figure:
    """Draw by how much each statement's method lowers ECE, with its interval: a row a statement, a panel a cell.

    Args:
        table: `cell`, `claim`, `difference`, `low`, `high`, `reliable`.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(
        table, "claims", text=("cell", "claim"), numeric=("difference", "low", "high"), flag="reliable"
    )  # fmt: skip
    rows = rows.rename(columns={"cell": "site", "claim": "label", "difference": "value"})
    axis = IntervalAxis(0.0, "How much lower ECE is", "higher: against the statement", "lower: for the statement")
    words = {claim: claim for claim in rows["label"]}
    reading = "Whiskers: 95 % intervals over draws and patients, before Holm's correction."
    note = " ".join(filter(None, (reading, note)))
    return interval_figure(
        rows, axis, labels_words=words, sort=False, too_few=0, title=title, note=note, width_mm=width_mm
    )


def cosine_figure(
    table: pd.DataFrame, *, title: str | None = None, note: str | None = None, width_mm: float = DOUBLE_COLUMN_MM
) -> Figure:
    """Draw the mean cosine between texts against ECE: a point a method, its draws pale behind; a panel a cell.

    Args:
        table: `cell`, `method` (losses joined by `+`), `draw`, `cosine`, `ece`.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    rows = checked_table(
        table, "cosines", text=("cell", "method"), numeric=("draw", "cosine", "ece"), key=("cell", "method", "draw")
    )  # fmt: skip
    marks = _marks(list(rows["method"].unique()))
    reading = (
        "Each point: a loss's mean over few-shot draws; pale: its draws. Colour: the loss that teaches; shape: what is "
        "added to it."
    )
    with style():
        return _draw_cosines(rows, marks, title, " ".join(filter(None, (reading, note))), width_mm)


def _marks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return each method's colour, by its first loss, and marker, by the rest."""
    firsts = list(dict.fromkeys(method.partition("+")[0] for method in methods))
    rests = list(dict.fromkeys(method.partition("+")[2] for method in methods))
    return {
        method: (
            COLOURS[firsts.index(method.partition("+")[0]) % len(COLOURS)],
            MARKERS[rests.index(method.partition("+")[2]) % len(MARKERS)],
        )
        for method in methods
    }


def _draw_cosines(
    rows: pd.DataFrame, marks: dict[str, tuple[str, str]], title: str | None, note: str, width_mm: float
) -> Figure:
    cells = list(rows["cell"].unique())
    columns = min(len(cells), 3)
    bands = -(-len(cells) // columns)
    side = (width_mm - 2 * MARGIN_MM - _LEFT_MM - (columns - 1) * _GAP_MM) / columns
    heads = {cell: wrapped(plain(cell), side, bold=True, max_lines=3) for cell in cells}
    head_mm = max(len(lines) for lines in heads.values()) * LINE_MM + 1.0
    key = _key_places(list(marks), width_mm)
    key_mm = (max(line for _, line in key.values()) + 1) * LINE_MM + 2.0
    band_mm = head_mm + _HEIGHT_MM + _BELOW_MM
    description = f"Cosine between texts against calibration error of {', '.join(marks)}."
    page = new_page(width_mm, key_mm + bands * band_mm, title=title, note=note, description=description)
    _draw_key(page, marks, key)
    for index, cell in enumerate(cells):
        band, column = divmod(index, columns)
        left, top = MARGIN_MM + _LEFT_MM + column * (side + _GAP_MM), page.top + key_mm + band * band_mm
        page.lines(left, top + LINE_MM / 2, heads[cell], fontweight="bold", color=INK)
        axes = page.axes(left, top + head_mm, side, _HEIGHT_MM)
        _draw_cloud(axes, rows[rows["cell"] == cell], marks)
        ticks_along(axes, side)
        ticks_along(axes, _HEIGHT_MM, upwards=True)
        words = wrapped("Mean cosine between texts", side, max_lines=1)[0]
        page.text(left + side / 2, top + band_mm - LINE_MM, words, ha="center", color=INK)
        if column == 0:
            middle = 1.0 - (top + head_mm + _HEIGHT_MM / 2) / page.height
            page.figure.text((MARGIN_MM + LINE_MM / 2) / page.width, middle, "ECE", rotation=90, ha="center",
                             va="center", color=INK)  # fmt: skip
    return page.figure


def _draw_cloud(axes: Axes, rows: pd.DataFrame, marks: dict[str, tuple[str, str]]) -> None:
    for method, (colour, marker) in marks.items():
        mine = rows[rows["method"] == method]
        axes.scatter(mine["cosine"], mine["ece"], s=7.0, color=colour, marker=marker, linewidths=0, alpha=0.28)
    for method, (colour, marker) in marks.items():
        mine = rows[rows["method"] == method]
        if len(mine):
            axes.plot(mine["cosine"].mean(), mine["ece"].mean(), marker, color=colour, markersize=5.6,
                      markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
    for low, high, limit in (
        (rows["cosine"].min(), rows["cosine"].max(), axes.set_xlim),
        (rows["ece"].min(), rows["ece"].max(), axes.set_ylim),
    ):
        room = 0.06 * (high - low) or 0.01
        limit(low - room, high + room)


def _key_places(methods: Sequence[str], width_mm: float) -> dict[str, tuple[float, int]]:
    """Return where each method stands in the key: millimetres from the left, and the line."""
    places, left, line = {}, MARGIN_MM, 0
    for method in methods:
        width = 9.0 + text_width(plain(method))
        if left > MARGIN_MM and left + width > width_mm - MARGIN_MM:
            left, line = MARGIN_MM, line + 1
        places[method] = (left, line)
        left += width
    return places


def _draw_key(page: Page, marks: dict[str, tuple[str, str]], places: dict[str, tuple[float, int]]) -> None:
    for method, (left, line) in places.items():
        colour, marker = marks[method]
        middle = page.top + (line + 0.5) * LINE_MM
        axes = page.axes(left, middle - 1.5, 3.0, 3.0)
        axes.axis("off")
        axes.plot([0.5], [0.5], marker, color=colour, markersize=5.0, clip_on=False)
        page.text(left + 4.0, middle, plain(method), color=INK)
