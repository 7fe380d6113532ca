"""CheXpert as published (full size and small), the labels of its test, and labels made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.chexpert import read
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, ManifestError

LABELS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{LABELS}"
ROOT = "CheXpert-v1.0-small"
TRAIN = f"""{HEADER}
{ROOT}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0
{ROOT}/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,
{ROOT}/train/patient00002/study2/view2_lateral.jpg,Female,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,
{ROOT}/train/patient64540/study1/view1_frontal.jpg,Unknown,0,Frontal,LL,1.0,,,1.0,,,,,,0.0,,,,
"""
VALID = f"""{HEADER}
{ROOT}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
"""
ALL_ZERO = ",".join(["0.0"] * 14)


def put(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def publish(folder: Path, root: str = "") -> Path:
    (folder / "train.csv").write_text(TRAIN)
    (folder / "valid.csv").write_text(VALID)
    lines = [*TRAIN.splitlines()[1:], *VALID.splitlines()[1:]]
    put(folder, *(root + line.split(",")[0].removeprefix(f"{ROOT}/") for line in lines))
    return folder


def test_rows_become_the_columns_of_a_manifest(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    table = found.table
    assert table["image"].tolist()[1] == "train/patient00002/study2/view1_frontal.jpg"
    assert table["patient"].tolist() == [f"chexpert-{n}" for n in ("00001", "00002", "00002", "64540", "64541")]
    assert table["study"].tolist()[1:3] == ["patient00002/study2"] * 2
    assert table["view"].fillna("").tolist() == ["AP", "PA", "LATERAL", "", "AP"]
    assert table["split"].tolist() == ["train"] * 4 + ["valid"]
    assert table["sex"].fillna("").tolist() == ["F", "F", "F", "", "M"]
    np.testing.assert_array_equal(table["age"], np.float32([68, 87, 87, np.nan, 73]))
    assert set(table["site"]) == {"stanford"}
    assert len(found.skipped) == 0


def test_blank_is_unknown_and_minus_one_uncertain(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    assert found.labels == CHEXPERT_LABELS
    values = found.table[list(CHEXPERT_LABELS)]
    assert values.dtypes.eq(np.float32).all()
    unknown = np.nan
    np.testing.assert_array_equal(
        values.iloc[[0, 1]],
        np.float32(
            [
                [1, *[unknown] * 8, 0, unknown, unknown, unknown, 1],
                [unknown, unknown, -1, 1, unknown, -1, -1, unknown, -1, unknown, -1, unknown, 1, unknown],
            ]
        ),
    )
    np.testing.assert_array_equal(values.iloc[4], np.float32([0, 1, 1, 1] + [0] * 10))


def test_no_finding_beside_a_finding_is_unknown_but_devices_are_no_finding(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    assert found.table["no_finding"].isna().tolist() == [False, True, True, True, False]
    assert "Images said to show nothing and a finding at once, no_finding unknown there: 1." in found.notes
    assert "Ages of 0, which stands for not known, made unknown: 1." in found.notes


@pytest.mark.parametrize("root", ["", "renamed copy/", "CheXpert-v1.0 batch 2 (train 1)/deep/"])
def test_the_folders_above_the_patients_may_have_any_names(tmp_path: Path, root: str) -> None:
    table = read(publish(tmp_path, root), ImportOptions()).table
    assert table["image"].tolist()[0] == f"{root}train/patient00001/study1/view1_frontal.jpg"
    assert len(table) == 5


def test_rows_without_a_path_or_with_one_of_elsewhere_are_left_out(tmp_path: Path) -> None:
    publish(tmp_path)
    with (tmp_path / "valid.csv").open("a") as file:
        file.write(f",Male,73,Frontal,AP,{ALL_ZERO}\n/etc/passwd,Male,73,Frontal,AP,{ALL_ZERO}\n")
        file.write(f"../../../patient00001/study1/view1_frontal.jpg,Male,73,Frontal,AP,{ALL_ZERO}\n")
    found = read(tmp_path, ImportOptions())
    assert len(found.table) == 5
    assert list(found.skipped.itertuples(index=False, name=None)) == [
        ("a row without a name", "its image file is not there"),
        ("/etc/passwd", "its image file is not there"),
        ("../../../patient00001/study1/view1_frontal.jpg", "an earlier row has the same image"),
    ]


def test_missing_images_are_left_out_and_told(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "train/patient00001/study1/view1_frontal.jpg").unlink()
    put(tmp_path, "train/patient00009/study1/view1_frontal.jpg")
    found = read(tmp_path, ImportOptions())
    assert len(found.table) == 4
    assert found.skipped["what"].tolist() == [
        f"{ROOT}/train/patient00001/study1/view1_frontal.jpg",
        "train/patient00009/study1/view1_frontal.jpg",
    ]


def test_labels_of_the_test_by_image_as_chexlocalize_publishes_them(tmp_path: Path) -> None:
    image = "test/patient64741/study1/view1_frontal.jpg"
    (tmp_path / "test_labels.csv").write_text(f"Path,{LABELS}\n{image},{ALL_ZERO}\n")
    put(tmp_path, image)
    table = read(tmp_path, ImportOptions()).table
    assert table["split"].tolist() == ["test"]
    assert table["view"].isna().all()
    np.testing.assert_array_equal(table[list(CHEXPERT_LABELS)], np.zeros((1, 14), np.float32))


def test_labels_of_the_test_by_study_reach_every_image_of_it(tmp_path: Path) -> None:
    zeros = ALL_ZERO.replace("0.0", "0")
    (tmp_path / "groundtruth.csv").write_text(
        f"Study,{LABELS}\nCheXpert-v1.0/test/patient64741/study1,{zeros.replace('0', '1', 1)}\n"
        f"CheXpert-v1.0/test/patient64742/study1,{zeros}\n"
    )
    put(tmp_path, *(f"test/patient64741/study1/{name}.jpg" for name in ("view1_frontal", "view2_lateral")))
    found = read(tmp_path, ImportOptions())
    assert found.table["view"].fillna("").tolist() == ["", "LATERAL"]
    assert found.table["no_finding"].tolist() == [1, 1]
    assert found.skipped["what"].tolist() == ["CheXpert-v1.0/test/patient64742/study1"]


def test_a_test_table_without_labels_gives_images_without_labels(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "test.csv").write_text("Path,Sex\ntest/patient64741/study1/view1_frontal.jpg,Male\n")
    put(tmp_path, "test/patient64741/study1/view1_frontal.jpg")
    table = read(tmp_path, ImportOptions()).table
    assert table.loc[5, list(CHEXPERT_LABELS)].isna().all()
    assert table.loc[5, "split"] == "test"


def test_a_labels_file_replaces_the_labels_of_the_splits_that_it_speaks_of(tmp_path: Path) -> None:
    publish(tmp_path)
    labels_file = tmp_path / "visual.csv"
    lines = [
        f"{number},CheXpert-v1.0/train/{path},Male,50,Frontal,AP,{ALL_ZERO.replace('0.0', '1.0', 1)}"
        for number, path in enumerate(
            ("patient00001/study1/view1_frontal.jpg", "patient00002/study2/view1_frontal.jpg", "patient9/s/v.jpg")
        )
    ]
    labels_file.write_text("\n".join([f",{HEADER}", *lines]))
    before = read(tmp_path, ImportOptions()).table[list(CHEXPERT_LABELS)]
    found = read(tmp_path, ImportOptions(labels_file=labels_file))
    after = found.table[list(CHEXPERT_LABELS)]
    np.testing.assert_array_equal(after.iloc[:2], np.float32([[1] + [0] * 13] * 2))
    assert after.iloc[2:4].isna().all(axis=None)
    pd.testing.assert_frame_equal(after.iloc[4:], before.iloc[4:])
    assert found.notes[0] == (
        "Labels of the split train are those of visual.csv: 2 of 4 images have a row there, the others' labels are "
        "unknown."
    )


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        (f"Report Impression,{LABELS}\nclear lungs,{ALL_ZERO}\n", InputError, "has no column 'Path' or 'Study'"),
        (f"Path,{LABELS}\nelsewhere/1/2.jpg,{ALL_ZERO}\n", InputError, "speaks of no image here"),
        (f"Path,{LABELS}\n" + f"patient00001/study1/view1_frontal.jpg,{ALL_ZERO}\n" * 2, InputError, "two rows for"),
        (f"Path,{LABELS}\na/b/c.jpg,{ALL_ZERO.replace('0.0', 'yes', 1)}\n", ManifestError, "'No Finding' holds values"),
        ("Path,Mass\na/b/c.jpg,1\n", ManifestError, "no label columns"),
    ],
)
def test_labels_files_that_do_not_fit_are_refused(tmp_path: Path, text: str, error: type[Exception], what: str) -> None:
    (publish(tmp_path) / "labels.csv").write_text(text)
    with pytest.raises(error, match=what):
        read(tmp_path, ImportOptions(labels_file=tmp_path / "labels.csv"))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like CheXpert: it holds none of train"):
        read(tmp_path, ImportOptions())
    (tmp_path / "valid.csv").write_text("image,edema\na.jpg,1\n")
    with pytest.raises(ManifestError, match="neither a column 'Path' nor 'Study'"):
        read(tmp_path, ImportOptions())
    (tmp_path / "valid.csv").write_text(VALID)
    with pytest.raises(ManifestError, match="No image of 1 rows lies below"):
        read(tmp_path, ImportOptions())


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("chexpert", publish(tmp_path))
    assert cohort.group_kind == "patient"
