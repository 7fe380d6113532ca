"""CSV and Parquet files as named columns of text: nothing is guessed, "007" stays "007"."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path
from typing import Any

from medvlm_probe.cohort.storage import RemoteFile
from medvlm_probe.errors import ManifestError

_BLOCK_BYTES = 1 << 26


def read_text_columns(path: Path | RemoteFile) -> list[tuple[str, Any]]:
    """Return the columns in file order as (name as written, pyarrow array of text; null where the cell is empty).

    Raises:
        ManifestError: no such file, another format, not UTF-8, rows of unequal length, quotes left open.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ManifestError(f"'{path}' is no manifest: its name must end in .csv or .parquet.")
    if not path.is_file():
        raise ManifestError(f"There is no manifest file '{path}'. Check the path.")
    try:
        return reader(path)
    except OSError as error:
        raise ManifestError(f"Cannot read '{path}': {error.strerror or error}.") from error


def rows_text(rows: list[int], total: int) -> str:
    """Return "row 3" or "rows 3, 9 and 2 more" for at most five 1-based row numbers out of `total`."""
    listed = ", ".join(str(row) for row in rows[:5])
    more = total - min(5, len(rows))
    return f"{'row' if total == 1 else 'rows'} {listed}" + (f" and {more:,} more" if more else "")


def _read_csv(path: Path | RemoteFile) -> list[tuple[str, Any]]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    names = _header(data, path)
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
                column_names=[str(i) for i in range(len(names))],
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note_uneven),
            convert_options=arrow_csv.ConvertOptions(
                column_types={str(i): pa.string() for i in range(len(names))},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{path.name} {_why(data)}.") from error
    if uneven:
        raise ManifestError(
            f"{path.name}: {rows_text(uneven, len(uneven))} (blank lines not counted) have more or fewer cells than "
            f"the header's {len(names)}. Put text with commas, quotes or line breaks in double quotes."
        )
    if table.num_rows == 0:
        raise ManifestError(f"{path.name} has a header but no rows. Add one row an image.")
    if data.count(b'"') % 2 and any("\n" in (column[-1].as_py() or "") for column in table.columns):
        raise ManifestError(
            f"{path.name}: a double quote is opened and never closed. Close it, or double a quote within text."
        )
    return list(zip(names, table.columns, strict=True))


def _header(data: bytes, path: Path | RemoteFile) -> list[str]:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    try:
        names = next(csv.reader(text, strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path.name} {_why(data)}.") from error
    if not names:
        raise ManifestError(
            f"{path.name} is empty or begins with a blank line. Begin with a header that names the columns."
        )
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise ManifestError(f"{path.name} is not separated by commas. Save it as comma-separated CSV (UTF-8).")
    return names


def _why(data: bytes) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"is not UTF-8 text (line {line}). Save it as CSV in UTF-8"
    return "is no well-formed CSV. Check its quotes and line ends"


def _read_parquet(path: Path | RemoteFile) -> list[tuple[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = path if isinstance(path, Path) else pa.BufferReader(path.read_bytes())
        table = parquet.ParquetFile(file).read(use_threads=False)
    except pa.ArrowException as error:
        raise ManifestError(f"{path.name} is no readable Parquet file: truncated, or another format.") from error
    if table.num_rows == 0:
        raise ManifestError(f"{path.name} has no rows. Add one row an image.")
    return [(name, _as_text(name, table.column(i), path)) for i, name in enumerate(table.column_names)]


def _as_text(name: str, column: Any, path: Path | RemoteFile) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    try:
        text = column.cast(pa.string())
    except pa.ArrowException as error:
        raise ManifestError(f"{path.name}: column '{name}' has type {kind}. Use text or numbers.") from error
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
