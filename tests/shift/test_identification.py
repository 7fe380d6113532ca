"""Injected shifts are named; the parts behind the decision against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.pairwise import row_norms
from medvlm_probe.shift.density_ratio import fit_density_ratio, weighted_remainder
from medvlm_probe.shift.identification import identify_shift
from medvlm_probe.shift.identification_move import LookMove, look_move, prevalence_despite_move
from medvlm_probe.shift.identification_parts import (
    Discriminant,
    components,
    discriminant,
    kernel_features,
    linear_log_odds,
    whitening,
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
    found = identify_shift(label, x, y, groups, other, rng=rng)
    assert found.shift == name
    assert found.evidence == "scores"
    if move == 0:
        assert found.site_prevalence.low <= prevalence <= found.site_prevalence.high
    assert found.prevalence_despite_move.low <= prevalence <= found.prevalence_despite_move.high
    assert found.reference_prevalence.value == label.mean()
    assert found.prevalence.statistic == pytest.approx(found.site_prevalence.value - label.mean())
    assert 0 < found.effective_share <= 1


@pytest.mark.parametrize(
    ("prevalence", "move", "name"),
    [(0.3, 0.0, "none"), (0.5, 0.0, "prevalence"), (0.3, 1.0, "covariate"), (0.5, 1.0, "both")],
)
def test_labels_of_the_site_tell_what_overlapping_scores_cannot(prevalence: float, move: float, name: str) -> None:
    rng = np.random.default_rng(1)
    label, x, groups = side(200, 0.3, rng, separation=0.5)
    hidden, y, other = side(200, prevalence, rng, move=move, separation=0.5)
    hidden[:20] = np.nan
    found = identify_shift(label, x, y, groups, other, rng=rng, site_labels=hidden)
    assert found.shift == name
    assert found.evidence == "labels"
    assert found.site_prevalence.value == np.nanmean(hidden)
    assert found.site_prevalence.n == 380
    difference = np.nanmean(hidden) - label.mean()
    counts = [np.nansum(hidden[::2]), label[::2].sum()]
    shares = [(counts[0], 190), (counts[1], 200)]
    error = np.sqrt(sum(k / n * (1 - k / n) / n for k, n in shares))
    assert found.prevalence.statistic == pytest.approx(difference)
    assert found.prevalence.p_value == pytest.approx(2 * stats.t.sf(abs(difference) / error, counts[1] - 1), rel=0.05)


def test_images_whose_label_is_not_known_are_left_out(rng: np.random.Generator) -> None:
    label, x, groups = side(60, 0.4, rng)
    _, y, other = side(50, 0.4, rng)
    fewer = label.copy()
    fewer[:10] = np.nan
    first, second = (
        identify_shift(a, b, y, g, other, rng=np.random.default_rng(1))
        for a, b, g in ((fewer, x, groups), (label[10:], x[10:], groups[10:]))
    )
    assert first == second


def test_too_few_patients_are_refused(rng: np.random.Generator) -> None:
    label, x, groups = side(60, 0.4, rng)
    with pytest.raises(InputError, match="20 groups"):
        identify_shift(label, x, x[:20], groups, groups[:20], rng=rng)
    few = np.where(groups < 3, 1.0, 0.0)
    with pytest.raises(InputError, match="3 groups"):
        identify_shift(few, x, x, groups, groups, rng=rng)


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


def test_look_is_measured_across_the_label(rng: np.random.Generator) -> None:
    label, x, groups = side(400, 0.3, rng)
    _, y, other = side(400, 0.9, rng)
    none = look_move(x, y, label == 1, groups, other, rng)
    assert none.deviation < 0.12
    assert abs(none.log_stretch) < 0.1
    moved = y.copy()
    moved[:, 1:12] += 0.5
    far = look_move(x, moved, label == 1, groups, other, rng)
    # Half a standard deviation in each direction; the images' mean lies at the centre of a sphere of radius 13.
    assert far.deviation == pytest.approx(0.5, abs=0.1)
    wide = y.copy()
    wide[:, 1:12] *= 1.5
    assert look_move(x, wide, label == 1, groups, other, rng).log_stretch == pytest.approx(np.log(1.5), abs=0.15)


def test_few_directions_are_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((60, 3))
    with pytest.raises(InputError, match="at least 3"):
        look_move(x[:, :2], x[:, :2], x[:, 0] > 0, np.arange(60), np.arange(60), rng)


def test_whitening_leaves_no_covariance_within_classes(rng: np.random.Generator) -> None:
    label, x, _ = side(2000, 0.3, rng)
    x = x[:, :D] * np.linspace(1, 2, D)
    root, gap = whitening(x, label == 1)
    white = x @ root.T
    means = [white[label == kind].mean(axis=0) for kind in (1, 0)]
    assert gap == pytest.approx(means[0] - means[1])
    assert np.cov((white - np.where(label[:, None] == 1, *means)).T) == pytest.approx(np.eye(D), abs=0.1)


def scores_of(
    prevalence: float, rng: np.random.Generator, *, gap: float, n: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    positive = rng.random(n) < prevalence
    return positive, rng.standard_normal(n) + gap * positive


def test_separated_humps_tell_their_shares_wherever_they_lie(rng: np.random.Generator) -> None:
    positive, own = scores_of(0.3, rng, gap=6)
    hidden, other = scores_of(0.6, rng, gap=6)
    for shift in (-2.0, 0.0, 1.5):
        scores = Discriminant(own, other[None] + shift)
        found = prevalence_despite_move(
            positive,
            scores,
            LookMove(1.5, 0.0, 0.1),
            reference_error=0.001,
            difference_error=0.015,
            design_effect=1.0,
        )
        assert found.value == pytest.approx(hidden.mean(), abs=0.02)
        assert found.low < hidden.mean() < found.high
        assert found.p_value < 1e-6
        assert found.separation == pytest.approx(6, abs=0.3)


def test_without_a_move_it_is_the_likelihood_of_a_mixture(rng: np.random.Generator) -> None:
    """Against the maximum likelihood of the mixture of the two true normals."""
    positive, own = scores_of(0.3, rng, gap=2, n=6000)
    _, other = scores_of(0.45, rng, gap=2)
    found = prevalence_despite_move(
        positive,
        Discriminant(own, other[None]),
        LookMove(0.0, 0.0, 0.0),
        reference_error=1e-6,
        difference_error=1e-6,
        design_effect=1.0,
    )

    def loss(p: float) -> float:
        return -float(np.log(p * stats.norm.pdf(other, 2) + (1 - p) * stats.norm.pdf(other)).sum())

    best = optimize.minimize_scalar(loss, bounds=(0.01, 0.99), method="bounded")
    assert found.value == pytest.approx(best.x, abs=0.03)
    truth = [optimize.brentq(lambda p: 2 * (loss(p) - best.fun) - 3.84, best.x, end) for end in (0.05, 0.95)]
    assert [found.low, found.high] == pytest.approx(truth, abs=0.03)


def test_the_further_the_look_may_move_scores_the_less_they_tell(rng: np.random.Generator) -> None:
    positive, own = scores_of(0.3, rng, gap=1.5)
    _, other = scores_of(0.45, rng, gap=1.5)
    widths, p_values = [], []
    for deviation in (0.0, 0.2, 1.0):
        found = prevalence_despite_move(
            positive,
            Discriminant(own, other[None]),
            LookMove(deviation, 0, 0.05),
            reference_error=0.02,
            difference_error=0.02,
            design_effect=1,
        )
        widths.append(found.high - found.low)
        p_values.append(found.p_value)
    assert widths == sorted(widths)
    assert p_values == sorted(p_values)
    assert p_values[0] < 0.001
    assert p_values[-1] > 0.05


def test_the_noise_of_both_shares_counts(rng: np.random.Generator) -> None:
    """Of humps that tell each image's label the test is that of two proportions."""
    positive, own = scores_of(0.2, rng, gap=8, n=300)
    hidden, other = scores_of(0.3, rng, gap=8, n=200)
    share, there = positive.mean(), hidden.mean()
    own_error, error = (math.sqrt(label.mean() * (1 - label.mean()) / len(label)) for label in (positive, hidden))
    found = prevalence_despite_move(
        positive,
        Discriminant(own, other[None] + 0.5),
        LookMove(0.5, 0.0, 0.1),
        reference_error=0.0,
        difference_error=own_error,
        design_effect=1.0,
    )
    root = math.sqrt(2 * (stats.binom.logpmf(hidden.sum(), 200, there) - stats.binom.logpmf(hidden.sum(), 200, share)))
    z = (there - share) / math.hypot((there - share) / root, own_error)
    assert stats.norm.isf(found.p_value / 2) == pytest.approx(z, rel=0.03)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


