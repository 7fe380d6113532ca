"""The first sheet of a workbook as text, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from workbooks import workbook

from medvlm_probe.cohort.importers import spreadsheets
from medvlm_probe.cohort.importers.spreadsheets import read_sheet
from medvlm_probe.errors import ManifestError

ROWS = [
    ["FILE NAME", "FORMAT", "SIZE", "URL"],
    ["COVID-1", "PNG", "256*256", "https://a.org/x?a=1&b=2"],
    ["COVID-2", "PNG", None, 7],
]


@pytest.mark.parametrize("shared", [True, False])
def test_cells_are_text(tmp_path: Path, shared: bool) -> None:
    table = read_sheet(workbook(tmp_path / "a.xlsx", ROWS, shared=shared))
    assert list(table.columns) == ROWS[0]
    assert table.to_numpy().tolist() == [ROWS[1], ["COVID-2", "PNG", None, "7"]]


def test_damaged_and_hostile_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK no zip")
    with pytest.raises(ManifestError, match="no Excel workbook"):
        read_sheet(path)
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>')
    with pytest.raises(ManifestError, match="document type"):
        read_sheet(path)
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    with pytest.raises(ManifestError, match="no header"):
        read_sheet(path)
    workbook(path, ROWS)
    monkeypatch.setattr(spreadsheets, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(ManifestError, match="unfolds to more"):
        read_sheet(path)
