"""How frequent each of K answers is at a site without labels, where exactly one answer is right an image.

The same two estimates as `label_shift`: black-box shift estimation from the calls' confusion matrix, and expectation
maximisation from probabilities that are calibrated on the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.intervals import effective_size
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.label_shift import MIN_GROUPS, Verdict
from medvlm_probe.shift.mixture import MixtureFit, fit_mixture, remaining_test
from medvlm_probe.shift.two_sides import bounded_estimate, harmonic_size, leave_folds_out
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, TestResult

METHOD_BBSE = "black-box shift estimation, t interval over groups of both sides"
METHOD_EM = "expectation maximisation, score interval over folds of groups of both sides"
N_CUTS = 40
FLOOR = 1e-9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClassShift:
    """The shares of K classes at a site, estimated without labels there; K entries each.

    Attributes:
        reference: shares at the reference.
        bbse, em: shares at the site by the two methods, each within [0, 1].
        condition_number: of the matrix of calls given the class; 1 is a perfect classifier, infinite tells nothing.
        misfit: greatest distance between the site's distribution of any class's probability and that of the mixture.
        misfit_test: of the squared distances, integrated and averaged over classes.
        verdict: as in `LabelShift`; `cannot be told` where the least singular value of the matrix of calls is within
            two standard errors of 0.
    """

    reference: tuple[Estimate, ...]
    bbse: tuple[Estimate, ...]
    em: tuple[Estimate, ...]
    condition_number: float
    misfit: float
    misfit_test: TestResult
    verdict: Verdict


def estimate_class_shift(
    classes: IntArray,
    reference_probabilities: ArrayLike,
    site_probabilities: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    level: float = 0.05,
) -> ClassShift:
    """Return the shares of the classes at a site by both methods, and whether they can be believed.

    Args:
        classes: of the reference's images, 0 ... K - 1, each present, (n,).
        reference_probabilities, site_probabilities: rows that sum to 1, (n, K) and (m, K).
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        rng: deals folds and draws multipliers.
        level: of the misfit test.

    Raises:
        InputError: shapes or values that do not fit, logits, or a class that the reference lacks.

    Source: Lipton, Wang and Smola 2018; Saerens, Latinne and Decaestecker 2002; Alexandari, Kundaje and Shrikumar 2020
        (temperature and biases).
    """
    y = np.asarray(classes)
    p = checked_probabilities(reference_probabilities, y)[0]
    q = np.asarray(site_probabilities, dtype=np.float64)
    n_classes = p.shape[1] if p.ndim == 2 else 0
    if n_classes < 2 or q.shape != (len(q), n_classes) or not np.isfinite(q).all() or len(np.unique(y)) != n_classes:
        raise InputError(
            f"Probabilities {p.shape} and {q.shape}, {len(np.unique(y))} classes present: expected (n, K) and (m, K) "
            "and each of K classes at the reference. For one label use estimate_label_shift."
        )
    own, other = checked_groups(reference_groups, len(y)), checked_groups(site_groups, len(q))
    calls = fit_mixture(y, _one_hot(p), _one_hot(q), own, other)
    curve = _fit_temperature(p, y)
    soft = _with_features(y, special.softmax(_scaled(p, curve), axis=1), special.softmax(_scaled(q, curve), axis=1))
    mixture = fit_mixture(y, soft[0], soft[1], own, other, reference_features=soft[2], site_features=soft[3])
    test = remaining_test(mixture, rng=rng)
    verdict: Verdict = "usable" if test.p_value > level else "assumption does not hold"
    fewest = min(len(np.unique(other)), *(len(np.unique(own[y == k])) for k in range(n_classes)))
    told = _separates(y, p, own)
    return ClassShift(
        reference=tuple(proportion(y == k, own) for k in range(n_classes)),
        bbse=_bbse(calls, len(q), len(np.unique(other)), reliable=told and fewest >= MIN_GROUPS),
        em=_em(y, p, q, own, other, fewest if told else 0, rng),
        condition_number=calls.condition_number,
        misfit=float(np.abs(mixture.remaining).max()),
        misfit_test=test,
        verdict=verdict if told else "cannot be told",
    )


def _one_hot(probabilities: Array) -> Array:
    return np.asarray(np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)])


def _with_features(y: IntArray, p: Array, q: Array) -> tuple[Array, Array, Array, Array]:
    features: tuple[list[Array], list[Array]] = ([], [])
    for k in range(p.shape[1]):
        cuts = np.unique(np.quantile(np.concatenate([p[:, k], q[:, k]]), np.arange(1, N_CUTS) / N_CUTS))
        for side, values in zip(features, (p, q), strict=True):
            side.append((values[:, k, None] <= cuts).astype(np.float64))
    return p, q, np.hstack(features[0]), np.hstack(features[1])


def _separates(y: IntArray, p: Array, groups: IntArray) -> bool:
    """Say whether the least singular value of the matrix of calls given the class lies above its noise."""
    calls = _one_hot(p)
    n_classes = p.shape[1]
    matrix = np.stack([calls[y == k].mean(axis=0) for k in range(n_classes)], axis=1)
    left, singular, right = np.linalg.svd(matrix)
    residual = (calls - matrix.T[y]) @ left[:, -1] * right[-1][y] / np.bincount(y)[y]
    error = math.sqrt(float((np.bincount(groups, weights=residual) ** 2).sum()))
    return bool(singular[-1] > 2 * error + 1e-9)


def _bbse(fit: MixtureFit, n: int, n_groups: int, *, reliable: bool) -> tuple[Estimate, ...]:
    reach = stats.t.ppf(0.975, max(min(fit.n_reference_groups, n_groups) - 1, 1)) * np.sqrt(fit.share_variances)
    low, high = np.clip(fit.raw_shares - reach, 0, 1), np.clip(fit.raw_shares + reach, 0, 1)
    return tuple(
        Estimate(float(v), min(float(a), float(v)), max(float(b), float(v)), n, n_groups, METHOD_BBSE, reliable)
        for v, a, b in zip(fit.shares, low, high, strict=True)
    )


def _fit_temperature(p: Array, y: IntArray) -> Array:
    """Return the inverse temperature and K biases, the first 0, that fit the reference's classes best, (K + 1,)."""
    logs = np.log(np.maximum(p, FLOOR))
    hot = np.eye(p.shape[1])[y]

    def loss(parameters: Array) -> tuple[float, Array]:
        z = parameters[0] * logs + np.concatenate([[0.0], parameters[1:]])
        wrong = (special.softmax(z, axis=1) - hot) / len(y)
        value = float((special.logsumexp(z, axis=1) - (z * hot).sum(axis=1)).mean())
        return value, np.concatenate([[(wrong * logs).sum()], wrong.sum(axis=0)[1:]])

    start = np.concatenate([[1.0], np.zeros(p.shape[1] - 1)])
    found = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-7})
    return np.concatenate([[found.x[0], 0.0], found.x[1:]])


