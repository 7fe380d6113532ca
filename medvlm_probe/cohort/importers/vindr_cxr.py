"""VinDr-CXR: the PhysioNet release and the Kaggle one, several readers an image, and their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.boxes import box_table
from medvlm_probe.cohort.importers.class_labels import labels_of
from medvlm_probe.cohort.importers.image_files import IMAGE_SUFFIXES, files_below, match_images, name_key
from medvlm_probe.cohort.importers.left_out import counted, joined
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.tables import column, find_table, numbers, read_table, refuse_labels_file
from medvlm_probe.cohort.manifest_files import rows_text
from medvlm_probe.errors import ManifestError

TITLE = "VinDr-CXR"

_OPACITY = "lung_opacity"

LABEL_MAP: LabelMap = {
    "No finding": ("no_finding",),
    "Aortic enlargement": (),
    "Atelectasis": ("atelectasis", _OPACITY),
    "COPD": (),
    "Calcification": (),
    "Cardiomegaly": ("cardiomegaly",),
    "Clavicle fracture": ("fracture",),
    "Consolidation": ("consolidation", _OPACITY),
    "Edema": ("edema", _OPACITY),
    "Emphysema": (),
    "Enlarged PA": (),
    "ILD": (_OPACITY,),
    "Infiltration": (_OPACITY,),
    "Lung Opacity": (_OPACITY,),
    "Lung cavity": ("lung_lesion", _OPACITY),
    "Lung cyst": ("lung_lesion", _OPACITY),
    "Lung tumor": ("lung_lesion", _OPACITY),
    "Mediastinal shift": (),
    "Nodule/Mass": ("lung_lesion", _OPACITY),
    "Other disease": (),
    "Other diseases": (),
    "Other lesion": (),
    "Pleural effusion": ("pleural_effusion",),
    "Pleural thickening": ("pleural_other",),
    "Pneumonia": ("pneumonia", _OPACITY),
    "Pneumothorax": ("pneumothorax",),
    "Pulmonary fibrosis": (),
    "Rib fracture": ("fracture",),
    "Tuberculosis": (),
}
"""CheXpert's label tree is kept: what it hangs below `lung_opacity` also makes that present. The Kaggle release has 14
of these classes and "No finding"; a label that none of a release's classes makes present is no column."""

KAGGLE_CLASSES = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "No finding",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)

CONSENSUS = "consensus"
"""The reader of the test images: five radiologists together."""

_BOX = ("x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True, eq=False)
class _Readings:
    """What readers said of a split's images.

    Attributes:
        readers: who read what: columns image and reader, one row each.
        said: columns image, reader and class, one row a class that a reader found.
        boxes: columns image, reader, class_name and `_BOX`, text.
        classes: the classes that a reader could choose.
    """

    split: str
    readers: pd.DataFrame
    said: pd.DataFrame
    boxes: pd.DataFrame
    classes: frozenset[str]


def read(folder: Path, options: ImportOptions) -> Published:
    """Read the data set as it was published, on PhysioNet or on Kaggle.

    A label is present where more than half of an image's readers found a class of it, absent where fewer did, and
    uncertain (-1) where just half did. `n_readers` and `finding_votes` ("Cardiomegaly 3/3|ILD 1/3") keep the single
    opinions; boxes are each reader's own. Files below `test` without a row are images without labels.

    Raises:
        ManifestError: no table of either release, a damaged one, or no image.
        InputError: a labels file was given.
    """
    refuse_labels_file(options, TITLE)
    readings = _readings(folder)
    classes = frozenset().union(*(part.classes for part in readings))
    label_map = {name: labels for name, labels in LABEL_MAP.items() if name in classes}
    labels = labels_of(label_map)
    parts = [_voted(part, labels) for part in readings]
    n_contradicting = sum(count for _, count in parts)
    rows = pd.concat([part for part, _ in parts], ignore_index=True)
    files = files_below(folder, IMAGE_SUFFIXES)
    stated = set(rows["name"])
    test = [path for path in files if "test" in path.split("/")[:-1] and name_key(path) not in stated]
    unlabelled = pd.DataFrame({"name": [name_key(path) for path in test], "split": "test"})
    rows = pd.concat([rows, unlabelled], ignore_index=True) if test else rows
    matched = match_images(rows["name"], files, folder, ".dicom")
    rows = rows.loc[matched.image.index]
    table = pd.DataFrame(
        {
            "image": matched.image,
            "site": "vindr",
            "view": "PA",
            "split": rows["split"],
            **{label: rows[label].astype(np.float32) for label in labels},
            "n_readers": rows["n_readers"],
            "finding_votes": rows["finding_votes"],
        }
    )
    drawn = pd.concat([part.boxes for part in readings], ignore_index=True)
    x_min, y_min, x_max, y_max = (numbers(drawn[name]) for name in _BOX)
    boxes, bad_boxes, box_notes = box_table(
        drawn["image"].map(dict(zip(rows["name"], table["image"], strict=True))),
        drawn["class_name"],
        np.column_stack([x_min, y_min, x_max - x_min, y_max - y_min]),
        f"{TITLE} " + drawn["reader"],
        label_map,
    )
    return Published(
        table=table.reset_index(drop=True),
        labels=labels,
        image_root=folder,
        boxes=boxes,
        skipped=joined(matched.skipped, bad_boxes),
        notes=(
            *matched.notes,
            *counted(len(test), "Images of the test, without labels"),
            *counted(_n_strange(readings), "Findings of a class that VinDr-CXR does not have, passed over"),
            *counted(n_contradicting, "Readings of 'No finding' beside a finding, counted as the finding"),
            *box_notes,
        ),
    )


def _readings(folder: Path) -> list[_Readings]:
    found = []
    for split in ("train", "test"):
        path = find_table(folder, f"image_labels_{split}.csv")
        if path is not None:
            found.append(_physionet(split, path, find_table(folder, f"annotations_{split}.csv")))
    if found:
        return found
    kaggle = find_table(folder, "train.csv")
    if kaggle is None:
        raise ManifestError(
            f"'{folder}' does not look like {TITLE}: it holds neither annotations/image_labels_train.csv (PhysioNet) "
            "nor train.csv (Kaggle). Name the folder that the data set was unpacked into."
        )
    return [_kaggle(kaggle)]


def _physionet(split: str, labels: Path, boxes: Path | None) -> _Readings:
    table = read_table(labels, ("image_id",), None)
    classes = [name for name in table.columns if name in LABEL_MAP]
    flags = table[classes]
    bad = ~flags.isin(["0", "1", "0.0", "1.0"]).all(axis=1).to_numpy()
    if bad.any() or not classes:
        where = rows_text((np.flatnonzero(bad)[:5] + 1).tolist(), int(bad.sum())) if classes else "the header"
        raise ManifestError(f"{labels.name} has cells that are neither 0 nor 1, or no classes, in {where}.")
    row, which = np.nonzero(flags.isin(["1", "1.0"]).to_numpy())
    readers = _readers(table)
    said = readers.iloc[row].assign(**{"class": np.array(classes, dtype=object)[which]})
    return _Readings(split, readers, said, _boxes(boxes), frozenset(classes))


def _kaggle(path: Path) -> _Readings:
    table = read_table(path, ("image_id", "class_name", "rad_id", *_BOX))
    readers = _readers(table)
    said = readers.assign(**{"class": table["class_name"]}).dropna()
    boxes = readers.assign(class_name=table["class_name"], **{name: table[name] for name in _BOX})
    return _Readings("train", readers, said, boxes.dropna(subset=list(_BOX), how="all"), frozenset(KAGGLE_CLASSES))


def _readers(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"image": table["image_id"], "reader": column(table, "rad_id").fillna(CONSENSUS)})


