"""A folder of DICOM files: what reaches the manifest, what never does, and what is left out."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medvlm_probe.cohort.catalog import Loaded, load_cohort, load_with_notes
from medvlm_probe.cohort.importers.dicom_folder import READ_FOR_PSEUDONYMS, WRITTEN
from medvlm_probe.cohort.importers.dicom_headers import age_of, code, maker, sex_of, spacing_of, view_of
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.errors import InputError

SECRETS = ("Doe^Jane", "19500214", "St. Elsewhere", "Dr^Who", "ACC-77", "call her husband", "555-0199")


def write(path: Path, **fields: Any) -> Path:
    """Write a 16 x 20 radiograph with everything in its header that must not get out; None leaves a field out."""
    given: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": f"2.25.{zlib.crc32(path.as_posix().encode())}",
        "StudyInstanceUID": "2.25.10",
        "PatientID": "MRN-0042",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19500214",
        "InstitutionName": "St. Elsewhere",
        "ReferringPhysicianName": "Dr^Who",
        "AccessionNumber": "ACC-77",
        "PatientComments": "call her husband",
        "PatientTelephoneNumbers": "555-0199",
        "StudyDate": "20200101",
        "Modality": "DX",
        "ViewPosition": "PA",
        "PatientAge": "062Y",
        "PatientSex": "F",
        "BodyPartExamined": "CHEST",
        "Manufacturer": "SIEMENS",
        "BurnedInAnnotation": "NO",
        "ImagerPixelSpacing": [0.2, 0.25],
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": 16,
        "Columns": 20,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": "2048",
        "WindowWidth": "4096",
    } | fields
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = given["SOPClassUID"]
    dataset.file_meta.MediaStorageSOPInstanceUID = given["SOPInstanceUID"]
    for name, value in given.items():
        if value is not None:
            setattr(dataset, name, value)
    if given["Rows"]:
        dataset.PixelData = np.arange(16 * 20, dtype="<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def load(folder: Path, **options: Any) -> Loaded:
    return load_with_notes(f"dicom:{folder}", ImportOptions(pseudonym_key=folder.parent / "key", **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "Export 7"
    write(root / "PT1/ST1/IM000001")
    write(root / "PT1/ST2/IM000001", StudyInstanceUID="2.25.11", ViewPosition="LL", BurnedInAnnotation="YES")
    write(
        root / "b.dcm",
        PatientID="other",
        StudyInstanceUID="2.25.12",
        PatientAge="097Y",
        PatientSex="O",
        BurnedInAnnotation=None,
        ImagerPixelSpacing=None,
        PixelSpacing=[0.1, 0.1],
        Manufacturer="Acme Medical, Inc.",
    )
    return root


def test_what_reaches_the_manifest(folder: Path) -> None:
    found = load(folder)
    table = found.cohort.table
    assert found.cohort.name == "export_7"
    assert table["image"].tolist() == ["PT1/ST1/IM000001", "PT1/ST2/IM000001", "b.dcm"]
    assert table["patient"].nunique() == 2
    assert table["patient"][0] == table["patient"][1]
    assert table["study"].nunique() == 3
    assert table["patient"].str.fullmatch(r"patient-[0-9a-f]{16}").all()
    assert table["study"].str.fullmatch(r"study-[0-9a-f]{16}").all()
    assert table["view"].tolist() == ["PA", "LATERAL", "PA"]
    assert table["age"].tolist() == [62, 62, 90]
    assert table["sex"].tolist() == ["F", "F", "other"]
    assert table["burned_in"].tolist() == ["NO", "YES", "not stated"]
    assert table["pixel_spacing"].tolist() == ["0.2x0.25", "0.2x0.25", "0.1x0.1"]
    assert table["manufacturer"].tolist() == ["SIEMENS", "SIEMENS", "Acme Medical, Inc."]
    assert table.loc[0, ["modality", "body_part", "photometric", "bits_stored", "rows", "columns"]].tolist() == [
        "DX",
        "CHEST",
        "MONOCHROME2",
        "12",
        "16",
        "20",
    ]
    notes = " ".join(found.notes)
    assert "1 images carry text in their pixels" in notes
    assert "1 images do not state" in notes
    assert "may name people" in notes
    assert found.cohort.source.read(0).size == (20, 16)


def test_nothing_else_of_the_header_gets_out(folder: Path) -> None:
    found = load(folder)
    key = (folder.parent / "key").read_text().strip()
    written = found.cohort.table.to_csv() + found.skipped.to_csv() + " ".join(found.notes) + found.cohort.card.body
    for secret in (*SECRETS, "MRN-0042", "2.25.", "20200101", key):
        assert secret not in written
    read = {*READ_FOR_PSEUDONYMS, *WRITTEN}
    assert not {name for name in read if "Name" in name or "Date" in name or "Comment" in name}


def test_the_same_key_gives_the_same_pseudonyms_and_another_gives_others(folder: Path) -> None:
    first, again = load(folder), load(folder)
    assert first.cohort.table.equals(again.cohort.table)
    other = load_with_notes(f"dicom:{folder}", ImportOptions(pseudonym_key=folder.parent / "key2"))
    assert not set(first.cohort.table["patient"]) & set(other.cohort.table["patient"])
    assert any("A secret key was made" in note for note in other.notes)
    assert not any("A secret key was made" in note for note in again.notes)


def test_the_default_key_lies_in_the_users_data(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "home"))
    from medvlm_probe.cohort.pseudonyms import default_key_path

    assert len(load_cohort(f"dicom:{folder}")) == 3
    assert default_key_path().is_file()
    assert folder not in default_key_path().parents


def test_a_key_beside_the_data_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must not lie with the data"):
        load_with_notes(f"dicom:{folder}", ImportOptions(pseudonym_key=folder / "sub" / "key"))
    with pytest.raises(InputError, match="must not lie with the data"):
        load(folder, unpack_to=tmp_path)
    assert not (tmp_path / "key").exists()


def test_what_is_left_out(folder: Path) -> None:
    write(folder / "report", Rows=None, Columns=None)
    write(folder / "film", NumberOfFrames=3)
    write(folder / "DICOMDIR")
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "cut.dcm").write_bytes((folder / "b.dcm").read_bytes()[:200])
    (folder / "empty").write_bytes(b"")
    (folder / "preamble").write_bytes(bytes(128) + b"DICM")
    (folder / "no_meta").write_bytes((folder / "b.dcm").read_bytes()[132:])
    (folder / ".hidden").write_bytes((folder / "b.dcm").read_bytes())
    (folder / "new\nline.dcm").write_bytes((folder / "b.dcm").read_bytes())
    os.symlink("/dev/zero", folder / "endless")
    os.mkfifo(folder / "pipe")
    os.symlink(write(folder.parent / "elsewhere"), folder / "linked")
    os.symlink(folder / "gone", folder / "broken")
    (folder / os.fsdecode(b"caf\xe9.dcm")).write_bytes((folder / "b.dcm").read_bytes())
    found = load(folder)
    assert len(found.cohort) == 3
    left_out = dict(zip(found.skipped["what"], found.skipped["reason"], strict=True))
    assert set(left_out) == {
        *("report", "film", "DICOMDIR", "notes.txt", "cut.dcm", "empty", "preamble", "no_meta", "endless", "pipe"),
        *("linked", "broken", "new\\nline.dcm", "caf\\udce9.dcm"),
    }
    assert "leaves the cohort's folder" in left_out["linked"]
    assert "without an image" in left_out["report"]
    assert "without an image" in left_out["DICOMDIR"]
    assert "several frames" in left_out["film"]
    assert "control characters" in left_out["new\\nline.dcm"]
    assert "not UTF-8" in left_out["caf\\udce9.dcm"]
    assert "no bytes" in left_out["empty"]
    assert not any(secret in found.skipped.to_csv() for secret in SECRETS)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_hostile_values_do_not_pass(tmp_path: Path) -> None:
    root = tmp_path / "export"
    write(
        root / "a",
        PatientAge="Doe",
        PatientSex="female Doe",
        Manufacturer="<script>Doe</script>",
        BodyPartExamined="CHEST Doe, Jane; born 1950",
        ViewPosition="=cmd()",
        Modality="D\\X",
        BurnedInAnnotation="MAYBE",
        ImagerPixelSpacing=None,
        PixelSpacing=None,
        PatientID="  ",
    )
    write(root / "b", PatientID="=HYPERLINK()", Manufacturer="x" * 300, PatientAge="099Y")
    table = load(root).cohort.table
    assert table.loc[0].drop(["image", "study"]).dropna().to_dict() == {
        "photometric": "MONOCHROME2",
        "bits_stored": "12",
        "rows": "16",
        "columns": "20",
        "burned_in": "not stated",
    }
    assert table["age"].fillna(-9).tolist() == [-9, 90]
    assert "manufacturer" not in table
    assert table["patient"].fillna("").str.fullmatch("|patient-[0-9a-f]{16}").all()


def test_notes_on_ids_copies_and_modalities(folder: Path) -> None:
    (folder / "copy").write_bytes((folder / "b.dcm").read_bytes())
    write(folder / "ct", Modality="CT", PatientID=None)
    notes = " ".join(load(folder).notes)
    assert "1 files repeat another one's instance UID" in notes
    assert "Modalities other than plain radiographs: CT 1" in notes
    assert "1 images have no patient id" in notes
    for path in folder.rglob("*"):
        if path.is_file():
            write(path, PatientID="ANONYMOUS", StudyInstanceUID=f"2.25.{len(str(path))}")
    assert "same patient id, perhaps a placeholder" in " ".join(load(folder).notes)


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="No files lie in"):
        load(tmp_path / "none")
    (tmp_path / "none" / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"No DICOM image lies in .* \(1\)"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match="takes no labels file"):
        load(tmp_path / "none", labels_file=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("value", "age"),
    [
        ("062Y", 62),
        ("62", 62),
        ("006M", 0.5),
        ("091Y", 90),
        ("90", 90),
        ("120Y", 90),
        ("999Y", None),
        ("", None),
        ("62 years", None),
    ],
)
def test_ages(value: str, age: float | None) -> None:
    assert age_of(value) == age


def test_values_by_their_form() -> None:
    assert [view_of(value) for value in ("pa ", "LL", "lat", "LLD", None, "P/A")] == [
        "PA",
        "LATERAL",
        "LATERAL",
        "LLD",
        "",
        "",
    ]
    assert [sex_of(value) for value in ("m", "F", "O", "X", None)] == ["M", "F", "other", None, None]
    assert [code(value) for value in ("CHEST", "a b_c", "x" * 17, "é", "=A")] == ["CHEST", "A B_C", None, None, None]
    assert maker("  GE   Healthcare ") == "GE Healthcare"
    assert spacing_of(None, [0.1, 0.2]) == "0.1x0.2"
    assert [spacing_of(value) for value in ([0, 1], [1], "x", [1e9, 1])] == [None] * 4


def test_the_real_dicom_files(shared_dir: Path, tmp_path: Path) -> None:
    found = load_with_notes(f"dicom:{shared_dir / 'real_cxr/dicom'}", ImportOptions(pseudonym_key=tmp_path / "key"))
    table = found.cohort.table
    assert table[["view", "age", "sex", "modality", "rows"]].drop_duplicates().values.tolist() == [
        ["PA", 62, "M", "CR", "1024"]
    ]
    assert sorted(table["photometric"]) == ["MONOCHROME1", "MONOCHROME2"]
    assert table["patient"].nunique() == 1
    assert found.cohort.source.recipe == "dicom/v1"
    assert found.cohort.source.read(0).size == (1024, 1024)
