"""Plain calibration metrics: vectors of the released code, loops over formulas, wrong answers known of other tools."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.preprocessing import KBinsDiscretizer

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration import (
    adaptive_calibration_error,
    brier_decomposition,
    brier_score,
    calibration_in_the_large,
    classwise_calibration_error,
    confidence_histogram,
    debiased_calibration_error,
    expected_calibration_error,
    kde_bandwidth,
    kde_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    overconfidence,
    reliability_bins,
    risk_coverage_area,
    risk_coverage_curve,
    smooth_calibration_error,
)
from medvlm_probe.metrics.calibration_scores import risk_coverage
from medvlm_probe.metrics.proportions import proportion

ERRORS = (
    expected_calibration_error,
    adaptive_calibration_error,
    maximum_calibration_error,
    kde_calibration_error,
    smooth_calibration_error,
)


def binary(seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.8, 1.5, size=n)
    return p, (rng.random(n) < p**1.5).astype(float)


def classes(seed: int = 0, n: int = 200, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 0.5), size=n), rng.integers(k, size=n)


def top_label(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return p.max(axis=1), (p.argmax(axis=1) == y).astype(float)


def test_values_are_the_released_codes(shared_dir: Path) -> None:
    cases = json.loads((shared_dir / "vectors" / "calibration.json").read_text())["metrics"]
    assert len(cases) >= 8
    for case in cases:
        p, y, values = np.array(case["probabilities"]), np.array(case["labels"]), case["values"]
        assert np.mean(p.argmax(axis=1) == y) == pytest.approx(values["accuracy"], abs=1e-12)
        for legacy in (False, True):
            assert expected_calibration_error(p, y, legacy=legacy) == pytest.approx(values["ece_10"], abs=1e-9)
        assert adaptive_calibration_error(p, y) == pytest.approx(values["ace_10"], abs=1e-9)
        legacy_maximum = maximum_calibration_error(p, y, legacy=True)
        assert legacy_maximum == pytest.approx(values["mce_weighted_legacy"], abs=1e-9)
        assert kde_calibration_error(p, y, legacy=True) == pytest.approx(values["ece_kde_legacy"], abs=1e-7)


def loop_bins(c: np.ndarray, n_bins: int) -> list[np.ndarray]:
    edges = [b / n_bins for b in range(n_bins + 1)]
    return [(c >= edges[b]) & ((c < edges[b + 1]) | (b == n_bins - 1)) for b in range(n_bins)]


@pytest.mark.parametrize("n_bins", [1, 7, 10])
@pytest.mark.parametrize("seed", range(3))
def test_binned_errors_are_their_formulas(n_bins: int, seed: int) -> None:
    for p, y, c, correct in [(*binary(seed), *binary(seed)), (*classes(seed), *top_label(*classes(seed)))]:
        gaps = [(b.mean(), abs(correct[b].mean() - c[b].mean())) for b in loop_bins(c, n_bins) if b.any()]
        assert expected_calibration_error(p, y, n_bins) == pytest.approx(sum(w * gap for w, gap in gaps))
        assert maximum_calibration_error(p, y, n_bins) == pytest.approx(max(gap for _, gap in gaps))
        if n_bins > 1:
            of = KBinsDiscretizer(
                n_bins, encode="ordinal", strategy="quantile", quantile_method="averaged_inverted_cdf"
            ).fit_transform(c[:, None])[:, 0]
            masses = [of == b for b in range(n_bins)]
            expected = sum(b.mean() * abs(correct[b].mean() - c[b].mean()) for b in masses if b.any())
            assert adaptive_calibration_error(p, y, n_bins) == pytest.approx(expected)
    p, y = classes(seed)
    by_class = [expected_calibration_error(p[:, k], y == k, n_bins) for k in range(4)]
    assert classwise_calibration_error(p, y, n_bins) == pytest.approx(np.mean(by_class))


def test_a_certain_confidence_counts_in_the_last_bin() -> None:
    right = np.arange(1000) < 483
    p = np.column_stack([np.zeros(1000), np.ones(1000)])
    assert expected_calibration_error(p, right.astype(int), legacy=True) == 0
    assert expected_calibration_error(p, right.astype(int)) == pytest.approx(0.517)
    half = np.where(np.arange(1000) % 2 == 0, 1.0, 0.95)
    p = np.column_stack([1 - half, half])
    assert expected_calibration_error(p, right.astype(int)) == pytest.approx(0.975 - 0.483)


def test_a_last_bin_that_is_all_wrong_is_seen() -> None:
    p = np.column_stack([np.full(100, 0.01), np.full(100, 0.99)])
    p[:50] = 0.5
    y = np.zeros(100, dtype=int)
    assert expected_calibration_error(p, y) == pytest.approx((0.5 + 0.99) / 2)
    assert maximum_calibration_error(p, y) == pytest.approx(0.99)


def test_maximum_error_is_the_largest_gap_not_the_largest_term() -> None:
    c = np.concatenate([np.full(5, 0.833), np.full(95, 0.55)])
    y = np.concatenate([[1, 1, 0, 0, 0], np.arange(95) < 54]).astype(float)
    assert maximum_calibration_error(c, y) == pytest.approx(0.433)
    assert maximum_calibration_error(c, y, legacy=True) == pytest.approx(0.05 * 0.433)


def test_two_classes_and_a_probability_of_positives_differ() -> None:
    p = np.full(100, 0.1)
    y = np.arange(100) < 10
    assert expected_calibration_error(p, y) == pytest.approx(0)
    p, y = np.array([0.1, 0.9, 0.1, 0.9]), np.array([1, 1, 0, 0])
    both = np.column_stack([1 - p, p])
    assert expected_calibration_error(both, y) == pytest.approx(0.4)
    assert maximum_calibration_error(both, y) == pytest.approx(0.4)
    p, y = np.array([0.2, 0.9] * 50), np.array([1, 1] * 50)
    assert expected_calibration_error(p, y) == pytest.approx((0.8 + 0.1) / 2)
    assert expected_calibration_error(np.column_stack([1 - p, p]), y) == pytest.approx((0.8 + 0.1) / 2)
    assert calibration_in_the_large(p, y) == pytest.approx(-0.45)
    assert overconfidence(p, y).overconfidence == pytest.approx(0.85 - 0.5)


def test_tied_confidences_stay_together_in_bins_of_equal_mass() -> None:
    c = np.concatenate([np.full(90, 0.9), [0.5] * 10])
    y = np.concatenate([np.arange(90) < 45, np.ones(10)]).astype(float)
    assert adaptive_calibration_error(c, y) == pytest.approx(0.9 * 0.4 + 0.1 * 0.5)
    assert adaptive_calibration_error(np.full(50, 0.3), np.arange(50) < 20) == pytest.approx(0.1)


def test_edges_of_bins_are_exact_decimals() -> None:
    for b in range(1, 10):
        table = reliability_bins(np.array([b / 10]), np.array([1.0]))
        assert np.flatnonzero(table.n).tolist() == [b]


# --- kernel density -------------------------------------------------------------------------------------------------


def kde_by_loop(p: np.ndarray, targets: np.ndarray, h: float) -> float:
    total = 0.0
    for j in range(len(p)):
        weights = np.array([stats.dirichlet.pdf(p[j] / p[j].sum(), row / h + 1) for row in p])
        weights[j] = 0
        total += np.abs(weights @ targets / weights.sum() - p[j]).sum()
    return total / len(p)


@pytest.mark.parametrize("h", [None, 0.02, 0.3])
def test_kernel_density_error_is_a_regression_with_dirichlet_kernels(h: float | None) -> None:
    p, y = classes(1, n=40, k=3)
    p = np.clip(p, 0.01, None)
    p /= p.sum(axis=1, keepdims=True)
    width = kde_bandwidth(p) if h is None else h
    expected = kde_by_loop(p, np.eye(3)[y], width)
    assert kde_calibration_error(p, y, kernel="dirichlet", bandwidth=h) == pytest.approx(expected, rel=1e-6)
    c, correct = top_label(p, y)
    width = kde_bandwidth(c) if h is None else h
    both = np.column_stack([c, 1 - c])
    expected = kde_by_loop(both, np.column_stack([correct, 1 - correct]), width) / 2
    assert kde_calibration_error(p, y, bandwidth=h) == pytest.approx(expected, rel=1e-6)
    assert kde_calibration_error(c, correct, bandwidth=h) == pytest.approx(expected, rel=1e-6)


def test_dirichlet_kernels_of_two_classes_give_twice_the_beta_kernels() -> None:
    p, y = binary(2)
    both = np.column_stack([1 - p, p])
    twice = kde_calibration_error(both, y.astype(int), kernel="dirichlet", bandwidth=0.05)
    assert twice == pytest.approx(2 * kde_calibration_error(p, y, bandwidth=0.05))


@pytest.mark.parametrize(
    "p",
    [[0, 1], [0, 0, 1, 1], [1, 1, 1], [0, 0.5, 1, 0.2], [0, 1e-300, 1 - 1e-16, 0.5, 0.5]],
    ids=str,
)
def test_kernel_density_error_is_finite_at_zero_and_one(p: list[float]) -> None:
    y = np.arange(len(p)) % 2
    for value in (kde_calibration_error(p, y), kde_calibration_error(np.column_stack([np.subtract(1, p), p]), y)):
        assert 0 <= value <= 1


def test_kernel_density_error_of_blocks_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = binary(3)
    whole = kde_calibration_error(p, y), kde_calibration_error(p, y, legacy=True)
    monkeypatch.setattr("medvlm_probe.metrics.calibration_kernel._NUMBERS_AT_ONCE", 700)
    assert (kde_calibration_error(p, y), kde_calibration_error(p, y, legacy=True)) == pytest.approx(whole, rel=1e-12)


def test_kernel_density_error_finds_the_true_miscalibration() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    y = rng.random(4000) < p**2
    assert kde_calibration_error(p, y) == pytest.approx(1 / 6, abs=0.03)
    assert kde_calibration_error(p, rng.random(4000) < p) < 0.03


def test_legacy_kernels_are_gaussian_with_bandwidths_by_size() -> None:
    for n, h in ((60, 0.3), (100, 0.2), (500, 0.1)):
        c, y = binary(n, n)
        weights = np.exp(-((c[:, None] - c) ** 2) / (2 * h * h)) * (1 - np.eye(n))
        expected = np.abs(weights @ y / weights.sum(axis=1) - c).mean()
        assert kde_calibration_error(c, y, legacy=True) == pytest.approx(expected)


# --- smooth calibration error ---------------------------------------------------------------------------------------


def smooth_by_integration(c: np.ndarray, y: np.ndarray) -> float:
    """The fixed point by bisection, with reflected Gaussians summed over images and integrated by Simpson's rule."""
    t = np.linspace(0, 1, 2001)
    images = np.concatenate([sign * c + 2 * k for k in range(-3, 4) for sign in (1, -1)])
    residual = np.tile(y - c, 14)
    low, high = 0.0, 1.0
    for _ in range(30):
        width = (low + high) / 2
        density = (stats.norm.pdf(t[:, None], images, width) * residual).sum(axis=1) / len(c)
        size = integrate.simpson(np.abs(density), x=t)
        low, high = (width, high) if size > width else (low, width)
    return low


