"""Embeddings as files for other tools: Parquet, CSV, or a NumPy matrix with a table of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from medvlm_probe import runs
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.embeddings.extract import Embedded

ExportFormat = Literal["parquet", "npy", "csv"]
ID_COLUMNS = ("image", "patient", "study", "site", "split")


def export_embeddings(embedded: Embedded, cohort: Cohort, path: Path, format: ExportFormat = "parquet") -> list[Path]:
    """Write embeddings with the manifest's ids and raw labels (1, 0, -1, empty); report texts are never written.

    Args:
        embedded: what `embed` returned for this cohort.
        cohort: the same cohort.
        path: the file to write.
        format: `parquet`: the ids, the labels and a column `embedding` (fixed-size list of float32). `csv`: the same
            with columns `e0`, `e1`, ... `npy`: a float32 matrix (n, D), and beside it `<stem>.csv` with its rows.

    Returns:
        The files written.

    Raises:
        InputError: an unknown format, a `path` that ends in another format's suffix, or embeddings of another cohort.
        StoreError: the file cannot be written.
    """
    if format not in ("parquet", "npy", "csv"):
        raise InputError(f"Unknown format '{format}'. Use parquet, npy or csv.")
    if path.suffix != f".{format}":
        raise InputError(f"The file '{path.name}' does not end in .{format}. Change its name or the format.")
    if embedded.n_given != len(cohort):
        raise InputError(f"Embeddings of {embedded.n_given:,} images do not fit a cohort of {len(cohort):,}.")
    rows = _rows(embedded, cohort)
    if format == "parquet":
        _write_parquet(path, rows, embedded)
        return [path]
    if format == "csv":
        columns = [f"e{i}" for i in range(embedded.vectors.shape[1])]
        runs.write_csv(path, pd.concat([rows, pd.DataFrame(embedded.vectors, columns=columns)], axis=1), exact=True)
        return [path]
    table = path.with_suffix(".csv")
    runs.write_atomically(path, lambda file: np.save(file, embedded.vectors, allow_pickle=False))
    runs.write_csv(table, rows, exact=True)
    return [path, table]


def _rows(embedded: Embedded, cohort: Cohort) -> pd.DataFrame:
    columns = [name for name in (*ID_COLUMNS, *cohort.labels) if name in cohort.table]
    return cohort.table.loc[:, columns].iloc[embedded.rows].reset_index(drop=True)


def _write_parquet(path: Path, rows: pd.DataFrame, embedded: Embedded) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(np.ascontiguousarray(embedded.vectors).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, embedded.vectors.shape[1])
    table = pa.Table.from_pandas(rows, preserve_index=False).append_column("embedding", vectors)
    runs.write_atomically(path, lambda file: pq.write_table(table, file))
