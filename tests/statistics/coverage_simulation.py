"""Simulated samples with known truths, and how often each interval covers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from medvlm_probe.metrics.bootstrap import (
    bca_bootstrap,
    group_bootstrap_weights,
    strata_with,
    studentised_bootstrap,
)
from medvlm_probe.metrics.intervals import (
    auroc_variance,
    binomial_variance,
    effective_size,
    group_folds,
    jackknife_interval,
    leave_one_out,
    score_bounds,
    score_interval,
)
from medvlm_probe.metrics.macro import macro_rank_estimates, macro_threshold_estimates
from medvlm_probe.metrics.proportions import proportion_bounds
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

AUROC = 0.85
RESAMPLES = 499


@dataclass(frozen=True)
class Design:
    """A cohort's layout: groups of 1 to 3 images, `positives` positive images and 200 negative ones (400 beside 200).

    With `varying` labels the positives lie anywhere, most of them in groups that also hold negatives; else groups are
    wholly positive or wholly negative. `correlation` is that of images within a group.
    """

    positives: int
    correlation: float
    varying: bool

    @cached_property
    def labels(self) -> BoolArray:
        n = self.positives + (200 if self.positives < 200 else 400)
        labels = np.arange(n) < self.positives
        return np.random.default_rng(0).permutation(labels) if self.varying else labels

    @cached_property
    def groups(self) -> IntArray:
        if self.varying:
            return grouped(len(self.labels))
        positive, negative = grouped(int(self.labels.sum())), grouped(int((~self.labels).sum()))
        return np.concatenate([positive, negative + positive.max() + 1])

    @cached_property
    def positive_groups(self) -> IntArray:
        return self.groups[self.labels]

    @property
    def n_positive_groups(self) -> int:
        return len(np.unique(self.positive_groups))

    def normals(self, n_simulations: int, rng: np.random.Generator) -> FloatArray:
        """Standard normals, correlated within groups, (S, n)."""
        shared = rng.standard_normal((n_simulations, self.groups.max() + 1))[:, self.groups]
        own = rng.standard_normal(shared.shape)
        return np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * own

    def scores(self, n_simulations: int, rng: np.random.Generator) -> FloatArray:
        """Scores whose AUROC between independent images is `AUROC`, (S, n)."""
        return self.normals(n_simulations, rng) + self.labels * SHIFT


SHIFT = float(np.sqrt(2) * stats.norm.ppf(AUROC))


def grouped(n: int) -> IntArray:
    """Group codes of n rows in groups of 2, 1, 3, 2, 1, 3, ... (the last cut)."""
    return np.repeat(np.arange(n), np.resize([2, 1, 3], n))[:n]


@dataclass(frozen=True)
class Outcome:
    """Of each simulation: whether the interval covers the truth, its width, whether it calls itself reliable, (S,)."""

    covered: BoolArray
    width: FloatArray
    reliable: BoolArray


def outcome(low: FloatArray, high: FloatArray, truth: float, reliable: BoolArray | bool) -> Outcome:
    low, high = np.asarray(low), np.asarray(high)
    covered = (low <= truth) & (truth <= high)
    return Outcome(covered, high - low, np.broadcast_to(np.asarray(reliable), covered.shape))


def outcome_of(estimates: list[Estimate], truth: float) -> Outcome:
    low, high, reliable = (np.array([getattr(e, f) for e in estimates]) for f in ("low", "high", "reliable"))
    return outcome(low, high, truth, reliable)


def group_sums(values: FloatArray, groups: IntArray) -> FloatArray:
    """Sums of values (..., n) by group, (..., G), for groups that are numbered from 0."""
    return values @ (groups[:, None] == np.unique(groups)).astype(np.float64)


def mean_without_groups(values: FloatArray, groups: IntArray) -> tuple[FloatArray, FloatArray]:
    """Means of values (S, n) and their leave-one-group-out values (S, G)."""
    sums, counts = group_sums(values, groups), group_sums(np.ones(values.shape[-1]), groups)
    total = sums.sum(axis=-1)
    return total / counts.sum(), (total[:, None] - sums) / (counts.sum() - counts)


def auroc_of_sorted(labels: BoolArray) -> Callable[[FloatArray], FloatArray]:
    """Weighted AUROC of rows sorted by ascending score without ties, as a function of weights (b, n)."""

    def statistic(weights: FloatArray) -> FloatArray:
        positive = weights * labels
        negative = weights - positive
        wins = (positive * np.cumsum(negative, axis=1)).sum(axis=1)
        return _ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))

    return statistic


def average_precision_of_sorted(labels: BoolArray) -> Callable[[FloatArray], FloatArray]:
    """Weighted average precision of rows sorted by ascending score without ties, as a function of weights (b, n)."""

    def statistic(weights: FloatArray) -> FloatArray:
        positive = (weights * labels)[:, ::-1]
        found = np.cumsum(positive, axis=1)
        precision = found / np.maximum(np.cumsum(weights[:, ::-1], axis=1), 1e-300)
        return _ratio((positive * precision).sum(axis=1), found[:, -1])

    return statistic


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


def true_average_precision(prevalence: float) -> float:
    """Average precision of endlessly many scores, by numerical integration over the positives' density."""
    x = np.linspace(-12, 12 + SHIFT, 20001)
    found, false = stats.norm.sf(x - SHIFT), stats.norm.sf(x)
    precision = prevalence * found / np.maximum(prevalence * found + (1 - prevalence) * false, 1e-300)
    return float(np.trapezoid(precision * stats.norm.pdf(x - SHIFT), x))