@pytest.mark.parametrize(("gap", "shrinks"), [(1.3, False), (6.0, True)])
def test_more_images_do_not_mend_an_assumption(gap: float, shrinks: bool, rng: np.random.Generator) -> None:
    """Of overlapping classes that moved far; humps that lie apart are counted whatever moved."""
    positive, own = scores_of(0.3, rng, gap=gap, n=4000)
    widths = []
    for n in (1000, 16_000):
        _, other = scores_of(0.3, rng, gap=gap, n=n)
        found = prevalence_despite_move(
            positive,
            Discriminant(own, other[None]),
            LookMove(0.7, 0.0, 0.05),
            reference_error=0.0,
            difference_error=0.01,
            design_effect=1.0,
        )
        widths.append(found.high - found.low)
    assert (widths[1] < 0.4 * widths[0]) == shrinks
    assert shrinks or widths[1] > 0.7 * widths[0]


def test_scores_that_tell_nothing_tell_nothing(rng: np.random.Generator) -> None:
    positive = rng.random(400) < 0.3
    own, other = rng.standard_normal(400), rng.standard_normal((1, 300)) + 1
    for moved in (0.0, 0.7):
        found = prevalence_despite_move(
            positive,
            Discriminant(own, other),
            LookMove(moved, 0.0, 0.1),
            reference_error=0.0,
            difference_error=0.0,
            design_effect=1.0,
        )
        assert found.low <= found.value <= found.high
        assert moved == 0 or (found.high - found.low > 0.9 and found.p_value > 0.05)


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
