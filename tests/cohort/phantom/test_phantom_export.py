"""Exported phantoms: PNG and DICOM files that read back as what was drawn, their manifest, boxes and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_voi_lut

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import SITES, Case, draw, sample_cases
from medvlm_probe.cohort.phantom.export import export_phantoms, image_name
from medvlm_probe.cohort.phantom_source import split_of
from medvlm_probe.errors import InputError, StoreError


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case for site in SITES for case in sample_cases(site, 3, 12, "balanced")]


@pytest.fixture(scope="module")
def pngs(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_phantoms(cases, tmp_path_factory.mktemp("png") / "cohort", "png", 128).parent


@pytest.fixture(scope="module")
def dicoms(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_phantoms(cases, tmp_path_factory.mktemp("dicom") / "cohort", "dicom", 128).parent


def test_png_files_hold_the_drawn_pixels(cases: list[Case], pngs: Path) -> None:
    for case in cases:
        with Image.open(pngs / "images" / f"{image_name(case)}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), draw(case, 128).pixels)


def test_masks_and_boxes_are_those_drawn(cases: list[Case], pngs: Path) -> None:
    boxes = pd.read_csv(pngs / "boxes.csv")
    assert list(boxes.columns) == ["image", "label", "x", "y", "w", "h", "source"]
    assert len(list((pngs / "masks").iterdir())) == sum(
        sum(case.labels.values()) - case.labels["no_finding"] for case in cases
    )
    for case in cases:
        phantom = draw(case, 128)
        own = boxes[boxes["image"] == f"images/{image_name(case)}.png"]
        for label, mask in phantom.masks.items():
            with Image.open(pngs / "masks" / f"{image_name(case)}-{label}.png") as image:
                np.testing.assert_array_equal(np.asarray(image), mask * 255)
            listed = own.loc[own["label"] == label, ["x", "y", "w", "h"]].to_numpy().tolist()
            assert listed == [list(box) for box in phantom.boxes[label]]
        assert set(own["label"]) == set(phantom.masks)


def test_the_manifest_says_who_and_what(cases: list[Case], pngs: Path) -> None:
    table = pd.read_csv(pngs / "manifest.csv")
    head = ["image", "patient", "study", "site", "view", "split", "age", "sex", "report"]
    assert list(table.columns) == [*head, *CHEXPERT_LABELS]
    for case, row in zip(cases, table.to_dict("records"), strict=True):
        assert row["patient"] == case.patient
        assert row["split"] == split_of(case.patient)
        assert row["report"] == case.report
        assert (pngs / row["image"]).is_file()
        assert {label: row[label] for label in CHEXPERT_LABELS} == case.labels


def test_dicom_files_show_the_same_picture(cases: list[Case], dicoms: Path) -> None:
    for case in cases:
        dataset = pydicom.dcmread(dicoms / "images" / f"{image_name(case)}.dcm")
        assert dataset.PhotometricInterpretation == SITES[case.site].photometric
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.Modality) == (16, 12, SITES[case.site].modality)
        assert dataset.ViewPosition == case.view
        assert dataset.PatientID == case.patient
        shown = apply_voi_lut(dataset.pixel_array, dataset) / 4095
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        assert np.abs(shown * 255 - draw(case, 128).pixels).max() < 0.6
    assert {SITES[case.site].photometric for case in cases} == {"MONOCHROME1", "MONOCHROME2"}


def test_dicom_identifiers_tell_images_apart_and_keep_patients_together(cases: list[Case], dicoms: Path) -> None:
    datasets = [pydicom.dcmread(path) for path in sorted((dicoms / "images").iterdir())]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(cases)
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == len({case.study for case in cases})
    assert all(dataset.SOPInstanceUID.is_valid and dataset.StudyInstanceUID.is_valid for dataset in datasets)


def test_equal_cases_give_equal_bytes(cases: list[Case], pngs: Path, dicoms: Path, tmp_path: Path) -> None:
    for format_, first in (("png", pngs), ("dicom", dicoms)):
        again = export_phantoms(cases[:4], tmp_path / format_, format_, 128).parent
        for path in (again / "images").iterdir():
            assert path.read_bytes() == (first / "images" / path.name).read_bytes()


def test_what_cannot_be_exported_is_refused(cases: list[Case], pngs: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="empty"):
        export_phantoms(cases[:1], pngs)
    with pytest.raises(InputError, match="twice"):
        export_phantoms([cases[0], cases[0]], tmp_path / "twice")
    with pytest.raises(InputError, match="dicom"):
        export_phantoms(cases[:1], tmp_path / "tiff", "tiff")  # type: ignore[arg-type]