@pytest.mark.parametrize("seed", range(3))
def test_smooth_error_is_the_fixed_point_of_reflected_gaussian_smoothing(seed: int) -> None:
    p, y = binary(seed, 60)
    assert smooth_calibration_error(p, y) == pytest.approx(smooth_by_integration(p, y), abs=2e-4)


def test_smooth_error_of_a_single_confidence_is_its_gap() -> None:
    assert smooth_calibration_error(np.full(10, 0.5), np.ones(10)) == pytest.approx(0.5, abs=1e-6)
    assert smooth_calibration_error(np.ones(10), np.arange(10) % 2) == pytest.approx(0.5, abs=1e-3)


# --- scores ---------------------------------------------------------------------------------------------------------


def test_brier_and_log_likelihood_are_scikit_learns() -> None:
    p, y = binary()
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p))
    assert negative_log_likelihood(p, y) == pytest.approx(log_loss(y, p))
    both = np.column_stack([1 - p, p])
    assert brier_score(both, y.astype(int)) == pytest.approx(2 * brier_score(p, y))
    p, y = classes()
    assert negative_log_likelihood(p, y) == pytest.approx(log_loss(y, p))
    assert brier_score(p, y) == pytest.approx(np.mean(np.sum((p - np.eye(4)[y]) ** 2, axis=1)))


