"""The RSNA Pneumonia Detection Challenge as Kaggle publishes it, and the way back to NIH's patients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.importers.rsna_pneumonia import NO_PATIENTS, read
from medvlm_probe.errors import InputError, ManifestError

OPACITY, NORMAL, OTHER, TEST = (f"{letter * 8}-f7da-4932-84a8-9dac4ec19bc0" for letter in "abcd")
LABELS = f"""patientId,x,y,width,height,Target
{NORMAL},,,,,0
{OPACITY},264.0,152.0,213.0,379.0,1
{OPACITY},562.0,152.0,256.0,453.0,1
{OTHER},,,,,0
"""
CLASSES = f"""patientId,class
{NORMAL},Normal
{OPACITY},Lung Opacity
{OPACITY},Lung Opacity
{OTHER},No Lung Opacity / Not Normal
"""


def publish(folder: Path, labels: str = LABELS, classes: str | None = CLASSES) -> Path:
    (folder / "stage_2_train_labels.csv").write_text(labels)
    if classes is not None:
        (folder / "stage_2_detailed_class_info.csv").write_text(classes)
    for path in (
        *(f"stage_2_train_images/{name}.dcm" for name in (OPACITY, NORMAL, OTHER)),
        f"stage_2_test_images/{TEST}.dcm",
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    return folder


def test_an_image_is_one_row_however_many_boxes_it_has(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    table = found.table
    assert table["image"].tolist() == [
        f"stage_2_train_images/{NORMAL}.dcm",
        f"stage_2_train_images/{OPACITY}.dcm",
        f"stage_2_train_images/{OTHER}.dcm",
        f"stage_2_test_images/{TEST}.dcm",
    ]
    assert table["split"].tolist() == ["train"] * 3 + ["test"]
    assert table["rsna_class"].fillna("").tolist() == ["Normal", "Lung Opacity", "No Lung Opacity / Not Normal", ""]
    assert found.labels == ("no_finding", "lung_opacity")
    np.testing.assert_array_equal(table[list(found.labels)], np.float32([[1, 0], [0, 1], [0, 0], [np.nan, np.nan]]))
    assert "patient" not in table
    assert "study" not in table
    assert found.notes == ("Images of the test, without labels: 1.", NO_PATIENTS)
    assert len(found.skipped) == 0


def test_boxes(tmp_path: Path) -> None:
    boxes = read(publish(tmp_path), ImportOptions()).boxes
    assert boxes is not None
    assert boxes[list("xywh")].to_numpy().tolist() == [[264, 152, 213, 379], [562, 152, 256, 453]]
    assert set(boxes["image"]) == {f"stage_2_train_images/{OPACITY}.dcm"}
    assert set(boxes["label"]) == {"lung_opacity"}
    assert set(boxes["source"]) == {"RSNA 2018 (Lung Opacity)"}


def test_without_detailed_classes_an_image_without_opacity_may_be_normal_or_not(tmp_path: Path) -> None:
    table = read(publish(tmp_path, classes=None), ImportOptions()).table
    np.testing.assert_array_equal(table["no_finding"], np.float32([np.nan, 0, np.nan, np.nan]))
    np.testing.assert_array_equal(table["lung_opacity"], np.float32([0, 1, 0, np.nan]))
    assert table["rsna_class"].isna().all()


def test_patients_come_from_the_organisers_mapping(tmp_path: Path) -> None:
    publish(tmp_path)
    entries = [
        {"subset_img_id": OPACITY, "img_id": "00000061_012.png", "SOPInstanceUID": "1.2.3"},
        {"subset_img_id": NORMAL, "img_id": "00013000_000.png"},
        {"subset_img_id": TEST, "img_id": "00000061_015.png"},
    ]
    path = tmp_path / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(entries))
    found = read(tmp_path, ImportOptions())
    assert found.table["patient"].fillna("").tolist() == ["nih-13000", "nih-61", "", "nih-61"]
    assert found.table["study"].fillna("").tolist() == ["00013000_000", "00000061_012", "", "00000061_015"]
    assert NO_PATIENTS not in found.notes
    for text in ("{", "[1]", '[{"img_id": "x"}]', '[{"img_id": 1, "subset_img_id": "x"}]'):
        path.write_text(text)
        with pytest.raises(ManifestError, match="no list of objects with 'subset_img_id' and 'img_id'"):
            read(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("labels", "classes", "reason"),
    [
        (LABELS + f"{NORMAL},1,2,3,4,1\n", CLASSES, "its rows differ in Target"),
        (LABELS.replace(f"{NORMAL},,,,,0", f"{NORMAL},,,,,yes"), CLASSES, "its Target is neither 0 nor 1"),
        (LABELS, CLASSES + f"{NORMAL},Lung Opacity\n", "its rows differ in class"),
        (LABELS, CLASSES.replace(f"{NORMAL},Normal", f"{NORMAL},Fine"), "its class is none of the challenge's"),
        (LABELS.replace(f"{NORMAL},,,,,0", f"{NORMAL},1,2,3,4,1"), CLASSES, "its class and its Target contradict"),
    ],
)
def test_images_that_contradict_themselves_are_left_out(tmp_path: Path, labels: str, classes: str, reason: str) -> None:
    found = read(publish(tmp_path, labels, classes), ImportOptions())
    assert len(found.table) == 3
    assert found.skipped["what"].tolist()[0] == NORMAL
    assert found.skipped["reason"].tolist()[0].startswith(reason)
    assert found.notes[1] == "Images with contradicting rows, left out: 1."


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like the RSNA Pneumonia Detection Challenge"):
        read(tmp_path, ImportOptions())
    with pytest.raises(InputError, match="takes no labels file"):
        read(publish(tmp_path), ImportOptions(labels_file=tmp_path / "x.csv"))


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("rsna_pneumonia", publish(tmp_path))
    assert cohort.group_kind == "image"
