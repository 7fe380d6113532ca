"""What an importer takes and gives: the contract between a published data set and the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

BOX_COLUMNS = ("image", "label", "x", "y", "w", "h", "source")
"""Columns of a box table: the image as the manifest names it, the label (snake_case), pixels of the stored image from
the top left corner, and who drew the box."""

SKIPPED_COLUMNS = ("what", "reason")

LabelMap = dict[str, tuple[str, ...]]
"""A source's own class to the labels that it makes present. A label that no class maps to is unknown, never absent."""


def _silent(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class ImportOptions:
    """What a user may add to a data set's folder.

    Attributes:
        labels_file: a CSV of labels made elsewhere (CheXbert's output, for example); None takes the publisher's.
        unpack_to: the folder that archives are unpacked into; None refuses a folder that has archives alone.
        say: is told of long steps, a line each.
        pseudonym_key: the file of the secret key of pseudonyms; None takes the one in the user's data folder.
        legacy_split: take the split, with its leaks, that published results were made on.
    """

    labels_file: Path | None = None
    unpack_to: Path | None = None
    say: Callable[[str], None] = _silent
    pseudonym_key: Path | None = None
    legacy_split: bool = False


def no_rows() -> pd.DataFrame:
    """Return a table of skipped things without rows."""
    return pd.DataFrame(columns=list(SKIPPED_COLUMNS))


@dataclass(frozen=True, eq=False)
class Published:
    """A data set read into a manifest's columns; no image was opened.

    Attributes:
        table: one row an image: `image` (relative to `image_root`, forward slashes, existing files alone), the manifest
            columns that the source has (text, missing cells as None), one float32 column per label of `labels`
            (1, 0, -1 uncertain, NaN unknown), and columns of the source worth keeping, as text.
        labels: the label columns, snake_case.
        image_root: the folder that every image lies in.
        boxes: columns `BOX_COLUMNS`; None where the source has no boxes.
        skipped: what of the source was left out and why, columns `SKIPPED_COLUMNS`: rows without an image file, images
            without a row, rows that contradict themselves.
        notes: what people should know, a sentence each.
    """

    table: pd.DataFrame
    labels: tuple[str, ...]
    image_root: Path
    boxes: pd.DataFrame | None = None
    skipped: pd.DataFrame = field(default_factory=no_rows)
    notes: tuple[str, ...] = ()
