"""RSNA18 of CalibPrompt: the RSNA Pneumonia Detection Challenge as one of three classes an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images
from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.cohort.importers.one_class import class_columns, labels_in_order, split_by_group
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.rsna_pneumonia import NO_PATIENTS, TEST_FOLDER, TITLE, nih_names
from medvlm_probe.cohort.importers.tables import need_table, read_table, refuse_labels_file
from medvlm_probe.errors import InputError
from medvlm_probe.runs import write_bytes_atomically

LABEL_MAP: LabelMap = {
    "Lung Opacity": ("lung_opacity",),
    "No Lung Opacity / Not Normal": ("no_lung_opacity_not_normal",),
    "Normal": ("normal",),
}
SHARES = {"train": 0.8, "test": 0.2}
COPIES = "rsna18_legacy_copies"
"""The folder of second copies of images that the published split has in both parts."""


def read(folder: Path, options: ImportOptions) -> Published:
    """Read `stage_2_detailed_class_info.csv` and `stage_2_train_images/*.dcm`: one row an image.

    The split is 80/20 by patient where the organisers' mapping to NIH's patients lies in the folder, else by image.
    With `options.legacy_split` it is the published one, which divides the table's rows: an image with several rows may
    be in both parts, and then has two rows here, the one of train with a copy of the file in the folder `COPIES`.

    Raises:
        ManifestError: no table of classes, a damaged one, or no image.
        InputError: a labels file was given, or the legacy split without leave to write into `folder` (`unpack_to`).
    """
    refuse_labels_file(options, TITLE)
    stated = read_table(need_table(folder, "stage_2_detailed_class_info.csv", title=TITLE), ("patientId", "class"))
    images, wrong = _images(stated)
    files = [file for file in files_below(folder, IMAGE_SUFFIXES) if COPIES not in file.split("/")]
    train = [file for file in files if TEST_FOLDER not in file.split("/")[:-1]]
    matched = match_images(images["name"], train, folder, ".dcm")
    rows = images.loc[matched.image.index].assign(image=matched.image).reset_index(drop=True)
    rows = rows.assign(**nih_names(folder, rows["name"]))
    notes: tuple[str, ...] = () if "patient" in rows else (NO_PATIENTS,)
    if options.legacy_split:
        rows, shared = _legacy_rows(rows, stated, folder, options)
        notes = (
            *notes,
            f"Images that the legacy split has in train and test: {shared:,}. Copies stand for those of train.",
        )
    else:
        rows["split"] = _split(rows)
    names = [name for name in ("image", "patient", "study") if name in rows]
    table = rows[names].assign(site="nih", split=rows["split"], **class_columns(rows["class"], LABEL_MAP))
    return Published(
        table=table,
        labels=labels_in_order(LABEL_MAP),
        image_root=folder,
        skipped=joined(wrong, matched.skipped),
        notes=(
            *matched.notes,
            *counted(len(wrong), "Images with contradicting or unknown classes, left out"),
            *counted(len(files) - len(train), "Images of the challenge's test, without classes, left out"),
            *notes,
        ),
    )


def _images(stated: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row an image (name, class) in file order, and the images without one known class."""
    by_image = stated.dropna(subset=["patientId"]).groupby("patientId", sort=False)["class"]
    classes = by_image.first()
    bad = (by_image.nunique(dropna=False) != 1) | ~classes.isin(list(LABEL_MAP))
    wrong = skipped(pd.Series(classes.index[bad], dtype=object), "its rows do not give one class of the challenge's")
    good = classes[~bad]
    return pd.DataFrame({"name": good.index.astype(object), "class": good.to_numpy()}), wrong


def _split(rows: pd.DataFrame) -> list[str]:
    groups = rows["name"] if "patient" not in rows else rows["patient"].fillna(rows["name"])
    return split_by_group(groups.tolist(), rows["class"].tolist(), SHARES)


def _legacy_rows(
    rows: pd.DataFrame, stated: pd.DataFrame, folder: Path, options: ImportOptions
) -> tuple[pd.DataFrame, int]:
    """Return the rows under the published split, and how many images are in both of its parts."""
    from sklearn.model_selection import train_test_split

    if options.unpack_to is None or options.unpack_to.resolve() != folder.resolve():
        raise InputError(
            "The legacy split has images in both parts, whose second copies must lie in the data set's folder: "
            f"medvlm-probe cohort import rsna18:{folder} --legacy-split --out {folder}/manifest.csv"
        )
    train, test = (
        set(stated["patientId"].iloc[part])
        for part in train_test_split(np.arange(len(stated)), test_size=0.2, random_state=42)
    )
    in_train, in_test = rows["name"].isin(train), rows["name"].isin(test)
    both = rows[in_train & in_test]
    options.say(f"Copying {len(both):,} images that the legacy split has in both parts ...")
    copies = [f"{COPIES}/{image.rsplit('/', 1)[-1]}" for image in both["image"]]
    for image, copy in zip(both["image"], copies, strict=True):
        data = (folder / image).read_bytes()
        if not ((folder / copy).is_file() and (folder / copy).read_bytes() == data):
            write_bytes_atomically(folder / copy, data)
    copied = both.assign(image=copies, split="train")
    first = rows.assign(split=np.where(in_test, "test", "train"))
    out = pd.concat([first, copied], ignore_index=True)
    # Both rows of an image are one examination, so that every table and check counts them together.
    study = out["study"].fillna(out["name"]) if "study" in out else out["name"]
    return out.assign(study=study), len(both)
