"""How a score falls as a map's highest patches go, and rises as they come back, beside patches in random order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    checked_table,
    decimals_for,
    new_page,
    shown,
    style,
    ticks_along,
    value_words,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {"deletion": "Patches taken out", "insertion": "Patches put back"}
_PANEL_MM = 26.0
_GAP_MM = 8.0
_AXIS_MM = 9.0
_Y_MM = 11.0
_RIGHT_MM = 3.0


def faithfulness_figure(
    curves: pd.DataFrame,
    gains: pd.DataFrame,
    *,
    settings: Mapping[str, str],
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a row for each label and setting: deletion on the left, insertion on the right, the gain above each.

    Args:
        curves: `label`, `setting`, `curve` (of `CURVES`), `order` (`map` or `random`), `share` of patches in [0, 1] and
            `logit`.
        gains: `label`, `setting`, `measure` (`deletion_gain`, `insertion_gain`), `value`, `low`, `high`, `n_images`;
            `reliable` where it is known.
        settings: setting to its words.
        labels_words: label to the words that people read.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: an empty table, missing columns, or a repeated point.
    """
    place = ("label", "setting")
    points = checked_table(
        curves, "curves", text=(*place, "curve", "order"), numeric=("share", "logit"),
        key=(*place, "curve", "order", "share"),
    )  # fmt: skip
    found = checked_table(
        gains, "gains", text=(*place, "measure"), numeric=("value", "low", "high", "n_images"), flag="reliable",
        key=(*place, "measure"),
    )  # fmt: skip
    by_place = {tuple(record[name] for name in (*place, "measure")): record for record in found.to_dict("records")}
    rows = list(points[list(place)].drop_duplicates().itertuples(index=False, name=None))
    panel_mm = (width_mm - 2 * MARGIN_MM - 2 * _Y_MM - _GAP_MM - _RIGHT_MM) / 2
    row_mm = 2 * LINE_MM + 2.0 + _PANEL_MM + _AXIS_MM + LINE_MM
    reading = [
        "Blue: highest patches of the map first. Grey, dashed: patches in random order. The gain is the area between "
        "the two, above 0 where the map knows more than chance of what moves the logit."
    ]
    if not bool(found["reliable"].all()):
        reading.append("?: interval unreliable at this size.")
    reading += [note] if note else []
    with style():
        page = new_page(
            width_mm,
            len(rows) * row_mm,
            title=title,
            note=" ".join(reading),
            description=f"Deletion and insertion curves of {len(rows)} labels and settings.",
        )
        for number, (label, setting) in enumerate(rows):
            top = page.top + number * row_mm
            n_images = int(by_place[label, setting, "deletion_gain"]["n_images"])
            head = f"{shown(label, labels_words)}, {settings[setting]} ({n_images} images)"
            page.text(
                MARGIN_MM, top + LINE_MM / 2, wrapped(head, width_mm - 2 * MARGIN_MM, bold=True, max_lines=1)[0],
                fontweight="bold",
            )  # fmt: skip
            mine = points[(points["label"] == label) & (points["setting"] == setting)]
            for column, (curve, words) in enumerate(CURVES.items()):
                left = MARGIN_MM + _Y_MM + column * (panel_mm + _Y_MM + _GAP_MM)
                gain = by_place[label, setting, f"{curve}_gain"]
                low, high = float(gain["low"]), float(gain["high"])
                text = value_words(float(gain["value"]), low, high, decimals_for([(low, high)], 1.0))
                text += "" if gain["reliable"] else "?"
                page.text(left, top + 1.5 * LINE_MM + 0.6, f"{words}: gain {text}", color=INK)
                axes = page.axes(left, top + 2 * LINE_MM + 2.0, panel_mm, _PANEL_MM)
                _draw_curves(axes, mine[mine["curve"] == curve])
                axes.set_ylim(*_limits(mine))
                ticks_along(axes, panel_mm)
                ticks_along(axes, _PANEL_MM, upwards=True)
                page.text(
                    left + panel_mm / 2, top + row_mm - LINE_MM - 1.6, "share of the patches", ha="center", color=INK
                )
                axes.set_ylabel("logit")
                axes.yaxis.set_label_coords(-(_Y_MM - 2.0) / panel_mm, 0.5)
        return page.figure


def _draw_curves(axes: Axes, points: pd.DataFrame) -> None:
    for order, colour, line in (("random", MUTED, (0, (3.0, 2.0))), ("map", BLUE, "-")):
        mine = points[points["order"] == order].sort_values("share")
        axes.plot(mine["share"], mine["logit"], color=colour, linewidth=1.2, linestyle=line)
    axes.set_xlim(0, 1)


def _limits(points: pd.DataFrame) -> tuple[float, float]:
    low, high = float(points["logit"].min()), float(points["logit"].max())
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin
