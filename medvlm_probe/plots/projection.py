"""Embeddings as points on a plane: an illustration, on which no statistic is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.plots.point_panels import (
    BELOW_MM,
    LEFT_MM,
    UNKNOWN,
    VECTORS_UP_TO,
    Panel,
    crosses,
    dots,
    limit,
    mixed,
    name_axes,
    panels_figure,
    proportion,
    size,
)
from medvlm_probe.plots.style import (
    DOUBLE_COLUMN_MM,
    LINE_MM,
    MARGIN_MM,
    MUTED,
    OVERLAY,
    VERMILLION,
    checked_table,
    new_page,
    plain,
    shown,
    style,
    wrapped,
)
from medvlm_probe.types import BoolArray, FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ILLUSTRATION = "An illustration: no statistic is computed on these coordinates."


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
    points, finite, left_out = _points(rows)
    with style():
        return _draw(
            points,
            groups[finite],
            axes_words,
            by=by,
            labels_words=labels_words,
            title=title,
            note=_note(_ILLUSTRATION, left_out, note),
            width_mm=width_mm,
        )


def projection_by_label(
    table: pd.DataFrame,
    labels: Sequence[str],
    axes_words: tuple[str, str] = ("First principal component", "Second principal component"),
    *,
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw a panel for each label: the images that have it over those that have it not.

    Within a panel each image is one point, and nothing is drawn of images where the label is not known. An image with
    several labels is in colour in several panels; the note says how many do so.

    Args:
        table: `x`, `y` and a column of 1, 0 or NaN for each label, one row an image.
        labels: the columns, in the order to draw them.
        axes_words, labels_words, title, note, width_mm: as for `projection_scatter`.

    Raises:
        InputError: no labels, an empty table, missing columns, or no row with two defined coordinates.
    """
    if not labels:
        raise InputError("A projection by label needs at least one label.")
    rows = checked_table(table, "coordinates", numeric=("x", "y", *labels))
    points, finite, left_out = _points(rows)
    values = rows.loc[finite, list(labels)].to_numpy(dtype=float)
    panels = []
    for label, column in zip(labels, values.T, strict=True):
        present, unknown = column == 1, int(np.isnan(column).sum())
        count = f"n = {int(present.sum()):,}{f'; {unknown:,} unknown' if unknown else ''}"
        panels.append(Panel(shown(label, labels_words), count, present, column == 0, VERMILLION))
    several = int(((values == 1).sum(axis=1) > 1).sum())
    words = ["In colour: present. Grey: absent."]
    if np.isnan(values).any():
        words.append("Unknown: not drawn.")
    if several:
        words.append(f"{several:,} of {len(points):,} images have several of these labels: once in each panel.")
    description = f"{len(points)} images as points, in a panel for each of {len(labels)} labels."
    with style():
        return panels_figure(
            points,
            panels,
            axes_words,
            description=f"{description} Axes: {axes_words[0]}, {axes_words[1]}.",
            title=title,
            note=_note(f"{' '.join(words)} {_ILLUSTRATION}", left_out, note),
            width_mm=width_mm,
        )


def _points(rows: pd.DataFrame) -> tuple[FloatArray, BoolArray, int]:
    """Return the points with two coordinates (m, 2), which rows they are, and how many rows have none."""
    points = rows[["x", "y"]].to_numpy(dtype=float)
    finite = np.isfinite(points).all(axis=1)
    if not bool(finite.any()):
        raise InputError("No row of the table of coordinates has both x and y defined, so there is nothing to draw.")
    return points[finite], finite, int((~finite).sum())


def _note(words: str, left_out: int, note: str | None) -> str:
    if left_out:
        words += f" {left_out:,} image{'s' if left_out > 1 else ''} without coordinates left out."
    return f"{words} {note}" if note else words


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
    words = {name: plain((labels_words or {}).get(name, name)) for name in names} | {"": "Unknown"}
    sizes = {name: f"n = {count:,}" for name, count in counts.items()}
    description = f"{len(points)} images as points; axes: {axes_words[0]}, {axes_words[1]}."
    everyone = [*names, *([""] if "" in counts else [])]
    if len(names) <= len(OVERLAY):
        key = {name: f"{words[name]} ({sizes[name]})" for name in everyone}
        return _overlay(points, groups, names, key, axes_words, by, description, title, note, width_mm)
    panels = [
        Panel(words[name], sizes[name], groups == name, groups != name, VERMILLION if name else MUTED)
        for name in everyone
    ]
    return panels_figure(points, panels, axes_words, description=description, title=title, note=note, width_mm=width_mm)


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
    panel = width_mm - 2 * MARGIN_MM - LEFT_MM - 2.0 - (key_mm + 4.0 if wide and by else 0.0)
    height = panel * proportion(points)
    under = 0.0 if wide else key_lines * LINE_MM + 3.0 + 0.4 * len(key)
    page = new_page(width_mm, 2.0 + height + BELOW_MM + under, title=title, note=note, description=description)
    left = MARGIN_MM + LEFT_MM
    axes = page.axes(left, page.top + 2.0, panel, height)
    limit(axes, points, panel, height)
    colours = dict(zip(names, OVERLAY, strict=False))
    known = groups != ""
    order = mixed(len(points))
    order = order[known[order]]
    crosses(axes, points[~known], len(points))
    dots(
        axes,
        points[order],
        [colours[name] for name in groups[order]],
        size(len(points)),
        pixels=len(points) > VECTORS_UP_TO,
    )
    name_axes(page, left, page.top + 2.0, panel, height, axes_words)
    if not by:
        return page.figure
    x, y = (left + panel + 4.0, page.top + 4.0) if wide else (left, page.top + 2.0 + height + BELOW_MM + 3.0)
    for name, lines in key.items():
        sample = page.axes(x, y - 1.2, 2.4, 2.4)
        sample.axis("off")
        if name:
            sample.plot([0.5], [0.5], marker="o", markersize=4.5, color=colours[name], clip_on=False)
        else:
            sample.plot([0.5], [0.5], marker="x", markersize=4.0, color=UNKNOWN, clip_on=False)
        page.lines(x + 4.0, y, lines)
        y += len(lines) * LINE_MM + 0.4
    return page.figure


def _place(name: str, first: Sequence[str]) -> int:
    return first.index(name) if name in first else len(first)
