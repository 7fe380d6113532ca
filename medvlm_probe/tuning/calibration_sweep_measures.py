"""What every method of a sweep is worth on the same images: each metric of each draw, and under two-way resampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.bootstrap_calibration import calibration_replicates
from medvlm_probe.metrics.calibration_estimates import null_replicates
from medvlm_probe.metrics.calibration_forms import kernel_form
from medvlm_probe.metrics.calibration_problem import problem_of
from medvlm_probe.metrics.permutation import NullBand, null_band
from medvlm_probe.metrics.ranked_scores import ranked_scores
from medvlm_probe.metrics.two_way_bootstrap import TwoWaySample, TwoWayWeights, mean_of, two_way_sample, two_way_weights
from medvlm_probe.tuning.calibration_comparison import classes_of
from medvlm_probe.types import FloatArray, IntArray

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.tuning.calibration_sweep import Outcome

POOLED, MACRO = "pooled", "macro"
"""Scopes beside the labels: the top label, or all labels' entries together; and the mean over labels."""

LARGER_BETTER = ("accuracy", "auroc")
ERRORS = ("ece", "ace", "mce", "ece_kde")
COMPARED = ("accuracy", "auroc", *ERRORS, "brier", "nll")
"""Metrics that are tested; over- and under-confidence have no better direction, and are shown alone."""

KERNEL_POINTS = 512
"""Images at which the kernel's calibration error is taken; the replicates' at fewer."""

NULL_REPLICATES = 200

_NUMBERS_AT_ONCE = 1 << 20

Samples = Mapping[str, TwoWaySample]


@dataclass(frozen=True, eq=False)
class Measured:
    """What one method is worth.

    Attributes:
        outcome: the method, and what it cost.
        scopes: `pooled`, for several labels `macro` and each label, to metrics.
        band: ECE, pooled, of perfectly calibrated models with these probabilities, one draw at a time.
        cosines: mean cosine between texts, (D,).
    """

    outcome: Outcome
    scopes: Mapping[str, Samples]
    band: NullBand
    cosines: NDArray[np.float64]

    @property
    def name(self) -> str:
        """The method's."""
        return self.outcome.method.name


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Every method on the same images.

    Attributes:
        methods: in order; the first is zero-shot.
        single: whether exactly one label is right an image.
        labels: of the task.
        n_images: with a known label.
        n_draws: of few-shot sets.
        site: whose images; "" for all.
    """

    methods: tuple[Measured, ...]
    single: bool
    labels: tuple[str, ...]
    n_images: int
    n_groups: int
    n_draws: int
    site: str = ""

    @property
    def main(self) -> tuple[str, str]:
        """The scope and name of the metric of right answers: accuracy, or the mean AUROC over labels."""
        return (POOLED, "accuracy") if self.single else (MACRO, "auroc")

    def named(self, name: str) -> Measured | None:
        """Return a method by name, None where it is not among them."""
        return next((method for method in self.methods if method.name == name), None)


def measure_sweep(
    outcomes: Iterable[Outcome],
    vectors: NDArray[np.floating],
    shown: Cohort,
    *,
    n_draws: int,
    site: str = "",
    n_resamples: int = 1000,
    seed: int = 0,
) -> SweepResult:
    """Return every method's metrics on the same images.

    Args:
        outcomes: of `run_sweep`; consumed one by one, so that memory holds one method's probabilities.
        vectors: embeddings of the images shown, (n, E).
        shown: those images; none of them was used for a fit.
        n_draws: D.
        site: whose images, for tables.
        n_resamples: B, of patients and draws.
        seed: of the resampling and of the bands; methods share both.

    Raises:
        InputError: no image has a known label.
    """
    kept = list(outcomes)
    labels = kept[0].labels
    truth, groups = shown.targets(labels).astype(np.float64), shown.groups()
    single = shown.card.task == "single_label"
    known = ~np.isnan(classes_of(truth)) if single else ~np.isnan(truth).all(axis=1)
    if not known.any():
        raise InputError(f"None of the images shown{f' of {site}' if site else ''} has a known label.")
    vectors, truth = vectors[known], truth[known]
    codes = np.unique(groups[known], return_inverse=True)[1].astype(np.int64)
    weights = two_way_weights(n_draws, int(codes.max()) + 1, n_resamples, np.random.default_rng(seed))
    methods = []
    for outcome in kept:
        p = outcome.probabilities(vectors)
        scopes = (
            _of_classes(p, classes_of(truth), codes, weights)
            if single
            else _of_labels(p, truth, codes, weights, labels)
        )
        band = _band(p, classes_of(truth) if single else truth, codes, seed)
        methods.append(Measured(outcome, scopes, band, outcome.cosines))
    return SweepResult(tuple(methods), single, labels, int(known.sum()), weights.groups.shape[1], n_draws, site)


def _of_classes(p: FloatArray, truth: FloatArray, codes: IntArray, weights: TwoWayWeights) -> dict[str, Samples]:
    return {POOLED: _samples(p, truth, codes, weights)}


def _of_labels(
    p: FloatArray, truth: FloatArray, codes: IntArray, weights: TwoWayWeights, labels: Sequence[str]
) -> dict[str, Samples]:
    n_labels = truth.shape[1]
    flat = p.reshape(len(p), -1)
    found: dict[str, Samples] = {POOLED: _samples(flat, truth.ravel(), np.repeat(codes, n_labels), weights)}
    by_label: dict[str, Samples] = {}
    for k, label in enumerate(labels):
        if np.isnan(truth[:, k]).all():
            continue
        samples = _samples(p[:, :, k], truth[:, k], codes, weights)
        by_label[label] = samples | {"auroc": _auroc(p[:, :, k], truth[:, k], codes, weights)}
    both_kinds = [s for s in by_label.values() if not np.isnan(s["auroc"].mean)]
    macro = {
        metric: mean_of([samples[metric] for samples in by_label.values()])
        for metric in next(iter(by_label.values()))
        if metric != "auroc"
    }
    if both_kinds:
        macro["auroc"] = mean_of([samples["auroc"] for samples in both_kinds])
    return found | {MACRO: macro} | by_label


def _samples(p: FloatArray, truth: FloatArray, codes: IntArray, weights: TwoWayWeights) -> dict[str, TwoWaySample]:
    """Return the metrics of each draw's probabilities (D, n) or (D, n, K) against labels (n,)."""
    with_all = np.concatenate([np.ones((1, weights.groups.shape[1])), weights.groups])
    found = [calibration_replicates(of_draw, truth, codes, with_all) for of_draw in p]
    exact = [_kernel_error(of_draw, truth) for of_draw in p]
    samples = {}
    for metric in found[0]:
        rows = np.stack([of_draw[metric] for of_draw in found])
        values = np.array(exact) if metric == "ece_kde" else rows[:, 0]
        samples[metric] = two_way_sample(values, rows[:, 1:], weights)
    return samples


