"""Fits behind post-hoc calibration: one label's curve, or softmax logits, by minimising the negative log-likelihood."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp, softmax

Array = NDArray[np.float64]

BRACKET = (0.01, 100.0)
"""The least and the greatest temperature."""

_NEWTON_STEPS = 200
_SMALLEST_STEP = 2.0**-40


def binary_temperature(logits: Array, targets: Array) -> float:
    """Return the temperature T that minimises the mean negative log-likelihood of logistic(logits / T).

    In 1/T it is convex, so its slope has one root; an end of `BRACKET` is returned where the root lies beyond.

    Args:
        logits: (n,). targets: (n,), 1 or 0.
    """
    return _temperature(lambda inverse: float(np.mean((expit(inverse * logits) - targets) * logits)))


def softmax_temperature(logits: Array, one_hot: Array) -> float:
    """Return the temperature of softmax(logits / T), as `binary_temperature`; arrays are (n, K)."""

    def slope(inverse: float) -> float:
        return float(np.mean(((softmax(inverse * logits, axis=1) - one_hot) * logits).sum(axis=1)))

    return _temperature(slope)


def _temperature(slope: Callable[[float], float]) -> float:
    least, most = 1 / BRACKET[1], 1 / BRACKET[0]
    if slope(least) >= 0:
        return BRACKET[1]
    if slope(most) <= 0:
        return BRACKET[0]
    return 1 / float(brentq(slope, least, most, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=500))


def smoothed_targets(targets: Array) -> Array:
    """Return Platt's targets: (n1 + 1) / (n1 + 2) for the n1 positives, 1 / (n0 + 2) for the n0 negatives."""
    n_positive, n_negative = float(targets.sum()), float((1 - targets).sum())
    return np.where(targets == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))


def platt(logits: Array, targets: Array) -> tuple[float, float]:
    """Return a and b of logistic(a logit + b): Platt 2000, with his smoothed targets, so that both are finite.

    A label whose logits are all equal gets a = 0 and the share of positives.
    """
    centre, spread = float(logits.mean()), float(logits.std())
    smooth = smoothed_targets(targets)
    if spread <= 1e-12 * max(1.0, abs(centre)):
        return 0.0, _log_odds(float(smooth.mean()))
    design = np.column_stack([(logits - centre) / spread, np.ones_like(logits)])
    slope, offset = logistic_regression(design, smooth).tolist()
    return slope / spread, offset - slope * centre / spread


def beta(logits: Array, targets: Array) -> tuple[float, float, float]:
    """Return a, b, c of logistic(a ln s - b ln(1 - s) + c), s = logistic(logit), with a and b at least 0.

    Kull, Silva Filho and Flach 2017. Where a threshold separates the classes without error there is no optimum; then
    Platt's smoothed targets are fitted.
    """
    positive, negative = logits[targets == 1], logits[targets == 0]
    separable = negative.max() <= positive.min() or positive.max() <= negative.min()
    goal = smoothed_targets(targets) if separable else targets
    design = beta_features(logits)
    found: list[tuple[float, tuple[float, float, float]]] = []
    for free in ((0, 1), (0,), (1,), ()):
        weights = np.zeros(3)
        weights[[*free, 2]] = logistic_regression(design[:, [*free, 2]], goal)
        if np.isfinite(weights).all() and (weights[:2] >= 0).all():
            found.append((logistic_loss(design @ weights, goal), (weights[0], weights[1], weights[2])))
    a, b, c = min(found)[1]
    return float(a), float(b), float(c)


def beta_features(logits: Array) -> Array:
    """Return ln s, -ln(1 - s) and 1 for s = logistic(logit), (n, 3), exact for large logits."""
    return np.column_stack([log_expit(logits), -log_expit(-logits), np.ones_like(logits)])


def isotonic(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Return the corners of the increasing curve nearest to the targets (pool adjacent violators), logits ascending.

    Values are kept within 1/(n + 2) and (n + 1)/(n + 2): n images never show that something is impossible.
    """
    from sklearn.isotonic import IsotonicRegression

    end = 1 / (len(logits) + 2)
    fit = IsotonicRegression(y_min=end, y_max=1 - end, out_of_bounds="clip").fit(logits, targets)
    return np.asarray(fit.X_thresholds_, dtype=np.float64), np.asarray(fit.y_thresholds_, dtype=np.float64)


def vector_scaling(logits: Array, one_hot: Array) -> tuple[Array, Array]:
    """Return w and b (K,) of softmax(w z + b) for log-probabilities z: Guo et al. 2017, from the best temperature T on.

    The likelihood has a normal prior of unit variance around w = 1/T, in units of 1/T, and b = 0: without it b has no
    unique optimum and separable classes none at all. It fades with the number of images.
    """
    temperature = softmax_temperature(logits, one_hot)
    z = logits / temperature
    n, k = z.shape
    start = np.concatenate([np.ones(k), np.zeros(k)])

    def terms(parameters: Array) -> tuple[float, Array, Array]:
        moved = parameters - start
        raw = parameters[:k] * z + parameters[k:]
        loss = float(np.mean(logsumexp(raw, axis=1) - (raw * one_hot).sum(axis=1)) + moved @ moved / (2 * n))
        p = softmax(raw, axis=1)
        residual = p - one_hot
        gradient = np.concatenate([(residual * z).mean(axis=0), residual.mean(axis=0)]) + moved / n
        pz = p * z
        mixed = np.diag(pz.sum(axis=0)) - pz.T @ p
        top = np.hstack([np.diag((pz * z).sum(axis=0)) - pz.T @ pz, mixed])
        bottom = np.hstack([mixed.T, np.diag(p.sum(axis=0)) - p.T @ p])
        return loss, gradient, (np.vstack([top, bottom]) + np.eye(2 * k)) / n

    parameters = _newton(terms, start)
    return parameters[:k] / temperature, parameters[k:]


def logistic_regression(design: Array, targets: Array) -> Array:
    """Return the weights (d,) of an unpenalised logistic regression of targets in [0, 1] on `design` (n, d).

    Weights that run away, as for classes that the columns separate, come back as far as they got.
    """

    def terms(weights: Array) -> tuple[float, Array, Array]:
        scores = design @ weights
        p = expit(scores)
        curvature = design.T @ (design * (p * (1 - p))[:, None])
        return logistic_loss(scores, targets), design.T @ (p - targets) / len(targets), curvature / len(targets)

    return _newton(terms, np.zeros(design.shape[1]))


def logistic_loss(scores: Array, targets: Array) -> float:
    """Return the mean negative log-likelihood of targets in [0, 1] under logistic(scores)."""
    return float(np.mean(-log_expit(-scores) - targets * scores))


def _newton(terms: Callable[[Array], tuple[float, Array, Array]], start: Array) -> Array:
    """Minimise a convex function (value, gradient, Hessian) by Newton steps, halved until the value falls."""
    at = start
    value, gradient, hessian = terms(at)
    for _ in range(_NEWTON_STEPS):
        if np.abs(gradient).max() < 1e-14:
            break
        step = np.linalg.lstsq(hessian, gradient, rcond=1e-14)[0]
        share = 1.0
        while share > _SMALLEST_STEP:
            new = terms(at - share * step)
            if new[0] < value or (new[0] == value and np.abs(new[1]).max() < np.abs(gradient).max()):
                break
            share /= 2
        else:
            break
        at = at - share * step
        value, gradient, hessian = new
    return at


def _log_odds(share: float) -> float:
    return float(np.log(share / (1 - share)))
