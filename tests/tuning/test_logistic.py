"""Many logistic regressions at once, against scikit-learn's one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.logistic import rotate, solve


def problems(seed: int, n: int, d: int, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return standardised features with a fast falling spectrum, labels, and rows that are left out here and there."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) * np.exp(-4 * np.arange(d) / d)[:, None])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    logits = x @ rng.normal(size=(d, c)) / np.sqrt(d) * 2 - np.linspace(0, 3, c)
    y = (rng.random((n, c)) < 1 / (1 + np.exp(-logits))).astype(float)
    y[0], y[1] = 0, 1
    kept = (rng.random((n, c)) < 0.8).astype(float)
    kept[:2] = 1
    return x, y, kept


@pytest.mark.parametrize(("n", "d"), [(300, 40), (60, 100)])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10.0])
def test_solutions_are_scikit_learns(n: int, d: int, strength: float) -> None:
    x, y, kept = problems(0, n, d, 5)
    rotated = rotate(x)
    solution, logits = solve(rotated, y, kept, np.full(5, strength), rotated.start(5), tolerance=1e-9)
    weights, biases = rotated.coefficients(solution)
    np.testing.assert_allclose(x @ weights.T + biases, logits, atol=1e-9)
    for k in range(5):
        rows = kept[:, k] == 1
        theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000).fit(x[rows], y[rows, k])
        np.testing.assert_allclose(weights[k], theirs.coef_[0], atol=1e-4)
        assert biases[k] == pytest.approx(theirs.intercept_[0], abs=1e-4)


@given(st.integers(0, 1000), st.integers(8, 60), st.integers(1, 30), st.floats(-4, 1))
@settings(max_examples=25, deadline=None)
def test_the_gradient_is_zero_whatever_the_start(seed: int, n: int, d: int, log_strength: float) -> None:
    x, y, kept = problems(seed, n, d, 3)
    strength = np.full(3, 10.0**log_strength)
    rotated = rotate(x)
    start = np.random.default_rng(seed).normal(size=rotated.start(3).shape)
    weights, biases = rotated.coefficients(solve(rotated, y, kept, strength, start, tolerance=1e-8)[0])
    residual = kept * (1 / (1 + np.exp(-(x @ weights.T + biases))) - y)
    assert np.abs(residual.sum(axis=0)).max() < 1e-6 * n
    assert np.abs((x.T @ residual).T + weights / strength[:, None]).max() < 1e-5 * n


def test_problems_do_not_disturb_each_other() -> None:
    x, y, kept = problems(1, 200, 20, 4)
    rotated, strength = rotate(x), np.array([1e-3, 1e-2, 1e-1, 1.0])
    together, _ = solve(rotated, y, kept, strength, rotated.start(4), tolerance=1e-9)
    for k in range(4):
        one = slice(k, k + 1)
        alone, _ = solve(rotated, y[:, one], kept[:, one], strength[one], rotated.start(1), tolerance=1e-9)
        np.testing.assert_allclose(together[:, one], alone, atol=1e-5)


def test_single_precision_comes_near() -> None:
    x, y, kept = problems(2, 400, 30, 4)
    exact, single = rotate(x), rotate(x).in_single_precision()
    strength = np.full(4, 0.01)
    _, logits = solve(exact, y, kept, strength, exact.start(4), tolerance=1e-9)
    _, rough = solve(single, y, kept, strength, single.start(4), tolerance=3e-5)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, logits, atol=5e-3)


def test_what_the_features_do_not_span_has_no_weight() -> None:
    x, y, kept = problems(3, 100, 6, 2)
    doubled = np.hstack([x, x[:, :2]])
    rotated = rotate(doubled)
    assert rotated.features.shape == (100, 6)
    solution, _ = solve(rotated, y, kept, np.full(2, 0.1), rotated.start(2), tolerance=1e-10)
    weights, _ = rotated.coefficients(solution)
    np.testing.assert_allclose(weights[:, :2], weights[:, 6:], atol=1e-8)


def test_what_cannot_be_solved_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, kept = problems(4, 100, 10, 2)
    monkeypatch.setattr("medvlm_probe.tuning.logistic.MAX_STEPS", 2)
    rotated = rotate(x)
    with pytest.raises(InputError, match="not solved after 2 steps"):
        solve(rotated, y, kept, np.full(2, 100.0), rotated.start(2), tolerance=1e-12)
