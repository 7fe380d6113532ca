"""What of a sketch may leave a hospital: no cell under ten patients, float32, and noise where it is asked for.

What one patient adds to each array is bounded by construction, whatever number of images the patient has: images weigh
1 / (images of the patient), vectors have unit length, features too, probabilities and residuals lie in [-1, 1]. So, for
a patient added or taken away, the length of the change (L2 sensitivity) is at most

    fold_patients, fold_features, fold_lengths   1 each: a patient is in one fold; mean features are no longer than 1
    embedding, products                          1 each: means of unit vectors, and of their outer products (Frobenius)
    label_weights, label_confidence, calls       sqrt(L): for each label the weights add up to 1, so their length is
                                                 at most 1; confidence is a probability times such a weight
    residuals                                    sqrt(5 L): five numbers in [-1, 1] for each label
    outlier_weights                              sqrt(O): weights that add up to 1 for each score

With noise, each of the B arrays that are not empty gets a B-th of the budget: a standard deviation of its sensitivity
times sqrt(B) times that of the analytic Gaussian mechanism at sensitivity 1. What is derived from the noisy sums, the
suppression too, costs nothing more. Counts of different patients are not exported then: they serve the suppression of
exact cells alone. Noise is drawn in floating point, whose last digits are outside the theorem (Mironov 2012); float32
rounds them away by a factor of 2^29.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.shift.gaussian_mechanism import gaussian_noise
from medvlm_probe.shift.sketch import ARRAYS, Sketch, with_folds
from medvlm_probe.shift.sketch_plan import TENTHS, coarse_bins, fold_counts
from medvlm_probe.types import BoolArray, FloatArray

FEWEST = 10
"""Patients in a cell below which it is suppressed."""

CELLS = ("label_weights", "calls", "outlier_weights")
PATIENT_COUNTS = ("label_patients", "call_patients", "outlier_patients")

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
    coarse = _coarse(working)
    if epsilon is None and delta is None:
        return _rounded(replace(_suppressed(coarse), kind="export"))
    if epsilon is None or delta is None or rng is None:
        raise InputError("Noise needs both epsilon and delta: --epsilon 1 --delta 1e-6.")
    if working.own_plan:
        raise InputError(
            "The bandwidth or thresholds of this sketch were chosen on its own patients, which noise cannot hide. "
            "Take another sketch's: --like REFERENCE.sketch."
        )
    return _rounded(_noised(coarse, epsilon, delta, rng))


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


def _coarse(sketch: Sketch) -> Sketch:
    """Return the sketch with folds put together until each has ten patients, and coarse bins of outlier scores."""
    counts = [n for n in fold_counts(sketch.plan.n_folds) if n <= len(sketch.fold_patients)]
    folded = next(
        each for n in counts if (each := with_folds(sketch, n)).fold_patients.min() >= FEWEST or n == counts[-1]
    )
    return replace(folded, outlier_weights=coarse_bins(sketch.outlier_weights))


def _noised(sketch: Sketch, epsilon: float, delta: float, rng: np.random.Generator) -> Sketch:
    bounds = sensitivities(sketch)
    unit = gaussian_noise(epsilon, delta) * math.sqrt(len(bounds))
    noise = {name: unit * bound for name, bound in bounds.items()}
    arrays: dict[str, Any] = {
        name: value + rng.normal(0, noise[name], value.shape)
        for name, value in sketch.arrays().items()
        if name in noise
    }
    for name in CELLS:
        if name in arrays:
            arrays[name] = np.where(arrays[name] < FEWEST, np.nan, arrays[name])
    if "label_confidence" in arrays:
        arrays["label_confidence"] = np.where(np.isnan(arrays["label_weights"]), np.nan, arrays["label_confidence"])
    arrays |= {name: np.full_like(getattr(sketch, name), np.nan) for name in PATIENT_COUNTS}
    return replace(
        sketch,
        kind="export",
        images=np.array([np.nan]),
        noise=noise,
        privacy={"epsilon": epsilon, "delta": delta},
        **arrays,
    )


def _suppressed(sketch: Sketch) -> Sketch:
    values = hidden_cells(np.asarray(sketch.call_patients.max(axis=2)), np.asarray(sketch.calls.sum(axis=2)))
    calls = values[..., None] | hidden_cells(sketch.call_patients, sketch.calls)
    bins = values[..., None] | _hidden_bins(sketch)
    # Residuals give the positives away: known patients and the mean residual, less the mean probability.
    untold = np.asarray(values[:, :2].any(axis=1))
    outliers = hidden_cells(sketch.outlier_patients, sketch.outlier_weights)
    return replace(
        sketch,
        label_weights=_without(sketch.label_weights, bins),
        label_confidence=_without(sketch.label_confidence, bins),
        label_patients=_without(sketch.label_patients, bins),
        calls=_without(sketch.calls, calls),
        call_patients=_without(sketch.call_patients, calls),
        residuals=_without(sketch.residuals, untold[:, None]),
        outlier_weights=_without(sketch.outlier_weights, outliers),
        outlier_patients=_without(sketch.outlier_patients, outliers),
    )


def _hidden_bins(sketch: Sketch) -> BoolArray:
    """Hide bins on each side of the threshold apart: the calls tell the total of each side."""
    hidden = np.zeros(sketch.label_weights.shape, dtype=bool)
    for label, threshold in enumerate(sketch.plan.thresholds):
        split = int(np.searchsorted(TENTHS, threshold, side="right")) + 1
        for side in (slice(0, split), slice(split, None)):
            cells = sketch.label_patients[label, :, side], sketch.label_weights[label, :, side]
            hidden[label, :, side] = hidden_cells(*cells)
    return hidden


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
