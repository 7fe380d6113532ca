"""Post-hoc calibration against scikit-learn, brute-force minimisation and its own properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, logsumexp, softmax
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.tuning import post_hoc_fits as fits
from medvlm_probe.tuning.post_hoc import LEAST, POST_HOC, Calibrator, fit_post_hoc, load_calibrator
from medvlm_probe.types import ScoreKind, Scores

Array = NDArray[np.float64]


def scores_of(values: Array, kind: ScoreKind = "logit") -> Scores:
    return Scores(
        values, kind, tuple(f"label_{k}" for k in range(values.shape[1])), tuple(str(i) for i in range(len(values)))
    )


def multi(rng: np.random.Generator, n: int = 400, n_labels: int = 3, sharp: float = 3.0) -> tuple[Array, Array]:
    """Return logits that are `sharp` times too large, and labels with some unknown."""
    true = rng.normal(-0.7, 1.5, (n, n_labels))
    y = (rng.random((n, n_labels)) < expit(true)).astype(np.float64)
    y[rng.random((n, n_labels)) < 0.1] = np.nan
    return sharp * true + 0.5, y


def single(rng: np.random.Generator, n: int = 400, k: int = 4, sharp: float = 3.0) -> tuple[Array, Array]:
    true = rng.normal(0, 1.5, (n, k))
    drawn = np.array([rng.choice(k, p=row) for row in softmax(true, axis=1)])
    y = np.eye(k)[drawn]
    y[:7] = np.nan
    return sharp * true, y


def binary_nll(raw: Array, y: Array) -> float:
    return float(np.mean(np.logaddexp(0, raw) - y * raw))


def platt_loss(numbers: Array, z: Array, y: Array) -> float:
    return binary_nll(numbers[0] * z + numbers[1], y)


def softmax_nll(raw: Array, y: Array) -> float:
    return float(np.mean(logsumexp(raw, axis=1) - (raw * y).sum(axis=1)))


def fitted(method: str, z: Array, y: Array, task: str = "multi_label", **options: int) -> Calibrator:
    return fit_post_hoc(method, scores_of(z), y, task=task, source="calib", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sharp", [0.05, 1.0, 20.0])
def test_a_temperature_for_all_labels_is_the_best_one(rng: np.random.Generator, sharp: float) -> None:
    z, y = multi(rng, sharp=sharp)
    z -= 0.5
    known = ~np.isnan(y)
    slope = fitted("temperature", z, y).curves[0].numbers[0]
    best = minimize_scalar(
        lambda inverse: binary_nll(inverse * z[known], y[known]),
        bounds=(0.01, 100),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert slope == pytest.approx(best.x, rel=1e-5)
    gradient = np.mean((expit(slope * z[known]) - y[known]) * z[known])
    assert abs(gradient) < 1e-12 * max(1.0, float(np.abs(z).max()))


@pytest.mark.parametrize("sharp", [0.05, 1.0, 20.0])
def test_a_softmax_temperature_is_the_best_one(rng: np.random.Generator, sharp: float) -> None:
    z, y = single(rng, sharp=sharp)
    known = ~np.isnan(y).any(axis=1)
    calibrator = fitted("temperature", z, y, "single_label")
    slope = calibrator.curves[0].numbers[0]
    best = minimize_scalar(
        lambda inverse: softmax_nll(inverse * z[known], y[known]),
        bounds=(0.01, 100),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert slope == pytest.approx(best.x, rel=1e-5)
    gradient = np.mean(((softmax(slope * z[known], axis=1) - y[known]) * z[known]).sum(axis=1))
    assert abs(gradient) < 1e-12 * max(1.0, float(np.abs(z).max()))
    np.testing.assert_allclose(calibrator.apply(scores_of(z)).values, softmax(slope * z, axis=1), rtol=1e-12)


def test_a_temperature_for_each_label_is_that_of_the_label_alone(rng: np.random.Generator) -> None:
    z, y = multi(rng)
    each = fitted("temperature_per_label", z, y)
    for k in range(3):
        alone = fitted("temperature", z[:, [k]], y[:, [k]])
        assert each.curves[k] == alone.curves[0]
    assert (each.n_parameters, fitted("temperature", z, y).n_parameters) == (3, 1)


def test_platt_is_scikit_learn_s_sigmoid(rng: np.random.Generator) -> None:
    z, y = multi(rng)
    calibrator = fitted("platt", z, y)
    found = calibrator.apply(scores_of(z)).values
    for k in range(3):
        known = ~np.isnan(y[:, k])
        theirs = _SigmoidCalibration().fit(z[known, k], y[known, k]).predict(z[:, k])
        np.testing.assert_allclose(found[:, k], theirs, atol=2e-4)
        targets = fits.smoothed_targets(y[known, k])
        a, b = calibrator.curves[k].numbers
        best = minimize(platt_loss, [1.0, 0.0], args=(z[known, k], targets), method="BFGS", tol=1e-12)
        np.testing.assert_allclose((a, b), best.x, rtol=1e-5, atol=1e-6)
        residual = expit(a * z[known, k] + b) - targets
        assert max(abs(residual.mean()), abs((residual * z[known, k]).mean())) < 1e-12


def test_beta_is_a_logistic_regression_on_the_logs_of_the_probability(rng: np.random.Generator) -> None:
    z, y = multi(rng, n_labels=1)
    known = ~np.isnan(y[:, 0])
    s = expit(z[known])
    logs = np.column_stack([np.log(s), -np.log(1 - s)])
    theirs = LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000).fit(logs, y[known, 0])
    assert (theirs.coef_ > 0).all()
    numbers = fitted("beta", z, y).curves[0].numbers
    np.testing.assert_allclose(numbers, [*theirs.coef_[0], *theirs.intercept_], rtol=1e-3, atol=1e-4)


def test_beta_keeps_its_slopes_from_falling(rng: np.random.Generator) -> None:
    at_bounds = 0
    for _ in range(30):
        z = rng.normal(0, 2, (60, 1))
        y = (rng.random((60, 1)) < 0.3 + 0.3 * expit(-3 * z) * rng.random()).astype(np.float64)
        a, b, c = fitted("beta", z, y).curves[0].numbers
        features = fits.beta_features(z[:, 0])
        best = minimize(
            lambda w, features=features, y=y: binary_nll(features @ w, y[:, 0]),
            [1.0, 1.0, 0.0],
            bounds=[(0, None), (0, None), (None, None)],
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        at_bounds += a == 0 or b == 0
        assert min(a, b) >= 0
        assert binary_nll(features @ [a, b, c], y[:, 0]) <= best.fun + 1e-10
    assert at_bounds > 5


def test_beta_of_large_logits_is_finite() -> None:
    z = np.array([[-800.0], [-3.0], [0.0], [2.0], [900.0]])
    features = fits.beta_features(z[:, 0])
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features[0], [-800, 0, 1])
    np.testing.assert_allclose(features[3], [np.log(expit(2)), -np.log(1 - expit(2)), 1])


def test_isotonic_is_scikit_learn_s_within_its_ends(rng: np.random.Generator) -> None:
    z, y = multi(rng)
    found = fitted("isotonic", z, y).apply(scores_of(z)).values
    for k in range(3):
        known = ~np.isnan(y[:, k])
        n = int(known.sum())
        theirs = IsotonicRegression(out_of_bounds="clip").fit(z[known, k], y[known, k]).predict(z[known, k])
        np.testing.assert_allclose(found[known, k], np.clip(theirs, 1 / (n + 2), (n + 1) / (n + 2)), atol=1e-12)


def brute_isotonic(y: Array) -> Array:
    """Return the nearest increasing sequence by the largest means of lower and smallest of upper stretches."""
    n = len(y)
    means = np.array([[y[i : j + 1].mean() if j >= i else np.nan for j in range(n)] for i in range(n)])
    return np.array([max(np.nanmin(means[i, k:]) for i in range(k + 1)) for k in range(n)])


def test_isotonic_by_brute_force(rng: np.random.Generator) -> None:
    z = np.arange(30.0)
    y = (rng.random(30) < expit((z - 15) / 4)).astype(np.float64)
    found = fitted("isotonic", z[:, None], y[:, None]).apply(scores_of(z[:, None])).values[:, 0]
    np.testing.assert_allclose(found, np.clip(brute_isotonic(y), 1 / 32, 31 / 32), atol=1e-12)


def test_vector_scaling_minimises_its_penalised_likelihood(rng: np.random.Generator) -> None:
    z, y = single(rng)
    z = log_softmax(z * [0.5, 1, 1, 2] + [1, 0, 0, -1], axis=1)
    known = ~np.isnan(y).any(axis=1)
    calibrator = fitted("vector", z, y, "single_label")
    slopes, offsets = np.array([curve.numbers for curve in calibrator.curves]).T
    temperature = 1 / fitted("temperature", z, y, "single_label").curves[0].numbers[0]
    n, k = int(known.sum()), 4

    def objective(parameters: Array) -> float:
        moved = parameters - np.r_[np.ones(k), np.zeros(k)]
        raw = parameters[:k] * z[known] / temperature + parameters[k:]
        return softmax_nll(raw, y[known]) + float(moved @ moved) / (2 * n)

    best = minimize(objective, np.r_[np.ones(k), np.zeros(k)], method="BFGS", tol=1e-10)
    np.testing.assert_allclose(np.r_[slopes * temperature, offsets], best.x, atol=1e-4)
    residual = (softmax(slopes * z[known] + offsets, axis=1) - y[known]).mean(axis=0) + offsets / n
    assert np.abs(residual).max() < 1e-12
    temperature_nll = softmax_nll(z[known] / temperature, y[known])
    assert softmax_nll(slopes * z[known] + offsets, y[known]) < temperature_nll - 0.01


def test_vector_scaling_stays_finite_for_separable_classes() -> None:
    y = np.eye(3)[np.repeat(np.arange(3), 8)]
    calibrator = fitted("vector", 4 * y + 0.1, y, "single_label")
    numbers = np.array([curve.numbers for curve in calibrator.curves])
    assert np.isfinite(numbers).all()
    assert calibrator.n_parameters == 6


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
def test_single_label_curves_are_one_class_against_the_rest(rng: np.random.Generator, method: str) -> None:
    z, y = single(rng)
    calibrator = fitted(method, z, y, "single_label")
    found = calibrator.apply(scores_of(z)).values
    odds = logit(softmax(z, axis=1))
    rest = fitted(method, odds, y, "multi_label")
    raw = rest.apply(scores_of(odds)).values
    np.testing.assert_allclose(found, raw / raw.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_log_odds_against_the_rest_are_exact_for_large_logits() -> None:
    z = np.array([[800.0, 0.0, -5.0]] * 6 + [[0.0, 3.0, 0.0]] * 6)
    y = np.eye(3)[[0] * 5 + [1] + [1] * 6]
    found = fitted("platt", z, y, "single_label", least=1).apply(scores_of(z)).values
    assert np.isfinite(found).all()


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_probabilities_are_taken_as_their_logits(rng: np.random.Generator, task: str) -> None:
    z, y = (multi if task == "multi_label" else single)(rng, sharp=1.0)
    p = expit(z) if task == "multi_label" else softmax(z, axis=1)
    for method, spec in POST_HOC.items():
        if task in spec.tasks:
            from_logits = fitted(method, z, y, task).apply(scores_of(z)).values
            calibrator = fit_post_hoc(method, scores_of(p, "probability"), y, task=task, source="calib")  # type: ignore[arg-type]
            found = calibrator.apply(scores_of(p, "probability"))
            assert found.kind == "probability"
            np.testing.assert_allclose(found.values, from_logits, atol=1e-6)
    certain = scores_of(np.where(p > 0.5, 1.0, 0.0), "probability")
    assert np.isfinite(fit_post_hoc("none", certain, y, task=task, source="x").apply(certain).values).all()  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), sharp=st.floats(0.02, 50), task=st.sampled_from(["multi_label", "single_label"]))
def test_temperature_keeps_order_and_argmax_and_never_worsens_the_fit(seed: int, sharp: float, task: str) -> None:
    z, y = (multi if task == "multi_label" else single)(np.random.default_rng(seed), n=60, sharp=sharp)
    calibrator = fitted("temperature", z, y, task)
    found = calibrator.apply(scores_of(z)).values
    slope = calibrator.curves[0].numbers[0]
    assert slope > 0
    if task == "single_label":
        np.testing.assert_array_equal((slope * z).argmax(axis=1), z.argmax(axis=1))
        known = ~np.isnan(y).any(axis=1)
        assert softmax_nll(slope * z[known], y[known]) <= softmax_nll(z[known], y[known]) + 1e-12
    else:
        known = ~np.isnan(y)
        assert (np.diff(np.take_along_axis(found, z.argsort(axis=0), axis=0), axis=0) >= 0).all()
        assert binary_nll(slope * z[known], y[known]) <= binary_nll(z[known], y[known]) + 1e-12


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["beta", "isotonic"]))
def test_beta_and_isotonic_never_fall(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    z, y = multi(rng, n=50, n_labels=1, sharp=float(rng.normal(0, 3)))
    found = fitted(method, z, y).apply(scores_of(np.linspace(-20, 20, 200)[:, None])).values[:, 0]
    assert (np.diff(found) >= -1e-15).all()
    assert ((found >= 0) & (found <= 1)).all()
    if method == "isotonic":
        assert 1 / 52 <= found.min() <= found.max() <= 51 / 52


def test_all_methods_repair_what_is_overconfident(rng: np.random.Generator) -> None:
    z, y = multi(rng, 3000)
    z_test, y_test = multi(rng, 3000)
    known = ~np.isnan(y_test)

    def brier(p: Array) -> float:
        return float(np.mean((p[known] - y_test[known]) ** 2))

    before = brier(fitted("none", z, y).apply(scores_of(z_test)).values)
    for method, spec in POST_HOC.items():
        if method != "none" and "multi_label" in spec.tasks:
            assert brier(fitted(method, z, y).apply(scores_of(z_test)).values) < before - 0.01


def test_unknown_labels_say_nothing(rng: np.random.Generator) -> None:
    z, y = multi(rng)
    z_more, y_more = np.vstack([z, rng.normal(0, 50, (20, 3))]), np.vstack([y, np.full((20, 3), np.nan)])
    for method in ("temperature", "platt", "beta", "isotonic"):
        assert fitted(method, z_more, y_more).curves == fitted(method, z, y).curves
    z, y = single(rng)
    for method in ("temperature", "vector", "platt"):
        known = ~np.isnan(y).any(axis=1)
        np.testing.assert_allclose(
            fitted(method, z, y, "single_label").apply(scores_of(z)).values,
            fitted(method, z[known], y[known], "single_label").apply(scores_of(z)).values,
            rtol=1e-12,
        )


def test_labels_with_too_few_keep_their_own_probabilities(rng: np.random.Generator) -> None:
    z, y = multi(rng, 100)
    y[:, 1] = 0
    y[: LEAST - 1, 1] = 1
    y[:, 2] = np.nan
    for method in ("temperature_per_label", "platt", "beta", "isotonic"):
        calibrator = fitted(method, z, y)
        found = calibrator.apply(scores_of(z)).values
        np.testing.assert_allclose(found[:, 1:], expit(z[:, 1:]))
        assert not np.allclose(found[:, 0], expit(z[:, 0]))
        assert calibrator.notes == (
            "label_1 keeps its own probabilities: 4 positives and 96 negatives, at least 5 of each are needed.",
            "label_2 keeps its own probabilities: 0 positives and 0 negatives, at least 5 of each are needed.",
        )
        assert calibrator.n_known[1:] == (100, 0)
        assert calibrator.n_positive[1:] == (4, 0)
    assert fitted("platt", z, y, least=3).curves[1].numbers != (1, 0)


def test_labels_with_too_few_may_share_a_temperature(rng: np.random.Generator) -> None:
    z, y = multi(rng, 100)
    y[:, 1] = np.r_[np.ones(3), np.zeros(97)]
    own, joint = fitted("platt", z, y), fitted("temperature", z, y)
    shared = fitted("platt", z, y, share_temperature=True)
    assert shared.curves == (own.curves[0], joint.curves[1], own.curves[2])
    assert shared.n_parameters == own.n_parameters + 1 == 5
    assert shared.notes == ("Labels with too few positives or negatives take the temperature of all labels: label_1.",)
    assert fitted("platt", z[:, [0]], y[:, [0]], share_temperature=True) == fitted("platt", z[:, [0]], y[:, [0]])
    lone = fitted("platt", z[:, [1]], y[:, [1]], share_temperature=True)
    assert "label_0 keeps its own probabilities" in lone.notes[0]


def test_joint_fits_with_too_few_change_nothing(rng: np.random.Generator) -> None:
    z, y = multi(rng, 100)
    all_absent = fitted("temperature", z, np.zeros_like(y))
    assert all_absent.notes == (
        "All labels keep their own probabilities: 0 positives and 300 negatives, at least 5 of each are needed.",
    )
    np.testing.assert_allclose(all_absent.apply(scores_of(z)).values, expit(z))
    z, y = single(rng, 100)
    y[7:] = np.eye(4)[0]
    for method in ("temperature", "vector"):
        calibrator = fitted(method, z, y, "single_label")
        assert calibrator.n_parameters == 0
        assert "All labels keep their own probabilities" in calibrator.notes[0]
        np.testing.assert_allclose(calibrator.apply(scores_of(z)).values, softmax(z, axis=1))
    alike = fitted("temperature", np.ones((40, 2)), np.tile([[0.0, 1.0], [1.0, 0.0]], (20, 1)))
    assert "scores are all alike" in alike.notes[0]


def test_fits_at_their_bounds_say_so() -> None:
    z, y = np.r_[np.full(9, -2.0), np.full(9, 2.0)][:, None], np.r_[np.zeros(9), np.ones(9)][:, None]
    for method in ("temperature", "temperature_per_label"):
        assert "ended at its bound 0.01: the scores separate" in fitted(method, z, y).notes[0]
        assert "ended at its bound 100: the scores say nothing, or the opposite" in fitted(method, -z, y).notes[0]
    for method in ("platt", "beta", "isotonic"):
        found = fitted(method, z, y).apply(scores_of(z)).values
        assert ((found > 0.02) & (found < 0.98)).all()
    assert "higher scores are less often right" in fitted("platt", -z, y).notes[0]
    level = fitted("platt", np.zeros((20, 1)), np.r_[np.ones(5), np.zeros(15)][:, None])
    np.testing.assert_allclose(level.apply(scores_of(np.zeros((2, 1)))).values, (5 * 6 / 7 + 15 / 17) / 20)


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_saved_and_loaded(tmp_path: Path, rng: np.random.Generator, task: str) -> None:
    z, y = (multi if task == "multi_label" else single)(rng, 120)
    y[:, 0] = np.where(np.isnan(y[:, 0]), np.nan, y[:, 0])
    for method, spec in POST_HOC.items():
        if task not in spec.tasks:
            continue
        calibrator = fitted(method, z, y, task)
        calibrator.save(tmp_path / "c.json")
        again = load_calibrator(tmp_path / "c.json")
        assert again == calibrator
        np.testing.assert_array_equal(again.apply(scores_of(z)).values, calibrator.apply(scores_of(z)).values)
        assert json.loads((tmp_path / "c.json").read_text())["source"] == "calib"


def test_files_that_are_no_calibration(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(InputError, match="There is no calibration"):
        load_calibrator(path)
    fitted("platt", *multi(rng)).save(path)
    good = json.loads(path.read_text())
    for text in ("{", "[]", "{}", json.dumps({**good, "more": 1}), json.dumps({**good, "curves": 3})):
        path.write_text(text)
        with pytest.raises(InputError, match=r"c\.json is no calibration"):
            load_calibrator(path)
    for change in ({"method": "magic"}, {"mode": "x"}, {"labels": ["a"]}, {"curves": [{"shape": "x", "numbers": []}]}):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match="does not know"):
            load_calibrator(path)


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    z, y = multi(rng, 40)
    with pytest.raises(UnknownNameError, match="Did you mean temperature"):
        fitted("temprature", z, y)
    with pytest.raises(InputError, match=r"'vector' is not for multi_label tasks\. Take platt"):
        fitted("vector", z, y)
    with pytest.raises(InputError, match="do not fit scores"):
        fitted("platt", z, y[:, :2])
    with pytest.raises(InputError, match="must be 1, 0 or NaN"):
        fitted("platt", z, np.where(y == 1, -1, y))
    with pytest.raises(InputError, match="exactly one label of 1"):
        fitted("temperature", z, np.ones_like(y), "single_label")
    with pytest.raises(InputError, match="Cosines are no logits"):
        fit_post_hoc("platt", scores_of(np.tanh(z), "cosine"), y, task="multi_label", source="x")
    calibrator = fitted("platt", z, y)
    with pytest.raises(InputError, match="same labels in the same order"):
        calibrator.apply(scores_of(z[:, :2]))


def test_real_outputs_of_a_densenet(shared_dir: Path) -> None:
    folder = shared_dir / "real_cxr" / "iu_xray" / "model_outputs"
    calib, test = (pd.read_csv(folder / f"densenet_abnormal_{part}.csv") for part in ("calib", "test"))

    def probabilities(table: pd.DataFrame) -> Scores:
        values = table[["prob_image_raw"]].to_numpy(np.float64)
        return Scores(values, "probability", ("abnormal",), tuple(table["study"]))

    truth = calib[["label"]].to_numpy(np.float64)
    y = test["label"].to_numpy(np.float64)

    def nll(method: str) -> float:
        fit = fit_post_hoc(method, probabilities(calib), truth, task="multi_label", source="calib")
        assert fit.notes == ()
        p = fit.apply(probabilities(test)).values[:, 0]
        return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))

    # The published Platt column was fitted on the whole calibration part, of which four fifths are here.
    published = -np.mean(y * np.log(test["prob_image_cal"]) + (1 - y) * np.log(1 - test["prob_image_cal"]))
    assert nll("platt") == pytest.approx(published, abs=0.01)
