"""Many grey images on one sheet, with outlines of boxes and masks where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import (
    DOUBLE_COLUMN_MM,
    LINE_MM,
    MARGIN_MM,
    ORANGE,
    bare,
    new_page,
    style,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
_GAP_MM = 1.5
_CAPTION_GAP_MM = 0.6


def contact_sheet(
    images: Sequence[NDArray[np.uint8]],
    titles: Sequence[str] | None = None,
    *,
    n_columns: int = 5,
    column_titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    boxes: Sequence[Sequence[Box]] | None = None,
    masks: Sequence[Sequence[NDArray[np.bool_]]] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Lay images out in rows, each in its own proportions, black 0 and white 255 for all of them.

    Args:
        images: uint8 arrays (height, width), filled in row by row.
        titles: up to three lines above each image.
        n_columns: images in a row.
        column_titles: words above each column (`n_columns` of them).
        row_titles: words left of each row.
        boxes: for each image its boxes (x, y, width, height) in pixels from the top left corner.
        masks: for each image its masks, bool arrays of the image's shape, drawn as outlines.
        title: a line above the figure.
        note: small print below it.
        width_mm: the figure's width in print.

    Raises:
        InputError: no images, arrays of another kind, or a list not as long as the images, columns or rows.
    """
    _check(images, titles, n_columns, column_titles, row_titles, boxes, masks)
    n_rows = -(-len(images) // n_columns)
    rows_mm = 24.0 if row_titles else 0.0
    tile = (width_mm - 2 * MARGIN_MM - rows_mm - (n_columns - 1) * _GAP_MM) / n_columns
    heads = [wrapped(words, tile, bold=True, max_lines=2) for words in column_titles or ()]
    captions = [wrapped(words, tile, max_lines=3) for words in titles or ()]
    head_mm = max((len(head) for head in heads), default=0) * LINE_MM
    tops, heights = [], []
    top = head_mm + (0.8 if heads else 0.0)
    for row in range(n_rows):
        members = slice(row * n_columns, (row + 1) * n_columns)
        caption_mm = max((len(caption) for caption in captions[members]), default=0) * LINE_MM
        caption_mm += _CAPTION_GAP_MM if caption_mm else 0.0
        tops.append(top + caption_mm)
        heights.append(max(tile * image.shape[0] / image.shape[1] for image in images[members]))
        top += caption_mm + heights[-1] + _GAP_MM
    with style():
        page = new_page(
            width_mm, top, title=title, note=note, description=f"Contact sheet of {len(images)} grey images."
        )
        for column, head in enumerate(heads):
            left = MARGIN_MM + rows_mm + column * (tile + _GAP_MM)
            page.lines(left, page.top + head_mm - (len(head) - 0.5) * LINE_MM, head, fontweight="bold")
        for row, words in enumerate(row_titles or ()):
            lines = wrapped(words, rows_mm - 2.0, bold=True, max_lines=4)
            page.lines(MARGIN_MM, page.top + tops[row] + LINE_MM / 2 + 0.5, lines, fontweight="bold")
        for index, image in enumerate(images):
            row, column = divmod(index, n_columns)
            left = MARGIN_MM + rows_mm + column * (tile + _GAP_MM)
            height = tile * image.shape[0] / image.shape[1]
            axes = page.axes(left, page.top + tops[row], tile, height)
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="antialiased")
            bare(axes)
            _outline(axes, boxes[index] if boxes else (), masks[index] if masks else ())
            if captions:
                lines = captions[index]
                y = page.top + tops[row] - _CAPTION_GAP_MM - (len(lines) - 0.5) * LINE_MM
                page.lines(left, y, lines)
        return page.figure


def _outline(axes: Axes, boxes: Sequence[Box], masks: Sequence[NDArray[np.bool_]]) -> None:
    """Draw outlines in orange over black, so that they show on bright and on dark tissue."""
    from matplotlib.patches import Rectangle

    for colour, line_width in (("black", 1.5), (ORANGE, 0.7)):
        for x, y, width, height in boxes:
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=line_width)
            )
        for mask in masks:
            if mask.any() and not mask.all():
                axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=line_width)


def _check(
    images: Sequence[NDArray[np.uint8]],
    titles: Sequence[str] | None,
    n_columns: int,
    column_titles: Sequence[str] | None,
    row_titles: Sequence[str] | None,
    boxes: Sequence[Sequence[Box]] | None,
    masks: Sequence[Sequence[NDArray[np.bool_]]] | None,
) -> None:
    if not images:
        raise InputError("A contact sheet needs at least one image; none was given.")
    if n_columns < 1:
        raise InputError(f"A contact sheet needs at least one column; n_columns is {n_columns}.")
    for index, image in enumerate(images):
        if image.ndim != 2 or image.dtype != np.uint8 or 0 in image.shape:
            raise InputError(
                f"Image {index} is {image.dtype} of shape {image.shape}; a contact sheet takes uint8 (height, width)."
            )
    n_rows = -(-len(images) // n_columns)
    for name, given, expected in (
        ("titles", titles, len(images)),
        ("boxes", boxes, len(images)),
        ("masks", masks, len(images)),
        ("column_titles", column_titles, n_columns),
        ("row_titles", row_titles, n_rows),
    ):
        if given is not None and len(given) != expected:
            raise InputError(
                f"A contact sheet of {len(images)} images takes {expected} {name}; {len(given)} were given."
            )
    for index, of_image in enumerate(masks or ()):
        for mask in of_image:
            if mask.shape != images[index].shape:
                raise InputError(
                    f"A mask of image {index} has shape {mask.shape}; the image has {images[index].shape}."
                )
