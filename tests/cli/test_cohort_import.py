"""`cohort import` from the command line: names and folders, joins, tables, JSON and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import PUBLISHED

from .conftest import Run

REPORT = (
    '<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{uid}"/><MedlineCitation><Article><Abstract>'
    '<AbstractText Label="FINDINGS">Large heart.</AbstractText><AbstractText Label="IMPRESSION">Same.</AbstractText>'
    "</Abstract></Article></MedlineCitation><MeSH><major>{code}</major></MeSH>"
    '<parentImage id="CXR{uid}_IM-0001-1001"><caption>PA</caption></parentImage></eCitation>'
)


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)).save(path)


@pytest.fixture
def openi(tmp_path: Path) -> Path:
    root = tmp_path / "openi"
    (root / "ecgen-radiology").mkdir(parents=True)
    for uid, code in (("1", "normal"), ("2", "Cardiomegaly"), ("3", "No Indexing")):
        (root / "ecgen-radiology" / f"{uid}.xml").write_text(REPORT.replace("{uid}", uid).replace("{code}", code))
        image(root / "NLMCXR_png" / f"CXR{uid}_IM-0001-1001.png", int(uid))
    (root / "ecgen-radiology" / "4.xml").write_text("<broken")
    return root


@pytest.mark.parametrize("named", [("iu_xray", "openi"), ("iu_xray:openi",)])
def test_a_published_data_set(run: Run, openi: Path, named: tuple[str, ...]) -> None:
    done = run("cohort", "import", *named, "--out", "openi/manifest.csv")
    assert done.code == 0, done.err
    assert "3 images, 3 patients" in done.out
    assert "Cardiomegaly" in done.out
    assert "not well-formed XML" in done.out
    assert "one to one" in done.err
    assert "Use it: --cohort openi/manifest.csv" in done.err
    assert {path.name for path in openi.iterdir() if path.is_file()} == {"manifest.csv", "skipped.csv", "DATA_CARD.md"}
    checked = run("cohort", "check", "openi/manifest.csv", "--json")
    assert checked.code == 0, checked.err
    assert checked.json["n_images"] == 3
    assert checked.json["quarantine"] == []


def test_json_is_one_object(run: Run, openi: Path) -> None:
    done = run("cohort", "import", "iu_xray", openi, "--out", openi / "m.parquet", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["n_images"], found["n_groups"], found["group_kind"]) == (3, 3, "patient")
    labels = {row["label"]: (row["n_positive"], row["n_negative"], row["n_unknown"]) for row in found["labels"]}
    assert labels["cardiomegaly"] == (1, 1, 1)
    assert labels["no_finding"] == (1, 1, 1)
    assert [row["n"] for row in found["skipped"]] == [1]
    assert len(found["notes"]) >= 2
    assert [Path(path).name for path in found["paths"]] == ["m.parquet", "skipped.csv", "DATA_CARD.md"]


def test_two_cohorts_are_joined_with_copies(run: Run, openi: Path, tmp_path: Path) -> None:
    image(tmp_path / "clinic" / "a.png", 7)
    (tmp_path / "clinic" / "manifest.csv").write_text("image,patient,edema\na.png,iu-1,1\n")
    refused = run("cohort", "import", "iu_xray", openi, "clinic", "--out", "both/m.csv")
    assert refused.code == 2
    assert f"--out {tmp_path / 'm.csv'}" in refused.err
    done = run(
        "cohort",
        "import",
        "iu_xray",
        openi,
        "clinic",
        "--out",
        "both/m.csv",
        "--copy-images",
        "--site",
        "indiana",
        "--site",
        "-",
    )
    assert done.code == 0, done.err
    table = pd.read_csv("both/m.csv")
    assert table["image"].tolist()[-1] == "clinic/a.png"
    assert table["site"].tolist() == ["indiana"] * 3 + ["clinic"]
    assert table["patient"].tolist() == ["indiana-iu-1", "iu-2", "iu-3", "clinic-iu-1"]
    assert "1 patient id occurred at different sites" in done.err
    again = run("cohort", "import", "iu_xray", openi, "clinic", "--out", "both/m.csv", "--copy-images")
    assert again.code == 2
    assert "--overwrite" in again.err


def test_labels_from_elsewhere(run: Run, openi: Path, tmp_path: Path) -> None:
    (tmp_path / "chexbert.csv").write_text("study,Edema,Pneumonia\nCXR1,1,0\nCXR2,-1,\n")
    done = run(
        "cohort", "import", "iu_xray", openi, "--labels-file", "chexbert.csv", "--out", openi / "m.csv", "--json"
    )
    assert done.code == 0, done.err
    assert {row["label"]: row["n_uncertain"] for row in done.json["labels"]} == {"edema": 1, "pneumonia": 0}
    assert any("column 'study'" in note for note in done.json["notes"])
    assert "labels come from `chexbert.csv`" in (openi / "DATA_CARD.md").read_text()


def test_a_dicom_folder(run: Run, tmp_path: Path) -> None:
    assert run("cohort", "export", "phantom:n=2,sites=reference", "--format", "dicom", "--out", "files").code == 0
    done = run("cohort", "import", "dicom", "files", "--pseudonym-key", "key", "--out", "files/new.csv")
    assert done.code == 0, done.err
    assert "Modalities" not in done.err
    assert "A secret key was made" in done.err
    table = pd.read_csv("files/new.csv")
    assert len(table) == 2
    assert table["patient"].str.startswith("patient-").all()
    assert (tmp_path / "key").read_text().strip() not in done.out + done.err + (tmp_path / "files/new.csv").read_text()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_data_set_asks_for_its_folder(run: Run, name: str) -> None:
    from medvlm_probe.cohort.catalog import shipped_cards

    if name not in shipped_cards():
        pytest.skip(f"the card of {name} is not there")
    done = run("cohort", "import", name, "--out", "m.csv")
    assert done.code == 2
    assert f"'{name}' needs a folder: {name}:FOLDER" in done.err
    gone = run("cohort", "import", name, "gone", "--out", "m.csv")
    assert gone.code == 2
    assert "There is no folder 'gone'" in gone.err


def test_wrong_use(run: Run, openi: Path) -> None:
    for arguments, why in (
        (("iu_xray", openi), "--out"),
        (("iu_xray", openi, "--out", "m.txt"), "ending in .csv or .parquet"),
        (("iu_xrai", openi, "--out", "m.csv"), "Did you mean iu_xray"),
        (("phantom:n=2", "--out", "m.csv"), "cohort export"),
        (("--out", "m.csv"), "SPEC"),
    ):
        done = run("cohort", "import", *arguments)
        assert done.code == 2
        assert why in done.err


def test_the_real_samples(run: Run, shared_dir: Path) -> None:
    real = shared_dir / "real_cxr/iu_xray"
    for layout in ("openi", "kaggle"):
        out = f"{layout}/manifest.csv"
        done = run("cohort", "import", "iu_xray", real / f"{layout}_layout_sample", "--out", out, "--copy-images")
        assert done.code == 0, done.err
        assert "60 images, 30 patients" in done.out
        checked = run("cohort", "check", out, "--json")
        assert checked.json["n_groups"] == 30
        assert checked.json["quarantine"] == []
    joined = run("cohort", "import", "openi", "kaggle", "--site", "a", "--site", "b", "--out", "both.csv", "--json")
    assert joined.code == 0, joined.err
    assert (joined.json["n_images"], joined.json["n_groups"]) == (120, 60)