def _scaled(p: Array, curve: Array) -> Array:
    return np.asarray(curve[0] * np.log(np.maximum(p, FLOOR)) + curve[1:])


def expectation_maximisation(probabilities: FloatArray, reference_shares: FloatArray, *, steps: int = 300) -> Array:
    """Return the shares at which re-weighting the reference's posterior probabilities comes to rest, (K,).

    Args:
        probabilities: of the site's images, calibrated at the reference's shares, (m, K).
        reference_shares: all above 0, (K,).
        steps: at most so many; it ends earlier once no share moves by 1e-8.

    Source: Saerens, Latinne and Decaestecker 2002; extrapolated as Varadhan and Roland 2008 (SQUAREM).
    """
    ratio = np.asarray(probabilities, dtype=np.float64) / np.asarray(reference_shares)

    def moved(shares: Array) -> Array:
        joint = ratio * shares
        return np.asarray((joint / joint.sum(axis=1, keepdims=True)).mean(axis=0))

    shares = np.asarray(reference_shares, dtype=np.float64)
    for _ in range(steps):
        first = moved(shares)
        second = moved(first)
        if np.abs(second - first).max() < 1e-8:
            return second
        change, turn = first - shares, second - 2 * first + shares
        length = max(1.0, float(np.linalg.norm(change)) / max(float(np.linalg.norm(turn)), 1e-300))
        leap = np.maximum(shares + 2 * length * change + length**2 * turn, FLOOR)
        shares = moved(leap / leap.sum())
    return shares


def _em(
    y: IntArray, p: Array, q: Array, own: IntArray, other: IntArray, fewest: int, rng: np.random.Generator
) -> tuple[Estimate, ...]:
    n_classes = p.shape[1]

    def shares(kept_reference: BoolArray, kept_site: BoolArray) -> FloatArray:
        curve = _fit_temperature(p[kept_reference], y[kept_reference])
        known = np.bincount(y[kept_reference], minlength=n_classes) / kept_reference.sum()
        if (known == 0).any():
            return np.full(n_classes, np.nan)
        return expectation_maximisation(special.softmax(_scaled(q[kept_site], curve), axis=1), known)

    found = leave_folds_out(shares, own, other, rng=rng)
    size = harmonic_size(effective_size(own), effective_size(other))
    return tuple(
        bounded_estimate(found, k, size=size, method=METHOD_EM, n_scarce=fewest, min_groups=MIN_GROUPS)
        for k in range(n_classes)
    )
