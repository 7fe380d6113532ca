"""NIH ChestX-ray14 as published, in both editions, against the real rows of the multisite cohort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published_cohorts import assert_written_as_read

from medvlm_probe.cohort.importers.nih_cxr14 import LABEL_MAP, read
from medvlm_probe.cohort.importers.published import BOX_COLUMNS, SKIPPED_COLUMNS, ImportOptions, Published
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, ManifestError

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
V2020 = f"""{HEADER}
00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.14300000000000002,0.14300000000000002
00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.14300000000000002,0.14300000000000002
00000002_000.png,No Finding,0,2,80,M,PA,2500,2048,0.171,0.171
00000003_000.png,Hernia,0,3,74,F,AP,2500,2048,0.168,0.168
00000003_001.png,Mass|Pleural_Thickening,1,3,75,F,AP,2500,2048,0.168,0.168
00000004_000.png,No Finding|Nodule,0,4,411,F,PA,2500,2048,0.168,0.168
00000005_000.png,Pneumona,0,5,50,F,PA,2500,2048,0.168,0.168
00000006_000.png,Infiltration,0,6,50,F,PA,2500,2048,0.168,0.168
"""
BOXES = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000001_000.png,Cardiomegaly,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661
00000003_001.png,Infiltrate,686.101694915254,131.543498411017,185.491525423729,313.491525423729
00000003_001.png,Mass,10,20,30,0
00000099_000.png,Mass,10,20,30,40
"""


def publish(folder: Path, table: str = V2020, name: str = "Data_Entry_2017_v2020.csv") -> Path:
    (folder / name).write_text(table)
    for number, image in enumerate(line.split(",")[0] for line in table.splitlines()[1:]):
        path = folder / f"images_{number % 2 + 1:03d}" / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        if image != "00000006_000.png":
            path.touch()
    return folder


def rows_of(found: Published) -> pd.DataFrame:
    return found.table.set_index(found.table["image"].str.slice(-16, -4))


