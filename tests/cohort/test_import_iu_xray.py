"""IU-Xray: reports and images in Open-i's layout, in archives and in Kaggle's, and where the labels come from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort, load_with_notes, shipped_cards
from medvlm_probe.cohort.data_cards import read_card
from medvlm_probe.cohort.importers.iu_xray_labels import LABEL_MAP, label_row, labels_of_automatic
from medvlm_probe.cohort.importers.iu_xray_reports import image_key, parse_report, view_of_caption
from medvlm_probe.cohort.importers.published import ImportOptions
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError

BOTH = "Xray Chest PA and Lateral"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def report_xml(
    uid: str,
    images: list[str],
    major: list[str],
    *,
    automatic: tuple[str, ...] = (),
    findings: str | None = "Clear   lungs.",
    impression: str | None = "No acute\n disease.",
    caption: str = BOTH,
) -> str:
    """Return a report file as Open-i writes it, less what is the same in all of them."""
    sections = {"COMPARISON": "None.", "INDICATION": "Cough", "FINDINGS": findings, "IMPRESSION": impression}
    texts = "".join(
        f'<AbstractText Label="{label}"/>' if text is None else f'<AbstractText Label="{label}">{text}</AbstractText>'
        for label, text in sections.items()
    )
    codes = "".join(f"<major>{code}</major>" for code in major) + "".join(
        f"<automatic>{term}</automatic>" for term in automatic
    )
    parents = "".join(
        f'<parentImage id="{image}"><figureId>F{i}</figureId><caption>{caption}</caption><panel type="single">'
        f"<url>/hadoop/storage/radiology/extract/{image}.jpg</url></panel></parentImage>"
        for i, image in enumerate(images, start=1)
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><meta type="rr"/><uId id="CXR{uid}"/><pmcId id="{uid}"/>'
        f'<MedlineCitation Owner="Indiana University"><Article PubModel="Electronic"><Abstract>{texts}</Abstract>'
        f"</Article></MedlineCitation><MeSH>{codes}</MeSH>{parents}</eCitation>\n"
    )


REPORTS = {
    "1": report_xml("1", ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"], ["normal"]),
    "2": report_xml(
        "2",
        ["CXR2_IM-0652-1001"],
        ["Cardiomegaly/borderline", "Thickening/pleura/apex/bilateral", "Thickening/paratracheal"],
        automatic=("atelectases",),
        caption="Portable AP chest",
    ),
    "3": report_xml("3", ["CXR3_IM-1384-1001", "CXR3_IM-9999-1001"], ["No Indexing"], findings=None),
    "4": report_xml("4", [], ["normal"]),
}
PNGS = ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR3_IM-1384-1001", "CXR7_IM-0001-1001")


@pytest.fixture
def openi(tmp_path: Path) -> Path:
    root = tmp_path / "openi"
    for folder in ("ecgen-radiology", "NLMCXR_png"):
        (root / folder).mkdir(parents=True)
    for uid, text in REPORTS.items():
        (root / "ecgen-radiology" / f"{uid}.xml").write_text(text, encoding="utf-8")
    for name in PNGS:
        (root / "NLMCXR_png" / f"{name}.png").write_bytes(png())
    return root


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / "kaggle"
    (root / "images/images_normalized").mkdir(parents=True)
    (root / "indiana_reports.csv").write_text(
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
        '1,normal,normal,Xray Chest PA and Lateral,Cough,None.,"Clear lungs, XXXX.",No acute disease.\n'
        '2,"Opacity/lung/base;Catheters, Indwelling/right",Opacity,Chest,,,,"Tubes\nas before."\n'
    )
    (root / "indiana_projections.csv").write_text(
        "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n1,1_IM-0001-3001.dcm.png,Lateral\n"
        "2,2_IM-0652-1001.dcm.png,Frontal\n2,2_IM-0652-2001.dcm.png,Lateral\n"
    )
    for name in ("1_IM-0001-4001", "1_IM-0001-3001", "2_IM-0652-1001"):
        (root / f"images/images_normalized/{name}.dcm.png").write_bytes(png())
    return root


def test_openi_layout(openi: Path) -> None:
    found = load_with_notes(f"iu_xray:{openi}")
    table = found.cohort.table
    assert table["image"].tolist() == [f"NLMCXR_png/{name}.png" for name in PNGS[:4]]
    assert table["study"].tolist() == ["CXR1", "CXR1", "CXR2", "CXR3"]
    assert table["patient"].tolist() == ["iu-1", "iu-1", "iu-2", "iu-3"]
    assert table["report"].tolist()[1:] == ["Clear lungs. No acute disease."] * 2 + ["No acute disease."]
    assert table["view"].fillna("").tolist() == ["", "", "AP", ""]
    assert found.cohort.group_kind == "patient"
    present = {label for label in CHEXPERT_LABELS if table[label][2] == 1}
    assert present == {"cardiomegaly", "enlarged_cardiomediastinum", "pleural_other"}
    assert table["no_finding"].fillna(-9).tolist() == [1, 1, 0, -9]
    assert table.loc[3, list(CHEXPERT_LABELS)].isna().all()
    assert table["mesh_automatic"].fillna("").tolist() == ["", "", "atelectases", ""]
    assert dict(zip(found.skipped["what"], found.skipped["reason"], strict=True)) == {
        "CXR4": "the report names no image",
        "CXR3_IM-9999-1001": "the report names it, but there is no such image file",
        "NLMCXR_png/CXR7_IM-0001-1001.png": "no report names this image",
    }
    notes = " ".join(found.notes)
    assert "one to one" in notes
    assert "3 of 4 images have no view" in notes
    assert "are 1 of 3 studies" in notes
    assert "In 1 of 2 coded studies a program's term" in notes
    assert found.cohort.source.read(0).size == (24, 24)


def test_kaggle_layout(kaggle: Path) -> None:
    found = load_with_notes(f"iu_xray:{kaggle}")
    table = found.cohort.table
    assert table["view"].tolist() == ["FRONTAL", "LATERAL", "FRONTAL"]
    assert table["study"].tolist() == ["CXR1", "CXR1", "CXR2"]
    assert table["report"].tolist() == ["Clear lungs, XXXX. No acute disease."] * 2 + ["Tubes as before."]
    assert {label for label in CHEXPERT_LABELS if table[label][2] == 1} == {"lung_opacity", "support_devices"}
    assert found.skipped["what"].tolist() == ["2_IM-0652-2001.dcm.png"]
    assert "mesh_automatic" not in table


def test_kaggle_projections_give_openi_its_views(openi: Path, kaggle: Path) -> None:
    (openi / "indiana_projections.csv").write_bytes((kaggle / "indiana_projections.csv").read_bytes())
    assert load_cohort(f"iu_xray:{openi}").table["view"].fillna("").tolist() == ["LATERAL", "FRONTAL", "FRONTAL", ""]


def test_dicom_headers_give_openi_its_views(openi: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    for name, view in (("1_IM-0001-3001", "LL"), ("1_IM-0001-4001", "PA"), ("2_IM-0652-1001", "")):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "2.25.1"
        dataset.ViewPosition = view
        path = openi / "NLMCXR_dcm" / name.split("_")[0] / f"{name}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
    assert load_cohort(f"iu_xray:{openi}").table["view"].fillna("").tolist() == ["LATERAL", "PA", "AP", ""]
    for path in (openi / "NLMCXR_png").iterdir():
        path.unlink()
    (openi / "NLMCXR_png").rmdir()
    alone = load_cohort(f"iu_xray:{openi}")
    assert alone.table["image"][0] == "NLMCXR_dcm/1/1_IM-0001-3001.dcm"
    assert alone.table["view"].tolist() == ["LATERAL", "PA", "AP"]
    assert alone.source.recipe == "dicom/v1"


def test_archives_are_unpacked_on_import_alone(openi: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "NLMCXR_reports.tgz", "w:gz") as archive:
        archive.add(openi / "ecgen-radiology", "ecgen-radiology")
    with tarfile.open(packed / "NLMCXR_png.tgz", "w:gz") as archive:
        for path in sorted((openi / "NLMCXR_png").iterdir()):
            archive.add(path, f"./{path.name}")
    with pytest.raises(InputError, match="cohort import"):
        load_cohort(f"iu_xray:{packed}")
    said: list[str] = []
    options = ImportOptions(unpack_to=tmp_path / "out", say=said.append)
    first = load_with_notes(f"iu_xray:{packed}", options)
    plain = load_cohort(f"iu_xray:{openi}")
    assert first.cohort.table["image"].tolist() == plain.table["image"].tolist()
    pd.testing.assert_frame_equal(first.cohort.table, plain.table)
    assert first.cohort.source.read(0).size == (24, 24)
    assert len(said) == 2
    again = load_with_notes(f"iu_xray:{packed}", options)
    assert len(said) == 2
    assert again.cohort.fingerprint == first.cohort.fingerprint


def test_an_unpacking_that_was_cut_short_goes_on(openi: Path) -> None:
    whole = load_cohort(f"iu_xray:{openi}").table
    with tarfile.open(openi / "NLMCXR_png.tgz", "w:gz") as archive:
        for path in sorted((openi / "NLMCXR_png").iterdir()):
            archive.add(path, path.name)
    (openi / "NLMCXR_png/unpacking.json").write_text("{}")
    (openi / f"NLMCXR_png/{PNGS[1]}.png").unlink()
    with pytest.raises(InputError, match="in part only"):
        load_cohort(f"iu_xray:{openi}")
    load_with_notes(f"iu_xray:{openi}", ImportOptions(unpack_to=openi))
    pd.testing.assert_frame_equal(load_cohort(f"iu_xray:{openi}").table, whole)


def test_the_label_map_stands_in_the_data_card() -> None:
    body = read_card(shipped_cards()["iu_xray"]).body
    rows = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("|")][2:]
    assert {code.strip(): tuple(x.strip() for x in labels.split(",")) for code, labels in rows} == LABEL_MAP
    assert {label for labels in LABEL_MAP.values() for label in labels} == set(CHEXPERT_LABELS)


@pytest.mark.parametrize(
    ("codes", "present"),
    [
        (["normal"], {"no_finding"}),
        (["normal", "Nodule/lung"], {"lung_lesion", "lung_opacity"}),
        (["Scoliosis/thoracic vertebrae"], set()),
        (["Cardiac Shadow/enlarged"], {"enlarged_cardiomediastinum"}),
        (["Cardiac Shadow/obscured"], set()),
        (["cicatrix / lung / PLEURA"], {"pleural_other"}),
        (["Hydropneumothorax/left"], {"pneumothorax", "pleural_effusion"}),
        (["Fractures, Bone/ribs/healed", "No Indexing"], {"fracture"}),
        (["Catheters, Indwelling/right/superior vena cava"], {"support_devices"}),
    ],
)
def test_codes_make_labels(codes: list[str], present: set[str]) -> None:
    row = label_row(codes)
    assert {label for label, value in zip(CHEXPERT_LABELS, row, strict=True) if value == 1} == present
    assert not np.isnan(row).any()


def test_what_was_not_coded_is_unknown() -> None:
    assert np.isnan(label_row(["No Indexing"])).all()
    assert np.isnan(label_row([])).all()
    assert labels_of_automatic(["Edemas", "bilateral pleural effusion", "cabg"]) == {
        "edema",
        "lung_opacity",
        "pleural_effusion",
    }


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("CXR1_1_IM-0001-3001.png", "1_IM-0001-3001"),
        ("1_IM-0001-3001.dcm.png", "1_IM-0001-3001"),
        ("CXR21_IM-0729-1001-0001", "21_IM-0729-1001-0001"),
        ("12_IM-0133-1001.dcm", "12_IM-0133-1001"),
        ("CXR11_1_IM-0001-1001.png", "CXR11_1_IM-0001-1001"),
        ("other.png", "other"),
    ],
)
def test_an_image_is_called_the_same_in_every_layout(name: str, key: str) -> None:
    assert image_key(name) == key


@pytest.mark.parametrize(
    ("caption", "view"),
    [
        ("Portable AP chest", "AP"),
        ("CHEST, PA", "PA"),
        ("Lateral view", "LATERAL"),
        (BOTH, ""),
        ("CHEST 2V FRONTAL/LATERAL", ""),
        ("Chest, XXXX", ""),
    ],
)
def test_a_caption_that_names_one_view(caption: str, view: str) -> None:
    assert view_of_caption(caption) == view


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE e [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c SYSTEM "file:///etc/hostname">]><eCitation><uId id="CXR1"/><MeSH>&c;&b;</MeSH></eCitation>'
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE e SYSTEM "http://127.0.0.1:9/x.dtd"><eCitation><uId id="CXR1"/></eCitation>', "document type"),
        ("<eCitation><uId id='CXR1'/>", "well-formed"),
        ("", "well-formed"),
        ("<eCitation>&undeclared;</eCitation>", "well-formed"),
        ("<eCitation/>", "no study id"),
        ("<eCitation><uId id='../../x'/></eCitation>", "no study id"),
        ("\x00\x01\x02", "well-formed"),
    ],
)
def test_hostile_and_broken_reports_are_left_out(openi: Path, data: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_report(data.encode())
    (openi / "ecgen-radiology" / "9.xml").write_text(data)
    found = load_with_notes(f"iu_xray:{openi}")
    assert len(found.cohort) == 4
    reasons = dict(zip(found.skipped["what"], found.skipped["reason"], strict=True))
    assert why in reasons["9.xml"]


def test_a_report_that_stands_twice_and_one_that_is_too_large(openi: Path) -> None:
    (openi / "ecgen-radiology" / "copy.xml").write_text(REPORTS["2"])
    (openi / "ecgen-radiology" / "huge.xml").write_bytes(b"<a>" + b" " * (5 << 20) + b"</a>")
    reasons = load_with_notes(f"iu_xray:{openi}").skipped.set_index("what")["reason"]
    assert "another file" in reasons["copy.xml"]
    assert "bytes" in reasons["huge.xml"]


def test_folders_that_are_no_iu_xray(tmp_path: Path, openi: Path, kaggle: Path) -> None:
    with pytest.raises(InputError, match="needs a folder: iu_xray:FOLDER"):
        load_cohort("iu_xray")
    with pytest.raises(InputError, match="There is no folder"):
        load_cohort(f"iu_xray:{tmp_path / 'none'}")
    with pytest.raises(InputError, match="is a file; 'iu_xray' reads a folder"):
        load_cohort(f"iu_xray:{kaggle / 'indiana_reports.csv'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no IU-Xray"):
        load_cohort(f"iu_xray:{tmp_path / 'empty'}")
    for path in (openi / "NLMCXR_png").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="names an image that lies there"):
        load_cohort(f"iu_xray:{openi}")
    (kaggle / "indiana_projections.csv").write_text("uid,filename\n1,a.png\n")
    with pytest.raises(InputError, match="lacks the column projection"):
        load_cohort(f"iu_xray:{kaggle}")


CHEXBERT = (
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,No Finding"
)


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("study", ("CXR1", "CXR3")),
        ("uid", ("1", "3.0")),
        ("filename", ("1_IM-0001-4001.dcm.png", "NLMCXR_png/CXR3_IM-1384-1001.png")),
        ("Report Impression", ("no acute disease.", "Clear lungs. No acute disease.")),
    ],
)
def test_labels_from_chexbert(openi: Path, column: str, keys: tuple[str, str]) -> None:
    file = openi.parent / "labeled_reports.csv"
    empty = "," * 12
    file.write_text(f"{column},{CHEXBERT}\n{keys[0]},{empty[:-1]},-1,1\n{keys[1]},0,1.0{empty}\n")
    found = load_with_notes(f"iu_xray:{openi}", ImportOptions(labels_file=file))
    table = found.cohort.table
    assert found.cohort.labels == CHEXPERT_LABELS
    assert f"column '{column}'" in " ".join(found.notes)
    labels = table[list(CHEXPERT_LABELS)].to_numpy()
    first = np.full(14, np.nan)
    first[[0, 13]] = 1, -1
    third = np.full(14, np.nan)
    third[[1, 2]] = 0, 1
    if column == "Report Impression":
        # Every study has that impression, and a match of the impression goes before one of the whole text.
        expected = [first] * 4
    elif column == "filename":
        expected = [np.full(14, np.nan), first, np.full(14, np.nan), third]
    else:
        expected = [first, first, np.full(14, np.nan), third]
    np.testing.assert_array_equal(labels, np.stack(expected))


def test_labels_files_that_do_not_fit(openi: Path) -> None:
    file = openi.parent / "labels.csv"
    for text, why in (
        ("text,Edema\nx,1\n", "none of the columns study"),
        ("study,Oops\nCXR1,1\n", "no label columns"),
        ("study,Edema\nCXR1,2\n", "other than 1, 0, -1 or blank in row 1"),
        ("study,Edema\nCXR900,1\n", "No row of labels.csv fits"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=why):
            load_cohort(f"iu_xray:{openi}", labels_file=file)
    file.write_text("study,Edema,Pneumonia\nCXR1,1,0\nCXR1,0,0\nCXR2,1,\n")
    found = load_with_notes(f"iu_xray:{openi}", ImportOptions(labels_file=file))
    assert found.cohort.labels == ("edema", "pneumonia")
    assert found.cohort.table["edema"].fillna(-9).tolist() == [-9, -9, 1, -9]
    assert "1 stand there with contradicting labels" in " ".join(found.notes)


@pytest.mark.parametrize("layout", ["openi", "kaggle"])
def test_the_real_samples_agree_with_the_real_manifest(shared_dir: Path, layout: str) -> None:
    folder = shared_dir / "real_cxr/iu_xray"
    found = load_with_notes(f"iu_xray:{folder / f'{layout}_layout_sample'}")
    table = found.cohort.table
    assert len(table) == 60
    assert table["study"].nunique() == 30
    known = load_cohort(str(folder)).table.drop_duplicates("study").set_index("study", drop=False).loc[table["study"]]
    columns = ["patient", "study", "site", "report", *CHEXPERT_LABELS]
    pd.testing.assert_frame_equal(table[columns], known[columns].reset_index(drop=True), check_dtype=False)
    assert found.skipped["what"].tolist() == (["CXR156", "CXR180"] if layout == "openi" else [])
    assert found.cohort.source.read(7).mode == "L"


def test_the_label_map_agrees_with_the_codes_of_542_real_studies(shared_dir: Path) -> None:
    rows = pd.read_csv(shared_dir / "real_cxr/multisite/manifest.csv", dtype=str, keep_default_na=False)
    rows = rows[rows["site"] == "indiana"]
    ours = np.stack([label_row(codes.split(";")) for codes in rows["finding_raw"]])
    theirs = rows[list(CHEXPERT_LABELS)].to_numpy(dtype=np.float32)
    differing = {label: rows["finding_raw"][ours[:, i] != theirs[:, i]] for i, label in enumerate(CHEXPERT_LABELS)}
    # That table keeps headings without their qualifiers, which these two labels ask for.
    assert differing.pop("enlarged_cardiomediastinum").str.contains("Cardiac Shadow|Mediastinum").all()
    assert differing.pop("pleural_other").str.contains("Thickening|Cicatrix").all()
    # Blood and air in the pleural space: an effusion by our table, as water and air are by both.
    assert differing.pop("pleural_effusion").str.contains("Hemopneumothorax").tolist() == [True]
    assert {label: len(rows) for label, rows in differing.items() if len(rows)} == {}
