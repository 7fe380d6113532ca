"""MIMIC-CXR-JPG 2.0.0 and 2.1.0: metadata, split, labels of CheXpert or NegBio, and reports where they lie beside."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medvlm_probe.cohort.importers.class_labels import CHEXPERT_CLASSES, replace_by_file, settled, stated_labels
from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images, name_key
from medvlm_probe.cohort.importers.left_out import counted
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import column, find_table, need_table, read_table, views

TITLE = "MIMIC-CXR-JPG"

LABEL_MAP: LabelMap = {**CHEXPERT_CLASSES, "Airspace Opacity": ("lung_opacity",)}
"""The labelers' columns; "Airspace Opacity" is what the labels made by hand call "Lung Opacity"."""

_METADATA = ("mimic-cxr-2.*-metadata.csv",)
_SPLIT = ("mimic-cxr-2.*-split.csv",)
_LABELS = ("mimic-cxr-2.*-chexpert.csv", "mimic-cxr-2.*-negbio.csv")
_IDS = ("dicom_id", "subject_id", "study_id")


def read(folder: Path, options: ImportOptions) -> Published:
    """Read the data set as it was published.

    Labels are study labels: every image of a study has the same. Blank labels are findings that the report does not
    mention, and are unknown. Reports are read where `sSTUDY.txt` files lie below the folder. A labels file is matched
    by its column `dicom_id` or `study_id`.

    Raises:
        ManifestError: no metadata or label table, a damaged one, or no image.
        InputError: a labels file that does not fit.
    """
    rows = read_table(
        need_table(folder, *_METADATA, title=TITLE), _IDS, ("ViewPosition", "PerformedProcedureStepDescription")
    )
    files = files_below(folder, (*IMAGE_SUFFIXES, ".txt"))
    texts = [path for path in files if path.endswith(".txt")]
    images = [path for path in files if not path.endswith(".txt")]
    matched = match_images(rows["dicom_id"], images, folder, ".jpg")
    rows = rows.loc[matched.image.index]
    split = _splits(folder, rows["dicom_id"])
    labels_path = need_table(folder, *_LABELS, title=TITLE)
    published, n_repeated = _study_labels(labels_path)
    labelled = rows["study_id"].isin(published.index)
    values = published.reindex(rows["study_id"]).set_axis(rows.index)
    file_notes: tuple[str, ...] = ()
    if options.labels_file is not None:
        values, file_notes = replace_by_file(
            values,
            column(rows, "none") if split is None else split,
            options.labels_file,
            {"dicom_id": str, "study_id": str},
            {"dicom_id": rows["dicom_id"], "study_id": rows["study_id"]},
            LABEL_MAP,
        )
    values, label_notes = settled(values)
    if texts:
        options.say(f"Reading {len(texts):,} reports ...")
    reports, n_unreadable = _reports(folder, texts, rows["study_id"])
    table = pd.DataFrame(
        {
            "image": matched.image,
            "patient": "mimic-" + rows["subject_id"],
            "study": "s" + rows["study_id"],
            "site": "bidmc",
            "view": views(column(rows, "ViewPosition")),
            **({} if split is None else {"split": split}),
            **({"report": reports} if texts else {}),
            **{str(label): values[label] for label in values},
            "procedure": column(rows, "PerformedProcedureStepDescription"),
        }
    )
    return Published(
        table=table.reset_index(drop=True),
        labels=tuple(values.columns),
        image_root=folder,
        skipped=matched.skipped,
        notes=(
            *matched.notes,
            *((f"Labels are those of {labels_path.name}.",) if options.labels_file is None else file_notes),
            *counted(int((~labelled).sum()), f"Images of studies without a row in {labels_path.name}, without labels"),
            *counted(n_repeated, f"Rows of {labels_path.name} that repeat an earlier row's study, left out"),
            *label_notes,
            *counted(n_unreadable, "Reports that could not be read as text"),
        ),
    )


def _splits(folder: Path, images: pd.Series) -> pd.Series | None:
    path = find_table(folder, *_SPLIT)
    if path is None:
        return None
    table = read_table(path, ("dicom_id", "split"))
    return images.map(dict(zip(table["dicom_id"], table["split"], strict=True)))


def _study_labels(path: Path) -> tuple[pd.DataFrame, int]:
    """Return the labels by study, and how many rows repeat a study."""
    table = read_table(path, ("study_id",), None)
    table = table[table["study_id"].notna()]
    values = stated_labels(table, path, LABEL_MAP).set_axis(pd.Index(table["study_id"]))
    repeated = values.index.duplicated()
    return values[~repeated], int(repeated.sum())


def _reports(folder: Path, texts: list[str], studies: pd.Series) -> tuple[pd.Series, int]:
    """Return each image's report and how many files are no text; a file belongs to a study by its name `sSTUDY.txt`."""
    wanted = set("s" + studies)
    found: dict[str, str | None] = {}
    for path in texts:
        name = name_key(path).removesuffix(".txt")
        if name in wanted:
            try:
                found[name] = " ".join((folder / path).read_text(encoding="utf-8").split())
            except (OSError, UnicodeDecodeError):
                found[name] = None
    reports = ("s" + studies).map(found)
    return reports.where(reports != "", None), sum(text is None for text in found.values())
