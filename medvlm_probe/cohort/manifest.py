"""The manifest of a cohort: a CSV or Parquet table, read in one pass and validated with row numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest_columns import (
    Problems,
    age_values,
    image_paths,
    label_values,
    sex_values,
    snake_case,
    trimmed,
)
from medvlm_probe.cohort.manifest_files import read_text_columns, rows_text
from medvlm_probe.cohort.storage import RemoteFile
from medvlm_probe.errors import ManifestError

MANIFEST_COLUMNS = ("image", "patient", "study", "site", "view", "split", "age", "sex", "report")
"""The columns that mean the same in every cohort; only `image` is required."""

UncertaintyPolicy = Literal["ignore", "zeros", "ones"]
"""What a label of -1 becomes: unknown, absent or present."""

UNCERTAINTY_POLICIES: tuple[UncertaintyPolicy, ...] = ("ignore", "zeros", "ones")


@dataclass(frozen=True)
class Manifest:
    """A manifest that has been read and found valid.

    Attributes:
        table: one row an image: the columns of `MANIFEST_COLUMNS` that the file has, then `labels`, then `extra`.
            Text stays text (patient "007" keeps its zeros), empty cells are missing, `age` is float32 in years, `sex`
            is F, M or other, labels are float32: 1 present, 0 absent, -1 uncertain, NaN not known.
        labels: the label columns, snake_case, in the order of the card, else of the file.
        extra: the other columns, kept as text.
        absent: the columns of `MANIFEST_COLUMNS` that the file lacks.
    """

    table: pd.DataFrame
    labels: tuple[str, ...]
    extra: tuple[str, ...]
    absent: tuple[str, ...]


def read_manifest(path: Path | RemoteFile, labels: Sequence[str] | None = None) -> Manifest:
    """Read a manifest and check every cell.

    Column names are read in any spelling ("Pleural Effusion" is `pleural_effusion`). Without `labels`, these columns
    are labels: the 14 of CheXpert, and every other unknown column that holds nothing but 1, 0, -1 or empty cells (at
    least one of them filled). All else is kept as extra columns. White space around cells is dropped, but for reports.

    Args:
        path: a `.csv` (UTF-8, commas; a byte-order mark, CRLF and quoted line breaks are fine) or `.parquet` file, of
            this machine or of an object store.
        labels: the label columns, snake_case, where a data card names them; each must exist.

    Raises:
        ManifestError: the file cannot be read, or cells are not what their column may hold; at most five row numbers a
            problem (row 1 is the first below the header).
    """
    columns = _renamed(read_text_columns(path), path)
    label_columns = _label_columns(columns, labels, path)
    problems = Problems(path)
    table: dict[str, Any] = {}
    for name in MANIFEST_COLUMNS:
        if name in columns:
            table[name] = _manifest_column(name, columns[name], problems)
    for name in label_columns:
        values, bad = label_values(columns[name])
        problems.add(f"Column '{name}' holds values other than 1, 0, -1 or empty", bad, "Correct these cells.")
        table[name] = values
    problems.raise_first()
    extra = tuple(name for name in columns if name not in table)
    for name in extra:
        table[name] = columns[name].to_pandas()
    absent = tuple(name for name in MANIFEST_COLUMNS if name not in columns)
    return Manifest(pd.DataFrame(table), label_columns, extra, absent)


def refuse_several_labels(manifest: Manifest) -> None:
    """Raise ManifestError unless each row with any known label has exactly one label of 1."""
    values = manifest.table[list(manifest.labels)].to_numpy(dtype=np.float32)
    bad = ((values == 1).sum(axis=1) != 1) & ~np.isnan(values).all(axis=1)
    if bad.any():
        rows = rows_text((np.flatnonzero(bad)[:5] + 1).tolist(), int(bad.sum()))
        raise ManifestError(
            f"The card's task is single_label, but {rows} do not have exactly one label of 1. Correct them, or set "
            "task: multi_label."
        )


def apply_policy(values: np.ndarray[Any, Any], policy: UncertaintyPolicy) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return labels with -1 replaced by NaN (`ignore`), 0 (`zeros`) or 1 (`ones`); NaN stays NaN, float32."""
    replacement = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}[policy]
    out: np.ndarray[Any, np.dtype[np.float32]] = np.where(values == -1, replacement, values).astype(np.float32)
    return out


def _renamed(columns: list[tuple[str, Any]], path: Path | RemoteFile) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for position, (given, column) in enumerate(columns, start=1):
        name = snake_case(given)
        if not name:
            raise ManifestError(
                f"{path.name}: column {position} has no name ('{given}'). Name it or remove it; "
                "tables saved by pandas need index=False."
            )
        if name in renamed:
            raise ManifestError(
                f"{path.name}: columns '{origin[name]}' and '{given}' are both '{name}'. Remove or rename one."
            )
        renamed[name], origin[name] = column, given
    if "image" not in renamed:
        listed = ", ".join(list(origin.values())[:8])
        raise ManifestError(
            f"{path.name} has no column 'image' (it has: {listed}). Add one with each image's path, relative to this "
            "file's folder."
        )
    return renamed


def _label_columns(columns: dict[str, Any], labels: Sequence[str] | None, path: Path | RemoteFile) -> tuple[str, ...]:
    others = [name for name in columns if name not in MANIFEST_COLUMNS]
    if labels is not None:
        missing = [name for name in labels if name not in others]
        if missing:
            raise ManifestError(
                f"{path.name} lacks the label columns {', '.join(missing)} that its data card names. Add them or "
                "correct the card."
            )
        return tuple(labels)
    return tuple(name for name in others if name in CHEXPERT_LABELS or _only_label_values(columns[name]))


def _only_label_values(column: Any) -> bool:
    values, bad = label_values(column)
    return not bad.any() and bool(np.isfinite(values).any())


def _manifest_column(name: str, column: Any, problems: Problems) -> Any:
    if name == "image":
        return image_paths(column, problems)
    if name == "age":
        values, bad = age_values(column)
        problems.add(
            "Column 'age' holds values that are no age in years (0 to 120)",
            bad,
            "Write years, or leave unknown ages empty.",
        )
        return values
    if name == "sex":
        texts, bad = sex_values(column)
        problems.add("Column 'sex' holds values other than F, M, other or empty", bad, "Correct these cells.")
        return texts
    return column.to_pandas() if name == "report" else trimmed(column)
