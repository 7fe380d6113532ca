"""Label files of other programs are matched to a cohort's images, or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.label_files import read_label_file
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError

CHEXBERT_COLUMNS = [name.replace("_", " ").title() for name in CHEXPERT_LABELS]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    rows = [
        "image,patient,study,report,cardiomegaly,edema",
        "a/CXR1_1.png,iu-1,CXR1,Heart is big.,1,0",
        "a/CXR1_2.png,iu-1,CXR1,Heart is big.,1,0",
        'a/CXR20_1.png,iu-20,CXR20,"Mild edema,  stable.",0,1',
    ]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return load_cohort(str(path))


def write(tmp_path: Path, text: str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def column(tmp_path: Path, cohort: Cohort, text: str, label: str = "cardiomegaly") -> list[float | None]:
    found = read_label_file(write(tmp_path, text), cohort).table[label]
    return [None if np.isnan(value) else float(value) for value in found]


@pytest.mark.parametrize(
    "text",
    [
        "image,Cardiomegaly\na/CXR1_1.png,1\na/CXR1_2.png,1\na/CXR20_1.png,-1\n",
        "filename,Cardiomegaly\nCXR1_1.jpg,1\nCXR1_2.jpg,1\nCXR20_1.jpg,-1\n",
        "Path,Cardiomegaly\nother\\CXR20_1.dcm,-1\nother\\CXR1_2.dcm,1\nother\\CXR1_1.dcm,1\n",
        "study,Cardiomegaly\nCXR1,1\nCXR20,-1\n",
        "uid,Cardiomegaly\n20,-1\n1,1.0\n",
        "study_id,Cardiomegaly\n0020,-1\ns1,1\n",
        "patient,Cardiomegaly\niu-20,-1\niu-1,1\n",
        'Report Impression,Cardiomegaly\nheart is BIG.,1\n"Mild edema, stable.",-1\n',
    ],
    ids=["image", "file name", "path", "study", "uid", "study number", "patient", "text"],
)
def test_rows_are_matched(tmp_path: Path, cohort: Cohort, text: str) -> None:
    assert column(tmp_path, cohort, text) == [1, 1, -1]


def test_chexbert_is_read_as_it_comes(tmp_path: Path, cohort: Cohort) -> None:
    """Its header has the text first, and its order of labels is its own."""
    order = [*CHEXBERT_COLUMNS[1:], CHEXBERT_COLUMNS[0]]
    lines = ["Report Impression," + ",".join(order)]
    lines += ["Heart is big.," + ",".join(["", "1.0", *[""] * 12])]
    lines += ['"Mild edema,  stable.",' + ",".join(["", "0.0", "", "", "-1.0", *[""] * 9])]
    found = read_label_file(write(tmp_path, "\n".join(lines) + "\n"), cohort)
    assert list(found.table.columns) == list(CHEXPERT_LABELS)
    assert found.table["cardiomegaly"].tolist() == [1, 1, 0]
    assert found.table["edema"].tolist()[2] == -1
    assert found.table["no_finding"].isna().all()
    assert found.matched.all()


def test_without_a_key_rows_are_taken_in_order_and_it_says_so(tmp_path: Path, cohort: Cohort) -> None:
    by_image = read_label_file(write(tmp_path, "Cardiomegaly\n1\n0\n-1\n"), cohort)
    assert by_image.table["cardiomegaly"].tolist() == [1, 0, -1]
    assert "order of the images" in by_image.note
    by_study = read_label_file(write(tmp_path, "Cardiomegaly\n1\n-1\n"), cohort)
    assert by_study.table["cardiomegaly"].tolist() == [1, 1, -1]
    assert "order of the studies" in by_study.note


def test_what_the_file_lacks_is_unknown(tmp_path: Path, cohort: Cohort) -> None:
    found = read_label_file(write(tmp_path, "study,Edema\nCXR20,1\nCXR999,1\n"), cohort)
    assert found.matched.tolist() == [False, False, True]
    assert found.table["edema"].isna().tolist() == [True, True, False]
    assert "1 of 3 images" in found.note


def test_contradicting_rows_are_unknown_and_counted(tmp_path: Path, cohort: Cohort) -> None:
    found = read_label_file(write(tmp_path, "study,Edema\nCXR20,1\nCXR20,0\nCXR1,0\nCXR1,0\n"), cohort)
    assert found.table["edema"].isna().tolist() == [False, False, True]
    assert "1 stand there with contradicting labels" in found.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,Cardiomegalie\nCXR1,1\n", r"columns are unknown \(study, Cardiomegalie\)"),
        ("study,Edema\nCXR1,2\n", "holds values other than 1, 0, -1 or blank in row 1"),
        ("study,Edema\nCXR5,1\n", "No row of labels.csv fits"),
        ("accession,Edema\n1,1\n2,0\n3,0\n4,1\n", "4 rows and no column that names them.*Unknown columns: accession"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, cohort: Cohort, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_label_file(write(tmp_path, text), cohort)


def test_equal_file_names_in_different_folders_are_not_confused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("image,edema\np1/view1.png,1\np2/view1.png,0\n")
    cohort = load_cohort(str(path))
    assert column(tmp_path, cohort, "image,Edema\np2/view1.png,0\np1/view1.png,1\n", "edema") == [1, 0]
    with pytest.raises(InputError, match="No row"):
        read_label_file(write(tmp_path, "image,Edema\nview1.png,1\n"), cohort)


def test_real_label_files_fit_the_real_cohort(shared_dir: Path) -> None:
    folder = shared_dir / "real_cxr" / "iu_xray"
    cohort = load_cohort(str(folder / "manifest.csv"))
    rules, lstm = (read_label_file(folder / f"labels_{name}.csv", cohort) for name in ("rules", "lstm"))
    assert rules.matched.all()
    assert lstm.matched.sum() == 2655
