"""The tables and files of published data sets: what is read, what is refused, which file a row means."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm_probe.cohort.importers.boxes import box_table
from medvlm_probe.cohort.importers.class_labels import labels_of, listed_labels, stated_labels
from medvlm_probe.cohort.importers.image_files import files_below, match_images, name_key
from medvlm_probe.cohort.importers.tables import (
    ages,
    column,
    find_table,
    need_table,
    read_cells,
    read_table,
    sexes,
    views,
)
from medvlm_probe.errors import ManifestError

MAP = {"Normal": ("no_finding",), "Mass": ("lung_lesion", "lung_opacity"), "Tube": ("support_devices",), "Cyst": ()}


def table_of(tmp_path: Path, data: str | bytes, required: tuple[str, ...] = (), name: str = "t.csv") -> pd.DataFrame:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_table(path, required, None)


def refusal(tmp_path: Path, data: str | bytes, required: tuple[str, ...] = (), name: str = "t.csv") -> str:
    with pytest.raises(ManifestError) as caught:
        table_of(tmp_path, data, required, name)
    return str(caught.value)


def test_text_stays_text_and_empty_cells_are_missing(tmp_path: Path) -> None:
    table = table_of(tmp_path, '\ufeffid, age ,report\r\n007,NA,"a, ""b""\r\nc"\r\n\r\n 1e3 ,, \r\n')
    assert list(table.columns) == ["id", "age", "report"]
    assert table["id"].tolist() == ["007", "1e3"]
    assert table["age"].tolist()[0] == "NA"
    assert table["age"].isna().tolist() == [False, True]
    assert table["report"].tolist()[0] == 'a, "b"\r\nc'
    assert table["report"].isna().tolist() == [False, True]


def test_gzip_is_read_and_damaged_gzip_is_named(tmp_path: Path) -> None:
    data = gzip.compress(b"a,b\n1,2\n")
    assert table_of(tmp_path, data, name="t.csv.gz").to_dict("list") == {"a": ["1"], "b": ["2"]}
    assert "no whole gzip file" in refusal(tmp_path, data[:-6], name="t.csv.gz")
    assert "no whole gzip file" in refusal(tmp_path, b"a,b\n1,2\n", name="t.csv.gz")


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("a,b,,,\n1,2\n3,4\n", ["a", "b"], [["1", "2"], ["3", "4"]]),
        ("a,b,,,\n1,2,5\n3,4,6\n", ["a", "b", ""], [["1", "2", "5"], ["3", "4", "6"]]),
        ("a,b\n1,2,\n3,4,\n", ["a", "b", ""], [["1", "2", None], ["3", "4", None]]),
        (",a\n0,1\n1,2\n", ["", "a"], [["0", "1"], ["1", "2"]]),
    ],
)
def test_unnamed_columns(tmp_path: Path, text: str, names: list[str], rows: list[list[str | None]]) -> None:
    (tmp_path / "t.csv").write_text(text)
    found, cells = read_cells(tmp_path / "t.csv")
    assert found == names
    read = [[None if pd.isna(cell) else cell for cell in row] for row in zip(*cells, strict=True)]
    assert read == rows


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("", "holds no rows"),
        ("a,b\n", "holds no rows"),
        ("a,b\n1,2\n3\n5,6\n", "row 2 (blank lines not counted) have more or fewer cells than the 2"),
        ("a,b\n1,2,3\n", "the header names 2 columns, but the first row has 3 cells"),
        ("a,b\n1,\xff\n".encode("latin-1"), "no well-formed CSV in UTF-8"),
        ("a,a\n1,2\n", "column 'a' twice"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, data: str | bytes, what: str) -> None:
    assert what in refusal(tmp_path, data)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, "a,b\n1,2\n", ("a", "Path", "Sex"))
    assert message.startswith("t.csv lacks the columns 'Path', 'Sex' (it has: 'a', 'b').")
    with pytest.raises(ManifestError, match="Cannot read"):
        read_table(tmp_path / "none.csv", ())


@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))] * 2), min_size=1))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([("key", "a", "b"), *(("k", *row) for row in rows)])
    table = table_of(tmp_path_factory.mktemp("any"), buffer.getvalue())
    for name, place in (("a", 0), ("b", 1)):
        assert [None if pd.isna(cell) else cell for cell in table[name]] == [row[place].strip() or None for row in rows]


def test_tables_are_found_in_the_folder_or_one_below(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    for path in ("b/x.csv", "a/x.csv", "a/y.csv.gz"):
        (tmp_path / path).touch()
    assert find_table(tmp_path, "x.csv") == tmp_path / "a/x.csv"
    assert find_table(tmp_path, "z.csv", "y*.csv") == tmp_path / "a/y.csv.gz"
    (tmp_path / "x.csv").touch()
    assert find_table(tmp_path, "x.csv") == tmp_path / "x.csv"
    assert find_table(tmp_path, "z.csv") is None
    with pytest.raises(ManifestError, match=r"does not look like Data: it holds no q\.csv or z\.csv"):
        need_table(tmp_path, "q.csv", "z.csv", title="Data")


def test_ages() -> None:
    texts = pd.Series(["58", "058Y", "006M", "002W", "010D", "0", "120", "121", "411", "-1", "old", None, "58.5"])
    years, n_odd = ages(texts)
    expected = [58, 58, 0.5, 14 / 365.25, 10 / 365.25, 0, 120, *[np.nan] * 5, 58.5]
    np.testing.assert_allclose(years, np.float32(expected), rtol=1e-6)
    assert years.dtype == np.float32
    assert n_odd == 4


def test_sexes_and_views() -> None:
    assert sexes(pd.Series(["F", "male", "O", "Unknown", None])).fillna("?").tolist() == ["F", "M", "other", "?", "?"]
    found = views(pd.Series(["PA", "antERoposterior", "LL", "L", "SWIMMERS", None])).fillna("?").tolist()
    assert found == ["PA", "AP", "LATERAL", "LATERAL", "SWIMMERS", "?"]
    nothing = column(pd.DataFrame({"a": ["1", "2"]}), "b")
    assert sexes(nothing).isna().tolist() == views(nothing).isna().tolist() == [True, True]
    assert ages(nothing)[1] == 0


def test_files_below_are_sorted_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    for path in ("b/2.png", "b/1.PNG", "a.jpg", ".hidden/3.png", "b/.4.png", "b/notes.txt", "b/new\nline.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b", target_is_directory=True)
    assert files_below(tmp_path, (".png", ".jpg")) == ["a.jpg", "b/1.PNG", "b/2.png", "b/new\nline.png"]


@pytest.mark.parametrize(
    ("path", "key"),
    [("a/b.c/x.png", "x"), ("x.DCM", "x"), ("1.2.840.5", "1.2.840.5"), ("a/1.2.840.dicom", "1.2.840"), (".png", "")],
)
def test_name_keys(path: str, key: str) -> None:
    assert name_key(path) == key


def test_rows_find_their_files_wherever_they_lie(tmp_path: Path) -> None:
    names = pd.Series(["1.png", "2.png", "3.png", None, "2.png", "../../etc/4.png"])
    files = ["a/1.jpg", "b/1.png", "b/2.jpg", "c/2.jpeg", "c/4.png", "c/9.png"]
    matched = match_images(names, files, tmp_path, ".png")
    assert matched.image.to_dict() == {0: "b/1.png", 1: "b/2.jpg", 5: "c/4.png"}
    assert list(matched.skipped.itertuples(index=False, name=None)) == [
        ("3.png", "its image file is not there"),
        ("a row without a name", "its image file is not there"),
        ("2.png", "an earlier row has the same image"),
        ("c/9.png", "no row speaks of this file"),
        ("a/1.jpg", "another file is the same image by its name"),
        ("c/2.jpeg", "another file is the same image by its name"),
    ]
    assert [note.split()[-1] for note in matched.notes] == ["2.", "1.", "1.", "2."]
    with pytest.raises(ManifestError, match=r"No image of 6 rows lies below .* such as '1\.png'"):
        match_images(names, ["c/9.png"], tmp_path, ".png")


def test_listed_classes_become_labels() -> None:
    lists = [
        "Normal",
        "Mass",
        "Cyst",
        "",
        "Normal Tube",
        "Normal Mass",
        "open Mass",
        "open",
        "open Normal",
        "open Tube",
    ]
    classes = pd.Series([frozenset(text.split()) for text in lists])
    assert labels_of(MAP) == ("no_finding", "lung_opacity", "lung_lesion", "support_devices")
    values, contradicts = listed_labels(
        classes, MAP, open_classes=frozenset({"open"}), beside_normal=frozenset({"Tube"})
    )
    unknown = np.nan
    np.testing.assert_array_equal(
        values,
        np.float32(
            [
                [1, 0, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 0, 0],
                [unknown] * 4,
                [1, 0, 0, 1],
                [unknown, 1, 1, 0],
                [0, 1, 1, unknown],
                [unknown] * 4,
                [1, 0, 0, 0],
                [unknown, unknown, unknown, 1],
            ]
        ),
    )
    assert np.flatnonzero(contradicts).tolist() == [5]


def test_stated_labels_keep_uncertain_apart_from_not_mentioned() -> None:
    table = pd.DataFrame({"id": ["a", "b", "c"], "Mass": ["1.0", "-1", None], "NORMAL": ["0", None, "0.0"]})
    stated = {"Normal": ("no_finding",), "Mass": ("lung_lesion",)}
    found = stated_labels(table, Path("t.csv"), stated)
    assert list(found.columns) == ["no_finding", "lung_lesion"]
    np.testing.assert_array_equal(found["lung_lesion"], np.float32([1, -1, np.nan]))
    with pytest.raises(ManifestError, match=r"column 'Mass' holds values other than 1, 0, -1 or empty in row 2"):
        stated_labels(table.assign(Mass=["1", "2", "0"]), Path("t.csv"), stated)
    with pytest.raises(ManifestError, match="no label columns"):
        stated_labels(table[["id"]], Path("t.csv"), stated)


def test_boxes_stand_under_each_of_their_labels() -> None:
    xywh = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 9], [1, 1, np.nan, 1], [1, 1, 1, 1]], dtype=np.float64)
    boxes, left_out, notes = box_table(
        pd.Series(["a", "b", "a", "b", None]),
        pd.Series(["Mass", "Air Bubble", "Mass", "Mass", "Mass"]),
        xywh,
        pd.Series(["R1", "R2", "R1", "R1", "R1"]),
        MAP,
    )
    assert boxes.to_dict("list") == {
        "image": ["a", "a", "b"],
        "label": ["lung_lesion", "lung_opacity", "air_bubble"],
        "x": [1, 1, 5],
        "y": [2, 2, 6],
        "w": [3, 3, 7],
        "h": [4, 4, 8],
        "source": ["R1 (Mass)", "R1 (Mass)", "R2 (Air Bubble)"],
    }
    assert left_out["what"].tolist() == ["a box of a", "a box of b"]
    assert notes == ("Boxes of images that are not here, left out: 1.",)
