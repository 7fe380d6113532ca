"""`figures radiology` through the real entry point, without fine-tuning."""

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
