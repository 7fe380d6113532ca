"""Phantoms as files: PNG or DICOM images with their manifest, boxes, masks and data card."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.catalog import card_of
from medvlm_probe.cohort.data_cards import CARD_FILE
from medvlm_probe.cohort.phantom_source import image_stem, phantom_table
from medvlm_probe.errors import InputError, StoreError, unknown_name
from medvlm_probe.runs import write_bytes_atomically, write_csv

if TYPE_CHECKING:
    from medvlm_probe.cohort.phantom import Case, Phantom

ExportFormat = Literal["png", "dicom"]

SUFFIXES: dict[str, str] = {"png": ".png", "dicom": ".dcm"}
BOX_COLUMNS = ("image", "label", "x", "y", "w", "h", "source")
MANIFEST_FILE, BOXES_FILE = "manifest.csv", "boxes.csv"

FILM_MM = 400.0
"""How much of a patient a phantom's film shows, edge to edge; the anatomy's plane is two units wide, 20 cm each."""

_UID_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562's namespace for object identifiers
_SOP_CLASSES = {
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage, for presentation
    "CR": "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
}
_TOP = 4095  # the largest value of 12 bits


def export_phantoms(
    cases: Sequence[Case], folder: Path, *, format: ExportFormat = "png", size: int = 224
) -> list[Path]:
    """Draw cases into a folder that `load_cohort` reads, and return the images' paths in the order of the cases.

    Writes `SITE/PATIENT-K.png` (8-bit grey, as displayed) or `.dcm` (12 bits in 16, as the site archives them),
    `masks/LABEL/SITE/PATIENT-K.png` (0 and 255) for each finding drawn, `boxes.csv` (pixels from the top left corner,
    one row an instance, `source` "phantom"), `DATA_CARD.md` and, last, `manifest.csv`. Equal arguments give equal
    bytes.

    Args:
        cases: from `sample_cases`; sites may be mixed, but no image name may come twice.
        folder: made where absent; may hold other files, but no cohort yet.
        format: `png` or `dicom`.
        size: width and height in pixels.

    Raises:
        UnknownNameError: another format.
        InputError: an image name that comes twice (another seed or prevalence), or a size that cannot be drawn.
        StoreError: the folder holds a cohort already, or cannot be written.
    """
    from medvlm_probe.cohort.phantom import draw

    if format not in SUFFIXES:
        raise unknown_name("format", format, SUFFIXES)
    card = _card(cases, format, size).encode()
    for name, own in ((MANIFEST_FILE, b""), (CARD_FILE, card)):
        # The same card without a manifest is what a killed export leaves.
        if (folder / name).exists() and (folder / name).read_bytes() != own:
            raise StoreError(f"{folder} holds a cohort already ({name}). Name another folder, or remove that one.")
    table = phantom_table(cases, SUFFIXES[format])
    twice = table["image"][table["image"].duplicated()]
    if len(twice):
        raise InputError(f"The image {twice.iloc[0]} comes twice. Export each seed and prevalence to its own folder.")
    boxes: list[tuple[object, ...]] = []
    paths = []
    for case, image in zip(cases, table["image"], strict=True):
        phantom = draw(case, size)
        path = folder / image
        write_bytes_atomically(path, _png(phantom.pixels) if format == "png" else _dicom(phantom))
        for label, mask in phantom.masks.items():
            write_bytes_atomically(
                folder / "masks" / label / f"{image_stem(case)}.png", _png(mask.astype(np.uint8) * np.uint8(255))
            )
        boxes += [(image, label, *box, "phantom") for label, found in phantom.boxes.items() for box in found]
        paths.append(path)
    write_csv(folder / BOXES_FILE, pd.DataFrame(boxes, columns=list(BOX_COLUMNS)), exact=True)
    write_bytes_atomically(folder / CARD_FILE, card)
    write_csv(folder / MANIFEST_FILE, table, exact=True)
    return paths


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _card(cases: Sequence[Case], format: str, size: int) -> str:
    """Return the data card: the shipped phantom card's words for labels and splits, and what was drawn."""
    import yaml

    from medvlm_probe.cohort.phantom import GENERATOR_VERSION, generator_digest

    shipped = card_of("phantom")
    fields = {
        "name": "phantom-export",
        "title": "Phantom chest radiographs, as files",
        "task": shipped.task,
        "labels": dict(shipped.labels),
        "uncertainty": shipped.uncertainty,
        "importer": "manifest",
        "manifest": MANIFEST_FILE,
        "split": dict(shipped.split),
        "same_as": sorted({f"{shipped.name}/{case.prevalence}, seed {case.seed}" for case in cases}),
        "licence": shipped.licence,
        "citation": shipped.citation,
        "access": "Written by this package (medvlm-probe cohort export); nothing is downloaded",
        "known_traps": [
            "This is not medicine. The radiographs are drawn by a program and say nothing about patients.",
            "phantom-clip was trained on phantoms of the reference site; its results there are in-distribution.",
            "Labels are exact and complete, which no real label source is.",
        ],
    }
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    drawn = Counter((case.site, case.prevalence, case.seed) for case in cases)
    rows = "".join(f"| {site} | {how} | {seed} | {n:,} |\n" for (site, how, seed), n in drawn.items())
    depth = "8-bit grey PNG, as displayed" if format == "png" else "DICOM, 12 bits in 16, as each site archives them"
    return (
        f"---\n{front}---\n\n# Phantom chest radiographs, as files\n\n"
        f"{len(cases):,} synthetic radiographs of {size} x {size} pixels ({depth}), drawn by {GENERATOR_VERSION}, "
        f"sources {generator_digest()}.\n\n"
        f"| site | prevalences | seed | images |\n|---|---|--:|--:|\n{rows}\n"
        f"`{MANIFEST_FILE}` has a row an image. `{BOXES_FILE}` has a row an instance of a finding: x, y (top left "
        "corner), w, h in pixels. `masks/LABEL/` has a PNG for each image with that finding: 255 inside, 0 outside.\n"
    )


