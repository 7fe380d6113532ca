"""How well a model works at a site without labels there, estimated from its scores and a labelled reference.

Each method gives what share of the site's images is called and present, called and absent, and so on; accuracy, recall,
precision, specificity and overconfidence follow. All rest on assumptions that the site may break: their intervals hold
the sampling error of both sides, not that, so estimates are believed as far as `validate_label_free` bears them out.

* `average_confidence`: the probabilities are right.
* `difference_of_confidences`: they are as wrong at the site as at the reference (Guillory et al. 2021).
* `average_thresholded_confidence`: right are those above the confidence that as many exceed at the reference as are
  right there (Garg et al. 2022), within called and not called images each.
* `label_shift`: recall and specificity are those of the reference, prevalence is the site's (`label_shift`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.calibration_bins import bin_edges, bins_of
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.group_jackknife import class_jackknife
from medvlm_probe.metrics.intervals import effective_size
from medvlm_probe.metrics.resampling import strata_with
from medvlm_probe.shift.two_sides import (
    TwoSided,
    bounded_estimate,
    checked_binary,
    harmonic_size,
    leave_folds_out,
    plain_estimate,
)
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

METRICS = ("accuracy", "recall", "precision", "specificity", "overconfidence", "calibration_error")
MIN_GROUPS = 10
N_BINS = 10

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """One side's images: P(present), whether called, and whether present (None where not known), (n,) each."""

    p: Array
    called: BoolArray
    present: BoolArray | None = None

    def kept(self, mask: BoolArray) -> Rows:
        """Return some rows."""
        return Rows(self.p[mask], self.called[mask], None if self.present is None else self.present[mask])


@dataclass(frozen=True)
class Table:
    """Shares of the site's images by call and presence, summing to 1."""

    true_positive: float
    false_positive: float
    false_negative: float
    true_negative: float


def average_confidence(reference: Rows, site: Rows) -> Table:
    """Return the table at which the site's probabilities are right."""
    return _by_calls(site, _mean(site.p[site.called]), _mean(1 - site.p[~site.called]))


def difference_of_confidences(reference: Rows, site: Rows) -> Table:
    """Return the table at which they are as wrong, within called and not called images, as at the reference."""
    right = []
    for called in (True, False):
        own, other = (r.called == called for r in (reference, site))
        confidence = [_mean(r.p[m] if called else 1 - r.p[m]) for r, m in ((reference, own), (site, other))]
        correct = _mean((_present(reference)[own] == called).astype(np.float64))
        right.append(float(np.clip(correct + confidence[1] - confidence[0], 0, 1)))
    return _by_calls(site, *right)


def average_thresholded_confidence(reference: Rows, site: Rows) -> Table:
    """Return the table at which images above a confidence are right, which is chosen at the reference."""
    right = []
    for called in (True, False):
        own, other = (r.called == called for r in (reference, site))
        confidence = [r.p[m] if called else 1 - r.p[m] for r, m in ((reference, own), (site, other))]
        right.append(thresholded_share(confidence[0], _present(reference)[own] == called, confidence[1]))
    return _by_calls(site, *right)


def thresholded_share(confidence: Array, correct: BoolArray, site_confidence: Array) -> float:
    """Return the share of the site above the confidence which as many exceed at the reference as are correct there.

    Ties at that confidence count by the share of them that the reference needs. NaN where either side has no images.

    Source: Garg et al. 2022, equation 5, with confidence as the score.
    """
    if not len(confidence) or not len(site_confidence):
        return float("nan")
    n_right = int(correct.sum())
    if n_right == 0:
        return float((site_confidence > confidence.max()).mean())
    threshold = np.sort(confidence)[len(confidence) - n_right]
    above, at = (confidence > threshold).sum(), (confidence == threshold).sum()
    of_ties = (n_right - above) / at
    return float((site_confidence > threshold).mean() + of_ties * (site_confidence == threshold).mean())


