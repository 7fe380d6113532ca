"""Embeddings as points on a plane: an illustration, on which no statistic is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import (
    DOUBLE_COLUMN_MM,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    OVERLAY,
    VERMILLION,
    Page,
    checked_table,
    new_page,
    plain,
    style,
    ticks_along,
    wrapped,
)
from medvlm_probe.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ILLUSTRATION = "An illustration: no statistic is computed on these coordinates."
_BACKGROUND = "#C9C9C9"
_UNKNOWN = "#8C8C8C"
_VECTORS_UP_TO = 4000
_PANEL_GAP_MM = 4.0
_LEFT_MM = 14.0
_BELOW_MM = 10.0


def projection_scatter(
    table: pd.DataFrame,
    axes_words: tuple[str, str] = ("First principal component", "Second principal component"),
    *,
    by: str | None = None,
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw images as points, apart by group: up to three groups over each other, more in a panel each.

    Both axes have one scale. Points are drawn in an order that does not depend on their group, so that none hides
    another. More than 4,000 points are pixels inside the SVG, which keeps it small.

    Args:
        table: `x`, `y` (one row an image; rows with an undefined coordinate are left out and counted), and the column
            that `by` names. An empty or undefined group is drawn as a grey cross, "unknown".
        axes_words: what the two axes are, with their share of the variance for PCA.
        by: the column that groups points (`"site"`, a label); None draws all alike.
        labels_words: group to the words that people read, in the order to draw them; other groups follow by name.
        title: a line above the figure.
        note: small print below it, after the remark that this is an illustration.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table, missing columns, or no row with two defined coordinates.
    """
    rows = checked_table(table, "coordinates", text=(by,) if by else (), numeric=("x", "y"))
    groups = _groups(table[by], rows[by]) if by else np.full(len(rows), "images", dtype=object)
    points = rows[["x", "y"]].to_numpy(dtype=float)
    finite = np.isfinite(points).all(axis=1)
    if not bool(finite.any()):
        raise InputError("No row of the table of coordinates has both x and y defined, so there is nothing to draw.")
    left_out = int((~finite).sum())
    words = [_ILLUSTRATION]
    if left_out:
        words.append(f"{left_out:,} image{'s' if left_out > 1 else ''} without coordinates left out.")
    with style():
        return _draw(
            points[finite],
            groups[finite],
            axes_words,
            by=by,
            labels_words=labels_words,
            title=title,
            note=" ".join([*words, *([note] if note else [])]),
            width_mm=width_mm,
        )


def _groups(given: pd.Series, text: pd.Series) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Return each row's group as text: whole numbers without decimals, "" where it is not known."""
    import pandas as pd

    names = [
        "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else words
        for value, words in zip(given, text, strict=True)
    ]
    return np.array(names, dtype=object)


def _draw(
    points: FloatArray,
    groups: np.ndarray[tuple[int], np.dtype[np.object_]],
    axes_words: tuple[str, str],
    *,
    by: str | None,
    labels_words: Mapping[str, str] | None,
    title: str | None,
    note: str,
    width_mm: float,
) -> Figure:
    first = list(labels_words or ())
    names = sorted({str(name) for name in groups} - {""}, key=lambda name: (_place(name, first), name))
    counts = {name: int((groups == name).sum()) for name in dict.fromkeys(groups)}
    words = {name: f"{plain((labels_words or {}).get(name, name))} (n = {counts[name]:,})" for name in names}
    if "" in counts:
        words[""] = f"Unknown (n = {counts['']:,})"
    description = f"{len(points)} images as points; axes: {axes_words[0]}, {axes_words[1]}."
    if len(names) <= len(OVERLAY):
        return _overlay(points, groups, names, words, axes_words, by, description, title, note, width_mm)
    return _multiples(points, groups, names, words, axes_words, description, title, note, width_mm)


def _overlay(
    points: FloatArray,
    groups: np.ndarray[tuple[int], np.dtype[np.object_]],
    names: Sequence[str],
    words: Mapping[str, str],
    axes_words: tuple[str, str],
    by: str | None,
    description: str,
    title: str | None,
    note: str,
    width_mm: float,
) -> Figure:
    wide = width_mm > 120.0
    key_mm = 0.0 if by is None else 44.0 if wide else width_mm - 2 * MARGIN_MM
    key = {name: wrapped(text, key_mm - 4.0, max_lines=3) for name, text in words.items()} if by else {}
    key_lines = sum(len(lines) for lines in key.values())
    panel = width_mm - 2 * MARGIN_MM - _LEFT_MM - 2.0 - (key_mm + 4.0 if wide and by else 0.0)
    height = panel * _proportion(points)
    under = 0.0 if wide else key_lines * LINE_MM + 3.0 + 0.4 * len(key)
    page = new_page(width_mm, 2.0 + height + _BELOW_MM + under, title=title, note=note, description=description)
    left = MARGIN_MM + _LEFT_MM
    axes = page.axes(left, page.top + 2.0, panel, height)
    _limit(axes, points, panel, height)
    colours = dict(zip(names, OVERLAY, strict=False))
    known = groups != ""
    order = _mixed(len(points))
    order = order[known[order]]
    _crosses(axes, points[~known], len(points))
    _dots(axes, points[order], [colours[name] for name in groups[order]], len(points))
    _name_axes(page, left, page.top + 2.0, panel, height, axes_words)
    if not by:
        return page.figure
    x, y = (left + panel + 4.0, page.top + 4.0) if wide else (left, page.top + 2.0 + height + _BELOW_MM + 3.0)
    for name, lines in key.items():
        sample = page.axes(x, y - 1.2, 2.4, 2.4)
        sample.axis("off")
        if name:
            sample.plot([0.5], [0.5], marker="o", markersize=4.5, color=colours[name], clip_on=False)
        else:
            sample.plot([0.5], [0.5], marker="x", markersize=4.0, color=_UNKNOWN, clip_on=False)
        page.lines(x + 4.0, y, lines)
        y += len(lines) * LINE_MM + 0.4
    return page.figure


