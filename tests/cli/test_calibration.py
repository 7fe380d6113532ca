"""`calibration` through the real entry point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medvlm_probe.metrics.calibration import brier_score, expected_calibration_error, negative_log_likelihood

from .conftest import Run

KEYS = {
    "method",
    "labels_used",
    "accuracy",
    "ece",
    "ace",
    "mce",
    "ece_kde",
    "brier",
    "nll",
    "overconfidence",
    "per_label",
}


def overconfident(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    logit = rng.normal(size=n)
    truth = rng.random(n) < 1 / (1 + np.exp(-logit))
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "edema": 4 * logit, "truth": truth.astype(int)})
    return table.assign(split=np.where(np.arange(n) % 2, "calib", "test"))


@pytest.fixture
def files(tmp_path: Path) -> pd.DataFrame:
    table = overconfident(400)
    table.to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "map.toml").write_text('[scores]\n"edema" = "edema"\n[truth.columns]\n"truth" = "edema"\n')
    return table


def test_overconfidence_is_seen_and_mended(run: Run, files: pd.DataFrame, tmp_path: Path) -> None:
    done = run(
        "calibration", "--scores", "scores.csv", "--label-map", "map.toml", "--fit-from", "calib", "--method",
        "temperature", "--method", "platt", "--json", "--out", "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    raw, temperature, platt = done.json["methods"]
    assert all(set(entry) >= KEYS for entry in (raw, temperature, platt))
    test = files[files["split"] == "test"]
    p, y = 1 / (1 + np.exp(-test["edema"].to_numpy())), test["truth"].to_numpy()
    assert raw["ece"]["plain"] == pytest.approx(expected_calibration_error(p, y))
    assert raw["brier"]["value"] == pytest.approx(brier_score(p, y))
    assert raw["nll"]["value"] == pytest.approx(negative_log_likelihood(p, y))
    assert raw["accuracy"]["value"] == pytest.approx(((p >= 0.5) == y).mean())
    assert raw["overconfidence"]["low"] > 0
    assert raw["ece"]["plain"] > raw["ece"]["null_high"]
    for mended in (temperature, platt):
        assert mended["labels_used"] == 200
        assert mended["against_first"]["nll"]["high"] < 0
        assert mended["ece"]["plain"] < raw["ece"]["plain"] / 2
    assert {"calibration.csv", "reliability.csv", "reliability.svg"} <= {f.name for f in (tmp_path / "out").iterdir()}
    bins = pd.read_csv(tmp_path / "out" / "reliability.csv")
    pooled = bins[(bins["method"] == "scores.csv") & bins["label"].isna()]
    assert pooled["n"].sum() == 200
    sure = pd.read_csv(tmp_path / "out" / "confidence.csv")
    first = sure[sure["method"] == "scores.csv"]
    right = (p >= 0.5) == y
    surest = np.maximum(p, 1 - p) > 0.9
    assert (first["n_right"].sum(), first["n_wrong"].sum()) == (right.sum(), (~right).sum())
    top = first[first["low"] >= 0.9 - 1e-9]
    assert (top["n_right"].sum(), top["n_wrong"].sum()) == ((surest & right).sum(), (surest & ~right).sum())
    assert (tmp_path / "out" / "confidence.svg").exists()


def test_a_model_with_its_prompts(run: Run) -> None:
    done = run("calibration", "--cohort", "phantom:sites=reference,n=60", "--fit-from", "calib", "--method", "platt")
    assert done.code == 0, done.err
    for words in ("zero-shot, radiology", "platt", "Paired difference", "Means over labels", "not medicine"):
        assert words in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "platt"], "--fit-from"),
        (["--method", "plat", "--fit-from", "calib"], "Did you mean platt"),
        (["--label-map", "map.toml"], "give both"),
    ],
)
def test_what_is_refused(run: Run, arguments: list[str], says: str) -> None:
    done = run("calibration", "--cohort", "phantom:sites=reference,n=20", *arguments)
    assert done.code == 2
    assert says in done.err
