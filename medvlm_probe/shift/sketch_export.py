"""What of a sketch may leave a hospital: no cell under ten patients, float32, and noise where it is asked for.

Bins of probabilities and of outlier scores are told in runs, each as short as ten patients allow (`sketch_cells`).

What one patient adds to each array is bounded by construction, whatever number of images the patient has: images weigh
1 / (images of the patient), vectors have unit length, features too, probabilities and residuals lie in [-1, 1]. So, for
a patient added or taken away, the length of the change (L2 sensitivity) is at most

    fold_patients, fold_features, fold_lengths   1 each: a patient is in one fold; mean features are no longer than 1
    embedding, products                          1 each: means of unit vectors, and of their outer products (Frobenius)
    label_weights, label_confidence, calls       sqrt(L): for each label the weights add up to 1, so their length is
                                                 at most 1; confidence is a probability times such a weight
    residuals                                    sqrt(5 L): five numbers in [-1, 1] for each label
    outlier_weights                              sqrt(O): weights that add up to 1 for each score

With noise, bins are put together first, into tenths of probability and every fifty of an outlier score, which leaves
the bounds as they are. Each of the B arrays that are not empty gets a B-th of the budget: a standard deviation of its
sensitivity times sqrt(B) times that of the analytic Gaussian mechanism at sensitivity 1. What is derived from the noisy
sums, suppression and runs too, costs nothing more. Counts of different patients are not exported then: they serve the
suppression of exact cells alone. Noise is drawn in floating point, whose last digits are outside the theorem (Mironov
2012); float32 rounds them away by a factor of 2^29.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.shift.gaussian_mechanism import gaussian_noise
from medvlm_probe.shift.sketch import ARRAYS, Sketch, with_folds
from medvlm_probe.shift.sketch_cells import (
    FEWEST,
    called_bins,
    coarse_label_ends,
    coarse_outlier_ends,
    joint_run_ends,
    run_ends,
    told_at,
)
from medvlm_probe.shift.sketch_plan import fold_counts
from medvlm_probe.types import BoolArray, FloatArray, IntArray

BINNED = ("label_weights", "label_confidence", "outlier_weights")

Array = NDArray[np.float64]


def export_sketch(
    working: Sketch, *, epsilon: float | None = None, delta: float | None = None, rng: np.random.Generator | None = None
) -> Sketch:
    """Return what may leave the hospital of a working sketch; suppressed cells are NaN.

    Args:
        working: the exact sketch.
        epsilon, delta: of the privacy of each patient; both, or neither for no noise.
        rng: draws the noise; seed it from the system's entropy, and never twice alike.

    Raises:
        InputError: an export already, under ten patients, half of a budget, or noise for a plan that was chosen on
            these very patients (its numbers would tell of them).
    """
    if working.kind != "working":
        raise InputError("This sketch is an export already.")
    if working.n_patients < FEWEST:
        raise InputError(f"{working.n_patients:.0f} patients: fewer than {FEWEST} are not exported.")
    folded = _folded(working)
    if epsilon is None and delta is None:
        return _rounded(replace(_suppressed(folded), kind="export"))
    if epsilon is None or delta is None or rng is None:
        raise InputError("Noise needs both epsilon and delta: --epsilon 1 --delta 1e-6.")
    if working.own_plan:
        raise InputError(
            "The bandwidth or thresholds of this sketch were chosen on its own patients, which noise cannot hide. "
            "Take another sketch's: --like REFERENCE.sketch."
        )
    return _rounded(_noised(folded, epsilon, delta, rng))


def sensitivities(sketch: Sketch) -> dict[str, float]:
    """Return the most that one patient changes each array that is not empty, in L2 (derived above)."""
    labels, scores = len(sketch.plan.labels), len(sketch.plan.outlier_scores)
    bounds = dict.fromkeys(("fold_patients", "fold_features", "fold_lengths", "embedding", "products"), 1.0)
    if labels:
        bounds |= dict.fromkeys(("label_weights", "label_confidence", "calls"), math.sqrt(labels))
        bounds["residuals"] = math.sqrt(5 * labels)
    if scores:
        bounds["outlier_weights"] = math.sqrt(scores)
    return bounds


def _folded(sketch: Sketch) -> Sketch:
    """Return the sketch with folds put together until each has ten patients."""
    counts = [n for n in fold_counts(sketch.plan.n_folds) if n <= len(sketch.fold_patients)]
    return next(
        each for n in counts if (each := with_folds(sketch, n)).fold_patients.min() >= FEWEST or n == counts[-1]
    )


def _noised(sketch: Sketch, epsilon: float, delta: float, rng: np.random.Generator) -> Sketch:
    bounds = sensitivities(sketch)
    unit = gaussian_noise(epsilon, delta) * math.sqrt(len(bounds))
    noise = {name: unit * bound for name, bound in bounds.items()}
    arrays: dict[str, Any] = {
        name: value + rng.normal(0, noise[name], value.shape)
        for name, value in sketch.arrays().items()
        if name in noise and name not in BINNED
    }
    if "calls" in noise:
        arrays["calls"] = np.where(arrays["calls"] < FEWEST, np.nan, arrays["calls"])
        weights, confidence = np.empty_like(sketch.label_weights), np.empty_like(sketch.label_weights)
        for k, threshold in enumerate(sketch.plan.thresholds):
            ends = coarse_label_ends(threshold)
            split = int(np.searchsorted(ends, called_bins(threshold)))
            rows = [_noisy(row, ends, noise["label_weights"], rng) for row in sketch.label_weights[k]]
            sums = [_noisy(row, ends, noise["label_confidence"], rng) for row in sketch.label_confidence[k]]
            for value, runs in enumerate(_label_runs(rows, [(0, split)] * len(rows))):
                told = np.full((2, weights.shape[2]), np.nan)
                told[:, ends] = told_at(runs, rows[value], sums[value])
                weights[k, value], confidence[k, value] = told
        arrays |= {"label_weights": weights, "label_confidence": confidence}
    if "outlier_weights" in noise:
        ends = coarse_outlier_ends()
        arrays["outlier_weights"] = np.full_like(sketch.outlier_weights, np.nan)
        for told, row in zip(arrays["outlier_weights"], sketch.outlier_weights, strict=True):
            noisy = _noisy(row, ends, noise["outlier_weights"], rng)
            told[ends] = told_at(run_ends(noisy), noisy)[0]
    return replace(
        sketch,
        kind="export",
        call_patients=np.full_like(sketch.call_patients, np.nan),
        images=np.array([np.nan]),
        noise=noise,
        privacy={"epsilon": epsilon, "delta": delta},
        **arrays,
    )


def _noisy(row: FloatArray, ends: IntArray, sd: float, rng: np.random.Generator) -> Array:
    """Return the sums of a row's bins up to each end, with noise."""
    return np.asarray(told_at(ends, row)[0][ends] + rng.normal(0, sd, len(ends)))


