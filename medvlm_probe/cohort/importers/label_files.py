"""A CSV of labels that a user has for a published data set: the output of CheXbert or of the CheXpert labeler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest_columns import label_values, snake_case
from medvlm_probe.cohort.manifest_files import read_text_columns, rows_text
from medvlm_probe.errors import InputError


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels by key.

    Attributes:
        name: the file's name. column: the column that says what a row is about, as written.
        kind: which of the asked columns that is, snake_case.
        labels: the label columns, snake_case.
        values: one row a key (index), one float32 column a label: 1, 0, -1 uncertain, NaN not stated.
        n_contradicting: keys that stood in rows with different labels; all their labels are NaN.
    """

    name: str
    column: str
    kind: str
    labels: tuple[str, ...]
    values: pd.DataFrame
    n_contradicting: int

    def matched(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the labels (n, L) of keys, NaN where the file has none, and which keys it has (n,)."""
        found = np.asarray(self.values.index.get_indexer(pd.Index(list(keys), dtype=object)))
        values = self.values.to_numpy(dtype=np.float32)
        known = found >= 0
        out = np.full((len(keys), len(self.labels)), np.nan, dtype=np.float32)
        out[known] = values[found[known]]
        return out, known

    def note(self, n_matched: int, n: int, what: str) -> str:
        """Return how the labels were matched, for people."""
        text = (
            f"Labels come from {self.name}, matched by its column '{self.column}': {n_matched:,} of {n:,} {what}; "
            "blank cells are unknown."
        )
        if self.n_contradicting:
            text += f" {self.n_contradicting:,} stand there with contradicting labels and are unknown."
        return text


def read_label_file(path: Path, kinds: dict[str, Callable[[str], str]]) -> LabelFile:
    """Read a CSV or Parquet of CheXpert's labels; other columns are passed over.

    Args:
        path: the file.
        kinds: columns (snake_case) that may say what a row is about, best first, and how their cells become keys.

    Raises:
        InputError: no column of `kinds`, no label columns, or cells that are no label.
        ManifestError: the file cannot be read.
    """
    columns = {snake_case(name): (name, column) for name, column in read_text_columns(path)}
    kind = next((kind for kind in kinds if kind in columns), None)
    if kind is None:
        raise InputError(
            f"{path.name} has none of the columns {', '.join(kinds)}, so its rows cannot be matched. It has: "
            f"{', '.join(list(columns)[:8])}."
        )
    values: dict[str, NDArray[np.float32]] = {}
    for name, (written, column) in columns.items():
        if name not in CHEXPERT_LABELS:
            continue
        values[name], bad = label_values(column)
        if bad.any():
            rows = rows_text((np.flatnonzero(bad)[:5] + 1).tolist(), int(bad.sum()))
            raise InputError(f"{path.name}: column '{written}' holds values other than 1, 0, -1 or blank in {rows}.")
    if not values:
        raise InputError(f"{path.name} has no label columns. Name them as CheXpert does, with 1, 0, -1 or blank cells.")
    written, column = columns[kind]
    keys = pd.Series(column.to_pandas(), dtype=object).fillna("").map(kinds[kind])
    order = [name for name in CHEXPERT_LABELS if name in values]
    table = pd.DataFrame(values, columns=order).set_index(pd.Index(keys, dtype=object))
    table = table[table.index != ""]
    distinct = table.reset_index(names="key").drop_duplicates().set_index("key")
    twice = distinct.index.duplicated(keep=False)
    contradicting = distinct.index[twice].unique()
    distinct = distinct[~distinct.index.duplicated()]
    distinct.loc[contradicting] = np.nan
    return LabelFile(path.name, written, kind, tuple(order), distinct, len(contradicting))
