"""A folder of DICOM files as an archive exports it: headers by an allow-list, people under keyed pseudonyms."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medvlm_probe.cohort.image_places import unwritable
from medvlm_probe.cohort.images import REASONS
from medvlm_probe.cohort.importers.dicom_headers import age_of, code, maker, sex_of, spacing_of, view_of
from medvlm_probe.cohort.importers.published import SKIPPED_COLUMNS, ImportOptions, Published
from medvlm_probe.cohort.pseudonyms import PseudonymKey, read_key
from medvlm_probe.errors import ImageError, InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

READ_FOR_PSEUDONYMS = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
"""Attributes that are read and never written: two become pseudonyms, the third is counted."""

WRITTEN = (
    "Modality",
    "ViewPosition",
    "PatientAge",
    "PatientSex",
    "BodyPartExamined",
    "Manufacturer",
    "PhotometricInterpretation",
    "BitsStored",
    "Rows",
    "Columns",
    "ImagerPixelSpacing",
    "PixelSpacing",
    "BurnedInAnnotation",
)
"""Attributes that reach the manifest, each only in the form that its column expects (see `dicom_headers`)."""

OWN_FILES = ("manifest.csv", "manifest.parquet", "skipped.csv", "DATA_CARD.md")
"""What an earlier import wrote, passed over."""

_OTHER = ("NumberOfFrames",)
_SAY_EVERY = 2_000
_NOT_STATED = "not stated"
_RADIOGRAPHS = ("CR", "DX", "RG")

Row = dict[str, Any]


def read(folder: Path, options: ImportOptions) -> Published:
    """Read a folder of DICOM files, any names, nested, into a manifest's columns.

    Patients and studies become pseudonyms under the key of `options.pseudonym_key`. Ages are whole years, at most 90.
    `burned_in` is YES, NO or "not stated". Files without one image are left out. Nothing else of a header is kept; file
    names are, as relative paths.

    Raises:
        InputError: a labels file, a key that lies with the data, or no image at all.
        StoreError: the key can neither be read nor made.
    """
    if options.labels_file is not None:
        raise InputError("A DICOM folder takes no labels file: import it, then join labels to its manifest.")
    _check_key_place(folder, options)
    files, skipped = _files(folder)
    # The key is made only for a folder that is worth it.
    if not files:
        raise InputError(f"No files lie in '{folder}'. Check the path.")
    key = read_key(options.pseudonym_key)
    root = folder.resolve()
    rows: list[Row] = []
    instances: Counter[str] = Counter()
    for number, name in enumerate(files, start=1):
        try:
            rows.append(_row(root, name, key, instances))
        except ImageError as error:
            skipped.append((_shown(name), REASONS[error.reason]))
        if number % _SAY_EVERY == 0:
            options.say(f"Read {number:,} of {len(files):,} headers.")
    if not rows:
        listed = ", ".join(f"{reason} ({n:,})" for reason, n in Counter(why for _, why in skipped).most_common(3))
        raise InputError(f"No DICOM image lies in '{folder}': {listed}.")
    table = _table(rows)
    return Published(
        table=table,
        labels=(),
        image_root=folder,
        skipped=pd.DataFrame(skipped, columns=list(SKIPPED_COLUMNS)),
        notes=tuple(_notes(table, key, sum(instances.values()) - len(instances))),
    )


def _check_key_place(folder: Path, options: ImportOptions) -> None:
    """Refuse a key beside the images or the manifest: whoever is handed these must not get it with them."""
    if options.pseudonym_key is None:
        return
    for place in (folder, options.unpack_to):
        if place is not None and options.pseudonym_key.resolve().is_relative_to(place.resolve()):
            raise InputError(
                f"The key of pseudonyms must not lie with the data ('{place}'). Keep it in a folder that is not shared."
            )


def _files(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files below a folder as sorted relative paths, and those that no manifest may name."""
    names = []
    for parent, folders, found in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(parent).relative_to(folder)
        names += [(here / name).as_posix() for name in found if not name.startswith(".") and name not in OWN_FILES]
    names.sort()
    bad = unwritable(names)
    skipped = [(_shown(names[row]), reason) for row, reason in sorted(bad.items())]
    return [name for row, name in enumerate(names) if row not in bad], skipped