def test_a_certain_error_costs_a_finite_log_likelihood() -> None:
    assert negative_log_likelihood([0.0], [1]) == pytest.approx(-math.log(1e-12))
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == pytest.approx(27.631, abs=1e-3)


@given(st.integers(0, 500), st.sampled_from([1, 3, 10]), st.sampled_from(["width", "mass"]))
@settings(max_examples=30, deadline=None)
def test_brier_decomposition_is_exact(seed: int, n_bins: int, binning: Any) -> None:
    for p, y in (binary(seed, 50), classes(seed, 50)):
        parts = brier_decomposition(p, y, n_bins, binning)
        assert parts.score == pytest.approx(brier_score(p, y), abs=1e-12)
        assert parts.reliability >= 0


def test_brier_decomposition_of_distinct_forecasts_is_murphys() -> None:
    p, y = np.repeat([0.05, 0.55], 50), np.concatenate([np.arange(50) < 5, np.arange(50) < 40])
    parts = brier_decomposition(p, y)
    assert parts.reliability == pytest.approx((0.05**2 + 0.25**2) / 2)
    assert parts.resolution == pytest.approx((0.35**2 + 0.35**2) / 2)
    assert parts.uncertainty == pytest.approx(0.45 * 0.55)


def test_overconfidence_counts_errors_above_nine_tenths() -> None:
    c = np.array([0.95, 0.99, 0.9, 0.6, 0.7])
    p = np.column_stack([c, 1 - c])
    found = overconfidence(p, [1, 1, 1, 0, 1])
    assert (found.n_errors, found.n_sure_errors) == (4, 2)
    assert found.sure_errors == 0.5
    assert found.sure_error_confidence == pytest.approx(0.97)
    assert found.error_confidence == pytest.approx((0.95 + 0.99 + 0.9 + 0.7) / 4)
    assert found.overconfidence == pytest.approx(c.mean() - 0.2)
    all_right = overconfidence([0.8, 0.1], [1, 0])
    assert math.isnan(all_right.sure_errors)
    assert all_right.overconfidence == pytest.approx(-0.15)


