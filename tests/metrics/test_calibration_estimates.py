"""Calibration with intervals and bands: draws of a calibrated model, forms against plain values, several labels."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.bootstrap_calibration import calibration_replicates
from medvlm_probe.metrics.bootstrap_performance import replicate_weights
from medvlm_probe.metrics.calibration import (
    BINARY_METRICS,
    CLASS_METRICS,
    calibrated_outcomes,
    calibration_estimates,
    expected_calibration_error,
    multilabel_calibration,
    within_group_correlation,
)
from medvlm_probe.metrics.calibration_estimates import null_replicates
from medvlm_probe.metrics.calibration_forms import FORMS, binned_form, mean_form
from medvlm_probe.metrics.calibration_intervals import noise_of, outcome_variances
from medvlm_probe.metrics.calibration_null import calibrated_uniforms, drawn_classes
from medvlm_probe.metrics.calibration_problem import plain_values, problem_of
from medvlm_probe.metrics.calibration_replicates import outcome_statistic
from medvlm_probe.metrics.permutation import null_band


def binary(n: int = 300, size: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.8, 1.5, size=n)
    return p, (rng.random(n) < p**1.5).astype(float), np.arange(n) // size


def classes(n: int = 300, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.7), size=n)
    return p, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1), np.arange(n) // 2


# --- draws of a perfectly calibrated model --------------------------------------------------------------------------


def test_drawn_outcomes_have_the_probabilities_and_the_correlation() -> None:
    p = np.array([0.2, 0.2, 0.7, 0.3, 0.3])
    groups = np.array([0, 0, 0, 1, 2])
    for rho in (0.0, 0.3, 1.0):
        y = calibrated_outcomes(p, groups, 40_000, rho, np.random.default_rng(0)).astype(float)
        np.testing.assert_allclose(y.mean(axis=0), p, atol=0.01)
        covariance = np.cov(y.T)
        assert covariance[0, 1] == pytest.approx(rho * 0.2 * 0.8, abs=0.004)
        assert covariance[0, 2] == pytest.approx(rho * (0.2 - 0.2 * 0.7), abs=0.004)
        assert abs(covariance[0, 3]) < 0.004
        assert abs(covariance[3, 4]) < 0.004


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_correlation_within_groups_is_found(rho: float) -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(1500), 4)
    p = rng.beta(1, 2, size=1500)[groups] * 0.5 + rng.random(6000) * 0.5
    y = calibrated_outcomes(p, groups, 1, rho, rng)[0]
    assert within_group_correlation(p, y, groups) == pytest.approx(rho, abs=0.06)
    assert within_group_correlation(np.clip(p + 0.2, 0, 1), y, groups) == pytest.approx(rho, abs=0.12)


def test_correlation_is_assumed_where_it_cannot_be_told() -> None:
    p, y, _ = binary(60)
    assert within_group_correlation(p, y == 1, np.arange(60)) == 0
    assert within_group_correlation(np.full(4, 0.5), np.ones(4, dtype=bool), np.array([0, 0, 1, 1])) == 0.5


def test_drawn_classes_have_the_probabilities_and_are_right_below_the_confidence() -> None:
    p = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    u = np.random.default_rng(0).random((30_000, 3))
    drawn = drawn_classes(p, u)
    for row in range(3):
        np.testing.assert_allclose(np.bincount(drawn[:, row], minlength=3) / 30_000, p[row], atol=0.01)
    assert ((drawn == p.argmax(axis=1)) == (u < p.max(axis=1))).all()


def test_uniforms_come_in_blocks_that_sum_to_the_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm_probe.metrics.calibration_null._NUMBERS_AT_ONCE", 100)
    blocks = list(calibrated_uniforms(np.arange(30) // 2, 10, 0.5, np.random.default_rng(0)))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]


# --- bands -----------------------------------------------------------------------------------------------------------


def test_replicates_are_the_plain_metrics_of_the_drawn_labels() -> None:
    u = np.random.default_rng(3).random((4, 300))
    coarse = {"ece_kde": 0.03, "smooth_ece": 2e-3}
    for p, y, groups in (binary(), classes()):
        problem = problem_of(p, y, groups)
        values = outcome_statistic(problem)(u)
        for row, uniforms in zip(values, u, strict=True):
            drawn = (uniforms < p).astype(float) if p.ndim == 1 else drawn_classes(p, uniforms[None])[0]
            expected = plain_values(problem_of(p, drawn, groups))
            for name, value in zip(problem.metrics, row, strict=True):
                assert value == pytest.approx(expected[name], abs=coarse.get(name, 2e-6)), name


def test_band_of_ece_holds_what_a_calibrated_model_shows() -> None:
    p, _, groups = binary(200, 1)
    inside = []
    rng = np.random.default_rng(0)
    for _ in range(200):
        y = (rng.random(200) < p).astype(float)
        band = null_band(null_replicates(problem_of(p, y, groups, metrics=("ece",)), rng, 199)[:, 0])
        inside.append(band.low <= expected_calibration_error(p, y) <= band.high)
    assert 0.9 < np.mean(inside) < 0.99


def test_band_widens_with_correlation_within_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    p = np.repeat(rng.random(60), 10)
    together = calibrated_outcomes(p, groups, 1, 0.9, rng)[0].astype(float)
    alone = (rng.random(600) < p).astype(float)
    bands = [
        calibration_estimates(p, y, g, rng=rng, metrics=("ece",))["ece"].band.high
        for y, g in ((together, groups), (alone, groups), (alone, np.arange(600)))
    ]
    assert bands[0] > 1.5 * bands[1] > 1.5 * bands[2] * 0.9


# --- forms and intervals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_forms_give_the_plain_values(name: str) -> None:
    p, y, groups = binary(90)
    form = FORMS[name].form(p, 10)
    noise = noise_of(form, y - p, outcome_variances(p, y)[0], groups)
    expected = plain_values(problem_of(p, y, groups, metrics=[name]))[name]
    assert float(form.size(noise.value + form.offset)) == pytest.approx(
        expected, abs=1e-3 if name == "smooth_ece" else 1e-9
    )


@pytest.mark.parametrize("name", FORMS)
def test_covariance_is_the_jackknifes_where_groups_tell_it(name: str) -> None:
    p, y, groups = binary(600)
    form = FORMS[name].form(p, 10)
    noise = noise_of(form, y - p, np.zeros(600), groups)
    everything = np.arange(600)
    matrix, share = form.matrix(everything), form.share(everything)
    without = []
    for g in range(200):
        kept = groups != g
        without.append(((y - p)[kept] @ matrix[kept]) / share[kept].sum(axis=0))
    values = np.array(without)
    jackknife = 199 / 200 * ((values - noise.value).T @ (values - noise.value))
    df = noise.degrees_of_freedom - 8
    np.testing.assert_allclose(noise.covariance * (df + 8) / df, jackknife, rtol=1e-6, atol=1e-12)


def test_blocks_of_groups_do_not_change_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y, _ = binary(200)
    groups = np.random.default_rng(0).integers(40, size=200)
    form = binned_form(p, 10, "width")
    whole = noise_of(form, y - p, outcome_variances(p, y)[0], groups)
    for numbers in (10, 37, 200, 990, 1990):
        monkeypatch.setattr("medvlm_probe.metrics.calibration_intervals._NUMBERS_AT_ONCE", numbers)
        parts = noise_of(form, y - p, outcome_variances(p, y)[0], groups)
        np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(parts.value, whole.value)
        assert parts.degrees_of_freedom == pytest.approx(whole.degrees_of_freedom)


def test_mean_of_forms_is_the_mean_of_their_values() -> None:
    problems = [binary(50, seed=s) for s in range(3)]
    form = mean_form([binned_form(p, 10, "width") for p, _, _ in problems], [50] * 3)
    residual = np.concatenate([y - p for p, y, _ in problems])
    noise = noise_of(form, residual, np.ones(150), np.tile(np.arange(50), 3))
    expected = np.mean([expected_calibration_error(p, y) for p, y, _ in problems])
    assert float(form.size(noise.value)) == pytest.approx(expected)


def test_every_metric_has_a_value_an_interval_and_a_band() -> None:
    for (p, y, groups), names in ((binary(), BINARY_METRICS), (classes(), CLASS_METRICS)):
        found = calibration_estimates(p, y, groups, rng=np.random.default_rng(0), n_replicates=99)
        assert tuple(found) == names
        for name, each in found.items():
            assert each.plain == plain_values(problem_of(p, y, groups))[name], name
            assert each.estimate.low <= each.estimate.value <= each.estimate.high, name
            assert each.estimate.low < each.estimate.high, name
            assert each.band.low <= each.band.median <= each.band.high, name
            assert each.estimate.n_groups == (
                len(np.unique(groups)) if name != "sure_errors" else each.estimate.n_groups
            )
        json.dumps({name: each.to_json() for name, each in found.items()}, allow_nan=False)


def test_debiased_value_of_a_calibrated_model_is_below_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(60):
        p = rng.random(200)
        found = calibration_estimates(p, rng.random(200) < p, rng=rng, n_replicates=9, metrics=("ece",))["ece"]
        plain.append(found.plain)
        debiased.append(found.estimate.value)
    assert np.mean(debiased) < np.mean(plain) / 2


def test_same_seed_same_numbers_and_the_order_of_groups_does_not_matter() -> None:
    p, y, groups = binary()
    one, other = (
        calibration_estimates(p, y, g, rng=np.random.default_rng(5), n_replicates=99, metrics=("ece", "nll"))
        for g in (groups, 1000 - 7 * groups)
    )
    assert one["nll"].estimate.low == pytest.approx(other["nll"].estimate.low, rel=1e-12)
    assert one["ece"].estimate.low == pytest.approx(other["ece"].estimate.low, abs=1e-9)
    again = calibration_estimates(p, y, groups, rng=np.random.default_rng(5), n_replicates=99, metrics=("ece", "nll"))
    assert again == one


def test_few_groups_or_empty_bins_are_called_unreliable() -> None:
    p, y, _ = binary(40)
    few = calibration_estimates(p, y, np.arange(40) // 4, rng=np.random.default_rng(0), n_replicates=9)
    for name in ("ece", "ace", "mce", "ece_kde", "smooth_ece", "nll"):
        assert "interval unreliable" in few[name].to_json()["method"]
    many = calibration_estimates(p, y, rng=np.random.default_rng(0), n_replicates=9)
    assert many["ece"].estimate.reliable
    assert not many["mce"].estimate.reliable


@pytest.mark.parametrize("n", [0, 1, 2])
def test_next_to_nothing_gives_undefined_numbers_rather_than_errors(n: int) -> None:
    found = calibration_estimates(np.full(n, 0.3), np.ones(n), rng=np.random.default_rng(0), n_replicates=9)
    assert all(not each.estimate.reliable or each.estimate.n_groups == n for each in found.values())
    json.dumps({name: each.to_json() for name, each in found.items()}, allow_nan=False)
    assert math.isnan(found["ece_kde"].estimate.value) == (n < 2)


def test_unknown_metrics_and_groups_that_do_not_fit_are_refused() -> None:
    p, y, groups = binary()
    with pytest.raises(UnknownNameError, match="Did you mean ece"):
        calibration_estimates(p, y, groups, rng=np.random.default_rng(0), metrics=("ecee",))
    with pytest.raises(UnknownNameError, match="classwise_ece"):
        calibration_estimates(p, y, groups, rng=np.random.default_rng(0), metrics=("classwise_ece",))
    with pytest.raises(InputError, match="one each"):
        calibration_estimates(p, y, groups[:-1], rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="logits"):
        calibration_estimates(4 * p, y, groups, rng=np.random.default_rng(0))


# --- several labels --------------------------------------------------------------------------------------------------


def several(n: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four labels: two with some unknown, one with a single known image, one with none."""
    rng = np.random.default_rng(2)
    p = rng.beta(0.8, 2, size=(n, 4))
    y = (rng.random((n, 4)) < p**1.3).astype(float)
    y[rng.random((n, 4)) < 0.2] = np.nan
    y[1:, 2] = np.nan
    y[0, 2] = 1
    y[:, 3] = np.nan
    return p, y, np.arange(n) // 2


