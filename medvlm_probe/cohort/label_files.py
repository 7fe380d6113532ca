"""Labels of a cohort's images from another source's CSV: CheXbert's or CheXpert's output, a hospital's own table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest_columns import label_values, snake_case
from medvlm_probe.cohort.manifest_files import read_text_columns, rows_text
from medvlm_probe.errors import InputError

Key = Callable[[str], str]

_CONTRADICTING = 1.0


@dataclass(frozen=True, eq=False)
class CohortLabels:
    """Another source's labels for a cohort's images.

    Attributes:
        table: one row an image of the cohort, in its order, one float32 column a label: 1, 0, -1 uncertain, NaN not
            stated or not in the file.
        matched: which images the file speaks of, (n,).
        note: how they were matched, for people.
    """

    table: pd.DataFrame
    matched: NDArray[np.bool_]
    note: str


def read_label_file(path: Path, cohort: Cohort) -> CohortLabels:
    """Read a CSV or Parquet of labels, and give each image of a cohort those of its row.

    Column names may be spelled as CheXpert and CheXbert do ("Pleural Effusion"). Rows are matched by image, else by
    study, else by patient, else by the text that was labelled ("Report Impression"); a file with none of these columns
    by its order, where it has as many rows as the cohort has images or studies. Rows that say different things of one
    image leave it unknown.

    Raises:
        InputError: no label columns, cells that are no label, or nothing that matches rows to images.
        ManifestError: the file cannot be read.
    """
    columns = {snake_case(name): (name, column) for name, column in read_text_columns(path)}
    values = _label_columns(path, columns, {*CHEXPERT_LABELS, *cohort.labels})
    if not values:
        raise InputError(
            f"{path.name} has none of the labels {', '.join(cohort.labels[:3])}, ...: its columns are unknown "
            f"({', '.join(name for name, _ in columns.values())}). Name them as the cohort or CheXpert does."
        )
    table = pd.DataFrame(values)
    kind = next((kind for kind in _KEYS if kind in columns and _own(cohort, kind) is not None), None)
    if kind is None:
        unknown = [name for plain, (name, _) in columns.items() if plain not in values]
        return _by_order(path.name, table, cohort, unknown)
    written, column = columns[kind]
    ids, own = column.to_pandas().fillna("").astype(str).tolist(), _own(cohort, kind) or []
    for plain in _KEYS[kind][0]:
        keys = [plain(text) for text in own]
        if plain is not _text and len(set(keys)) < len(set(own)):
            continue  # compared this way, different images would share a row
        found = _matched(table, [plain(text) for text in ids], keys)
        matched = found["row"].notna().to_numpy()
        if matched.any():
            note = f"{path.name}: matched by its column '{written}', {int(matched.sum()):,} of {len(cohort):,} images."
            contradicting = int((found["row"] == _CONTRADICTING).sum())
            if contradicting:
                note += f" {contradicting:,} stand there with contradicting labels and are unknown."
            return CohortLabels(found.drop(columns="row"), matched, note)
    raise InputError(
        f"No row of {path.name} fits an image of cohort '{cohort.name}' by its column '{written}'. Check that it "
        "belongs to these images."
    )


def _label_columns(
    path: Path, columns: Mapping[str, tuple[str, Any]], labels: set[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the columns that are labels, in CheXpert's order."""
    order = {name: position for position, name in enumerate(CHEXPERT_LABELS)}
    values = {}
    for name in sorted(set(columns) & labels, key=lambda name: (order.get(name, len(order)), name)):
        values[name], bad = label_values(columns[name][1])
        if bad.any():
            rows = rows_text((np.flatnonzero(bad)[:5] + 1).tolist(), int(bad.sum()))
            raise InputError(
                f"{path.name}: column '{columns[name][0]}' holds values other than 1, 0, -1 or blank in {rows}."
            )
    return values


def _matched(table: pd.DataFrame, ids: list[str], keys: list[str]) -> pd.DataFrame:
    """Return the rows of `keys`, with a column `row`: 0, `_CONTRADICTING`, or missing where no row fits."""
    keyed = table.set_index(pd.Index(ids, dtype=object))
    keyed = keyed[keyed.index != ""].reset_index(names="key").drop_duplicates().set_index("key")
    twice = keyed.index[keyed.index.duplicated()].unique()
    keyed = keyed[~keyed.index.duplicated()].assign(row=0.0)
    keyed.loc[twice, list(table.columns)] = np.nan
    keyed.loc[twice, "row"] = _CONTRADICTING
    return keyed.reindex(pd.Index(keys, dtype=object)).reset_index(drop=True)


def _by_order(name: str, table: pd.DataFrame, cohort: Cohort, unknown: list[str]) -> CohortLabels:
    studies = pd.factorize(cohort.table["study"])[0] if "study" in cohort.table else np.array([], dtype=np.int64)
    n_studies = int(studies.max(initial=-1)) + 1
    if len(table) == len(cohort):
        what, row = "images", np.arange(len(cohort))
    elif len(table) == n_studies and (studies >= 0).all():
        what, row = "studies", studies
    else:
        raise InputError(
            f"{name} has {len(table):,} rows and no column that names them (image, study, patient, report_impression); "
            f"cohort '{cohort.name}' has {len(cohort):,} images of {n_studies:,} studies. Unknown columns: "
            f"{', '.join(unknown) or 'none'}."
        )
    note = f"{name}: no column names its rows, so its {len(table):,} rows were taken in the order of the {what}."
    return CohortLabels(table.iloc[row].reset_index(drop=True), np.ones(len(cohort), dtype=np.bool_), note)


def _own(cohort: Cohort, kind: str) -> list[str] | None:
    """Return what the cohort calls its images, studies, patients or reports; None where it does not say."""
    column = _KEYS[kind][1]
    if column not in cohort.table:
        return None
    return cohort.table[column].fillna("").astype(str).tolist()


def _path(text: str) -> str:
    return text.strip().replace("\\", "/").removeprefix("./")


def _file_name(text: str) -> str:
    return re.sub(r"\.(png|jpe?g|tiff?|dcm|dicom)$", "", PurePosixPath(_path(text)).name, flags=re.IGNORECASE)


def _id(text: str) -> str:
    return text.strip()


def _number(text: str) -> str:
    """Return an id without its letters and zeros in front: `CXR0012`, `iu-12`, `s12` and `12.0` are one."""
    match = re.fullmatch(r"(?:[A-Za-z]{1,8}[-_]?)?0*(\d+)(?:\.0)?", text.strip())
    return match[1] if match else text.strip()


def _text(text: str) -> str:
    return " ".join(text.lower().split())


_IMAGE: tuple[tuple[Key, ...], str] = ((_path, _file_name), "image")
_STUDY: tuple[tuple[Key, ...], str] = ((_id, _number), "study")
_PATIENT: tuple[tuple[Key, ...], str] = ((_id, _number), "patient")
_REPORT: tuple[tuple[Key, ...], str] = ((_text,), "report")
_KEYS: dict[str, tuple[tuple[Key, ...], str]] = {
    **dict.fromkeys(("image", "path", "filename", "file_name", "image_id", "dicom_id"), _IMAGE),
    **dict.fromkeys(("study", "study_id", "uid"), _STUDY),
    **dict.fromkeys(("patient", "patient_id", "subject_id"), _PATIENT),
    **dict.fromkeys(("report_impression", "impression", "report"), _REPORT),
}
"""Columns that may say what a row is about, best first: how their cells are compared, strictest first, and with which
column of the cohort."""
