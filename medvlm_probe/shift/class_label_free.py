"""Accuracy at a site without labels, where exactly one of K answers is right an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.intervals import effective_size
from medvlm_probe.shift.label_free import MIN_GROUPS, thresholded_share
from medvlm_probe.shift.mixture import fit_mixture
from medvlm_probe.shift.two_sides import bounded_estimate, harmonic_size, leave_folds_out
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

Array = NDArray[np.float64]


def _average_confidence(p: Array, y: IntArray, q: Array) -> float:
    return float(q.max(axis=1).mean())


def _difference_of_confidences(p: Array, y: IntArray, q: Array) -> float:
    right = float((p.argmax(axis=1) == y).mean())
    return float(np.clip(right + q.max(axis=1).mean() - p.max(axis=1).mean(), 0, 1))


def _average_thresholded_confidence(p: Array, y: IntArray, q: Array) -> float:
    return thresholded_share(p.max(axis=1), p.argmax(axis=1) == y, q.max(axis=1))


def _label_shift(p: Array, y: IntArray, q: Array) -> float:
    n_classes = p.shape[1]
    if len(np.unique(y)) != n_classes:
        return float("nan")
    calls, site_calls = (np.eye(n_classes)[side.argmax(axis=1)] for side in (p, q))
    fit = fit_mixture(y, calls, site_calls, np.arange(len(y)), np.arange(len(q)))
    recalls = np.bincount(y, weights=p.argmax(axis=1) == y) / np.bincount(y)
    return float(fit.shares @ recalls)


METHODS: dict[str, Callable[[Array, IntArray, Array], float]] = {
    "average_confidence": _average_confidence,
    "difference_of_confidences": _difference_of_confidences,
    "average_thresholded_confidence": _average_thresholded_confidence,
    "label_shift": _label_shift,
}


def class_label_free(
    classes: IntArray,
    reference_probabilities: ArrayLike,
    site_probabilities: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    methods: tuple[str, ...] = tuple(METHODS),
) -> dict[str, Estimate]:
    """Return the estimated accuracy of the site's top answers by method, in [0, 1].

    The methods are those of `label_free`, on the confidence in the top answer.

    Args:
        classes: of the reference's images, 0 ... K - 1, (n,).
        reference_probabilities, site_probabilities: rows that sum to 1, (n, K) and (m, K).
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        rng: deals groups to folds.
        methods: of `METHODS`.

    Raises:
        InputError: shapes or values that do not fit; logits.
        UnknownNameError: no such method.
    """
    y = np.asarray(classes)
    p = checked_probabilities(reference_probabilities, y)[0]
    q = np.asarray(site_probabilities, dtype=np.float64)
    if p.ndim != 2 or q.ndim != 2 or q.shape[1] != p.shape[1]:
        raise InputError(f"Probabilities {p.shape} and {q.shape}: expected (n, K) and (m, K). For one label use (n,).")
    checked_probabilities(q, q.argmax(axis=1))
    own, other = checked_groups(reference_groups, len(p)), checked_groups(site_groups, len(q))
    size = harmonic_size(effective_size(own), effective_size(other))
    result = {}
    for name in methods:
        if name not in METHODS:
            raise unknown_name("label-free method", name, METHODS)
        method = METHODS[name]

        def accuracy(
            kept: BoolArray, kept_site: BoolArray, method: Callable[[Array, IntArray, Array], float] = method
        ) -> FloatArray:
            return np.array([method(p[kept], y[kept], q[kept_site])])

        words = f"{name.replace('_', ' ')}, score interval over folds of groups of both sides, if its assumption holds"
        found = leave_folds_out(accuracy, own, other, rng=rng, reference_strata=y)
        result[name] = bounded_estimate(found, 0, size=size, method=words, min_groups=MIN_GROUPS)
    return result
