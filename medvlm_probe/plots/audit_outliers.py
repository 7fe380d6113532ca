"""Outlier scores of a site's images over those of the reference, and the threshold that few of the latter exceed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    INK,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    ORANGE,
    new_page,
    style,
    ticks_along,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medvlm_probe.types import FloatArray

_BODY_MM, _LEFT_MM, _AXIS_MM, _KEY_MM = 42.0, 15.0, 12.0, 5.0
_BINS = 40


def outlier_histogram(
    reference: FloatArray,
    site: FloatArray,
    *,
    threshold: float,
    share: float,
    words: str,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw both sides' distributions of one outlier score.

    Args:
        reference, site: scores, larger = more outlying, (n,) and (m,).
        threshold: that `share` of new reference images exceed; infinite draws none.
        share: of the reference above the threshold, for its words.
        words: what the score is, below the axis.
        title: a line above the figure.
        note: small print below it.
        width_mm: the width in print.

    Raises:
        InputError: a side without scores.
    """
    if not len(reference) or not len(site):
        raise InputError("A side has no outlier scores to draw: give at least one of each.")
    values = np.concatenate([reference, site])
    low, high = float(values.min()), float(values.max())
    pad = 0.02 * (high - low) or 1.0
    edges = np.linspace(low - pad, high + pad, _BINS + 1)
    heights = [100 * np.histogram(side, bins=edges)[0] / len(side) for side in (reference, site)]
    with style():
        page = new_page(
            width_mm,
            _KEY_MM + _BODY_MM + _AXIS_MM,
            title=title,
            note=note,
            description=f"{words} of {len(reference)} reference and {len(site)} new images.",
        )
        width = width_mm - 2 * MARGIN_MM - _LEFT_MM - 2.0
        axes = page.axes(MARGIN_MM + _LEFT_MM, page.top + _KEY_MM, width, _BODY_MM)
        for height, colour in zip(heights, (BLUE, ORANGE), strict=True):
            axes.stairs(height, edges, color=colour, linewidth=1.2, fill=False)
            axes.stairs(height, edges, color=colour, alpha=0.18, fill=True, linewidth=0)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.08 * max(float(height.max()) for height in heights))
        if np.isfinite(threshold) and edges[0] <= threshold <= edges[-1]:
            axes.axvline(threshold, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        ticks_along(axes, width)
        ticks_along(axes, _BODY_MM, upwards=True)
        x, y = MARGIN_MM + _LEFT_MM, page.top + LINE_MM / 2
        page.text(x, y, "Reference", color=BLUE, fontweight="bold")
        page.text(x + 20.0, y, "New site", color="#B87400", fontweight="bold")
        page.text(x + 38.0, y, f"dashed: {100 * share:g} % of new reference images lie above", color=MUTED)
        page.text(x + width / 2, page.top + _KEY_MM + _BODY_MM + _AXIS_MM - LINE_MM, words, ha="center")
        page.figure.text(
            (MARGIN_MM + LINE_MM / 2) / page.width,
            1.0 - (page.top + _KEY_MM + _BODY_MM / 2) / page.height,
            "% of images",
            rotation=90,
            ha="center",
            va="center",
            color=INK,
        )
        return page.figure
