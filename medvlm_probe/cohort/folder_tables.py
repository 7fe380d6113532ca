"""A CSV that speaks of a plain folder's images: which column names the files, and which columns are labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.published import SKIPPED_COLUMNS
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest import MANIFEST_COLUMNS
from medvlm_probe.cohort.manifest_columns import age_values, sex_values, snake_case, trimmed
from medvlm_probe.cohort.manifest_files import read_text_columns
from medvlm_probe.errors import ManifestError

FILE_COLUMNS = (
    "image",
    "filename",
    "file_name",
    "file",
    "image_path",
    "file_path",
    "path",
    "image_name",
    "image_id",
    "image_index",
    "dicom_id",
    "id",
)
"""Columns that may name the files, best first."""

CLASS_COLUMNS = ("class", "label", "category", "diagnosis", "target", "finding")
"""Columns that may hold each image's one class in words, where no column is a label of its own."""

MOST_CLASSES = 50

_SPELLINGS = {
    "no_findings": "no_finding",
    "enlarged_cardiomediastinal_silhouette": "enlarged_cardiomediastinum",
    "lung_opacities": "lung_opacity",
    "airspace_opacity": "lung_opacity",
    "oedema": "edema",
    "pulmonary_edema": "edema",
    "effusion": "pleural_effusion",
    "pleural_effusions": "pleural_effusion",
    "fractures": "fracture",
    "support_device": "support_devices",
    "patient_id": "patient",
    "subject_id": "patient",
    "study_id": "study",
    "view_position": "view",
    "patient_age": "age",
    "gender": "sex",
    "patient_sex": "sex",
    "patient_gender": "sex",
    "hospital": "site",
}
"""Column names that mean a label or a manifest's column; other names stay what they are."""

_PRESENT = ("1", "1.0", "true", "yes", "positive", "present")
_ABSENT = ("0", "0.0", "false", "no", "negative", "absent")
_UNCERTAIN = ("-1", "-1.0", "uncertain")
_VALUES = {
    "": np.nan,
    **dict.fromkeys(_PRESENT, 1.0),
    **dict.fromkeys(_ABSENT, 0.0),
    **dict.fromkeys(_UNCERTAIN, -1.0),
}


@dataclass(frozen=True, eq=False)
class FolderTable:
    """What a CSV says of a folder's images.

    Attributes:
        table: one row an image of the folder, in the order given: `image`, manifest columns, labels (float32), others.
        labels: the label columns, snake_case.
        words: names for people of the labels that are none of CheXpert's.
        task: `single_label` where one column held the class in words.
        skipped: rows that fit no image or repeat one, columns `published.SKIPPED_COLUMNS`.
        notes: what was taken for what, a sentence each.
    """

    table: pd.DataFrame
    labels: tuple[str, ...]
    words: dict[str, str]
    task: Literal["multi_label", "single_label"]
    skipped: pd.DataFrame
    notes: tuple[str, ...]


def names_files(path: Path) -> bool:
    """Return whether a CSV can be read and has a column that may name files."""
    try:
        columns = read_text_columns(path)
    except ManifestError:
        return False
    return any(snake_case(name) in FILE_COLUMNS for name, _ in columns)


def read_folder_table(path: Path, images: Sequence[str]) -> FolderTable:
    """Read a CSV or Parquet that has a row an image.

    A row is about the image whose path it gives, else about the only one of its file name, with or without the ending.
    Images without a row are kept, with everything unknown. Labels are the 14 of CheXpert in common spellings, and other
    columns of 1/0/-1, true/false, yes/no, positive/negative, present/absent or blank cells; without any, one column of
    `CLASS_COLUMNS` with at most `MOST_CLASSES` classes in words.

    Raises:
        ManifestError: the file cannot be read, names no files, fits no image, or two columns mean the same.
    """
    columns = _named(read_text_columns(path), path)
    file_column = next((name for name in FILE_COLUMNS if name in columns), None)
    if file_column is None:
        raise ManifestError(
            f"{path.name} names no files: none of its columns is called {', '.join(FILE_COLUMNS[:4])} or the like."
        )
    names = trimmed(columns[file_column][1]).fillna("")
    rows, skipped = _rows_of_images(names.tolist(), images)
    if not rows:
        raise ManifestError(
            f"Not one row of {path.name} fits an image: column '{columns[file_column][0]}' holds for example "
            f"'{names.iloc[0]}', the folder '{images[0]}'."
        )
    taken = np.array([rows.get(image, -1) for image in images], dtype=np.int64)
    others = {name: column for name, (_, column) in columns.items() if name not in (file_column, "image")}
    labels = {name: values for name, column in others.items() if (values := _labels(name, column)) is not None}
    words = {name: columns[name][0].strip().replace("_", " ") for name in labels if name not in CHEXPERT_LABELS}
    task: Literal["multi_label", "single_label"] = "multi_label"
    class_column = next((name for name in CLASS_COLUMNS if name in others), None)
    if not labels and class_column is not None:
        labels, words = _classes(trimmed(others[class_column]))
        task = "single_label" if labels else task
    label_columns = {name: _taken(values, taken) for name, values in labels.items()}
    known = [name for name in MANIFEST_COLUMNS if name in others and name not in labels]
    used = {*known, *labels, class_column if task == "single_label" else ""}
    extra = [name for name in others if name not in used]
    table = pd.DataFrame(
        {
            "image": list(images),
            **{name: _cells(name, others[name], path, taken) for name in known},
            **label_columns,
            **{name: _text(trimmed(others[name]), taken) for name in extra},
        }
    )
    return FolderTable(
        table=table,
        labels=tuple(labels),
        words=words,
        task=task,
        skipped=pd.DataFrame(skipped, columns=list(SKIPPED_COLUMNS)),
        notes=tuple(_notes(path, columns, file_column, [*known, *labels], f"{len(rows):,} of {len(images):,}")),
    )


