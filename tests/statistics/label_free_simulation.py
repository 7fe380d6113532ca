"""Sites drawn from populations with known labels: how often estimates without labels hold the truth there.

`analyses/label_free_coverage.py` runs the same at full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.shift.label_free import METHODS, estimate_label_free
from medvlm_probe.shift.label_free_validation import true_performance
from medvlm_probe.shift.label_shift import estimate_label_shift
from medvlm_probe.tuning.post_hoc import fit_post_hoc
from medvlm_probe.types import FloatArray, IntArray, Scores
from medvlm_probe.zero_shot.thresholds import choose_thresholds

METRICS = ("accuracy", "recall", "precision", "specificity", "overconfidence")


@dataclass(frozen=True, eq=False)
class Population:
    """All that a site could show of one label.

    Attributes:
        labels: 1 or 0, (n,).
        scores: the model's logits, (n,).
        groups: patients, codes 0 ... G - 1, (n,).
        prevalence: which images are drawn with and without the finding, each a patient of its own; None draws whole
            patients as they are.
    """

    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    groups: IntArray
    prevalence: float | None = None

    @classmethod
    def of(cls, labels: FloatArray, scores: FloatArray, groups: IntArray) -> Population:
        """Return the images whose label is known."""
        known = ~np.isnan(np.asarray(labels, dtype=np.float64))
        codes = np.unique(np.asarray(groups)[known], return_inverse=True)[1]
        return cls(np.asarray(labels, float)[known], np.asarray(scores, float)[known], codes)

    def at(self, prevalence: float) -> Population:
        """Return the same with another prevalence."""
        return replace(self, prevalence=prevalence)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Each image's share of the population, (n,)."""
        if self.prevalence is None:
            return np.full(len(self.labels), 1 / len(self.labels))
        share = self.labels.mean()
        return np.where(self.labels == 1, self.prevalence / share, (1 - self.prevalence) / (1 - share)) / len(
            self.labels
        )

    def draw(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return labels, scores and groups of n patients drawn with replacement, each draw a patient of its own."""
        if self.prevalence is not None:
            rows = rng.choice(len(self.labels), n, p=self.weights)
            return self.labels[rows], self.scores[rows], np.arange(n)
        order = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[order], np.arange(int(self.groups.max()) + 2))
        drawn = rng.integers(len(starts) - 1, size=n)
        rows = np.concatenate([order[starts[g] : starts[g + 1]] for g in drawn])
        return self.labels[rows], self.scores[rows], np.repeat(np.arange(n), np.diff(starts)[drawn])

    def truth(self, cut: float, probabilities: FloatArray) -> dict[str, float]:
        """Return the metrics of calls at a least score, over the whole population."""
        w, present, called = self.weights, self.labels == 1, self.scores >= cut
        right = float(w[present == called].sum())
        found = float(w[present & called].sum())
        confidence = np.where(called, probabilities, 1 - probabilities)
        return {
            "accuracy": right,
            "recall": found / float(w[present].sum()),
            "precision": found / float(w[called].sum()) if called.any() else float("nan"),
            "specificity": float(w[~present & ~called].sum() / w[~present].sum()),
            "overconfidence": float(w @ confidence) - right,
        }


@dataclass(frozen=True)
class Outcome:
    """One estimate of one run.

    Attributes:
        value, low, high, reliable: of the estimate.
        truth: of the whole population, at the run's threshold.
        in_sample: the truth on the run's own images, which an audit with labels holds it against.
        fits: whether the scores at the site fit a mixture of the reference's two kinds (misfit test at .05).
    """

    method: str
    metric: str
    value: float
    low: float
    high: float
    reliable: bool
    truth: float
    in_sample: float
    fits: bool

    @property
    def held(self) -> bool:
        """Whether the interval holds the population's truth."""
        return self.low <= self.truth <= self.high


def one_run(
    reference: Population,
    site: Population,
    n: tuple[int, int],
    rng: np.random.Generator,
    *,
    methods: Sequence[str] = tuple(METHODS),
) -> list[Outcome]:
    """Return all estimates of one reference and one site, as an audit makes them.

    As many of the reference's patients as are compared serve the threshold (Youden) and the calibration (logistic).

    Args:
        reference, site: populations.
        n: patients of the reference that are compared, and of the site.
        rng: draws both.
        methods: of `label_free.METHODS`.

    Returns:
        None of a method whose estimates are undefined; nothing where the reference cannot serve (no curve that rises).
    """
    y, s, _ = reference.draw(n[0], rng)
    if min(y.sum(), (1 - y).sum()) < 2:
        return []
    chosen = Scores(s[:, None], "logit", ("finding",), tuple(map(str, range(len(s)))))
    cut = choose_thresholds(chosen, y[:, None], rule="youden", source="chosen").values["finding"]
    calibrator = fit_post_hoc("platt", chosen, y[:, None], task="multi_label", source="chosen")
    if calibrator.curves[0].numbers[0] <= 0:
        return []

    def probability(scores: FloatArray) -> FloatArray:
        ids = tuple(map(str, range(len(scores))))
        return (
            calibrator.apply(Scores(np.asarray(scores)[:, None], "logit", ("finding",), ids))
            .values[:, 0]
            .astype(np.float64)
        )

    labels, own, groups = reference.draw(n[0], rng)
    site_labels, other, site_groups = site.draw(n[1], rng)
    if min(labels.sum(), (1 - labels).sum()) < 2:
        return []
    p, q, limit = probability(own), probability(other), float(probability(np.array([cut]))[0])
    found = estimate_label_free(labels, p, q, groups, site_groups, threshold=limit, rng=rng, methods=tuple(methods))
    shift = estimate_label_shift(labels, own, other, groups, site_groups, rng=rng)
    truth = site.truth(cut, probability(site.scores))
    both = 0 < site_labels.sum() < len(site_labels)
    here = true_performance(site_labels, q, site_groups, threshold=limit) if both else {}
    return [
        Outcome(
            method,
            metric,
            estimates[metric].value,
            estimates[metric].low,
            estimates[metric].high,
            estimates[metric].reliable,
            truth[metric],
            here[metric].value if here else float("nan"),
            shift.misfit_test.p_value > 0.05,
        )
        for method, estimates in found.items()
        for metric in METRICS
        if metric in estimates
    ]
