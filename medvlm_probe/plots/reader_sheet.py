"""The sheet that a radiologist marks: a page an image, with rulers in the image's own pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.plots.style import LINE_MM, MARGIN_MM, MUTED, new_page, style, ticks_along, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_MM, SIDE_MM = (190.0, 170.0)
_RULER_MM = 12.0


@dataclass(frozen=True, eq=False)
class SheetPage:
    """One image of a sheet: what it is called, its pixels (H, W) uint8, and what is asked about it."""

    name: str
    image: NDArray[np.uint8]
    question: str


def sheet_page(page: SheetPage, *, number: int, n_pages: int, note: str) -> Figure:
    """Draw one image as large as the page allows, with rulers in pixels on two sides.

    Args:
        page: the image.
        number: its place in the sheet, from 1.
        n_pages: how many there are.
        note: small print.
    """
    height, width = page.image.shape
    scale = SIDE_MM / max(height, width)
    wide, high = width * scale, height * scale
    question = wrapped(page.question, PAGE_MM - 2 * MARGIN_MM, max_lines=3)
    with style():
        title = f"Image {page.name} ({number} of {n_pages}), {width} x {height} pixels"
        body = len(question) * LINE_MM + 2.0 + high + _RULER_MM
        description = f"Radiograph {page.name} with rulers in pixels."
        paper = new_page(PAGE_MM, body, title=title, note=note, description=description)
        paper.lines(MARGIN_MM, paper.top + LINE_MM / 2, question, color=MUTED)
        top = paper.top + len(question) * LINE_MM + 2.0
        axes = paper.axes(MARGIN_MM + _RULER_MM, top, wide, high)
        axes.imshow(page.image, cmap="gray", vmin=0, vmax=255, aspect="auto", extent=(0, width, height, 0))
        ticks_along(axes, wide)
        ticks_along(axes, high, upwards=True)
        paper.text(MARGIN_MM + _RULER_MM + wide / 2, top + high + _RULER_MM - LINE_MM, "x, pixels", ha="center")
        axes.set_ylabel("y, pixels, downward")
        return paper.figure


def sheet_pdf(pages: Sequence[SheetPage], *, note: str) -> bytes:
    """Return a PDF with a page an image; equal pages give equal bytes under one version of matplotlib.

    Raises:
        InputError: no pages.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    if not pages:
        raise InputError("A sheet needs at least one image; none was given.")
    out = io.BytesIO()
    facts = {"Creator": "medvlm-probe", "Producer": None, "CreationDate": None, "Title": "Sheet for annotation"}
    with style(), PdfPages(out, metadata=facts) as pdf:
        for number, page in enumerate(pages, start=1):
            pdf.savefig(sheet_page(page, number=number, n_pages=len(pages), note=note), dpi=200)
    return out.getvalue()
