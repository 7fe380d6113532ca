"""VinDr-CXR as PhysioNet and Kaggle publish it: readers' votes, boxes, and classes that a release does not have."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.published import BOX_COLUMNS, ImportOptions
from medvlm_probe.cohort.importers.vindr_cxr import KAGGLE_CLASSES, LABEL_MAP, read
from medvlm_probe.errors import InputError, ManifestError

CLASS_LINE = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,"
    "Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,"
    "Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,"
    "Tuberculosis,Other diseases,No finding"
)
CLASSES = CLASS_LINE.split(",")
A, B, C, D = (letter * 32 for letter in "abcd")
KAGGLE = f"""image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
{A},No finding,14,R11,,,,
{A},No finding,14,R7,,,,
{A},Cardiomegaly,3,R10,691.0,1375.0,1653.0,1831.0
{B},Consolidation,4,R8,10,20,110,220
{B},Consolidation,4,R8,300,20,400,220
{B},Infiltration,6,R9,12,22,112,222
{B},Aortic enlargement,0,R10,1,2,3,4
"""


def put(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def wide(readings: list[tuple[str, str | None, set[str]]], classes: list[str]) -> str:
    ids = ["image_id"] if readings[0][1] is None else ["image_id", "rad_id"]
    lines = [",".join([*ids, *classes])]
    for image, reader, found in readings:
        flags = ["1" if name in found else "0" for name in classes]
        lines.append(",".join([image, *([] if reader is None else [reader]), *flags]))
    return "\n".join(lines) + "\n"


def physionet(folder: Path) -> Path:
    notes = folder / "annotations"
    notes.mkdir()
    (notes / "image_labels_train.csv").write_text(
        wide(
            [
                (A, "R1", {"No finding"}),
                (A, "R2", {"No finding"}),
                (A, "R3", {"Rib fracture"}),
                (B, "R1", {"Consolidation", "Pneumonia"}),
                (B, "R2", {"Infiltration"}),
                (B, "R3", {"Lung cavity", "No finding"}),
            ],
            CLASSES,
        )
    )
    (notes / "annotations_train.csv").write_text(
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        f"{B},R1,Consolidation,900.96,587.81,1205.36,888.71\n{A},R1,No finding,,,,\n{B},R3,Lung cavity,5,5,5,9\n"
    )
    (notes / "image_labels_test.csv").write_text(
        wide([(C, None, {"Edema", "No finding"})], [name.replace("diseases", "disease") for name in CLASSES])
    )
    (notes / "annotations_test.csv").write_text(f"image_id,class_name,x_min,y_min,x_max,y_max\n{C},Edema,1,2,4,8\n")
    put(folder, f"train/{A}.dicom", f"train/{B}.dicom", f"test/{C}.dicom")
    return folder


def test_physionet_labels_are_the_majority_of_readers_and_the_consensus(tmp_path: Path) -> None:
    found = read(physionet(tmp_path), ImportOptions())
    table = found.table
    assert table["image"].tolist() == [f"train/{A}.dicom", f"train/{B}.dicom", f"test/{C}.dicom"]
    assert table["split"].tolist() == ["train", "train", "test"]
    assert table["view"].tolist() == ["PA"] * 3
    assert not {"patient", "study", "age", "sex"} & set(table.columns)
    assert not {"enlarged_cardiomediastinum", "support_devices"} & set(found.labels)
    present = [{label for label in found.labels if table.loc[row, label] == 1} for row in range(3)]
    assert present == [{"no_finding"}, {"lung_opacity"}, {"edema", "lung_opacity"}]
    assert (table[list(found.labels)] >= 0).all(axis=None)
    assert table["n_readers"].tolist() == ["3", "3", "1"]
    assert table["finding_votes"].tolist() == [
        "No finding 2/3|Rib fracture 1/3",
        "Consolidation 1/3|Infiltration 1/3|Lung cavity 1/3|No finding 1/3|Pneumonia 1/3",
        "Edema 1/1|No finding 1/1",
    ]
    assert "Readings of 'No finding' beside a finding, counted as the finding: 2." in found.notes


def test_physionet_boxes(tmp_path: Path) -> None:
    found = read(physionet(tmp_path), ImportOptions())
    assert found.boxes is not None
    assert tuple(found.boxes.columns) == BOX_COLUMNS
    assert found.boxes[["image", "label", "source"]].to_numpy().tolist() == [
        [f"train/{B}.dicom", "consolidation", "VinDr-CXR R1 (Consolidation)"],
        [f"train/{B}.dicom", "lung_opacity", "VinDr-CXR R1 (Consolidation)"],
        [f"test/{C}.dicom", "edema", "VinDr-CXR consensus (Edema)"],
        [f"test/{C}.dicom", "lung_opacity", "VinDr-CXR consensus (Edema)"],
    ]
    np.testing.assert_allclose(found.boxes.loc[0, list("xywh")].to_list(), [900.96, 587.81, 304.40, 300.90])
    assert found.boxes.loc[2, list("xywh")].tolist() == [1, 2, 3, 6]
    assert found.skipped["what"].tolist() == [f"a box of train/{B}.dicom"]


def test_kaggle_lacks_classes_and_labels_of_the_test(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(KAGGLE)
    put(tmp_path, f"train/{A}.dicom", f"train/{B}.png", f"test/{D}.dicom")
    found = read(tmp_path, ImportOptions())
    assert not {"edema", "pneumonia", "fracture", "support_devices"} & set(found.table.columns)
    assert found.table["split"].tolist() == ["train", "train", "test"]
    assert found.table.loc[2, [*found.labels, "finding_votes"]].isna().all()
    assert found.table.loc[0, ["no_finding", "cardiomegaly"]].tolist() == [1, 0]
    assert found.table.loc[1, ["no_finding", "consolidation", "lung_opacity"]].tolist() == [0, 0, 1]
    assert found.table.loc[1, "finding_votes"] == "Aortic enlargement 1/3|Consolidation 1/3|Infiltration 1/3"
    assert found.boxes is not None
    assert Counter(found.boxes["label"]) == {
        "cardiomegaly": 1,
        "consolidation": 2,
        "lung_opacity": 3,
        "aortic_enlargement": 1,
    }
    assert found.notes == ("Images of the test, without labels: 1.",)
    assert set(KAGGLE_CLASSES) <= LABEL_MAP.keys()
    assert set(CLASSES) <= LABEL_MAP.keys()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.sets(st.sampled_from(CLASSES[:-1])), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_votes_equal_a_count_by_hand(tmp_path_factory: pytest.TempPathFactory, images: list[list[set[str]]]) -> None:
    folder = tmp_path_factory.mktemp("votes")
    readings = [
        (f"{number:032x}", f"R{reader}", found or {"No finding"})
        for number, readers in enumerate(images)
        for reader, found in enumerate(readers)
    ]
    (folder / "image_labels_train.csv").write_text(wide(readings, CLASSES))
    put(folder, *(f"train/{number:032x}.dicom" for number in range(len(images))))
    found = read(folder, ImportOptions())
    assert found.boxes is not None
    assert len(found.boxes) == 0
    for number, readers in enumerate(images):
        for label in found.labels:
            votes = sum(any(label in LABEL_MAP[name] for name in (said or {"No finding"})) for said in readers)
            expected = -1 if 2 * votes == len(readers) else float(2 * votes > len(readers))
            assert found.table.loc[number, label] == expected


def test_classes_that_the_release_does_not_have_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(KAGGLE.replace(f"{B},Infiltration", f"{B},Infiltratoin"))
    put(tmp_path, f"train/{A}.dicom", f"train/{B}.dicom")
    found = read(tmp_path, ImportOptions())
    assert found.table.loc[1, "lung_opacity"] == 0
    assert found.notes == ("Findings of a class that VinDr-CXR does not have, passed over: 1.",)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like VinDr-CXR"):
        read(tmp_path, ImportOptions())
    (tmp_path / "train.csv").write_text(KAGGLE)
    with pytest.raises(ManifestError, match="No image of 2 rows"):
        read(tmp_path, ImportOptions())
    with pytest.raises(InputError, match="VinDr-CXR takes no labels file"):
        read(tmp_path, ImportOptions(labels_file=tmp_path / "train.csv"))
    (tmp_path / "image_labels_train.csv").write_text(f"image_id,rad_id,Edema\n{A},R1,1\n{A},R2,2\n")
    with pytest.raises(ManifestError, match=r"image_labels_train\.csv has cells that are neither 0 nor 1.* in row 2"):
        read(tmp_path, ImportOptions())


def test_boxes_are_a_frame_of_numbers(tmp_path: Path) -> None:
    found = read(physionet(tmp_path), ImportOptions())
    assert found.boxes is not None
    assert all(pd.api.types.is_float_dtype(found.boxes[name]) for name in "xywh")


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("vindr_cxr", physionet(tmp_path))
    assert cohort.group_kind == "image"
