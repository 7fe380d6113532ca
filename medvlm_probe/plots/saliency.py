"""Heat maps beside their radiographs: a row an image, a column a setting or a control, one scale for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.plots.saliency_ink import (
    BAR_MM,
    draw_bar,
    draw_image,
    draw_map,
    draw_region,
    range_words,
    scale_limit,
)
from medvlm_probe.plots.style import DOUBLE_COLUMN_MM, INK, LINE_MM, MARGIN_MM, MUTED, new_page, style, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medvlm_probe.plots.style import Page
    from medvlm_probe.types import FloatArray

_GAP_MM = 1.5
_ROW_GAP_MM = 2.5


@dataclass(frozen=True, eq=False)
class HeatMapRow:
    """One image of a figure.

    Attributes:
        name: what the image is called; never a path or an identifier of a person.
        image: (H, W) uint8, as displayed.
        maps: column to signed map (H, W); NaN where the model never saw. A column without a map stays empty.
        region: (H, W), where the finding lies; None where that is not known.
        words: column to what stands below the map, such as its score.
    """

    name: str
    image: NDArray[np.uint8]
    maps: Mapping[str, FloatArray]
    region: NDArray[np.bool_] | None = None
    words: Mapping[str, str] = field(default_factory=dict)


def heat_map_panels(
    rows: Sequence[HeatMapRow],
    columns: Mapping[str, str],
    *,
    unit: str,
    scale_from: Sequence[str] = (),
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw each image's radiograph and maps, the region's outline on top, with one scale for all maps of the figure.

    Args:
        rows: the images, at least one.
        columns: key of a map to the words above its column, in order.
        unit: what the values are, for the colour bar.
        scale_from: the columns whose maps set the scale (controls may run beyond it); none: all.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: no rows, no columns, a map that does not fit its image, or none at all.
    """
    setting = [values for row in rows for key, values in row.maps.items() if key in (scale_from or columns)]
    if not rows or not columns or not setting:
        raise InputError(f"{len(rows)} images, {len(columns)} columns and {len(setting)} maps: nothing to draw.")
    limit = scale_limit(setting)
    tile = (width_mm - 2 * MARGIN_MM - len(columns) * _GAP_MM) / (len(columns) + 1)
    heads = [wrapped(words, tile, bold=True, max_lines=3) for words in ("Radiograph", *columns.values())]
    head_mm = max(map(len, heads)) * LINE_MM + 0.8
    below = [{key: _below(row, key, limit, tile) for key in columns} for row in rows]
    below_mm = [max(len(lines) for lines in words.values()) * LINE_MM + 0.4 for words in below]
    heights = [tile * row.image.shape[0] / row.image.shape[1] for row in rows]
    rows_mm = sum(LINE_MM + 0.6 + high + under + _ROW_GAP_MM for high, under in zip(heights, below_mm, strict=True))
    description = f"Heat maps of {len(rows)} images: {', '.join(columns.values())}."
    with style():
        page = new_page(
            width_mm, head_mm + rows_mm + BAR_MM, title=title, note=_note(rows, note), description=description
        )
        lefts = [MARGIN_MM + place * (tile + _GAP_MM) for place in range(len(columns) + 1)]
        for left, head in zip(lefts, heads, strict=True):
            page.lines(left, page.top + LINE_MM / 2, head, fontweight="bold")
        top = page.top + head_mm
        for row, words, high, under in zip(rows, below, heights, below_mm, strict=True):
            page.text(
                MARGIN_MM, top + LINE_MM / 2, wrapped(row.name, width_mm - 2 * MARGIN_MM, max_lines=1)[0], color=INK
            )
            top += LINE_MM + 0.6
            _draw_row(page, row, columns, lefts, (top, tile, high), limit)
            for left, key in zip(lefts[1:], columns, strict=True):
                page.lines(left, top + high + 0.4 + LINE_MM / 2, words[key], color=MUTED)
            top += high + under + _ROW_GAP_MM
        draw_bar(page, top, limit, unit)
        return page.figure


@dataclass(frozen=True, eq=False)
class GalleryEntry:
    """One image of an error gallery; `words` stand above it, a line each."""

    words: Sequence[str]
    image: NDArray[np.uint8]
    values: FloatArray
    region: NDArray[np.bool_] | None = None