def label_shift(reference: Rows, site: Rows) -> Table:
    """Return the table at the reference's recall and specificity and the prevalence that the site's calls imply."""
    present = _present(reference)
    recall, false = _mean(reference.called[present] * 1.0), _mean(reference.called[~present] * 1.0)
    if not recall > false:
        return Table(*[float("nan")] * 4)
    share = float(np.clip((site.called.mean() - false) / (recall - false), 0, 1))
    return Table(share * recall, (1 - share) * false, share * (1 - recall), (1 - share) * (1 - false))


METHODS: dict[str, Callable[[Rows, Rows], Table]] = {
    "average_confidence": average_confidence,
    "difference_of_confidences": difference_of_confidences,
    "average_thresholded_confidence": average_thresholded_confidence,
    "label_shift": label_shift,
}


def _by_calls(site: Rows, of_called: float, of_others: float) -> Table:
    share = float(site.called.mean())
    # A side without images has no mean, and no weight either.
    called = (share * of_called, share * (1 - of_called)) if share > 0 else (0.0, 0.0)
    others = ((1 - share) * (1 - of_others), (1 - share) * of_others) if share < 1 else (0.0, 0.0)
    return Table(*called, *others)


def _present(rows: Rows) -> BoolArray:
    if rows.present is None:
        raise InputError("Labels of the reference are needed to estimate performance without labels at the site.")
    return rows.present


