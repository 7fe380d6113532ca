"""PadChest as published: the table's oddities, and its findings as labels."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.padchest import classes_of, read
from medvlm_probe.cohort.importers.padchest_labels import LABEL_MAP, OPEN_CLASSES
from medvlm_probe.cohort.importers.published import ImportOptions, Published
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, ManifestError

HEADER_LINE = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,"
    "LocalizationsCUIS"
)
HEADER = HEADER_LINE.split(",")
NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
FIRST = {
    "ImageID": "20536686640136348236148679891455886468_k6ga29.png",
    "ImageDir": "0",
    "StudyDate_DICOM": "20140915",
    "StudyID": "20536686640136348236148679891455886468",
    "PatientID": "839860488694292331637988235681460987",
    "PatientBirth": "1930.0",
    "PatientSex_DICOM": "F",
    "Projection": "PA",
    "Pediatric": "No",
    "BitsStored_DICOM": "12",
    "Report": " sin hallazg patolog edad pacient .",
    "MethodLabel": "Physician",
    "Labels": "['normal']",
    "Localizations": "[]",
    "LabelsLocalizationsBySentence": "[['normal'], ['normal']]",
    "labelCUIS": "['C0034069' 'C0742362'\n 'C2115817']",
}


def publish(folder: Path, *changes: dict[str, str], name: str = NAME, flat: bool = False) -> Path:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, HEADER, restval="None", lineterminator="\n")
    writer.writeheader()
    for number, change in enumerate(changes):
        row = {**FIRST, "": str(number), "ImageID": f"{number}.png", "ImageDir": str(number % 2), **change}
        writer.writerow(row)
        path = folder / ("" if flat else row["ImageDir"]) / row["ImageID"]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    data = buffer.getvalue().encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def listed(tmp_path: Path, *labels: str) -> Published:
    return read(publish(tmp_path, *({"Labels": text} for text in labels)), ImportOptions())


def present(found: Published, row: int) -> set[str]:
    return {label for label in found.labels if found.table.loc[row, label] == 1}


def unknown(found: Published, row: int) -> set[str]:
    return {label for label in found.labels if np.isnan(found.table.loc[row, label])}


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", [NAME, f"{NAME}.gz"])
def test_rows_become_the_columns_of_a_manifest(tmp_path: Path, name: str, flat: bool) -> None:
    change = {
        "Labels": "['pulmonary fibrosis', ' pneumonia', 'kyphosis', '']",
        "Projection": "L",
        "PatientSex_DICOM": "O",
        "StudyDate_DICOM": "20150914",
        "MethodLabel": "RNN_model",
    }
    found = read(publish(tmp_path, {}, change, name=name, flat=flat), ImportOptions())
    first, second = (found.table.loc[row] for row in range(2))
    assert first["image"] == ("0.png" if flat else "0/0.png")
    assert first["patient"] == "padchest-839860488694292331637988235681460987"
    assert first[["study", "site", "view", "sex", "report", "label_method"]].tolist() == [
        "20536686640136348236148679891455886468",
        "padchest",
        "PA",
        "F",
        "sin hallazg patolog edad pacient .",
        "Physician",
    ]
    assert second[["view", "sex", "finding_raw", "label_method"]].tolist() == [
        "LATERAL",
        "other",
        "kyphosis|pneumonia|pulmonary fibrosis",
        "RNN_model",
    ]
    np.testing.assert_array_equal(found.table["age"], np.float32([84, 85]))
    assert found.labels == CHEXPERT_LABELS


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("['normal']", {"normal"}),
        ("[' pleural effusion', 'COPD signs', '']", {"pleural effusion", "COPD signs"}),
        ("[\"Chilaiditi's sign\", 'nodule']", {"Chilaiditi's sign", "nodule"}),
        ("[]", set()),
        ("['']", set()),
        ("nan", set()),
        ("[__import__('os').system('true')", set()),
    ],
)
def test_lists_of_findings_are_read_without_being_run(text: str, classes: set[str]) -> None:
    assert classes_of(text) == classes


def test_findings_become_labels(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        "['normal']",
        "['cardiomegaly', ' laminar atelectasis', 'hydropneumothorax', 'callus rib fracture', 'NSG tube']",
        "['scoliosis', 'COPD signs']",
    )
    assert present(found, 0) == {"no_finding"}
    assert present(found, 1) == {
        "enlarged_cardiomediastinum",
        "cardiomegaly",
        "lung_opacity",
        "atelectasis",
        "pneumothorax",
        "pleural_effusion",
        "fracture",
        "support_devices",
    }
    assert present(found, 2) == set()
    assert not any(unknown(found, row) for row in range(3))


def test_what_a_list_that_is_not_whole_leaves_out_is_unknown(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        "['unchanged']",
        "['unchanged', 'pleural effusion']",
        "['exclude']",
        "['suboptimal study', ' normal']",
        "['']",
        "nan",
    )
    every = set(CHEXPERT_LABELS)
    assert [unknown(found, row) for row in (0, 2, 4, 5)] == [every] * 4
    assert present(found, 1) == {"pleural_effusion"}
    assert unknown(found, 1) == every - {"pleural_effusion", "no_finding"}
    assert present(found, 3) == {"no_finding"}
    assert unknown(found, 3) == set()
    assert found.notes == (
        "Images without any finding listed, not even 'normal', so without labels: 2.",
        "Images listed as exclude, suboptimal study, unchanged, where what is not listed is unknown: 4.",
    )
    assert found.table["finding_raw"].isna().tolist() == [False] * 4 + [True] * 2


def test_normal_beside_a_finding_contradicts_itself_beside_a_device_it_does_not(tmp_path: Path) -> None:
    found = listed(tmp_path, "['normal', 'nodule']", "['normal', 'pacemaker', 'unchanged']", "['scoliosis', ' normal']")
    assert unknown(found, 0) == {"no_finding"}
    assert present(found, 0) == {"lung_lesion", "lung_opacity"}
    assert present(found, 1) == {"no_finding", "support_devices"}
    assert unknown(found, 2) == {"no_finding"}
    assert found.notes[-1].endswith("no_finding unknown there: 2.")


def test_odd_cells_are_unknown(tmp_path: Path) -> None:
    found = read(
        publish(
            tmp_path,
            {"PatientBirth": "", "PatientSex_DICOM": "nan", "Projection": "UNK"},
            {"PatientBirth": "2020", "Projection": "EXCLUDE"},
            {"PatientBirth": "1850", "Projection": "AP_horizontal"},
            {"PatientBirth": "2014", "Projection": "COSTAL"},
        ),
        ImportOptions(),
    )
    np.testing.assert_array_equal(found.table["age"], np.float32([np.nan, np.nan, np.nan, 0]))
    assert found.table["view"].fillna("").tolist() == ["", "", "AP SUPINE", "COSTAL"]
    assert found.table["sex"].isna().tolist() == [True, False, False, False]
    assert found.notes == ("Ages (year of study less year of birth) that are impossible, made unknown: 2.",)


def test_missing_and_further_files_are_told(tmp_path: Path) -> None:
    publish(tmp_path, {}, {}, {})
    (tmp_path / "1/1.png").unlink()
    (tmp_path / "1/extra.png").touch()
    found = read(tmp_path, ImportOptions())
    assert found.skipped["what"].tolist() == ["1.png", "1/extra.png"]
    assert len(found.table) == 2


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like PadChest"):
        read(tmp_path, ImportOptions())
    with pytest.raises(InputError, match="PadChest takes no labels file"):
        read(publish(tmp_path, {}), ImportOptions(labels_file=tmp_path / NAME))


def test_the_table_of_findings_names_labels_alone() -> None:
    assert {label for labels in LABEL_MAP.values() for label in labels} == set(CHEXPERT_LABELS)
    assert not OPEN_CLASSES & LABEL_MAP.keys()


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("padchest", publish(tmp_path, {}, {"Labels": "['unchanged', 'nodule']"}))
    assert cohort.group_kind == "patient"