def _notes(
    path: Path, columns: dict[str, tuple[str, Any]], file_column: str, used: Sequence[str], share: str
) -> list[str]:
    notes = [f"{path.name} is matched by its column '{columns[file_column][0]}': {share} images have a row."]
    renamed = [
        f"'{columns[name][0]}' for {name}" for name in used if name in columns and snake_case(columns[name][0]) != name
    ]
    return [*notes, f"{path.name}: taken are {', '.join(renamed)}."] if renamed else notes


def _named(columns: Sequence[tuple[str, Any]], path: Path) -> dict[str, tuple[str, Any]]:
    """Return column name (snake_case, common spellings resolved) to the name as written and the cells."""
    named: dict[str, tuple[str, Any]] = {}
    for written, column in columns:
        name = snake_case(written)
        name = _SPELLINGS.get(name, name)
        if name in named:
            raise ManifestError(
                f"{path.name}: columns '{named[name][0]}' and '{written}' both mean '{name}'. Remove one."
            )
        if name:
            named[name] = (written, column)
    return named


def _rows_of_images(names: Sequence[str], images: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return image to row number, and the rows left out."""
    exact = set(images)
    by_name = _only_ones((PurePosixPath(image).name, image) for image in images)
    by_stem = _only_ones((PurePosixPath(image).stem, image) for image in images)
    rows: dict[str, int] = {}
    skipped = []
    for row, name in enumerate(names):
        given = PurePosixPath(name.replace("\\", "/"))
        image = str(given) if str(given) in exact else by_name.get(given.name) or by_stem.get(given.name)
        if image is None:
            skipped.append((name, "no image file, or several, of this name"))
        elif image in rows:
            skipped.append((name, "an earlier row is about the same image"))
        else:
            rows[image] = row
    return rows, skipped


def _only_ones(pairs: Any) -> dict[str, str]:
    pairs = list(pairs)
    counts = Counter(key for key, _ in pairs)
    return {key: image for key, image in pairs if counts[key] == 1}


def _labels(name: str, column: Any) -> NDArray[np.float32] | None:
    """Return a column's labels (n,), None where it holds anything else, or nothing and is none of CheXpert's."""
    if name in MANIFEST_COLUMNS:
        return None
    texts = trimmed(column).fillna("").str.lower()
    if not texts.isin(_VALUES).all() or (name not in CHEXPERT_LABELS and (texts == "").all()):
        return None
    return texts.map(_VALUES).to_numpy(dtype=np.float32)


def _classes(cells: pd.Series) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Return one label a class, 1 or 0 where the cell is filled, and the classes' names; none for too many classes."""
    names = sorted(cells.dropna().unique())
    words = {snake_case(name): name for name in names}
    if not 2 <= len(names) <= MOST_CLASSES or len(words) < len(names) or "" in words or {*words} & {*MANIFEST_COLUMNS}:
        return {}, {}
    unknown = cells.isna().to_numpy()
    return {label: np.where(unknown, np.nan, cells == name).astype(np.float32) for label, name in words.items()}, words


def _cells(name: str, column: Any, path: Path, taken: NDArray[np.int64]) -> Any:
    if name == "age":
        ages, bad = age_values(column)
        if bad.any():
            raise ManifestError(f"{path.name}: column 'age' holds values that are no age in years (0 to 120).")
        return _taken(ages, taken)
    if name == "sex":
        sexes, bad = sex_values(column)
        if bad.any():
            raise ManifestError(f"{path.name}: column 'sex' holds values other than F, M, other or empty.")
        return _text(sexes, taken)
    return _text(column.to_pandas() if name == "report" else trimmed(column), taken)


def _taken(values: NDArray[np.float32], taken: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.where(taken < 0, np.float32(np.nan), values[taken]).astype(np.float32)


def _text(cells: pd.Series, taken: NDArray[np.int64]) -> list[Any]:
    values = cells.astype(object).where(cells.notna(), None).to_numpy(dtype=object)
    return [values[row] if row >= 0 else None for row in taken]
