"""`tune --regime full` through the real entry point, and what other commands make of its models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

COHORT = ("--cohort", "phantom:prevalence=balanced,sites=reference,n=24", "--label", "cardiomegaly")
QUICK = (
    "--regime", "full", *COHORT, "--train-from", "calib", "--split", "test", "--shots", 1, "--views", 1,
    "--epochs", 2, "--rate", "1e-4", "--optimizer", "adamw",
)  # fmt: skip


@pytest.mark.slow
def test_a_fully_tuned_model_serves_zero_shot_with_the_numbers_shown(run: Run, tmp_path: Path) -> None:
    done = run("tune", *QUICK, "--out", "out", "--json")
    assert done.code == 0, done.err
    found = done.json
    (draw,) = found["draws"]
    assert (found["regime"], found["optimizer"], found["rate"], found["labels_used"]) == ("full", "adamw", 1e-4, 2)
    assert (draw["model"], draw["steps"]) == ("seed-00", 2)
    assert 0.5 < draw["image_cosine_to_base"] < 1
    assert 0 < draw["weight_change"] < 0.1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["roles"]["train_from"] == "calib"
    served = run(
        "zero-shot", *COHORT, "--split", "test", "--model", "local:out/seed-00", "--score", "probability", "--json"
    )
    assert served.code == 0, served.err
    assert served.json["macro"]["auroc"]["value"] == pytest.approx(draw["macro_auroc"]["value"])
    again = run("tune", *QUICK, "--out", "out")
    assert again.code == 0, again.err
    for words in ("Zero-shot, untuned", "seed-00", "of their length", "mean cosine of at least", "2 labels"):
        assert words in again.out
    seen = run("embed", *COHORT[:2], "--model", "local:out/seed-00", "--json")
    assert seen.json["seen_in_training"]["n_seen"] == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--context", 4), "--context is for prompts"),
        (("--recipe", "biomedclip-covidx"), "--recipe is for prompts"),
        (("--regime", "prompts", "--optimizer", "adamw"), "--optimizer is for --regime full"),
        (("--loss", "smac"), "no term that teaches"),
    ],
)
def test_options_of_the_other_regime_are_refused(run: Run, options: tuple[Any, ...], says: str) -> None:
    done = run("tune", *QUICK[:2], *COHORT, "--train-from", "calib", *options)
    assert done.code == 2
    assert says in done.err