def test_answers_about_one_label_may_be_absent_and_sure() -> None:
    found = overconfidence([0.02, 0.02, 0.6], [1, 0, 1])
    assert (found.n_errors, found.n_sure_errors) == (1, 1)
    assert found.overconfidence == pytest.approx((0.98 + 0.98 + 0.6) / 3 - 2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_risk_coverage_area_is_the_mean_of_error_rates(seed: int) -> None:
    p, y = classes(seed, 60)
    p = np.round(p, 1) / np.round(p, 1).sum(axis=1, keepdims=True)  # with ties
    c, correct = top_label(p, y)
    expected = np.mean([1 - correct[c >= own].mean() for own in c])
    assert risk_coverage_area(p, y) == pytest.approx(expected)
    coverage, risk = risk_coverage_curve(p, y)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - correct.mean())
    _, influence = risk_coverage(c, correct == 1)
    weights = np.ones(60)
    for i in (0, 17):
        moved = weights.copy()
        moved[i] += 1e-6
        moved /= moved.sum()
        above = c[:, None] <= c
        risks = (above * moved * (correct == 0)).sum(axis=1) / (above * moved).sum(axis=1)
        slope = (moved @ risks - expected) / (1e-6 / 60)
        assert influence[i] == pytest.approx(slope, abs=1e-3)


def test_debiased_error_is_the_published_formula_and_less_than_the_plain_one() -> None:
    p, y = binary(5, 300)
    total = 0.0
    for b in loop_bins(p, 10):
        frequency = y[b].mean()
        total += b.mean() * ((frequency - p[b].mean()) ** 2 - frequency * (1 - frequency) / (b.sum() - 1))
    assert debiased_calibration_error(p, y, binning="width") == pytest.approx(math.sqrt(max(total, 0)))
    assert debiased_calibration_error(p, y, norm="l1") < adaptive_calibration_error(p, y)
    rng = np.random.default_rng(0)
    plain, less = [], []
    for _ in range(200):
        c = rng.random(200)
        drawn = rng.random(200) < c - c * (1 - c) / 2
        plain.append(expected_calibration_error(c, drawn))
        less.append(debiased_calibration_error(c, drawn, norm="l1", binning="width"))
    assert abs(np.mean(less) - 1 / 12) < abs(np.mean(plain) - 1 / 12) / 2


