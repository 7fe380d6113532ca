"""Clouds of points in panels that share one scale: what every projection is drawn with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.plots.style import LINE_MM, MARGIN_MM, Page, new_page, ticks_along, wrapped
from medvlm_probe.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND = "#C4C4C4"
UNKNOWN = "#8C8C8C"
LEFT_MM = 14.0
BELOW_MM = 10.0

VECTORS_UP_TO = 4000
_PANEL_GAP_MM = 5.5
_WIDEST_ALONE_MM = 120.0
_RARE = 0.1


@dataclass(frozen=True)
class Panel:
    """One group over others: `inside` in `colour` over `behind` in pale grey, masks of all points; points in neither
    are not drawn. Its head is `words`, and `count` below."""

    words: str
    count: str
    inside: BoolArray
    behind: BoolArray
    colour: str


def panels_figure(
    points: FloatArray,
    panels: Sequence[Panel],
    axes_words: tuple[str, str],
    *,
    description: str,
    title: str | None,
    note: str,
    width_mm: float,
) -> Figure:
    """Draw a panel for each group, up to four side by side (two in one column of a journal), on one scale.

    Args:
        points: (n, 2), finite.
        panels: in the order to draw them.
        axes_words: what the two axes are.
        description: what the figure shows, in words.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.
    """
    most = 4 if width_mm > 120.0 else 2
    bands = math.ceil(len(panels) / most)
    columns = math.ceil(len(panels) / bands)
    room = width_mm - 2 * MARGIN_MM - LEFT_MM - 2.0
    side = min((room - (columns - 1) * _PANEL_GAP_MM) / columns, _WIDEST_ALONE_MM)
    height = side * proportion(points)
    heads = [
        [*wrapped(panel.words, side, bold=True, max_lines=3), *wrapped(panel.count, side, bold=True, max_lines=2)]
        for panel in panels
    ]
    head_mm = max(len(lines) for lines in heads) * LINE_MM + 0.8
    band_mm = head_mm + height + 2.0
    page = new_page(width_mm, bands * band_mm + BELOW_MM, title=title, note=note, description=description)
    left = MARGIN_MM + LEFT_MM
    for index, (panel, head) in enumerate(zip(panels, heads, strict=True)):
        band, column = divmod(index, columns)
        x, y = left + column * (side + _PANEL_GAP_MM), page.top + band * band_mm
        page.lines(x, y + head_mm - 0.8 - (len(head) - 0.5) * LINE_MM, head, fontweight="bold")
        axes = page.axes(x, y + head_mm, side, height)
        limit(axes, points, side, height)
        axes.tick_params(labelleft=column == 0, labelbottom=index + columns >= len(panels))
        _draw_panel(axes, points, panel, max(side / _WIDEST_ALONE_MM, 0.4), len(points) * len(panels) > VECTORS_UP_TO)
    name_axes(
        page,
        left,
        page.top + head_mm,
        columns * (side + _PANEL_GAP_MM) - _PANEL_GAP_MM,
        (bands - 1) * band_mm + height,
        axes_words,
    )
    return page.figure


def _draw_panel(axes: Axes, points: FloatArray, panel: Panel, shrink: float, pixels: bool) -> None:
    """Draw a rare group over the others in larger points, and a frequent one among them, so that it hides none."""
    behind = size(len(points)) * shrink
    n_inside, n_behind = int(panel.inside.sum()), int(panel.behind.sum())
    if n_inside <= _RARE * (n_inside + n_behind):
        dots(axes, points[panel.behind], BACKGROUND, behind, pixels=pixels)
        dots(axes, points[panel.inside], panel.colour, min(size(n_inside) * shrink, 3 * behind), pixels=pixels)
        return
    order = mixed(len(points))
    order = order[(panel.inside | panel.behind)[order]]
    colours = [panel.colour if inside else BACKGROUND for inside in panel.inside[order]]
    dots(axes, points[order], colours, behind, pixels=pixels)


def mixed(n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return 0..n-1 in an order that looks shuffled and is always the same: steps of the golden ratio, sorted."""
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    return np.argsort(np.arange(1, n + 1) * golden % 1.0, kind="stable")


def limit(axes: Axes, points: FloatArray, width_mm: float, height_mm: float) -> None:
    """Give both axes the same scale, around all the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    per_mm = float(max((high[0] - low[0]) / width_mm, (high[1] - low[1]) / height_mm)) * 1.06 or 1.0 / width_mm
    axes.set_xlim(centre[0] - per_mm * width_mm / 2, centre[0] + per_mm * width_mm / 2)
    axes.set_ylim(centre[1] - per_mm * height_mm / 2, centre[1] + per_mm * height_mm / 2)
    ticks_along(axes, width_mm)
    ticks_along(axes, height_mm, upwards=True)


def proportion(points: FloatArray) -> float:
    """Return a panel's height over its width: as the points lie, within bounds."""
    width, height = np.ptp(points, axis=0)
    return float(np.clip(height / width, 0.6, 1.0)) if width > 0 else 1.0


def size(n: int) -> float:
    """Return a point's area in square points: smaller where there are more."""
    return float(np.interp(math.log10(max(n, 1)), [1.5, 4.5], [16.0, 1.5]))


def dots(axes: Axes, points: FloatArray, colour: str | list[str], area: float, *, pixels: bool) -> None:
    """Draw points of an area in square points; as pixels inside an SVG where asked, which keeps it small."""
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colour, linewidths=0, alpha=0.8, rasterized=pixels)


def crosses(axes: Axes, points: FloatArray, n: int) -> None:
    """Draw points as grey crosses, as large as `n` of them allow."""
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size(n),
        c=UNKNOWN,
        marker="x",
        linewidths=0.6,
        rasterized=n > VECTORS_UP_TO,
    )


def name_axes(page: Page, left: float, top: float, width: float, height: float, axes_words: tuple[str, str]) -> None:
    """Write what the axes of a rectangle are below it and along its left side, millimetres from the page's corner."""
    page.text(
        left + width / 2,
        top + height + BELOW_MM - LINE_MM / 2,
        wrapped(axes_words[0], width, max_lines=1)[0],
        ha="center",
    )
    page.figure.text(
        (MARGIN_MM + LINE_MM / 2) / page.width,
        1.0 - (top + height / 2) / page.height,
        wrapped(axes_words[1], height, max_lines=1)[0],
        rotation=90,
        ha="center",
        va="center",
    )
