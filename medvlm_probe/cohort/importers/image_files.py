"""The image files below a data set's folder, and which of them a table's rows mean. No file is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medvlm_probe.cohort.importers.left_out import counted, joined, skipped
from medvlm_probe.errors import ManifestError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff")
"""Files that may be a row's image: as published, or converted under the same name."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Which file each row of a table means.

    Attributes:
        image: the path relative to the data set's folder, for the rows that have one; the index is the table's.
        skipped: rows without a file, rows that repeat an image, files without a row.
        notes: how many of each, a sentence each.
    """

    image: pd.Series
    skipped: pd.DataFrame
    notes: tuple[str, ...]


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files below `folder` by the ends of their names (any case), sorted, relative, with forward slashes.

    Hidden files and folders are passed over, links to folders are not followed. One walk, nothing is opened.

    Raises:
        ManifestError: a folder cannot be looked into.
    """
    found: list[str] = []
    waiting = [("", os.fspath(folder))]
    while waiting:
        prefix, place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
                    elif entry.name.lower().endswith(suffixes):
                        found.append(prefix + entry.name)
        except OSError as error:
            raise ManifestError(f"Cannot look into the folder '{place}': {error.strerror or error}.") from error
    found.sort()
    return found


def name_key(path: str) -> str:
    """Return a path's file name without folders and without the image suffix."""
    name = path[path.rfind("/") + 1 :]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def match_images(
    names: pd.Series,
    files: list[str],
    folder: Path,
    suffix: str,
    *,
    key: Callable[[str], str] = name_key,
) -> Matched:
    """Find each row's image file.

    A file is a row's where `key` gives the same for both, so files may lie in any folder and may be converted ones. Of
    several such files the one that ends in `suffix` is taken, else the first by path.

    Args:
        names: what each row calls its image; missing cells are rows without one.
        files: image files, relative to `folder`.
        folder: the data set's folder, named where nothing is found.
        suffix: how published files end, lower case (".png").
        key: from a name or path to what is the same for an image.

    Raises:
        ManifestError: no row has a file.
    """
    by_key: dict[str, str] = {}
    copies: list[str] = []
    for path in files:
        name = key(path)
        earlier = by_key.setdefault(name, path)
        if earlier is not path:
            better = path.lower().endswith(suffix) and not earlier.lower().endswith(suffix)
            copies.append(earlier if better else path)
            if better:
                by_key[name] = path
    keys = names.map(key, na_action="ignore")
    image = keys.map(by_key)
    found = image.notna()
    if not found.any():
        example = names.dropna().iloc[0] if names.notna().any() else f"*{suffix}"
        raise ManifestError(
            f"No image of {len(names):,} rows lies below '{folder}'. Files such as '{example}' were looked for there "
            f"and in all folders within, as {', '.join(IMAGE_SUFFIXES)}; links to folders are not followed."
        )
    repeats = found & image.duplicated()
    unused = sorted(set(by_key.values()) - set(image[found]))
    wanted = set(keys[found]) if copies else set()
    copies = [path for path in copies if key(path) in wanted]
    return Matched(
        image=image[found & ~repeats],
        skipped=joined(
            skipped(names[~found].fillna("a row without a name"), "its image file is not there"),
            skipped(names[repeats], "an earlier row has the same image"),
            skipped(pd.Series(unused, dtype=object), "no row speaks of this file"),
            skipped(pd.Series(copies, dtype=object), "another file is the same image by its name"),
        ),
        notes=(
            *counted(int((~found).sum()), f"Rows without an image file here, left out of {len(names):,}"),
            *counted(int(repeats.sum()), "Rows that repeat an earlier row's image, left out"),
            *counted(len(unused), "Image files without a row, left out"),
            *counted(len(copies), "Image files with the name of another, left out"),
        ),
    )
