"""Manifests: what is read, what is refused, and that row numbers are right."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest import MANIFEST_COLUMNS, Manifest, apply_policy, read_manifest
from medvlm_probe.errors import ManifestError


def manifest_of(tmp_path: Path, text: str | bytes, labels: tuple[str, ...] | None = None) -> Manifest:
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(path, labels)


def refusal(tmp_path: Path, text: str | bytes, labels: tuple[str, ...] | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, text, labels)
    return str(caught.value)


def test_only_image_is_required_and_the_rest_is_reported_absent(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "image\na.png\nb.png\n")
    assert manifest.table["image"].tolist() == ["a.png", "b.png"]
    assert manifest.labels == ()
    assert manifest.absent == MANIFEST_COLUMNS[1:]
    assert list(manifest.table.columns) == ["image"]


def test_text_stays_text(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "image,patient,study,site\n001.png,007,1e3,NA\n2.png,,TRUE,null\n")
    assert manifest.table["patient"].tolist()[0] == "007"
    assert manifest.table["patient"].isna().tolist() == [False, True]
    assert manifest.table["study"].tolist() == ["1e3", "TRUE"]
    assert manifest.table["site"].tolist() == ["NA", "null"]
    assert manifest.table["image"].tolist() == ["001.png", "2.png"]


def test_byte_order_mark_crlf_and_quoted_reports(tmp_path: Path) -> None:
    text = '\ufeffimage,report,edema\r\na.png,"Line one,\r\nline ""two""",1\r\n"b.png",,0\r\n'
    manifest = manifest_of(tmp_path, text.encode())
    assert manifest.table["report"][0] == 'Line one,\r\nline "two"'
    assert manifest.table["report"].isna().tolist() == [False, True]
    assert manifest.table["edema"].tolist() == [1.0, 0.0]


def test_label_columns_are_told_from_other_columns(tmp_path: Path) -> None:
    text = (
        "image,Pleural Effusion,covid19,width,finding_raw,empty,Edema,license\n"
        "a.png,1.0,1,224,normal,,,CC BY\nb.png,-1,,320,mass,,,CC BY\nc.png,,0,320,mass,,,CC0\n"
    )
    manifest = manifest_of(tmp_path, text)
    assert manifest.labels == ("pleural_effusion", "covid19", "edema")
    assert manifest.extra == ("width", "finding_raw", "empty", "license")
    np.testing.assert_array_equal(manifest.table["pleural_effusion"], np.float32([1, -1, np.nan]))
    assert manifest.table["edema"].isna().all()
    assert manifest.table["pleural_effusion"].dtype == np.float32
    assert manifest.table["width"].tolist() == ["224", "320", "320"]


def test_labels_of_the_card_decide(tmp_path: Path) -> None:
    text = "image,mass,frontal,edema\na.png,1,1,0\n"
    manifest = manifest_of(tmp_path, text, labels=("edema", "mass"))
    assert manifest.labels == ("edema", "mass")
    assert manifest.extra == ("frontal",)
    assert "lacks the label columns nodule" in refusal(tmp_path, text, labels=("mass", "nodule"))


def test_ages_and_sexes(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "image,age,sex\na,45,f\nb,0.5,Other\nc, ,M\nd,120,O\n")
    np.testing.assert_array_equal(manifest.table["age"], np.float32([45, 0.5, np.nan, 120]))
    assert manifest.table["sex"].tolist() == ["F", "other", "M", "other"]


@pytest.mark.parametrize("cell", ["411", "-1", "058Y", "nan", "inf", "forty"])
def test_bad_ages_are_refused(tmp_path: Path, cell: str) -> None:
    message = refusal(tmp_path, f"image,age\na.png,30\nb.png,{cell}\n")
    assert "'age'" in message
    assert "row 2." in message


def test_bad_cells_give_five_row_numbers_and_what_to_do(tmp_path: Path) -> None:
    rows = "".join(f"i{i}.png,{'maybe' if i % 3 == 0 else '1'},{'X' if i == 4 else 'F'}\n" for i in range(30))
    message = refusal(tmp_path, "image,edema,sex\n" + rows)
    first, second = message.splitlines()
    assert first == (
        "manifest.csv: Column 'sex' holds values other than F, M, other or empty in row 5. Correct these cells."
    )
    assert second == (
        "Also: column 'edema' holds values other than 1, 0, -1 or empty in rows 1, 4, 7, 10, 13 and 5 more."
    )


def test_a_known_label_with_other_values_is_an_error_not_an_extra_column(tmp_path: Path) -> None:
    assert "'fracture'" in refusal(tmp_path, "image,Fracture\na.png,2\n")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("/etc/passwd", "absolute paths"),
        ("~/x.png", "absolute paths"),
        ("../x.png", "'..'"),
        ("a/../x.png", "'..'"),
        ("a/..", "'..'"),
        ("a\\b.png", "backslashes"),
        ("C:/x.png", "drive letters"),
        ("a:b.png", "drive letters"),
        ("https://example.org/x.png", "web addresses"),
        ("file:x.png", "web addresses"),
        ("a\0b.png", "control characters"),
        ("good.png", "repeats an earlier row's image"),
        ("./good.png", "repeats an earlier row's image"),
        (".//good.png", "repeats an earlier row's image"),
    ],
)
def test_image_paths_that_no_manifest_may_hold(tmp_path: Path, path: str, what: str) -> None:
    message = refusal(tmp_path, f'image,site\ngood.png,a\n"{path}",a\n').splitlines()[0]
    assert what in message
    assert "in row 2." in message


@pytest.mark.parametrize("path", ["a..b.png", "..hidden/x.png", "a b.png", "ü/ß.png", "x,y.png", ".x", "a/b:c.png"])
def test_image_paths_that_are_fine(tmp_path: Path, path: str) -> None:
    assert manifest_of(tmp_path, f'image\n"{path}"\n').table["image"].tolist() == [path]