def test_rows_become_the_columns_of_a_manifest(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    rows = rows_of(found)
    first = rows.loc["00000001_001"]
    assert first["image"] == "images_002/images/00000001_001.png"
    assert first[["patient", "study", "site", "view", "sex"]].tolist() == ["nih-1", "00000001_001", "nih", "PA", "M"]
    assert first["finding_raw"] == "Cardiomegaly|Emphysema"
    assert found.image_root == tmp_path
    assert "split" not in rows
    assert rows["age"].dtype == np.float32
    np.testing.assert_array_equal(rows["age"], np.float32([57, 58, 80, 74, 75, np.nan]))
    assert found.boxes is None


def test_classes_become_labels_and_labels_without_a_class_are_no_columns(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    assert set(CHEXPERT_LABELS) - set(found.labels) == {"enlarged_cardiomediastinum", "fracture", "support_devices"}
    assert not {"enlarged_cardiomediastinum", "fracture", "support_devices"} & set(found.table.columns)
    rows = rows_of(found)
    present = {name: [label for label in found.labels if rows.loc[name, label] == 1] for name in rows.index}
    assert present == {
        "00000001_000": ["cardiomegaly"],
        "00000001_001": ["cardiomegaly"],
        "00000002_000": ["no_finding"],
        "00000003_000": [],
        "00000003_001": ["lung_opacity", "lung_lesion", "pleural_other"],
        "00000004_000": ["lung_opacity", "lung_lesion"],
    }
    values = rows[list(found.labels)]
    assert values.dtypes.eq(np.float32).all()
    assert values.isna().sum().sum() == 1
    assert np.isnan(rows.loc["00000004_000", "no_finding"])


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "images_001/images/00000077_000.png").touch()
    found = read(tmp_path, ImportOptions())
    assert list(found.skipped.columns) == list(SKIPPED_COLUMNS)
    assert list(found.skipped.itertuples(index=False, name=None)) == [
        ("00000005_000.png (Pneumona)", "a class is none of NIH's 15"),
        ("00000006_000.png", "its image file is not there"),
        ("images_001/images/00000005_000.png", "no row speaks of this file"),
        ("images_001/images/00000077_000.png", "no row speaks of this file"),
    ]
    assert found.notes == (
        "Rows without an image file here, left out of 7: 1.",
        "Image files without a row, left out: 2.",
        "Rows with a class that NIH does not have, left out: 1.",
        "Images said to show nothing and a finding at once, no_finding unknown there: 1.",
        "Ages that are above 120 or unreadable, made unknown: 1.",
    )


def test_the_edition_of_2017_with_its_trailing_commas_and_dicom_ages(tmp_path: Path) -> None:
    lines = [f"{line}," for line in V2020.replace(",57,M", ",057Y,M").replace(",58,M", ",006M,M").splitlines()]
    found = read(publish(tmp_path, "\n".join(lines) + "\n", "Data_Entry_2017.csv"), ImportOptions())
    np.testing.assert_array_equal(rows_of(found)["age"][:3], np.float32([57, 0.5, 80]))


def test_splits_are_those_of_the_lists(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "test_list.txt").write_text("00000003_000.png\r\n00000003_001.png")
    split = rows_of(read(tmp_path, ImportOptions()))["split"]
    assert split.fillna("").tolist() == ["train_val", "train_val", "", "test", "test", ""]


def test_boxes_of_the_published_list(tmp_path: Path) -> None:
    (publish(tmp_path) / "BBox_List_2017.csv").write_text(BOXES)
    found = read(tmp_path, ImportOptions())
    assert found.boxes is not None
    assert tuple(found.boxes.columns) == BOX_COLUMNS
    assert found.boxes[["label", "source"]].to_numpy().tolist() == [
        ["cardiomegaly", "NIH BBox_List_2017 (Cardiomegaly)"],
        ["lung_opacity", "NIH BBox_List_2017 (Infiltration)"],
    ]
    first = found.boxes.iloc[0]
    assert first["image"] == "images_001/images/00000001_000.png"
    assert first[["x", "y", "w", "h"]].tolist() == [
        225.084745762712,
        547.019216763771,
        86.7796610169491,
        79.1864406779661,
    ]
    assert "a box of images_001/images/00000003_001.png" in found.skipped["what"].tolist()
    assert found.notes[-1] == "Boxes of images that are not here, left out: 1."


def test_a_box_list_of_another_form_is_refused(tmp_path: Path) -> None:
    (publish(tmp_path) / "BBox_List_2017.csv").write_text("Image Index,x,y,w,h\n1.png,1,2,3,4\n")
    with pytest.raises(ManifestError, match="begins with the columns Image Index, x"):
        read(tmp_path, ImportOptions())


def test_other_layouts_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(V2020)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/00000002_000.jpg").touch()
    assert read(tmp_path, ImportOptions()).table["image"].tolist() == ["images/00000002_000.jpg"]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like NIH ChestX-ray14: it holds no Data_Entry"):
        read(tmp_path, ImportOptions())
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(V2020)
    with pytest.raises(ManifestError, match=r"No image of 7 rows lies below .* such as '00000001_000\.png'"):
        read(tmp_path, ImportOptions())
    with pytest.raises(InputError, match="takes no labels file"):
        read(publish(tmp_path), ImportOptions(labels_file=tmp_path / "x.csv"))


def test_a_table_of_names_and_findings_alone_is_enough(tmp_path: Path) -> None:
    rows = read(publish(tmp_path, "Image Index,Finding Labels\n1.png,Edema\n2.png,\n"), ImportOptions()).table
    assert rows[["patient", "study", "view", "age", "sex"]].isna().all(axis=None)
    np.testing.assert_array_equal(rows["edema"], np.float32([1, np.nan]))


def test_labels_equal_those_of_the_real_multisite_rows(tmp_path: Path, shared_dir: Path) -> None:
    real = pd.read_csv(shared_dir / "real_cxr/multisite/manifest.csv", dtype=str)
    real = real[real["site"] == "nih"]
    lines = [
        f"{row.study}.png,{row.finding_raw},{int(row.study[9:])},{row.patient[4:]},{row.age},{row.sex},{row.view},1,1,1,1"
        for row in real.itertuples()
    ]
    found = read(publish(tmp_path, "\n".join([HEADER, *lines])), ImportOptions()).table
    for name in ("patient", "study", "view", "sex"):
        assert found[name].tolist() == real[name].tolist()
    np.testing.assert_array_equal(found["age"], real["age"].astype(np.float32))
    labels = sorted({label for mapped in LABEL_MAP.values() for label in mapped})
    np.testing.assert_array_equal(found[labels], real[labels].astype(np.float32))
    assert len(found) > 900


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("nih_cxr14", publish(tmp_path))
    assert cohort.group_kind == "patient"
