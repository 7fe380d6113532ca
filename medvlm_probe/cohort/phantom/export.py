"""Write phantoms as files: PNG or DICOM images, their manifest, boxes and masks."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom.case import Case, Phantom
from medvlm_probe.cohort.phantom.render import draw
from medvlm_probe.cohort.phantom.sites import SITES
from medvlm_probe.errors import InputError, StoreError

MANIFEST_HEADER = ("image", "patient", "study", "site", "view", "split", "age", "sex", "report", *CHEXPERT_LABELS)
BOXES_HEADER = ("image", "label", "x", "y", "w", "h", "source")

_UID_ROOT = "2.25."  # UUID-derived identifiers: no registered root needed (DICOM PS3.5, B.2)
_SOP_CLASSES = {
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
    "CR": "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
}


def image_name(case: Case) -> str:
    """Return the name, without suffix, of a case's files: patient and number of the image."""
    return f"{case.patient}-{case.image_index + 1}"


def export_phantoms(
    cases: Iterable[Case], folder: Path, format: Literal["png", "dicom"] = "png", size: int = 224
) -> Path:
    """Draw cases into a folder; return the path of its manifest.

    Writes `images/NAME.png` (8-bit grey, as displayed) or `images/NAME.dcm` (12 bits in 16, as the site archives them),
    `masks/NAME-LABEL.png` (0 and 255) for each finding, `manifest.csv` and `boxes.csv` (pixels, source "phantom").
    Equal cases give equal bytes. The column `split` halves the patients into `calib` and `test` by their ids alone.

    Args:
        cases: from `sample_cases`; sites and prevalences may be mixed, but no image may come twice.
        folder: made where absent; must be empty otherwise.
        format: `"png"` or `"dicom"`.
        size: width and height in pixels.

    Raises:
        InputError: another format, or an image that comes twice.
        StoreError: a folder that holds something already.
    """
    if format not in ("png", "dicom"):
        raise InputError(f"Format {format!r} was given; phantoms are exported as 'png' or 'dicom'.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not an empty folder; name a new one.")
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows: list[Sequence[object]] = []
    boxes: list[Sequence[object]] = []
    written: set[str] = set()
    for case in cases:
        name = image_name(case)
        if name in written:
            raise InputError(f"The image {name} comes twice: export each seed and prevalence to its own folder.")
        written.add(name)
        phantom = draw(case, size)
        image = f"images/{name}.{'png' if format == 'png' else 'dcm'}"
        (folder / image).write_bytes(_png(phantom.pixels) if format == "png" else _dicom(phantom))
        for label, mask in phantom.masks.items():
            (folder / "masks" / f"{name}-{label}.png").write_bytes(_png(mask.astype(np.uint8) * np.uint8(255)))
        rows.append(_manifest_row(case, image))
        boxes.extend((image, label, *box, "phantom") for label, found in phantom.boxes.items() for box in found)
    _write_csv(folder / "boxes.csv", BOXES_HEADER, boxes)
    _write_csv(folder / "manifest.csv", MANIFEST_HEADER, rows)
    return folder / "manifest.csv"


def _manifest_row(case: Case, image: str) -> Sequence[object]:
    # The rule of the drawn cohort (cohort/phantom_source.py), which this package can't import: a test holds them equal.
    split = "calib" if hashlib.sha256(case.patient.encode()).digest()[0] < 128 else "test"
    head = (image, case.patient, case.study, case.site, case.view, split, case.age, case.sex, case.report)
    return (*head, *(case.labels[label] for label in CHEXPERT_LABELS))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _uid(*parts: object) -> str:
    """Return a DICOM identifier that is the same for equal parts and looks like any UUID's."""
    digest = hashlib.sha256(repr(parts).encode()).digest()[:16]
    return _UID_ROOT + str(int.from_bytes(digest, "big"))


def _dicom(phantom: Phantom) -> bytes:
    """Return a DICOM file of the raw form: 12 bits in 16, the site's window and photometric interpretation."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    case, site, raw = phantom.case, SITES[phantom.case.site], phantom.raw
    key = (case.site, case.seed, case.prevalence, case.patient)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASSES[site.modality])
    meta.MediaStorageSOPInstanceUID = UID(_uid(*key, case.image_index, raw.shape))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_uid("medvlm-probe"))
    dataset = Dataset()
    dataset.file_meta = meta
    centre, width = site.window
    inverted = site.photometric == "MONOCHROME1"
    fields: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": _uid(*key, case.study),
        "SeriesInstanceUID": _uid(*key, case.study, "series"),
        "StudyID": str(case.image_index + 1),
        "SeriesNumber": "1",
        "InstanceNumber": str(case.image_index + 1),
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "PatientName": case.patient,
        "PatientID": case.patient,
        "PatientBirthDate": "",
        "PatientSex": case.sex,
        "PatientAge": f"{case.age:03d}Y",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "synthetic image, no patient",
        "Manufacturer": "medvlm-probe phantom",
        "InstitutionName": f"phantom site {case.site}",
        "Modality": site.modality,
        **({"PresentationIntentType": "FOR PRESENTATION"} if site.modality == "DX" else {}),
        "BodyPartExamined": "CHEST",
        "ViewPosition": case.view,
        "PatientOrientation": ["L", "F"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": site.photometric,
        "Rows": raw.shape[0],
        "Columns": raw.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if inverted else -1,
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "PresentationLUTShape": "INVERSE" if inverted else "IDENTITY",
        # Linear windows map centre - .5 +- (width - 1) / 2 to the ends of the display (DICOM PS3.3, C.11.2.1.2.1).
        "WindowCenter": f"{4095 * ((1 - centre) if inverted else centre) + 0.5:.6g}",
        "WindowWidth": f"{4095 * width + 1:.6g}",
        "BurnedInAnnotation": "YES" if site.marker == "text" else "NO",
        "ImagerPixelSpacing": [f"{400 / raw.shape[0]:.6g}", f"{400 / raw.shape[1]:.6g}"],
    }
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = raw.astype("<u2").tobytes()
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
