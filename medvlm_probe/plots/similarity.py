"""Image-text cosines of each label's positives and negatives, with how much they overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    RULE,
    checked_table,
    new_page,
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

TOO_FEW = 10
_NEGATIVE = "#B5B5B5"
_ROW_MM = 8.5
_GAP_MM = 3.0
_TICKS_MM = 6.0
_NAMES_MM, _NARROW_NAMES_MM = 38.0, 26.0
_MOST_COLUMNS = 5


def cosine_distributions(
    densities: pd.DataFrame,
    overlaps: pd.DataFrame,
    *,
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a row for each label and a column for each site: the densities of both classes and their overlap.

    Negatives are a grey area, positives a line. All panels of a row share their height, all panels their axis. A site
    where a label has no two positives and two negatives says so.

    Args:
        densities: `site` ("" is all images), `label`, `kind` (positive, negative), `cosine`, `density`.
        overlaps: `site`, `label`, `value`, `low`, `high`, `reliable`, `n_positive`, `n_negative`.
        labels_words: label to the words that people read.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: an empty table or missing columns.
    """
    curves = checked_table(densities, "densities", text=("site", "label", "kind"), numeric=("cosine", "density"))
    values = checked_table(
        overlaps,
        "overlaps",
        text=("site", "label"),
        numeric=("value", "low", "high", "n_positive", "n_negative"),
        flag="reliable",
        key=("site", "label"),
    )
    with style():
        return _draw(curves, values, labels_words, title, note, width_mm)


def _draw(
    curves: pd.DataFrame,
    values: pd.DataFrame,
    labels_words: Mapping[str, str] | None,
    title: str | None,
    note: str | None,
    width_mm: float,
) -> Figure:
    labels = list(values["label"].unique())
    sites = [site for site in values["site"].unique() if bool((curves["site"] == site).any())]
    names_mm = _NAMES_MM if width_mm > 120.0 else _NARROW_NAMES_MM
    names = [wrapped(shown(label, labels_words), names_mm, max_lines=2) for label in labels]
    left = MARGIN_MM + max(text_width(line) for name in names for line in name) + 2.0
    most = min(len(sites), _MOST_COLUMNS if width_mm > 120.0 else 2)
    bands = math.ceil(len(sites) / most)
    columns = math.ceil(len(sites) / bands)
    panel = (width_mm - MARGIN_MM - 2.0 - left - (columns - 1) * _GAP_MM) / columns
    heads = [wrapped(_site_words(site), panel, bold=True, max_lines=2) for site in sites]
    head_mm = max(len(head) for head in heads) * LINE_MM + 1.0
    words_mm = LINE_MM + 1.6
    row_mm = _ROW_MM + words_mm
    band_mm = head_mm + len(labels) * row_mm + _TICKS_MM
    few = f"? fewer than {TOO_FEW} positives, or an interval that is unreliable at this size."
    reading = "Grey area: label absent. Line: label present. Number: overlap of the two (1: alike, 0: apart)"
    interval = " [95 % interval]" if panel > 55.0 else ""
    page = new_page(
        width_mm,
        bands * band_mm + LINE_MM + 1.0,
        title=title,
        note=" ".join([f"{reading}{interval}; {few}", *([note] if note else [])]),
        description=f"Cosines between images and prompts for {len(labels)} labels, positives against negatives.",
    )
    x_limits = float(curves["cosine"].min()), float(curves["cosine"].max())
    for place, site in enumerate(sites):
        band, column = divmod(place, columns)
        x, top = left + column * (panel + _GAP_MM), page.top + band * band_mm
        page.lines(x, top + head_mm - 1.0 - (len(heads[place]) - 0.5) * LINE_MM, heads[place], fontweight="bold")
        for row, label in enumerate(labels):
            y = top + head_mm + row * row_mm
            if column == 0:
                middle = y + words_mm + _ROW_MM / 2 - (len(names[row]) - 1) * LINE_MM / 2
                page.lines(MARGIN_MM, middle, names[row])
            entry = values[(values["site"] == site) & (values["label"] == label)]
            page.text(x, y + words_mm - LINE_MM / 2, _numbers(entry, bool(interval)), color=MUTED)
            axes = page.axes(x, y + words_mm, panel, _ROW_MM)
            mine = curves[(curves["site"] == site) & (curves["label"] == label)]
            _draw_panel(axes, mine, x_limits, panel, last=row == len(labels) - 1)
    caption = "Cosine between image and the label's prompts"
    half = text_width(caption) / 2
    centre = min(max(left + (width_mm - 2.0 - left) / 2, MARGIN_MM + half), width_mm - MARGIN_MM - half)
    page.text(centre, page.top + bands * band_mm + LINE_MM / 2, caption, ha="center")
    return page.figure


def _site_words(site: str) -> str:
    return plain(site) or "All images"


def _numbers(entry: pd.DataFrame, interval: bool) -> str:
    """Return a panel's overlap and count as short words."""
    if not len(entry) or not math.isfinite(entry["value"].iloc[0]):
        n = int(entry["n_positive"].iloc[0]) if len(entry) else 0
        return f"too few (n = {n})" if n else "none known"
    found = entry.iloc[0]
    low, high = (found["low"], found["high"]) if interval else (math.nan, math.nan)
    doubt = "" if found["reliable"] and found["n_positive"] >= TOO_FEW else "?"
    return f"{value_words(found['value'], low, high, 2)}{doubt}, n = {int(found['n_positive']):,}"


def _draw_panel(axes: Axes, curves: pd.DataFrame, limits: tuple[float, float], width_mm: float, *, last: bool) -> None:
    axes.set_xlim(*limits)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(INK if last else RULE)
    ticks_along(axes, width_mm)
    axes.tick_params(labelbottom=last, length=2.5 if last else 0)
    highest = 0.0
    for kind in ("negative", "positive"):
        curve = curves[curves["kind"] == kind]
        if not len(curve):
            continue
        x, y = np.asarray(curve["cosine"]), np.asarray(curve["density"])
        highest = max(highest, float(y.max()))
        if kind == "negative":
            axes.fill_between(x, y, color=_NEGATIVE, linewidth=0)
        else:
            axes.plot(x, y, color=BLUE, linewidth=1.2)
    axes.set_ylim(0, 1.05 * highest or 1.0)
