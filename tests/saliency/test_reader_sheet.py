"""Sheets for a reader: which images are drawn, and what a filled file may and may not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.errors import InputError, ManifestError, UnknownNameError
from medvlm_probe.saliency.reader_sheet import (
    COLUMNS,
    draw_images,
    empty_annotations,
    pseudonyms,
    read_annotations,
)

LABELS = ("cardiomegaly", "pneumothorax", "lung_opacity")
ASKED = {"img-a": ["edema"], "img-b": ["edema", "fracture"]}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return load_cohort("phantom:n=60")


def test_a_stratified_draw_is_even_over_labels_and_takes_their_positives(cohort: Cohort) -> None:
    drawn = draw_images(cohort, LABELS, 9, stratify=True, seed=3)
    asked = [item.labels[0] for item in drawn]
    targets = cohort.targets(LABELS)
    available = {label: int((targets[:, at] == 1).sum()) for at, label in enumerate(LABELS)}
    assert sorted(asked.count(label) for label in LABELS) == sorted(min(3, available[label]) for label in LABELS)
    assert len({item.row for item in drawn}) == len(drawn) == 9
    assert all(targets[item.row, LABELS.index(item.labels[0])] == 1 for item in drawn)
    assert drawn == draw_images(cohort, LABELS, 9, stratify=True, seed=3)
    assert drawn != draw_images(cohort, LABELS, 9, stratify=True, seed=4)


def test_a_patient_comes_twice_only_when_all_others_have_come(cohort: Cohort) -> None:
    drawn = draw_images(cohort, LABELS, len(cohort), stratify=False, seed=0)
    groups = cohort.groups()[[item.row for item in drawn]]
    n_groups = len(np.unique(groups))
    assert n_groups < len(cohort)
    assert len(np.unique(groups[:n_groups])) == n_groups
    assert all(item.labels == LABELS for item in drawn)


def test_too_many_images_give_all_there_are_and_none_is_refused(cohort: Cohort) -> None:
    positives = int((cohort.targets(["pneumothorax"]) == 1).sum())
    assert len(draw_images(cohort, ["pneumothorax"], 1000, stratify=True, seed=0)) == positives
    without = cohort.select(cohort.targets(["pneumothorax"])[:, 0] == 0)
    with pytest.raises(InputError, match="No image of cohort"):
        draw_images(without, ["pneumothorax"], 5, stratify=True, seed=0)


def test_pseudonyms_are_short_differ_and_are_no_numbers() -> None:
    keys = ["12345678" + "0" * 56, "12345678" + "1" * 56, "ab" * 32, "ab" * 32]
    names = pseudonyms(keys)
    assert names == ["img-123456780000", "img-123456781111", "img-abababababab", "img-abababababab"]
    assert pseudonyms(keys[1:3]) == ["img-12345678", "img-abababab"]


def filled(path: Path, *lines: str, separator: str = ",") -> Path:
    path.write_text("\n".join([separator.join(COLUMNS), *lines]) + "\n", encoding="utf-8-sig")
    return path


def test_the_empty_file_reads_back_as_not_answered(cohort: Cohort, tmp_path: Path) -> None:
    drawn = draw_images(cohort, LABELS, 4, stratify=True, seed=0)
    names = {item.row: f"img-{item.row}" for item in drawn}
    table = empty_annotations(drawn, names)
    assert list(table.columns) == list(COLUMNS)
    table.to_csv(tmp_path / "a.csv", index=False)
    found = read_annotations(tmp_path / "a.csv", {names[item.row]: item.labels for item in drawn})
    assert len(found.boxes) == 0
    assert found.answers["present"].tolist() == [None] * 4


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_answers_and_boxes_are_read_as_spreadsheets_write_them(tmp_path: Path, separator: str) -> None:
    lines = [
        separator.join(("img-a", "edema", "1", "4", "10", "20", "30.5", "40")),
        separator.join(("img-a", "edema", "", "", "50", "60", "5", "5")),
        separator.join(("img-b", "edema", "0", "5", "", "", "", "")),
        separator.join(("img-b", "fracture", "yes", "", "", "", "", "")),
    ]
    found = read_annotations(filled(tmp_path / "a.csv", *lines, separator=separator), ASKED)
    assert found.boxes[["x", "y", "w", "h"]].to_numpy().tolist() == [[10, 20, 30.5, 40], [50, 60, 5, 5]]
    assert found.answers["present"].tolist() == [True, False, True]
    assert found.answers["n_boxes"].tolist() == [2, 0, 0]
    assert found.answers["confidence"].tolist()[:2] == [4, 5]
    assert found.count("edema") == {
        "n_asked": 2, "n_present": 1, "n_absent": 1, "n_present_without_box": 0, "n_not_answered": 0,
    }  # fmt: skip
    assert found.count("fracture")["n_present_without_box"] == 1


def test_a_decimal_comma_is_a_decimal_point(tmp_path: Path) -> None:
    found = read_annotations(filled(tmp_path / "a.csv", "img-a;edema;1;;1,5;2;3;4", separator=";"), ASKED)
    assert found.boxes["x"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("img-a,edema,maybe,,,,,", "row 1: present is 'maybe', expected 1 or 0"),
        ("img-a,edema,1,,10,20,,", "row 1: a box needs all of x, y, w, h"),
        ("img-a,edema,1,,10,20,0,5", "row 1: a box of 0 x 5 pixels"),
        ("img-a,edema,0,,10,20,5,5", "row 1: a box on a finding marked as absent"),
        ("img-a,edema,1,high,,,,", "row 1: could not convert string to float"),
        ("img-a,edema,1,,,,,\nimg-a,edema,0,,,,,", "row 2: edema of img-a is marked both present and absent"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_row(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        read_annotations(filled(tmp_path / "a.csv", line), ASKED)


def test_unknown_images_labels_columns_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown image 'img-c'"):
        read_annotations(filled(tmp_path / "a.csv", "img-c,edema,,,,,,"), ASKED)
    with pytest.raises(UnknownNameError, match="label of image img-a 'fracture'"):
        read_annotations(filled(tmp_path / "a.csv", "img-a,fracture,,,,,,"), ASKED)
    (tmp_path / "b.csv").write_text("image,label\nimg-a,edema\n")
    with pytest.raises(ManifestError, match="lacks the column present"):
        read_annotations(tmp_path / "b.csv", ASKED)
    with pytest.raises(InputError, match="no annotation file"):
        read_annotations(tmp_path / "c.csv", ASKED)
