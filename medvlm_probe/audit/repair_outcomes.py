"""What repairs are worth on held-out patients: gains with intervals, corrected over repairs, and the plain sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.repair_bench import Answer
from medvlm_probe.metrics.calibration_scores import brier_terms
from medvlm_probe.metrics.classification import auroc
from medvlm_probe.metrics.gain_over_draws import gain_over_draws
from medvlm_probe.metrics.intervals import paired_mean
from medvlm_probe.metrics.macro import macro_rank_estimates, macro_threshold_estimates
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, finite_or_none

LEVEL = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a repair is worth on the site's held-out patients; `value`s are means over draws of the labelled images.

    Attributes:
        remedy: of `repairs.REMEDIES`, or `none`.
        words: as people read it.
        family: what it changes.
        n_images: images labelled at the site; 0 needs none.
        labels_used: known labels among them, those that choose strengths, epochs and thresholds included.
        n_draws: different sets of them.
        metrics: `auroc`, `balanced_accuracy` and `brier`, means over labels; the intervals of the first two are over
            held-out patients of the first draw.
        brier_gain: by how much the Brier score falls against `none`, paired; above 0 is better. The interval is over
            held-out patients and draws.
        lowest, highest: of the gain over the draws.
        p_value, p_adjusted: of no gain, two-sided; adjusted over all repairs and sizes (Holm). NaN where there is
            nothing to test.
        seconds: all draws took to fit, so long as they were not taken from a killed run.
    """

    remedy: str
    words: str
    family: str
    n_images: int
    labels_used: int
    n_draws: int
    metrics: Mapping[str, Estimate]
    brier_gain: Estimate
    lowest: float
    highest: float
    p_value: float
    p_adjusted: float = math.nan
    seconds: float = 0.0

    @property
    def helps(self) -> bool:
        """Whether a gain is shown, all repairs counted."""
        return self.p_adjusted < LEVEL and self.brier_gain.value > 0

    @property
    def harms(self) -> bool:
        """Whether a loss is shown, all repairs counted."""
        return self.p_adjusted < LEVEL and self.brier_gain.value < 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **vars(self),
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "brier_gain": self.brier_gain.to_json(),
            "p_value": finite_or_none(self.p_value),
            "p_adjusted": finite_or_none(self.p_adjusted),
            "helps": self.helps,
        }


def outcome_of(
    about: tuple[str, str, str],
    n_images: int,
    labels_used: Sequence[int],
    answers: Sequence[Answer],
    base: Sequence[Answer],
    truth: FloatArray,
    groups: IntArray,
    *,
    seconds: float = 0.0,
) -> Outcome:
    """Return what answers are worth against the base's.

    Args:
        about: remedy, words, family.
        n_images: labelled images of a draw.
        labels_used: known labels of each draw.
        answers: one a draw.
        base: one for all draws, or one a draw.
        truth: 1, 0 or NaN of the held-out images, (n, L).
        groups: patients, (n,).
        seconds: that the answers took.
    """
    before = [image_brier(answer.p, truth) for answer in base]
    after = np.array([image_brier(answer.p, truth) for answer in answers])
    gains = np.array([before[k % len(before)] - row for k, row in enumerate(after)])
    each = np.nanmean(gains, axis=1)
    gain, p_value = gain_over_draws(gains, groups)
    first = macro_rank_estimates(truth, answers[0].p, groups)["auroc"]
    decided = _balanced(truth, answers[0].called, groups)
    return Outcome(
        *about,
        n_images,
        int(np.mean(labels_used)) if len(labels_used) else 0,
        len(answers),
        {
            "auroc": _moved(first, float(np.mean([_mean_auroc(truth, answer.p) for answer in answers]))),
            "balanced_accuracy": _moved(decided, float(np.mean([_rates(truth, answer.called) for answer in answers]))),
            "brier": paired_mean(after.mean(axis=0), groups),
        },
        gain,
        float(each.min()),
        float(each.max()),
        p_value if np.nanmax(np.abs(gains)) > 0 else math.nan,
        seconds=seconds,
    )


def adjusted(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return outcomes with p-values corrected over those that were tested (Holm)."""
    tested = [place for place, outcome in enumerate(outcomes) if not math.isnan(outcome.p_value)]
    found = list(outcomes)
    if tested:
        corrected = holm(np.array([outcomes[place].p_value for place in tested]))
        for place, value in zip(tested, corrected.tolist(), strict=True):
            found[place] = replace(found[place], p_adjusted=value)
    return tuple(found)


def image_brier(p: FloatArray, y: FloatArray) -> NDArray[np.float64]:
    """Return each image's squared error, averaged over its known labels, (n,); NaN without any."""
    known = ~np.isnan(y)
    terms = np.zeros(y.shape)
    terms[known] = brier_terms(p[known], y[known])
    counts = known.sum(axis=1)
    return np.asarray(np.where(counts > 0, terms.sum(axis=1) / np.maximum(counts, 1), np.nan))


def _mean_auroc(y: FloatArray, p: FloatArray) -> float:
    return float(np.nanmean([auroc(y[:, k], p[:, k]) for k in range(y.shape[1])]))


def _rates(y: FloatArray, called: BoolArray) -> float:
    """Return the mean over labels of (recall + specificity) / 2."""
    found = [
        (float(called[y[:, k] == 1, k].mean()) + 1 - float(called[y[:, k] == 0, k].mean())) / 2
        for k in range(y.shape[1])
    ]
    return float(np.mean(found))


def _balanced(y: FloatArray, called: BoolArray, groups: IntArray) -> Estimate:
    found = macro_threshold_estimates(y, called, groups)
    recall, specificity = found["recall"], found["specificity"]
    low, high = ((getattr(recall, end) + getattr(specificity, end)) / 2 for end in ("low", "high"))
    value = (recall.value + specificity.value) / 2
    method = "mean of recall and specificity, bounds averaged (wide)"
    return Estimate(value, low, high, recall.n, recall.n_groups, method, recall.reliable and specificity.reliable)


def _moved(estimate: Estimate, value: float) -> Estimate:
    """Return the interval of one draw put around the mean over draws."""
    by = value - estimate.value
    low, high = max(0.0, estimate.low + by), min(1.0, estimate.high + by)
    return Estimate(value, low, high, estimate.n, estimate.n_groups, estimate.method, estimate.reliable)
