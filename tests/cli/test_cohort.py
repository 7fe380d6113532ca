"""`cohort list | show | check | export` from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from .conftest import Run


def test_list_and_show(run: Run) -> None:
    assert {entry["name"] for entry in run("cohort", "list", "--json").json["cohorts"]} >= {"phantom", "generic_folder"}
    assert "phantom" in run("cohort", "list").out
    shown = run("cohort", "show", "phantom")
    assert "not medicine" in shown.out
    assert run("cohort", "show", "phantom", "--json").json["importer"] == "phantom"
    missing = run("cohort", "show", "phantm")
    assert missing.code == 2
    assert "Did you mean phantom" in missing.err


def test_check_finds_copies_and_leaks(run: Run, tmp_path: Path) -> None:
    assert run("cohort", "export", "phantom:sites=reference,n=6", "--out", "files").code == 0
    manifest = pd.read_csv("files/manifest.csv")
    copied = manifest.iloc[[0]].assign(image="copy.png", patient="somebody-else")
    copied["split"] = "calib" if manifest["split"].iloc[0] == "test" else "test"
    shutil.copyfile(tmp_path / "files" / manifest["image"].iloc[0], tmp_path / "files" / "copy.png")
    pd.concat([manifest, copied]).to_csv("files/manifest.csv", index=False)
    done = run("cohort", "check", "files/manifest.csv", "--json")
    assert done.code == 0, done.err
    assert len(done.json["leaks"]) == 1
    assert "split" in done.json["leaks"][0]["across"]
    text = run("cohort", "check", "files/manifest.csv", "--out", "report")
    assert "leak" in text.err
    assert (tmp_path / "report" / "leaks.csv").exists()


def test_check_finds_near_copies(run: Run, tmp_path: Path) -> None:
    assert run("cohort", "export", "phantom:sites=reference,n=6", "--out", "files").code == 0
    manifest = pd.read_csv("files/manifest.csv")
    name = manifest["image"].iloc[0]
    with Image.open(tmp_path / "files" / name) as image:
        image.resize((180, 180)).save(tmp_path / "files" / "copy.jpg", quality=70)
    copied = manifest.iloc[[0]].assign(image="copy.jpg", patient="somebody-else", split="elsewhere")
    pd.concat([manifest, copied]).to_csv("files/manifest.csv", index=False)
    done = run("cohort", "check", "files", "--json", "--out", "report")
    assert done.code == 0, done.err
    assert [row["image"] for row in done.json["near_copies"]] == [name, "copy.jpg"]
    assert done.json["near_leaks"] == [{"near_copy": 1, "n_images": 2, "across": "split, patient"}]
    assert done.json["leaks"] == []
    assert "1 set of near-identical images in several splits" in " ".join(done.json["notes"])
    assert (tmp_path / "report" / "near_copies.csv").exists()
    assert "Near copies, to be looked at" in run("cohort", "check", "files").out


def test_check_of_the_table_alone_opens_no_image(run: Run) -> None:
    done = run("cohort", "check", "phantom:n=40", "--table-only", "--json")
    assert done.json["images_read"] is False
    assert done.json["n_images"] == 200


@pytest.mark.parametrize("image_format", ["png", "dicom"])
def test_export_writes_a_cohort(run: Run, tmp_path: Path, image_format: str) -> None:
    done = run("cohort", "export", "phantom:n=2", "--format", image_format, "--out", "files")
    assert done.code == 0, done.err
    manifest = pd.read_csv(tmp_path / "files" / "manifest.csv")
    assert len(manifest) == 10
    assert all((tmp_path / "files" / name).stat().st_size > 1000 for name in manifest["image"])
    assert (tmp_path / "files" / "boxes.csv").exists()


def test_export_of_files_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("cohort", "export", "phantom:n=2", "--out", "files").code == 0
    done = run("cohort", "export", "files/manifest.csv", "--out", "again")
    assert done.code == 2
    assert "phantom" in done.err


def test_manifest_errors_name_rows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,cardiomegaly\na.png,1\n../b.png,0\n")
    done = run("cohort", "check", "m.csv")
    assert done.code == 2
    assert "row 2" in done.err


def test_check_says_what_a_model_has_seen(run: Run) -> None:
    done = run("cohort", "check", "phantom:n=2", "--table-only", "--model", "phantom-clip", "--json")
    assert done.code == 0, done.err
    assert done.json["seen_in_training"]["n_images"] == 10
    assert "Same source" in done.json["seen_in_training"]["reason"]
    assert "seen_in_training" not in run("cohort", "check", "phantom:n=2", "--table-only", "--json").json