def _kernel_error(p: FloatArray, truth: FloatArray) -> float:
    outcomes = problem_of(p, truth).outcomes
    if len(outcomes.confidence) < 2:
        return float("nan")
    form = kernel_form(outcomes.confidence, KERNEL_POINTS)
    sums = (outcomes.correct - outcomes.confidence) @ form.matrix(np.arange(len(outcomes.confidence)))
    return float(form.size(sums + form.offset))


def _auroc(p: FloatArray, truth: FloatArray, codes: IntArray, weights: TwoWayWeights) -> TwoWaySample:
    known = ~np.isnan(truth)
    drawn = np.ascontiguousarray(np.concatenate([np.ones((1, weights.groups.shape[1])), weights.groups]).T)
    step = max(1, _NUMBERS_AT_ONCE // max(1, int((truth == 1).sum())))
    rows = []
    for of_draw in p:
        ranked = ranked_scores(truth[known] == 1, of_draw[known], codes[known], len(drawn))
        parts = [
            ranked.auroc_and_average_precision(drawn[:, start : start + step])[0]
            for start in range(0, drawn.shape[1], step)
        ]
        rows.append(np.concatenate(parts))
    table = np.stack(rows)
    return two_way_sample(table[:, 0], table[:, 1:], weights)


def _band(p: FloatArray, truth: FloatArray, codes: IntArray, seed: int) -> NullBand:
    """Return the band of ECE that perfectly calibrated models with these probabilities would show, all draws' taken
    together."""
    owners = codes if truth.ndim == 1 else np.repeat(codes, truth.shape[1])
    each = max(10, NULL_REPLICATES // len(p))
    drawn = [
        null_replicates(
            problem_of(of_draw if truth.ndim == 1 else of_draw.ravel(), truth.ravel(), owners, metrics=("ece",)),
            np.random.default_rng([seed, number]),
            each,
        )[:, 0]
        for number, of_draw in enumerate(p)
    ]
    return null_band(np.concatenate(drawn))