def auroc_without_groups(scores: FloatArray, labels: BoolArray, groups: IntArray) -> tuple[FloatArray, FloatArray]:
    """AUROCs of scores (S, n) without ties and their leave-one-group-out values (S, G), from ranks."""
    ranks = stats.rankdata(scores, axis=1)
    wins = np.empty_like(ranks)
    wins[:, labels] = ranks[:, labels] - stats.rankdata(scores[:, labels], axis=1)
    wins[:, ~labels] = labels.sum() - ranks[:, ~labels] + stats.rankdata(scores[:, ~labels], axis=1)
    total = wins[:, labels].sum(axis=1)
    inner = np.zeros((len(scores), int(groups.max()) + 1))
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero((groups == groups[i]) & ~labels):
            inner[:, groups[i]] += scores[:, i] > scores[:, j]
    p, n = (group_sums(mask.astype(np.float64), groups) for mask in (labels, ~labels))
    left = total[:, None] - group_sums(wins, groups) + inner
    return total / (p.sum() * n.sum()), _ratio(left, np.broadcast_to((p.sum() - p) * (n.sum() - n), left.shape))


def recall(share: float) -> Callable[[Design, int, np.random.Generator], Outcome]:
    """Whether each positive is found, with beta-distributed chances by group (intraclass correlation as designed)."""

    def simulate(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
        _, codes, counts = np.unique(design.positive_groups, return_inverse=True, return_counts=True)
        found = found_positives(share, design, n_simulations, rng)
        low, high = proportion_bounds(group_sums(found, codes), counts)
        return outcome(low, high, share, True)

    return simulate


def found_positives(share: float, design: Design, n_simulations: int, rng: np.random.Generator) -> FloatArray:
    codes = np.unique(design.positive_groups, return_inverse=True)[1]
    chance = np.full((n_simulations, codes.max() + 1), share)
    if design.correlation:
        odds = (1 - design.correlation) / design.correlation
        chance = rng.beta(share * odds, (1 - share) * odds, size=chance.shape)
    return (rng.random((n_simulations, len(codes))) < chance[:, codes]).astype(np.float64)


def recall_by_percentiles(share: float) -> Callable[[Design, int, np.random.Generator], Outcome]:
    """What other tools do, for comparison."""

    def simulate(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
        found = found_positives(share, design, n_simulations, rng)
        weights = group_bootstrap_weights(design.positive_groups, RESAMPLES, rng)
        replicates = weights @ found.T / weights.sum(axis=1, keepdims=True)
        return outcome(*np.quantile(replicates, [0.025, 0.975], axis=0), share, False)

    return simulate


def f1_of_union(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    """F1 of a threshold that finds 70 % of the positives."""
    threshold = SHIFT - stats.norm.ppf(0.7)
    predicted = design.scores(n_simulations, rng) > threshold
    n_negative = (~design.labels).sum()
    hits = 0.7 * design.positives
    truth = hits / (design.positives + n_negative * stats.norm.sf(threshold))
    bounds = np.empty((n_simulations, 2))
    for row, prediction in enumerate(predicted):
        union = prediction | design.labels
        codes, counts = np.unique(design.groups[union], return_inverse=True, return_counts=True)[1:]
        found = np.bincount(codes, weights=(prediction & design.labels)[union])
        bounds[row] = proportion_bounds(found, counts)
    low, high = 2 * bounds.T / (1 + bounds.T)
    return outcome(low, high, 2 * truth / (1 + truth), True)


def mean_by_jackknife(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    """The mean of a moderately skewed quantity (gamma of shape 4, as distances are) over the positives."""
    values = stats.gamma.ppf(stats.norm.cdf(design.normals(n_simulations, rng)[:, design.labels]), 4)
    codes = np.unique(design.positive_groups, return_inverse=True)[1]
    means, without = mean_without_groups(values, codes)
    return outcome_of([jackknife_interval(m, w, n=len(codes)) for m, w in zip(means, without, strict=True)], 4.0)


def log_ratio_by_jackknife(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    """The ratio of two such means, of positives over negatives, on the log scale."""
    values = stats.gamma.ppf(stats.norm.cdf(design.normals(n_simulations, rng)), 4)
    means, without = [], []
    for mask in (design.labels, ~design.labels):
        sums, counts = group_sums(values * mask, design.groups), group_sums(mask.astype(np.float64), design.groups)
        means.append(sums.sum(axis=1) / counts.sum())
        left = np.broadcast_to(counts.sum() - counts, sums.shape)
        without.append(_ratio(sums.sum(axis=1, keepdims=True) - sums, left))
    ratio, ratio_without = means[0] / means[1], without[0] / without[1]
    n, scarce = len(design.labels), design.n_positive_groups
    return outcome_of(
        [
            jackknife_interval(r, w, n=n, transform="log", n_scarce=scarce)
            for r, w in zip(ratio, ratio_without, strict=True)
        ],
        1.0,
    )


def bounded_mean_by_score(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    """The mean of a quantity in [0, 1] that is often near 1, as the LRAP of an image is, over the positives."""
    values = stats.beta.ppf(stats.norm.cdf(design.normals(n_simulations, rng)[:, design.labels]), 2, 0.7)
    codes = np.unique(design.positive_groups, return_inverse=True)[1]
    means, without = mean_without_groups(values, codes)
    low, high = score_bounds(means, without, binomial_variance(effective_size(codes)))
    return outcome(low, high, 2 / 2.7, True)


def auroc_by_score(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    scores = design.scores(n_simulations, rng)
    values, without = auroc_without_groups(scores, design.labels, design.groups)
    working = auroc_variance(effective_size(design.positive_groups), effective_size(design.groups[~design.labels]))
    low, high = score_bounds(values, without, working)
    first = score_interval(values[0], without[0], working, n=1, n_scarce=design.n_positive_groups)
    return outcome(low, high, AUROC, first.reliable)


def average_precision_by_score(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    values, without = np.empty(n_simulations), np.empty((n_simulations, design.groups.max() + 1))
    for row, scores in enumerate(design.scores(n_simulations, rng)):
        order = np.argsort(scores)
        statistic = average_precision_of_sorted(design.labels[order])
        values[row] = statistic(np.ones((1, len(order))))[0]
        without[row, np.unique(design.groups[order])] = leave_one_out(statistic, design.groups[order])
    working = binomial_variance(effective_size(design.positive_groups))
    low, high = score_bounds(values, without, working)
    first = score_interval(values[0], without[0], working, n=1, n_scarce=design.n_positive_groups, min_groups=5)
    return outcome(low, high, true_average_precision(design.labels.mean()), first.reliable)


def macro_labels(design: Design) -> BoolArray:
    """Four labels (n, 4): positives of each its own where labels vary within groups, else all of the same patients."""
    if not design.varying:
        return np.repeat(design.labels[:, None], 4, axis=1)
    return np.stack([np.random.default_rng(k).permutation(design.labels) for k in range(4)], axis=1)


def macro_by_score(metric: str) -> Callable[[Design, int, np.random.Generator], Outcome]:
    """The mean of four labels' AUROC, average precision, recall or F1, whose noise shares a third of its variance."""

    def simulate(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
        labels = macro_labels(design)
        threshold = SHIFT - stats.norm.ppf(0.7)
        hits = 0.7 * design.positives
        jaccard = hits / (design.positives + (~design.labels).sum() * stats.norm.sf(threshold))
        truth = {"auroc": AUROC, "recall": 0.7, "f1": 2 * jaccard / (1 + jaccard)}[metric]
        shared = design.normals(n_simulations, rng)
        own = [design.normals(n_simulations, rng) for _ in range(4)]
        estimates = []
        for row in range(n_simulations):
            noise = np.stack([np.sqrt(1 / 3) * shared[row] + np.sqrt(2 / 3) * part[row] for part in own], axis=1)
            scores = noise + SHIFT * labels
            if metric == "auroc":
                found = macro_rank_estimates(labels, scores, design.groups)
            else:
                found = macro_threshold_estimates(labels, scores > threshold, design.groups)
            estimates.append(found[metric])
        return outcome_of(estimates, truth)

    return simulate


def ranking_by_bootstrap(
    interval: Callable[..., list[Estimate]], metric: int
) -> Callable[[Design, int, np.random.Generator], Outcome]:
    """AUROC (0) or average precision (1) by a bootstrap over groups, stratified by whether a group has a positive."""
    kernel = (auroc_of_sorted, average_precision_of_sorted)[metric]

    def simulate(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
        strata = strata_with(design.labels, design.groups)
        estimates = []
        for scores in design.scores(n_simulations, rng):
            order = np.argsort(scores)
            statistic = kernel(design.labels[order])
            estimates += interval(statistic, design.groups[order], rng=rng, n_resamples=RESAMPLES, strata=strata[order])
        return outcome_of(estimates, (AUROC, true_average_precision(design.labels.mean()))[metric])

    return simulate


def _studentised(*args: object, **kwargs: object) -> list[Estimate]:
    return studentised_bootstrap(*args, transform="logit", n_folds=12, **kwargs)  # type: ignore[arg-type]


def purity_by_folds(design: Design, n_simulations: int, rng: np.random.Generator) -> Outcome:
    """How often the nearest image outside a positive's own group is positive, leaving out each of 20 folds.

    The truth is the mean over the simulations, since purity depends on the number of images.
    """
    values, estimates = [], []
    working = binomial_variance(effective_size(design.positive_groups))
    for scores in design.scores(n_simulations, rng):
        distances = np.abs(scores[:, None] - scores)
        distances[design.groups[:, None] == design.groups] = np.inf
        folds = group_folds(design.groups, 20, rng, strata=strata_with(design.labels, design.groups))
        value = _purity(distances, design.labels, np.ones(len(folds), dtype=bool))
        without = np.array([_purity(distances, design.labels, folds != k) for k in range(20)])
        n_groups, scarce = len(np.unique(design.groups)), design.n_positive_groups
        values.append(value)
        estimates.append(
            score_interval(value, without, working, n=len(folds), n_groups=n_groups, n_scarce=scarce, min_groups=5)
        )
    return outcome_of(estimates, float(np.mean(values)))


def _purity(distances: FloatArray, labels: BoolArray, kept: BoolArray) -> float:
    rows = np.flatnonzero(kept & labels)
    return float(labels[kept][np.argmin(distances[np.ix_(rows, kept)], axis=1)].mean())


FAST: dict[str, Callable[[Design, int, np.random.Generator], Outcome]] = {
    "recall .80: Wilson or Clopper-Pearson on effective n": recall(0.8),
    "recall .95: Wilson or Clopper-Pearson on effective n": recall(0.95),
    "F1: the same, as Jaccard index": f1_of_union,
    "mean: group jackknife": mean_by_jackknife,
    "ratio of means: group jackknife, log": log_ratio_by_jackknife,
    "mean in [0, 1]: score interval": bounded_mean_by_score,
    "AUROC .85: score interval": auroc_by_score,
    "average precision: score interval": average_precision_by_score,
    "macro AUROC .85 of four labels: score interval": macro_by_score("auroc"),
    "macro recall .70 of four labels: score interval": macro_by_score("recall"),
    "macro F1 of four labels: score interval": macro_by_score("f1"),
}
"""Intervals that cost under a few milliseconds each."""

COSTLY: dict[str, Callable[[Design, int, np.random.Generator], Outcome]] = {
    "AUROC .85: studentised bootstrap, logit": ranking_by_bootstrap(_studentised, 0),
    "AUROC .85: BCa bootstrap": ranking_by_bootstrap(bca_bootstrap, 0),
    "average precision: studentised bootstrap, logit": ranking_by_bootstrap(_studentised, 1),
    "average precision: BCa bootstrap": ranking_by_bootstrap(bca_bootstrap, 1),
    "nearest-neighbour purity: score interval over 20 folds": purity_by_folds,
}

COMPARISON: dict[str, Callable[[Design, int, np.random.Generator], Outcome]] = {
    "recall .80: percentile bootstrap (for comparison)": recall_by_percentiles(0.8),
    "recall .95: percentile bootstrap (for comparison)": recall_by_percentiles(0.95),
}

DESIGNS = [
    Design(positives, correlation, varying)
    for varying in (False, True)
    for correlation in (0.0, 0.5)
    for positives in (3, 10, 50, 200)
]
