"""Prevalences without labels against brute force and known truths; what cannot be told is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medvlm_probe.errors import InputError
from medvlm_probe.shift.class_shift import estimate_class_shift, expectation_maximisation
from medvlm_probe.shift.label_shift import estimate_label_shift, fit_platt, site_weights
from medvlm_probe.shift.mixture import fit_mixture, remaining_test

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def sample(n_groups: int, prevalence: float, separation: float, rng: np.random.Generator, *, size: int = 1) -> Sample:
    """Labels, scores and groups; images of a group share most of their labels and half of their noise."""
    groups = np.repeat(np.arange(n_groups), size)
    own = rng.random(len(groups)) < (0.3 if size > 1 else 0)
    label = np.where(own, rng.random(len(groups)) < prevalence, (rng.random(n_groups) < prevalence)[groups]).astype(
        float
    )
    correlation = 0.5 if size > 1 else 0.0
    noise = math.sqrt(correlation) * rng.standard_normal(n_groups)[groups]
    return label, noise + math.sqrt(1 - correlation) * rng.standard_normal(len(groups)) + separation * label, groups


def test_both_estimates_by_hand(rng: np.random.Generator) -> None:
    label, scores, groups = sample(300, 0.2, 1.5, rng)
    _, site, other = sample(200, 0.5, 1.5, rng)
    found = estimate_label_shift(label, scores, site, groups, other, rng=rng)
    cut = (scores[label == 1].mean() + scores[label == 0].mean()) / 2
    h, f = (scores[label == 1] >= cut).mean(), (scores[label == 0] >= cut).mean()
    assert found.threshold == pytest.approx(cut)
    assert found.bbse.value == pytest.approx(((site >= cut).mean() - f) / (h - f))
    assert found.condition_number == pytest.approx(np.linalg.cond([[h, f], [1 - h, 1 - f]]))

    z = ((scores - scores.mean()) / scores.std())[:, None]
    fitted = LogisticRegression(C=100, tol=1e-10, max_iter=1000).fit(z, label)  # C = 1 / ridge
    posterior = fitted.predict_proba(((site - scores.mean()) / scores.std())[:, None])
    shares = expectation_maximisation(posterior, np.array([1 - label.mean(), label.mean()]))
    assert found.em.value == pytest.approx(shares[1], abs=1e-4)
    assert found.verdict == "usable"
    assert found.reference.value == label.mean()


def test_intervals_cover_on_both_sides_and_a_true_mixture_is_not_refuted() -> None:
    rng = np.random.default_rng(3)
    covered, refuted = np.zeros(2), 0
    for run in range(45):
        prevalence = (0.0, 0.1, 0.5)[run % 3]
        label, scores, groups = sample(200, 0.15, 1.5, rng, size=2)
        _, site, other = sample(150, prevalence, 1.5, rng, size=2)
        found = estimate_label_shift(label, scores, site, groups, other, rng=rng)
        covered += [e.low <= prevalence <= e.high for e in (found.bbse, found.em)]
        refuted += found.misfit_test.p_value <= 0.05
    assert (covered >= 39).all()
    assert refuted <= 6


def test_scores_that_moved_refute_the_assumption(rng: np.random.Generator) -> None:
    label, scores, groups = sample(300, 0.3, 2.0, rng)
    _, site, other = sample(300, 0.3, 2.0, rng)
    found = estimate_label_shift(label, scores, site - 2.5, groups, other, rng=rng)
    assert found.verdict == "assumption does not hold"
    assert found.misfit > 0.2


def test_scores_that_do_not_separate_tell_nothing(rng: np.random.Generator) -> None:
    label, scores, groups = sample(200, 0.3, 0.0, rng)
    for turned in (scores, -label + 0.1 * scores):
        found = estimate_label_shift(label, turned, scores, groups, groups, rng=rng)
        assert found.verdict == "cannot be told"
        assert not found.bbse.reliable
        assert not found.em.reliable
    assert (found.bbse.low, found.bbse.high, found.em.low, found.em.high) == (0, 1, 0, 1)
    assert math.isnan(found.bbse.value)


def test_few_positive_groups_are_not_called_reliable(rng: np.random.Generator) -> None:
    label = np.r_[np.ones(6), np.zeros(100)]
    scores = label * 3 + rng.standard_normal(106)
    found = estimate_label_shift(label, scores, scores, np.arange(106), np.arange(106), rng=rng)
    assert not found.bbse.reliable
    assert not found.em.reliable


def test_a_reference_without_positives_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="0 positives"):
        estimate_label_shift(np.zeros(5), np.arange(5.0), np.arange(5.0), np.arange(5), np.arange(5), rng=rng)
    with pytest.raises(InputError, match="not finite"):
        estimate_label_shift([1, 0], [1, np.nan], [1, 2], np.arange(2), np.arange(2), rng=rng)


def test_separable_scores_have_a_finite_curve(rng: np.random.Generator) -> None:
    positive = np.arange(40) >= 20
    curve = fit_platt(positive, np.arange(40.0), np.arange(40))
    assert np.isfinite([curve.intercept, curve.slope]).all()
    assert curve.probabilities(np.arange(40.0)).mean() == pytest.approx(0.5)


def test_mixture_by_a_loop(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 3, 60)
    groups, other = np.arange(60) // 2, np.arange(50) // 2
    moments, of_site = (rng.dirichlet(np.ones(3), n) for n in (60, 50))
    moments[np.arange(60), classes] += 1
    moments /= moments.sum(axis=1, keepdims=True)
    features, of_site_features = rng.standard_normal((60, 4)), rng.standard_normal((50, 4))

    def fit(weights: np.ndarray) -> np.ndarray:
        matrix = np.stack([np.average(moments[classes == k], 0, weights[:60][classes == k]) for k in range(3)], axis=1)
        raw = np.linalg.solve(matrix, np.average(of_site, 0, weights[60:]))
        means = np.stack([np.average(features[classes == k], 0, weights[:60][classes == k]) for k in range(3)])
        return np.concatenate([raw, np.average(of_site_features, 0, weights[60:]) - raw @ means])

    found = fit_mixture(
        classes, moments, of_site, groups, other, reference_features=features, site_features=of_site_features
    )
    expected = fit(np.ones(110))
    assert found.raw_shares == pytest.approx(expected[:3])
    if (found.raw_shares >= 0).all():
        assert found.remaining == pytest.approx(expected[3:])
    slopes = []
    for group in range(25):  # the derivative by a site group's weight is its contribution, but for G / (G - 1)
        weights = np.ones(110)
        weights[60:][other == group] += 1e-6
        slopes.append((fit(weights) - expected) / 1e-6)
    contributions = np.hstack([found.shares_by_group, found.remaining_by_group])[found.n_reference_groups :]
    assert contributions == pytest.approx(np.array(slopes) * math.sqrt(25 / 24), abs=1e-5)


def test_what_remains_of_other_features_is_found(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 2, 200)
    moments = np.eye(2)[classes]
    features = rng.standard_normal((200, 3)) + classes[:, None]
    found = [
        remaining_test(
            fit_mixture(
                classes,
                moments,
                moments[:80],
                np.arange(200),
                np.arange(80),
                reference_features=features,
                site_features=features[:80] + move,
            ),
            rng=rng,
        ).p_value
        for move in (0.0, 1.0)
    ]
    assert found[0] > 0.05
    assert found[1] == 1 / 1000


def test_shares_of_several_classes() -> None:
    rng = np.random.default_rng(1)
    covered = np.zeros(2)
    for _ in range(3):
        truth = np.array([0.6, 0.3, 0.1])
        y, hidden = rng.integers(0, 3, 300), rng.choice(3, 200, p=truth)
        p, q = (
            np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            for z in (3 * np.eye(3)[c] + 1.5 * rng.standard_normal((len(c), 3)) for c in (y, hidden))
        )
        found = estimate_class_shift(y, p, q, np.arange(300), np.arange(200), rng=rng)
        for k, estimates in enumerate((found.bbse, found.em)):
            covered[k] += sum(e.low <= t <= e.high for e, t in zip(estimates, truth, strict=True))
            assert sum(e.value for e in estimates) == pytest.approx(1)
        assert 1 < found.condition_number < 5
    assert (covered >= 7).all()
    blind = estimate_class_shift(y, np.roll(p, 7, axis=0), q, np.arange(300), np.arange(200), rng=rng)
    assert blind.verdict == "cannot be told"


def test_extrapolated_steps_rest_where_plain_ones_do(rng: np.random.Generator) -> None:
    posterior, known = rng.dirichlet([0.6, 0.3, 0.2], 80), np.array([0.5, 0.3, 0.2])
    shares = known
    for _ in range(20_000):
        joint = posterior / known * shares
        shares = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    assert expectation_maximisation(posterior, known) == pytest.approx(shares, abs=1e-6)


def test_weights_give_the_sites_prevalence() -> None:
    label = np.array([1.0, 0, 0, 0])
    weights = site_weights(label, 0.6)
    assert weights.mean() == pytest.approx(1)
    assert np.average(label, weights=weights) == pytest.approx(0.6)
    with pytest.raises(InputError):
        site_weights(label, 1.2)
