"""NIH ChestX-ray14: Data_Entry_2017 (either edition), its images, split lists and boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.boxes import box_table
from medvlm_probe.cohort.importers.class_labels import CONTRADICTION, labels_of, listed_labels, parsed_classes
from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images
from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import (
    ODD_AGES,
    ages,
    column,
    find_table,
    need_table,
    numbers,
    read_cells,
    read_table,
    read_text,
    refuse_labels_file,
    sexes,
    views,
)
from medvlm_probe.errors import ManifestError

TITLE = "NIH ChestX-ray14"

LABEL_MAP: LabelMap = {
    "No Finding": ("no_finding",),
    "Atelectasis": ("atelectasis", "lung_opacity"),
    "Cardiomegaly": ("cardiomegaly",),
    "Consolidation": ("consolidation", "lung_opacity"),
    "Edema": ("edema", "lung_opacity"),
    "Effusion": ("pleural_effusion",),
    "Emphysema": (),
    "Fibrosis": (),
    "Hernia": (),
    "Infiltration": ("lung_opacity",),
    "Mass": ("lung_lesion", "lung_opacity"),
    "Nodule": ("lung_lesion", "lung_opacity"),
    "Pleural_Thickening": ("pleural_other",),
    "Pneumonia": ("pneumonia", "lung_opacity"),
    "Pneumothorax": ("pneumothorax",),
}
"""CheXpert's label tree is kept: what it hangs below `lung_opacity` also makes that present. No class of NIH speaks of
a wide mediastinum, of fractures or of devices."""

SPLIT_LISTS = {"train_val_list.txt": "train_val", "test_list.txt": "test"}

_BOX_SPELLINGS = {"Infiltrate": "Infiltration"}
_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_REQUIRED = ("Image Index", "Finding Labels")
_OPTIONAL = ("Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "Patient Sex", "View Position")


def read(folder: Path, options: ImportOptions) -> Published:
    """Read the data set as it was published.

    Images may lie in any folder below. `study` is patient and follow-up number, which is one image. Rows with a class
    that is none of NIH's 15 are left out.

    Raises:
        ManifestError: no Data_Entry_2017, a damaged table, or no image.
        InputError: a labels file was given.
    """
    refuse_labels_file(options, TITLE)
    rows = read_table(need_table(folder, *_TABLES, title=TITLE), _REQUIRED, _OPTIONAL)
    classes = parsed_classes(rows["Finding Labels"], _classes)
    known = classes.map(LABEL_MAP.keys().__ge__).astype(bool)
    strange = rows["Image Index"][~known] + " (" + rows["Finding Labels"][~known] + ")"
    files = files_below(folder, IMAGE_SUFFIXES)
    matched = match_images(rows["Image Index"][known], files, folder, ".png")
    rows = rows.loc[matched.image.index]
    values, contradicts = listed_labels(classes[rows.index], LABEL_MAP)
    labels = labels_of(LABEL_MAP)
    age, n_odd_ages = ages(column(rows, "Patient Age"))
    patient = column(rows, "Patient ID").str.lstrip("0")
    table = pd.DataFrame(
        {
            "image": matched.image,
            "patient": "nih-" + patient,
            "study": patient.str.zfill(8) + "_" + column(rows, "Follow-up #").str.zfill(3),
            "site": "nih",
            "view": views(column(rows, "View Position")),
            **_split(folder, rows["Image Index"]),
            "age": age,
            "sex": sexes(column(rows, "Patient Gender", "Patient Sex")),
            **dict(zip(labels, values.T, strict=True)),
            "finding_raw": rows["Finding Labels"],
        }
    )
    boxes, bad_boxes, box_notes = _boxes(folder, table["image"], rows["Image Index"])
    return Published(
        table=table.reset_index(drop=True),
        labels=labels,
        image_root=folder,
        boxes=boxes,
        skipped=joined(skipped(strange, "a class is none of NIH's 15"), matched.skipped, bad_boxes),
        notes=(
            *matched.notes,
            *counted(len(strange), "Rows with a class that NIH does not have, left out"),
            *counted(int(contradicts.sum()), CONTRADICTION),
            *counted(n_odd_ages, ODD_AGES),
            *box_notes,
        ),
    )


def _classes(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split("|") if name.strip())


def _split(folder: Path, names: pd.Series) -> dict[str, pd.Series]:
    """Return the column `split`, missing for images in neither list; nothing where there are no lists."""
    lists = {path: split for name, split in SPLIT_LISTS.items() if (path := find_table(folder, name)) is not None}
    if not lists:
        return {}
    split = pd.Series([None] * len(names), index=names.index, dtype=object)
    for path, name in lists.items():
        split[names.isin(read_text(path).split())] = name
    return {"split": split}


def _boxes(
    folder: Path, image: pd.Series, names: pd.Series
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, tuple[str, ...]]:
    """Return the boxes of BBox_List_2017, whose header names fewer columns than it has commas."""
    path = find_table(folder, "BBox_List_2017.csv")
    if path is None:
        return None, None, ()
    header, cells = read_cells(path)
    if header[:2] != ["Image Index", "Finding Label"] or len(cells) < 6:
        raise ManifestError(
            f"{path.name} begins with the columns {', '.join(header[:6])}, not with Image Index, Finding Label and "
            "four numbers. Take the file as it was published."
        )
    classes = cells[1].replace(_BOX_SPELLINGS)
    return box_table(
        cells[0].map(dict(zip(names, image, strict=True))),
        classes,
        np.column_stack([numbers(cells[i]) for i in range(2, 6)]),
        pd.Series("NIH BBox_List_2017", index=classes.index),
        LABEL_MAP,
    )
