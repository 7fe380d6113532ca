"""The first sheet of an Excel workbook (.xlsx) as text: the little that tables of published data sets need."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from medvlm_probe.errors import ManifestError

MAX_MEMBER_BYTES = 1 << 26
"""The most that a part of a workbook may unfold to: a sheet of 10,000 rows is a hundredth of it."""

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    ElementTree.ParseError,
    LookupError,
    ValueError,
    OSError,
    EOFError,
    RuntimeError,  # encrypted, or compressed in a way that is not read
)
_SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_SHEET, _TEXTS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"


def read_sheet(path: Path) -> pd.DataFrame:
    """Return the rows below the header as text, missing cells as None; columns are named by the header's cells.

    Formulas, dates and formats are not interpreted: a cell is the text or the number that is stored.

    Raises:
        ManifestError: no workbook, damaged, larger than `MAX_MEMBER_BYTES`, or without a header.
    """
    try:
        with zipfile.ZipFile(path) as book:
            names = book.namelist()
            texts = [_text(item) for item in _parsed(book, _TEXTS, path)] if _TEXTS in names else []
            rows = [_cells(row, texts) for row in _parsed(book, _SHEET, path).iter(f"{_SPACE}row")]
    except _DAMAGED as error:
        raise ManifestError(f"{path.name} is no Excel workbook that can be read. Download it again.") from error
    if not rows or not rows[0]:
        raise ManifestError(f"{path.name} has no header in its first sheet. Download it again.")
    header = rows[0]
    table = [[row.get(column) for column in header] for row in rows[1:]]
    return pd.DataFrame(table, columns=pd.Index(list(header.values())), dtype=object)


def _parsed(book: zipfile.ZipFile, name: str, path: Path) -> ElementTree.Element:
    if book.getinfo(name).file_size > MAX_MEMBER_BYTES:
        raise ManifestError(f"{path.name} unfolds to more than {MAX_MEMBER_BYTES:,} bytes, so it is not opened.")
    with book.open(name) as member:
        data = member.read(MAX_MEMBER_BYTES + 1)
    # Entities could unfold without end; no writer of workbooks makes them.
    if b"<!DOCTYPE" in data:
        raise ManifestError(f"{path.name} declares a document type, which no workbook does. Download it again.")
    return ElementTree.fromstring(data)


def _cells(row: ElementTree.Element, texts: list[str]) -> dict[str, str]:
    """Return column letters to the cell's text, empty cells left out."""
    found = {}
    for cell in row.iter(f"{_SPACE}c"):
        value = cell.find(f"{_SPACE}v")
        if cell.get("t") == "inlineStr":
            text = _text(cell)
        else:
            text = "" if value is None or value.text is None else value.text
            text = texts[int(text)] if cell.get("t") == "s" and text else text
        if text.strip():
            found[re.sub(r"\d", "", cell.attrib["r"])] = text.strip()
    return found


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{_SPACE}t"))