def error_gallery(
    groups: Mapping[str, Sequence[GalleryEntry]],
    *,
    unit: str,
    n_columns: int = 4,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw the worst errors in rows under the words of their kind: each radiograph beside the same under its map.

    Args:
        groups: kind of error in words to its images, the worst first.
        unit: what the maps' values are, for the colour bar.
        n_columns: images a row.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: no images at all.
    """
    entries = [entry for group in groups.values() for entry in group]
    if not entries:
        raise InputError("An error gallery needs at least one image; none was given.")
    limit = scale_limit([entry.values for entry in entries])
    pair = (width_mm - 2 * MARGIN_MM - (n_columns - 1) * 2 * _GAP_MM) / n_columns
    tile = (pair - 0.5) / 2
    blocks: list[tuple[str, list[list[GalleryEntry]]]] = [
        (words, [list(group[at : at + n_columns]) for at in range(0, len(group), n_columns)])
        for words, group in groups.items()
        if group
    ]

    def caption(entry: GalleryEntry) -> list[str]:
        return [line for text in entry.words for line in wrapped(text, pair, max_lines=2)]

    def height(line: list[GalleryEntry]) -> float:
        return max(tile * float(entry.image.shape[0] / entry.image.shape[1]) for entry in line)

    def captions_mm(line: list[GalleryEntry]) -> float:
        return max(len(caption(entry)) for entry in line) * LINE_MM + 0.6

    body = sum(
        LINE_MM + 1.0 + sum(captions_mm(line) + height(line) + _ROW_GAP_MM for line in lines) for _, lines in blocks
    )
    kinds = ", ".join(f"{sum(map(len, lines))} {words}" for words, lines in blocks)
    with style():
        page = new_page(width_mm, body + BAR_MM, title=title, note=note, description=f"Error gallery: {kinds}.")
        top = page.top
        for words, lines in blocks:
            page.text(MARGIN_MM, top + LINE_MM / 2, words, fontweight="bold")
            top += LINE_MM + 1.0
            for line in lines:
                above = captions_mm(line)
                for place, entry in enumerate(line):
                    left = MARGIN_MM + place * (pair + 2 * _GAP_MM)
                    page.lines(left, top + LINE_MM / 2, caption(entry))
                    high = tile * entry.image.shape[0] / entry.image.shape[1]
                    plain, mapped = (page.axes(x, top + above, tile, high) for x in (left, left + tile + 0.5))
                    draw_image(plain, entry.image)
                    draw_map(mapped, entry.image, entry.values, limit)
                    draw_region(mapped, entry.region)
                top += above + height(line) + _ROW_GAP_MM
        draw_bar(page, top, limit, unit)
        return page.figure


def _draw_row(
    page: Page,
    row: HeatMapRow,
    columns: Mapping[str, str],
    lefts: list[float],
    place: tuple[float, float, float],
    limit: float,
) -> None:
    top, tile, high = place
    axes = page.axes(lefts[0], top, tile, high)
    draw_image(axes, row.image)
    draw_region(axes, row.region)
    for left, key in zip(lefts[1:], columns, strict=True):
        if key in row.maps:
            axes = page.axes(left, top, tile, high)
            draw_map(axes, row.image, row.maps[key], limit)
            draw_region(axes, row.region)


def _below(row: HeatMapRow, key: str, limit: float, tile: float) -> list[str]:
    """Return the lines below a map: its words, and its own range on the figure's scale."""
    if key not in row.maps:
        return []
    score = wrapped(row.words[key], tile, max_lines=2) if row.words.get(key) else []
    return [*score, *wrapped(range_words(row.maps[key], limit), tile, max_lines=2)]


def _note(rows: Sequence[HeatMapRow], note: str | None) -> str:
    aids = ["Lines: thirds of the scale, solid for the label, dashed against it. Below each map: its own range."]
    if any(row.region is not None for row in rows):
        aids.append("Yellow: where the finding lies.")
    if any(np.isnan(values).any() for row in rows for values in row.maps.values()):
        aids.append("Hatched: cropped away, never seen by the model.")
    return " ".join([*aids, *([note] if note else [])])
