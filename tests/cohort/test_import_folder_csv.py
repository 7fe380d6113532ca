"""A plain folder with a CSV: which file a row means, which columns are labels, and when the CSV is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort, load_with_notes
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.errors import ManifestError

NAMES = ("a.png", "sub/b.jpg", "sub/c.png", "other/c.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "films"
    for number, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 24), number, dtype=np.uint8)).save(path)
    return root


def test_the_only_csv_of_a_folder(folder: Path) -> None:
    (folder / "labels.csv").write_text(
        "File Name,Patient ID,Gender,Patient Age,Pleural Effusion,Oedema,smoker,scanner,report\n"
        "a.png,007,f,61,1,-1,yes,X1, as before \n"
        "b,008,M,,0.0,,no,X2,\n"
        "c.png,009,F,5,1,1,yes,X3,\n"
        ".\\other\\c.png,009,F,5,1,1,yes,X3,\n"
        "gone.png,010,F,5,1,1,yes,X3,\n"
        "sub/b.jpg,008,M,,1,,no,X2,\n"
    )
    found = load_with_notes(f"generic_folder:{folder}")
    table = found.cohort.table
    rows = table.set_index("image")
    assert list(table["image"]) == sorted(NAMES)
    assert found.cohort.labels == ("pleural_effusion", "edema", "smoker")
    assert found.cohort.card.task == "multi_label"
    assert rows.loc["a.png", ["patient", "sex", "age", "report", "scanner"]].tolist() == [
        "007",
        "F",
        61,
        " as before ",
        "X1",
    ]
    assert rows["pleural_effusion"].fillna(-9).to_dict() == {
        "a.png": 1,
        "other/c.png": 1,
        "sub/b.jpg": 0,
        "sub/c.png": -9,
    }
    assert rows["edema"].fillna(-9).to_dict() == {"a.png": -1, "other/c.png": 1, "sub/b.jpg": -9, "sub/c.png": -9}
    assert rows.loc["sub/c.png"].isna().all()
    assert found.cohort.group_kind == "patient"
    assert dict(zip(found.skipped["what"], found.skipped["reason"], strict=True)) == {
        "c.png": "no image file, or several, of this name",
        "gone.png": "no image file, or several, of this name",
        "sub/b.jpg": "an earlier row is about the same image",
    }
    assert "its column 'File Name': 3 of 4 images" in found.notes[0]
    assert "'Oedema' for edema" in found.notes[1]
    assert load_cohort(str(folder)).fingerprint == found.cohort.fingerprint


def test_a_named_file_anywhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("path,No Finding\nsub/c.png,1\n")
    cohort = load_cohort(f"generic_folder:{folder}", labels_file=tmp_path / "truth.csv")
    assert cohort.labels == ("no_finding",)
    assert cohort.table["no_finding"].fillna(-9).tolist() == [-9, -9, -9, 1]


def test_one_class_an_image(folder: Path) -> None:
    (folder / "classes.csv").write_text("image,label\na.png,Viral Pneumonia\nsub/b.jpg,normal\nsub/c.png,\n")
    cohort = load_cohort(str(folder))
    assert (cohort.labels, cohort.card.task) == (("viral_pneumonia", "normal"), "single_label")
    assert cohort.card.words("viral_pneumonia") == "Viral Pneumonia"
    values = cohort.table[list(cohort.labels)].fillna(-9).to_numpy().tolist()
    assert dict(zip(cohort.table["image"], values, strict=True)) == {
        "a.png": [1, 0],
        "sub/b.jpg": [0, 1],
        "sub/c.png": [-9, -9],
        "other/c.png": [-9, -9],
    }


def test_csv_files_that_speak_of_something_else_are_left_alone(folder: Path) -> None:
    (folder / "prices.csv").write_text("item,price\nfilm,3\n")
    (folder / "latin.csv").write_bytes(b"item\n\xff\n")
    (folder / "boxes.csv").write_text("image,label,x,y,w,h\na.png,edema,1,1,1,1\n")
    found = load_with_notes(f"generic_folder:{folder}")
    assert found.cohort.labels == ()
    assert found.notes == ("Not used: latin.csv, prices.csv. Name the CSV of labels with --labels-file.",)
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text("image,edema\na.png,1\n")
    assert load_cohort(str(folder)).labels == ()
    (folder / "two.csv").unlink()
    assert load_cohort(str(folder)).labels == ("edema",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file,edema\nx.png,1\n", "Not one row of l.csv fits"),
        ("name,edema\na.png,1\n", "names no files"),
        ("image,edema,Oedema\na.png,1,1\n", "'edema' and 'Oedema' both mean 'edema'"),
        ("image,age\na.png,old\n", "no age in years"),
        ("image,sex\na.png,q\n", "other than F, M"),
    ],
)
def test_files_that_do_not_fit(folder: Path, text: str, why: str) -> None:
    file = folder.parent / "l.csv"
    file.write_text(text)
    with pytest.raises(ManifestError, match=why):
        load_with_notes(f"generic_folder:{folder}", ImportOptions(labels_file=file))


def test_class_folders_take_no_labels_file(folder: Path) -> None:
    path = folder / "images/train/x/1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(ManifestError, match="are its labels"):
        load_cohort(str(folder), labels_file=folder / "l.csv")
