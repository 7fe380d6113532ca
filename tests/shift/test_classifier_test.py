"""The classifier two-sample test, its AUROC and the nuisance probes against loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.held_out_accuracy import whitened
from medvlm_probe.shift.auroc_between import fold_auroc
from medvlm_probe.shift.classifier_test import classifier_test
from medvlm_probe.shift.linear_scores import LinearScores, held_out_scores
from medvlm_probe.shift.nuisance_probes import nuisance_probes
from medvlm_probe.shift.two_samples import image_weights, site_permutations, two_samples
from medvlm_probe.types import FloatArray, IntArray


def auroc_by_loops(
    positive: FloatArray, scores: FloatArray, groups: IntArray, folds: IntArray, weights: FloatArray
) -> float:
    won = pairs = 0.0
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            if folds[i] == folds[j] and groups[i] != groups[j]:
                pairs += weights[i] * weights[j]
                won += weights[i] * weights[j] * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
    return won / pairs if pairs else float("nan")


def test_auroc_within_folds_and_between_patients(rng: np.random.Generator) -> None:
    groups = np.sort(np.r_[np.arange(18), rng.integers(0, 18, 40)])
    folds = (np.arange(18) % 3)[groups]
    positive = rng.random(len(groups)) < 0.4
    scores = rng.integers(0, 6, len(groups)) + positive
    weights = image_weights(groups)
    found = fold_auroc(positive, scores, groups, folds, weights)
    assert found.value == pytest.approx(auroc_by_loops(positive, scores, groups, folds, weights))
    for g in range(18):
        kept = groups != g
        expected = auroc_by_loops(positive[kept], scores[kept], groups[kept], folds[kept], weights[kept])
        assert found.without[g] == pytest.approx(expected)


def test_auroc_is_scikit_learns_without_groups_and_folds(rng: np.random.Generator) -> None:
    positive, scores = rng.random(200) < 0.3, rng.normal(size=200).round(1)
    found = fold_auroc(positive, scores, np.arange(200), np.zeros(200, dtype=int), np.ones(200))
    assert found.value == pytest.approx(roc_auc_score(positive, scores))


def test_auroc_without_a_pair_is_undefined() -> None:
    ones = np.ones(4)
    assert np.isnan(fold_auroc(np.array([True, False] * 2), ones, np.zeros(4, dtype=int), np.zeros(4), ones).value)


def test_held_out_scores_know_nothing_of_their_fold(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    x = rng.normal(size=(len(groups), 4))
    scorer = LinearScores.of(x, groups, rng)
    masks = rng.random((3, 30)) < 0.4
    scores = scorer.held_out(masks)
    z = whitened(x)
    for b, mask in enumerate(masks):
        for fold in range(5):
            means = []
            for side in (True, False):
                chosen = [g for g in range(30) if scorer.fold_of_group[g] != fold and mask[g] == side]
                means.append(np.mean([z[groups == g].mean(axis=0) for g in chosen], axis=0))
            held = scorer.fold_of_group[groups] == fold
            np.testing.assert_allclose(scores[b, held], z[held] @ (means[0] - means[1]), atol=1e-4)
    labels = masks[0][groups].astype(float)[:, None]
    same = held_out_scores(x, labels, image_weights(groups), scorer.fold_of_group[groups])
    np.testing.assert_allclose(same[:, 0], scores[0], atol=1e-4)


def test_auroc_is_near_that_of_logistic_regression(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(300, 10)), rng.normal(size=(200, 10)) + 0.35
    samples = two_samples(x, y, space="raw")
    found = classifier_test(samples, site_permutations(samples.of_site, 99, rng), np.random.default_rng(3))
    z, label = samples.points.centred, samples.image_of_site
    fold = LinearScores.of(z, samples.groups, np.random.default_rng(3)).fold_of_group
    aurocs = []
    for held in range(5):
        fit = LogisticRegression().fit(z[fold != held], label[fold != held])
        aurocs.append(roc_auc_score(label[fold == held], fit.decision_function(z[fold == held])))
    assert found.statistic == pytest.approx(np.mean(aurocs), abs=0.02)
    assert found.effect.low < found.statistic < found.effect.high
    assert found.p_value == 0.01


def test_images_of_patients_say_nothing_when_sites_do_not_differ(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(40), 5)
    x = (rng.normal(size=(40, 30))[groups] + 0.1 * rng.normal(size=(200, 30))) @ np.diag(np.arange(1, 31))
    samples = two_samples(x[:100], x[100:], groups[:100], groups[100:])
    found = classifier_test(samples, site_permutations(samples.of_site, 199, rng), rng)
    assert found.p_value > 0.05
    assert found.effect.low < 0.5


def test_probes_read_what_is_there(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(80), 3)
    view = np.where(rng.random(240) < 0.4, "ap", "pa").astype(object)
    band = np.array(["child", "adult", "old", "rare"], dtype=object)[np.r_[np.arange(72) % 3, [3] * 8]][groups]
    x = rng.normal(size=(240, 8))
    x[:, 0] += 4.0 * (view == "ap")
    sex = rng.choice(["F", "M"], 80)[groups].astype(object)
    sex[:30] = None
    probes = nuisance_probes(x, {"view": view, "sex": sex, "band": band, "constant": ["x"] * 240}, groups, rng=rng)
    by_name = {(probe.fact, probe.category): probe for probe in probes}
    assert {name for fact, name in by_name if fact == "band"} == {"child", "adult", "old"}
    ap = by_name["view", "ap"]
    assert ap.auroc.low > 0.9
    assert ap.balanced_accuracy.low > 0.8
    assert (ap.n_images, ap.n_others) == ((view == "ap").sum(), (view == "pa").sum())
    (sex_probe,) = (probe for probe in probes if probe.fact == "sex")
    assert sex_probe.n_images + sex_probe.n_others == 210
    assert sex_probe.auroc.low < 0.5 < sex_probe.auroc.high
    assert sex_probe.to_json()["auroc"]["n"] == 210


def test_probes_refuse_a_fact_of_another_length() -> None:
    with pytest.raises(InputError, match="view"):
        nuisance_probes(np.eye(4), {"view": ["ap"]}, rng=np.random.default_rng(0))
