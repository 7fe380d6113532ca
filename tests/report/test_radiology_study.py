"""The radiology study on made-up settings: its table, its claims, and what they say when the truth is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.macro import macro_f1, macro_f1_without_groups
from medvlm_probe.metrics.separation_scores import ratio_difference, separability_row
from medvlm_probe.report.radiology_settings import FINE_TUNED, LINEAR_PROBE, ZERO_SHOT, Setting
from medvlm_probe.report.radiology_study import PUBLISHED, RadiologyStudy, radiology_study
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.thresholds import choose_thresholds

LABELS = ("cardiomegaly", "edema", "no_finding")
N = 120


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    truth = (rng.random((N, 3)) < (0.3, 0.2, 0.0)).astype(np.float32)
    truth[:, 2] = ~truth[:, :2].any(axis=1)
    table = pd.DataFrame(truth, columns=list(LABELS))
    table = table.assign(image=[f"{i}.png" for i in range(N)], patient=[f"p{i // 2}" for i in range(N)])
    return Cohort("c", table, LABELS, "ignore", FileImages(Path(), tuple(table["image"])), DataCard(name="c"))


def setting(name: str, cohort: Cohort, signal: float) -> Setting:
    rng = np.random.default_rng(1)
    targets = cohort.targets()
    values = rng.normal(size=(N, 3)) + signal * targets
    scores = Scores(values, "logit", LABELS, tuple(cohort.table["image"]))
    vectors = rng.normal(size=(N, 8)) + signal * targets @ rng.normal(size=(3, 8))
    chosen = choose_thresholds(scores, targets, rule="youden", source="calib")
    return Setting(name, vectors, scores, chosen, values, 1.0)


@pytest.fixture(scope="module")
def study(cohort: Cohort) -> RadiologyStudy:
    settings = [
        setting(ZERO_SHOT, cohort, 0.0),
        setting(LINEAR_PROBE, cohort, 4.0),
        setting(FINE_TUNED, cohort, 4.0),
    ]
    prior = dict(zip(LABELS, cohort.targets().mean(axis=0).tolist(), strict=True))
    return radiology_study(settings, cohort, prior=prior, n_train=10, n_calib=5, compare_with_published=True)


def test_claims_follow_the_truth(study: RadiologyStudy) -> None:
    verdicts = {claim.text: claim.verdict for claim in study.claims}
    assert verdicts["Zero-shot ranks labels better than chance (LRAP)"] == "cannot be told"
    assert verdicts["Zero-shot ranks labels better than their frequencies do (LRAP)"] == "does not hold"
    assert verdicts["A linear probe ranks labels better than zero-shot (LRAP)"] == "holds"
    assert verdicts["Fine-tuning ranks labels better than a linear probe (LRAP)"] == "cannot be told"
    assert verdicts['Zero-shot gets more images wholly right than "No finding" always'] == "does not hold"
    assert verdicts["A linear probe at chosen thresholds beats predicting every label (macro-F1)"] == "holds"
    assert verdicts["Fine-tuning moves labels farther apart (ratio of distances)"] == "holds"


def test_the_table_has_both_definitions_and_the_published_numbers(study: RadiologyStudy) -> None:
    table = study.table.set_index(["setting", "definition", "metric"])
    for name, values in PUBLISHED.items():
        for metric, value in values.items():
            assert table.loc[(name, "published", metric), "published_value"] == value
    lrap = table.loc[(LINEAR_PROBE, "corrected", "label_ranking_average_precision")]
    assert lrap["low"] < lrap["value"] < lrap["high"]
    assert lrap["value"] == study.analyses[LINEAR_PROBE].ranking.estimates["label_ranking_average_precision"].value
    assert math.isnan(table.loc[(ZERO_SHOT, "published", "ratio"), "low"])
    assert ("prior_only", "corrected", "label_ranking_average_precision") in table.index
    assert study.to_json()["n_test"] == N


def test_macro_f1_without_each_group_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 4)) < 0.3).astype(float)
    predicted = rng.random((40, 4)) < 0.4
    groups = rng.integers(5, 20, 40)
    value, without = macro_f1_without_groups(labels, predicted, groups)
    assert value == macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro"))
    wanted = [
        f1_score(labels[groups != g], predicted[groups != g], average="macro", zero_division=0)
        for g in np.unique(groups)
    ]
    np.testing.assert_allclose(without, wanted)


def test_the_difference_of_ratios_without_each_group_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 2)) < 0.5).astype(float)
    groups = np.repeat(np.arange(30), 2)
    first, second = rng.normal(size=(60, 4)) + 2 * labels[:, :1], rng.normal(size=(60, 6))
    rows = [separability_row(v, labels, groups, rng=np.random.default_rng(0))["ratio"].value for v in (first, second)]
    found = ratio_difference(first, second, labels, groups)
    assert found.value == pytest.approx(rows[0] - rows[1])
    without = [ratio_difference(*(x[groups != g] for x in (first, second, labels, groups))).value for g in range(30)]
    wanted = jackknife_interval(found.value, np.array(without), n=60)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6)
    assert found.low > 0
    assert math.isnan(ratio_difference(first[:4], second[:4], labels[:4], groups[:4]).value)
