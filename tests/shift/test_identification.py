"""Injected shifts are named; the parts behind the decision against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.pairwise import row_norms
from medvlm_probe.shift.density_ratio import fit_density_ratio, weighted_remainder
from medvlm_probe.shift.identification import identify_shift
from medvlm_probe.shift.identification_parts import (
    components,
    discriminant,
    kernel_features,
    linear_log_odds,
    shape_prevalence,
)

D = 12


def side(
    n_groups: int, prevalence: float, rng: np.random.Generator, *, move: float = 0.0, separation: float = 3.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, embeddings and groups of two images each."""
    groups = np.repeat(np.arange(n_groups), 2)
    label = (rng.random(n_groups) < prevalence)[groups].astype(float)
    x = rng.standard_normal((n_groups, D))[groups] + rng.standard_normal((2 * n_groups, D))
    x = x / np.sqrt(2) + separation * label[:, None] * np.eye(D)[0] + move * np.eye(D)[:2].sum(axis=0)
    return label, np.column_stack([x, np.full(len(x), 12.0)]), groups


@pytest.mark.parametrize(
    ("prevalence", "move", "name"),
    [(0.3, 0.0, "none"), (0.7, 0.0, "prevalence"), (0.3, 1.0, "covariate"), (0.75, 1.0, "both")],
)
def test_injected_shift_is_named(prevalence: float, move: float, name: str) -> None:
    rng = np.random.default_rng(5)
    label, x, groups = side(200, 0.3, rng)
    _, y, other = side(200, prevalence, rng, move=move)
    found = identify_shift(label, x, y, groups, other, rng=rng, n_resamples=100)
    assert found.shift == name
    if move == 0:
        assert found.site_prevalence.low <= prevalence <= found.site_prevalence.high
    assert found.shape_prevalence.low <= prevalence <= found.shape_prevalence.high
    assert found.reference_prevalence.value == label.mean()
    assert found.prevalence.statistic == pytest.approx(found.site_prevalence.value - label.mean())
    assert 0 < found.effective_share <= 1


def test_images_whose_label_is_not_known_are_left_out(rng: np.random.Generator) -> None:
    label, x, groups = side(60, 0.4, rng)
    _, y, other = side(50, 0.4, rng)
    fewer = label.copy()
    fewer[:10] = np.nan
    first, second = (
        identify_shift(a, b, y, g, other, rng=np.random.default_rng(1), n_resamples=20)
        for a, b, g in ((fewer, x, groups), (label[10:], x[10:], groups[10:]))
    )
    assert first == second


def test_too_few_patients_are_refused(rng: np.random.Generator) -> None:
    label, x, groups = side(60, 0.4, rng)
    with pytest.raises(InputError, match="20 groups"):
        identify_shift(label, x, x[:20], groups, groups[:20], rng=rng)


def test_kernel_features_give_the_gaussian_kernel(rng: np.random.Generator) -> None:
    x = rng.standard_normal((60, D))
    first, second = kernel_features(x[:40], x[40:], rng)
    unit = x / row_norms(x)[:, None]
    squares = ((unit[:, None] - unit) ** 2).sum(axis=2)
    median = np.median(squares[np.triu_indices(60, 1)])
    both = np.concatenate([first, second])
    assert both @ both.T == pytest.approx(np.exp(-squares / (2 * median)), abs=0.35)
    assert np.abs(both @ both.T - np.exp(-squares / (2 * median))).mean() < 0.07


def test_components_are_standardised_on_the_reference(rng: np.random.Generator) -> None:
    _, x, _ = side(80, 0.3, rng)
    _, y, _ = side(50, 0.3, rng, move=2)
    found = components(x, y)
    assert np.cov(found.reference.T) == pytest.approx(np.eye(found.reference.shape[1]), abs=1e-8)
    assert np.abs(found.site.mean(axis=0)).max() > 0.5


def test_discriminant_has_not_seen_its_fold(rng: np.random.Generator) -> None:
    """Labels at random: scores that had seen them would separate them."""
    gaps = []
    for _ in range(20):
        x, positive = rng.standard_normal((80, D)), rng.random(80) < 0.5
        found = discriminant(components(x, x), positive, np.arange(80), rng)
        seen = x @ linear_log_odds(x, positive)[0]
        gaps.append([s[positive].mean() - s[~positive].mean() for s in (found.reference, seen)])
        assert found.site_probabilities.shape == (80,)
    held_out, in_sample = np.mean(gaps, axis=0)
    assert in_sample > 0.3
    assert held_out < 0.1


def test_shape_does_not_feel_a_common_move_and_stretch() -> None:
    rng = np.random.default_rng(2)
    label, x, groups = side(300, 0.3, rng)
    hidden, y, other = side(300, 0.6, rng)
    for scale, move in ((1.0, 0.0), (0.5, 4.0)):
        value, low, high = shape_prevalence(
            label == 1, x[:, 0], scale * y[:, 0] + move, groups, other, rng=rng, n_resamples=60
        )
        assert value == pytest.approx(hidden.mean(), abs=0.12)
        assert low < value < high


def test_density_ratio_is_that_of_a_logistic_regression(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((150, 3)), rng.standard_normal((100, 3)) + 0.7
    found = fit_density_ratio(x, y, np.arange(150), np.arange(100))
    fitted = LogisticRegression(C=1.0, tol=1e-10, max_iter=500).fit(
        np.concatenate([x, y]), np.repeat([0, 1], [150, 100])
    )
    odds = np.exp(x @ fitted.coef_[0])
    assert found.weights == pytest.approx(odds / odds.sum(), rel=1e-3)
    assert found.effective_share == pytest.approx(odds.sum() ** 2 / (odds**2).sum() / 150, rel=1e-3)

    left = weighted_remainder(found, x, x**2, y**2, np.arange(150), np.arange(100))
    assert left.remaining == pytest.approx((y**2).mean(axis=0) - found.weights @ x**2)
    without = fit_density_ratio(x, y[1:], np.arange(150), np.arange(99))
    moved = (y[1:] ** 2).mean(axis=0) - without.weights @ x**2 - left.remaining
    assert left.remaining_by_group[150] == pytest.approx(-moved, abs=0.15 * np.abs(left.remaining_by_group).max())
