"""RSNA18: one of three classes an image, split by patient, or by rows as the published results were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published_cohorts import assert_written_as_read
from sklearn.model_selection import train_test_split

from medvlm_probe.cohort.catalog import load_cohort, load_with_notes
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.importers.rsna18 import COPIES, LABEL_MAP, read
from medvlm_probe.cohort.importers.rsna_pneumonia import NO_PATIENTS
from medvlm_probe.cohort.write_manifest import ManifestPlan, write_manifest
from medvlm_probe.errors import InputError, ManifestError

CLASSES = list(LABEL_MAP)


def name(number: int) -> str:
    return f"{number:08x}-f7da-4932-84a8-9dac4ec19bc0"


def publish(folder: Path, n: int = 60) -> Path:
    """Write the table of classes with one row a box, so one to three for an image with opacity, and empty files."""
    rows = [(name(i), CLASSES[i % 3]) for i in range(n) for _ in range(1 + (i // 3) % 3 if i % 3 == 0 else 1)]
    pd.DataFrame(rows, columns=["patientId", "class"]).to_csv(folder / "stage_2_detailed_class_info.csv", index=False)
    for place, names in (
        ("stage_2_train_images", [name(i) for i in range(n)]),
        ("stage_2_test_images", [name(i) for i in range(n, n + 5)]),
    ):
        (folder / place).mkdir()
        for file in names:
            (folder / place / f"{file}.dcm").write_bytes(file.encode())
    return folder


def map_to_patients(folder: Path, n: int = 60) -> None:
    entries = [{"subset_img_id": name(i), "img_id": f"{i // 4:08d}_{i:03d}.png"} for i in range(n)]
    (folder / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(entries))


def test_one_row_an_image_with_one_class(tmp_path: Path) -> None:
    found = read(publish(tmp_path), ImportOptions())
    table = found.table
    assert found.labels == ("lung_opacity", "no_lung_opacity_not_normal", "normal")
    assert table["image"].tolist() == [f"stage_2_train_images/{name(i)}.dcm" for i in range(60)]
    np.testing.assert_array_equal(table[list(found.labels)].to_numpy().argmax(axis=1), np.arange(60) % 3)
    np.testing.assert_array_equal(table[list(found.labels)].sum(axis=1), 1)
    assert pd.crosstab(table["split"], table["normal"]).to_numpy().tolist() == [[8, 4], [32, 16]]
    assert found.notes == ("Images of the challenge's test, without classes, left out: 5.", NO_PATIENTS)


def test_patients_stay_whole(tmp_path: Path) -> None:
    map_to_patients(publish(tmp_path))
    table = read(tmp_path, ImportOptions()).table
    assert table["patient"].nunique() == 15
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert table["split"].value_counts().to_dict() == {"train": 48, "test": 12}


@pytest.mark.parametrize("with_patients", [False, True])
def test_the_published_split_is_one_of_rows_and_leaks(tmp_path: Path, with_patients: bool) -> None:
    publish(tmp_path)
    if with_patients:
        map_to_patients(tmp_path)
    table = read(tmp_path, ImportOptions(legacy_split=True, unpack_to=tmp_path)).table
    stated = pd.read_csv(tmp_path / "stage_2_detailed_class_info.csv")
    parts = dict(zip(("train", "test"), train_test_split(stated, test_size=0.2, random_state=42), strict=True))
    for split, rows in parts.items():
        mine = table[table["split"] == split]["image"].map(lambda image: Path(image).stem)
        assert sorted(mine) == sorted(set(rows["patientId"]))
    both = set(parts["train"]["patientId"]) & set(parts["test"]["patientId"])
    copies = table[table["image"].str.startswith(f"{COPIES}/")]
    assert len(both) > 3
    assert {Path(image).stem for image in copies["image"]} == both
    assert set(copies["split"]) == {"train"}
    assert all((tmp_path / row.image).read_bytes() == Path(row.image).stem.encode() for row in table.itertuples())
    assert (table.groupby("study")["split"].nunique() == 2).sum() == len(both)


def test_copies_of_the_legacy_split_are_no_images_of_the_data_set(tmp_path: Path) -> None:
    before = read(publish(tmp_path), ImportOptions())
    read(tmp_path, ImportOptions(legacy_split=True, unpack_to=tmp_path))
    after = read(tmp_path, ImportOptions())
    pd.testing.assert_frame_equal(after.table, before.table)
    assert after.notes == before.notes


def test_the_legacy_split_is_written_as_a_manifest(tmp_path: Path) -> None:
    publish(tmp_path)
    loaded = load_with_notes(f"rsna18:{tmp_path}", ImportOptions(legacy_split=True, unpack_to=tmp_path))
    write_manifest([loaded], ManifestPlan(tmp_path / "manifest.csv"), lambda done, n: None)
    cohort = load_cohort(str(tmp_path / "manifest.csv"))
    assert cohort.group_kind == "study"
    assert cohort.card.split == {
        "train": "as in published results; it leaks",
        "test": "as in published results; it leaks",
    }
    assert len(cohort) == len(loaded.cohort) > 60
    with pytest.raises(InputError, match=r"--legacy-split --out .*manifest\.csv"):
        load_with_notes(f"rsna18:{tmp_path}", ImportOptions(legacy_split=True))
    with pytest.raises(InputError, match="second copies must lie in"):
        load_with_notes(f"rsna18:{tmp_path}", ImportOptions(legacy_split=True, unpack_to=tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows + f"{name(1)},Normal\n",
        lambda rows: rows.replace(f"{name(1)},No Lung Opacity / Not Normal", f"{name(1)},Fine"),
        lambda rows: rows.replace(f"{name(1)},No Lung Opacity / Not Normal", f"{name(1)},"),
    ],
)
def test_images_without_one_known_class_are_left_out(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = publish(tmp_path) / "stage_2_detailed_class_info.csv"
    path.write_text(change(path.read_text()))
    found = read(tmp_path, ImportOptions())
    assert len(found.table) == 59
    assert found.skipped["what"].tolist() == [name(1), f"stage_2_train_images/{name(1)}.dcm"]
    assert "Images with contradicting or unknown classes, left out: 1." in found.notes


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not look like the RSNA Pneumonia Detection Challenge"):
        read(tmp_path, ImportOptions())
    with pytest.raises(InputError, match="takes no labels file"):
        read(publish(tmp_path), ImportOptions(labels_file=tmp_path / "x.csv"))


def test_the_manifest_written_from_it_is_the_same_cohort(tmp_path: Path) -> None:
    cohort = assert_written_as_read("rsna18", publish(tmp_path))
    assert cohort.group_kind == "image"
    assert cohort.source.recipe == "dicom/v1"
    assert cohort.card.words("no_lung_opacity_not_normal") == "no lung opacity, not normal"
    assert cohort.card.prompt_template == "A chest X-ray image of {} patient"