def _row(root: Path, name: str, key: PseudonymKey, instances: Counter[str]) -> Row:
    """Return one image's row, and count its instance; ImageError for what is no single image."""
    from medvlm_probe.cohort.dicom_recipe import read_attributes

    path = root / name
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise ImageError("not_a_file", "This is no plain file.")
    if not real.is_relative_to(root):
        raise ImageError("outside_folder", "The path leaves the folder.")
    header = read_attributes(path, (*READ_FOR_PSEUDONYMS, *WRITTEN, *_OTHER))
    if not (_positive(header, "Rows") and _positive(header, "Columns")) or path.name.upper() == "DICOMDIR":
        raise ImageError("no_pixels", "The file has no image.")
    if (_positive(header, "NumberOfFrames") or 1) > 1:
        raise ImageError("several_frames", "The file has several frames.")
    instance = _identifier(header, "SOPInstanceUID")
    if instance:
        instances[instance] += 1
    return {
        "image": name,
        "patient": _pseudonym(key, "patient", _identifier(header, "PatientID")),
        "study": _pseudonym(key, "study", _identifier(header, "StudyInstanceUID")),
        "view": view_of(header.get("ViewPosition")) or None,
        "age": age_of(header.get("PatientAge")),
        "sex": sex_of(header.get("PatientSex")),
        "modality": code(header.get("Modality")),
        "body_part": code(header.get("BodyPartExamined")),
        "manufacturer": maker(header.get("Manufacturer")),
        "photometric": code(header.get("PhotometricInterpretation")),
        "bits_stored": _number_text(header, "BitsStored"),
        "rows": _number_text(header, "Rows"),
        "columns": _number_text(header, "Columns"),
        "pixel_spacing": spacing_of(header.get("ImagerPixelSpacing"), header.get("PixelSpacing")),
        "burned_in": {"YES": "YES", "NO": "NO"}.get(code(header.get("BurnedInAnnotation")) or "", _NOT_STATED),
    }


def _identifier(header: Dataset, name: str) -> str:
    return str(header.get(name) or "").strip(" \0")


def _pseudonym(key: PseudonymKey, kind: str, identifier: str) -> str | None:
    return f"{kind}-{key.pseudonym(kind, identifier)}" if identifier else None


def _positive(header: Dataset, name: str) -> int:
    value = header.get(name)
    return int(value) if isinstance(value, int) and value > 0 else 0


def _number_text(header: Dataset, name: str) -> str | None:
    return str(_positive(header, name) or "") or None


def _shown(name: str) -> str:
    """Return a file name in plain characters."""
    return ascii(name)[1:-1]


def _table(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table["age"] = table["age"].astype(np.float32)
    return table.drop(columns=[name for name in table.columns if table[name].isna().all()])


def _notes(table: pd.DataFrame, key: PseudonymKey, n_repeats: int) -> list[str]:
    notes = ["Patients and studies are keyed pseudonyms; nothing else of the headers but the columns here was kept."]
    if key.made:
        notes.append(f"A secret key was made: {key.path}. Keep it: another key gives other pseudonyms.")
    if key.open_to_others:
        notes.append(f"Others may read the secret key {key.path}. Close it to them: chmod 600.")
    notes.append(
        "File and folder names stand in the manifest as they are and may name people; so may the files' headers."
    )
    burned = table["burned_in"].value_counts()
    if burned.get("YES"):
        notes.append(
            f"{burned['YES']:,} images carry text in their pixels (BurnedInAnnotation YES), which may name people."
        )
    if burned.get(_NOT_STATED):
        notes.append(
            f"{burned[_NOT_STATED]:,} images do not state whether text is burned into their pixels: look at them."
        )
    if "patient" not in table:
        notes.append("No file has a patient id.")
    elif table["patient"].isna().any():
        notes.append(f"{int(table['patient'].isna().sum()):,} images have no patient id.")
    elif table["patient"].nunique() == 1 and "study" in table and table["study"].nunique() > 1:
        notes.append("All images have the same patient id, perhaps a placeholder: then all count as one patient.")
    if n_repeats:
        notes.append(
            f"{n_repeats:,} files repeat another one's instance UID: copies, or the same image in another encoding. "
            "`cohort check` finds those that look alike."
        )
    if "modality" in table:
        others = Counter(table["modality"].fillna(_NOT_STATED))
        listed = ", ".join(f"{name} {n:,}" for name, n in sorted(others.items()) if name not in _RADIOGRAPHS)
        if listed:
            notes.append(f"Modalities other than plain radiographs: {listed}.")
    return notes
