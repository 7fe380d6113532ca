"""The command linear-probe on a small phantom cohort, through the real entry point."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from .conftest import Run

COHORT = ("--cohort", "phantom:n=40,sites=reference+community,prevalence=balanced", "--quiet")
SPLITS = ("--train-from", "calib", "--split", "test")


def test_probe_with_thresholds_from_its_own_training_split(run: Run) -> None:
    done = run("linear-probe", *COHORT, *SPLITS, "--threshold-from", "calib", "--json", "--out", "out")
    assert done.code == 0, done.err
    assert len(done.json["labels"]) == 14
    entry = next(entry for entry in done.json["labels"] if entry["label"] == "support_devices")
    assert entry["auroc"]["value"] > 0.7
    assert entry["threshold_from"] == "calib"
    assert entry["recall"]["value"] is not None
    assert done.json["prior_from"] == "calib"
    probe = done.json["probe"]
    assert probe["kind"] == "linear_probe"
    assert {fit["how"] for fit in probe["labels"]} <= {"cross-validated", "shared", "constant"}
    assert probe["roles"]["n_train"] + probe["roles"]["n_shown"] == 80
    with Path("out/strengths.csv").open() as file:
        assert set(next(csv.reader(file))) == {"label", "strength", "held_out_loss"}
    from medvlm_probe.tuning.heads import read_head

    head = read_head(Path("out"))
    assert head.weight.shape == (14, 128)
    assert len(head.model_fingerprint) == 64


def test_tables_for_people(run: Run) -> None:
    done = run("linear-probe", *COHORT, *SPLITS, "--label", "edema", "--label", "support_devices", "--out", "out")
    assert done.code == 0, done.err
    for words in ("Fits on the training split", "Strength C", "Support devices", "Thresholds are not chosen", "LRAP"):
        assert words in done.out


def test_the_published_recipe(run: Run) -> None:
    done = run("linear-probe", *COHORT, *SPLITS, "--legacy", "--json", "--out", "out")
    assert done.code == 0, done.err
    assert done.json["probe"]["kind"] == "linear_probe_legacy"
    assert done.json["probe"]["roles"]["n_validation"] > 0
    assert Path("out/epochs.csv").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--train-from; nothing is chosen for you. It has calib, test"),
        (("--train-from", "calib", "--split", "calib"), "both shown and used"),
        (("--train-from", "calibb"), "Did you mean calib"),
        (("--train-from", "calib", "--legacy", "--threshold-from", "calib"), "no cross-validation"),
        (("--train-from", "calib", "--threshold-rule", "yuden"), "Did you mean youden"),
    ],
)
def test_wrong_use_is_told(options: tuple[str, ...], words: str, run: Run) -> None:
    done = run("linear-probe", *COHORT, *options)
    assert done.code == 2
    assert words in done.err


@pytest.mark.slow
def test_real_radiographs_split_by_patient(run: Run, shared_dir: Path) -> None:
    """A hundred images of the test rows, which dino-minilm has not seen."""
    import pandas as pd

    folder = shared_dir / "real_cxr" / "iu_xray"
    table = pd.read_csv(folder / "manifest.csv", dtype=str)
    small = table[table["split"] == "test"].head(100).copy()
    small["image"] = [str(Path("images") / Path(name).name) for name in small["image"]]
    Path("images").mkdir()
    for name in small["image"]:
        Path(name).write_bytes((folder / "images" / Path(name).name).read_bytes())
    small.drop(columns="split").to_csv("manifest.csv", index=False)
    parts = run("cohort", "split", "manifest.csv", "--parts", "fit=.5,calib=.2,shown=.3", "--out", "splits.json")
    assert parts.code == 0, parts.err
    done = run(
        "linear-probe", "--cohort", "manifest.csv", "--splits", "splits.json", "--train-from", "fit",
        "--model", f"local:{shared_dir / 'models' / 'dino-minilm'}", "--threshold-from", "calib", "--split", "shown",
        "--json", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["n_images"] in range(28, 33)
    assert done.json["macro"]["auroc"]["value"] > 0.5