def _uid(*parts: object) -> str:
    """Return a DICOM identifier of the UUID-derived kind (DICOM PS3.5, B.2), the same for equal parts."""
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, repr(parts)).int}"


def _dicom(phantom: Phantom) -> bytes:
    """Return a DICOM file of the raw form, explicit VR little endian, no dates, no private tags."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    from medvlm_probe.cohort.phantom import SITES

    case, site = phantom.case, SITES[phantom.case.site]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASSES[site.modality])
    meta.MediaStorageSOPInstanceUID = UID(_uid(*_patient_key(case), case.image_index, phantom.raw.shape))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_uid("medvlm-probe"))
    meta.ImplementationVersionName = "MEDVLM_PROBE"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    fields = _patient_fields(case) | _image_fields(phantom)
    if site.modality == "DX":
        fields |= _digital_fields(site.photometric == "MONOCHROME1")
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = phantom.raw.astype("<u2").tobytes()
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _patient_key(case: Case) -> tuple[object, ...]:
    return case.site, case.seed, case.prevalence, case.patient


def _patient_fields(case: Case) -> dict[str, Any]:
    key = (*_patient_key(case), case.study)
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": case.patient,
        "PatientID": case.patient,
        "PatientBirthDate": "",
        "PatientSex": case.sex,
        "PatientAge": f"{case.age:03d}Y",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "synthetic image, no patient",
        "StudyInstanceUID": _uid(*key),
        "SeriesInstanceUID": _uid(*key, "series"),
        "StudyID": str(case.image_index + 1),
        "SeriesNumber": "1",
        "InstanceNumber": str(case.image_index + 1),
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "Manufacturer": "medvlm-probe phantom",
        "InstitutionName": f"phantom site {case.site}",
    }


def _image_fields(phantom: Phantom) -> dict[str, Any]:
    from medvlm_probe.cohort.phantom import SITES

    site, (rows, columns) = SITES[phantom.case.site], phantom.raw.shape
    centre, width = site.window
    if site.photometric == "MONOCHROME1":
        centre = 1 - centre  # the window applies to stored values, which are inverted
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "Modality": site.modality,
        "BodyPartExamined": "CHEST",
        "ViewPosition": phantom.case.view,
        "PatientOrientation": ["L", "F"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": site.photometric,
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        # A linear window maps centre - .5 -+ (width - 1) / 2 to the ends of the display (DICOM PS3.3, C.11.2.1.2.1).
        "WindowCenter": f"{_TOP * centre + 0.5:.8g}",
        "WindowWidth": f"{_TOP * width + 1:.8g}",
        "BurnedInAnnotation": "YES" if site.marker == "text" else "NO",
        "LossyImageCompression": "00",
        "ImagerPixelSpacing": [f"{FILM_MM / rows:.8g}", f"{FILM_MM / columns:.8g}"],
    }


def _digital_fields(inverted: bool) -> dict[str, Any]:
    """Return what digital radiography requires beyond computed radiography (DICOM PS3.3, A.26)."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as DicomSequence

    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "43799004", "SCT", "Chest"
    return {
        "PresentationIntentType": "FOR PRESENTATION",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if inverted else -1,
        "PresentationLUTShape": "INVERSE" if inverted else "IDENTITY",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "ImageLaterality": "U",
        "DetectorType": "",
        "AnatomicRegionSequence": DicomSequence([region]),
        "AcquisitionContextSequence": DicomSequence([]),
    }