def _multiples(
    points: FloatArray,
    groups: np.ndarray[tuple[int], np.dtype[np.object_]],
    names: Sequence[str],
    words: Mapping[str, str],
    axes_words: tuple[str, str],
    description: str,
    title: str | None,
    note: str,
    width_mm: float,
) -> Figure:
    panels = [*names, *([""] if "" in words else [])]
    most = 4 if width_mm > 120.0 else 2
    bands = math.ceil(len(panels) / most)
    columns = math.ceil(len(panels) / bands)
    side = (width_mm - 2 * MARGIN_MM - _LEFT_MM - 2.0 - (columns - 1) * _PANEL_GAP_MM) / columns
    height = side * _proportion(points)
    heads = {name: wrapped(words[name], side, bold=True, max_lines=3) for name in panels}
    head_mm = max(len(lines) for lines in heads.values()) * LINE_MM + 0.8
    band_mm = head_mm + height + 2.0
    page = new_page(width_mm, bands * band_mm + _BELOW_MM, title=title, note=note, description=description)
    left = MARGIN_MM + _LEFT_MM
    for index, name in enumerate(panels):
        band, column = divmod(index, columns)
        x, y = left + column * (side + _PANEL_GAP_MM), page.top + band * band_mm
        page.lines(x, y + head_mm - 0.8 - (len(heads[name]) - 0.5) * LINE_MM, heads[name], fontweight="bold")
        axes = page.axes(x, y + head_mm, side, height)
        _limit(axes, points, side, height)
        axes.tick_params(labelleft=column == 0, labelbottom=index + columns >= len(panels))
        inside = groups == name
        _dots(axes, points[~inside], _BACKGROUND, len(points), len(panels))
        _dots(axes, points[inside], VERMILLION if name else MUTED, len(points), len(panels))
    _name_axes(
        page,
        left,
        page.top + head_mm,
        columns * (side + _PANEL_GAP_MM) - _PANEL_GAP_MM,
        (bands - 1) * band_mm + height,
        axes_words,
    )
    return page.figure


def _place(name: str, first: Sequence[str]) -> int:
    return first.index(name) if name in first else len(first)


def _mixed(n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return 0..n-1 in an order that looks shuffled and is always the same: steps of the golden ratio, sorted."""
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    return np.argsort(np.arange(1, n + 1) * golden % 1.0, kind="stable")


def _limit(axes: Axes, points: FloatArray, width_mm: float, height_mm: float) -> None:
    """Give both axes the same scale, around all the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    per_mm = float(max((high[0] - low[0]) / width_mm, (high[1] - low[1]) / height_mm)) * 1.06 or 1.0 / width_mm
    axes.set_xlim(centre[0] - per_mm * width_mm / 2, centre[0] + per_mm * width_mm / 2)
    axes.set_ylim(centre[1] - per_mm * height_mm / 2, centre[1] + per_mm * height_mm / 2)
    ticks_along(axes, width_mm)
    ticks_along(axes, height_mm, upwards=True)


def _proportion(points: FloatArray) -> float:
    """Return a panel's height over its width: as the points lie, within bounds."""
    width, height = np.ptp(points, axis=0)
    return float(np.clip(height / width, 0.6, 1.0)) if width > 0 else 1.0


def _size(n: int) -> float:
    """Return a point's area in square points: smaller where there are more."""
    return float(np.interp(math.log10(max(n, 1)), [1.5, 5.0], [16.0, 1.0]))


def _dots(axes: Axes, points: FloatArray, colour: str | list[str], n: int, n_panels: int = 1) -> None:
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=_size(n * n_panels),
        c=colour,
        linewidths=0,
        alpha=0.8,
        rasterized=n * n_panels > _VECTORS_UP_TO,
    )


def _crosses(axes: Axes, points: FloatArray, n: int) -> None:
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=_size(n),
        c=_UNKNOWN,
        marker="x",
        linewidths=0.6,
        rasterized=n > _VECTORS_UP_TO,
    )


def _name_axes(page: Page, left: float, top: float, width: float, height: float, axes_words: tuple[str, str]) -> None:
    page.text(
        left + width / 2,
        top + height + _BELOW_MM - LINE_MM / 2,
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
