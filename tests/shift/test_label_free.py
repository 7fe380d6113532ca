"""Estimates without labels against their definitions, against the truth where assumptions hold, and by coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.calibration_debiased import debiased_calibration_error
from medvlm_probe.shift.class_label_free import class_label_free
from medvlm_probe.shift.label_free import METHODS, METRICS, estimate_label_free, thresholded_share
from medvlm_probe.shift.label_free_validation import true_performance, validate_label_free

TEMPERATURE = 0.5
"""Below 1 the probabilities are too sure."""


def sample(
    n: int, prevalence: float, rng: np.random.Generator, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are calibrated at temperature 1 and prevalence .3."""
    label = (rng.random(n) < prevalence).astype(float)
    score = rng.standard_normal(n) + 2 * label
    log_odds = 2 * score - 2 + math.log(0.3 / 0.7)
    return label, special.expit(log_odds / temperature)


def test_table_by_hand(rng: np.random.Generator) -> None:
    label, p = sample(200, 0.3, rng, TEMPERATURE)
    _, q = sample(150, 0.5, rng, TEMPERATURE)
    found = estimate_label_free(label, p, q, np.arange(200), np.arange(150), threshold=0.4, rng=rng)
    called, site_called = p >= 0.4, q >= 0.4
    assert found["average_confidence"]["precision"].value == pytest.approx(q[site_called].mean())
    expected = q[site_called].sum() / (q[site_called].sum() + q[~site_called].sum())
    assert found["average_confidence"]["recall"].value == pytest.approx(expected)
    assert "overconfidence" not in found["average_confidence"]  # it assumes that there is none
    moved = label[called].mean() + q[site_called].mean() - p[called].mean()
    assert found["difference_of_confidences"]["precision"].value == pytest.approx(min(moved, 1))
    threshold = np.sort(p[called])[-int(label[called].sum())]
    atc = found["average_thresholded_confidence"]["precision"].value
    assert atc == pytest.approx((q[site_called] >= threshold).mean())
    recall, false = called[label == 1].mean(), called[label == 0].mean()
    share = (site_called.mean() - false) / (recall - false)
    assert found["label_shift"]["recall"].value == pytest.approx(recall)
    assert found["label_shift"]["accuracy"].value == pytest.approx(share * recall + (1 - share) * (1 - false))
    for estimates in found.values():
        assert set(estimates) <= set(METRICS)
        assert all(e.low <= e.value <= e.high for e in estimates.values())


def test_without_a_shift_all_methods_but_average_confidence_give_the_references_accuracy(
    rng: np.random.Generator,
) -> None:
    label, p = sample(400, 0.3, rng, TEMPERATURE)
    found = estimate_label_free(label, p, p, np.arange(400), np.arange(400), threshold=0.5, rng=rng)
    right = (label == (p >= 0.5)).mean()
    for name in METHODS:
        if name != "average_confidence":
            assert found[name]["accuracy"].value == pytest.approx(right)
    plain = found["label_shift"]["calibration_error"].value
    assert plain == pytest.approx(debiased_calibration_error(p, label), abs=0.005)


def test_ties_at_the_threshold_count_by_share() -> None:
    assert thresholded_share(np.full(4, 0.9), np.array([True, True, True, False]), np.full(5, 0.9)) == 0.75
    assert thresholded_share(np.array([0.6, 0.8]), np.array([False, False]), np.array([0.7, 0.9])) == 0.5
    assert math.isnan(thresholded_share(np.zeros(0), np.zeros(0, bool), np.array([0.7])))


def test_intervals_cover_where_the_assumption_holds() -> None:
    """Prevalence .6 instead of .3, overconfident probabilities: label shift alone is right about it."""
    rng = np.random.default_rng(2)
    truth = true_performance(*sample(200_000, 0.6, rng, TEMPERATURE), np.arange(200_000), threshold=0.5)
    covered = dict.fromkeys(METRICS, 0)
    for _ in range(40):
        label, p = sample(300, 0.3, rng, TEMPERATURE)
        _, q = sample(150, 0.6, rng, TEMPERATURE)
        found = estimate_label_free(
            label, p, q, np.arange(300), np.arange(150), threshold=0.5, rng=rng, methods=("label_shift",)
        )["label_shift"]
        for metric, estimate in found.items():
            covered[metric] += estimate.low <= truth[metric].value <= estimate.high
    assert min(covered.values()) >= 34, covered


def test_estimate_stands_beside_the_truth(rng: np.random.Generator) -> None:
    label, p = sample(400, 0.3, rng)
    site_label, q = sample(300, 0.3, rng)
    site_label[:20] = np.nan
    rows = validate_label_free(label, p, site_label, q, np.arange(400), np.arange(300), threshold=0.5, rng=rng)
    known = ~np.isnan(site_label)
    right = (site_label == (q >= 0.5))[known].mean()
    for row in rows:
        assert row.holds == (row.estimate.low <= row.truth.value <= row.estimate.high)
        if row.metric == "accuracy":
            assert row.truth.value == pytest.approx(right)
            assert row.difference == pytest.approx(row.estimate.value - right)
            assert row.holds
    assert len(rows) == 4 * 5  # one method without overconfidence, one with a calibration error
    never = np.where(known, 0.0, np.nan)
    rows = validate_label_free(label, p, never, q, np.arange(400), np.arange(300), threshold=0.5, rng=rng)
    assert {row.holds for row in rows if row.metric == "recall"} == {None}


def test_accuracy_of_several_classes() -> None:
    rng = np.random.default_rng(0)
    held = dict.fromkeys(METHODS, 0)
    shares = np.array([0.6, 0.3, 0.1])
    for _ in range(20):
        y, hidden = rng.integers(0, 3, 300), rng.choice(3, 200, p=shares)
        p, q = (special.softmax(1.5 * np.eye(3)[c] + rng.standard_normal((len(c), 3)), axis=1) for c in (y, hidden))
        found = class_label_free(y, p, q, np.arange(300), np.arange(200), rng=rng)
        right = (q.argmax(axis=1) == hidden).mean()
        for name, estimate in found.items():
            held[name] += estimate.low <= right <= estimate.high
    assert found["average_confidence"].value == pytest.approx(q.max(axis=1).mean())
    threshold = np.sort(p.max(axis=1))[-int((p.argmax(axis=1) == y).sum())]
    assert found["average_thresholded_confidence"].value == pytest.approx((q.max(axis=1) >= threshold).mean())
    assert held["label_shift"] >= 17
    assert held["average_thresholded_confidence"] >= 17


def test_what_cannot_be_used_is_refused(rng: np.random.Generator) -> None:
    label, p = sample(20, 0.5, rng)
    groups = np.arange(20)
    with pytest.raises(UnknownNameError, match="label_shift"):
        estimate_label_free(label, p, p, groups, groups, threshold=0.5, rng=rng, methods=("label_shif",))
    with pytest.raises(InputError):
        estimate_label_free(label, p * 9, p, groups, groups, threshold=0.5, rng=rng)
    with pytest.raises(InputError, match="class_label_free"):
        estimate_label_free(label, p, np.full((5, 2), 0.5), groups, np.arange(5), threshold=0.5, rng=rng)
    with pytest.raises(InputError, match="some of them known"):
        validate_label_free(label, p, np.full(20, np.nan), p, groups, groups, threshold=0.5, rng=rng)
