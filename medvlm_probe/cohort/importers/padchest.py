"""PadChest: the table of 160,000 images, its images in numbered folders or in one, and its findings as labels."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from medvlm_probe.cohort.importers.class_labels import CONTRADICTION, labels_of, listed_labels, parsed_classes
from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images
from medvlm_probe.cohort.importers.left_out import counted
from medvlm_probe.cohort.importers.padchest_labels import LABEL_MAP, OPEN_CLASSES
from medvlm_probe.cohort.importers.published import ImportOptions, Published
from medvlm_probe.cohort.importers.tables import (
    column,
    need_table,
    numbers,
    read_table,
    refuse_labels_file,
    sexes,
    views,
)
from medvlm_probe.cohort.manifest_columns import MAX_AGE

TITLE = "PadChest"

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K*.csv"
_REQUIRED = ("ImageID", "Labels")
_OPTIONAL = (
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "Projection",
    "Pediatric",
    "Report",
    "MethodLabel",
)
_VIEWS = {"AP_horizontal": "AP SUPINE", "UNK": None, "EXCLUDE": None}


def read(folder: Path, options: ImportOptions) -> Published:
    """Read the data set as it was published.

    Images may lie in any folder below (the published folders are 0 to 54). The report is the published one: stemmed
    Spanish words. Labels come from the list of findings; see `padchest_labels`.

    Raises:
        ManifestError: no table, a damaged one, or no image.
        InputError: a labels file was given.
    """
    refuse_labels_file(options, TITLE)
    rows = read_table(need_table(folder, _TABLE, title=TITLE), _REQUIRED, _OPTIONAL)
    matched = match_images(rows["ImageID"], files_below(folder, IMAGE_SUFFIXES), folder, ".png")
    rows = rows.loc[matched.image.index]
    classes = parsed_classes(rows["Labels"], classes_of)
    devices = frozenset(name for name, labels in LABEL_MAP.items() if "support_devices" in labels)
    values, contradicts = listed_labels(classes, LABEL_MAP, open_classes=OPEN_CLASSES, beside_normal=devices)
    labels = labels_of(LABEL_MAP)
    age, n_odd_ages = _ages(column(rows, "StudyDate_DICOM"), column(rows, "PatientBirth"))
    table = pd.DataFrame(
        {
            "image": matched.image,
            "patient": "padchest-" + column(rows, "PatientID"),
            "study": column(rows, "StudyID"),
            "site": "padchest",
            "view": views(column(rows, "Projection").replace(_VIEWS)),
            "age": age,
            "sex": sexes(column(rows, "PatientSex_DICOM")),
            "report": column(rows, "Report"),
            **dict(zip(labels, values.T, strict=True)),
            "finding_raw": _listed(classes),
            "label_method": column(rows, "MethodLabel"),
            "pediatric": column(rows, "Pediatric"),
        }
    )
    is_open = classes.map(lambda listed: bool(listed & OPEN_CLASSES)).astype(bool)
    return Published(
        table=table.reset_index(drop=True),
        labels=labels,
        image_root=folder,
        skipped=matched.skipped,
        notes=(
            *matched.notes,
            *counted(
                int((classes.map(len) == 0).sum()),
                "Images without any finding listed, not even 'normal', so without labels",
            ),
            *counted(
                int(is_open.sum()),
                f"Images listed as {', '.join(sorted(OPEN_CLASSES))}, where what is not listed is unknown",
            ),
            *counted(int(contradicts.sum()), CONTRADICTION),
            *counted(n_odd_ages, "Ages (year of study less year of birth) that are impossible, made unknown"),
        ),
    )


def classes_of(text: str) -> frozenset[str]:
    """Return the findings of a published cell, a list as Python prints it (`['normal', ' pneumonia']`).

    Blanks around names and empty names are dropped. What is no list ("nan") has no findings.
    """
    if not (text.startswith("[") and text.endswith("]")):
        return frozenset()
    names = (single or double for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", text))
    return frozenset(name.strip() for name in names if name.strip())


def _listed(classes: pd.Series) -> pd.Series:
    """Return the findings sorted and joined by "|", missing where there are none."""
    names = {listed: "|".join(sorted(listed)) or None for listed in set(classes)}
    return classes.map(names).astype(object)


def _ages(study_date: pd.Series, birth_year: pd.Series) -> tuple[pd.Series, int]:
    """Return ages in whole years (float32), one more than the true age before the birthday, and how many are none."""
    years = numbers(study_date.str.slice(0, 4)) - numbers(birth_year)
    possible = years.between(0, MAX_AGE)
    return years.where(possible).astype("float32"), int((years.notna() & ~possible).sum())
