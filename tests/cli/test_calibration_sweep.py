"""The sweep of `calibration` through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from .conftest import Run

COHORT = "phantom:prevalence=balanced,sites=reference,n=40"
QUICK = ("--shots", 3, "--epochs", 2, "--context", 2, "--views", 1, "--draws", 2)
OPTIONS = (
    "--cohort",
    COHORT,
    "--train-from",
    "calib",
    "--label",
    "cardiomegaly",
    "--label",
    "pleural_effusion",
    *QUICK,
    *(part for name in ("temperature", "ce", "ls+smac+as") for part in ("--methods", name)),
)
KEYS = {"method", "labels_used", "accuracy", "ece", "ace", "mce", "ece_kde", "brier", "nll", "overconfidence"}


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "run.json"}


def test_a_sweep_compares_writes_and_goes_on(run: Run, tmp_path: Path) -> None:
    done = run("calibration", *OPTIONS, "--fit-from", "calib", "--out", "out", "--json")
    assert done.code == 0, done.err
    methods = {entry["method"]: entry for entry in done.json["methods"]}
    assert list(methods) == ["zero-shot", "temperature@shots", "temperature@split", "ce", "ls+smac+as"]
    assert all(set(entry) >= KEYS | {"per_label"} for entry in methods.values())
    assert methods["ce"]["labels_used"] == methods["temperature@shots"]["labels_used"] == 2 * 2 * 3
    assert methods["temperature@split"]["labels_used"] > 12
    assert (methods["ce"]["n_parameters"], methods["ce"]["steps"]) == (2 * 128, 2)
    assert [entry["label"] for entry in methods["ce"]["per_label"]] == ["cardiomegaly", "pleural_effusion"]
    assert set(methods["ls+smac+as"]["differences"]) == {"zero-shot", "temperature@split", "temperature@shots", "ce"}
    out = tmp_path / "out"
    assert {"calibration.csv", "differences.csv", "draws.csv", "text_cosine.csv", "methods.svg"} <= set(files(out))
    draws = pd.read_csv(out / "draws.csv")
    ece = draws[(draws["method"] == "ce") & (draws["scope"] == "pooled") & (draws["metric"] == "ece")]
    assert ece["value"].mean() == pytest.approx(methods["ce"]["ece"]["value"])
    costs = {entry["method"]: entry for entry in json.loads((out / "run.json").read_text())["costs"]}
    assert costs["ce"]["seconds"] > 0
    assert costs["ce"]["peak_mib"] > 0

    before = files(out)
    (out / "tuned" / "ce" / "seed-01" / "prompts.json").unlink()
    again = run("calibration", *OPTIONS, "--fit-from", "calib", "--out", "out")
    assert again.code == 0, again.err
    assert files(out) == before
    for words in ("Paired differences to zero-shot", "ECE by label", "Not worse than ce", "read", "not medicine"):
        assert words in again.out


def test_an_ablation_over_shots(run: Run, tmp_path: Path) -> None:
    done = run("calibration", *OPTIONS, "--sweep", "shots=2,3", "--out", "out", "--json")
    assert done.code == 0, done.err
    assert done.json["ablation"] == "shots"
    used = [[entry["labels_used"] for entry in value["methods"]] for value in done.json["values"]]
    assert used == [[0, 8, 8, 8], [0, 12, 12, 12]]
    table = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert sorted(table["shots"].unique()) == [2, 3]
    assert (tmp_path / "out" / "ablation_shots.svg").is_file()
    assert (tmp_path / "out" / "tuned" / "shots-2" / "ce" / "seed-01" / "prompts.json").is_file()


def test_tuned_at_one_site_shown_at_each(run: Run, tmp_path: Path) -> None:
    cohort = "phantom:prevalence=balanced,sites=reference+portable,n=30"
    options = [cohort if part == COHORT else part for part in OPTIONS]
    done = run("calibration", *options, "--train-site", "reference", "--by", "site", "--out", "out", "--json")
    assert done.code == 0, done.err
    sites = [entry["site"] for entry in done.json["sites"]]
    assert sites == ["portable", "reference"]
    assert sum(entry["n_images"] for entry in done.json["sites"]) == done.json["n_images"]
    roles = json.loads((tmp_path / "out" / "run.json").read_text())["roles"]
    assert roles["n_shown"] >= done.json["n_images"]
    wrong = run("calibration", *options, "--train-site", "referenc")
    assert wrong.code == 2
    assert "Did you mean reference" in wrong.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--draws", 2), "Name the split to train on with --train-from"),
        (("--draws", 2, "--train-from", "calib", "--sweep", "shot=2,3"), "Did you mean shots"),
        (("--train-from", "calib", "--sweep", "shots=4"), "two or more whole numbers"),
        (("--train-from", "calib", "--methods", "smac"), "no term that teaches"),
        (("--train-from", "calib"), "start it with --draws"),
        (("--draws", 2, "--method", "platt", "--fit-from", "calib"), "leave --scores, --tuned and --method out"),
    ],
)
def test_what_is_refused(run: Run, options: tuple[Any, ...], says: str) -> None:
    done = run("calibration", "--cohort", COHORT, "--label", "cardiomegaly", *options)
    assert done.code == 2
    assert says in done.err


def test_zs_norm_teaches_nothing_with_two_classes(run: Run) -> None:
    options = ("--cohort", COHORT, "--label", "cardiomegaly", "--train-from", "calib", *QUICK[:-2])
    refused = run("tune", *options, "--loss", "zs-norm+as")
    assert refused.code == 2
    assert "ZS-Norm has no gradient with two classes" in refused.err
    warned = run("tune", *options, "--loss", "ce+zs-norm", "--out", "out")
    assert warned.code == 0, warned.err
    assert "Note: ZS-Norm has no gradient with two classes" in warned.err
