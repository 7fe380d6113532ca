"""Sensitivity curves against the numbers by hand, on a phantom cohort's labels with vectors made up for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.acquisition_sensitivity import METRICS, acquisition_sensitivity, most_affected

LABELS = ("cardiomegaly", "pleural_effusion")
LIMITS = {"cardiomegaly": 0.4}


@pytest.fixture(scope="module")
def embedded() -> AcquisitionEmbeddings:
    """Two numbers an image are its two scores; blur lowers the first where it is positive, gamma adds to the second."""
    cohort = load_cohort("phantom:sites=reference,n=80,prevalence=balanced,size=64")
    truth = cohort.targets(LABELS)
    rng = np.random.default_rng(3)
    untouched = (0.8 * truth + rng.normal(0, 0.5, truth.shape)).astype(np.float32)
    transformed = {}
    for level in (1, 4):
        moved = untouched.copy()
        moved[:, 0] -= 0.3 * level * truth[:, 0]
        transformed[f"blur/v1@{level}"] = moved
    for level in (0.7, 1.4):
        transformed[f"gamma/v1@{level}"] = untouched + np.array([0, level - 1], dtype=np.float32)
    return AcquisitionEmbeddings(cohort, untouched, transformed, len(cohort), 0, {})


def _score(vectors: np.ndarray) -> Scores:
    ids = tuple(str(k) for k in range(len(vectors)))
    return Scores(np.asarray(vectors, dtype=np.float64), "logit", LABELS, ids)


@pytest.fixture(scope="module")
def table(embedded: AcquisitionEmbeddings) -> pd.DataFrame:
    return acquisition_sensitivity(embedded, _score, thresholds=LIMITS)


def _row(table: pd.DataFrame, transform: str, severity: int, label: str, metric: str) -> pd.Series:
    mask = (table["transform"] == transform) & (table["severity"] == severity) & (table["label"] == label)
    (place,) = np.flatnonzero(mask & (table["metric"] == metric))
    return table.iloc[place]


def test_every_value_by_hand(table: pd.DataFrame, embedded: AcquisitionEmbeddings) -> None:
    truth = embedded.cohort.targets(LABELS)
    before = embedded.untouched.astype(np.float64)
    names = {
        ("blur", 2): "blur/v1@1",
        ("blur", 4): "blur/v1@4",
        ("gamma", -1): "gamma/v1@0.7",
        ("gamma", 1): "gamma/v1@1.4",
    }
    for (transform, severity), name in names.items():
        now = embedded.transformed[name].astype(np.float64)
        for k, label in enumerate(LABELS):

            def value(metric: str, label: str = label, place: tuple[str, int] = (transform, severity)) -> float:
                return float(_row(table, *place, label, metric)["value"])

            positive = truth[:, k] == 1
            shift = (now[:, k] - before[:, k]).mean() / before[:, k].std()
            assert value("score_shift") == pytest.approx(shift, abs=1e-9)
            areas = [roc_auc_score(positive, scores[:, k]) for scores in (before, now)]
            assert value("auroc") == pytest.approx(areas[1], abs=1e-12)
            assert value("auroc_change") == pytest.approx(areas[1] - areas[0], abs=1e-12)
            if label in LIMITS:
                flagged = now[:, k] >= LIMITS[label]
                recalls = [(scores[positive, k] >= LIMITS[label]).mean() for scores in (before, now)]
                assert value("flagged") == pytest.approx(flagged.mean())
                assert value("recall") == pytest.approx(recalls[1])
                assert value("specificity") == pytest.approx((~flagged[~positive]).mean())
                assert value("recall_change") == pytest.approx(recalls[1] - recalls[0])


def test_the_untouched_images_begin_each_curve(table: pd.DataFrame) -> None:
    for transform, neutral in (("blur", 0.0), ("gamma", 1.0)):
        start = table[(table["transform"] == transform) & (table["severity"] == 0)]
        assert (start["level"] == neutral).all()
        assert (start.loc[start["metric"].isin(["score_shift", "recall_change", "auroc_change"]), "value"] == 0).all()
        assert set(start["metric"]) == set(METRICS)
    assert not table.duplicated(["transform", "severity", "label", "metric"]).any()
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert set(table.loc[table["label"] == "pleural_effusion", "metric"]) == {"score_shift", "auroc", "auroc_change"}


def test_pairing_makes_the_change_surer_than_the_level(table: pd.DataFrame) -> None:
    level, change = (_row(table, "blur", 2, "cardiomegaly", metric) for metric in ("auroc", "auroc_change"))
    assert change["high"] < 0
    assert change["high"] - change["low"] < level["high"] - level["low"]


def test_the_most_affected(table: pd.DataFrame) -> None:
    rows = most_affected(table)
    assert rows["transform"].tolist()[0] == "blur"
    assert rows.loc[0, "severity"] == 4
    assert most_affected(table, "score_shift")["transform"].tolist() == ["gamma", "blur"]