def test_dots_and_doubled_slashes_in_paths_are_tidied(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "image\n./a/x.png\na//y.png\na/./z.png\n")
    assert manifest.table["image"].tolist() == ["a/x.png", "a/y.png", "a/z.png"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "is empty"),
        (b"\nimage\na.png\n", "begins with a blank line"),
        (b"image\n", "no rows"),
        (b"path,edema\na.png,1\n", "no column 'image' (it has: path, edema)"),
        (b"image;edema\na.png;1\n", "not separated by commas"),
        (b"image,Edema,edema\na.png,1,1\n", "columns 'Edema' and 'edema' are both 'edema'"),
        (b",image\n0,a.png\n", "index=False"),
        (b"image,report\na.png,\xff\n", "not UTF-8 text (line 2)"),
        (b"\xff\xfei\x00m\x00", "not UTF-8 text"),
        (b'image,report\na.png,"open\nb.png,x\n', "opened and never closed"),
        (b"image,site\na.png,x\nb.png\nc.png,x\nd.png,x,y\n", "rows 2, 4 (blank lines not counted)"),
    ],
)
def test_files_that_cannot_be_read_as_a_table(tmp_path: Path, text: bytes, what: str) -> None:
    assert what in refusal(tmp_path, text)


def test_row_numbers_count_rows_not_lines(tmp_path: Path) -> None:
    text = 'image,report,edema\na.png,"one\ntwo\nthree",1\n\nb.png,,9\n'
    assert "in row 2." in refusal(tmp_path, text)


def test_no_report_text_in_any_message(tmp_path: Path) -> None:
    secret = "Mr Miller fell from a horse"
    for text in (
        f"image,report\na.png,{secret},more\n",
        f'image,report\na.png,"{secret}\n',
        f"image,edema,report\na.png,{secret},x\n",
        f"image,report\n/a.png,{secret}\n",
    ):
        assert "Miller" not in refusal(tmp_path, text)


def test_wrong_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="There is no manifest file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match=r"must end in \.csv or \.parquet"):
        read_manifest(tmp_path / "table.xlsx")
    (tmp_path / "bad.parquet").write_bytes(b"image\na.png\n")
    with pytest.raises(ManifestError, match="no readable Parquet"):
        read_manifest(tmp_path / "bad.parquet")


def test_parquet_gives_the_same_table_as_csv(tmp_path: Path, rng: np.random.Generator) -> None:
    n = 40
    frame = pd.DataFrame(
        {
            "image": [f"i{i}.png" for i in range(n)],
            "patient": pd.Series(rng.integers(0, 9, n)).astype(str).str.zfill(3),
            "site": pd.Categorical(rng.choice(["north", "south"], n)),
            "age": rng.integers(1, 90, n).astype(float),
            "Edema": rng.choice([1.0, 0.0, -1.0, np.nan], n),
            "fracture": rng.integers(0, 2, n),
            "mass": rng.integers(0, 2, n).astype(bool),
            "width": rng.integers(200, 400, n),
        }
    )
    frame.loc[3, "age"] = np.nan
    frame.to_parquet(tmp_path / "m.parquet")
    frame.assign(mass=frame["mass"].astype(int)).to_csv(tmp_path / "m.csv", index=False)
    from_parquet, from_csv = read_manifest(tmp_path / "m.parquet"), read_manifest(tmp_path / "m.csv")
    assert from_parquet.labels == from_csv.labels == ("edema", "fracture", "mass")
    pd.testing.assert_frame_equal(from_parquet.table, from_csv.table)


def test_parquet_with_nested_columns_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"image": ["a.png"], "boxes": [[1, 2]]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="column 'boxes' has type list"):
        read_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize(("policy", "expected"), [("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0)])
def test_uncertainty_policies(policy: str, expected: float) -> None:
    values = np.float32([[1, 0], [-1, np.nan]])
    out = apply_policy(values, policy)  # type: ignore[arg-type]
    np.testing.assert_array_equal(out, np.float32([[1, 0], [expected, np.nan]]))
    assert out.dtype == np.float32


cells = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells, st.sampled_from(["1", "0", "-1", ""])), min_size=1, max_size=12))
def test_reports_and_labels_come_back_as_the_csv_module_writes_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(["image", "report", "patient", "edema"])
    writer.writerows([f"i{i}.png", report, patient, label] for i, (report, patient, label) in enumerate(rows))
    manifest = manifest_of(tmp_path_factory.mktemp("m"), buffer.getvalue().encode())
    assert manifest.table["report"].fillna("").tolist() == [report for report, _, _ in rows]
    expected = [float(label) if label else np.nan for _, _, label in rows]
    np.testing.assert_array_equal(manifest.table["edema"], np.float32(expected))


def test_the_real_manifests(shared_dir: Path) -> None:
    for name, n_rows, extra in (
        ("iu_xray", 3038, ()),
        ("multisite", 2082, ("rsna_class", "finding_raw", "width", "height", "license")),
    ):
        path = shared_dir / "real_cxr" / name / "manifest.csv"
        manifest = read_manifest(path)
        plain = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert len(manifest.table) == n_rows
        assert manifest.extra == extra
        assert set(CHEXPERT_LABELS) <= set(manifest.labels)
        for column in plain.columns:
            ours = manifest.table[column]
            if column in manifest.labels or column == "age":
                expected = pd.to_numeric(plain[column], errors="coerce").to_numpy(np.float32)
                np.testing.assert_array_equal(ours.to_numpy(), expected)
            else:
                assert ours.fillna("").tolist() == plain[column].tolist()
