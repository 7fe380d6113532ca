"""KatherColon: NCT-CRC-HE-100K and CRC-VAL-HE-7K, patches of colorectal tissue in nine class folders."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medvlm_probe.cohort.importers.image_files import files_below
from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.cohort.importers.one_class import class_columns, labels_in_order
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import refuse_labels_file
from medvlm_probe.errors import ManifestError

TITLE = "NCT-CRC-HE-100K with CRC-VAL-HE-7K"
SPLITS = {"train": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}

LABEL_MAP: LabelMap = {
    "ADI": ("adipose_tissue",),
    "BACK": ("background",),
    "DEB": ("debris",),
    "LYM": ("lymphocytes",),
    "MUC": ("mucus",),
    "MUS": ("smooth_muscle",),
    "NORM": ("normal_colon_mucosa",),
    "STR": ("cancer_associated_stroma",),
    "TUM": ("colorectal_adenocarcinoma_epithelium",),
}


def read(folder: Path, options: ImportOptions) -> Published:
    """Read `NCT-CRC-HE-100K/CLASS/*.tif` as train and `CRC-VAL-HE-7K/CLASS/*.tif` as test, as they were published.

    Raises:
        ManifestError: neither folder, or no image in their class folders.
        InputError: a labels file was given.
    """
    refuse_labels_file(options, TITLE)
    missing = [name for name in SPLITS.values() if not (folder / name).is_dir()]
    if len(missing) == len(SPLITS):
        raise ManifestError(
            f"'{folder}' does not look like {TITLE}: it holds neither {' nor '.join(SPLITS.values())}. Name the folder "
            "that the archives were unpacked into."
        )
    files = [
        (f"{name}/{file}", split, file.split("/")[0])
        for split, name in SPLITS.items()
        if name not in missing
        for file in files_below(folder / name, (".tif", ".tiff", ".png", ".jpg"))
    ]
    rows = pd.DataFrame(files, columns=["image", "split", "class"])
    known = rows["class"].isin(list(LABEL_MAP))
    left_out = skipped(rows["image"][~known], "its folder is none of the nine classes")
    rows = rows[known].reset_index(drop=True)
    if rows.empty:
        raise ManifestError(f"No image lies in the class folders ({', '.join(LABEL_MAP)}) of '{folder}'.")
    return Published(
        table=rows[["image", "split"]].assign(**class_columns(rows["class"], LABEL_MAP)),
        labels=labels_in_order(LABEL_MAP),
        image_root=folder,
        skipped=joined(left_out),
        notes=(
            *(
                f"{name} is not there, so there is no split '{split}'."
                for split, name in SPLITS.items()
                if name in missing
            ),
            *counted(int((~known).sum()), "Images outside the class folders, left out"),
        ),
    )
