"""MIMIC-CXR-JPG as published: metadata, split, labels and reports, plain or gzipped."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.mimic_cxr import read
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, ManifestError

METADATA = """\
dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,\
ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning
02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531,\
CHEST (PA AND LAT),postero-anterior,Erect
174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962,10000032,50414267,CHEST (PA AND LAT),LL,3056,2544,21800506,213014.531,\
CHEST (PA AND LAT),lateral,Erect
2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab,10000032,53189527,CHEST (PORTABLE AP),,3056,2544,21800626,165500.312,,,
68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714,10000764,57375967,,AP LLD,2544,3056,21321015,83119.031,,,Recumbent
ea030e7a-2e3b1346-bc518786-7a8fd698-f673b44c,10000999,59999999,,AP,1,1,21321015,83119.031,,,
"""
IMAGES = [line.split(",")[:3] for line in METADATA.splitlines()[1:]]
LABELS = """subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,\
Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices
10000032,50414267,,,,,,,,,1.0,,,,,
10000032,53189527,-1.0,1.0,,0.0,,,,,1.0,,,,,1.0
10000764,57375967,,,1.0,,,,,,,,,-1.0,,
10000764,57375967,1.0,,,,,,,,,,,,,
"""
SPLIT = "dicom_id,study_id,subject_id,split\n" + "".join(
    f"{dicom},{study},{subject},{'test' if study == '57375967' else 'train'}\n" for dicom, subject, study in IMAGES
)


def publish(folder: Path, *, zipped: bool = True, labels: str = "chexpert") -> Path:
    for name, text in (("metadata", METADATA), (labels, LABELS), ("split", SPLIT)):
        path = folder / f"mimic-cxr-2.0.0-{name}.csv"
        if zipped:
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
    for dicom, subject, study in IMAGES[:4]:
        path = folder / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_rows_become_the_columns_of_a_manifest(tmp_path: Path, zipped: bool) -> None:
    found = read(publish(tmp_path, zipped=zipped), ImportOptions())
    table = found.table
    assert (
        table["image"].tolist()[0] == "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg"
    )
    assert table["patient"].tolist() == ["mimic-10000032"] * 3 + ["mimic-10000764"]
    assert table["study"].tolist() == ["s50414267", "s50414267", "s53189527", "s57375967"]
    assert table["view"].fillna("").tolist() == ["PA", "LATERAL", "", "AP LLD"]
    assert table["split"].tolist() == ["train", "train", "train", "test"]
    assert table["procedure"].fillna("").tolist()[2:] == ["CHEST (PORTABLE AP)", ""]
    assert not {"age", "sex", "report"} & set(table.columns)
    assert found.skipped["what"].tolist() == [IMAGES[4][0]]


def test_every_image_of_a_study_has_its_labels(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    assert found.labels == CHEXPERT_LABELS
    stated = {
        row: {label: value for label, value in found.table.loc[row, list(found.labels)].items() if value == value}
        for row in range(4)
    }
    assert stated == {
        0: {"no_finding": 1},
        1: {"no_finding": 1},
        2: {"atelectasis": -1, "cardiomegaly": 1, "edema": 0, "support_devices": 1},
        3: {"consolidation": 1, "pneumonia": -1},
    }
    assert found.table[list(found.labels)].dtypes.eq(np.float32).all()
    assert found.notes == (
        "Rows without an image file here, left out of 5: 1.",
        "Labels are those of mimic-cxr-2.0.0-chexpert.csv.gz.",
        "Rows of mimic-cxr-2.0.0-chexpert.csv.gz that repeat an earlier row's study, left out: 1.",
        "Images said to show nothing and a finding at once, no_finding unknown there: 1.",
    )


def test_chexpert_goes_before_negbio_and_studies_without_labels_are_unknown(tmp_path: Path) -> None:
    publish(tmp_path, labels="negbio")
    assert "mimic-cxr-2.0.0-negbio.csv.gz" in read(tmp_path, ImportOptions()).notes[1]
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv").write_text(
        "\n".join(line for line in LABELS.splitlines() if "53189527" not in line) + "\n"
    )
    found = read(tmp_path, ImportOptions())
    assert found.table.loc[2, list(found.labels)].isna().all()
    assert "Images of studies without a row in mimic-cxr-2.0.0-chexpert.csv, without labels: 1." in found.notes


@pytest.mark.parametrize("place", ["files", "mimic-cxr-reports/files"])
def test_reports_are_read_where_they_lie_beside(tmp_path: Path, place: str) -> None:
    publish(tmp_path)
    folder = tmp_path / place / "p10/p10000032"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s50414267.txt").write_text("   FINAL REPORT\n EXAMINATION:  CHEST\n\n Clear lungs. \n")
    (folder / "s53189527.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "s99999999.txt").write_text("of a study that is not here")
    found = read(tmp_path, ImportOptions())
    report = found.table["report"]
    assert report.tolist()[:2] == ["FINAL REPORT EXAMINATION: CHEST Clear lungs."] * 2
    assert report.isna().tolist() == [False, False, True, True]
    assert "Reports that could not be read as text: 1." in found.notes


@pytest.mark.parametrize(
    "text",
    [
        "study_id,Airspace Opacity,No Finding\n57375967,1,0\n",
        "dicom_id,study_id,Lung Opacity,No Finding\n68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714,1,1.0,0.0\n",
    ],
)
@pytest.mark.parametrize("name", ["mimic-cxr-2.1.0-test-set-labeled.csv", "other.csv.gz"])
def test_labels_made_elsewhere_replace_those_of_their_split(tmp_path: Path, text: str, name: str) -> None:
    publish(tmp_path)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    before = read(tmp_path, ImportOptions()).table[list(CHEXPERT_LABELS)]
    after = read(tmp_path, ImportOptions(labels_file=path)).table[list(CHEXPERT_LABELS)]
    pd.testing.assert_frame_equal(after[:3], before[:3])
    assert {label: value for label, value in after.loc[3].items() if value == value} == {
        "no_finding": 0,
        "lung_opacity": 1,
    }


def test_without_splits_a_labels_file_replaces_all(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    (tmp_path / "mine.csv").write_text("study_id,Edema\n57375967,1\n")
    table = read(tmp_path, ImportOptions(labels_file=tmp_path / "mine.csv")).table
    assert "split" not in table
    assert table[list(CHEXPERT_LABELS)].notna().sum().sum() == 1


def test_rows_without_ids_get_no_labels_of_others(tmp_path: Path) -> None:
    publish(tmp_path, zipped=False)
    path = tmp_path / "mimic-cxr-2.0.0-metadata.csv"
    path.write_text(METADATA.replace("10000764,57375967,,AP LLD", ",,,AP LLD"))
    with (tmp_path / "mimic-cxr-2.0.0-chexpert.csv").open("a") as file:
        file.write("10000764,,1.0,1.0,,,,,,,,,,,,\n")
    found = read(tmp_path, ImportOptions())
    assert found.table.loc[3, ["patient", "study", *found.labels]].isna().all()


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like MIMIC-CXR-JPG"):
        read(tmp_path, ImportOptions())
    publish(tmp_path)
    (tmp_path / "mine.csv").write_text("study,Edema\n57375967,1\n")
    with pytest.raises(InputError, match="has no column 'dicom_id' or 'study_id'"):
        read(tmp_path, ImportOptions(labels_file=tmp_path / "mine.csv"))
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(ManifestError, match=r"holds no mimic-cxr-2\.\*-chexpert\.csv or mimic-cxr-2\.\*-negbio\.csv"):
        read(tmp_path, ImportOptions())


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("mimic_cxr", publish(tmp_path))
    assert cohort.group_kind == "patient"
