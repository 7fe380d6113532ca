"""Estimates by label and over labels against scikit-learn; what is undefined; the baselines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.baselines import BASELINES, baselines, chance_rows
from medvlm_probe.metrics.classification import (
    METRICS,
    auroc,
    average_precision,
    exact_match,
    label_performance,
    micro_estimates,
)
from medvlm_probe.metrics.macro import macro_f1, macro_rank_estimates, macro_threshold_estimates
from medvlm_probe.metrics.ranking import ranking_rows

NAMES = ("cardiomegaly", "edema", "fracture", "no_finding")


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = (rng.random((300, 4)) < (0.3, 0.1, 0.05, 0.6)).astype(float)
    scores = rng.normal(size=(300, 4)) + labels
    return labels, scores.round(2), rng.integers(0, 180, 300)


def test_values_are_scikit_learns(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, groups = sample
    found = label_performance(labels, scores, groups, label_names=NAMES, thresholds=dict.fromkeys(NAMES, 0.5))
    for k, entry in enumerate(found):
        y, s = labels[:, k], scores[:, k]
        predicted = s >= 0.5
        wanted = {
            "recall": reference.recall_score(y, predicted),
            "precision": reference.precision_score(y, predicted),
            "f1": reference.f1_score(y, predicted),
            "specificity": reference.recall_score(y, predicted, pos_label=0),
            "auroc": reference.roc_auc_score(y, s),
            "average_precision": reference.average_precision_score(y, s),
        }
        for metric in METRICS:
            estimate = getattr(entry, metric)
            assert estimate.value == pytest.approx(wanted[metric], abs=1e-12)
            assert 0 <= estimate.low < estimate.value < estimate.high <= 1
        assert (entry.n_positive, entry.n_negative, entry.n_unknown) == (y.sum(), 300 - y.sum(), 0)
        assert entry.n_groups == len(np.unique(groups))
        assert auroc(y, s) == entry.auroc.value
        assert average_precision(y, s) == entry.average_precision.value


def test_unknown_labels_are_left_out_label_by_label(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, groups = sample
    unknown = labels.copy()
    unknown[:100, 1] = np.nan
    found = label_performance(unknown, scores, groups, label_names=NAMES)
    alone = label_performance(labels[100:], scores[100:], groups[100:], label_names=NAMES)
    assert found[1].auroc == alone[1].auroc
    assert found[1].n_unknown == 100
    assert found[0].auroc.value == pytest.approx(reference.roc_auc_score(labels[:, 0], scores[:, 0]), abs=1e-12)


def test_without_a_threshold_nothing_is_decided(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, groups = sample
    first, second, *_ = label_performance(labels, scores, groups, label_names=NAMES, thresholds={"edema": 0.0})
    assert math.isnan(first.threshold)
    assert math.isnan(first.recall.value)
    assert first.recall.method.startswith("no threshold chosen")
    assert not math.isnan(first.auroc.value)
    assert not math.isnan(second.recall.value)


def test_undefined_is_nan_and_said() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 1))
    (none,) = label_performance(np.zeros((8, 1)), scores, np.arange(8), label_names=["edema"], thresholds={"edema": 9})
    for metric in ("recall", "precision", "f1", "auroc", "average_precision"):
        assert math.isnan(getattr(none, metric).value)
    assert none.specificity.value == 1.0
    assert none.specificity.low < 0.7
    assert none.too_few
    assert none.prevalence == 0
    (unknown,) = label_performance(np.full((8, 1), np.nan), scores, np.arange(8), label_names=["edema"])
    assert math.isnan(unknown.prevalence)
    assert unknown.n_groups == 0


def test_few_positive_groups_are_marked() -> None:
    labels, scores = np.zeros((40, 1)), np.random.default_rng(0).normal(size=(40, 1))
    labels[:3] = 1
    (entry,) = label_performance(labels, scores, np.arange(40), label_names=["edema"])
    assert entry.auroc.reliable
    assert not entry.average_precision.reliable


def test_copies_within_a_patient_add_little(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, _ = sample
    thresholds = dict.fromkeys(NAMES, 0.5)
    alone = label_performance(labels, scores, np.arange(300), label_names=NAMES, thresholds=thresholds)[0]
    twice = label_performance(
        np.tile(labels, (2, 1)), np.tile(scores, (2, 1)), np.tile(np.arange(300), 2), label_names=NAMES,
        thresholds=thresholds,
    )[0]  # fmt: skip
    for metric in METRICS:
        one, two = getattr(alone, metric), getattr(twice, metric)
        assert two.high - two.low > 0.85 * (one.high - one.low)


def test_micro_macro_and_exact_match(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, groups = sample
    predicted = scores >= 0.5
    micro, macro = micro_estimates(labels, predicted, groups), macro_threshold_estimates(labels, predicted, groups)
    for average, found in (("micro", micro), ("macro", macro)):
        assert found["recall"].value == pytest.approx(reference.recall_score(labels, predicted, average=average))
        assert found["precision"].value == pytest.approx(reference.precision_score(labels, predicted, average=average))
        assert found["f1"].value == pytest.approx(reference.f1_score(labels, predicted, average=average))
    ranks = macro_rank_estimates(labels, scores, groups)
    assert ranks["auroc"].value == pytest.approx(reference.roc_auc_score(labels, scores))
    assert ranks["average_precision"].value == pytest.approx(reference.average_precision_score(labels, scores))
    assert exact_match(labels, predicted, groups).value == reference.accuracy_score(labels, predicted)
    assert macro_f1(labels, predicted) == pytest.approx(macro["f1"].value)


def test_macro_without_each_group_by_hand(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, groups = (part[:60] for part in sample)
    labels = labels[:, [0, 3]]
    scores = scores[:, [0, 3]]
    without = [reference.roc_auc_score(labels[groups != g], scores[groups != g]) for g in np.unique(groups)]
    n = len(without)
    jackknifed = math.sqrt((n - 1) ** 2 / n * np.var(without, ddof=1))
    estimate = macro_rank_estimates(labels, scores, groups)["auroc"]
    assert (estimate.high - estimate.low) / (2 * 1.99) == pytest.approx(jackknifed, rel=0.25)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="label names"):
        label_performance(np.ones((3, 2)), np.zeros((3, 2)), np.arange(3), label_names=["edema"])
    with pytest.raises(InputError, match="Groups of shape"):
        label_performance(np.ones((3, 1)), np.zeros((3, 1)), np.arange(4), label_names=["edema"])
    with pytest.raises(InputError, match="expected \\(n,\\)"):
        auroc(np.ones((3, 1)), np.zeros((3, 1)))


def skewed_labels(n: int) -> np.ndarray:
    prevalence = (0.018, 0.135, 0.109, 0.043, 0.013, 0.008, 0.018, 0.057, 0.005, 0.034, 0.015, 0.033, 0.043, 0.629)
    labels = (np.random.default_rng(0).random((n, 14)) < prevalence).astype(float)
    labels[:, 13] = ~labels[:, :13].any(axis=1)
    return labels


def test_baselines_of_skewed_labels() -> None:
    labels = skewed_labels(2000)
    names = [*(f"finding_{i}" for i in range(13)), "no_finding"]
    found = {b.name: b for b in baselines(labels, np.arange(2000), label_names=names, prior=labels.mean(axis=0))}
    assert list(found) == list(BASELINES)
    constant = np.broadcast_to(labels.mean(axis=0), labels.shape)
    prior = found["prior_only"].ranking
    assert prior["label_ranking_average_precision"].value == pytest.approx(
        reference.label_ranking_average_precision_score(labels, constant)
    )
    assert prior["coverage_error"].value == pytest.approx(reference.coverage_error(labels, constant))
    only_normal = np.zeros(labels.shape, dtype=bool)
    only_normal[:, 13] = True
    assert found["always_no_finding"].exact_match.value == pytest.approx(labels[:, 13].mean())
    assert found["always_no_finding"].macro_f1 == pytest.approx(
        reference.f1_score(labels, only_normal, average="macro", zero_division=0)
    )
    assert found["predict_all"].macro_f1 == pytest.approx(
        reference.f1_score(labels, np.ones_like(only_normal), average="macro")
    )
    assert math.isnan(found["chance"].exact_match.value)
    assert found["chance"].ranking["ranking_loss"].value == 0.5


def test_chance_is_what_random_scores_give_on_average() -> None:
    labels = (np.random.default_rng(1).random((30, 5)) < 0.4).astype(float)
    wanted = chance_rows(labels)
    drawn = [ranking_rows(labels, np.random.default_rng(seed).random(labels.shape)) for seed in range(4000)]
    for name in ("average_precision", "coverage", "loss"):
        mean = np.mean([getattr(rows, name) for rows in drawn], axis=0)
        np.testing.assert_allclose(mean, getattr(wanted, name), atol=0.1 if name == "coverage" else 0.03)


def test_baselines_that_cannot_be_had_say_so() -> None:
    found = {b.name: b for b in baselines(np.eye(3), np.arange(3), label_names=["a", "b", "c"])}
    assert found["prior_only"].ranking["coverage_error"].method.startswith("undefined")
    assert math.isnan(found["always_no_finding"].exact_match.value)
