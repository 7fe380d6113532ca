"""COVID-19 Radiography Database (Kaggle) as CalibPrompt's COVIDX: the classes covid and normal."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pandas as pd

from medvlm_probe.cohort.importers.image_files import files_below
from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.cohort.importers.one_class import class_columns, labels_in_order, split_by_group
from medvlm_probe.cohort.importers.published import ImportOptions, LabelMap, Published
from medvlm_probe.cohort.importers.spreadsheets import read_sheet
from medvlm_probe.cohort.importers.tables import refuse_labels_file
from medvlm_probe.errors import ManifestError

TITLE = "the COVID-19 Radiography Database"
FOLDER = "COVID-19_Radiography_Dataset"
LABEL_MAP: LabelMap = {"COVID": ("covid",), "Normal": ("normal",)}
OTHERS = ("Lung_Opacity", "Viral Pneumonia")
"""Classes of the database that COVIDX does not have."""

SHARES = {"train": 0.5, "test": 0.5}


def read(folder: Path, options: ImportOptions) -> Published:
    """Read `COVID/images/*.png` and `Normal/images/*.png`, in the folder or in `COVID-19_Radiography_Dataset` in it.

    Without `options.legacy_split` the halves are stratified by class; with it they are those of the published script.
    Where `*.metadata.xlsx` lies beside them, `source` is the address that an image was taken from.

    Raises:
        ManifestError: no images of the two classes, or a damaged workbook.
        InputError: a labels file was given.
    """
    refuse_labels_file(options, TITLE)
    root = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    parts = []
    for name in LABEL_MAP:
        images = _images(root, name)
        rows = pd.DataFrame({"image": images, "class": name})
        rows["number"] = [_number(image) for image in images]
        parts.append(rows.assign(source=_sources(root, name, images)))
    rows = pd.concat(parts, ignore_index=True)
    odd = rows["number"].isna()
    left_out = skipped(rows["image"][odd], "its name does not end in a number, as published ones do")
    rows = rows[~odd].sort_values(["class", "number"], kind="stable", ignore_index=True)
    if set(rows["class"]) != set(LABEL_MAP):
        raise ManifestError(
            f"'{folder}' does not look like {TITLE}: it lacks {' or '.join(f'{n}/images/*.png' for n in LABEL_MAP)}."
        )
    rows["split"] = _published_halves(rows) if options.legacy_split else _halves(rows)
    kept = ["image", "split", *(["source"] if rows["source"].notna().any() else [])]
    others = sum(len(_images(root, name)) for name in OTHERS)
    return Published(
        table=rows[kept].assign(**class_columns(rows["class"], LABEL_MAP)),
        labels=labels_in_order(LABEL_MAP),
        image_root=root,
        skipped=joined(left_out),
        notes=(
            "No patients are given, and some have several images: splits may share patients.",
            *counted(others, f"Images of {' and '.join(OTHERS)}, which COVIDX does not have, left out"),
            *counted(int(odd.sum()), "Images with odd names, left out"),
        ),
    )


def _images(root: Path, name: str) -> list[str]:
    """Return a class's images relative to `root`, without the masks; early releases have no folder `images`."""
    place = next((p for p in (f"{name}/images", name) if (root / p).is_dir()), None)
    if place is None:
        return []
    return [f"{place}/{file}" for file in files_below(root / place, (".png",)) if not file.startswith("masks/")]


def _number(image: str) -> int | None:
    match = re.search(r"(\d+)\.png$", image, flags=re.IGNORECASE)
    return int(match.group(1)) if match else None


def _sources(root: Path, name: str, images: list[str]) -> pd.Series:
    """Return where each image was taken from; the workbook writes `NORMAL-1` for Normal-1.png."""
    path = root / f"{name}.metadata.xlsx"
    if not path.is_file():
        return pd.Series([None] * len(images), dtype=object)
    sheet = read_sheet(path)
    if not {"FILE NAME", "URL"} <= set(sheet.columns):
        raise ManifestError(f"{path.name} lacks the columns 'FILE NAME' and 'URL'. Take the file as it was published.")
    urls = {str(file).lower(): url for file, url in zip(sheet["FILE NAME"], sheet["URL"], strict=True)}
    return pd.Series([urls.get(Path(image).stem.lower()) for image in images], dtype=object)


def _halves(rows: pd.DataFrame) -> list[str]:
    return split_by_group(rows["image"].tolist(), rows["class"].tolist(), SHARES)


def _published_halves(rows: pd.DataFrame) -> pd.Series:
    """Return the published split: Python's generator with seed 0 draws a half of COVID, then one of Normal."""
    generator = random.Random(0)
    split = pd.Series("test", index=rows.index)
    for name in LABEL_MAP:
        drawn = rows.index[rows["class"] == name].tolist()
        split[generator.sample(drawn, len(drawn) // 2)] = "train"
    return split
