"""Labels of IU-Xray: the codes of its reports mapped to the 14 labels of CheXpert by one table, or a user's CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.importers.iu_xray_reports import Report, image_key
from medvlm_probe.cohort.importers.label_files import read_label_file
from medvlm_probe.cohort.importers.published import LabelMap
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError

_NOT_INDEXED = "no indexing"

_HEART, _OPACITY = "enlarged_cardiomediastinum", "lung_opacity"

LABEL_MAP: LabelMap = {
    "normal": ("no_finding",),
    "Cardiomegaly": ("cardiomegaly", _HEART),
    "Cardiac Shadow/enlarged": (_HEART,),
    "Mediastinum/enlarged": (_HEART,),
    "Opacity": (_OPACITY,),
    "Airspace Disease": (_OPACITY,),
    "Infiltrate": (_OPACITY,),
    "Nodule": ("lung_lesion", _OPACITY),
    "Mass": ("lung_lesion", _OPACITY),
    "Cysts": ("lung_lesion", _OPACITY),
    "Cavitation": ("lung_lesion", _OPACITY),
    "Pulmonary Edema": ("edema", _OPACITY),
    "Consolidation": ("consolidation", _OPACITY),
    "Pneumonia": ("pneumonia", _OPACITY),
    "Pulmonary Atelectasis": ("atelectasis", _OPACITY),
    "Pneumothorax": ("pneumothorax",),
    "Hydropneumothorax": ("pneumothorax", "pleural_effusion"),
    "Hemopneumothorax": ("pneumothorax", "pleural_effusion"),
    "Hemothorax": ("pleural_effusion",),
    "Pleural Effusion": ("pleural_effusion",),
    "Thickening/pleura": ("pleural_other",),
    "Cicatrix/pleura": ("pleural_other",),
    "Calcinosis/pleura": ("pleural_other",),
    "Fractures, Bone": ("fracture",),
    "Catheters, Indwelling": ("support_devices",),
    "Implanted Medical Device": ("support_devices",),
    "Medical Device": ("support_devices",),
    "Stents": ("support_devices",),
    "Tube, Inserted": ("support_devices",),
}
"""A code to the labels that it makes present. `Heading/qualifier` asks for that qualifier, wherever it stands among the
code's qualifiers; a heading alone takes any. CheXpert's hierarchy is kept: whatever shadows the lung is also
`lung_opacity`, a large heart also `enlarged_cardiomediastinum`."""

_AUTOMATIC_TERMS = {
    "atelectases": "Pulmonary Atelectasis",
    "atelectasis": "Pulmonary Atelectasis",
    "edemas": "Pulmonary Edema",
    "infiltrates": "Infiltrate",
    "pleural effusions": "Pleural Effusion",
    "bilateral pleural effusion": "Pleural Effusion",
    "pleural thickening": "Thickening/pleura",
    "fracture": "Fractures, Bone",
    "rib fracture": "Fractures, Bone",
    "pacemaker, artificial": "Implanted Medical Device",
}
"""How the indexing program words what the human coders call otherwise; where both agree, nothing stands here."""


def labels_of(codes: Iterable[str]) -> frozenset[str]:
    """Return the labels that codes (`Heading/qualifier/...`, any case) make present."""
    return frozenset(label for code in codes for label in _labels_of_code(code))


def labels_of_automatic(terms: Iterable[str]) -> frozenset[str]:
    """Return the labels that the indexing program's terms would make present."""
    return labels_of(_AUTOMATIC_TERMS.get(term.strip().lower(), term) for term in terms)


def label_row(major: Sequence[str]) -> NDArray[np.float32]:
    """Return the 14 labels (14,) of a study: 1 or 0, and all NaN where people coded nothing.

    "normal" alone makes `no_finding` present and the rest absent. Any other code says what was found, and the coders
    coded all that they read: a label that no code maps to is absent.
    """
    codes = [code for code in major if _heading(code) != _NOT_INDEXED]
    if not codes:
        return np.full(len(CHEXPERT_LABELS), np.nan, dtype=np.float32)
    present = labels_of(codes)
    if len(present) > 1:
        present -= {"no_finding"}
    return np.array([label in present for label in CHEXPERT_LABELS], dtype=np.float32)