# --- tables ---------------------------------------------------------------------------------------------------------


def test_reliability_table_has_counts_frequencies_intervals_and_a_band() -> None:
    p, y = binary(6, 300)
    y[::7] = np.nan
    groups = np.arange(300) // 3
    known = ~np.isnan(y)
    table = reliability_bins(p, y, groups, rng=np.random.default_rng(0))
    assert table.n.sum() == known.sum()
    for b, inside in enumerate(loop_bins(p[known], 10)):
        if not inside.any():
            continue
        assert table.confidence[b] == pytest.approx(p[known][inside].mean())
        assert table.frequency[b] == pytest.approx(y[known][inside].mean())
        expected = proportion(y[known][inside] == 1, groups[known][inside])
        assert (table.frequency_low[b], table.frequency_high[b]) == pytest.approx((expected.low, expected.high))
        assert table.n_groups[b] == expected.n_groups
        assert table.band_low[b] <= table.confidence[b] <= table.band_high[b]
    assert np.isnan(reliability_bins(p, y, groups).band_low).all()
    rows = table.rows()
    assert len(rows) == 10
    assert rows[0]["low"] == 0
    assert rows[-1]["high"] == 1


def test_confidence_histogram_counts_right_and_wrong_answers() -> None:
    rows = confidence_histogram([0.97, 0.02, 0.5, 1.0], [1, 1, 0, 1], n_bins=10)
    assert [row["n_right"] for row in rows] == [0] * 9 + [2]
    assert [row["n_wrong"] for row in rows] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]


# --- what holds for all ---------------------------------------------------------------------------------------------


@given(st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_values_do_not_depend_on_the_order_of_images_and_lie_in_range(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(40)
    for p, y in (binary(seed, 40), classes(seed, 40)):
        for error in ERRORS:
            value = error(p, y)
            assert 0 <= value <= 1
            assert error(p[order], y[order]) == pytest.approx(value, abs=1e-9)


@given(st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_copies_of_all_images_change_no_binned_error(seed: int) -> None:
    p, y = binary(seed, 40)
    for error in (expected_calibration_error, maximum_calibration_error, adaptive_calibration_error, brier_score):
        assert error(np.tile(p, 3), np.tile(y, 3)) == pytest.approx(error(p, y), abs=1e-12)


def test_unknown_labels_are_left_out_and_nothing_known_is_undefined() -> None:
    p, y = binary()
    some = y.copy()
    some[::3] = np.nan
    known = ~np.isnan(some)
    for metric in (*ERRORS, brier_score, negative_log_likelihood, debiased_calibration_error, risk_coverage_area):
        assert metric(p, some) == pytest.approx(metric(p[known], y[known]))
        assert math.isnan(metric(p, np.full(len(p), np.nan)))


@pytest.mark.parametrize("metric", [*ERRORS, brier_score, negative_log_likelihood, overconfidence, reliability_bins])
@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([2.0, -1.0], [0, 1], "Turn logits into probabilities"),
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], "Turn logits into probabilities"),
        ([0.5, np.nan], [0, 1], "in \\[0, 1\\]"),
        ([0.5, 0.2], [0, 2], "1, 0 or NaN"),
        ([0.5, 0.2], [0, 1, 1], "shape"),
        ([[0.5, 0.2]], [0], "sum to"),
        ([[0.5, 0.5]], [2], "classes 0 to 1"),
        ([[0.5, 0.5]], [0.5], "classes 0 to 1"),
        ([[1.0]], [0], "shape"),
    ],
)
def test_what_does_not_fit_is_refused(metric: Any, p: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metric(p, y)


def test_options_that_do_not_fit_are_refused() -> None:
    p, y = binary()
    for call in (
        lambda: expected_calibration_error(p, y, 0),
        lambda: kde_calibration_error(p, y, bandwidth=0),
        lambda: kde_calibration_error(p, y, kernel="dirichlet"),
        lambda: classwise_calibration_error(p, y),
        lambda: debiased_calibration_error(p, y, norm="l3"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError):
            call()
