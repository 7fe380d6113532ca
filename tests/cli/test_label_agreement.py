"""`label-agreement` through the real entry point: sources, scores, corrections, files, and wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import Run

LABELS = ["cardiomegaly", "edema"]
N = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest with splits, a labeler that errs, and scores that know the truth."""
    rng = np.random.default_rng(0)
    truth = rng.random((N, 2)) < (0.3, 0.2)
    labeler = np.where(truth, rng.random((N, 2)) < 0.8, rng.random((N, 2)) < 0.05).astype(float)
    labeler[rng.random((N, 2)) < 0.05] = -1
    labeler[labeler == 0] = np.nan
    ids = [f"i{row}.png" for row in range(N)]
    splits = np.array(["test", "train", "calib"])[np.arange(N) % 3]
    table = pd.DataFrame(truth.astype(int), columns=LABELS).assign(image=ids, split=splits, patient=np.arange(N))
    table.to_csv(tmp_path / "manifest.csv", index=False)
    given = pd.DataFrame(labeler, columns=["Cardiomegaly", "Edema"]).assign(image=ids)
    given.to_csv(tmp_path / "labeler.csv", index=False)
    scores = pd.DataFrame(rng.normal(size=(N, 2)) + 1.5 * truth, columns=LABELS).assign(image=ids)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


def arguments(folder: Path, *more: object) -> tuple[object, ...]:
    return (
        "label-agreement", "--cohort", folder / "manifest.csv", "--labels", f"nlp={folder / 'labeler.csv'}", *more
    )  # fmt: skip


def test_everything_that_scores_and_a_truth_allow(run: Run, folder: Path) -> None:
    done = run(
        *arguments(folder, "--scores", folder / "scores.csv", "--truth", "manifest", "--errors-from", "train"),
        "--threshold-from", "calib", "--split", "test", "--out", folder / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    for words in ("Agreement with 'manifest' on 200 images", "moves by", "If dependent", "LRAP over all labels"):
        assert words in done.out
    assert "assume that model and source err independently" in done.out
    written = sorted(path.name for path in (folder / "out").iterdir())
    assert written == [
        "conclusions.csv", "corrections.csv", "label-agreement.json", "label_agreement.png", "label_agreement.svg",
        "pairs.csv", "run.json",
    ]  # fmt: skip
    result = json.loads((folder / "out" / "label-agreement.json").read_text())
    assert (result["reference"], result["truth"], result["errors_from"]) == ("manifest", "manifest", "train")
    assert (result["threshold_from"], result["n_images"]) == ("calib", 200)
    assert {entry["metric"] for entry in result["corrections"]} == {"prevalence", "recall", "specificity"}


def test_json_is_alone_on_stdout(run: Run, folder: Path) -> None:
    done = run(*arguments(folder, "--json"))
    assert done.code == 0
    assert done.json["sources"] == ["manifest", "nlp"]
    assert done.json["conclusions"] == []
    assert done.json["corrections"] == []
    assert "No source is named as the truth" not in done.out


def test_uncertain_and_blank_labels_are_read_as_asked(run: Run, folder: Path) -> None:
    def counts(*options: str) -> dict[str, int]:
        pair = run(*arguments(folder, "--json", "--label", "edema", *options)).json["pairs"][0]
        return {name: pair[name] for name in ("n_both", "n_only_b", "n_unknown")}

    ignored, ones = counts(), counts("--uncertainty", "ones")
    assert ignored["n_unknown"] > 0
    assert ones["n_both"] + ones["n_only_b"] > ignored["n_both"] + ignored["n_only_b"]
    assert counts("--blank", "unknown")["n_unknown"] > N / 2


def test_without_a_split_for_errors_nothing_is_corrected_and_it_says_so(run: Run, folder: Path) -> None:
    done = run(*arguments(folder, "--truth", "nlp"))
    assert done.code == 0
    assert "nothing is corrected. Name another split with --errors-from." in done.out
    assert "Agreement with 'nlp'" in done.out


def test_a_model_is_compared_on_the_phantoms(run: Run) -> None:
    done = run(
        "label-agreement", "--labels", "text=reports", "--model", "phantom-clip",
        "--cohort", "phantom:sites=reference,prevalence=balanced,n=60",
        "--label", "cardiomegaly", "--label", "atelectasis", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    metrics = {entry["metric"] for entry in done.json["conclusions"]}
    assert metrics == {"auroc", "average_precision", "ratio", "label_ranking_average_precision"}
    assert "seen_in_training" in done.json


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "twice"), "expected NAME=FILE"),
        (("--labels", "manifest=x.csv"), "are the cohort's own labels"),
        (("--truth", "npl"), "Did you mean nlp"),
        (("--errors-from", "train"), "--errors-from needs --truth"),
        (("--threshold-from", "calib"), "needs scores to choose thresholds for"),
        (("--truth", "nlp", "--errors-from", "nowhere"), "Unknown split 'nowhere'"),
        (("--truth", "nlp", "--split", "test", "--errors-from", "test"), "Name two different splits"),
        (("--label", "fracture"), "'fracture' is missing from"),
        (("--model", "phantom-clip", "--scores", "s.csv"), "give one"),
    ],
)
def test_wrong_use_is_explained(run: Run, folder: Path, options: tuple[str, ...], message: str) -> None:
    done = run(*arguments(folder, *options))
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
