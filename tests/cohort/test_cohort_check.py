"""What `check_cohort` counts and finds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.check import CohortCheck, check_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.joining import join_cohorts

ROWS = [
    ("a.png", "p1", "north", "train", "1", "secret words"),
    ("b.png", "p1", "north", "test", "0", "secret words"),
    ("copy_of_a.png", "p2", "south", "test", "-1", ""),
    ("c.png", "p3", "south", "test", "", ""),
    ("copy_of_c.png", "p3", "south", "test", "0", ""),
    ("broken.png", "p4", "south", "train", "1", ""),
    ("missing.png", "", "north", "train", "0", ""),
    ("d.png", "p3", "north", "test", "0", ""),
]


@pytest.fixture
def cohort(tmp_path: Path, rng: np.random.Generator) -> Cohort:
    header = ["image", "patient", "site", "split", "edema", "report"]
    pd.DataFrame(ROWS, columns=header).assign(fracture="0", scanner="X1").to_csv(tmp_path / "manifest.csv", index=False)
    for name, shape in (("a", (24, 30)), ("b", (24, 30)), ("c", (40, 30)), ("d", (24, 30))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    for name in ("a", "c"):
        (tmp_path / f"copy_of_{name}.png").write_bytes((tmp_path / f"{name}.png").read_bytes())
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    return load_cohort(str(tmp_path))


def rows(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    return [tuple(row) for row in frame.itertuples(index=False)]


def test_counts(cohort: Cohort) -> None:
    check = check_cohort(cohort)
    assert (check.n_images, check.n_groups, check.group_kind, check.n_rows_without_group_id) == (8, 5, "patient", 1)
    assert check.absent == ("study", "view", "age", "sex")
    assert check.partly_empty == {"patient": 1, "report": 6}
    assert check.extra == ("scanner",)
    assert rows(check.labels)[:2] == [("edema", "north", 1, 3, 0, 0), ("edema", "south", 1, 1, 1, 1)]
    assert rows(check.sites) == [
        ("north", "test", 2, 2),
        ("north", "train", 2, 2),
        ("south", "test", 3, 2),
        ("south", "train", 1, 1),
    ]


def test_label_counts_add_up_to_all_images(cohort: Cohort) -> None:
    counts = check_cohort(cohort, read_images=False).labels
    totals = counts.groupby("label")[["n_positive", "n_negative", "n_uncertain", "n_unknown"]].sum().sum(axis=1)
    assert (totals == len(cohort)).all()


def test_leaks_copies_and_shared_ids(cohort: Cohort) -> None:
    check = check_cohort(cohort)
    assert rows(check.groups_in_splits) == [("p1", "test train", 2)]
    assert rows(check.ids_at_sites) == [("p3", "north south", 3)]
    assert [row[:2] for row in rows(check.copies)] == [
        (1, "a.png"),
        (1, "copy_of_a.png"),
        (2, "c.png"),
        (2, "copy_of_c.png"),
    ]
    assert rows(check.leaks) == [(1, 2, "split, site, patient")]


@pytest.fixture
def near_cohort(tmp_path: Path) -> Cohort:
    """Three phantoms: a is there again as JPEG, twice with the same bytes, b is mirrored, c stands alone."""
    phantoms = load_cohort("phantom:sites=reference,n=12,size=128")
    _, first = np.unique(phantoms.groups(), return_index=True)
    a, b, c = (phantoms.source.read(int(row)) for row in first[:3])
    a.save(tmp_path / "a.png")
    a.resize((100, 100)).save(tmp_path / "a.jpg", quality=60)
    (tmp_path / "a_again.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    b.save(tmp_path / "b.png")
    ImageOps.mirror(b).save(tmp_path / "b_mirrored.png")
    c.save(tmp_path / "c.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "blank.png")
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(tmp_path / "blank2.png")
    rows = [
        ("a.png", "p1", "north", "train"),
        ("b.png", "p2", "north", "train"),
        ("a.jpg", "p9", "north", "test"),
        ("c.png", "p3", "north", "test"),
        ("b_mirrored.png", "p2", "north", "train"),
        ("a_again.jpg", "p1", "south", "train"),
        ("blank.png", "p4", "north", "train"),
        ("blank2.png", "p5", "north", "test"),
        ("gone.png", "p1", "north", "train"),
    ]
    table = pd.DataFrame(rows, columns=["image", "patient", "site", "split"])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    return load_cohort(str(tmp_path))


def test_near_copies_and_their_leaks(near_cohort: Cohort) -> None:
    check = check_cohort(near_cohort)
    assert rows(check.near_copies[["near_copy", "image", "site", "split", "patient", "change"]]) == [
        (1, "a.png", "north", "train", "p1", "same way up"),
        (1, "a.jpg", "north", "test", "p9", "same way up"),
        (1, "a_again.jpg", "south", "train", "p1", "same way up"),
        (2, "b.png", "north", "train", "p2", "mirrored"),
        (2, "b_mirrored.png", "north", "train", "p2", "mirrored"),
    ]
    assert check.near_copies["correlation"].between(0.975, 1).all()
    assert rows(check.near_leaks) == [(1, 3, "split, site, patient")]
    assert rows(check.copies[["image"]]) == [("a.jpg",), ("a_again.jpg",)]
    assert "1 set of near-identical images in several splits: a leak where they show the same film." in check.notes


def test_quarantine_and_sizes(cohort: Cohort) -> None:
    check = check_cohort(cohort)
    assert [row[:2] for row in rows(check.quarantine)] == [("broken.png", "truncated"), ("missing.png", "missing_file")]
    assert rows(check.sizes) == [("L", 30, 24, 4), ("L", 30, 40, 2)]


def test_notes_are_sentences(cohort: Cohort) -> None:
    notes = " ".join(check_cohort(cohort).notes)
    for part in (
        "1 image without a patient: grouped by study where one is given, else alone.",
        "1 patient in more than one split: a leak.",
        "1 patient id at more than one site, each taken as one patient",
        "1 set of images with the same bytes in several splits: a leak.",
        "2 images in quarantine: 1 x the file ends early; 1 x no such file.",
        "No image is positive for: fracture.",
    ):
        assert part in notes


def test_without_reading_images(cohort: Cohort) -> None:
    check = check_cohort(cohort, read_images=False)
    assert not check.images_read
    assert len(check.copies) == len(check.leaks) == len(check.quarantine) == len(check.sizes) == 0
    assert len(check.near_copies) == len(check.near_leaks) == 0


def test_threads_and_progress(cohort: Cohort) -> None:
    seen: list[int] = []
    many, one = check_cohort(cohort, workers=4, progress=seen.append), check_cohort(cohort)
    assert seen == [8]
    for field in fields(CohortCheck):
        first, second = getattr(many, field.name), getattr(one, field.name)
        assert first.equals(second) if isinstance(first, pd.DataFrame) else first == second


def test_no_report_text_comes_out(cohort: Cohort) -> None:
    check = check_cohort(cohort)
    text = " ".join(str(getattr(check, field.name)) for field in fields(CohortCheck)) + " ".join(check.notes)
    assert "secret" not in text


def test_an_image_alone(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    check = check_cohort(load_cohort(str(tmp_path)))
    assert check.group_kind == "image"
    assert "each image is its own group" in check.notes[0]
    assert rows(check.sites) == [("", "", 1, 1)]


@pytest.mark.slow
def test_the_leaks_of_the_real_radiographs(shared_dir: Path) -> None:
    """Indiana's images stand in both folders, under the same patients; the splits agree but for one fold in five."""
    root, names = shared_dir / "real_cxr", ("iu_xray", "multisite")
    single, several = (load_cohort(str(root / name)) for name in names)
    joined = join_cohorts([single, several])
    table = joined.table.assign(image=np.array(names)[joined.part] + "/" + joined.table["image"])
    source = FileImages(root, tuple(table["image"]))
    check = check_cohort(Cohort("joint", table, joined.labels, "ignore", source, DataCard(name="joint")), workers=2)
    uid = several.table.loc[several.sites() == "indiana", "patient"].str.removeprefix("iu-").astype(int)
    n_calib = int((uid % 5 == 2).sum())
    assert (len(uid), n_calib) == (542, 137)
    across = check.copies.groupby("copy")["image"].agg(lambda images: images.str.split("/").str[0].nunique())
    assert (across == 2).sum() == len(uid)
    assert check.leaks["across"].tolist() == ["split"] * n_calib
    assert check.groups_in_splits["splits"].tolist() == ["calib train"] * n_calib
    assert f"{n_calib} sets of images with the same bytes in several splits: a leak." in check.notes
    # Within Indiana one film stands mirrored beside itself, with its own patient.
    assert check.near_copies["image"].str.contains("CXR1303").all()
    assert set(check.near_copies["change"]) == {"mirrored"}
    assert len(check.near_leaks) == 0
    for cohort in (single, several):
        alone = check_cohort(cohort, workers=2)
        assert len(alone.leaks) == len(alone.near_leaks) == len(alone.groups_in_splits) == 0


def test_the_real_sites_have_neither_leaks_nor_bad_files(shared_dir: Path) -> None:
    check = check_cohort(load_cohort(str(shared_dir / "real_cxr/multisite")), workers=2)
    assert (check.n_images, check.n_groups) == (2082, 1548)
    assert check.notes == ()
    nih = check.labels[(check.labels["site"] == "nih") & (check.labels["label"] == "pneumonia")]
    assert rows(nih)[0][2:] == (500, 499, 0, 0)