def _label_runs(rows: Sequence[FloatArray], starts: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    """Return the last bins of the runs of each value of a label; those of positives and negatives end together where
    they can, so that both can be held against each other.

    Args:
        rows: patients in each bin, a row for each value.
        starts: where runs begin anew, for each value; the same for positives and negatives.
    """
    joint = _in_parts(lambda first, last: joint_run_ends(*(r[first:last] for r in rows[:2])), starts[0], len(rows[0]))
    alike = [0, *(joint[:-1] + 1).tolist()]
    return [_runs(row, alike if value < 2 else starts[value]) for value, row in enumerate(rows)]


def _runs(weights: FloatArray, starts: Sequence[int]) -> NDArray[np.int64]:
    """Return the last bin of each run, none going on across a start."""
    return _in_parts(lambda first, last: run_ends(weights[first:last]), starts, len(weights))


def _in_parts(ends: Callable[[int, int], NDArray[np.int64]], starts: Sequence[int], n: int) -> NDArray[np.int64]:
    """Return the ends found in each part of n bins, part by part."""
    parts = zip(starts, [*starts[1:], n], strict=True)
    return np.concatenate([ends(first, last) + first for first, last in parts])


def _suppressed(sketch: Sketch) -> Sketch:
    totals = np.asarray(sketch.calls.sum(axis=2))
    # A patient may be on both sides of the threshold: there are as many as on one, and as many as weights add up to.
    values = hidden_cells(np.maximum(sketch.call_patients.max(axis=2), totals), totals)
    calls = values[..., None] | hidden_cells(sketch.call_patients, sketch.calls)
    # Calls of positives and negatives are told together or not at all, for their runs end together.
    calls[:, :2] |= calls[:, :2].any(axis=(1, 2), keepdims=True)
    # Residuals give the positives away: known patients and the mean residual, less the mean probability.
    untold = np.asarray(values[:, :2].any(axis=1))
    weights, confidence = np.full_like(sketch.label_weights, np.nan), np.full_like(sketch.label_confidence, np.nan)
    for k, threshold in enumerate(sketch.plan.thresholds):
        rows = sketch.label_weights[k]
        starts = [(0,) if hidden.any() else (0, called_bins(threshold)) for hidden in calls[k]]
        runs = _label_runs(rows, starts) if not untold[k] else [_runs(r, s) for r, s in zip(rows, starts, strict=True)]
        for value in np.flatnonzero(~values[k]).tolist():
            sums = sketch.label_confidence[k, value]
            weights[k, value], confidence[k, value] = told_at(runs[value], rows[value], sums)
    outliers = [told_at(run_ends(row), row)[0] for row in sketch.outlier_weights]
    return replace(
        sketch,
        label_weights=weights,
        label_confidence=confidence,
        calls=_without(sketch.calls, calls),
        call_patients=_without(sketch.call_patients, calls),
        residuals=_without(sketch.residuals, untold[:, None]),
        outlier_weights=np.array(outliers).reshape(sketch.outlier_weights.shape),
    )


def hidden_cells(patients: FloatArray, weights: FloatArray) -> BoolArray:
    """Return which cells of each row are suppressed, (..., cells): those of fewer than ten patients, and more of them
    until the row's total less what is shown stands for ten patients or for none.

    Args:
        patients: different patients in each cell, (..., cells).
        weights: the patients' weight in them, (..., cells).
    """
    cells = np.shape(patients)[-1]
    rows, totals = (np.asarray(a, dtype=np.float64).reshape(-1, cells) for a in (patients, weights))
    hidden: NDArray[np.bool_] = np.less(rows, FEWEST)
    for row, total, mask in zip(rows, totals, hidden, strict=True):
        while 0 < total[mask].sum() < FEWEST and not mask.all():
            mask[np.where(mask, np.inf, row).argmin()] = True
    return np.asarray(hidden.reshape(np.shape(patients)))


def _without(values: FloatArray, hidden: BoolArray) -> Array:
    return np.where(hidden, np.nan, values)


def _rounded(sketch: Sketch) -> Sketch:
    """Return the sums as float32 would hold them."""
    return replace(sketch, **{name: getattr(sketch, name).astype(np.float32).astype(np.float64) for name in ARRAYS})
