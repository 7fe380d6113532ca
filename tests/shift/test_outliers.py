"""Outlier scores against brute force and scikit-learn; separation, thresholds and p-values by their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.shift.outlier_scores import METHODS, OutlierInputs, fit_outlier_score
from medvlm_probe.shift.outliers import choose_threshold, conformal_p_values, outlier_performance, share_above

N, D, K = 120, 8, 3


@pytest.fixture
def classes(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, K, N)


@pytest.fixture
def reference(rng: np.random.Generator, classes: np.ndarray) -> OutlierInputs:
    return inputs(rng, classes[:, None] * np.eye(D)[0] * 3)


def inputs(rng: np.random.Generator, centre: np.ndarray | float, n: int = N) -> OutlierInputs:
    embeddings = rng.standard_normal((n, D)) * np.linspace(2, 0.3, D) + centre + 1
    weights = np.random.default_rng(5).standard_normal((D, K))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return OutlierInputs(embeddings, embeddings @ weights + 9, unit @ weights / np.linalg.norm(weights, axis=0))


def by_hand(name: str, reference: OutlierInputs, classes: np.ndarray, new: OutlierInputs) -> list[float]:
    """Each image's score in a loop, straight from the definition."""
    x, y = reference.embeddings, new.embeddings
    found = []
    if name == "knn":
        unit = [v / np.linalg.norm(v) for v in x]
        search = NearestNeighbors(n_neighbors=10).fit(np.array(unit))
        return search.kneighbors(y / np.linalg.norm(y, axis=1, keepdims=True))[0][:, -1].tolist()
    means = np.array([x[classes == k].mean(axis=0) for k in range(K)])
    covariance = LedoitWolf(assume_centered=True).fit(x - means[classes]).covariance_
    within = np.linalg.inv(covariance)
    overall = np.linalg.inv(covariance + np.cov(means[classes].T, bias=True))
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    outside = np.eye(D) - axes[: D // 2].T @ axes[: D // 2]
    for i in range(len(y)):
        logits, cosines = new.logits[i], new.cosines[i]
        nearest = min((y[i] - m) @ within @ (y[i] - m) for m in means)
        energy = -math.log(sum(math.exp(v) for v in logits))
        residual = float(np.linalg.norm(outside @ y[i]))
        scale = reference.logits.max(axis=1).mean() / np.mean([np.linalg.norm(outside @ v) for v in x])
        everything = (y[i] - x.mean(axis=0)) @ overall @ (y[i] - x.mean(axis=0))
        found.append(
            {
                "max_softmax": -max(math.exp(v) for v in logits) / sum(math.exp(v) for v in logits),
                "energy": energy,
                "joint_energy": -sum(math.log(1 + math.exp(v)) for v in logits),
                "mcm": -max(math.exp(v) for v in cosines) / sum(math.exp(v) for v in cosines),
                "mahalanobis": nearest,
                "relative_mahalanobis": nearest - everything,
                "residual": residual,
                "vim": scale * residual + energy,
            }[name]
        )
    return found


@pytest.mark.parametrize("name", METHODS)
def test_score_is_its_definition(
    name: str, reference: OutlierInputs, classes: np.ndarray, rng: np.random.Generator
) -> None:
    new = inputs(rng, 0.5, n=9)
    fitted = fit_outlier_score(name, reference, classes)
    assert fitted.scores(new) == pytest.approx(by_hand(name, reference, classes, new), rel=1e-8)
    assert fitted.scores(new, block_rows=2) == pytest.approx(fitted.scores(new), rel=1e-12)


@pytest.mark.parametrize("name", ["mahalanobis", "knn", "residual", "vim"])
def test_what_lies_far_off_scores_higher(
    name: str, reference: OutlierInputs, classes: np.ndarray, rng: np.random.Generator
) -> None:
    fitted = fit_outlier_score(name, reference, classes)
    like, unlike = inputs(rng, 0.0), inputs(rng, -8 * np.eye(D)[D - 1])
    like, unlike = (OutlierInputs(some.embeddings, np.zeros((N, K))) for some in (like, unlike))
    assert np.median(fitted.scores(unlike)) > np.quantile(fitted.scores(like), 0.95)


def test_relative_distance_grows_along_what_parts_the_classes_alone(
    reference: OutlierInputs, classes: np.ndarray, rng: np.random.Generator
) -> None:
    fitted = fit_outlier_score("relative_mahalanobis", reference, classes)
    like = inputs(rng, 0.0)
    beyond = OutlierInputs(like.embeddings - 20 * np.eye(D)[0])
    aside = OutlierInputs(like.embeddings - 20 * np.eye(D)[D - 1])
    assert np.median(fitted.scores(beyond)) > fitted.scores(like).max()
    assert np.median(fitted.scores(aside)) > np.quantile(fitted.scores(like), 0.01)


@pytest.mark.parametrize("name", ["max_softmax", "energy", "mcm"])
def test_what_no_answer_fits_scores_higher(name: str) -> None:
    sure, unsure = np.array([[9.0, 0, 0]]), np.zeros((1, 3))
    fitted = fit_outlier_score(name, OutlierInputs(logits=sure, cosines=sure / 10))
    of_unsure = fitted.scores(OutlierInputs(logits=unsure, cosines=unsure))
    assert of_unsure > fitted.scores(OutlierInputs(logits=sure, cosines=sure / 10))


def test_what_cannot_be_used_is_refused(reference: OutlierInputs) -> None:
    with pytest.raises(UnknownNameError, match="mahalanobis"):
        fit_outlier_score("mahalanobi", reference)
    with pytest.raises(InputError, match="needs logits"):
        fit_outlier_score("energy", OutlierInputs(embeddings=reference.embeddings))
    with pytest.raises(InputError, match="temperature"):
        fit_outlier_score("energy", reference, temperature=0.0)
    with pytest.raises(InputError, match="neighbours"):
        fit_outlier_score("knn", reference, n_neighbors=N + 1)
    with pytest.raises(InputError, match="principal"):
        fit_outlier_score("vim", reference, n_dimensions=D)
    with pytest.raises(InputError, match="competing"):
        fit_outlier_score("vim", OutlierInputs(reference.embeddings, -np.ones((N, K))))
    with pytest.raises(InputError, match="one row an image"):
        OutlierInputs(np.zeros((3, 2)), np.zeros((4, 2)))


def test_separation_is_scikit_learns(rng: np.random.Generator) -> None:
    reference, site = rng.standard_normal(80), rng.standard_normal(60) + 0.8
    found = outlier_performance(reference, site, np.arange(80) // 2, np.arange(60), rng=rng)
    is_site, scores = np.repeat([0, 1], [80, 60]), np.concatenate([reference, site])
    assert found.auroc.value == pytest.approx(roc_auc_score(is_site, scores))
    assert found.aupr_site.value == pytest.approx(average_precision_score(is_site, scores))
    assert found.aupr_reference.value == pytest.approx(average_precision_score(1 - is_site, -scores))
    assert found.fpr_at_95.value == pytest.approx((site <= np.sort(reference)[75]).mean())
    assert found.fpr_at_95.low < found.fpr_at_95.value < found.fpr_at_95.high
    assert found.site_share == pytest.approx(60 / 140)


def test_images_told_apart_wholly_still_have_an_interval(rng: np.random.Generator) -> None:
    found = outlier_performance(np.arange(30.0), np.arange(30.0) + 100, np.arange(30), np.arange(30), rng=rng)
    assert (found.auroc.value, found.fpr_at_95.value) == (1, 0)
    assert found.auroc.low < 1
    assert found.fpr_at_95.high > 0


def test_p_values_and_threshold_by_hand(rng: np.random.Generator) -> None:
    reference = np.arange(19.0)
    assert conformal_p_values(reference, [-1, 18, 17.5, 99], np.arange(19), rng=rng) == pytest.approx(
        [1, 2 / 20, 2 / 20, 1 / 20]
    )
    assert choose_threshold(reference, np.arange(19), share=0.1, rng=rng).value == 17
    assert choose_threshold(reference, np.arange(19), share=0.01, rng=rng).value == math.inf
    chosen = choose_threshold(reference, np.arange(19), share=0.1, rng=rng)
    assert share_above(chosen, [17, 18, 3, 20], np.arange(4)).value == 0.5


def test_p_values_keep_their_level_where_patients_have_several_images(rng: np.random.Generator) -> None:
    """Reference patients with as many as eight images: counting images instead of patients would not keep it."""
    small, above = [], []
    for _ in range(400):
        sizes = rng.integers(1, 9, 40)
        groups = np.repeat(np.arange(40), sizes)
        reference = rng.standard_normal(40)[groups] + 0.1 * rng.standard_normal(len(groups))
        new = rng.standard_normal(50) + 0.1 * rng.standard_normal(50)
        small.append((conformal_p_values(reference, new, groups, rng=rng) <= 0.1).mean())
        above.append((new > choose_threshold(reference, groups, share=0.1, rng=rng).value).mean())
    assert np.mean(small) == pytest.approx(0.1, abs=0.012)
    assert np.mean(above) == pytest.approx(0.1, abs=0.012)