def test_labels_are_measured_alone_pooled_and_on_average() -> None:
    p, y, groups = several()
    found = multilabel_calibration(
        p, y, groups, label_names=("a", "b", "c", "d"), rng=np.random.default_rng(0), n_replicates=99
    )
    known = ~np.isnan(y)
    by_label = [plain_values(problem_of(p[:, k], y[:, k], groups)) for k in range(4)]
    pooled = plain_values(problem_of(p[known], y[known]))
    assert found.macro_labels == ("a", "b")
    for name in BINARY_METRICS:
        for k in range(3):
            np.testing.assert_equal(found.by_label[k][name].plain, by_label[k][name])
        assert math.isnan(found.by_label[3][name].plain)
        assert found.pooled[name].plain == pytest.approx(pooled[name])
    assert "sure_errors" not in found.macro
    for name, each in found.macro.items():
        assert each.plain == pytest.approx((by_label[0][name] + by_label[1][name]) / 2), name
        assert each.estimate.low <= each.estimate.value <= each.estimate.high, name
        assert each.estimate.n_groups == 120, name
        assert each.band.low < each.band.median < each.band.high, name
    assert found.pooled["ece"].estimate.n == known.sum()
    shown = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [row["label"] for row in shown["per_label"]] == ["a", "b", "c", "d"]
    assert shown["macro"]["labels"] == ["a", "b"]


