"""A folder of images as a cohort, without a manifest: sorted into folders by class, or plain, with or without a CSV."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.folder_tables import names_files, read_folder_table
from medvlm_probe.cohort.images import FileImages, recipe_for
from medvlm_probe.cohort.importers.published import no_rows
from medvlm_probe.cohort.manifest import UncertaintyPolicy
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.cohort.recipes import DICOM_SUFFIXES
from medvlm_probe.errors import ManifestError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *DICOM_SUFFIXES)
"""Which files of a folder are taken for images; what they really are is told by their first bytes."""

SPLIT_FOLDERS = ("train", "test")
CLASS_NAMES_FILE = "classnames.txt"
NOT_LABELS = ("manifest.csv", "boxes.csv", "skipped.csv", "quarantine.csv")
"""CSV files that are something else than a folder's labels."""


@dataclass(frozen=True, eq=False)
class FolderCohort:
    """A folder's cohort, the rows of its CSV that were left out (`published.SKIPPED_COLUMNS`), and notes."""

    cohort: Cohort
    skipped: pd.DataFrame
    notes: tuple[str, ...] = ()


def folder_cohort(
    folder: Path, card: DataCard, uncertainty: UncertaintyPolicy, labels_file: Path | None = None
) -> FolderCohort:
    """Return the cohort of a folder.

    With `images/train/CLASS/*` or `images/test/CLASS/*` the cohort is single-label: one column a class, in the order of
    the sorted folder names, and `split`. `classnames.txt` ("folder class name" a line) gives the classes' names. Any
    other folder gives its images alone, those in folders within it too; labels and more come from `labels_file`, else
    from the only CSV in the folder that names files (see `folder_tables`), else there are none. Hidden files are passed
    over.

    Raises:
        ManifestError: no such folder, no images in it, class names or a labels file that do not fit.
    """
    if not folder.is_dir():
        raise ManifestError(f"There is no folder '{folder}'. Check the path.")
    if not any((folder / "images" / split).is_dir() for split in SPLIT_FOLDERS):
        return _plain_cohort(folder, card, uncertainty, labels_file)
    if labels_file is not None:
        raise ManifestError(f"The class folders of '{folder}' are its labels; leave the labels file out.")
    table, words = _class_table(folder)
    words |= card.labels
    card = card.model_copy(update={"task": "single_label", "labels": words})
    return FolderCohort(_cohort(folder, table, tuple(words), card, uncertainty), no_rows())


def _plain_cohort(
    folder: Path, card: DataCard, uncertainty: UncertaintyPolicy, labels_file: Path | None
) -> FolderCohort:
    images = _images_below(folder, folder)
    if not images:
        raise ManifestError(
            f"No {', '.join(IMAGE_SUFFIXES)} files lie in '{folder}'. Check the path, or write a manifest."
        )
    around = [] if labels_file is not None else _tables_in(folder)
    tables = [labels_file] if labels_file is not None else [path for path in around if names_files(path)]
    if len(tables) != 1:
        named = ", ".join(path.name for path in around)
        notes = (f"Not used: {named}. Name the CSV of labels with --labels-file.",) if around else ()
        return FolderCohort(_cohort(folder, pd.DataFrame({"image": images}), (), card, uncertainty), no_rows(), notes)
    found = read_folder_table(tables[0], images)
    card = card.model_copy(update={"task": found.task, "labels": {**found.words, **card.labels}})
    cohort = _cohort(folder, found.table, found.labels, card, uncertainty)
    return FolderCohort(cohort, found.skipped, found.notes)


def _cohort(
    folder: Path, table: pd.DataFrame, labels: tuple[str, ...], card: DataCard, uncertainty: UncertaintyPolicy
) -> Cohort:
    images = tuple(table["image"])
    source = FileImages(folder, images, recipe=card.recipe or recipe_for(images))
    return Cohort(card.name, table, labels, uncertainty, source, card)


def _tables_in(folder: Path) -> list[Path]:
    """Return the CSV files that may speak of a folder's images: none that a cohort's own files are called."""
    found = [path for path in sorted(folder.glob("*.csv")) if path.is_file() and not path.name.startswith(".")]
    return [path for path in found if path.name not in NOT_LABELS]


def _class_table(folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    found = {
        (split, entry.name): _images_below(folder, Path(entry.path))
        for split in SPLIT_FOLDERS
        if (folder / "images" / split).is_dir()
        for entry in os.scandir(folder / "images" / split)
        if entry.is_dir() and not entry.name.startswith(".")
    }
    folders = sorted({name for _, name in found})
    words = _class_names(folder / CLASS_NAMES_FILE, folders)
    rows = [(image, split, name) for (split, name), images in sorted(found.items()) for image in images]
    if not rows:
        raise ManifestError(f"No {', '.join(IMAGE_SUFFIXES)} files lie below '{folder / 'images'}'. Check the path.")
    table = pd.DataFrame(rows, columns=["image", "split", "folder"])
    one_hot = {label: (table["folder"] == name).astype(np.float32) for label, name in zip(words, folders, strict=True)}
    return pd.DataFrame({"image": table["image"], "split": table["split"], **one_hot}), words


def _class_names(path: Path, folders: list[str]) -> dict[str, str]:
    """Return label to class name, in the order of `folders`."""
    names = {name: name.replace("_", " ") for name in folders}
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path.name} is no text in UTF-8. Save it again, one line a folder.") from error
        given = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
        missing = [name for name in folders if name not in given]
        if missing:
            raise ManifestError(
                f"{path.name} has no line for the folder {missing[0]}. Write one line a folder: its name, then the "
                "class's."
            )
        names = {name: given[name].strip() for name in folders}
    labels = {snake_case(words): words for words in names.values()}
    if len(labels) < len(folders) or "" in labels:
        raise ManifestError(
            f"Two class folders have the same class name, or one has none: {', '.join(names.values())}."
        )
    return labels


def _images_below(root: Path, folder: Path) -> list[str]:
    """Return the image files below `folder`, sorted, as paths relative to `root` with forward slashes."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(parent).relative_to(root)
        found += [
            (here / name).as_posix()
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    for image in found:
        if image.encode("utf-8", "replace").decode() != image:
            shown = image.encode("utf-8", "backslashreplace").decode()
            raise ManifestError(f"The file name '{shown}' is not UTF-8 text. Rename the file.")
    return sorted(found)
