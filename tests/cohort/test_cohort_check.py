"""What `check_cohort` counts and finds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.check import CohortCheck, check_cohort
from medvlm_probe.cohort.cohort import Cohort

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
        "1 image copied byte for byte in several splits: a leak.",
        "2 images in quarantine: 1 x the file ends early; 1 x no such file.",
        "No image is positive for: fracture.",
    ):
        assert part in notes


def test_without_reading_images(cohort: Cohort) -> None:
    check = check_cohort(cohort, read_images=False)
    assert not check.images_read
    assert len(check.copies) == len(check.leaks) == len(check.quarantine) == len(check.sizes) == 0


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


def test_the_real_sites_have_neither_leaks_nor_bad_files(shared_dir: Path) -> None:
    check = check_cohort(load_cohort(str(shared_dir / "real_cxr/multisite")), workers=2)
    assert (check.n_images, check.n_groups) == (2082, 1548)
    assert check.notes == ()
    nih = check.labels[(check.labels["site"] == "nih") & (check.labels["label"] == "pneumonia")]
    assert rows(nih)[0][2:] == (500, 499, 0, 0)