def test_one_label_is_measured_alike_alone_pooled_and_on_average() -> None:
    p, y, groups = several()
    found = multilabel_calibration(
        p[:, :1], y[:, :1], groups, label_names=("a",), rng=np.random.default_rng(0), n_replicates=499
    )
    for name in ("ece", "ace", "brier", "nll", "overconfidence"):
        one, pooled, macro = (part[name] for part in (found.by_label[0], found.pooled, found.macro))
        assert one.plain == pooled.plain == macro.plain
        for other in (pooled, macro):
            assert other.estimate.high == pytest.approx(one.estimate.high, rel=0.12), name
            assert other.band.high == pytest.approx(one.band.high, rel=0.15, abs=0.01), name


def test_nothing_known_in_any_label_has_no_mean() -> None:
    p, y, _ = several()
    found = multilabel_calibration(p, y * np.nan, label_names="abcd", rng=np.random.default_rng(0), n_replicates=9)
    assert found.macro == {}
    assert math.isnan(found.pooled["ece"].plain)


def test_multilabel_input_that_does_not_fit_is_refused() -> None:
    p, y, groups = several()
    rng = np.random.default_rng(0)
    for arguments in ((p[:, 0], y[:, 0]), (p, y[:, :2]), (p * 9, y), (p, np.where(np.isnan(y), -1, y))):
        with pytest.raises(InputError):
            multilabel_calibration(*arguments, label_names="abcd", rng=rng)
    with pytest.raises(InputError, match="label names"):
        multilabel_calibration(p, y, groups, label_names="abc", rng=rng)


# --- bootstrap -------------------------------------------------------------------------------------------------------


def test_replicates_under_weights_are_the_metrics_of_the_drawn_images() -> None:
    for p, y, groups in (binary(60), classes(60)):
        weights = replicate_weights(groups, 5, np.random.default_rng(0))
        found = calibration_replicates(p, y, groups, weights)
        for b, drawn in enumerate(weights):
            rows = np.concatenate([np.flatnonzero(groups == g) for g, k in enumerate(drawn) for _ in range(int(k))])
            expected = plain_values(problem_of(p[rows], y[rows]))
            for name in ("ece", "mce", "brier", "nll", "overconfidence"):
                assert found[name][b] == pytest.approx(expected[name]), name
        once = calibration_replicates(p, y, groups, np.ones((1, int(groups.max()) + 1)))
        assert once["ace"][0] == pytest.approx(plain_values(problem_of(p, y))["ace"])
        assert once["accuracy"][0] == pytest.approx(problem_of(p, y).right.mean())
    with pytest.raises(InputError, match="expected"):
        calibration_replicates(p, y, groups, np.ones((2, 3)))
