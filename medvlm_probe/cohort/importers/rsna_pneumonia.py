"""RSNA Pneumonia Detection Challenge 2018: labels, detailed classes, boxes, the way back to NIH's patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.importers.boxes import box_table
from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images, name_key
from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import (
    find_table,
    need_table,
    numbers,
    read_table,
    read_text,
    refuse_labels_file,
)
from medvlm_probe.errors import ManifestError
from medvlm_probe.runs import parse_json

TITLE = "the RSNA Pneumonia Detection Challenge"

LABEL_MAP: LabelMap = {
    "Lung Opacity": ("lung_opacity",),
    "No Lung Opacity / Not Normal": (),
    "Normal": ("no_finding",),
}

LABELS = ("no_finding", "lung_opacity")

TEST_FOLDER = "stage_2_test_images"

NO_PATIENTS = "Patients have several images, but which is not told without the mapping to NIH: groups are too small."

_BOX = ("x", "y", "width", "height")


def read(folder: Path, options: ImportOptions) -> Published:
    """Read the data set as it was published.

    One row an image, however many boxes and classes are listed for it. Images of `stage_2_test_images` have no labels.
    Patients and studies are known only where the organisers' `pneumonia-challenge-dataset-mappings_2018.json` lies in
    the folder; they are then named as `nih_cxr14` names them.

    Raises:
        ManifestError: no stage_2_train_labels.csv, a damaged table, or no image.
        InputError: a labels file was given.
    """
    refuse_labels_file(options, TITLE)
    path = need_table(folder, "stage_2_train_labels.csv", title=TITLE)
    drawn = read_table(path, ("patientId", *_BOX, "Target"))
    drawn = drawn[drawn["patientId"].notna()]
    rows, contradictions = _images(drawn, folder)
    files = files_below(folder, IMAGE_SUFFIXES)
    stated = set(drawn["patientId"])
    test = [file for file in files if TEST_FOLDER in file.split("/")[:-1] and name_key(file) not in stated]
    rows = pd.concat(
        [rows, pd.DataFrame({"name": [name_key(file) for file in test], "split": "test"})], ignore_index=True
    )
    matched = match_images(rows["name"], files, folder, ".dcm")
    rows = rows.loc[matched.image.index]
    target = rows["target"]
    table = pd.DataFrame(
        {
            "image": matched.image,
            **nih_names(folder, rows["name"]),
            "site": "nih",
            "split": rows["split"],
            "no_finding": rows["normal"].astype(np.float32),
            "lung_opacity": target.astype(np.float32),
            "rsna_class": rows["class"],
        }
    )
    boxed = drawn[drawn["Target"] == "1"]
    boxes, bad_boxes, box_notes = box_table(
        boxed["patientId"].map(dict(zip(rows["name"], table["image"], strict=True))),
        pd.Series("Lung Opacity", index=boxed.index),
        np.column_stack([numbers(boxed[name]) for name in _BOX]),
        pd.Series("RSNA 2018", index=boxed.index),
        LABEL_MAP,
    )
    return Published(
        table=table.reset_index(drop=True),
        labels=LABELS,
        image_root=folder,
        boxes=boxes,
        skipped=joined(contradictions, matched.skipped, bad_boxes),
        notes=(
            *matched.notes,
            *counted(len(contradictions), "Images with contradicting rows, left out"),
            *counted(int((rows["split"] == "test").sum()), "Images of the test, without labels"),
            *box_notes,
            *(() if "patient" in table else (NO_PATIENTS,)),
        ),
    )


def _images(drawn: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row an image (name, split, class, target, normal) and the images whose rows contradict each other."""
    by_image = drawn.groupby("patientId", sort=False)["Target"]
    targets = by_image.first()
    classes, several = _classes(folder, targets.index)
    opacity = classes == "Lung Opacity"
    wrong = {
        "its rows differ in Target": by_image.nunique() > 1,
        "its Target is neither 0 nor 1": ~targets.isin(["0", "1"]),
        "its rows differ in class": several,
        "its class is none of the challenge's": classes.notna() & ~classes.isin(list(LABEL_MAP)),
        "its class and its Target contradict each other": classes.notna() & (opacity != (targets == "1")),
    }
    reason = pd.Series([None] * len(targets), index=targets.index, dtype=object)
    for text, mask in wrong.items():
        reason = reason.mask(reason.isna() & mask, text)
    good = reason.isna()
    target = (targets[good] == "1").astype(np.float32)
    # Without its class, an image without opacity may be normal or not.
    normal = (classes[good] == "Normal").astype(np.float32).mask(classes[good].isna() & (target == 0))
    rows = pd.DataFrame(
        {
            "name": targets.index[good],
            "split": "train",
            "class": classes[good].to_numpy(),
            "target": target.to_numpy(),
            "normal": normal.to_numpy(),
        }
    )
    return rows, skipped(pd.Series(targets.index[~good]), reason[~good].reset_index(drop=True))


def _classes(folder: Path, images: pd.Index) -> tuple[pd.Series, pd.Series]:
    """Return each image's class, missing where none is given, and whether its rows give several."""
    path = find_table(folder, "stage_2_detailed_class_info.csv")
    if path is None:
        nothing = pd.Series([None] * len(images), index=images, dtype=object)
        return nothing, nothing.notna()
    table = read_table(path, ("patientId", "class")).dropna().drop_duplicates()
    several = table["patientId"].duplicated(keep=False)
    classes = table.drop_duplicates("patientId").set_index("patientId")["class"].reindex(images)
    return classes, pd.Series(images.isin(table["patientId"][several]), index=images)


def nih_names(folder: Path, names: pd.Series) -> dict[str, pd.Series]:
    """Return patient and study of images as NIH has them; nothing where the folder lacks the organisers' mapping."""
    path = find_table(folder, "pneumonia-challenge-dataset-mappings*.json")
    if path is None:
        return {}
    try:
        images = {entry["subset_img_id"]: name_key(entry["img_id"]) for entry in parse_json(read_text(path))}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(
            f"{path.name} is no list of objects with 'subset_img_id' and 'img_id'. Take the organisers' file."
        ) from error
    study = names.map(images).astype(object)
    return {"patient": "nih-" + study.str.partition("_")[0].str.lstrip("0"), "study": study}