def _mean(values: FloatArray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def metrics_of(table: Table, site: Rows) -> Array:
    """Return accuracy, recall, precision, specificity and overconfidence (mean confidence less accuracy), (5,)."""
    accuracy = table.true_positive + table.true_negative
    confidence = float(np.where(site.called, site.p, 1 - site.p).mean())
    return np.array(
        [
            accuracy,
            _ratio(table.true_positive, table.true_positive + table.false_negative),
            _ratio(table.true_positive, table.true_positive + table.false_positive),
            _ratio(table.true_negative, table.true_negative + table.false_positive),
            confidence - accuracy,
        ]
    )


def estimate_label_free(
    labels: ArrayLike,
    reference_probabilities: ArrayLike,
    site_probabilities: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    threshold: float,
    rng: np.random.Generator,
    methods: tuple[str, ...] = tuple(METHODS),
) -> dict[str, dict[str, Estimate]]:
    """Return the estimates by method and metric of one label at a site without labels.

    Accuracy, recall, precision and specificity lie in [0, 1]; overconfidence is the mean confidence in the calls (p of
    called images, 1 - p of others) less their accuracy, in [-1, 1], 0 for a calibrated model (not of
    `average_confidence`, which assumes it to be 0); `calibration_error` (of
    `label_shift` alone) is the root mean square gap between probability and frequency of the re-weighted reference,
    freed from its bias, in [0, 1].

    Args:
        labels: of the reference's images, 1, 0 or NaN (left out), (n,).
        reference_probabilities, site_probabilities: P(present), (n,) and (m,). The reference must not be what the
            probabilities were calibrated on, nor what the threshold was chosen on.
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        threshold: the least probability that is called.
        rng: deals groups to folds.
        methods: of `METHODS`.

    Raises:
        InputError: shapes or values that do not fit, logits, or a reference without positives or negatives.
        UnknownNameError: no such method.
    """
    reference, site, own, other = _sides(
        labels, reference_probabilities, site_probabilities, reference_groups, site_groups, threshold
    )
    strata = strata_with(_present(reference), own)
    scarce = min(len(np.unique(own[_present(reference) == kind])) for kind in (True, False))
    result = {}
    for name in methods:
        if name not in METHODS:
            raise unknown_name("label-free method", name, METHODS)
        statistic = partial(_evaluate, METHODS[name], reference, site)
        found = leave_folds_out(statistic, own, other, rng=rng, reference_strata=strata)
        estimates = _estimates(found, reference, own, other, name, scarce)
        if name == "average_confidence":
            # It takes the probabilities for right, so it can say nothing of how far they are not.
            del estimates["overconfidence"]
        if name == "label_shift":
            estimates["calibration_error"] = _calibration_error(found, own, other, scarce)
        result[name] = estimates
    return result


def _sides(
    labels: ArrayLike, p: ArrayLike, q: ArrayLike, own: IntArray, other: IntArray, threshold: float
) -> tuple[Rows, Rows, IntArray, IntArray]:
    if np.ndim(p) != 1 or np.ndim(q) != 1:
        raise InputError("Probabilities (n, K) given: this takes those of one label. Use class_label_free for classes.")
    reference, y = checked_probabilities(p, labels)
    site = checked_probabilities(q, np.full(len(np.asarray(q)), np.nan))[0]
    label = checked_binary(y, len(reference))
    groups = checked_groups(own, len(reference))
    known = ~np.isnan(label)
    rows = Rows(reference[known], reference[known] >= threshold, label[known] == 1)
    return rows, Rows(site, site >= threshold), groups[known], checked_groups(other, len(site))


def _evaluate(
    method: Callable[[Rows, Rows], Table], reference: Rows, site: Rows, kept: BoolArray, kept_site: BoolArray
) -> Array:
    own, other = reference.kept(kept), site.kept(kept_site)
    table = method(own, other)
    values = metrics_of(table, other)
    if method is not label_shift:
        return values
    return np.concatenate([values, _weighted_gap(own, table.true_positive + table.false_negative)])


def _estimates(
    found: TwoSided, reference: Rows, own: IntArray, other: IntArray, name: str, scarce: int
) -> dict[str, Estimate]:
    present = _present(reference)
    carriers = {
        "accuracy": np.ones(len(present), dtype=bool),
        "recall": present,
        "precision": reference.called,
        "specificity": ~present,
    }
    method = f"{name.replace('_', ' ')}, score interval over folds of groups of both sides, if its assumption holds"
    fewest = min(found.fewest_groups, scarce)
    estimates = {}
    for column, (metric, mask) in enumerate(carriers.items()):
        share = max(float(mask.mean()), 1 / len(mask))
        size = harmonic_size(effective_size(own[mask]), max(1.0, share * effective_size(other)))
        estimates[metric] = bounded_estimate(
            found, column, size=size, method=method, n_scarce=fewest, min_groups=MIN_GROUPS
        )
    plain = method.replace("score interval", "t interval")
    estimates["overconfidence"] = plain_estimate(found, 4, method=plain, n_scarce=fewest)
    return estimates


def _weighted_gap(reference: Rows, prevalence: float) -> Array:
    """Return the squared calibration error of the reference at another prevalence, less its bias, and the bias, (2,).

    Bins of equal mass; each image weighs as much as its kind does at the site.
    """
    present = _present(reference)
    share = float(present.mean())
    if not 0 < share < 1 or not np.isfinite(prevalence):
        return np.full(2, np.nan)
    w = np.where(present, prevalence / share, (1 - prevalence) / (1 - share)) / len(present)
    bins = np.unique(bins_of(reference.p, bin_edges(reference.p, N_BINS, "mass")), return_inverse=True)[1]
    mass = np.maximum(np.bincount(bins, weights=w), 1e-150)
    frequency = np.bincount(bins, weights=w * present) / mass
    gap = np.bincount(bins, weights=w * (present - reference.p)) / mass
    noise = np.bincount(bins, weights=(w * (present - frequency[bins])) ** 2) / mass**2
    bias = float(mass @ noise)
    return np.array([float(mass @ gap**2) - bias, bias])


def _calibration_error(found: TwoSided, own: IntArray, other: IntArray, scarce: int) -> Estimate:
    method = "label shift, group jackknife of the squared error, if its assumption holds"
    without = np.concatenate([found.without_reference[:, 5], found.without_site[:, 5]])
    strata = np.repeat([0, 1], [len(found.without_reference), len(found.without_site)])
    squared = class_jackknife(
        float(found.value[5]), without, strata, n=found.n, fewest=scarce, offset=float(found.value[6]), method=method
    )
    value, low, high = np.sqrt(np.maximum([squared.value, squared.low, squared.high], 0.0)).tolist()
    return Estimate(value, low, high, found.n, found.n_groups, method, squared.reliable)
