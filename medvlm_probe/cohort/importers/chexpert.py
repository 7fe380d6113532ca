"""CheXpert, full size or small: train.csv, valid.csv and test labels, and labels of CheXbert or VisualCheXbert."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.class_labels import (
    CHEXPERT_CLASSES,
    labels_of,
    replace_by_file,
    settled,
    stated_labels,
)
from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images, name_key
from medvlm_probe.cohort.importers.left_out import counted
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import ODD_AGES, ages, column, find_table, read_table, sexes
from medvlm_probe.errors import ManifestError

LABEL_MAP: LabelMap = CHEXPERT_CLASSES

TABLES: dict[str, tuple[str, ...]] = {
    "train": ("train.csv",),
    "valid": ("valid.csv", "val_labels.csv"),
    "test": ("test_labels.csv", "groundtruth.csv", "test.csv"),
}
"""Each split's table: as CheXpert publishes it, as CheXlocalize does, and the table of the test's studies."""


def read(folder: Path, options: ImportOptions) -> Published:
    """Read the data set as it was published.

    An image is told by the end of its `Path`, `patientNNNNN/studyN/viewN_frontal.jpg`: the folders above that may have
    any names. Blank labels are findings that the report does not mention, and are unknown.

    Raises:
        ManifestError: none of the tables, a damaged one, or no image.
        InputError: a labels file that does not fit.
    """
    files = files_below(folder, IMAGE_SUFFIXES)
    rows = pd.concat(_tables(folder, files), ignore_index=True)
    matched = match_images(rows["path"], files, folder, ".jpg", key=_image_key)
    rows = rows.loc[matched.image.index]
    key = rows["path"].map(_image_key)
    study = key.map(_parent)
    values = rows[[label for label in labels_of(LABEL_MAP) if label in rows]].astype(np.float32)
    file_notes: tuple[str, ...] = ()
    if options.labels_file is not None:
        values, file_notes = replace_by_file(
            values,
            rows["split"],
            options.labels_file,
            {"Path": _image_key, "Study": _study_key},
            {"Path": key, "Study": study},
            LABEL_MAP,
        )
    values, label_notes = settled(values)
    age, n_odd_ages = ages(rows["age"].mask(rows["age"] == "0"))
    table = pd.DataFrame(
        {
            "image": matched.image,
            "patient": "chexpert-" + key.str.extract(r"^patient(\d+)/", expand=False),
            "study": study,
            "site": "stanford",
            "view": rows["view"],
            "split": rows["split"],
            "age": age,
            "sex": sexes(rows["sex"]),
            **{str(label): values[label] for label in values},
        }
    )
    return Published(
        table=table.reset_index(drop=True),
        labels=tuple(values.columns),
        image_root=folder,
        skipped=matched.skipped,
        notes=(
            *matched.notes,
            *file_notes,
            *label_notes,
            *counted(int((rows["age"] == "0").sum()), "Ages of 0, which stands for not known, made unknown"),
            *counted(n_odd_ages, ODD_AGES),
        ),
    )


def _tables(folder: Path, files: list[str]) -> list[pd.DataFrame]:
    paths = {split: find_table(folder, *names) for split, names in TABLES.items()}
    tables = [_table(path, split, files) for split, path in paths.items() if path is not None]
    if not tables:
        raise ManifestError(
            f"'{folder}' does not look like CheXpert: it holds none of train.csv, valid.csv and test_labels.csv. Name "
            "the folder that the data set was unpacked into."
        )
    return tables


def _table(path: Path, split: str, files: list[str]) -> pd.DataFrame:
    """Return one split's rows: path, split, view, age and sex as text, and its labels."""
    given = read_table(path, (), None)
    if "Path" not in given and "Study" not in given:
        raise ManifestError(f"{path.name} has neither a column 'Path' nor 'Study'. Take the file as it was published.")
    if split == "test" and not any(name in given for name in LABEL_MAP):
        labels = pd.DataFrame(index=given.index)
    else:
        labels = stated_labels(given, path, LABEL_MAP)
    if "Path" not in given:
        given, labels = _images_of_studies(given, labels, files)
    lateral = given["Path"].str.contains("_lateral", regex=False, na=False)
    if "Frontal/Lateral" in given:
        lateral = given["Frontal/Lateral"] == "Lateral"
    projection = column(given, "AP/PA")
    return pd.DataFrame(
        {
            "path": given["Path"],
            "split": split,
            "view": projection.where(projection.isin(["AP", "PA"])).astype(object).mask(lateral, "LATERAL"),
            "age": column(given, "Age"),
            "sex": column(given, "Sex"),
            **{str(label): labels[label] for label in labels},
        }
    )


def _images_of_studies(
    studies: pd.DataFrame, labels: pd.DataFrame, files: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows and labels for the image files of studies; a study without files keeps its own row."""
    images = pd.DataFrame({"Path": files, "key": [_parent(_image_key(path)) for path in files]})
    studies = studies.assign(key=studies["Study"].map(_study_key, na_action="ignore"), row=range(len(studies)))
    both = studies.merge(images, on="key", how="left")
    both["Path"] = both["Path"].fillna(both["Study"])
    return both, labels.iloc[both["row"]].reset_index(drop=True)


def _image_key(path: str) -> str:
    """Return `patient/study/view` for a path that ends so, without the file's suffix."""
    parts = path.replace("\\", "/").split("/")
    return "/".join([*parts[-3:-1], name_key(parts[-1])])


def _study_key(path: str) -> str:
    return "/".join(path.rstrip("/").split("/")[-2:])


def _parent(key: str) -> str:
    return key.rpartition("/")[0]
