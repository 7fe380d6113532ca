"""The tables of published data sets: CSV files read as text, and what their ages, sexes and views mean."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.manifest_columns import MAX_AGE
from medvlm_probe.cohort.manifest_files import rows_text
from medvlm_probe.errors import InputError, ManifestError

ODD_AGES = "Ages that are above 120 or unreadable, made unknown"

_BLOCK_BYTES = 1 << 26
_SMALL_BYTES, _MOST_UNFOLDED = 1 << 26, 200
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SEXES = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "O": "other", "OTHER": "other"}
_VIEWS = {
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "L": "LATERAL",
    "LATERAL": "LATERAL",
    "LL": "LATERAL",
    "RL": "LATERAL",
}


def find_table(folder: Path, *names: str) -> Path | None:
    """Return the first of `names` (patterns of file names) that lies in `folder` or in one of its own folders.

    A name with `.gz` after it counts as well. A file in `folder` goes before one in a folder within it; among several
    fits the first by name is taken.
    """
    for place in ("", "*/"):
        for name in names:
            for ending in ("", ".gz"):
                found = sorted(path for path in folder.glob(f"{place}{name}{ending}") if path.is_file())
                if found:
                    return found[0]
    return None


def need_table(folder: Path, *names: str, title: str) -> Path:
    """Return `find_table`'s file.

    Raises:
        ManifestError: there is none; the message names the data set (`title`), the folder and the names looked for.
    """
    found = find_table(folder, *names)
    if found is None:
        raise ManifestError(
            f"'{folder}' does not look like {title}: it holds no {' or '.join(names)} (nor that with .gz). Name the "
            "folder that the data set was unpacked into."
        )
    return found


def refuse_labels_file(options: ImportOptions, title: str) -> None:
    """Raise InputError where a labels file is given for a data set that takes none."""
    if options.labels_file is not None:
        raise InputError(f"{title} takes no labels file: '{options.labels_file}' was given. Leave it out.")


def read_cells(path: Path) -> tuple[list[str], list[pd.Series]]:
    """Return a CSV file's column names and its columns in file order.

    UTF-8 with or without a byte-order mark, plain or gzip (by the ending `.gz`). Cells are text without white space at
    the ends; empty ones are missing. Unnamed columns after the last named one are kept where rows fill them, and
    dropped where rows are shorter; their name is "".

    Raises:
        ManifestError: no such file, not UTF-8, damaged, without rows, or rows of unequal length.
    """
    data = _bytes(path)
    names = _names(data, path)
    return names, [_text(column) for column in _columns(data, len(names), path)]


def read_table(path: Path, required: Sequence[str], optional: Sequence[str] | None = ()) -> pd.DataFrame:
    """Return columns of a CSV file as `read_cells` reads them.

    Args:
        path: a `.csv` or `.csv.gz` file.
        required: columns that must exist.
        optional: columns that are read where they exist; None reads every named column.

    Raises:
        ManifestError: as `read_cells`; or a required column is missing, or a column that is read stands twice.
    """
    names, cells = read_cells(path)
    missing = [name for name in required if name not in names]
    if missing:
        raise ManifestError(
            f"{path.name} lacks the column{'s' if len(missing) > 1 else ''} {_quoted(missing)} (it has: "
            f"{_quoted([name for name in names if name][:12])}). Take the file as it was published."
        )
    wanted = [name for name in dict.fromkeys(names) if name and (optional is None or name in {*required, *optional})]
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise ManifestError(f"{path.name} has the column '{twice[0]}' twice. Take the file as it was published.")
    return pd.DataFrame({name: cells[names.index(name)] for name in wanted})


def read_text(path: Path) -> str:
    """Return a text file's content, UTF-8 with or without a byte-order mark; ManifestError as `read_cells`."""
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path.name} is no text in UTF-8. Download it again.") from error


def column(table: pd.DataFrame, *names: str) -> pd.Series:
    """Return the first of `names` that `table` has, else a column of missing cells."""
    for name in names:
        if name in table:
            return table[name]
    return pd.Series([None] * len(table), index=table.index, dtype=object)


def ages(texts: pd.Series) -> tuple[pd.Series, int]:
    """Return ages in years (float32), and how many filled cells are none.

    "58", "58.0" and DICOM's "058Y", "006M", "002W", "010D" are read. What is no age, or above 120, becomes missing.
    """
    parts = texts.astype(object).str.extract(r"^(\d+(?:\.\d+)?)\s*([YMWD]?)$")
    factor = parts[1].map(_YEARS).fillna(1.0).astype(np.float64)
    years = pd.to_numeric(parts[0], errors="coerce") * factor
    years = years.where(years <= MAX_AGE).astype(np.float32)
    return years, int((years.isna() & texts.notna()).sum())


def sexes(texts: pd.Series) -> pd.Series:
    """Return sexes as F, M or other; missing where a cell is empty or says something else ("Unknown", "nan")."""
    return texts.str.upper().map(_SEXES)


def views(texts: pd.Series) -> pd.Series:
    """Return projections as PA, AP or LATERAL where they are one of these in any spelling, else as they stand."""
    known = texts.str.upper().map(_VIEWS)
    return known.where(known.notna(), texts)


def numbers(texts: pd.Series) -> pd.Series:
    """Return finite numbers (float64); missing where a cell is empty or holds none."""
    values = pd.to_numeric(texts, errors="coerce").astype(np.float64)
    return values.where(np.isfinite(values))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"Cannot read '{path}': {error.strerror or error}. Check the path.") from error
    if path.suffix.lower() == ".gz":
        most = max(_SMALL_BYTES, _MOST_UNFOLDED * len(data))
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ManifestError(f"{path.name} is no whole gzip file. Download it again.") from error
        if len(data) > most:
            raise ManifestError(
                f"{path.name} unfolds to over {_MOST_UNFOLDED} times its size, which no table does. Download it again."
            )
    return data.removeprefix(codecs.BOM_UTF8)


def _names(data: bytes, path: Path) -> list[str]:
    """Return the column names, as many as the first row has cells."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    try:
        rows = csv.reader(text)
        header = [name.strip() for name in next(rows, [])]
        first = next((row for row in rows if row), None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path) from error
    if first is None:
        raise ManifestError(f"{path.name} holds no rows below a header. Download it again.")
    names = [*header, *("" for cell in first[len(header) :] if not cell.strip())]
    while len(names) > len(first) and not names[-1]:
        names.pop()
    if len(names) != len(first):
        raise ManifestError(
            f"{path.name}: the header names {len(header)} columns, but the first row has {len(first)} cells. Take the "
            "file as it was published."
        )
    return names


def _columns(data: bytes, width: int, path: Path) -> list[Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    uneven: list[int] = []

    def note_uneven(row: Any) -> str:
        uneven.append(row.number - 1)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                skip_rows=1,
                column_names=[str(i) for i in range(width)],
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note_uneven),
            convert_options=arrow_csv.ConvertOptions(
                column_types={str(i): pa.string() for i in range(width)}, strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        raise _damaged(path) from error
    if uneven:
        raise ManifestError(
            f"{path.name}: {rows_text(uneven, len(uneven))} (blank lines not counted) have more or fewer cells than "
            f"the {width} of the first. The file is damaged; download it again."
        )
    return list(table.columns)


def _text(cells: Any) -> pd.Series:
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(cells)
    texts: pd.Series = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed).to_pandas()
    return texts


def _damaged(path: Path) -> ManifestError:
    return ManifestError(f"{path.name} is no well-formed CSV in UTF-8. Download it again.")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