def _boxes(path: Path | None) -> pd.DataFrame:
    """Return PhysioNet's boxes; rows without any corner say "No finding" and are no boxes."""
    if path is None:
        return pd.DataFrame(columns=["image", "reader", "class_name", *_BOX], dtype=object)
    table = read_table(path, ("image_id", "class_name", *_BOX), ("rad_id",))
    boxes = _readers(table).assign(class_name=table["class_name"], **{name: table[name] for name in _BOX})
    return boxes.dropna(subset=list(_BOX), how="all")


def _voted(readings: _Readings, labels: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """Return one row an image (name, split, labels, n_readers, finding_votes), and how many readings contradict."""
    readers = readings.readers.dropna().drop_duplicates()
    said = readings.said.dropna().drop_duplicates()
    reading = pd.MultiIndex.from_frame(readers)
    row = reading.get_indexer(pd.MultiIndex.from_frame(said[["image", "reader"]]))
    found = np.zeros((len(readers), len(labels)), dtype=np.bool_)
    for place, label in enumerate(labels):
        of_label = (
            said["class"].map(lambda name, label=label: label in LABEL_MAP.get(name, ())).to_numpy(dtype=np.bool_)
        )
        found[row[of_label], place] = True
    other = np.zeros(len(readers), dtype=np.bool_)
    other[row[(said["class"] != "No finding").to_numpy()]] = True
    nothing = labels.index("no_finding")
    contradicts = found[:, nothing] & other
    found[contradicts, nothing] = False
    image, names = pd.factorize(readers["image"])
    n_readers = np.bincount(image)
    votes = np.zeros((len(names), len(labels)), dtype=np.int64)
    np.add.at(votes, image, found)
    rows = pd.DataFrame(_majority(votes, n_readers), columns=list(labels))
    rows.insert(0, "name", names)
    rows.insert(1, "split", readings.split)
    rows["n_readers"] = n_readers.astype(str)
    rows["finding_votes"] = rows["name"].map(_vote_texts(said, dict(zip(names, n_readers, strict=True))))
    return rows, int(contradicts.sum())


def _n_strange(readings: list[_Readings]) -> int:
    return sum(int((~part.said["class"].dropna().isin(list(LABEL_MAP))).sum()) for part in readings)


def _majority(votes: NDArray[np.int64], n_readers: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return 1 where more than half of the readers voted for a label, 0 where fewer did, -1 (uncertain) at half."""
    twice = 2 * votes
    readers = n_readers[:, None]
    return np.where(twice > readers, 1.0, np.where(twice < readers, 0.0, -1.0)).astype(np.float32)


def _vote_texts(said: pd.DataFrame, n_readers: dict[str, int]) -> pd.Series:
    counts = said.groupby(["image", "class"]).size().reset_index(name="votes")
    readers = counts["image"].map(n_readers).astype(str)
    counts["text"] = counts["class"] + " " + counts["votes"].astype(str) + "/" + readers
    texts: pd.Series = counts.groupby("image")["text"].agg("|".join)
    return texts
