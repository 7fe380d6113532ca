"""`tune` through the real entry point, and what other commands make of its prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from .conftest import Run

COHORT = "phantom:prevalence=balanced,sites=reference,n=40"
LABELS = ("cardiomegaly", "pleural_effusion")
QUICK = ("--shots", 3, "--epochs", 3, "--context", 4, "--views", 1, "--seeds", 2)
OPTIONS = (
    "--cohort",
    COHORT,
    "--train-from",
    "calib",
    *QUICK,
    *(part for name in LABELS for part in ("--label", name)),
)


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "run.json"}


def test_tunes_writes_and_goes_on(run: Run, tmp_path: Path) -> None:
    done = run("tune", *OPTIONS, "--out", "out", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["labels"] == list(LABELS)
    assert found["labels_used"] == 2 * 2 * 3
    assert found["views"] == "1 clean view"
    assert [draw["prompts"] for draw in found["draws"]] == ["seed-00", "seed-01"]
    assert found["draws"][0]["steps"] == 3
    few_shot = [json.loads((tmp_path / "out" / "few_shot" / f"seed-0{k}.json").read_text()) for k in (0, 1)]
    assert few_shot[0] != few_shot[1]
    counts = pd.Series([image["class"] for part in few_shot[0]["train"] for image in part["images"]]).value_counts()
    assert counts.to_dict() == {"absent": 6, "present": 6}
    losses = pd.read_csv(tmp_path / "out" / "losses.csv")
    assert losses.groupby("prompts").size().to_dict() == {"seed-00": 3, "seed-01": 3}

    before = files(tmp_path / "out")
    (tmp_path / "out" / "seed-01" / "prompts.json").unlink()
    again = run("tune", *OPTIONS, "--out", "out", "--json")
    assert again.out == done.out
    assert files(tmp_path / "out") == before
    other = run("tune", *OPTIONS, "--loss", "ce", "--out", "out")
    assert other.code == 2
    assert "Give another folder to --out" in other.err


def test_tuned_prompts_serve_zero_shot_with_the_numbers_that_tune_showed(run: Run, tmp_path: Path) -> None:
    tuned = run("tune", *OPTIONS, "--out", "out", "--json").json
    common = ("zero-shot", "--cohort", COHORT, "--score", "probability", "--prompts", "tuned:out/seed-01")
    done = run(*common, "--split", "test", "--json", "--out", "zs")
    assert done.code == 0, done.err
    assert [entry["label"] for entry in done.json["labels"]] == list(LABELS)
    assert done.json["macro"]["auroc"]["value"] == pytest.approx(tuned["draws"][1]["macro_auroc"]["value"])
    assert "taught the prompts" not in done.err
    facts = json.loads((tmp_path / "zs" / "run.json").read_text())["prompts"]
    assert (facts["loss"], facts["images_that_taught"]) == ("ls+smac+as", 0)
    # On the split that they were tuned on, the command says so.
    on_training = run(*common, "--split", "calib", "--out", "zs2")
    assert on_training.code == 0, on_training.err
    assert "of these images taught the prompts" in on_training.err


def test_the_table_for_people(run: Run) -> None:
    done = run("tune", *OPTIONS, "--out", "out", "--logit-scale", 85.2)
    assert done.code == 0, done.err
    for words in ("Zero-shot, untuned", "seed-01", "Mean over draws", "ECE if calibrated", "12 labels", "not medicine"):
        assert words in done.out


def test_a_recipe_sets_what_is_not_given(run: Run, tmp_path: Path) -> None:
    options = ("--cohort", COHORT, "--train-from", "calib", "--label", LABELS[0], "--views", 1, "--epochs", 2)
    done = run("tune", *options, "--recipe", "biomedclip-covidx", "--shots", 2, "--out", "out", "--json")
    assert done.code == 0, done.err
    assert (done.json["loss"], done.json["shots"]) == ("ls(alpha=0.1)+smac(alpha=0.1)+3.0*as", 2)
    about: dict[str, Any] = json.loads((tmp_path / "out" / "seed-00" / "prompts.json").read_text())["about"]
    assert about["parameters"] == 16 * 128
    assert about["schedule"]["epochs"] == 2
    unknown = run("tune", *options, "--recipe", "biomedclip-covid")
    assert unknown.code == 2
    assert "Did you mean biomedclip-covidx" in unknown.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--loss", "smac+as"), "no term that teaches"),
        (("--train-from", "calib", "--prompts", "bare"), "no texts for absence"),
        (("--train-from", "calib", "--context", 99), "expected 1 to 64"),
        (("--train-from", "calib", "--logit-scale", 0), "--logit-scale 0"),
        ((), "Name the split to train on with --train-from"),
    ],
)
def test_what_cannot_be_tuned_says_why(run: Run, options: tuple[Any, ...], says: str) -> None:
    done = run("tune", "--cohort", COHORT, "--label", "cardiomegaly", "--shots", 2, "--views", 1, *options)
    assert done.code == 2
    assert says in done.err


def test_one_label_an_image(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for row in range(24):
        bright = row % 2
        level = 90 + 80 * bright
        Image.fromarray(rng.integers(level - 40, level + 40, (64, 64), dtype=np.uint8)).save(
            tmp_path / f"{row:02d}.png"
        )
        rows.append((f"{row:02d}.png", f"p{row}", "train" if row < 12 else "test", 1 - bright, bright))
    table = pd.DataFrame(rows, columns=["image", "patient", "split", "dark", "bright"])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "DATA_CARD.md").write_text(
        "---\nname: greys\ntask: single_label\nmanifest: manifest.csv\nlabels:\n  dark: dark\n  bright: bright\n---\n"
    )
    options = ("--cohort", "manifest.csv", "--train-from", "train", "--shots", 4, "--validation-shots", 1)
    done = run("tune", *options, "--views", 2, "--epochs", 6, "--context", 2, "--rate", 0.1, "--out", "out", "--json")
    assert done.code == 0, done.err
    (draw,) = done.json["draws"]
    assert done.json["labels_used"] == 2 * 5
    assert 1 <= draw["kept_epoch"] <= 6
    assert draw["accuracy"]["n"] == 12
    served = run("zero-shot", "--cohort", "manifest.csv", "--split", "test", "--prompts", "tuned:out/seed-00", "--json")
    assert served.code == 0, served.err
    assert served.json["score_kind"] == "probability"
