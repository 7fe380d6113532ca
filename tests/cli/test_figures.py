"""The studies of `figures` through the real entry point: radiology without fine-tuning, calibprompt in few steps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from .conftest import Run

COHORT = "phantom:prevalence=balanced,sites=reference,n=120"


@pytest.mark.slow
def test_the_radiology_study_on_phantoms(run: Run, tmp_path: Path) -> None:
    done = run("figures", "radiology", "--cohort", COHORT, "--no-fine-tune", "--out", "out")
    assert done.code == 0, done.err
    for words in ("Zero-shot", "Linear probe", "Which statements survive", "Prior only", "not medicine"):
        assert words in done.out
    table = pd.read_csv(tmp_path / "out" / "study.csv")
    assert set(table["setting"]) >= {"zero_shot", "linear_probe", "chance", "prior_only"}
    assert table["published_value"].isna().all()
    claims = pd.read_csv(tmp_path / "out" / "claims.csv").set_index("claim")
    assert claims.loc["Zero-shot ranks labels better than chance (LRAP)", "verdict"] == "holds"
    counts = pd.read_csv(tmp_path / "out" / "counts.csv")
    assert set(counts["split"]) == {"train", "calib", "test"}


@pytest.mark.slow
def test_the_calibprompt_study_on_phantoms(run: Run, tmp_path: Path) -> None:
    cohort = "phantom:prevalence=balanced,sites=reference,n=60"
    quick = ("--draws", 2, "--epochs", 2, "--shots", 2, "--context", 2, "--sweep", "shots=2,3", "--ablation-draws", 2)
    several = ("--classes", "lung_opacity,no_finding", "--label", "cardiomegaly", "--label", "pleural_effusion")
    methods = [part for name in ("temperature", "ce", "ls+smac+as") for part in ("--methods", name)]
    done = run("figures", "calibprompt", "--cohort", cohort, *several, *quick, *methods, "--out", "out")
    assert done.code == 0, done.err
    for words in (
        "ECE ↓",
        "if calibrated",
        "A: phantom-clip on phantom: lung opacity or no finding",
        "Accuracy ↑",
        "B: phantom-clip on phantom: cardiomegaly and pleural effusion",
        "Which statements survive",
        "LS+SMAC+AS lowers ECE against temperature at the same shots",
        "ECE ↓ by shots",
        "not medicine",
    ):
        assert words in done.out  # fmt: skip
    assert "Beside the published values" not in done.out
    out = tmp_path / "out"
    table = pd.read_csv(out / "study.csv")
    assert set(table["method"]) == {"zero-shot", "temperature@shots", "temperature@split", "ce", "ls+smac+as"}
    assert set(table["metric"]) == {"ece", "accuracy", "auroc"}
    assert table["published_value"].isna().all()
    claims = pd.read_csv(out / "claims.csv")
    assert set(claims["verdict"]) <= {"holds", "does not hold", "cannot be told"}
    assert sorted(pd.read_csv(out / "ablation_shots.csv")["shots"].unique()) == [2, 3]
    assert {path.name for path in out.glob("*.svg")} >= {"claims.svg", "text_cosine.svg", "ablation_shots.svg"}
    assert len(list(out.glob("methods_*.svg"))) == 2
    twice = run("figures", "calibprompt", "--cohort", cohort, "--cohort", cohort, *several[:2], *quick, *methods)
    assert twice.code == 2
    assert "is asked for twice" in twice.err