def labels_from_codes(studies: Sequence[Report]) -> tuple[tuple[str, ...], NDArray[np.float32], list[str]]:
    """Return the 14 labels, their values (n, 14) for each row's study by `label_row`, and notes."""
    values = np.stack([label_row(report.major) for report in studies])
    different = list({report.uid: report for report in studies}.values())
    coded = [report for report in different if not np.isnan(label_row(report.major)).any()]
    notes = ["Labels come from the codes that people gave each report (the table of the data card), not from images."]
    if len(coded) < len(different):
        notes.append(
            f"Not coded ('No Indexing') are {len(different) - len(coded):,} of {len(different):,} studies: all their "
            "labels are unknown."
        )
    more = sum(bool(labels_of_automatic(report.automatic) - labels_of(report.major)) for report in coded)
    if more:
        notes.append(
            f"In {more:,} of {len(coded):,} coded studies a program's term (column mesh_automatic) names a finding "
            "that people did not code; the labels follow the people."
        )
    return CHEXPERT_LABELS, values, notes


def labels_from_file(
    studies: Sequence[Report], images: Sequence[str], path: Path
) -> tuple[tuple[str, ...], NDArray[np.float32], list[str]]:
    """Return a CSV's labels for each row's study and image: names, values (n, L) and notes.

    Rows are matched by study, else by image, else by the text that was labelled (CheXbert's "Report Impression" holds
    whatever text it was given: the impression, the findings, or both). What the file lacks or leaves blank is unknown.

    Raises:
        InputError: no column to match by, no label columns, or not one row that matches.
    """
    file = read_label_file(path, {name: key for names, key in _KEYS for name in names})
    if file.kind in _STUDY_COLUMNS:
        asked = [[report.uid for report in studies]]
    elif file.kind in _IMAGE_COLUMNS:
        asked = [[_image_of(image) for image in images]]
    else:
        texts = ((report.impression, report.text, report.findings) for report in studies)
        asked = [[_plain(text) for text in column] for column in zip(*texts, strict=True)]
    values = np.full((len(studies), len(file.labels)), np.nan, dtype=np.float32)
    known = np.zeros(len(studies), dtype=np.bool_)
    for keys in asked:
        found, hit = file.matched(keys)
        values[hit & ~known] = found[hit & ~known]
        known |= hit
    if not known.any():
        raise InputError(
            f"No row of {path.name} fits an image: its column '{file.column}' holds none of this folder's "
            f"{'texts' if len(asked) > 1 else 'ids'}. Check that it belongs to these reports."
        )
    return file.labels, values, [file.note(int(known.sum()), len(known), "images")]


def _heading(code: str) -> str:
    return code.split("/")[0].strip().lower()


def _labels_of_code(code: str) -> tuple[str, ...]:
    heading, *qualifiers = (part.strip().lower() for part in code.split("/"))
    for qualifier in ("", *qualifiers):
        labels = _BY_CODE.get((heading, qualifier))
        if labels is not None:
            return labels
    return ()


def _study_of(text: str) -> str:
    match = re.fullmatch(r"(?:CXR|iu-)?0*(\d+)(?:\.0)?", text.strip(), flags=re.IGNORECASE)
    return match[1] if match else ""


def _image_of(text: str) -> str:
    return image_key(PurePosixPath(text.strip()).name)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


_STUDY_COLUMNS = ("study", "uid", "study_id", "patient")
_IMAGE_COLUMNS = ("image", "filename", "file_name", "image_id", "path")
_TEXT_COLUMNS = ("report_impression", "impression", "report")
_KEYS = ((_STUDY_COLUMNS, _study_of), (_IMAGE_COLUMNS, _image_of), (_TEXT_COLUMNS, _plain))

_BY_CODE = {
    (heading.lower(), qualifier): labels
    for (heading, _, qualifier), labels in ((code.partition("/"), labels) for code, labels in LABEL_MAP.items())
}
